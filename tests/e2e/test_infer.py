"""skillwatch infer embed / tag and skillwatch eval, on tiny random models: same bits in any batch, order and number of threads; every
format; resume after SIGKILL; bad input; long sentences; memory. Where mathematics is checked, PyTorch and seqeval are the reference."""
import csv, gzip, json, os, random, shutil, signal, subprocess, sys, tempfile, time

try:
    import h5py, numpy as np, torch
    from seqeval.metrics import f1_score, precision_score, recall_score
    from transformers import BertConfig, BertForTokenClassification, BertModel, BertTokenizerFast
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has torch, transformers, seqeval, h5py")
    sys.exit(77)

BIN = os.environ["SW_BIN"]
INFER, EVAL, PULL = (os.path.join(BIN, "skillwatch-" + n) for n in ("infer", "eval", "pull"))
WORDS = ("the of and we you need know python java sql linux welding excel data driving care nurse team work with years experience good in "
         "for senior engineer machine learning cleaning sales french cooking design build test to a is are must can").split()
tmp = tempfile.mkdtemp(prefix="skillwatch-infer-")
rng = random.Random(5)
with open(INFER, "rb") as program: SANITIZED = b"__asan_init" in program.read()
torch.set_num_threads(1)


def at(*names): return os.path.join(tmp, *names)


def run(*args, status=0, stdin=None, program=INFER, stdout=subprocess.PIPE):
    p = subprocess.run([program, *map(str, args)], input=stdin, stdout=stdout, stderr=subprocess.PIPE)
    err = p.stderr.decode()
    assert p.returncode == status, f"{args}: exit {p.returncode}, not {status}\n{err}"
    if status in (1, 2): assert err.count("\n") == 1 and err.startswith("skillwatch: "), f"{args}: one line was expected:\n{err}"
    return (p.stdout.decode() if stdout == subprocess.PIPE else ""), err


def lines(path): return [json.loads(l) for l in open(path, encoding="utf-8")]


def make_models():
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocab += ["##" + v for v in vocab[5:] if v.isalnum()] + [w for w in WORDS if len(w) > 1]
    torch.manual_seed(3)
    size = dict(vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                max_position_embeddings=48)
    labels = dict(id2label={0: "O", 1: "B", 2: "I"}, label2id={"O": 0, "B": 1, "I": 2})
    base, tagger = BertModel(BertConfig(**size)), BertForTokenClassification(BertConfig(**size, **labels))
    for model in (base, tagger):
        with torch.no_grad():
            for n, p in model.named_parameters():
                if p.dim() == 2: p.mul_(6)
                elif "bias" in n: p.normal_(0, 0.1)
    always = BertForTokenClassification(BertConfig(**size, **labels))
    broken = BertModel(BertConfig(**size))
    with torch.no_grad():
        always.classifier.bias.copy_(torch.tensor([-20.0, 20.0, -20.0]))
        broken.encoder.layer[1].output.dense.weight.fill_(3e38)
    models = dict(base=base, tagger=tagger, always=always, broken=broken)
    for name, model in models.items():
        model.eval().save_pretrained(at(name))
        open(at(name, "vocab.txt"), "w").write("\n".join(vocab) + "\n")
        json.dump({"do_lower_case": True, "model_max_length": 48, "tokenizer_class": "BertTokenizer"}, open(at(name, "tokenizer_config.json"), "w"))
        run(at(name), "-o", at(name + ".h5"), "--quiet", program=PULL)
    return models


def text(words): return " ".join(rng.choice(WORDS) for _ in range(words))


