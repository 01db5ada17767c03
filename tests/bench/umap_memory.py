"""How much memory `skillwatch infer map` takes: the peak of its resident memory beside what it says before it begins.

usage: umap_memory.py [--rows 1000000] [--hidden 384] [--epochs 1] [--clusters 2000] [--limit-mb 8000] [--threads 2] [--folder DIR] [--bin build/release/bin]
Vectors are drawn around random centres and written to DIR (else: a temporary folder) block by block, so that this program itself stays small; the file takes
rows x hidden x 4 bytes there, and the map as much again. Memory does not depend on the epochs, so a few of them show it. The peak is the operating system's
(ru_maxrss of the child) and holds the program with its libraries, too. Exit status 1 where it is above the limit, or above what the program said by more than
100 MB. Run it with the Python of the tests.
"""
import argparse, os, re, subprocess, sys, tempfile, time
import numpy as np

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--rows", type=int, default=1000000), ap.add_argument("--hidden", type=int, default=384), ap.add_argument("--epochs", type=int, default=1)
ap.add_argument("--clusters", type=int, default=2000), ap.add_argument("--limit-mb", type=int, default=8000), ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--seed", type=int, default=0), ap.add_argument("--folder"), ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
LIBRARIES_MB, BLOCK = 100, 8192


def write(path):
    rng = np.random.default_rng(a.seed)
    centres = rng.standard_normal((a.clusters, a.hidden), np.float32)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({a.rows}, {a.hidden}), }}".encode()
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n")
        for first in range(0, a.rows, BLOCK):
            rows = min(BLOCK, a.rows - first)
            (centres[rng.integers(0, a.clusters, rows)] + np.float32(0.7) * rng.standard_normal((rows, a.hidden), np.float32)).tofile(f)


with tempfile.TemporaryDirectory(dir=a.folder) as folder:
    write(folder + "/vectors.npy")
    command = [os.path.join(a.bin, "skillwatch-infer"), "map", folder + "/vectors.npy", "-o", folder + "/map.h5", "--epochs", str(a.epochs), "--threads", str(a.threads),
               "--memory", str(a.limit_mb), "--device", "cpu"]
    start = time.time()
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds, peak = time.time() - start, usage.ru_maxrss * 1024 / 1e6
    if status: sys.exit(said[-800:])
    stated = float(re.search(r"take up to (\d+) MB", said).group(1))
    print(f"{a.rows} x {a.hidden}, {a.epochs} epoch{'s' * (a.epochs != 1)}, {seconds:.0f} s: at most {peak:.0f} MB resident, {peak * 1e6 / a.rows:.0f} bytes a row "
          f"({a.hidden * 4} of them the vector); stated before: {stated:.0f} MB")
    if peak > a.limit_mb or peak > stated + LIBRARIES_MB: sys.exit("more than allowed or stated")
