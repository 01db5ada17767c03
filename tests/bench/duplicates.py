"""Postings that `skillwatch fetch` leaves out as nearly the same as one before (MinHash, then the exact similarity of what that finds), beside the exact
Jaccard similarity of runs of five words over all pairs, computed here in Python, word by word, without hashes.

usage: duplicates.py DATA_FOLDER [--similarity 0.5 0.6 0.7 0.8 0.9] [--copies 5] [--seed 0]      DATA_FOLDER/in-demand/job-postings/<date>/<n>.txt
A scripted board on this machine gives the postings, week by week, and once more with --copies of each, from which up to 6 % of the words were taken and
replaced, so that many pairs lie near the limit. A posting should go where one before it, that stayed, has at least that similarity.
recall: of those that should go, the share that fetch leaves out. precision: of those that it leaves out, the share that should go.
Fails where the recall at 0.8, the default, is below 0.98 or a posting was left out that should stay."""
import argparse, glob, http.server, itertools, json, os, random, subprocess, sys, tempfile, threading, time, unicodedata

DEFAULT, MARK = 0.8, 0.98
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("data"), ap.add_argument("--similarity", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8, 0.9])
ap.add_argument("--copies", type=int, default=5), ap.add_argument("--seed", type=int, default=0)
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()


def is_between(c):
    return c.isspace() or unicodedata.category(c)[0] in "CPZ" or c in "$+<=>^`|~"


def shingles(text):
    words = "".join(" " if is_between(c) else c for c in text).lower().split()
    return frozenset(zip(*(words[i:] for i in range(5)))) if len(words) >= 5 else frozenset([tuple(words)] if words else [])


def exact(sets, limit):
    """Numbers of the postings that should go: one before, that stayed, is as similar as that."""
    stay, go = [], set()
    for i, s in enumerate(sets):
        if any(len(s & t) >= limit * len(s | t) for t in stay if min(len(s), len(t)) >= limit * max(len(s), len(t))): go.add(i)
        else: stay.append(s)
    return go


class Board(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.server.rows).encode()
        self.send_response(200), self.send_header("Content-Length", str(len(body))), self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments): pass


def fetch(weeks, limit):
    """Numbers of the postings that skillwatch fetch leaves out, and its seconds."""
    numbers, left_out, seconds = itertools.count(), set(), 0.0
    with tempfile.TemporaryDirectory() as tmp, http.server.HTTPServer(("127.0.0.1", 0), Board) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open(tmp + "/board.json", "w") as f:
            json.dump({"name": "board", "url": "http://127.0.0.1:%d/" % server.server_port, "fields": {"id": "id", "text": "text"}, "max_bytes": 1 << 28}, f)
        for week, texts in enumerate(weeks):
            server.rows = [{"id": next(numbers), "text": t} for t in texts]
            date, began = f"2025-{week // 28 + 1:02}-{week % 28 + 1:02}", time.time()
            subprocess.run([a.bin + "/skillwatch-fetch", tmp + "/board.json", "-o", tmp + "/postings", "--date", date, "--similarity", str(limit), "-q"], check=True)
            seconds += time.time() - began
            rows = glob.glob(f"{tmp}/postings.fetch/{date[8:]}-{date[5:7]}-{date[:4]}.jsonl") # none where none is new
            stayed = {int(json.loads(line)["id"]) for path in rows for line in open(path, encoding="utf-8")}
            left_out |= {r["id"] for r in server.rows} - stayed
        server.shutdown()
    return left_out, seconds


def copy_of(text, random_):
    """Some words of it replaced."""
    share, words = random_.uniform(0, 0.06), text.split(" ")
    return " ".join(f"word{random_.randrange(10**9)}" if random_.random() < share else w for w in words)


def measure(name, weeks):
    sets, worst = [shingles(t) for w in weeks for t in w], None
    for limit in a.similarity:
        began = time.time()
        should = exact(sets, limit)
        exact_seconds = time.time() - began
        found, seconds = fetch(weeks, limit)
        recall, precision = len(found & should) / max(len(should), 1), len(found & should) / max(len(found), 1)
        print(f"| {name} | {len(sets)} | {limit} | {len(should)} | {len(found)} | {recall:.4f} | {precision:.4f} |", flush=True)
        print(f"{name}, {limit}: fetch {seconds:.1f} s, all pairs {exact_seconds:.1f} s", file=sys.stderr)
        if limit == DEFAULT: worst = recall, precision
    return worst


def main():
    folders = sorted(glob.glob(os.path.join(a.data, "in-demand/job-postings/*")), key=lambda f: f.split("-")[:-4:-1])
    texts = lambda folder: [open(f, encoding="utf-8").read().strip() for f in sorted(glob.glob(folder + "/*.txt"))]
    weeks, random_ = [texts(f) for f in folders], random.Random(a.seed)
    if not weeks: sys.exit(f"{a.data}: no in-demand/job-postings/<date>/<n>.txt")
    copies = [copy_of(t, random_) for w in weeks for t in w for _ in range(a.copies)]
    random_.shuffle(copies)
    print("| postings | number | similarity | should go | left out | recall | precision |\n| --- | --- | --- | --- | --- | --- | --- |")
    results = [measure("as they are", weeks), measure("with copies", [*weeks, copies])]
    if any(r and (r[0] < MARK or r[1] < 1) for r in results): sys.exit(f"at {DEFAULT}: recall below {MARK}, or a posting left out that should stay")


if __name__ == "__main__": main()
