"""Bulk inference in several processes, --shard I/N and mpirun: what comes out is byte for byte what one process writes, however the shards end."""
import json, os, random, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, samples_base

import h5py, numpy as np

check = Checks()
rng = random.Random(7)
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


def content(path):
    """What is at an output, without the temporary names: a folder's files, or a file's bytes; vectors as such (HDF5 is laid out by time)."""
    if os.path.isdir(path):
        return {os.path.relpath(os.path.join(d, n), path): open(os.path.join(d, n), "rb").read() for d, _, names in os.walk(path) for n in names}
    if path.endswith(".h5"):
        with h5py.File(path) as f: return {k: f[k][()].tobytes() for k in ("vectors", "ids")}, {k: v for k, v in f.attrs.items()}
    return open(path, "rb").read()


def identity(journal):
    """What says which run a part belongs to: the payload of its first record, behind eight bytes and a head of 48 that begins with its length."""
    return journal[56:56 + int.from_bytes(journal[8:16], "little")]


with tempfile.TemporaryDirectory() as tmp:
    at = lambda *names: os.path.join(tmp, *names)
    base = samples_base(tmp, hidden=16, layers=1, intermediate=32)
    done = program("train", "ner", "--base", base, "--data", SAMPLES + "/labels/train.jsonl", "--epochs", "1", "--lr", "5e-3", "-o", at("tagger.h5"), "--quiet")
    check(done.returncode == 0, done.stderr)
    words = sorted({w for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") for w in json.loads(l)["text"].split()})
    texts = [" ".join(rng.choice(words) for _ in range(rng.randint(1, 20))) for _ in range(3500)]  # four chunks to deal out
    texts[2100] = " ".join(rng.choice(words) for _ in range(3000))
    with open(at("in.jsonl"), "w", encoding="utf-8") as f:
        for i, text in enumerate(texts):
            f.write(json.dumps({"id": f"p{i}", "date": f"2026-01-{1 + i % 3:02d}", "text": text if i % 700 else " "}) + "\n")
            if i == 1500: f.write("not json\n")
    jobs = {"tags.jsonl": ("tag", "tagger"), "tags.csv": ("tag", "tagger"), "folder/": ("tag", "tagger"), "vectors.h5": ("embed", "base"),
            "vectors.npy": ("embed", "base"), "vectors.jsonl": ("embed", "base")}
    models = {"tagger": at("tagger.h5"), "base": base}
    command = lambda name, folder: [jobs[name][0], "-m", models[jobs[name][1]], at("in.jsonl"), "--threads", "1", "-o", at(folder, name)]
    bare = lambda name: name.rstrip("/")
    for folder in ("one", "two", "mpi", "odd", "killed"): os.makedirs(at(folder))
    for name in jobs:
        done = program("infer", *command(name, "one"))
        check(done.returncode == 0, f"{name}: {done.stderr}")

    def same(name, folder, what):
        check(content(at(folder, bare(name))) == content(at("one", bare(name))), f"{what}: {name} is what one process writes")
        check(content(at(folder, bare(name) + ".rejected.jsonl")) == content(at("one", bare(name) + ".rejected.jsonl")), f"{what}: the rows set aside, too")
        left = [n for n in os.listdir(at(folder)) if ".part" in n or ".lock" in n or ".tmp" in n]
        check(not left, f"{what}: left behind: {left}")

    # one after the other, in any order; the last joins
    for name in jobs:
        for shard in (2, 3, 1):
            done = program("infer", *command(name, "two"), "--shard", f"{shard}/3")
            check(done.returncode == 0 and os.path.exists(at("two", bare(name))) == (shard == 1), f"{name} {shard}/3: {done.stderr}")
            if shard == 3: check("missing: 1/3" in done.stderr, done.stderr)
        check("3 parts joined" in done.stderr, done.stderr)
        same(name, "two", "three shards")
    # more shards than chunks, all at once, and one again that is done
    runs = [subprocess.Popen([BIN + "/skillwatch-infer", *command("tags.jsonl", "odd"), "--shard", f"{i}/7", "--json"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True) for i in range(1, 7)]
    rows = [json.loads(r.communicate(timeout=300)[0])["rows"] for r in runs]
    done = program("infer", *command("tags.jsonl", "odd"), "--shard", "2/7", "--json")
    check(done.returncode == 0 and json.loads(done.stdout)["rows"] == rows[1] == json.loads(done.stdout)["resumed"], f"done already: {done.stdout} {done.stderr}")
    check(not os.path.exists(at("odd/tags.jsonl")) and sum(rows) == 3495, f"{rows}")
    done = program("infer", *command("tags.jsonl", "odd"), "--shard", "7/7")
    check(done.returncode == 0, done.stderr)
    same("tags.jsonl", "odd", "seven shards")
    # a shard that is killed goes on; another model's parts are not joined with these
    program("infer", *command("vectors.jsonl", "killed"), "--shard", "2/2")
    done = program("infer", *command("vectors.jsonl", "killed"), "--prefix", "other ", "--shard", "1/2")
    check(done.returncode == 0 and "missing: 2/2" in done.stderr, done.stderr)
    killed = None
    for _ in range(20):
        run = subprocess.Popen([BIN + "/skillwatch-infer", *command("vectors.jsonl", "killed"), "--shard", "1/2", "--no-dedup"], stderr=subprocess.DEVNULL)
        part = at("killed/vectors.jsonl.part-1-of-2.partial")
        while run.poll() is None and not (os.path.exists(part) and os.path.getsize(part) > 4096): time.sleep(0.001)
        if run.poll() is None:
            run.kill()
            killed = run.wait()
            break
        os.path.exists(at("killed/vectors.jsonl")) and os.remove(at("killed/vectors.jsonl"))
        program("infer", *command("vectors.jsonl", "killed"), "--shard", "2/2")
    done = program("infer", *command("vectors.jsonl", "killed"), "--shard", "1/2")
    check(killed == -signal.SIGKILL and "going on after 1024 texts" in done.stderr, f"{killed}: {done.stderr}")
    same("vectors.jsonl", "killed", "killed and run again")
    # a damaged part is not joined
    program("infer", *command("tags.csv", "killed"), "--shard", "2/2")
    part = at("killed/tags.csv.part-2-of-2")
    whole = open(part, "rb").read()
    for broken in (whole[:-5], whole[:len(whole) // 2], whole[:200] + b"?" + whole[201:], whole + b"more"):
        open(part, "wb").write(broken)
        done = program("infer", *command("tags.csv", "killed"), "--shard", "1/2")
        check.refused(done, "damaged: remove it, and run its shard again", f"{len(broken)} of {len(whole)} bytes", (1,))
    check(not os.path.exists(at("killed/tags.csv")), "nothing is written")
    open(part, "wb").write(whole)
    done = program("infer", *command("tags.csv", "killed"), "--shard", "1/2")
    check(done.returncode == 0, done.stderr)
    same("tags.csv", "killed", "mended")
    # whoever is killed while it removes what it has joined leaves the rest to the next run, by any of the shards
    left = {}
    for shard in (1, 2, 3):
        program("infer", *command("tags.jsonl", "killed"), "--shard", f"{shard}/3")
        left.update({n: open(at("killed", n), "rb").read() for n in os.listdir(at("killed")) if n.startswith("tags.jsonl.part-")})
    left["tags.jsonl.joined"] = b"3 " + identity(left["tags.jsonl.part-2-of-3"])
    def leave():
        for name, data in left.items(): open(at("killed", name), "wb").write(data)
    leave()
    done = program("infer", *command("tags.jsonl", "killed"), "--shard", "2/3")
    check(len(left) == 3 and done.returncode == 0 and "what was left of its parts is removed" in done.stderr, done.stderr)
    same("tags.jsonl", "killed", "killed after joining")
    leave()  # another run removes them, and does its own part
    done = program("infer", *command("tags.jsonl", "killed"), "--text", "--shard", "1/2")
    names = sorted(n for n in os.listdir(at("killed")) if n.startswith("tags.jsonl."))
    check("missing: 2/2" in done.stderr and names == ["tags.jsonl.part-1-of-2", "tags.jsonl.rejected.jsonl"], f"{names} {done.stderr}")
    # a run of which no row can be used fails in every shard
    open(at("empty.jsonl"), "w").write('{"text": 5}\n{"text": " "}\n')
    for shard in ("1/2", "2/2"):
        done = program("infer", "tag", "-m", at("tagger.h5"), at("empty.jsonl"), "-o", at("no.jsonl"), "--shard", shard)
        check.refused(done, "2 rows, and none can be used", shard, (1,))
    for bad in ("0/2", "3/2", "1", "1/2/3", "a/b", "1/0", "-1/2", "1/100000"):
        check.refused(program("infer", *command("tags.csv", "two"), "--shard", bad), "", f"--shard {bad}", (2,))
    for verb in ("map", "cluster", "link"):
        check.refused(program("infer", verb, at("in.jsonl"), "-o", at("no.jsonl"), "--shard", "1/2"), "--shard", verb, (2,))
    check.refused(program("infer", "tag", "-m", at("tagger.h5"), at("in.jsonl"), "--shard", "1/2"), "-o FILE", "to standard output", (2,))
    check.refused(program("infer", "tag", "-m", at("tagger.h5"), "-", "-o", at("no.jsonl"), "--shard", "1/2"), "pipe", "from a pipe", (2,))

    # the ranks of mpirun are shards
    if not shutil.which("mpirun"):
        print("mpirun is not there: its part is left out")
    else:
        for name in ("tags.jsonl", "folder/", "vectors.h5"):
            done = subprocess.run([*MPIRUN, "-np", "2", BIN + "/skillwatch-infer", *command(name, "mpi")], capture_output=True, text=True, timeout=300)
            check(done.returncode == 0 and "2 parts joined" in done.stderr, f"mpirun {name}: {done.stderr}")
            same(name, "mpi", "mpirun")
        done = subprocess.run([*MPIRUN, "-np", "2", BIN + "/skillwatch-infer", *command("tags.csv", "mpi"), "--shard", "1/2"], capture_output=True, text=True)
        check(done.returncode == 2 and done.stderr.count("dealt out the work already") == 1, f"both: {done.returncode} {done.stderr}")
        for verb in ("map", "cluster", "link"):
            done = subprocess.run([*MPIRUN, "-np", "2", BIN + "/skillwatch-infer", verb, at("in.jsonl"), "-o", at("no.jsonl")], capture_output=True, text=True)
            check(done.returncode == 2 and done.stderr.count(f"infer {verb} runs in one process: start it without mpirun") == 1, f"mpirun {verb}: {done.returncode} {done.stderr}")
check.close()
