#!/usr/bin/env python3
"""Maps beside umap-learn's, in one run: how well neighbours are kept, and how long it takes, end to end.

usage: SW_BIN=build/release/bin tests/bench/umap.py VECTORS.npy [--rows N] [--rounds N] [--k 15] [--ours-only]
VECTORS.npy: of `skillwatch infer embed -o vectors.npy`. The sides take turns. umap-learn runs without a seed, with all threads, after its
compiler has warmed up, from an array in memory; Skillwatch from file to file. Both maps are judged by the same code here: 2,000 points against
all, by the cosines of the vectors; pairs that are equally near count for both."""
import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings

import h5py
import numpy as np

warnings.filterwarnings("ignore")
arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("vectors")
arguments.add_argument("--rows", type=int)
arguments.add_argument("--rounds", type=int, default=1)
arguments.add_argument("--k", type=int, default=15)
arguments.add_argument("--ours-only", action="store_true")
a = arguments.parse_args()
SKILLWATCH = os.path.join(os.environ.get("SW_BIN", "build/release/bin"), "skillwatch-infer")


def quality(x, y, k):
    """Trustworthiness and the share of neighbours kept, of 2,000 points among all."""
    n = len(x)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    queries = np.random.RandomState(0).choice(n, min(n, 2000), False)
    far = kept = 0
    for at in range(0, len(queries), 100):
        q = queries[at : at + 100]
        rows = np.arange(len(q))
        on_map = ((y[q, None, :] - y[None]) ** 2).sum(2)
        on_map[rows, q] = np.inf
        near = np.argpartition(on_map, k, axis=1)[:, :k]
        scores = x[q] @ x.T
        scores[rows, q] = -np.inf
        for i in rows:
            ranks = 1 + (scores[i][None] > scores[i, near[i]][:, None] + 1e-6).sum(1)
            far += np.maximum(ranks - k, 0).sum()
            kept += (ranks <= k).sum()
    m = len(queries)
    return 1 - 2 * far / (m * k * (2 * n - 3 * k - 1)), kept / (m * k)


def ours(path, x, folder):
    out = os.path.join(folder, "map.h5")
    start = time.perf_counter()
    subprocess.run([SKILLWATCH, "map", path, "-o", out, "--seed", "1", "--quiet"], check=True)
    seconds = time.perf_counter() - start
    with h5py.File(out) as f:
        return seconds, f["coordinates"][:]


def theirs(path, x, folder):
    start = time.perf_counter()
    y = umap.UMAP(n_neighbors=15, min_dist=0.1, metric="cosine").fit_transform(x)
    return time.perf_counter() - start, y


x = np.load(a.vectors)[: a.rows]
sides = [("skillwatch", ours)]
if not a.ours_only:
    sys.path.pop(0)  # this file has the package's name
    import umap

    umap.UMAP(n_neighbors=15, metric="cosine").fit(x[:5000])  # more than 4,096: its approximate neighbours, too
    sides.append(("umap-learn", theirs))
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "vectors.npy")
    np.save(path, x)
    print(f"{len(x)} vectors of {x.shape[1]} numbers, k {a.k}", flush=True)
    print(f"{'':12} {'seconds':>9} {'trustworthiness':>16} {'neighbours kept':>16}", flush=True)
    seconds = {name: [] for name, _ in sides}
    for _ in range(a.rounds):
        for name, run in sides:
            taken, y = run(path, x, folder)
            seconds[name].append(taken)
            trust, kept = quality(x, y, a.k)
            print(f"{name:12} {taken:9.2f} {trust:16.4f} {kept:16.4f}", flush=True)
    if len(sides) > 1:
        print(f"umap-learn takes {min(seconds['umap-learn']) / min(seconds['skillwatch']):.1f} times as long")
