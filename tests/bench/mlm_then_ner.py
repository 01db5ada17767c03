"""Does domain adaptation help? `skillwatch train mlm` on the real postings (held-out perplexity before and after), then `skillwatch train ner` on
SkillSpan's knowledge tags from the adapted base and from the plain one: dev F1 for each seed, and the means. Settings of the tagger are those of
skillspan_seeds.py (batches of 32 sentences, AdamW, linear decay without warm-up, weight decay 0.01, clipping at 1).

usage: mlm_then_ner.py DATA_FOLDER CHECKPOINT [--seeds 0,1,2] [--mlm-epochs 10] [--mlm-lr 1e-4] [--mlm-batch-tokens 4096] [--epochs 3] [--lr 5e-5]
                       [--sentences 0] [--dtype fp32] [--keep domain.h5] [--only-mlm]
--sentences N: of the tagger's training data, to try it; 0: all.  --keep FILE: the adapted base; where FILE exists, it is used as it is.
"""
import argparse, json, os, subprocess, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("data"), ap.add_argument("checkpoint")
ap.add_argument("--seeds", default="0,1,2"), ap.add_argument("--mlm-epochs", type=int, default=10), ap.add_argument("--mlm-lr", type=float, default=1e-4)
ap.add_argument("--mlm-batch-tokens", type=int, default=4096)
ap.add_argument("--epochs", type=int, default=3), ap.add_argument("--lr", type=float, default=5e-5), ap.add_argument("--sentences", type=int, default=0)
ap.add_argument("--dtype", default="fp32"), ap.add_argument("--keep"), ap.add_argument("--only-mlm", action="store_true")
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()


def train(task, base, out, *options):
    subprocess.run([os.path.join(a.bin, "skillwatch-train"), task, "--base", base, "-o", out, "--dtype", a.dtype, "-q", *map(str, options)], check=True)
    return [row["dev"] for row in map(json.loads, open(out[:-3] + ".metrics.jsonl")) if "dev" in row]


with tempfile.TemporaryDirectory() as tmp:
    domain = a.keep or f"{tmp}/domain.h5"
    if not os.path.exists(domain):
        found = train("mlm", a.checkpoint, domain, "--data", os.path.join(a.data, "in-demand/job-postings"), "--epochs", a.mlm_epochs, "--lr", a.mlm_lr,
                      "--batch-tokens", a.mlm_batch_tokens)
        print(f"held-out perplexity, {found[0]['masked_tokens']} masked tokens: before " + ", after each epoch ".join(
            [f"{found[0]['perplexity']:.1f}", " ".join(f"{row['perplexity']:.1f}" for row in found[1:])]), flush=True)
    if a.only_mlm: raise SystemExit
    for name in ("train", "dev"):
        with open(f"{tmp}/{name}.jsonl", "w") as f:
            for i, line in enumerate(open(os.path.join(a.data, f"skillspan/{name}.json"))):
                if a.sentences and i >= a.sentences: break
                row = json.loads(line)
                f.write(json.dumps({"tokens": row["tokens"], "tags_knowledge": row["tags_knowledge"]}) + "\n")
    print("| seed | plain base, dev F1 | adapted base, dev F1 |\n| --- | --- | --- |", flush=True)
    scores = []
    for seed in map(int, a.seeds.split(",")):
        rows = [train("ner", base, f"{tmp}/{k}-{seed}.h5", "--data", f"{tmp}/train.jsonl", "--dev", f"{tmp}/dev.jsonl", "--epochs", a.epochs, "--lr", a.lr,
                      "--batch-size", 32, "--warmup", 0, "--seed", seed, "--max-length", 128)[-1] for k, base in enumerate((a.checkpoint, domain))]
        scores.append([row["micro"]["f1"] for row in rows])
        print(f"| {seed} | {scores[-1][0]:.4f} | {scores[-1][1]:.4f} |", flush=True)
    plain, adapted = (sum(s[k] for s in scores) / len(scores) for k in (0, 1))
    print(f"| mean | {plain:.4f} | {adapted:.4f} |")
