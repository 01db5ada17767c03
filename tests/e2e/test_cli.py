"""What every program owes its user: exit statuses, one clear line, nothing overwritten unasked, nothing lost in silence."""
import json, os, subprocess, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, samples_base

check = Checks()


def one_line(done, status, *parts):
    lines = done.stderr.splitlines()
    check(done.returncode == status and len(lines) == 1 and lines[0].startswith("skillwatch: ") and all(p in lines[0] for p in parts),
          f"{done.args[0].rsplit('/', 1)[-1]} {done.args[1:]}: status {done.returncode}, wanted {status} and {parts}: {done.stderr!r}")


def write(path, *lines):
    with open(path, "w", encoding="utf-8") as f: f.writelines(l + "\n" for l in lines)
    return path


def test_standard_output(base):
    """Where standard output cannot take it all, that is a failure, whoever prints."""
    asked = [[os.path.join(BIN, "skillwatch"), a] for a in ("--help", "--version")]
    for name in ("train", "infer", "pull", "export", "push", "show", "eval", "compare", "top", "bench", "devices"):
        asked += [[os.path.join(BIN, "skillwatch-" + name), a] for a in ("--help", "--version")]
    asked += [[os.path.join(BIN, "skillwatch-infer"), "tag", "--help"], [os.path.join(BIN, "skillwatch-train"), "ner", "--help"]]
    for args in asked:
        check(subprocess.run(args, capture_output=True).returncode == 0, f"{args} prints")
    asked += [[os.path.join(BIN, "skillwatch-show"), base], [os.path.join(BIN, "skillwatch-show"), "--json", base]]
    for args in asked:
        with open("/dev/full", "w") as full:
            one_line(subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True), 1, "cannot write to standard output", "No space left")


def test_verbs():
    main = os.path.join(BIN, "skillwatch")
    for verb, near in (("foo", None), ("xyz", None), ("tpo", "top"), ("infr", "infer"), ("trian", "train"), ("exp", "export"), ("benhc", "bench")):
        done = subprocess.run([main, verb], capture_output=True, text=True)
        one_line(done, 2, f"'{verb}' is no verb")
        check((f"did you mean: {near}?" in done.stderr) if near else "did you mean" not in done.stderr, f"{verb}: {done.stderr!r}")


def test_usage(base, at):
    """Values that no run could have are wrong usage, in every program."""
    ner, data = ["--base", base, "-o", at("x.h5")], SAMPLES + "/labels/dev.jsonl"
    titles = write(at("titles.txt"), "Nurse")
    for verb, args in (("train", ["ner", *ner, "--data", data]), ("eval", ["-m", base, "--data", data]), ("infer", ["embed", "-m", base, titles]),
                       ("bench", ["-m", base, "--titles", titles])):
        for option, value in (("--device", "gpu"), ("--threads", "100000"), ("--threads", "-1")): one_line(program(verb, *args, option, value), 2, option)
    for verb, args in (("train", ["ner", *ner]), ("eval", ["-m", base]), ("bench", ["-m", base])):
        one_line(program(verb, *args, "--data", data + ":0"), 2, "must be a number above 0")


def test_pull(base, at):
    model = os.path.join(os.path.dirname(base), "tiny")
    before = open(base, "rb").read()
    one_line(program("pull", model, "-o", base), 1, base, "exists already", "--force")
    check(open(base, "rb").read() == before, "the existing checkpoint is as it was")
    done = program("pull", model, "-o", base, "--force", "--quiet")
    check(done.returncode == 0 and not done.stderr, f"pull --force: {done.stderr}")
    one_line(program("pull", model, "-o", at("no/such/x.h5")), 1, "no/such/x.h5")


def test_heads(base, at):
    """A tagger with two nameless layers: train says what it cannot do, eval and show give names, export asks which head."""
    rows = [json.dumps({"tokens": ["Python", "and", "care", "of", "patients"], "tags_knowledge": list("BOOOO"), "tags_skill": list("OOBII")})] * 8
    data = write(at("two.jsonl"), *rows)
    train = ["ner", "--base", base, "--data", data, "--epochs", "1", "--threads", "1"]
    one_line(program("train", *train, "-o", at("two.h5"), "--max-length", "65"), 2, "--max-length 65", "64 tokens")
    one_line(program("train", *train, "-o", at("no/such/two.h5")), 1, "cannot write " + at("no/such/two.h5:"))
    done = program("train", *train, "--dev", data, "-o", at("two.h5"))
    check(done.returncode == 0 and " 8 sentences" in done.stderr and " 1 thread," in done.stderr, f"train: {done.stderr}")

    scores = json.loads(program("eval", "-m", at("two.h5"), "--data", data, "--json").stdout)
    for layer in ("knowledge", "skill"): check(list(scores["layers"][layer]["labels"]) == [layer], f"labels of {layer}: {scores['layers'][layer]}")
    check(scores["layers"]["skill"]["labels"]["skill"]["support"] == 8, "the scores are the layer's")
    done = program("eval", "-m", at("two.h5"), "--data", write(at("one.jsonl"), rows[0]))
    check("\n1 example, " in done.stdout, f"one example: {done.stdout}")
    shown = program("show", at("two.h5"))
    check("layers.skill.labels.skill.f1" in shown.stdout and ".." not in shown.stdout, f"show: {shown.stdout}")

    one_line(program("export", at("two.h5"), "-o", at("out")), 2, "knowledge, skill", "--head none")
    one_line(program("export", at("two.h5"), "-o", at("out"), "--head", "nope"), 2, "nope", "knowledge, skill")
    check(not os.path.exists(at("out")), "nothing was written")
    for head, architecture in (("skill", "BertForTokenClassification"), ("none", "BertModel")):
        done = program("export", at("two.h5"), "-o", at("out-" + head), "--head", head)
        config = json.load(open(at("out-" + head, "config.json")))
        check(done.returncode == 0 and config["architectures"] == [architecture], f"--head {head}: {config['architectures']} {done.stderr}")


