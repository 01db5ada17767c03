"""skillwatch train classify and infer classify: the model is scikit-learn's, the scores are scikit-learn's, inference gives the same bits in any
batch and with any number of threads, and bad input gets one clear line."""
import csv, io, json, os, random, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, samples_base

try:
    import h5py, numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, top_k_accuracy_score
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has scikit-learn, h5py")
    sys.exit(77)

check = Checks()
rng = random.Random(4)
KINDS = {"11-1.00": "python data machine learning software engineer", "12,2": "nurse patient care hospital ward", "13 \"3\"": "driver truck delivery road warehouse",
         "14": "teacher school children lessons english", "15": "welding steel machine workshop metal", "16": "sales customers store shop team"}
C = 30.0


def phrase(words, n): return " ".join(rng.choice(words) for _ in range(n))


def rows(count):
    everything = " ".join(KINDS.values()).split()
    out = []
    for i in range(count):
        label = list(KINDS)[min(int(rng.expovariate(0.5)), 5)]
        out.append((f"p{i}", phrase(KINDS[label].split(), 3), phrase(KINDS[label].split() + everything, rng.randint(0, 6)), label))
    return out


def write_csv(path, rows, columns=("id", "Title", "Description", "Code")):
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([columns, *rows])
    return path


def training(path):
    with h5py.File(path) as f: return json.loads(bytes(f["training"][0]).rstrip(b"\0"))


def head(path):
    with h5py.File(path) as f:
        return f["weights/heads.label.weight"][()], f["weights/heads.label.bias"][()], [bytes(l).rstrip(b"\0").decode() for l in f["heads/label/labels"][()]]


