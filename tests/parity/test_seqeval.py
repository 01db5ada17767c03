#!/usr/bin/env python3
"""Entity scores of tool-metrics against seqeval's default mode: precision, recall, F1 and support of each type, micro and macro, and
accuracy, on random tag sequences, valid or not (I after O, I after another type, a sentence that begins with I)."""
import json, os, random, subprocess, sys, warnings

TOOL = os.path.join(os.environ.get("SW_TESTS_BIN", "."), "tool-metrics")
try:
    from seqeval.metrics import accuracy_score
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has seqeval")
    sys.exit(77)
if not os.path.exists(TOOL):
    print(f"skipped: {TOOL} is not built; set SW_TESTS_BIN")
    sys.exit(77)
warnings.filterwarnings("ignore")

LABEL_SETS = [
    ["O", "B", "I"],
    ["O", "B-Tool", "I-Tool"],
    ["O", "B-a", "I-a", "B-b", "I-b", "B-c-d", "I-c-d"],
    ["I", "B-x", "O", "B", "I-x"],
    ["B-PER", "I-LOC", "O", "I-PER", "B-LOC", "B-MISC"],
]


def sentence(rng, labels):
    n = rng.choice((0, 1, 2, 3, 5, 8, 20, 60))
    outside = labels.index("O")
    share = rng.random()
    gold = [outside if rng.random() < share else rng.randrange(len(labels)) for _ in range(n)]
    predicted = [g if rng.random() < 0.7 else rng.randrange(len(labels)) for g in gold]
    return [gold, predicted]


def main():
    seed = int(os.environ.get("SW_TEST_SEED", "20250607"))
    rng = random.Random(seed)
    requests = []
    for i in range(1500):
        labels = LABEL_SETS[i % len(LABEL_SETS)]
        sentences = [sentence(rng, labels) for _ in range(rng.choice((1, 1, 2, 10)))]
        if all(not gold for gold, _ in sentences):
            sentences.append([[labels.index("O")], [rng.randrange(len(labels))]])
        requests.append({"labels": labels, "sentences": sentences})
    text = "".join(json.dumps(r) + "\n" for r in requests)
    out = subprocess.run([TOOL], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(out) == len(requests), (len(out), len(requests))
    failures = compared = sequences = 0
    for number, (request, line) in enumerate(zip(requests, out)):
        ours, labels = json.loads(line), request["labels"]
        gold = [[labels[t] for t in g] for g, _ in request["sentences"]]
        predicted = [[labels[t] for t in p] for _, p in request["sentences"]]
        sequences += len(gold)
        occurring = {t: s for t, s in ours["labels"].items() if s["support"] or s["precision"] or predicted_any(predicted, t)}
        checks = []
        scores = precision_recall_fscore_support(gold, predicted, average=None)
        names = type_names(gold, predicted)
        if set(names) != set(occurring):
            print(f"case {number}: types {sorted(occurring)}, seqeval has {names}")
            failures += 1
            continue
        for k, name in enumerate(names):
            checks.append((name, ours["labels"][name], [column[k] for column in scores]))
        if names:  # without any entity seqeval divides by zero
            for average in ("micro", "macro"):
                checks.append((average, ours[average], precision_recall_fscore_support(gold, predicted, average=average)))
        for what, got, wanted in checks:
            compared += 1
            got = [got["precision"], got["recall"], got["f1"], got["support"]]
            if any(not abs(a - b) <= 1e-15 for a, b in zip(got[:3], wanted)) or got[3] != wanted[3]:
                print(f"case {number} {what}: {got}, seqeval {list(map(float, wanted))}\n  {gold}\n  {predicted}")
                failures += 1
        if not abs(ours["accuracy"] - accuracy_score(gold, predicted)) <= 1e-15:
            print(f"case {number}: accuracy {ours['accuracy']}")
            failures += 1
    print(f"seed {seed}: {sequences} sequences in {len(requests)} sets, {compared} scores compared, {failures} different")
    if failures or compared < 4000:
        sys.exit(1)


def type_names(gold, predicted):
    from seqeval.metrics.sequence_labeling import get_entities
    return sorted({"" if t == "_" else t for t, _, _ in get_entities(gold) + get_entities(predicted)},
                  key=lambda t: t or "_")


def predicted_any(predicted, name):
    from seqeval.metrics.sequence_labeling import get_entities
    return any(t == (name or "_") for t, _, _ in get_entities(predicted))


if __name__ == "__main__":
    main()
