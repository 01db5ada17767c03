"""skillwatch train embed: learns, its scores are those of a plain evaluator over the vectors of `infer embed`, its first loss is the one worked out
by hand, large batches in parts give the same, it resumes bit for bit, runs on the emulated GPU, refuses bad input in one line."""
import csv, json, os, random, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, Checks, program, tiny_bert

import h5py, numpy as np

check = Checks()
rng = random.Random(3)
WORDS = [a + b + c for a in "bdfgkl" for b in "aeiou" for c in "mnrst"]  # 150
SUBJECTS = [(WORDS[5 * i], WORDS[5 * i + 1:5 * i + 5]) for i in range(30)]  # a title, and the words of its queries


def pairs(n):
    """Queries of two words of a subject and one of anything; the title is in none of them: only training tells it."""
    rows = []
    for i in range(n):
        title, words = SUBJECTS[i % len(SUBJECTS)]
        rows.append((" ".join(rng.sample(words, 2) + [rng.choice(WORDS)]), "the " + title, ["the " + rng.choice(SUBJECTS)[0]] if i % 3 == 0 else []))
    return rows


def write_jsonl(path, rows):
    with open(path, "w") as f:
        for q, p, n in rows: f.write(json.dumps({"query": q, "positive": p, **({"negatives": n} if n else {})}) + "\n")


def weights(path, groups=("weights", "optimizer")):
    out = {}
    with h5py.File(path) as f:
        for group in groups:
            if group in f: f[group].visititems(lambda n, o: out.__setitem__(group + "/" + n, o[()].tobytes()) if isinstance(o, h5py.Dataset) else None)
    return out


