"""Losses over one vector a sequence, of small random BERT and DistilBERT models with all poolings: every parameter's gradient and ten training losses.
A bi-encoder's against sentence-transformers' MultipleNegativesRankingLoss, with and without hard negatives; the same batch in parts
(gradient caching); several queries with one positive. A classifier's and a multilabel head's, jointly, against PyTorch. On the CPU and with the CUDA kernels in the emulator (SW_TEST_DEVICES="cuda": on a GPU)."""
import json, os, subprocess, sys, tempfile

try:
    import torch
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has sentence-transformers")
    sys.exit(77)
try:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
except ImportError:
    from sentence_transformers.losses import MultipleNegativesRankingLoss

BIN, TOOLS = os.environ["SW_BIN"], os.environ["SW_TESTS_BIN"]
MODULES = os.environ.get("SKILLWATCH_MODULES") or TOOLS + "/modules"
DEVICES = os.environ.get("SW_TEST_DEVICES", "cpu cuda-emulated").split()
STEPS, LR = 10, 1e-3
failures = 0


def check(name, error, limit):
    global failures
    ok = error <= limit  # a NaN fails
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {error:.3g} (limit {limit:g})")


def models():
    off = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    yield "bert mean", BertModel(BertConfig(vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
                                            max_position_embeddings=40, **off), add_pooling_layer=False), "mean_tokens"
    yield "bert cls", BertModel(BertConfig(vocab_size=97, hidden_size=36, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                                           hidden_act="gelu_new", max_position_embeddings=40, **off), add_pooling_layer=False), "cls_token"
    yield "distilbert max", DistilBertModel(DistilBertConfig(vocab_size=97, dim=48, n_layers=3, n_heads=3, hidden_dim=72, dropout=0.0,
                                                             attention_dropout=0.0, max_position_embeddings=40)), "max_tokens"


def write_folder(folder, model, pooling):
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(92)]
    open(os.path.join(folder, "vocab.txt"), "w").write("\n".join(words) + "\n")
    json.dump({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 40}, open(folder + "/tokenizer_config.json", "w"))
    os.makedirs(folder + "/1_Pooling")
    json.dump({"word_embedding_dimension": model.config.hidden_size, **{"pooling_mode_" + p: p == pooling for p in ("mean_tokens", "cls_token", "max_tokens")}},
              open(folder + "/1_Pooling/config.json", "w"))
    json.dump([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
               {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}], open(folder + "/modules.json", "w"))


def features(sequences):
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, s in enumerate(sequences): ids[i, :len(s)], mask[i, :len(s)] = torch.tensor(s), 1
    return {"input_ids": ids, "attention_mask": mask}


def peer(folder, loss_of, heads={}):
    """Ten steps of AdamW as PyTorch has it; the first step's gradients."""
    model = SentenceTransformer(folder, device="cpu")
    model.train()
    loss_of = loss_of(model)
    named = [(n.split("auto_model.")[-1].split("model.", 1)[-1], p) for n, p in model.named_parameters()]
    named += [(f"heads.{name}.{n}", p) for name, head in heads.items() for n, p in head.named_parameters()]
    plain = lambda n: n.endswith("bias") or "LayerNorm" in n or "layer_norm" in n
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if not plain(n)], "weight_decay": 0.01},
                                   {"params": [p for n, p in named if plain(n)], "weight_decay": 0.0}], lr=LR)
    losses, gradients = [], None
    for _ in range(STEPS + 1):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if gradients is None: gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step()
    return losses, gradients


def compare(name, folder, batch, losses, gradients, device, parts=1, dtype="fp32"):
    json.dump({**batch, "parts": parts}, open(folder + "/batch.json", "w"))
    steps = STEPS if device == DEVICES[0] else 3  # the emulator takes its time
    subprocess.run([TOOLS + "/tool-pooled_dump", folder + "/m.h5", folder + "/batch.json", folder + "/out.safetensors", str(steps), str(LR), dtype, device],
                   check=True, env={**os.environ, "SKILLWATCH_MODULES": MODULES})
    ours = load_file(folder + "/out.safetensors")
    name = f"{name}, {device} {dtype}, {parts} part{'s' * (parts > 1)}"
    losses = losses[:steps + 1]
    check(f"{name}: losses of {steps} steps", max(abs(a - b) for a, b in zip(ours["losses"].tolist(), losses, strict=True)), 1e-3 if dtype == "fp32" else 0.1)
    if dtype != "fp32": return
    largest = max(g.abs().max().item() for g in gradients.values())
    # a key's bias has no gradient but rounding (softmax ignores it): measured against the model's scale
    errors = {n: (ours["grad/" + n] - g).abs().max().item() / max(g.abs().max().item(), 1e-3 * largest) for n, g in gradients.items()}
    worst = max(errors, key=lambda n: errors[n] if errors[n] == errors[n] else float("inf"))
    check(f"{name}: {len(errors)} gradients, the worst that of {worst}", errors[worst], 1e-4)
    check(name + ": gradients without a peer", len({k for k in ours if k.startswith("grad/")} - {"grad/" + n for n in gradients}), 0)
    check(name + ": losses that fall", float(not losses[-1] < losses[0]), 0)


