"""Starts `skillwatch infer serve` on a free port of this machine, and asks it over real sockets."""
import http.client, json, os, signal, socket, subprocess, threading

from tiny import BIN


class Server:
    def __init__(self, *args, port=0, stderr=None, **options):
        self.log = []
        self.process = subprocess.Popen([os.path.join(BIN, "skillwatch-infer"), "serve", *map(str, args), "--listen", f"127.0.0.1:{port}", "--json"],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.reader.join()
            raise RuntimeError(f"the server did not start: {self.errors()}")
        self.ready = json.loads(line)
        self.url, self.port = self.ready["address"], self.ready["port"]

    def _read(self):
        for line in self.process.stderr: self.log.append(line)

    def errors(self): return "".join(self.log)

    def ask(self, path, body=None, method=None, headers=(), timeout=120):
        """Status, headers, and the answer: JSON where it says so."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            return exchange(connection, path, body, method, headers)
        finally: connection.close()

    def socket(self, timeout=60): return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def memory(self):
        """MB that it has in memory."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS"): return int(line.split()[1]) / 1024

    def signal(self, number): self.process.send_signal(number)

    def stop(self, timeout=120):
        """SIGTERM; the exit status."""
        if self.process.poll() is None: self.signal(signal.SIGTERM)
        try: status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.reader.join()
        self.process.stdout.close(), self.process.stderr.close()
        return status

    def __enter__(self): return self
    def __exit__(self, *error): self.stop()


def exchange(connection, path, body=None, method=None, headers=()):
    data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
    connection.request(method or ("GET" if body is None else "POST"), path, data,
                       {**({"Content-Type": "application/json"} if body is not None else {}), **dict(headers)})
    answer = connection.getresponse()
    content = answer.read()
    is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
    return answer.status, answer.headers, json.loads(content) if is_json and content else content


def read_answer(connection):
    """Status and JSON of an answer on a raw socket; None where there is none."""
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        return answer.status, json.loads(answer.read() or b"null")
    except (OSError, http.client.HTTPException, ValueError): return None
