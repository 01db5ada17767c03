"""--mlflow URL: what a tracking server is told, and that none of them, however it misbehaves, stops a training or gets a login that is not its own.

A scripted server on this machine plays MLflow. Where the mlflow package is installed beside this Python, the real server is asked, too.

usage: test_mlflow.py [--no-real]
"""
import base64, contextlib, http.server, json, os, resource, signal, socket, ssl, subprocess, sys, tempfile, threading, time, urllib.parse, urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import BIN, SAMPLES, Checks, program, samples_base

import h5py

check = Checks()
TOKEN, TOOL = "a-very-secret-token", os.path.join(os.environ.get("SW_TESTS_BIN", "build/release/tests"), "tool-monitor")
AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
API, FILES = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"


class Server:
    """Remembers what it is told. `faults`: functions of the handler, one taken a request, that return True when they have answered (or not)."""

    def __init__(self, certificate=None, faults=(), always=None, place="mlflow-artifacts:/7/{}/artifacts"):
        self.faults, self.always, self.place = list(faults), always, place
        self.log, self.experiments, self.runs, self.files, self.models, self.versions = [], {}, {}, {}, set(), []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self): owner.handle(self)
            do_POST = do_PUT = do_GET

            def reply(self, status, body=None, headers={}, raw=None):
                data = raw if raw is not None else json.dumps(body or {}).encode()
                self.send_response(status)
                for key, value in headers.items(): self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return True

            def error(self, status, code): return self.reply(status, {"error_code": code, "message": "as the script says"})

            def log_message(self, *arguments): pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda request, address: None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def handle(self, handler):
        path, query = (handler.path.split("?", 1) + [""])[:2]
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.log.append((handler.command, path, dict(handler.headers)))
        if self.faults and self.faults.pop(0)(handler): return
        if self.always and self.always(handler): return
        if path.startswith(FILES) and handler.command == "PUT":
            self.files[urllib.parse.unquote(path[len(FILES):])] = body
            return handler.reply(200)
        verb, told = path[len(API):], json.loads(body) if body else {}
        if verb == "experiments/get-by-name":
            name = urllib.parse.parse_qs(query)["experiment_name"][0]
            if name not in self.experiments: return handler.error(404, "RESOURCE_DOES_NOT_EXIST")
            return handler.reply(200, {"experiment": {"experiment_id": self.experiments[name], "name": name}})
        if verb == "experiments/create":
            self.experiments[told["name"]] = str(len(self.experiments) + 7)
            return handler.reply(200, {"experiment_id": self.experiments[told["name"]]})
        if verb == "runs/create":
            run_id = f"{len(self.runs):032x}"
            assert told["experiment_id"] in self.experiments.values() and abs(told["start_time"] / 1000 - time.time()) < 60
            self.runs[run_id] = {"name": told["run_name"], "tags": told["tags"], "params": {}, "metrics": {}, "status": ["RUNNING"]}
            return handler.reply(200, {"run": {"info": {"run_id": run_id, "artifact_uri": self.place.format(run_id)}}})
        if verb.startswith("registered-models/create"):
            if told["name"] in self.models: return handler.error(400, "RESOURCE_ALREADY_EXISTS")
            self.models.add(told["name"])
            return handler.reply(200, {})
        if verb == "model-versions/create":
            self.versions.append(told)
            return handler.reply(200, {})
        run_id = told.get("run_id") or urllib.parse.parse_qs(query).get("run_id", [None])[0]
        run = self.runs.get(run_id)
        if not run: return handler.error(404, "RESOURCE_DOES_NOT_EXIST")
        if verb == "runs/get" and handler.command == "GET":
            return handler.reply(200, {"run": {"info": {"run_id": run_id, "artifact_uri": self.place.format(run_id), "status": run["status"][-1]}}})
        if verb == "runs/update":
            run["status"].append(told["status"])
            return handler.reply(200, {"run_info": {"run_id": told["run_id"], "artifact_uri": self.place.format(told["run_id"])}})
        if verb == "runs/log-batch":
            metrics, params = told.get("metrics", []), told.get("params", [])
            assert len(metrics) <= 1000 and len(params) <= 100 and all(len(p["value"]) <= 500 for p in params)
            for p in params:
                if run["params"].setdefault(p["key"], p["value"]) != p["value"]: return handler.error(400, "INVALID_PARAMETER_VALUE")
            for m in metrics:
                assert abs(m["timestamp"] / 1000 - time.time()) < 600
                run["metrics"][m["key"], m["step"]] = m["value"]
            return handler.reply(200)
        handler.error(404, "ENDPOINT_NOT_FOUND")


