#!/usr/bin/env bash
# Builds the CUDA module where no CUDA toolkit is installed, with the one that `tools/setup --cuda` brings. Any toolkit of this machine is
# hidden for the time (in a mount namespace of its own, so this runs as root). It downloads 530 MB and compiles for minutes.
#   tests/cuda_without_toolkit.sh [FOLDER]     FOLDER (by default a temporary one) keeps the toolkit and the build for the next time
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { printf 'cuda_without_toolkit: %s\n' "$*" >&2; exit 1; }
if [ -z "${SW_NAMESPACE:-}" ]; then
  [ "$(id -u)" -eq 0 ] || fail "hiding the machine's toolkit needs root"
  work=${1:-$(mktemp -d)}
  mkdir -p "$work"
  [ $# -gt 0 ] || trap 'rm -rf "$work"' EXIT
  SW_NAMESPACE=1 unshare -m --propagation private "$0" "$(realpath "$work")"
  exit
fi
work=$1 began=$SECONDS
unset CUDACXX CUDA_PATH CUDA_HOME LD_LIBRARY_PATH
export PATH=/usr/sbin:/usr/bin:/sbin:/bin XDG_CACHE_HOME=$work/cache
for folder in /usr/local/cuda*/; do
  [ -d "$folder" ] && mount -t tmpfs none "$(realpath "$folder")"
done
if command -v nvcc; then fail "nvcc is still found"; fi

configure() { cmake -S . -B "$work/build" -G Ninja -DSW_TESTS=OFF "$@" >"$work/configure.txt" 2>&1; }
say() { printf '%s (%d s)\n' "$*" $((SECONDS - began)); }
if [ ! -e "$XDG_CACHE_HOME/skillwatch/cuda/made-from" ]; then
  rm -rf "$work/build"
  if configure -DSW_CUDA=ON; then fail "SW_CUDA=ON succeeded without a toolkit"; fi
  tr -s '\n ' ' ' <"$work/configure.txt" | grep -q 'tools/setup --cuda' || fail "SW_CUDA=ON does not say what to do: $(cat "$work/configure.txt")"
  rm -rf "$work/build"
  configure || fail "without a toolkit: $(cat "$work/configure.txt")"
  grep -q 'no CUDA toolkit .*building for the CPU only' "$work/configure.txt" || fail "nothing is said: $(cat "$work/configure.txt")"
  say "without a toolkit: said so"
fi
tools/setup --cuda --toolkit
say "toolkit"
configure || fail "the same folder again, with a toolkit: $(cat "$work/configure.txt")"
grep -q "building the CUDA module ($XDG_CACHE_HOME" "$work/configure.txt" || fail "the toolkit was not taken: $(cat "$work/configure.txt")"
cmake --build "$work/build" --target skillwatch_cuda >"$work/build.txt" 2>&1 || { tail -n 40 "$work/build.txt" >&2; fail "the build failed"; }
module=$work/build/modules/skillwatch_cuda.so
[ "$(nm -D --defined-only "$module" | awk '{print $3}')" = sw_backend_module ] || fail "the module exports $(nm -D --defined-only "$module")"
readelf -d "$module" | grep RUNPATH | grep -qF "$XDG_CACHE_HOME" || fail "the module does not look for cuBLASLt in the toolkit: $(readelf -d "$module")"
missing=$(ldd -r "$module" 2>&1 | sed -n 's/^undefined symbol: \(\S*\).*/\1/p' | grep -vxE 'sw_fail|sw_error' || true)
[ -z "$missing" ] || fail "not resolved: $missing"
say "built: $module, $(stat -c %s "$module") bytes"
