"""The page of `skillwatch infer serve`, used as people use it, in headless Chromium: what it shows is what the server answers, errors are told in
words, keys and screen readers get everywhere, colours can be read, and no request leaves the server.
    test_page.py --screenshots FOLDER     also keeps pictures: light, dark, narrow"""
import argparse, json, os, random, re, sys, tempfile

import h5py, numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
from browser import Browser
from server import Server
from tiny import Checks, program, tiny_bert, vocabulary

check = Checks()
SECTIONS = ["tag", "classify", "multilabel", "search", "place"]
rng = random.Random(8)
TOOLS = "Python SQL Kubernetes Linux Norwegian statistics".split()
DOINGS = ["build {} pipelines", "write {} jobs", "explain {} to people"]
FILLERS = "( m / f / d ) < b > & we run small plants by the sea and every turbine writes a line . the water is cold in spring ; you will like it here".split()
POSTING = """Data Engineer 🌊 (m/f/d)

You write Kubernetes jobs by the sea. You build Python pipelines and you know SQL.
the water is cold in spring ; you know Norwegian <b>and</b> statistics & Linux
"""
HOSTILE = """<img src=x onerror="alert(1)"> </script><script>alert(2)</script> you know Python <mark tabindex=0> & you write SQL jobs &lt;"""


def sentences(count):
    """Invented ones, with a skill and the knowledge in it, which a tiny model learns in seconds."""
    for _ in range(count):
        words, spans, tools = rng.choices(FILLERS, k=rng.randint(2, 6)), [], []
        for _ in range(rng.randint(0, 3)):
            tool, doing = rng.choice(TOOLS), rng.choice(DOINGS + [""])
            words.append("you" if doing else "you know")
            at = len(" ".join(words)) + 1
            words.append(doing.format(tool) if doing else tool)
            if doing: spans.append({"start": at, "end": at + len(words[-1]), "label": "Skill"})
            at += doing.find("{") if doing else 0
            spans.append({"start": at, "end": at + len(tool), "label": "Knowledge"})
            tools.append(tool)
            words += rng.choices(FILLERS, k=rng.randint(1, 5))
        yield {"text": " ".join(words), "spans": spans, "labels": sorted(set(tools)), "code": tools[0] if tools else "none"}


def made(*arguments):
    done = program(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-600:]}"


def make_models(path):
    rows = list(sentences(240))
    for name, some in (("train", rows[:210]), ("dev", rows[210:])):
        with open(path(name + ".jsonl"), "w", encoding="utf-8") as f: f.writelines(json.dumps(row | {"id": str(i)}) + "\n" for i, row in enumerate(some))
    made("pull", tiny_bert(path("tiny"), vocabulary([row["text"] for row in rows]), positions=128), "-o", path("encoder.h5"), "--quiet")
    made("train", "ner", "--base", path("encoder.h5"), "--data", path("train.jsonl"), "--dev", path("dev.jsonl"), "-o", path("tagger.h5"), "--epochs", 20, "--lr", 1e-2, "--batch-tokens", 256, "--quiet")
    made("train", "classify", "--base", path("encoder.h5"), "--data", path("train.jsonl"), "--column", "text", "--label", "code", "-o", path("occupations.h5"), "--quiet")
    made("train", "multilabel", "--data", path("train.jsonl"), "--column", "text", "--dev", path("dev.jsonl"), "--embedding", 16, "--cells", 24, "--epochs", 20, "--lr", 3e-2, "--dropout", 0.1, "-o", path("skills.h5"), "--quiet")
    made("infer", "embed", "-m", path("encoder.h5"), path("train.jsonl"), "--column", "text", "-o", path("vectors.h5"), "--quiet")
    made("infer", "embed", "-m", path("encoder.h5"), path("dev.jsonl"), "--column", "text", "-o", path("few.h5"), "--quiet")
    made("infer", "map", path("vectors.h5"), "-o", path("map.h5"), "--seed", 1, "--quiet")


def results(server, path, **more):
    """What the server says of the posting."""
    status, _, answer = server.ask(path, {"text": POSTING, **more})
    assert status == 200, f"{path}: {status} {answer}"
    return answer["results"][0]


def submit(b, text=None):
    """Types a text, asks with Ctrl+Enter and waits for the answer."""
    if text is not None: b.type("#posting", text)
    b.evaluate("document.getElementById('posting').focus()")
    b.press("Enter", ctrl=True)
    b.wait("!asking")


MARKS = "[...document.querySelectorAll('#text mark[tabindex]')]"


