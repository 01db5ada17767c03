"""skillwatch fetch against a scripted job board on this machine that misbehaves as real ones do."""
import json, os, random, re, signal, subprocess, sys, tempfile, time, urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from board import Board, answer, cut, drip, job, raw, slow, status, words
from tiny import BIN, SAMPLES, Checks

FETCH = os.path.join(BIN, "skillwatch-fetch")
KEY = "a-very-secret-key"
AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
check = Checks()


class Fetcher:
    def __init__(self, work, board):
        self.work, self.board, self.count, self.config_count = work, board, 0, 0

    def source(self, board=None, **changes):
        """A source for the scripted board; keys that are None go."""
        config = {"name": "board", "url": (board or self.board).url + "/jobs", "params": {"q": "{query}", "offset": "{offset}", "limit": "{limit}"},
                  "headers": {"x-key": "env:BOARD_KEY"}, "paging": {"by": "offset", "size": 10}, "rows": "data.jobs",
                  "fields": {"id": "id", "title": "title", "company": "organization", "location": "locations_derived", "posted": "date_posted", "url": "url",
                             "text": ["missing", "description_text"], "salary": "salary_raw"}}
        config = {k: v for k, v in (config | changes).items() if v is not None}
        self.config_count += 1
        path = os.path.join(self.work, f"source-{self.config_count}.json")
        with open(path, "w") as f: json.dump(config, f)
        return path

    def folder(self):
        self.count += 1
        return os.path.join(self.work, f"out-{self.count}")

    def command(self, source, out, *options, date="05-01-2026"):
        return [FETCH, source, "-o", out, *(["--date", date] if date else []), *map(str, options)]

    def environment(self, **extra):
        return {k: v for k, v in os.environ.items() if k not in AUTHORITIES and not k.endswith("_proxy")} | {"BOARD_KEY": KEY, "RAPID_API_KEY": KEY} | extra

    def run(self, source, out, *options, expect=0, needles=(), env={}, **named):
        done = subprocess.run(self.command(source, out, *options, **named), capture_output=True, text=True, timeout=600, env=self.environment(**env))
        everything = done.stdout + done.stderr
        check(done.returncode == expect, f"{source} {options}: exit status {done.returncode}, expected {expect}: {everything}")
        for needle in needles: check(needle in everything, f"{options}: '{needle}' is not in: {everything}")
        check(KEY not in everything, "the key is in what was printed")
        if os.path.isdir(out + ".fetch"): check(not any(KEY.encode() in data for data in files_of(out + ".fetch", True).values()), "the key is on disk")
        return done

    def counts(self, *arguments, **named):
        return json.loads(self.run(*arguments, "--json", **named).stdout)


def files_of(folder, all_files=False):
    """What must be the same however a run went: not the index (it holds times of files), the pace, the journal."""
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            if not all_files and (name in ("index", "lock") or name.startswith("quota")): continue
            with open(path, "rb") as f: found[os.path.relpath(path, folder)] = f.read()
    return found


def outputs(out):
    return {**{"txt/" + k: v for k, v in files_of(out).items()}, **{"fetch/" + k: v for k, v in files_of(out + ".fetch").items()}}


def rows_of(out, date="05-01-2026"):
    with open(f"{out}.fetch/{date}.jsonl", encoding="utf-8") as f: return [json.loads(line) for line in f]


