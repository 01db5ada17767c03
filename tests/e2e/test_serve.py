"""skillwatch infer serve over real sockets: every route gives the command line's bits, alone and in a crowd; the official OpenAI client and schemathesis;
and what goes wrong: slow, half-closed, huge, malformed and too many requests, other checkpoints, other tokens, SIGTERM under load.

By hand, with AddressSanitizer and ThreadSanitizer (the latter: cmake -S . -B build/tsan -G Ninja -DCMAKE_BUILD_TYPE=Release -DSW_CUDA=OFF
-DCMAKE_C_FLAGS='-fsanitize=thread -g1' -DCMAKE_EXE_LINKER_FLAGS=-fsanitize=thread, and TSAN_OPTIONS=halt_on_error=1:ignore_noninstrumented_modules=1
OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1, because it does not see how OpenMP's threads wait for each other):
  SW_BIN=build/debug/bin python tests/e2e/test_serve.py        SW_TEST_CONNECTIONS=10000: so many at a time (needs ulimit -n 21000)"""
import base64, http.client, json, os, random, re, resource, signal, socket, ssl, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from server import Server, exchange, read_answer
from tiny import BIN, SAMPLES, Checks, program, samples_base

try:
    import numpy as np
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has numpy")
    sys.exit(77)

suppressions = tempfile.NamedTemporaryFile("w", suffix=".txt")  # HDF5 itself leaks where a file is damaged
print("leak:libhdf5", file=suppressions, flush=True)
os.environ["LSAN_OPTIONS"] = f"suppressions={suppressions.name}:print_suppressions=0"
check = Checks()
rng = random.Random(8)
with open(os.path.join(BIN, "skillwatch-infer"), "rb") as f: SANITIZED = re.search(b"__[at]san_init", f.read()) is not None  # memory is then the sanitizer's, too
CONNECTIONS = int(os.environ.get("SW_TEST_CONNECTIONS", "300"))
LABELLED = sorted(open(os.path.join(SAMPLES, "labels/train.jsonl"), encoding="utf-8"), key=lambda l: '"spans": []' in l)  # with spans first
POSTINGS = [json.loads(l)["text"] for l in LABELLED]
TEXTS = POSTINGS[:40] + ["Zebra-crossing (QA)!", "naïve café ☕ 日本", "x", " ", " ".join(POSTINGS[:30])]


def together(work, count):
    """Runs work(i) for i < count in threads; the results, in order."""
    out = [None] * count
    def one(i):
        try: out[i] = work(i)
        except Exception as e: out[i] = e
    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for t in threads: t.start()
    for t in threads: t.join()
    return out


def until(is_so):
    """Whether it is so, or becomes so before long."""
    for _ in range(400):
        if is_so(): return True
        time.sleep(0.05)
    return False


def command(verb, model, texts, *args):
    """What the command line says of texts, in order."""
    done = program("infer", verb, "-m", model, "--format", "jsonl", "-", "--quiet", *args,
                   input="".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(texts)))
    check(done.returncode == 0, f"infer {verb}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def floats(data): return np.array(data, np.float64).astype(np.float32).tobytes()


def embed(server, given, **more):
    status, _, answer = server.ask("/v1/embeddings", {"input": given, **more})
    if not check(status == 200 and [d["index"] for d in answer["data"]] == list(range(len(answer["data"]))), f"embeddings: {status} {str(answer)[:200]}"): return []
    return [d["embedding"] for d in answer["data"]]


def post(path, body):
    """The bytes of a request."""
    body = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body


def values(server):
    """The metrics."""
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in server.ask("/metrics")[2].decode().splitlines() if line[0] != "#")}


def test_embeddings(server, models):
    usable = [t for t in TEXTS if t.strip()]
    wanted = [floats(r["vector"]) for r in command("embed", models["base"], usable)]
    check(len(set(wanted)) == len(usable), "the vectors differ")
    check([floats(v) for v in embed(server, usable)] == wanted, "embeddings: the command line's bits")
    check([base64.b64decode(v) for v in embed(server, usable, encoding_format="base64")] == wanted, "base64: the same bits")
    check([floats(v) for v in embed(server, usable[::-1], model="tiny", dimensions=32, user="me")] == wanted[::-1], "in another order")
    check([floats(embed(server, t)[0]) for t in usable[:5]] == wanted[:5], "one by one")
    crowd = together(lambda i: [floats(v) for v in embed(server, usable[i % 20:i % 20 + 1 + i % 7])], 60)
    check(all(got == wanted[i % 20:i % 20 + 1 + i % 7] for i, got in enumerate(crowd)), "in a crowd")
    short = usable.index("x")
    many = [rng.choice((t, "x")) for t in usable] + ["x"] * 40000
    check([floats(v) for v in embed(server, many)] == [wanted[usable.index(t)] for t in many[:len(usable)]] + [wanted[short]] * 40000, "a batch of 40,000 texts")
    check(server.ask("/v1/embeddings", {"input": usable[:2]})[2]["usage"]["prompt_tokens"] > 4, "tokens are counted")


def test_token_ids(server, models):
    vocab = {v: i for i, v in enumerate(open(os.path.join(os.path.dirname(models["base"]), "tiny/vocab.txt"), encoding="utf-8").read().split("\n"))}
    text = "you need data and work with the team"
    ids = [vocab[w] for w in text.split()]
    wanted = floats(embed(server, text)[0])
    check(floats(embed(server, ids)[0]) == wanted, "a text's token ids")
    check([floats(v) for v in embed(server, [ids, ids[:1], [vocab["[CLS]"], *ids, vocab["[SEP]"]]])] == [wanted, floats(embed(server, text.split()[0])[0]), wanted],
          "those of several, also between [CLS] and [SEP]")
    check(server.ask("/v1/embeddings", {"input": [len(vocab) + 5]})[0] == 422, "an id outside the vocabulary")