torch.manual_seed(5)
for name, model, pooling in models():
    with torch.no_grad():  # real models are not near zero: larger weights make every term of the gradients count
        for n, p in model.named_parameters():
            if p.dim() == 2: p.mul_(3)
            elif "bias" in n: p.normal_(0, 0.1)
            else: p.add_(torch.randn_like(p) * 0.1)
    lengths = lambda k: [(k * i * i + 3 * i) % 37 + 2 for i in range(7)]
    draw = lambda k: [torch.randint(5, 97, (n,)).tolist() for n in lengths(k)]
    queries, positives, negatives = draw(3), draw(5), draw(11)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(folder, model, pooling)
        subprocess.run([BIN + "/skillwatch-pull", folder, "-o", folder + "/m.h5", "--quiet"], check=True)
        for what, documents in (("pairs", [positives]), ("pairs with negatives", [positives, negatives])):
            losses, gradients = peer(folder, lambda st: (lambda loss: lambda: loss([features(s) for s in (queries, *documents)], None))(
                MultipleNegativesRankingLoss(st, scale=20.0)))
            batch = {"sequences": queries + sum(documents, []), "queries": 7, "positive": list(range(7))}
            for device in DEVICES:
                for parts, dtype in ((1, "fp32"), (3, "fp32"), (3, "bf16")) if device == DEVICES[0] else ((3, "fp32"),) if len(documents) == 2 else ():
                    compare(f"{name}, {what}", folder, batch, losses, gradients, device, parts, dtype)
        # queries that share a positive: one candidate, as the cross entropy over the distinct ones
        positive = [0, 1, 0, 2, 1, 3, 0]
        def shared(st):
            def loss():
                q, c = (torch.nn.functional.normalize(st(features(s))["sentence_embedding"], dim=-1) for s in (queries, positives[:4]))
                return torch.nn.functional.cross_entropy(20 * q @ c.T, torch.tensor(positive))
            return loss
        losses, gradients = peer(folder, shared)
        for parts in (1, 4):
            compare(f"{name}, shared positives", folder, {"sequences": queries + positives[:4], "queries": 7, "positive": positive}, losses, gradients, DEVICES[0], parts)
        # two heads at once: cross entropy and a sigmoid a label
        classes, marks, weights = torch.randint(0, 5, (14,)), (torch.rand(14, 11) < 0.3).float(), torch.rand(14, 11) + 0.5
        heads = {"class": torch.nn.Linear(model.config.hidden_size, 5), "skills": torch.nn.Linear(model.config.hidden_size, 11)}
        sent = [{"name": n, "task": t, "weight": heads[n].weight.tolist(), "bias": heads[n].bias.tolist(), **wanted} for n, t, wanted in
                (("class", "sequence", {"labels": classes.tolist()}), ("skills", "multilabel", {"targets": marks.tolist(), "weights": weights.tolist()}))]
        def jointly(st):
            def loss():
                v = st(features(queries + positives))["sentence_embedding"]
                return torch.nn.functional.cross_entropy(heads["class"](v), classes) + torch.nn.functional.binary_cross_entropy_with_logits(heads["skills"](v), marks, weights)
            return loss
        losses, gradients = peer(folder, jointly, heads)
        for device in DEVICES:
            for dtype in ("fp32", "bf16") if device == DEVICES[0] or "mean" in name else ("fp32",):
                compare(f"{name}, two heads", folder, {"sequences": queries + positives, "heads": sent}, losses, gradients, device, dtype=dtype)
sys.exit(1 if failures else 0)