def write_csv(path, rows, columns=("id", "title")):
    with open(path, "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(columns)
        w.writerows(rows)


def vectors_of(*args, **kw):
    out, _ = run("embed", "-m", at("base.h5"), "--quiet", *args, **kw)
    return {r["id"]: r["vector"] for r in map(json.loads, out.splitlines())}


def test_embed_reference(models):
    """Mean pooling of the last states, truncated at max_seq_length, as PyTorch computes it; truncated texts are counted."""
    tokenizer = BertTokenizerFast.from_pretrained(at("base"))
    texts = [text(n) for n in (1, 2, 7, 20, 45, 46, 47, 200)] + ["Zebra-crossing (QA)!", "naïve café ☕ 日本"]
    write_csv(at("few.csv"), enumerate(texts))
    ours = vectors_of(at("few.csv"), "--column", "title", "--prefix", "data: ")
    limit = json.loads(run(at("base.h5"), "--json", program=os.path.join(BIN, "skillwatch-show"))[0]).get("config", {}) \
        .get("skillwatch", {}).get("max_seq_length", 48) if os.path.exists(os.path.join(BIN, "skillwatch-show")) else 48
    normalize = abs(np.linalg.norm(ours["0"]) - 1) < 1e-5
    worst = 0
    for i, t in enumerate(texts):
        enc = tokenizer("data: " + t, truncation=True, max_length=limit, return_tensors="pt")
        with torch.no_grad(): v = models["base"](**enc).last_hidden_state[0].mean(0)
        if normalize: v = v / v.norm()
        worst = max(worst, (v - torch.tensor(ours[str(i)])).abs().max().item())
    assert worst <= 2e-5, worst
    out, err = run("embed", "-m", at("base.h5"), at("few.csv"), "--column", "title", "-o", at("few.h5"), "--json")
    truncated = sum(len(tokenizer(t)["input_ids"]) > limit for t in texts)
    summary = json.loads(out)
    assert summary["rows"] == 10 and summary["truncated"] == truncated > 0 and summary["rejected"] == 0
    assert f"{truncated} of 10 texts were longer than {limit} tokens and were truncated" in err, err
    assert summary["tokens"] == sum(min(limit, len(tokenizer(t)["input_ids"])) for t in texts)


def test_same_bits():
    """One text alone, among others, reversed, with 1, 2 and 5 threads, any batch size, with and without deduplication."""
    rows = [(f"r{i}", text(rng.choice((1, 2, 3, 5, 9, 17, 30, 60)))) for i in range(300)]
    rows += [(f"again{i}", rows[i * 3][1]) for i in range(50)]
    write_csv(at("bits.csv"), rows)
    write_csv(at("back.csv"), rows[::-1])
    for verb, model in (("embed", "base"), ("tag", "tagger")):
        def results(*args, stdin=None):
            out, _ = run(verb, "-m", at(model + ".h5"), "--quiet", *args, stdin=stdin)
            return {(r := json.loads(l))["id"]: l.split(',', 1)[1] for l in out.splitlines()}
        first = results(at("bits.csv"), "--column", "title", "--threads", 1)
        assert len(first) == 350 and list(first) == [r[0] for r in rows]
        assert len(set(first.values())) > 100, "the results are nearly all the same: nothing is compared"
        for other in (["--threads", 2], ["--threads", 5, "--batch-tokens", 1], ["--no-dedup"], ["--batch-tokens", 97, "--no-dedup"]):
            assert results(at("bits.csv"), "--column", "title", *other) == first, (verb, other)
        back = results(at("back.csv"), "--column", "title", "--threads", 2)
        assert back == first and list(back) == list(first)[::-1]
        for i in (0, 7, 99, 349):
            alone = results("-", stdin=(rows[i][1] + "\n").encode())
            assert list(alone.values()) == [first[rows[i][0]]], (verb, i)


def test_embed_formats():
    rows = [(f"id {i}", text(1 + i % 30)) for i in range(5000)]  # more than one chunk
    write_csv(at("many.csv"), rows)
    want = vectors_of(at("many.csv"), "--column", "title")
    common = ["embed", "-m", at("base.h5"), at("many.csv"), "--column", "title", "--prefix", "", "--quiet"]
    for name in ("v.h5", "v.npy", "v.jsonl"): run(*common, "-o", at(name))
    matrix = np.array([want[r[0]] for r in rows], dtype=np.float32)
    with h5py.File(at("v.h5")) as f:
        assert f["vectors"].dtype == np.float32 and f["vectors"].fletcher32 and f["vectors"].maxshape[0] is None
        assert np.array_equal(f["vectors"][:], matrix)
        assert [i.decode() for i in f["ids"][:]] == [r[0] for r in rows]
        assert f.attrs["format"].decode() == "skillwatch-vectors" and f.attrs["version"] == 1
        assert f.attrs["pooling"].decode() == "mean" and len(f.attrs["model_sha256"]) == 64
    assert np.array_equal(np.load(at("v.npy")), matrix)
    assert open(at("v.npy.ids.txt")).read().splitlines() == [r[0] for r in rows]
    assert {r["id"]: r["vector"] for r in lines(at("v.jsonl"))} == want
    left = [f for f in os.listdir(tmp) if ".partial" in f or ".tmp-" in f or "rejected" in f]
    assert not left, left


def dated_folder(count=3):
    random_text = lambda: "\n\n".join([text(8) + ".", "- " + text(4) + "\n- " + text(5), text(100) + ".", "Ça va, naïve 日本 " + text(3) + "!"])
    texts = {}
    for date in ("2026-01-05", "2026-01-12"):
        os.makedirs(at("postings", date), exist_ok=True)
        for n in range(1, count + 1):
            texts[f"{date}/{n}"] = random_text()
            open(at("postings", date, f"{n}.txt"), "w", encoding="utf-8").write(texts[f"{date}/{n}"])
    return texts


def test_tag_formats():
    texts = dated_folder()
    run("tag", "-m", at("tagger.h5"), at("postings"), "-o", at("tags.jsonl"), "--quiet")
    tags = lines(at("tags.jsonl"))
    assert [t["id"] for t in tags] == list(texts) and all(t["date"] == t["id"].split("/")[0] for t in tags)
    spans = [(t["id"], t["date"], s) for t in tags for s in t["spans"]]
    assert len(spans) > 20
    for i, _, s in spans:
        assert texts[i][s["start"]:s["end"]] == s["text"] and s["text"].strip() == s["text"] and s["text"]
        assert s["label"] == s["layer"] == "tags" and 0 < s["score"] <= 1
    for t in tags:
        assert [s["start"] for s in t["spans"]] == sorted(s["start"] for s in t["spans"])
        assert all(a["end"] <= b["start"] for a, b in zip(t["spans"], t["spans"][1:]))
    run("tag", "-m", at("tagger.h5"), at("postings"), "-o", at("tags.csv"), "--quiet")
    out, _ = run("tag", "-m", at("tagger.h5"), at("postings"), "--csv", "--quiet")
    assert out == open(at("tags.csv"), newline="").read()
    rows = list(csv.DictReader(open(at("tags.csv"), newline="", encoding="utf-8")))
    assert [(r["id"], r["date"], int(r["start"]), int(r["end"]), r["text"], r["label"], r["layer"], float(r["score"])) for r in rows] == \
        [(i, d, s["start"], s["end"], s["text"], s["label"], s["layer"], s["score"]) for i, d, s in spans]
    gone = subprocess.Popen(["true"])
    gone.wait()
    os.makedirs(at("skills"))
    open(at("skills", f"tags.tmp-{gone.pid}-0"), "w").close()  # of a run that was killed while it published
    run("tag", "-m", at("tagger.h5"), at("postings"), "-o", at("skills") + "/", "--quiet")
    assert sorted(os.listdir(at("skills"))) == ["2026-01-05", "2026-01-12"]
    for t in tags:
        got = open(at("skills", t["id"] + ".txt"), encoding="utf-8").read().splitlines()
        assert got == [s["text"].replace("\n", " ") for s in t["spans"]], t["id"]
    out, _ = run("tag", "-m", at("tagger.h5"), at("postings"), "--text", "--quiet")
    assert [json.loads(l)["text"] for l in out.splitlines()] == list(texts.values())


def test_every_word_is_tagged():
    """A model that says B to everything: as many spans as there are words, also in a sentence of many windows."""
    sentence = text(3000)
    out, _ = run("tag", "-m", at("always.h5"), "-", "--quiet", stdin=(sentence + "\n" + text(5) + ".\n").encode())
    long, short = [json.loads(l)["spans"] for l in out.splitlines()]
    assert [s["text"] for s in long] == sentence.split() and len(short) == 6
    word = "q" * 90  # more sub-words than a window has room for: its first one still speaks for it
    out, _ = run("tag", "-m", at("always.h5"), "-", "--quiet", stdin=f"python {word} sql {'x' * 300} linux\n".encode())
    assert [s["text"] for s in json.loads(out)["spans"]] == ["python", word, "sql", "x" * 300, "linux"]


def test_tag_reference(models):
    """Sentences that fit one window: the best valid BIO sequence of PyTorch's log probabilities, by exhaustive comparison of scores."""
    tokenizer = BertTokenizerFast.from_pretrained(at("tagger"))
    some = 0
    for _ in range(40):
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 12))]
        enc = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad(): logp = torch.log_softmax(models["tagger"](**enc).logits[0].double(), -1)
        ids = enc.word_ids()
        rows = [logp[ids.index(w)] for w in range(len(words))]
        best = {0: (rows[0][0], [0]), 1: (rows[0][1], [1])}
        for r in rows[1:]:
            best = {tag: max(((s + r[tag], path + [tag]) for last, (s, path) in best.items() if tag != 2 or last), key=lambda x: x[0])
                    for tag in (0, 1, 2)  if tag != 2 or any(best)}
        tags = max(best.values(), key=lambda x: x[0])[1]
        want, start = [], None
        for i, t in enumerate(tags + [0]):
            if t != 2 and start is not None: want.append(" ".join(words[start:i])); start = None
            if t == 1: start = i
        some += len(want)
        out, _ = run("tag", "-m", at("tagger.h5"), "-", "--quiet", stdin=" ".join(words).encode())
        assert [s["text"] for s in json.loads(out)["spans"]] == want, (words, tags)
    assert some > 40


