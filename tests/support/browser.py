"""Headless Chromium for tests, over the Chrome DevTools protocol on a pipe: no driver, no port, no package but Debian's chromium.

    with Browser() as b:                        # skips the test (status 77) where there is no chromium
        b.open("http://127.0.0.1:8080/")        # or open_file("report/index.html")
        b.type("#posting", "Know Rust"); b.press("Enter", ctrl=True)
        b.wait("document.querySelectorAll('mark').length == 2")
        b.screenshot("page.png")
        check(not b.errors and not b.strangers(), ...)

Every call has a time limit and raises BrowserError with what the page had to say. The browser itself can reach this machine only: names are not
resolved and no proxy is used, so what a page asks of others is seen in `requests` and answered by nobody."""
import base64, fcntl, json, os, pathlib, select, shutil, signal, subprocess, sys, tempfile, time
from urllib.parse import urlsplit

OPTIONS = """--headless=new --no-sandbox --remote-debugging-pipe --disable-dev-shm-usage --no-first-run --no-default-browser-check --no-proxy-server
  --disable-background-networking --disable-component-update --disable-default-apps --disable-extensions --disable-sync --disable-domain-reliability
  --disable-client-side-phishing-detection --disable-breakpad --metrics-recording-only --password-store=basic --use-mock-keychain --mute-audio
  --force-color-profile=srgb --font-render-hinting=none --hide-scrollbars --use-angle=swiftshader --enable-unsafe-swiftshader
  --disable-features=Translate,OptimizationHints,MediaRouter,AutofillServerCommunication,InterestFeedContentSuggestions""".split()
# name: code, virtual key, text. Characters need no entry.
KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Escape": ("Escape", 27, ""), "Backspace": ("Backspace", 8, ""), " ": ("Space", 32, " "),
        "ArrowLeft": ("ArrowLeft", 37, ""), "ArrowUp": ("ArrowUp", 38, ""), "ArrowRight": ("ArrowRight", 39, ""), "ArrowDown": ("ArrowDown", 40, ""),
        "Home": ("Home", 36, ""), "End": ("End", 35, ""), "PageUp": ("PageUp", 33, ""), "PageDown": ("PageDown", 34, "")}


class BrowserError(Exception): pass


def find():
    """Chromium's path, or None. SW_CHROMIUM names another one."""
    return shutil.which(os.environ.get("SW_CHROMIUM", "chromium"))


def pipe():
    """Both ends far from the descriptors 3 and 4, which the browser takes."""
    ends = os.pipe()
    far = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends]
    for end in ends: os.close(end)
    return far


