"""Heads over whole texts that are trained together with their encoder, train classify --method fine-tune and train multilabel --base: the loss falls,
interrupted runs end with the same bits, inference gives the scores that training told, whatever the batch and the threads."""
import csv, json, math, os, random, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, Checks, program, read_json, tiny_bert, vocabulary, weights

import numpy as np

check = Checks()
rng = random.Random(6)
KINDS = {"11-1.00": "python data machine learning", "12,2": "nurse patient care ward", "13": "driver truck road delivery"}
FILLER = "company seeks person for the office team with daily work"
LABELS = ["welding", "driving", "nursing", "care"]
WORDS = {"welding": "weld metal torch", "driving": "truck route drive", "nursing": "patient clinic nurse", "care": ""}


def phrase(words, n): return " ".join(rng.choice(words.split()) for _ in range(n))


def rows(count, kinds=KINDS):
    out = []
    for i in range(count):
        label = rng.choice(list(kinds))
        out.append((f"p{i}", phrase(KINDS[label], 2) + " " + phrase(FILLER, rng.randint(0, 6)), label))
    return out


def write_csv(path, columns, rows):
    with open(path, "w", newline="", encoding="utf-8") as f: csv.writer(f).writerows([columns, *rows])
    return path


def table(count):
    for i in range(count):
        has = [int(rng.random() < 0.4) for _ in LABELS[:3]]
        words = [phrase(WORDS[l], 1) for l, h in zip(LABELS, has) if h] + [phrase(FILLER, rng.randint(1, 5))]
        rng.shuffle(words)
        yield (f"r{i}", " ".join(words), *has, has[2])  # care: wherever nursing is


def losses(path): return [r["loss"] for r in map(json.loads, open(path.replace(".h5", ".metrics.jsonl"))) if "loss" in r]


