"""skillwatch label, against a scripted server on this machine that answers as OpenAI's does, and misbehaves on a schedule.

usage: test_label.py [--kills N]
"""
import argparse, json, os, random, re, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from chat import WORDS, Server, mark
from tiny import BIN, ROOT, SAMPLES, Checks, program, samples_base, tiny_bert

check = Checks()
KEY = "sk-very-secret-1234567890"
READER = os.path.join(os.environ.get("SW_TESTS_BIN", "build/release/tests"), "tool-labels")
DATA = os.path.join(ROOT, "../shared/data/in-demand")


def status(code, **headers): return lambda handler, text: handler.reply(code, {"error": {"message": f"scripted, {KEY} was sent"}}, {k.replace("_", "-"): v for k, v in headers.items()})
def raw(data): return lambda handler, text: handler.reply(200, raw=data)
def content(text_of): return lambda handler, text: handler.reply(200, {"choices": [{"message": {"content": text_of}}], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})


def cut(handler, text):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.close_connection = True
    return True


def drop(handler, text):
    handler.close_connection = True
    return True


def loris(handler, text):
    """A byte now and then, for longer than the client's patience."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(30):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)
    handler.close_connection = True
    return True


class Work:
    def __init__(self, folder): self.folder, self.count = folder, 0
    def path(self, name): return os.path.join(self.folder, name)

    def environment(self, **more):
        return {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith(("OPENAI", "SSL_CERT", "REQUESTS_CA", "CURL_CA"))} | {"OPENAI_API_KEY": KEY} | more

    def command(self, server, *more, out=None):
        self.count += 1
        self.out = out or self.path(f"out-{self.count}.jsonl")
        return [BIN + "/skillwatch-label", *map(str, more), "--base-url", server if isinstance(server, str) else server.url, "--model", "scripted", "-o", self.out]

    def run(self, server, *more, expect=0, out=None, env={}, quiet=True):
        done = subprocess.run(self.command(server, *more, *(["-q"] if quiet else []), out=out), capture_output=True, text=True, timeout=240, env=self.environment(**env))
        check(done.returncode == expect and "Sanitizer" not in done.stderr, f"{more}: status {done.returncode}: {done.stderr[-2000:]}")
        self.secret(done.stdout + done.stderr)
        return done

    def secret(self, *texts):
        """The key is in nothing that is written."""
        for name in os.listdir(self.folder):
            if os.path.isfile(self.path(name)): texts += (open(self.path(name), "rb").read().decode(errors="replace"),)
        check(not any(KEY in t for t in texts), "the key is never written")

    def rows(self, path=None): return [json.loads(l) for l in open(path or self.out, encoding="utf-8")]

    def rejected(self):
        path = self.out + ".rejected.jsonl"
        return self.rows(path) if os.path.exists(path) else []

    def sentences(self, n, name="sentences.jsonl", start=0):
        texts = [json.loads(l)["text"] for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8")]
        texts = list(dict.fromkeys(texts))[start:start + n]
        with open(self.path(name), "w", encoding="utf-8") as f:
            for t in texts: f.write(json.dumps({"text": t}, ensure_ascii=False) + "\n")
        return self.path(name), texts

    def read(self, path):
        """As train ner reads it."""
        done = subprocess.run([READER, path], capture_output=True, text=True)
        check(done.returncode == 0, f"{path}: {done.stderr}")
        return json.loads(done.stdout) if done.returncode == 0 else {"examples": []}


def agrees(row, words=WORDS):
    text, wanted = row["text"], set()
    for s in mark(text, words):
        found = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(s['text'])}(?![\w+#])", text)][s["occurrence"] - 1]
        wanted.add((found, found + len(s["text"]), s["label"]))
    return {(s["start"], s["end"], s["label"]) for s in row["spans"]} == wanted and all(text[s["start"]:s["end"]] == s["text"] for s in row["spans"])


def test_postings(work):
    server = Server()
    folder = work.path("postings")
    for n in (1, 2, 3, 10):
        os.makedirs(folder + "/05-01-2026", exist_ok=True)
        shutil.copy(f"{SAMPLES}/job-postings/05-01-2026/{n}.txt", folder + "/05-01-2026")
    done = work.run(server, folder, "--json", "--price-in", "1", "--price-out", "2", quiet=False)
    rows, told = work.rows(), json.loads(done.stdout)
    check(len(rows) > 30 and all(agrees(r) for r in rows), "every sentence, labelled as the model said")
    check(any(r["spans"] for r in rows) and all(r["weight"] == 1 for r in rows), "spans and weights")
    check(rows[0]["source"] == "05-01-2026/1#1" and [r["source"] for r in rows] == sorted((r["source"] for r in rows), key=lambda s: [int(n) for n in re.findall(r"\d+", s)[3:]]),
          "in input order, with their source")
    distinct = len({r["text"] for r in rows})
    check(told["sentences"] == told["labelled"] == len(rows) and told["answers"] == distinct == sum(server.billed.values()), f"a sentence that comes again is asked once: {told}")
    check(told["tokens_in"] == 100 * distinct and abs(told["cost"] - (100 * distinct + 20 * distinct) / 1e6) < 1e-9 and "which cost" in done.stderr, f"the bill: {told}")
    check(all(h["Authorization"] == "Bearer " + KEY for _, _, h, _ in server.log) and server.most > 1, f"the key is sent, several at a time: {server.most}")
    request = server.log[0][3]
    schema = request["response_format"]["json_schema"]
    check(schema["strict"] and schema["schema"]["properties"]["spans"]["items"]["properties"]["label"]["enum"] == ["knowledge", "skill"], "the schema")
    check(request["temperature"] == 0 and request["messages"][0]["role"] == "system" and len(request["messages"]) > 8 and "seed" not in request, "instructions and examples")
    check(not os.path.exists(work.out + ".partial") and not work.rejected(), "nothing is left over")
    read = work.read(work.out)
    check(len(read["examples"]) == len(rows), "train ner reads all")
    base = samples_base(work.folder, hidden=16, layers=1, intermediate=32)
    done = program("train", "ner", "--base", base, "--data", work.out, "--epochs", "1", "-q", "-o", work.path("tagger.h5"))
    check(done.returncode == 0, f"train ner: {done.stderr}")
    # the same again: status and bytes
    first = open(work.out, "rb").read()
    work.run(server, folder, "--parallel", "1")
    check(open(work.out, "rb").read() == first, "the same bytes with other parallelism")


def test_faults(work):
    path, texts = work.sentences(40)
    work.run(Server(), path, "--sentences")
    good = open(work.out, "rb").read()
    huge = b'{"choices": [{"message": {"content": "' + b"x" * 10_000_000 + b'"}}]}'
    faults = [status(429, Retry_After="1"), status(500), cut, drop, status(503), loris, raw(b"{not json"), raw(b"\xff\xfe\x00bad"), raw(huge), raw(b'{"choices": []}'), raw(b"[]"),
              content('{"spans": [{"nothing": 1}]}'), content("I am sorry, I cannot."), content('{"spans": "none"}'), content(None), status(408), status(502),
              status(429, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT")]
    random.Random(7).shuffle(faults)
    server = Server(faults=faults)
    command = ["/usr/bin/env", *work.command(server, path, "--sentences", "--timeout", "1", "--json", "-q")]
    run = subprocess.Popen(command, env=work.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0
    while run.poll() is None:
        try: peak = max(peak, int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{run.pid}/status").read()).group(1)))
        except (AttributeError, FileNotFoundError, ProcessLookupError): pass
        cmdline = open(f"/proc/{run.pid}/cmdline").read() if run.poll() is None else ""
        check(KEY not in cmdline, "the key is not in the process list")
        time.sleep(0.02)
    out, err = run.communicate()
    work.secret(out, err)
    check(run.returncode == 0 and open(work.out, "rb").read() == good, f"the same labels in spite of {len(faults)} faults: {run.returncode} {err}")
    told = json.loads(out)
    check(told["retries"] >= len(faults) - 2 and told["answers"] == 40 and not work.rejected(), f"{told}")  # a loris may be answered first
    check("Sanitizer" in err or os.environ.get("ASAN_OPTIONS") or peak < 400_000, f"memory is bounded: {peak} KiB")
    held = [t for t, text, _, _ in server.log]
    check(len(held) == told["requests"], "requests are counted")
    # what never gets better is set aside, and the rest goes on
    bad = texts[5]
    server = Server(think=lambda text, request: "no" if text == bad else json.dumps({"spans": mark(text)}))
    done = work.run(server, path, "--sentences", "--tries", "2", "--json")
    told, aside = json.loads(done.stdout), work.rejected()
    check(told["set_aside"] == 1 and len(work.rows()) == 39 and aside[0]["row"] == bad and "no label" in aside[0]["reason"] and aside[0]["line"] == 1, f"{told} {aside}")
    check(told["tokens_in"] == 41 * 100, f"answers that cannot be used are on the bill: {told}")
    # a server in trouble ends the run; what was answered stays
    server = Server(faults=[None] * 12 + [status(500)] * 1000)
    done = work.run(server, path, "--sentences", "--tries", "1", "--parallel", "2", expect=75)
    out = work.out
    check(os.path.exists(out + ".partial") and not os.path.exists(out) and "in a row" in done.stderr, f"{done.stderr}")
    server.faults = []
    work.run(server, path, "--sentences", out=out)
    check(open(out, "rb").read() == good and max(server.billed.values()) == 1, "the same command ends it, and pays for nothing twice")
    # sentences that no run gets an answer for are no trouble the second time: the run comes to its end
    hopeless = lambda text, request: "no" if text in texts[10:19] else json.dumps({"spans": mark(text)})
    server = Server(think=hopeless)
    work.run(server, path, "--sentences", "--tries", "1", "--parallel", "1", expect=75)
    done = work.run(server, path, "--sentences", "--tries", "1", "--parallel", "1", "--json", out=work.out)
    told = json.loads(done.stdout)
    check(told["questions"] == 30 and told["set_aside"] == 9 and told["answers"] == 31 and len(work.rows()) == 31, f"what an earlier run set aside does not end this one: {told}")
    # half an answer, even one that can be read; numbers that no bill holds
    def half(handler, text):
        return server.answer(handler, {"model": "scripted"}, text, '{"spans": []}', finish="length")
    server = Server(faults=[half])
    done = work.run(server, path, "--sentences", "--parallel", "1", "--tries", "1", "--json")
    aside = work.rejected()
    check(json.loads(done.stdout)["set_aside"] == 1 and aside[0]["row"] == texts[0] and "--max-tokens" in aside[0]["reason"], f"an answer that was cut off is not used: {aside}")
    absurd = lambda h, t: h.reply(200, {"choices": [{"message": {"content": '{"spans": []}'}}], "usage": {"prompt_tokens": 9 * 10 ** 18, "completion_tokens": 10}})
    done = work.run(Server(faults=[absurd]), path, "--sentences", "--json", quiet=False)
    check(json.loads(done.stdout)["tokens_in"] < 10 ** 6 and "guessed for 1 answer" in done.stderr, f"{done.stdout} {done.stderr}")
    # an answer that we did not wait for is billed all the same
    done = work.run(Server(faults=[loris]), path, "--sentences", "--timeout", "1", "--parallel", "1", "--json", quiet=False)
    told = json.loads(done.stdout)
    check(told["answers"] == 40 and told["tokens_in"] > 4000 and "guessed for 1 answer" in done.stderr, f"{told} {done.stderr}")


def test_refused(work):
    path, texts = work.sentences(30)
    for code, part in ((401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "--base-url"), (307, "another address")):
        elsewhere = Server()
        server = Server(faults=[status(code, Location=elsewhere.url + "/chat/completions")] * 1000)
        check.refused(work.run(server, path, "--sentences", expect=1), part, f"HTTP {code}", (1,))
        check(len(server.log) <= 9 and not elsewhere.log, f"HTTP {code}: at once, and nowhere else: {len(server.log)}")
    server = Server(faults=[status(429, Retry_After="100000")] * 1000)
    check.refused(work.run(server, path, "--sentences", expect=75), "HTTP status 429", "a server that wants to be left alone for a day", (75,))
    server = Server(faults=[status(400)] * 1000)
    check.refused(work.run(server, path, "--sentences", expect=1), "HTTP status 400", "settings that the server does not take", (1,))
    server = Server(faults=[lambda h, t: h.reply(429, {"error": {"message": "you ran out", "code": "insufficient_quota"}})] * 1000)
    check.refused(work.run(server, path, "--sentences", expect=75), "you ran out", "no money", (75,))
    done = work.run("http://127.0.0.1:9/v1", path, "--sentences", "--tries", "1", expect=75)
    check("in a row" in done.stderr, done.stderr)
    server = Server()
    check(work.run(server, path, "--sentences", env={"OPENAI_API_KEY": ""}) and "Authorization" not in server.log[0][2], "no key, no header")
    # once answers have come, 403 and 404 mean one sentence
    server = Server(faults=[None, None, None, status(403), None, status(404)])
    done = work.run(server, path, "--sentences", "--parallel", "1", "--json")
    aside = [(r["row"], re.search(r"HTTP status \d+", r["reason"]).group()) for r in work.rejected()]
    check(json.loads(done.stdout)["answers"] == 28 and aside == [(texts[3], "HTTP status 403"), (texts[5], "HTTP status 404")], f"{done.stdout} {aside}")
    server = Server(faults=[None] * 3 + [status(401)] * 100)
    check.refused(work.run(server, path, "--sentences", "--parallel", "1", expect=1), "OPENAI_API_KEY", "a key that is taken back", (1,))
    check(len(server.log) == 4 and os.path.exists(work.out + ".partial"), "at once; what came before is kept")
    # the key, as JSON may write it
    spelled = "".join(f"\\u{ord(c):04x}" for c in KEY).encode()
    server = Server(faults=[lambda h, t: h.reply(400, raw=b'{"error": {"message": "' + b"x" * 120 + b" " + spelled + b'"}}'),
                            lambda h, t: h.reply(200, raw=b'{"choices": [{"message": {"content": "sorry, ' + spelled + b'"}}]}')])
    work.run(server, path, "--sentences", "--parallel", "1", "--tries", "1")
    reasons = [r["reason"] for r in work.rejected()]
    check(len(reasons) == 2 and "xx **" in reasons[0] and "sorry, **" in reasons[1] and not any(KEY[:6] in r for r in reasons), f"{reasons}")
    # escaped once more within the answer's own JSON, or put together from what stands between tags
    says = lambda content: lambda h, t: h.reply(200, {"choices": [{"message": {"content": content}}]})
    server = Server(faults=[says('{"spans": [{"text": "' + spelled.decode() + '", "label": "skill"}]}'), says("<skill>" + KEY[:9] + "<skill></skill>" + KEY[9:] + "</skill>")])
    work.run(server, path, "--sentences", "--parallel", "1")
    reasons = [r["reason"] for r in work.rejected()]
    check(len(reasons) == 2 and all('dropped: "***' in r and r.endswith('*" is not in the sentence') for r in reasons), f"{reasons}")
    # a key without TLS goes to this machine, and through no proxy
    proxy, server = Server(), Server()
    work.run(server, path, "--sentences", env={"http_proxy": proxy.url[:-3], "all_proxy": proxy.url[:-3]})
    check(not proxy.log and sum(server.billed.values()) == 30, "no proxy sees the key")


def test_limits(work):
    path, texts = work.sentences(45)
    server = Server(faults=[status(429, Retry_After="0")] * 3)
    work.run(server, path, "--sentences", "--requests-per-minute", "1200", "--parallel", "20")
    times = [t for t, *_ in server.log]
    # in any stretch of n seconds: a burst of 3 at most, and 20 a second; retries count
    check(len(times) == 48 and (len(times) - 3) / (times[-1] - times[0] + 0.3) <= 20, f"requests a second at the server: {len(times) / (times[-1] - times[0]):.1f}")
    server = Server()
    work.run(server, path, "--sentences", "--tokens-per-minute", str(110 * 60 * 30), "--parallel", "20")
    times = [t for t, *_ in server.log]
    check(len(times) == 45 and (len(times) - 3) / (times[-1] - times[0] + 0.3) <= 30, f"tokens a minute at the server: {110 * 60 * len(times) / (times[-1] - times[0]):.0f}")
    server = Server(faults=[None, status(429, Retry_After="2")])
    work.run(server, path, "--sentences", "--parallel", "4")
    times = [t for t, *_ in server.log]
    pause = max(b - a for a, b in zip(times, times[1:]))
    check(pause > 1.5, f"Retry-After holds all requests: {pause:.2f} s")


def test_kill(work, kills):
    path, texts = work.sentences(150)
    work.run(Server(), path, "--sentences")
    good, out = open(work.out, "rb").read(), work.path("killed.jsonl")
    server, draw, parallel = Server(delay=0.004), random.Random(20261122), 4
    for n in range(kills):
        run = subprocess.Popen(work.command(server, path, "--sentences", "--parallel", str(parallel), "-q", out=out), env=work.environment(), stderr=subprocess.PIPE, text=True)
        goal = sum(server.billed.values()) + draw.randrange(1, len(texts) // kills)
        while run.poll() is None and sum(server.billed.values()) < goal: time.sleep(0.0005)
        if run.poll() is None: run.send_signal(signal.SIGKILL)
        error = run.communicate()[1]
        work.secret(error)
        check(run.returncode in (-9, 0), f"kill {n}: {run.returncode} {error}")
        time.sleep(0.05)
        if run.returncode == 0: break
    if run.returncode: work.run(server, path, "--sentences", out=out)
    again = sum(server.billed.values()) - len(server.billed)
    check(open(out, "rb").read() == good, "the same labels after kills")
    check(len(server.billed) == len(texts) and again <= (n + 1) * parallel, f"billed again: {again} of {sum(server.billed.values())}, {n + 1} kills")
    # a signal that can be heard: what is under way is waited for, nothing is asked twice
    server = Server(delay=0.02)
    run = subprocess.Popen(work.command(server, path, "--sentences", "--parallel", "4", "-q"), env=work.environment(), stderr=subprocess.PIPE, text=True)
    while sum(server.billed.values()) < 20: time.sleep(0.005)
    run.send_signal(signal.SIGTERM)
    error = run.communicate(timeout=60)[1]
    check(run.returncode == 75 and "signal" in error, f"SIGTERM: {run.returncode} {error}")
    work.run(server, path, "--sentences", out=work.out)
    check(open(work.out, "rb").read() == good and max(server.billed.values()) == 1, "SIGTERM, then the rest")


def test_money(work):
    path, texts = work.sentences(60)
    server = Server()
    done = work.run(server, path, "--sentences", "--dry-run", "--json", "--price-in", "2.5", "--price-out", "10", quiet=False)
    told = json.loads(done.stdout)
    check(not server.log and told["questions"] == 60 and told["expected_cost"] > 0 and "cost about" in done.stderr and not os.path.exists(work.out), f"{told} {done.stderr}")
    check(not os.path.exists(work.out + ".partial"), "a dry run leaves nothing")
    # 100 in, 10 out: 0.00012 an answer at 1 and 2 a million
    prices = ["--price-in", "1", "--price-out", "2", "--parallel", "2", "--max-tokens", "200"]
    out = work.path("budget.jsonl")
    done = work.run(server, path, "--sentences", "--budget", "0.003", *prices, expect=75, out=out)
    first = sum(server.billed.values())
    check("budget" in done.stderr and 0 < first <= 25, f"{first} answers for 0.003: {done.stderr}")
    work.run(server, path, "--sentences", "--budget", "0.003", *prices, expect=75, out=out)
    check(sum(server.billed.values()) <= 25, "the budget is the output's, over all runs")
    done = work.run(server, path, "--sentences", "--budget", "1", *prices, "--json", out=out)
    check(json.loads(done.stdout)["tokens_in"] == 6000 and max(server.billed.values()) == 1, f"then all: {done.stdout}")
    # one answer may be as long as --max-tokens, until the first one tells: 0.001 pays for none of 1000 tokens, 0.0045 for one at a time
    server = Server()
    for budget, least, most in ((0.001, 0, 0), (0.0045, 20, 37)):
        work.run(server, path, "--sentences", "--budget", budget, *prices[:-1], "1000", "--parallel", "8", expect=75)
        check(least <= sum(server.billed.values()) <= most, f"{sum(server.billed.values())} answers for {budget}")
    # a server that sends no usage: the bill is a guess and says so
    done = work.run(Server(usage=False), path, "--sentences", *prices, quiet=False)
    check("guessed" in done.stderr, done.stderr)


def test_cache(work):
    cache = work.path("cache")
    path, texts = work.sentences(20)
    server = Server()
    work.run(server, path, "--sentences", "--cache", cache)
    good = open(work.out, "rb").read()
    larger, _ = work.sentences(25, "more.jsonl")
    done = work.run(server, larger, "--sentences", "--cache", cache, "--json")
    told = json.loads(done.stdout)
    check(told["cached"] == 20 and told["answers"] == 5 and sum(server.billed.values()) == 25 and open(work.out, "rb").read().startswith(good), f"{told}")
    work.run(server, path, "--sentences", "--cache", cache, "--labels", "knowledge")
    check(sum(server.billed.values()) == 45 and all(s["label"] == "knowledge" for r in work.rows() for s in r["spans"]), "another prompt is another question")
    names = [os.path.join(at, n) for at, _, files in os.walk(cache) for n in files]
    check(len(names) == 45 and not any(KEY in open(n).read() for n in names), "one file an answer, without the key")
    for n in names: open(n, "w").write("{torn")
    work.run(server, path, "--sentences", "--cache", cache)
    check(sum(server.billed.values()) == 65 and open(work.out, "rb").read() == good, "a damaged file is asked for again")


def test_verify(work):
    """Each named text is looked up; what is not there is dropped, with the reason."""
    cases = {
        "We use Python, SQL and Python.": ([{"text": "Python", "label": "skill", "occurrence": 2}, {"text": "sql", "label": "skill"}], [(23, 29), (15, 18)]),
        "C, C++ and C# and Java": ([{"text": "C", "label": "skill"}, {"text": "C++", "label": "skill"}, {"text": "Java", "label": "skill"}], [(0, 1), (3, 6), (18, 22)]),
        "JavaScript and the team’s “data   science” work": ([{"text": "Java", "label": "skill"}, {"text": "\"Data science\"", "label": "skill"}], [(26, 42)]),
        "ＳＱＬ and  CI / CD": ([{"text": "SQL", "label": "skill"}, {"text": "CI/CD", "label": "skill"}], [(0, 3), (9, 16)]),
        "Machine learning engineer 🚀 learning": ([{"text": "learning", "label": "skill"}, {"text": "machine learning", "label": "skill"}], [(0, 16), (28, 36)]),
        "Nothing of it is here": ([{"text": "Rust", "label": "skill"}, {"text": "Nothing", "label": "colour"}, {"text": "it", "label": "skill", "occurrence": 3}], [(11, 13)]),
        "Cafe\u0301 and café": ([{"text": "café", "label": "skill"}], [(10, 14)]),
        "one two one two one": ([{"text": "one", "label": "skill"}, {"text": "one", "label": "skill"}], [(0, 3), (8, 11)]),
    }
    with open(work.path("cases.jsonl"), "w") as f:
        for text in cases: f.write(json.dumps({"text": text}) + "\n")
    done = work.run(Server(think=lambda text, request: json.dumps({"spans": cases[text][0]})), work.path("cases.jsonl"), "--sentences", "--labels", "skill,other", "--json")
    for row in work.rows():
        got, wanted = sorted((s["start"], s["end"]) for s in row["spans"]), sorted(cases[row["text"]][1])
        check(got == wanted, f"{row['text']}: {got}, not {wanted}")
    reasons = [r["reason"] for r in work.rejected()]
    check(len(reasons) == json.loads(done.stdout)["dropped"] == 3 and sum("is not in the sentence" in r for r in reasons) == 2 and any("not asked for" in r for r in reasons), f"{reasons}")
    check(len(work.read(work.out)["examples"]) == len(cases), "train ner reads all")


def test_tolerant(work):
    """Answers of models that keep to no schema."""
    text = "We use Rust, then more Rust and SQL."
    both, second, none = [(7, 11), (23, 27)], [(23, 27)], []
    answers = [
        ('```json\n{"spans": [{"text": "Rust", "label": "knowledge"}]}\n```', both),
        ('Sure! Here it is: {"spans": [{"text": "Rust", "label": "Knowledge", "occurrence": 2},]} Hope it helps [1].', second),
        ("{'spans': [{'text': 'Rust', 'label': 'knowledge', 'occurrence': 2}]}", second),
        ('<think>maybe {"spans": []}</think>[{"skill": "Rust", "type": "KNOWLEDGE"}]', both),
        ('["Rust"]', both), ('{"knowledge": ["Rust"]}', both), ('{"skills": ["Rust", ]}', both), ("[]", none), ('{"spans": []}', none), ("none", none),
        ("We use Rust, then more @@Rust## and SQL.", second),
        ("We use Rust, then more <knowledge>Rust</knowledge> and SQL.", second),
        ("We use Rust, then more Rust and SQL.", none),
        ('{"result": "We use @@Rust##, then more @@Rust## and SQL."}', both),
        ('{"tokens": ["We", "use", "Rust", ",", "then", "more", "Rust", "and", "SQL", "."], "tags_knowledge": ["O", "O", "O", "O", "O", "O", "B", "O", "O", "O"]}', second),
        ("Tags Knowledge: ['O'] is not what we wanted; {\"entities\": [{\"entity\": \"Rust\"}]} is", both),
    ]
    with open(work.path("one.jsonl"), "w") as f:
        for i in range(len(answers)): f.write(json.dumps({"text": text + " " * i + f"{i}", "id": str(i)}) + "\n")
    tail = re.compile(r" *(\d+)$")
    def think(asked, request):
        n = int(tail.search(asked).group(1))
        return answers[n][0].replace("SQL.", "SQL." + asked[len(text):]) if "SQL" in answers[n][0] and "tokens" not in answers[n][0] else answers[n][0]
    work.run(Server(think=think), work.path("one.jsonl"), "--sentences", "--labels", "knowledge", "--structured", "none")
    rows = {int(r["source"].split("#")[0]): r for r in work.rows()}
    for n, (answer, wanted) in enumerate(answers):
        got = [(s["start"], s["end"]) for s in rows[n]["spans"]] if n in rows else None
        check(got == wanted, f"{answer}: {got}, not {wanted}")
    server = Server()
    for structured, kind in (("object", "json_object"), ("none", None)):
        work.run(server, work.path("one.jsonl"), "--sentences", "--structured", structured, "--extra", '{"top_p": 0.5}')
        check(server.log[-1][3].get("response_format", {}).get("type") == kind and server.log[-1][3]["top_p"] == 0.5, structured)


def test_votes(work):
    path, texts = work.sentences(12)
    pool = {"Python": "knowledge"} | WORDS
    def think(text, request):
        words = dict(WORDS)
        if request["seed"] % 3 == 1: words = {"and": "skill"} | words  # one of three votes says something else
        return json.dumps({"spans": mark(text, words)})
    server = Server(think=think)
    work.run(server, path, "--sentences", "--votes", "3")
    rows = work.rows()
    check(sum(server.billed.values()) == 36 and {r["seed"] for *_, r in server.log} == {0, 1, 2} and all(r["temperature"] == 0.7 for *_, r in server.log), "three answers each")
    check(all(agrees(r) for r in rows), "the majority is kept")
    for r in rows:
        others, kept = len(re.findall(r"(?<!\w)and(?!\w)", r["text"])), len(r["spans"])
        wanted = (kept + others * 2 / 3) / (kept + others) if kept + others else 1
        check(abs(r["weight"] - wanted) < 1e-4 and all(s["weight"] == 1 for s in r["spans"]), f"{r} {wanted}")
    check(any(r["weight"] < 1 for r in rows), "some votes differ")
    # all but one vote broken for good: no majority, so no label
    server = Server(think=lambda text, request: json.dumps({"spans": []}) if request["seed"] == 0 or text != texts[0] else "what?")
    work.run(server, path, "--sentences", "--votes", "3", "--tries", "1")
    check(len(work.rows()) == 11 and len(work.rejected()) == 1, "no majority")


def test_prompt(work):
    prompt = work.path("prompt.txt")
    open(prompt, "w").write("Find {labels} here.\n\nText: Know Rust and Go.\nAnswer: Know @@Rust## and @@Go##.\n\nText: Hello\nAnswer: {\"spans\": []}\n"
                            "Tags Tool: ['O', 'B']\nTokens: ['Use', \"it's\"]\n")
    path, texts = work.sentences(2)
    server = Server()
    work.run(server, path, "--sentences", "--labels", "tool", "--prompt", prompt)
    messages = server.log[0][3]["messages"]
    check(messages[0]["content"] == "Find - tool here." and [m["role"] for m in messages] == ["system"] + ["user", "assistant"] * 3 + ["user"], f"{messages}")
    check(json.loads(messages[2]["content"]) == {"spans": [{"text": "Rust", "label": "tool", "occurrence": 1}, {"text": "Go", "label": "tool", "occurrence": 1}]}, f"{messages[2]}")
    check(messages[5]["content"] == "Use it's" and json.loads(messages[6]["content"])["spans"][0]["text"] == "it's", f"{messages[5:7]}")
    for bad, part in (("Text: x\n", "Answer"), ("Text: Rust\nAnswer: {\"spans\": [{\"text\": \"Go\", \"label\": \"tool\"}]}\n", "not in the sentence"),
                      ("Tags Tool: ['B']\nTokens: ['a', 'b']\n", "number of tags"), ("Tokens: ['a']\n", "without a line")):
        open(prompt, "w").write("Do it.\n" + bad)
        done = work.run(server, path, "--sentences", "--labels", "tool", "--prompt", prompt, expect=1)
        check.refused(done, part, bad, (1,))
        check("line 2" in done.stderr, done.stderr)
    few = os.path.join(DATA, "few_shot.txt")
    if os.path.exists(few):
        work.run(server, path, "--sentences", "--labels", "knowledge", "--prompt", few)
        check(len(server.log[-1][3]["messages"]) == 2 + 2 * open(few).read().count("Tokens:"), "the examples of another project's prompt")
    else:
        print("skipped: no ../shared/data, so the recorded prompt is not read")


def test_audit(work):
    gold = [("We use Python and SQL.", ["Python", "SQL"]), ("Python for testing", ["Python"]), ("German", [])]
    with open(work.path("gold.jsonl"), "w") as f:
        for text, words in gold:
            f.write(json.dumps({"text": text, "spans": [{"start": text.index(w), "end": text.index(w) + len(w), "label": "knowledge"} for w in words]}) + "\n")
    server = Server()
    done = work.run(server, work.path("gold.jsonl"), "--sentences", "--audit", work.path("gold.jsonl"), "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    # of 10 words: Python, SQL, Python right, German too many: precision 3/4, recall 1; kappa by scikit-learn's definition
    k = told["labels"]["knowledge"]
    check((k["precision"], k["recall"], k["spans"], k["spans_gold"]) == (0.75, 1, 4, 3) and abs(k["f1"] - 6 / 7) < 1e-9, f"{told}")
    from sklearn.metrics import cohen_kappa_score
    check(abs(k["kappa"] - cohen_kappa_score(list("OOBOBOBOOO"), list("OOBOBOBOOB"))) < 1e-9, f"{told}")
    done = program("label", "--audit", work.path("gold.jsonl"), "--of", work.out)
    check(done.returncode == 0 and "knowledge" in done.stdout and "0.7500" in done.stdout, f"{done.stdout} {done.stderr}")
    other, _ = work.sentences(3)
    check.refused(program("label", "--audit", work.path("gold.jsonl"), "--of", SAMPLES + "/labels/dev.jsonl"), "share no sentence", "nothing to compare", (1,))


def test_export(work):
    """To Label Studio and doccano, through a person's hands, and back."""
    path, texts = work.sentences(30)
    extra = "🚀 Python, and 𝒳 SQL"  # UTF-16 units are no code points
    with open(path, "a") as f: f.write(json.dumps({"text": extra}) + "\n")
    work.run(Server(), path, "--sentences")
    wanted = work.read(work.out)
    plain = lambda read: [(e["text"], {k: [t or "O" for t in v] for k, v in e["tags"].items()}) for e in read["examples"]]
    work.run(Server(), path, "--sentences", "--export", "doccano", out=work.path("doccano.jsonl"))
    check(plain(work.read(work.out)) == plain(wanted), "doccano's form is read back")
    rows = work.rows()  # what doccano exports: ids beside the same keys
    with open(work.path("doccano-out.jsonl"), "w") as f:
        for n, r in enumerate(rows): f.write(json.dumps({"id": n, "text": r["text"], "label": r["label"], "Comments": []}) + "\n")
    check(plain(work.read(work.path("doccano-out.jsonl"))) == plain(wanted), "doccano's export")
    work.run(Server(), path, "--sentences", "--export", "label-studio", out=work.path("studio.json"))
    tasks = json.load(open(work.out))
    check(len(tasks) == 31 and tasks[-1]["predictions"][0]["result"][0]["value"] == {"start": 3, "end": 9, "text": "Python", "labels": ["knowledge"]}, f"{tasks[-1]}")
    full, mini = [], []
    for n, t in enumerate(tasks):  # what Label Studio exports once a person has submitted each
        full.append({"id": n, "data": t["data"], "predictions": [], "annotations": [{"id": n, "was_cancelled": False, "result": [r | {"id": "x", "origin": "prediction"} for r in t["predictions"][0]["result"]]}]})
        mini.append({"id": n, "text": t["data"]["text"], "source": t["data"]["source"], "label": [r["value"] for r in t["predictions"][0]["result"]]})
    json.dump(full, open(work.path("full.json"), "w"))
    json.dump(mini, open(work.path("mini.json"), "w"))
    check(plain(work.read(work.path("full.json"))) == plain(wanted), "Label Studio's JSON export")
    check(plain(work.read(work.path("mini.json"))) == plain(wanted), "Label Studio's JSON-MIN export")
    done = program("label", "--audit", work.path("full.json"), "--of", work.path("doccano.jsonl"), "--json")
    check(done.returncode == 0 and json.loads(done.stdout)["all"]["f1"] == 1, f"{done.stdout} {done.stderr}")


