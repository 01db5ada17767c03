"""Training under a scheduler: signals save, SIGKILL loses little, whatever happens the weights end the same, and two runs never share an output.

usage: test_survive.py [--seed N] [--kills N]
"""
import argparse, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, samples_base

import h5py

check = Checks()
EVERY = 2


def read(path):
    """Every tensor and the hash of a checkpoint, and its training notes."""
    tensors = {}
    with h5py.File(path) as f:
        f.visititems(lambda name, item: tensors.__setitem__(name, item[()].tobytes()) if isinstance(item, h5py.Dataset) else None)
        tensors["content"] = f.attrs["content_sha256"]
        return tensors, json.loads(f["training"][0])


def steps_in(metrics):
    try:
        return [json.loads(line)["step"] for line in open(metrics) if line.endswith("\n")]
    except OSError:
        return []


class Runs:
    """Runs of one training, to different outputs."""

    def __init__(self, folder, epochs):
        self.folder = folder
        self.base = samples_base(folder, hidden=16, layers=1, intermediate=32)
        rows = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]][:12]
        self.data = self.path("data.jsonl")
        open(self.data, "w", encoding="utf-8").writelines(rows)
        # an epoch is a few steps, so that stops often meet its end
        self.options = ["--base", self.base, "--data", self.data, "--dev", self.data, "--epochs", epochs, "--batch-size", "4", "--lr", "3e-3",
                        "--threads", "1", "--log-every", "1", "--checkpoint-every", EVERY]

    def path(self, name): return os.path.join(self.folder, name)

    def start(self, name, *more):
        return subprocess.Popen([BIN + "/skillwatch-train", "ner", *map(str, self.options), "-o", self.path(name + ".h5"), *map(str, more)],
                                stderr=subprocess.PIPE, text=True)

    def finish(self, name, *more):
        run = self.start(name, *more)
        error = run.communicate(timeout=300)[1]
        check(run.returncode == 0, f"{name} {more}: {run.returncode} {error[-400:]}")
        return error

    def wait(self, run, name, step):
        """Until the run has done `step` steps; False where it ended before."""
        while run.poll() is None and max(steps_in(self.path(name + ".metrics.jsonl")), default=0) < step: time.sleep(0.002)
        return run.poll() is None

    def same(self, name, what):
        for ending in (".h5", ".last.h5"):
            check(read(self.path(name + ending)) == read(self.path("whole" + ending)), f"{what}: {name}{ending} is not what the uninterrupted run wrote")
        lines = lambda n: [{k: v for k, v in json.loads(l).items() if k != "tokens_per_second"} for l in open(self.path(n + ".metrics.jsonl"))]
        check(lines(name) == lines("whole"), f"{what}: another metrics file")


def signals(runs, rng, total):
    """SIGTERM, SIGINT, SIGUSR1: a checkpoint of the step that was under way, and status 75; also where an epoch ends."""
    stops = {}
    for attempt in range(200):
        goal = max(steps_in(runs.path("stopped.metrics.jsonl")), default=0) + rng.randint(1, 3)
        run = runs.start("stopped", "--resume")
        sent = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[attempt % 3]
        if runs.wait(run, "stopped", goal): run.send_signal(sent)
        error = run.communicate(timeout=300)[1]
        if run.returncode == 0: break
        if not check(run.returncode == 75 and "go on with --resume" in error.splitlines()[-1], f"{sent}: {run.returncode} {error[-300:]}"): break
        stops[sent] = stops.get(sent, 0) + 1
        at = read(runs.path("stopped.last.h5"))[1]["position"]["step"]
        check(at == max(steps_in(runs.path("stopped.metrics.jsonl"))), f"{sent}: nothing that was done is lost")
    check(len(stops) == 3, f"every signal was tried: {stops}")
    runs.same("stopped", f"{sum(stops.values())} signals")
    fifo = runs.path("fifo.jsonl")
    os.mkfifo(fifo)
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1): # while the data is still read
        run = subprocess.Popen([BIN + "/skillwatch-train", "ner", "--base", runs.base, "--data", fifo, "-o", runs.path("early.h5")], stderr=subprocess.PIPE, text=True)
        with open(fifo, "w"):
            run.send_signal(sent)
            error = run.communicate(timeout=60)[1]
        check(run.returncode == 75 and error == "skillwatch: stopped before training began\n", f"early {sent}: {run.returncode} {error!r}")
    return sum(stops.values())


