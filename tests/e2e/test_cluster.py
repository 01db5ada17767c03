"""skillwatch infer cluster: inertia and silhouette are scikit-learn's, the same bits with any number of threads and on the emulated GPU, maps and
vectors, names from texts, and one clear line for what cannot be clustered."""
import csv, json, os, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import Checks, program

try:
    import h5py, numpy as np
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has scikit-learn, h5py")
    sys.exit(77)

check = Checks()
rng = np.random.default_rng(5)
TOPICS = ["nurse hospital ward", "welder steel workshop", "python software engineer", "teacher school lessons"]


def write_h5(path, vectors, ids, coordinates=None):
    with h5py.File(path, "w") as f:
        for name in ("model_sha256", "model", "pooling", "prefix"): f.attrs[name] = np.bytes_("")
        f.attrs["format"], f.attrs["version"], f.attrs["normalize"] = np.bytes_("skillwatch-vectors"), 1, 0
        f.create_dataset("vectors", data=vectors, chunks=True, fletcher32=True)
        f.create_dataset("ids", data=np.array([i.encode() for i in ids], dtype=h5py.string_dtype("utf-8", 8)))
        if coordinates is not None:
            f.attrs["map"] = np.bytes_("{}")
            f.create_dataset("coordinates", data=coordinates.astype(np.float32))


