"""How well `skillwatch infer link` links the hand-made variants of the sample taxonomy: link.py minilm.h5 [option of infer link ...]
The threshold was tuned on the even rows of samples/taxonomy-variants.csv (--tune shows what was tried); the odd rows were kept for the end.
right: linked to the skill that was meant, or unlinked where none was meant. precision: of the links, those that are right."""
import csv, json, os, subprocess, sys, tempfile

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
BIN = os.environ.get("SW_BIN", ROOT + "/build/release/bin")
TAXONOMY, VARIANTS = ROOT + "/samples/taxonomy.csv", ROOT + "/samples/taxonomy-variants.csv"


def read(path):
    with open(path, newline="", encoding="utf-8") as f: return list(csv.DictReader(f))


def link(model, *options):
    """[(text, id that was meant, skill it was linked to or None)], in the order of the file."""
    variants = read(VARIANTS)
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/tags.jsonl", "w", encoding="utf-8") as f:
            for v in variants: f.write(json.dumps({"id": v["text"], "date": "", "spans": [{"text": v["text"]}]}) + "\n")
        subprocess.run([BIN + "/skillwatch-infer", "link", "-m", model, "--taxonomy", TAXONOMY, tmp + "/tags.jsonl", "-o", tmp + "/linked.jsonl", "-q", *options], check=True)
        with open(tmp + "/linked.jsonl", encoding="utf-8") as f: found = [json.loads(line)["spans"][0]["skill"] for line in f]
    assert len(found) == len(variants)
    return [(v["text"], v["id"], s) for v, s in zip(variants, found)]


def score(rows):
    """(share that is right, precision)"""
    links = [(want, s["id"]) for _, want, s in rows if s]
    right = sum(want == (s["id"] if s else "") for _, want, s in rows)
    return right / len(rows), sum(a == b for a, b in links) / max(len(links), 1)


if __name__ == "__main__":
    arguments = [a for a in sys.argv[2:] if a != "--tune"]
    if "--tune" in sys.argv:
        for threshold in (0.65, 0.7, 0.75, 0.8):
            for margin in (0.0, 0.05, 0.1, 0.15):
                print(threshold, margin, "right %.4f precision %.4f" % score(link(sys.argv[1], "--threshold", str(threshold), "--margin", str(margin), *arguments)[::2]))
        sys.exit()
    rows, labels = link(sys.argv[1], *arguments), {r["id"]: r["label"] for r in read(TAXONOMY)}
    for name, part in (("even rows", rows[::2]), ("odd rows", rows[1::2]), ("all", rows)): print("%-10s %4d  right %.4f  precision %.4f" % (name, len(part), *score(part)))
    reasons = ["label", "alternative", "normalised", "embedding", None]
    for reason in reasons:
        of = [(t, w, s) for t, w, s in rows if (s["reason"] if s else None) == reason]
        print("%-12s %4d, %d of them wrong" % (reason or "unlinked", len(of), sum(w != (s["id"] if s else "") for _, w, s in of)))
    for text, want, s in rows[::2] if "--all" not in os.environ.get("SHOW", "") else rows:
        if want != (s["id"] if s else ""): print(f"  {text!r}: {labels.get(want, 'none')!r} was meant, got", f"{s['label']!r} ({s['reason']}, {s['score']:.3f}, {s['matched']!r})" if s else "none")
