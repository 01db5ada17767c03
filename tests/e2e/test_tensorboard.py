"""--tensorboard FOLDER: TensorBoard's own reader finds every number of the metrics file once, also after stops, kills and a new start."""
import json, os, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, samples_base

try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError as e:
    print(f"skipped: {e}; tools/setup --tests installs TensorBoard's reader")
    sys.exit(77)
import numpy as np

check = Checks()


def flat(row, prefix=""):
    for key, value in row.items():
        if isinstance(value, dict): yield from flat(value, prefix + key + "/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and prefix + key not in ("step", "epoch"): yield prefix + key, value


def shown(folder):
    reader = event_accumulator.EventAccumulator(folder, size_guidance={event_accumulator.SCALARS: 0})
    reader.Reload()
    return {(tag, e.step): e for tag in reader.Tags()["scalars"] for e in reader.Scalars(tag)}, sum(len(reader.Scalars(t)) for t in reader.Tags()["scalars"])


def same(folder, metrics, what):
    """What TensorBoard shows is what the metrics file says."""
    events, count = shown(folder)
    wanted = {}
    for line in open(metrics):
        row = json.loads(line)
        for name, value in flat(row): wanted[name, row["step"]] = value
    check(count == len(events), f"{what}: {count} numbers, {len(events)} distinct")
    check(set(events) == set(wanted), f"{what}: {sorted(set(events) ^ set(wanted))[:6]}")
    wrong = [(k, events[k].value, v) for k, v in wanted.items() if k in events and np.float32(events[k].value) != np.float32(v) and
             abs(events[k].value - v) > 1e-6 * abs(v)]  # the file has nine digits
    check(not wrong, f"{what}: {wrong[:4]}")
    return events


with tempfile.TemporaryDirectory() as tmp:
    at = lambda *names: os.path.join(tmp, *names)
    base = samples_base(tmp, hidden=16, layers=1, intermediate=32)
    rows = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]]
    open(at("data.jsonl"), "w", encoding="utf-8").writelines(rows[:12])
    common = ["ner", "--base", base, "--data", at("data.jsonl"), "--dev", at("data.jsonl"), "--epochs", "12", "--batch-size", "4", "--lr", "3e-3", "--threads", "1",
              "--log-every", "1", "--checkpoint-every", "2", "--quiet"]
    began = time.time()
    done = program("train", *common, "-o", at("a.h5"), "--tensorboard", at("logs", "a"))
    check(done.returncode == 0, done.stderr)
    events = same(at("logs", "a"), at("a.metrics.jsonl"), "one run")
    for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "dev/micro/f1", "dev/layers/skill/micro/f1", "dev/loss"):
        check(any(n == name for n, _ in events), f"{name} is shown")
    check(all(began - 1 < e.wall_time < time.time() + 1 for e in events.values()), "times are now")
    check([n for n in os.listdir(at("logs", "a")) if not n.startswith("events.out.tfevents.")] == [], "nothing else lies there")

    # stopped and killed again and again: steps after the checkpoint were shown already, and are withdrawn
    stops = 0
    steps = lambda: max((json.loads(l)["step"] for l in open(at("b.metrics.jsonl")) if l.endswith("\n")), default=0) if os.path.exists(at("b.metrics.jsonl")) else 0
    while True:
        goal = steps() + 4
        run = subprocess.Popen([BIN + "/skillwatch-train", *common, "-o", at("b.h5"), "--resume", "--tensorboard", at("b-logs")], stderr=subprocess.PIPE, text=True)
        while run.poll() is None and steps() < goal: time.sleep(0.002)
        if run.poll() is None: run.send_signal(signal.SIGKILL if stops % 2 else signal.SIGTERM)
        error = run.communicate()[1]
        if run.returncode == 0: break
        check(run.returncode in (75, -signal.SIGKILL), f"{run.returncode} {error}")
        stops += 1
        if stops == 2:  # what a kill in the middle of a record leaves
            last = max(os.listdir(at("b-logs")))
            with open(at("b-logs", last), "ab") as f: f.write(b"\x21\0\0\0\0\0\0\0\x01\x02")
    check(run.returncode == 0 and stops >= 3, f"{stops} stops: {error}")
    check(stops <= len(os.listdir(at("b-logs"))) <= stops + 1, f"a file a start: {os.listdir(at('b-logs'))}")
    resumed = same(at("b-logs"), at("b.metrics.jsonl"), f"{stops} stops")
    check({k: e.value for k, e in resumed.items() if k[0] != "tokens_per_second"} == {k: e.value for k, e in events.items() if k[0] != "tokens_per_second"},
          "resumed shows what the uninterrupted run shows")
    before = sorted(os.listdir(at("b-logs")))
    done = program("train", *common, "-o", at("b.h5"), "--resume", "--tensorboard", at("b-logs"))
    check(done.returncode == 0 and sorted(os.listdir(at("b-logs"))) == before, "a finished run adds nothing")
    # a new start in the same folder replaces what is shown; also where the clock was set back
    os.rename(at("b-logs", before[-1]), at("b-logs", "events.out.tfevents.9999999998.x.1"))
    done = program("train", *common, "--epochs", "2", "-o", at("b.h5"), "--force", "--tensorboard", at("b-logs"))
    check(done.returncode == 0 and any(".9999999999." in n for n in os.listdir(at("b-logs"))), f"{done.stderr} {os.listdir(at('b-logs'))}")
    same(at("b-logs"), at("b.metrics.jsonl"), "a new start")

    check.refused(program("train", *common, "-o", at("c.h5"), "--tensorboard", at("data.jsonl")), "--tensorboard", "a file", (2,))
    check.refused(program("train", *common, "-o", at("c.h5"), "--tensorboard", "/proc/none"), "/proc/none", "a folder that cannot be made", (1,))
check.close()
