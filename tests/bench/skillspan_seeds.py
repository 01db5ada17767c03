"""SkillSpan's knowledge tags with three seeds: dev F1 of `skillwatch train ner` beside the peer's finetune_ner.py, the same settings on both sides
(batches of 32 sentences, AdamW, linear decay without warm-up, weight decay 0.01, clipping at 1).

usage: skillspan_seeds.py PEERS_FOLDER DATA_FOLDER CHECKPOINT [--epochs 3] [--lr 5e-5] [--seeds 0,1,2] [--dtype fp32] [--grouped]
--grouped: the peer's batches hold sentences of similar length, which takes it a third of the time.
Run it with the Python that has the peer's packages; prints one row a seed, the means and whether ours is within 0.01 of the peer's mean or above it.
"""
import argparse, json, os, re, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("peers"), ap.add_argument("data"), ap.add_argument("checkpoint")
ap.add_argument("--epochs", type=int, default=3), ap.add_argument("--lr", type=float, default=5e-5)
ap.add_argument("--seeds", default="0,1,2"), ap.add_argument("--dtype", default="fp32"), ap.add_argument("--grouped", action="store_true")
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
MARK = 0.01


def ours(folder, seed):
    out = os.path.join(folder, f"seed{seed}.h5")
    subprocess.run([os.path.join(a.bin, "skillwatch-train"), "ner", "--base", a.checkpoint, "--data", f"{folder}/train.jsonl", "--dev",
                    f"{folder}/dev.jsonl", "-o", out, "--epochs", str(a.epochs), "--lr", str(a.lr), "--batch-size", "32", "--warmup", "0",
                    "--seed", str(seed), "--dtype", a.dtype, "--max-length", "128", "-q"], check=True)
    rows = [json.loads(line) for line in open(out.replace(".h5", ".metrics.jsonl"))]
    return [row["dev"]["micro"]["f1"] for row in rows if "dev" in row][-1]  # after the last epoch, as the peer


def peer(seed):
    out = subprocess.run([sys.executable, os.path.join(a.peers, "finetune_ner.py"), str(a.epochs), str(a.lr), a.dtype, str(seed), "cpu", *(["grouped"] if a.grouped else [])],
                         capture_output=True, text=True)
    if out.returncode: sys.exit(f"finetune_ner.py: {out.stderr[-800:]}")
    return float(re.findall(r"F1 ([\d.]+)", out.stdout)[-1])


with tempfile.TemporaryDirectory() as tmp:
    for name in ("train", "dev"):  # the knowledge layer alone, as the peer has it
        with open(f"{tmp}/{name}.jsonl", "w") as f:
            for line in open(os.path.join(a.data, f"skillspan/{name}.json")):
                row = json.loads(line)
                f.write(json.dumps({"tokens": row["tokens"], "tags_knowledge": row["tags_knowledge"]}) + "\n")
    print("| seed | ours, dev F1 | peer, dev F1 |\n| --- | --- | --- |", flush=True)
    scores = []
    for seed in map(int, a.seeds.split(",")):
        scores.append((ours(tmp, seed), peer(seed)))
        print(f"| {seed} | {scores[-1][0]:.4f} | {scores[-1][1]:.4f} |", flush=True)
mean = [sum(s[k] for s in scores) / len(scores) for k in (0, 1)]
print(f"| mean | {mean[0]:.4f} | {mean[1]:.4f} |")
if not mean[0] >= mean[1] - MARK: sys.exit(f"ours is more than {MARK} below the peer's mean")
