"""A checkpoint survives what happens to its writer: SIGKILL at any moment, a full disk, no permission.

usage: test_kill.py [--seed N] [--kills N]
"""
import argparse, json, os, random, resource, signal, subprocess, sys, tempfile, time

BIN, TESTS = os.environ.get("SW_BIN", ""), os.environ.get("SW_TESTS_BIN", "")
WRITER, SHOW = os.path.join(TESTS, "tool-write_checkpoint"), os.path.join(BIN, "skillwatch-show")


def check(condition, message):
    if not condition: sys.exit(f"FAILED: {message}")


def number_in(path):
    """The n of the checkpoint at `path`, which must verify."""
    run = subprocess.run([SHOW, "--json", path], capture_output=True, text=True)
    check(run.returncode == 0, f"the checkpoint does not open: {run.stderr}")
    shown = json.loads(run.stdout)
    check(shown["verified"] is True, "not verified")
    return shown["training"]["n"]


def kills(folder, count, rng):
    path = os.path.join(folder, "model.h5")
    torn = 0
    for i in range(count):
        # the numbers start anew with each writer, so forget the last one's
        if i % 10 == 0 and os.path.exists(path): os.unlink(path)
        had = number_in(path) if os.path.exists(path) else None
        writer = subprocess.Popen([WRITER, path, "0", "1500"], stdout=subprocess.PIPE, text=True)
        acknowledged = len(writer.stdout.readline().split()) if rng.random() < 0.7 else 0
        time.sleep(rng.random() * 0.08)
        writer.send_signal(signal.SIGKILL)
        acknowledged += len(writer.communicate()[0].split())
        left = [name for name in os.listdir(folder) if name != "model.h5"]
        check(all(name.startswith("model.h5.tmp-") for name in left) and len(left) <= 1, f"files beside the checkpoint: {left}")
        torn += len(left)
        if os.path.exists(path):
            number = number_in(path)
            # the last one that was said to be written, or the next, whose rename came just before the kill
            check(number in ((acknowledged, acknowledged + 1) if acknowledged else (had, 1)), f"{acknowledged} was written, {number} is there")
        else:
            check(had is None and not acknowledged, "the checkpoint is gone")
    check(torn >= count // 10, f"only {torn} of {count} kills hit a write: the test does not test")
    subprocess.run([WRITER, path, "1", "10"], check=True, stdout=subprocess.DEVNULL)
    check(os.listdir(folder) == ["model.h5"], f"left behind: {os.listdir(folder)}")
    print(f"{count} kills, {torn} in the middle of a write: the checkpoint always opened and verified")


def refused(run, path, needles):
    """One line, and the old checkpoint as it was."""
    lines = run.stderr.strip().splitlines()
    check(run.returncode == 1 and len(lines) == 1, f"status {run.returncode}: {run.stderr!r}")
    for needle in needles: check(needle in lines[0], f"{needle!r} expected in {lines[0]!r}")
    check(number_in(path) == 1, "the old checkpoint is not what it was")
    check(os.listdir(os.path.dirname(path)) == [os.path.basename(path)], "something is left beside it")


def size_limit(folder):
    path = os.path.join(folder, "model.h5")
    subprocess.run([WRITER, path, "1", "10"], check=True, stdout=subprocess.DEVNULL)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    run = subprocess.run([WRITER, path, "1", "2000"], capture_output=True, text=True, preexec_fn=limit)
    refused(run, path, ["File too large", path])
    print("a file size limit: refused, the old checkpoint stays")


def full_disk(folder):
    """A file system of one megabyte, in a mount namespace of its own."""
    path = os.path.join(folder, "model.h5")
    script = ('set -e; mount -t tmpfs -o size=1m none "$1" || exit 77; "$2" "$1/model.h5" 1 50 >&2; status=0; "$2" "$1/model.h5" 1 2000 || status=$?; '
              '"$3" --json "$1/model.h5"; ls "$1" | wc -l; exit $status')
    try:
        run = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", folder, WRITER, SHOW], capture_output=True, text=True)
    except FileNotFoundError:
        run = None
    if not run or run.returncode == 77 or "unshare" in run.stderr:
        print("no small file system can be mounted here: the full disk is left out")
        return
    shown, files = run.stdout.rsplit("}", 1)
    check(run.returncode == 1 and "No space left on device" in run.stderr and path in run.stderr, f"{run.returncode}: {run.stderr!r}")
    check(json.loads(shown + "}")["training"]["n"] == 1 and files.strip() == "1", f"the old checkpoint, and nothing else: {run.stdout}")
    print("a full disk: refused, the old checkpoint stays")


def no_permission(folder):
    path = os.path.join(folder, "model.h5")
    subprocess.run([WRITER, path, "1", "10"], check=True, stdout=subprocess.DEVNULL)
    other = {} if os.geteuid() else {"user": 65534}  # root may write anywhere, so somebody else tries
    os.chmod(os.path.dirname(folder), 0o755)
    os.chmod(folder, 0o555)
    try:
        run = subprocess.run([WRITER, path, "1", "20"], capture_output=True, text=True, **other)
    except (PermissionError, subprocess.SubprocessError):
        print("the programs lie where no other user may run them: the case without permission is left out")
        return
    finally:
        os.chmod(folder, 0o755)
    refused(run, path, ["Permission denied", path])
    os.chmod(path, 0o000)
    run = subprocess.run([SHOW, path], capture_output=True, text=True, **other)
    check(run.returncode == 1 and "permission denied" in run.stderr and path in run.stderr, f"{run.returncode}: {run.stderr!r}")
    print("no permission: refused, the old checkpoint stays")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kills", type=int, default=40)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    check(os.path.exists(WRITER) and os.path.exists(SHOW), "SW_BIN and SW_TESTS_BIN should name the folders of the programs")
    with tempfile.TemporaryDirectory() as work:
        for part in (lambda folder: kills(folder, options.kills, random.Random(options.seed)), size_limit, full_disk, no_permission):
            folder = os.path.join(work, f"part-{len(os.listdir(work))}")
            os.mkdir(folder)
            part(folder)


if __name__ == "__main__":
    main()
