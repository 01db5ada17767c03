"""--config FILE: the same run as with the options on the command line, which win; what does not fit is refused in one line."""
import json, os, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import SAMPLES, Checks, program, samples_base

import h5py

check = Checks()


def content(path):
    with h5py.File(path) as f: return f.attrs["content_sha256"], json.loads(f["training"][0])


with tempfile.TemporaryDirectory() as tmp:
    at = lambda name: os.path.join(tmp, name)
    base = samples_base(tmp, hidden=16, layers=1, intermediate=32)
    rows = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]]
    for name, part in (("a.jsonl", rows[:8]), ("b.jsonl", rows[8:14])): open(at(name), "w", encoding="utf-8").writelines(part)

    def config(**keys):
        with open(at("run.json"), "w") as f: json.dump({k.replace("_", "-"): v for k, v in keys.items()}, f)
        return ["--config", at("run.json")]

    settings = {"base": base, "data": [at("a.jsonl"), at("b.jsonl") + ":2"], "dev": [at("b.jsonl")], "epochs": 2, "lr": 0.003, "threads": 1, "quiet": True}
    flags = ["--base", base, "--data", at("a.jsonl"), "--data", at("b.jsonl") + ":2", "--dev", at("b.jsonl"), "-e", "2", "--lr", "0.003", "--threads", "1", "-q"]
    for args, name in ((flags, "line.h5"), (config(**settings), "file.h5")):
        done = program("train", "ner", *args, "-o", at(name))
        check(done.returncode == 0 and not done.stderr, f"{name}: {done.stderr}")
    check(content(at("line.h5")) == content(at("file.h5")), "the same run, by file and by command line")
    check(content(at("line.last.h5")) == content(at("file.last.h5")), "the same checkpoint to resume from")
    done = program("train", "ner", *flags, "-o", at("file.h5"), "--resume")
    check(done.returncode == 0, f"a run from a file is resumed from the command line: {done.stderr}")
    done = program("train", "ner", *config(**settings | {"lr": 0.001}), "-o", at("file.h5"), "--resume")
    check.refused(done, "hyper_parameters", "resumed with another value in the file", (1,))

    # the command line wins, whatever comes first; a list replaces the file's
    for args in (("--lr", "0.001", "--data", at("a.jsonl"), "--no-quiet", *config(**settings, output=at("no.h5")), "-o", at("won.h5")),
                 (f"--config={at('run.json')}", "-o", at("won.h5"), "--lr=0.001", "-d", at("a.jsonl"), "--no-quiet", "--force")):
        done = program("train", "ner", *args)
        run = content(at("won.h5"))[1]["run"]
        check(done.returncode == 0 and "dev F1" in done.stderr and not os.path.exists(at("no.h5")), f"{args}: {done.stderr}")
        check(run["hyper_parameters"]["learning_rate"] == 0.001 and run["hyper_parameters"]["epochs"] == 2 and [d["rows"] for d in run["data"]] == [8], f"{run}")

    def refused(keys, *parts, text=None):
        args = config(**keys)
        if text is not None: open(at("run.json"), "w").write(text)
        done = program("train", "ner", *args, "-o", at("x.h5"))
        check(done.returncode == 2 and len(done.stderr.splitlines()) == 1 and all(p in done.stderr for p in (at("run.json"), *parts)), f"{keys} {text}: {done.stderr!r}")
        check(not os.path.exists(at("x.lock")), "nothing began")

    refused({"epoch": 3}, '"epoch"', 'did you mean "epochs"')
    open(at("run.json"), "w").write("")
    refused({}, '"batch_tokens"', 'did you mean "batch-tokens"', text='{"batch_tokens": 3}')
    refused({"tokens": 3}, '"tokens"', "-tokens")
    refused({"zzzzzzzz": 3}, '"zzzzzzzz"', "--help")
    refused({"config": "other.json"}, '"config"')
    for key, wrong, wanted in (("epochs", "3", "a whole number"), ("epochs", 3.5, "a whole number"), ("epochs", 1 << 40, "a whole number"), ("lr", "x", "a number"),
                               ("quiet", 1, "true or false"), ("base", 3, "a text"), ("data", "a.jsonl", "a list of texts"), ("data", [1], "a list of texts"), ("base", None, "a text")):
        refused(settings | {key: wrong}, f'"{key}"', wanted)
    refused({}, "JSON", text="{")
    refused({}, "one JSON object", text="[]")
    refused({}, "duplicate", text='{"epochs": 1, "epochs": 2}')
    check.refused(program("train", "ner", "--config", at("none.json"), "-o", at("x.h5")), "none.json", "no such file", (2,))
    check.refused(program("train", "ner", "--epoch", "3"), "did you mean --epochs?", "a slip on the command line", (2,))

    # other commands have it, too
    tags = config(model=at("line.h5"))
    posting = at("posting.txt")
    open(posting, "w").write("You know Python and SQL.\n")
    done = program("infer", "tag", *tags, posting)
    check(done.returncode == 0 and json.loads(done.stdout)["spans"] is not None, f"infer tag: {done.stderr}")
    for verb, *job in (("train", "ner"), ("infer", "tag"), ("infer", "embed"), ("eval",), ("pull",), ("export",), ("top",)):
        check("--config FILE" in program(verb, *job, "--help").stdout, f"{verb}: --help tells of --config")
check.close()
