"""skillwatch compare as a scheduled job uses it: scores are those of eval, the gate says no (3) to a worse tagger and only to that, output is
the same in every run, bad input gets one line."""
import json, os, random, struct, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import SAMPLES, Checks, program, samples_base, spare_fontconfig

import numpy as np

check = Checks()
suppressions = spare_fontconfig()


def compare(*args, **options): return program("compare", *args, "--no-speed", "-q", **options)


def one_line(done, status, *parts):
    lines = done.stderr.splitlines()
    check(done.returncode == status and len(lines) == 1 and lines[0].startswith("skillwatch: ") and all(p in lines[0] for p in parts),
          f"compare {done.args[1:]}: status {done.returncode}, wanted {status} and {parts}: {done.stderr!r}")


def scores_only(scores):
    """What compare adds to eval's form left out."""
    added = {"f1_interval", "difference", "calibration", "mcnemar", *(["words"] if "labels" in scores else [])}
    return {k: scores_only(v) if isinstance(v, dict) else v for k, v in scores.items() if k not in added}


def same(a, b):
    """Equal; losses, which are added up in another order, nearly."""
    if isinstance(a, dict): return a.keys() == b.keys() and all(abs(a[k] - b[k]) < 1e-9 if k == "loss" else same(a[k], b[k]) for k in a)
    return a == b


