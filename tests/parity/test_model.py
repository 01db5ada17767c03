"""Logits, every parameter's gradient and ten training losses of small random BERT and DistilBERT models, against PyTorch: on the CPU, and
with the CUDA kernels in the emulator (SW_TEST_DEVICES="cuda": on a GPU)."""
import json, os, subprocess, sys, tempfile

import torch
from safetensors.torch import load_file
from transformers import (BertConfig, BertForMaskedLM, BertForTokenClassification, DistilBertConfig, DistilBertForMaskedLM,
                          DistilBertForTokenClassification)

BIN, TOOLS = os.environ["SW_BIN"], os.environ["SW_TESTS_BIN"]
LABELS, VOCAB = ["O", "B", "I"], 97
MODULES = os.environ.get("SKILLWATCH_MODULES") or TOOLS + "/modules"
DEVICES = os.environ.get("SW_TEST_DEVICES", "cpu cuda-emulated").split()
failures = 0


def check(name, error, limit):
    global failures
    ok = error <= limit  # a NaN fails
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {error:.3g} (limit {limit:g})")


def models():
    common = dict(vocab_size=VOCAB, num_labels=3, id2label=dict(enumerate(LABELS)), label2id={l: i for i, l in enumerate(LABELS)})
    off = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    yield "bert", BertForTokenClassification(BertConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
                                                        max_position_embeddings=40, **off, **common))
    yield "bert gelu_new", BertForTokenClassification(BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                                                                 intermediate_size=96, hidden_act="gelu_new",
                                                                 max_position_embeddings=40, **off, **common))
    yield "distilbert", DistilBertForTokenClassification(DistilBertConfig(dim=48, n_layers=3, n_heads=3, hidden_dim=72, dropout=0.0,
                                                                          attention_dropout=0.0, seq_classif_dropout=0.0,
                                                                          max_position_embeddings=40, **common))
    yield "bert mlm", BertForMaskedLM(BertConfig(vocab_size=VOCAB, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
                                                 max_position_embeddings=40, **off))
    yield "distilbert mlm", DistilBertForMaskedLM(DistilBertConfig(vocab_size=VOCAB, dim=48, n_layers=2, n_heads=3, hidden_dim=72, dropout=0.0,
                                                                   attention_dropout=0.0, max_position_embeddings=40))


def write_vocab(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(VOCAB - 5)]
    open(os.path.join(folder, "vocab.txt"), "w").write("\n".join(words) + "\n")


def peer(model, sequences, labels, steps, lr):
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask, target = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (s, l) in enumerate(zip(sequences, labels)):
        ids[i, :len(s)], mask[i, :len(s)], target[i, :len(s)] = torch.tensor(s), 1, torch.tensor(l)
    model.train()
    plain = lambda n: n.endswith("bias") or "LayerNorm" in n or "layer_norm" in n
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if not plain(n)], "weight_decay": 0.01},
                                   {"params": [p for n, p in named if plain(n)], "weight_decay": 0.0}], lr=lr)
    losses, gradients, log_probs = [], None, None
    for _ in range(steps + 1):
        out = model(input_ids=ids, attention_mask=mask, labels=target)
        optimizer.zero_grad()
        out.loss.backward()
        losses.append(out.loss.item())
        if gradients is None:
            gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}
            log_probs = torch.log_softmax(out.logits.detach(), -1)[target != -100 if "MaskedLM" in type(model).__name__ else mask.bool()]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return losses, gradients, log_probs


torch.manual_seed(11)
for name, model in models():
    # real models are not near zero: larger weights make every term of the gradients count
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.dim() == 2: p.mul_(3)
            elif "bias" in n: p.normal_(0, 0.1)
            else: p.add_(torch.randn_like(p) * 0.1)
    mlm = "mlm" in name
    sequences = [torch.randint(5, VOCAB, (n,)).tolist() for n in (1, 7, 40, 16, 3, 17)]
    labels = [[-100 if i % 3 == 1 else (i * 7 + len(s)) % (VOCAB if mlm else 3) for i in range(len(s))] for s in sequences]
    with tempfile.TemporaryDirectory() as folder:
        model.double()
        model.float().save_pretrained(folder)
        write_vocab(folder)
        json.dump({"sequences": sequences, "labels": labels, "mlm": mlm}, open(folder + "/batch.json", "w"))
        subprocess.run([BIN + "/skillwatch-pull", folder, "-o", folder + "/m.h5", "--quiet"], check=True)
        if mlm:  # export gives back what transformers reads
            subprocess.run([BIN + "/skillwatch-export", folder + "/m.h5", "-o", folder + "/export", "--quiet"], check=True)
            same, missing = type(model).from_pretrained(folder + "/export", output_loading_info=True)
            with torch.no_grad(): apart = (same(torch.tensor([sequences[2]])).logits - model(torch.tensor([sequences[2]])).logits).abs().max().item()
            check(f"{name} exported and loaded by transformers", apart if not missing["missing_keys"] else float("nan"), 0)
        losses, gradients, log_probs = peer(model, sequences, labels, 10, 1e-3)
        prefix = "distilbert." if "distil" in name else "bert."
        for device, dtype, limit in [(d, t, l) for d in DEVICES for t, l in (("fp32", 1e-4), ("bf16", None))]:
            subprocess.run([TOOLS + "/tool-model_dump", folder + "/m.h5", folder + "/batch.json", folder + "/out.safetensors", "10", "1e-3",
                            dtype, device], check=True, env={**os.environ, "SKILLWATCH_MODULES": MODULES})
            ours = load_file(folder + "/out.safetensors")
            ours_losses = ours["losses"].tolist()
            check(f"{name} {device} {dtype} log probabilities", (ours["log_probs"] - log_probs).abs().max().item() / log_probs.abs().max().item(),
                  limit or 0.05)
            check(f"{name} {device} {dtype} ten losses", max(abs(a - b) for a, b in zip(ours_losses, losses)), 1e-3 if limit else 0.1)
            if not limit: continue
            largest = max(g.abs().max().item() for g in gradients.values())
            seen = set()
            for n, g in gradients.items():
                ours_name = n[len(prefix):] if n.startswith(prefix) else n.replace("classifier.", "heads.tags.")
                mine = ours["grad/" + ours_name]
                seen.add("grad/" + ours_name)
                # a key's bias has no gradient but rounding (softmax ignores it): measured against the model's scale
                scale = max(g.abs().max().item(), 1e-3 * largest)
                check(f"{name} {device} gradient of {n}", (mine - g).abs().max().item() / scale, limit)
            left = {k for k in ours if k.startswith("grad/")} - seen
            if left:
                failures += 1
                print("FAIL gradients without a peer:", left)
sys.exit(1 if failures else 0)
