"""skillwatch push to a Hub, and pull from it: against a server on this machine that keeps to the documented protocol (huggingface_hub's own client is the
witness) and fails on a schedule. skillwatch push and pull with an MLflow server: a scripted one, and the real one where the mlflow package is installed
beside this Python."""
import base64, glob, hashlib, io, json, os, re, shutil, signal, subprocess, sys, tempfile, threading, time, urllib.parse, urllib.request

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "../support")]
from hub import Hub, git_name
from test_mlflow import API, FILES, Server, real_server
from tiny import BIN, SAMPLES, Checks, program, samples_base

import h5py

check = Checks()
TOKEN = "hf_a-very-secret-token"
DROPPED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
EXPORTED = {"config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "model.safetensors", "modules.json",
            "sentence_bert_config.json", "1_Pooling/config.json"}


def content(path):
    with h5py.File(path) as f: return f.attrs["content_sha256"].decode() if isinstance(f.attrs["content_sha256"], bytes) else f.attrs["content_sha256"]


def dataset(path, name):
    with h5py.File(path) as f: return json.loads(f[name][0])


def answer(code, **headers): return lambda handler: handler.reply(code, raw=b"<html>as the script says</html>", headers={k.replace("_", "-"): v for k, v in headers.items()})


def raw(data): return lambda handler: handler.reply(200, raw=data)


def hang_up(handler):
    handler.close_connection = True
    handler.connection.close()
    return True


def lose(*verbs):
    """For Server's `always`: the first call of each verb is heeded, and its answer lost."""
    left = set(verbs)
    def action(handler):
        verb = handler.path[len(API):]
        if verb not in left: return
        left.remove(verb)
        def reply(*_, **__):
            del handler.reply
            return handler.reply(502, raw=b"<html>")
        handler.reply = reply
    return action


def cut_after(count):
    """Reads some of the body, and hangs up."""
    def action(handler):
        handler.rfile.read(count)
        return handler.hang_up()
    return action