def rows(path):
    with open(path, newline="", encoding="utf-8") as f: return list(csv.DictReader(f))


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    run = lambda *a: program("infer", "cluster", *a)
    truth = rng.integers(0, 4, 1500)
    x = (rng.normal(size=(4, 12))[truth] + 0.6 * rng.normal(size=(1500, 12))).astype(np.float32)
    np.save(path("x.npy"), x)

    done = run(path("x.npy"), "-k", 4, "-o", path("a.csv"), "--json", "--threads", 2)
    check(done.returncode == 0 and "1500 vectors in 4 clusters" in done.stderr, done.stderr)
    summary, out = json.loads(done.stdout), rows(path("a.csv"))
    labels = np.array([int(r["cluster"]) for r in out])
    centres = np.array([x[labels == c].mean(0, dtype=np.float64) for c in range(4)])
    near = lambda a, b, tolerance=1e-6: abs(a - b) <= tolerance * abs(b)
    check([r["id"] for r in out] == [str(i + 1) for i in range(1500)], "ids")
    check(summary["inertia"] <= 1.001 * KMeans(4, n_init=10, random_state=0).fit(x).inertia_, f"inertia {summary['inertia']}")
    distance = np.array([float(r["distance"]) for r in out])
    check(near((distance ** 2).sum(), summary["inertia"]) and np.allclose(distance, np.sqrt(((x - centres[labels]) ** 2).sum(1)), atol=1e-3), "distances")
    check(near(summary["silhouette"], silhouette_score(x, labels)), f"silhouette {summary['silhouette']}")
    check([c["size"] for c in summary["clusters"]] == sorted(np.bincount(labels), reverse=True), "sizes, the largest first")
    for other in (["--threads", 1], ["--device", "cuda-emulated"]):
        done = run(path("x.npy"), "-k", 4, "-o", path("b.csv"), "--quiet", *other)
        check(done.returncode == 0 and done.stdout == done.stderr == "" and open(path("a.csv")).read() == open(path("b.csv")).read(), f"{other}: {done.stderr}")
    lines = run(path("x.npy"), "-k", 4, "--quiet")
    check([(r["id"], r["cluster"]) for r in map(json.loads, lines.stdout.splitlines())] == [(r["id"], int(r["cluster"])) for r in out], "JSON lines to stdout")

    # k by silhouette, as scikit-learn would choose
    done = run(path("x.npy"), "-k", "2..6", "-o", path("c.csv"), "--json", "--quiet")
    summary = json.loads(done.stdout)
    tried = {t["k"]: t["silhouette"] for t in summary["tried"]}
    check(list(tried) == [2, 3, 4, 5, 6] and summary["k"] == max(tried, key=tried.get) == 4, f"tried: {tried}")

    # names, ids, a row with NaN; a map's points or its vectors
    ids = [f"p{i}" for i in range(1500)]
    bad = x.copy()
    bad[7, 3], bad[8, 0] = np.nan, np.inf
    points = np.stack([truth % 2 * 10, np.where(truth == 3, 0, truth // 2 * 10)], 1) + rng.normal(size=(1500, 2)) * 0.1  # topics 1 and 3 are one place
    write_h5(path("map.h5"), bad, ids, np.where(np.arange(1500)[:, None] == 9, np.nan, points))
    with open(path("texts.csv"), "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(["id", "title"])
        for i, t in enumerate(truth): w.writerow([ids[i], "the " + " ".join(rng.permutation(TOPICS[t].split() + ["job"]))])
    named = ["--texts", path("texts.csv"), "--column", "title"]
    done = run(path("map.h5"), "--vectors", "-k", 4, "-o", path("d.csv"), *named)
    assert done.returncode == 0, done.stderr
    out = rows(path("d.csv"))
    check(done.returncode == 0 and len(out) == 1498 and "2 unusable rows set aside" in done.stderr and "p7" not in {r["id"] for r in out}, done.stderr)
    aside = [json.loads(l) for l in open(path("d.csv.rejected.jsonl"))]
    check([(r["line"], r["row"]) for r in aside] == [(8, "p7"), (9, "p8")] and "not finite" in aside[0]["reason"], f"set aside: {aside}")
    share = np.mean([set(r["name"].split(" / ")) == set(TOPICS[truth[int(r["id"][1:])]].split()) for r in out])
    check(share > 0.95, f"names: {share} of the rows have that of their topic, {done.stderr}")
    done = run(path("map.h5"), "-k", 3, "-o", path("e.csv"), *named)
    found = {t: {r["cluster"] for r in rows(path("e.csv")) if truth[int(r["id"][1:])] == t} for t in range(4)}
    check(done.returncode == 0 and "1 unusable row set aside" in done.stderr and all(len(c) == 1 for c in found.values()) and found[1] == found[3] and
          len(set.union(*found.values())) == 3, f"a map's points: {found} {done.stderr}")

    # what cannot be done
    np.save(path("few.npy"), np.ones((9, 3), np.float32)), np.save(path("nan.npy"), np.full((9, 3), np.nan, np.float32))
    for args, part, status in (([path("few.npy"), "-k", 2], "only 1 different vector, too few for 2 clusters", 1), ([path("few.npy"), "-k", 10], "9 rows cannot make 10", 1),
                               ([path("x.npy"), "-k", 3, "--rejected", path("texts.csv"), "--texts", path("texts.csv")], "texts.csv would be overwritten", 2),
                               ([path("x.npy"), "-k", 3, "-o", path("g.csv"), "--rejected", os.path.join(path("."), "g.csv")], "are the same file", 2),
                               ([path("nan.npy"), "-k", 2], "not finite", 1), ([path("x.npy")], "-k is missing", 2), ([path("x.npy"), "-k", "5..2"], "'5..2'", 2),
                               ([path("x.npy"), "-k", "1..3"], "from 2 on", 2), ([path("x.npy"), "-k", 3, "--n-init", 0], "at least 1", 2), ([], "one file of vectors", 2),
                               ([path("x.npy"), "-k", 3, "--texts", path("texts.csv"), "--column", "title"], "has the id of a vector", 1), ([path("x.npy"), "-k", 3, "--column", "a"], "--texts", 2),
                               ([path("x.npy"), "-k", 3, "-o", path("x.txt")], ".csv or .jsonl", 2), ([path("texts.csv"), "-k", 3], "texts.csv", 1)):
        check.refused(run(*args), part, str(args), status=(status,))
check.close()