def test_pick(work):
    path, texts = work.sentences(200)
    with open(path, "a") as f: f.write(json.dumps({"text": texts[0]}) + "\n")
    base = samples_base(work.folder, hidden=16, layers=1, intermediate=32)
    done = program("train", "ner", "--base", base, "--data", SAMPLES + "/labels/dev.jsonl", "--epochs", "2", "--lr", "3e-3", "-q", "-o", work.path("tagger.h5"))
    check(done.returncode == 0, done.stderr)
    def pick(n, *more, name="picked.jsonl"):
        done = program("label", path, "--sentences", "--pick", n, "-m", work.path("tagger.h5"), "-q", "-o", work.path(name), *more)
        check(done.returncode == 0 and "Sanitizer" not in done.stderr, f"pick {n}: {done.stderr}")
        return open(work.path(name), encoding="utf-8").read()
    every, few = [[json.loads(l) for l in pick(n).splitlines()] for n in (1000, 12)]
    check(len(every) == 200 and [r["text"] for r in every] == texts, "each text once, in input order")
    best = sorted(range(200), key=lambda i: (-every[i]["uncertainty"], i))[:12]
    check(few == [every[i] for i in sorted(best)], "the most uncertain")
    check(min(r["uncertainty"] for r in every) >= 0 and len({r["uncertainty"] for r in every}) > 150, "entropies")
    check(pick(12, "--threads", "1") == pick(12, "--threads", "3"), "the same bits with any number of threads")
    by = {rule: [json.loads(l)["uncertainty"] for l in pick(1000, "--pick-by", rule).splitlines()] for rule in ("mean", "max", "sum", "margin")}
    check(all(sum_ + 1e-5 >= max_ >= mean for mean, max_, sum_ in zip(by["mean"], by["max"], by["sum"])), "sum, largest and mean of the same entropies")
    tags = [sum_ / mean for mean, sum_ in zip(by["mean"], by["sum"])] # words times layers
    check(all(abs(n - round(n)) < 0.01 and round(n) % 2 == 0 for n in tags) and max(tags) > 20, f"{tags[:9]}")
    check(all(0 <= m <= 1 for m in by["margin"]) and len({round(m, 4) for m in by["margin"]}) > 100, "margins")
    check.refused(program("label", path, "--pick", "3", "--pick-by", "least", "-m", work.path("tagger.h5"), "-o", work.path("x.jsonl")), "mean, max, sum, margin", "no such rule", (2,))
    doccano = [json.loads(l) for l in pick(12, "--export", "doccano", name="doccano.jsonl").splitlines()]
    check([r["text"] for r in doccano] == [r["text"] for r in few] and all(r["label"] == [] for r in doccano), "for people")
    server = Server()
    work.run(server, path, "--sentences", "--pick", "12", "-m", work.path("tagger.h5"))
    check([r["text"] for r in work.rows()] == [r["text"] for r in few] and len(server.log) == 12, "asked about and labelled: only those")
    check.refused(program("label", path, "--pick", "3", "-o", work.path("x.jsonl")), "-m FILE", "no tagger", (2,))
    check.refused(program("label", path, "--pick", "3", "-m", base, "-o", work.path("x.jsonl")), "no token head", "no tagger", (1,))


