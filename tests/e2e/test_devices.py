"""Devices: what is listed, what --device takes, and what is said where a GPU cannot be used. The NVIDIA driver and unusable modules are small
libraries made here; a usable module is the emulated backend."""
import json, os, re, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, ROOT, SAMPLES, Checks, program, samples_base

check = Checks()
TESTS = os.path.abspath(os.environ.get("SW_TESTS_BIN", "build/release/tests"))
DRIVER = "int cuInit(unsigned flags) { return %d; }\nint cuDeviceGetCount(int *count) { *count = %d; return 0; }\n"
MODULE = """#include "kernels/module.h"
int sw_fail(const char *format, ...);
static int none(void) { return 0; }
static int failing(void) { return sw_fail("the driver is too old"); }
static int two(void) { return 2; }
static int describe(int index, sw_device_info *info) {
  *info = (sw_device_info){.name = "Old GPU", .major = 7, .multiprocessors = 4, .memory = (size_t)2 << 30, .memory_free = (size_t)1 << 30};
  return 0;
}
static int cannot_open(int index, sw_device **out) { return sw_fail("it is too old"); }
const sw_module sw_backend_module = {%s, "%s", "a test", %s, describe, cannot_open};
"""


def shared_object(path, source):
    """The path of a library made of a C source."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", f"-I{ROOT}", "-x", "c", "-", "-o", path], input=source, text=True, check=True)
    return path


def one_line(done, status, *parts):
    lines = done.stderr.splitlines()
    check(done.returncode == status and len(lines) == 1 and lines[0].startswith("skillwatch: ") and all(p in lines[0] for p in parts),
          f"{done.args[1:]}: status {done.returncode}, wanted {status} and {parts}: {done.stderr!r}")


def listing(modules, *args, driver=None, status=0):
    """Rows of `skillwatch devices --json`; the text form has to say the same."""
    env = {**os.environ, "SKILLWATCH_MODULES": modules, "LD_LIBRARY_PATH": driver or ""}
    done, text = program("devices", "--json", *args, env=env), program("devices", *args, env=env)
    check(done.returncode == text.returncode == status, f"devices {args}: {done.returncode} {done.stderr}")
    rows = json.loads(done.stdout)
    check(len(text.stdout.splitlines()) == len(rows), text.stdout)
    for row, line in zip(rows, text.stdout.splitlines()):
        check(line.startswith(row["device"] + " ") and row["usable"] == ("why" not in row) and row.get("why", "") in line and row.get("name", "") in line,
              f"{row}: {line}")
    return rows


def test_listing(at, drivers):
    empty, emulated = at("empty"), os.path.join(TESTS, "modules")
    os.mkdir(empty)
    cpu, cuda = listing(empty)
    check(cpu["device"] == "cpu" and cpu["usable"] and cpu["cores"] == len(os.sched_getaffinity(0)) and cpu["memory"] > cpu["memory_free"] > 0, f"{cpu}")
    check(cuda["device"] == "cuda" and "no module" in cuda["why"] and "tools/setup --cuda" in cuda["why"], f"{cuda}")
    check([r["device"] for r in listing(empty, "--device", "cpu")] == ["cpu"], "--device cpu")
    for name in ("cuda", "cuda:0"): check([r["device"] for r in listing(empty, "--device", name, status=1)] == ["cuda"], name)
    for name in ("gpu", "cudax", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda: 1", "cuda:99999", "cuda:99999999999999999999", "cpu:0", ""):
        one_line(program("devices", "--device", name), 2, "--device " + name)
    one_line(program("devices", "x"), 2, "'x'")
    for name in ("cuda-emulated", "cuda-emulated:0"):
        rows = listing(emulated, "--device", name)
        check(len(rows) == 1 and rows[0]["device"] == "cuda-emulated:0" and rows[0]["usable"] and re.fullmatch(r"\d+\.\d", rows[0]["compute_capability"]) and
              rows[0]["multiprocessors"] > 0 and rows[0]["memory"] >= rows[0]["memory_free"] > 0, f"{rows}")
    check(listing(emulated, "--device", "cuda-emulated:99", status=1) == [], "a device that is not there")

    # modules that cannot be used, of a backend that asks for no driver, and as CUDA's with a driver
    other = int(re.search(r"SW_MODULE_API (\d+)", open(os.path.join(ROOT, "kernels/module.h")).read())[1]) + 1
    sources = {"version": (MODULE % (other, "{0}", "two"), f"interface {other}"), "foreign": ("int x;", "is no module"), "broken": (None, "cannot be loaded"),
               "lacking": ("void sw_no_such(void); void *sw_backend_module = sw_no_such;", "sw_no_such"), "none": (MODULE % ("SW_MODULE_API", "{0}", "none"), "there is no device"),
               "failing": (MODULE % ("SW_MODULE_API", "{0}", "failing"), "the driver is too old")}
    for kind, (source, why) in sources.items():
        for backend, driver in (("cuda-other", None), ("cuda", drivers["one"])):
            path = at(kind, f"skillwatch_{backend.replace('-', '_')}.so")
            shared_object(path, source.replace("{0}", backend)) if source else (os.makedirs(at(kind), exist_ok=True), open(path, "w").write("no library"))
            rows = listing(at(kind), "--device", backend, driver=driver, status=1)
            check(len(rows) == 1 and rows[0]["device"] == backend and why in rows[0]["why"], f"{kind}: {rows}")
    shared_object(at("old", "skillwatch_cuda.so"), MODULE % ("SW_MODULE_API", "cuda", "two"))
    rows = listing(at("old"), driver=drivers["one"])
    check([r["device"] for r in rows] == ["cpu", "cuda:0", "cuda:1"] and rows[2]["why"] == "it is too old" and rows[2]["compute_capability"] == "7.0", f"{rows}")
    check([r["device"] for r in listing(at("old"), "--device", "cuda:1", driver=drivers["one"], status=1)] == ["cuda:1"], "one of two")
    for driver, why in (("absent", "no NVIDIA driver here"), ("zero", "finds no device"), ("sick", "finds no device")):
        check(why in listing(at("old"), driver=drivers[driver])[1]["why"], driver)


def test_programs(at, drivers, base):
    """What --device does in the programs that compute, with a CUDA module installed that cannot be used, and without one."""
    titles = at("titles.txt")
    open(titles, "w").write("Nurse\nCook\n")
    embed, train = ["embed", "-m", base, titles, "--format", "lines"], ["ner", "--base", base, "--data", SAMPLES + "/labels/dev.jsonl", "--epochs", "1", "-o"]
    env = lambda modules, driver: {**os.environ, "SKILLWATCH_MODULES": at(modules), "LD_LIBRARY_PATH": drivers[driver]}
    said = lambda done: [l for l in done.stderr.splitlines() if "GPU" in l]
    plain = program("infer", *embed, env=env("empty", "one"))
    check(plain.returncode == 0 and plain.stdout and not said(plain), f"no module, nothing to say: {plain.stderr}")
    for modules, driver, why in (("old", "absent", "no NVIDIA driver"), ("old", "zero", "finds no device"), ("old", "one", "it is too old"), ("version", "one", "interface"), ("broken", "one", "cannot be loaded")):
        done = program("infer", *embed, env=env(modules, driver))
        check(done.returncode == 0 and done.stdout == plain.stdout and len(said(done)) == 1 and why in said(done)[0] and "--device cpu" in said(done)[0],
              f"auto with {modules}: {done.returncode} {done.stderr}")
        for more in (["--quiet"], ["--device", "cpu"]):
            done = program("infer", *embed, *more, env=env(modules, driver))
            check(done.returncode == 0 and done.stdout == plain.stdout and not said(done), f"{more}: {done.stderr}")
        one_line(program("infer", *embed, "--device", "cuda", env=env(modules, driver)), 1, "--device cuda: ", why)
    one_line(program("infer", *embed, "--device", "cuda", env=env("empty", "one")), 1, "--device cuda: ", "no module")
    one_line(program("infer", *embed, "--device", "cuda:x"), 2, "--device cuda:x")
    one_line(program("infer", *embed, "--device", "cuda-emulated:99", env={**os.environ, "SKILLWATCH_MODULES": os.path.join(TESTS, "modules")}), 1, "there is no device 99")
    for verb, args in (("train", [*train, at("t.h5")]), ("eval", ["-m", at("t.h5"), "--data", SAMPLES + "/labels/dev.jsonl"]), ("bench", ["-m", base, "--titles", titles, "--runs", "1"])):
        done = program(verb, *args, env=env("old", "zero"))
        check(done.returncode == 0 and len(said(done)) == 1, f"{verb} says it once: {done.stderr}")
        one_line(program(verb, *args, "--device", "cuda", *(["--force"] if verb == "train" else []), env=env("old", "zero")), 1, "--device cuda: ", "finds no device")


def test_module():
    """The real module, where it was built: it takes only the functions of errors from the program and exports one symbol; where the driver is, it opens."""
    path = os.path.join(os.path.dirname(os.path.abspath(BIN)), "modules/skillwatch_cuda.so")
    if not os.path.exists(path): return print("no CUDA module was built: not looked at")
    missing = re.findall(r"undefined symbol: (\S+)|(\S+) => not found", subprocess.run(["ldd", "-r", path], capture_output=True, text=True).stdout)
    check({a or b for a, b in missing} <= {"sw_fail", "sw_fail_memory", "sw_error"}, f"not resolved: {missing}")
    names = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True).stdout.split()[2::3]
    check(names == ["sw_backend_module"], f"exports: {names}")
    row = json.loads(program("devices", "--json", env={k: v for k, v in os.environ.items() if k != "SKILLWATCH_MODULES"}).stdout)[1]
    check(row["usable"] or "driver" in row["why"], f"{row}")


with tempfile.TemporaryDirectory() as work:
    at = lambda *names: os.path.join(work, *names)
    drivers = {name: os.path.dirname(shared_object(at("driver-" + name, "libcuda.so.1"), DRIVER % answers))
               for name, answers in {"one": (0, 1), "zero": (0, 0), "sick": (100, 1)}.items()}
    drivers["absent"] = at("driver-absent")
    os.mkdir(drivers["absent"])
    open(os.path.join(drivers["absent"], "libcuda.so.1"), "w").write("no library")
    test_listing(at, drivers)
    test_programs(at, drivers, samples_base(work))
    test_module()
check.close()