class Pusher:
    def __init__(self, work, hub):
        self.work, self.hub, self.cache, self.said = work, hub, os.path.join(work, "cache"), ""
        base = samples_base(work, hidden=16, layers=1, intermediate=32)
        rows = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]][:12]
        open(self.path("data.jsonl"), "w", encoding="utf-8").writelines(rows)
        for name, seed in (("tagger", 0), ("other", 1)):
            done = program("train", "ner", "--base", base, "--data", self.path("data.jsonl"), "--dev", self.path("data.jsonl"), "--epochs", "2", "--batch-size", "4", "--lr", "3e-3",
                           "--threads", "1", "--seed", seed, "-q", "-o", self.path(name + ".h5"))
            check(done.returncode == 0, done.stderr)
        self.head = h5py.File(self.path("tagger.h5"))["heads"].__iter__().__next__()

    def path(self, name): return os.path.join(self.work, name)

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MLFLOW")) and "proxy" not in k.lower() and k not in DROPPED}
        return {k: v for k, v in (env | {"HF_ENDPOINT": self.hub.url, "HF_TOKEN": TOKEN} | more).items() if v is not None}

    def start(self, *arguments, checkpoint="tagger.h5", to="hub:owner/tagger", verb="push", env={}):
        p = subprocess.Popen([f"{BIN}/skillwatch-{verb}", self.path(checkpoint), "--to", to, "--head", self.head, "--cache", self.cache, *arguments],
                                env=self.environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        p.began = time.time()
        return p

    def end(self, process, expect=0, needles=(), right=True):
        out, self.said = process.communicate(timeout=120)
        what = " ".join(process.args[1:])
        if os.environ.get("SW_TIMES"): print(f"{time.time() - process.began:.1f} s  {what[-60:]} {self.said.strip()[-100:]!r}")
        check(process.returncode == expect, f"{what}: status {process.returncode}, expected {expect}: {self.said}")
        check(TOKEN not in out + self.said, f"{what}: the token is never printed")
        for needle in needles: check(needle in self.said.strip().splitlines()[-1], f"{needle!r} expected in {self.said!r}")
        if expect: check(self.said.count("skillwatch: ") == 1, f"one line: {self.said!r}")
        if right: check(not self.hub.wrongs, f"{what}: {self.hub.wrongs}")
        return out

    def run(self, *arguments, expect=0, needles=(), right=True, **options):
        return self.end(self.start(*arguments, **options), expect, needles, right)

    def pull(self, source="owner/tagger", name="back.h5", expect=0, needles=(), env={}, cache=None):
        if os.path.exists(self.path(name)): os.remove(self.path(name))
        process = subprocess.Popen([f"{BIN}/skillwatch-pull", source, "-o", self.path(name), "--cache", cache or tempfile.mkdtemp(dir=self.work)], env=self.environment(**env),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.began = time.time()
        self.end(process, expect, needles)
        return self.path(name)

    def forget(self):
        """The Hub knows nothing, and the cache neither."""
        self.hub.repos.clear(), self.hub.large.clear(), self.hub.uploads.clear()
        shutil.rmtree(self.cache, ignore_errors=True)


def test_good(p, hub):
    folder = p.path("exported")
    done = program("export", p.path("tagger.h5"), "--head", p.head, "-o", folder)
    check(done.returncode == 0, done.stderr)
    hub.part = 20000
    hub.fresh()
    told = json.loads(p.run("--json", "--message", "A tägger"))
    there = hub.content("owner/tagger")
    check(set(there) == EXPORTED | {"README.md", "skillwatch.json"}, f"files: {sorted(there)}")
    for name in EXPORTED: check(there[name] == open(os.path.join(folder, name), "rb").read(), f"{name} is what export writes")
    check(isinstance(hub.files("owner/tagger")["model.safetensors"], dict) and hub.count("part") > 3 and hub.count("complete") == hub.count("verify") == 1, "the weights went in parts")
    check(told["commit"] == hub.history("owner/tagger")[0] and told["files"] == len(there) and told["bytes"] == len(there["model.safetensors"]) and not told["unchanged"], f"{told}")
    check(hub.repos["owner/tagger"]["commits"][told["commit"]]["message"] == "A tägger" and not hub.repos["owner/tagger"]["private"], "message, visibility")
    card, training = there["README.md"].decode(), dataset(p.path("tagger.h5"), "training")
    for part in ("library_name: transformers", "pipeline_tag: token-classification", "- skillwatch", f"| {p.head} (exported) | token | O, B, I |", "## Scores", f"| {training['metrics']['micro']['f1']:.4f} |", "| training | data.jsonl | 12 |",
                 content(p.path("tagger.h5")), 'AutoModelForTokenClassification.from_pretrained("owner/tagger")', "skillwatch pull owner/tagger"):
        check(part in card, f"the card lacks {part!r}")
    check(p.work not in card, "the card shows no path of this machine")
    origin = json.loads(there["skillwatch.json"])
    check(origin["content_sha256"] == content(p.path("tagger.h5")) and origin["weights_sha256"] == hashlib.sha256(there["model.safetensors"]).hexdigest() and "checkpoint" not in origin, f"{origin}")
    check(os.listdir(os.path.join(p.cache, "push")) == [], f"nothing stays in the cache: {os.listdir(os.path.join(p.cache, 'push'))}")
    # nothing twice
    hub.fresh()
    told = json.loads(p.run("--json", needles=["has all of it already"]))
    check(told["unchanged"] and told["commit"] == hub.history("owner/tagger")[0] and len(hub.history("owner/tagger")) == 2, f"{told}")
    check(hub.count("batch") == hub.count("put") == hub.count("part") == hub.count("commit") == 0, f"{[k for k, _ in hub.log]}")
    hub.fresh()
    p.run(to="hub:owner/copy")
    check(hub.content("owner/copy")["model.safetensors"] == there["model.safetensors"] and hub.count("put") == hub.count("part") == 0, "what another repository brought is not sent again")
    # with the checkpoint, in one piece; then another model without it; and others' files stay
    hub.part = None
    hub.commit(hub.repos["owner/tagger"], "main", hub.files("owner/tagger") | {"notes.txt": b"ours"}, "by hand", hub.history("owner/tagger")[0])
    hub.fresh()
    p.run("--with-checkpoint")
    check(hub.content("owner/tagger")["skillwatch.h5"] == open(p.path("tagger.h5"), "rb").read() and hub.count("put") == 1, "the checkpoint went along, the weights were there")
    hub.fresh()
    p.run(checkpoint="other.h5")
    there = hub.content("owner/tagger")
    check("skillwatch.h5" not in there and there["notes.txt"] == b"ours" and content(p.path("other.h5")) in there["README.md"].decode(), "a checkpoint of another model goes away, others' files stay")
    # branches, private repositories
    hub.fresh()
    p.run("--revision", "next/week")
    check(hub.repos["owner/tagger"]["branches"].keys() == {"main", "next/week"} and content(p.path("tagger.h5")) in hub.content("owner/tagger", "next/week")["README.md"].decode(), "a branch")
    check(content(p.path("other.h5")) in hub.content("owner/tagger")["README.md"].decode(), "main stays")
    hub.fresh()
    p.run("--private", to="hub:owner/secret")
    check(hub.repos["owner/secret"]["private"] and "README.md" in hub.files("owner/secret"), "private")
    hub.fresh()
    p.run("--private", expect=1, needles=["is public", "nothing was sent"])
    check(hub.count("preupload") == hub.count("commit") == 0, "nothing is sent to a public one")


def test_pull(p, hub):
    p.forget()
    hub.part, _ = None, hub.fresh()
    p.run("--with-checkpoint")
    size = len(hub.content("owner/tagger")["model.safetensors"])
    hub.fresh()
    back = p.pull()
    check(content(back) == content(p.path("tagger.h5")) and dataset(back, "lineage") == dataset(p.path("tagger.h5"), "lineage"), "pull gets the checkpoint back, with its lineage")
    check(hub.count("download") == 1, "its weights are not fetched twice")
    cache = p.path("kept")
    p.pull(cache=cache)
    check(content(p.pull(cache=cache, env={"HF_HUB_OFFLINE": "1"})) == content(p.path("tagger.h5")), "from the cache")
    check(content(p.pull("hub:owner/tagger")) == content(p.path("tagger.h5")), "hub: is understood")
    # somebody trains on with transformers and pushes other weights
    repo, data = hub.repos["owner/tagger"], bytearray(hub.content("owner/tagger")["model.safetensors"])
    data[-1] ^= 1
    oid = hashlib.sha256(data).hexdigest()
    hub.large[oid] = bytes(data)
    hub.commit(repo, "main", hub.files("owner/tagger") | {"model.safetensors": {"oid": oid, "size": size}}, "trained on", hub.history("owner/tagger")[0])
    back = p.pull(cache=cache)
    check("of other weights" in p.said and dataset(back, "training")["source"]["format"] == "hub" and content(back) != content(p.path("tagger.h5")), f"a checkpoint of other weights is left out: {p.said}")
    # a checkpoint that is another than skillwatch.json says
    hub.fresh()
    p.run("--with-checkpoint")
    data = open(p.path("other.h5"), "rb").read()
    oid = hashlib.sha256(data).hexdigest()
    hub.large[oid] = data
    hub.commit(repo, "main", hub.files("owner/tagger") | {"skillwatch.h5": {"oid": oid, "size": len(data)}}, "mixed up", hub.history("owner/tagger")[0])
    back = p.pull()
    check("content hash" in p.said and dataset(back, "training")["source"]["format"] == "hub", f"a checkpoint with another hash is left out: {p.said}")
    p.run("--with-checkpoint")
    check(content(p.pull()) == content(p.path("tagger.h5")), "pushed again, it is right again")
    # a model that transformers does not know, in the place of one that it knows
    done = program("train", "topics", "--data", SAMPLES + "/job-postings", "-o", p.path("topics.h5"), "--topics", "2", "--passes", "1", "--no-below", "2", "-q")
    check(done.returncode == 0, done.stderr)
    hub.fresh()
    p.run(checkpoint="topics.h5", expect=1, needles=["transformers has no model of this kind", "--with-checkpoint"])
    p.run("--with-checkpoint", checkpoint="topics.h5")
    check(set(hub.content("owner/tagger")) == {"README.md", "skillwatch.json", "skillwatch.h5"}, f"{sorted(hub.content('owner/tagger'))}")
    check(content(p.pull(cache=cache)) == content(p.path("topics.h5")), "the checkpoint alone comes back")


def test_faults(p, hub):
    # trouble everywhere, once or twice: all the same in the end, and nothing twice
    for part in (None, 20000):
        p.forget()
        hub.part = part
        soon = answer(429, Retry_After="1")
        hub.fresh(before={"part" if part else "put": [cut_after(5000)]}, revision=[answer(500)], create=[answer(503)], preupload=[soon], batch=[hang_up], put=[None, answer(500)],
                  part=[None, answer(500), None, hang_up], complete=[answer(502)], verify=[answer(500)], commit=[answer(500)])
        p.run()
        check(set(hub.content("owner/tagger")) == EXPORTED | {"README.md", "skillwatch.json"} and len(hub.history("owner/tagger")) == 2, f"{sorted(hub.content('owner/tagger'))}")
        check(p.said.count("trying again") >= 6 and "trying again in 1.0 s" in p.said, f"Retry-After is followed, and said: {p.said}")

    # signed addresses that are too old: new ones are asked for
    for part, kind in ((None, "put"), (20000, "part"), (20000, "complete")):
        p.forget()
        hub.part = part
        hub.fresh(**{kind: [None, answer(403)] if kind == "part" else [answer(403)]})
        p.run()
        check(hub.count("batch") == 2 and "model.safetensors" in hub.files("owner/tagger"), f"{kind}: {hub.count('batch')} batches")
    p.forget()
    hub.part = None
    hub.fresh(put=[answer(403)] * 9)
    p.run(expect=1, needles=["denies access", "clock"])
    check(hub.count("put") == 4, f"{hub.count('put')} tries")

    # the answer to a commit is lost: it is not made twice
    p.forget()
    hub.fresh(commit=["lost"])
    told = json.loads(p.run("--json"))
    check(len(hub.history("owner/tagger")) == 2 and told["commit"] == hub.history("owner/tagger")[0] and "theirs" not in p.said, f"{hub.history('owner/tagger')}")
    # somebody else commits between our look and our commit
    p.forget()
    def other(handler): hub.commit(hub.repos["owner/tagger"], "main", hub.files("owner/tagger") | {"theirs": b"x"}, "theirs", hub.history("owner/tagger")[0])
    hub.fresh(commit=[other])
    p.run(expect=1, needles=["somebody else changed main", "run the command again"])
    check(hub.files("owner/tagger").keys() == {".gitattributes", "theirs"}, "what they did stays")
    hub.fresh()
    p.run()
    check("theirs" in hub.files("owner/tagger") and hub.count("put") == 0, "again: on top of it, without another upload")

    # wrong answers
    p.forget()
    hub.create("owner/tagger")
    def wrong(needles, expect=1, **script):
        hub.fresh(**script)
        p.run(expect=expect, needles=needles, right=False)
        check(len(hub.history("owner/tagger")) == 1, f"{needles}: nothing is committed")
    wrong(["no JSON"], revision=[raw(b"<html>")])
    wrong(["no JSON"], revision=[raw(b"[]")])
    wrong(["which commit"], revision=[{"sha": "../../x"}])
    wrong(["how it wants"], preupload=[{"files": []}])
    wrong(["how it wants"], preupload=[{"files": 7}])
    wrong(["where model.safetensors goes"], batch=[{"objects": []}])
    wrong(["'xet'"], batch=[{"transfer": "xet"}])
    wrong(["HTTP status 418"], preupload=[answer(418)])
    wrong(["denies access", "may write to owner"], preupload=[answer(403)])
    wrong(["redirects", "renamed"], preupload=[answer(307, Location="http://127.0.0.1:9/")])
    wrong(["denies access"], commit=[lambda h: h.reply(403, {"error": f"no rights for {TOKEN}"})])
    wrong(["no rights at all"], commit=[lambda h: h.reply(400, {"error": "no rights\tat all"})])
    wrong(["come back in 3000 seconds"], expect=75, preupload=[answer(429, Retry_After="3000")])
    oid = hashlib.sha256(open(p.path("exported/model.safetensors"), "rb").read()).hexdigest()
    hub.large.clear()
    def upload(**action): return {"objects": [{"oid": oid, "size": 1, "actions": {"upload": action}}]}
    for href in ("file:///etc/passwd", "ftp://127.0.0.1/x", ""): wrong(["address"], batch=[{"transfer": "basic"} | upload(href=href)])
    wrong(["parts"], batch=[upload(href=hub.url, header={"chunk_size": "1000", "1": hub.url})])
    wrong(["parts"], batch=[upload(href=hub.url, header={"chunk_size": "-5"})])
    wrong(["parts"], batch=[upload(href=hub.url, header={"chunk_size": "many", "1": hub.url})])
    wrong(["refuses model.safetensors: 422 too large"], batch=[{"objects": [{"oid": oid, "size": 1, "error": {"code": 422, "message": "too large"}}]}])
    elsewhere = Hub(TOKEN)
    wrong(["HTTP status 307"], put=[answer(307, Location=elsewhere.url + "/x")])
    check(not elsewhere.log, "a redirect of an upload is not followed")
    hub.part = 20000
    wrong(["part 1 no ETag"], part=[raw(b"")])
    wrong(["what arrived is not what was sent"], verify=[answer(404)])
    hub.part = None
    hub.fresh(commit=[{"commitOid": None}])
    p.run(expect=1, needles=["does not say which"])

    # nobody there; settings that cannot be right
    p.run(expect=75, needles=["cannot be reached"], env={"HF_ENDPOINT": "http://127.0.0.1:9"}, right=False)
    p.run(expect=1, needles=["HF_HUB_OFFLINE"], env={"HF_HUB_OFFLINE": "1"})
    p.run(expect=1, needles=["HF_TOKEN is not set"], env={"HF_TOKEN": None})
    p.run(expect=1, needles=["HF_TOKEN"], env={"HF_TOKEN": "two\nlines"})
    p.run(expect=1, needles=["plain http"], env={"HF_ENDPOINT": "http://example.invalid"})
    p.run(expect=1, needles=["is no Hub id"], to="hub:owner")
    p.run("--revision", "../x", expect=1, needles=["is no revision"])
    for arguments, part in ((("--to", "s3:x"), "--to"), ((), "--to"), (("--to", "hub:o/n", "--alias", "x"), "MLflow"), (("--to", "mlflow:n", "--private"), "Hub"),
                            (("--to", "hub:o/n", "--head", "nope"), "nope"), (("--to", "hub:o/n", "--message", ""), "--message")):
        done = program("push", p.path("tagger.h5"), *arguments, env=p.environment())
        check.refused(done, part, f"{arguments}", (2,))
    check.refused(program("push", p.path("data.jsonl"), "--to", "hub:o/n", env=p.environment()), "not a Skillwatch checkpoint", "another file", (1,))


def test_resume(p, hub):
    """Killed in the middle of a large file: the next run sends the parts that lack."""
    p.forget()
    hub.part, hub.wrongs = 20000, []
    reached = threading.Event()
    def stall(handler):
        reached.set()
        time.sleep(60)
        return handler.hang_up()
    hub.fresh(before={"part": [None, None, None, stall]})
    process = p.start()
    check(reached.wait(60), "the upload did not start")
    command = open(f"/proc/{process.pid}/cmdline", "rb").read()
    check(TOKEN.encode() not in command and b"skillwatch-push" in command, "the process list does not show the token")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    states = [n for n in os.listdir(p.cache + "/push") if n.endswith(".json")]
    check(len(states) == 1 and os.stat(f"{p.cache}/push/{states[0]}").st_mode & 0o77 == 0, f"the state is the user's only: {states}")
    text = open(f"{p.cache}/push/{states[0]}").read()
    check(TOKEN not in text and len(json.loads(text)["etags"]) == 3, "three parts are remembered, and no token")
    hub.fresh()
    p.run()
    count = -(-len(hub.content("owner/tagger")["model.safetensors"]) // 20000)
    check("3 of" in p.said and hub.count("part") == count - 3, f"{hub.count('part')} of {count} parts: {p.said}")
    check(os.listdir(p.cache + "/push") == [], f"nothing stays: {os.listdir(p.cache + '/push')}")
    # one killed while it exported
    os.makedirs(p.cache + "/push/export.tmp-4999999-0/model.tmp-4999999-1/1_Pooling")
    hub.fresh()
    p.run()
    check(os.listdir(p.cache + "/push") == [], f"nothing stays: {os.listdir(p.cache + '/push')}")
    # the completion is done and its answer lost: the Hub says that it has the file
    p.forget()
    hub.fresh(complete=["lost"])
    p.run()
    check(hub.count("batch") == 2 and hub.count("part") == count and "model.safetensors" in hub.files("owner/tagger"), f"{hub.count('part')} of {count} parts")
    check(os.listdir(p.cache + "/push") == [], "nothing stays")
    # what is remembered is too old by now: all of it again
    p.forget()
    hub.fresh(before={"part": [None, stall]})
    reached.clear()
    process = p.start()
    check(reached.wait(60), "the upload did not start")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.uploads.clear(), hub.signatures.clear()
    hub.fresh()
    p.run()
    check("model.safetensors" in hub.files("owner/tagger"), "an upload that the storage forgot begins anew")


def test_tls(p, hub):
    pem = p.path("server.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", pem + ".key", "-out", pem + ".crt"], check=True, capture_output=True)
    open(pem, "w").write(open(pem + ".crt").read() + open(pem + ".key").read())
    keep, trust = p.hub, {"SSL_CERT_FILE": pem + ".crt"}
    p.hub = hub = Hub(TOKEN, certificate=pem, storage_certificate=pem)
    shutil.rmtree(p.cache, ignore_errors=True)
    p.run(env=trust)
    check(set(hub.content("owner/tagger")) == EXPORTED | {"README.md", "skillwatch.json"}, "over TLS")
    hub.fresh()
    p.run(expect=1, needles=["certificate is not trusted", "SSL_CERT_FILE"])
    check(not hub.log, "a server that cannot prove its name hears nothing")
    p.hub = half = Hub(TOKEN, certificate=pem)
    p.run(expect=1, needles=["from https", "refused"], env=trust)
    check(half.count("put") == 0, "nothing goes from https to http")
    p.hub = keep


def test_witness(p, hub):
    """huggingface_hub pushes to the same server, and gets what skillwatch pushed; transformers loads it."""
    try:
        import huggingface_hub
    except ImportError as e:
        print(f"huggingface_hub is left out: {e}")
        return
    p.forget()
    hub.part = 20000
    hub.fresh()
    p.run("--with-checkpoint")
    script = """
import os, sys
import huggingface_hub
api = huggingface_hub.HfApi(endpoint=sys.argv[1], token=sys.argv[2])
api.create_repo("owner/theirs", private=True)
api.upload_folder(repo_id="owner/theirs", folder_path=sys.argv[3], commit_message="theirs")
print(api.snapshot_download("owner/tagger", cache_dir=sys.argv[4]))
"""
    env = p.environment(HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0", HF_HOME=p.path("hf"), HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
    done = subprocess.run([sys.executable, "-c", script, hub.url, TOKEN, p.path("exported"), p.path("snapshots")], env=env, capture_output=True, text=True, timeout=120)
    if not check(done.returncode == 0 and not hub.wrongs, f"huggingface_hub: {done.stderr[-2000:]} {hub.wrongs}"): return
    check(hub.content("owner/theirs").items() >= {n: open(p.path("exported/" + n), "rb").read() for n in EXPORTED}.items(), "huggingface_hub's own upload arrives")
    snapshot = done.stdout.strip().splitlines()[-1]
    for name, data in hub.content("owner/tagger").items(): check(open(os.path.join(snapshot, name), "rb").read() == data, f"{name} in the snapshot")
    back = program("pull", snapshot, "-o", p.path("from-snapshot.h5"))
    check(back.returncode == 0 and content(p.path("from-snapshot.h5")) == content(p.path("tagger.h5")), f"pull of the snapshot: {back.stderr}")
    try:
        from transformers import AutoModelForTokenClassification, AutoTokenizer
    except ImportError as e:
        print(f"transformers is left out: {e}")
        return
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(snapshot), AutoTokenizer.from_pretrained(snapshot)
    weights = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    with h5py.File(p.path("tagger.h5")) as f:
        labels = [l.decode() if isinstance(l, bytes) else l for l in f[f"heads/{p.head}/labels"][()]]
        check([model.config.id2label[i] for i in range(len(labels))] == labels, f"labels: {model.config.id2label}")
        check((weights["classifier.weight"] == f[f"weights/heads.{p.head}.weight"][()]).all() and
              (weights["bert.embeddings.word_embeddings.weight"] == f["weights/embeddings.word_embeddings.weight"][()]).all(), "transformers reads the checkpoint's weights")
    check(len(tokenizer("Know Rust and Python")["input_ids"]) > 4, "the tokenizer works")


class Registry(Server):
    """test_mlflow's server, which also keeps versions of models, their tags and aliases, and gives files back. `page`: versions a page."""

    def __init__(self, **options):
        super().__init__(**options)
        self.aliases, self.page, self.begun = {}, 2, {}

    def handle(self, handler):
        path, _, query = handler.path.partition("?")
        asked, verb = dict(urllib.parse.parse_qsl(query)), path[len(API):]
        files = path.startswith(FILES) and handler.command == "GET"
        if verb == "runs/create":
            data, kept = handler.rfile.read(int(handler.headers["Content-Length"])), handler.rfile
            self.begun[json.loads(data)["start_time"]] = f"{len(self.runs):032x}"
            handler.rfile = io.BytesIO(data)
            super().handle(handler)
            handler.rfile = kept
            return
        if not files and not verb.startswith(("model-versions/", "registered-models/alias", "runs/search")): return super().handle(handler)
        told = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length", 0))) or b"{}")
        self.log.append((handler.command, path, dict(handler.headers)))
        if self.faults and self.faults.pop(0)(handler): return
        if self.always and self.always(handler): return
        reply = lambda **body: handler.reply(200, body)
        missing = lambda: handler.error(404, "RESOURCE_DOES_NOT_EXIST")
        if files:
            data = self.files.get(urllib.parse.unquote(path[len(FILES):]))
            return handler.reply(200, raw=data) if data is not None else missing()
        if verb == "runs/search":
            begun, digest = re.fullmatch(r"attributes\.start_time = (\d+) and tags\.`skillwatch\.file_sha256` = '(\w{64})'", told["filter"]).groups()
            run_id = self.begun.get(int(begun))
            found = run_id in self.runs and {"key": "skillwatch.file_sha256", "value": digest} in self.runs[run_id]["tags"] and told["experiment_ids"][0] in self.experiments.values()
            return reply(runs=[{"info": {"run_id": run_id, "artifact_uri": self.place.format(run_id)}}] if found else [])
        if verb == "model-versions/create":
            if told["name"] not in self.models: return missing()
            assert told["source"].split(":/", 1)[1].lstrip("/") in self.files and told["run_id"] in self.runs
            self.versions.append(told | {"version": str(len(self.versions) + 1), "status": "READY"})
            return reply(model_version=self.versions[-1])
        if verb == "model-versions/search":
            found = [v for v in self.versions if asked["filter"] == f"name='{v['name']}'"][::-1]
            start = int(asked.get("page_token", 0))
            return reply(model_versions=found[start:start + self.page], **({"next_page_token": str(start + self.page)} if start + self.page < len(found) else {}))
        if verb == "registered-models/alias" and handler.command == "POST":
            self.aliases[told["name"], told["alias"]] = told["version"]
            return reply()
        number = asked.get("version") or self.aliases.get((asked["name"], asked.get("alias")))
        version = next((v for v in self.versions if v["name"] == asked["name"] and v["version"] == number), None)
        if not version: return missing()
        return reply(artifact_uri=version["source"]) if verb == "model-versions/get-download-uri" else reply(model_version=version)


class Registered(Pusher):
    """Pushes to an MLflow server, and pulls from it."""

    def __init__(self, pusher, url): self.__dict__ |= pusher.__dict__ | {"url": url}

    def environment(self, **more): return super().environment(**({"MLFLOW_TRACKING_URI": self.url, "MLFLOW_TRACKING_TOKEN": TOKEN, "HF_TOKEN": None} | more))

    def run(self, *arguments, to="mlflow:tagger", **options): return super().run(*arguments, to=to, right=False, **options)


def test_mlflow(p, hub):
    server = Registry()
    m = Registered(p, server.url)
    told = json.loads(m.run("--json", "--alias", "champion", "--message", "of this week"))
    version, (run_id, run) = server.versions[0], next(iter(server.runs.items()))
    tags, training = {t["key"]: t["value"] for t in version["tags"]}, dataset(p.path("tagger.h5"), "training")
    check(told == {"model": "tagger", "version": "1", "run_id": run_id, "unchanged": False} and server.aliases == {("tagger", "champion"): "1"}, f"{told} {server.aliases}")
    check(tags["skillwatch.content_sha256"] == content(p.path("tagger.h5")) and tags["skillwatch.lineage"] == dataset(p.path("tagger.h5"), "lineage")[0]["content_sha256"] and
          tags["skillwatch.kind"] == "ner" and version["description"] == "of this week", f"{version}")
    check(run["status"][-1] == "FINISHED" and run["params"]["learning_rate"] == "0.003" and list(server.experiments) == ["skillwatch"], f"{run['status']} {server.experiments}")
    check(abs(run["metrics"]["micro/f1", 0] - training["metrics"]["micro"]["f1"]) < 1e-9, "scores")
    place = f"7/{run_id}/artifacts/"
    check(server.files[place + "tagger.h5"] == open(p.path("tagger.h5"), "rb").read(), "the checkpoint")
    check({n[len(place) + 12:]: d for n, d in server.files.items() if n.startswith(place + "huggingface/")} == {n: open(p.path("exported/" + n), "rb").read() for n in EXPORTED}, "the exported folder")
    check(all(h.get("Authorization") == f"Bearer {TOKEN}" for _, _, h in server.log), "the token in every request")
    # nothing twice; the alias may move
    m.run("--alias", "other", needles=["version 1 is this checkpoint already"])
    check(len(server.runs) == len(server.versions) == 1 and server.aliases["tagger", "other"] == "1", "nothing twice")
    for checkpoint in ("other.h5", "tiny.h5"): m.run(*([] if checkpoint == "other.h5" else ["--head", "none"]), checkpoint=checkpoint)
    check([v["version"] for v in server.versions] == ["1", "2", "3"], "versions")
    m.run("--alias", "champion", checkpoint="other.h5", needles=["version 2 is this checkpoint already"])
    # and back
    for source, wanted in (("mlflow:tagger", "tiny.h5"), ("mlflow:tagger@champion", "other.h5"), ("mlflow:tagger@other", "tagger.h5"), ("mlflow:tagger/1", "tagger.h5")):
        check(open(m.pull(source), "rb").read() == open(p.path(wanted), "rb").read(), f"{source} is {wanted}")
    check(not [n for n in os.listdir(p.work) if ".tmp-" in n or n.endswith((".etag", ".part"))], f"nothing stays beside it: {os.listdir(p.work)}")
    for source, part in (("mlflow:tagger@nobody", "no alias nobody"), ("mlflow:tagger/9", "no version 9"), ("mlflow:nothing", "no version of a model nothing"), ("mlflow:tagger/x", "NAME/version"),
                         ("mlflow:tagger@", "NAME@alias"), ("mlflow:a b'c", "no name of a registered model")):
        m.pull(source, expect=1, needles=[part])
    login = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": TOKEN}
    server.log.clear()
    m.pull("mlflow:tagger/1", env=login)
    check({h.get("Authorization") for _, _, h in server.log} == {"Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()}, "user and password")
    # what the server gives is not what was registered
    server.files[place + "tagger.h5"] = open(p.path("other.h5"), "rb").read()
    m.pull("mlflow:tagger/1", expect=1, needles=["SHA-256", "not used"])
    version["tags"] = [t for t in version["tags"] if t["key"] != "skillwatch.file_sha256"]
    m.pull("mlflow:tagger/1", expect=1, needles=["another checkpoint", "not used"])
    server.files[place + "tagger.h5"] = open(p.path("tagger.h5"), "rb").read()[:-100]
    m.pull("mlflow:tagger/1", expect=1, needles=["version 1 of tagger"])
    # trouble: a few failures are nothing; then it says so, and what was begun is FAILED
    server = Registry(faults=[answer(503), answer(429, Retry_After="2"), None, answer(500), hang_up, None, None, answer(503)])
    server.faults = [f or (lambda h: None) for f in server.faults]
    m = Registered(p, server.url)
    m.run()
    check(len(server.versions) == 1 and len(server.runs) == 1 and "trying again in 2.0 s" in m.said, f"{m.said}")
    later = lambda h: h.command == "PUT" and h.reply(503, raw=b"", headers={"Retry-After": "3000"})
    server = Registry(always=later)
    Registered(p, server.url).run(expect=75, needles=["come back in 3000 seconds"])
    check(next(iter(server.runs.values()))["status"][-1] == "FAILED" and not server.versions, "the run has FAILED, and no version points to it")
    # a run and a version whose answers are lost are not made twice
    server = Registry(always=lose("runs/create", "model-versions/create"))
    told = json.loads(Registered(p, server.url).run("--json", "--alias", "champion"))
    check(len(server.runs) == len(server.versions) == 1 and told["version"] == "1" and told["run_id"] in server.runs and server.aliases["tagger", "champion"] == "1", f"{told} {server.runs.keys()}")
    # what is refused in the end is no trouble that goes away, whatever came before
    Registered(p, Registry(faults=[answer(503), answer(401)]).url).run(expect=1, needles=["denies access"])
    def vanish(handler):
        if handler.command != "PUT" or not handler.path.endswith("model.safetensors"): return
        os.remove(glob.glob(p.cache + "/push/export.tmp-*/model/model.safetensors")[0])
        return hang_up(handler)
    Registered(p, Registry(always=vanish).url).run(expect=1, needles=["cannot read"])
    endless = json.dumps({"model_versions": [], "next_page_token": "again"}).encode()
    for verb in ("push", "pull"):
        m = Registered(p, Registry(always=raw(endless)).url)
        m.run(expect=1, needles=["has no end"]) if verb == "push" else m.pull("mlflow:tagger", expect=1, needles=["has no end"])
    # the login: not printed when the server repeats it, and a word where others can read it
    for field in ("error_code", "message"):
        echo = {"error_code": "INVALID_PARAMETER_VALUE", "message": "x"} | {field: f"not {TOKEN}"}
        Registered(p, Registry(always=lambda h: h.reply(400, echo)).url).run(expect=1, needles=["MLflow at"])
    server = Registry()
    m = Registered(p, server.url)
    m.run()
    proxy = Registry()
    m.run(env={"http_proxy": proxy.url, "all_proxy": proxy.url})
    check(not proxy.log, "a login without TLS stays on this machine, past any proxy")
    elsewhere, before = {"MLFLOW_TRACKING_URI": server.url.replace("127.0.0.1", "127.1")}, len(server.log)
    for login in ({}, {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": TOKEN}):
        m.run(expect=1, needles=["in the clear", "https", "PASSWORD" if login else "MLFLOW_TRACKING_TOKEN"], env=elsewhere | login)
        m.pull("mlflow:tagger", expect=1, needles=["in the clear"], env=elsewhere | login)
    check(len(server.log) == before, "a login goes to no other machine without TLS")
    m.run(env=elsewhere | {"MLFLOW_TRACKING_TOKEN": None})
    Registered(p, Registry(always=answer(401)).url).run(expect=1, needles=["denies access", "MLFLOW_TRACKING_TOKEN"])
    Registered(p, Registry(always=raw(b"<html>")).url).run(expect=1, needles=["no JSON"])
    Registered(p, Registry(place="s3://bucket/{}").url).run(expect=1, needles=["s3://bucket", "only its own client"])
    other = Registry()
    Registered(p, Registry(always=lambda h: h.reply(307, headers={"Location": other.url + h.path})).url).run(expect=1, needles=["redirects"])
    check(not other.log, "a login goes to no other server")
    server = Registry()
    Registered(p, server.url).run()
    server.always = lambda h: h.command == "GET" and h.path.startswith(FILES) and h.reply(302, headers={"Location": other.url + h.path})
    Registered(p, server.url).pull("mlflow:tagger", expect=1, needles=["is not there"])
    check(other.log and not any("Authorization" in h for _, _, h in other.log), "a redirect of a file is followed without the login")
    m = Registered(p, "ftp://x")
    m.run(expect=1, needles=["MLFLOW_TRACKING_URI"])
    m.run(expect=1, needles=["user or password"], env={"MLFLOW_TRACKING_URI": "http://me:word@host"})
    m.run(expect=1, needles=["not set"], env={"MLFLOW_TRACKING_URI": ""})
    m.run(expect=1, needles=["no name of a registered model"], to="mlflow:a/b", env={"MLFLOW_TRACKING_URI": server.url})


def test_mlflow_real(p, hub):
    """The same with the real server."""
    with tempfile.TemporaryDirectory() as work, real_server(work) as url:
        if not url: return
        m = Registered(p, url)
        told = json.loads(m.run("--json", "--alias", "champion"))
        check(json.loads(m.run("--json")) == told | {"unchanged": True}, "nothing twice")
        m.run(checkpoint="other.h5")
        for source, wanted in (("mlflow:tagger@champion", "tagger.h5"), ("mlflow:tagger", "other.h5"), ("mlflow:tagger/1", "tagger.h5")):
            check(open(m.pull(source), "rb").read() == open(p.path(wanted), "rb").read(), f"{source} is {wanted}")
        m.pull("mlflow:tagger@nobody", expect=1, needles=["no alias nobody"])
        m.pull("mlflow:tagger/7", expect=1, needles=["no version 7"])
        def ask(path): return json.load(urllib.request.urlopen(url + API + path, timeout=30))
        run = ask("runs/get?run_id=" + told["run_id"])["run"]
        metrics = {x["key"]: x["value"] for x in run["data"]["metrics"]}
        check(run["info"]["status"] == "FINISHED" and abs(metrics["micro/f1"] - dataset(p.path("tagger.h5"), "training")["metrics"]["micro"]["f1"]) < 1e-9, f"{run['info']} {metrics}")
        version = ask("model-versions/get?name=tagger&version=1")["model_version"]
        check({t["key"]: t["value"] for t in version["tags"]}["skillwatch.content_sha256"] == content(p.path("tagger.h5")) and version.get("aliases") == ["champion"], f"{version}")
        print("the real server agrees")


def main():
    with tempfile.TemporaryDirectory() as work:
        hub = Hub(TOKEN)
        p = Pusher(work, hub)
        busy = Hub(TOKEN)  # asked six times; that takes its time, the others go on meanwhile
        busy.fresh(revision=[answer(500)] * 100)
        hopeless = p.start("--cache", p.path("busy"), env={"HF_ENDPOINT": busy.url})
        for test in (test_good, test_pull, test_faults, test_resume, test_tls, test_witness, test_mlflow, test_mlflow_real):
            began = time.time()
            test(p, hub)
            print(f"{test.__name__}: {time.time() - began:.1f} s", flush=True)
        p.end(hopeless, 75, ["HTTP status 500", "later"], right=False)
        check(busy.count("revision") == 6, f"{busy.count('revision')} requests")
    check.close()


if __name__ == "__main__":
    main()
