"""skillwatch infer search beside scikit-learn's brute force, on the same vectors: every row's k nearest others, by cosine.

usage: neighbours.py VECTORS.npy [-k 15] [--rows N] [--rounds 1] [--threads 2] [--seed 0] [--json OUT.json] [--bin build/release/bin]
The sides take turns, and so does what they are measured against: the machine's fp32 matrix products (numpy's sgemm of 2,048 x 2,048 x 2,048), whose best rate is
the peak. Ours is the whole command: it reads the file, searches and writes the result as text; `search` is that less the same with one query, which
is start, reading, writing of nothing. scikit-learn's is NearestNeighbors(algorithm="brute", metric="cosine").fit(x).kneighbors(x, k + 1), from an array
in memory, less each row itself; GFLOP/s are the 2 n n d of the scores, for both.

Indices must be the same. Where they are not, both sides' scores are sums of rounded products, so the cosines of the two rows that changed places are computed
again in float64: they may differ by no more than fp32 can tell (1e-6 of vectors of length 1); more is a failure. Of equal float64 cosines ours must have the
first row first. Run it with the Python of the tests; exit status 1 where a row differs by more.
"""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("vectors"), ap.add_argument("-k", type=int, default=15), ap.add_argument("--rows", type=int)
ap.add_argument("--rounds", type=int, default=1), ap.add_argument("--threads", type=int, default=2), ap.add_argument("--seed", type=int, default=0)
ap.add_argument("--json"), ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
TELLS = 1e-6
x = np.ascontiguousarray(np.load(a.vectors)[: a.rows], np.float32)
n, d = x.shape


def peak():
    side = 2048
    p = np.random.default_rng(0).standard_normal((side, side), np.float32)
    best = 0
    for _ in range(5):
        start = time.perf_counter()
        p @ p
        best = max(best, 2 * side ** 3 / (time.perf_counter() - start) / 1e9)
    return best


def search(queries, corpus, out, *options):
    start = time.perf_counter()
    done = subprocess.run([os.path.join(a.bin, "skillwatch-infer"), "search", "--corpus", corpus, queries, "-k", str(a.k), "--threads", str(a.threads), "--device", "cpu",
                           "--no-resume", "--quiet", "-o", out, *options], capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr[-800:])
    return time.perf_counter() - start


def ours(folder):
    """Seconds of the command, of the search in it, and its indices."""
    out = os.path.join(folder, "found.jsonl")
    one = search(folder + "/one.npy", folder + "/x.npy", out)
    all_ = search(folder + "/x.npy", folder + "/x.npy", out, "--exclude-self")
    with open(out) as f: index = np.array([[int(m["id"]) - 1 for m in json.loads(line)["matches"]] for line in f])
    return all_, all_ - one, index


def theirs():
    start = time.perf_counter()
    index = NearestNeighbors(algorithm="brute", metric="cosine", n_jobs=a.threads).fit(x).kneighbors(x, min(a.k + 1, n), return_distance=False)
    seconds = time.perf_counter() - start
    own = index == np.arange(n)[:, None]
    own[~own.any(1), -1] = True  # pushed out by equal rows: the last one goes
    return seconds, index[~own].reshape(n, -1)


def compare(mine, other):
    """Rows whose neighbours differ; of those, where float64 is on our side at the first place that differs; the largest float64 difference of cosines that
    changed places; equal vectors that ours has not by index."""
    differ = np.nonzero((mine != other).any(1))[0]
    unit = lambda rows: (v := x[rows].astype(np.float64)) / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-300)
    far, unordered, right = 0.0, 0, 0
    for i in differ:
        q = unit(i)
        s, t = unit(mine[i]) @ q, unit(other[i]) @ q
        far = max(far, np.abs(s - t).max())
        place = (mine[i] != other[i]).argmax()
        right += bool(s[place] > t[place] or (s[place] == t[place] and mine[i][place] < other[i][place]))
    for first in range(0, n, 512):
        rows = np.arange(first, min(n, first + 512))
        same = (x[mine[rows, :-1]] == x[mine[rows, 1:]]).all(2)  # equal vectors have equal scores
        unordered += int((same & (mine[rows, :-1] > mine[rows, 1:])).sum())
    return len(differ), right, far, unordered


with tempfile.TemporaryDirectory() as folder, threadpool_limits(a.threads):
    np.save(folder + "/x.npy", x), np.save(folder + "/one.npy", x[:1])
    flop = 2.0 * n * n * d / 1e9
    best = {"ours": [], "search": [], "scikit-learn": [], "peak": []}
    for _ in range(a.rounds):
        best["peak"].append(peak())
        whole, part, mine = ours(folder)
        best["ours"].append(whole), best["search"].append(part)
        best["peak"].append(peak())
        seconds, other = theirs()
        best["scikit-learn"].append(seconds)
        best["peak"].append(peak())
    top = max(best["peak"])
    rows, right, far, unordered = compare(mine, other)
    print(f"{n} x {d}, k {a.k}, {a.threads} threads; matrix products: {top:.1f} GFLOP/s")
    print("| side | seconds | GFLOP/s | of the matrix products' peak |\n| --- | --- | --- | --- |")
    for name, key in (("`skillwatch infer search`, from file to file", "ours"), ("its search", "search"), ("scikit-learn, brute force", "scikit-learn")):
        print(f"| {name} | {min(best[key]):.2f} | {flop / min(best[key]):.1f} | {100 * flop / min(best[key]) / top:.1f} % |")
    print(f"{n - rows} of {n} rows have the same neighbours in the same order; in the {rows} others float64 cosines that changed places differ by {far:.1e} at most, and "
          f"float64 is on our side in {right}; "
          f"{unordered} equal vectors are not by index")
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"rows": n, "hidden": d, "k": a.k, "threads": a.threads, "peak_gflops": top, "seconds": {k: min(best[k]) for k in ("ours", "search", "scikit-learn")},
                       "gflop": flop, "rows_that_differ": rows, "float64_is_ours": right, "largest_difference": far, "equal_not_by_index": unordered}, f, indent=1)
    if far > TELLS or unordered: sys.exit("the neighbours differ by more than fp32 can tell")