def test_jobs(server, models):
    usable = [t for t in TEXTS if t.strip()]
    spans = [r["spans"] for r in command("tag", models["ner"], usable)]
    check(sum(map(len, spans)) > 10, f"only {sum(map(len, spans))} spans: nothing is compared")
    status, _, answer = server.ask("/tag", {"texts": usable})
    check(status == 200 and answer["model"] == "ner" and [r["spans"] for r in answer["results"]] == spans, f"/tag: the command line's spans: {status} {str(answer)[:300]}")
    check(server.ask("/tag", {"text": usable[3]})[2]["results"] == [{"spans": spans[3]}], "/tag of one text")
    classes = [[(l["label"], l["probability"]) for l in r["labels"]] for r in command("classify", models["classes"], usable, "-k", 3)]
    status, _, answer = server.ask("/classify", {"texts": usable, "k": 3})
    check(status == 200 and [[(l["label"], l["score"]) for l in r["labels"]] for r in answer["results"]] == classes, f"/classify: {status} {str(answer)[:300]}")
    for threshold in (None, 0, 0.4, 1):
        more = [] if threshold is None else ["--threshold", threshold]
        labels = [sorted(((l["label"], l["probability"]) for l in r["labels"]), key=lambda l: -l[1]) for r in command("multilabel", models["gru"], usable, *more)]
        status, _, answer = server.ask("/multilabel", {"texts": usable, **({} if threshold is None else {"threshold": threshold})})
        check(status == 200 and [[(l["label"], l["score"]) for l in r["labels"]] for r in answer["results"]] == labels, f"/multilabel {threshold}: {status}")
    crowd = together(lambda i: server.ask("/tag", {"text": usable[i % len(usable)]})[2] if i % 3 else embed(server, usable[i % len(usable)]), 60)
    check(all(r["results"] == [{"spans": spans[i % len(usable)]}] for i, r in enumerate(crowd) if i % 3), "/tag beside /v1/embeddings")


def test_vectors(server, models):
    """What is nearest, and the place on the map, as the command line says for the same texts with the prefix of the vectors."""
    usable = [t for t in TEXTS if t.strip()]
    found = command("search", models["base"], [models["prefix"] + t for t in usable], "--corpus", models["vectors"], "-k", 20)
    for k in (20, 3):
        status, _, answer = server.ask("/search", {"texts": usable, "k": k, **({"corpus": "postings", "model": "tiny"} if k == 3 else {})})
        check(status == 200 and [[{n: h[n] for n in ("id", "score")} for h in r["hits"]] for r in answer["results"]] == [r["matches"][:k] for r in found], f"/search: {status} {str(answer)[:300]}")
        texts = open(models["corpus"], encoding="utf-8").read().split("\n")
        check(all(h["text"] == texts[int(h["id"]) - 1][:200].replace("\t", " ") for r in answer["results"] for h in r["hits"]), f"the beginnings of hits' texts: {str(answer)[:300]}")
    check([len(r["hits"]) for r in server.ask("/search", {"text": "data", "k": 256})[2]["results"]] == [len(POSTINGS[:200])], "all that there is")
    check(server.ask("/search", {"text": "data", "corpus": "x"})[0] == 404 and server.ask("/search", {"text": "data", "model": "ner"})[0] == 422, "another corpus, another model")
    folder = os.path.dirname(models["base"])
    texts, vectors, placed = (os.path.join(folder, n) for n in ("place.jsonl", "place.h5", "placed.csv"))
    with open(texts, "w", encoding="utf-8") as f: f.writelines(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(usable))
    for args in (["embed", "-m", models["base"], texts, "--prefix", models["prefix"], "-o", vectors], ["map", vectors, "--fit-on", models["map"], "-o", placed]):
        done = program("infer", *args, "--quiet")
        check(done.returncode == 0, f"{args}: {done.stderr}")
    wanted = [tuple(np.float32(v) for v in line.split(",")[1:]) for line in open(placed).read().splitlines()[1:]]
    status, _, answer = server.ask("/place", {"texts": usable})
    check(status == 200 and [(np.float32(p["x"]), np.float32(p["y"])) for p in answer["results"]] == wanted, f"/place: {status} {str(answer)[:300]}")
    check(server.ask("/place", {"text": usable[3]})[2]["results"] == [answer["results"][3]], "/place of one text")


def test_information(server, models):
    status, _, answer = server.ask("/models")
    found = {m["id"]: m for m in answer["data"]}
    check(status == 200 and found["tiny"]["jobs"] == ["embed", "search", "place"] and found["tiny"]["corpora"] == ["postings"] and found["ner"]["corpora"] == [] and found["ner"]["jobs"] == ["embed", "tag"] and found["gru"]["jobs"] == ["multilabel"] and
          found["classes"]["labels"] == ["long", "short"] and found["gru"]["labels"] == ["a", "b"], f"/models: {answer}")
    check(all(len(m["hash"]) == 64 and m["created"] > 1.7e9 for m in found.values()) and found["ner"]["labels"], "hash, date and labels of models")
    check(set(server.ask("/v1/models")[2]["data"][0]) == {"id", "object", "created", "owned_by"}, "/v1/models")
    check(server.ask("/health/live")[0] == server.ask("/health/ready")[0] == 200, "health")
    check(server.ask("/health/live", method="HEAD")[0] == 200, "HEAD")
    embed(server, "a")
    now = values(server)
    check(now['skillwatch_requests_total{route="/v1/embeddings",status="200"}'] > 0 and now["skillwatch_queue_requests"] == 0 and
          now["skillwatch_batch_tokens_count"] > 0 and now["skillwatch_held_bytes"] == 0, f"/metrics: {now}")
    check(now['skillwatch_batch_tokens_bucket{le="+Inf"}'] == now["skillwatch_batch_tokens_count"], "a histogram's last bucket is all")