def test_tls(work):
    path, texts = work.sentences(3)
    pem = work.path("server.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=here",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem + ".key", "-out", pem + ".crt"], check=True, capture_output=True)
    open(pem, "w").write(open(pem + ".crt").read() + open(pem + ".key").read())
    server = Server(certificate=pem)
    work.run(server, path, "--sentences", env={"SSL_CERT_FILE": pem + ".crt"})
    check(sum(server.billed.values()) == 3, "over TLS")
    server = Server(certificate=pem)
    check.refused(work.run(server, path, "--sentences", expect=1), "certificate", "a server that cannot prove its name", (1,))
    check(not server.log, "it hears nothing")


def test_usage(work):
    path, texts = work.sentences(2)
    for more, part in ((("--base-url", "ftp://x"), "--base-url"), (("--base-url", "http://me:word@host"), "no user or password"), (("--labels", "a,,b"), "--labels"),
                       (("--labels", "a,A"), "twice"), (("--votes", "0"), "--votes"), (("--parallel", "0"), "--parallel"), (("--budget", "1"), "--price-in"),
                       (("--format", "tokens"), "-m FILE"), (("--format", "x"), "spans, tokens"), (("--export", "x"), "label-studio, doccano"), (("-o", path), "input"), (("-o", "-"), "-o FILE"),
                       (("--of", path), "--audit")):
        done = program("label", path, "--sentences", "--model", "m", "-o", work.path("x.jsonl"), *more)
        check.refused(done, part, f"{more}", (2,))
        check("word@" not in done.stderr, "a password is not repeated")
    check.refused(program("label", path, "-o", work.path("x.jsonl")), "--model", "no model", (2,))
    check.refused(program("label", "--audit", path, "--of", path, "--pick", "3"), "--pick", "--of with --pick", (2,))
    beside = work.path("x.jsonl.rejected.jsonl.rows")
    shutil.copy(path, beside)
    check.refused(program("label", beside, "--model", "m", "-o", work.path("x.jsonl")), "input", "an input where we write", (2,))
    check(open(beside, "rb").read() == open(path, "rb").read(), "it is still there")
    check.refused(program("label", "-", "--model", "m", "-o", work.path("x.jsonl")), "more than once", "standard input", (2,))
    check.refused(program("label", path, "--model", "m", "-o", work.path("x.jsonl"), env=work.environment(OPENAI_API_KEY="a\nX-Evil: 1")), "control character", "a key with a line break", (2,))
    check.refused(program("label", path, "--model", "m", "--base-url", "http://example.org/v1", "-o", work.path("x.jsonl"), env=work.environment()), "in the clear", "a key without TLS", (2,))
    check.refused(program("label", path, "--model", "m", "--extra", "[1]", "-o", work.path("x.jsonl")), "--extra", "extra", (1,))
    open(work.path("bad.csv"), "w").write("text\n\"Know Python\"\n\xff\n")
    open(work.path("bad.jsonl"), "w").write('{"text": "Know Python"}\n{"text": 5}\n{broken\n')
    done = work.run(Server(), work.path("bad.jsonl"), "--sentences", "--json")
    check(len(work.rows()) == 1 and len(work.rejected()) == 2 and json.loads(done.stdout)["rejected"] == 2 and not os.path.exists(work.out + ".rejected.jsonl.rows"), f"{work.rejected()}")