def status(code): return lambda handler: handler.reply(code, raw=b"<html>busy</html>")


def slow(seconds):
    def wait(handler): time.sleep(seconds)
    return wait


def hang(handler):
    time.sleep(60)
    handler.close_connection = True
    return True


def flat(row, prefix=""):
    for key, value in row.items():
        if isinstance(value, dict): yield from flat(value, prefix + key + "/")
        elif isinstance(value, (int, float)) and prefix + key not in ("step", "epoch"): yield prefix + key, value


def told(metrics):
    """(name, step): value of a metrics file."""
    return {(name, row["step"]): value for row in map(json.loads, open(metrics)) for name, value in flat(row)}


def near(a, b): return set(a) == set(b) and all(abs(a[k] - b[k]) <= 1e-6 * abs(b[k]) for k in a)


def content(path):
    with h5py.File(path) as f: return f.attrs["content_sha256"], json.loads(f["training"][0])


class Runs:
    def __init__(self, folder):
        self.folder, self.count = folder, 0
        base = samples_base(folder, hidden=16, layers=1, intermediate=32)
        rows = [l for l in open(SAMPLES + "/labels/train.jsonl", encoding="utf-8") if json.loads(l)["spans"]][:12]
        open(self.path("data.jsonl"), "w", encoding="utf-8").writelines(rows)
        self.options = ["ner", "--base", base, "--data", self.path("data.jsonl"), "--dev", self.path("data.jsonl"), "--epochs", "12", "--batch-size", "4",
                        "--lr", "3e-3", "--threads", "1", "--log-every", "1", "--checkpoint-every", "2"]
        done = program("train", *self.options, "-q", "-o", self.path("alone.h5"))
        check(done.returncode == 0, done.stderr)
        self.alone = content(self.path("alone.h5"))

    def path(self, name): return os.path.join(self.folder, name)

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW") and "proxy" not in k.lower() and k not in AUTHORITIES}
        return env | {"MLFLOW_TRACKING_TOKEN": TOKEN} | more

    def start(self, url, *more, name=None, env={}, **options):
        self.count += 1
        self.name = name or f"run-{self.count}"
        return subprocess.Popen([BIN + "/skillwatch-train", *self.options, "-q", "-o", self.path(self.name + ".h5"), "--mlflow", url, *more],
                                env=self.environment(**env), stderr=subprocess.PIPE, text=True, **options)

    def end(self, run, expect=0, same=True):
        error = run.communicate(timeout=120)[1]
        check(run.returncode == expect, f"{run.args[-4:]}: status {run.returncode}: {error}")
        check(TOKEN not in error and base64.b64encode(f"me:{TOKEN}".encode()).decode() not in error, "the login is never printed")
        if same: check(content(self.path(self.name + ".h5")) == self.alone, f"{run.args[-4:]}: the checkpoint is not that of a run alone")
        return error.splitlines()

    def run(self, server, *more, expect=0, same=True, lines=0, needles=(), **options):
        error = self.end(self.start(server if isinstance(server, str) else server.url, *more, **options), expect, same)
        # a short training may be over before the first request fails: then the last line says it all
        check(min(lines, 1) <= len(error) <= lines and all(n in error[-1] for n in needles), f"{more}: {error}")
        return error


