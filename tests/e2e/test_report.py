"""skillwatch report: its tables are what Python counts from the same tags, its page works in a browser and asks nobody for anything, hostile texts
stay texts, and what cannot be used is refused with one clear line or set aside."""
import csv, datetime, glob, json, math, os, random, re, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from browser import Browser, find
from tiny import SAMPLES, Checks, program, spare_fontconfig

check = Checks()
suppressions = spare_fontconfig()
HOSTILE = """</script><script>window.hacked = 1</script><img src=x onerror="window.hacked=1"><!-- '&amp; {{DATA}}"""
SKILLS = {"knowledge": ["Python", "SQL", "Rust", "Excel", "welding", "nursing", "Kubernetes", "machine learning", "English", "German"],
          "skill": ["communicate", "lead", "plan", "teach", "repair", "sell", "support", "analyse"]}


def rows(*path):
    with open(os.path.join(*path), newline="", encoding="utf-8") as f: return list(csv.DictReader(f))


def write_csv(path, head, body):
    with open(path, "w", newline="", encoding="utf-8") as f: csv.writer(f).writerows([head, *body])
    return path


def tag_samples():
    """A posting a row, tagged by looking for words; one skill that rises for sure, one that falls, one that is in every posting and hostile."""
    out, folders = [], sorted(glob.glob(os.path.join(SAMPLES, "job-postings/*")), key=lambda p: p.split("/")[-1].split("-")[::-1])
    for week, folder in enumerate(folders):
        date = os.path.basename(folder)
        for n, path in enumerate(sorted(glob.glob(folder + "/*.txt"))):
            with open(path, encoding="utf-8") as f: text = f.read()
            spans = [{"text": text[m.start():m.end()], "label": layer, "layer": layer} for layer, words in SKILLS.items() for w in words
                     for m in re.finditer(rf"\b{re.escape(w)}\b", text, re.I)]
            if n < 2 * week: spans.append({"text": "Rising\tthing", "label": "K", "layer": "knowledge"})
            if n >= 2 * week: spans.append({"text": "Falling thing", "label": "K", "layer": "knowledge"})
            if n % 3: spans.append({"text": HOSTILE, "label": "K", "layer": "knowledge"})
            spans += [{"text": "- !", "label": "K", "layer": "knowledge"}]
            out.append({"id": f"{date}/{os.path.basename(path)[:-4]}", "date": date, "spans": spans})
    return out


def monday(date):
    day = datetime.datetime.strptime(date, "%d-%m-%Y").date()
    return (day - datetime.timedelta(days=day.weekday())).isoformat()


