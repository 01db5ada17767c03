"""Barrier mutation: every barrier, warp operation and wait for async copies in the CUDA kernels is taken out in turn (the emulator does so
where SW_CUDA_EMULATOR_SKIP names its place, which saves a build for each), and the operators' tests must notice. A place that no test reaches, or
whose removal no test notices, survives: a case is missing, or the barrier is needless.

usage: test_barriers.py [--all | --part K/N] [PLACE ...]      without arguments: the part of the day (one of eight)
A removed shuffle leaves each lane its own value; a removed barrier or wait does nothing. Places that are meant to survive are listed in KEPT with the reason.
"""
import argparse, datetime, glob, os, re, subprocess, sys, tempfile, time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
TESTS = os.environ.get("SW_TESTS_BIN", os.path.join(ROOT, "build/release/tests"))
SITE = re.compile(r"\b(__syncthreads|__syncwarp|__shfl(?:_xor|_up|_down)?_sync|__ballot_sync|__any_sync|__all_sync|sw_async_wait<\d+>)\s*\(")
KEPT = {}  # "kernels/x/cuda.cu": reason, or "kernels/x/cuda.cu:LINE TEXT"
LIMIT = 900  # seconds for one test

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--all", action="store_true"), ap.add_argument("--part", metavar="K/N"), ap.add_argument("places", nargs="*")
a = ap.parse_args()

sources = {}  # place -> text
for path in sorted(glob.glob(ROOT + "/kernels/*/*.cu") + glob.glob(ROOT + "/kernels/*/*.cuh")):
    inside = not path.endswith("cuda/cuda.cuh")  # there, what stands before the launches is the real instructions' wrappers
    for number, line in enumerate(open(path), 1):
        if not inside and line.startswith("/* --- launches"): inside = True
        code = line.split("//")[0]
        if inside and SITE.search(code) and not code.lstrip().startswith(("*", "/*")):
            sources[f"{os.path.relpath(path, ROOT)}:{number}"] = line.strip()

env = dict(os.environ, SW_TEST_BACKEND="cuda-emulated", SKILLWATCH_MODULES=TESTS + "/modules", SW_TEST_SEED=os.environ.get("SW_TEST_SEED", "20261122"))


def run(test, **more):
    """True: the test passed; and the seconds it took."""
    start = time.time()
    try:
        ok = subprocess.run([test], env={**env, **more}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT).returncode == 0
    except subprocess.TimeoutExpired:
        ok = False  # it hangs: that is noticed, too
    return ok, time.time() - start


reached, seconds = {}, {}  # place -> tests
for test in sorted(glob.glob(TESTS + "/test-kernels-*")):
    if test.endswith("_numerics"): continue
    with tempfile.NamedTemporaryFile() as sites:
        ok, seconds[test] = run(test, SW_CUDA_EMULATOR_SITES=sites.name)
        if not ok: sys.exit(f"{os.path.basename(test)} fails without any mutation")
        for line in open(sites.name):
            reached.setdefault(line.split(" ")[0], []).append(test)

places = sorted(sources)
if a.places: places = [p for p in places if p in a.places]
elif not a.all:
    k, n = map(int, a.part.split("/")) if a.part else (datetime.date.today().toordinal() % 8, 8)
    places = places[k % n::n]
survivors = []
for place in places:
    tests = sorted(reached.get(place, []), key=seconds.get)
    killer = next((t for t in tests if not run(t, SW_CUDA_EMULATOR_SKIP=place)[0]), None)
    verdict = "noticed by " + os.path.basename(killer) if killer else "SURVIVES: " + ("no test notices" if tests else "no test reaches it")
    if not killer and not any(place.startswith(k) for k in KEPT): survivors.append(place)
    print(f"{place}: {sources[place][:90]}: {verdict}", flush=True)
print(f"{len(places)} of {len(sources)} places, {len(survivors)} survivors")
sys.exit(1 if survivors or not sources else 0)
