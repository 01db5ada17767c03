"""Lineage: every checkpoint names its ancestors, their data, settings, code and device; show --lineage draws the family of one and of several."""
import json, os, re, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import SAMPLES, Checks, program, samples_base

check = Checks()

with tempfile.TemporaryDirectory() as tmp:
    at = lambda name: os.path.join(tmp, name)
    base = samples_base(tmp, hidden=16, layers=1, intermediate=32)
    rows = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]]
    for name, count in (("week1", 8), ("week2", 11), ("week3", 1), ("other", 5)): open(at(name + ".jsonl"), "w", encoding="utf-8").writelines(rows[:count])

    def train(parent, data, name, *more):
        files = [a for d in data for a in ("--data", at(d + ".jsonl"))]
        done = program("train", "ner", "--base", at(parent + ".h5"), *files, "--dev", at("other.jsonl"), "--epochs", "1", "--threads", "1", "-o", at(name + ".h5"), "-q", *more)
        check(done.returncode == 0, f"{name}: {done.stderr}")

    train("tiny", ["week1"], "first")
    train("first", ["week2", "week3"], "second", "--lr", "0.002")
    train("second", ["week1"], "third")
    train("first", ["other"], "branch")
    train("first", ["other"], "twin")  # the same training: the same checkpoint

    def lineage(*names, status=0):
        done = program("show", "--lineage", *[at(n + ".h5") for n in names])
        check(done.returncode == status, f"{names}: {done.stderr}")
        return done.stdout.replace(tmp + "/", "").splitlines()

    entries = json.loads(program("show", "--lineage", "--json", at("third.h5")).stdout)
    whole = {n: json.loads(program("show", "--json", at(n + ".h5")).stdout) for n in ("tiny", "first", "second", "third", "branch")}
    hashes = {n: w["content_sha256"] for n, w in whole.items()}
    check([e["content_sha256"] for e in entries] == [hashes[n] for n in ("tiny", "first", "second", "third")], f"the ancestors in order: {entries}")
    check([e["parent_sha256"] for e in entries] == [""] + [hashes[n] for n in ("tiny", "first", "second")], "each names its parent's hash")
    check(all(re.fullmatch(r"\d+\.\d+\.\d+(\+[0-9a-f]{7,12}(-dirty)?)?", e["tool_version"]) for e in entries), f"the code: {[e['tool_version'] for e in entries]}")
    check([[d["rows"] for d in e.get("data", [])] for e in entries] == [[], [8], [11, 1], [8]], "rows of all data")
    check(all(len(d["sha256"]) == 64 for e in entries for d in e.get("data", []) + e.get("dev", [])), "hashes of all data")
    check([e["dev"][0]["rows"] for e in entries[1:]] == [5] * 3 and "dev" not in entries[0], "the evaluation data")
    check([e["hyper_parameters"]["learning_rate"] for e in entries[1:]] == [1e-4, 0.002, 1e-4], "hyper-parameters")
    check(all(e["device"].startswith("cpu") and e["task"] == "ner" and "f1" in e["metrics"]["micro"] for e in entries[1:]), "device, task, metrics")
    check(entries[0]["source"]["format"] == "folder" and "paths" not in entries[2] and entries[3]["paths"] == [at("third.h5")], "where the base came from")
    check(whole["third"]["lineage"] == [{k: v for k, v in e.items()} for e in entries[:3]], "the same stands in the checkpoint")

    date = r"\d{4}-\d\d-\d\d"
    def matches(lines, *patterns):
        check(len(lines) == len(patterns) and all(re.fullmatch(p.replace("DATE", date), l) for p, l in zip(patterns, lines)), "\n".join(["", *lines, *patterns]))

    ner = lambda name: f"ner  {hashes[name][:12]}  DATE  F1 [01]\\.\\d{{4}}  accuracy [01]\\.\\d{{4}}  from "
    root = f"base  {hashes['tiny'][:12]}  DATE  pulled from .*tiny"
    first, second = ner("first") + r"week1\.jsonl \(8 rows\)", ner("second") + r"week2\.jsonl \(11 rows\), week3\.jsonl \(1 row\)"
    third, branch = ner("third") + r"week1\.jsonl \(8 rows\)  <- third\.h5", ner("branch") + r"other\.jsonl \(5 rows\)  <- branch\.h5"
    matches(lineage("third"), root, first, second, third)
    matches(lineage("third", "branch"), root, first, r"\|- " + second, r"\|  " + third, "`- " + branch)
    matches(lineage("branch", "third"), root, first, r"\|- " + branch, "`- " + second, "   " + third)
    matches(lineage("branch", "twin"), root, first, branch + r", twin\.h5")
    matches(lineage("third", "first"), root, first + r"  <- first\.h5", second, third)
    matches(lineage("tiny"), root + r"  <- tiny\.h5")
    samples_base(os.makedirs(at("else")) or at("else"), hidden=16, layers=1, intermediate=32, seed=4)
    matches(lineage("third", "else/tiny"), root, first, second, third, root.replace(hashes["tiny"][:12], "[0-9a-f]{12}") + r"  <- else/tiny\.h5")
    open(at("broken.h5"), "w").write("no checkpoint")
    matches(lineage("broken", "third", status=1), root, first, second, third)
check.close()
