"""The whole programs on the CUDA kernels, run by the SIMT emulator: training and inference agree with the CPU, in any order of threads; a full device
is refused in one line."""
import csv, json, os, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, ROOT, SAMPLES, Checks, program, samples_base

import h5py, numpy as np

check = Checks()
MODULES = os.path.join(os.environ.get("SW_TESTS_BIN", "build/release/tests"), "modules")
if not os.path.exists(os.path.join(MODULES, "skillwatch_cuda_emulated.so")): sys.exit("the emulated module was not built")


def emulated(verb, *args, order="forward", **env):
    done = program(verb, *args, "--device", "cuda-emulated", timeout=900,
                   env={**os.environ, "SKILLWATCH_MODULES": MODULES, "SW_CUDA_EMULATOR_ORDER": order, **env})
    check("Sanitizer" not in done.stderr, done.stderr[-800:])
    return done


def vectors(path):
    with h5py.File(path) as f: return f["vectors"][()]


def metrics(path):
    rows = [json.loads(line) for line in open(path.replace(".h5", ".metrics.jsonl"))]
    return [row["loss"] for row in rows if "loss" in row]


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    base = samples_base(tmp, hidden=64, heads=2, intermediate=128)
    labels = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8").read().splitlines() if json.loads(l)["spans"]][:60]
    open(path("train.jsonl"), "w", encoding="utf-8").write("\n".join(labels) + "\n")
    common = ["--base", base, "--data", path("train.jsonl"), "--dev", path("train.jsonl"), "--epochs", "5", "--batch-tokens", "300", "--lr", "1e-3",
              "--log-every", "1", "--dtype", "fp32", "--quiet"]

    # 20 steps and more of a 2-layer BERT with dropout
    done = program("train", "ner", *common, "-o", path("cpu.h5"))
    check(done.returncode == 0, done.stderr[-500:])
    done = emulated("train", "ner", *common, "-o", path("cuda.h5"))
    if check(done.returncode == 0, done.stderr[-800:]):
        cpu, cuda = metrics(path("cpu.h5")), metrics(path("cuda.h5"))
        check(len(cpu) == len(cuda) >= 20 and cpu[-1] < cpu[0], f"{len(cpu)} and {len(cuda)} steps, loss {cpu[0]} to {cpu[-1]}")
        apart = max(abs(a - b) for a, b in zip(cpu[:20], cuda[:20]))
        print(f"20 training steps: losses at most {apart:.2g} apart")
        check(apart <= 1e-4, f"losses {apart} apart: {cpu[:20]} {cuda[:20]}")
        done = emulated("train", "ner", *common, "-o", path("random.h5"), order="random:5")
        check(done.returncode == 0 and metrics(path("random.h5")) == cuda, "another order of threads: the same bits")
        with h5py.File(path("cuda.h5")) as a, h5py.File(path("random.h5")) as b:
            same = lambda n, o: not isinstance(o, h5py.Dataset) or o[()].tobytes() == b["weights"][n][()].tobytes() or n
            check(a["weights"].visititems(lambda n, o: None if same(n, o) is True else n) is None, "another order of threads: the same weights")
        # work handed over as graphs, a few made and then updated, and the same work piece by piece
        done = emulated("train", "ner", *common, "-o", path("graphs.h5"), SW_CUDA_EMULATOR_GRAPHS=path("graphs"))
        made, updated, launched = map(int, open(path("graphs")).read().split())
        check(done.returncode == 0 and launched > len(cuda) and made <= 8 and made + updated == launched, f"graphs made, updated, launched: {made, updated, launched}")
        done = emulated("train", "ner", *common, "-o", path("pieces.h5"), SW_CUDA_EMULATOR_GRAPHS=path("graphs"), SKILLWATCH_CUDA_GRAPHS="off")
        check(done.returncode == 0 and open(path("graphs")).read().split() == ["0"] * 3, f"no graphs: {done.stderr[-300:]}")
        check(metrics(path("pieces.h5")) == metrics(path("graphs.h5")) == cuda, "graphs or not: the same bits")
        # a run that is stopped goes on with the same bits
        done = emulated("train", "ner", *common, "-o", path("cuda.h5"), "--resume")
        check(done.returncode == 0, f"resuming a finished run: {done.stderr[-300:]}")
    done = emulated("train", "ner", *[("bf16" if x == "fp32" else x) for x in common], "-o", path("half.h5"))
    check(done.returncode == 0 and metrics(path("half.h5"))[-1] < metrics(path("half.h5"))[0], f"bf16 learns: {done.stderr[-500:]}")

    # the masked language model: five steps of a tiny one, two batches each
    few = path("few.jsonl")
    texts = [json.loads(l)["text"] for l in labels]
    open(few, "w", encoding="utf-8").write("".join(json.dumps({"text": " ".join(texts[i:i + 6])}) + "\n" for i in range(0, 60, 6)))
    mlm = ["--base", base, "--data", few, "--dev", few, "--epochs", "3", "--batch-tokens", "300", "--accumulate", "2", "--max-length", "48", "--lr", "1e-3", "--log-every", "1",
           "--quiet", "--dtype"]
    done = program("train", "mlm", *mlm, "fp32", "-o", path("mlm-cpu.h5"))
    check(done.returncode == 0, done.stderr[-500:])
    done = emulated("train", "mlm", *mlm, "fp32", "-o", path("mlm.h5"))
    if check(done.returncode == 0, done.stderr[-800:]):
        cpu, cuda = metrics(path("mlm-cpu.h5")), metrics(path("mlm.h5"))
        apart = max(abs(a - b) for a, b in zip(cpu, cuda))
        print(f"{len(cpu)} steps of the masked language model: losses at most {apart:.2g} apart")
        check(len(cpu) == len(cuda) >= 5 and apart <= 1e-4, f"losses {apart} apart: {cpu} {cuda}")
        done = emulated("train", "mlm", *mlm, "fp32", "-o", path("mlm-random.h5"), order="random:5")
        check(done.returncode == 0 and metrics(path("mlm-random.h5")) == cuda, "another order of threads: the same bits")
    done = emulated("train", "mlm", *mlm, "bf16", "-o", path("mlm-half.h5"))
    check(done.returncode == 0 and metrics(path("mlm-half.h5"))[-1] < metrics(path("mlm-half.h5"))[0], f"bf16 learns: {done.stderr[-500:]}")

    # a GRU, whose recurrence cuDNN's twin trains alike; where there is no cuDNN, one line says so and our own cell does
    with open(path("ads.csv"), "w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([["Description", "short", "with e"], *([t, int(len(t) < 60), int(t.count("e") > 6)] for t in texts[:40])])
    gru = ["--data", path("ads.csv"), "--dev", path("ads.csv"), "--embedding", "8", "--cells", "12", "--epochs", "2", "--lr", "1e-2", "--batch-size", "8", "--log-every", "1", "--dtype", "fp32"]
    losses, told = {}, {}
    for name, env in (("cell", {}), ("cudnn", {"SKILLWATCH_GRU": "cudnn"}), ("again", {"SKILLWATCH_GRU": "cudnn", "SKILLWATCH_CUDA_GRAPHS": "off"}),
                      ("missing", {"SKILLWATCH_GRU": "cudnn", "SW_CUDA_EMULATOR_CUDNN": "off"})):
        done = emulated("train", "multilabel", *gru, "-o", path(name + ".h5"), **env)
        if not check(done.returncode == 0, f"multilabel, {name}: {done.stderr[-500:]}"): break
        losses[name], told[name] = metrics(path(name + ".h5")), done.stderr.count("libcudnn.so.9")
    else:
        apart = max(abs(a - b) for a, b in zip(losses["cell"], losses["cudnn"]))
        print(f"{len(losses['cell'])} steps of a GRU: losses by cuDNN's twin at most {apart:.2g} from our own cell's")
        check(len(losses["cell"]) == len(losses["cudnn"]) >= 10 and 0 < apart <= 1e-4, f"losses {apart} apart: {losses}")
        check(losses["again"] == losses["cudnn"] and losses["missing"] == losses["cell"], f"graphs or not, and without cuDNN: the same bits: {losses}")
        check(told == {"cell": 0, "cudnn": 0, "again": 0, "missing": 1}, f"one line where cuDNN is missing: {told}")

    # inference, with a tagger that has learnt enough to find something
    done = program("train", "ner", *[("40" if x == "5" else "3e-3" if x == "1e-3" else x) for x in common], "-o", path("tagger.h5"))
    check(done.returncode == 0, done.stderr[-500:])
    postings = SAMPLES + "/job-postings"
    few = path("few"); os.makedirs(few)
    days = sorted(os.listdir(postings))[:1]
    for name in sorted(os.listdir(os.path.join(postings, days[0])))[:4]:
        open(os.path.join(few, name), "w").write(open(os.path.join(postings, days[0], name)).read())
    for order in ("forward", "reversed"):
        done = emulated("infer", "tag", "-m", path("tagger.h5"), few, "-o", path(order + ".jsonl"), "--quiet", order=order)
        check(done.returncode == 0, done.stderr[-500:])
    done = program("infer", "tag", "-m", path("tagger.h5"), few, "-o", path("cpu.jsonl"), "--quiet")
    spans = lambda name: [[(s["start"], s["end"], s["label"]) for s in json.loads(l)["spans"]] for l in open(path(name), encoding="utf-8")]
    scores = lambda name: [s["score"] for l in open(path(name), encoding="utf-8") for s in json.loads(l)["spans"]]
    if check(done.returncode == 0 and os.path.exists(path("forward.jsonl")), "tagging"):
        check(spans("forward.jsonl") == spans("cpu.jsonl") and any(spans("cpu.jsonl")), "the same spans as the CPU's")
        check(open(path("forward.jsonl")).read() == open(path("reversed.jsonl")).read(), "another order of threads: the same tags")

    # the real MiniLM, 32 titles
    titles = path("titles.csv")
    with open(SAMPLES + "/titles.csv", encoding="utf-8", newline="") as f: rows = list(dict.fromkeys(r["title"] for r in csv.DictReader(f)))[:32]
    with open(titles, "w", encoding="utf-8", newline="") as f: csv.writer(f).writerows([["title"]] + [[r] for r in rows])
    made = subprocess.run([os.path.join(ROOT, "tools/minilm"), path("minilm.h5")], capture_output=True, text=True, env={**os.environ, "SW_BIN": BIN})
    if made.returncode:
        print("skipped: MiniLM's weights are not here:", made.stderr.strip()[-200:])
    else:
        done = program("infer", "embed", "-m", path("minilm.h5"), titles, "--column", "title", "-o", path("a.h5"), "--quiet")
        check(done.returncode == 0, done.stderr[-500:])
        for dtype, order in (("fp32", "forward"), ("fp32", "reversed"), ("bf16", "random:3")):
            done = emulated("infer", "embed", "-m", path("minilm.h5"), titles, "--column", "title", "-o", path(f"{dtype}-{order}.h5"), "--quiet", "--dtype", dtype, order=order)
            check(done.returncode == 0, done.stderr[-500:])
        a, b = vectors(path("a.h5")), vectors(path("fp32-forward.h5"))
        apart = float(np.abs(a - b).max())
        print(f"MiniLM, {len(a)} titles, fp32: at most {apart:.2g} from the CPU's")
        check(len(a) == 32 and apart <= 1e-5, f"embeddings {apart} apart")
        check(b.tobytes() == vectors(path("fp32-reversed.h5")).tobytes(), "another order of threads: the same vectors")
        cosine = float((a * vectors(path("bf16-random:3.h5"))).sum(1).min())
        check(cosine >= 0.999, f"bf16: cosine {cosine}")

    # a full device
    done = emulated("infer", "embed", "-m", base, titles, "--column", "title", "-o", path("full.h5"), SW_CUDA_EMULATOR_MEMORY="100000")
    check.refused(done, "out of memory", "a device that is too small", status=(1,))
    check("bytes wanted" in done.stderr and "free" in done.stderr and not os.path.exists(path("full.h5")), f"bytes wanted and free: {done.stderr!r}")
    # a device that is a little too small: the token budget is halved once, with a message, and the results are the same
    without_dev = [x for i, x in enumerate(common) if "--dev" not in (x, common[i - 1])]  # evaluation has a budget of its own
    for verb, args in (("infer", ["embed", "-m", base, titles, "--column", "title", "--quiet", "--batch-tokens", "16384"]),
                             ("train", ["ner", *without_dev, "--batch-tokens", "1000", "--epochs", "1"])):
        memory, results = 2e6, []
        while len(results) < 2 and memory < 2e9:
            out = path(f"{verb}{int(memory)}.h5")
            done = emulated(verb, *args, "-o", out, SW_CUDA_EMULATOR_MEMORY=str(int(memory)))
            if done.returncode == 0 and (not results or "going on with" not in done.stderr): results.append((done.stderr, out))
            else: check(done.returncode in (0, 1) and "Traceback" not in done.stderr, f"{verb} with {memory:.0f} bytes: {done.stderr!r}")
            memory *= 1.2
        if check(len(results) == 2, f"{verb} with more and more memory"):
            half = int(args[len(args) - args[::-1].index("--batch-tokens")]) // 2  # the last one counts
            check(f"going on with --batch-tokens {half}" in results[0][0] and "bytes wanted" in results[0][0] and results[0][0].count("\n") == 1, f"{verb}, a smaller budget: {results[0][0]!r}")
            check("going on" not in results[1][0], f"{verb}, memory enough: {results[1][0]!r}")
            if verb == "infer": check(vectors(results[0][1]).tobytes() == vectors(results[1][1]).tobytes(), "half the budget: the same vectors")
check.close()