def interrupted(args, output):
    """Stopped twice, by SIGTERM and SIGKILL, once it has a checkpoint of later steps than before."""
    stops = 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        run = subprocess.Popen([BIN + "/skillwatch-train", *map(str, args), "-o", output, "--resume", "--checkpoint-every", "2"], stderr=subprocess.PIPE, text=True)
        last = output.replace(".h5", ".last.h5")
        before = os.stat(last).st_mtime_ns if os.path.exists(last) else 0
        while run.poll() is None and not (os.path.exists(last) and os.stat(last).st_mtime_ns > before): time.sleep(0.002)
        if run.poll() is None: run.send_signal(number)
        stops += run.wait() != 0
        run.stderr.close()
    done = program("train", *args, "-o", output, "--resume")
    check(stops >= 1 and done.returncode == 0, f"stopped {stops} times, then {done.stderr[-300:]}")


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    words = " ".join([*KINDS.values(), FILLER, *WORDS.values(), "title"])
    tiny_bert(path("tiny"), vocabulary([words]), hidden=32, layers=1, intermediate=48, positions=32)
    base = path("tiny.h5")
    assert program("pull", path("tiny"), "-o", base, "--quiet").returncode == 0

    # --- one label a text ---
    train, dev = rows(90), rows(40)
    write_csv(path("train.csv"), ("id", "Title", "Code"), train + [("x", "", "13"), ("y", "nurse", " ")])
    write_csv(path("dev.csv"), ("id", "Title", "Code"), dev + [("x", "pilot", "99")])
    common = ["classify", "--method", "fine-tune", "--base", base, "--column", "Title", "--label", "Code", "--prefix", "Title: ", "--data", path("train.csv"), "--dev", path("dev.csv"),
              "--epochs", 8, "--lr", "1e-2", "--batch-size", 16, "--log-every", 1]
    done = program("train", *common, "-o", path("a.h5"), "--threads", 2, "--json", "-k", 2)
    check(done.returncode == 0 and "1 row of --dev is left out" in done.stderr and "2 unusable rows" in done.stderr, f"train: {done.stderr[-500:]}")
    metrics = json.loads(done.stdout)
    check(metrics == read_json(path("a.h5"), "training")["metrics"] and {"accuracy@1", "accuracy@2", "accuracy@10", "mrr", "macro_f1", "loss"} <= set(metrics), f"{metrics}")
    check(losses(path("a.h5"))[-1] < 0.5 * losses(path("a.h5"))[0] and metrics["accuracy@1"] > 0.8, f"it learns: {losses(path('a.h5'))} {metrics}")
    own = read_json(path("a.h5"), "config")["skillwatch"]
    check(own["normalize"] is False and own["prefix"] == "Title: " and own["pooling"] == "mean", f"the config says what the head reads: {own}")
    done = program("train", *common, "-o", path("b.h5"), "--threads", 1, "--quiet", "-k", 2)
    check(done.returncode == 0 and done.stderr == "" and weights(path("a.h5")) == weights(path("b.h5")), f"1 and 2 threads: the same bits {done.stderr}")
    interrupted([*common, "-k", 2, "--keep", 2], path("c.h5"))
    check(weights(path("c.h5")) == weights(path("a.h5")) and weights(path("c.last.h5")) == weights(path("a.last.h5")), "resumed: the same bits")
    check(sum(".step-" in n for n in os.listdir(tmp)) == 2, "--keep 2 keeps two")

    # inference gives the scores that training told
    infer = lambda model, *a: program("infer", "classify", "-m", path(model), path("dev.csv"), "--column", "Title", "--quiet", *a)
    done = infer("a.h5", "-k", 3)
    top = [[(l["label"], l["probability"]) for l in json.loads(line)["labels"]] for line in done.stdout.splitlines()][:40]
    if check(done.returncode == 0 and len(top) == 40, f"infer: {done.stderr}"):
        rank = np.array([[l for l, _ in t].index(r[2]) + 1 for t, r in zip(top, dev)])
        loss = -np.mean([math.log(dict(t)[r[2]]) for t, r in zip(top, dev)])
        check(abs(metrics["mrr"] - (1 / rank).mean()) < 1e-12 and metrics["accuracy@1"] == (rank == 1).mean() and abs(metrics["loss"] - loss) < 1e-4,
              f"inference and evaluation: {metrics} {loss}")
    for extra in (["--threads", 1, "--batch-tokens", 40], ["--threads", 2, "--no-dedup"]):
        check(infer("a.h5", "-k", 3, *extra).stdout == done.stdout, f"the same bits with {extra}")

    # older rows: replayed, and scored before and after
    two = {k: KINDS[k] for k in ("11-1.00", "12,2")}
    write_csv(path("new.csv"), ("id", "Title", "Code"), rows(40, two))
    late = ["classify", "--method", "fine-tune", "--base", path("a.h5"), "--column", "Title", "--label", "Code", "--prefix", "Title: ", "--data", path("new.csv"),
            "--epochs", 1, "--batch-size", 16, "--test", path("dev.csv"), "--replay", path("train.csv") + ":0.5"]
    done = program("train", *late, "-o", path("next.h5"))
    facts = read_json(path("next.h5"), "training") if done.returncode == 0 else {}
    check(done.returncode == 0 and "before training" in done.stderr and "is left out" not in done.stderr, f"going on with the same labels: {done.stderr[-400:]}")
    if facts:
        tests = facts["earlier_tests"]
        check(tests["before"][0]["mrr"] == metrics["mrr"] and tests["after"][0]["rows"] == 40, f"scores before and after: {tests}")
        check([f.get("replay") for f in facts["run"]["data"]] == [None, 0.5], "the manifest tells what was replayed")
    check("accuracy@1" in program("show", path("next.h5")).stdout, "show tells of the earlier test")

    # --- any number of labels ---
    write_csv(path("labels.csv"), ("id", "text", *LABELS), table(110))
    multi = ["multilabel", "--base", base, "--data", path("labels.csv"), "--holdout-every", 4, "--reduce", "pearson:0.99", "--thresholds", "tuned",
             "--positive-weights", "balanced", "--epochs", 15, "--lr", "1e-2", "--log-every", 1]
    done = program("train", *multi, "-o", path("m.h5"), "--threads", 2)
    check(done.returncode == 0 and "4 labels became 3" in done.stderr, f"multilabel: {done.stderr[-500:]}")
    check(losses(path("m.h5"))[-1] < 0.7 * losses(path("m.h5"))[0], f"the loss falls: {losses(path('m.h5'))}")
    check(read_json(path("m.h5"), "config")["skillwatch"]["normalize"] is False, "and its config says what the head reads")
    interrupted([*multi, "--threads", 1], path("n.h5"))
    check(weights(path("n.h5")) == weights(path("m.h5")) and weights(path("n.last.h5")) == weights(path("m.last.h5")), "1 thread, resumed: the same bits")
    told = read_json(path("m.h5"), "training")["metrics"]
    with open(path("labels.csv"), newline="") as f: held = [r for i, r in enumerate(csv.DictReader(f)) if i % 4 == 0]
    write_csv(path("held.csv"), ("id", "text"), [(r["id"], r["text"]) for r in held])
    label = lambda *a: program("infer", "multilabel", "-m", path("m.h5"), path("held.csv"), "--quiet", *a)
    done = label("--all")
    if check(done.returncode == 0, f"infer multilabel: {done.stderr}"):
        found = [{l["label"]: l["probability"] for l in json.loads(line)["labels"]} for line in done.stdout.splitlines()]
        accuracy = {n: np.mean([(p[n] >= s["threshold"]) == (r[n] == "1") for p, r in zip(found, held)]) for n, s in told["per_label"].items()}
        check(len(found) == told["rows"] and all(abs(accuracy[n] - s["accuracy"]) < 1e-12 for n, s in told["per_label"].items()), f"inference and evaluation: {accuracy} {told}")
        check(np.median(list(accuracy.values())) > 0.8, f"it learns: {accuracy}")
    for extra in (["--threads", 1, "--batch-tokens", 40], ["--threads", 2, "--no-dedup"]):
        check(label("--all", *extra).stdout == done.stdout, f"the same bits with {extra}")

    # older rows: replayed, and scored before and after
    write_csv(path("held.csv"), ("id", "text", *LABELS), [list(r.values()) for r in held])
    write_csv(path("new-labels.csv"), ("id", "text", *LABELS), table(30))
    late = ["multilabel", "--base", path("m.h5"), "--data", path("new-labels.csv"), "--holdout-every", 5, "--reduce", "pearson:0.99", "--thresholds", "tuned",
            "--epochs", 1, "--test", path("held.csv"), "--replay", path("labels.csv") + ":0.5", "--column", "text"]
    done = program("train", *late, "-o", path("m2.h5"))
    if check(done.returncode == 0 and "before training" in done.stderr and "0.5 of every batch" in done.stderr and "is left out" not in done.stderr, f"going on with labels: {done.stderr[-400:]}"):
        facts = read_json(path("m2.h5"), "training")
        before, after = (facts["earlier_tests"][k][0] for k in ("before", "after"))
        check(all(before[k] == told[k] for k in ("median_accuracy", "micro", "loss")) and after["rows"] == len(held) and after["loss"] != before["loss"], f"scores before and after: {before} {after} {told}")
        check([f.get("replay") for f in facts["run"]["data"]] == [None, 0.5] and facts["run"]["data"][1]["rows"] == 110, "the manifest tells what was replayed")
        check("median label accuracy" in program("show", path("m2.h5")).stdout, "show tells of the earlier test")
        check(len([r for r in map(json.loads, open(path("m2.metrics.jsonl"))) if "loss" in r]) <= 3 and program("train", *late, "-o", path("m3.h5"), "-q").returncode == 0
              and weights(path("m3.h5")) == weights(path("m2.h5")), "the same bits again")

    # the CUDA kernels, in the emulator: a few steps like the CPU's
    if check(os.path.exists(os.path.join(os.environ["SKILLWATCH_MODULES"], "skillwatch_cuda_emulated.so")), "the emulated module is built"):
        write_csv(path("few.csv"), ("id", "Title", "Code"), train[:24])
        few = [path("few.csv") if x in (path("train.csv"), path("dev.csv")) else 1 if x == 8 else x for x in common]
        for what, args in (("classify", few), ("multilabel", [*multi[:3], "--data", path("labels.csv"), "--epochs", 1, "--batch-size", 40, "--lr", "1e-3", "--log-every", 1])):
            apart = []
            for device in ("cpu", "cuda-emulated"):
                done = program("train", *args, "--device", device, "-o", path(f"{what}-{device}.h5"), "--quiet")
                check(done.returncode == 0, f"{what}, {device}: {done.stderr[-300:]}")
                apart.append(np.array(losses(path(f"{what}-{device}.h5"))))
            check(len(apart[0]) == len(apart[1]) >= 2 and abs(apart[0] - apart[1]).max() < 1e-4, f"{what}, CPU and emulated CUDA: {apart}")

    # what does not fit is refused in one line
    refused = lambda part, what, *args, status=(2,): check.refused(program(*args), part, what, status)
    plain = ["train", "classify", "--base", base, "--data", path("train.csv"), "--column", "Title", "--label", "Code", "-o", path("no.h5")]
    refused("--method logistic: unknown option '--epochs'", "steps without fine-tuning", *plain, "--epochs", 2)
    refused("--method fine-tune: unknown option '-C'", "C with fine-tuning", *plain, "--method", "fine-tune", "-C", 2)
    refused("FILE:FRACTION", "a replay without a fraction", *plain, "--method", "fine-tune", "--replay", path("dev.csv"))
    refused("at most 32", "more tokens than there are positions", *plain, "--method", "fine-tune", "--max-length", 33, status=(1, 2))
    refused("is the input", "an output over what is replayed", *plain[:-2], "--method", "fine-tune", "--replay", path("dev.csv") + ":0.5", "-o", path("dev.csv"))
    write_csv(path("one.csv"), ("id", "Title", "Code"), [r for r in train if r[2] == "13"])
    refused("two classes", "one class", *[path("one.csv") if x == path("train.csv") else x for x in plain], "--method", "fine-tune", status=(1,))
    refused("with --base: unknown option '--cells'", "cells with a base", "train", *multi, "-o", path("no.h5"), "--cells", 8)
    write_csv(path("other.csv"), ("id", "text", "welding", "flying"), [("a", "weld metal", 1, 0), ("b", "metal", 0, 1)])
    refused("has no column \"driving\"", "a replay of other labels", "train", *multi, "-o", path("no.h5"), "--replay", path("other.csv") + ":0.2", status=(1,))
    refused("is the input", "an output over what is replayed", "train", *multi, "--replay", path("held.csv") + ":0.2", "-o", path("held.csv"))
    refused("--model gru", "a GRU with a base", "train", *multi, "-o", path("no.h5"), "--model", "gru")
    refused("--head none", "export of such a head", "export", path("a.h5"), "-o", path("folder"))
    refused("no token head", "tagging with it", "infer", "tag", "-m", path("m.h5"), path("held.csv"), status=(1,))
    refused("no labels of whole texts", "labels of a classifier", "infer", "multilabel", "-m", path("a.h5"), path("held.csv"), status=(1,))
    refused("no head over whole texts", "classes of a multilabel model", "infer", "classify", "-m", path("m.h5"), path("held.csv"), status=(1,))
    check(not os.path.exists(path("no.h5")), "a failed run writes nothing")
check.close()
