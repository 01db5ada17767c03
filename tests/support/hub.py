"""A Hugging Face Hub on this machine, written to the documented protocol: repositories with branches, preupload, Git LFS by the transfers basic and
multipart, commits, downloads. Large files go to a second server by signed addresses, which must not be shown the token. What a client does wrong is
answered as the Hub answers it, and listed in `wrongs`."""
import base64, hashlib, http.server, json, re, secrets, ssl, threading, time, urllib.parse

LARGE = (".safetensors", ".h5", ".bin")


def git_name(data): return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Site:
    """One of the two servers: `owner.handle(site, handler)` answers."""

    def __init__(self, owner, certificate=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self): owner.handle(site, self)
            do_POST = do_PUT = do_HEAD = do_GET

            def reply(self, status, body=b"", headers={}, raw=None):
                data = raw if raw is not None else body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for key, value in headers.items(): self.send_header(key, str(value))
                if "Content-Length" not in headers: self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD": self.wfile.write(data)
                return True

            def hang_up(self):
                self.close_connection = True
                self.connection.close()
                return True

            def log_message(self, *arguments): pass

        site = self
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda request, address: None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


class Hub:
    """`script[kind]`: functions of the handler, one taken a request of that kind (revision, create, branch, preupload, batch, put, part, complete, verify,
    commit, resolve): True: it has answered; a dict: the answer is changed by it; "lost": done, but never answered. `before[kind]`: the same, before the body is read."""

    def __init__(self, token, certificate=None, storage_certificate=None, part=None):
        self.token, self.part = token, part  # part: bytes from which, and in which, large files go by multipart
        self.repos, self.large, self.uploads, self.signatures = {}, {}, {}, {}
        self.script, self.before, self.log, self.wrongs, self.keep_upload = {}, {}, [], [], False
        self.lock = threading.RLock()
        self.site, self.storage = Site(self, certificate), Site(self, storage_certificate)
        self.url = self.site.url

    def fresh(self, before={}, **script):
        self.script, self.before, self.log, self.wrongs = script, dict(before), [], []

    def count(self, kind): return sum(k == kind for k, _ in self.log)

    def wrong(self, what):
        self.wrongs.append(what)
        return 400, {"error": what}

    # repositories

    def commit(self, repo, branch, files, message, parent=None):
        sha = hashlib.sha1(f"{message}{time.time_ns()}{secrets.token_hex(8)}".encode()).hexdigest()
        repo["branches"][branch] = sha
        repo["commits"][sha] = {"files": files, "message": message, "parent": parent}
        return sha

    def create(self, name, private=False):
        self.repos[name] = repo = {"private": private, "branches": {}, "commits": {}}
        self.commit(repo, "main", {".gitattributes": b"*.h5 filter=lfs\n*.safetensors filter=lfs\n"}, "initial commit")
        return repo

    def find(self, repo, revision):
        """The commit's name, or None."""
        return repo["branches"].get(revision) or (revision if revision in repo["commits"] else None)

    def files(self, name, revision="main"):
        repo = self.repos[name]
        return repo["commits"][self.find(repo, revision)]["files"]

    def history(self, name, branch="main"):
        repo, found = self.repos[name], []
        sha = repo["branches"][branch]
        while sha:
            found.append(sha)
            sha = repo["commits"][sha]["parent"]
        return found

    def content(self, name, revision="main"):
        return {path: self.large[f["oid"]] if isinstance(f, dict) else f for path, f in self.files(name, revision).items() if path != ".gitattributes"}

    # requests

    def sign(self, path, **query):
        key = secrets.token_hex(16)
        self.signatures[key] = path
        return f"{self.storage.url}{path}?{urllib.parse.urlencode(query | {'signature': key})}"

    def kind_of(self, site, path, method):
        if site is self.storage: return "download" if method == "GET" else "part" if path.startswith("/part/") else "put"
        for pattern, kind in ((r"/api/repos/create$", "create"), (r"/api/validate-yaml$", "yaml"), (r"/api/whoami-v2$", "whoami"), (r"/api/complete/", "complete"), (r"/info/lfs/objects/batch$", "batch"),
                              (r"/info/lfs/verify$", "verify"), (r"/api/models/[^/]+/[^/]+/preupload/", "preupload"), (r"/api/models/[^/]+/[^/]+/commit/", "commit"),
                              (r"/api/models/[^/]+/[^/]+/branch/", "branch"), (r"/api/models/[^/]+/[^/]+/revision/", "revision"), (r"/api/models/[^/]+/[^/]+/tree/", "tree"),
                              (r"/api/models/[^/]+/[^/]+$", "revision"), (r"/resolve/", "resolve")):
            if re.search(pattern, path): return kind
        return "unknown"

    def handle(self, site, handler):
        path, _, query = handler.path.partition("?")
        kind = self.kind_of(site, path, handler.command)
        with self.lock:
            self.log.append((kind, dict(handler.headers)))
            early = self.before.get(kind)
            early = early.pop(0) if early else None
            action = self.script.get(kind)
            action = action.pop(0) if action else None
        if early and early(handler): return
        size = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(size)
        if len(body) < size: return handler.hang_up()
        if callable(action) and action(handler): return
        with self.lock:
            try:
                answer = self.answer(site, kind, path, dict(urllib.parse.parse_qsl(query)), body, handler)
            except (KeyError, ValueError, TypeError, AssertionError) as e:
                answer = self.wrong(f"{kind}: {e!r}")
        if action == "lost": return handler.hang_up()
        if isinstance(action, dict) and answer[0] < 300: answer = answer[0], answer[1] | action, *answer[2:]
        handler.reply(*answer)

    def answer(self, site, kind, path, query, body, handler):
        authorization = handler.headers.get("Authorization")
        if site is self.storage:
            if authorization is not None: return self.wrong("the token was sent to the storage")
            if self.signatures.get(query.get("signature")) != path: return 403, {"error": "signature"}
            return self.store(kind, path, body)
        if kind == "complete":  # signed, too
            return self.complete(path.rsplit("/", 1)[1], json.loads(body))
        readable = kind in ("revision", "tree", "resolve")
        if authorization != f"Bearer {self.token}" and not (readable and authorization is None): return 401, {"error": "Invalid credentials"}
        if kind == "create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}"
            assert told.get("type", "model") == "model"
            if name in self.repos: return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
            self.create(name, told.get("visibility") == "private" or bool(told.get("private")))
            return 200, {"url": f"{self.url}/{name}", "name": name, "id": secrets.token_hex(12)}
        if kind == "yaml": return 200, {"errors": [], "warnings": []}
        if kind == "whoami": return 200, {"name": "owner", "type": "user"}
        match = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git/info/lfs/(?:objects/)?(?:batch|verify)|/(preupload|commit|branch|revision|tree|resolve)/([^/]+)(?:/(.*))?)?", path)
        name, revision, rest = match[1], urllib.parse.unquote(match[3] or "main"), match[4]
        repo = self.repos.get(name)
        if not repo or (repo["private"] and authorization is None): return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        if kind == "batch": return self.batch(name, json.loads(body), handler)
        if kind == "verify":
            told = json.loads(body)
            return (200, {}) if len(self.large.get(told["oid"], b"")) == told["size"] else (404, {"error": "not there"})
        sha = self.find(repo, revision)
        if kind == "branch":
            if sha: return 409, {"error": "Reference already exists"}
            repo["branches"][revision] = repo["branches"]["main"]
            return 200, {}
        if not sha: return 404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}
        files = repo["commits"][sha]["files"]
        if kind == "revision":
            return 200, {"id": name, "modelId": name, "sha": sha, "private": repo["private"], "tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": f} for f in files]}
        if kind == "tree":
            return 200, [{"type": "file", "path": f, "size": c["size"], "oid": hashlib.sha1(c["oid"].encode()).hexdigest(), "lfs": {"oid": c["oid"], "size": c["size"], "pointerSize": 134}}
                         if isinstance(c, dict) else {"type": "file", "path": f, "size": len(c), "oid": git_name(c)} for f, c in files.items()]
        if kind == "resolve": return self.resolve(files, rest, sha, handler)
        if kind == "preupload":
            listed = []
            for f in json.loads(body)["files"]:
                assert len(base64.b64decode(f["sample"], validate=True)) == min(512, f["size"])
                there = files.get(f["path"])
                listed.append({"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) or f["size"] > 10 << 20 else "regular", "shouldIgnore": False} |
                              ({"oid": there["oid"] if isinstance(there, dict) else git_name(there)} if there is not None else {}))
            return 200, {"files": listed}
        if kind == "commit": return self.take(name, repo, revision, sha, files, body, handler)
        return 404, {"error": "no such address"}

    def resolve(self, files, path, sha, handler):
        if path not in files: return 404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
        f, headers = files[path], {"X-Repo-Commit": sha}
        if isinstance(f, dict):
            return 302, b"", headers | {"X-Linked-Etag": f'"{f["oid"]}"', "X-Linked-Size": f["size"], "Location": self.sign(f"/store/{f['oid']}")}
        headers["ETag"] = f'"{git_name(f)}"'
        if handler.headers.get("If-None-Match") == headers["ETag"]: return 304, b"", headers
        return 200, f, headers

    # large files

    def batch(self, name, told, handler):
        assert told["operation"] == "upload" and told["hash_algo"] == "sha256" and {"basic", "multipart"} >= set(told["transfers"])
        if handler.headers.get("Content-Type") != "application/vnd.git-lfs+json": return self.wrong("the batch's Content-Type")
        objects = []
        for o in told["objects"]:
            assert re.fullmatch("[0-9a-f]{64}", o["oid"]) and o["size"] > 0
            row = {"oid": o["oid"], "size": o["size"]}
            if o["oid"] not in self.large:
                verify = {"href": f"{self.url}/{name}.git/info/lfs/verify"}
                if self.part and o["size"] > self.part:
                    upload = next((u for u, x in self.uploads.items() if x["oid"] == o["oid"]), None) if self.keep_upload else None
                    upload = upload or secrets.token_hex(8)
                    count = -(-o["size"] // self.part)
                    self.uploads.setdefault(upload, {"oid": o["oid"], "size": o["size"], "parts": {}, "count": count})
                    header = {"chunk_size": str(self.part)} | {f"{i + 1:05}": self.sign(f"/part/{upload}/{i + 1}") for i in range(count)}
                    row["actions"] = {"upload": {"href": f"{self.url}/api/complete/{upload}", "header": header}, "verify": verify}
                else:
                    row["actions"] = {"upload": {"href": self.sign(f"/store/{o['oid']}")}, "verify": verify}
            objects.append(row)
        return 200, {"transfer": "multipart" if any("chunk_size" in o.get("actions", {}).get("upload", {}).get("header", {}) for o in objects) else "basic", "objects": objects}

    def store(self, kind, path, body):
        if kind == "download": return 200, self.large[path.rsplit("/", 1)[1]], {"ETag": '"whatever"'}
        if kind == "put":
            oid = path.rsplit("/", 1)[1]
            if hashlib.sha256(body).hexdigest() != oid: return self.wrong("other bytes than the SHA-256 says")
            if oid in self.large: self.wrong("the same file twice")
            self.large[oid] = body
            return 200, b""
        _, _, upload, number = path.split("/")
        if upload not in self.uploads: return 404, b"<Error>NoSuchUpload</Error>"
        u, n = self.uploads[upload], int(number)
        if len(body) != (self.part if n < u["count"] else u["size"] - self.part * (u["count"] - 1)): return self.wrong(f"part {n} of {len(body)} bytes")
        if n in u["parts"]: self.wrong(f"part {n} twice")
        u["parts"][n] = body
        return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}

    def complete(self, upload, told):
        if upload not in self.uploads: return 404, {"error": "no such upload"}
        u = self.uploads[upload]
        wanted = [{"partNumber": n, "etag": f'"{hashlib.md5(u["parts"][n]).hexdigest()}"'} for n in range(1, u["count"] + 1)]
        if told != {"oid": u["oid"], "parts": wanted}: return self.wrong(f"completion: {told}")
        data = b"".join(u["parts"][n] for n in range(1, u["count"] + 1))
        if hashlib.sha256(data).hexdigest() != u["oid"]: return self.wrong("the parts are other bytes than the SHA-256 says")
        self.large[u["oid"]] = data
        del self.uploads[upload]
        return 200, {}

    # commits

    def take(self, name, repo, branch, sha, files, body, handler):
        if handler.headers.get("Content-Type") != "application/x-ndjson": return self.wrong("the commit's Content-Type")
        lines = [json.loads(line) for line in body.decode().splitlines()]
        if not lines or lines[0]["key"] != "header" or not lines[0]["value"]["summary"] or len(lines) < 2: return self.wrong("a commit without a header or changes")
        parent = lines[0]["value"].get("parentCommit")
        if parent and parent != sha: return 412, {"error": "The branch has moved"}, {"X-Error-Message": f"{branch} is at {sha}"}
        if branch not in repo["branches"]: return 400, {"error": "not a branch"}
        files = dict(files)
        for line in lines[1:]:
            value, path = line["value"], line["value"]["path"]
            if line["key"] == "file":
                assert value["encoding"] == "base64" and not path.endswith(LARGE)
                files[path] = base64.b64decode(value["content"], validate=True)
            elif line["key"] == "lfsFile":
                if value["algo"] != "sha256" or len(self.large.get(value["oid"], b"")) != value["size"]: return self.wrong(f"{path}: no such large file")
                files[path] = {"oid": value["oid"], "size": value["size"]}
            elif line["key"] == "deletedFile":
                if path not in files: return self.wrong(f"{path}: deleted, and not there")
                del files[path]
            else:
                return self.wrong(f"the operation {line['key']}")
        made = self.commit(repo, branch, files, lines[0]["value"]["summary"], sha)
        return 200, {"success": True, "commitOid": made, "commitUrl": f"{self.url}/{name}/commit/{made}", "hookOutput": ""}