def test_sections(b, server, map_path):
    b.open(server.url + "/")
    b.wait("connected && Object.keys(offers)")
    check(b.focus() == "#posting" and b.evaluate("document.getElementById('results').hidden"), "at first there is a field, and nothing else")
    submit(b, POSTING)
    check(b.text("#status").endswith(" ms.") and b.evaluate("document.getElementById('error').hidden"), f"status: {b.text('#status')}")

    spans = results(server, "/tag")["spans"]
    layers = {s["layer"] for s in spans}
    check(len(layers) == 2 and len(spans) >= 5 and any(a["layer"] != o["layer"] and a["start"] <= o["start"] and o["end"] <= a["end"] for a in spans for o in spans), f"the posting has skills with knowledge in them: {spans}")
    shown = b.evaluate(MARKS + ".map(m => [m.innerText, m.ariaDescription])")
    wanted = [[s["text"], f"{s['label'].capitalize()}, score {s['score']:.2f}"] for s in sorted(spans, key=lambda s: (s["start"], -s["end"]))]
    check(shown == wanted, f"marks {shown}, the server's spans {wanted}")
    check(b.evaluate("document.getElementById('text').textContent") == POSTING, "the text is shown as it was given")
    check(b.text("#status").startswith(f"{len(spans)} skills found"), b.text("#status"))
    looks = b.evaluate(MARKS + ".map(m => { const s = getComputedStyle(m); return [m.ariaDescription.split(',')[0], s.borderBottomStyle + s.borderBottomColor, s.backgroundColor] })")
    check(len({l[0] for l in looks}) == 2 == len({l[1] for l in looks}) == len({l[2] for l in looks}), f"each label has its own line and colour: {looks}")
    lines = b.evaluate("(o => [o, o.querySelector('mark')].map(m => m.getBoundingClientRect().bottom))(document.querySelector('mark:has(mark)'))")
    check(lines[0] >= lines[1] + 4, f"the outer line lies below the inner one: {lines}")
    listed = b.evaluate("[...document.querySelectorAll('#found li button')].map(e => e.firstChild.data.trim())")
    check(sorted(listed) == sorted({s["text"] for s in spans}), f"each skill is listed once: {listed}")

    rows = "[...document.querySelectorAll('#%s li')].map(e => [e.children[0].innerText, e.children[1].innerText])"
    for section in ("classify", "multilabel"):
        labels = results(server, "/" + section)["labels"][:5]
        shown = b.evaluate(rows % section)
        check(labels and shown == [[l["label"], "< 0.01" if 0 < l["score"] < 0.005 else f"{l['score']:.2f}"] for l in labels], f"{section}: {shown}, {labels}")
    hits = results(server, "/search", k=5)["hits"]
    shown = b.evaluate("[...document.querySelectorAll('#search li')].map(e => [e.querySelector('strong').innerText, e.querySelector('.value').innerText])")
    check(len(hits) == 5 and shown == [[h["id"], f"{h['score']:.2f}"] for h in hits], f"nearest: {shown}, {hits}")
    shown = b.evaluate("[...document.querySelectorAll('#search li p')].map(e => e.innerText)")
    check(shown == [" ".join(h["text"].split()) for h in hits], f"how they begin: {shown}, {hits}")
    b.evaluate("document.getElementById('search-by').value = 'few'")
    submit(b)
    few, shown = results(server, "/search", k=5, corpus="few")["hits"], b.evaluate("[...document.querySelectorAll('#search li strong')].map(e => e.innerText)")
    check(shown == [h["id"] for h in few] != [h["id"] for h in hits], f"nearest of another corpus: {shown}, {few}")
    b.evaluate("document.getElementById('search-by').value = 'vectors'")
    submit(b)
    place, (status, _, points) = results(server, "/place"), server.ask("/map")
    check(status == 200 and points["rows"] == len(points["x"]) == len(points["y"]) == 210, "the map has all points")
    with h5py.File(map_path) as f: wanted = f["coordinates"][()]
    check(np.allclose(np.array([points["x"], points["y"]]).T, wanted, rtol=1e-5, atol=1e-6), "and they are the file's")
    check(b.text("#place p") == f"This posting lies at x {place['x']:.2f}, y {place['y']:.2f}, among 210 points.", b.text("#place p"))
    b.wait("document.getElementById('canvas').width > 300")
    colours = "(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = {}; for (let i = 0; i < d.length; i += 4) if (d[i + 3] == 255) seen[[d[i], d[i + 1], d[i + 2]]] = 1 + (seen[[d[i], d[i + 1], d[i + 2]]] || 0); return seen })(document.getElementById('canvas'))"
    drawn = b.evaluate("new Promise(r => requestAnimationFrame(() => r(" + colours + ")))")
    check(drawn.get("213,94,0", 0) > 50, f"the ring is drawn: {sorted(drawn.values())[-5:]}")
    b.evaluate("document.getElementById('k').value = '10'")
    submit(b)
    check(b.evaluate("document.querySelectorAll('#search li').length") == 10, "lists are as long as wanted")
    check(not b.errors and not b.strangers(), f"errors {b.errors}, requests elsewhere {b.strangers()}")
    check({r[len(server.url):] for r in b.requests} == {"/", "/models", *("/" + s for s in SECTIONS), "/map"}, f"requests: {b.requests}")