def complete(runs, server, what, model=None):
    """The server knows everything of the last run."""
    if not check(len(server.runs) == 1, f"{what}: {len(server.runs)} runs"): return
    (run_id, run), name = next(iter(server.runs.items())), runs.name
    wanted = told(runs.path(name + ".metrics.jsonl"))
    check(near(run["metrics"], wanted), f"{what}: {len(run['metrics'])} values of {len(wanted)}: {sorted(set(wanted) ^ set(run['metrics']))[:3]}")
    check(run["status"][-1] == "FINISHED" and run["name"].endswith(name + ".h5"), f"{what}: {run['status']}")
    for ending in (".h5", ".metrics.jsonl"):
        check(server.files.get(f"7/{run_id}/artifacts/{name}{ending}") == open(runs.path(name + ending), "rb").read(), f"{what}: {name}{ending}")
    params = run["params"]
    check(params["learning_rate"] == "0.003" and params["epochs"] == "12" and params["data/0/rows"] == "12" and params["device"].startswith("cpu") and
          params["base_sha256"] == runs.alone[1]["run"]["base_sha256"] and len(params["dev/0/sha256"]) == 64, f"{what}: {params}")
    wanted = [{"name": model, "run_id": run_id, "source": f"mlflow-artifacts:/7/{run_id}/artifacts/{name}.h5"}] if model else []
    check(server.versions == wanted, f"{what}: {server.versions}")