with tempfile.TemporaryDirectory() as tmp:
    at = lambda name: os.path.join(tmp, name)
    base = samples_base(tmp)

    def write(name, rows):
        with open(at(name), "w", encoding="utf-8") as f: f.writelines((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
        return at(name)

    def train(name, data, epochs, *more):
        done = program("train", "ner", "--base", base, "--data", data, "--epochs", epochs, "--lr", "5e-3", "--batch-tokens", "200", "--quiet", "-o", at(name), *more)
        assert done.returncode == 0, done.stderr
        return at(name)

    # what is known by heart tells a good tagger from a bad one: the test data are those that the good one was trained on
    rows = [json.loads(l) for l in open(SAMPLES + "/labels/words-train.jsonl", encoding="utf-8")]
    rows = [r for r in rows if "B" in r["tags_knowledge"] and len(r["tokens"]) < 16][:110]
    rng = random.Random(3)
    for r in rows: r.pop("posting", None)
    data, more_data = write("test.jsonl", rows[:60]), write("more.jsonl", rows[60:])
    mixed = [{k: rng.sample(v, len(v)) if k.startswith("tags_") else v for k, v in r.items()} for r in rows]
    good, bad = train("good.h5", write("all.jsonl", rows), 20), train("bad.h5", write("mixed.jsonl", mixed), 2)

    # --- scores, and everything else in the JSON ---
    done = compare(bad, good, "--data", data, "--data", more_data, "--json", "--disagreements-out", at("d.jsonl"), "--picture", at("c.png"))
    check(done.returncode == 0 and not done.stderr, f"compare: {done.stderr}")
    found = json.loads(done.stdout)
    for k, model in enumerate((bad, good)):
        for section, files in ((found["data"][0], [data]), (found["data"][1], [more_data]), (found["all"], [data, more_data])):
            wanted = json.loads(program("eval", "-m", model, "--json", *(x for f in files for x in ("--data", f))).stdout)
            check(section["examples"] == wanted["examples"] and (len(files) > 1 or section["sha256"] == wanted["data"][0]["sha256"]), "the data")
            for key in ("data", "model", "model_sha256", "examples", "rejected", "decode"): del wanted[key]
            check(same(scores_only(section["scores"][k]), wanted), f"{files}: scores as eval's: {scores_only(section['scores'][k])} {wanted}")
    a, b = found["all"]["scores"]
    check(b["micro"]["f1"] > a["micro"]["f1"] + 0.2, f"the good one is better: {b['micro']} {a['micro']}")
    for layer in ("knowledge", "skill"):
        check(set(a["layers"][layer]) >= {"micro", "macro", "labels", "accuracy", "loss", "calibration"}, "keys of a layer")
    d = b["micro"]["difference"]
    check(d["f1"] == b["micro"]["f1"] - a["micro"]["f1"] and d["interval"][0] < d["f1"] < d["interval"][1] and 0 < d["p"] < 0.01, f"the difference: {d}")
    check(b["micro"]["f1_interval"][0] < b["micro"]["f1"] < b["micro"]["f1_interval"][1], "the interval of F1")
    m = b["mcnemar"]
    check(m["only_this_right"] - m["only_first_right"] == round((b["accuracy"] - a["accuracy"]) * b["words"]) and m["p"] < 0.01, f"McNemar's counts: {m}")
    bins = b["calibration"]["bins"]
    ece = sum(x["words"] * abs(x["accuracy"] - x["probability"]) for x in bins if x["words"]) / b["words"]
    check(len(bins) == 15 and sum(x["words"] for x in bins) == b["words"] and abs(ece - b["calibration"]["ece"]) < 1e-12, "the reliability diagram")
    check(abs(sum(x["words"] * x["accuracy"] for x in bins if x["words"]) / b["words"] - b["accuracy"]) < 1e-12, "its accuracy is the words'")
    drift = found["checkpoints"][1]["drift"]
    check(0 < drift["cka"] < 1 and drift["cosine"]["p01"] < drift["cosine"]["mean"] < 1 and drift["sentences"] == 110, f"drift: {drift}")
    check([c["bytes"] for c in found["checkpoints"]] == [os.path.getsize(p) for p in (bad, good)] and found["checkpoints"][0]["parameters"] > 1000, "sizes")
    embedded = []
    for k, model in enumerate((bad, good)):
        text = write("texts.csv", ["text"] + ['"' + " ".join(r["tokens"]).replace('"', '""') + '"' for r in rows])
        done = program("infer", "embed", "-m", model, text, "--column", "text", "-o", at(f"v{k}.npy"), "--quiet")
        check(done.returncode == 0, f"embed: {done.stderr}")
        embedded.append(np.load(at(f"v{k}.npy")).astype(np.float64))
    x, y = embedded
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    check(abs(cosines.mean() - drift["cosine"]["mean"]) < 1e-9 and abs(np.quantile(cosines, 0.01) - drift["cosine"]["p01"]) < 1e-9, "the vectors are those of infer embed")
    x, y = x - x.mean(0), y - y.mean(0)
    check(abs(np.linalg.norm(x.T @ y) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y) - drift["cka"]) < 1e-9, "CKA of them")
    png = open(at("c.png"), "rb").read()
    width, height = struct.unpack(">II", png[16:24])
    check(png.startswith(b"\x89PNG") and png.endswith(b"IEND\xaeB`\x82") and width > 1000 and height > 1000, f"the picture: {width} x {height}")

    # --- disagreements are what the two find in the same sentence ---
    listed = [json.loads(l) for l in open(at("d.jsonl"), encoding="utf-8")]
    check(len(listed) == found["disagreeing"] > 10 and listed[:10] == found["disagreements"], "the first ten are in the JSON, all in the file")
    gains = [abs(r["errors"]["A"] - r["errors"]["B"]) for r in listed]
    check(gains == sorted(gains, reverse=True) and gains[0] > 1, "the most telling first")
    spans = lambda r, key: {(s["start"], s["end"], s["layer"]) for s in r[key]}
    for r in listed:
        check(spans(r, "A") != spans(r, "B") and all(r["text"][s["start"]:s["end"]] == s["text"] for key in ("gold", "A", "B") for s in r[key]), f"{r}")
        check(all(len(spans(r, "gold") ^ spans(r, k)) == r["errors"][k] for k in "AB"), f"errors: {r}")
    table = compare(bad, good, "--data", data, "--disagreements", "2")
    check(table.stdout.count("    gold  ") == 2 and "McNemar" in table.stdout and f"{found['data'][0]['scores'][1]['micro']['f1']:.4f}" in table.stdout, table.stdout)

    # --- the same bits in every run ---
    again = compare(bad, good, "--data", data, "--data", more_data, "--json", "--threads", "1", "--batch-tokens", "100", "--picture", at("c1.png"))
    check(json.loads(again.stdout) == found and open(at("c1.png"), "rb").read() == png, "one thread, small batches: the same")
    unseen = write("unseen.jsonl", [l.strip() for l in open(SAMPLES + "/labels/words-dev.jsonl", encoding="utf-8") if '"B"' in l][:40])
    first, other = (json.loads(compare(good, bad, "--data", unseen, "--json", "--seed", s).stdout)["all"]["scores"][1]["micro"]["difference"] for s in ("1", "2"))
    check(first["f1"] == other["f1"] < 0 and first["interval"] != other["interval"], f"another seed: another interval: {first} {other}")
    done = compare(good, good, good, "--data", data, "--gate", "--json")
    check(done.returncode == 0, f"a checkpoint beside itself passes: {done.stderr}")
    itself = json.loads(done.stdout)
    for k in (1, 2):
        s = itself["all"]["scores"][k]
        check(all(v["difference"] == {"f1": 0, "interval": [0, 0], "p": 1} for v in (s["micro"], s["macro"], s["layers"]["skill"]["labels"]["skill"])), f"no difference: {s}")
        check(s["mcnemar"] == {"only_this_right": 0, "only_first_right": 0, "p": 1}, "McNemar: none")
        check(itself["checkpoints"][k]["drift"] == {"cka": 1, "cosine": {"mean": 1, "p01": 1}, "sentences": 60}, f"no drift: {itself['checkpoints'][k]}")
    check(itself["disagreements"] == [] and itself["gate"]["passed"] is True and itself["gate"]["reason"] is None, "and no disagreement")

    # --- speed ---
    timed = json.loads(program("compare", bad, good, "--data", data, "--json", "--repeats", "1", "-q").stdout)
    for c in timed["checkpoints"]:
        check(c["speed"]["tokens_per_second"] > 0 and 0 < c["speed"]["latency_ms"]["p50"] <= c["speed"]["latency_ms"]["p95"], f"speed: {c}")

    # --- the gate ---
    one_line(compare("--gate", good, bad, "--data", data), 3, "gate: ", bad, good, data, "micro_f1", "margin of 0")
    check(compare("--gate", bad, good, "--data", data).returncode == 0, "the better one passes")
    done = compare("--gate", good, bad, "--data", data, "--data", more_data, "--metric", "knowledge", "--metric", "macro_f1", "-o", at("g.json"))
    one_line(done, 3, "knowledge", "and 3 more")
    verdict = json.load(open(at("g.json")))["gate"]
    check(verdict["passed"] is False and verdict["reason"] in done.stderr and verdict["metrics"] == ["knowledge", "macro_f1"] and "gate: " in done.stdout, f"{verdict}")
    loss = found["data"][0]["scores"]
    loss = loss[1]["micro"]["f1"] - loss[0]["micro"]["f1"]
    for margin, status in ((loss - 1e-6, 3), (loss, 0), (1, 0)):
        check(compare("--gate", good, bad, "--data", data, "--margin", f"{margin:.17g}").returncode == status, f"--margin {margin}")
    check(compare("--gate", good, good, "--data", data, "--margin", "-0.01").returncode == 3, "a negative margin asks for a gain")
    one_line(compare("--gate", good, bad, "--data", data, "--confident"), 3, "95 % interval")
    between = f"{-(first['f1'] + first['interval'][1]) / 2}"  # the estimate lies below it, part of the interval does not
    one_line(compare("--gate", good, bad, "--data", unseen, "--margin", between), 3, f"a margin of {float(between):g}")
    check(compare("--gate", good, bad, "--data", unseen, "--margin", between, "--confident").returncode == 0, "--confident: luck may explain it")
    empty = write("nothing.jsonl", [{"tokens": ["Nothing", "here"], "tags_knowledge": ["O", "O"], "tags_skill": ["O", "O"]}] * 3)
    one_line(compare("--gate", bad, good, "--data", data, "--data", empty), 1, empty, "nothing to judge by")
    one_line(compare("--gate", bad, good, "--data", data, "--metric", "topic"), 1, "--metric topic", "knowledge, skill")

    # --- layers that do not match ---
    single = [{"tokens": r["tokens"], "tags_knowledge": r["tags_knowledge"]} for r in rows[:30]]
    narrow = train("narrow.h5", write("single.jsonl", single), 1)
    other = train("other.h5", write("other.jsonl", [{"tokens": r["tokens"], "tags_place": r["tags_knowledge"]} for r in rows[:30]]), 1)
    typed = train("typed.h5", write("typed.jsonl", [{"tokens": r["tokens"], "tags_knowledge": [t if t == "O" else t + "-Tool" for t in r["tags_knowledge"]]} for r in rows[:30]]), 1)
    done = compare(good, narrow, "--data", data)
    check(done.returncode == 0 and "layers left out: skill (not in B)\n" in done.stdout and "\nskill, " not in done.stdout, f"the layer they share: {done.stdout}")
    one_line(compare("--gate", good, narrow, "--data", data), 3, "gate: ", narrow, "skill (not in B)")
    check(compare("--gate", narrow, good, "--data", data, "--margin", "1").returncode == 0, "a layer more is no fault")
    one_line(compare(narrow, other, "--data", data), 1, "no layer in common", "knowledge (not in B)", "place (not in A)")
    one_line(compare("--gate", narrow, other, "--data", data), 3, "knowledge (not in B)")
    one_line(compare("--gate", narrow, typed, "--data", data), 3, "knowledge (other labels in B)")
    done = compare(good, bad, "--data", at("single.jsonl"))
    check(done.returncode == 0 and "skill (no labels in the data)" in done.stdout, f"data of one layer: {done.stdout}")
    three = [{"tokens": r["tokens"], "tags_knowledge": r["tags_knowledge"], "tags_place": r["tags_skill"]} for r in rows[:30]]
    check("place (in no checkpoint)" in compare(good, bad, "--data", write("three.jsonl", three)).stdout, "a layer of the data alone")

    # labels in another order: a head as others number it, from a folder with id2label
    folder = at("hub")
    for args in (["export", good, "--head", "knowledge", "-o", folder], ["pull", folder, "-o", at("straight.h5"), "--quiet"]):
        done = program(*args)
        check(done.returncode == 0, f"{args}: {done.stderr}")
    from safetensors.numpy import load_file, save_file
    config, tensors, order = json.load(open(folder + "/config.json")), load_file(folder + "/model.safetensors"), [1, 2, 0]
    names = [config["id2label"][str(i)] for i in order]
    config["id2label"], config["label2id"] = {str(i): n for i, n in enumerate(names)}, {n: i for i, n in enumerate(names)}
    for name in ("classifier.weight", "classifier.bias"): tensors[name] = tensors[name][order].copy()
    json.dump(config, open(folder + "/config.json", "w"))
    save_file(tensors, folder + "/model.safetensors")
    done = program("pull", folder, "-o", at("turned.h5"), "--quiet")
    check(done.returncode == 0, f"pull: {done.stderr}")
    tags = write("tags.jsonl", [{"tokens": r["tokens"] + ["\u200d"], "tags": r["tags_knowledge"] + ["O"]} for r in rows[:40]])  # the last word has no tokens
    done = compare(at("straight.h5"), at("turned.h5"), "--data", tags, "--json", "--gate")
    if check(done.returncode == 0, f"labels in another order: {done.stderr}"):
        turned = json.loads(done.stdout)
        s = turned["all"]["scores"]
        check(turned["disagreements"] == [] and s[1]["micro"]["difference"]["f1"] == 0 and abs(s[0]["loss"] - s[1]["loss"]) < 1e-5, f"B, I, O or O, B, I: the same tagger: {s}")
        check(s[0]["micro"]["f1"] > 0.5 and s[0]["words"] == sum(b["words"] for b in s[0]["calibration"]["bins"]) + 40, f"it finds something; what it cannot see has no probability: {s[0]}")

    # --- an encoder of another size ---
    wide = samples_base(at("wide"), hidden=48)
    base = wide
    wide = train("wide.h5", data, 1)
    d = json.loads(compare(good, wide, "--data", data, "--json").stdout)["checkpoints"][1]["drift"]
    check(d["cosine"] is None and 0 < d["cka"] < 1, f"another hidden size: {d}")

    # --- bad input: one line each ---
    torn = at("torn.h5")
    open(torn, "wb").write(open(good, "rb").read()[:-5000])
    both = (good, bad, "--data", data)
    one_line(compare(torn, good, "--data", data), 1, torn)
    one_line(compare(good, torn, "--data", data, "--gate"), 1, torn)
    one_line(compare(good, samples_base(at("b")), "--data", data, "--gate"), 1, "no token head")
    one_line(compare(good, bad, "--data", at("nowhere.jsonl"), "--gate"), 1, "nowhere.jsonl")
    one_line(compare(good, "--data", data), 2, "two checkpoints")
    one_line(compare(*[good] * 9, "--data", data), 2, "too many")
    one_line(compare(good, bad), 2, "--data")
    one_line(compare(*both, "--margin", "0.1"), 2, "--gate")
    one_line(compare(*both, "--gate", "--margin", "2"), 2, "--margin")
    for option, value in (("--resamples", "0"), ("--repeats", "0"), ("--disagreements", "-1"), ("--decode", "x"), ("--dtype", "x"), ("--device", "x")): one_line(compare(*both, option, value), 2, option)
    for option in ("-o", "--picture", "--disagreements-out", "--rejected"):
        one_line(compare(*both, option, data), 2, data)
        one_line(compare(*both, option, bad), 2, bad)
    one_line(compare(*both, "-o", at("x"), "--picture", at("x")), 2, "two outputs")
    for option in ("-o", "--picture", "--disagreements-out"): one_line(compare(*both, option, at("no/such/x")), 1, "no/such/x")
    with open("/dev/full", "w") as full: one_line(program("compare", *both, "--no-speed", "-q", "--picture", "/dev/full"), 1, "/dev/full")
    broken = write("broken.jsonl", [*rows[:5], "{", {"tokens": ["a"], "tags_knowledge": []}])
    done = compare(good, bad, "--data", broken, "--rejected", at("rejected.jsonl"))
    check(done.returncode == 0 and "2 rows set aside" in done.stdout and len(open(at("rejected.jsonl")).readlines()) == 2, f"bad rows: {done.stdout} {done.stderr}")

check.close()
