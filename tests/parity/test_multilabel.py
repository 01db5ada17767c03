"""The multilabel GRU against torch.nn.Embedding, GRU and Linear (logits, every gradient, ten training losses; on the CPU and with the CUDA kernels in
the emulator), the measures of association against scipy, and Porter's stems against their published examples."""
import json, os, random, subprocess, sys, tempfile

import h5py, numpy as np, scipy.stats, torch
from safetensors.torch import load_file

TOOL = os.environ["SW_TESTS_BIN"] + "/tool-label_dump"
ENVIRONMENT = dict(os.environ, SKILLWATCH_MODULES=os.environ.get("SKILLWATCH_MODULES") or os.environ["SW_TESTS_BIN"] + "/modules")
DEVICES = os.environ.get("SW_TEST_DEVICES", "cpu cuda-emulated").split()
failures = 0


def check(name, error, limit):
    global failures
    ok = error <= limit  # a NaN fails
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {error:.3g} (limit {limit:g})")


class Net(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        vocabulary, size = weights["embedding.weight"].shape
        labels, cells = weights["heads.labels.weight"].shape
        self.embedding, self.gru = torch.nn.Embedding(vocabulary, size), torch.nn.GRU(size, cells)
        self.out = torch.nn.Linear(cells, labels)
        self.load_state_dict({n.replace("heads.labels", "out"): torch.tensor(w) for n, w in weights.items()})

    def forward(self, sequences):
        packed = torch.nn.utils.rnn.pack_sequence([self.embedding(torch.tensor(s)) for s in sequences], enforce_sorted=False)
        return self.out(self.gru(packed)[1][0])


def peer(net, sequences, targets, weights, steps, lr):
    named = list(net.named_parameters())
    plain = lambda n: "bias" in n
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if not plain(n)], "weight_decay": 0.01},
                                   {"params": [p for n, p in named if plain(n)], "weight_decay": 0.0}], lr=lr)
    losses, logits, gradients = [], None, None
    for _ in range(steps + 1):
        out = net(sequences)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(out, targets, weight=weights)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if logits is None: logits, gradients = out.detach(), {n: p.grad.clone() for n, p in named}
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return losses, logits, gradients


def model_case(vocabulary, embedding, cells, labels, weighted):
    torch.manual_seed(cells)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([TOOL, "init", folder + "/m.h5", *map(str, (vocabulary, embedding, cells, labels))], check=True)
        with h5py.File(folder + "/m.h5") as f:
            weights = {n: f["weights"][n][()] for n in f["weights"]}
        sequences = [torch.randint(0, vocabulary, (n,)).tolist() for n in (1, 7, 30, 16, 3, 17, 2)]  # words come up again and again
        targets = torch.randint(0, 2, (len(sequences), labels)).float()
        each = torch.where(targets > 0, torch.rand(labels) * 3 + 0.5, torch.ones(())) if weighted else None
        json.dump({"sequences": sequences, "targets": targets.tolist(), "weights": each.tolist() if weighted else None}, open(folder + "/b.json", "w"))
        losses, logits, gradients = peer(Net(weights), sequences, targets, each, 10, 1e-2)
        for device in DEVICES:
            subprocess.run([TOOL, "run", folder + "/m.h5", folder + "/b.json", folder + "/out.safetensors", "10", "1e-2", device], check=True, env=ENVIRONMENT)
            ours = load_file(folder + "/out.safetensors")
            what = f"{device} {vocabulary} words, {embedding} -> {cells} -> {labels}{' weighted' if weighted else ''}"
            check(what + " logits", ((ours["logits"] - logits).abs().max() / logits.abs().max()).item(), 1e-4)
            check(what + " ten losses", max(abs(a - b) for a, b in zip(ours["losses"].tolist(), losses, strict=True)), 1e-3)
            names = {n.replace("out.", "heads.labels."): g for n, g in gradients.items()}
            check(what + " gradients without a peer", len({n for n in ours if n.startswith("grad/")} ^ {"grad/" + n for n in names}), 0)
            for n, g in names.items():
                check(f"{what} gradient of {n}", ((ours["grad/" + n].reshape(g.shape) - g).abs().max() / g.abs().max()).item(), 1e-4)


def association_cases():
    rng = random.Random(5)
    for case in range(40):
        a, b = ([rng.random() < p for _ in range(rng.choice((7, 60, 500)))] for p in (rng.random(), rng.random()))
        n = min(len(a), len(b))
        a, b = np.array(a[:n], int), np.array(b[:n], int)
        if case % 3 == 0: b = np.where(np.random.default_rng(case).random(n) < 0.9, a, 1 - a)
        if case % 7 == 0: b = 1 - a
        table = [int(((a == i) & (b == j)).sum()) for i in (0, 1) for j in (0, 1)]
        got = list(map(float, subprocess.run([TOOL, "associations", *map(str, table)], check=True, capture_output=True, text=True).stdout.split()))
        if a.std() == 0 or b.std() == 0:
            check(f"a constant column {table}", 0 if all(map(np.isnan, got)) else 1, 0)
            continue
        v = scipy.stats.contingency.association(np.array(table).reshape(2, 2), method="cramer", correction=False)
        want = scipy.stats.pearsonr(a, b)[0], scipy.stats.spearmanr(a, b)[0], v
        check(f"associations of {table}", max(abs(g - w) for g, w in zip(got, want)), 1e-12)


def stem_cases():
    # of "An algorithm for suffix stripping", section 2
    examples = dict(caresses="caress", ponies="poni", ties="ti", caress="caress", cats="cat", feed="feed", agreed="agre", plastered="plaster", motoring="motor",
                    sing="sing", hopping="hop", falling="fall", hissing="hiss", fizzed="fizz", failing="fail", filing="file", happy="happi", sky="sky",
                    relational="relat", conditional="condit", formaliti="formal", triplicate="triplic", hopeful="hope", goodness="good", revival="reviv",
                    allowance="allow", adjustable="adjust", controlling="control", rolling="roll")
    got = subprocess.run([TOOL, "stems", *examples], check=True, capture_output=True, text=True).stdout.split()
    check(f"stems that differ: {[(w, g) for (w, s), g in zip(examples.items(), got) if s != g]}", sum(a != b for a, b in zip(examples.values(), got, strict=True)), 0)


model_case(23, 11, 19, 5, False)
model_case(41, 128, 180, 13, False)
model_case(31, 16, 33, 7, True)
association_cases()
stem_cases()
sys.exit(1 if failures else 0)
