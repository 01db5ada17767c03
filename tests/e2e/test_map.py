"""skillwatch infer map: neighbours stay together, the same bits with any number of threads, new points go where they go alone, quality is
scikit-learn's, and small, odd and bad sets work or get one clear line."""
import csv, hashlib, json, os, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, Checks, program

try:
    import h5py, numpy as np
    from sklearn.manifold import trustworthiness
    from sklearn.neighbors import NearestNeighbors
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has scikit-learn, h5py")
    sys.exit(77)

check = Checks()
rng = np.random.default_rng(3)
KINDS, HIDDEN = 6, 24
centers = rng.standard_normal((KINDS, HIDDEN))


def points(n, spread=0.25):
    kinds = rng.integers(0, KINDS, n)
    return (centers[kinds] + spread * rng.standard_normal((n, HIDDEN))).astype(np.float32), kinds


def infer(*arguments): return program("infer", "map", *arguments, "--device", "cpu")


def read(path):
    with h5py.File(path) as f: return f["coordinates"][()], [i.decode() for i in f["ids"][()]], json.loads(f.attrs["map"])


def alike(y, kinds, others=None, other_kinds=None, k=5):
    """The share of the k nearest points on the map that are of a point's own kind."""
    near = NearestNeighbors(n_neighbors=k + (others is None)).fit(y if others is None else others)
    index = near.kneighbors(y, return_distance=False)[:, (others is None):]
    return float((np.asarray(kinds if other_kinds is None else other_kinds)[index] == np.asarray(kinds)[:, None]).mean())