def test_refusals(server):
    post = lambda path, body, **headers: server.ask(path, body if isinstance(body, bytes) else json.dumps(body).encode(), "POST",
                                                    {k.replace("_", "-"): v for k, v in headers.items()})
    for body, param in ((b"", None), (b"{", None), (b"[]", None), (b"\xff\xfe", None), (b'{"input": "a", "input": "b"}', None), ({}, "input"), ({"input": ""}, "input"),
                        ({"input": []}, "input"), ({"input": [""]}, "input"), ({"input": ["a", 1]}, "input"), ({"input": [[]]}, "input"), ({"input": [1, "a"]}, "input"),
                        ({"input": [[1], "a"]}, "input"), ({"input": [-1]}, "input"), ({"input": [1.5]}, "input"), ({"input": [2**70]}, None), ({"input": None}, "input"),
                        ({"input": {"a": 1}}, "input"), ({"input": "a", "dimensions": 7}, "dimensions"), ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
                        ({"input": "a", "user": 1}, "user"), ({"input": "a", "what": 1}, None), (b"[" * 100000, None)):
        status, headers, answer = post("/v1/embeddings", body)
        error = answer.get("error", {})
        check(status == 400 and headers["Content-Type"] == "application/json" and set(error) == {"message", "type", "param", "code"} and error["message"] and
              error["param"] == param and error["type"] == "invalid_request_error", f"{str(body)[:80]}: {status} {answer}")
    for body in ({"text": "a", "texts": ["a"]}, {"texts": "a"}, {"text": ["a"]}, {"k": 3}, {"text": "a", "k": 3}):
        check(post("/tag", body)[0] == 400, f"/tag {body}")
    for body in ({"text": "a", "k": 0}, {"text": "a", "k": 1000}, {"text": "a", "k": "3"}, {"text": "a", "k": True}, {"text": "a", "threshold": 2}):
        check(post("/classify", body)[0] == 400, f"/classify {body}")
    check(post("/classify", {"text": "a", "k": 1.0})[0] == 200, "1.0 is a whole number")
    status, _, answer = post("/v1/embeddings", {"input": "a", "model": "gpt"})
    check(status == 404 and answer["error"]["code"] == "model_not_found" and answer["error"]["param"] == "model", f"another model: {status} {answer}")
    check(post("/tag", {"text": "a", "model": "tiny"})[0] == 422, "a model that cannot tag")
    check(server.ask("/nothing")[0] == 404 and server.ask("/")[0] == 200, "paths")
    for host, wanted in (("evil.example", 421), ("evil.example:80", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example", 421), ("[evil]", 421), ("", 421),
                         ("localhost:9", 200), ("LOCALHOST", 200), ("127.0.0.1", 200), ("[::1]:8080", 200)):
        check(server.ask("/models", headers={"Host": host})[0] == wanted, f"Host: {host}: {wanted}")
    for path, method, allow in (("/tag", "GET", "POST"), ("/models", "POST", "GET, HEAD"), ("/models", "DELETE", "GET, HEAD"), ("/tag", "OPTIONS", "POST")):
        status, headers, _ = server.ask(path, b"{}" if method == "POST" else None, method)
        check(status == 405 and headers["Allow"] == allow, f"{method} {path}: {status} {headers['Allow']}")
    check(post("/tag", {"text": "a"}, Content_Type="text/plain")[0] == 415, "text/plain")
    check(post("/tag", {"text": "a"}, Content_Type="application/json; charset=utf-8")[0] == 200, "with a charset")
    with server.socket() as s:
        s.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n")
        check(read_answer(s)[0] == 411, "no length")
    check(post("/tag", {"text": "a\0b"})[0] == 400, "NUL is no text")
    check(post("/tag", {"text": "\U0001F600 caf\u0065\u0301 \u200d\ufeff"})[0] == 200, "characters of all kinds")


def test_openai(server, models):
    try: import openai
    except ImportError: return print("skipped: no openai client")
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    texts = [t for t in TEXTS if t.strip()]
    wanted = [floats(r["vector"]) for r in command("embed", models["base"], texts)]
    answer = client.embeddings.create(model="tiny", input=texts)  # asks for base64
    check([floats(d.embedding) for d in answer.data] == wanted and answer.usage.total_tokens > 0 and answer.model == "tiny", "the OpenAI client: the command line's bits")
    check([floats(d.embedding) for d in client.embeddings.create(model="tiny", input=texts[:3], encoding_format="float").data] == wanted[:3], "as floats")
    check({m.id for m in client.models.list()} == {"tiny", "ner", "classes", "gru"}, "it lists the models")
    try:
        client.embeddings.create(model="gpt", input="a")
        check(False, "another model is refused")
    except openai.NotFoundError as e: check(e.code == "model_not_found", f"the client understands refusals: {e}")


def test_schemathesis(server, folder):
    try: import schemathesis
    except ImportError: return print("skipped: no schemathesis")
    done = subprocess.run([sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json", "--max-examples", "15", "--seed", "7", "--generation-database", "none",
                           "--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "60"], capture_output=True, text=True, cwd=folder, timeout=600)
    check(done.returncode == 0, f"schemathesis: {done.stdout[-6000:]}\n{done.stderr[-1000:]}")


def test_limits(models):
    with Server("-m", models["base"], "-m", models["ner"], "--corpus", models["vectors"], "--receive-timeout", 1, "--max-body", 1, "--memory", 64, "--connections", CONNECTIONS + 50) as server:
        with server.socket() as slow, server.socket() as idle, server.socket() as body:
            body.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
            slow.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\n")
            try:
                for i in range(1000):
                    slow.sendall(b"X-%d: y\r\n" % i)
                    time.sleep(0.1)
                check(False, "a slow client is cut")
            except OSError: pass
            check(read_answer(body) == (408, {"error": {"message": "the request took too long to come", "type": "invalid_request_error", "param": None, "code": None}}),
                  "half a body: 408")
            idle.settimeout(5)
            check(not idle.recv(10000).startswith(b"HTTP/1.1 2"), "a silent client is cut")
        with server.socket() as huge:
            huge.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n" + b"x" * 1000)
            check(read_answer(huge)[0] == 413, "a body of 1 GB: 413")
        with server.socket() as large:
            large.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3000000)
            check((read_answer(large) or (None,))[0] == 413, "whoever sends a body that is too large before reading has the answer")
        with server.socket() as larger:
            larger.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" +
                           b"100000\r\n" + (b"x" * (1 << 20) + b"\r\n100000\r\n") * 8 + b"x" * (1 << 20) + b"\r\n0\r\n\r\n")
            check((read_answer(larger) or (None,))[0] == 413, "one that is nine times too large, too")
        with server.socket() as wrong:
            wrong.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n")
            check((read_answer(wrong) or (None,))[0] == 404, "whoever reads while sending has it at once")
            wrong.sendall(b"x" * 9000000)
            check(wrong.recv(1) == b"", "and nothing after it")
        with server.socket() as asking:
            asking.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\nExpect: 100-continue\r\n\r\n")
            check((read_answer(asking) or (None,))[0] == 413, "whoever asks first is told at once")
        for bytes, wanted in ((1 << 20, 200), ((1 << 20) + 1, 413)):
            body = b'{"text": "a"' + b" " * (bytes - 13) + b"}"
            check(server.ask("/tag", body, "POST")[0] == wanted, f"a body of {bytes} bytes: {wanted}")
        before = server.memory()
        status, _, answer = server.ask("/v1/embeddings", b'{"input":[' + b"1," * 500000 + b"1]}", "POST")
        check(status == 200, f"many token ids: {status} {str(answer)[:200]}")
        status, _, answer = server.ask("/v1/embeddings", b'{"input":[' + b"[1]," * 250000 + b"[1]]}", "POST")
        check(status == 413 and (SANITIZED or server.memory() < before + 64), f"more JSON than there is memory for: {status}, {before:.0f} MB, then {server.memory():.0f}")
        before = server.memory()
        with server.socket() as huge:
            huge.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(1000000): huge.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
                check(False, "a body without an end is cut")
            except OSError: pass
        check(until(lambda: values(server).get('skillwatch_requests_total{route="/tag",status="413"}') == 6), f"a body without an end is refused, too: {values(server)}")
        check((SANITIZED or server.memory() < before + 64), f"memory: {before:.0f} MB, then {server.memory():.0f}")
        with server.socket() as half:
            half.sendall(post("/tag", {"text": TEXTS[0]}))
            half.shutdown(socket.SHUT_WR)
            answer = read_answer(half)
            check(answer is not None and answer[0] == 200, f"half-closed: {answer}")
        for lines, name in ((b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "two ways to say its length"), (b"Content-Length: 5\r\nContent-Length: 50\r\n", "two lengths"),
                            (b"Transfer-Encoding: gzip, chunked\r\n", "another coding"), (b"Host: evil.example\r\nContent-Length: 5\r\n", "two hosts")):
            with server.socket() as s:
                s.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + lines + b"\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                got = b""
                try:
                    while more := s.recv(10000): got += more
                except OSError: pass
                check(got.count(b"HTTP/1.1") == 1 and b"HTTP/1.1 400" in got, f"{name}: refused, and what follows is no request: {got[:300]}")
        check(server.ask("/tag", b"x", "POST", {"Content-Encoding": "gzip"})[0] == 415, "a compressed body")
        check(server.ask("/search", {"texts": ["a"] * 3000, "k": 256})[0] == 413, "hits that are too many")
        for garbage in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                        b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10000 + b"\r\n"):
            with server.socket(5) as s:
                try:
                    s.sendall(garbage)
                    got = s.recv(1000)
                    check(not got.startswith(b"HTTP/1.1 2"), f"{garbage[:20]}: {got[:100]}")
                except OSError: pass
        status, _, answer = server.ask("/v1/embeddings", {"input": ["a"] * 150000})
        check(status == 413, f"an answer that is too large: {status} {str(answer)[:200]}")
        check(server.ask("/tag", {"text": "a"})[0] == 200, "it still answers")