def test_plain(f, board):
    """All is well: files, fields, paging of every kind, the built-in source, the reader of postings."""
    board.fresh(jobs=[job(n) for n in range(25)])
    out = f.folder()
    n = f.counts(f.source(), out, "--query", "C++ & more")
    check((n["new"], n["pages"], n["requests"]) == (25, 3, 3), f"counts {n}")
    check([urllib.parse.parse_qs(urllib.parse.urlsplit(p).query) for _, p, *_ in board.log] ==
          [{"q": ["C++ & more"], "offset": [str(o)], "limit": ["10"]} for o in (0, 10, 20)], f"asked: {[p for _, p, *_ in board.log]}")
    check(all(h.get("x-key") == KEY for _, _, h, *_ in board.log), "the key is sent")
    rows = rows_of(out)
    check([r["file"] for r in rows] == [f"05-01-2026/{i + 1}" for i in range(25)] and rows[3]["row"] == job(3), "rows")
    check(rows[0]["location"] == "Berlin, Remote" and rows[0]["salary"] == '{"min":0}' and rows[0]["date"] == "05-01-2026" and rows[0]["source"] == "board", f"fields {rows[0]}")
    for r in rows:
        with open(f"{out}/{r['file']}.txt") as text: check(text.read() == r["text"] + "\n" == r["row"]["description_text"] + "\n", "text")
    check(not [name for name in os.listdir(out + ".fetch") if name.endswith((".partial", "lock")) or "rejected" in name], f"left over: {os.listdir(out + '.fetch')}")

    pagings = {"page": {"params": {"page": "{page}", "limit": "{limit}"}, "paging": {"by": "page", "size": 10}},
               "cursor": {"params": {"cursor": "{cursor}", "limit": "{limit}"}, "paging": {"by": "cursor", "size": 10, "path": "meta.cursor"}},
               "next field": {"url": board.url + "/first", "params": None, "paging": {"by": "next", "path": "meta.next"}},
               "next link": {"url": board.url + "/next", "params": None, "paging": {"by": "next"}},
               "until empty": {"paging": {"by": "offset", "size": 10, "until": "empty"}},
               "post": {"method": "POST", "params": None, "body": {"offset": "{offset}", "limit": "{limit}", "q": "{query}", "list": [1, "x"]}}}
    for name, changes in pagings.items():
        board.fresh()
        other = f.folder()
        n = f.counts(f.source(**changes), other)
        check(n["new"] == 25 and [r["row"] for r in rows_of(other)] == [r["row"] for r in rows], f"{name}: {n}")
        check(n["requests"] == (4 if name == "until empty" else 3), f"{name}: {n['requests']} requests")
    check(json.loads(board.log[1][4]) == {"offset": 10, "limit": 10, "list": [1, "x"]}, f"a body with numbers, without what has no value: {board.log[1][4]}")

    board.fresh()
    out = f.folder()
    n = f.counts("linkedin", out, "--base-url", board.url, "--query", "data engineer", "--since", "03-01-2026", "--limit", 12)
    path = urllib.parse.urlsplit(board.log[0][1])
    check(path.path == "/active-jb-7d" and urllib.parse.parse_qs(path.query) ==
          {"title_filter": ["data engineer"], "description_type": ["text"], "date_filter": ["2026-01-03"], "offset": ["0"], "limit": ["12"]}, f"linkedin: {path}")
    check(board.log[0][2]["x-rapidapi-key"] == KEY and board.log[0][2]["x-rapidapi-host"].endswith("rapidapi.com") and n["new"] == 12 and len(board.log) == 1, f"linkedin: {n}")
    check(rows_of(out)[2]["company"] == "Company 2", "linkedin's fields")
    # without --date: today's folder
    n = f.counts("linkedin", f.folder(), "--base-url", board.url, "--limit", 2, date=None)
    check(re.fullmatch(r"\d\d-\d\d-\d{4}", n["date"]) and "title_filter" not in board.log[-1][1], "today")


