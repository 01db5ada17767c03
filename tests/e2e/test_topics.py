"""skillwatch train topics and infer topics as people use them: finds topics, the same bits with any number of threads, after a stop and in any batch; coherence and
bound as their definitions say; sets bad rows aside, refuses bad input in one line."""
import collections, csv, itertools, json, math, os, random, re, shutil, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program

import h5py, numpy as np

check = Checks()
POSTINGS = SAMPLES + "/job-postings"
THEMES = ["weld metal torch joint seam", "truck route drive cargo freight", "patient clinic nurse care ward", "teach pupil class school lesson"]


def texts(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        theme = rng.randrange(len(THEMES))
        yield theme, "The " + " ".join(rng.choices(THEMES[theme].split(), k=20) + rng.choices("office team report company".split(), k=4)) + "."


def read(path):
    with h5py.File(path) as f:
        parse = lambda name: json.loads(bytes(f[name][0]).rstrip(b"\0"))
        return [bytes(t).rstrip(b"\0").decode() for t in f["tokenizer/vocab"]], f["weights/lambda"][()], parse("config"), parse("training"), f.attrs["content_sha256"]


def digamma(x):
    x, shift = np.asarray(x, float).copy(), 0.0
    for _ in range(12): shift, x = shift - 1 / x, x + 1
    return shift + np.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)


log_gamma = np.vectorize(math.lgamma)


def bound(weights, alpha, eta, bags):
    """Hoffman, Blei, Bach, 2010, equation 4, with gamma at its fixed point; a word."""
    log_beta = digamma(weights) - digamma(weights.sum(1))[:, None]
    score, words = 0.0, 0
    for ids, counts in bags:
        gamma = np.ones(len(weights))
        for _ in range(50):
            theta = np.exp(digamma(gamma) - digamma(gamma.sum()))
            before, gamma = gamma, alpha + theta * (np.exp(log_beta[:, ids]) @ (counts / (theta @ np.exp(log_beta[:, ids]))))
            if abs(gamma - before).mean() < 1e-3: break
        log_theta = digamma(gamma) - digamma(gamma.sum())
        score += counts @ np.log(np.exp(log_theta) @ np.exp(log_beta[:, ids])) + ((alpha - gamma) * log_theta + log_gamma(gamma)).sum() - math.lgamma(gamma.sum())
        score += math.lgamma(alpha * len(gamma)) - len(gamma) * math.lgamma(alpha)
        words += counts.sum()
    n = weights.shape[1]
    score += ((eta - weights) * log_beta + log_gamma(weights)).sum() - log_gamma(weights.sum(1)).sum() + len(weights) * (math.lgamma(eta * n) - n * math.lgamma(eta))
    return score / words