def test_connections(models):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 200
    if soft < wanted: resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    with Server("-m", models["base"], "--connections", CONNECTIONS) as server:
        request = post("/v1/embeddings", {"input": TEXTS[0]})
        sockets = [server.socket() for _ in range(CONNECTIONS)]
        time.sleep(0.2)
        with server.socket() as more: check((read_answer(more) or (None,))[0] == 503, "one connection too many: 503")
        for s in sockets: s.sendall(request)
        answers = [read_answer(s) for s in sockets]
        good = [a[1]["data"] for a in answers if a and a[0] == 200]
        busy = sum(a is not None and a[0] == 429 for a in answers)
        check(len(good) + busy == CONNECTIONS and len(good) >= min(CONNECTIONS, 300) and all(g == good[0] for g in good),
              f"{CONNECTIONS} at a time: {len(good)} answered, {busy} told to try again")
        for s in sockets: s.close()
        def only_this():
            status, _, metrics = server.ask("/metrics")
            return status == 200 and "skillwatch_connections 1\n" in metrics.decode()
        check(until(only_this), "connections are given back")
        check(server.stop() == 0, f"it ends: {server.errors()}")


LONG = [" ".join(POSTINGS[:4 if SANITIZED else 40]) + str(i) for i in range(3000)]  # work for a while


