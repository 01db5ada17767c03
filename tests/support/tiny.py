"""A tiny random BERT in Hugging Face layout, without PyTorch (its import takes seconds), and helpers for tests of the programs."""
import json, os, subprocess, sys

import numpy as np
from safetensors.numpy import save_file

BIN = os.environ.get("SW_BIN", "build/release/bin")
os.environ.setdefault("SKILLWATCH_MODULES", os.path.join(os.path.abspath(os.environ.get("SW_TESTS_BIN", "build/release/tests")), "modules"))  # "auto": the CPU
ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
SAMPLES = os.path.join(ROOT, "samples")


def vocabulary(texts, limit=1500):
    """Special tokens, characters and their continuations, then the most frequent lower-cased words."""
    import collections, re
    words = collections.Counter(w for t in texts for w in re.findall(r"[a-z]+", t.lower()))
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters + ["##" + c for c in characters]
    seen = set(vocab)
    return vocab + [w for w, _ in words.most_common(limit) if w not in seen]


def tiny_bert(folder, vocab, hidden=32, layers=2, heads=2, intermediate=64, positions=64, seed=0, scale=0.1, pooling=True):
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    normal = lambda *shape: (rng.standard_normal(shape) * scale).astype(np.float32)
    t = {"embeddings.word_embeddings.weight": normal(len(vocab), hidden), "embeddings.position_embeddings.weight": normal(positions, hidden),
         "embeddings.token_type_embeddings.weight": normal(2, hidden)}
    def norm(name): t[name + ".weight"], t[name + ".bias"] = np.ones(hidden, np.float32), np.zeros(hidden, np.float32)
    def linear(name, out, inp): t[name + ".weight"], t[name + ".bias"] = normal(out, inp), normal(out)
    norm("embeddings.LayerNorm")
    for i in range(layers):
        p = f"encoder.layer.{i}."
        for n in ("query", "key", "value"): linear(p + "attention.self." + n, hidden, hidden)
        linear(p + "attention.output.dense", hidden, hidden); norm(p + "attention.output.LayerNorm")
        linear(p + "intermediate.dense", intermediate, hidden); linear(p + "output.dense", hidden, intermediate); norm(p + "output.LayerNorm")
    save_file(t, os.path.join(folder, "model.safetensors"))
    json.dump({"model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(vocab), "hidden_size": hidden,
               "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": intermediate, "hidden_act": "gelu",
               "max_position_embeddings": positions, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1,
               "attention_probs_dropout_prob": 0.1, "pad_token_id": 0}, open(os.path.join(folder, "config.json"), "w"))
    open(os.path.join(folder, "vocab.txt"), "w").write("\n".join(vocab) + "\n")
    json.dump({"do_lower_case": True, "model_max_length": positions}, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    if pooling:
        os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
        json.dump({"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}, open(os.path.join(folder, "1_Pooling/config.json"), "w"))
        json.dump([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                   {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                   {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}],
                  open(os.path.join(folder, "modules.json"), "w"))
    return folder


def program(verb, *args, **options):
    """Runs `skillwatch-<verb> args`; returns the finished process with text output."""
    return subprocess.run([os.path.join(BIN, "skillwatch-" + verb), *map(str, args)], capture_output=True, text=True,
                          timeout=options.pop("timeout", 300), **options)


def samples_base(folder, **kwargs):
    """A tiny checkpoint whose vocabulary fits the samples; returns its path."""
    texts = [json.loads(line)["text"] for line in open(os.path.join(SAMPLES, "labels/train.jsonl"), encoding="utf-8")]
    model = tiny_bert(os.path.join(folder, "tiny"), vocabulary(texts), **kwargs)
    path = os.path.join(folder, "tiny.h5")
    done = program("pull", model, "-o", path, "--quiet")
    assert done.returncode == 0, done.stderr
    return path


def weights(path):
    """Everything that a resumed run must give back bit for bit: tensors, moments, the content's hash."""
    import h5py
    out = {}
    with h5py.File(path) as f:
        for group in ("weights", "optimizer"):
            if group in f:
                f[group].visititems(lambda n, o: out.__setitem__(group + "/" + n, o[()].tobytes()) if isinstance(o, h5py.Dataset) else None)
        out["content"] = f.attrs["content_sha256"]
    return out


def read_json(path, name):
    """The JSON of a checkpoint's dataset: "training", "lineage" ..."""
    import h5py
    with h5py.File(path) as f:
        value = f[name][()]
        return json.loads(value if isinstance(value, (str, bytes)) else value.tobytes())


def spare_fontconfig():
    """fontconfig, which cairo finds its fonts with, keeps patterns where the leak checker of a sanitizer build does not see them."""
    import tempfile
    suppressions = tempfile.NamedTemporaryFile("w", prefix="suppressions-", suffix=".txt")
    print("leak:libfontconfig", file=suppressions, flush=True)
    os.environ["LSAN_OPTIONS"] = f"suppressions={suppressions.name}:print_suppressions=0"
    return suppressions  # to be kept as long as programs run


class Checks:
    """Counts; prints what fails; exit status at the end."""
    def __init__(self): self.count = self.failed = 0
    def __call__(self, holds, what):
        self.count += 1
        if not holds:
            self.failed += 1
            print("FAIL", what, flush=True)
        return holds
    def refused(self, done, part, what, status=(1, 2)):
        """One clear line on stderr, the right exit status, no crash."""
        lines = [l for l in done.stderr.strip().splitlines() if l]
        self(done.returncode in status and len(lines) >= 1 and part.lower() in lines[-1].lower() and "Sanitizer" not in done.stderr,
             f"{what}: status {done.returncode}, stderr {done.stderr[-400:]!r}, wanted {part!r}")
    def close(self):
        print(f"{self.count} checks, {self.failed} failed")
        sys.exit(1 if self.failed or not self.count else 0)
