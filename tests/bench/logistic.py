"""Multinomial logistic regression: skillwatch train classify beside scikit-learn's lbfgs and sag, on the same vectors, in one run.

usage: logistic.py DATA_FOLDER CHECKPOINT [-C 1] [--classes 1000] [--rows 13500] [--threads N] [--rounds 1] [--sag-seconds 600]
Run it with a Python that has scikit-learn. The vectors are those of job titles and parts of descriptions (onet/occupation_data.tsv of
DATA_FOLDER), one class an occupation, made by skillwatch infer embed. A solver's time is that of the first of ever longer runs whose
objective, computed here in double precision, is within 1e-4 of the best that any of them finds; sag's are cut at --sag-seconds. Ours is
the fit alone, as it prints it; scikit-learn's is fit() alone. OMP_NUM_THREADS and OPENBLAS_NUM_THREADS are set to --threads.
"""
import argparse, csv, os, random, re, subprocess, sys, tempfile, time, warnings

ap = argparse.ArgumentParser()
ap.add_argument("data"), ap.add_argument("checkpoint"), ap.add_argument("-C", type=float, default=1.0)
ap.add_argument("--classes", type=int, default=1000), ap.add_argument("--rows", type=int, default=13500)
ap.add_argument("--threads", type=int, default=os.cpu_count()), ap.add_argument("--rounds", type=int, default=1)
ap.add_argument("--sag-seconds", type=float, default=600), ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"): os.environ[name] = str(a.threads)
import h5py, numpy as np
from sklearn.linear_model import LogisticRegression

warnings.filterwarnings("ignore")
BEFORE = ("Senior ", "Junior ", "Lead ", "Entry level ", "Part-time ", "Remote ", "Interim ", "Assistant ", "")
TOLERANCES = (1e-4, 5e-5, 2e-5, 1e-5, 5e-6, 2e-6, 1e-6, 1e-7)
AFTER = (" - Remote", " (night shift)", " II", " - temporary", " at a growing company", " wanted", " - $25/hr", " - urgent", "")


def make_rows(path):
    rng = random.Random(1)
    with open(os.path.join(a.data, "onet/occupation_data.tsv"), newline="", encoding="utf-8") as f:
        occupations = list(csv.DictReader(f, delimiter="\t"))[:a.classes]
    with open(path, "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        out.writerow(["label", "text"])
        for i in range(a.rows):
            o = occupations[i % len(occupations)]
            part = rng.choice(re.split(r"(?<=[.;,]) ", o["Description"]))
            out.writerow([o["O*NET-SOC Code"], rng.choice(BEFORE) + rng.choice((o["Title"], o["Title"] + rng.choice(AFTER), o["Title"] + ". " + part, part))])


def skillwatch(*args):
    done = subprocess.run([os.path.join(a.bin, "skillwatch-" + args[0]), *map(str, args[1:])], capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return done.stderr


def objective(w, b):
    total = 0.0
    for i in range(0, len(x), 2000):
        z = x64[i:i + 2000] @ w.T.astype(np.float64) + b
        m = z.max(1)
        total += float((m + np.log(np.exp(z - m[:, None]).sum(1)) - z[np.arange(len(z)), y[i:i + 2000]]).sum())
    return total + (w.astype(np.float64) ** 2).sum() / (2 * a.C)


def ours(tolerance):
    said = skillwatch("train", "classify", "--base", a.checkpoint, "--data", rows, "--column", "text", "--label", "label", "--vectors", vectors,
                      "-C", a.C, "--tolerance", tolerance, "--threads", a.threads, "-o", model, "--force")
    evaluations, seconds = re.search(r"(\d+) evaluations? in ([\d.]+) s", said).groups()
    with h5py.File(model) as f:
        return float(seconds), int(evaluations), objective(f["weights/heads.label.weight"][()], f["weights/heads.label.bias"][()])


def peer(solver, tolerance, iterations):
    fit = LogisticRegression(C=a.C, solver=solver, tol=tolerance, max_iter=iterations, random_state=0)
    start = time.perf_counter()
    fit.fit(x, y)
    return time.perf_counter() - start, int(np.max(fit.n_iter_)), objective(fit.coef_, fit.intercept_)


with tempfile.TemporaryDirectory() as tmp:
    rows, vectors, model = (os.path.join(tmp, n) for n in ("rows.csv", "vectors.npy", "model.h5"))
    make_rows(rows)
    skillwatch("infer", "embed", "-m", a.checkpoint, rows, "--column", "text", "-o", vectors, "--quiet")
    x = np.load(vectors)
    with open(rows, newline="", encoding="utf-8") as f: names = [r["label"] for r in csv.DictReader(f)]
    y = np.unique(names, return_inverse=True)[1]
    x64 = x.astype(np.float64)
    runs = {"skillwatch": [], "scikit-learn lbfgs": [], "scikit-learn sag": []}

    def note(solver, what, result):
        runs[solver].append((what, *result))
        print(f"  {solver} {what}: {result[0]:.3f} s, {result[1]} steps, objective {result[2]:.6f}", file=sys.stderr, flush=True)
        return result[2]

    best = min(note("skillwatch", "tolerance 1e-7", ours(1e-7)), float("inf"))
    runs["skillwatch"].clear()  # only to know where the minimum is
    for round in range(a.rounds):
        for tolerance in TOLERANCES:
            if note("skillwatch", f"tolerance {tolerance:g}", ours(tolerance)) <= best * (1 + 1e-4): break
        for tolerance in TOLERANCES:
            if note("scikit-learn lbfgs", f"tol {tolerance:g}", peer("lbfgs", tolerance, 10000)) <= best * (1 + 1e-4): break
        if round == 0 and a.sag_seconds > 0:
            epochs, spent = 1, 0.0
            while True:
                seconds, steps, f = peer("sag", 0, epochs)
                if note("scikit-learn sag", f"{epochs} epochs", (seconds, steps, f)) <= best * (1 + 1e-4): break
                spent = seconds / epochs
                if epochs * 2 * spent > a.sag_seconds: break
                epochs *= 2
    best = min([best] + [r[3] for of in runs.values() for r in of])
    print(f"{len(x)} x {x.shape[1]} vectors, fp32, {y.max() + 1} classes, C {a.C:g}, {a.threads} threads; the least objective found: {best:.4f}\n")
    print("| solver | setting | steps | objective above the least | seconds | ratio |\n| --- | --- | --- | --- | --- | --- |")
    reached = {s: [r for r in of if r[3] <= best * (1 + 1e-4)] for s, of in runs.items()}
    mine = min(reached["skillwatch"], key=lambda r: r[1])
    for solver, of in runs.items():
        if not of: continue
        r = min(reached[solver], key=lambda r: r[1]) if reached[solver] else of[-1]
        print(f"| {solver} | {r[0]} | {r[2]} | {r[3] / best - 1:.1e} | {'' if reached[solver] else 'more than '}{r[1]:.3f} | {'' if reached[solver] else '> '}{r[1] / mine[1]:.1f} |")