def test_queue(models):
    with Server("-m", models["ner"], "--queue", 2, "--timeout", 300, "--threads", 1) as server:
        answers = together(lambda i: server.ask("/tag", {"texts": LONG[:300]}), 12)
        statuses = sorted(a[0] if isinstance(a, tuple) else str(a) for a in answers)
        check(set(statuses) == {200, 429} and statuses.count(200) >= 2, f"a full queue: {statuses}")
        refused = next(a for a in answers if a[0] == 429)
        check(refused[1]["Retry-After"] == "1" and refused[2]["error"]["type"] == "rate_limit_error", f"429 says when: {refused[1]}")
    with Server("-m", models["ner"], "--timeout", 1, "--threads", 1) as server:
        status, _, answer = server.ask("/tag", {"texts": LONG})
        check(status == 504, f"the deadline: {status}")
        check(server.ask("/tag", {"text": "a"})[0] == 200 and "skillwatch_held_bytes 0" in server.ask("/metrics")[2].decode(), "nothing of it is left")


def test_hang_up(models):
    """Whoever closes its connection is not computed for; whoever only ends its sending is."""
    with Server("-m", models["ner"], "--queue", 4, "--timeout", 600, "--threads", 1, "--batch-tokens", 1024) as server:
        server.ask("/tag", {"texts": LONG[:30]})
        few = values(server)["skillwatch_tokens_total"]
        half = server.socket()
        gone = [server.socket() for _ in range(3)]
        for s in gone: s.sendall(post("/tag", {"texts": LONG}))
        half.sendall(post("/tag", {"texts": LONG[:300]}))
        half.shutdown(socket.SHUT_WR)
        check(until(lambda: sum(values(server)[f"skillwatch_{n}_requests"] for n in ("running", "queue")) == 4), "all of them are taken")
        gone[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # its end is a reset, the others' are not
        for s in gone: s.close()
        check(until(lambda: values(server).get('skillwatch_requests_total{route="/tag",status="499"}') == 3), "it learns of it")
        answer = read_answer(half)
        half.close()
        check(answer and answer[0] == 200 and len(answer[1]["results"]) == 300, f"half-closed while it is computed for: {answer and answer[0]}")
        now = values(server)
        check(now["skillwatch_running_requests"] == now["skillwatch_queue_requests"] == 0 and
              now["skillwatch_batch_tokens_sum"] < 100 * few, f"three of 100 times {few} tokens are left: {now['skillwatch_batch_tokens_sum']}")
        check(now["skillwatch_held_bytes"] == 0 and server.ask("/tag", {"text": "a"})[0] == 200, "their memory is given back")


def test_drain(models):
    """SIGTERM under load: whoever was accepted is answered, and the server ends well."""
    server = Server("-m", models["ner"], "--timeout", 120)
    answered, lost, stop = [], [], threading.Event()
    def client(i):
        while not stop.is_set():
            try: connection = server.socket()
            except OSError: return  # nobody listens any more
            try:
                connection.settimeout(120)
                body = json.dumps({"texts": LONG[i:i + 3]}).encode()
                connection.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
                connection.sendall(body)
                answer = read_answer(connection)
                (answered if answer and answer[0] == 200 else lost).append((answer, time.time()))
            except OSError as e: lost.append((e, time.time()))
            finally: connection.close()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(16)]
    for t in threads: t.start()
    time.sleep(1)
    server.signal(signal.SIGTERM)
    told = time.time()
    status = server.process.wait(120)
    stop.set()
    for t in threads: t.join()
    server.stop()
    check(status == 0 and "every request is answered" in server.errors(), f"exit {status}: {server.errors()}")
    check(len(answered) >= 16 and any(when > told for _, when in answered) and not lost, f"{len(answered)} answered, {len(lost)} lost: {lost[:3]}")


def test_impatience(models):
    """A second SIGTERM does not wait for anybody."""
    with Server("-m", models["ner"], "--timeout", 600, "--threads", 1) as server, server.socket() as asking:
        asking.sendall(post("/tag", {"texts": LONG * 5}))
        server.signal(signal.SIGTERM)
        for _ in range(2000):
            try: server.socket(0.1).close()  # the last are neither taken nor refused
            except OSError: break
            time.sleep(0.01)
        check(server.process.poll() is None, "it waits for the request")
        server.signal(signal.SIGTERM)
        check(server.process.wait(60) == -signal.SIGTERM, f"it ends: {server.process.returncode} {server.errors()}")


