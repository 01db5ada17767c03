"""skillwatch pull from a Hub: a scripted server on this machine misbehaves in every way that real ones do.

The model is a tiny random BERT made here with transformers.
"""
import hashlib, http.server, json, os, signal, ssl, subprocess, sys, tempfile, threading, time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import torch, transformers
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has torch and transformers")
    sys.exit(77)

BIN = os.environ.get("SW_BIN", "")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a-very-secret-token"
AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
checks = 0


def check(condition, message):
    global checks
    checks += 1
    if not condition: sys.exit(f"FAILED: {message}")


class Hub:
    """Serves {file: bytes} at /owner/name/resolve/<revision>/<file>. `script[file]` is a list of actions, one taken a request:
    a function of the handler that returns True when it has answered. `certificate`: a file of certificate and key, to serve over TLS."""

    def __init__(self, files, certificate=None):
        self.files, self.script, self.log, self.storage = dict(files), {}, [], None
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.log.append((self.path, dict(self.headers)))
                parts = self.path.split("/resolve/")
                name = parts[-1].split("/", 1)[-1]
                self.name, self.hub = name, hub
                actions = hub.script.get(name)
                if actions and actions.pop(0)(self): return
                hub.serve(self, name)

            def log_message(self, *arguments): pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, address: None  # clients that hang up are part of the test
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # the handshake belongs to the handler's thread: a client that refuses must not hold up the next one
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def etag(self, name):
        data = self.files[name]
        return hashlib.sha256(data).hexdigest() if name.endswith(".safetensors") else hashlib.sha1(data).hexdigest()

    def serve(self, handler, name):
        if name not in self.files:
            return answer(handler, 404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
        data, etag = self.files[name], self.etag(name)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        if handler.headers.get("If-None-Match") == f'"{etag}"': return answer(handler, 304, b"", headers)
        wanted = handler.headers.get("Range")
        if wanted:
            start = int(wanted.split("=")[1].rstrip("-"))
            if start >= len(data): return answer(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return answer(handler, 206, data[start:], headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        answer(handler, 200, data, headers)

    def requests(self, name):
        return [headers for path, headers in self.log if path.endswith("/" + name)]

    def fresh(self, **script):
        self.log.clear()
        self.script = {name.replace("__", "."): actions for name, actions in script.items()}


def answer(handler, status, body=b"", headers={}):
    handler.send_response(status)
    for key, value in headers.items(): handler.send_header(key, value)
    if status != 304: handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


def status(code, **headers):
    return lambda handler: answer(handler, code, b"busy", {key.replace("_", "-"): value for key, value in headers.items()})


def cut(part):
    """Announces the whole file, sends `part` of it, and hangs up."""
    def action(handler):
        data = handler.hub.files[handler.name]
        start = int(handler.headers.get("Range", "bytes=0-").split("=")[1].rstrip("-"))
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", f'"{handler.hub.etag(handler.name)}"')
        if start: handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start:start + int(part * (len(data) - start))])
        handler.wfile.flush()
        handler.connection.close()
        handler.close_connection = True
        return True
    return action


def stall(reached):
    """Sends half of the file, sets the event, and then nothing more."""
    def action(handler):
        data = handler.hub.files[handler.name]
        handler.send_response(200)
        handler.send_header("ETag", f'"{handler.hub.etag(handler.name)}"')
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:len(data) // 2])
        handler.wfile.flush()
        reached.set()
        time.sleep(60)
        handler.close_connection = True
        return True
    return action


def altered(handler):
    data = bytearray(handler.hub.files[handler.name])
    data[-1] ^= 1
    return answer(handler, 200, bytes(data), {"ETag": f'"{handler.hub.etag(handler.name)}"'})


def ignore_range(handler):
    return answer(handler, 200, handler.hub.files[handler.name], {"ETag": f'"{handler.hub.etag(handler.name)}"'})


def redirect(to, **more):
    return lambda handler: answer(handler, 302, b"", {"Location": to, **{key.replace("_", "-"): value for key, value in more.items()}})


class Puller:
    def __init__(self, work, hub):
        self.work, self.hub, self.runs = work, hub, 0

    def start(self, source="owner/tiny", cache=None, token=None, endpoint=None, offline=False, quiet=False, trust={}):
        self.runs += 1
        self.cache = cache or os.path.join(self.work, f"cache-{self.runs}")
        self.file = os.path.join(self.work, f"out-{self.runs}.h5")
        env = {key: value for key, value in os.environ.items()
               if not key.startswith("HF_") and "proxy" not in key.lower() and key not in AUTHORITIES}
        env |= {"HF_ENDPOINT": endpoint or self.hub.url} | trust
        if token: env["HF_TOKEN"] = token
        if offline: env["HF_HUB_OFFLINE"] = "1"
        arguments = [os.path.join(BIN, "skillwatch-pull"), source, "-o", self.file, "--cache", self.cache] + (["-q"] if quiet else [])
        return subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, expect=0, needles=(), **options):
        process = self.start(**options)
        out, error = process.communicate(timeout=120)
        check(process.returncode == expect, f"status {process.returncode}, expected {expect}: {error}")
        check(TOKEN not in out + error, "the token must never be printed")
        if expect:
            last = error.strip().splitlines()[-1]
            check(last.startswith("skillwatch: ") and error.count("skillwatch: ") == 1, f"one line at the end expected: {error!r}")
            for needle in needles: check(needle in last, f"{needle!r} expected in {last!r}")
            check(not os.path.exists(self.file), "a failed pull leaves no checkpoint")
        else:
            check(self.shown()["weights"] == self.reference, "the checkpoint has other weights than the model")
        return error

    def shown(self):
        run = subprocess.run([os.path.join(BIN, "skillwatch-show"), "--json", self.file], capture_output=True, text=True)
        check(run.returncode == 0, run.stderr)
        shown = json.loads(run.stdout)
        shown["weights"] = weights_of(self.file)
        return shown

    def cached(self):
        return [name for folder, _, names in os.walk(self.cache) for name in names if name != ".lock"]

    def parts(self):
        return [name for name in self.cached() if name.endswith(".part")]


