"""Skillwatch's multilabel GRU beside PyTorch's, the same model (embedding 128, 180 cells, 500 words, batches of 32) on the same rows.

usage: multilabel.py PEERS_FOLDER DATA_FOLDER [--rounds 1] [--base minilm.h5] [--bin build/release/bin]
PEERS_FOLDER holds multilabel.py; run it with the Python that has its packages. DATA_FOLDER/multilabel/train.csv is the table; every fifth row is
held out. The sides take turns; the best of each counts. Seconds are those of 20 epochs' training steps, without evaluation; ours are those of
the trainer's tokens per second. Accuracy and F1 are of the held-out rows: the peer's after 20 epochs, ours with the default settings at
the best epoch and at the last. With --base that encoder is fine-tuned on the same rows, too.
"""
import argparse, json, os, re, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("peers"), ap.add_argument("data"), ap.add_argument("--rounds", type=int, default=1), ap.add_argument("--base")
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
table, ours, theirs = os.path.join(a.data, "multilabel/train.csv"), [], []


def learn(folder, *more):
    out = subprocess.run([os.path.join(a.bin, "skillwatch-train"), "multilabel", "--data", table, "--column", "Description", "--holdout-every", "5",
                          "--log-every", "1", "--force", "-o", folder + "/m.h5", *more], capture_output=True, text=True)
    if out.returncode: sys.exit(out.stderr[-800:])
    return out.stderr, [json.loads(l) for l in open(folder + "/m.metrics.jsonl")]


def scores_of(steps): return [(s["dev"]["median_accuracy"], s["dev"]["micro"]["f1"]) for s in steps if "dev" in s]


with tempfile.TemporaryDirectory() as tmp:
    for _ in range(a.rounds):
        out = subprocess.run([sys.executable, os.path.join(a.peers, "multilabel.py")], capture_output=True, text=True)
        if out.returncode: sys.exit(out.stderr[-800:])
        theirs += [(float(s), float(m), float(f)) for s, m, f in re.findall(r"epoch 20 ([\d.]+)s median label accuracy ([\d.]+) micro-F1 ([\d.]+)", out.stdout)]
        err, steps = learn(tmp)
        train = [s for s in steps if "tokens_per_second" in s]
        tokens = int(re.search(r", (\d+) tokens", err)[1])
        scores = scores_of(steps)
        ours.append((20 * tokens / train[-1]["tokens_per_second"], max(scores), scores[-1]))
    if a.base: tuned = scores_of(learn(tmp, "--base", a.base)[1])
print("| side | 20 epochs | median label accuracy | micro F1 |\n| --- | --- | --- | --- |")
seconds, best, last = min(ours)
print(f"| Skillwatch, best of {len(scores)} epochs | {seconds:.1f} s | {best[0]:.4f} | {best[1]:.4f} |")
print(f"| Skillwatch, last epoch | | {last[0]:.4f} | {last[1]:.4f} |")
if a.base: print(f"| fine-tuned encoder, best of {len(tuned)} epochs | | {max(tuned)[0]:.4f} | {max(tuned)[1]:.4f} |")
peer = min(theirs)
print(f"| PyTorch, 20 epochs | {peer[0]:.1f} s | {peer[1]:.4f} | {peer[2]:.4f} |\nratio {peer[0] / seconds:.1f}")
