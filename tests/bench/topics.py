#!/usr/bin/env python3
"""train topics and infer topics beside gensim and tomotopy on the same bags of words: 30 topics, no_below 5, keep 5000, 10 passes, 50 iterations.

usage: topics.py POSTINGS [--seeds 3] [--iterations-of-tomotopy 200]      POSTINGS: a folder of <date>/<n>.txt

Postings are cut into documents of 120 words, a new one every 40, as short texts are what the model is for. Words and dictionary are Skillwatch's, so that
all learn from the same numbers. Every bound per word is computed by gensim's log_perplexity, with the topics of each program in a gensim model; every
coherence by gensim's CoherenceModel. Held-out documents (every 20th posting) are scored by document completion: topics of a document from every
other word of it (expectation maximisation in NumPy on the program's topics), log likelihood of the words between. Needs gensim and tomotopy. Seconds are
of the fit alone, gensim's without its own progress scores (eval_every=None); processor seconds are Skillwatch's for the whole program (reading, dictionary,
fit, scores) and the others' for the fit: on a machine that other work shares they say more.
"""
import argparse, glob, json, os, re, resource, subprocess, sys, tempfile, time

import h5py, numpy as np

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("postings"), ap.add_argument("--seeds", type=int, default=3), ap.add_argument("--iterations-of-tomotopy", type=int, nargs="+", default=[200])
ap.add_argument("--only-ours", action="store_true")
a = ap.parse_args()
BIN = os.environ.get("SW_BIN", "build/release/bin")
from gensim.corpora import Dictionary
from gensim.models import CoherenceModel, LdaModel
import tomotopy

TOPICS = 30
OURS = {"Skillwatch": [], "Skillwatch, 30 passes, one chunk": ["--passes", "30", "--iterations", "20", "--chunk-size", "100000"]}
texts = [open(f, encoding="utf-8").read() for f in sorted(glob.glob(os.path.join(a.postings, "*/*.txt")))]
posting_words = [re.findall(r"[a-z]{3,}", t.lower()) for t in texts]
cut = lambda words: [w[i:i + 120] for w in words for i in range(0, len(w), 40)]
learned, held_out = cut([w for i, w in enumerate(posting_words) if i % 20]), cut(posting_words[::20])


def write(path, documents):
    with open(path, "w") as f: f.writelines(" ".join(d) + "\n" for d in documents)
    return path


def read(path):
    """Words of the dictionary and lambda."""
    with h5py.File(path) as f: return [bytes(t).rstrip(b"\0").decode() for t in f["tokenizer/vocab"][1:]], f["weights/lambda"][()]


def model_of(weights, words):
    m = LdaModel(id2word=dict(enumerate(words)), num_topics=len(weights), iterations=50, random_state=0)
    m.state.sstats = weights.astype(m.dtype) - m.eta
    m.sync_state()
    return m


def completion(weights, bags):
    """Mean log likelihood of a word of the held-out documents' odd words, from their even ones."""
    phi, total, count = weights / weights.sum(1, keepdims=True), 0.0, 0
    for even, odd in bags:
        if not even or not odd: continue
        theta, p = np.full(len(phi), 1 / len(phi)), phi[:, even]
        for _ in range(100):
            r = theta[:, None] * p
            r /= r.sum(0) + 1e-300
            theta = r.sum(1) + 0.1
            theta /= theta.sum()
        total += np.log(theta @ phi[:, odd] + 1e-300).sum()
        count += len(odd)
    return total / count


def used():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime


def report(name, seed, seconds, processor, weights):
    scores = {"bound": model_of(weights, words).log_perplexity(corpus), "held out": completion(weights, halves)}
    top = [[words[i] for i in np.argsort(-row, kind="stable")[:20]] for row in weights]
    for c in ("u_mass", "c_npmi"):
        scores[c] = CoherenceModel(topics=top, corpus=corpus, texts=tokens, dictionary=dictionary, coherence=c, processes=1, topn=20).get_coherence()
    print(f"{name:34} seed {seed}  fit {seconds:8.3f} s ({processor:7.2f} of processors)  bound/word {scores['bound']:.4f}  held out {scores['held out']:.4f}  u_mass {scores['u_mass']:.4f}  c_npmi {scores['c_npmi']:.4f}", flush=True)
    table.setdefault(name, []).append([seconds, processor, *scores.values()])