def test_top(at):
    span = lambda text, layer="knowledge": {"text": text, "layer": layer}
    tags = write(at("tags.jsonl"), json.dumps({"date": "2026-01-05", "spans": [span("Python"), span("•"), span("SQL\u001b[31m\tServer"), span("-")]}),
                 json.dumps({"date": "2026-01\u001b[2J", "spans": [span("python"), span("C++"), span("care", "skill")]}), "no JSON")
    done = program("top", tags)
    check(done.returncode == 0 and not any(ord(c) < 32 and c != "\n" for c in done.stdout), f"control characters: {done.stdout!r}")
    check("1 line is no tagged posting and was skipped" in done.stderr, done.stderr)
    shown = {s["skill"]: s["postings"] for s in json.loads(program("top", tags, "--json").stdout)["skills"]}
    check(shown == {"Python": 2, "SQL [31m Server": 1, "C++": 1, "care": 1}, f"skills: {shown}")
    done = program("top", write(at("clean.jsonl"), json.dumps({"date": "", "spans": [span("Python"), span("care", "skill")]})), "--layer", "nope")
    one_line(done, 1, "'nope'", "knowledge, skill")
    check(not done.stdout, "no table")
    done = program("top", write(at("none.jsonl"), json.dumps({"date": "", "spans": []})), "--layer", "knowledge")
    check(done.returncode == 0, "no span at all is a result")


def test_bench(base, at):
    one = ["-m", base, "--runs", "1", "--titles"]
    one_line(program("bench", *one, write(at("empty.txt"))), 1, "empty.txt", "no text")
    one_line(program("bench", *one, write(at("blank.txt"), "", " ")), 1, "blank.txt", "no text")
    open(at("bad.txt"), "wb").write(b"nurse\n\xff\xfe cook\n")
    one_line(program("bench", *one, at("bad.txt")), 1, "bad.txt line 2", "UTF-8")
    one_line(program("bench", *one, at("nowhere.txt")), 1, "nowhere.txt")
    one_line(program("bench", "-m", base, "--runs", "1", "--postings", at("nowhere")), 1, "nowhere")
    left = lambda: {n for n in os.listdir("/tmp") if n.startswith("skillwatch-bench-")}
    before, titles = left(), write(at("some.txt"), "Nurse", "", "Senior software engineer")
    done = program("bench", *one, titles, "--json", "--data", SAMPLES + "/labels/dev.jsonl", "--threads", "1")
    check(done.returncode == 0 and all(r["value"] > 0 for r in json.loads(done.stdout)) and left() == before, f"bench: {done.stderr} {done.stdout}")


def gone():
    """The id of a process that is no more."""
    p = subprocess.Popen(["true"])
    p.wait()
    return p.pid


def test_left_over(base, at):
    """What a killed writer left beside an output goes away with the next one; what may be somebody's stays."""
    os.mkdir(at("stale"))
    here = lambda *names: at("stale", *names)
    titles, dead = write(at("t.txt"), "Nurse", "Cook"), gone()
    # ours and dead; of this test, which lives; other names
    leave = [f"v.npy.tmp-{os.getpid()}-0", f"v.npy.tmp-{dead}", f"v.npy.tmp-{dead}-0x", f"other.npy.tmp-{dead}-0", "v.npy.tmp-notes"]
    for name in [*leave, f"v.npy.tmp-{dead}-0", f"v.npy.tmp-{dead}-12", f"v.npy.ids.txt.tmp-{dead}-1", f"v.h5.tmp-{dead}-0", f"v.jsonl.tmp-{dead}-3"]: write(here(name), "x")
    for out in ("v.npy", "v.h5", "v.jsonl"):
        done = program("infer", "embed", "-m", base, titles, "--format", "lines", "-o", here(out), "--quiet")
        check(done.returncode == 0, done.stderr)
    check(sorted(os.listdir(here())) == sorted([*leave, "v.npy", "v.npy.ids.txt", "v.h5", "v.jsonl"]), f"left: {sorted(os.listdir(here()))}")
    # one that is locked is being written by a process of another machine or container
    locked = here(f"v.npy.tmp-{dead}-0")
    write(locked, "x")
    holder = subprocess.Popen(["flock", "-n", locked, "sh", "-c", "echo; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    again = ["infer", "embed", "-m", base, titles, "--format", "lines", "-o", here("v.npy"), "--quiet"]
    check(program(*again).returncode == 0 and os.path.exists(locked), "a locked temporary stays")
    holder.communicate(b"\n")
    check(program(*again).returncode == 0 and not os.path.exists(locked), "without its lock it goes")
    # a folder: of an export
    os.makedirs(here(f"out.tmp-{dead}-0", "1_Pooling"))
    write(here(f"out.tmp-{dead}-0", "1_Pooling", "config.json"), "{}")
    check(program("export", base, "-o", here("out"), "--quiet").returncode == 0 and not os.path.exists(here(f"out.tmp-{dead}-0")), "a left over folder goes")


with tempfile.TemporaryDirectory() as tmp:
    at = lambda *names: os.path.join(tmp, *names)
    base = samples_base(tmp)
    for name, test in [(n, f) for n, f in list(globals().items()) if n.startswith("test_")]:
        if len(sys.argv) > 1 and name not in sys.argv[1:]: continue
        test(*({"base": base, "at": at}[a] for a in test.__code__.co_varnames[:test.__code__.co_argcount]))
        print(f"done {name}", flush=True)
check.close()