def coherences(tops, documents):
    """u_mass and c_npmi by their definitions."""
    u_mass, c_npmi, sets = [], [], [set(d) for d in documents]
    wanted = set(itertools.chain(*tops))
    windows = [set(d[i:i + 10]) for d in documents if wanted & set(d) for i in range(max(1, len(d) - 9))]
    def part(holders, *words): return sum(all(w in h for w in words) for h in holders) / len(holders)
    for top in tops:
        pairs = list(itertools.combinations(top, 2))
        u_mass.append(np.mean([math.log((part(sets, v, w) + 1e-12) / part(sets, v)) for v, w in pairs]))
        c_npmi.append(np.mean([math.log((p + 1e-12) / (part(windows, v) * part(windows, w))) / -math.log(p + 1e-12) for v, w in pairs for p in [part(windows, v, w)]]))
    return np.mean(u_mass), np.mean(c_npmi)


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    rows = list(texts(300, 1))
    open(path("data.txt"), "w").write("".join(t + "\n" for _, t in rows))
    common = ["--data", path("data.txt"), "--format", "lines", "--topics", "4", "--no-above", "0.9", "--chunk-size", "64", "--seed", "2"]

    # topics are found, the words printed and shown
    done = program("train", "topics", *common, "-o", path("a.h5"), "--threads", "2")
    check(done.returncode == 0 and "bound per word" in done.stderr, f"train: {done.stderr[-300:]}")
    vocab, weights, config, training, sha = read(path("a.h5"))
    check(config["model_type"] == "lda" and weights.shape == (4, len(vocab) - 1) and vocab[0] == "[UNK]", f"{config} {weights.shape}")
    tops = [{vocab[i + 1] for i in np.argsort(-row)[:5]} for row in weights]
    found = sum(max(len(set(theme.split()) & top) for top in tops) for theme in THEMES)
    check(found >= 18, f"{found} of 20 words are in their topic: {tops}")
    check(len(done.stdout.splitlines()) == 5, f"the topics are printed: {done.stdout}")
    show = program("show", path("a.h5"))
    check(show.returncode == 0 and "lda: 4 topics" in show.stdout and "topic 4" in show.stdout and any(w in show.stdout for w in ("weld", "torch")), f"show: {show.stdout}")

    # scores by their definitions
    stop = set(config["tokenizer"]["stop_words"])
    documents = [[w for w in re.findall("[a-z]+", t.lower()) if w not in stop] for _, t in rows]
    number = {w: i - 1 for i, w in enumerate(vocab) if i}
    bags = [(np.array([number[w] for w in c]), np.array(list(c.values()), float)) for d in documents if (c := collections.Counter(w for w in d if w in number))]
    m, want = training["metrics"], bound(weights.astype(float), config["alpha"], config["eta"], bags)
    check(abs(m["bound_per_word"] - want) < 2e-4, f"bound per word {m['bound_per_word']}, want {want}")
    u_mass, c_npmi = coherences([[vocab[i + 1] for i in np.argsort(-row, kind="stable")[:20]] for row in weights], documents)
    check(abs(m["u_mass"] - u_mass) < 1e-9 and abs(m["c_npmi"] - c_npmi) < 1e-9, f"u_mass {m['u_mass']}, want {u_mass}; c_npmi {m['c_npmi']}, want {c_npmi}")

    # inference: the themes, in any batch and with any number of threads
    def infer(out, *extra, data=path("data.txt")):
        done = program("infer", "topics", "-m", path("a.h5"), data, "--format", "lines", "-o", path(out), *extra)
        check(done.returncode == 0, f"infer {extra}: {done.stderr[-300:]}")
        return open(path(out), newline="").read()
    plain = infer("t.jsonl")
    topics = [json.loads(l) for l in plain.splitlines()]
    best = [max(r["topics"], key=lambda t: t["probability"])["topic"] for r in topics]
    of_theme = [collections.Counter(b for b, (theme, _) in zip(best, rows) if theme == k).most_common(1)[0] for k in range(4)]
    check(len({t for t, _ in of_theme}) == 4 and sum(n for _, n in of_theme) >= 290, f"themes: {of_theme}")
    check([r["id"] for r in topics] == [str(i + 1) for i in range(300)] and all(r["words"] == 24 for r in topics), "ids and words")
    check(all(abs(sum(t["probability"] for t in r["topics"]) - 1) < 0.04 for r in topics), "probabilities add up to 1")
    for extra in (["--threads", "1", "--no-dedup"], ["--threads", "3"]): check(infer("u.jsonl", *extra) == plain, f"{extra}: the same bits")
    part = lambda i: program("infer", "topics", "-m", path("a.h5"), path("data.txt"), "--format", "lines", "-o", path("parts.jsonl"), "--shard", f"{i}/2")
    check(part(1).returncode == 0 and not os.path.exists(path("parts.jsonl")), "the first shard alone joins nothing")
    check(part(2).returncode == 0 and open(path("parts.jsonl")).read() == plain, "two shards: the same bits")
    if shutil.which("mpirun"):
        done = subprocess.run(["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2", BIN + "/skillwatch-infer", "topics", "-m", path("a.h5"), path("data.txt"),
                               "--format", "lines", "-o", path("ranks.jsonl")], capture_output=True, text=True)
        check(done.returncode == 0 and open(path("ranks.jsonl")).read() == plain, f"and dealt out by mpirun: {done.stderr}")
    else:
        print("mpirun is not there: its part is left out")
    open(path("back.txt"), "w").write("".join(t + "\n" for _, t in reversed(rows)))
    back = [json.loads(l) for l in infer("v.jsonl", data=path("back.txt")).splitlines()]
    check([r["topics"] for r in reversed(back)] == [r["topics"] for r in topics], "the same bits in another order")
    listed = list(csv.DictReader(infer("t.csv", "--minimum", "0.5").splitlines()))
    check(len(listed) >= 290 and all(float(r["probability"]) >= 0.5 for r in listed) and set(listed[0]) == {"id", "date", "topic", "probability"}, f"CSV: {listed[:2]}")
    done = program("infer", "topics", "-m", path("a.h5"), "-", "--quiet", input="weld the metal\n\nqwertz\nThe of\n")
    lines = [json.loads(l) for l in done.stdout.splitlines()]
    check(done.returncode == 0 and [(r["words"], bool(r["topics"])) for r in lines] == [(2, True), (0, False), (0, False)], f"lines without known words: {done.stdout} {done.stderr}")

    # thread counts, seeds, stop and resume
    done = program("train", "topics", *common, "-o", path("b.h5"), "--threads", "1", "--quiet")
    check(done.returncode == 0 and done.stderr == "" and read(path("b.h5"))[4] == sha, f"1 and 2 threads: the same bits {done.stderr}")
    done = program("train", "topics", *common, "-o", path("c.h5"), "--seed", "3", "-q")
    check(done.returncode == 0 and read(path("c.h5"))[4] != sha, "another seed")
    long = [*common, "--passes", "600", "--iterations", "60"]
    check(program("train", "topics", *long, "-o", path("whole.h5"), "-q").returncode == 0, "600 passes")
    stops, deadline = 0, time.time() + 240
    while time.time() < deadline:
        run = subprocess.Popen([BIN + "/skillwatch-train", "topics", *long, "-o", path("r.h5"), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        line = ""
        while run.poll() is None and not re.search("dictionary", line): line = run.stderr.readline()  # from then on it learns
        if stops < 3:
            time.sleep(0.05)
            run.terminate()
        err = run.communicate()[1]
        if run.returncode == 0: break
        stops += 1
        check(run.returncode == 75, f"stopped: {run.returncode} {err[-300:]}")
    check(run.returncode == 0 and stops >= 1 and not os.path.exists(path("r.last.h5")), f"it was stopped {stops} times and ends: {err[-300:]}")
    check(read(path("r.h5"))[4] == read(path("whole.h5"))[4], "resumed = uninterrupted")
    done = program("train", "topics", *long, "-o", path("r.h5"), "--resume")
    check(done.returncode == 0 and "nothing left" in done.stderr, f"complete: {done.stderr[-200:]}")
    done = program("train", "topics", *common, "-o", path("r.h5"), "--resume")
    check(done.returncode == 1 and "other options" in done.stderr, f"another run's: {done.stderr[-200:]}")

    # folders, stems, held-out postings, documents of some words, metrics as JSON
    done = program("train", "topics", "--data", POSTINGS, "-o", path("p.h5"), "--topics", "5", "--stems", "english", "--holdout", "0.2", "--words-per-document", "60", "--passes", "3", "--json")
    metrics = json.loads(done.stdout) if done.returncode == 0 else {}
    check(done.returncode == 0 and metrics["held_out"]["documents"] > 5 and metrics["held_out"]["bound_per_word"] < 0 and "manag" in read(path("p.h5"))[0], f"samples: {done.stderr[-300:]} {metrics}")
    done = program("infer", "topics", "-m", path("p.h5"), POSTINGS, "-o", path("p.jsonl"))
    first = json.loads(open(path("p.jsonl")).readline()) if done.returncode == 0 else {}
    check(done.returncode == 0 and re.fullmatch(r"\d\d-\d\d-\d{4}", first["date"]) and first["words"] > 20, f"samples: {done.stderr[-300:]} {first}")

    # the CUDA kernels, emulated, come to the same topics
    open(path("some.txt"), "w").write("".join(t + "\n" for _, t in rows[:40]))
    few = ["--data", path("some.txt"), "--format", "lines", "--topics", "3", "--no-above", "0.9", "--passes", "1", "--iterations", "3", "--seed", "2"]
    for device in ("cpu", "cuda-emulated"):
        done = program("train", "topics", *few, "--device", device, "-o", path(device + ".h5"))
        check(done.returncode == 0, f"{device}: {done.stderr[-300:]}")
    check(np.allclose(read(path("cpu.h5"))[1], read(path("cuda-emulated.h5"))[1], rtol=1e-4, atol=1e-4), "lambda on both devices")

    # bad rows are set aside; bad input gets one line
    with open(path("bad.jsonl"), "wb") as f:
        for _, t in rows[:30]: f.write(json.dumps({"text": t}).encode() + b"\n")
        f.write(b'{broken\n{"text": " "}\n{"text": "\xff"}\n{"text": 7}\n')
    done = program("train", "topics", "--data", path("bad.jsonl"), "-o", path("d.h5"), "--topics", "2", "--no-above", "1")
    check(done.returncode == 0 and "4 unusable rows" in done.stderr and len(open(path("d.rejected.jsonl")).readlines()) == 4, f"bad rows: {done.stderr}")
    open(path("few.txt"), "w").write("weld metal\ntruck route\n")
    open(path("empty.txt"), "w").write("\n\n")
    fresh = ["-o", path("e.h5")]
    for status, words, *arguments in ((1, "2 documents to learn from", "--data", path("few.txt"), "--format", "lines", *fresh), (1, "none is left", "--data", path("few.txt"), "--format", "lines", "--no-below", "2", *fresh),
                              (1, "no posting can be used", "--data", path("empty.txt"), "--format", "lines", *fresh), (1, "missing.csv", "--data", path("missing.csv"), *fresh),
                              (1, "klingon", *common, "--stems", "klingon", *fresh), (2, "--topics must be", *common, "--topics", "0", *fresh), (2, "--no-below", *common, "--no-below", "0", *fresh),
                              (2, "--alpha", *common, "--alpha", "nan", *fresh), (2, "--no-above", *common, "--no-above", "nan", *fresh), (2, "exists already", *common, "-o", path("a.h5")),
                              (2, "--data is missing", *fresh), (2, "-o is missing", *common), (2, "data.txt", *common, "-o", path("data.txt"))):
        done = program("train", "topics", *arguments)
        check(done.returncode == status and words in done.stderr and len(done.stderr.strip().splitlines()) == 1, f"{words}: {done.returncode} {done.stderr}")
    check(not os.path.exists(path("e.h5")), "nothing is written by a failed run")
    with h5py.File(path("a.h5")) as a, h5py.File(path("broken.h5"), "w") as b: a.copy("weights", b)
    for status, words, *arguments in ((2, "-m FILE", path("data.txt")), (2, "--minimum", "-m", path("a.h5"), path("data.txt"), "--minimum", "2"), (1, "broken.h5", "-m", path("broken.h5"), path("data.txt")),
                              (2, "fp32", "-m", path("a.h5"), path("data.txt"), "--dtype", "bf16"), (2, ".jsonl or .csv", "-m", path("a.h5"), path("data.txt"), "-o", path("x.txt"))):
        done = program("infer", "topics", *arguments)
        check(done.returncode == status and words in done.stderr and len(done.stderr.strip().splitlines()) == 1, f"infer {words}: {done.returncode} {done.stderr}")
    for verb in (["infer", "tag"], ["infer", "multilabel"], ["infer", "embed"]):
        done = program(*verb, "-m", path("a.h5"), path("data.txt"))
        check(done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, f"{verb} on topics: {done.returncode} {done.stderr}")
    done = program("train", "embed", "--base", path("a.h5"), "--data", path("data.txt"), "-o", path("e.h5"))
    check(done.returncode == 1 and "a.h5: it holds topics" in done.stderr and "no encoder" in done.stderr and len(done.stderr.strip().splitlines()) == 1, f"topics as a base: {done.stderr}")
check.close()
