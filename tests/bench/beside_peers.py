"""Skillwatch beside the peers (sentence-transformers, ONNX Runtime, PyTorch, tokenizers) on the same work, on this machine, in one run.

usage: beside_peers.py PEERS_FOLDER DATA_FOLDER CHECKPOINT [--titles 12000] [--rounds 2] [--only embed,train,tokenize]
PEERS_FOLDER holds embed.py, finetune_ner.py, tokenize_.py; run it with the Python that has their packages. The two sides take turns, so
that a change of the machine's speed meets both; the best of each counts; ratios are ours over the best of the peer's batch sizes.
"""
import argparse, json, os, re, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("peers"), ap.add_argument("data"), ap.add_argument("checkpoint")
ap.add_argument("--titles", type=int, default=12000), ap.add_argument("--rounds", type=int, default=2)
ap.add_argument("--only", default="embed,train,tokenize"), ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
only = a.only.split(",")
best = {}


def note(key, value):
    best[key] = max(best.get(key, 0.0), value)
    print(f"  {key}: {value:.0f}", file=sys.stderr, flush=True)


def peer(script, *args):
    out = subprocess.run([sys.executable, os.path.join(a.peers, script), *map(str, args)], capture_output=True, text=True)
    if out.returncode: sys.exit(f"{script}: {out.stderr[-800:]}")
    return out.stdout


def ours(*args):
    out = subprocess.run([os.path.join(a.bin, "skillwatch-bench"), "-m", a.checkpoint, "--json", "--runs", "1", *args],
                         capture_output=True, text=True)
    if out.returncode: sys.exit(f"skillwatch bench: {out.stderr[-800:]}")
    for row in json.loads(out.stdout):
        note("ours " + row["what"] + ("" if row["dtype"] == "-" else " " + row["dtype"]) + " " + row["unit"], row["value"])


def ratio(name, mine, theirs, mark):
    if mine in best and theirs in best:
        r = best[mine] / best[theirs]
        print(f"| {name} | {best[mine]:.0f} | {best[theirs]:.0f} | {r:.2f} | {mark} |{'' if r >= mark else ' below'}")


with tempfile.TemporaryDirectory() as tmp:
    titles = os.path.join(tmp, "titles.txt")
    make = os.path.join(os.path.dirname(a.peers.rstrip("/")), "make_titles.py")
    subprocess.run([sys.executable, make, os.path.join(a.data, "onet/All_Occupations.csv"), titles], check=True)
    lines = open(titles).read().splitlines()[:a.titles]
    open(titles, "w").write("\n".join(lines) + "\n")
    postings, labels = os.path.join(a.data, "in-demand/job-postings"), os.path.join(tmp, "train.jsonl")
    with open(labels, "w") as f:  # the knowledge layer alone, as the peer has it
        for line in open(os.path.join(a.data, "skillspan/train.json")):
            row = json.loads(line)
            f.write(json.dumps({"tokens": row["tokens"], "tags_knowledge": row["tags_knowledge"]}) + "\n")
    for _ in range(a.rounds):
        if "tokenize" in only:
            for name, rate in re.findall(r"tokenizers (\w+): \d+ tokens ([\d.]+) Mtok/s", peer("tokenize_.py", titles)):
                note(f"tokenizers {name}", 1e6 * float(rate))
        if "embed" in only:
            ours("--titles", titles, "--postings", postings)
            for line in peer("embed.py", titles, a.titles).splitlines():
                m = re.match(r"(sentence-transformers|onnxruntime) cpu (?:torch\.)?(\w+) (titles|postings).* ([\d.]+)/s", line)
                if m: note(f"{m[1]} {m[3]} {m[2]}", float(m[4]))
        if "train" in only:
            ours("--data", labels)
            for grouped in ((), ("grouped",)):
                out = peer("finetune_ner.py", 1, 5e-5, "fp32", 0, "cpu", *grouped)
                note("PyTorch " + " ".join(("fp32",) + grouped), float(re.search(r"(\d+) real tok/s", out)[1]))

print("| work | ours | peer | ratio | mark |\n| --- | --- | --- | --- | --- |")
ratio("tokenize titles, one thread, tokens/s", "ours tokenize titles, 1 thread tokens/s", "tokenizers titles", 20)
for what, name in (("titles", "titles"), ("postings", "postings, 256 tokens")):
    ratio(f"embed {name}, fp32, texts/s, ONNX Runtime", f"ours embed {what} fp32 texts/s", f"onnxruntime {what} fp32", 1.3)
    ratio(f"embed {name}, bf16, texts/s, sentence-transformers", f"ours embed {what} bf16 texts/s", f"sentence-transformers {what} bfloat16", 1.5)
ratio("fine-tune, fp32, tokens/s, PyTorch", "ours train ner, 32 a batch fp32 tokens/s", "PyTorch fp32", 4)
ratio("fine-tune, fp32, tokens/s, PyTorch grouped", "ours train ner, 32 a batch fp32 tokens/s", "PyTorch fp32 grouped", 2.5)
ratio("fine-tune, fp32, exact gradients, tokens/s, PyTorch grouped", "ours the same, exact gradients fp32 tokens/s", "PyTorch fp32 grouped", 1)
