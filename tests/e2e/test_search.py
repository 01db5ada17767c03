"""skillwatch infer search, infer select and vectors: neighbours are numpy's, stores keep what they were given, whatever the batch and the threads; bad input gets
one clear line."""
import csv, json, os, random, re, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, Checks, program, tiny_bert, vocabulary

import h5py, numpy as np

check = Checks()
rng = random.Random(8)
WORDS = "machine learning engineer data scientist nurse truck driver teacher welder senior junior sales clerk".split()


def texts(count): return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 5))) for _ in range(count)]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as f: csv.writer(f).writerows([("id", "title"), *rows])
    return path


def store(path):
    with h5py.File(path) as f: return f["vectors"][()], [bytes(i).rstrip(b"\0").decode() for i in f["ids"][()]]


def unit(v): return (v / np.sqrt((v.astype(np.float64) ** 2).sum(1, keepdims=True))).astype(np.float32)


def refused(part, what, *args, status=(1,)): check.refused(program(*args), part, what, status)


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    bases = []
    for seed in (0, 1):
        tiny_bert(path(f"tiny{seed}"), vocabulary([" ".join(WORDS)]), hidden=24, layers=1, intermediate=32, positions=24, seed=seed, scale=0.4)
        bases.append(path(f"tiny{seed}.h5"))
        assert program("pull", path(f"tiny{seed}"), "-o", bases[-1], "--quiet").returncode == 0
    base, other = bases
    corpus, queries = texts(300), texts(70)
    write_csv(path("corpus.csv"), [(f"c{i}", t) for i, t in enumerate(corpus)])
    write_csv(path("queries.csv"), [(f"q{i}", t) for i, t in enumerate(queries)])
    open(path("queries.txt"), "w").write("\n".join(queries) + "\n")
    for name, prefix in (("corpus", ""), ("queries", ""), ("prefixed", "senior ")):
        source = path("corpus.csv" if name == "prefixed" else name + ".csv")
        done = program("infer", "embed", "-m", base, source, "--column", "title", "--prefix", prefix, "-o", path(name + ".h5"), "--quiet")
        assert done.returncode == 0, done.stderr
    c, ids = store(path("corpus.h5"))
    q, _ = store(path("queries.h5"))

    def brute(q, c, k, metric="cosine", skip=False):
        """By the rule of the operator: equal scores by index. Sums in double; scores are compared within a tolerance, and order where they are apart."""
        a, b = (unit(q), unit(c)) if metric == "cosine" else (q, c)
        s = a.astype(np.float64) @ b.T.astype(np.float64) if metric == "cosine" else np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1))
        if skip: s[np.arange(len(s)), np.arange(len(s))] = -np.inf if metric == "cosine" else np.inf
        order = np.argsort(-s if metric == "cosine" else s, axis=1, kind="stable")[:, :k]
        return order, s

    def same(found, order, s, names, what):
        """The same neighbours, but where two are as near as rounding can tell."""
        right = len(found) == len(order)
        for i, matches in enumerate(found):
            got = [names.index(m["id"]) for m in matches["matches"]]
            right &= len(got) == order.shape[1] and len(set(got)) == len(got)
            right &= all(abs(s[i, g] - s[i, w]) < 2e-6 for g, w in zip(got, order[i])) and all(abs(m["score"] - s[i, g]) < 2e-4 for m, g in zip(matches["matches"], got))
            pairs = list(zip(matches["matches"], matches["matches"][1:], got, got[1:]))
            right &= all(a["score"] != b["score"] or x < y for a, b, x, y in pairs)
        check(right, what)

    lines = lambda done: [json.loads(l) for l in done.stdout.splitlines()]
    find = lambda *a: program("infer", "search", *a, "--quiet")
    texts_args = ["-m", base, "--corpus", path("corpus.csv"), "--column", "title"]
    done = find(*texts_args, path("queries.csv"), "-k", 7)
    if check(done.returncode == 0, f"search: {done.stderr}"):
        found = lines(done)
        same(found, *brute(q, c, 7), ids, "texts in texts: numpy's neighbours")
        check([f["id"] for f in found] == [f"q{i}" for i in range(70)], "queries in order, with their ids")
        check(all(m["text"] == corpus[int(m["id"][1:])] for f in found for m in f["matches"]), "with their texts")
    for extra in (["--threads", 1, "--batch-tokens", 40], ["--threads", 2, "--no-dedup"]):
        check(find(*texts_args, path("queries.csv"), "-k", 7, *extra).stdout == done.stdout, f"the same bits with {extra}")
    plain = [[(m["id"], m["score"]) for m in f["matches"]] for f in found]
    bare = lambda done: [[(m["id"], m["score"]) for m in f["matches"]] for f in lines(done)]
    check(bare(find("-m", base, "--corpus", path("corpus.h5"), path("queries.csv"), "--column", "title", "-k", 7)) == plain, "texts in vectors: the same")
    check(bare(find("--corpus", path("corpus.h5"), path("queries.h5"), "-k", 7)) == plain, "vectors in vectors, without a model: the same")
    check(bare(find("-m", base, "--corpus", path("corpus.csv"), "--corpus-column", "title", path("queries.txt"), "-k", 7)) == plain, "lines of a text file: the same")
    check(bare(find(*texts_args, path("queries.txt"), "-k", 7)) == plain, "lines of a text file, a corpus that is none: the same")
    done = program("infer", "search", "-m", base, "--corpus", path("corpus.h5"), "-", "-k", 7, "--quiet", input="\n".join(queries) + "\n")
    check(bare(done) == plain, f"standard input: the same {done.stderr}")
    same(lines(find("--corpus", path("corpus.h5"), path("queries.h5"), "--metric", "euclidean", "-k", 5)), *brute(q, c, 5, "euclidean"), ids, "euclidean distances")
    same(lines(find("--corpus", path("corpus.h5"), path("corpus.h5"), "--exclude-self", "-k", 4)), *brute(c, c, 4, skip=True), ids, "no row is its own neighbour")
    p, _ = store(path("prefixed.h5"))
    same(lines(find(*texts_args, "--corpus-prefix", "senior ", path("queries.csv"), "-k", 3)), *brute(q, p, 3), ids, "--corpus-prefix")
    done = program("infer", "search", *texts_args, path("queries.csv"), "-o", path("found.csv"), "-k", 2, "--quiet")
    with open(path("found.csv"), newline="") as f: table = list(csv.DictReader(f))
    check(done.returncode == 0 and [(r["query"], r["rank"], r["id"], float(r["score"]), r["text"]) for r in table] ==
          [(f["id"], str(n + 1), m["id"], m["score"], m["text"]) for f in found for n, m in enumerate(f["matches"][:2])], f"CSV holds the same {done.stderr}")
    write_csv(path("three.csv"), [(f"t{i}", t) for i, t in enumerate(corpus[:3])])
    done = program("infer", "search", "-m", base, "--corpus", path("three.csv"), "--column", "title", path("queries.csv"), "-k", 9)
    check(done.returncode == 0 and "has 3 rows: all of them are given, not 9" in done.stderr and all(len(f["matches"]) == 3 for f in lines(done)), f"k above the corpus: {done.stderr}")

    if check(os.path.exists(os.path.join(os.environ["SKILLWATCH_MODULES"], "skillwatch_cuda_emulated.so")), "the emulated module is built"):
        done = find("--corpus", path("corpus.h5"), path("queries.h5"), "-k", 7, "--device", "cuda-emulated")
        same(lines(done), *brute(q, c, 7), ids, f"on the CUDA kernels, in the emulator {done.stderr[-300:]}")

    # a run that is killed goes on where it was
    many = np.random.default_rng(3).standard_normal((60000, 24)).astype(np.float32)
    np.save(path("many.npy"), many)
    args = ["--corpus", path("corpus.h5"), path("many.npy"), "-k", 3, "--quiet"]
    done = program("infer", "search", *args, "-o", path("whole.jsonl"))
    check(done.returncode == 0, f"60,000 vectors: {done.stderr}")
    run = subprocess.Popen([BIN + "/skillwatch-infer", "search", *map(str, args), "-o", path("parts.jsonl")])
    partial = path("parts.jsonl.partial")
    while run.poll() is None and not (os.path.exists(partial) and os.path.getsize(partial) > 1 << 18): time.sleep(0.001)
    run.kill()
    stopped = run.wait() != 0
    done = program("infer", "search", *args[:-1], "-o", path("parts.jsonl"))
    check(done.returncode == 0 and open(path("parts.jsonl")).read() == open(path("whole.jsonl")).read(), f"killed and continued: the same {done.stderr}")
    check(not stopped or "going on after" in done.stderr, f"it goes on: {done.stderr}")

    # --- anchors ---
    select = lambda *a: program("infer", "select", "-m", base, path("corpus.csv"), "--column", "title", "--quiet", *a)
    expression, cutoff = "machine learning|DATA scientist", 0.9
    done = select("--anchors", expression, "--cutoff", cutoff)
    anchors = [i for i, t in enumerate(corpus) if re.search(expression, t, re.I)]
    _, s = brute(c, c[anchors], 1)
    near = s.argmax(1)
    if check(done.returncode == 0 and 3 < len(anchors) < 150, f"select: {done.stderr} {len(anchors)} anchors"):
        chosen = {r["id"]: r for r in lines(done)}
        sure = lambda scores: [i for i in range(300) if abs(scores[i] - cutoff) > 1e-5]
        check(all((f"c{i}" in chosen) == (i in anchors or s[i].max() >= cutoff) for i in sure(s.max(1))), "selected: matched or near an anchor")
        check(len(anchors) < len(chosen) < 300 and list(chosen) == sorted(chosen, key=lambda n: int(n[1:])), f"{len(chosen)} selected, in order")
        for name, r in chosen.items():
            i = int(name[1:])
            check(abs(r["score"] - s[i].max()) < 1e-5 and r["reason"] == ("matched" if i in anchors else "nearest"), f"{r}")
            if r["reason"] == "nearest": check(abs(s[i, anchors.index(int(r["anchor"][1:]))] - s[i].max()) < 2e-6 and r["anchor_text"] == corpus[int(r["anchor"][1:])], f"{r}")
    check(select("--anchors", expression, "--cutoff", cutoff, "--threads", 1, "--batch-tokens", 40).stdout == done.stdout, "the same bits in other batches")
    mean = unit(c[anchors]).astype(np.float64).mean(0)
    m = unit(c).astype(np.float64) @ (mean / np.sqrt((mean ** 2).sum()))
    done = select("--anchors", expression, "--cutoff", cutoff, "--by", "mean")
    chosen = {r["id"]: r for r in lines(done)}
    check(done.returncode == 0 and all((f"c{i}" in chosen) == (i in anchors or m[i] >= cutoff) for i in sure(m)) and all(abs(r["score"] - m[int(n[1:])]) < 1e-5 for n, r in chosen.items()),
          f"by the anchors' mean {done.stderr}")
    open(path("anchors.txt"), "w").write("nurse teacher\n")
    done = select("--anchors-file", path("anchors.txt"), "--cutoff", 0.8, "-o", path("near.csv"))
    with open(path("near.csv"), newline="") as f: rows = list(csv.DictReader(f))
    check(done.returncode == 0 and rows and all(r["reason"] == "nearest" and r["anchor_text"] == "nurse teacher" and float(r["score"]) >= 0.8 for r in rows), f"anchors of a file {done.stderr}")

    # --- stores ---
    vectors = lambda *a, **k: program("vectors", *a, **k)
    check(vectors("append", path("store.h5"), path("corpus.h5")).returncode == 0 and store(path("store.h5"))[1] == ids, "a new store")
    done = vectors("append", path("store.h5"), path("queries.h5"))
    v, names = store(path("store.h5"))
    check(done.returncode == 0 and "70 rows added, 370 in all" in done.stderr and np.array_equal(v, np.vstack([c, q])) and names == ids + [f"q{i}" for i in range(70)], f"append {done.stderr}")
    shown = json.loads(vectors("show", path("store.h5"), "--json").stdout)
    check(shown["rows"] == 370 and shown["hidden_size"] == 24 and len(shown["model_sha256"]) == 64, f"show: {shown}")
    refused("already", "an id that is there", "vectors", "append", path("store.h5"), path("queries.h5"))
    check(np.array_equal(store(path("store.h5"))[0], v), "and the store stays as it was")
    write_csv(path("changed.csv"), [("c5", "nurse"), ("new", "welder")])
    assert program("infer", "embed", "-m", base, path("changed.csv"), "--column", "title", "-o", path("changed.h5"), "--quiet").returncode == 0
    done = vectors("append", path("store.h5"), path("changed.h5"), "--replace")
    v, names = store(path("store.h5"))
    check(done.returncode == 0 and len(names) == 371 and names[-2:] == ["c5", "new"] and names.count("c5") == 1 and np.array_equal(v[-2:], store(path("changed.h5"))[0]), "--replace")
    open(path("gone.txt"), "w").write("q1\r\nq2\nq2\nnobody\n")
    done = vectors("delete", path("store.h5"), "c0", "--ids", path("gone.txt"))
    w, left = store(path("store.h5"))
    check(done.returncode == 0 and "3 rows deleted, 368 left; some ids were not there" in done.stderr and left == [n for n in names if n not in ("c0", "q1", "q2")] and
          np.array_equal(w, v[[n not in ("c0", "q1", "q2") for n in names]]), f"delete {done.stderr}")
    refused("none of the 1 id", "deleting what is not there", "vectors", "delete", path("store.h5"), "nobody")
    check(vectors("export", path("store.h5"), "-o", path("out.npy")).returncode == 0 and np.array_equal(np.load(path("out.npy")), w), "export")
    check(vectors("import", path("out.npy"), "-m", base, "-o", path("back.h5")).returncode == 0, "import")
    a, b = store(path("back.h5"))
    check(np.array_equal(a, w) and b == left and json.loads(vectors("show", path("back.h5"), "--json").stdout)["model_sha256"] == shown["model_sha256"], "what comes back is the same")
    # killed at any moment: the old store, or the new one
    shutil.copy(path("corpus.h5"), path("kill.h5"))
    wanted = []
    for wait in (0, 0.002, 0.005, 0.01, 0.02, 0.05):
        run = subprocess.Popen([BIN + "/skillwatch-vectors", "append", path("kill.h5"), path("queries.h5"), "--replace", "--quiet"])
        time.sleep(wait)
        run.kill()
        run.wait()
        wanted.append(len(store(path("kill.h5"))[1]))
    check(set(wanted) <= {300, 370}, f"rows after kills: {wanted}")
    check(vectors("append", path("kill.h5"), path("queries.h5"), "--replace").returncode == 0 and not [n for n in os.listdir(tmp) if "tmp-" in n or n.endswith(".lock")],
          f"and nothing is left behind: {os.listdir(tmp)}")

    # --- bad input: one clear line ---
    assert program("infer", "embed", "-m", other, path("three.csv"), "--column", "title", "-o", path("other.h5"), "--quiet").returncode == 0
    refused("another model", "a corpus of another model", "infer", "search", "-m", base, "--corpus", path("other.h5"), path("queries.csv"), "--column", "title")
    refused("different models", "two stores of two models", "infer", "search", "--corpus", path("corpus.h5"), path("other.h5"))
    refused("another model", "anchors of another model", "infer", "select", "-m", base, path("corpus.csv"), "--column", "title", "--anchors-file", path("other.h5"))
    refused("another model", "adding those of another model", "vectors", "append", path("store.h5"), path("other.h5"))
    refused("prefix", "adding those of another prefix", "vectors", "append", path("store.h5"), path("prefixed.h5"))
    refused("which model", "adding those of an unknown one", "vectors", "append", path("store.h5"), path("out.npy"))
    bad = c.copy()
    bad[4, 3] = np.nan
    np.save(path("bad.npy"), bad)
    # rows that are no finite numbers are set aside, of the corpus and of the queries, and change nothing for the others
    bad[9, 0] = np.inf
    np.save(path("bad.npy"), bad)
    open(path("bad.npy.ids.txt"), "w").write("".join(f"b{i}\n" for i in range(300)))
    left = [i for i in range(300) if i not in (4, 9)]
    aside = lambda name: [(os.path.basename(r["file"]), r["line"], r["row"]) for r in map(json.loads, open(path(name + ".rejected.jsonl")))]
    done = find("--corpus", path("bad.npy"), path("queries.h5"), "-k", 7, "-o", path("aside.jsonl"), "--json")
    names = [f"b{i}" for i in range(300)]
    s = brute(q, c, 1)[1]
    s[:, [4, 9]] = -np.inf
    same([json.loads(l) for l in open(path("aside.jsonl"))], np.argsort(-s, axis=1, kind="stable")[:, :7], s, names, f"a corpus with NaN: the others are found {done.stderr}")
    check(aside("aside.jsonl") == [("bad.npy", 5, "b4"), ("bad.npy", 10, "b9")] and json.loads(done.stdout)["rejected"] == 2, f"its rows are set aside: {done.stdout}")
    done = find("--corpus", path("corpus.h5"), path("bad.npy"), "-k", 5, "-o", path("aside.jsonl"))
    found = [json.loads(l) for l in open(path("aside.jsonl"))]
    check([f["id"] for f in found] == [names[i] for i in left] and aside("aside.jsonl") == [("bad.npy", 5, "b4"), ("bad.npy", 10, "b9")], f"queries with NaN are set aside {done.stderr}")
    same(found, *(lambda o, s: (o[left], s[left]))(*brute(c, c, 5)), ids, "and the others find what they find")
    done = program("infer", "search", "--corpus", path("bad.npy"), path("bad.npy"), "-k", 4, "--exclude-self", "-o", path("aside.jsonl"))
    s = brute(c, c, 1, skip=True)[1]
    s[:, [4, 9]] = -np.inf
    same([json.loads(l) for l in open(path("aside.jsonl"))], np.argsort(-s, axis=1, kind="stable")[left, :4], s[left], names, "a corpus that searches itself: no row is its own neighbour")
    check(len(aside("aside.jsonl")) == 2 and done.stderr.count("2 unusable rows set aside (") == 1, f"and each is set aside once: {done.stderr}")
    write_csv(path("some.csv"), [("a", queries[0]), ("b", " "), ("c", queries[1])])
    done = program("infer", "search", "-m", base, "--corpus", path("bad.npy"), path("some.csv"), "--column", "title", "-o", path("aside.jsonl"))
    check(done.returncode == 0 and [a[:2] for a in aside("aside.jsonl")] == [("bad.npy", 5), ("bad.npy", 10), ("some.csv", 3)] and "3 unusable rows set aside" in done.stderr,
          f"texts beside vectors: one file of rejects {done.stderr}")
    done = select("--anchors-file", path("bad.npy"), "--cutoff", 0.999, "-o", path("aside.jsonl"))
    check(done.returncode == 0 and len(aside("aside.jsonl")) == 2 and len(open(path("aside.jsonl")).readlines()) >= 298, f"anchors, too {done.stderr}")
    np.save(path("nan.npy"), np.full((2, 24), np.nan, np.float32))
    refused("no vector that can be used", "a corpus of NaN", "infer", "search", "--corpus", path("nan.npy"), path("queries.h5"))
    refused("no vector that can be used", "queries of NaN", "infer", "search", "--corpus", path("corpus.h5"), path("nan.npy"))
    for args in ([path("queries.h5")], [path("corpus.h5"), "--exclude-self"]):
        refused("one process", "vectors in shards", "infer", "search", "--corpus", path("corpus.h5"), *args, "--shard", "1/2", "-o", path("no.jsonl"), status=(2,))
    refused("--corpus-column NAME", "a corpus without that column", "infer", "search", "-m", base, "--corpus", path("corpus.csv"), "--column", "name", path("queries.csv"))
    refused("no finite number", "importing NaN", "vectors", "import", path("bad.npy"), "-m", base, "-o", path("no.h5"))
    refused("holds vectors, not a model", "vectors as the model", "infer", "search", "-m", path("corpus.h5"), "--corpus", path("corpus.csv"), "--column", "title", path("queries.csv"))
    np.save(path("wide0.npy"), c[:, :0]), open(path("nothing.npy"), "w").close()
    refused("vectors without numbers", "rows of nothing", "infer", "search", "--corpus", path("wide0.npy"), path("queries.h5"))
    refused("is empty (0 bytes)", "a file of nothing", "infer", "search", "--corpus", path("nothing.npy"), path("queries.h5"))
    np.save(path("empty.npy"), c[:0]), np.save(path("narrow.npy"), c[:, :7].copy())
    refused("is empty", "an empty corpus of vectors", "infer", "search", "--corpus", path("empty.npy"), path("queries.h5"))
    refused("of 7", "vectors of another size", "infer", "search", "--corpus", path("corpus.h5"), path("narrow.npy"))
    refused("7 numbers", "importing those", "vectors", "import", path("narrow.npy"), "-m", base, "-o", path("no.h5"))
    write_csv(path("blank.csv"), [("x", " ")])
    refused("no text", "a corpus without texts", "infer", "search", "-m", base, "--corpus", path("blank.csv"), "--column", "title", path("queries.csv"))
    refused("from 1 to 256", "k", "infer", "search", "--corpus", path("corpus.h5"), path("queries.h5"), "-k", 257, status=(2,))
    refused("--metric", "a metric that is none", "infer", "search", "--corpus", path("corpus.h5"), path("queries.h5"), "--metric", "taxi", status=(2,))
    refused("-m FILE", "texts without a model", "infer", "search", "--corpus", path("corpus.h5"), path("queries.csv"), status=(2,))
    refused("the same file", "--exclude-self of others", "infer", "search", "--corpus", path("corpus.h5"), path("queries.h5"), "--exclude-self", status=(2,))
    refused("broken near", "a broken expression", "infer", "select", "-m", base, path("corpus.csv"), "--anchors", "machine (", status=(2,))
    refused("no text matches", "an expression that matches nothing", "infer", "select", "-m", base, path("corpus.csv"), "--column", "title", "--anchors", "plumber")
    refused("anchors are needed", "no anchors", "infer", "select", "-m", base, path("corpus.csv"), status=(2,))
    refused("standard input", "anchors in what is read once", "infer", "select", "-m", base, "-", "--anchors", "nurse", status=(2,))
    refused("--cutoff", "a cutoff that is none", "infer", "select", "-m", base, path("corpus.csv"), "--anchors", "nurse", "--cutoff", 2, status=(2,))
    with open(path("corpus.h5"), "rb") as f, open(path("torn.h5"), "wb") as to: to.write(f.read()[:3000])
    refused("damaged", "a torn store", "vectors", "show", path("torn.h5"))
    check(not os.path.exists(path("no.h5")), "a failed run writes nothing")
check.close()