def test_duplicates(f, board):
    """By id, by text, within a run and across weeks; the index is made anew from the rows; unchanged pages are not sent again."""
    jobs = [job(n) for n in range(15)]
    near = jobs[2]["description_text"].split(" ")
    near[30] = "changed"  # 5 of some 60 runs of words
    jobs.append(job(90, text=" ".join(near)))
    jobs.append(dict(job(91), id=jobs[4]["id"]))
    half = jobs[3]["description_text"].split(" ")
    jobs.append(job(92, text=" ".join(half[:30]) + " " + words(5000, 30)))  # half of it is new: another posting
    board.fresh(jobs=jobs)
    out, source = f.folder(), f.source()
    n = f.counts(source, out)
    check((n["new"], n["known_id"], n["known_text"]) == (16, 1, 1), f"within a run: {n}")
    before = outputs(out)
    board.fresh()
    n = f.counts(source, out)
    check((n["new"], n["unchanged_pages"], n["requests"]) == (0, 2, 2), f"again: {n}")
    check(all("If-None-Match" in h for _, _, h, *_ in board.log) and outputs(out) == before, "again: 304, and the same files")
    board.fresh(jobs=[job(n) for n in range(10, 20)] + [job(95, text=" ".join(near) + " end")])
    n = f.counts(source, out, date="12-01-2026")
    check((n["new"], n["known_id"], n["known_text"]) == (5, 5, 1), f"another week: {n}")
    # the same, with a lost, a damaged, and an old index, and with rows that an index does not fit
    with open(out + ".fetch/index", "rb") as file: index = file.read()
    for damage in (None, index[:-9], index[:500] + b"x" + index[501:], b""):
        os.remove(out + ".fetch/index")
        if damage is not None:
            with open(out + ".fetch/index", "wb") as file: file.write(damage)
        n = f.counts(source, out, date="19-01-2026")
        check(n["new"] == 0, f"another index: {n}")
    os.utime(f"{out}.fetch/05-01-2026.jsonl")
    board.etags = False
    board.fresh()
    n = f.counts(source, out, date="19-01-2026")
    check((n["new"], n["known_id"], n["known_text"]) == (0, 10, 1), f"a file that is younger than the index: {n}")
    board.etags = True
    # a second source and a second query on the same day go on with the numbers; somebody's own file is not overwritten
    with open(f"{out}/12-01-2026/40.txt", "w") as file: file.write("mine\n")
    board.fresh(jobs=[job(200), job(201)])
    n = f.counts(f.source(name="other"), out, date="12-01-2026")
    check([r["file"] for r in rows_of(out, "12-01-2026")][-2:] == ["12-01-2026/41", "12-01-2026/42"], "numbers go on")
    check(open(f"{out}/12-01-2026/40.txt").read() == "mine\n", "a file of somebody else")