def weights_of(file):
    import h5py
    with h5py.File(file) as f:
        return {name: hashlib.sha256(item[()].tobytes()).hexdigest() for name, item in f["weights"].items()}


def make_model(folder):
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(c) for c in range(97, 123)] + ["##" + chr(c) for c in range(97, 123)]
    config = transformers.BertConfig(vocab_size=len(vocab), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
                                     max_position_embeddings=64)
    transformers.BertModel(config).save_pretrained(folder)
    with open(os.path.join(folder, "vocab.txt"), "w") as f: f.write("\n".join(vocab) + "\n")
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f: json.dump({"do_lower_case": True, "model_max_length": 64}, f)
    return {name: open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder)}


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def make_authority(folder, name):
    """A certificate authority of the test's own: <name>.pem, <name>.key."""
    path = os.path.join(folder, name)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", path + ".key", "-out", path + ".pem")
    return path


def make_certificate(authority, name, hosts, days=2):
    """Certificate and key in one file, signed by `authority`."""
    path = os.path.join(os.path.dirname(authority), name)
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}", "-addext",
            f"subjectAltName={hosts}", "-keyout", path + ".key", "-out", path + ".csr")
    openssl("x509", "-req", "-in", path + ".csr", "-CA", authority + ".pem", "-CAkey", authority + ".key", "-days", str(days),
            "-copy_extensions", "copy", "-out", path + ".crt")
    with open(path + ".pem", "w") as f:
        for part in (".crt", ".key"): f.write(open(path + part).read())
    return path + ".pem"