table = {}
with tempfile.TemporaryDirectory() as tmp:
    path = write(os.path.join(tmp, "learned.txt"), learned)
    for ours, seed in ((o, s) for o in OURS for s in range(a.seeds)):
        out, before = os.path.join(tmp, f"{len(table)}.{seed}.h5"), used()
        done = subprocess.run([BIN + "/skillwatch-train", "topics", "--data", path, "--format", "lines", "-o", out, "--threads", "2", "--seed", str(seed), *OURS[ours]],
                              capture_output=True, text=True)
        if done.returncode: sys.exit(done.stderr)
        processor = used() - before
        words, weights = read(out)
        if not table:
            number = {w: i for i, w in enumerate(words)}
            with h5py.File(out) as f: stop = set(json.loads(bytes(f["config"][0]).rstrip(b"\0"))["tokenizer"]["stop_words"])
            tokens = [[w for w in d if w not in stop] for d in learned]
            dictionary = Dictionary([words])
            dictionary.token2id, dictionary.id2token, dictionary.num_docs = number, dict(enumerate(words)), len(tokens)
            corpus = [b for d in tokens if (b := dictionary.doc2bow(d))]
            known = [[number[w] for w in d if w in number] for d in held_out]
            halves = [(d[::2], d[1::2]) for d in known]
            print(f"{len(corpus)} documents, {sum(c for b in corpus for _, c in b)} words, {len(words)} in the dictionary; {len(halves)} held out")
        report(ours, seed, float(re.search(r"learned in ([0-9.]+) s", done.stderr).group(1)), processor, weights)
    began, before = time.perf_counter(), used()
    subprocess.run([BIN + "/skillwatch-infer", "topics", "-m", os.path.join(tmp, "0.0.h5"), *[path] * 10, "--format", "lines", "-o", os.path.join(tmp, "t.jsonl"), "-q", "--threads", "2", "--no-dedup"], check=True)
    ours, wall = 10 * len(corpus) / (used() - before), 10 * len(corpus) / (time.perf_counter() - began)
    print(f"Skillwatch infer topics, whole program, from text: {wall:.0f} documents/s, {ours:.0f} in a processor's second")
    for seed in range(0 if a.only_ours else a.seeds):
        began, before = time.perf_counter(), time.process_time()
        m = LdaModel(corpus, id2word=dict(enumerate(words)), num_topics=TOPICS, passes=10, iterations=50, eval_every=None, random_state=seed)
        report("gensim", seed, time.perf_counter() - began, time.process_time() - before, m.state.get_lambda())
        if not seed:
            began, before = time.perf_counter(), time.process_time()
            for b in corpus: m.get_document_topics(b)
            theirs, their_wall = len(corpus) / (time.process_time() - before), len(corpus) / (time.perf_counter() - began)
            print(f"gensim get_document_topics: {their_wall:.0f} documents/s, {theirs:.0f} in a processor's second: Skillwatch {wall / their_wall:.1f} and {ours / theirs:.1f} times as many")
        for iterations in a.iterations_of_tomotopy:
            t = tomotopy.LDAModel(k=TOPICS, seed=seed)
            for b in tokens:
                if (d := [w for w in b if w in number]): t.add_doc(d)
            began, before = time.perf_counter(), time.process_time()
            t.train(iterations, workers=2)
            seconds, processor = time.perf_counter() - began, time.process_time() - before
            place, counts = [number[w] for w in t.used_vocabs], np.zeros((TOPICS, len(words)))
            for k in range(TOPICS): counts[k, place] = t.get_topic_word_dist(k) * t.get_count_by_topics()[k]
            report(f"tomotopy, {iterations} iterations", seed, seconds, processor, counts + 1 / TOPICS)
print()
for name, rows in table.items():
    seconds, processor, bound, held, u_mass, c_npmi = np.mean(rows, 0)
    print(f"{name:34} mean    fit {seconds:8.3f} s ({processor:7.2f} of processors)  bound/word {bound:.4f}  held out {held:.4f}  u_mass {u_mass:.4f}  c_npmi {c_npmi:.4f}")