def test_early_end(models, folder):
    """SIGTERM while it loads does not wait for that: here for a pipe that nobody writes to."""
    pipe = os.path.join(folder, "loading.h5")
    os.mkfifo(pipe)
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen([os.path.join(BIN, "skillwatch-infer"), "serve", "-m", models["ner"], "--corpus", pipe, "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))  # as a shell does for what it starts in the background
        time.sleep(0.5)
        check(process.poll() is None, "it loads")
        process.send_signal(number)
        try: check(process.wait(60) == -number and not process.stderr.read(), f"it ends: {process.returncode}")
        finally: process.kill()
        process.stderr.close()


def test_last_moment(models):
    """Clients that keep their connections and go on asking while it ends: an answer, a refusal or the end of the connection, and never an abort."""
    request = post("/tag", {"text": "a"})
    for attempt in range(10):
        server = Server("-m", models["ner"], "--quiet")
        sockets = [server.socket(20) for _ in range(24)]
        for s in sockets:
            s.sendall(request)
            check(read_answer(s)[0] == 200, "before the end")
        seen = set()
        def late(i):
            time.sleep(0.1 + 0.01 * i)
            try: sockets[i].sendall(request)
            except OSError: return
            seen.add((read_answer(sockets[i]) or (None,))[0])
        server.signal(signal.SIGTERM)
        together(late, len(sockets))
        for s in sockets: s.close()
        status = server.process.wait(60)  # not stop(): a second SIGTERM would end it at once
        check(server.stop() == status == 0 and seen <= {200, 503, None}, f"try {attempt}: {status} {seen} {server.errors()}")


def test_turns(models):
    """A large request to one job does not stand before a small one to another: batches of the large one are left when the small one is answered."""
    with Server("-m", models["ner"], "--timeout", 600, "--threads", 1, "--batch-tokens", 1024) as server:
        def batches(): return values(server)["skillwatch_batch_tokens_count"]
        statuses = []
        thread = threading.Thread(target=lambda: statuses.append(server.ask("/tag", {"texts": LONG[:1000]}, timeout=600)[0]))
        thread.start()
        while batches() < 2 and thread.is_alive(): time.sleep(0.01)
        statuses.append(server.ask("/v1/embeddings", {"input": "a"}, timeout=600)[0])
        then = batches()
        thread.join()
        check(statuses == [200, 200] and then < batches() // 2, f"a small one beside a large one: {statuses}, after {then} of {batches()} batches")


def test_reload(models, folder):
    """Another checkpoint behind the link, garbage in its place, the same again: requests go on, and say whose answer it is by their bits."""
    link, other = os.path.join(folder, "promoted.h5"), samples_base(os.path.join(folder, "other"), seed=5)
    os.symlink(models["base"], link)
    text = "you need data"
    wanted = {m: floats(command("embed", path, [text])[0]["vector"]) for m, path in (("base", models["base"]), ("other", other))}
    check(wanted["base"] != wanted["other"], "the models differ")
    def point(to):
        os.symlink(to, link + ".new")
        os.replace(link + ".new", link)
    with Server("-m", "it=" + link) as server:
        seen, failures, stop = set(), [], threading.Event()
        def client():
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            while not stop.is_set():
                try:
                    status, _, answer = exchange(connection, "/v1/embeddings", {"input": text})
                    if status == 200: seen.add(floats(answer["data"][0]["embedding"]))
                    else: failures.append(status)
                except Exception as e:
                    failures.append(e)
                    return
        threads = [threading.Thread(target=client) for _ in range(4)]
        for t in threads: t.start()
        def answers(model, what): check(until(lambda: floats(embed(server, text)[0]) == wanted[model]), what + ": " + server.errors())
        answers("base", "the first")
        point(other)
        answers("other", "the link moved")
        with open(other, "r+b") as f:
            f.seek(100)
            f.write(os.urandom(5000))
        server.signal(signal.SIGHUP)
        def kept(why):
            check(until(lambda: why in server.errors()) and "stays as it is: " in server.errors() and floats(embed(server, text)[0]) == wanted["other"], f"the old one stays: {server.errors()}")
        kept("is damaged")
        point(models["gru"])
        kept("cannot embed, the present one can")
        point(models["base"])
        answers("base", "a good one again")
        stop.set()
        for t in threads: t.join()
        check(not failures and seen == set(wanted.values()), f"no request is lost: {failures[:5]}, {len(seen)} answers")
        metrics = server.ask("/metrics")[2].decode()
        check("skillwatch_reloads_total 2" in metrics and int(re.search(r"skillwatch_reload_failures_total (\d+)", metrics)[1]) >= 2, "reloads are counted")
        check(server.stop() == 0, f"it ends: {server.errors()}")


def test_reload_vectors(models, folder):
    """Another file of vectors is searched in without a new start; one that fails is tried again when it changes, and at SIGHUP."""
    corpus = os.path.join(folder, "changing.h5")
    def embed_lines(texts):
        with open(corpus + ".txt", "w", encoding="utf-8") as f: f.writelines(t.replace("\n", " ") + "\n" for t in texts)
        done = program("infer", "embed", "-m", models["base"], corpus + ".txt", "--format", "lines", "-o", corpus + ".new.h5", "--quiet")
        check(done.returncode == 0, f"embed: {done.stderr}")
        os.replace(corpus + ".new.h5", corpus)
    embed_lines(POSTINGS[:5])
    with Server("-m", "it=" + models["base"], "--corpus", "c=" + corpus) as server:
        hits = lambda: len(server.ask("/search", {"text": "data", "k": 20})[2]["results"][0]["hits"])
        def comes(what, is_so): check(until(is_so), f"{what}: {hits()} hits {server.errors()}")
        check(hits() == 5, "the first vectors")
        embed_lines(POSTINGS[:7])
        comes("other vectors", lambda: hits() == 7)
        with open(corpus + ".bad", "wb") as f: f.write(b"garbage")
        os.replace(corpus + ".bad", corpus)
        comes("garbage is told of", lambda: "stays as it is" in server.errors())
        told = server.errors().count("stays as it is")
        server.signal(signal.SIGHUP)
        comes("SIGHUP tries again", lambda: server.errors().count("stays as it is") > told)
        check(hits() == 7, "the vectors before it are searched")
        embed_lines(POSTINGS[:9])
        comes("a good file after a bad one", lambda: hits() == 9)
        check(server.stop() == 0 and "Sanitizer" not in server.errors(), f"it ends: {server.errors()}")


def test_tokens(models, folder):
    tokens, log = os.path.join(folder, "tokens"), os.path.join(folder, "access.log")
    def write(*lines):
        with open(tokens, "w") as f: f.write("\n".join(lines) + "\n")
    write("# who", "first-token-0123456789", "", "second-token-0123456789")
    with Server("-m", models["base"], "--tokens", tokens, "--access-log", log, "--cors", "https://example.org") as server:
        def status(token, path="/v1/embeddings"):
            headers = {} if token is None else {"Authorization": token}
            return server.ask(path, {"input": "secret text"} if path == "/v1/embeddings" else None, headers=headers)
        check([status(t)[0] for t in ("Bearer first-token-0123456789", "bearer second-token-0123456789")] == [200, 200], "tokens")
        for t in (None, "", "Bearer ", "Bearer first-token-012345678", "Bearer first-token-01234567890", "first-token-0123456789", "Basic first-token-0123456789", "Bearer # who"):
            got = status(t)
            check(got[0] == 401 and got[1]["WWW-Authenticate"] == "Bearer" and got[2]["error"]["type"], f"{t!r}: {got[0]}")
        check([status(None, p)[0] for p in ("/models", "/metrics", "/health/live", "/health/ready", "/openapi.json")] == [401, 401, 200, 200, 200], "what is open")
        write("third-token-0123456789")
        server.signal(signal.SIGHUP)
        check(until(lambda: status("Bearer third-token-0123456789")[0] == 200) and status("Bearer first-token-0123456789")[0] == 401, "other tokens after SIGHUP")
        write("short")
        server.signal(signal.SIGHUP)
        check(until(lambda: "shorter than 16" in server.errors()) and status("Bearer third-token-0123456789")[0] == 200, f"a bad file: the tokens stay: {server.errors()}")
        for content, why in ((b"fourth-token-0123456789\n\0fifth-token-0123456789\n", "line 2: a NUL"), ("vierter-Schlüssel-0123456789\n".encode(), "not ASCII"),
                             (b"# a\nfourth token 0123456789\n", "line 2: character 7")):
            with open(tokens, "wb") as f: f.write(content)
            server.signal(signal.SIGHUP)
            check(until(lambda: why in server.errors()) and status("Bearer third-token-0123456789")[0] == 200, f"{why}: {server.errors()}")
        with open(tokens, "wb") as f: f.write(b"\xef\xbb\xbfsixth-token-0123456789\r\nthird-token-0123456789")
        server.signal(signal.SIGHUP)
        check(until(lambda: status("Bearer sixth-token-0123456789")[0] == 200) and status("Bearer third-token-0123456789")[0] == 200, "a byte order mark is no part of a token")
        headers = server.ask("/tag", method="OPTIONS", headers={"Origin": "https://example.org", "Access-Control-Request-Method": "POST"})
        check(headers[0] == 204 and headers[1]["Access-Control-Allow-Origin"] == "https://example.org", f"CORS: {headers[0]} {headers[1].items()}")
        check("Access-Control-Allow-Origin" not in server.ask("/health/live", headers={"Origin": "https://evil.example"})[1], "another origin")
        check(server.stop() == 0, server.errors())
    lines = [json.loads(l) for l in open(log, encoding="utf-8")]
    text = open(log, encoding="utf-8").read()
    check(lines[0]["status"] == 200 and lines[0]["path"] == "/v1/embeddings" and lines[0]["texts"] == 1 and lines[0]["client"] == "127.0.0.1" and
          "secret" not in text and "token-" not in text, f"the access log: {lines[0]}")


def test_log(models, folder):
    """A log that nobody reads, or that has no room, keeps nobody waiting."""
    pipe = os.path.join(folder, "log.pipe")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for log, requests in ((pipe, 1000), ("/dev/full", 3)):
        with Server("-m", models["base"], "--access-log", log) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            statuses = {exchange(connection, "/health/live")[0] for _ in range(requests)}
            left_out = int(re.search(r"unlogged_requests_total (\d+)", exchange(connection, "/metrics")[2].decode())[1])
            connection.close()
            check(statuses == {200} and left_out >= 3, f"{log}: {statuses}, {left_out} left out")
            check(server.stop() == 0 and server.errors().count("cannot write") == (log == "/dev/full"), f"{log}: {server.errors()}")
    os.close(reader)


def test_tls(models, folder):
    key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    def make(name, key, certificate):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=" + name,
                        "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    make("localhost", key, certificate)
    with Server("-m", models["base"], "--tls-cert", certificate, "--tls-key", key) as server:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=ssl.create_default_context(cafile=certificate), timeout=60)
        status, _, answer = exchange(connection, "/v1/embeddings", {"input": TEXTS[:40]})
        check(server.url.startswith("https://") and status == 200 and len(answer["data"]) == 40, f"TLS: {status}")
        connection.close()
        old = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], input=b"", capture_output=True, timeout=60)
        new = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2"], input=b"", capture_output=True, timeout=60)
        check(old.returncode != 0 and new.returncode == 0, f"TLS 1.2, and nothing older: {old.returncode}, {new.returncode} {new.stderr[-300:]}")
        first, kept = (open(f, "rb").read() for f in (certificate, key))
        seen = lambda: ssl.get_server_certificate(("127.0.0.1", server.port)).strip().encode()
        make("another", key + "2", certificate + "2")
        def replaced(path, by):
            with open(path, "wb") as f: f.write(by)
            server.signal(signal.SIGHUP)
        def comes(what, is_so): check(until(is_so), f"{what}: {server.errors()}")
        check(seen() == first.strip(), "the certificate that it was given")
        with ssl.create_default_context(cafile=certificate).wrap_socket(server.socket(), server_hostname="127.0.0.1") as old:
            for path, by, why in ((certificate, open(certificate + "2", "rb").read(), "certificate and"), (key, b"garbage", "cannot use"), (key, b"", "cannot use")):
                before = server.errors().count("the certificate stays")
                replaced(path, by)
                comes("one without its key stays out", lambda: server.errors().count("the certificate stays") > before)
                check(seen() == first.strip(), f"the old one stays: {server.errors()}")
            replaced(key, open(key + "2", "rb").read())
            comes("another certificate", lambda: seen() == open(certificate + "2", "rb").read().strip())
            for _ in range(20): server.signal(signal.SIGHUP)
            old.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            check(old.recv(1000).startswith(b"HTTP/1.1 200"), "a connection goes on with the certificate that it began with")
        for path, by in ((certificate, first), (key, kept)): replaced(path, by)
        comes("the first again", lambda: seen() == first.strip())
        check("Sanitizer" not in server.errors(), server.errors())
        with server.socket(5) as s:
            s.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try: check(not s.recv(100).startswith(b"HTTP"), "plain HTTP is not answered")
            except OSError: pass