def test_tls(work, files, reference):
    """What holds over plain http holds over TLS, and only a server that can prove its name is listened to."""
    folder = os.path.join(work, "tls")
    os.mkdir(folder)
    ours, others = make_authority(folder, "ours"), make_authority(folder, "others")
    here = "DNS:localhost,IP:127.0.0.1"
    certificate = make_certificate(ours, "server", here)
    hub, storage, plain = Hub(files, certificate), Hub(files, make_certificate(ours, "storage", here)), Hub(files)
    pull = Puller(folder, hub)
    pull.reference = reference
    trust = {"SSL_CERT_FILE": ours + ".pem"}
    size, digest = len(files["model.safetensors"]), hub.etag("model.safetensors")

    # every way to name the authority; a connection that is cut; the token goes to the Hub
    hashed = os.path.join(folder, "hashed")
    os.mkdir(hashed)
    name = openssl("x509", "-hash", "-noout", "-in", ours + ".pem") + ".0"
    os.symlink(ours + ".pem", os.path.join(hashed, name))
    hub.fresh(model__safetensors=[cut(0.5), cut(0.5)])
    pull.run(trust=trust, token=TOKEN)
    ranges = [headers.get("Range") for headers in hub.requests("model.safetensors")]
    check(ranges == [None, f"bytes={size // 2}-", f"bytes={size // 2 + (size - size // 2) // 2}-"], f"ranges asked for over TLS: {ranges}")
    check(all(headers.get("Authorization") == f"Bearer {TOKEN}" for _, headers in hub.log), "the Hub gets the token over TLS")
    cache = pull.cache
    for variable in AUTHORITIES:
        for path in (ours + ".pem", hashed):
            if (variable, path) == ("SSL_CERT_DIR", ours + ".pem"): continue
            hub.fresh()
            pull.run(trust={variable: path}, cache=cache)
            check("If-None-Match" in hub.requests("model.safetensors")[0], "the copy of the first pull is asked about")
    hub.fresh()
    pull.run(trust=trust, endpoint=f"https://localhost:{hub.port}/")

    # who cannot be trusted gets no request, no token, and leaves no file
    def refused(server=hub, needles=(), **options):
        server.fresh()
        pull.run(expect=1, token=TOKEN, endpoint=options.pop("endpoint", server.url), needles=["certificate", *needles], **options)
        check(not server.log and not pull.cached(), f"{needles}: {len(server.log)} requests, files {pull.cached()}")
    refused(needles=["not trusted", "SSL_CERT_FILE"])
    refused(needles=["not trusted"], trust={"SSL_CERT_FILE": others + ".pem"})
    refused(needles=["not trusted"], trust=trust | {"REQUESTS_CA_BUNDLE": others + ".pem"})  # the first name counts
    refused(needles=["SSL_CERT_FILE", "cannot be used", "nowhere.pem"], trust={"SSL_CERT_FILE": os.path.join(folder, "nowhere.pem")})
    refused(needles=["CURL_CA_BUNDLE", "cannot be used"], trust={"CURL_CA_BUNDLE": ours + ".key"})
    refused(Hub(files, make_certificate(ours, "elsewhere", "DNS:elsewhere.test,IP:127.0.0.2")), needles=["another host"], trust=trust)
    refused(Hub(files, make_certificate(ours, "name-only", "DNS:localhost")), needles=["another host"], trust=trust)
    refused(Hub(files, make_certificate(ours, "expired", here, days=-1)), needles=["not valid today", "expired"], trust=trust)

    # redirects: the token stays with its host and name, and nothing goes from https to http
    there = "/blob/resolve/x/model.safetensors"
    linked = {"X_Linked_Etag": f'"{digest}"', "X_Repo_Commit": COMMIT}
    hub.fresh(model__safetensors=[redirect(storage.url + there, **linked)] * 2)
    storage.fresh(model__safetensors=[cut(0.5)])
    pull.run(trust=trust, token=TOKEN)
    check(len(storage.log) == 2 and not any("Authorization" in headers for _, headers in storage.log), f"no token for storage over TLS: {storage.log}")
    check(storage.log[1][1].get("Range") == f"bytes={size // 2}-", "storage over TLS is resumed")
    hub.fresh(model__safetensors=[redirect(hub.url + there, **linked)])
    pull.run(trust=trust, token=TOKEN, endpoint=f"https://localhost:{hub.port}")
    tokens = {path: headers.get("Authorization") for path, headers in hub.log}
    check(tokens.pop(there) is None and set(tokens.values()) == {f"Bearer {TOKEN}"}, "another name of the same server is another host")
    hub.fresh(model__safetensors=[redirect(plain.url + there, **linked)])
    plain.fresh()
    pull.run(expect=1, trust=trust, token=TOKEN, needles=["model.safetensors", "from https", "refused"])
    check(not plain.log, "a redirect from https to http is not followed")
    plain.fresh(model__safetensors=[redirect(storage.url + there, **linked)])
    storage.fresh()
    pull.run(trust=trust, token=TOKEN, endpoint=plain.url)
    check(len(storage.log) == 1 and "Authorization" not in storage.log[0][1], "from a loopback http endpoint to https: without the token")
    plain.fresh(model__safetensors=[redirect(storage.url + there, **linked)])
    storage.fresh(model__safetensors=[redirect(plain.url + there)])
    pull.run(expect=1, trust=trust, token=TOKEN, endpoint=plain.url, needles=["from https", "refused"])
    check(not any(path == there for path, _ in plain.log), "nor later in a chain of redirects")
    stranger = Hub(files, make_certificate(others, "stranger", here))
    hub.fresh(model__safetensors=[redirect(stranger.url + there, **linked)])
    pull.run(expect=1, trust=trust, token=TOKEN, needles=["model.safetensors", "not trusted"])
    check(not stranger.log and not any(name.startswith("model") for name in pull.cached()), "storage must be trusted, too")

    # content that is not what the Hub announced
    hub.fresh(model__safetensors=[redirect(storage.url + there, **linked)] * 2)
    storage.fresh(model__safetensors=[altered, altered])
    pull.run(expect=1, trust=trust, token=TOKEN, needles=["model.safetensors", "SHA-256", digest[:12]])
    check(not pull.parts(), "wrong content stays in the cache")