def test_eval(models):
    """Scores and loss against seqeval and PyTorch, with argmax; the examples fit the model."""
    tokenizer = BertTokenizerFast.from_pretrained(at("tagger"))
    gold, predicted, loss, count, rows = [], [], 0.0, 0, []
    for _ in range(120):
        words = [rng.choice(WORDS) for _ in range(rng.randint(1, 30))]
        tags = []
        for _ in words: tags.append(rng.choice("OOBI") if tags and tags[-1] != "O" else rng.choice("OOB"))
        rows.append({"tokens": words, "tags_tags": tags})
        enc = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad(): logp = torch.log_softmax(models["tagger"](**enc).logits[0].double(), -1)
        ids = enc.word_ids()
        mine = [logp[ids.index(w)] for w in range(len(words))]
        loss -= sum(float(m["OBI".index(t)]) for m, t in zip(mine, tags))
        count += len(words)
        name = lambda t: t if t == "O" else t + "-x"
        gold.append([name(t) for t in tags])
        predicted.append([name("OBI"[int(m.argmax())]) for m in mine])
    with open(at("gold.jsonl"), "w") as f: f.writelines(json.dumps(r) + "\n" for r in rows)
    base = ["-m", at("tagger.h5"), "--data", at("gold.jsonl")]
    out, _ = run(*base, "--json", "--decode", "argmax", program=EVAL)
    got = json.loads(out)
    for key, f in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert abs(got["micro"][key] - f(gold, predicted)) < 1e-9, (key, got["micro"][key], f(gold, predicted))
    right = sum(g == p for a, b in zip(gold, predicted) for g, p in zip(a, b))
    assert abs(got["accuracy"] - right / count) < 1e-9 and abs(got["loss"] - loss / count) < 1e-4, (got["loss"], loss / count)
    assert got["examples"] == 120 and got["words"] == count and got["layers"]["tags"]["micro"]["support"] == got["micro"]["support"] > 100
    for other in (["--threads", 2], ["--batch-tokens", 1], ["--threads", 1, "--batch-tokens", 333]):
        again = json.loads(run(*base, "--json", "--decode", "argmax", *other, program=EVAL)[0])
        assert again == got, other
    table, _ = run(*base, program=EVAL)
    viterbi = json.loads(run(*base, "--json", program=EVAL)[0])
    assert viterbi["decode"] == "viterbi" and f"{viterbi['micro']['f1']:.4f}" in table and "120 examples" in table
    run("-m", at("base.h5"), "--data", at("gold.jsonl"), program=EVAL, status=1)
    run("-m", at("tagger.h5"), program=EVAL, status=2)
    run("-m", at("tagger.h5"), "--data", at("no.jsonl"), program=EVAL, status=1)
    # a long example is windowed: with the model that always says B, every word of it is found
    with open(at("long.jsonl"), "w") as f: f.write(json.dumps({"tokens": text(700).split(), "tags_tags": ["B"] * 700}) + "\n")
    got = json.loads(run("-m", at("always.h5"), "--data", at("long.jsonl"), "--json", program=EVAL)[0])
    assert got["micro"]["f1"] == 1 and got["micro"]["support"] == 700 and got["accuracy"] == 1