def test_usage(models, folder):
    base = models["base"]
    refused = lambda part, what, *args, status=(2,): check.refused(program("infer", "serve", *args, timeout=60), part, what, status)
    refused("-m FILE", "no model")
    refused("--tokens FILE", "a public address without a token", "-m", base, "--listen", "0.0.0.0:0")
    refused("an address and a port", "no port", "-m", base, "--listen", "127.0.0.1")
    refused("an address and a port", "a port that is no number", "-m", base, "--listen", "127.0.0.1: 80")
    refused("go together", "half of TLS", "-m", base, "--tls-cert", "x")
    refused("--queue", "no queue", "-m", base, "--queue", 0)
    refused("texts come in requests", "an operand", "-m", base, "postings.csv")
    refused("give its vectors", "texts without vectors", "-m", base, "--texts", "x")
    refused("cannot open", "texts that are not there", "-m", base, "--corpus", models["vectors"], "--texts", base + "x", status=(1,))
    with Server("-m", base, "--corpus", models["vectors"], "--texts", os.path.join(folder, "length.csv"), "--column", "text", "--id-column", "label", "--quiet") as server:
        check("0 of 200 rows were found: --texts wants" in server.errors() and "text" not in server.ask("/search", {"text": "a"})[2]["results"][0]["hits"][0],
              f"texts of others: {server.errors()}")
    refused("two files are called", "the same name", "-m", base, "-m", base, status=(1,))
    refused("cannot read", "no such file", "-m", base + "x", status=(1,))
    refused("another model", "vectors of another model", "-m", models["ner"], "--corpus", models["vectors"], status=(1,))
    refused("another model", "a map of another model", "-m", models["ner"], "--map", models["map"], status=(1,))
    refused("holds no map", "vectors as a map", "-m", base, "--map", models["vectors"], status=(1,))
    refused("no such file", "no tokens", "-m", base, "--tokens", base + "x", status=(1,))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused("cannot listen", "a port that is taken", "-m", base, "--listen", f"127.0.0.1:{taken.getsockname()[1]}", status=(1,))
    with Server("-m", base, "--quiet") as server:
        check(server.stop() == 0 and not server.errors(), f"--quiet: {server.errors()}")