def wilson(y, n, z=1.959963984540054):
    middle, half = (y + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(y * (n - y) / n + z * z / 4)
    return max(0, middle - half), min(1, middle + half)


def count(tags):
    postings, named = {}, {}
    for posting in tags:
        week = monday(posting["date"])
        postings[week] = postings.get(week, 0) + 1
        for layer, name in {(s["layer"], " ".join(s["text"].split()).casefold()) for s in posting["spans"] if any(map(str.isalnum, s["text"]))}:
            of = named.setdefault((layer, name), {})
            of[week] = of.get(week, 0) + 1
    return postings, named


def tables(tags, folder):
    postings, named = count(tags)
    check([(r["week"], int(r["postings"])) for r in rows(folder, "weeks.csv")] == sorted(postings.items()), "weeks.csv")
    skills = {(r["layer"], r["skill"].casefold()): r for r in rows(folder, "skills.csv")}
    wanted = {k: v for k, v in named.items() if sum(v.values()) >= 5}
    check(skills.keys() == wanted.keys() and len(wanted) > 8, f"skills.csv: {skills.keys() ^ wanted.keys()}")
    for key, r in skills.items(): check(int(r["postings"]) == sum(wanted[key].values()) and abs(float(r["share"]) - int(r["postings"]) / len(tags)) < 1e-9, f"{key}: {r}")
    by_week = rows(folder, "skills-by-week.csv")
    check(len(by_week) == len(wanted) * len(postings), "every skill and week")
    for r in by_week:
        y, n = wanted[r["layer"], r["skill"].casefold()].get(r["week"], 0), postings[r["week"]]
        got = [float(r[k]) for k in ("named", "postings", "share", "low", "high")]
        check(max(abs(a - b) for a, b in zip(got, (y, n, y / n, *wilson(y, n)))) < 1e-9, f"{r}: wanted {y} of {n}")
    rise, fall = skills["knowledge", "rising thing"], skills["knowledge", "falling thing"]
    check(rise["direction"] == "rises" and fall["direction"] == "falls" and float(rise["q"]) < 0.01, f"directions: {rise}, {fall}")
    check(abs(float(rise["slope"]) + float(fall["slope"])) < 1e-6, "mirror images")  # a posting has the one or the other
    check(float(rise["slope_low"]) > 0 and float(rise["slope_low"]) < float(rise["slope"]) < float(rise["slope_high"]), f"the interval: {rise}")
    p = sorted((float(r["p"]), float(r["q"])) for r in skills.values() if r["p"])  # q is Benjamini and Hochberg's over both layers
    q = [min(x[0] * len(p) / (j + 1) for j, x in enumerate(p) if j >= i) for i in range(len(p))]
    check(len(p) > 5 and {k[0] for k, r in skills.items() if r["p"]} == set(SKILLS) and all(abs(a[1] - min(1, b)) < 1e-8 for a, b in zip(p, q)), "false discovery rates")
    return skills


# texts of charts that are cut off by their chart's edge, and legends that lie on an axis's numbers
CUT = """[...document.querySelectorAll('.js-plotly-plot')].flatMap(c => { const box = c.getBoundingClientRect(), out = [], at = e => e.getBoundingClientRect();
  if (!box.width) return out;
  for (const t of c.querySelectorAll('.xtick text, .ytick text, .g-xtitle text, .g-ytitle text, .legendtext')) if (at(t).width && (at(t).left < box.left - 1 || at(t).right > box.right + 1)) out.push(c.id + ': ' + t.textContent);
  const legend = c.querySelector('.legend');
  if (legend && c.id !== 'map-chart') for (const t of c.querySelectorAll('.xtick text')) if (at(t).top < at(legend).bottom && at(t).bottom > at(legend).top) out.push(c.id + ': legend on ' + t.textContent);
  return out; })"""


def page(folder, points):
    with Browser(1200, 900) as b:
        b.open_file(os.path.join(folder, "index.html"))
        b.wait("document.documentElement.dataset.ready === '1'", 60)
        check(b.evaluate("document.title") == "Report " + HOSTILE and b.evaluate("typeof window.hacked") == "undefined", "hostile texts are texts")
        words = b.text("#words")
        check("Rising thing" in words and "Falling thing" in words and "8 weeks with postings" in words and HOSTILE in b.text("#skill-table"), f"words: {words[:300]}")
        check(b.evaluate("document.querySelectorAll('#words img, #words script, table img').length") == 0, "no element of theirs")
        b.wait("document.querySelectorAll('#trend-chart .xerror').length > 2 && document.querySelectorAll('#time-chart .lines').length > 1")
        # the map: hover
        b.wait("document.querySelector('#map-chart .gl-canvas') && document.querySelector('#map-chart')._fullData.length > 1")
        b.wait("document.querySelectorAll('#map-chart .annotation').length > 1")
        check(b.text("#map-count").startswith(f"{points} of {points} points"), f"points: {b.text('#map-count')}")
        b.evaluate("document.querySelector('#map-chart').scrollIntoView({block: 'center', behavior: 'instant'})")
        x, y = b.evaluate("""(c => { const t = c._fullData[0], l = c._fullLayout, r = c.getBoundingClientRect();
            return [r.left + l._size.l + l.xaxis.d2p(t.x[0]), r.top + l._size.t + l.yaxis.d2p(t.y[0])] })(document.querySelector('#map-chart'))""")
        b.mouse("mouseMoved", x - 3, y), b.mouse("mouseMoved", x, y)
        label = b.wait("(t => t && t.textContent)(document.querySelector('#map-chart .hoverlayer .hovertext'))")
        check("Title" in label and HOSTILE[:20] in label and "week" in label, f"hover: {label}")
        # search
        b.type("#map-search", "title 127")
        b.wait("/, 1 found/.test(document.querySelector('#map-count').textContent)")
        check(b.evaluate("document.querySelectorAll('#found button').length") == 1, "one is found")
        b.click("#found button")
        b.wait("[...document.querySelectorAll('#map-chart .annotation')].some(a => a.textContent.includes('Title 127 '))")
        b.type("#map-search", "no such title")
        b.wait("/, 0 found/.test(document.querySelector('#map-count').textContent)")
        b.type("#map-search", "")
        b.wait("!/found/.test(document.querySelector('#map-count').textContent)")
        # the sliders, by keyboard
        b.evaluate("document.querySelector('#to').focus()")
        b.press("Home")
        b.wait(f"document.querySelector('#map-count').textContent.startsWith('{points // 8} of')")
        b.press("ArrowRight")
        b.wait(f"document.querySelector('#map-count').textContent.startsWith('{points // 4} of')")
        check(b.evaluate("document.querySelector('#to').getAttribute('aria-valuetext')").startswith("week of 2026-01-12"), "the slider says its week")
        b.press("End")
        # three dimensions
        b.click("#dims button[data-dims='3']")
        b.wait("document.querySelector('#map-chart')._fullLayout.scene && document.querySelector('#map-chart')._fullData[0].type === 'scatter3d'")
        b.click("#dims button[data-dims='2']")
        # the table
        b.type("#skill-search", "falling")
        b.wait("document.querySelectorAll('#skill-table tbody tr').length === 1")
        b.type("#skill-search", "")
        lines = b.evaluate("document.querySelector('#time-chart').data.length")
        b.click("#clear")
        b.wait(f"document.querySelector('#time-chart').data.length < {lines}")
        b.click("#skill-table th:first-child button")
        b.wait("document.querySelector('#skill-table th').getAttribute('aria-sort') === 'ascending'")
        nameless = [n for n in b.accessible() if n["role"] in ("textbox", "searchbox", "slider", "combobox", "button", "checkbox", "link") and not n["name"].strip()]
        check(not nameless, f"controls without a name: {nameless[:3]}")
        b.dark()
        b.wait("getComputedStyle(document.body).backgroundColor === 'rgb(20, 23, 28)'")
        check(b.evaluate("[...document.querySelectorAll('#nav a')].map(a => a.textContent)") ==
              ["In short", "Rising and falling", "Skills over time", "Map", "Topics", "Occupations", "Model quality", "Labels"], "all sections")
        cut = b.evaluate(CUT)
        check(not cut, f"cut off at 1200 pixels: {cut[:3]}")
        b.resize(360, 800)
        b.wait("document.documentElement.scrollWidth <= 362 && document.querySelector('#trend-chart .g-xtitle').textContent === 'odds a week'")
        cut = b.evaluate(CUT)
        check(not cut, f"cut off at 360 pixels: {cut[:3]}")
        check(not b.errors and not b.strangers() and b.evaluate("typeof window.hacked") == "undefined", f"errors {b.errors}, requests {b.strangers()}")


def page_without_gl(folder, bare):
    """5,000 points in 60 clusters and without one, dated by their titles, where a browser has no WebGL; then `bare`, a map alone."""
    with Browser(1000, 800, options=("--disable-3d-apis",)) as b:
        b.open_file(os.path.join(folder, "index.html"))
        b.wait("document.documentElement.dataset.ready === '1' && document.querySelectorAll('#map-chart .scatterlayer .point').length > 2000", 60)
        check("no WebGL: one of 2 points" in b.text("#map-note") and b.text("#map-count") == "5,000 of 5,000 points", f"without WebGL: {b.text('#map-note')}")
        names = b.evaluate("document.querySelector('#map-chart').data.map(t => [t.name, t.marker.symbol])")
        check(len(names) == 50 and names[48][0] == "12 others" and names[49] == ["no cluster", "x"] and "x" not in [n[1] for n in names[:49]], f"traces: {names[45:]}")
        check(not b.evaluate("document.querySelector('#dates').hidden") and b.text("#range") == "weeks of 2025-12-01 to 2026-01-05", "a slider without tags")
        b.evaluate("document.querySelector('#from').focus()")
        b.press("End")
        b.wait("document.querySelector('#map-count').textContent.startsWith('833 of')")
        b.evaluate("document.querySelector('#to').focus()")
        b.press("Home")
        b.wait("document.querySelector('#map-count').textContent.startsWith('0 of')")
        check(b.evaluate("document.querySelectorAll('#map-chart .legend .traces').length") >= 48, "a map without points keeps its legend")
        b.click("#dims button[data-dims='3']")
        b.wait("document.querySelector('#map-chart').hidden && document.querySelector('#map-note').textContent.includes('three dimensions cannot')")
        b.click("#dims button[data-dims='2']")
        b.press("End")
        b.evaluate("document.querySelector('#to').value = document.querySelector('#to').max, document.querySelector('#to').dispatchEvent(new Event('input'))")
        b.wait("!document.querySelector('#map-chart').hidden && document.querySelectorAll('#map-chart .scatterlayer .point').length > 300")
        b.open_file(os.path.join(bare, "index.html"))
        b.wait("document.documentElement.dataset.ready === '1' && document.querySelectorAll('#map-chart .scatterlayer .point').length > 10", 60)
        check(b.evaluate("document.querySelector('#words').hidden && document.querySelectorAll('#nav a').length === 1"), "nothing in short without tags")
        check(not b.errors and not b.strangers(), f"without WebGL: {b.errors}")


with tempfile.TemporaryDirectory() as tmp:
    at = lambda name: os.path.join(tmp, name)
    report = lambda *a: program("report", *a)
    def write(name, *lines):
        with open(at(name), "w", encoding="utf-8") as f: f.writelines(l + "\n" for l in lines)
        return at(name)
    tags = tag_samples()
    ids = [t["id"] for t in tags]
    lines = [json.dumps(t) for t in tags]
    undated = json.dumps({"id": "u", "date": "", "spans": [{"text": "Python", "layer": "knowledge"}]})
    write("tags.jsonl", *lines[:60], "{broken", lines[3], json.dumps({"id": 3}))
    write("more.jsonl", *lines[60:])
    n = len(ids)
    map2 = write_csv(at("map.csv"), ["id", "x", "y"], [[d, (i * 37) % 101, (i * 53) % 89] for i, d in enumerate(ids)])
    map3 = write_csv(at("map3.csv"), ["id", "x", "y", "z"], [[d, i % 11, i % 7, i % 5] for i, d in enumerate(ids)])
    clusters = write_csv(at("clusters.csv"), ["id", "cluster", "name", "distance"], [[d, i % 3, ["software", HOSTILE, "care"][i % 3], 1] for i, d in enumerate(ids)])
    titles = write_csv(at("titles.csv"), ["id", "title"], [[d, f"Title {i} {HOSTILE}"] for i, d in enumerate(ids)])
    top = write_csv(at("top.csv"), ["id", "date", "rank", "label", "probability"], [[d, "", r, f"Job {(i + r) % 4} {HOSTILE}", 0.5] for i, d in enumerate(ids) for r in (1, 2)])
    write("labels.jsonl", *(json.dumps({"text": "Know Rust", "spans": [{"start": 5, "end": 9, "label": "K"}], "source": f"{d}#1"}) for d in ids[:40]))
    write("bill.json", json.dumps({"cost": 1.25, "tokens_in": 1000, "tokens_out": 50, "date": "2026-01-07"}))
    # models of topics and of labels
    labelled = write_csv(at("labelled.csv"), ["text", "cook", "build"], [[f"{'soup and salad' if i % 2 else 'bricks and mortar'} {i % 7}", i % 2, 1 - i % 2] for i in range(60)])
    for made in (program("train", "topics", "--data", os.path.join(SAMPLES, "job-postings"), "--topics", 4, "--passes", 2, "-o", at("topics.h5"), "-q"),
                 program("infer", "topics", "-m", at("topics.h5"), os.path.join(SAMPLES, "job-postings"), "-o", at("topics.jsonl"), "-q"),
                 program("train", "multilabel", "--data", labelled, "--column", "text", "--holdout-every", 5, "--epochs", 1, "-o", at("labels.h5"), "-q")):
        check(made.returncode == 0, made.stderr)
    everything = ["--topics", at("topics.h5"), "--document-topics", at("topics.jsonl"), "--checkpoint", at("labels.h5"), "--checkpoint", at("topics.h5"), "--map", map2, "--map-3d", map3, "--clusters", clusters, "--titles", titles, "--occupations", top, "--labels", at("labels.jsonl"), "--labels", at("bill.json"),
                  "--title", "Report " + HOSTILE, "--min-postings", 5]
    done = report("--tags", at("tags.jsonl"), "--tags", at("more.jsonl"), *everything, "-o", at("out"))
    check(done.returncode == 0 and done.stdout == "" and f"{n} postings in 8 weeks, 3 rows set aside" in done.stderr, done.stderr)
    if done.returncode == 0:
        tables(tags, at("out"))
        check([json.loads(l)["line"] for l in open(at("out/rejected.jsonl"))] == [61, 62, 63], "what was set aside")
        check([(r["id"], float(r["x"]), r["cluster"], r["first_week"]) for r in rows(at("out"), "map.csv")][:2] == [(ids[0], 0, "software", "2026-01-05"), (ids[1], 37, HOSTILE, "2026-01-05")], "map.csv")
        check(len(rows(at("out"), "map-3d.csv")) == n, "map-3d.csv")
        check({r["occupation"]: int(r["postings"]) for r in rows(at("out"), "occupations.csv")} == {f"Job {k} {HOSTILE}": n // 4 for k in range(4)}, "occupations.csv: the best of each posting")
        documents = [json.loads(l) for l in open(at("topics.jsonl"))]
        mean = lambda k, of: sum(t["probability"] for d in of for t in d["topics"] if t["topic"] == k) / len(of)
        check(all(abs(float(r["share"]) - mean(int(r["topic"]), documents)) < 1e-6 and len(r["words"].split()) == 10 for r in rows(at("out"), "topics.csv")), "topics.csv")
        check(len(rows(at("out"), "topics-by-week.csv")) == 32 and all(abs(float(r["share"]) - mean(int(r["topic"]), [d for d in documents if monday(d["date"]) == r["week"]])) < 1e-6
                                                                       for r in rows(at("out"), "topics-by-week.csv")), "topics-by-week.csv")
        check(sorted((r["kind"], r["file"].split("/")[-1], bool(r["score"])) for r in rows(at("out"), "quality.csv")) == [("multilabel", "labels.h5", True), ("topics", "topics.h5", False)], f"quality.csv: {rows(at('out'), 'quality.csv')}")
        costs = rows(at("out"), "labels.csv")
        check(costs[-1]["week"] == "" and costs[-1]["sentences"] == "40" and costs[0]["cost"] == "1.25" and costs[0]["sentences"] == "16", f"labels.csv: {costs}")
        with open(at("out/index.html"), encoding="utf-8") as f: html = f.read()
        data = html[html.index('id="data">') + 10:]
        data = data[:data.index("</script>")]
        check("<" not in data and HOSTILE not in html and json.loads(data)["skills"], "no tag of a posting's in the page")
        check(all(os.path.getsize(at("out/" + p)) > 10000 and open(at("out/" + p), "rb").read(8) == b"\x89PNG\r\n\x1a\n" for p in ("map.png", "map-3d.png", "trends.png", "skills-over-time.png", "topics.png", "topics-over-time.png",
                                                                                                                                                              "occupations.png", "quality.png", "labels.png")), "pictures")
        if find(): page(at("out"), n)
    # the same bits again, in place of the old one only with --force
    before = {f: open(os.path.join(at("out"), f), "rb").read() for f in os.listdir(at("out"))}
    check.refused(report("--tags", at("tags.jsonl"), "-o", at("out")), "--force", "an older report stays")
    done = report("--tags", at("tags.jsonl"), "--tags", at("more.jsonl"), *everything, "-o", at("out") + "/", "--force", "--quiet")
    check(done.returncode == 0 and done.stderr == "" and {f: open(os.path.join(at("out"), f), "rb").read() for f in os.listdir(at("out"))} == before, "the same bits")
    os.makedirs(at("mine"))
    write("mine/thesis.txt", "mine")
    check.refused(report("--tags", at("tags.jsonl"), "-o", at("mine"), "--force"), "thesis.txt", "somebody's folder")
    check(os.listdir(at("mine")) == ["thesis.txt"], "and nothing in it was touched")
    for name in ("thesis.csv", "photo.png"):
        os.makedirs(at("of " + name))
        write(f"of {name}/{name}", "mine")
        check.refused(report("--tags", at("tags.jsonl"), "-o", at("of " + name), "--force"), name, "a folder of somebody's tables")
        check(os.listdir(at("of " + name)) == [name], "which stays")
    # a link is followed and stays; one into somebody's folder leaves that alone
    os.makedirs(at("real"))
    os.symlink("real", at("latest")), os.symlink("mine", at("to mine")), os.symlink("nothing", at("to nothing"))
    for again in ((), ("--force",)):
        done = report("--tags", at("tags.jsonl"), "-o", at("latest"), *again)
        check(done.returncode == 0 and os.path.islink(at("latest")) and not os.path.islink(at("real")) and "index.html" in os.listdir(at("real")), f"through a link: {done.stderr}")
    check.refused(report("--tags", at("tags.jsonl"), "-o", at("to mine"), "--force"), "thesis.txt", "a link to somebody's folder")
    check.refused(report("--tags", at("tags.jsonl"), "-o", at("to nothing"), "--force"), "link to nothing", "a link to nothing")
    check(os.listdir(at("mine")) == ["thesis.txt"], "still not touched")
    check.refused(report("--tags", at("tags.jsonl"), "-o", tmp, "--force"), "lies in the folder", "inputs within the output")
    # few weeks and no dates
    done = report("--tags", write("two.jsonl", *lines[:32], undated), "-o", at("two"))
    html = open(at("two/index.html"), encoding="utf-8").read() if done.returncode == 0 else ""
    check("Fewer than three weeks: no trend can be tested." in html and "1 posting has no date" in html, f"few weeks: {done.stderr}")
    check(all(r["p"] == "" and r["direction"] == "" for r in rows(at("two"), "skills.csv")) and not os.path.exists(at("two/trends.png")), "no test of two weeks")
    done = report("--tags", write("undated.jsonl", undated), "-o", at("undated"), "--min-postings", 1)
    check(done.returncode == 0 and rows(at("undated"), "skills.csv")[0]["skill"] == "Python" and rows(at("undated"), "weeks.csv") == [], f"undated only: {done.stderr}")
    done = report("--map", map2, "-o", at("map only"))
    check(done.returncode == 0 and sorted(os.listdir(at("map only"))) == ["index.html", "map.csv", "map.png"], f"a map only: {done.stderr}")
    # dates of points that are not those of postings; clusters and titles of some of them
    many = range(5000)
    flat, deep = (write_csv(at(f"wide{k}.csv"), ["id", *"xyz"[:k]], [[i, i * 37 % 101, i * 53 % 89, i % 7][:k + 1] for i in many]) for k in (2, 3))
    of = write_csv(at("wide-clusters.csv"), ["id", "cluster", "name"], [[i, i % 60, f"group {i % 60}"] for i in many[:-100]])
    when = write_csv(at("wide-titles.csv"), ["id", "title", "date"], [[i, f"Posting {i}", (datetime.date(2025, 12, 1) + datetime.timedelta(weeks=i % 6)).isoformat()] for i in many])
    done = report("--map", flat, "--map-3d", deep, "--clusters", of, "--titles", when, "-o", at("wide"))
    check(done.returncode == 0, done.stderr)
    if done.returncode == 0 and find(): page_without_gl(at("wide"), at("map only"))
    done = report("--tags", write("one.jsonl", json.dumps({"id": "x", "date": "2026-01-14", "spans": []})), "--map", flat, "--titles", when, "-o", at("extended"))
    html = open(at("extended/index.html"), encoding="utf-8").read() if done.returncode == 0 else ""
    check('"weeks":["2026-01-12"]' in html and '"mapWeeks":["2025-12-01"' in html and '"2026-01-12"],"mostClusters"' in html, f"the map's weeks: {done.stderr}")
    # 200 skills that wave (log odds autoregressive, 0.7 a week) and one that rises: as good as none of the waves is taken for a trend
    rng = random.Random(20261122)
    named = []
    for k in range(200):
        wave, base = 0.25 * rng.gauss(0, 1), rng.uniform(-3, 0)
        for week in range(12):
            if week: wave = 0.7 * wave + 0.25 * math.sqrt(1 - 0.49) * rng.gauss(0, 1)
            named += [(week, i, f"wave {k}") for i in range(200) if rng.random() < 1 / (1 + math.exp(-base - wave))]
    named += [(week, i, "rises") for week in range(12) for i in range(20 + 12 * week)]
    spans = {}
    for week, i, skill in named: spans.setdefault((week, i), []).append({"text": skill, "layer": "k"})
    done = report("--tags", write("waves.jsonl", *(json.dumps({"date": (datetime.date(2026, 1, 5) + datetime.timedelta(weeks=w)).isoformat(), "spans": s}) for (w, i), s in sorted(spans.items()))), "-o", at("waves"))
    found = [r for r in rows(at("waves"), "skills.csv") if r["p"]] if done.returncode == 0 else []
    low = sum(float(r["p"]) < 0.05 for r in found)
    check(len(found) == 201 and low <= 25 and [r["skill"] for r in found if r["direction"]] == ["rises"], f"waves: {low} p below 0.05, {[r['skill'] for r in found if r['direction']]} {done.stderr}")
    check("Weeks that follow each other are alike" in open(at("waves/index.html"), encoding="utf-8").read(), "and the page says so")
    # a map of skills: titles by another key, and the weeks of the postings that name them
    skill_map = write_csv(at("skills.csv"), ["id", "x", "y"], [[i, i, i] for i in range(3)])
    write("skills.jsonl", *(json.dumps({"id": str(i), "text": t}) for i, t in enumerate(("rising  THING", "falling thing", "no such skill"))))
    done = report("--tags", at("tags.jsonl"), "--tags", at("more.jsonl"), "--map", skill_map, "--titles", at("skills.jsonl"), "-o", at("skills"))
    check(done.returncode == 0 and [(r["title"], r["first_week"], r["last_week"]) for r in rows(at("skills"), "map.csv")] ==
          [("rising THING", "2026-01-12", "2026-02-23"), ("falling thing", "2026-01-05", "2026-02-23"), ("no such skill", "", "")] and "3 rows set aside" in done.stderr, f"a map of skills: {done.stderr}")
    # linked skills count once, under their taxonomy's name
    linked = [json.dumps({"id": str(i), "date": "2026-01-05", "spans": [{"text": t, "layer": "k", "skill": {"id": "1", "label": "Python", "reason": "exact", "score": 1}} for t in ("python", "Python 3")]
                          + [{"text": "Java Script", "layer": "k", "skill": None}, {"text": "javascript", "layer": "k", "skill": None}]}) for i in range(12)]
    done = report("--tags", write("linked.jsonl", *linked), "-o", at("linked"))
    check({r["skill"]: r["postings"] for r in rows(at("linked"), "skills.csv")} == {"Python": "12", "Java Script": "12"} and "24 of 48 tagged spans" in open(at("linked/index.html")).read(), "linked")
    # a day is a day, whatever its form and whatever the time behind it; texts that look like formulas are none
    timed = [json.dumps({"id": str(i), "date": f"{5 + i % 20:02d}-01-2026" if i % 2 else f"2026-01-{5 + i % 20:02d}T{i % 24:02d}:00:{i % 60:02d}.{i}Z", "spans": [{"text": t, "layer": "-k"} for t in ('=HYPERLINK("x")', "+1", "-2", "@x", "C++")]})
             for i in range(5000)]
    again = [json.dumps({"id": "0", "date": "05-01-2026", "spans": []}), json.dumps({"id": "1", "date": "2026-01-06 07:08:09", "spans": []})]
    done = report("--tags", write("timed.jsonl", *timed, *again), "-o", at("timed"))
    check(done.returncode == 0 and "5000 postings in 3 weeks, 2 rows set aside" in done.stderr, f"times of day: {done.stderr}")
    check([(r["layer"], r["skill"]) for r in rows(at("timed"), "skills.csv")] == [("'-k", t) for t in ("'+1", "'-2", "'=HYPERLINK(\"x\")", "'@x", "C++")], "no formula in skills.csv")
    check.refused(report("--tags", write("dates.jsonl", *(json.dumps({"date": f"day {i}", "spans": []}) for i in range(20001))), "-o", at("x")), "dates.jsonl: more than 20000 different dates", "too many dates", (1,))
    # bills: nothing to pay is a bill, too; one that would break the sums is none
    bills = [{"cost": 0, "tokens_in": 5, "date": "2026-01-05"}, {"cost": -1}, {"cost": 1, "tokens_in": -5}, {"cost": 1e308}, {"cost": 1e308}, {"cost": 1, "tokens_out": 1e308}]
    done = report("--labels", write("free.jsonl", json.dumps(bills[0]), "{broken"), "-o", at("free"))
    check(done.returncode == 0 and rows(at("free"), "labels.csv")[-1]["tokens_in"] == "5", f"a bill of nothing: {done.stderr}")
    done = report("--labels", write("bills.jsonl", *map(json.dumps, bills)), "-o", at("bills"))
    check(done.returncode == 0 and "3 rows set aside" in done.stderr and rows(at("bills"), "labels.csv")[-1]["cost"] == "1e+308", f"bills: {done.stderr}")
    # a posting has one occupation; clusters whose names are alike; points that are nowhere; long names
    jobs = write_csv(at("jobs.csv"), ["id", "date", "label"], [["1", "", "cook"], ["1", "", "baker"], ["2", "", "cook"], ["1", "05-01-2026", "nurse"]])
    done = report("--occupations", jobs, "-o", at("jobs"))
    check({r["occupation"]: r["postings"] for r in rows(at("jobs"), "occupations.csv")} == {"cook": "2", "nurse": "1"}, f"occupations without ranks: {done.stderr}")
    jobs = write_csv(at("jobs.csv"), ["id", "rank", "label"], [["1", 1, "cook"], ["1", 2, "baker"], ["1", 1, "cook"]])
    done = report("--occupations", jobs, "-o", at("jobs"), "--force")
    check(rows(at("jobs"), "occupations.csv")[0]["postings"] == "1" and "1 row set aside" in done.stderr, f"a posting twice: {done.stderr}")
    names = [["a", 1, "x"], ["b", 2, "x"], ["c", 3, "x (2)"], ["d", 4, "word " * 5000], ["e", "", ""]]
    four = write_csv(at("four.csv"), ["id", "x", "y"], [[i, n, n] for n, i in enumerate("abcdef")])
    done = report("--map", four, "--clusters", write_csv(at("names.csv"), ["id", "cluster", "name"], names), "-o", at("names"))
    check(done.returncode == 0 and "1 row set aside" in done.stderr and len({r["cluster"] for r in rows(at("names"), "map.csv")}) == 5, f"names of clusters: {done.stderr}")
    check("2 of 6 points of the map have no cluster in names.csv" in open(at("names/index.html"), encoding="utf-8").read(), "points without a cluster")
    try:
        import h5py, numpy as np
    except ImportError as e: print(f"skipped: a map in HDF5: {e}")
    else:
        with h5py.File(at("map.h5"), "w") as f:
            for key, text in (("format", "skillwatch-vectors"), ("model_sha256", "a" * 64), ("model", "m"), ("pooling", "mean"), ("prefix", ""), ("map", "{}")): f.attrs[key] = np.bytes_(text)
            f.attrs["version"], f.attrs["normalize"] = 1, 0
            for key, values in (("vectors", np.ones((3, 2))), ("coordinates", [[0, 1], [np.nan, 2], [3, 4]])): f.create_dataset(key, data=np.asarray(values, np.float32), chunks=True, fletcher32=True)
            f.create_dataset("ids", data=np.array([b"a", b"b", b"c"], dtype=h5py.string_dtype("utf-8", 8)))
        done = report("--map", at("map.h5"), "-o", at("hdf"))
        check(done.returncode == 0 and "1 row set aside" in done.stderr and [(r["id"], r["x"]) for r in rows(at("hdf"), "map.csv")] == [("a", "0"), ("c", "3")], f"a point that is nowhere: {done.stderr}")
        aside = [json.loads(l) for l in open(at("hdf/rejected.jsonl"))] if done.returncode == 0 else []
        check([(a["line"], a["reason"]) for a in aside] == [(2, "a coordinate is no finite number")], f"set aside: {aside}")
    # what cannot be used
    check.refused(report("-o", at("x")), "a report on what?", "no input", (2,))
    check.refused(report("--tags", at("tags.jsonl")), "-o FOLDER is missing", "no output", (2,))
    check.refused(report("--clusters", clusters, "--tags", at("tags.jsonl"), "-o", at("x")), "--map", "clusters without a map", (2,))
    check.refused(report("--tags", at("none.jsonl"), "-o", at("x")), "none.jsonl", "a missing file", (1,))
    check.refused(report("--tags", write("empty.jsonl"), "-o", at("x")), "is empty", "empty tags", (1,))
    check.refused(report("--tags", map2, "-o", at("x")), "none of", "tags that are none", (1,))
    check.refused(report("--map", titles, "-o", at("x")), "no column 'x'", "a foreign map", (1,))
    check.refused(report("--map", at("tags.jsonl"), "-o", at("x")), "tags.jsonl", "a map that is none", (1,))
    check.refused(report("--map-3d", map2, "-o", at("x")), "no column 'z'", "a flat map as --map-3d", (1,))
    other = write_csv(at("other.csv"), ["id", "cluster", "name", "title"], [["x1", 0, "a", "b"]])
    check.refused(report("--map", map2, "--clusters", other, "-o", at("x")), "no id of", "clusters of another map", (1,))
    many = write_csv(at("many.csv"), ["id", "x", "y", "cluster", "name"], [[i, 0, 0, i, ""] for i in range(1200)])
    check.refused(report("--map", many, "--clusters", many, "-o", at("x")), "1200 clusters", "a cluster a point", (1,))
    check.refused(report("--map", map2, "--titles", other, "-o", at("x")), "no id of", "titles of another map", (1,))
    check.refused(report("--checkpoint", map2, "-o", at("x")), "map.csv", "a checkpoint that is none", (1,))
    check.refused(report("--labels", at("tags.jsonl"), "--labels", map2, "-o", at("x")), "labelled sentence", "labels that are none", (1,))
    far = [json.dumps({"id": str(i), "date": d, "spans": []}) for i, d in enumerate(("2026-01-05", "9999-01-05"))]
    check.refused(report("--tags", write("far.jsonl", *far), "-o", at("x")), "correct those", "a wrong year", (1,))
    check(not os.path.exists(at("x")) and not [f for f in os.listdir(tmp) if ".tmp-" in f], "nothing is left behind")
if not check.failed and not find():
    print(f"{check.count} checks, 0 failed; skipped: the page, as there is no chromium here (apt-get install chromium, or tools/setup --tests)")
    sys.exit(77)
check.close()
