"""O*NET's occupations and their major groups (23 of them, the first two digits of the code) by a sentence of a description: `skillwatch train classify`,
--method logistic on the encoder as it is and --method fine-tune, on the same split.

usage: onet_classify.py DATA_FOLDER CHECKPOINT [--epochs 15] [--lr 3e-4] [--batch-size 32] [-C 30] [--seed 0] [--threads 0] [--labels occupations,groups]
The last sentence of every description that has several is held back; titles and the other sentences are learned from. Fine-tuning is scored after its
last epoch, not its best one, as nothing is held back to choose by. Prints a row a method. Any Python will do."""
import argparse, csv, json, os, re, subprocess, sys, tempfile

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("data"), ap.add_argument("checkpoint"), ap.add_argument("--epochs", type=int, default=15), ap.add_argument("--lr", type=float, default=3e-4)
ap.add_argument("--batch-size", type=int, default=32), ap.add_argument("-C", type=float, default=30), ap.add_argument("--seed", type=int, default=0)
ap.add_argument("--threads", type=int, default=0), ap.add_argument("--labels", default="occupations,groups")
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
SCORES = ("accuracy@1", "accuracy@3", "accuracy@5", "accuracy@10", "mrr", "macro_f1")


def train(tmp, name, *more):
    """The scores of the held-back sentences."""
    done = subprocess.run([a.bin + "/skillwatch-train", "classify", "--base", a.checkpoint, "--data", f"{tmp}/learn.csv", "--dev", f"{tmp}/held.csv", "--column", "text",
                           "--label", "label", "-o", f"{tmp}/{name}.h5", "--seed", str(a.seed), "--threads", str(a.threads), "--json", "-q", "--force", *map(str, more)],
                          capture_output=True, text=True)
    if done.returncode: sys.exit(f"skillwatch train classify: {done.stderr[-800:]}")
    metrics = f"{tmp}/{name}.metrics.jsonl"
    if not os.path.exists(metrics): return json.loads(done.stdout)
    with open(metrics, encoding="utf-8") as f: return [row["dev"] for row in map(json.loads, f) if "dev" in row][-1]


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as f: csv.writer(f).writerows([("label", "text"), *rows])


with open(os.path.join(a.data, "onet/occupation_data.tsv"), encoding="utf-8", newline="") as f:
    occupations = [(r["O*NET-SOC Code"], r["Title"], re.split(r"(?<=[.!?])\s+", r["Description"].strip())) for r in csv.DictReader(f, delimiter="\t")]
print("| labels | method | " + " | ".join(SCORES) + " |\n" + "| --- " * (len(SCORES) + 2) + "|")
for labels, of in (("occupations", lambda code: code), ("groups", lambda code: code[:2])):
    if labels not in a.labels.split(","): continue
    with tempfile.TemporaryDirectory() as tmp:
        write(f"{tmp}/held.csv", [(of(c), s[-1]) for c, _, s in occupations if len(s) > 1])
        write(f"{tmp}/learn.csv", [(of(c), x) for c, t, s in occupations for x in [t, *(s[:-1] if len(s) > 1 else s)]])
        for method, more in ((f"logistic regression, -C {a.C:g}", ("--method", "logistic", "-C", a.C)),
                             (f"fine-tuned, {a.epochs} epochs", ("--method", "fine-tune", "--epochs", a.epochs, "--lr", a.lr, "--batch-size", a.batch_size))):
            scores = train(tmp, more[1], *more)
            print(f"| {labels} | {method} | " + " | ".join("%.4f" % scores[s] for s in SCORES) + " |", flush=True)