def test_hands_and_keys(b, server):
    count = b.evaluate(MARKS + ".length")
    b.hover("#text mark mark")
    tip = b.wait("!document.getElementById('tip').hidden && document.getElementById('tip').innerText")
    check(re.fullmatch(r"Knowledge · score 0\.\d\d\nin “.*”: Skill · score 0\.\d\d", tip), f"hovering tells both layers: {tip!r}")
    b.press("Escape")
    check(b.evaluate("document.getElementById('tip').hidden"), "Escape closes it")
    b.evaluate("document.querySelector('#text mark[tabindex=\"0\"]').focus()")
    for key, at in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", count - 1), ("ArrowRight", count - 1), ("Home", 0)):
        b.press(key)
        check(b.evaluate(f"document.activeElement == {MARKS}[{at}]") and b.evaluate("!document.getElementById('tip').hidden"), f"{key} goes to mark {at}, and tells what it is")
    check(b.evaluate("document.querySelectorAll('#text [tabindex=\"0\"]').length") == 1, "the marks are one stop of the Tab key")
    b.click("#found li button")
    check(b.evaluate("document.activeElement.innerText.toLowerCase() == document.querySelector('#found li button').firstChild.data.trim().toLowerCase()"), "a listed skill leads to its mark")
    b.click("#legend button")
    left = b.evaluate(MARKS + ".map(m => m.ariaDescription.split(',')[0])")
    check(set(left) == {"Skill"} and b.evaluate("document.querySelector('#legend button').ariaPressed") == "false", f"a label can be hidden: {left}")
    b.click("#legend button")
    check(b.evaluate(MARKS + ".length") == count, "and shown again")
    b.evaluate("document.getElementById('lowest').focus()")
    b.press("End")
    check(b.evaluate(MARKS + ".length") == 0 and "Nothing is left" in b.text("#found"), "the score's slider hides what is below")
    b.press("Home")
    check(b.evaluate(MARKS + ".length") == count, "the slider back")

    # from the address bar on, everything is reached, in the order it is seen
    b.evaluate("document.activeElement.blur(), document.getElementById('settings').open = true, scrollTo(0, 0)")
    b.click_at(2, 2)
    stops = []
    for _ in range(60):
        b.press("Tab")
        at = b.evaluate("(e => e == document.body ? null : [e.id || e.innerText, e.getBoundingClientRect().top + scrollY, getComputedStyle(e).outlineStyle])(document.activeElement)")
        if not at: break
        stops.append(at)
    names = [s[0] for s in stops]
    check(names[:5] == ["posting", "go", "example", "clear", "Settings and models"] and "k" in names and "lowest" in names, f"the Tab key's stops: {names}")
    check(all(s[2] != "none" for s in stops), f"the focus is seen: {stops}")
    b.click("#clear")
    check(b.focus() == "#posting" and b.evaluate("document.getElementById('posting').value") == "" and b.evaluate("document.getElementById('results').hidden"), "cleared")
    b.press("Enter", ctrl=True)
    check("no text" in b.text("#error"), f"no text: {b.text('#error')}")
    b.click("#example")
    b.wait("!asking && document.getElementById('status').innerText.endsWith('ms.')")
    check(b.evaluate("document.getElementById('error').hidden") and b.evaluate("document.querySelectorAll('#text mark').length") > 0, "the example is tagged")
    check(not b.errors, f"errors {b.errors}")