def test_two_layers():
    """A tagger with overlapping layers, trained here on words that tell all: tag and eval use both heads."""
    knowledge, skill = {"python", "java", "sql", "linux"}, {"driving", "python", "care", "cleaning"}
    def make(path, rows):
        with open(path, "w") as f:
            for _ in range(rows):
                words = [rng.choice(WORDS) for _ in range(rng.randint(3, 14))]
                f.write(json.dumps({"tokens": words, **{"tags_" + n: ["B" if w in of else "O" for w in words]
                                                        for n, of in (("knowledge", knowledge), ("skill", skill))}}) + "\n")
    make(at("two-train.jsonl"), 400)
    make(at("two-test.jsonl"), 60)
    run("ner", "--base", at("base.h5"), "--data", at("two-train.jsonl"), "--dev", at("two-test.jsonl"), "--epochs", 10, "--lr", "3e-3",
        "--batch-tokens", 128, "-o", at("two.h5"), program=os.path.join(BIN, "skillwatch-train"))
    scores = json.loads(run("-m", at("two.h5"), "--data", at("two-test.jsonl"), "--json", program=EVAL)[0])
    assert set(scores["layers"]) == {"knowledge", "skill"} and scores["micro"]["f1"] > 0.95, scores
    text_of = "we need python and java for cleaning, care and sql"
    out, _ = run("tag", "-m", at("two.h5"), "-", "--quiet", stdin=text_of.encode())
    got = [(s["start"], s["text"], s["layer"]) for s in json.loads(out)["spans"]]
    want = sorted((text_of.index(w), w, n) for n, of in (("knowledge", knowledge), ("skill", skill)) for w in of if w in text_of)
    assert got == want, (got, want)