def test_replay(work):
    """The recorded labels of gpt-4o, answered by the server as that model answered, come out as the same tags."""
    recorded = [os.path.join(DATA, name) for name in ("tags-04-01-2025.jsonl", "data.jsonl")]
    if not all(map(os.path.exists, recorded)):
        print("skipped: no ../shared/data/in-demand, so recorded labels are not replayed")
        return
    rows = [json.loads(l) for path in recorded for l in open(path, encoding="utf-8") if l.strip()]
    broken = [r for r in rows if len(r["tokens"]) != len(r["tags_knowledge"])]
    rows = [r for r in rows if r not in broken]
    pieces = lambda r: [(t, g, t.startswith("##")) for t, g in zip(r["tokens"], r["tags_knowledge"])]
    words_of = lambda r: [w for w in re.sub(r"\x00##", "", "\x00".join(r["tokens"])).split("\x00")]
    # train reads a word by its first piece, so within a word all are as that says
    tags_of = lambda r: [g for _, g, inside in pieces(r) if not inside]
    spread = lambda r: [("O" if w == "O" else "I") if inside else g for (t, g, inside), w in zip(pieces(r), [w for w, n in zip(tags_of(r), counts(r)) for _ in range(n)])]
    def counts(r):
        out = []
        for _, _, inside in pieces(r):
            if inside and out: out[-1] += 1
            else: out.append(1)
        return out
    sentences = {" ".join(words_of(r)): r for r in rows}
    uneven = sum(spread(r) != r["tags_knowledge"] for r in sentences.values())
    print(f"{len(sentences)} recorded sentences; {len(broken)} with another number of tags than tokens left out, {uneven} with tags that differ within a word")

    def spans(r):
        words, tags, out = words_of(r), tags_of(r), []
        for i, t in enumerate(tags):
            if t == "B" or (t == "I" and (i == 0 or tags[i - 1] == "O")): out.append([i, i + 1])
            elif t == "I": out[-1][1] = i + 1
        return words, out

    def as_json(text):
        words, found = spans(sentences[text])
        items = []
        for a, b in found:
            before = [i for i in range(a + 1) if words[i:i + b - a] == words[a:b]]
            items.append({"text": " ".join(words[a:b]), "label": "knowledge", "occurrence": len(before)})
        return json.dumps({"spans": items}, ensure_ascii=False)

    def as_marked(text):
        words, found = spans(sentences[text])
        for a, b in found:
            words[a] = "@@" + words[a]
            words[b - 1] += "##"
        return " ".join(words)

    def as_tags(text): return "Sure:\n```\n" + json.dumps({"tokens": words_of(sentences[text]), "tags_knowledge": tags_of(sentences[text])}) + "\n```"

    with open(work.path("recorded.jsonl"), "w", encoding="utf-8") as f:
        for text in sentences: f.write(json.dumps({"text": text}) + "\n")
    with open(work.path("wanted.jsonl"), "w", encoding="utf-8") as f:
        for r in sentences.values(): f.write(json.dumps(r) + "\n")
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + sorted({t for r in rows for t in r["tokens"]})
    model = tiny_bert(work.path("cased"), vocab, hidden=16, layers=1, heads=2, intermediate=16)
    json.dump({"do_lower_case": False, "model_max_length": 64}, open(os.path.join(model, "tokenizer_config.json"), "w"))
    done = program("pull", model, "-o", work.path("cased.h5"), "--quiet")
    check(done.returncode == 0, done.stderr)
    wanted = [([w[2] for w in e["words"]], e["tags"]["knowledge"]) for e in work.read(work.path("wanted.jsonl"))["examples"]]
    for say in (as_json, as_marked, as_tags):
        server = Server(think=lambda text, request: say(text))
        common = [work.path("recorded.jsonl"), "--sentences", "--labels", "knowledge", "--structured", "schema" if say is as_json else "none"]
        work.run(server, *common, "--format", "tokens", "-m", work.path("cased.h5"))
        got = work.rows()
        check(len(got) == len(sentences) and not work.rejected(), f"{say.__name__}: {len(got)} of {len(sentences)}, {work.rejected()[:3]}")
        differ = [(r["tokens"], g["tokens"], spread(r), g["tags_knowledge"]) for r, g in zip(sentences.values(), got) if g["tokens"] != r["tokens"] or g["tags_knowledge"] != spread(r)]
        check(not differ, f"{say.__name__}, tokens: {len(differ)} differ, {differ[:1]}")
        check(sum(g["tags_knowledge"] == r["tags_knowledge"] for r, g in zip(sentences.values(), got)) == len(sentences) - uneven, "token for token but for those")
        work.run(server, *common)
        read = [([w[2] for w in e["words"]], e["tags"]["knowledge"]) for e in work.read(work.out)["examples"]]
        check(read == wanted, f"{say.__name__}, spans: {sum(a != b for a, b in zip(read, wanted))} differ")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kills", type=int, default=12)
    arguments.add_argument("--only")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for test in (test_postings, test_faults, test_refused, test_limits, test_kill, test_money, test_cache, test_verify, test_tolerant, test_votes, test_prompt, test_audit,
                     test_export, test_pick, test_tls, test_usage, test_replay):
            if options.only and test.__name__ != "test_" + options.only: continue
            began, place = time.time(), os.path.join(folder, test.__name__)
            os.mkdir(place)
            test(*[Work(place), options.kills][:2 if test is test_kill else 1])
            print(f"{test.__name__}: {time.time() - began:.1f} s", flush=True)
    check.close()


if __name__ == "__main__":
    main()