def test_hostile(b, server):
    submit(b, HOSTILE)
    check(b.evaluate("document.getElementById('text').textContent") == HOSTILE and b.evaluate("!document.querySelector('#text img, #text script')"), "text is never markup")
    submit(b, "you know Python \ud83c and \ud83c\udf0a SQL".encode("utf-16", "surrogatepass").decode("utf-16", "replace") + "x" * 70000)
    check(b.evaluate("document.getElementById('error').hidden"), f"a long word: {b.text('#error')}")
    b.evaluate("document.getElementById('posting').value = 'you know Python \\ud83c and \\ud83c\\udf0a SQL'")
    submit(b)
    check("\ufffd and \U0001f30a SQL" in b.text("#text") and b.evaluate("document.getElementById('error').hidden"), f"half a character: {b.text('#error')}")
    check(not b.errors and not b.strangers(), f"errors {b.errors}, elsewhere {b.strangers()}")
    # the policy holds: neither scripts of others, nor requests to others
    b.forget()
    refused = b.evaluate("fetch('http://localhost:9/').then(() => 'sent', () => 'refused')")
    b.evaluate("new Image().src = '/models'")
    written = b.evaluate("(() => { try { document.body.insertAdjacentHTML('beforeend', '<i>x</i>'); return 'written' } catch (e) { return e.name } })()")
    b.wait("new Promise(r => setTimeout(() => r(1), 50))")
    check(refused == "refused" and written == "TypeError" and sum("Content Security Policy" in e for e in b.errors) >= 2, f"policy: {refused}, {written}, {b.errors}")
    b.forget()


def test_errors(b, server):
    submit(b, POSTING)
    says = '{"error": {"message": "%s", "type": "t", "param": null, "code": null}}'
    cases = [("*/tag", 429, {"Retry-After": 3}, says % "busy", "The server is busy. Try again in 3 seconds."),
             ("*/tag", 503, {}, says % "it is stopping", "The server is starting or stopping. Try again in a moment. The server says: it is stopping"),
             ("*/search", 504, {}, says % "30 s are over", "The server took too long. The server says: 30 s are over"),
             ("*/classify", 413, {}, "not JSON", "This text is too long for the server."),
             ("*/classify", 500, {}, "", "The server refused with status 500."),
             ("*/multilabel", 200, {}, '{"results": [', "The server's answer to multilabel broke off. Try again."),
             ("*/place", 0, {}, "", "The server cannot be reached. Is it running, and are you online?")]
    for pattern, status, headers, body, wanted in cases:
        b.pretend(pattern, status, headers | {"Content-Type": "application/json"}, body)
        submit(b)
        section = pattern[2:]
        hidden = b.evaluate(f"{SECTIONS}.filter(s => document.getElementById(s).hidden)")
        check(b.text("#error") == wanted and hidden == [section], f"{pattern} {status}: {b.text('#error')!r}, hidden {hidden}")
        check(b.evaluate("document.getElementById('go').ariaDisabled") == "false", "one can try again")
        b.pretend(None)
    b.pretend("*", 429, {"Retry-After": 1, "Content-Type": "application/json"}, says % "busy")
    submit(b)
    check(b.text("#error") == "The server is busy. Try again in 1 second." and b.evaluate("document.getElementById('results').hidden"), f"told once: {b.text('#error')!r}")
    b.pretend(None)
    submit(b)
    check(b.evaluate("document.getElementById('error').hidden && !document.getElementById('tag').hidden"), "all is well again")
    b.forget()


def test_token(b, path):
    with open(path("tokens"), "w") as f: f.write("the-first-of-two-secrets\nthe-second-of-two-secrets\n")
    os.chmod(path("tokens"), 0o600)
    with Server("-m", path("tagger.h5"), "--tokens", path("tokens")) as server:
        b.open(server.url + "/")
        b.wait("!document.getElementById('access').hidden")
        check(b.focus() == "#token" and b.evaluate("document.getElementById('error').hidden"), "a token is asked for")
        b.type("#token", "wrong")
        b.press("Enter")
        b.wait("!document.getElementById('error').hidden")
        check(b.text("#error").startswith("The server does not accept this token.") and b.focus() == "#token", f"a wrong one: {b.text('#error')}")
        b.type("#token", "日本-of-two-secrets")
        b.press("Enter")
        b.wait("document.getElementById('error').textContent.includes('no token has')")
        check(b.focus() == "#token", "a token with a character that no header can have")
        b.type("#posting", POSTING)
        b.type("#token", "the-second-of-two-secrets")
        b.press("Enter")
        b.wait("!asking && !document.getElementById('tag').hidden")
        check(b.evaluate("document.getElementById('access').hidden && document.getElementById('error').hidden"), "the right one")
        check(b.evaluate("[...document.querySelectorAll('section')].filter(s => !s.hidden).map(s => s.id)") == ["tag"], "only what is served is shown")
        kept = b.evaluate("[document.cookie, localStorage.length, sessionStorage.length, document.getElementById('token').value, location.href]")
        check(kept == ["", 0, 0, "", server.url + "/"], f"the token is kept nowhere: {kept}")
        b.open(server.url + "/")
        b.wait("!document.getElementById('access').hidden")  # a new page knows none
        check(not b.strangers(), f"elsewhere: {b.strangers()}")