def test_inputs():
    rows = [(i, text(6)) for i in range(40)]
    write_csv(at("in.csv"), rows)
    want = list(vectors_of(at("in.csv"), "--column", "title").values())
    with open(at("in.csv"), "rb") as f, gzip.open(at("in.csv.gz"), "wb") as g: shutil.copyfileobj(f, g)
    with open(at("in.jsonl"), "w") as f: f.writelines(json.dumps({"id": i, "title": t}) + "\n" for i, t in rows)
    assert list(vectors_of(at("in.csv.gz"), "--column", "title").values()) == want
    assert list(vectors_of(at("in.jsonl"), "--column", "title").values()) == want
    assert list(vectors_of("-", stdin="".join(t + "\n" for _, t in rows).encode()).values()) == want
    assert list(vectors_of("-", "--format", "csv", "--column", "title", stdin=open(at("in.csv"), "rb").read()).values()) == want
    # bad rows are set aside, counted, and the others go on
    with open(at("bad.jsonl"), "wb") as f:
        f.write(b'{"id": "a", "title": "python"}\nnot json\n{"id": "b"}\n{"id": "c", "title": "sql \xff"}\n{"id": "d", "title": "java"}\n')
    out, err = run("embed", "-m", at("base.h5"), at("bad.jsonl"), "--column", "title", "-o", at("bad.h5"), "--json")
    assert json.loads(out)["rows"] == 2 and json.loads(out)["rejected"] == 3 and "3 unusable rows" in err
    assert [r["line"] for r in lines(at("bad.h5.rejected.jsonl"))] == [2, 3, 4]
    with h5py.File(at("bad.h5")) as f: assert [i.decode() for i in f["ids"][:]] == ["a", "d"]
    # no rows at all is a result too
    open(at("nothing.txt"), "w").close()
    for verb, model, names in (("embed", "base", ("e.h5", "e.npy", "e.jsonl")), ("tag", "tagger", ("t.jsonl", "t.csv", "t/"))):
        for name in names:
            out, err = run(verb, "-m", at(model + ".h5"), at("nothing.txt"), "--format", "lines", "-o", tmp + "/none-" + name, "--json")
            assert json.loads(out)["rows"] == 0 and " 0 texts" in err and os.path.exists(tmp + "/none-" + name), name
    with h5py.File(at("none-e.h5")) as f: assert f["vectors"].shape == (0, 32) and f["ids"].shape == (0,)
    assert np.load(at("none-e.npy")).shape == (0, 32)


