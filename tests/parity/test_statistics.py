#!/usr/bin/env python3
"""The statistics of skillwatch compare against scipy, numpy and plain Python: McNemar's exact test, calibration error, bootstrap sums on the
same draws (with a Philox of its own), intervals and p-values, CKA and cosines, trends of shares with their tests, intervals and rates; and the same bits for any number of threads."""
import json, math, os, subprocess, sys

TOOL = os.path.join(os.environ.get("SW_TESTS_BIN", "."), "tool-statistics")
try:
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import digamma, expit, polygamma, xlogy
    from scipy.stats import binomtest, f as f_distribution, false_discovery_control, t as student
except ImportError as e:
    print(f"skipped: {e}; set SW_PYTHON to a Python that has scipy")
    sys.exit(77)
if not os.path.exists(TOOL):
    print(f"skipped: {TOOL} is not built; set SW_TESTS_BIN")
    sys.exit(77)

checks = failures = 0


def check(holds, what):
    global checks, failures
    checks += 1
    if not holds:
        failures += 1
        print("FAIL", what)


def near(got, wanted, relative, what):
    check(abs(got - wanted) <= relative * max(abs(wanted), 1e-300), f"{what}: {got!r}, wanted {wanted!r}")


def ask(*requests):
    done = subprocess.run([TOOL], input="".join(json.dumps(r) + "\n" for r in requests), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(requests)
    return lines


def philox(key, stream):
    """The 32-bit numbers of a stream: Philox4x32-10 as Salmon et al. define it."""
    for block in range(1 << 64):
        c = [block & 0xFFFFFFFF, block >> 32, stream & 0xFFFFFFFF, stream >> 32]
        k = [key & 0xFFFFFFFF, key >> 32]
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        yield from c


def draws(seed, stream, n):
    numbers, limit = philox(seed, stream), (1 << 32) // n * n
    return [v % n for _, v in zip(range(n), (v for v in numbers if v < limit))]


def mcnemar(rng):
    pairs = [(0, 0), (0, 1), (1, 0), (5, 5), (0, 30), (3, 17), (17, 3), (1, 1000), (400, 600), (49_500, 50_500), (0, 1000), (1_000_000, 1_002_000)]
    pairs += [tuple(map(int, rng.integers(0, 60, 2))) for _ in range(60)]
    for (b, c), line in zip(pairs, ask(*({"mcnemar": p} for p in pairs))):
        wanted = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
        near(float(line), wanted, 1e-11 if b + c < 2000 else 1e-7, f"McNemar {b}, {c}")


def calibration(rng):
    edges = [[i / 15, 1] for i in range(16)] + [[0.5, 0], [1.0, 0], [0.0, 1]]
    p = rng.random(3000) ** 0.3
    many = [[float(x), int(rng.random() < x * 0.9)] for x in p]
    for data in (edges, many, many[:1], []):
        wanted, rows = 0.0, np.array(data).reshape(-1, 2)
        for m in range(15):
            # the edges are those of the C code: i / 15 times 15, rounded up
            inside = np.clip(np.ceil(rows[:, 0] * 15) - 1, 0, 14) == m
            if inside.any(): wanted += inside.mean() * abs(rows[inside, 1].mean() - rows[inside, 0].mean())
        got = float(ask({"calibration": data})[0])
        check(abs(got - wanted) < 1e-12, f"ECE of {len(data)}: {got}, wanted {wanted}")
    check(abs(float(ask({"calibration": [[0.9, 1]] * 6 + [[0.9, 0]] * 4})[0]) - 0.3) < 1e-12, "0.9 sure, 0.6 right: 0.3")


def bootstrap(rng):
    for examples, columns, resamples, seed, stream in ((1, 1, 3, 0, 0), (7, 3, 5, 1, 0), (600, 18, 4, 2**40 + 3, 5 << 32), (1300, 33, 2, 9, 1)):
        counts = rng.integers(0, 9, (examples, columns))
        if columns == 18: counts[3, 17] = 2**23 - 1  # the most there may be
        request = {"counts": counts.tolist(), "resamples": resamples, "seed": seed, "stream": stream}
        one, four = ask({"bootstrap": {**request, "threads": 1}}, {"bootstrap": {**request, "threads": 4}})
        check(one == four, f"{examples} x {columns}: one thread and four")
        wanted = [counts[draws(seed, stream + b, examples)].sum(axis=0).tolist() for b in range(resamples)]
        check(np.array(json.loads(one)).reshape(resamples, columns).tolist() == wanted, f"{examples} x {columns}: the sums of plain resampling")
    for values in (rng.normal(0.5, 1, 2000), rng.normal(3, 1, 999), np.zeros(100), rng.normal(-4, 1, 101), np.arange(100) % 2):
        low, high, p = json.loads(ask({"interval": values.tolist(), "level": 0.95})[0])
        for got, q in ((low, 0.025), (high, 0.975)):
            check(abs(got - np.quantile(values, q)) < 1e-12, f"quantile {q}: {got}, numpy {np.quantile(values, q)}")
        n = len(values)
        near(p, min(1, 2 * min((values <= 0).sum() + 1, (values >= 0).sum() + 1) / (n + 1)), 1e-12, "bootstrap p")
        check(0 < p <= 1 and (p == 1) == bool((values == 0).all() or values.min() == 0), f"p {p}")


def drift(rng):
    def cka(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    x = rng.standard_normal((50, 37)).astype(np.float32)
    turned = (3 * x @ np.linalg.qr(rng.standard_normal((37, 37)))[0] + 5).astype(np.float32)
    for y, what in ((rng.standard_normal((50, 37)).astype(np.float32), "noise"), (rng.standard_normal((50, 5)).astype(np.float32), "another size"),
                    ((x + 0.3 * rng.standard_normal(x.shape)).astype(np.float32), "near"), (turned, "turned")):
        request = {"x": x.astype(float).tolist(), "y": y.astype(float).tolist()}
        one, four = ask({"cka": {**request, "threads": 1}}, {"cka": {**request, "threads": 4}})
        check(one == four, f"CKA, {what}: one thread and four")
        got, cosine = json.loads(one)
        near(got, cka(x.astype(float), y.astype(float)), 1e-10, f"CKA, {what}")
        if y.shape == x.shape:
            near(cosine, float(x[0].astype(float) @ y[0] / np.linalg.norm(x[0].astype(float)) / np.linalg.norm(y[0].astype(float))), 1e-10, f"cosine, {what}")
        else: check(cosine is None, "no cosine for another size")
    check(json.loads(one)[0] > 1 - 1e-6, "turned, scaled and moved: the same")
    same = {"x": x.astype(float).tolist(), "y": x.astype(float).tolist(), "threads": 2}
    check(json.loads(ask({"cka": same})[0]) == [1.0, 1.0], "equal ones: exactly 1")
    flat = {"x": x.astype(float).tolist(), "y": [[0.5, 0.25]] * 50, "threads": 2}
    check(json.loads(ask({"cka": flat})[0])[0] == 0, "equal rows: 0")


def trends(rng):
    """Against iteratively reweighted least squares in plain numpy, which is how R's glm and statsmodels fit it, and scipy's distributions."""
    def deviance(y, n, p): return 2 * float((xlogy(y, y / n) - xlogy(y, p) + xlogy(n - y, (n - y) / n) - xlogy(n - y, 1 - p)).sum())
    def best_level(y, n, t, b): return brentq(lambda a: float((n * expit(a + b * t)).sum() - y.sum()), -60 - 200 * abs(b), 60 + 200 * abs(b), xtol=1e-14)
    cases = []
    for weeks in (3, 4, 8, 13, 52):
        for slope, scatter, low in ((0, 0, -1), (0.1, 0, -2), (-0.2, 0.5, 0), (0.02, 1, -3), (0.3, 0, -4)):
            t = np.sort(rng.choice(60, weeks, replace=False)).astype(float)
            n = rng.integers(1, 200, weeks)
            p = expit(low + slope * (t - t.mean()) / 3 + scatter * rng.standard_normal(weeks))
            y = rng.binomial(n, p)
            if 0 < y.sum() < n.sum(): cases.append((y, n, t))
    for y in ([0, 0, 0, 9], [0, 0, 4, 10], [10, 3, 0, 0], [10, 10, 10, 8], [0, 1, 0, 10], [1, 0, 0, 0]):  # most are separated: likelier and likelier with the slope
        cases.append((np.array(y), np.full(4, 10), np.arange(4.0)))
    fitted = without_end = 0
    priors = [(0, 1), (7.5, 1.3), (20, 0.8)]
    questions = ({"trend": {"count": y.tolist(), "total": n.tolist(), "time": t.tolist(), "prior": priors[i % 3]}, "level": 0.95} for i, (y, n, t) in enumerate(cases))
    for i, ((y, n, t), line) in enumerate(zip(cases, ask(*questions))):
        weeks, slope, low, high, p, phi, first, last = json.loads(line)
        x, beta = np.c_[np.ones(len(t)), t - t.mean()], np.array([np.log(y.sum() / (n.sum() - y.sum())), 0.0])
        separated = True
        for _ in range(100):
            mu = expit(x @ beta)
            w = n * mu * (1 - mu)
            information = x.T @ (x * w[:, None])
            if np.linalg.cond(information) > 1e12: break
            beta = beta + np.linalg.solve(information, x.T @ (y - n * mu))
        else: separated = False
        if separated:  # as steep as the engine takes for endless
            half, centre = (t[-1] - t[0]) / 2, (t[0] + t[-1]) / 2
            steep = [expit(best_level(y, n, t - centre, b) + b * (t - centre)) for b in (-60 / half, 60 / half)]
            up = deviance(y, n, steep[1]) < deviance(y, n, steep[0])
            check(slope is None and (high if up else low) is None, f"{y} of {n}: a slope without end, {'up' if up else 'down'}: {slope}, {low}, {high}")
            check(low is None or high is None or low < high, "the interval's order")
            without_end += 1
        fitted += not separated
        mu, freedom = steep[int(up)] if separated else expit(x @ beta), len(t) - 2
        variance = n * mu * (1 - mu)
        wanted_phi = float(((y - n * mu)[variance > 0] ** 2 / variance[variance > 0]).sum() / freedom)
        d0, s0 = priors[i % 3]
        used, least = max(1, (d0 * s0 + freedom * wanted_phi) / (d0 + freedom)), deviance(y, n, mu)
        freedom += d0
        if not separated: near(slope, beta[1], 1e-7 + 1e-10 / max(abs(beta[1]), 1e-9), f"slope, {len(t)} weeks")
        check(abs(phi - wanted_phi) <= 1e-6 * max(wanted_phi, 1e-3), f"dispersion {phi}, wanted {wanted_phi}")
        check(abs(first - mu[0]) <= 1e-7 * mu[0] + 1e-12 and abs(last - mu[-1]) <= 1e-7 * mu[-1] + 1e-12, f"first and last share {first}, {last}, wanted {mu[0]}, {mu[-1]}")
        statistic = max(0, (deviance(y, n, np.full(len(t), y.sum() / n.sum())) - least) / used)
        check(abs(p - f_distribution.sf(statistic, 1, freedom)) <= 1e-6 * max(p, 1e-12) + 1e-9, f"p {p}, scipy {f_distribution.sf(statistic, 1, freedom)}")
        check(weeks == len(t), "weeks")
        limit = least + used * f_distribution.ppf(0.95, 1, freedom)
        for end in (low, high):  # on the interval's ends the test is just passed
            if end is not None:
                a = best_level(y, n, t - t.mean(), end)
                check(abs(deviance(y, n, expit(a + end * (t - t.mean()))) - limit) < 1e-5 * max(1, limit), f"interval's end {end}: {deviance(y, n, expit(a + end * (t - t.mean())))}, wanted {limit}")
        check(separated or ((low is None or low < slope) and (high is None or high > slope)), "the interval holds the slope")
        check((p < 0.05) == ((low is not None and low > 0) or (high is not None and high < 0)), f"interval {low}..{high} and p {p} say the same")
    check(fitted >= 15 and without_end >= 4, f"{fitted} trends fitted, {without_end} without end")
    one = lambda count, total, level=0.95: json.loads(ask({"trend": {"count": count, "total": total, "time": list(range(len(count)))}, "level": level})[0])
    late = one([0, 0, 0, 9], [10, 10, 10, 10])
    check(late[1] is None and late[2] > 0 and late[3] is None and late[4] < 0.05, f"named in the last week only: it rises, without a bound: {late}")
    early = one([9, 0, 0, 0], [10, 10, 10, 10])
    check(early[1] is None and early[2] is None and abs(early[3] + late[2]) < 1e-9 and abs(early[4] - late[4]) < 1e-12, f"the mirror image: {early}")
    check(one([0, 0, 0], [5, 5, 5]) is None and one([5, 5, 5], [5, 5, 5]) is None, "in none or in all: no trend")
    check(one([1, 2], [5, 5]) is None and one([1, 0, 2, 0], [5, 0, 5, 0]) is None, "two weeks: no trend")
    check(one([1, 0, 2, 3], [5, 0, 5, 5])[0] == 3, "weeks without postings do not count")
    for count, total, level in ((0, 10, 0.95), (10, 10, 0.95), (3, 10, 0.95), (1, 1, 0.9), (500, 20000, 0.99), (0, 0, 0.95)):
        got = json.loads(ask({"wilson": [count, total, level]})[0])
        wanted = binomtest(count, total).proportion_ci(level, "wilson") if total else (0, 1)
        check(np.allclose(got, wanted, atol=1e-12), f"Wilson {count} of {total}: {got}, scipy {tuple(wanted)}")
    for x in (0.0, 1e-3, 0.5, 1.0, 2.0, 5.0, 40.0, 1e4):
        for freedom in (1, 2, 3, 6, 30, 1000):
            tail, back = json.loads(ask({"student": [x, freedom]})[0])
            near(tail, 2 * student.sf(x, freedom), 1e-9, f"Student's tail of {x}, {freedom}")
            if 0 < tail < 1: near(back, x, 1e-6, f"and back: {x}, {freedom}")
    for own, scale, freedom, count in ((8, 1.5, 6, 400), (3, 1, 11, 80), (None, 1.2, 6, 300), (5, 2, 1, 500), (None, 1, 3, 9)):
        true = scale * own / rng.chisquare(own, count) if own else np.full(count, scale)
        phi = true * rng.chisquare(freedom, count) / freedom
        if count == 80: phi[3] = 0
        got = json.loads(ask({"prior": phi.tolist(), "freedom": freedom})[0])
        e = np.log(np.maximum(phi, 1e-5)) - digamma(freedom / 2) + np.log(freedom / 2)
        more = e.var(ddof=1) - polygamma(1, freedom / 2)
        d0 = 2 * brentq(lambda x: polygamma(1, x) - more, 1e-6, 1e9) if more > 0 else np.inf
        s0 = np.exp(e.mean() + digamma(d0 / 2) - np.log(d0 / 2)) if more > 0 else np.exp(e.mean())
        wanted = (min(d0, 4 * freedom), s0) if count >= 10 else (0, 1)
        check(np.allclose(got, wanted, rtol=1e-6), f"what dispersions have in common: {got}, wanted {wanted}")
    for total, skills, phi, lag in ((np.full(12, 200), 200, 2.5, 0.05), (rng.integers(0, 90, 20), 40, 4, 0.3), (rng.integers(1, 90, 8), 12, 1.3, 0.1), (np.full(9, 50), 9, 3, 0.3), (np.full(9, 50), 90, 0.9, 0.3), (np.full(9, 50), 90, 3, -0.9)):
        weeks = np.cumsum(rng.integers(1, 3, len(total))).astype(float)
        got = json.loads(ask({"serial": {"total": total.tolist(), "time": weeks.tolist(), "skills": skills}, "dispersions": skills * phi, "lagged": lag * skills * phi * ((total > 0).sum() - 2)})[0])
        n, t = total[total > 0], weeks[total > 0]
        s, d, wanted = np.sqrt(n / n.mean()), len(n) - 2, (0, 1)
        u = np.linalg.qr(np.c_[s, s * t])[0]
        h, near_by = np.eye(len(n)) - u @ u.T, np.eye(len(n), k=1)
        slope = s * (t - (n * t).sum() / n.sum())
        for q in np.arange(96) / 100 if phi > 1 else ():
            a = np.outer(s, s) * q ** np.abs(np.subtract.outer(t, t))
            c = np.eye(len(n)) + (phi - 1) * d / np.trace(h @ a @ h) * a
            left = h @ c @ h
            expected = (left * near_by).sum() / np.trace(left)
            if q == 0: target = expected + (lag - expected) * skills * d / (skills * d + 10)
            elif expected > target: break
            wanted = (q, max(1, slope @ c @ slope / (slope @ slope) / (np.trace(left) / d)))
        check(np.allclose(got, wanted, rtol=1e-8), f"weeks that are alike: {got}, wanted {wanted}")
    for p in (rng.random(50) ** 3, np.array([0.04]), np.array([0.01, 0.01, 1, 0.5]), np.zeros(3)):
        check(np.allclose(json.loads(ask({"discovery": p.tolist()})[0]), false_discovery_control(p), atol=1e-15), f"false discovery rates of {len(p)}")


def main():
    seed = int(os.environ.get("SW_TEST_SEED", "20261122"))
    rng = np.random.default_rng(seed)
    for part in (mcnemar, calibration, bootstrap, drift, trends): part(rng)
    print(f"seed {seed}: {checks} checks, {failures} failed")
    sys.exit(1 if failures or checks < 100 else 0)


if __name__ == "__main__":
    main()
