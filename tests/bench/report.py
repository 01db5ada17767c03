#!/usr/bin/env python3
"""How long skillwatch report takes, after tagging:
    report.py DATA minilm.h5 [tagger.h5]   three months of postings (DATA/in-demand/job-postings): a small tagger is trained, if none is given; the postings
                                 are tagged, embedded and placed on maps in two and three dimensions; then the report, with all of it
    report.py --points N         a made-up map of N points with titles, clusters and dates, and tags of as many postings: the report, then the page in
                                 a browser: seconds until its charts are drawn, and of a search and a move of the date slider
SW_BIN names the programs' folder."""
import csv, datetime, glob, json, os, sys, tempfile, time

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from browser import Browser
from tiny import SAMPLES, program


def timed(verb, *arguments):
    started = time.monotonic()
    done = program(verb, *arguments, timeout=3600)
    seconds = time.monotonic() - started
    if done.returncode: sys.exit(f"{verb}: {done.stderr.strip().splitlines()[-1]}")
    print(f"{seconds:8.1f} s  skillwatch {verb} {arguments[0]}", flush=True)
    return seconds


def open_page(folder):
    with Browser(1280, 900, timeout=120) as b:
        started = time.monotonic()
        b.open_file(os.path.join(folder, "index.html"))
        b.wait("document.documentElement.dataset.ready === '1' && document.querySelector('#map-chart .gl-canvas')")
        b.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        print(f"{time.monotonic() - started:8.1f} s  the page, {os.path.getsize(os.path.join(folder, 'index.html')) / 1e6:.1f} MB, is drawn (software rendering)")
        for what, change in (("a search", "s => { s.value = 'title 7'; s.dispatchEvent(new Event('input')) })(document.querySelector('#map-search'))"),
                             ("the slider", "s => { s.value = 5; s.dispatchEvent(new Event('input')) })(document.querySelector('#to'))")):
            text = b.text("#map-count")
            started = time.monotonic()
            b.evaluate("(" + change)
            b.wait(f"document.querySelector('#map-count').textContent !== {json.dumps(text)}")
            b.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
            print(f"{time.monotonic() - started:8.2f} s  {what}")
        if b.errors or b.strangers(): sys.exit(f"errors {b.errors}, requests {b.strangers()}")


def made_up(work, points):
    rng = np.random.default_rng(1)
    at = lambda name: os.path.join(work, name)
    days = [(datetime.date(2025, 1, 6) + datetime.timedelta(days=int(d))).isoformat() for d in np.sort(rng.integers(0, 90, points))]
    cluster = rng.integers(0, 12, points)
    centres = 8 * rng.normal(size=(12, 3))
    place = centres[cluster] + rng.normal(size=(points, 3))
    skills = [f"skill {i}" for i in range(2000)]
    with open(at("tags.jsonl"), "w") as tags, open(at("titles.csv"), "w") as titles, open(at("map.csv"), "w") as flat, open(at("map3.csv"), "w") as deep, open(at("clusters.csv"), "w") as of:
        titles.write("id,title\n"), flat.write("id,x,y\n"), deep.write("id,x,y,z\n"), of.write("id,cluster,name\n")
        for i in range(points):
            picked = np.unique((2000 * rng.random(12) ** 2).astype(int))
            tags.write(json.dumps({"id": str(i), "date": days[i], "spans": [{"text": skills[k], "layer": "skill" if k % 4 else "knowledge"} for k in picked]}) + "\n")
            x, y, z = place[i]
            titles.write(f"{i},Made-up title {i} of a posting\n"), flat.write(f"{i},{x},{y}\n"), deep.write(f"{i},{x},{y},{z}\n"), of.write(f"{i},{cluster[i]},cluster {cluster[i]}\n")
    timed("report", "--tags", at("tags.jsonl"), "--map", at("map.csv"), "--map-3d", at("map3.csv"), "--clusters", at("clusters.csv"), "--titles", at("titles.csv"), "-o", at("report"))
    open_page(at("report"))


def three_months(work, data, base, tagger=None):
    at = lambda name: os.path.join(work, name)
    postings = os.path.join(data, "in-demand/job-postings")
    with open(at("titles.csv"), "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["id", "date", "title"])
        for path in sorted(glob.glob(postings + "/*/*.txt")):
            date, name = path.split("/")[-2:]
            with open(path, encoding="utf-8") as text: lines = [line.strip() for line in text if line.strip()]
            out.writerow([f"{date}/{name[:-4]}", date, " ".join(lines[:3])[:120]])
    if not tagger:
        tagger = at("tagger.h5")
        timed("train", "ner", "--base", base, "--data", os.path.join(SAMPLES, "labels/train.jsonl"), "--dev", os.path.join(SAMPLES, "labels/dev.jsonl"), "--epochs", 4, "--lr", 1.5e-4,
              "--batch-tokens", 768, "-o", tagger, "--quiet")
    timed("infer", "tag", "-m", tagger, postings, "-o", at("tags.jsonl"), "--quiet")
    timed("infer", "embed", "-m", base, postings, "-o", at("vectors.h5"), "--quiet")
    timed("infer", "map", at("vectors.h5"), "-o", at("map.h5"), "--quiet")
    timed("infer", "map", at("vectors.h5"), "--components", 3, "-o", at("map3.h5"), "--quiet")
    timed("infer", "cluster", at("map.h5"), "-k", 6, "--texts", at("titles.csv"), "--column", "title", "-o", at("clusters.csv"), "--quiet")
    timed("train", "topics", "--data", postings, "--topics", 8, "-o", at("topics.h5"), "--quiet")
    timed("infer", "topics", "-m", at("topics.h5"), postings, "-o", at("topics.jsonl"), "--quiet")
    seconds = timed("report", "--tags", at("tags.jsonl"), "--map", at("map.h5"), "--map-3d", at("map3.h5"), "--clusters", at("clusters.csv"), "--titles", at("titles.csv"), "--topics",
                    at("topics.h5"), "--document-topics", at("topics.jsonl"), "--checkpoint", tagger, "--title", "Three months of postings", "-o", at("report"))
    open_page(at("report"))
    if seconds >= 60: sys.exit("the report took a minute or more")


def main():
    arguments = sys.argv[1:]
    if len(arguments) not in (2, 3): sys.exit(__doc__)
    keep = os.environ.get("SW_KEEP")  # a folder that stays
    with tempfile.TemporaryDirectory() as work:
        if keep: os.makedirs(keep, exist_ok=True)
        if arguments[0] == "--points": made_up(keep or work, int(arguments[1]))
        else: three_months(keep or work, *arguments)


if __name__ == "__main__": main()