def test_nothing_usable():
    """Where no row can be used that is a failure, with the first reason; rows that go nowhere are told of on stderr."""
    open(at("numbers.jsonl"), "w").write('{"text": 5}\n{"text": " "}\n{"a": "x", "b": "y"}\n{"text": null}\n')
    for verb, model, out in (("embed", "base", "nothing.h5"), ("tag", "tagger", "nothing.jsonl"), ("tag", "tagger", "nothing/")):
        args = [verb, "-m", at(model + ".h5"), at("numbers.jsonl")]
        for more in ([], ["--quiet"]):
            _, err = run(*args, "-o", tmp + "/" + out, *more, status=1)
            assert '4 rows, and none can be used: row 1: "text" is a number' in err and out.rstrip("/") + ".rejected.jsonl" in err, err
            _, err = run(*args, *more, status=1)
            assert "4 rows" in err and "row 1: " in err and "row 2: the text is empty" in err and 'row 3: no key "description" or "text"' in err, err
        assert not os.path.exists(tmp + "/" + out) and not os.path.exists(tmp + "/" + out.rstrip("/") + ".partial")
        assert len(lines(tmp + "/" + out.rstrip("/") + ".rejected.jsonl")) == 4
    with open(at("numbers.jsonl"), "a") as f: f.write('{"note": "only key"}\n')
    out, err = run("embed", "-m", at("base.h5"), at("numbers.jsonl"))
    assert json.loads(out)["id"] == "5" and "embed: 1 text, " in err and "4 unusable rows left out" in err, err
    assert err.splitlines()[:3] == ['skillwatch: row 1: "text" is a number, a text in quotes was expected', "skillwatch: row 2: the text is empty",
                                    'skillwatch: row 3: no key "description" or "text"'], err
    _, err = run("embed", "-m", at("base.h5"), at("numbers.jsonl"), "--quiet")
    assert not err
    # what is no regular file is not removed where nothing was rejected
    os.mkfifo(at("aside"))
    run("embed", "-m", at("base.h5"), "-", "--rejected", at("aside"), "--quiet", stdin=b"python\n")
    assert os.path.exists(at("aside"))


def test_places():
    """An output that the next run would read, or that would replace what it reads, is wrong usage."""
    texts = dated_folder()
    files = lambda: sorted(os.path.join(d, n) for d, _, names in os.walk(at("postings")) for n in names)
    before, model = files(), ["-m", at("tagger.h5")]
    os.symlink(at("postings"), at("link"))
    day = at("postings", "2026-01-05")
    for args in ([at("postings"), "-o", at("postings", "tags.jsonl")], [at("postings"), "-o", at("postings", "no", "such", "tags.jsonl")],
                 [at("postings") + "/", "-o", at("link", "tags.jsonl")], [at("link"), "-o", at("postings", "tags.csv")],
                 [at("postings"), "-o", at("postings") + "/"], [at("postings"), "-o", at("postings", "tags") + "/"],
                 [at("postings"), "-o", at("t.jsonl"), "--rejected", at("postings", "bad.jsonl")],
                 [day, "-o", at("postings") + "/"], [os.path.join(day, "1.txt"), "-o", at("postings") + "/"]):
        _, err = run("tag", *model, *args, status=2)
        assert "lies in the " in err, (args, err)
    assert files() == before
    os.makedirs(at("postings-tags"), exist_ok=True)  # beside it, with a name that begins the same
    run("tag", *model, at("postings"), "-o", at("postings-tags", "tags.jsonl"), "--quiet")
    assert len(lines(at("postings-tags", "tags.jsonl"))) == len(texts)


