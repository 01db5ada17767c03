"""skillwatch train mlm as people use it: perplexity falls, resumes bit for bit, refuses bad input in one line, and its output is a base."""
import gzip, json, os, re, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, read_json, samples_base, weights

import h5py
from safetensors.numpy import load_file

check = Checks()
ALL = SAMPLES + "/job-postings"


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    base = samples_base(tmp)
    POSTINGS = path("postings")
    texts = [open(os.path.join(root, n), encoding="utf-8").read() for root, _, names in sorted(os.walk(ALL)) for n in sorted(names)][:48]
    for i, text in enumerate(texts):
        os.makedirs(f"{POSTINGS}/{i // 24 + 1:02}-01-2026", exist_ok=True)
        open(f"{POSTINGS}/{i // 24 + 1:02}-01-2026/{i}.txt", "w", encoding="utf-8").write(text)
    common = ["--base", base, "--data", POSTINGS, "--epochs", "4", "--batch-tokens", "1000", "--lr", "3e-3", "--holdout", "0.1", "--log-every", "1"]

    done = program("train", "mlm", *common, "-o", path("a.h5"), "--threads", "2")
    check(done.returncode == 0, f"train: {done.stderr[-500:]}")
    check("held out" in done.stderr and "new one" in done.stderr, f"what is held out, and that the head is new: {done.stderr[:400]}")
    rows = [json.loads(l) for l in open(path("a.metrics.jsonl"))]
    perplexity = [r["dev"]["perplexity"] for r in rows if "dev" in r]
    check(len(perplexity) == 5 and perplexity[-1] < 0.5 * perplexity[0] and perplexity == sorted(perplexity, reverse=True), f"perplexity falls, from before training on: {perplexity}")
    losses = [r["loss"] for r in rows if "loss" in r]
    check(losses[-1] < 0.9 * losses[0], f"the loss falls: {losses[0]:.3f} to {losses[-1]:.3f}")
    done = program("train", "mlm", *common, "-o", path("b.h5"), "--threads", "1", "--quiet")
    check(done.returncode == 0 and done.stderr == "", f"--quiet prints nothing: {done.stderr!r}")
    check(weights(path("a.last.h5")) == weights(path("b.last.h5")) and weights(path("a.h5")) == weights(path("b.h5")), "1 and 2 threads: the same checkpoints")
    run = read_json(path("a.h5"), "training")["run"]
    check(run["data"][0]["rows"] == len(texts) and len(run["data"][0]["sha256"]) == 64 and run["hyper_parameters"]["mask"] == 0.15, f"the data manifest: {run['data']}")
    with h5py.File(path("a.h5")) as f, h5py.File(base) as b:
        check(f.attrs["kind"] == b"base" and f.attrs["parent_sha256"] == b.attrs["content_sha256"], "a base, and where it comes from")
        check(f["weights/cls.predictions.bias"].shape == (b["weights/embeddings.word_embeddings.weight"].shape[0],) and "cls.predictions.decoder.weight" not in f["weights"], "the head, tied")
    check(program("show", path("a.h5")).returncode == 0, "show")

    # stopped by SIGTERM and killed, it ends with the same bits; with whole words and several batches a step, too
    def step_of(metrics):
        try: return max((json.loads(l)["step"] for l in open(metrics) if l.endswith("\n")), default=0)
        except OSError: return 0
    more = [*common, "--whole-words", "--accumulate", "2", "--checkpoint-every", "3"]
    done = program("train", "mlm", *more, "-o", path("w.h5"), "--quiet")
    check(done.returncode == 0 and weights(path("w.h5")) != weights(path("a.h5")), f"whole words: {done.stderr[-300:]}")
    stops, goal = 0, 0
    for attempt in range(30):
        goal += 5 + attempt
        child = subprocess.Popen([BIN + "/skillwatch-train", "mlm", *more, "-o", path("c.h5"), "--resume"], stderr=subprocess.PIPE, text=True)
        while child.poll() is None and step_of(path("c.metrics.jsonl")) < goal: time.sleep(0.002)
        if child.poll() is None: child.send_signal(signal.SIGKILL if stops % 2 else signal.SIGTERM)
        err = child.communicate()[1]
        if child.returncode == 0: break
        stops += 1
        check(child.returncode in (75, -signal.SIGKILL), f"stopped: {child.returncode} {err[-300:]}")
    check(child.returncode == 0 and stops >= 2, f"it ends at last, stopped {stops} times: {err[-300:]}")
    check(weights(path("w.h5")) == weights(path("c.h5")) and weights(path("w.last.h5")) == weights(path("c.last.h5")), "resumed = uninterrupted")
    done = program("train", "mlm", *more, "--mask", "0.2", "-o", path("c.h5"), "--resume")
    check.refused(done, "hyper_parameters", "resume with another share", (1,))

    # a base for the other tasks, for itself, and for transformers
    done = program("train", "ner", "--base", path("a.h5"), "--data", SAMPLES + "/labels/train.jsonl", "--epochs", "1", "--batch-tokens", "4000", "-o", path("ner.h5"), "--quiet")
    check(done.returncode == 0 and len(read_json(path("ner.h5"), "lineage")) == 2, f"train ner goes on from it: {done.stderr[-300:]}")
    again = ["--data", POSTINGS, "--epochs", "1", "--lr", "1e-6", "--holdout", "0.1"]
    done = program("train", "mlm", "--base", path("a.h5"), *again, "-o", path("d.h5"))
    first = json.loads(open(path("d.metrics.jsonl")).readline())["dev"]["perplexity"]
    check(done.returncode == 0 and "new one" not in done.stderr and abs(first - perplexity[-1]) < 1e-4 * first, f"train mlm goes on from it, with its head: {first} {perplexity[-1]}")
    done = program("train", "mlm", "--base", path("ner.h5"), *again, "-o", path("e.h5"))
    check(done.returncode == 0 and "is left out" in done.stderr and "heads" not in h5py.File(path("e.h5")), f"a tagger as base loses its heads: {done.stderr[-300:]}")
    done = program("export", path("a.h5"), "-o", path("folder"))
    config = json.load(open(path("folder/config.json")))
    check(done.returncode == 0 and config["architectures"] == ["BertForMaskedLM"] and "cls.predictions.transform.dense.weight" in load_file(path("folder/model.safetensors")), "export")
    done = program("pull", path("folder"), "-o", path("back.h5"), "--quiet")
    mine, back = weights(path("a.h5")), weights(path("back.h5"))
    check(done.returncode == 0 and all(back[k] == v for k, v in mine.items() if k.startswith("weights/")), "exported and pulled: the same weights")

    # forms of postings: a held-out file, compressed CSV and JSON lines with bad rows, no held-out text, bf16
    texts = texts[:20]
    with gzip.open(path("p.csv.gz"), "wt", encoding="utf-8", newline="") as f: f.write("id,body\n" + "".join('%d,"%s"\n' % (i, t.replace('"', '""')) for i, t in enumerate(texts)))
    open(path("p.jsonl"), "w", encoding="utf-8").write("".join(json.dumps({"body": t}) + "\n" for t in texts[:5]) + '{broken\n{"body": 7}\n')
    fast = ["--base", base, "--epochs", "1", "--column", "body"]
    done = program("train", "mlm", *fast, "--data", path("p.csv.gz"), "--dev", path("p.jsonl"), "-o", path("f.h5"), "--max-length", "20", "--dtype", "bf16")
    rejected = [json.loads(l) for l in open(path("f.dev.rejected.jsonl"))] if os.path.exists(path("f.dev.rejected.jsonl")) else []
    check(done.returncode == 0 and len(rejected) == 2 and "2 rows could not be used" in done.stderr, f"bad rows are set aside and counted: {done.stderr[-400:]}")
    check("20 postings" in done.stderr and "held out: 5 postings" in done.stderr, f"CSV and --dev: {done.stderr[:400]}")
    done = program("train", "mlm", *fast, "--data", path("p.csv.gz"), "--data", path("p.csv.gz"), "--holdout", "0", "-o", path("g.h5"))
    check(done.returncode == 0 and "held" not in done.stderr and "20 texts are left out" in done.stderr, f"without held-out text; the same texts twice: {done.stderr[-300:]}")

    # bad input
    def refused(part, what, *args, status=(1, 2)): check.refused(program("train", "mlm", *args, "-o", path("x.h5")), part, what, status)
    refused("--data is missing", "no data", "--base", base, status=(2,))
    refused("--base is missing", "no base", "--data", POSTINGS, status=(2,))
    for option, value in (("--mask", "0"), ("--mask", "1"), ("--holdout", "1"), ("--memory", "-1"), ("--format", "xml")):
        refused(option, f"{option} {value}", *common, option, value, status=(2,))
    refused("exclude each other", "two ways to hold out", *common, "--dev", POSTINGS, status=(2,))
    refused("nowhere", "missing data", "--base", base, "--data", path("nowhere.csv"), status=(1,))
    refused("--column", "a missing column", "--base", base, "--data", path("p.csv.gz"), "--column", "texts", status=(1,))
    refused("--holdout", "nothing held out", *fast, "--data", path("p.csv.gz"), "--holdout", "0.000001", status=(1,))
    open(path("empty.jsonl"), "w").write('{"text": " "}\n')
    refused("row 1: the text is empty", "no usable posting", "--base", base, "--data", path("empty.jsonl"), status=(1,))
    check.refused(program("train", "mlm", *fast, "--data", path("p.jsonl"), "-o", path("p.jsonl")), "is the input", "the data as output")
    check.refused(program("train", "mlm", *common, "-o", path("a.h5")), "exists already", "an existing output", (1,))
    check(not [f for f in os.listdir(tmp) if ".tmp-" in f and not f.startswith("c.")] and not os.path.exists(path("x.h5")), f"nothing is left: {os.listdir(tmp)}")
    helped = program("train", "mlm", "--help")
    check(helped.returncode == 0 and re.search(r"skillwatch train mlm --base minilm.h5 --data \S+ -o", helped.stdout), "--help has an example")
check.close()
