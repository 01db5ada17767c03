"""Barrier mutation: every barrier, warp operation and wait for async copies in the CUDA kernels is taken out in turn (the emulator does so
where SW_CUDA_EMULATOR_SKIP names its place, which saves a build for each), and the operators' tests must notice. A place that no test reaches, or
whose removal no test notices, survives: a case is missing, or the barrier is needless.

usage: test_barriers.py [--all | --part K/N] [PLACE ...]      without arguments: the part of the day (one of eight)
A removed shuffle leaves each lane its own value; a removed barrier or wait does nothing. Places that are meant to survive are listed in KEPT with the reason.
A test that takes three times the processor time that it takes without mutation (at least 30 s) hangs: that is noticed, too.
"""
import argparse, concurrent.futures, datetime, glob, os, re, resource, subprocess, sys, tempfile, threading

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
TESTS = os.environ.get("SW_TESTS_BIN", os.path.join(ROOT, "build/release/tests"))
SITE = re.compile(r"\b(__syncthreads|__syncwarp|__shfl(?:_xor|_up|_down)?_sync|__ballot_sync|__any_sync|__all_sync|sw_async_wait<\d+>)\s*\(")
KEPT = {  # "kernels/x/cuda.cu:TEXT", the start of the line: reason
    "kernels/neighbours/cuda.cu:sw_async_wait<0>();": "emulated copies that nobody waits for leave NaN, and a tile with NaN is computed in fp32: slower, but right"}
PARTS = 8  # a minute or so each

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--all", action="store_true"), ap.add_argument("--part", metavar="K/N"), ap.add_argument("places", nargs="*")
a = ap.parse_args()

sources, includes = {}, {}  # place -> text; file -> files
for path in sorted(glob.glob(ROOT + "/kernels/*/*.cu") + glob.glob(ROOT + "/kernels/*/*.cuh")):
    name, inside = os.path.relpath(path, ROOT), not path.endswith("cuda/cuda.cuh")  # there, what stands before the launches is the real instructions' wrappers
    lines = open(path).read().split("\n")
    includes[name] = {line.split('"')[1] for line in lines if line.startswith('#include "')}
    for number, line in enumerate(lines, 1):
        if not inside and line.startswith("/* --- launches"): inside = True
        code = line.split("//")[0]
        if inside and SITE.search(code) and not code.lstrip().startswith(("*", "/*")): sources[f"{name}:{number}"] = line.strip()


def tests_of(file):
    """Of the operators that the file is part of, its own first."""
    users = {file}
    while more := {f for f in includes if f not in users and includes[f] & users}: users |= more
    folders = sorted({os.path.dirname(u) for u in users}, key=lambda d: (d != os.path.dirname(file), d))
    tests = [t for d in folders for t in sorted(glob.glob(f"{TESTS}/test-kernels-{os.path.basename(d)}*"))]
    return [t for t in tests if not t.endswith("_numerics")]


def run(test, seconds, **more):
    """Whether the test passed, and the processor time that it took."""
    env = dict(os.environ, SW_TEST_BACKEND="cuda-emulated", SKILLWATCH_MODULES=TESTS + "/modules", SW_TEST_STOP="1", **more)
    env.setdefault("SW_TEST_SEED", "20261122")
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    process = subprocess.Popen([test], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=limit)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode == 0, used.ru_utime + used.ru_stime


whole = {t: [threading.Lock()] for f in includes for t in tests_of(f)}  # then the limit, and the places that the test reaches


def without_mutation(test):
    with whole[test][0]:
        if len(whole[test]) == 1:
            with tempfile.NamedTemporaryFile() as sites:
                ok, seconds = run(test, 3600, SW_CUDA_EMULATOR_SITES=sites.name)
                whole[test] += [max(30, int(3 * seconds)), {line.split(" ")[0] for line in open(sites.name)}]
            if not ok: raise SystemExit(f"{os.path.basename(test)} fails without any mutation")
    return whole[test][1:]


def survives(place):
    verdict = "no test reaches it"
    for test in tests_of(place.split(":")[0]):
        limit, reached = without_mutation(test)
        if place not in reached: continue
        verdict = "no test notices"
        ok, seconds = run(test, limit, SW_CUDA_EMULATOR_SKIP=place)
        if not ok:
            print(f"{place}: {sources[place][:90]}: noticed by {os.path.basename(test)} in {seconds:.0f} s", flush=True)
            return False
    kept = next((k for k in KEPT if (place.split(":")[0] + ":" + sources[place]).startswith(k)), None)
    print(f"{place}: {sources[place][:90]}: {'kept: ' + KEPT[kept] if kept else 'SURVIVES: ' + verdict}", flush=True)
    return not kept


places = sorted(sources, key=lambda p: (p.split(":")[0], int(p.split(":")[1])))
if unknown := set(a.places) - set(places): sys.exit(f"no barrier or warp operation at {', '.join(sorted(unknown))}")
if a.places: places = [p for p in places if p in a.places]
elif not a.all:  # neighbours, which have tests in common
    k, n = map(int, a.part.split("/")) if a.part else (datetime.date.today().toordinal() % PARTS, PARTS)
    places = places[len(places) * (k % n) // n:len(places) * (k % n + 1) // n]
with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool: survivors = sum(pool.map(survives, places))
print(f"{len(places)} of {len(sources)} places, {survivors} survivors")
sys.exit(1 if survivors or not places else 0)
