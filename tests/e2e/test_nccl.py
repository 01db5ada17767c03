"""Training in several processes, each with an (emulated) GPU: gradients go from device to device while backward goes on, with the losses of one process,
the same bits in every run and by way of the host. usage: test_nccl.py [name ...]"""
import json, os, shutil, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, samples_base, weights

if not shutil.which("mpirun"):
    print("skipped: mpirun is not there (apt-get install openmpi-bin)")
    sys.exit(77)
mpi = os.path.join(os.environ.get("SW_MPI_MODULES", os.path.join(os.path.abspath(BIN), "../modules")), "skillwatch_mpi.so")
if not os.path.exists(mpi):
    print("skipped: the program was built without OpenMPI (apt-get install libopenmpi-dev)")
    sys.exit(77)
emulated = os.path.abspath(os.path.join(os.environ.get("SW_TESTS_BIN", "build/release/tests"), "modules/skillwatch_cuda_emulated.so"))
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
check = Checks()
BY_HOST = "gradients go from process to process by way of the host"


class Runs:
    def __init__(self, folder):
        self.folder = folder
        self.modules = self.path("modules")
        os.makedirs(self.modules)
        for module in (mpi, emulated): os.symlink(os.path.abspath(module), os.path.join(self.modules, os.path.basename(module)))
        self.base = samples_base(folder, hidden=16, layers=2, intermediate=32)
        self.data = self.path("data.jsonl")
        labelled = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]]
        open(self.data, "w", encoding="utf-8").writelines(sorted(labelled, key=len)[:24])

    def path(self, name): return os.path.join(self.folder, name)

    def program(self, task, name, *more):
        return [BIN + "/skillwatch-train", task, "--base", self.base, "--data", self.data, "--dev", self.data, "--device", "cuda-emulated", "--dtype", "fp32",
                "--threads", "1", "--lr", "3e-3", "--log-every", "1", "--epochs", "2", "-o", self.path(name + ".h5"), *more]

    def train(self, launch, name, task="ner", *more, status=0, **env):
        """launch: how many processes of each kind, with variables and options of their own."""
        args = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"] if launch else self.program(task, name, *more)
        for n, (count, own, *options) in enumerate(launch):
            args += ([":"] if n else []) + ["-np", str(count), "env", *own, *self.program(task, name, *more), *options]
        done = subprocess.run(args, capture_output=True, text=True, timeout=600, env={**os.environ, "SKILLWATCH_MODULES": self.modules, **env})
        check(done.returncode == status and "Sanitizer" not in done.stderr, f"{name}: {done.returncode} {done.stderr[-800:]}")
        return done.stderr

    def losses(self, name):
        return [(m["step"], m["loss"]) for m in map(json.loads, open(self.path(name + ".metrics.jsonl"))) if "loss" in m]


def test_losses(runs):
    """Whatever a step is made of: the losses of one process; and the bits of sums by way of the host."""
    ways = {"sentences": ("ner", "--batch-size=8"), "accumulated": ("ner", "--batch-size=4", "--accumulate=2"), "mlm": ("mlm", "--batch-size=8")}
    for way, (task, *more) in ways.items():
        runs.train((), f"{way} 1", task, *more)
        want = runs.losses(f"{way} 1")
        log = runs.path(way + ".log")
        error = runs.train([(2, [])], f"{way} 2", task, *more, SW_CUDA_EMULATOR_NCCL_LOG=log)
        got = runs.losses(f"{way} 2")
        apart = max((abs(a[1] - b[1]) for a, b in zip(got, want)), default=9)
        check(len(want) >= 5 and [s for s, _ in got] == [s for s, _ in want] and apart <= 1e-5, f"{way}: losses are {apart:g} apart: {got} {want}")
        check(BY_HOST not in error and error.count("2 processes, each ") == 1, f"{way}: {error}")
        sent = sorted(tuple(map(int, l.split())) for l in open(log))
        # at least two buckets a step, each a message out and one back, and the gradients' bytes in half as many elements each way
        check([s[0] for s in sent] == [0, 1] and all(s[1] >= 4 * len(want) for s in sent), f"{way}: rank, messages, bytes: {sent}")
        error = runs.train([(2, [])], f"{way} host", task, *more, SW_CUDA_EMULATOR_NCCL="off", SW_CUDA_EMULATOR_ORDER="random:3")
        check(error.count(BY_HOST) == 1 and "libnccl.so.2" in error, f"{way}: one line says that there is no NCCL: {error}")
        check(weights(runs.path(f"{way} host.last.h5")) == weights(runs.path(f"{way} 2.last.h5")), f"{way}: the bits of sums by way of the host")
        print(f"{way}: {len(got)} steps, losses at most {apart:g} apart, messages and bytes {sent}")


def test_three(runs):
    """Shares of unequal size, and work that goes out piece by piece instead of as graphs."""
    runs.train((), "three 1", "ner", "--batch-size=9")
    for name, env in (("three 3", {}), ("three again", {"SKILLWATCH_CUDA_GRAPHS": "off", "SW_CUDA_EMULATOR_ORDER": "reversed"})):
        runs.train([(3, [])], name, "ner", "--batch-size=9", **env)
    apart = max(abs(a[1] - b[1]) for a, b in zip(runs.losses("three 1"), runs.losses("three 3")))
    check(apart <= 1e-5, f"three processes: losses are {apart:g} apart")
    check(weights(runs.path("three 3.last.h5")) == weights(runs.path("three again.last.h5")), "the same bits again, without graphs and in another order of threads")


def test_one_without(runs):
    """Where one process has no NCCL, none uses it."""
    log = runs.path("one.log")
    error = runs.train([(1, []), (1, ["SW_CUDA_EMULATOR_NCCL=off"])], "one", "ner", "--batch-size=8", SW_CUDA_EMULATOR_NCCL_LOG=log)
    check(error.count(BY_HOST) == 1 and "libnccl.so.2" in error and not os.path.exists(log), f"one process without NCCL: {error}")
    error = runs.train([(1, []), (1, [], "--device", "cpu")], "mixed", "ner", "--batch-size=8", status=1)
    check("differ in 'device'" in error, f"one process on the CPU is refused, and nobody waits for it: {error}")


with tempfile.TemporaryDirectory() as tmp:
    runs = Runs(tmp)
    for name, test in [(n, f) for n, f in list(globals().items()) if n.startswith("test_")]:
        if len(sys.argv) > 1 and name not in sys.argv[1:]: continue
        start = time.time()
        test(runs)
        print(f"{name}: {time.time() - start:.1f} s", flush=True)
check.close()