def objective(w, b, x, y, c):
    z = x @ w.T.astype(np.float64) + b
    m = z.max(1)
    return float((m + np.log(np.exp(z - m[:, None]).sum(1)) - z[np.arange(len(y)), y]).sum() + (w.astype(np.float64) ** 2).sum() / (2 * c))


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    base = samples_base(tmp)
    train, dev = rows(400), rows(150)
    write_csv(path("train.csv"), train), write_csv(path("dev.csv"), dev + [("x", "pilot", "", "99")])
    common = ["--base", base, "--column", "Title,Description", "--label", "Code", "--prefix", "Job title: ", "-C", C, "--tolerance", "1e-7"]
    run = lambda *a: program("train", "classify", *common, *a)

    # the fit, and the same again: other threads, rows in JSON lines
    done = run("--data", path("train.csv"), "--dev", path("dev.csv"), "-o", path("a.h5"), "--threads", 2, "--json", "-k", 2)
    check(done.returncode == 0, f"train: {done.stderr[-500:]}")
    check("1 row of --dev is left out" in done.stderr, f"labels that training lacks are told: {done.stderr[-500:]!r}")
    metrics = json.loads(done.stdout)
    done = run("--data", path("train.csv"), "--dev", path("dev.csv"), "-o", path("b.h5"), "--threads", 1, "--quiet", "-k", 2)
    check(done.returncode == 0 and done.stdout == done.stderr == "", f"--quiet prints nothing: {done.stderr!r}")
    with h5py.File(path("a.h5")) as a, h5py.File(path("b.h5")) as b:
        check(a.attrs["content_sha256"] == b.attrs["content_sha256"] and a.attrs["kind"] == b"classify", "1 and 2 threads: the same checkpoint")
    with open(path("train.jsonl"), "w", encoding="utf-8") as f:
        for i, t, d, l in train: f.write(json.dumps({"id": i, "Title": t, "Description": d or None, "Code": l}) + "\n")
    done = run("--data", path("train.jsonl"), "-o", path("c.h5"), "--quiet")
    check(done.returncode == 0 and all(np.array_equal(p, q) for p, q in zip(head(path("a.h5")), head(path("c.h5")))), f"CSV and JSON lines: the same head {done.stderr}")
    facts = training(path("a.h5"))
    data = facts["run"]["data"][0]
    check(data["rows"] == 400 and data["rejected"] == 0 and len(data["sha256"]) == 64 and facts["metrics"] == metrics, "manifest and metrics are kept")

    # beside scikit-learn, on the vectors of skillwatch infer embed
    def vectors(name, data):
        write_csv(path(name), [(i, (t + "\n" + d).strip()) for i, t, d, _ in data], ("id", "text"))
        done = program("infer", "embed", "-m", base, path(name), "--prefix", "Job title: ", "-o", path(name + ".h5"), "--quiet")
        assert done.returncode == 0, done.stderr
        with h5py.File(path(name + ".h5")) as f: return f["vectors"][()].astype(np.float64)
    w, b, labels = head(path("a.h5"))
    number = {l: i for i, l in enumerate(labels)}
    check(labels == sorted(KINDS), f"classes are sorted by name: {labels}")
    x, y = vectors("t.csv", train), np.array([number[r[3]] for r in train])
    xd, yd = vectors("d.csv", dev), np.array([number[r[3]] for r in dev])
    peer = LogisticRegression(C=C, tol=1e-9, max_iter=20000).fit(x, y)
    ours, best = objective(w, b, x, y, C), objective(peer.coef_, peer.intercept_, x, y, C)
    check(abs(ours - best) <= 1e-5 * best, f"objective {ours}, scikit-learn {best}")
    check(abs(facts["fit"]["objective"] - ours) <= 1e-5 * ours, "the objective that is kept")
    z = xd @ w.T.astype(np.float64) + b
    proba = np.exp(z - z.max(1)[:, None])
    proba /= proba.sum(1)[:, None]
    check(abs(proba - peer.predict_proba(xd)).max() < 0.02, f"probabilities beside scikit-learn's: {abs(proba - peer.predict_proba(xd)).max()}")
    order = np.argsort(-z, axis=1, kind="stable")
    rank = np.array([list(o).index(g) + 1 for o, g in zip(order, yd)])
    wanted = {f"accuracy@{k}": top_k_accuracy_score(yd, z, k=k, labels=range(6)) for k in (1, 2, 3, 5)}
    wanted.update({"accuracy@10": 1.0, "mrr": (1 / rank).mean(), "macro_f1": f1_score(yd, order[:, 0], average="macro"), "rows": 150, "unseen_labels": 1})
    check(set(metrics) == set(wanted) and all(abs(metrics[k] - wanted[k]) < 1e-9 for k in wanted), f"scores {metrics}, scikit-learn {wanted}")
    check(0.3 < metrics["accuracy@1"] <= 1, f"it has learned: {metrics}")

    # vectors that are there already
    done = run("--data", path("train.csv"), "--vectors", path("t.csv.h5"), "-o", path("v.h5"), "--quiet")
    check(done.returncode == 0 and np.array_equal(head(path("v.h5"))[0], w), f"--vectors: the same head {done.stderr}")
    check.refused(program("train", "classify", *common[:-6], "--data", path("train.csv"), "--vectors", path("t.csv.h5"), "-o", path("no.h5")), "--prefix", "vectors of another prefix")
    check.refused(run("--data", path("dev.csv"), "--vectors", path("t.csv.h5"), "-o", path("no.h5")), "no vector", "vectors of other rows")
    done = run("--data", path("train.csv"), "--holdout", "0.25", "-o", path("h.h5"))
    check(done.returncode == 0 and "300 rows in 6 classes, 100 rows" in done.stderr, f"--holdout: {done.stderr[-400:]}")

    # inference: same bits in any batch, order and number of threads; both formats
    infer = lambda *a, **k: program("infer", "classify", "-m", path("a.h5"), "--column", "Title,Description", "--quiet", *a, **k)
    done = infer(path("dev.csv"), "-k", 3)
    lines = done.stdout.splitlines()
    check(done.returncode == 0 and len(lines) == 151, f"infer: {done.stderr}")
    top = [json.loads(l) for l in lines]
    check([t["id"] for t in top[:150]] == [r[0] for r in dev], "in input order, with ids")
    check([[l["label"] for l in t["labels"]] for t in top[:150]] == [[labels[i] for i in o[:3]] for o in order], "the labels are those of the head")
    check(all(abs(l["probability"] - proba[i, number[l["label"]]]) < 1e-4 for i, t in enumerate(top[:150]) for l in t["labels"]), "their probabilities")
    for extra in (["--threads", 1, "--batch-tokens", 64], ["--threads", 2, "--no-dedup"]):
        check(infer(path("dev.csv"), "-k", 3, *extra).stdout == done.stdout, f"the same bits with {extra}")
    write_csv(path("reversed.csv"), dev[::-1])
    check(sorted(infer(path("reversed.csv"), "-k", 3).stdout.splitlines()) == sorted(lines[:150]), "the same bits in another order")
    done = infer(path("dev.csv"), "-k", 3, "-o", path("top.csv"))
    with open(path("top.csv"), newline="", encoding="utf-8") as f: table = list(csv.DictReader(f))
    check(done.returncode == 0 and [(r["id"], r["rank"], r["label"], float(r["probability"])) for r in table] ==
          [(t["id"], str(n + 1), l["label"], l["probability"]) for t in top for n, l in enumerate(t["labels"])], "CSV holds the same")
    check(infer(path("dev.csv"), "-k", 50, "-o", path("top.jsonl")).returncode == 0 and len(json.loads(open(path("top.jsonl")).readline())["labels"]) == 6, "k above the number of labels")
    done = program("infer", "embed", "-m", path("a.h5"), path("t.csv"), "--prefix", "Job title: ", "-o", path("again.h5"), "--quiet")
    with h5py.File(path("again.h5")) as f: check(np.array_equal(f["vectors"][()].astype(np.float64), x), f"the encoder stays as it was {done.stderr}")

    # by search: the most similar of a table, in the same form
    table = [("11-1", "welder", "steel and torch"), ("11-2", "nurse", "patients and wards"), ("11-3", "driver", ""), ("11-4", "teacher", "lessons")]
    with open(path("table.tsv"), "w", encoding="utf-8") as f: f.writelines("\t".join(r) + "\n" for r in [("Code", "Title", "Description"), *table])
    with open(path("split.csv"), "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([("job_id", "date", "head", "body"), *[(i, "2026-01-05", t, d) for i, t, d, _ in dev[:60]]])
    found = ["-m", base, "--occupations", path("table.tsv"), "--occupations-id", "Code"]
    search = lambda *a: program("infer", "classify", *found, "--occupations-column", "Title,Description", path("split.csv"), "--quiet", *a)
    done = search("--title-column", "head", "--column", "body", "-k", 3)
    top = [json.loads(l) for l in done.stdout.splitlines()]
    with open(path("joined.jsonl"), "w", encoding="utf-8") as f:
        for i, t, d, _ in dev[:60]: f.write(json.dumps({"id": i, "text": f"{t}\n{d}".strip()}) + "\n")
    with open(path("table.jsonl"), "w", encoding="utf-8") as f:
        for i, t, d in table: f.write(json.dumps({"id": i, "text": f"{t}\n{d}".strip()}) + "\n")
    vectors = {}
    for name in ("joined", "table"):
        assert program("infer", "embed", "-m", base, path(name + ".jsonl"), "-o", path(name + ".npy"), "--quiet").returncode == 0
        vectors[name] = np.load(path(name + ".npy")).astype(np.float64)
        vectors[name] /= np.linalg.norm(vectors[name], axis=1, keepdims=True)
    cosine = vectors["joined"] @ vectors["table"].T
    codes = [r[0] for r in table]
    check(done.returncode == 0 and [t["id"] for t in top] == [r[0] for r in dev[:60]] and all(t["date"] == "2026-01-05" and len(t["labels"]) == 3 for t in top), f"--occupations: {done.stderr}")
    check(all(abs(l["score"] - cosine[i, codes.index(l["label"])]) < 1e-5 and cosine[i, codes.index(l["label"])] > np.sort(cosine[i])[-1 - n] - 1e-6
              for i, t in enumerate(top) for n, l in enumerate(t["labels"])), "labels and scores are numpy's, of title and text as one")
    for extra in (["--threads", 1, "--batch-tokens", 64], ["--no-dedup"]):
        check(search("--column", "head,body", "-k", 3, *extra).stdout == done.stdout, f"the same bits with {extra}, and with --column head,body")
    check(program("infer", "embed", "-m", base, path("table.jsonl"), "-o", path("table.h5"), "--quiet").returncode == 0, "the table's vectors")
    stored = program("infer", "classify", "-m", base, "--occupations", path("table.h5"), path("split.csv"), "--column", "head,body", "-k", 3, "--quiet")
    check(stored.stdout == done.stdout, f"a table of vectors: the same {stored.stderr}")
    shards = [search("--column", "head,body", "-k", 9, "-o", path("top9.csv"), "--shard", f"{i}/2").returncode for i in (1, 2)]
    with open(path("top9.csv"), newline="", encoding="utf-8") as f: rows9 = list(csv.DictReader(f))
    check(shards == [0, 0] and list(rows9[0]) == ["id", "date", "rank", "label", "score"] and len(rows9) == 240 and [r["label"] for r in rows9[:3]] == [l["label"] for l in top[0]["labels"]]
          and [r["rank"] for r in rows9[:4]] == list("1234"), "CSV of all four, in shards")
    for args, part, status in ((["-k", 257], "from 1 to 256", 2), (["--title-column", "head"], "--column", 2), (["-o", path("table.tsv")], "table.tsv", 2),
                               (["--occupations-id", "SOC"], "Choose one with --occupations-id", 1), (["--column", "head", "--occupations-column", "Name"], "Choose one with --occupations-column", 1)):
        check.refused(search(*args), part, f"{args}", (status,))
    check.refused(infer(path("dev.csv"), "--occupations-id", "Code"), "--occupations FILE", "options without --occupations", (2,))

    # what belongs around it
    done = program("show", path("a.h5"))
    check(done.returncode == 0 and "label (sequence, 6 labels)" in done.stdout and "accuracy@1" in done.stdout, f"show: {done.stdout}")
    check("accuracy" in program("show", "--lineage", path("a.h5")).stdout, "show --lineage tells the accuracy")
    check.refused(program("export", path("a.h5"), "-o", path("folder")), "--head none", "export")
    check(program("export", path("a.h5"), "--head", "none", "-o", path("folder"), "--quiet").returncode == 0, "export of the encoder alone")
    check.refused(program("infer", "tag", "-m", path("a.h5"), path("dev.csv"), "--column", "Title"), "no token head", "tagging with it")
    check.refused(program("infer", "classify", "-m", base, path("dev.csv"), "--column", "Title"), "train classify", "classifying with a base")
    check.refused(program("infer", "classify", "-m", base, path("dev.csv"), "--column", "Title"), "--occupations", "it says how")

    # bad rows are set aside, with the reason
    bad = train[:40] + [("e1", "", "", "14"), ("e2", "driver", "", "  "), ("e3", "nurse", "", "14")]
    write_csv(path("bad.csv"), bad)
    with open(path("bad.csv"), "ab") as f: f.write(b"e4,\xff\xfe,,14\r\ne5,too,few\r\n")
    done = run("--data", path("bad.csv"), "-o", path("bad.h5"))
    reasons = [json.loads(l)["reason"] for l in open(path("bad.rejected.jsonl"), encoding="utf-8")]
    check(done.returncode == 0 and "4 unusable rows" in done.stderr and reasons[:2] == ["the text is empty", "the label is empty"] and len(reasons) == 4,
          f"bad rows: {reasons} {done.stderr[-300:]}")
    check(training(path("bad.h5"))["run"]["data"][0]["rejected"] == 4, "and counted in the manifest")

    # wrong usage (2) and failures (1), one line each
    ok = ["--data", path("train.csv"), "-o", path("no.h5")]
    for what, args, part, status in [
            ("output exists", ["--data", path("train.csv"), "-o", path("a.h5")], "--force", 2), ("no data", ["-o", path("no.h5")], "--data", 2),
            ("no output", ["--data", path("train.csv")], "-o is missing", 2), ("output is the input", ["--data", path("train.csv"), "-o", path("train.csv"), "--force"], "train.csv", 2),
            ("C", [*ok, "-C", "0"], "C must", 2), ("method", [*ok, "--method", "forest"], "logistic", 2), ("holdout", [*ok, "--holdout", "1"], "--holdout", 2),
            ("dev and holdout", [*ok, "--dev", path("dev.csv"), "--holdout", "0.1"], "exclude", 2), ("operand", [*ok, "x.csv"], "x.csv", 2),
            ("no such label column", [*ok, "--label", "code"], "Choose one with --label", 1), ("no such column", [*ok, "--column", "Title,Text"], "\"Text\"", 1),
            ("missing file", ["--data", path("none.csv"), "-o", path("no.h5")], "none.csv", 1), ("text file", ["--data", path("tiny/vocab.txt"), "-o", path("no.h5")], "no labels", 1)]:
        check.refused(run(*args), part, what, (status,))
    write_csv(path("one.csv"), [r for r in train if r[3] == "14"])
    check.refused(run("--data", path("one.csv"), "-o", path("no.h5")), "two classes", "one class", (1,))
    write_csv(path("strangers.csv"), [("s", "pilot", "", "77")])
    check.refused(run(*ok, "--dev", path("strangers.csv")), "no row of --dev", "dev without a known label", (1,))
    check.refused(infer(path("dev.csv"), "-o", path("top.txt")), ".csv or .jsonl", "name of the output", (2,))
    check.refused(infer(path("dev.csv"), "-k", 0), "-k", "k", (2,))
    check(not os.path.exists(path("no.h5")), "a failed run writes nothing")
    for verb in ("train", "infer"):
        done = program(verb, "classify", "--help")
        check(done.returncode == 0 and f"skillwatch {verb} classify" in done.stdout and "example" in done.stdout, f"{verb} classify --help")
check.close()
