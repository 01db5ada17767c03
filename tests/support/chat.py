"""A chat model on this machine that speaks OpenAI's protocol: answers by rule, with faults on a schedule."""
import collections, http.server, json, re, ssl, threading, time

WORDS = {"Python": "knowledge", "SQL": "knowledge", "Kubernetes": "knowledge", "German": "knowledge", "Excel": "knowledge", "Git": "knowledge", "Docker": "knowledge",
         "communication": "skill", "teamwork": "skill", "testing": "skill"}


def mark(text, words=WORDS):
    """The scripted model: every whole word it knows, with its place."""
    spans = []
    for word, label in words.items():
        for n, _ in enumerate(re.finditer(rf"(?<!\w){re.escape(word)}(?![\w+#])", text)): spans.append({"text": word, "label": label, "occurrence": n + 1})
    return spans


class Server:
    """`faults`: functions of (handler, sentence), one taken a request, that return True when they have answered (or not). `think`: sentence, request -> content."""

    def __init__(self, think=None, faults=(), certificate=None, delay=0, usage=True):
        self.think = think or (lambda text, request: json.dumps({"spans": mark(text)}))
        self.faults, self.delay, self.usage, self.lock = list(faults), delay, usage, threading.Lock()
        self.log, self.billed, self.under_way, self.most = [], collections.Counter(), 0, 0  # log: (time, sentence, headers, request)
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

            def do_POST(self): owner.handle(self)

            def reply(self, status, body=None, headers={}, raw=None):
                data = raw if raw is not None else json.dumps(body or {}).encode()
                self.send_response(status)
                for key, value in headers.items(): self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return True

            def log_message(self, *arguments): pass

        class Quiet(http.server.ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True
            def handle_error(self, request, address): pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def handle(self, handler):
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        text = request["messages"][-1]["content"]
        with self.lock:
            self.log.append((time.monotonic(), text, dict(handler.headers), request))
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            fault = self.faults.pop(0) if self.faults else None
        try:
            if handler.path != "/v1/chat/completions": return handler.reply(404, {"error": {"message": "no such address"}})
            if self.delay: time.sleep(self.delay)
            if fault and fault(handler, text): return
            self.answer(handler, request, text, self.think(text, request))
        finally:
            with self.lock: self.under_way -= 1

    def answer(self, handler, request, text, content, finish="stop"):
        body = {"id": "x", "object": "chat.completion", "model": request["model"],
                "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}]}
        if self.usage: body["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        with self.lock: self.billed[text, request.get("seed")] += 1
        return handler.reply(200, body)
