"""skillwatch infer cluster beside scikit-learn's KMeans, on the same vectors with the same number of starts and threads.

usage: kmeans.py VECTORS.npy [-k 5] [--n-init 10] [--rounds 1] [--threads 2] [--bin build/release/bin]
The sides take turns; the best time of each counts. Ours is the whole command, which reads the file, measures a silhouette and writes the clusters;
scikit-learn's is fit() alone. Run it with the Python of the tests.
"""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

ap = argparse.ArgumentParser()
ap.add_argument("vectors"), ap.add_argument("-k", type=int, default=5), ap.add_argument("--n-init", type=int, default=10)
ap.add_argument("--rounds", type=int, default=1), ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
x = np.load(a.vectors)
ours, theirs = [], []
with tempfile.TemporaryDirectory() as tmp, threadpool_limits(a.threads):
    for seed in range(a.rounds):
        start = time.time()
        fit = KMeans(a.k, n_init=a.n_init, random_state=seed).fit(x)
        theirs.append((time.time() - start, fit.inertia_))
        start = time.time()
        out = subprocess.run([os.path.join(a.bin, "skillwatch-infer"), "cluster", a.vectors, "-k", str(a.k), "--n-init", str(a.n_init), "--seed", str(seed),
                              "--threads", str(a.threads), "--json", "--quiet", "-o", tmp + "/c.csv"], capture_output=True, text=True)
        if out.returncode: sys.exit(out.stderr[-800:])
        ours.append((time.time() - start, json.loads(out.stdout)["inertia"]))
        labels = np.loadtxt(tmp + "/c.csv", delimiter=",", skiprows=1, usecols=1, dtype=int) if x.shape[0] else []
        exact = sum(((x[labels == c] - x[labels == c].mean(0, dtype=np.float64)) ** 2).sum() for c in range(a.k))
        print(f"seed {seed}: ours {ours[-1][0]:.2f} s, inertia {ours[-1][1]:.2f} (in double, of our labels: {exact:.2f}); scikit-learn {theirs[-1][0]:.2f} s, "
              f"{theirs[-1][1]:.2f}; adjusted Rand index {adjusted_rand_score(labels, fit.labels_):.4f}", flush=True)
seconds, peer = min(s for s, _ in ours), min(s for s, _ in theirs)
print(f"| side | {x.shape[0]} x {x.shape[1]}, k {a.k}, {a.n_init} starts | best inertia |\n| --- | --- | --- |\n| Skillwatch | {seconds:.2f} s | {min(i for _, i in ours):.2f} |\n"
      f"| scikit-learn | {peer:.2f} s | {min(i for _, i in theirs):.2f} |\nratio {peer / seconds:.1f}; inertia ratios, ours over theirs: "
      + ", ".join(f"{o / t:.6f}" for (_, o), (_, t) in zip(ours, theirs)))