def test_good(runs, work):
    server = Server()
    runs.run(server, "--mlflow-experiment", "skills/Ü & more", "--mlflow-model", "tagger")
    complete(runs, server, "a good server", "tagger")
    check(list(server.experiments) == ["skills/Ü & more"], f"{server.experiments}")
    check(all(h.get("Authorization") == "Bearer " + TOKEN for _, _, h in server.log), "the token, in every request")
    check(runs.alone == content(runs.path(runs.name + ".h5")), "watching changes nothing")
    # a second one finds experiment and model; its login is another
    server.runs.clear(), server.versions.clear()
    runs.run(server, "--mlflow-experiment", "skills/Ü & more", "--mlflow-model", "tagger", env={"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": TOKEN})
    complete(runs, server, "again", "tagger")
    check(server.log[-1][2].get("Authorization") == "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode(), "user and password")
    check(len(server.experiments) == 1, "no second experiment")
    server = Server(place="mlflow-artifacts:///7/{}/artifacts")
    runs.run(server.url + "//", env={"MLFLOW_TRACKING_TOKEN": ""})
    complete(runs, server, "no login")
    check(not any("Authorization" in h for _, _, h in server.log), "no login, none sent")


def test_resume(runs, work):
    """Stopped again and again, it is one run."""
    server, stops = Server(), 0
    steps = lambda: max((json.loads(l)["step"] for l in open(runs.path("stopped.metrics.jsonl")) if l.endswith("\n")), default=0) if os.path.exists(runs.path("stopped.metrics.jsonl")) else 0
    while stops < 20:
        goal = steps() + 9
        run = runs.start(server.url, "--resume", name="stopped")
        while run.poll() is None and (steps() < goal or not any(r["params"] for r in server.runs.values())): time.sleep(0.002)
        if run.poll() is None: run.send_signal(signal.SIGTERM)
        error = run.communicate(timeout=60)[1]
        if run.returncode == 0: break
        stops += 1
        check(run.returncode == 75 and "not delivered" not in error, f"{run.returncode} {error}")
        check(next(iter(server.runs.values()))["status"][-1] == "KILLED", "a stopped run is KILLED")
        check(content(runs.path("stopped.last.h5"))[1]["mlflow_run_id"] == next(iter(server.runs)), "the run's id is kept")
    check(stops >= 2 and run.returncode == 0, f"{stops} stops {run.returncode}")
    check(content(runs.path("stopped.h5")) == runs.alone, "the best checkpoint is that of a run alone")
    if next(iter(server.runs.values()))["status"][-1] == "FINISHED": complete(runs, server, f"{stops} stops")
    said = len(server.log)
    runs.end(runs.start(server.url, "--resume", name="stopped"))
    check(len(server.log) == said + 1 and server.log[-1][:2] == ("GET", API + "runs/get"), "a run that is complete asks whether the server knows that, and says nothing more")
    # killed between its last checkpoint and its end: the server still takes it for running
    run = next(iter(server.runs.values()))
    run["status"].append("RUNNING")
    server.files.clear()
    runs.end(runs.start(server.url, "--resume", "--mlflow-model", "tagger", name="stopped"))
    complete(runs, server, "ended late", "tagger")
    said = len(server.log)
    runs.end(runs.start(server.url, "--resume", "--mlflow-model", "tagger", name="stopped"))
    check(len(server.log) == said + 1 and len(server.versions) == 1, "it is ended once")
    server.runs.clear()
    error = runs.end(runs.start(server.url, "--resume", name="stopped"))
    check(not error and not server.runs, f"a run that was deleted stays so: {error}")
    # on a server that does not know the run (any more) another one is made
    first, second = Server(), Server()
    run = runs.start(first.url, "--epochs", "200", name="moved")
    while run.poll() is None and not os.path.exists(runs.path("moved.last.h5")): time.sleep(0.002)
    run.send_signal(signal.SIGTERM)
    runs.end(run, 75, same=False)
    runs.end(runs.start(second.url, "--epochs", "200", "--resume", name="moved"), same=False)
    check(len(second.runs) == 1 and next(iter(second.runs.values()))["status"][-1] == "FINISHED", f"{second.log[:4]}")


def test_faults(runs, work):
    hanging = Server(always=hang)
    hung, hung_name = runs.start(hanging.url), runs.name  # waits some seconds at its end, the others go on meanwhile
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # and never listens
    url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    runs.run(url, "--mlflow-model", "tagger", lines=2,
             needles=["not delivered: ", " values, the settings, the metrics file, the checkpoint, the model's version, the run's end ("])
    run = runs.start(url, "--epochs", "10000", name="unheard")
    line = run.stderr.readline()
    check(url in line and line.endswith("; training goes on, its numbers wait\n") and run.poll() is None, f"one line at the first failure: {line}")
    run.send_signal(signal.SIGINT)
    error = runs.end(run, 75, same=False)
    check(len(error) == 2 and "go on with --resume" in error[0] and "not delivered" in error[1], f"{error}")
    server = Server(faults=[status(500), status(429)])
    error = runs.end(runs.start(server.url))
    check(len(error) <= 1 and all("HTTP status 500; training goes on" in l for l in error), f"{error}")
    complete(runs, server, "trouble at first")
    runs.run(Server(always=status(500)), lines=2, needles=["not delivered", "HTTP status 500"])
    server = Server(always=status(401))
    runs.run(server, lines=2, needles=["denies access (HTTP 401)", "MLFLOW_TRACKING_TOKEN", "not delivered"])
    check(len(server.log) == 1, f"a server that denies access is asked once: {len(server.log)}")
    server = Server(always=slow(0.2))
    runs.run(server, "--mlflow-model", "tagger")
    complete(runs, server, "a slow server", "tagger")
    runs.run(Server(always=status(200)), lines=2, needles=["is it an MLflow tracking server?", "not delivered"])
    runs.run(Server(always=status(404)), lines=2, needles=["HTTP status 404", "not delivered"])
    server = Server(place="s3://bucket/7/{}")
    runs.run(server, lines=1, needles=["not delivered: the metrics file, the checkpoint (", "s3://bucket/7/"])
    check(len(next(iter(server.runs.values()))["metrics"]) > 0 and not server.files, "the numbers are there all the same")
    # a batch that is refused is lost, the rest goes on
    refuse = lambda h: h.path.endswith("log-batch") and len(server.log) < 6 and h.error(400, "INVALID_PARAMETER_VALUE")
    server = Server(always=refuse)
    runs.run(server, lines=2, needles=["not delivered: ", " values, the settings (it answers INVALID_PARAMETER_VALUE"])
    check(next(iter(server.runs.values()))["status"][-1] == "FINISHED", "the end is told")
    # a login goes to no other server
    other = Server()
    server = Server(always=lambda h: h.reply(307, headers={"Location": other.url + h.path}))
    runs.run(server, lines=2, needles=["not delivered", "redirects (HTTP 307)"])
    check(not other.log and len(server.log) == 1, "a redirect is not followed")
    # it hangs: in the middle of training nothing waits for it
    run = runs.start(hanging.url, "--epochs", "3000", name="hung")
    while run.poll() is None and not os.path.exists(runs.path("hung.last.h5")): time.sleep(0.01)
    run.send_signal(signal.SIGUSR1)
    check("not delivered" in " ".join(runs.end(run, 75, same=False)), "stopped while the server hangs")
    run = runs.start(hanging.url, "--epochs", "3000", name="twice")
    while run.poll() is None and not os.path.exists(runs.path("twice.last.h5")): time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    check("go on with --resume" in run.stderr.readline(), "the first signal saves")
    run.send_signal(signal.SIGINT)
    check("not delivered" in " ".join(runs.end(run, 75, same=False)), "the second one does not wait for the server")
    runs.name = hung_name
    error = runs.end(hung)
    check("not delivered" in error[-1], f"it ends while the server hangs: {error}")


def test_failed(runs, work):
    """A training that fails: the server hears of it, and the message is still the training's."""
    server = Server()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    error = runs.end(runs.start(server.url, preexec_fn=limit), 1, same=False)
    check(len(error) == 1 and "File too large" in error[0], f"{error}")
    check([r["status"][-1] for r in server.runs.values()] == ["FAILED"] and not any(n.endswith(".h5") for n in server.files), f"{server.runs} {list(server.files)}")


def test_tls(runs, work):
    pem = os.path.join(work, "server.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=here",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", pem + ".key", "-out", pem + ".crt"], check=True, capture_output=True)
    open(pem, "w").write(open(pem + ".crt").read() + open(pem + ".key").read())
    server = Server(certificate=pem)
    runs.run(server, env={"SSL_CERT_FILE": pem + ".crt"})
    complete(runs, server, "over TLS")
    server = Server(certificate=pem)
    runs.run(server, lines=2, needles=["not delivered", "certificate"])
    check(not server.log, "a server that cannot prove its name hears nothing")


def test_queue(runs, work):
    """More values than the queue holds while the server hangs: the oldest go, and are counted."""
    release, total = threading.Event(), 70000
    server = Server(faults=[lambda handler: release.wait(60) and None])
    run = subprocess.Popen([TOOL, server.url, str(total)], env=runs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    check(run.stdout.readline() == "added\n", "values are taken while the server hangs")
    release.set()
    error = run.communicate(timeout=120)[1]
    steps = sorted(step for _, step in next(iter(server.runs.values()))["metrics"])
    lost = total - 65536
    check(steps == list(range(lost + 1, total + 1)), f"the newest values arrive: {len(steps)}")
    check(len(error.splitlines()) == 1 and f"not delivered: {lost} values (" in error, f"{error}")


def test_usage(runs, work):
    for more, part in ((("--mlflow", "ftp://x"), "--mlflow ftp://x"), (("--mlflow", "http://"), "http://"), (("--mlflow", "http://me:word@host"), "no user or password"),
                       (("--mlflow-model", "m"), "--mlflow-model needs"), (("--mlflow", "http://x", "--mlflow-experiment", ""), "--mlflow-experiment")):
        done = program("train", *runs.options, "-o", runs.path("x.h5"), *more)
        check.refused(done, part, f"{more}", (2,))
        check("word" not in done.stderr.replace("password", "").replace("PASSWORD", ""), "a password is not repeated")
    done = program("train", *runs.options, "-o", runs.path("x.h5"), "--mlflow", "http://mlflow.example", env=runs.environment(MLFLOW_TRACKING_TOKEN=TOKEN))
    check.refused(done, "in the clear", "a login over plain http", (2,))
    done = program("train", *runs.options, "-o", runs.path("x.h5"), "--mlflow", "http://127.0.0.1:1", env=runs.environment(MLFLOW_TRACKING_TOKEN="a\nX-Evil: 1"))
    check.refused(done, "control character", "a token with a line break", (1,))


@contextlib.contextmanager
def real_server(work):
    """The address of an MLflow server of our own; None where the package is not installed beside this Python."""
    mlflow = os.path.join(os.path.dirname(sys.executable), "mlflow")
    if not os.path.exists(mlflow):
        print("the real server is left out: pip install mlflow beside this Python brings it (850 MB)")
        yield None
        return
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = open(os.path.join(work, "mlflow.log"), "w")
    server = subprocess.Popen([mlflow, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{work}/mlflow.db",
                               "--artifacts-destination", os.path.join(work, "artifacts")], stdout=log, stderr=log, start_new_session=True,
                              env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
    try:
        for _ in range(120):
            try:
                if urllib.request.urlopen(url + "/health", timeout=2).read() == b"OK": break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_real(runs, work):
    with real_server(work) as url:
        if not url: return
        def ask(path, **body):
            request = urllib.request.Request(url + API + path, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
            return json.load(urllib.request.urlopen(request, timeout=30))
        run = runs.start(url, "--mlflow-experiment", "real", "--mlflow-model", "tagger", "--epochs", "400", name="real")
        while run.poll() is None and (not os.path.exists(runs.path("real.last.h5")) or "mlflow_run_id" not in content(runs.path("real.last.h5"))[1]): time.sleep(0.2)
        run.send_signal(signal.SIGTERM)
        check(run.poll() is None and run.communicate()[0] is None and run.returncode == 75, f"stopped: {run.returncode}")
        run_id = content(runs.path("real.last.h5"))[1]["mlflow_run_id"]
        killed = ask(f"runs/get?run_id={run_id}")["run"]
        check(killed["info"]["status"] == "KILLED", f"{killed['info']}")
        runs.end(runs.start(url, "--mlflow-experiment", "real", "--mlflow-model", "tagger", "--epochs", "400", "--resume", name="real"), same=False)
        run = ask(f"runs/get?run_id={run_id}")["run"]
        check(run["info"]["status"] == "FINISHED" and run["info"]["end_time"] >= run["info"]["start_time"], f"{run['info']}")
        params = {p["key"]: p["value"] for p in run["data"]["params"]}
        check(params["learning_rate"] == "0.003" and params["data/0/rows"] == "12", f"{params}")
        wanted = told(runs.path("real.metrics.jsonl"))
        for name in ("loss", "dev/micro/f1"):
            history = ask(f"metrics/get-history?run_id={run_id}&metric_key={urllib.parse.quote(name)}&max_results=25000")["metrics"]
            check(near({(name, int(m["step"])): m["value"] for m in history if (name, int(m["step"])) in wanted}, {k: v for k, v in wanted.items() if k[0] == name}),
                  f"{name}: {len(history)} values")
        for ending in (".h5", ".metrics.jsonl"):
            data = urllib.request.urlopen(f"{url}{FILES}{run['info']['artifact_uri'].split(':/', 1)[1]}/real{ending}", timeout=60).read()
            check(data == open(runs.path("real" + ending), "rb").read(), f"real{ending}")
        versions = ask("model-versions/search?filter=" + urllib.parse.quote("name='tagger'"))["model_versions"]
        check([(v["run_id"], v["source"]) for v in versions] == [(run_id, run["info"]["artifact_uri"] + "/real.h5")], f"{versions}")
        print("the real server agrees")


def main():
    with tempfile.TemporaryDirectory() as work:
        runs = Runs(work)
        for test in (test_good, test_resume, test_faults, test_failed, test_tls, test_queue, test_usage, *([] if "--no-real" in sys.argv else [test_real])):
            began = time.time()
            test(runs, work)
            print(f"{test.__name__}: {time.time() - began:.1f} s", flush=True)
    check.close()


if __name__ == "__main__":
    main()