def lines(path): return [json.loads(l) for l in open(path)]
def losses(path): return [l["loss"] for l in lines(path) if "loss" in l]


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"] + WORDS
    folder = tiny_bert(path("tiny"), vocab, hidden=32, positions=16)
    check(program("pull", folder, "-o", path("base.h5"), "--quiet").returncode == 0, "pull")
    config = json.load(open(folder + "/config.json"))
    json.dump({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, open(folder + "/config.json", "w"))
    check(program("pull", folder, "-o", path("plain.h5"), "--quiet").returncode == 0, "pull without dropout")

    def embed(model, texts):
        open(path("texts.jsonl"), "w").writelines(json.dumps({"text": t}) + "\n" for t in texts)
        done = program("infer", "embed", "-m", model, path("texts.jsonl"), "-o", path("vectors.h5"), "--no-resume", "--quiet")
        assert done.returncode == 0, done.stderr
        with h5py.File(path("vectors.h5")) as f: v = f["vectors"][()].astype(np.float64)
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    def evaluate(model, rows, corpus=()):
        """The definitions of sentence-transformers' InformationRetrievalEvaluator, one query at a time."""
        relevant = {}
        for q, p, _ in rows: relevant.setdefault(q, set()).add(p)
        documents = list(dict.fromkeys([t for _, p, n in rows for t in [p, *n]] + list(corpus)))
        v = embed(model, list(relevant) + documents)
        scores = v[:len(relevant)] @ v[len(relevant):].T
        out = {name: {str(k): [] for k in (1, 3, 5, 10)} for name in ("accuracy", "precision", "recall", "mrr", "ndcg")}
        gain = lambda r: sum(1 / np.log2(i + 2) for i, hit in enumerate(r) if hit)
        for q, row in zip(relevant, scores):
            ranked, total = [documents[i] in relevant[q] for i in np.argsort(-row, kind="stable")[:10]], len(relevant[q])
            for k in (1, 3, 5, 10):
                hits = ranked[:k]
                for name, value in (("accuracy", float(any(hits))), ("precision", sum(hits) / k), ("recall", sum(hits) / total),
                                    ("mrr", 1 / (hits.index(True) + 1) if any(hits) else 0), ("ndcg", gain(hits) / gain([True] * min(k, total)))):
                    out[name][str(k)].append(value)
        return {k: {c: np.mean(x) for c, x in v.items()} for k, v in out.items()}, len(relevant), len(documents)

    train, dev = pairs(120), pairs(60)
    dev += [(dev[0][0], dev[1][1], []), (dev[2][0], dev[3][1], [])]  # queries with two relevant documents
    write_jsonl(path("train.jsonl"), train)
    write_jsonl(path("dev.jsonl"), dev)
    common = ["--base", path("base.h5"), "--data", path("train.jsonl"), "--dev", path("dev.jsonl"), "--epochs", "8", "--batch-size", "16", "--lr", "5e-3",
              "--log-every", "1"]

    # learns; threads change nothing; the scores are the plain evaluator's
    done = program("train", "embed", *common, "-o", path("a.h5"), "--threads", "2")
    check(done.returncode == 0 and "dev NDCG@10" in done.stderr, f"train: {done.stderr[-500:]}")
    done = program("train", "embed", *common, "-o", path("b.h5"), "--threads", "1", "--quiet")
    check(done.returncode == 0 and done.stderr == "", f"--quiet prints nothing: {done.stderr!r}")
    check(weights(path("a.h5")) == weights(path("b.h5")) and weights(path("a.last.h5")) == weights(path("b.last.h5")), "1 and 2 threads: the same checkpoints")
    found = [l["dev"] for l in lines(path("a.metrics.jsonl")) if "dev" in l]
    best = max(found, key=lambda m: m["ndcg"]["10"])
    before, queries, documents = evaluate(path("base.h5"), dev)
    after, _, _ = evaluate(path("a.h5"), dev)
    print(f"MRR@10 {before['mrr']['10']:.3f} -> {after['mrr']['10']:.3f}")
    check(after["mrr"]["10"] > before["mrr"]["10"] + 0.2, "MRR@10 rises")
    flat = lambda m: {(k, c): x for k, v in m.items() if k != "queries" for c, x in v.items()}
    check(best["queries"] == queries and flat(best).keys() == flat(after).keys() and max(abs(flat(best)[k] - flat(after)[k]) for k in flat(after)) < 1e-6,
          f"the scores are the evaluator's: {best} {after}")
    check(f"dev: {queries} queries, {documents} documents" in program("train", "embed", *common, "--epochs", "1", "-o", path("c.h5")).stderr, "queries and documents")
    with h5py.File(path("a.h5")) as f: check(f.attrs["kind"] in ("embed", b"embed") and not len(f.get("heads", {})), "kind, no heads")

    # the first loss by hand: a text that comes twice is one candidate, also a negative that is another pair's positive
    rows = train[:20] + [(train[0][0], train[0][1], [train[1][1]])]
    write_jsonl(path("few.jsonl"), rows)
    done = program("train", "embed", "--base", path("plain.h5"), "--data", path("few.jsonl"), "--batch-size", "32", "--epochs", "1", "-o", path("few.h5"), "--quiet", "--scale", "15")
    candidates = list(dict.fromkeys(t for _, p, n in rows for t in [p, *n]))
    v = embed(path("plain.h5"), [q for q, _, _ in rows] + candidates)
    s = 15 * v[:len(rows)] @ v[len(rows):].T
    by_hand = np.mean(np.log(np.exp(s).sum(1)) - s[np.arange(len(rows)), [candidates.index(p) for _, p, _ in rows]])
    check(done.returncode == 0 and abs(losses(path("few.metrics.jsonl"))[0] - by_hand) < 1e-4, f"first loss {losses(path('few.metrics.jsonl'))} {by_hand} {done.stderr}")

    # in parts: the same losses, but for rounding; rows of CSV and TSV: the same bits
    no_dropout = [path("plain.h5") if x == path("base.h5") else "3" if x == "8" else x for x in common]
    check(program("train", "embed", *no_dropout, "-o", path("whole.h5"), "--quiet").returncode == 0, "the whole batch at once")
    for chunk in (4, 8):
        done = program("train", "embed", *no_dropout, "-o", path("parts.h5"), "--quiet", "--chunk-size", chunk, "--force")
        whole, parts = losses(path("whole.metrics.jsonl")), losses(path("parts.metrics.jsonl"))
        check(done.returncode == 0 and len(whole) == len(parts) == 24 and max(abs(a - b) for a, b in zip(whole, parts)) < 1e-4,
              f"parts of {chunk}: {done.stderr} {whole} {parts}")
    for ending, delimiter in (("csv", ","), ("tsv", "\t")):
        with open(path("train." + ending), "w", newline="") as f:
            w = csv.writer(f, delimiter=delimiter)
            w.writerow(["number", "text", "title", "other"])
            w.writerows([i, q, p, *(n or [""])] for i, (q, p, n) in enumerate(train))
        columns = ["--data", path("train." + ending), "--query", "text", "--positive", "title", "--negatives", "other"]
        done = program("train", "embed", "--base", path("base.h5"), *columns, "--epochs", "1", "--batch-size", "16", "-o", path(ending + ".h5"), "--quiet")
        check(done.returncode == 0, f"{ending}: {done.stderr[-300:]}")
    check(weights(path("csv.h5")) == weights(path("tsv.h5")), "CSV and TSV: the same bits")
    done = program("train", "embed", "--base", path("base.h5"), "--data", path("train.jsonl"), "--epochs", "1", "--batch-size", "16", "-o", path("json.h5"), "--quiet")
    check(done.returncode == 0 and weights(path("json.h5")) == weights(path("csv.h5")), "JSON: the same bits")

    # a larger corpus makes it harder, and is counted
    extra = sorted({" ".join(rng.sample(WORDS, 2)) for _ in range(50)})
    open(path("corpus.txt"), "w").write("\n".join(extra) + "\n\n")
    done = program("train", "embed", *common, "--epochs", "1", "--corpus", path("corpus.txt"), "-o", path("corpus.h5"))
    check(done.returncode == 0 and f"{documents + len(extra)} documents" in done.stderr and "1 row could not" in done.stderr, f"--corpus: {done.stderr[-300:]}")
    after, _, _ = evaluate(path("corpus.h5"), dev, extra)
    check(abs(lines(path("corpus.metrics.jsonl"))[-1]["dev"]["ndcg"]["10"] - after["ndcg"]["10"]) < 1e-6, "--corpus: the evaluator's score")

    # stopped again and again, in parts and with dropout, it ends with the same bits
    cached = [*common, "--epochs", "3", "--chunk-size", "8"]
    check(program("train", "embed", *cached, "-o", path("d.h5"), "--quiet").returncode == 0, "in parts")
    def step_of(metrics):
        try: return max((json.loads(l)["step"] for l in open(metrics) if l.endswith("\n")), default=0)
        except OSError: return 0
    stops, goal = 0, 0
    for attempt in range(40):
        goal += rng.randint(2, 7)
        run = subprocess.Popen([BIN + "/skillwatch-train", "embed", *cached, "-o", path("e.h5"), "--resume", "--checkpoint-every", "3"], stderr=subprocess.PIPE, text=True)
        while run.poll() is None and step_of(path("e.metrics.jsonl")) < goal: time.sleep(0.002)
        if run.poll() is None: run.send_signal(signal.SIGKILL if stops % 3 == 2 else signal.SIGTERM)
        err = run.communicate()[1]
        if run.returncode == 0: break
        stops += 1
        check(run.returncode in (75, -signal.SIGKILL, -signal.SIGTERM), f"stopped run: {run.returncode} {err[-300:]}")
    check(run.returncode == 0 and stops >= 2, f"it was stopped {stops} times and ends at last: {err[-300:]}")
    check(weights(path("d.h5")) == weights(path("e.h5")) and weights(path("d.last.h5")) == weights(path("e.last.h5")), "resumed = uninterrupted")
    check.refused(program("train", "embed", *cached, "--scale", "10", "-o", path("e.h5"), "--resume"), "hyper_parameters", "resume with another scale", (1,))

    # accumulation, bf16; a tagger from what was trained
    for more in (["--accumulate", "2"], ["--dtype", "bf16"]):
        done = program("train", "embed", *common, "--epochs", "1", *more, "-o", path("f.h5"), "--force", "--quiet")
        check(done.returncode == 0 and all(np.isfinite(losses(path("f.metrics.jsonl")))), f"{more}: {done.stderr[-300:]}")
    write = [{"text": f"{SUBJECTS[i][0]} the", "spans": [{"start": 0, "end": 3, "label": "Skill"}]} for i in range(8)]
    open(path("labels.jsonl"), "w").writelines(json.dumps(r) + "\n" for r in write)
    done = program("train", "ner", "--base", path("a.h5"), "--data", path("labels.jsonl"), "--epochs", "1", "-o", path("tagger.h5"), "--quiet")
    check(done.returncode == 0, f"a tagger on top: {done.stderr[-300:]}")
    done = program("train", "embed", "--base", path("tagger.h5"), "--data", path("train.jsonl"), "--epochs", "1", "-o", path("g.h5"))
    check(done.returncode == 0 and "'skill' is left out" in done.stderr, f"a tagger as base: {done.stderr[-300:]}")

    # the CUDA kernels
    modules = os.environ["SKILLWATCH_MODULES"]
    if os.path.exists(os.path.join(modules, "skillwatch_cuda_emulated.so")):
        write_jsonl(path("few.jsonl"), train[:24])
        for more in ([], ["--chunk-size", "4"]):
            args = ["--base", path("base.h5"), "--data", path("few.jsonl"), "--dev", path("few.jsonl"), "--epochs", "2", "--batch-size", "8",
                    "--log-every", "1", "--lr", "1e-3", "--quiet", *more]
            results = []
            for device in ("cpu", "cuda-emulated"):
                done = program("train", "embed", *args, "--device", device, "-o", path(device + ".h5"), "--force", timeout=600)
                check(done.returncode == 0, f"{device}: {done.stderr[-500:]}")
                results.append((losses(path(device + ".metrics.jsonl")), lines(path(device + ".metrics.jsonl"))[-1]["dev"]["ndcg"]["10"]))
            (cpu, score), (cuda, other) = results
            apart = max(abs(a - b) for a, b in zip(cpu, cuda))
            print(f"{len(cuda)} steps on the emulated GPU{' in parts' if more else ''}: losses at most {apart:.2g} apart")
            check(len(cpu) == len(cuda) == 6 and apart <= 1e-4 and abs(score - other) < 0.02, f"losses {apart} apart: {cpu} {cuda}; {score} {other}")

    # bad input
    def refused(part, what, *args, status=(1, 2)): check.refused(program("train", "embed", *args), part, what, status)
    one = ["--base", path("base.h5"), "-o", path("x.h5")]
    refused("--data is missing", "no data", *one, status=(2,))
    refused("must divide", "parts that do not fit", *one, "--data", path("train.jsonl"), "--batch-size", "16", "--chunk-size", "5", status=(2,))
    refused("--batch-size", "a batch of one", *one, "--data", path("train.jsonl"), "--batch-size", "1", status=(2,))
    refused("--scale", "no scale", *one, "--data", path("train.jsonl"), "--scale", "0", status=(2,))
    refused("unknown option", "an option that it has not", *one, "--data", path("train.jsonl"), "--batch-tokens", "100", status=(2,))
    refused("--max-length", "more than the model embeds", *one, "--data", path("train.jsonl"), "--max-length", "17", status=(2,))
    refused("is missing", "a corpus without dev", *one, "--data", path("train.jsonl"), "--corpus", path("corpus.txt"), status=(2,))
    refused("no column \"query\"", "a column that is missing", *one, "--data", path("train.csv"), status=(1,))
    refused("no column \"wrong\"", "negatives that are missing", *one, "--data", path("train.csv"), "--query", "text", "--positive", "title", "--negatives", "wrong", status=(1,))
    refused("ends in", "another kind of file", *one, "--data", path("corpus.txt"), status=(1,))
    refused("nowhere", "missing data", *one, "--data", path("nowhere.jsonl"), status=(1,))
    for name in ("x.rejected.jsonl", "x.corpus1.rejected.jsonl"): write_jsonl(path(name), train)
    refused("is the input", "an output that is an input", "--base", path("base.h5"), "--data", path("x.rejected.jsonl"), "-o", path("x.h5"))
    refused("is the input", "a corpus that would be written", *one, "--data", path("train.jsonl"), "--dev", path("dev.jsonl"), "--corpus", path("x.corpus1.rejected.jsonl"))
    open(path("empty.jsonl"), "w").close()
    refused("empty", "empty data", *one, "--data", path("empty.jsonl"), status=(1,))
    write_jsonl(path("same.jsonl"), [(q, "the " + SUBJECTS[0][0], []) for q, _, _ in train])
    refused("same positive", "one positive only", *one, "--data", path("same.jsonl"), status=(1,))
    open(path("only-bad.jsonl"), "w").write("{broken\n")
    refused("no row can be used", "bad rows only", *one, "--data", path("only-bad.jsonl"), status=(1,))
    bad = ['{"query": "ban"}', '{"query": 3, "positive": "bas"}', '{"query": " ", "positive": "bas"}', '[1]', '{broken', '{"query": "ban", "positive": "bas", "negatives": [3]}',
           '{"query": "ban", "positive": "bas", "negatives": ""}', json.dumps({"query": "ban", "positive": "bas", "negatives": ["bar"] * 251})]
    open(path("bad.jsonl"), "w").write("\n".join(open(path("train.jsonl")).read().splitlines() + bad) + "\n")
    open(path("bad.csv"), "wb").write(b"query,positive\nban bar,bas\nfan far,fas\n\xff\xfe,bas\nonly one\n,bas\n" + " ".join(WORDS[:30]).encode() + b",gam\n")
    for data, count in (("bad.jsonl", len(bad)), ("bad.csv", 3)):
        done = program("train", "embed", *one, "--data", path(data), "--epochs", "1", "--force")
        reasons = lines(path("x.rejected.jsonl"))
        check(done.returncode == 0 and len(reasons) == count and all(r["reason"] for r in reasons) and f"{count} rows could not be used" in done.stderr,
              f"{data}: bad rows are set aside: {done.stderr[-300:]} {reasons}")
    check("1 of 6 texts was longer than 16 tokens and was cut" in done.stderr, f"texts that are cut are counted: {done.stderr[-300:]}")
    check(not [f for f in os.listdir(tmp) if ".tmp-" in f and not f.startswith("e.")], f"no temporary files are left: {os.listdir(tmp)}")
check.close()
