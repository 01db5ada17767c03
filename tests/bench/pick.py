"""What `skillwatch label --pick` brings: F1 of taggers that learned from picked sentences, by each rule of --pick-by, and from sentences drawn by chance.

usage: pick.py DATA_FOLDER CHECKPOINT [--start 150] [--pool 1000] [--pick 150] [--epochs 5] [--lr 1e-4] [--seeds 0,1,2] [--threads 0]
               [--rules chance,mean,max,sum,margin] [--sets skillspan,gpt-4o]
DATA_FOLDER has skillspan/ and in-demand/; CHECKPOINT is the base (skillwatch pull). For each seed:
  skillspan  a tagger learns the knowledge tags of --start sentences of SkillSpan, drawn by chance; it picks --pick of another --pool; the base learns both
             together; F1 on every third of SkillSpan's dev sentences. The labels of picked sentences are SkillSpan's.
  gpt-4o     the tagger that learned from --start goes on with a third of the sentences that gpt-4o labelled, picked among two thirds; F1 on the rest.
All rules share start, pool and seed. Prints a row a rule: F1 of each seed, their mean, and the words of a picked sentence. Any Python will do."""
import argparse, json, os, random, subprocess, sys, tempfile

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("data"), ap.add_argument("checkpoint")
ap.add_argument("--start", type=int, default=150), ap.add_argument("--pool", type=int, default=1000), ap.add_argument("--pick", type=int, default=150)
ap.add_argument("--epochs", type=int, default=5), ap.add_argument("--lr", type=float, default=1e-4), ap.add_argument("--seeds", default="0,1,2")
ap.add_argument("--rules", default="chance,mean,max,sum,margin"), ap.add_argument("--threads", type=int, default=0)
ap.add_argument("--sets", default="skillspan,gpt-4o")
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
RULES, SEEDS = a.rules.split(","), [int(s) for s in a.seeds.split(",")]


def run(tool, *args):
    done = subprocess.run([os.path.join(a.bin, "skillwatch-" + tool), *map(str, args)], capture_output=True, text=True)
    if done.returncode: sys.exit(f"skillwatch-{tool}: {done.stderr[-600:]}")
    return done.stdout


def read(name):
    with open(os.path.join(a.data, name), encoding="utf-8") as f: return [{k: row[k] for k in ("tokens", "tags_knowledge")} for row in map(json.loads, f)]


def text_of(row): return " ".join(row["tokens"]).replace(" ##", "")


def write(path, rows):
    with open(path, "w", encoding="utf-8") as f: f.writelines(json.dumps(r) + "\n" for r in rows)
    return path


def train(tmp, base, rows, seed, name):
    out = f"{tmp}/{name}.h5"
    run("train", "ner", "--base", base, "--data", write(f"{tmp}/train.jsonl", rows), "-o", out, "--epochs", a.epochs, "--lr", a.lr, "--batch-size", 8, "--seed", seed,
        "--max-length", 128, "--dtype", "fp32", "--threads", a.threads, "-q", "--force")
    return out


def choose(tmp, rule, model, pool, count, random_):
    if rule == "chance": return random_.sample(pool, count)
    of = {text_of(r): r for r in pool}
    run("label", write(f"{tmp}/pool.jsonl", [{"text": t} for t in of]), "--sentences", "--pick", count, "--pick-by", rule, "-m", model, "-o", f"{tmp}/picked.jsonl", "--threads", a.threads, "-q")
    with open(f"{tmp}/picked.jsonl", encoding="utf-8") as f: return [of[json.loads(line)["text"]] for line in f]


def f1(model, test): return json.loads(run("eval", "-m", model, "--data", test, "--threads", a.threads, "--json"))["micro"]["f1"]


def split(rows, random_, *counts):
    rows = random_.sample(rows, len(rows))
    return [rows[sum(counts[:i]):sum(counts[:i + 1])] for i in range(len(counts))]


def compare(tmp, what, model, base, kept, pool, count, test, seed, scores):
    for rule in RULES:
        picked = choose(tmp, rule, model, pool, count, random.Random(seed))
        scores.setdefault((what, rule), []).append((f1(train(tmp, base, kept + picked, seed, "next"), test), sum(len(text_of(r).split()) for r in picked) / count))
        print(what, seed, rule, "%.4f %.1f" % scores[what, rule][-1], file=sys.stderr, flush=True)


skillspan, gpt = read("skillspan/train.json"), read("in-demand/tags-04-01-2025.jsonl") + read("in-demand/data.jsonl")
skillspan = list({text_of(r): r for r in skillspan}.values())
scores = {}
with tempfile.TemporaryDirectory() as tmp:
    dev = write(f"{tmp}/dev.jsonl", read("skillspan/dev.json")[::3])
    for seed in SEEDS:
        random_, third = random.Random(seed), len(gpt) // 3
        start, pool = split(skillspan, random_, a.start, a.pool)
        first = train(tmp, a.checkpoint, start, seed, "first")
        if "skillspan" in a.sets.split(","): compare(tmp, "skillspan", first, a.checkpoint, start, pool, a.pick, dev, seed, scores)
        pool, rest = split(gpt, random_, 2 * third, len(gpt) - 2 * third)
        if "gpt-4o" in a.sets.split(","): compare(tmp, "gpt-4o", first, first, [], pool, third, write(f"{tmp}/rest.jsonl", rest), seed, scores)
print("| labels | picked by | " + " | ".join(f"F1, seed {s}" for s in SEEDS) + " | mean | words a sentence |\n" + "| --- " * (len(SEEDS) + 4) + "|")
for (what, rule), of in scores.items():
    print(f"| {what} | {rule} | " + " | ".join("%.4f" % s for s, _ in of) + " | %.4f | %.1f |" % tuple(sum(column) / len(of) for column in zip(*of)))
