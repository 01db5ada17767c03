#!/usr/bin/env python3
"""How often skillwatch report is wrong about trends: made-up postings whose skills do not rise or fall (or do so by a known slope), reported again and again;
the share of tests with p below 0.05 and 0.01, of 95 % intervals that hold the slope, and the mean share of false ones among what is said to rise or fall.
    trend_rates.py [REPORTS]    of 150 skills for each row (default 10); SW_BIN names the programs' folder"""
import csv, datetime, json, os, sys, tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from tiny import program

# what it is, weeks, skills, log odds scatter by so much, of which from a week to the next so much stays, slope of every tenth skill
ROWS = (("chance only, 8 weeks", 8, 150, 0, 0, 0), ("chance only, 4 weeks", 4, 150, 0, 0, 0), ("weeks scatter by 0.3, 12 weeks", 12, 150, 0.3, 0, 0),
        ("the same, 5 skills", 12, 5, 0.3, 0, 0), ("weeks are alike: 0.25, of which 0.5 stays, 12 weeks", 12, 150, 0.25, 0.5, 0), ("0.7 stays, 26 weeks", 26, 150, 0.25, 0.7, 0),
        ("the same, 5 skills", 26, 5, 0.25, 0.7, 0), ("0.9 stays, 12 weeks: a drift", 12, 150, 0.25, 0.9, 0), ("weeks scatter by 0.2, a tenth rises by 0.2 a week, 12 weeks", 12, 150, 0.2, 0, 0.2))
POSTINGS = 200  # a week


def trial(rng, folder, weeks, skills, scatter, stays, slope):
    wave = rng.normal(size=(weeks, skills))
    for w in range(1, weeks): wave[w] = stays * wave[w - 1] + np.sqrt(1 - stays * stays) * wave[w]
    slopes = np.where(np.arange(skills) % 10 == 0, slope, 0)
    odds = rng.uniform(-3, 0, skills) + (np.arange(weeks) - (weeks - 1) / 2)[:, None] * slopes + scatter * wave
    with open(os.path.join(folder, "tags.jsonl"), "w") as f:
        for w in range(weeks):
            date = (datetime.date(2026, 1, 5) + datetime.timedelta(weeks=w)).isoformat()
            for named in rng.random((POSTINGS, skills)) < 1 / (1 + np.exp(-odds[w])):
                f.write(json.dumps({"date": date, "spans": [{"text": f"s{k}", "layer": "k"} for k in np.flatnonzero(named)]}) + "\n")
    done = program("report", "--tags", f.name, "-o", os.path.join(folder, "report"), "--force", "-q")
    if done.returncode: sys.exit(done.stderr)
    with open(os.path.join(folder, "report/skills.csv")) as f:
        for r in csv.DictReader(f):
            if r["p"]: yield float(r["p"]), slopes[int(r["skill"][1:])], float(r["slope_low"]), float(r["slope_high"]), r["direction"]


def main():
    reports = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rng = np.random.default_rng(1)
    print("| postings | p below 0.05 | p below 0.01 | intervals that hold the slope | false among those said to rise or fall |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, weeks, skills, scatter, stays, slope in ROWS:
            trials = [list(trial(rng, folder, weeks, skills, scatter, stays, slope)) for _ in range(reports * (1 if skills > 20 else 10))]
            every = [t for tests in trials for t in tests]
            flat = np.array([t[0] for t in every if t[1] == 0])
            wrong = [sum(t[1] == 0 for t in said) / len(said) if said else 0 for said in ([t for t in tests if t[4]] for tests in trials)]
            print(f"| {name} | {(flat < 0.05).mean():.3f} | {(flat < 0.01).mean():.3f} | {np.mean([t[2] <= t[1] <= t[3] for t in every]):.3f} | {np.mean(wrong):.3f} |", flush=True)


if __name__ == "__main__": main()