def main():
    check(os.path.exists(os.path.join(BIN, "skillwatch-pull")), "SW_BIN should name the folder of the programs")
    with tempfile.TemporaryDirectory() as work:
        os.mkdir(os.path.join(work, "model"))
        files = make_model(os.path.join(work, "model"))
        hub, storage = Hub(files), Hub(files)
        pull = Puller(work, hub)
        subprocess.run([os.path.join(BIN, "skillwatch-pull"), "-q", os.path.join(work, "model"), "-o", os.path.join(work, "folder.h5")], check=True)
        pull.reference = weights_of(os.path.join(work, "folder.h5"))
        size = len(files["model.safetensors"])
        digest = hub.etag("model.safetensors")

        # all is well; optional files are absent; all files are of the commit that the first answer names; then nothing is fetched twice
        hub.fresh()
        pull.run()
        source = pull.shown()["training"]["source"]
        check(source == {"format": "hub", "name": f"owner/tiny@{COMMIT}"}, f"the origin is {source}")
        check("/resolve/main/" in hub.log[0][0], "the first request asks for main")
        check(all(f"/resolve/{COMMIT}/" in path for path, _ in hub.log if path.endswith(("safetensors", "vocab.txt"))), "later ones ask for the commit")
        check(not any("Authorization" in headers for _, headers in hub.log), "no token, no Authorization")
        cache = pull.cache
        hub.fresh()
        pull.run(cache=cache)
        check(all("If-None-Match" in headers for headers in hub.requests("model.safetensors")), "the second pull asks whether its copy is right")
        pull.run(cache=cache, offline=True, endpoint="http://127.0.0.1:9")
        pull.run(expect=1, offline=True, needles=["not in the cache", "HF_HUB_OFFLINE"])

        # a copy in the cache that was damaged is fetched again
        path = next(os.path.join(folder, "model.safetensors") for folder, _, names in os.walk(cache) if "model.safetensors" in names)
        with open(path, "r+b") as f:
            f.seek(size // 2)
            f.write(b"\xff\x00\xff")
        hub.fresh()
        pull.run(cache=cache)
        check("If-None-Match" not in hub.requests("model.safetensors")[0], "a damaged copy is not defended by its ETag")

        # a file of the model that went away goes away in the cache
        hub.files["modules.json"] = b"[]"
        pull.run(cache=cache)
        del hub.files["modules.json"]
        pull.run(cache=cache)
        check(not any("modules.json" in names for _, _, names in os.walk(cache)), "a file that the model no longer has stays in the cache")

        # a revision, and a name with a slash in it
        hub.fresh()
        pull.run(source="owner/tiny@refs/pr/1")
        check(hub.log[0][0].startswith("/owner/tiny/resolve/refs%2Fpr%2F1/"), f"revision: {hub.log[0][0]}")

        # the connection is cut twice: the rest is asked for, and only the rest
        hub.fresh(model__safetensors=[cut(0.5), cut(0.5)])
        error = pull.run()
        ranges = [headers.get("Range") for headers in hub.requests("model.safetensors")]
        check(ranges[0] is None and ranges[1] == f"bytes={size // 2}-" and len(ranges) == 3, f"ranges asked for: {ranges}")
        check("trying again" in error and not pull.parts(), "the user hears of the second try; no part stays")
        hub.fresh(model__safetensors=[cut(0.5), ignore_range])
        pull.run(quiet=True)

        # the puller is killed in the middle; the next run asks for the rest
        reached = threading.Event()
        hub.fresh(model__safetensors=[stall(reached)])
        process = pull.start()
        check(reached.wait(60), "the download did not start")
        deadline = time.time() + 30
        while time.time() < deadline:
            sizes = [os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(pull.cache) for name in names if name.endswith(".part")]
            if sizes and sizes[0] > 0: break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        left = sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(pull.cache) for name in names if name.endswith(".part"))
        check(0 < left < size, f"{left} bytes of {size} are kept")
        hub.fresh()
        pull.run(cache=pull.cache)
        check(f"bytes={left}-" in [headers.get("Range") for headers in hub.requests("model.safetensors")], "the next run resumes")

        # a part that is whole already, and one that is longer than the file
        for content in (files["model.safetensors"], files["model.safetensors"] + b"x" * 100):
            folder = os.path.join(work, f"cache-{pull.runs + 1}", "hub", "owner--tiny", "main")
            os.makedirs(folder)
            with open(os.path.join(folder, f"model.safetensors.{digest[:16]}.part"), "wb") as f: f.write(content)
            hub.fresh()
            pull.run()

        # the file changes on the server while it is fetched
        hub.fresh(model__safetensors=[cut(0.5)])
        old, hub.files["model.safetensors"] = hub.files["model.safetensors"], None
        changed = bytearray(old)
        changed[-4:] = b"\0\0\0\0"
        first = cut(0.5)

        def old_then_new(handler):
            handler.hub.files["model.safetensors"] = old
            first(handler)
            handler.hub.files["model.safetensors"] = bytes(changed)
            return True
        hub.fresh(model__safetensors=[old_then_new])
        process = pull.start()
        error = process.communicate(timeout=120)[1]
        check(process.returncode == 0, f"a file that changed: {error}")
        check(weights_of(pull.file) != pull.reference and len(weights_of(pull.file)) == len(pull.reference), "the new file is what counts")
        hub.files["model.safetensors"] = old

        # busy servers
        hub.fresh(config__json=[status(503), status(500)], model__safetensors=[status(429, Retry_After="1")])
        began = time.time()
        error = pull.run()
        check(time.time() - began > 1.4 and error.count("trying again") == 3, f"three waits expected: {error}")
        check("trying again in 1.0 s" in error, f"Retry-After is followed: {error}")
        hub.fresh(config__json=[status(503, Retry_After=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2)))])
        pull.run()
        hub.fresh(config__json=[status(418)])
        pull.run(expect=1, needles=["config.json", "418"])

        # content that is not what was announced: never used, not even later
        hub.fresh(model__safetensors=[altered, altered])
        pull.run(expect=1, needles=["model.safetensors", "SHA-256", digest[:12]])
        check(not pull.parts(), "wrong content stays in the cache")
        hub.fresh(model__safetensors=[altered])
        pull.run()

        # storage on another host: the checksum comes with the redirect, the token stays at home
        there = f"http://127.0.0.1:{storage.port}/blob/resolve/x/model.safetensors"
        hub.fresh(model__safetensors=[redirect(there, X_Linked_Etag=f'"{digest}"', X_Repo_Commit=COMMIT)])
        storage.fresh(model__safetensors=[cut(0.5)])
        hub.script["model.safetensors"] *= 3
        pull.run(token=TOKEN)
        check(all(headers.get("Authorization") == f"Bearer {TOKEN}" for _, headers in hub.log), "the Hub gets the token")
        check(len(storage.log) == 2 and not any("Authorization" in headers for _, headers in storage.log), "the other host does not")
        check(storage.log[1][1].get("Range") == f"bytes={size // 2}-", "resumed there too")
        cache = pull.cache
        hub.fresh(model__safetensors=[redirect(there, X_Linked_Etag=f'"{digest}"')])
        storage.fresh()
        pull.run(cache=cache, token=TOKEN)
        check(not storage.log, "what the Hub says is unchanged is not fetched again")
        hub.fresh(model__safetensors=[redirect(there, X_Linked_Etag=f'"{digest}"')] * 2)
        storage.fresh(model__safetensors=[altered, altered])
        pull.run(expect=1, needles=["SHA-256"])
        hub.fresh(model__safetensors=[redirect(there, X_Linked_Etag=f'"{digest}"')] * 2)
        storage.fresh(model__safetensors=[status(403)])  # a signed address that is too old
        pull.run()
        hub.fresh(config__json=[redirect("/elsewhere/resolve/x/config.json")])
        pull.run()
        hub.fresh(config__json=[redirect(f"http://127.0.0.1:{hub.port}/o/n/resolve/x/config.json")] * 20)
        pull.run(expect=1, needles=["redirects"])
        for to in ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"):
            hub.fresh(config__json=[redirect(to)])
            pull.run(expect=1, needles=["config.json", "redirect"])

        # no access, no model
        hub.fresh(modules__json=[status(401, X_Error_Code="RepoNotFound")])
        pull.run(expect=1, needles=["owner/tiny", "401", "set HF_TOKEN"])
        hub.fresh(modules__json=[status(403, X_Error_Code="GatedRepo")])
        pull.run(expect=1, token=TOKEN, needles=["owner/tiny", "403", "licence"])
        hub.fresh(modules__json=[status(404, X_Error_Code="RepoNotFound")])
        pull.run(expect=1, token=TOKEN, needles=["no such model"])
        hub.fresh(modules__json=[status(404, X_Error_Code="RevisionNotFound")])
        pull.run(expect=1, source="owner/tiny@v9", needles=["no revision v9"])
        weights = hub.files.pop("model.safetensors")
        pull.run(expect=1, needles=["no model.safetensors", "safe_serialization"])
        hub.files["model.safetensors"] = weights
        config = hub.files.pop("config.json")
        pull.run(expect=1, needles=["no such model"])
        hub.files["config.json"] = config
        hub.files["modules.json"] = json.dumps([{"type": "x.Pooling", "path": "../../up"}]).encode()
        pull.run(expect=1, needles=["outside the model"])
        del hub.files["modules.json"]

        # shards
        from safetensors.torch import load, save
        tensors = load(weights)
        names = sorted(tensors)
        halves = {f"model-0000{k + 1}-of-00002.safetensors": names[k::2] for k in range(2)}
        del hub.files["model.safetensors"]
        hub.files |= {file: save({name: tensors[name] for name in held}) for file, held in halves.items()}
        hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {n: f for f, held in halves.items() for n in held}}).encode()
        hub.fresh()
        pull.run()
        hub.files = dict(files)

        # nobody there; settings that cannot be right
        pull.run(expect=1, endpoint="http://127.0.0.1:9", needles=["cannot be reached", "network"])
        pull.run(expect=1, endpoint="ftp://127.0.0.1", needles=["HF_ENDPOINT"])
        pull.run(expect=1, endpoint="http://example.invalid", token=TOKEN, needles=["plain http"])
        pull.run(expect=1, token="two\nlines", needles=["HF_TOKEN"])
        for source in ("owner/../x", "own er/x", "owner/", "/owner", "owner/x@", "owner/x@a..b"):
            pull.run(expect=1, source=source, needles=[source])
        check(not hub.requests("passwd"), "nothing else is asked for")

        test_tls(work, files, pull.reference)
    print(f"{checks} checks passed")


if __name__ == "__main__":
    main()
