"""What is forgotten: a tagger learns SkillSpan's knowledge tags, then gpt-4o's labels, without and with replay of the first.

usage: continual.py DATA_FOLDER CHECKPOINT [--first FIRST.h5] [--epochs 4] [--lr 5e-5] [--replay 0.9] [--seed 0]
DATA_FOLDER has skillspan/ and in-demand/; CHECKPOINT is the base (skillwatch pull). --first: the first tagger, from an earlier call, instead of
training it again. Every fifth of gpt-4o's sentences is held out. Prints dev F1 of both, after each step, and whether replay keeps the first within
0.01. Any Python will do.
"""
import argparse, json, os, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("data"), ap.add_argument("checkpoint"), ap.add_argument("--first"), ap.add_argument("--epochs", type=int, default=4)
ap.add_argument("--lr", type=float, default=5e-5), ap.add_argument("--replay", type=float, default=0.9), ap.add_argument("--seed", type=int, default=0)
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
MARK = 0.01


def run(tool, *args):
    done = subprocess.run([os.path.join(a.bin, "skillwatch-" + tool), *map(str, args)], capture_output=True, text=True)
    if done.returncode: sys.exit(f"skillwatch-{tool}: {done.stderr[-600:]}")
    return done.stdout


def f1(model, test): return json.loads(run("eval", "-m", model, "--data", test, "--json"))["micro"]["f1"]


with tempfile.TemporaryDirectory() as tmp:
    def write(name, rows):
        with open(f"{tmp}/{name}.jsonl", "w") as f:
            for row in rows: f.write(json.dumps({k: row[k] for k in ("tokens", "tags_knowledge")}) + "\n")
        return f"{tmp}/{name}.jsonl"
    read = lambda name: [json.loads(line) for line in open(os.path.join(a.data, name))]
    old, old_test = (write(n, read(f"skillspan/{n}.json")) for n in ("train", "dev"))
    rows = read("in-demand/tags-04-01-2025.jsonl") + read("in-demand/data.jsonl")
    new, new_test = write("new", [r for i, r in enumerate(rows) if i % 5]), write("new_test", rows[::5])
    common = ["--batch-size", 32, "--lr", a.lr, "--seed", a.seed, "--max-length", 128, "--dtype", "fp32", "-q", "--force"]
    first = a.first or f"{tmp}/first.h5"
    if not os.path.exists(first): run("train", "ner", "--base", a.checkpoint, "--data", old, "--epochs", 3, "--warmup", 0, "-o", first, *common)
    models = {"after SkillSpan": first}
    for what, extra in (("then gpt-4o's labels", []), (f"then gpt-4o's labels, {a.replay:g} of every batch replayed", ["--replay", f"{old}:{a.replay}"])):
        models[what] = f"{tmp}/{len(models)}.h5"
        run("train", "ner", "--base", first, "--data", new, "--epochs", a.epochs, "-o", models[what], *extra, *common)
    print(f"{len(rows) - len(rows[::5])} new sentences, {a.epochs} epochs, peak rate {a.lr:g}\n\n| tagger | SkillSpan dev F1 | gpt-4o held-out F1 |\n| --- | --- | --- |")
    scores = [(f1(m, old_test), f1(m, new_test)) for m in models.values()]
    for what, s in zip(models, scores): print(f"| {what} | {s[0]:.4f} | {s[1]:.4f} |")
lost = [scores[0][0] - s[0] for s in scores[1:]]
print(f"\nforgotten without replay: {lost[0]:.4f}; with replay: {lost[1]:.4f} (mark: at most {MARK})")
sys.exit(not lost[1] <= MARK)