def one_line(done, status, *words):
    return done.returncode == status and done.stderr.count("\n") == 1 and all(w in done.stderr for w in words)


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)

    def save(name, x, ids=None):
        np.save(path(name), np.asarray(x, np.float32))
        if ids is not None: open(path(name) + ".ids.txt", "w").write("".join(f"{i}\n" for i in ids))
        return path(name)

    x, kinds = points(400)
    ids = [f"a,{i}" for i in range(len(x))]
    save("x.npy", x, ids)

    # a map, as HDF5 and as CSV, in two and in three dimensions
    done = infer(path("x.npy"), "-o", path("map.h5"), "--seed", 7, "--json", "--quality")
    check(done.returncode == 0, f"map: {done.stderr[-500:]}")
    check("MB of memory" in done.stderr, f"memory is stated: {done.stderr!r}")
    report = json.loads(done.stdout)
    y, got_ids, settings = read(path("map.h5"))
    check(y.shape == (400, 2) and y.dtype == np.float32 and np.isfinite(y).all() and y.std(0).min() > 0.5, "coordinates")
    check(got_ids == ids, "ids")
    check(settings["n_neighbors"] == 15 and settings["metric"] == "cosine" and settings["seed"] == 7 and abs(settings["a"] - 1.5769) < 1e-3
          and abs(settings["b"] - 0.8951) < 1e-3, f"settings: {settings}")  # a, b: umap-learn's for min_dist 0.1, spread 1
    check(settings["vectors_sha256"] == hashlib.sha256(x.tobytes()).hexdigest(), "the vectors' hash")
    with h5py.File(path("map.h5")) as f: check((f["vectors"][()] == x).all(), "a map keeps its vectors")
    check(alike(y, kinds) > 0.98, f"kinds are together: {alike(y, kinds)}")
    t = trustworthiness(x, y, n_neighbors=15, metric="cosine")
    check(abs(report["trustworthiness"] - t) < 2e-4, f"trustworthiness {report['trustworthiness']}, scikit-learn {t}")
    check(report["trustworthiness"] > 0.9 and report["neighbours_kept"] > 0.35, f"neighbours are kept: {report}")
    random_map = trustworthiness(x, rng.standard_normal((400, 2)), n_neighbors=15, metric="cosine")
    check(random_map < 0.6, f"a bad map is told from a good one: {random_map}")
    done = infer(path("x.npy"), "-o", path("map.csv"), "--seed", 7, "--quiet", "--threads", 1)
    rows = list(csv.reader(open(path("map.csv"), newline="")))
    check(done.returncode == 0 and done.stderr == "" and rows[0] == ["id", "x", "y"] and [r[0] for r in rows[1:]] == ids
          and (np.array([r[1:] for r in rows[1:]], np.float32) == y).all(), f"CSV: {rows[:2]}")
    for name, rows in (("map.json", rows), ("3.json", None)):  # JSON: the same with the settings
        done = infer(path("x.npy"), "-o", path(name), "--seed", 7, "--quiet", *(() if rows else ("--components", 3)))
        with open(path(name), encoding="utf-8") as f: whole = json.load(f)
        check(done.returncode == 0 and whole["map"]["seed"] == 7 and len(whole["points"]) == len(ids) and [p["id"] for p in whole["points"]] == ids, f"{name}: {done.stderr}")
        if rows: check([[p["id"], p["x"], p["y"]] for p in whole["points"]] == [[r[0], float(r[1]), float(r[2])] for r in rows[1:]], "JSON is what CSV is")
        else: check(all(list(p) == ["id", "x", "y", "z"] for p in whole["points"]), "three dimensions")
    done = infer(path("x.npy"), "-o", path("3.h5"), "--components", 3, "--metric", "euclidean", "--quality", "--json")
    y3, _, settings3 = read(path("3.h5"))
    report = json.loads(done.stdout)
    check(y3.shape == (400, 3) and settings3["metric"] == "euclidean" and alike(y3, kinds) > 0.98, "three dimensions, Euclidean")
    check(abs(report["trustworthiness"] - trustworthiness(x, y3, n_neighbors=15)) < 2e-4, "Euclidean trustworthiness")
    infer(path("x.npy"), "-o", path("seed.h5"), "--seed", 8, "-q")
    check((read(path("seed.h5"))[0] != y).any(), "another seed, another map")

    # threads: enough points for every step to use several
    big, _ = points(5000, 0.6)
    save("big.npy", big)
    maps = []
    for threads in (1, 2, 3, 1):
        done = infer(path("big.npy"), "-o", path("big.h5"), "--epochs", 12, "--threads", threads, "--seed", 1, "-q")
        check(done.returncode == 0, f"{threads} threads: {done.stderr}")
        maps.append(read(path("big.h5"))[0].tobytes())
    check(len(set(maps)) == 1, "the same bits with 1, 2 and 3 threads")

    # the CUDA kernels, emulated: threads in any order
    small = save("small.npy", x[:120])
    maps = set()
    for order in ("forward", "reversed", "random:1"):
        done = program("infer", "map", small, "-o", path("emulated.h5"), "--device", "cuda-emulated", "--epochs", 10, "-q",
                       env={**os.environ, "SW_CUDA_EMULATOR_ORDER": order})
        check(done.returncode == 0, f"emulated, {order}: {done.stderr[-500:]}")
        maps.add(read(path("emulated.h5"))[0].tobytes())
        done = program("infer", "map", path("x.npy"), "--fit-on", path("emulated.h5"), "-o", path("emulated-new.h5"), "--device", "cuda-emulated", "-q",
                       env={**os.environ, "SW_CUDA_EMULATOR_ORDER": order})
        check(done.returncode == 0, f"emulated, {order}, new points: {done.stderr[-500:]}")
        maps.add(read(path("emulated-new.h5"))[0].tobytes())
    check(len(maps) == 2 and alike(read(path("emulated.h5"))[0], kinds[:120]) > 0.95, "emulated: the same bits in any order of threads")

    # new points: alone, in a batch, in another order, beside others
    new, new_kinds = points(40)
    before = open(path("map.h5"), "rb").read()
    def place(name, vectors, *options):
        save(name + ".npy", vectors)
        done = infer(path(name + ".npy"), "--fit-on", path("map.h5"), "-o", path(name + ".h5"), "-q", *options)
        check(done.returncode == 0, f"{name}: {done.stderr}")
        return read(path(name + ".h5"))
    batch, _, placed = place("batch", new)
    check(placed["fit_on_sha256"] == settings["vectors_sha256"], "what it was fitted on")
    check(alike(batch, new_kinds, y, kinds) > 0.98, f"new points are with their kind: {alike(batch, new_kinds, y, kinds)}")
    check(all((place("one", new[i : i + 1])[0][0] == batch[i]).all() for i in (0, 17, 39)), "a point alone is where it is in a batch")
    order = rng.permutation(40)
    check((place("shuffled", new[order], "--threads", 1)[0] == batch[order]).all(), "in any order")
    check((place("more", np.concatenate([x[:100], new, big[:2000]]))[0][100:140] == batch).all(), "beside others")
    check(open(path("map.h5"), "rb").read() == before, "old points stay where they are")
    check(one_line(infer(path("batch.npy"), "--fit-on", path("map.h5"), "-o", path("o.h5"), "--n-neighbors", 5), 2, "--fit-on", "leave them out"), "settings are the map's")
    check(one_line(infer(path("batch.npy"), "--fit-on", path("x.npy"), "-o", path("o.h5"), "-q"), 1, "x.npy holds no map"), "a file without a map")
    check(one_line(infer(save("wide.npy", np.ones((3, 25))), "--fit-on", path("map.h5"), "-o", path("o.h5"), "-q"), 1, "25", "24"), "vectors of another length")

    # small and odd sets
    apart = np.repeat(np.eye(HIDDEN)[:12], 20, 0) + 0.01 * rng.standard_normal((240, HIDDEN))   # twelve groups
    many = np.repeat(rng.standard_normal((60, HIDDEN)), 6, 0) + 0.001 * rng.standard_normal((360, HIDDEN))  # none of them large
    two = np.concatenate([points(150)[0], 100 + points(150)[0]])
    uneven = np.concatenate([centers[0] + 0.2 * rng.standard_normal((300, HIDDEN)), 50 + 0.01 * rng.standard_normal((8, HIDDEN))])
    sets = [("one point", x[:1], ()), ("two points", x[:2], ()), ("three points", x[:3], ()), ("14 points", x[:14], ("--n-neighbors", 40)),
            ("all equal", np.ones((50, HIDDEN)), ()), ("duplicates", np.repeat(x[:20], 30, 0), ()), ("two kinds of equal", np.repeat(x[:2], 40, 0), ()),
            ("twelve groups", apart, ("--n-neighbors", 6)), ("many groups", many, ("--n-neighbors", 5)), ("two far groups", two, ("--metric", "euclidean")),
            ("a large and a small group", uneven, ("--metric", "euclidean", "--n-neighbors", 6)), ("one number", x[:60, :1], ("--metric", "euclidean")),
            ("large numbers", x[:60] * 1e17, ("--metric", "euclidean")), ("one epoch", x[:60], ("--epochs", 1))]
    for name, vectors, options in sets:
        for components in (2, 3):
            done = infer(save("odd.npy", vectors), "-o", path("odd.h5"), "--quality", "-q", "--components", components, "--threads", 2, *options)
            check(done.returncode == 0 and done.stderr == "", f"{name}: {done.stderr!r}")
            if done.returncode: continue
            odd = read(path("odd.h5"))[0]
            check(odd.shape == (len(vectors), components) and np.isfinite(odd).all(), f"{name}: finite coordinates")
            if name in ("twelve groups", "many groups"):
                size = 20 if name == "twelve groups" else 6
                check(alike(odd, np.arange(len(vectors)) // size, k=3) > 0.95, f"{name}: groups are together: {alike(odd, np.arange(len(vectors)) // size, k=3)}")

    # rows that cannot be used are set aside, and change nothing for the others
    bad = np.insert(x, [3, 100], [[np.nan] * HIDDEN, [0] * HIDDEN], 0)
    save("bad.npy", bad, [f"b{i}" for i in range(len(bad))])
    done = infer(path("bad.npy"), "-o", path("bad.h5"), "--seed", 7)
    rejected = [json.loads(line) for line in open(path("bad.h5.rejected.jsonl"))]
    yb, bad_ids, _ = read(path("bad.h5"))
    check(done.returncode == 0 and "2 unusable rows" in done.stderr and [r["line"] for r in rejected] == [4, 102]
          and "not finite" in rejected[0]["reason"] and "direction" in rejected[1]["reason"] and rejected[0]["row"] == "b3", f"rejects: {rejected}")
    check((yb == y).all() and "b3" not in bad_ids and len(bad_ids) == 400, "the others are where they are without")
    done = infer(save("nan.npy", [[np.nan, 1]]), "-o", path("o.h5"), "-q")
    check(one_line(done, 1, "nan.npy", "no vector that can be used: the vector has a value that is not finite"), f"no usable row: {done.stderr!r}")
    done = infer(save("empty.npy", np.zeros((0, 4))), "-o", path("o.h5"), "-q")
    check(one_line(done, 1, "empty.npy"), f"no row: {done.stderr!r}")

    # vectors of another prefix are no neighbours of the map's, though the model is the same
    def stored(name, vectors, prefix):
        with h5py.File(path(name), "w") as f:
            for key, text in (("format", "skillwatch-vectors"), ("model_sha256", "a" * 64), ("model", "m"), ("pooling", "mean"), ("prefix", prefix)): f.attrs[key] = np.bytes_(text)
            f.attrs["version"], f.attrs["normalize"] = 1, 0
            f.create_dataset("vectors", data=np.asarray(vectors, np.float32), chunks=True, fletcher32=True)
            f.create_dataset("ids", data=np.array([str(i).encode() for i in range(len(vectors))], dtype=h5py.string_dtype("utf-8", 8)))
        return path(name)
    check(infer(stored("plain.h5", x[:60], "Job title: "), "-o", path("plain-map.h5"), "--epochs", 10, "-q").returncode == 0, "a map of vectors with a prefix")
    done = infer(stored("other.h5", new, "Beruf: "), "--fit-on", path("plain-map.h5"), "-o", path("o.h5"), "-q")
    check(one_line(done, 1, "the prefix 'Beruf: '", "with 'Job title: '"), f"another prefix: {done.stderr!r}")
    check(infer(stored("same.h5", new, "Job title: "), "--fit-on", path("plain-map.h5"), "-o", path("fits.h5"), "-q").returncode == 0, "the same prefix")

    # a signal ends a run and leaves nothing behind, neither of the map nor of the rows set aside
    save("nan-row.npy", np.concatenate([bad[3:4], big]))
    for verb, *options in (("map", "--epochs", 1000000, "-o", path("stopped.h5")), ("cluster", "-k", "2..900", "-o", path("stopped.csv"))):
        for stop in (signal.SIGTERM, signal.SIGINT):
            run = subprocess.Popen([BIN + "/skillwatch-infer", verb, path("nan-row.npy"), *map(str, options), "-q", "--device", "cpu"])
            while run.poll() is None and not any(".rejected.jsonl.tmp-" in n for n in os.listdir(tmp)): time.sleep(0.01)
            run.send_signal(stop)
            check(run.wait() == -stop and not [n for n in os.listdir(tmp) if "stopped" in n], f"{verb}, {stop!r}: {run.returncode} {os.listdir(tmp)}")

    # refused before anything is read
    save("large.npy", np.zeros((4000, 384)))
    done = infer(path("large.npy"), "-o", path("o.h5"), "--memory", 5, "-q")
    check(one_line(done, 1, "5 MB", "--memory"), f"memory: {done.stderr!r}")
    for options, words in [(("--components", 4), ("--components",)), (("--n-neighbors", 1), ("--n-neighbors", "2 to")), (("--metric", "manhattan"), ("cosine",)),
                           (("--min-dist", 2), ("--min-dist",)), (("--spread", 0), ("--spread",)), (("--epochs", -2), ("--epochs",)), (("--memory", -1), ("--memory",))]:
        check(one_line(infer(path("x.npy"), "-o", path("o.h5"), *options), 2, *words), f"{options}")
    check(one_line(infer(path("x.npy"), "-o", path("o.txt")), 2, ".h5, .csv or .json"), "the output's name")
    check(one_line(infer(path("x.npy"), "-o", path("x.npy")), 2), "the output is no input")
    check(one_line(infer(path("x.npy"), "-o", path("o.h5"), "--rejected", path("./o.h5")), 2, "are the same file"), "two outputs that are one")
    for change in (("append", path("bad.h5"), path("x.npy")), ("delete", path("bad.h5"), "b0")):
        check(one_line(program("vectors", *change), 1, "is a map", "--fit-on"), f"{change}: the map would be lost")
    check(one_line(infer(path("no.npy"), "-o", path("o.h5")), 1, "no.npy"), "no such file")
    check(not os.path.exists(path("o.h5")), "nothing is left by what failed")
check.close()