def test_faults(f, board):
    """Faults on a schedule: nothing is lost, nothing comes twice; what cannot be cured is one clear line."""
    jobs = [job(n) for n in range(35)]
    board.fresh(jobs=jobs)
    reference = f.folder()
    f.run(f.source(), reference)
    repeat = lambda handler: answer(handler, 200, json.dumps({"data": {"jobs": jobs[:10]}}).encode())
    faults = {0: status(503), 1: status(429, Retry_After="1"), 3: cut, 4: raw(b"<html>502"), 6: raw(b'{"data": {}}'), 7: drip(20), 9: repeat}
    board.fresh(faults)
    out = f.folder()
    error = f.run(f.source(timeout=1), out).stderr
    check({k: v for k, v in outputs(out).items() if "validators" not in k} == {k: v for k, v in outputs(reference).items() if "validators" not in k}, "the same files, whatever the server did")
    check(not board.script and error.count("trying again") == 6, f"all faults met: {board.script}, {error}")
    gaps = [b[3] - a[3] for a, b in zip(board.log, board.log[1:])]
    check(gaps[1] >= 0.95, f"Retry-After is followed: {gaps}")

    def broken(action, needles, expect=1, options=(), **changes):
        board.fresh({"always": action})
        out = f.folder()
        error = f.run(f.source(**changes), out, *options, expect=expect, needles=["board: page 1", *needles]).stderr
        check(error.count("\n") - error.count("trying again") == 1 and not os.path.exists(out), f"one clear line: {error}")
        return len(board.log)
    check(broken(raw(b"<html>"), ["not valid JSON", "<html>"]) == 3, "three tries for broken JSON")
    broken(raw(b"<html>" + KEY.encode()), ["not valid JSON", "not shown"])
    broken(raw(b'{"jobs": []}'), ['no list at "data.jobs"'])
    broken(raw(b'[1, 2]'), ["no list"])
    broken(raw(b""), ["not valid JSON"])
    broken(raw(b"[" * 100000), ["not valid JSON"])
    check(broken(raw(b" " * 3000000), ["limit of 1000000 bytes"], max_bytes=1000000) == 1, "too long: once is enough")
    broken(status(401), ["401", "check the key in BOARD_KEY"])
    broken(status(404), ["404"])
    broken(status(500), ["500", "time limit"], expect=75, options=["--time-limit", 2])
    broken(status(429, Retry_After="3000"), ["429", "time limit"], expect=75, options=["--time-limit", 60])
    broken(status(503, Retry_After=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3000))), ["503", "time limit"], expect=75, options=["--time-limit", 60])
    began = time.time()
    broken(drip(60), ["time limit"], expect=75, options=["--time-limit", 3], timeout=2)
    check(time.time() - began < 30, "a server that drips is bounded")

    # a board that ignores paging, and one that never ends
    board.fresh({"always": repeat})
    n = f.counts(f.source(), f.folder(), needles=["rows of pages before"])
    check(n["new"] == 10 and len(board.log) == 5, f"a server that ignores the offset: {n}")
    board.fresh({"always": lambda h: answer(h, 200, json.dumps({"data": {"jobs": []}, "meta": {"cursor": "same"}}).encode())})
    n = f.counts(f.source(params={"cursor": "{cursor}"}, paging={"by": "cursor", "path": "meta.cursor"}), f.folder())
    check(n["pages"] == 2, f"a cursor that stays: {n}")
    board.fresh({"always": lambda h: answer(h, 200, json.dumps({"data": {"jobs": []}, "meta": {"cursor": str(time.time())}}).encode())})
    n = f.counts(f.source(params={"cursor": "{cursor}"}, paging={"by": "cursor", "path": "meta.cursor", "most": 7}), f.folder())
    check(n["pages"] == 7, f"cursors without end: {n}")
    board.fresh(jobs=[])
    n = f.counts(f.source(), f.folder())
    check(n["new"] == 0 and n["pages"] == 1, f"an empty board: {n}")

    # bad rows are set aside; a 10 MB body is no matter
    bad = [job(0), "text", {"id": "5"}, dict(job(1), description_text=""), dict(job(2), description_text="a\0b"), dict(job(3), description_text="x" * 1100000), job(4), [1],
           dict(job(6), description_text=None, missing="<b>other</b> field")]
    body = json.dumps({"data": {"jobs": bad}}).encode().replace(b"Engineer 4", b"Engineer \xff\xfe 4")
    board.fresh({0: raw(body)})
    out = f.folder()
    n = f.counts(f.source(), out, needles=["were not UTF-8"])
    rejected = [json.loads(line) for line in open(f"{out}.fetch/05-01-2026-board.rejected.jsonl")]
    check((n["new"], n["rejected"]) == (2, 7) and [r["line"] for r in rejected] == [2, 3, 4, 5, 6, 7, 8], f"set aside: {n}, {rejected}")
    check([r["file"] for r in rejected] == ["board, page 1"] * 7 and "UTF-8" in rejected[5]["reason"] and "NUL" in rejected[3]["reason"], f"reasons {rejected}")
    big = [dict(job(n), filler="y" * 1000000) for n in range(10)]
    board.fresh({0: raw(json.dumps({"data": {"jobs": big}}).encode())}, jobs=[])
    n = f.counts(f.source(), f.folder())
    check(n["new"] == 10, f"10 MB: {n}")
    html = [job(0, text="<p>We &amp; you</p><ul><li>one</li></ul>")]
    board.fresh(jobs=html)
    out = f.folder()
    f.run(f.source(html=True), out)
    check(open(f"{out}/05-01-2026/1.txt").read() == "We & you\n\n- one\n", "HTML")


