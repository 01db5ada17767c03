"""Occupations found by a sentence of their description: `skillwatch train embed` beside sentence-transformers with MultipleNegativesRankingLoss, from
the same checkpoint on the same pairs and settings (AdamW, linear decay after 10 % warm-up, clipping at 1, scale 20), judged by
sentence-transformers' InformationRetrievalEvaluator on sentences held back, against all titles.

usage: onet_embed.py DATA_FOLDER CHECKPOINT [--epochs 1] [--lr 5e-5] [--batch-size 64] [--seed 0] [--threads 2]
The last sentence of every description that has several is held back; the others are the queries of training, the title is their positive.
Run it with the Python that has sentence-transformers; prints one row a model and whether ours is above the untrained one and within
0.01 of the peer's MRR@10 or above it.
"""
import argparse, csv, json, math, os, random, re, subprocess, tempfile, time, sys

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

ap = argparse.ArgumentParser()
ap.add_argument("data"), ap.add_argument("checkpoint")
ap.add_argument("--epochs", type=int, default=1), ap.add_argument("--lr", type=float, default=5e-5)
ap.add_argument("--batch-size", type=int, default=64), ap.add_argument("--seed", type=int, default=0), ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
MARK = 0.01
torch.set_num_threads(a.threads)


def program(name, *args):
    done = subprocess.run([os.path.join(a.bin, "skillwatch-" + name), *map(str, args)], capture_output=True, text=True)
    if done.returncode: sys.exit(f"skillwatch {name}: {done.stderr[-800:]}")


def read():
    train, test, titles = [], [], []
    with open(os.path.join(a.data, "onet/occupation_data.tsv"), encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f, delimiter="\t"):
            sentences = re.split(r"(?<=[.!?])\s+", row["Description"].strip())
            titles.append(row["Title"])
            train += [(s, row["Title"]) for s in (sentences[:-1] or sentences)]
            test += [(s, row["Title"]) for s in sentences[1:][-1:]]
    return train, test, list(dict.fromkeys(titles))


def batches(train, random_):
    """As NoDuplicatesBatchSampler: a text twice in a batch would be a false negative."""
    left = random_.sample(train, len(train))
    while left:
        batch, seen, later = [], set(), []
        for pair in left:
            if len(batch) < a.batch_size and not seen & set(pair): batch.append(pair), seen.update(pair)
            else: later.append(pair)
        left = later
        yield batch


def train_peer(folder, train):
    torch.manual_seed(a.seed)
    model = SentenceTransformer(folder, device="cpu")
    loss_of = MultipleNegativesRankingLoss(model, scale=20.0)
    plain = lambda n: n.endswith("bias") or "LayerNorm" in n
    optimizer = torch.optim.AdamW([{"params": [p for n, p in model.named_parameters() if not plain(n)], "weight_decay": 0.01},
                                   {"params": [p for n, p in model.named_parameters() if plain(n)], "weight_decay": 0.0}], lr=a.lr)
    steps = a.epochs * math.ceil(len(train) / a.batch_size)
    warm = int(0.1 * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: s / warm if s < warm else max(0.0, (steps - s) / max(1, steps - warm)))
    random_ = random.Random(a.seed)
    model.train()
    for _ in range(a.epochs):
        for batch in batches(train, random_):
            loss = loss_of([model.preprocess([text for text in column]) for column in zip(*batch)], None)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


train, test, titles = read()
evaluator = InformationRetrievalEvaluator({str(i): s for i, (s, _) in enumerate(test)}, {t: t for t in titles}, {str(i): {t} for i, (_, t) in enumerate(test)},
                                          show_progress_bar=False)
scores = {}


def note(name, model, seconds):
    found = evaluator(model)
    scores[name] = found["cosine_mrr@10"]
    print(f"| {name} | {found['cosine_mrr@10']:.4f} | {found['cosine_accuracy@1']:.4f} | {found['cosine_accuracy@10']:.4f} | {found['cosine_ndcg@10']:.4f} |", flush=True)
    print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)


with tempfile.TemporaryDirectory() as tmp:
    with open(f"{tmp}/train.jsonl", "w", encoding="utf-8") as f:
        for sentence, title in train: f.write(json.dumps({"query": sentence, "positive": title}) + "\n")
    print(f"{len(train)} pairs, {len(test)} test sentences, {len(titles)} titles", file=sys.stderr)
    print("| model | MRR@10 | accuracy@1 | accuracy@10 | NDCG@10 |\n| --- | --- | --- | --- | --- |", flush=True)
    program("export", a.checkpoint, "--head", "none", "-o", f"{tmp}/base")
    note("untrained", SentenceTransformer(f"{tmp}/base", device="cpu"), 0)
    began = time.time()
    program("train", "embed", "--base", a.checkpoint, "--data", f"{tmp}/train.jsonl", "-o", f"{tmp}/ours.h5", "--epochs", a.epochs, "--lr", a.lr,
            "--batch-size", a.batch_size, "--seed", a.seed, "--threads", a.threads, "--device", "cpu", "--dtype", "fp32", "-q")
    seconds = time.time() - began
    program("export", f"{tmp}/ours.h5", "--head", "none", "-o", f"{tmp}/ours")
    note("skillwatch train embed", SentenceTransformer(f"{tmp}/ours", device="cpu"), seconds)
    began = time.time()
    note("sentence-transformers", train_peer(f"{tmp}/base", train), time.time() - began)
untrained, ours, peer = scores.values()
if not (ours >= untrained + 0.02 and ours >= peer - MARK): sys.exit(f"ours is not clearly above the untrained one, or more than {MARK} below the peer")