def test_slow_pipe():
    """What came through a pipe is answered while the pipe waits; a failure does not wait for the pipe to close."""
    for verb, model in (("embed", "base"), ("tag", "tagger")):
        p = subprocess.Popen([INFER, verb, "-m", at(model + ".h5"), "-", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for i in range(3):
            p.stdin.write(b"c\n" if i == 0 else b"python and java\nsql\n")  # a line shorter than any file's magic number comes first
            p.stdin.flush()
            for _ in range(1 if i == 0 else 2): assert json.loads(p.stdout.readline())  # would wait for ever
        p.stdin.close()
        assert p.wait() == 0 and not p.stdout.read()
        with open("/dev/full", "wb") as full:
            p = subprocess.Popen([INFER, verb, "-m", at(model + ".h5"), "-", "--quiet"], stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE)
            p.stdin.write(b"python\n")
            p.stdin.flush()
            assert p.wait(timeout=120) == 1 and b"No space left" in p.stderr.read()
            p.stdin.close()


def kill_midway(args, partial, enough):
    p = subprocess.Popen([INFER, *map(str, args)], stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while p.poll() is None and time.time() < deadline:
        if os.path.exists(partial) and os.path.getsize(partial) > enough: break
        time.sleep(0.002)
    assert p.poll() is None, "the run ended before it could be killed"
    p.send_signal(signal.SIGKILL)
    p.wait()


def test_resume():
    """Killed in the middle, again and again, with a torn record as well: the result is what one run gives, and work is not repeated."""
    rows = [(f"p{i}", text(2 + i % 23)) for i in range(30000)]
    rows[20001] = ("p20001", "  ")  # set aside, behind the place of the kill
    write_csv(at("large.csv"), rows)
    for verb, model, name in (("embed", "base", "r.h5"), ("tag", "tagger", "r.jsonl"), ("tag", "tagger", "r/")):
        out = tmp + "/" + name
        common = [verb, "-m", at(model + ".h5"), at("large.csv"), "--column", "title", "--threads", 1]
        whole = tmp + "/whole-" + name
        run(*common, "-o", whole, "--quiet")
        partial = out.rstrip("/") + ".partial"
        kill_midway([*common, "-o", out], partial, 4096)
        assert not os.path.exists(out), "nothing may be at the destination before the end"
        size = os.path.getsize(partial)
        kill_midway([*common, "-o", out], partial, size + 4096)
        with open(partial, "ab") as f: f.write(b"torn record" * 50)
        _, err = run(*common, "-o", out)
        done = int(err.split("going on after ")[1].split()[0])
        assert 0 < done < 30000 and done % 4096 == 0, err
        if name.endswith("/"):
            assert subprocess.run(["diff", "-r", out, whole]).returncode == 0
        elif name.endswith(".h5"):
            with h5py.File(out) as a, h5py.File(whole) as b:
                assert np.array_equal(a["vectors"][:], b["vectors"][:]) and np.array_equal(a["ids"][:], b["ids"][:])
                assert a["vectors"].shape[0] == 29999
        else:
            assert open(out, "rb").read() == open(whole, "rb").read()
        assert [r["line"] for r in lines(out.rstrip("/") + ".rejected.jsonl")] == [20003]
        assert not os.path.exists(partial)
    # another prefix is another run: it begins anew and says so; so does a changed input
    common = ["embed", "-m", at("base.h5"), at("large.csv"), "--column", "title", "--threads", 1, "-o", at("r2.h5")]
    kill_midway(common, at("r2.h5.partial"), 4096)
    _, err = run(*common, "--prefix", "data ")
    assert "not continued, it is of another model, other options or other inputs" in err, err
    kill_midway(common, at("r2.h5.partial"), 4096)
    write_csv(at("large.csv"), rows[:50])
    _, err = run(*common)
    assert "beginning anew" in err
    with h5py.File(at("r2.h5")) as f: assert f["vectors"].shape[0] == 50
    kill = subprocess.Popen([INFER, "embed", "-m", at("base.h5"), "-", "-o", at("locked.jsonl")], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while not os.path.exists(at("locked.jsonl.partial")): time.sleep(0.01)
    _, err = run("embed", "-m", at("base.h5"), at("in.csv"), "--column", "title", "-o", at("locked.jsonl"), status=1)
    assert "in use" in err
    kill.stdin.close()
    assert kill.wait() == 0
    open(at("mine.h5.partial"), "w").write("somebody's notes, not a journal")
    _, err = run("embed", "-m", at("base.h5"), at("in.csv"), "--column", "title", "-o", at("mine.h5"), status=1)
    assert "not a journal" in err and open(at("mine.h5.partial")).read().startswith("somebody")


def test_bad_input():
    write_csv(at("in.csv"), [(i, text(6)) for i in range(40)])
    base, source = ["-m", at("base.h5")], [at("in.csv"), "--column", "title"]
    for args in ([], ["embed"], ["embed", *base], ["embed", *source], ["embed", *base, *source, "-o", "v.xyz"], ["fly"],
                 ["embed", *base, *source, "--threads", "-1"], ["embed", *base, *source, "--device", "tpu"], ["embed", *base, *source, "--dtype", "fp8"], ["embed", *base, *source, "--nope"],
                 ["embed", *base, *source, "--format", "pdf"], ["tag", *base, *source, "-o", "t.h5"], ["embed", *base, *source, "--batch-tokens", "x"]):
        p = subprocess.run([INFER, *args], capture_output=True)
        assert p.returncode == 2 and p.stderr and not p.stdout, args
    for args in (["--help"], ["embed", "--help"], ["tag", "--help"]):
        out, _ = run(*args)
        assert "example" in out and "skillwatch infer" in out
    out, _ = run("--help", program=EVAL)
    assert "example" in out
    def fails(*args, says):
        _, err = run(*args, status=1)
        assert says in err, (args, err)
    fails("embed", "-m", at("none.h5"), *source, says="none.h5")
    fails("embed", "-m", at("in.csv"), *source, says="in.csv")
    fails("tag", *base, *source, says="no token head; train one with: skillwatch train ner")
    fails("embed", *base, at("in.csv"), "--column", "nope", "-o", at("x.h5"), says='no column "nope"; there are: id, title. Choose one with --column')
    fails("embed", *base, at("in.csv"), "-o", at("x.h5"), says='no column "description" or "text"; there are: id, title. Choose the text\'s with --column')
    fails("embed", *base, at("missing.csv"), "-o", at("x.h5"), says="missing.csv")
    fails("embed", *base, *source, "-o", at("no", "folder", "x.h5"), says="x.h5")
    os.makedirs(at("folder.h5"), exist_ok=True)
    fails("embed", *base, *source, "-o", at("folder.h5"), says="folder.h5")
    fails("embed", "-m", at("broken.h5"), *source, "-o", at("x.h5"), says="row ")
    assert not os.path.exists(at("x.h5"))
    with open("/dev/full", "wb") as full:
        _, err = run("embed", *base, *source, status=1, stdout=full)
        assert "standard output" in err


def peak_of(args):
    """The high-water mark while it runs (what wait4 tells begins with this process's own size)."""
    p, peak = subprocess.Popen([INFER, *map(str, args)]), 0
    while p.poll() is None:
        try:
            with open(f"/proc/{p.pid}/status") as f:
                peak = max([peak, *(int(l.split()[1]) / 1024 for l in f if l.startswith("VmHWM"))])
        except OSError: pass
        time.sleep(0.01)
    assert p.returncode == 0 and peak > 0, (p.returncode, peak)
    return peak


def test_memory():
    """A large CSV of long texts streams: the peak does not grow with the file."""
    if SANITIZED: return print("  not measured in the sanitizer build")
    line = " ".join(rng.choice(WORDS) for _ in range(4000))
    def write(path, rows):
        with open(path, "w", newline="") as f:
            w = csv.writer(f)
            w.writerow(["id", "description"])
            for i in range(rows): w.writerow([i, f"{i} " + line])
        return os.path.getsize(path) / 1e6
    small, large = write(at("small.csv"), 500), write(at("huge.csv"), 10000)
    assert large > 200, large
    for verb, model, out in (("embed", "base", "m.h5"), ("tag", "tagger", "m.jsonl")):
        if verb == "tag": large = write(at("huge.csv"), 2000)
        peak = peak_of([verb, "-m", at(model + ".h5"), at("huge.csv"), "-o", at(out), "--quiet"])
        print(f"  {verb}: {large:.0f} MB of CSV, peak {peak:.0f} MB")
        assert peak < 600, peak
    os.remove(at("huge.csv"))


models = make_models()
failed = 0
try:
    for name, test in [(n, f) for n, f in list(globals().items()) if n.startswith("test_")]:
        if len(sys.argv) > 1 and name not in sys.argv[1:]: continue
        start = time.time()
        try:
            test(models) if test.__code__.co_argcount else test()
            print(f"ok   {name} {time.time() - start:.1f} s", flush=True)
        except AssertionError as e:
            failed += 1
            import traceback
            traceback.print_exc()
            print(f"FAIL {name}: {e}", flush=True)
finally:
    shutil.rmtree(tmp)
sys.exit(1 if failed else 0)