def test_values(f, board):
    """NULs and large integers are the matter of one row; a key that the server repeats stays out of files and of what is printed."""
    board.fresh(jobs=[dict(job(0), title="a\0b"), job(1)])
    out = f.folder()
    check(f.counts(f.source(), out)["new"] == 2 and rows_of(out)[0]["title"] == "a\0b", "a NUL in a title")
    board.fresh(jobs=[dict(job(5), description_text=job(0)["description_text"]), job(6)])
    n = f.counts(f.source(), out, "--strip-boilerplate")
    check((n["new"], n["known_text"]) == (1, 1) and len(rows_of(out)) == 3, f"a NUL in a row that is read again: {n}")
    os.remove(out + ".fetch/index")
    board.fresh(jobs=board.jobs[::-1])
    n = f.counts(f.source(), out, date="12-01-2026")
    check((n["new"], n["known_id"], n["known_text"]) == (0, 1, 1), f"and for another index: {n}")

    board.fresh(jobs=[dict(job(0), id=42, salary_raw=2**64), dict(job(1), id=2**60 + 1), dict(job(2), id=2**60 + 2), dict(job(3), id="43")])
    out = f.folder()
    n = f.counts(f.source(), out)
    check((n["new"], n["rejected"]) == (2, 2) and [r["id"] for r in rows_of(out)] == ["42", "43"], f"large integers: {n}")
    check("2^53" in open(f"{out}.fetch/05-01-2026-board.rejected.jsonl").read(), "why ids are set aside")

    source = f.source(params={"k": "{env:BOARD_KEY}"}, headers=None, paging={"by": "next", "path": "meta.next"})
    key = "a/key+with=signs"  # as it is, and as servers write it in addresses and in JSON
    escaped = urllib.parse.quote(key, safe="")
    first = {"data": {"jobs": [dict(job(0), url=f"https://x/?k={key}")]}, "meta": {"next": f"/jobs?k={escaped}&cursor=1"}, "key": key}
    board.fresh({0: raw(json.dumps(first).replace("/", "\\/").encode()), 1: status(404)}, jobs=[job(0), job(1)])
    out, env = f.folder(), {"BOARD_KEY": key}
    printed = f.run(source, out, expect=1, env=env).stderr + f.run(source, out, "--dry-run", env=env, needles=["?k={env:BOARD_KEY}&cursor=1"]).stdout
    kept = [printed.encode(), *files_of(out + ".fetch", True).values()]
    check(not any(form.encode() in data for form in (key, escaped, key.replace("/", "\\/")) for data in kept), "no form of the key is kept")
    board.fresh()
    n = f.counts(source, out, env=env)
    check(n["new"] == 2 and [path for _, path, *_ in board.log] == [f"/jobs?k={escaped}&cursor=1"], f"the key is asked with: {n}, {board.log}")
    check(rows_of(out)[0]["url"] == "https://x/?k={env:BOARD_KEY}", "the key's name in a row")


def test_turns(f, board):
    """A run that was interrupted while it wrote ends before another may write: the day's numbers are everybody's."""
    out, one, two = f.folder(), f.source(), f.source(name="other")
    os.makedirs(out)
    open(out + "/05-01-2026", "w").close()  # no folder can be made
    board.fresh(jobs=[job(n) for n in range(3)])
    f.run(one, out, "--query", "it's", expect=1)
    os.remove(out + "/05-01-2026")
    board.fresh(jobs=[job(n) for n in range(10, 14)])
    for date in ("05-01-2026", "12-01-2026"):
        error = f.run(two, out, expect=1, date=date, needles=[f"run this first: skillwatch fetch '{one}' -o '{out}' --query 'it'\\''s' --date '05-01-2026'"]).stderr
        check(error.count("\n") == 1, f"one line: {error}")
    n = f.counts(one, out, "--query", "it's")
    check(n["new"] == 3 and not board.log, f"what was held is written, and does not count as old: {n}, {board.log}")
    check(f.counts(two, out)["new"] == 4, "then the other")
    rows = rows_of(out)
    check([r["file"] for r in rows] == [f"05-01-2026/{i + 1}" for i in range(7)], "no row is lost")
    for r in rows: check(open(f"{out}/{r['file']}.txt").read() == r["text"] + "\n", "its text")
    check(not os.path.exists(out + ".fetch/writing"), "nobody writes")


