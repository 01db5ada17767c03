"""skillwatch train ner as people and schedulers use it: learns, resumes bit for bit, survives signals, refuses bad input in one line."""
import json, os, random, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, read_json, samples_base, weights

import h5py, numpy as np

check = Checks()
TRAIN, DEV = SAMPLES + "/labels/train.jsonl", SAMPLES + "/labels/dev.jsonl"


def training(path):
    return read_json(path, "training")


with tempfile.TemporaryDirectory() as tmp:
    base = samples_base(tmp)
    small = os.path.join(tmp, "small.jsonl")
    lines = open(TRAIN, encoding="utf-8").read().splitlines()
    labelled = [l for l in lines if json.loads(l)["spans"]][:160]
    open(small, "w", encoding="utf-8").write("\n".join(labelled) + "\n")
    common = ["--base", base, "--data", small, "--dev", DEV, "--epochs", "3", "--batch-tokens", "200", "--lr", "3e-3",
              "--log-every", "1"]
    path = lambda n: os.path.join(tmp, n)

    # the reference run, and the same again with another thread count
    done = program("train", "ner", *common, "-o", path("a.h5"), "--threads", "2")
    check(done.returncode == 0, f"train: {done.stderr[-500:]}")
    check("dev F1" in done.stderr, "the evaluation is printed")
    done = program("train", "ner", *common, "-o", path("b.h5"), "--threads", "1", "--quiet")
    check(done.returncode == 0 and done.stderr == "", f"--quiet prints nothing: {done.stderr!r}")
    check(weights(path("a.h5")) == weights(path("b.h5")), "1 and 2 threads: the same best checkpoint")
    check(weights(path("a.last.h5")) == weights(path("b.last.h5")), "1 and 2 threads: the same last checkpoint")
    metrics = [json.loads(l) for l in open(path("a.metrics.jsonl"))]
    losses = [m["loss"] for m in metrics if "loss" in m]
    check(losses[-1] < 0.7 * losses[0], f"the loss falls: {losses[0]:.3f} to {losses[-1]:.3f}")
    check(sum("dev" in m for m in metrics) == 3, "an evaluation every epoch")
    total = metrics[-1]["step"]
    facts = training(path("a.h5"))["run"]
    check(facts["data"][0]["rows"] == len(labelled) and len(facts["data"][0]["sha256"]) == 64, "the data manifest")
    check(set(h5py.File(path("a.h5"))["heads"]) == {"knowledge", "skill"}, "a head for each layer")
    check("optimizer" not in h5py.File(path("a.h5")) or not len(h5py.File(path("a.h5"))["optimizer"]), "the best checkpoint has no moments")

    # stopped by SIGTERM at random moments again and again, it ends with the same bits
    def step_of(metrics):
        """The last step that the metrics file tells of."""
        try:
            return max((json.loads(l)["step"] for l in open(metrics) if l.endswith("\n")), default=0)
        except OSError:
            return 0

    rng, stops, goal = random.Random(7), 0, 0
    for attempt in range(60):
        goal += rng.randint(1, 5)
        run = subprocess.Popen([BIN + "/skillwatch-train", "ner", *common, "-o", path("c.h5"), "--resume", "--checkpoint-every", "3"],
                               stderr=subprocess.PIPE, text=True)
        # stopped by its progress, not by the clock: SIGTERM saves and says 75; SIGKILL loses what came after the last checkpoint
        while run.poll() is None and step_of(path("c.metrics.jsonl")) < goal: time.sleep(0.002)
        if run.poll() is None: run.send_signal(signal.SIGKILL if stops % 3 == 2 else signal.SIGTERM)
        err = run.communicate()[1]
        if run.returncode == 0: break
        stops += 1
        check(run.returncode in (75, -signal.SIGKILL, -signal.SIGTERM), f"stopped run: {run.returncode} {err[-300:]}")
    check(run.returncode == 0, f"it ends at last: {err[-300:]}")
    check(stops >= 3, f"it was stopped {stops} times")
    check(weights(path("a.h5")) == weights(path("c.h5")), "best checkpoint: resumed = uninterrupted")
    check(weights(path("a.last.h5")) == weights(path("c.last.h5")), "last checkpoint: resumed = uninterrupted")
    strip = lambda p: [{k: v for k, v in json.loads(l).items() if k != "tokens_per_second"} for l in open(p)]
    check(strip(path("a.metrics.jsonl")) == strip(path("c.metrics.jsonl")), "metrics file: resumed = uninterrupted")
    done = program("train", "ner", *common, "-o", path("c.h5"), "--resume", "--checkpoint-every", "3")
    check(done.returncode == 0 and "nothing left" in done.stderr, f"a finished run resumed does nothing: {done.stderr[-200:]}")
    done = program("train", "ner", *common, "--seed", "5", "-o", path("c.h5"), "--resume")
    check.refused(done, "hyper_parameters", "resume with other options", (1,))

    # gradient accumulation, batches by number, schedules, early stopping, bf16, no dev set
    for extra in (["--accumulate", "3"], ["--batch-size", "7", "--schedule", "cosine", "--warmup", "0"],
                  ["--schedule", "constant", "--eval-every", "4", "--patience", "1"], ["--dtype", "bf16"], ["--gradients", "exact"]):
        done = program("train", "ner", *common, *extra, "-o", path("d.h5"), "--force", "--quiet")
        check(done.returncode == 0 and np.isfinite(training(path("d.h5"))["position"]["best_score"]), f"{extra}: {done.stderr[-300:]}")
    done = program("train", "ner", "--base", base, "--data", small, "--epochs", "1", "-o", path("e.h5"))
    check(done.returncode == 0, f"without --dev: {done.stderr[-300:]}")
    # a trained checkpoint as base: its heads go on, and it is the parent
    done = program("train", "ner", "--base", path("a.h5"), "--data", small, "--dev", DEV, "--epochs", "1", "--lr", "1e-6", "-o", path("f.h5"))
    check(done.returncode == 0 and "left out" not in done.stderr, f"goes on from its own checkpoint: {done.stderr[-300:]}")
    with h5py.File(path("f.h5")) as f, h5py.File(path("a.h5")) as a:
        check(f.attrs["parent_sha256"] == a.attrs["content_sha256"], "the parent's hash")
    check(len(read_json(path("f.h5"), "lineage")) == 2, "lineage: base and parent")

    # bad input
    def refused(part, what, *args, status=(1, 2)):
        done = program("train", "ner", *args)
        check.refused(done, part, what, status)
    refused("exists already", "an existing output", *common, "-o", path("a.h5"), status=(1,))
    refused("--base is missing", "no base", "--data", small, "-o", path("x.h5"), status=(2,))
    refused("unknown option", "a wrong option", *common, "-o", path("x.h5"), "--learning-rate", "1", status=(2,))
    refused("is the input", "an output that is an input", "--base", base, "--data", path("a.metrics.jsonl"), "-o", path("a.h5"), "--force")
    refused("is the input", "the same with a weight", "--base", base, "--data", path("a.metrics.jsonl") + ":2", "-o", path("a.h5"), "--force")
    refused("is the input", "an output that is the data", "--base", base, "--data", small, "-o", small, "--force")
    refused("is a folder", "a folder as output", "--base", base, "--data", small, "-o", tmp, "--force")
    refused("--lr", "a wrong rate", *common, "-o", path("x.h5"), "--lr", "0", status=(2,))
    refused("nowhere", "missing data", "--base", base, "--data", path("nowhere.jsonl"), "-o", path("x.h5"))
    refused("", "a checkpoint that is none", "--base", small, "--data", small, "-o", path("x.h5"))
    open(path("empty.jsonl"), "w").close()
    refused("empty.jsonl", "empty data", "--base", base, "--data", path("empty.jsonl"), "-o", path("x.h5"))
    refused("", "output in a missing folder", *common, "-o", path("no/such/x.h5"))
    with open(path("bad.jsonl"), "w", encoding="utf-8") as f:
        f.write("\n".join(labelled[:30]) + "\n{broken\n" + json.dumps({"text": "ab", "spans": [{"start": 0, "end": 9, "label": "Skill"}]}) + "\n")
    done = program("train", "ner", "--base", base, "--data", path("bad.jsonl"), "--epochs", "1", "-o", path("g.h5"))
    rejected = [json.loads(l) for l in open(path("g.rejected.jsonl"))]
    check(done.returncode == 0 and len(rejected) == 2 and all(r["reason"] for r in rejected) and "2 rows" in done.stderr,
          f"bad rows are set aside and counted: {done.stderr[-300:]}")
    # weights that blow up: it stops, says at which step, and keeps the best checkpoint so far
    done = program("train", "ner", *common, "--lr", "0.99", "--clip", "0", "--epochs", "40", "--schedule", "constant", "--warmup", "0", "-o", path("h.h5"))
    if done.returncode:
        check.refused(done, "step", "a run that diverges", (1,))
        check(program("show", path("h.h5")).returncode == 0 if os.path.exists(path("h.h5")) else True, "its best checkpoint verifies")
    check(not [f for f in os.listdir(tmp) if ".tmp-" in f and not f.startswith("c.")], f"no temporary files are left: {os.listdir(tmp)}")
check.close()
