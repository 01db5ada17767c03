"""skillwatch train multilabel and infer multilabel as people use them: learns, scores as scikit-learn, resumes bit for bit, sets bad rows aside,
gives the same bits in any batch, refuses bad input in one line."""
import csv, json, os, random, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, Checks, program

import h5py, numpy as np
from sklearn.metrics import accuracy_score, f1_score

check = Checks()
LABELS = ["Welding, brazing", "driving", "nursing", "teaching", "rare", "lessons"]
WORDS = {"Welding, brazing": "weld metal torch joint", "driving": "truck route drive cargo", "nursing": "patient clinic nurse care",
         "teaching": "teach pupil class school", "rare": "violin", "lessons": ""}
FILLER = "company seeks person office team report daily work quality customer plan order system".split()


def texts(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        has = [rng.random() < p for p in (0.4, 0.3, 0.5, 0.3, 0.03)]
        words = [w for l, h in zip(LABELS, has) if h for w in rng.sample(WORDS[l].split(), min(2, len(WORDS[l].split())))]
        words += rng.choices(FILLER, k=rng.randint(2, 12))
        rng.shuffle(words)
        yield "The " + " ".join(words) + ".", [*has, has[3] != (rng.random() < 0.02)]  # lessons: nearly always where teaching is


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        out.writerow(["code", "Description", *LABELS])
        for i, (text, has) in enumerate(rows): out.writerow([f"{i}-x", text, *(int(h) for h in has)])
    return path


def contents(path):
    out = {}
    with h5py.File(path) as f:
        f.visititems(lambda n, o: out.__setitem__(n, o[()].tobytes() if hasattr(o[()], "tobytes") else o[()]) if isinstance(o, h5py.Dataset) else None)
        out["content"] = f.attrs["content_sha256"]
    return out


def read_json(path, name):
    with h5py.File(path) as f: return json.loads(bytes(f[name][0]).rstrip(b"\0"))


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    train, dev = write(path("train.csv"), texts(220, 1)), list(texts(90, 2))
    write(path("dev.csv"), dev)
    small = ["--embedding", "16", "--cells", "24", "--epochs", "12", "--lr", "2e-2", "--batch-size", "20", "--log-every", "1", "--dropout", "0.1"]
    common = ["--data", train, "--dev", path("dev.csv"), *small]

    done = program("train", "multilabel", *common, "--table", "-o", path("a.h5"), "--threads", "2")
    check(done.returncode == 0 and "median label accuracy" in done.stderr, f"train: {done.stderr[-500:]}")
    check(len(done.stdout.splitlines()) == 1 + len(LABELS) and "Welding, brazing" in done.stdout, f"--table: {done.stdout!r}")
    metrics = read_json(path("a.h5"), "training")["metrics"]
    check(metrics["median_accuracy"] > 0.9, f"it learns: {metrics['median_accuracy']}")
    check(read_json(path("a.h5"), "config")["model_type"] == "gru", "the config says gru")
    show = program("show", path("a.h5"))
    check(show.returncode == 0 and "gru" in show.stdout and "stems" in show.stdout and "WordPiece" not in show.stdout, f"show: {show.stdout[:400]}")

    # inference gives the scores that training printed, and they are scikit-learn's
    done = program("infer", "multilabel", "-m", path("a.h5"), path("dev.csv"), "--column", "Description", "--id-column", "code", "--all", "-o", path("all.jsonl"))
    check(done.returncode == 0, f"infer: {done.stderr[-300:]}")
    rows = [json.loads(l) for l in open(path("all.jsonl"), encoding="utf-8")]
    check([r["id"] for r in rows] == [f"{i}-x" for i in range(len(dev))], "rows in order, with their ids")
    p = np.array([[l["probability"] for l in r["labels"]] for r in rows])
    check([l["label"] for l in rows[0]["labels"]] == LABELS, "labels in the order of the columns")
    target, found = np.array([h for _, h in dev], int), (p >= 0.5).astype(int)
    accuracies = [accuracy_score(target[:, k], found[:, k]) for k in range(len(LABELS))]
    for name, got, want in (("median accuracy", metrics["median_accuracy"], np.median(accuracies)), ("mean accuracy", metrics["mean_accuracy"], np.mean(accuracies)),
                            ("micro F1", metrics["micro"]["f1"], f1_score(target, found, average="micro", zero_division=0)),
                            ("macro F1", metrics["macro"]["f1"], f1_score(target, found, average="macro", zero_division=0)),
                            *((f"F1 of {l}", metrics["per_label"][l]["f1"], f1_score(target[:, k], found[:, k], zero_division=0)) for k, l in enumerate(LABELS)),
                            ("loss", metrics["loss"], -np.mean(np.where(target == 1, np.log(p), np.log(1 - p))))):
        check(abs(got - want) < (1e-5 if name == "loss" else 1e-9), f"{name}: {got}, scikit-learn {want}")
    # whatever the batch and the threads
    for extra in (["--threads", "1", "--batch-tokens", "100"], ["--threads", "3", "--batch-tokens", "3000", "--no-dedup"]):
        done = program("infer", "multilabel", "-m", path("a.h5"), path("dev.csv"), "--column", "Description", "--id-column", "code", "--all", "-o", path("b.jsonl"), *extra)
        check(done.returncode == 0 and open(path("b.jsonl")).read() == open(path("all.jsonl")).read(), f"{extra}: the same bits {done.stderr[-200:]}")
    done = program("infer", "multilabel", "-m", path("a.h5"), path("dev.csv"), "--column", "Description", "-o", path("c.csv"))
    listed = list(csv.DictReader(open(path("c.csv"), newline="")))
    check(len(listed) == found.sum() and all(float(r["probability"]) >= 0.5 for r in listed), f"CSV: {len(listed)} of {found.sum()} labels")
    done = program("infer", "multilabel", "-m", path("a.h5"), "-", "--quiet", input="weld the metal\n\nof the\n" + "metal " * 300 + "\n")
    check(done.returncode == 0 and len(done.stdout.splitlines()) == 3, f"lines from standard input, one without words, a long one: {done.stdout[:200]} {done.stderr[:200]}")
    check("Welding, brazing" in [l["label"] for l in json.loads(done.stdout.splitlines()[0])["labels"]], "it finds welding")

    # thread counts, resume
    done = program("train", "multilabel", *common, "-o", path("b.h5"), "--threads", "1", "--quiet")
    check(done.returncode == 0 and done.stderr == "" and contents(path("a.h5")) == contents(path("b.h5")), f"1 and 2 threads: the same bits {done.stderr[-300:]}")
    stops = 0
    for goal in range(3, 400, 17):
        run = subprocess.Popen([BIN + "/skillwatch-train", "multilabel", *common, "-o", path("r.h5"), "--resume", "--checkpoint-every", "2"], stderr=subprocess.PIPE, text=True)
        while run.poll() is None and not (os.path.exists(path("r.metrics.jsonl")) and sum(1 for _ in open(path("r.metrics.jsonl"))) >= goal): time.sleep(0.002)
        if run.poll() is None: run.terminate()
        err = run.communicate()[1]
        if run.returncode == 0: break
        stops += 1
        check(run.returncode in (75, -15), f"stopped: {run.returncode} {err[-300:]}")
    check(run.returncode == 0 and stops >= 2, f"it was stopped {stops} times and ends: {err[-300:]}")
    check(contents(path("r.h5")) == contents(path("a.h5")) and contents(path("r.last.h5")) == contents(path("a.last.h5")), "resumed = uninterrupted")

    # merged labels, thresholds, weights, every N-th row, JSON lines, other dtypes
    done = program("train", "multilabel", "--data", train, "--holdout-every", "5", *small, "--reduce", "cramer:0.8", "--thresholds", "tuned", "--positive-weights", "balanced",
                   "-o", path("m.h5"))
    report = json.load(open(path("m.labels.json"))) if done.returncode == 0 else {}
    check(done.returncode == 0 and [(g["label"], g["merged"]) for g in report["groups"]] in ([("teaching", ["lessons"])], [("lessons", ["teaching"])])
          and report["labels_after"] == 5 and report["pairs"][0]["merged"], f"merged: {done.stderr[-300:]} {report}")
    if done.returncode == 0:
        config = read_json(path("m.h5"), "config")
        check(len(config["thresholds"]) == 5 and len(h5py.File(path("m.h5"))["heads/labels/labels"]) == 5, "five labels with thresholds of their own")
        check(read_json(path("m.h5"), "training")["metrics"]["rows"] == 44, "every fifth row is held out")
    with open(path("train.jsonl"), "w", encoding="utf-8") as f:
        for text, has in texts(60, 3): f.write(json.dumps({"text": text, "labels": [l for l, h in zip(LABELS, has) if h]}) + "\n")
        f.write('{broken\n{"text": "x"}\n{"text": " ", "labels": []}\n{"text": "weld", "labels": [7]}\n')
    for extra in ([], ["--dtype", "bf16"], ["--batch-size", "0", "--batch-tokens", "150", "--accumulate", "2"]):
        done = program("train", "multilabel", "--data", path("train.jsonl"), *small, "--epochs", "1", *extra, "-o", path("j.h5"), "--force")
        check(done.returncode == 0 and "4 rows could not be used" in done.stderr, f"JSON lines {extra}: {done.stderr[-300:]}")
    check([l.decode() for l in h5py.File(path("j.h5"))["heads/labels/labels"]] == sorted(LABELS), "labels of JSON lines, by name")
    check(len([json.loads(l)["reason"] for l in open(path("j.rejected.jsonl"))]) == 4, "four rows set aside with a reason")
    done = program("train", "multilabel", "--data", train, *small, "--epochs", "1", "--labels", '"Welding, brazing",driving', "-o", path("two.h5"))
    check(done.returncode == 0 and len(h5py.File(path("two.h5"))["heads/labels/labels"]) == 2, f"--labels: {done.stderr[-300:]}")
    lines = open(train, encoding="utf-8").read().splitlines()
    lines[5] = lines[5][:-1] + "maybe"
    open(path("cell.csv"), "w", encoding="utf-8").write("\n".join(lines) + "\n")
    done = program("train", "multilabel", "--data", path("cell.csv"), *small, "--epochs", "1", "-o", path("cell.h5"))
    rejected = [json.loads(l) for l in open(path("cell.rejected.jsonl"))]
    check(done.returncode == 0 and len(rejected) == 1 and rejected[0]["line"] == 6 and "lessons" in rejected[0]["reason"], f"a bad cell costs its row: {rejected}")

    # older rows: replayed, their words in the vocabulary, and a test set scored after
    write(path("older.csv"), [("zebra " + text, has) for text, has in texts(40, 5)] + [("", [0] * 6)])
    done = program("train", "multilabel", *common, "--epochs", "2", "--replay", path("older.csv") + ":0.25", "--test", path("dev.csv"), "-o", path("replayed.h5"))
    if check(done.returncode == 0 and "0.25 of every batch" in done.stderr, f"replay: {done.stderr[-400:]}"):
        facts = read_json(path("replayed.h5"), "training")
        tests = facts["earlier_tests"]
        check("median_accuracy" not in tests["before"][0] and tests["after"][0]["median_accuracy"] == facts["metrics"]["median_accuracy"], f"a score after, none before: {tests}")
        check([f.get("replay") for f in facts["run"]["data"]] == [None, 0.25] and len(open(path("replayed.replay.rejected.jsonl")).readlines()) == 1, "its rows are counted, one is set aside")
        with h5py.File(path("replayed.h5")) as f: check(any(b"zebra" in bytes(f[n][()].tobytes()) for n in (k for k in ("stems/vocab", "tokenizer/vocab") if k in f)), "its words are known")

    # the CUDA kernels, in the emulator: a few steps like the CPU's
    tiny = ["--data", train, "--dev", path("dev.csv"), "--embedding", "8", "--cells", "8", "--epochs", "1", "--batch-size", "64", "--lr", "1e-2"]
    module = os.path.join(os.environ["SKILLWATCH_MODULES"], "skillwatch_cuda_emulated.so")
    if check(os.path.exists(module), f"the emulated module is built: {module}"):
        losses = []
        for device in ("cpu", "cuda-emulated"):
            done = program("train", "multilabel", *tiny, "--device", device, "-o", path("e.h5"), "--force", "--quiet")
            check(done.returncode == 0, f"{device}: {done.stderr[-300:]}")
            losses.append(read_json(path("e.h5"), "training")["metrics"]["loss"])
        check(abs(losses[0] - losses[1]) < 1e-4, f"CPU and emulated CUDA: {losses}")

    # refused in one line
    def refused(part, what, *args, verb="train", status=(1, 2)):
        check.refused(program(verb, "multilabel", *args), part, what, status)
    beside = [path("m.labels.json"), path("j.rejected.jsonl")]
    before = [open(n).read() for n in beside]
    refused("exists already", "an existing output", *common, "-o", path("a.h5"), status=(1,))
    refused("exists already", "an existing output whose labels are merged", *common, "--reduce", "pearson:0.1", "-o", path("m.h5"), status=(1,))
    refused("exists already", "an existing output beside rows set aside", "--data", path("cell.csv"), "-o", path("j.h5"), status=(1,))
    check(before == [open(n).read() for n in beside], "what lies beside it is as it was")
    refused("--data is missing", "no data", "-o", path("x.h5"), status=(2,))
    refused("unknown option", "a base", *common, "--base", path("a.h5"), "-o", path("x.h5"), status=(2,))
    refused("no column \"Nope\"", "a column that is not there", *common, "--column", "Nope", "-o", path("x.h5"))
    refused("no column \"nope\"", "a label that is not there", *common, "--labels", "nope", "-o", path("x.h5"))
    refused("--model bert", "another model", *common, "--model", "bert", "-o", path("x.h5"), status=(2,))
    refused("--reduce", "a measure that is none", *common, "--reduce", "kendall:1", "-o", path("x.h5"), status=(2,))
    refused("tuned needs", "thresholds without an evaluation", "--data", train, "--thresholds", "tuned", "-o", path("x.h5"), status=(2,))
    refused("is the input", "an output that is the data", "--data", train, "-o", train, "--force")
    refused("exclude each other", "two ways to evaluate", *common, "--holdout-every", "5", "-o", path("x.h5"), status=(2,))
    check.refused(program("infer", "embed", "-m", path("a.h5"), path("dev.csv"), "--column", "Description"), "stems", "embed with stems", (1,))
    check.refused(program("infer", "tag", "-m", path("a.h5"), path("dev.csv"), "--column", "Description"), "stems", "tag with stems", (1,))
    check.refused(program("train", "ner", "--base", path("a.h5"), "--data", train, "-o", path("x.h5")), "stems", "a base of stems", (1,))
    refused("--threshold", "a threshold that is none", "-m", path("a.h5"), path("dev.csv"), "--threshold", "2", verb="infer", status=(2,))
check.close()