def kills(runs, rng, total, count):
    """SIGKILL at random moments, also at the start and in the middle of writing."""
    done, goal, most_lost = 0, 0, 0
    while done < count:
        run = runs.start("killed", "--resume", "--keep", "2")
        goal = max(goal, (done + 1) * total / (count + 1))
        if rng.random() < 0.9: runs.wait(run, "killed", goal)
        time.sleep(rng.random() * 0.03)
        if run.poll() is not None: break
        run.kill()
        error = run.communicate()[1]
        if not check(run.returncode == -signal.SIGKILL, f"killed: {run.returncode} {error[-300:]}"): break
        done += 1
        last = runs.path("killed.last.h5")
        saved = read(last)[1]["position"]["step"] if os.path.exists(last) else 0
        lost = max(steps_in(runs.path("killed.metrics.jsonl")), default=0) - saved
        most_lost = max(most_lost, lost)
        check(lost <= EVERY, f"{lost} steps are lost, {EVERY} at most were promised")
        check(len(kept(runs, "killed")) <= 2, f"--keep 2 keeps {kept(runs, 'killed')}")
    check(done >= min(count, 3) and done >= count * 0.9, f"only {done} of {count} kills met a running training: it needs more epochs")
    runs.finish("killed", "--resume", "--keep", "2", "--quiet")
    runs.same("killed", f"{done} kills")
    left = [n for n in os.listdir(runs.folder) if n.startswith("killed") and n not in
            ("killed.h5", "killed.last.h5", "killed.metrics.jsonl", *(f"killed.step-{s}.h5" for s in kept(runs, "killed")))]
    check(not left, f"left behind: {left}")
    print(f"{done} kills in {total} steps, at most {most_lost} steps lost each: the same weights and metrics at the end")


def kept(runs, name):
    names = [n for n in os.listdir(runs.folder) if n.startswith(name + ".step-") and n.endswith(".h5")]
    return sorted(int(n[len(name) + 6:-3]) for n in names)


def keep(runs, total):
    runs.finish("kept", "--keep", "3", "--quiet")
    steps = kept(runs, "kept")
    check(len(steps) == 3 and steps[-1] == total and all(read(runs.path(f"kept.step-{s}.h5"))[1]["position"]["step"] == s for s in steps), f"--keep 3: {steps}")
    check(os.path.samefile(runs.path(f"kept.step-{total}.h5"), runs.path("kept.last.h5")), "the newest takes no room of its own")
    subprocess.run(["ln", "-f", runs.path(f"kept.step-{steps[0]}.h5"), runs.path("kept.last.h5")], check=True)  # back to the oldest
    check(read(runs.path(f"kept.step-{total}.h5"))[1]["position"]["step"] == total, "the newest is as it was")
    error = runs.finish("kept", "--keep", "3", "--resume")
    check(f"resumed after step {steps[0]}" in error and kept(runs, "kept") == steps, f"{error} {kept(runs, 'kept')}")
    runs.same("kept", "back to an older checkpoint")
    first = runs.path(f"kept.step-{steps[0]}.h5")
    check.refused(program("train", "ner", *runs.options, "--base", first, "-o", runs.path("kept.h5"), "--force"), "is the input", "a base that would be removed", (2,))
    os.unlink(runs.path("kept.last.h5"))
    check.refused(program("train", "ner", *runs.options, "-o", runs.path("kept.h5"), "--resume"), "kept.last.h5 is missing", "no last checkpoint", (1,))
    check.refused(program("train", "ner", *runs.options, "-o", runs.path("kept.h5"), "--keep", "-1"), "--keep", "a wrong number", (2,))
    # killed between the first best checkpoint and the first last one: this run's own best one is no obstacle, another's is
    shutil.copy(runs.path("whole.h5"), runs.path("first.h5"))
    check.refused(program("train", "ner", *runs.options, "--seed", "9", "-o", runs.path("first.h5"), "--resume"), "hyper_parameters", "another run's output", (1,))
    runs.finish("first", "--resume")
    runs.same("first", "with nothing but the best checkpoint")


def lock(runs):
    """The second run says who is there; a lock of a dead process is none."""
    run = runs.start("locked")
    check(runs.wait(run, "locked", 1), "the first run runs")
    run.send_signal(signal.SIGSTOP)
    for more in ((), ("--resume",), ("--force",)):
        done = program("train", "ner", *runs.options, "-o", runs.path("locked.h5"), *more)
        check.refused(done, f"pid {run.pid} on {socket.gethostname()} since 20", f"two runs {more}", (75,))
        check(len(done.stderr.splitlines()) == 1 and "locked.lock" in done.stderr and "another -o" in done.stderr, done.stderr)
    run.kill()
    run.communicate()
    check(os.path.exists(runs.path("locked.lock")), "what a killed run leaves")
    runs.finish("locked", "--resume")
    runs.same("locked", "after a stale lock")
    check(not os.path.exists(runs.path("locked.lock")), "a run that ends takes its lock away")
    # many at once: one of them trains, the others see it
    crowd = [runs.start("crowd", "--quiet") for _ in range(4)]
    ends = [(r.communicate(timeout=300)[1], r.returncode) for r in crowd]
    trained = [r for r in ends if r[1] == 0]
    check(len(trained) == 1 and all(r[1] == 75 or (r[1] == 1 and "exists already" in r[0]) for r in ends if r not in trained), f"four at once: {ends}")
    runs.same("crowd", "four at once")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kills", type=int, default=8)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(folder, max(12, options.kills))
        runs.finish("whole", "--quiet")
        total = max(steps_in(runs.path("whole.metrics.jsonl")))
        stopped = signals(runs, rng, total)
        print(f"{stopped} signals in {total} steps: the same weights and metrics at the end")
        kills(runs, rng, total, options.kills)
        keep(runs, total)
        lock(runs)
    check.close()


if __name__ == "__main__":
    main()
