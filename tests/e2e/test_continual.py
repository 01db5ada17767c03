"""Training on new labels without losing what was learned: replay, scores on earlier test sets, rows that contradict each other."""
import collections, json, os, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, read_json, samples_base

import h5py

check = Checks()


def write(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        for row in rows: f.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    return path


with tempfile.TemporaryDirectory() as tmp:
    base = samples_base(tmp)
    path = lambda n: os.path.join(tmp, n)
    rows = [json.loads(l) for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8")]
    rows = [r for r in rows if r["spans"]]
    # first, frequent words are skills; then, in other sentences, no word is one
    frequent = {w for w, _ in collections.Counter(w.lower() for r in rows for w in set(r["text"].split())).most_common(30)}
    def mark(row, says):
        words = row["text"].split()
        return {"tokens": words, "tags_skill": ["B" if says and w.lower() in frequent else "O" for w in words]}
    old = write(path("old.jsonl"), [mark(r, True) for r in rows[:60]])
    test = write(path("old.test.jsonl"), [mark(r, True) for r in rows[60:90]])
    new = write(path("new.jsonl"), [mark(r, False) for r in rows[90:170]])
    common = ["--epochs", "10", "--batch-tokens", "300", "--lr", "5e-3"]

    done = program("train", "ner", "--base", base, "--data", old, "--test", test, *common, "-o", path("first.h5"))
    check(done.returncode == 0, f"first: {done.stderr[-400:]}")
    scores = read_json(path("first.h5"), "training")["earlier_tests"]
    check(scores["before"][0]["mean_f1"] is None, "before: the base has no head, so no score")
    first = scores["after"][0]["mean_f1"]
    check(first > 0.5 and scores["after"][0]["f1"] == {"skill": first}, f"after: a score, {scores['after']}")

    def go_on(name, *args):
        done = program("train", "ner", "--base", path("first.h5"), "--data", new, "--test", test, *common, "-o", path(name), *args)
        check(done.returncode == 0, f"{name}: {done.stderr[-400:]}")
        scores = read_json(path(name), "training")["earlier_tests"]
        check(scores["before"][0]["mean_f1"] == first, f"{name}: the score before is the one that the base ended with")
        check(f"before training {test}: F1" in done.stderr and f"now {test}: F1" in done.stderr, f"{name}: both are printed")
        return scores["after"][0]["mean_f1"]

    def refused(part, what, *args, status=(2,)):
        done = program("train", "ner", "--base", path("first.h5"), "--data", new, *common, "-o", path("no.h5"), *args)
        check.refused(done, part, what, status)
        check(not os.path.exists(path("no.h5")), f"{what}: nothing is written")

    forgetful, replayed = go_on("forgetful.h5"), go_on("replayed.h5", "--replay", old + ":0.5")
    check(forgetful < first - 0.2, f"without replay it forgets: {first:.3f} to {forgetful:.3f}")
    check(replayed > forgetful + 0.3, f"with replay far less, though the new labels deny the old ones: {first:.3f} to {replayed:.3f}")
    shown = program("show", path("replayed.h5")).stdout
    check(f"{test}: F1 {first:.4f} before, {replayed:.4f} after" in shown, f"show tells of it: {shown[-300:]}")
    files = read_json(path("replayed.h5"), "training")["run"]["data"]
    check([f.get("replay") for f in files] == [None, 0.5] and files[1]["rows"] == 60, f"the manifest tells what was replayed: {files}")

    # pulled towards the base's weights, the encoder stays near them
    pulled = go_on("pulled.h5", "--pull", "10")
    def moved(name):
        with h5py.File(path("first.h5")) as a, h5py.File(path(name)) as b:
            pairs = []
            a["weights"].visititems(lambda n, o: pairs.append((o[()], b["weights"][n][()])) if isinstance(o, h5py.Dataset) and not n.startswith("heads") else None)
        return sum(float(((x - y) ** 2).sum()) for x, y in pairs) ** 0.5
    far, near = moved("forgetful.h5"), moved("pulled.h5")
    check(0 < near < 0.5 * far, f"--pull: the encoder moves by {near:.3f}, not {far:.3f}")
    check(read_json(path("pulled.h5"), "training")["run"]["hyper_parameters"]["pull"] == 10, "and the checkpoint says so")
    refused("overshoot", "a pull that is too strong", "--pull", "300")

    # interrupted and resumed: the same bits, replay and scores included
    stopped = ["train", "ner", "--base", path("first.h5"), "--data", new, "--test", test, *common, "--replay", old + ":0.5", "-o", path("stopped.h5")]
    run = subprocess.Popen([BIN + "/skillwatch-" + stopped[0], *stopped[1:], "--checkpoint-every", "2"], stderr=subprocess.DEVNULL)
    while run.poll() is None and not os.path.exists(path("stopped.last.h5")): time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = program(*stopped, "--checkpoint-every", "2", "--resume")
    same = [h5py.File(path(n)).attrs["content_sha256"] for n in ("stopped.last.h5", "replayed.last.h5")]
    check(done.returncode == 0 and same[0] == same[1], f"killed and resumed: the same checkpoint {done.stderr[-300:]}")

    # rows that contradict each other: the tags with more weight behind them stay
    contrary = [mark(r, True) for r in rows[:5]] + [mark(r, True) for r in rows[:2]] + [mark(rows[0], False), mark(rows[3], False)]
    contrary.append({**mark(rows[4], False), "weight": 3})
    done = program("train", "ner", "--base", base, "--data", write(path("contrary.jsonl"), contrary), *common, "-o", path("contrary.h5"))
    aside = [json.loads(l) for l in open(path("contrary.rejected.jsonl"))]
    check(done.returncode == 0 and [r["line"] for r in aside] == [4, 5, 8, 9], f"set aside: {[r['line'] for r in aside]} {done.stderr[-300:]}")
    check("contradict" in aside[0]["reason"] and "line 9" in aside[0]["reason"], f"with the reason: {aside[0]['reason']}")
    check(read_json(path("contrary.h5"), "training")["run"]["data"][0]["rejected"] == 4, "and counted")

    # wrong usage and replay of another kind
    for bad in (old, old + ":", old + ":0", old + ":1", old + ":x", ":0.5"):
        refused("replay" if bad != ":0.5" else "", f"--replay {bad[-6:]}", "--replay", bad, status=(1, 2))
    refused("come to 1;", "fractions that leave nothing", *(a for part in (0.7, 0.2, 0.1) for a in ("--replay", f"{old}:{part}")))
    refused("come to 1.2", "fractions above 1", "--replay", old + ":0.6", "--replay", test + ":0.6")
    refused("missing.jsonl", "a missing file", "--replay", path("missing.jsonl") + ":0.5", status=(1,))
    kinds = write(path("kinds.jsonl"), [{"tokens": ["some", "words"], "tags_skill": ["B-Tool", "O"]}])
    refused("'B-Tool' in the layer 'skill'", "labels of another kind", "--replay", kinds + ":0.5", status=(1,))
    layer = write(path("layer.jsonl"), [{"tokens": ["some", "words"], "tags_title": ["B", "O"]}])
    refused("'title'", "a layer that nobody knows", "--replay", layer + ":0.5", status=(1,))
    done = program("train", "ner", "--base", path("first.h5"), "--data", new, *common, "--replay", old + ":0.5", "-o", old, "--force")
    check.refused(done, "old.jsonl", "an output over what is replayed", (2,))
check.close()
