"""A scripted job board on this machine, which pages as real ones do, and misbehaves on a schedule."""
import hashlib, http.server, json, random, ssl, threading, time, urllib.parse


def words(seed, count):
    rng = random.Random(seed)
    return " ".join("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9))) for _ in range(count))


def job(n, text=None, company=None):
    return {"id": str(1000 + n), "title": f"Engineer {n}", "organization": company or f"Company {n % 7}", "locations_derived": ["Berlin", "Remote"],
            "date_posted": "2026-01-05", "url": f"https://board.test/{n}", "description_text": text or f"Job {n}.\n{words(n, 60)}", "salary_raw": {"min": n}}


class Board:
    """Serves `jobs` by offset and limit, page, cursor or next link. `script`: actions by request number; each returns True when it has answered."""

    def __init__(self, jobs, certificate=None):
        self.jobs, self.script, self.log, self.etags, self.lock = jobs, {}, [], True, threading.Lock()
        board = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                length = int(self.headers.get("Content-Length", 0))
                self.body = self.rfile.read(length).decode()
                with board.lock:
                    number = len(board.log)
                    board.log.append((self.command, self.path, dict(self.headers), time.time(), self.body))
                    action = board.script.pop(number, None) or board.script.get("always")
                if action and action(self): return
                board.serve(self)

            do_POST = do_GET

            def log_message(self, *arguments): pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, address: None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def rows(self, handler):
        path = urllib.parse.urlsplit(handler.path)
        q = {k: v[0] for k, v in urllib.parse.parse_qs(path.query).items()} | (json.loads(handler.body) if handler.body else {})
        size = int(q.get("limit", 10))
        start = (int(q["page"]) - 1) * size if "page" in q else int(q.get("cursor", q.get("offset", 0)))
        return self.jobs[start:start + size], start + size

    def serve(self, handler):
        rows, end = self.rows(handler)
        path = urllib.parse.urlsplit(handler.path).path
        more = end if end < len(self.jobs) else None
        body = {"data": {"jobs": rows}, "meta": {"cursor": more, "next": more and f"/next?cursor={more}&limit={end // max(1, end // 10)}"}} if path != "/active-jb-7d" else rows
        data = json.dumps(body).encode()
        etag = '"%s"' % hashlib.sha1(data).hexdigest()
        headers = {"ETag": etag} if self.etags else {}
        if path == "/next" and more: headers["Link"] = f'</first>; rel="first", </next?cursor={more}&limit=10>; rel="next"'
        if self.etags and handler.headers.get("If-None-Match") == etag: return answer(handler, 304, b"", headers)
        answer(handler, 200, data, headers)

    def fresh(self, script=None, jobs=None):
        with self.lock: self.log, self.script = [], dict(script or {})
        if jobs is not None: self.jobs = jobs


def answer(handler, status, body=b"", headers={}):
    handler.send_response(status)
    for key, value in headers.items(): handler.send_header(key, value)
    if status != 304: handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


def status(code, **headers):
    return lambda handler: answer(handler, code, b'{"message": "busy"}', {key.replace("_", "-"): value for key, value in headers.items()})


def raw(body):
    return lambda handler: answer(handler, 200, body)


def cut(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    handler.wfile.write(b'[{"id": "1"')
    handler.wfile.flush()
    handler.connection.close()
    handler.close_connection = True
    return True


def drip(seconds):
    """A byte now and then, for ever."""
    def action(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "10000")
        handler.end_headers()
        end = time.time() + seconds
        try:
            while time.time() < end:
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError: pass
        handler.close_connection = True
        return True
    return action


def slow(handler):
    time.sleep(0.05)
    return False