# Text and what lies behind it: WCAG 2's contrast, of every element with text of its own, through a canvas that knows all forms of colours.
CONTRAST = """(() => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = c => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = c; pen.fillRect(0, 0, 1, 1); return pen.getImageData(0, 0, 1, 1).data };
  const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * (c[i] / 255 <= 0.04045 ? c[i] / 255 / 12.92 : ((c[i] / 255 + 0.055) / 1.055) ** 2.4), 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3]) return c } return [255, 255, 255, 255] };
  const bad = []; let seen = 0;
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || e.closest('script') || !([...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || (e.value && e.type != 'range'))) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    seen++;
    if (!(ratio >= 4.5)) bad.push([e.id || e.className || e.localName, e.innerText.slice(0, 20), ratio]);
  }
  return [seen, bad];
})()"""


def test_access(b, server, pictures):
    submit(b, POSTING)
    b.evaluate("document.getElementById('settings').open = true")
    tree = b.accessible()
    controls = [n for n in tree if n["role"] in ("textbox", "button", "combobox", "slider", "checkbox", "DisclosureTriangle")]
    check(len(controls) > 10 and all(n["name"] for n in controls), f"controls without a name: {[n for n in controls if not n['name']]}")
    check([n["name"] for n in tree if n["role"] == "textbox"] == ["Job posting"], "the field has its label")
    check(next(n for n in tree if n["role"] == "slider")["name"] == "Lowest score", "the slider has its label")
    check([n["name"] for n in tree if n["role"] == "region"] == ["Skills in the posting", "Occupations", "Predicted skills", "Nearest postings", "Place on the map"], "regions have names")
    check([n["name"].split(" at ")[0] for n in tree if n["role"] == "image"] == ["This posting lies"], f"the map says where the posting lies: {[n for n in tree if n['role'] == 'image']}")
    check([n["level"] for n in tree if n["role"] == "heading"][:2] == [1, 2] and any(n["role"] == "status" and n.get("live") == "polite" for n in tree) and any(n["role"] == "main" for n in tree),
          "headings, a status that is read out, and a main part")
    check(b.evaluate("document.documentElement.lang") == "en" and b.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id).every((id, i, all) => all.indexOf(id) == i)"), "language, and every id once")
    b.hover("#text mark")
    for dark in (False, True):
        b.dark(dark)
        seen, bad = b.wait(CONTRAST)
        check(seen > 40 and not bad, f"contrast, dark {dark}: {bad} of {seen}")
    check(b.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 22, 28)", "dark is dark")
    b.evaluate("document.getElementById('settings').open = false")
    for name, width, dark in (("light", 1280, False), ("dark", 1280, True), ("narrow", 360, False), ("narrowest", 320, False)):
        b.resize(width, 900)
        b.dark(dark)
        b.wait("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))")
        check(b.evaluate("document.documentElement.scrollWidth") <= width, f"{name}: it is wider than {width} pixels")
        if pictures: b.screenshot(os.path.join(pictures, name + ".png"), full=True)
    b.resize(1280, 900)
    check(not b.errors, f"errors {b.errors}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--screenshots")
    pictures = arguments.parse_args().screenshots
    with Browser() as b, tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        make_models(path)
        with Server(*(a for name in ("tagger", "occupations", "skills", "encoder") for a in ("-m", path(name + ".h5"))), "--corpus", path("vectors.h5"), "--corpus", "few=" + path("few.h5"), "--texts", path("train.jsonl"), "--column", "text", "--map", path("map.h5")) as server:
            test_sections(b, server, path("map.h5"))
            test_hands_and_keys(b, server)
            test_hostile(b, server)
            test_errors(b, server)
            test_access(b, server, pictures)
        submit(b)
        check(b.text("#error") == "The server cannot be reached. Is it running, and are you online?", f"the server has gone: {b.text('#error')}")
        test_token(b, path)
    check.close()


main()