def test_limits(f, board):
    """The pace and the quota are kept, also across runs that end early; --limit; --dry-run."""
    board.fresh(jobs=[job(n) for n in range(60)])
    paced = f.source(rate={"requests": 3, "seconds": 1}, paging={"by": "offset", "size": 10, "until": "empty"})
    f.run(paced, f.folder())
    times = [entry[3] for entry in board.log]
    check(len(times) == 7 and all(b - a >= 1 for a, b in zip(times, times[3:])), f"never more than 3 in a second: {[round(t - times[0], 2) for t in times]}")
    board.fresh()
    out, source = f.folder(), f.source(rate={"per_day": 4})
    f.run(source, out, expect=75, needles=["quota of 4 requests a day", "4 pages are kept"])
    check(len(board.log) == 4 and not os.path.exists(out), "4 requests, no files")
    f.run(source, out, expect=75, needles=["quota"])
    check(len(board.log) == 4, "no more that day")
    quota = f"{out}.fetch/quota-board.json"
    with open(quota) as file: state = json.load(file)
    with open(quota, "w") as file: json.dump(state | {"day": "2000-01-01"}, file)
    n = f.counts(source, out, needles=["4 pages of a run"])
    check((n["new"], n["requests"]) == (60, 3) and len(board.log) == 7, f"the next day: {n}")
    reference = f.folder()
    f.run(f.source(rate={"per_day": 100}), reference)
    # --finish writes what is there
    board.fresh()
    out = f.folder()
    f.run(source, out, expect=75)
    n = f.counts(source, out, "--finish", env={"BOARD_KEY": ""})
    check(n["new"] == 40 and len(board.log) == 4, f"--finish: {n}")
    f.run(source, out, "--finish", expect=1, needles=["nothing to finish"])
    # --limit: no more rows are asked for than are wanted
    board.fresh()
    n = f.counts(f.source(), f.folder(), "--limit", 25)
    check(n["new"] == 25 and ["limit=10" in p for _, p, *_ in board.log] == [True, True, False] and "limit=5" in board.log[2][1], f"--limit: {n}")
    # nothing is asked
    board.fresh()
    out = f.folder()
    f.run(f.source(), out, "--dry-run", "--limit", 25, needles=["GET " + board.url + "/jobs?offset=0&limit=10", "offset=20&limit=5", "x-key: *** (BOARD_KEY)"])
    f.run("linkedin", out, "--dry-run", env={"RAPID_API_KEY": ""}, needles=["active-jb-7d", "RAPID_API_KEY, which is not set", "60 requests in 60 s"])
    f.run(f.source(url=board.url + "/{env:BOARD_KEY}/jobs", headers={"Api-Token": KEY}), out, "--dry-run", needles=["/***/jobs", "Api-Token: ***"])
    for name in sorted(os.listdir(os.path.join(SAMPLES, "sources"))):
        f.run(os.path.join(SAMPLES, "sources", name), out, "--dry-run", needles=["GET https://"])
    check(not board.log and not os.path.exists(out) and not os.path.exists(out + ".fetch"), "a dry run does nothing")


def test_boilerplate(f, board):
    line = "{} is an equal opportunity employer and does not discriminate on any grounds whatsoever."
    jobs = [job(n, text=f"Requirements\n{words(n, 40)}\n\n{line.format(f'Company {n % 7}')}", company=f"Company {n % 7}") for n in range(10)]
    jobs.append(job(50, text=f"Requirements\n{words(50, 40)}\n{words(51, 12)}", company="Company 1"))
    board.fresh(jobs=jobs)
    out = f.folder()
    n = f.counts(f.source(), out, "--strip-boilerplate")
    report = [json.loads(l) for l in open(f"{out}.fetch/05-01-2026-board.boilerplate.jsonl")]
    check(n["boilerplate_cut"] == 10 and len(report) == 1 and report[0] == {"companies": 5, "postings": 10, "cut": 10, "text": line.format("Company 0")}, f"{n} {report}")
    texts = [open(f"{out}/05-01-2026/{i + 1}.txt").read() for i in range(11)]
    check(texts[3] == f"Requirements\n{words(3, 40)}\n" and "equal opportunity" in rows_of(out)[3]["text"] and texts[10] == jobs[10]["description_text"] + "\n", "texts without boilerplate")
    # what earlier weeks hold counts, too
    board.fresh(jobs=[job(60, text=f"{words(60, 40)}\n{line.format('New Co')}", company="New Co")])
    f.run(f.source(), out, "--strip-boilerplate", date="12-01-2026")
    check(open(f"{out}/12-01-2026/1.txt").read() == words(60, 40) + "\n", "learned before")


