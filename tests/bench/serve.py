"""skillwatch infer serve under load by wrk, at rising concurrency, beside the bulk command over the same texts.

usage: serve.py MODEL.h5 TEXTS.csv --column NAME [--texts 1] [--seconds 5] [--connections 1,4,16,64,256] [--rows 2000] [--rounds 3] [--threads 2]
       [--base64] [--json OUT.json] [--bin build/release/bin]
Each request embeds the next --texts of the rows. Bulk is `infer embed --no-dedup` over the same rows, less the same with one row (start and loading). In each
round each concurrency follows a bulk run, because a machine's speed drifts; the median round's share is told. Rates are texts a second; p50 and p99 are wrk's,
in milliseconds. wrk (Debian: wrk) runs on the same cores as the server, so that its own time is in the rate.
`first`: the first answer after the start, and after a second of idleness, in milliseconds. Exit status 1 where an answer was neither 200 nor 429.
"""
import argparse, csv, json, os, re, shutil, statistics, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model"), ap.add_argument("table"), ap.add_argument("--column", required=True), ap.add_argument("--texts", type=int, default=1)
ap.add_argument("--seconds", type=int, default=5), ap.add_argument("--connections", default="1,4,16,64,256"), ap.add_argument("--rows", type=int, default=2000), ap.add_argument("--rounds", type=int, default=3)
ap.add_argument("--threads", type=int, default=2), ap.add_argument("--base64", action="store_true"), ap.add_argument("--json")
ap.add_argument("--bin", default=os.environ.get("SW_BIN", "build/release/bin"))
a = ap.parse_args()
os.environ["SW_BIN"] = a.bin
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import Server
from tiny import program

if not shutil.which("wrk"): sys.exit("wrk is missing: apt-get install wrk")
SCRIPT = """
local bodies, next = {}, 0
for line in io.lines("%s") do bodies[#bodies + 1] = line end
function request()
  next = next %% #bodies + 1
  return wrk.format("POST", "/v1/embeddings", {["Content-Type"] = "application/json"}, bodies[next])
end
local threads = {}
function setup(thread) table.insert(threads, thread) thread:set("other", 0) thread:set("busy", 0) end
function response(status)
  if status == 429 then busy = busy + 1 elseif status ~= 200 then other = other + 1 end
end
function done(summary, latency)
  local all, many = 0, 0
  for _, t in ipairs(threads) do all = all + t:get("other") many = many + t:get("busy") end
  local e = summary.errors
  print(string.format("RESULT %%d %%d %%d %%d %%.3f %%.3f %%d", summary.requests, summary.duration, all, many, latency:percentile(50) / 1000,
                      latency:percentile(99) / 1000, e.connect + e.read + e.write + e.timeout))
end
"""


def bulk(path):
    started = time.time()
    done = program("infer", "embed", "-m", a.model, path, "--column", a.column, "--no-dedup", "--threads", a.threads, "--quiet", "-o", os.path.join(tmp, "bulk.jsonl"))
    assert done.returncode == 0, done.stderr
    return time.time() - started


with tempfile.TemporaryDirectory() as tmp:
    path = lambda n: os.path.join(tmp, n)
    rows = [r[a.column] for r, _ in zip(csv.DictReader(open(a.table, newline="", encoding="utf-8")), range(a.rows))]
    for name, part in (("all.csv", rows), ("one.csv", rows[:1])):
        with open(path(name), "w", newline="", encoding="utf-8") as f: csv.writer(f).writerows([[a.column], *([t] for t in part)])
    with open(path("bodies"), "w") as f:
        more = {"encoding_format": "base64"} if a.base64 else {}
        for i in range(0, len(rows) - a.texts + 1, a.texts): f.write(json.dumps({"input": rows[i:i + a.texts], **more}) + "\n")
    open(path("load.lua"), "w").write(SCRIPT % path("bodies"))
    rounds, wrong = {int(c): [] for c in a.connections.split(",")}, 0
    with Server("-m", a.model, "--threads", a.threads, "--connections", 4096, "--queue", 4096) as server:
        start = server.ready["seconds"]
        first = []
        for _ in range(2):
            started = time.time()
            server.ask("/v1/embeddings", {"input": rows[0]})
            first.append((time.time() - started) * 1000)
            time.sleep(1)
        print(f"start {start:.2f} s, first answer {first[0]:.1f} ms, when idle {first[1]:.1f} ms", flush=True)
        for _ in range(a.rounds):
            for c in rounds:
                rate_in_bulk = len(rows) / (bulk(path("all.csv")) - bulk(path("one.csv")))
                done = subprocess.run(["wrk", "-t1", f"-c{c}", f"-d{a.seconds}s", "--timeout", "60s", "-s", path("load.lua"), server.url], capture_output=True, text=True)
                found = re.search(r"RESULT (.*)", done.stdout)
                assert found, done.stdout + done.stderr
                requests, us, other, busy, p50, p99, errors = map(float, found[1].split())
                rate = (requests - busy - other) * a.texts / us * 1e6
                wrong += other + errors
                rounds[c].append(dict(connections=c, rate=rate, bulk=rate_in_bulk, share=rate / rate_in_bulk, p50=p50, p99=p99, busy=busy, wrong=other + errors))
        for c, load in rounds.items():
            m = {k: statistics.median(r[k] for r in load) for k in load[0]}
            print(f"{c:5d} connections: {m['rate']:7.0f} texts/s, bulk {m['bulk']:.0f}, share {m['share']:.0%} ({', '.join(format(r['share'], '.0%') for r in load)}), "
                  f"p50 {m['p50']:.1f} ms, p99 {m['p99']:.1f} ms, 429: {m['busy']:.0f}, wrong: {m['wrong']:.0f}")
        assert server.stop() == 0, server.errors()
if a.json: json.dump({"start": start, "first": first, "load": rounds}, open(a.json, "w"), indent=1)
sys.exit(1 if wrong else 0)
