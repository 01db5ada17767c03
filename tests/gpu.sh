#!/usr/bin/env bash
# Everything that only a GPU can show: the operators' tests on it, NVIDIA's sanitizers, whole runs beside the CPU and PyTorch, and speed.
#   tests/gpu.sh                          builds here, then runs all of it: results in build/gpu/results.json
#   tests/gpu.sh pack FOLDER              collects what a machine with a GPU needs into FOLDER, and FOLDER.tar.xz (60 MiB at most)
#   tests/gpu.sh run FOLDER OUT.json …    there: runs it, writes one JSON; exit status 1 where something failed. FOLDER may be the archive.
#                                         --help lists the options; --device cuda-emulated tries all of it without a GPU
# The machine with the GPU needs a driver, libcublasLt.so.13 or .12, and Python 3; no network, no compiler, no packages. Where its C library is
# older than this one's, the programs are started with the one that was packed. compute-sanitizer, PyTorch and transformers are used where they are.
# pack takes: SW_BUILD, the build folder (build/release); SW_CUDA_MODULE, the module ($SW_BUILD/modules/skillwatch_cuda.so); SW_SHARED, a
# folder with bench/peers and the data they read (shared or ../shared; left out where there is none).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
fail() { printf 'gpu: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }

base='^(ld-linux.*|libc|libm|librt|libpthread|libdl|libresolv|libutil|libstdc\+\+|libgcc_s)\.so'

collect() { # folder
  local folder=$1 build=${SW_BUILD:-$root/build/release} module shared file name
  module=${SW_CUDA_MODULE:-$build/modules/skillwatch_cuda.so}
  shared=${SW_SHARED:-$root/shared}
  [ -d "$shared" ] || shared=$root/../shared
  [ -e "$module" ] || fail "$module is not there: build it where nvcc is (README.md, GPUs), or name one in SW_CUDA_MODULE"
  [ -x "$build/tests/tool-cast_checkpoint" ] || fail "$build has no programs and tests: cmake --preset release && cmake --build --preset release"
  [ ! -e "$folder" ] || [ -e "$folder/package.json" ] || [ -z "$(ls -A "$folder")" ] || fail "$folder holds something else: give a new folder"
  rm -rf "$folder"
  mkdir -p "$folder"/{programs,modules,lib,libc,tests/gpu,tests/parity,samples}
  cp "$build"/bin/skillwatch* "$build"/tests/test-kernels-* "$build"/tests/tool-{model_dump,cast_checkpoint} "$folder/programs/"
  cp "$module" "$folder/modules/skillwatch_cuda.so"
  cp "$build/tests/modules/skillwatch_cuda_emulated.so" "$folder/modules/"
  strip "$folder"/programs/* "$folder"/modules/*
  while read -r name file; do
    if [[ $name =~ $base ]]; then cp -L "$file" "$folder/libc/$name"; else cp -L "$file" "$folder/lib/$name"; fi
  done < <(ldd "$folder"/programs/* "$folder"/modules/* |
    sed -nE 's|^\s*(\S+) => (/\S+) \(.*|\1 \2|p; s|^\s*/\S*/(ld-linux\S*) \(.*|\1 /lib64/\1|p' | grep -v libcublas | sort -u)
  for name in libdl.so.2 libpthread.so.0 librt.so.1; do # of the driver's libraries
    [ -e "$folder/libc/$name" ] || cp -L "$(dirname "$(gcc -print-file-name=libc.so.6)")/$name" "$folder/libc/$name"
  done
  SW_BIN=$build/bin "$root/tools/minilm" "$folder.minilm.h5"
  "$build/tests/tool-cast_checkpoint" bf16 "$folder.minilm.h5" "$folder/minilm.h5"
  rm "$folder.minilm.h5"
  cp -r "$root/samples/labels" "$root/samples/titles.csv" "$folder/samples/"
  cp "$here/gpu.sh" "$folder/tests/"
  cp "$here/gpu/run.py" "$folder/tests/gpu/"
  cp "$here/parity/test_model.py" "$folder/tests/parity/"
  if [ -d "$shared/bench/peers" ]; then
    mkdir -p "$folder/shared/data/onet" "$folder/shared/data/skillspan" "$folder/shared/data/in-demand"
    cp -r "$shared/bench" "$folder/shared/"
    cp "$shared/data/onet/All_Occupations.csv" "$folder/shared/data/onet/"
    cp "$shared"/data/skillspan/{train,dev}.json "$folder/shared/data/skillspan/"
    cp -r "$shared/data/in-demand/job-postings" "$folder/shared/data/in-demand/"
    chmod -R u+w "$folder/shared"
    name=$("${SW_PYTHON:-python3}" -c 'import os, seqeval; print(os.path.dirname(seqeval.__file__))' 2>/dev/null || true)
    [ -z "$name" ] || cp -r "$name" "$folder/shared/seqeval" # the peers' scores; plain Python
  fi
  printf '{"commit": "%s", "module": "%s", "glibc": "%s"}\n' "$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)" \
    "$(strings -a "$folder/modules/skillwatch_cuda.so" | grep -oE '^CUDA [0-9.]+' | sed -n 1p)" \
    "$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)" >"$folder/package.json"
}

case "${1:-}" in
  pack)
    [ $# -eq 2 ] || usage
    folder=${2%/}
    collect "$folder"
    tar -C "$folder" -cf - . | xz -T 2 -6 >"$folder.tar.xz"
    bytes=$(stat -c %s "$folder.tar.xz")
    [ "$bytes" -le $((60 << 20)) ] || fail "$folder.tar.xz has $((bytes >> 20)) MiB, more than 60"
    printf '%s: %s MiB, %s.tar.xz: %s MiB\n' "$folder" "$(du -sm "$folder" | cut -f1)" "$folder" $((bytes >> 20))
    ;;
  run)
    [ $# -ge 3 ] || [ "${2:-}" = --help ] || usage
    command -v python3 >/dev/null || fail "python3 is needed"
    shift
    if [ -f "$1" ]; then
      unpacked=$(mktemp -d)
      trap 'rm -rf "$unpacked"' EXIT
      tar -C "$unpacked" -xJf "$1" || fail "$1 cannot be unpacked (xz is needed)"
      python3 "$unpacked/tests/gpu/run.py" "$unpacked" "${@:2}"
    else
      python3 "$here/gpu/run.py" "$@"
    fi
    ;;
  '')
    build=${SW_BUILD:-$root/build/release}
    cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSW_CUDA=ON
    cmake --build "$build"
    mkdir -p "$root/build/gpu"
    collect "$root/build/gpu/package"
    python3 "$here/gpu/run.py" "$root/build/gpu/package" "$root/build/gpu/results.json"
    ;;
  *) usage ;;
esac