def test_config(f, board):
    def refused(*needles, **changes):
        f.run(f.source(**changes), f.folder(), expect=2, needles=needles)
    board.fresh()
    refused("\"colour\" is not known", colour=1)
    refused("\"speed\"", "rate", rate={"speed": 1})
    refused("url", url="ftp://x/")
    refused("login", url="https://me:pw@x/")
    refused("plain http", url="http://board.test/jobs")
    refused("{what}", params={"q": "{what}"})
    refused("needs {offset}", params={})
    refused("cursor", paging={"by": "cursor"}, params={"c": "{cursor}"})
    refused("hop", paging={"by": "hop"})
    refused("\"text\"", fields={"id": "id"})
    refused("posted", fields={"text": "t", "date": "d"})
    refused("list of paths", fields={"text": [1]})
    refused("name", name="a/b")
    refused("name of a header", headers={"a b": "c"})
    refused("line break", headers={"a": "c\nd"})
    refused("POST", body={"a": 1})
    refused("needs a \"body\"", method="POST")
    refused("max_bytes", max_bytes=0)
    for base in ("http://127.0.0.1:1/{x", "http://localhost:x@evil.example", "https://a.example?b", "https://a.example#b"):
        f.run(f.source(), f.folder(), "--base-url", base, expect=2, needles=["--base-url should hold none of"])
    f.run(f.source(), f.folder(), expect=2, env={"BOARD_KEY": ""}, needles=["BOARD_KEY is not set"])
    f.run(f.source(), f.folder(), expect=2, env={"BOARD_KEY": "two\nlines"}, needles=["BOARD_KEY", "line break"])
    f.run(os.path.join(f.work, "missing.json"), f.folder(), expect=2, needles=["linkedin", "missing.json"])
    f.run(f.source(), f.folder(), "--since", "2026-01-01", expect=2, needles=["{since}"])
    f.run("linkedin", f.folder(), "--since", "yesterday", expect=2, needles=["yesterday"])
    f.run(f.source(), f.folder(), "--similarity", "2", expect=2, needles=["--similarity"])
    check(not board.log, "nothing was asked")


def make_certificate(work, name, names, signer=None, days=7):
    """name.pem; signed by `signer`, or an authority; gives the path of certificate and key in one file."""
    base = os.path.join(work, name)
    run = lambda *c: subprocess.run(["openssl", *c], check=True, capture_output=True)
    if not signer:
        run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", base + ".key", "-out", base + ".pem", "-days", "7", "-subj", f"/CN={name}")
        return base + ".pem"
    run("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", base + ".key", "-out", base + ".csr", "-subj", f"/CN={name}")
    with open(base + ".ext", "w") as e: e.write(f"subjectAltName={names}\n")
    run("x509", "-req", "-in", base + ".csr", "-CA", signer, "-CAkey", signer[:-4] + ".key", "-CAcreateserial", "-days", str(days), "-extfile", base + ".ext", "-out", base + ".crt")
    with open(base + ".both", "w") as both: both.write(open(base + ".crt").read() + open(base + ".key").read())
    return base + ".both"


