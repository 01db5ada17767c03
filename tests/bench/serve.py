"""skillwatch infer serve under load by wrk, at rising concurrency, beside the bulk command over the same texts.

usage: serve.py MODEL.h5 TEXTS.csv --column NAME [--texts 1] [--seconds 5] [--connections 1,4,16,64,256] [--rows 2000] [--threads 2] [--base64]
       [--json OUT.json] [--bin build/release/bin]
Each request embeds the next --texts of the rows. Bulk is `infer embed --no-dedup` over the same rows, less the same with one row (start and loading). Rates
are texts a second; p50 and p99 are wrk's, in milliseconds. wrk (Debian: wrk) runs on the same cores as the server, so that its own time is in the rate.
`first`: the first answer after the start, and after a second of idleness, in milliseconds. Exit status 1 where an answer was neither 200 nor 429.
"""
import argparse, csv, json, os, re, shutil, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("model"), ap.add_argument("table"), ap.add_argument("--column", required=True), ap.add_argument("--texts", type=int, default=1)
ap.add_argument("--seconds", type=int, default=5), ap.add_argument("--connections", default="1,4,16,64,256"), ap.add_argument("--rows", type=int, default=2000)
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
    rates = [len(rows) / (bulk(path("all.csv")) - bulk(path("one.csv"))) for _ in range(2)]
    result, wrong = {"bulk": max(rates), "load": []}, 0
    print(f"bulk: {' and '.join(f'{r:.0f}' for r in rates)} texts/s", flush=True)
    with Server("-m", a.model, "--threads", a.threads, "--connections", 4096, "--queue", 4096) as server:
        result["start"] = server.ready["seconds"]
        first = []
        for _ in range(2):
            started = time.time()
            server.ask("/v1/embeddings", {"input": rows[0]})
            first.append((time.time() - started) * 1000)
            time.sleep(1)
        result["first"] = first
        print(f"start {result['start']:.2f} s, first answer {first[0]:.1f} ms, when idle {first[1]:.1f} ms", flush=True)
        for c in map(int, a.connections.split(",")):
            done = subprocess.run(["wrk", "-t1", f"-c{c}", f"-d{a.seconds}s", "--timeout", "60s", "-s", path("load.lua"), server.url], capture_output=True, text=True)
            found = re.search(r"RESULT (.*)", done.stdout)
            assert found, done.stdout + done.stderr
            requests, us, other, busy, p50, p99, errors = map(float, found[1].split())
            rate = (requests - busy - other) * a.texts / us * 1e6
            wrong += other + errors
            result["load"].append(dict(connections=c, rate=rate, share=rate / result["bulk"], p50=p50, p99=p99, busy=busy, wrong=other + errors))
            print(f"{c:5d} connections: {rate:7.0f} texts/s ({rate / result['bulk']:.0%} of bulk), p50 {p50:.1f} ms, p99 {p99:.1f} ms, 429: {busy:.0f}, wrong: {other + errors:.0f}", flush=True)
        assert server.stop() == 0, server.errors()
if a.json: json.dump(result, open(a.json, "w"), indent=1)
sys.exit(1 if wrong else 0)