def make_models(folder):
    path = lambda n: os.path.join(folder, n)
    base = samples_base(folder)
    with open(path("few.jsonl"), "w", encoding="utf-8") as f: f.writelines(LABELLED[:40])
    with open(path("length.csv"), "w", encoding="utf-8") as f:
        f.write("text,label,a,b\n" + "".join(f'"{t}",{"long" if len(t) > 60 else "short"},{int("a" in t)},{int("data" in t)}\n' for t in (p.replace('"', "") for p in POSTINGS)))
    for what, args in (("ner", ["ner", "--base", base, "--data", path("few.jsonl"), "--epochs", 20, "--lr", "5e-3", "--batch-tokens", 200, "-o", path("ner.h5")]),
                       ("classify", ["classify", "--base", base, "--data", path("length.csv"), "--column", "text", "--label", "label", "-o", path("classes.h5")]),
                       ("multilabel", ["multilabel", "--data", path("length.csv"), "--column", "text", "--labels", "a,b", "--embedding", 16, "--cells", 24, "--epochs", 2,
                                       "-o", path("gru.h5")])):
        done = program("train", *args, "--quiet")
        check(done.returncode == 0, f"train {what}: {done.stderr}")
    with open(path("corpus.txt"), "w", encoding="utf-8") as f: f.writelines(t.replace("\n", " ") + "\n" for t in POSTINGS[:200])
    for args in (["embed", "-m", base, path("corpus.txt"), "--format", "lines", "--prefix", "query: ", "-o", path("vectors.h5")],
                 ["map", path("vectors.h5"), "--epochs", 50, "-o", path("map.h5")]):
        done = program("infer", *args, "--quiet")
        check(done.returncode == 0, f"{args}: {done.stderr}")
    return {"prefix": "query: ", "vectors": path("vectors.h5"), "corpus": path("corpus.txt"), "map": path("map.h5"), "base": base, "ner": path("ner.h5"), "classes": path("classes.h5"), "gru": path("gru.h5")}


with tempfile.TemporaryDirectory(prefix="skillwatch-serve-") as tmp:
    only = sys.argv[1:]
    wanted = lambda name: not only or name in only
    models = make_models(tmp)
    with Server(*(a for n in ("base", "ner", "classes", "gru") for a in ("-m", models[n])), "--corpus", "postings=" + models["vectors"], "--texts", models["corpus"], "--map", models["map"], "--max-body", 4) as server:
        for test, args in ((test_embeddings, (server, models)), (test_token_ids, (server, models)), (test_jobs, (server, models)), (test_vectors, (server, models)), (test_refusals, (server,)),
                           (test_information, (server, models)), (test_openai, (server, models)), (test_schemathesis, (server, tmp))):
            if wanted(test.__name__[5:]): test(*args)
        check(server.process.poll() is None and server.stop() == 0, f"the server ends well: {server.errors()}")
        check("ERROR" not in server.errors() and "WARNING" not in server.errors(), f"no sanitizer complains: {server.errors()[-3000:]}")
    for test, args in ((test_limits, (models,)), (test_connections, (models,)), (test_queue, (models,)), (test_hang_up, (models,)), (test_drain, (models,)), (test_impatience, (models,)), (test_early_end, (models, tmp)), (test_last_moment, (models,)), (test_turns, (models,)), (test_reload, (models, tmp)), (test_reload_vectors, (models, tmp)),
                       (test_tokens, (models, tmp)), (test_log, (models, tmp)), (test_tls, (models, tmp)), (test_usage, (models, tmp))):
        if wanted(test.__name__[5:]):
            started = time.time()
            test(*args)
            print(f"{test.__name__[5:]}: {time.time() - started:.1f} s", flush=True)
check.close()