def test_hosts(f, board):
    """Certificates are checked; keys stay with their host; the process list shows none."""
    ours = make_certificate(f.work, "ours", "")
    here = Board([job(n) for n in range(3)], make_certificate(f.work, "here", "IP:127.0.0.1", ours))
    elsewhere = Board([job(n) for n in range(3)], make_certificate(f.work, "elsewhere", "DNS:elsewhere.test", ours))
    source = f.source(here)
    f.run(source, f.folder(), expect=1, needles=["ertificate"])
    f.run(f.source(elsewhere), f.folder(), expect=1, env={"SSL_CERT_FILE": ours}, needles=["board: page 1"])
    check(not here.log and not elsewhere.log, "nothing was sent")
    check(f.counts(source, f.folder(), env={"SSL_CERT_FILE": ours})["new"] == 3, "a certificate that is trusted")
    # redirects
    stranger = Board([job(n) for n in range(3)])
    move = lambda to: lambda handler: answer(handler, 302, b"", {"Location": to + handler.path})
    board.fresh({0: move(stranger.url)}, jobs=[])
    check(f.counts(f.source(), f.folder())["new"] == 3, "redirected")
    check(len(stranger.log) == 1 and "x-key" not in {k.lower() for k in stranger.log[0][2]}, "no key for another host")
    board.fresh({0: move("")}, jobs=[job(1)])
    check(f.counts(f.source(), f.folder())["new"] == 1 and all("x-key" in h for _, _, h, *_ in board.log), "within the host with the key")
    here.fresh({0: move(stranger.url)})
    f.run(source, f.folder(), expect=1, env={"SSL_CERT_FILE": ours}, needles=["https"])
    board.fresh({"always": move("")})
    f.run(f.source(), f.folder(), expect=1, needles=["redirects"])
    board.fresh({0: lambda h: answer(h, 200, json.dumps({"data": {"jobs": [job(8)]}, "meta": {"next": stranger.url + "/next?cursor=0"}}).encode())})
    stranger.fresh()
    f.run(f.source(params=None, paging={"by": "next", "path": "meta.next"}), f.folder())
    check(len(stranger.log) == 1 and "x-key" not in {k.lower() for k in stranger.log[0][2]}, "nor for a next page on another host")
    board.fresh({0: move("file:///etc/passwd")})
    f.run(f.source(), f.folder(), expect=1)
    # the process list
    board.fresh({0: drip(3)})
    process = subprocess.Popen(f.command(f.source(), f.folder()), env=f.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not board.log and process.poll() is None: time.sleep(0.01)
    with open(f"/proc/{process.pid}/cmdline", "rb") as p: check(KEY.encode() not in p.read(), "the key is in the process list")
    process.kill()
    process.wait()


def test_kills(f, board, kills=20, seed=11):
    """Killed at random moments and run again, two weeks of fetching end in the same files."""
    line = "We are an equal opportunity employer and we welcome everyone who can do the work."
    weeks = {"05-01-2026": [job(n) for n in range(45)] + [dict(job(3), id="other")], "12-01-2026": [job(n) for n in range(30, 70)]}
    weeks = {date: [dict(j, description_text=j["description_text"] + "\n" + line) for j in jobs] for date, jobs in weeks.items()}
    for jobs in weeks.values(): jobs.insert(7, "bad")
    source, reference, took = f.source(rate={"requests": 50, "seconds": 1}), f.folder(), 0
    for date, jobs in weeks.items():
        board.fresh({"always": slow}, jobs=jobs)
        began = time.time()
        f.run(source, reference, "--strip-boilerplate", date=date)
        took = max(took, time.time() - began)
    rng, killed = random.Random(seed), 0
    for round in range(15):
        if killed >= kills: break
        out = f.folder()
        for date, jobs in weeks.items():
            code = None
            while code != 0:
                board.fresh({"always": slow}, jobs=jobs)
                process = subprocess.Popen(f.command(source, out, "--strip-boilerplate", date=date), env=f.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                try:
                    process.wait(rng.random() * took if killed < 3 * kills else 100)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                error, code = process.communicate(timeout=100)[1], process.returncode
                killed += code == -signal.SIGKILL
                if not check(code in (0, -signal.SIGKILL), f"after {killed} kills: {code} {error}"): return
        found, wanted = outputs(out), outputs(reference)
        check(found == wanted, f"the same files after {killed} kills (seed {seed}): {[k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k)]}")
    check(killed >= 5, f"only {killed} kills hit")
    print(f"{killed} kills")
    # a page that was journalled is not asked for again: the run goes on at the next
    board.fresh({"always": lambda h: len(board.log) > 2 and drip(30)(h)}, jobs=weeks["05-01-2026"])
    out = f.folder()
    process = subprocess.Popen(f.command(source, out), env=f.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(board.log) < 3 and process.poll() is None: time.sleep(0.01)
    second = subprocess.run(f.command(source, out), env=f.environment(), capture_output=True, text=True)
    check(second.returncode == 75 and "another run" in second.stderr, f"a second run at the same time: {second.stderr}")
    process.send_signal(signal.SIGKILL)
    process.wait()
    board.fresh()
    f.run(source, out)
    check("offset=20" in board.log[0][1], f"goes on with the third page: {board.log[0][1]}")


def main():
    with tempfile.TemporaryDirectory() as work:
        board = Board([])
        f = Fetcher(work, board)
        for test in (test_plain, test_duplicates, test_faults, test_values, test_turns, test_limits, test_boilerplate, test_config, test_hosts, test_kills):
            began = time.time()
            test(f, board)
            print(f"{test.__name__}: {time.time() - began:.1f} s", flush=True)
    check.close()


if __name__ == "__main__":
    main()
