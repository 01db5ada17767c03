"""SkillSpan's two label layers, trained jointly and each alone: dev F1 of each layer after the last epoch.

usage: joint_layers.py DATA_FOLDER CHECKPOINT [--epochs 3] [--lr 5e-5] [--seed 0]
Prints a table, and whether each layer is within 0.01 of what it reaches alone, or above. Any Python will do.
"""
import argparse, json, os, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("data"), ap.add_argument("checkpoint"), ap.add_argument("--epochs", type=int, default=3), ap.add_argument("--lr", type=float, default=5e-5)
ap.add_argument("--seed", type=int, default=0), ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
MARK, LAYERS = 0.01, ("knowledge", "skill")


def train(folder, layers):
    out = f"{folder}/{'_'.join(layers)}.h5"
    for name in ("train", "dev"):
        with open(f"{folder}/{name}.jsonl", "w") as f:
            for line in open(os.path.join(a.data, f"skillspan/{name}.json")):
                row = json.loads(line)
                f.write(json.dumps({k: row[k] for k in ("tokens", *(f"tags_{l}" for l in layers))}) + "\n")
    subprocess.run([os.path.join(a.bin, "skillwatch-train"), "ner", "--base", a.checkpoint, "--data", f"{folder}/train.jsonl", "--dev", f"{folder}/dev.jsonl",
                    "-o", out, "--epochs", str(a.epochs), "--lr", str(a.lr), "--batch-size", "32", "--warmup", "0", "--seed", str(a.seed), "--dtype", "fp32",
                    "--max-length", "128", "-q"], check=True)
    scores = [row["dev"] for row in map(json.loads, open(out.replace(".h5", ".metrics.jsonl"))) if "dev" in row][-1]["layers"]
    return {l: scores[l]["micro"]["f1"] for l in layers}


with tempfile.TemporaryDirectory() as tmp:
    alone = {l: train(tmp, (l,))[l] for l in LAYERS}
    joint = train(tmp, LAYERS)
print("| layer | alone, dev F1 | jointly, dev F1 |\n| --- | --- | --- |")
for l in LAYERS: print(f"| {l} | {alone[l]:.4f} | {joint[l]:.4f} |")
if any(joint[l] < alone[l] - MARK for l in LAYERS): sys.exit(f"a layer lost more than {MARK} by joint training")
