"""Occupations found by meaning: `skillwatch infer classify --occupations` on O*NET, each occupation by a sentence of its description.

usage: occupations.py DATA_FOLDER CHECKPOINT [--threads 2] [--bin build/release/bin]
The last sentence of every description that has several is a text to classify; the table has the titles, or the titles with the rest of the description (without
that sentence). Prints how often the right code is among the first 1, 3, 5 and 10, and the same of the multinomial logistic regression (`train classify`) that has
learned from titles and the other sentences. Needs Python's standard library only.
"""
import argparse, csv, os, re, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("data"), ap.add_argument("checkpoint"), ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
CUTS = (1, 3, 5, 10)


def program(name, *args):
    start = time.perf_counter()
    done = subprocess.run([os.path.join(a.bin, "skillwatch-" + name), *map(str, args), "--threads", str(a.threads), "--quiet"], capture_output=True, text=True)
    if done.returncode: sys.exit(f"skillwatch {name}: {done.stderr[-800:]}")
    return time.perf_counter() - start


def write(path, *rows):
    with open(path, "w", newline="", encoding="utf-8") as f: csv.writer(f).writerows(rows)
    return path


def score(path, seconds, name):
    found = {}
    with open(path, newline="", encoding="utf-8") as f:
        for r in csv.DictReader(f): found.setdefault(r["id"], []).append(r["label"])
    right = [[code in labels[:k] for code, labels in found.items()] for k in CUTS]
    print(f"| {name} | " + " | ".join(f"{sum(r) / len(r):.4f}" for r in right) + f" | {seconds:.1f} |", flush=True)


with open(os.path.join(a.data, "onet/occupation_data.tsv"), encoding="utf-8", newline="") as f:
    occupations = [(r["O*NET-SOC Code"], r["Title"], re.split(r"(?<=[.!?])\s+", r["Description"].strip())) for r in csv.DictReader(f, delimiter="\t")]
with tempfile.TemporaryDirectory() as tmp:
    tests = [(code, s[-1]) for code, _, s in occupations if len(s) > 1]
    texts = write(f"{tmp}/texts.csv", ("id", "text"), *tests)
    table = write(f"{tmp}/table.csv", ("Code", "Title", "Description"), *[(c, t, " ".join(s[:-1] if len(s) > 1 else s)) for c, t, s in occupations])
    learn = write(f"{tmp}/learn.csv", ("Code", "text"), *[(c, x) for c, t, s in occupations for x in [t, *(s[:-1] if len(s) > 1 else s)]])
    print(f"{len(tests)} sentences, {len(occupations)} occupations\n| labels | " + " | ".join(f"accuracy@{k}" for k in CUTS) + " | seconds |\n" + "| --- " * 6 + "|")
    for name, column in (("by search, titles", "Title"), ("by search, titles and descriptions", "Title,Description")):
        seconds = program("infer", "classify", "-m", a.checkpoint, "--occupations", table, "--occupations-column", column, "--occupations-id", "Code", texts, "-k", 10,
                          "-o", f"{tmp}/top.csv", "--no-resume")
        score(f"{tmp}/top.csv", seconds, name)
    seconds = program("train", "classify", "--base", a.checkpoint, "--data", learn, "--column", "text", "--label", "Code", "-C", 30, "-o", f"{tmp}/regression.h5")
    seconds += program("infer", "classify", "-m", f"{tmp}/regression.h5", texts, "-k", 10, "-o", f"{tmp}/top.csv", "--no-resume")
    score(f"{tmp}/top.csv", seconds, "logistic regression, with its training")