class Browser:
    """One page. `errors`: the console's errors, uncaught exceptions and what the browser itself complains of (a refused request, a policy that is
    violated); `requests`: the addresses asked for, in order, data: and blob: left out; `statuses`: address → the last answer's status."""

    def __init__(self, width=1280, height=900, dark=False, timeout=60, options=()):
        path = find()
        if not path:
            print("skipped: no chromium here (apt-get install chromium, or tools/setup --tests)")
            sys.exit(77)
        self.timeout, self.buffer, self.count, self.session = timeout, b"", 0, None
        self.errors, self.requests, self.statuses, self.loaded, self.origin = [], [], {}, 0, None
        self.profile = tempfile.mkdtemp(prefix="browser-")
        self.log = open(os.path.join(self.profile, "log"), "w+b")
        self.reads, browser_out = pipe()
        browser_in, self.writes = pipe()
        def ends_in_place(): os.dup2(browser_in, 3), os.dup2(browser_out, 4)  # where the browser wants them
        # names lead nowhere: a request that leaves the machine fails at once, on every machine
        self.process = subprocess.Popen([path, *OPTIONS, *options, f"--user-data-dir={self.profile}", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost", "about:blank"],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=ends_in_place, pass_fds=(3, 4), start_new_session=True,
                                        env=os.environ | {"HOME": self.profile, "XDG_CONFIG_HOME": self.profile, "XDG_CACHE_HOME": self.profile})
        os.close(browser_in), os.close(browser_out)
        os.set_blocking(self.writes, False)
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"): self.call(domain + ".enable")
            self.resize(width, height)
            self.dark(dark)
        except BaseException:
            self.close()
            raise

    def __enter__(self): return self
    def __exit__(self, *what): self.close()

    def close(self):
        if self.process.poll() is None:
            try: self.call("Browser.close", seconds=3, session=None)
            except BrowserError: pass
            try: self.process.wait(5)
            except subprocess.TimeoutExpired: pass
        try: os.killpg(self.process.pid, signal.SIGKILL)  # its own group, which it leads: its children, too
        except ProcessLookupError: pass
        self.process.wait()
        os.close(self.reads), os.close(self.writes), self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    # the protocol: JSON with a NUL behind it, both ways

    def fail(self, what):
        if self.errors: what += f"; the page's errors: {self.errors[-3:]}"
        if self.process.poll() is not None:
            with open(self.log.name, "rb") as f: what += f"; the browser, before it ended: {f.read()[-500:].decode(errors='replace')}"
        raise BrowserError(what)

    def call(self, method, seconds=None, session="page", **params):
        """The command's result. Events that come meanwhile are taken note of."""
        end = time.monotonic() + (seconds or self.timeout)
        self.awaited = self.send(method, params, end, session)
        self.answer = None
        while not self.answer: self.receive(end, method)
        answer = self.answer
        if "error" in answer: self.fail(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def send(self, method, params, end, session="page"):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if session and self.session: message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            if not select.select([], [self.writes], [], max(0, end - time.monotonic()))[1]: self.fail(f"{method}: the browser does not listen")
            try: data = data[os.write(self.writes, data):]
            except BrokenPipeError: self.fail(f"{method}: the browser has ended")
        return self.count

    def receive(self, end, what):
        """Takes what has come, or waits for it until `end`."""
        if not select.select([self.reads], [], [], max(0, end - time.monotonic()))[0]: self.fail(f"{what}: no answer in time")
        read = os.read(self.reads, 1 << 20)
        if not read: self.fail(f"{what}: the browser has ended")
        *messages, self.buffer = (self.buffer + read).split(b"\0")
        for message in map(json.loads, messages):
            if message.get("id") == self.awaited: self.answer = message
            elif "method" in message and message.get("sessionId") == self.session: self.event(message["method"], message["params"])

    def event(self, name, p):
        if name == "Network.requestWillBeSent":
            if urlsplit(p["request"]["url"]).scheme not in ("data", "blob"): self.requests.append(p["request"]["url"])
        elif name == "Network.webSocketCreated": self.requests.append(p["url"])
        elif name == "Network.responseReceived": self.statuses[p["response"]["url"]] = p["response"]["status"]
        elif name == "Page.loadEventFired": self.loaded += 1
        elif name == "Runtime.exceptionThrown":
            d = p["exceptionDetails"]
            self.errors.append(f"{d.get('exception', {}).get('description', d['text'])} ({d.get('url', '')}:{d['lineNumber'] + 1})")
        elif name == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in p["args"]))
        elif name == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.errors.append(f"{p['entry']['text']} ({p['entry'].get('url', '')})")
        elif name == "Page.javascriptDialogOpening":  # would stop everything
            self.errors.append(f"a dialog: {p['message']}")
            self.send("Page.handleJavaScriptDialog", {"accept": False}, time.monotonic() + self.timeout)
        elif name == "Fetch.requestPaused":
            status, headers, body = self.pretended
            self.send(*(("Fetch.fulfillRequest", {"requestId": p["requestId"], "responseCode": status, "body": base64.b64encode(body.encode()).decode(),
                                                  "responseHeaders": [{"name": k, "value": str(v)} for k, v in headers.items()]}) if status else
                        ("Fetch.failRequest", {"requestId": p["requestId"], "errorReason": "ConnectionRefused"})), time.monotonic() + self.timeout)

    # pages

    def open(self, url):
        """Goes there, and comes back when everything has loaded. What was noted of the page before is forgotten."""
        self.forget()
        self.origin, loaded, end = "{0.scheme}://{0.netloc}".format(urlsplit(url)), self.loaded, time.monotonic() + self.timeout
        said = self.call("Page.navigate", url=url).get("errorText")
        if said: self.fail(f"{url}: {said}")
        while self.loaded == loaded: self.receive(end, url)

    def open_file(self, path): self.open(pathlib.Path(path).absolute().as_uri())

    def forget(self):
        self.errors.clear(), self.requests.clear(), self.statuses.clear()

    def strangers(self):
        """Requests that went elsewhere than where the page came from; of a file, all but the file itself."""
        return [r for r in self.requests[self.origin == "file://":] if not r.startswith(self.origin + "/") or self.origin == "file://"]

    def resize(self, width, height, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)

    def dark(self, dark=True, **features):
        """prefers-color-scheme, and others: dark(False, forced_colors="active", prefers_reduced_motion="reduce")."""
        wanted = {"prefers-color-scheme": "dark" if dark else "light"} | {k.replace("_", "-"): v for k, v in features.items()}
        self.call("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in wanted.items()])

    def pretend(self, pattern, status=0, headers={}, body=""):
        """From now on the addresses of `pattern` ("*/search") get this answer, whatever the server would say; status 0: a refused connection. None: no more."""
        if not pattern: return self.call("Fetch.disable")
        self.pretended = status, headers, body
        self.call("Fetch.enable", patterns=[{"urlPattern": pattern}])

    # looking and doing

    def evaluate(self, expression, seconds=None):
        """The expression's value; of a promise, what it promises."""
        done = self.call("Runtime.evaluate", seconds, expression=expression, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            self.fail(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return done["result"].get("value")

    def wait(self, expression, seconds=None):
        """Until the expression is true; returns its value."""
        end = time.monotonic() + (seconds or self.timeout)
        while True:
            value = self.evaluate(expression)
            if value: return value
            if time.monotonic() > end: self.fail(f"never true: {expression}")
            time.sleep(0.02)

    def text(self, selector): return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def place(self, selector):
        """The middle of the element on the screen, scrolled there if need be."""
        box = self.evaluate(f"(e => {{ if (!e) return null; e.scrollIntoView({{block: 'center', inline: 'nearest', behavior: 'instant'}});"
                            f" const b = e.getClientRects()[0]; return b && [b.left + b.width / 2, b.top + b.height / 2] }})(document.querySelector({json.dumps(selector)}))")
        if not box: self.fail(f"{selector} is not on the page")
        return box

    def mouse(self, kind, x, y, **more): self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
    def hover(self, selector): self.mouse("mouseMoved", *self.place(selector))

    def click(self, selector):
        x, y = self.place(selector)
        self.click_at(x, y)

    def click_at(self, x, y): self.drag(x, y, x, y)

    def drag(self, x, y, to_x, to_y):
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        if (x, y) != (to_x, to_y): self.mouse("mouseMoved", to_x, to_y, button="left", buttons=1)
        self.mouse("mouseReleased", to_x, to_y, button="left", clickCount=1)

    def press(self, key, ctrl=False, shift=False, alt=False):
        """A key by its name ("Enter", "Tab", "a") to what has the focus."""
        code, number, text = KEYS.get(key, ("Key" + key.upper(), ord(key.upper()[0]), key))
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 1 * alt + 2 * ctrl + 8 * shift}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text and not (ctrl or alt) else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, selector, text):
        """Replaces a field's text by what a user would type or paste."""
        self.evaluate(f"(e => {{ e.focus(); e.select && e.select() }})(document.querySelector({json.dumps(selector)}))")
        if text: self.call("Input.insertText", text=text)
        else: self.press("Backspace")

    def focus(self):
        """What has the focus: #id, or the element's name."""
        return self.evaluate("(e => e.id ? '#' + e.id : e.localName)(document.activeElement)")

    def accessible(self):
        """What a screen reader is told: [{"role", "name", ...}], in order, ignored nodes left out."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [{"role": n["role"]["value"], "name": n.get("name", {}).get("value", "")} | {p["name"]: p["value"].get("value") for p in n.get("properties", [])}
                for n in nodes if not n["ignored"]]

    def screenshot(self, path, full=False):
        """A PNG of what is seen, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full,
                         **({"clip": {"x": 0, "y": 0, **self.evaluate("({width: innerWidth, height: document.documentElement.scrollHeight})"), "scale": 1}} if full else {}))
        with open(path, "wb") as f: f.write(base64.b64decode(data["data"]))
