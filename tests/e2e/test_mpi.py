"""Training in several processes under mpirun: the losses of one process at every step, the same bits in every run with as many processes, stops,
deaths and what cannot be dealt out. usage: test_mpi.py [name ...]"""
import collections, csv, json, os, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, read_json, samples_base, weights

if not shutil.which("mpirun"):
    print("skipped: mpirun is not there (apt-get install openmpi-bin)")
    sys.exit(77)
os.environ["SKILLWATCH_MODULES"] = os.environ.get("SW_MPI_MODULES", os.path.join(os.path.abspath(BIN), "../modules"))
if not os.path.exists(os.path.join(os.environ["SKILLWATCH_MODULES"], "skillwatch_mpi.so")):
    print("skipped: the program was built without OpenMPI (apt-get install libopenmpi-dev)")
    sys.exit(77)
# under sanitizers: what MPI's libraries keep is not ours
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
check = Checks()
EVERY = 3


class Runs:
    def __init__(self, folder):
        self.folder = folder
        self.base = samples_base(folder, hidden=16, layers=2, intermediate=32)
        labelled = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]]
        self.data, self.dev, self.texts = self.path("data.jsonl"), self.path("dev.jsonl"), self.path("texts.jsonl")
        open(self.data, "w", encoding="utf-8").writelines(labelled[:60])
        open(self.dev, "w", encoding="utf-8").writelines(labelled[60:90])
        open(self.texts, "w", encoding="utf-8").writelines(labelled[:80])
        open(self.data, "a", encoding="utf-8").write("not a label\n")
        self.pairs, self.table = self.path("pairs.jsonl"), self.path("table.csv")
        texts = [json.loads(l)["text"].split() for l in labelled[:90]]
        with open(self.pairs, "w", encoding="utf-8") as f: # some positives come several times, some pairs have a negative
            for i, words in enumerate(texts):
                f.write(json.dumps({"query": " ".join(words[:4]), "positive": " ".join(texts[i % 40][2:8]) or "none", **({"negatives": [texts[i // 2][-1]]} if i % 3 == 0 else {})}) + "\n")
        with open(self.table, "w", encoding="utf-8", newline="") as f:
            out = csv.writer(f)
            out.writerow(["Description", "kind", "long", "vowel", "capital"])
            for words in texts: out.writerow([" ".join(words), "abc"[len(words) % 3], int(len(words) > 12), int(words[0][0].lower() in "aeiou"), int(words[-1][0].isupper())])
            out.writerow(["", "", 0, 0, 0]) # set aside

    def path(self, name): return os.path.join(self.folder, name)

    def command(self, ranks, task, name, *more):
        """The last --name=value of an option counts."""
        verb = "multilabel" if task == "gru" else task
        data = {"ner": self.data, "mlm": self.texts, "embed": self.pairs}.get(task, self.table)
        options = {"base": self.base, "data": data, "device": "cpu", "threads": 1, "lr": "3e-3", "log-every": 1, "checkpoint-every": EVERY, "epochs": 2,
                   "output": self.path(name + ".h5")}
        options.update({"ner": {"dev": self.dev}, "embed": {"dev": self.pairs}, "classify": {"method": "fine-tune", "column": "Description", "label": "kind", "holdout": 0.2},
                        "multilabel": {"holdout-every": 4}, "gru": {"holdout-every": 4, "embedding": 16, "cells": 12}}.get(task, {}))
        if task == "gru": del options["base"]
        args = [f"--{k}={v}" for k, v in options.items()] + list(map(str, more))
        launch = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] if ranks else []
        return [*launch, BIN + "/skillwatch-train", verb, *args]

    def start(self, *args):
        return subprocess.Popen(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, ranks, task, name, *more, status=0):
        done = subprocess.run(self.command(ranks, task, name, *more), capture_output=True, text=True, timeout=300)
        check(done.returncode == status, f"{ranks} x {task} {name} {more}: {done.returncode} {done.stderr[-600:]}")
        return done.stderr

    def metrics(self, name):
        try:
            return [json.loads(l) for l in open(self.path(name + ".metrics.jsonl")) if l.endswith("\n")]
        except OSError:
            return []

    def losses(self, name): return [(m["step"], m["loss"]) for m in self.metrics(name) if "loss" in m]

    def step(self, name): return max((m["step"] for m in self.metrics(name)), default=0)

    def wait(self, run, name, step):
        while run.poll() is None and self.step(name) < step: time.sleep(0.002)
        return run.poll() is None

    def processes(self, name):
        """Pids of the ranks, by rank."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if self.path(name + ".h5") not in open(f"/proc/{pid}/cmdline").read(): continue
                for entry in open(f"/proc/{pid}/environ").read().split("\0"):
                    if entry.startswith("OMPI_COMM_WORLD_RANK="): found[int(entry.split("=")[1])] = int(pid)
            except OSError:
                pass
        return found


def test_losses(runs):
    """At every step the loss of one process, with dropout, whatever the step is made of."""
    ways = {"sentences": ("ner", "--batch-size=8"), "tokens": ("ner", "--batch-tokens=150"), "accumulated": ("ner", "--batch-size=4", "--accumulate=3"),
            "few": ("ner", "--batch-tokens=40", "--accumulate=2"), "mlm": ("mlm", "--batch-size=8"), "mlm tokens": ("mlm", "--batch-tokens=200", "--accumulate=2"),
            "classify": ("classify", "--batch-size=8"), "classify tokens": ("classify", "--batch-tokens=150", "--accumulate=2"), "bert": ("multilabel", "--batch-size=8", "--thresholds=tuned"),
            "gru": ("gru", "--batch-size=8"), "gru accumulated": ("gru", "--batch-size=4", "--accumulate=3"),
            "pairs": ("embed", "--batch-size=16"), "pairs accumulated": ("embed", "--batch-size=8", "--accumulate=2"), "pairs in parts": ("embed", "--batch-size=32", "--chunk-size=8")}
    for way, (task, *more) in ways.items():
        runs.finish(0, task, f"{way} 1", *more)
        want = runs.losses(f"{way} 1")
        check(len(want) > 5 and len({l for _, l in want}) == len(want), f"{way}: {want}")
        for ranks in (2, 4) if way == "sentences" else (4,) if way == "pairs in parts" else (2,):
            name = f"{way} {ranks}"
            error = runs.finish(ranks, task, name, *more)
            got = runs.losses(name)
            apart = max((abs(a[1] - b[1]) for a, b in zip(got, want)), default=9)
            check([s for s, _ in got] == [s for s, _ in want] and apart <= 1e-5, f"{name}: losses are {apart:g} apart")
            check(error.count(f"{ranks} processes, each ") == 1 and error.count("best of step") == 1, f"{name}: one process speaks: {error}")
            dev = [[m["dev"] for m in runs.metrics(n) if "dev" in m] for n in (name, f"{way} 1")]
            check(len(dev[0]) == len(dev[1]) >= 2, f"{name}: evaluation")
            if task != "embed": check(all(abs(a["loss"] - b["loss"]) < 1e-4 for a, b in zip(*dev)), f"{name}: evaluation")
            if task == "mlm": check(abs(dev[0][0]["loss"] - dev[1][0]["loss"]) < 1e-12, f"{name}: before training the scores are the same: {dev}")
            if task in ("ner", "classify", "gru"): check(len(open(runs.path(name + ".rejected.jsonl")).readlines()) == 1, f"{name}: the row set aside is told once")
            left = [n for n in os.listdir(runs.folder) if n.startswith(name) and (".lock" in n or ".tmp" in n)]
            check(not left, f"{name}: left behind: {left}")
            print(f"{name}: {len(got)} steps, losses at most {apart:g} apart")
    for way, ranks in (("accumulated", 2), ("pairs in parts", 4), ("gru", 2)):
        task, *more = ways[way]
        runs.finish(ranks, task, f"{way} again", *more)
        check(weights(runs.path(f"{way} again.last.h5")) == weights(runs.path(f"{way} {ranks}.last.h5")), f"{way}: {ranks} processes give the same bits again")


def test_sums(runs):
    """Sums of any length have the bits of adding up in the order of the ranks; what is gathered and sent is what was given."""
    tool = os.path.join(os.environ.get("SW_TESTS_BIN", "build/release/tests"), "tool-group")
    for ranks in (1, 2, 3):
        done = subprocess.run([*runs.command(ranks, "ner", "no")[:7], tool], capture_output=True, text=True, timeout=120)
        check(done.returncode == 0 and done.stdout.count("right") == ranks, f"{ranks} processes: {done.returncode} {done.stdout} {done.stderr[-400:]}")


def test_scores(runs):
    """Evaluation in parts: the scores of one process, before and after."""
    first, words = runs.path("first.h5"), collections.Counter()
    rows = [json.loads(l)["text"].split() for l in open(runs.dev, encoding="utf-8")]
    for row in rows: words.update(set(row))
    frequent = {w for w, _ in words.most_common(20)} # what is quickly learned
    learned = runs.path("learned.jsonl")
    with open(learned, "w", encoding="utf-8") as f:
        for row in rows: f.write(json.dumps({"tokens": row, "tags_a": ["B" if w in frequent else "O" for w in row], "tags_b": ["B" if w.isupper() else "O" for w in row]}) + "\n")
    tests = [f"--test={learned}", f"--data={learned}", f"--dev={learned}"]
    runs.finish(0, "ner", "first", *tests[1:], "--lr=2e-2", "--epochs=8")
    want = None
    for ranks in (0, 2, 3):
        runs.finish(ranks, "ner", f"scores {ranks}", f"--base={first}", *tests, "--epochs=1")
        scores = read_json(runs.path(f"scores {ranks}.h5"), "training")["earlier_tests"]["before"]
        want = want or scores
        check(scores == want and scores[0]["mean_f1"] > 0, f"{ranks} processes: {scores}, not {want}")


def test_stop(runs):
    """A signal to mpirun or to one process: all stop after the same step, status 75 (mpirun's own is 1 after a TERM or INT, whatever its processes
    ended with); the resumed run ends in the bits of one that was not stopped."""
    more = ("--batch-size=4", "--epochs=24")
    if not os.path.exists(runs.path("whole.last.h5")): runs.finish(2, "ner", "whole", *more)
    total = runs.step("whole")
    for way, sent in (("mpirun", signal.SIGUSR1), (0, signal.SIGTERM), (1, signal.SIGUSR1), ("mpirun", signal.SIGTERM), ("mpirun", signal.SIGINT)):
        name = f"stopped {way} {sent}"
        run = runs.start(2, "ner", name, *more)
        if not check(runs.wait(run, name, total // 8), f"{name}: ended before it could be stopped"): continue
        os.kill(run.pid if way == "mpirun" else runs.processes(name)[way], sent)
        error = run.communicate(timeout=120)[1]
        at = read_json(runs.path(name + ".last.h5"), "training")["position"]["step"]
        check(run.returncode == (1 if way == "mpirun" and sent != signal.SIGUSR1 else 75) and error.count("go on with --resume") == 1 and at == runs.step(name) < total, f"{name}: {run.returncode} {error[-500:]}")
        error = runs.finish(2, "ner", name, *more, "--resume")
        check(f"resumed after step {at}" in error and "not to the same bits" not in error, error)
        for ending in (".h5", ".last.h5"): check(weights(runs.path(name + ending)) == weights(runs.path("whole" + ending)), f"{name}{ending}: other bits")
    for task, *more in (("embed", "--batch-size=8", "--chunk-size=4", "--epochs=6"), ("classify", "--batch-size=4", "--epochs=4"), ("gru", "--batch-size=4", "--epochs=6")):
        runs.finish(2, task, f"whole {task}", *more)
        total, name = runs.step(f"whole {task}"), f"stopped {task}"
        run = runs.start(2, task, name, *more)
        if not check(runs.wait(run, name, total // 4), f"{name}: ended before it could be stopped"): continue
        run.send_signal(signal.SIGUSR1)
        check(run.wait(60) == 75, f"{name}: {run.returncode}")
        runs.finish(2, task, name, *more, "--resume")
        check(weights(runs.path(name + ".last.h5")) == weights(runs.path(f"whole {task}.last.h5")), f"{name}: other bits")
    # while the data is still read
    fifo = runs.path("fifo.jsonl")
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    run = runs.start(2, "ner", "early", f"--data={fifo}")
    def readers(): return sum(fifo in (os.path.realpath(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")) for pid in runs.processes("early").values())
    while run.poll() is None and readers() < 2: time.sleep(0.05)
    run.send_signal(signal.SIGUSR1)
    error = run.communicate(timeout=60)[1]
    os.close(end)
    check(run.returncode == 75 and error.count("stopped before training began") == 1, f"early: {run.returncode} {error[-400:]}")


def test_script(runs):
    """samples/slurm/train.sbatch, without Slurm: stopped, it ends with 75 and asks to be queued again; a failure is not."""
    tools = runs.path("tools")
    os.makedirs(tools)
    def tool(name, text):
        with open(os.path.join(tools, name), "w") as f: f.write("#!/bin/bash\n" + text + "\n")
        os.chmod(os.path.join(tools, name), 0o755)
    tool("mpirun", f'exec {shutil.which("mpirun")} --allow-run-as-root --oversubscribe -np 2 "$@"')
    tool("scontrol", f'echo "$@" >> {runs.path("asked")}')
    env = {**os.environ, "PATH": f"{tools}:{os.path.abspath(BIN)}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
    def script(name, *more):
        command = runs.command(0, "ner", name, "--batch-size=4", "--epochs=24", *more)[1:]
        return subprocess.Popen(["bash", os.path.join(SAMPLES, "slurm/train.sbatch"), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    def asked(): return open(runs.path("asked")).read().splitlines() if os.path.exists(runs.path("asked")) else []
    for sent in (signal.SIGUSR1, signal.SIGTERM):
        run = script("script")
        if not check(runs.wait(run, "script", runs.step("script") + 20), "the script ended before it could be stopped"): continue
        run.send_signal(sent)
        error = run.communicate(timeout=120)[1]
        check(run.returncode == 75 and "go on with --resume" in error and asked() == ["requeue 7"], f"{sent}: {run.returncode} {asked()} {error[-400:]}")
        os.remove(runs.path("asked"))
    run = script("no", "--data=" + runs.path("missing.jsonl"))
    check(run.wait(60) == 1 and not asked(), f"a failure: {run.returncode} {asked()}")
    # mpirun itself is stopped, too, as where the scheduler signals all there is: it ends with 1
    run = script("script")
    if check(runs.wait(run, "script", runs.step("script") + 20), "the script ended before mpirun could be stopped"):
        children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[0]), signal.SIGTERM)
        run.send_signal(signal.SIGTERM)
        error = run.communicate(timeout=120)[1]
        check(run.returncode in (1, 75) and "go on with --resume" in error and asked() == ["requeue 7"], f"all stopped: {run.returncode} {asked()} {error[-400:]}")


def test_resume_elsewhere(runs):
    """Another number of processes goes on with the same batches, and says what that means."""
    more = ("--batch-size=4", "--epochs=12")
    run = runs.start(2, "ner", "moved", *more)
    runs.wait(run, "moved", 20)
    run.send_signal(signal.SIGUSR1)
    check(run.wait(60) == 75, "moved: stopped")
    error = runs.finish(0, "ner", "moved", *more, "--resume")
    check("it ran in 2 processes before, not 1" in error, error)
    runs.finish(0, "ner", "stayed", *more)
    apart = max(abs(a[1] - b[1]) for a, b in zip(runs.losses("moved"), runs.losses("stayed")))
    check(len(runs.losses("moved")) == len(runs.losses("stayed")) and apart <= 1e-4, f"moved: losses are {apart:g} apart")


def test_death(runs):
    """A process that is killed ends the job; the last checkpoint is whole, and a resumed run ends in the same bits."""
    more = ("--batch-size=4", "--epochs=24")
    if not os.path.exists(runs.path("whole.last.h5")): runs.finish(2, "ner", "whole", *more)
    total = runs.step("whole")
    for rank in (0, 1):
        name = f"killed {rank}"
        run = runs.start(2, "ner", name, *more)
        if not check(runs.wait(run, name, total // 8), f"{name}: ended before it could be killed"): continue
        pids = runs.processes(name)
        os.kill(pids[rank], signal.SIGKILL)
        run.communicate(timeout=120)
        check(run.returncode not in (0, 75), f"{name}: {run.returncode}")
        check(not runs.processes(name), f"{name}: the other process ended, too")
        at = read_json(runs.path(name + ".last.h5"), "training")["position"]["step"]
        check(program("show", runs.path(name + ".last.h5")).returncode == 0 and at > 0, f"{name}: the checkpoint is whole")
        runs.finish(2, "ner", name, *more, "--resume")
        for ending in (".h5", ".last.h5"): check(weights(runs.path(name + ending)) == weights(runs.path("whole" + ending)), f"{name}{ending}: other bits")


def test_refused(runs):
    def refused(status, says, *args):
        done = subprocess.run(runs.command(2, *args), capture_output=True, text=True, timeout=120)
        lines = [l for l in done.stderr.splitlines() if l.startswith("skillwatch: ")]
        check(done.returncode == status and len(lines) == 1 and says in lines[0], f"{args}: {done.returncode} {done.stderr[-500:]}")
    refused(2, "--batch-size 5 cannot be dealt out to 2 processes: give a multiple of 2", "ner", "no", "--batch-size=5")
    refused(2, "--epochs", "ner", "no", "--epochs=0")
    refused(2, "--method logistic runs in one process, on all rows at once, and takes seconds: type 'skillwatch train classify' and its options without mpirun", "classify", "no",
            "--method=logistic")
    refused(2, "train topics runs in one process", "topics", "no")
    refused(2, "--chunk-size 3 cannot be dealt out to 2 processes: give a multiple of 2", "embed", "no", "--batch-size=12", "--chunk-size=3")
    refused(1, "multiple of 4, not 6", "gru", "no", "--embedding=6")
    refused(1, "missing.jsonl", "ner", "no", "--data=" + runs.path("missing.jsonl"))
    refused(2, "--max-length 9999", "ner", "no", "--max-length=9999")
    if not os.path.exists(runs.path("there.h5")): runs.finish(2, "ner", "there", "--epochs=1")
    refused(1, "exists already", "ner", "there", "--epochs=1")
    other = samples_base(runs.path("six"), hidden=6, layers=1, intermediate=32) if os.makedirs(runs.path("six")) is None else None
    refused(1, "multiple of 4", "ner", "no", f"--base={other}")
    check(not os.path.exists(runs.path("no.h5")), "nothing is written")
    # one process has options that the others have not, or a wrong one
    runs.config = runs.path("config.json")
    json.dump({"seed": 3}, open(runs.config, "w"))
    for more, says in ((["--config", runs.config], "another --seed than"), (["--epochs=7"], "another --epochs than"), (["--data=" + runs.dev], "another --data than"),
                       (["--nonsense"], "unknown option '--nonsense'")):
        one = runs.command(1, "ner", "no")
        done = subprocess.run([*one, ":", "-np", "1", *one[one.index(BIN + "/skillwatch-train"):], *more], capture_output=True, text=True, timeout=120)
        lines = [l for l in done.stderr.splitlines() if l.startswith("skillwatch: ")]
        check(done.returncode == 2 and len(lines) == 1 and says in lines[0] and "process 2 of 2" in lines[0], f"{more}: {done.returncode} {done.stderr[-500:]}")
    one = runs.command(1, "ner", "own threads", "--epochs=1")
    done = subprocess.run([*one, ":", "-np", "1", *one[one.index(BIN + "/skillwatch-train"):], "--threads=2", "--quiet"], capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, f"threads may differ: {done.stderr[-500:]}")
    # without the module: one line that says what is missing
    done = subprocess.run(runs.command(2, "ner", "no"), capture_output=True, text=True, env={**os.environ, "SKILLWATCH_MODULES": runs.folder})
    check(done.returncode == 1 and "no module for mpi" in done.stderr, done.stderr[-400:])
    # and nothing of it is needed by one process
    done = subprocess.run(runs.command(0, "ner", "alone", "--epochs=1"), capture_output=True, text=True, env={**os.environ, "SKILLWATCH_MODULES": runs.folder})
    check(done.returncode == 0, done.stderr[-400:])


with tempfile.TemporaryDirectory() as tmp:
    runs = Runs(tmp)
    for name, test in [(n, f) for n, f in list(globals().items()) if n.startswith("test_")]:
        if len(sys.argv) > 1 and name not in sys.argv[1:]: continue
        start = time.time()
        test(runs)
        print(f"{name}: {time.time() - start:.1f} s", flush=True)
check.close()
