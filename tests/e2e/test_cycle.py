"""skillwatch cycle and rollback: three weeks with a job board and a chat model on this machine; killed at random moments they end in the same files.

usage: test_cycle.py [--kills N] [--seed N] [--real]
  --real  three weeks of ../shared/data/in-demand, with the labels that gpt-4o gave as the chat model's answers, instead of samples/
"""
import argparse, json, os, random, re, shutil, signal, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from board import Board, job
from chat import Server, mark
from hub import Hub
from tiny import BIN, ROOT, SAMPLES, Checks, program, samples_base, tiny_bert, vocabulary

check = Checks()
DATA = os.path.join(ROOT, "../shared/data/in-demand")
STEPS = ("fetch", "label", "train", "compare", "promote", "tag", "link", "skills", "embed", "map", "cluster", "report")


def lines_of(path):
    with open(path, encoding="utf-8") as f: return [json.loads(line) for line in f]


def write_lines(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        for row in rows: f.write(json.dumps(row, ensure_ascii=False) + "\n")


def spans_in(text, marked):
    """mark's spans, with their places."""
    out = []
    for s in marked:
        found = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(s['text'])}(?![\w+#])", text)]
        if len(found) >= s["occurrence"]: out.append({"start": found[s["occurrence"] - 1], "end": found[s["occurrence"] - 1] + len(s["text"]), "label": s["label"]})
    return out


class Samples:
    """Postings of samples/; the chat model marks the words it knows."""
    weeks = {date: [date] for date in ("05-01-2026", "12-01-2026", "19-01-2026")}  # the day of the run: folders of postings
    folder = SAMPLES + "/job-postings"
    label, train = {}, {"epochs": 12, "lr": 5e-3, "batch-tokens": 300}
    per_folder = 8

    def __init__(self):
        """Single words that samples/labels/ label, with their layer."""
        rows = [r for name in ("train", "test") for r in lines_of(f"{SAMPLES}/labels/{name}.jsonl")]
        words = {r["text"][s["start"]:s["end"]]: s["label"].lower() for r in rows for s in r["spans"]}
        self.named = {w: label for w, label in words.items() if re.fullmatch(r"[A-Za-z]{3,}", w)}

    def texts_of(self, week):
        """The first postings of each of the week's folders."""
        for date in self.weeks[week]:
            names = sorted(os.listdir(os.path.join(self.folder, date)), key=lambda n: int(n[:-4]))[:self.per_folder]
            for name in names: yield open(os.path.join(self.folder, date, name), encoding="utf-8").read()

    def think(self, text, request): return json.dumps({"spans": mark(text, self.named)})
    def base(self, folder): return samples_base(folder, hidden=32, layers=1, intermediate=64)
    def test(self):
        texts = [r["text"] for r in lines_of(SAMPLES + "/labels/test.jsonl")]
        return [{"text": t, "spans": spans_in(t, mark(t, self.named))} for t in texts]


class Real(Samples):
    """Postings of the in-demand project. The answers to what gpt-4o was asked are its own; other sentences are marked with the skills that it ever named."""
    weeks = {"04-01-2025": ["03-01-2025", "04-01-2025"], "12-01-2025": ["07-01-2025", "12-01-2025"], "19-01-2025": ["19-01-2025"]}
    folder = os.path.join(DATA, "job-postings")
    label, train = {"labels": "knowledge"}, {"epochs": 12, "lr": 5e-3, "batch-tokens": 300}
    per_folder = 100

    def __init__(self):
        rows = [r for name in ("tags-04-01-2025.jsonl", "data.jsonl") for r in lines_of(os.path.join(DATA, name)) if len(r["tokens"]) == len(r["tags_knowledge"])]
        self.named, self.answers = {}, {}
        for r in rows:
            words, tags = [], []
            for token, tag in zip(r["tokens"], r["tags_knowledge"]):
                if token.startswith("##") and words: words[-1] += token[2:]
                else: words.append(token), tags.append(tag)
            found = []
            for word, tag in zip(words, tags):
                if tag == "B": found.append([word])
                elif tag == "I" and found: found[-1].append(word)
            skills = [" ".join(words) for words in found]
            self.answers["".join(words)] = skills
            self.named |= {s: "knowledge" for s in skills if len(s) > 1 and s.isascii()}

    def think(self, text, request):
        recorded = self.answers.get(re.sub(r"\s", "", text))
        if recorded is not None: return json.dumps({"spans": [{"text": s, "label": "knowledge", "occurrence": 0} for s in dict.fromkeys(recorded)]})
        return json.dumps({"spans": mark(text, self.named)})

    def texts(self): return [text for week in self.weeks for text in self.texts_of(week)]

    def base(self, folder):
        model = tiny_bert(os.path.join(folder, "tiny"), vocabulary(self.texts()), hidden=32, layers=1, intermediate=64)
        done = program("pull", model, "-o", os.path.join(folder, "tiny.h5"), "--quiet")
        assert done.returncode == 0, done.stderr
        return os.path.join(folder, "tiny.h5")

    def test(self):
        sentences = [s.strip() for t in self.texts() for s in t.splitlines() if s.strip()][::7][:200]
        return [{"text": t, "spans": spans_in(t, mark(t, self.named))} for t in sentences]


class Place:
    """A folder with a config, its base and its test file; and the services that all places share."""

    def __init__(self, folder, world):
        self.folder, self.world = folder, world
        os.makedirs(folder)
        shutil.copy(world.base, self.path("base.h5"))
        write_lines(self.path("test.jsonl"), world.test)
        self.config = {
            "postings": "job-postings", "base": "base.h5", "fetch": {"source": "board.json"},
            "label": {"model": "scripted", "base-url": world.chat.url, "price-in": 1, "price-out": 2} | world.data.label,
            "train": {"threads": 1, "checkpoint-every": 20} | world.data.train, "compare": {"data": ["test.jsonl"], "margin": 0.3, "resamples": 200},
            "tag": {}, "link": {"taxonomy": os.path.join(SAMPLES, "taxonomy.csv"), "exact-only": True}, "embed": {}, "map": {"n-neighbors": 4, "epochs": 30}, "cluster": {"clusters": "2..3"}, "report": {"title": "Weeks", "min-postings": 2}}
        with open(self.path("board.json"), "w") as f:
            json.dump({"name": "board", "url": world.board.url + "/jobs", "params": {"offset": "{offset}", "limit": "{limit}"}, "paging": {"by": "offset", "size": 10},
                       "rows": "data.jobs", "fields": {"id": "id", "title": "title", "company": "organization", "text": "description_text"}}, f)

    def path(self, name): return os.path.join(self.folder, name)

    def without(self, *steps):
        for name in steps: del self.config[name]

    def command(self, date, *more):
        with open(self.path("week.json"), "w") as f: json.dump(self.config, f)
        return [BIN + "/skillwatch", "cycle", "--config", self.path("week.json"), *(["--date", date] if date else []), *more]

    def environment(self):
        return {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | {"OPENAI_API_KEY": "sk-secret", "SOURCE_DATE_EPOCH": "1767225600"}

    def start(self, date, *more):
        return subprocess.Popen(self.command(date, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(), start_new_session=True)

    def cycle(self, date, *more, expect=0):
        run = self.start(date, *more)
        out, error = run.communicate(timeout=600)
        check(run.returncode == expect and "Sanitizer" not in error, f"{date} {more}: status {run.returncode}, {expect} was expected: {out[-800:]} {error[-1500:]}")
        return out, error

    def outcome(self, date, *more, expect=0):
        """{step: what became of it}"""
        out = self.cycle(date, "--json", "--quiet", *more, expect=expect)[0]
        return json.loads(out)["steps"] if out else {}

    def record(self, run, step):
        with open(self.path(f"state/{run}/{step}.json")) as f: return json.load(f)

    def history(self): return lines_of(self.path("models/history.jsonl"))
    def current(self): return os.readlink(self.path("models/current.h5"))

    def files(self):
        """All that a run leaves, without what says when and how often: logs, times, attempts; how many requests, and what fetch found known already, in
        the run that went on; speeds; the index, the pace and the ETags of fetch."""
        found = {}
        for top in ("state", "models", "job-postings", "job-postings.fetch"):
            for at, folders, names in os.walk(self.path(top)):
                for name in names:
                    path = os.path.join(at, name)
                    key = os.path.relpath(path, self.folder)
                    if name.endswith(".log") or (top == "job-postings.fetch" and (name in ("index", "lock") or name.startswith(("quota", "validators")))): continue
                    if os.path.islink(path): found[key] = os.readlink(path)
                    elif name.endswith(".metrics.jsonl"): found[key] = [{k: v for k, v in r.items() if k != "tokens_per_second"} for r in lines_of(path)]
                    elif name == "history.jsonl": found[key] = [{k: v for k, v in r.items() if k != "when"} for r in lines_of(path)]
                    elif os.path.dirname(key).count("/") == 1 and name.endswith(".json") and name != "run.json":
                        with open(path) as f: record = json.load(f)
                        for k in ("begun", "ended", "seconds", "attempts"): record.pop(k)
                        if name == "fetch.json": record.pop("result")
                        if name == "label.json":
                            for k in ("questions", "requests", "retries", "answers", "cached"): record["result"].pop(k)
                        found[key] = record
                    else:
                        with open(path, "rb") as f: found[key] = f.read()
        return found


class World:
    """What all places share."""

    def __init__(self, data, folder):
        self.data, self.folder, self.count = data, folder, 0
        self.base, self.test = data.base(folder), data.test()
        self.board, self.chat = Board([]), Server(think=lambda text, request: self.think(text, request))
        self.think = data.think
        self.weeks = {week: [job(1000 * number + i, text=text) for i, text in enumerate(data.texts_of(week))] for number, week in enumerate(data.weeks)}

    def place(self):
        self.count += 1
        return Place(os.path.join(self.folder, f"place-{self.count}"), self)

    def show(self, date): self.board.fresh(jobs=self.weeks[date])


def weeks(world):
    """Three weeks undisturbed; then everything is up to date."""
    place, took = world.place(), []
    for number, date in enumerate(world.weeks):
        world.show(date)
        began = time.time()
        out = place.outcome(date)
        took.append(time.time() - began)
        check(out == dict.fromkeys(STEPS, "done") | ({} if number else {"compare": "left out"}), f"{date}: {out}")
    place.asked = len(world.chat.log)
    check(sum(os.path.exists(place.path(f"state/{n}/run.json")) for n in os.listdir(place.path("state"))) == 3, "a folder a run")
    return place, took


def test_weeks(world, place):
    runs = ("2026-W02", "2026-W03", "2026-W04")
    check(all(os.path.isdir(place.path("state/" + r)) for r in runs), f"runs are named by their ISO week: {os.listdir(place.path('state'))}")
    history = place.history()
    check([h["run"] for h in history] == list(runs) and [h.get("from") for h in history] == [None, history[0]["to"], history[1]["to"]], f"history: {history}")
    check(place.current() == history[2]["to"] and history[2]["to"] == f"2026-W04-{history[2]['sha256'][:12]}.h5" and history[2]["scores"]["test.jsonl"] > 0.3, f"the link and its score: {history[2]}")
    command = place.record(runs[2], "train")["command"]
    check(command[command.index("--base") + 1] == "models/" + history[1]["to"], f"trained from the promoted checkpoint: {command}")
    check([command[i + 1] for i, w in enumerate(command) if w == "--replay"] == [f"state/{r}/label/labels.jsonl:0.15" for r in runs[:2]], f"earlier labels: {command}")
    check(place.record(runs[1], "tag")["command"][-2:] == ["-o", "state/2026-W03/tag/tags.jsonl"] and "job-postings/12-01-2026" in place.record(runs[1], "tag")["command"], "this week's postings are tagged")
    check(len(lines_of(place.path("state/2026-W03/tag/tags.jsonl"))) == world.data.per_folder, "all of them")
    check("--fit-on" not in place.record(runs[0], "map")["command"] and all("state/2026-W02/map/map.h5" in place.record(r, "map")["command"] for r in runs[1:]), "placed on the first map")
    for r in runs: check(place.record(r, "label")["result"]["cost"] > 0, "the bill is in the record")
    asked = len(world.chat.log)
    before = {p: os.stat(os.path.join(at, p)).st_mtime_ns for at, _, names in os.walk(place.folder) for p in names if p.endswith((".h5", ".jsonl", ".csv"))}
    out = place.outcome("19-01-2026")
    page = open(place.path("state/2026-W04/report/index.html"), encoding="utf-8").read()
    check("<title>Weeks" in page and [w for w in place.record("2026-W04", "report")["command"] if w.endswith("linked.jsonl")] == [f"state/{r}/link/linked.jsonl" for r in runs], "a report on all weeks so far")
    check(set(out.values()) == {"up to date"} and len(world.chat.log) == asked, f"a second run does nothing: {out}")
    check(before == {p: os.stat(os.path.join(at, p)).st_mtime_ns for at, _, names in os.walk(place.folder) for p in names if p.endswith((".h5", ".jsonl", ".csv"))}, "and touches nothing")
    text = place.cycle("19-01-2026", "--dry-run")[0]
    check(text.count("up to date") == len(STEPS), f"a dry run says so: {text}")


def test_changes(world, place):
    """A file that changed is read again by what depends on it, and by nothing else."""
    labels = place.path("state/2026-W04/label/labels.jsonl")
    rows = lines_of(labels)
    write_lines(labels, rows[:-5])
    text = place.cycle("19-01-2026", "--dry-run")[0]
    check("label    up to date, but state/2026-W04/label/labels.jsonl was changed" in text and "labels.jsonl has changed)" in text, f"the plan: {text}")
    out = place.outcome("19-01-2026")
    check(out["label"] == out["fetch"] == "up to date" and out["train"] == out["compare"] == out["promote"] == out["tag"] == "done", f"a changed label file: {out}")
    check(lines_of(labels) == rows[:-5] and [h["run"] for h in place.history()] == ["2026-W02", "2026-W03", "2026-W04", "2026-W04"], "labels that people corrected stay")
    command = place.record("2026-W04", "train")["command"]
    check(command[command.index("--base") + 1] == "models/" + place.history()[1]["to"], "trained again from the week before, not from itself")
    os.unlink(place.path("state/2026-W04/tag/tags.jsonl"))
    out = place.outcome("19-01-2026")
    check(out["tag"] == "done" and all(out[s] == "up to date" for s in STEPS if s != "tag"), f"a file that is gone is made again, to the same bytes: {out}")
    out = place.outcome("19-01-2026", "--only", "cluster")
    check(out == {"cluster": "done"}, f"--only: {out}")
    out = place.outcome("19-01-2026", "--from", "embed")
    check(out == dict.fromkeys(("embed", "map", "cluster", "report"), "done"), f"--from: {out}")
    out = place.outcome("19-01-2026", "--to", "label")
    check(out == {"fetch": "up to date", "label": "up to date"}, f"--to: {out}")
    out = place.outcome("05-01-2026")
    check(out["train"] == out["promote"] == "left out" and out["tag"] == "up to date", f"an old week stays as it is: {out}")


def test_lost_link(world):
    """Without its link, or what it points to, nothing is the first again, past the gate."""
    place = light(world, "05-01-2026")
    link, name = place.path("models/current.h5"), place.current()
    world.show("12-01-2026")
    for lost in (link, place.path("models/" + name)):
        os.rename(lost, place.path("kept"))
        error = place.cycle("12-01-2026", expect=1)[1]
        check(f"{name} is gone" in error and "skillwatch rollback --to RUN models" in error and not os.path.exists(place.path("state/2026-W03")), f"lost: {error}")
        if lost != link: os.rename(place.path("kept"), lost)
        else: rollback(place, "--to", "2026-W02", place.path("models"))
        check(place.current() == name, "back again")


def rollback(place, *arguments, expect=0):
    done = program("rollback", *arguments)
    check(done.returncode == expect, f"rollback {arguments}: {done.returncode} {done.stdout} {done.stderr}")
    return done


def test_rollback(world, place):
    history, models = place.history(), place.path("models")
    done = rollback(place, "--list", models)
    check(all(h["to"] in done.stdout for h in history) and f"* {history[-1]['when']}" in done.stdout, f"--list: {done.stdout}")
    rollback(place, "--config", place.path("week.json"), "--why", "a test")
    check(place.current() == history[-1]["from"], "one back")
    check({k: place.history()[-1].get(k) for k in ("action", "from", "to", "why")} == {"action": "rollback", "from": history[-1]["to"], "to": history[-1]["from"], "why": "a test"}, "it is written down")
    out = place.outcome("19-01-2026")
    check(out["promote"] == "up to date" and out["tag"] == "done" and place.current() == history[-1]["from"], f"a cycle does not undo it, and tags with what is in use: {out}")
    rollback(place, "--to", "2026-W02", models)
    check(place.current() == history[0]["to"], "to a run")
    rollback(place, "--to", history[1]["sha256"][:8], models)
    check(place.current() == history[1]["to"], "to a hash")
    check.refused(rollback(place, "--to", "2030-W01", models, expect=1), "no checkpoint of a run '2030-W01'", "an unknown run")
    damaged = os.path.join(models, history[0]["to"])
    whole = open(damaged, "rb").read()
    os.unlink(damaged)  # another link to the same file is in the run's folder
    open(damaged, "wb").write(whole[:-100])
    check.refused(rollback(place, "--to", "2026-W02", models, expect=1), history[0]["to"], "a torn checkpoint")
    os.unlink(damaged)
    check.refused(rollback(place, "--to", "2026-W02", models, expect=1), "does not exist", "one that is gone")
    shutil.copy(os.path.join(models, history[1]["to"]), damaged)
    check.refused(rollback(place, "--to", "2026-W02", models, expect=1), "another checkpoint", "another one under its name")
    open(damaged, "wb").write(whole)
    check(place.current() == history[1]["to"], "the link stays")
    check.refused(rollback(place, place.path("nowhere"), expect=2), "no folder", "no folder")
    check.refused(rollback(place, expect=2), "which models", "nothing named")


def test_gate(world, source):
    """A week of wrong labels: 3, the old link stays, the postings are tagged all the same."""
    place = world.place()
    place.config["compare"]["margin"] = 0
    place.without("link", "map", "report")
    world.show("05-01-2026")
    place.cycle("05-01-2026")
    first = place.current()
    world.think = lambda text, request: json.dumps({"spans": [{"text": w, "label": "knowledge", "occurrence": 1} for w in dict.fromkeys(re.findall(r"\b[a-z]{3,}\b", text))][:3]})
    world.show("12-01-2026")
    out = place.outcome("12-01-2026", expect=3)
    world.think = world.data.think
    check(out["compare"] == out["promote"] == "refused" and out["tag"] == out["cluster"] == "done", f"refused: {out}")
    check(place.current() == first and len(place.history()) == 1 and "models/" + first in place.record("2026-W03", "tag")["command"], "the old link stays and tags")
    _, error = place.cycle("12-01-2026", expect=3)
    check("refused: " in error and "up to date" in error, f"again: 3, and nothing is done: {error}")
    del place.config["compare"]
    place.config["promote"] = {"ungated": True}
    out = place.outcome("12-01-2026")
    check(out["promote"] == "done" and place.history()[-1]["why"] == "ungated" and place.current() != first, f"without the gate: {out}")


def light(world, *weeks):
    """A place with the steps up to tag, whose gate lets all in, after some weeks."""
    place = world.place()
    for step in ("link", "embed", "map", "cluster", "report"): del place.config[step]
    place.config["compare"]["margin"] = 1
    for date in weeks:
        world.show(date)
        place.cycle(date, "--quiet")
    return place


def test_no_way_round(world):
    """Promotion without compare's word on this very checkpoint, and over a rollback."""
    place = light(world, "05-01-2026")
    world.show("12-01-2026")
    place.cycle("12-01-2026", "--to", "compare")
    first = place.current()
    place.config["train"]["lr"] = 4e-3
    place.cycle("12-01-2026", "--only", "train")
    error = place.cycle("12-01-2026", "--only", "promote", expect=1)[1]
    check("compare has not judged this checkpoint; run --from compare" in error and place.current() == first, f"another candidate than the one compared: {error}")
    out = place.outcome("12-01-2026")
    second = place.current()
    check(out["compare"] == out["promote"] == "done" and second != first, f"a plain run compares it: {out}")
    rollback(place, place.path("models"), "--why", "a test")
    with open(place.path("test.jsonl"), "a") as f: f.write(json.dumps(world.test[0]) + "\n")
    error = place.cycle("12-01-2026", expect=3)[1]
    check("was rolled back (a test)" in error and place.current() == first, f"a cycle does not undo a rollback: {error}")
    rollback(place, place.path("models"), "--to", "2026-W03")
    check(place.outcome("12-01-2026", "--from", "promote")["promote"] == "done" and place.current() == second, "a person does")
    # a rollback between compare and promote
    world.show("19-01-2026")
    place.cycle("19-01-2026", "--to", "compare")
    rollback(place, place.path("models"))
    error = place.cycle("19-01-2026", "--only", "promote", expect=1)[1]
    check("use rollback --to" in error and place.current() == first, f"the link was moved: {error}")
    out = place.outcome("19-01-2026")
    check(out["train"] == out["promote"] == "done" and place.history()[-1]["from"] == first and "models/" + first in place.record("2026-W04", "train")["command"], f"trained from what is in use: {out}")


def test_money(world):
    """Labels that people corrected, and the bill, outlast all."""
    place = light(world)
    world.show("05-01-2026")
    place.cycle("05-01-2026", "--to", "label")
    labels, bill = place.path("state/2026-W02/label/labels.jsonl"), lambda: json.load(open(place.path("state/2026-W02/label/bill.json")))["tokens_in"]
    rows, paid = lines_of(labels), bill()
    place.config["label"]["price-in"] = 3
    check(place.outcome("05-01-2026", "--to", "label")["label"] == "up to date", "a price makes nothing anew")
    write_lines(labels, rows[:3])
    place.config["label"]["temperature"] = 0.5
    error = place.cycle("05-01-2026", "--to", "label")[1]
    check("kept as state/2026-W02/label/labels.1.jsonl" in error and len(lines_of(labels)) == len(rows), f"labels anew: {error}")
    check(lines_of(place.path("state/2026-W02/label/labels.1.jsonl")) == rows[:3] and bill() > paid > 0, "corrected labels are kept, and the bill grows")
    paid = bill()
    record = place.record("2026-W02", "label")
    last = record["result"] | {k: record["result"][k] - record["spent_before"][k] for k in ("cost", "tokens_in", "tokens_out")}
    for key in ("outputs", "ended", "seconds", "result"): del record[key]
    with open(place.path("state/2026-W02/label.json"), "w") as f: json.dump(record | {"status": -1}, f)  # killed before its last record
    with open(place.path("state/2026-W02/label.out"), "w") as f: f.write(json.dumps(last) + "\n")
    place.cycle("05-01-2026", "--to", "label")
    check(bill() == paid and not os.path.exists(place.path("state/2026-W02/label.out")), f"the bill after a kill: {bill()}, not {paid}")


def test_quiet_week(world):
    """A week whose postings name no skill ends well, and so does the first."""
    place = light(world)
    place.config |= {"link": {"taxonomy": os.path.join(SAMPLES, "taxonomy.csv"), "exact-only": True}, "embed": {}, "map": {}, "cluster": {"clusters": "8..20"}}
    world.think = lambda text, request: json.dumps({"spans": []})
    world.show("05-01-2026")
    out = place.outcome("05-01-2026")
    check(out["train"] == out["promote"] == out["tag"] == out["cluster"] == "left out", f"no labels, no tagger: {out}")
    world.think = world.data.think
    world.show("12-01-2026")
    place.cycle("12-01-2026", "--to", "tag")
    world.think = lambda text, request: json.dumps({"spans": []})
    world.board.fresh(jobs=[job(9000, text="We use Python daily. Work with people.")])
    out = place.outcome("19-01-2026")
    world.think = world.data.think
    check(out["train"] == out["promote"] == "left out" and out["tag"] == "done", f"few skills: {out}")


def test_unfinished(world):
    """A week that broke off is done before the next begins; old weeks outlast their models."""
    place = light(world)
    place.config["keep"] = 1
    url = place.config["label"]["base-url"]
    place.config["label"] |= {"base-url": "http://127.0.0.1:9/v1", "tries": 1}
    world.show("05-01-2026")
    place.cycle("05-01-2026", expect=75)
    place.config["label"]["base-url"] = url
    world.show("12-01-2026")
    error = place.cycle(None)[1]
    check("2026-W02 is not finished: first that" in error and os.path.exists(place.path("state/2026-W02/tag/tags.jsonl")) and len(place.history()) == 2, f"the week before: {error}")
    place.config["train"]["lr"] = 4e-3
    world.show("19-01-2026")
    place.cycle("19-01-2026", "--run", "third")
    place.cycle("19-01-2026", "--run", "third")
    check(place.history()[0]["to"] not in os.listdir(place.path("models")), "a model that no kept week names is removed")
    check(place.outcome("05-01-2026")["tag"] == "up to date" and os.path.exists(place.path("state/2026-W02/tag/tags.jsonl")), "its tags stay")


def test_push(world):
    """A push that fails undoes nothing, and is tried again though nothing is new; once it is done it is done."""
    place, hub, own = light(world), Hub("hf-right"), Place.environment
    place.config["push"] = {"to": "hub:owner/tagger", "head": "knowledge", "cache": place.path("uploads")}
    def pushes(token, date, expect):
        place.environment = lambda: own(place) | {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_OFFLINE": ""}
        return place.cycle(date, expect=expect)[1]
    world.show("05-01-2026")
    error = pushes("hf-wrong", "05-01-2026", 1)
    check("the step push failed" in error and "state/2026-W02/push.log" in error and place.record("2026-W02", "tag")["status"] == 0, f"refused by the hub: {error}")
    pushes("hf-right", None, 0)
    check(place.record("2026-W02", "push")["status"] == 0 and "model.safetensors" in hub.content("owner/tagger"), "the next run pushes")
    hub.fresh()
    check("push     up to date" in pushes("hf-right", "05-01-2026", 0) and not hub.log, "once")


def test_same_day(world):
    """A second run of one day has what fetch brings for it, and the first stays as it is."""
    place = light(world)
    world.show("05-01-2026")
    place.cycle("05-01-2026", "--run", "a")
    world.board.fresh(jobs=world.weeks["05-01-2026"] + [job(5000 + i, text=f"We use Python and SQL daily. Work {i}.") for i in range(3)])
    place.cycle("05-01-2026", "--run", "b")
    mine = [f"job-postings/05-01-2026/{n}.txt" for n in (9, 10, 11)]
    check([w for w in place.record("b", "tag")["command"] if w.startswith("job-postings")] == mine and len(lines_of(place.path("state/b/tag/tags.jsonl"))) == 3, "the second run's postings")
    asked = len(world.chat.log)
    out = place.outcome("05-01-2026", "--run", "a")
    check(out["label"] == out["tag"] == "up to date" and len(world.chat.log) == asked, f"the first run: {out}")
    place.cycle("05-01-2026", "--run", "a", "--from", "tag")
    check(len(lines_of(place.path("state/a/tag/tags.jsonl"))) == world.data.per_folder, "the first run's postings, by file")


def test_damage(world):
    """Records that cannot be read, and a kill while a step's files are put aside."""
    place = light(world, "05-01-2026")
    for name in ("run", "label", "tag"):
        path = place.path(f"state/2026-W02/{name}.json")
        with open(path) as f: whole = f.read()
        for torn in (whole[:20], ""):
            with open(path, "w") as f: f.write(torn)
            error = place.cycle("05-01-2026", expect=1)[1]
            check(f"state/2026-W02/{name}.json" in error and "move" in error and error.count("\n") == 1, f"a torn record: {error}")
        with open(path, "w") as f: f.write(whole)
    labels, asked = place.path("state/2026-W02/label/labels.jsonl"), len(world.chat.log)
    rows = lines_of(labels)
    write_lines(labels, rows[1:])
    os.unlink(place.path("state/2026-W02/label.json"))
    place.cycle("05-01-2026", "--to", "label")
    check(lines_of(place.path("state/2026-W02/label/labels.1.jsonl")) == rows[1:] and lines_of(labels) == rows and len(world.chat.log) == asked, "labels without a record are kept, and nothing is asked again")
    os.rename(place.path("state/2026-W02/train"), place.path("state/2026-W02/train.before"))
    place.config["train"]["lr"] = 4e-3
    place.cycle("05-01-2026")
    check(place.record("2026-W02", "train")["status"] == 0 and not os.path.exists(place.path("state/2026-W02/train.before")), "begun anew after the kill")
    os.rename(place.path("job-postings"), place.path("elsewhere"))
    error = place.cycle("05-01-2026", expect=1)[1]
    check("postings of run 2026-W02 are gone" in error, f"no postings: {error}")
    del place.config["fetch"]
    error = place.cycle("12-01-2026", expect=1)[1]
    check('("postings") is not there' in error, f"no folder: {error}")


def test_trouble(world):
    place = world.place()
    place.without("link", "embed", "map", "cluster", "report")
    world.show("05-01-2026")
    # a lock; stopped by a signal; the time of a step
    world.chat.delay = 0.3
    run = place.start("05-01-2026")
    while run.poll() is None and not os.path.exists(place.path("state/2026-W02/label.json")): time.sleep(0.01)
    _, error = place.cycle("05-01-2026", expect=75)
    check(f"pid {run.pid} on " in error, f"a second cycle: {error}")
    run.send_signal(signal.SIGTERM)
    error = run.communicate(timeout=60)[1]
    check(run.returncode == 75 and "stopped by a signal in the step label" in error.splitlines()[-1], f"SIGTERM: {run.returncode} {error}")
    place.config["label"]["stop_after"] = 0.5
    _, error = place.cycle("05-01-2026", expect=75)
    check("took longer" in error, f"the time is over: {error}")
    del place.config["label"]["stop_after"]
    world.chat.delay = 0
    # a step that fails names its log; the child's 75 is passed on
    place.config["train"]["lr"] = -1
    _, error = place.cycle("05-01-2026", expect=1)
    last = error.splitlines()[-1]
    check("the step train failed with status 2" in last and "state/2026-W02/train.log" in last and "--lr" in last, f"a step that fails: {error}")
    place.config["train"]["lr"] = 5e-3
    place.cycle("05-01-2026")
    out, error = place.cycle("12-01-2026")
    check("there are no new postings" in error and "label" not in error and len(place.history()) == 1, f"nothing new: {error}")
    place.config["label"] |= {"base-url": "http://127.0.0.1:9/v1", "tries": 1}
    world.show("12-01-2026")
    _, error = place.cycle("12-01-2026", "--from", "fetch", expect=75)
    check("the step label is to be tried again" in error.splitlines()[-1], f"no server: {error}")
    # a torn end of the history is no entry
    place.config["label"]["base-url"] = world.chat.url
    with open(place.path("models/history.jsonl"), "a") as f: f.write('{"action": "promo')
    place.cycle("12-01-2026", "--quiet")
    check([h["run"] for h in place.history()] == ["2026-W02", "2026-W03"], f"after a torn line: {place.history()}")


def test_bad_configs(world):
    place = world.place()
    place.without("link", "cluster", "report")  # each step is a program that is asked for its options
    good = json.dumps(place.config)

    def bad(part, what, change, *more, expect=2):
        place.config = json.loads(good)
        change(place.config)
        check.refused(subprocess.run(place.command("05-01-2026", *more), capture_output=True, text=True, env=place.environment()), part, what, (expect,))
        check(not os.path.exists(place.path("state")), f"{what}: nothing is made")

    bad('"lable" is no key of a cycle; did you mean "label"', "unknown key", lambda c: c.update(lable={}))
    bad('"keep" should be', "wrong type", lambda c: c.update(keep="4"))
    bad('"tag" should be an object', "a step that is no object", lambda c: c.update(tag=True))
    bad('"train": "epoch" is no option of skillwatch train ner', "unknown option", lambda c: c["train"].update(epoch=3))
    bad('"train": "epochs" should be a whole number', "an option's type", lambda c: c["train"].update(epochs="three"))
    bad('"compare": "data" should be a list', "a list", lambda c: c["compare"].update(data=3))
    bad('"tag": "output" is set by the cycle', "an option of the cycle's", lambda c: c["tag"].update(output="x"))
    bad('"train": "earlier" should be a number from 0', "an own key", lambda c: c["train"].update(earlier=2))
    bad('"compare" needs "data"', "no test file", lambda c: c["compare"].pop("data"))
    bad('"train" without "compare"', "no gate", lambda c: c.pop("compare"))
    bad('"map" needs the step "embed"', "a step without the one before", lambda c: c.pop("embed"))
    bad('"postings" is needed', "no postings", lambda c: c.pop("postings"))
    bad("lies in the folder", "the state among the postings", lambda c: c.update(postings="."))
    bad("nowhere.h5 is not there", "no base", lambda c: c.update(base="nowhere.h5"))
    bad("there is no such step", "--from", lambda c: None, "--from", "tagg")
    bad("exclude each other", "--only and --to", lambda c: None, "--only", "tag", "--to", "tag")
    bad("--date wants a day", "--date", lambda c: None, "--date", "1-01-2026x")
    bad('"skills" needs the step "embed"', "skills for nothing", lambda c: [c.pop(k) for k in ("embed", "map")] and c.update(skills={}))
    bad("fetch comes before tag", "--from after --to", lambda c: None, "--from", "tag", "--to", "fetch")
    bad("--run wants a name", "--run", lambda c: None, "--run", "../x")
    open(place.path("week.json"), "w").write("{")
    check.refused(program("cycle", "--config", place.path("week.json")), "not valid JSON", "broken JSON", (2,))
    check.refused(program("cycle", "--config", place.path("none.json")), "none.json", "no file", (2,))
    place.config = json.loads(good)
    out, error = place.cycle("05-01-2026", "--dry-run")
    check("skillwatch label job-postings/05-01-2026 -o state/2026-W02/label/labels.jsonl" in out and "skillwatch infer map" in out and not os.path.exists(place.path("state")),
          f"a dry run makes nothing: {out} {error}")


def test_schedules(folder):
    """The ready schedules and the sample config are what their readers accept, as far as these are here."""
    schedules, tried = os.path.join(SAMPLES, "schedules"), []
    def accepts(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        check(done.returncode == 0, f"{command}: {done.stdout} {done.stderr}")
        tried.append(os.path.basename(command[0]))
    accepts("bash", "-n", os.path.join(schedules, "cycle.sbatch"))
    with open(os.path.join(schedules, "github-actions.yml")) as f: text = f.read()
    try:
        import yaml
        steps = yaml.safe_load(text)["jobs"]["cycle"]["steps"]
        for step in steps: accepts("bash", "-n", "-c", step["run"])
        tried.append("yaml")
    except ImportError: print("no PyYAML: the workflow is not parsed")
    units = os.path.join(folder, "units")
    shutil.copytree(schedules, units)
    with open(os.path.join(units, "skillwatch-cycle.service")) as f: service = f.read()
    check("RestartForceExitStatus=75" in service and "SuccessExitStatus" not in service, "75 is tried again")
    if shutil.which("systemd-analyze"):
        with open(os.path.join(units, "skillwatch-cycle.service"), "w") as f:
            f.write(service.replace("/usr/local/bin/skillwatch", os.path.abspath(BIN + "/skillwatch")).replace("User=skillwatch", "User=root").replace("Group=skillwatch", "Group=root"))
        accepts("systemd-analyze", "verify", "--man=no", os.path.join(units, "skillwatch-cycle.service"), os.path.join(units, "skillwatch-cycle.timer"))
        accepts("systemd-analyze", "calendar", "Mon *-*-* 05:00:00 UTC")
    else: print("no systemd-analyze: the units are not verified")
    line = [l for l in open(os.path.join(schedules, "crontab")) if l[0].isdigit()][0]
    accepts("sh", "-n", "-c", line.split(None, 5)[5])
    week = os.path.join(folder, "week")
    os.makedirs(week)
    shutil.copy(os.path.join(SAMPLES, "cycle/week.json"), week)
    open(os.path.join(week, "minilm.h5"), "w").close()
    done = program("cycle", "--config", os.path.join(week, "week.json"), "--date", "05-01-2026", "--dry-run")
    check(done.returncode == 0 and "skillwatch fetch linkedin -o job-postings" in done.stdout and "skillwatch push" in done.stdout, f"samples/cycle/week.json: {done.stdout} {done.stderr}")


def kills(world, reference, took, count, rng):
    """SIGKILL to all processes or only the first; then again, until it is done."""
    wanted = reference.files()
    killed = alone = turns = 0
    while killed < count:
        place, turns = world.place(), turns + 1
        asked, before = len(world.chat.log), killed
        if not check(turns < 12, f"only {killed} kills hit"): return
        for number, date in enumerate(world.weeks):
            world.show(date)
            while True:
                goal = count * (number + 1) // 3 if turns == 1 else count
                run = place.start(date)
                if killed < goal:
                    try: run.wait(rng.random() * took[number] * 0.8)
                    except subprocess.TimeoutExpired:
                        first_only = rng.random() < 0.4
                        (os.kill if first_only else os.killpg)(run.pid, signal.SIGKILL)
                        killed, alone = killed + 1, alone + first_only
                error = run.communicate(timeout=600)[1]
                if run.returncode == 0: break
                if not check(run.returncode in (-signal.SIGKILL, 75), f"after {killed} kills: {run.returncode} {error[-1500:]}"): return
                if run.returncode == 75: time.sleep(0.05)
        asked = len(world.chat.log) - asked
        check(asked <= reference.asked + 8 * (killed - before), f"no answer is paid for twice but those on their way at a kill: {asked} questions, undisturbed {reference.asked}, {killed - before} kills")
        found = place.files()
        differ = [k for k in sorted(found.keys() | wanted.keys()) if found.get(k) != wanted.get(k)]
        check(not differ, f"other files after {killed} kills: {differ}")
    print(f"{killed} kills ({alone} of them of the first process only): the same {len(wanted)} files")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    if options.real and not os.path.isdir(DATA):
        print("skipped: no ../shared/data/in-demand")
        sys.exit(77)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Real() if options.real else Samples(), folder)
        place, took = weeks(world)
        print(f"three weeks, undisturbed: {', '.join(f'{t:.1f}' for t in took)} s", flush=True)
        kills(world, place, took, options.kills, random.Random(options.seed))
        if not options.real:
            for test in (test_weeks, test_changes, test_rollback, test_gate): test(world, place)
            for test in (test_no_way_round, test_money, test_quiet_week, test_unfinished, test_push, test_same_day, test_lost_link, test_damage, test_trouble): test(world)
            test_bad_configs(world)
            test_schedules(folder)
    check.close()


if __name__ == "__main__":
    main()
