"""A real Chromium that looks at the console, and notes what it must not do."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = ["chromium", "chromium-browser", "google-chrome"]
# Errors that the page handles itself: a screen asks for what an older server lacks, or a key isn't valid.
HANDLED = "Failed to load resource: the server responded with a status of "


def find_chromium():
    """Returns the path of Chromium, or None."""
    given = os.environ.get("TALOS_TEST_CHROMIUM")
    return given or next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextlib.contextmanager
def chromium():
    """Starts Chromium without a window; it asks nobody for anything by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        try:
            yield browser
        finally:
            browser.close()


class ConsolePage:
    """A page, and what was wrong while it was looked at."""

    def __init__(self, browser, stack, scheme="light", width=1280, height=900, headers=None, clipboard=False):
        self.stack = stack
        self.wrong = []
        self.context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": height}, extra_http_headers=headers or {},
            permissions=["clipboard-read", "clipboard-write"] if clipboard else [], reduced_motion="reduce",
        )
        self.context.set_default_timeout(15_000)
        self.page = self.context.new_page()
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) =>"
            " console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`))"
        )
        self.page.on("console", self.on_console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error in the page: {error}"))
        self.page.on("request", self.on_request)

    def on_console(self, message):
        if message.type == "error" and not message.text.startswith(HANDLED):
            self.wrong.append(f"console: {message.text}")

    def on_request(self, request):
        own = (self.stack.admin + "/", self.stack.public + "/", "blob:", "data:")
        if not request.url.startswith(own):
            self.wrong.append(f"a request to elsewhere: {request.url}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.check()
        finally:
            self.context.close()

    def check(self):
        """Fails if something was wrong, or something was kept."""
        kept = self.page.evaluate("[Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]")
        if kept != [[], [], ""]:
            self.wrong.append(f"the page has stored something: {kept}")
        assert not self.wrong, "\n".join(self.wrong)

    def open(self, screen=""):
        """Opens a screen of the console, and waits until it has loaded."""
        self.page.goto(f"{self.stack.admin}/console/#/{screen}")
        self.settle()

    def settle(self):
        self.page.wait_for_selector("#app h1")
        wait_until_true(self.page, "!document.querySelector('.loading')")

    def snapshot(self, folder, name):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def wait_until_true(page, expression, seconds=15):
    """Waits until an expression is true. Playwright's own wait would evaluate it within the page, whose policy forbids that."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"doesn't come to hold: {expression}"
        page.wait_for_timeout(50)


def wait_until_seen(page, condition, what, seconds=15):
    """Waits until a condition of the test itself is true, such as a request that it holds; the page goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never seen: {what}"
        page.wait_for_timeout(50)


def tab_to(page, text, most=120):
    """Presses Tab until what has the focus is called `text`; fails if nothing is."""
    seen = []
    for _ in range(most):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(() => { const at = document.activeElement; return at.getAttribute('aria-label')"
            " || at.labels?.[0]?.innerText.split('\\n')[0] || at.innerText || at.value || '' })()"
        ).strip()
        if name == text:
            return
        seen.append(name)
    raise AssertionError(f"Tab never reaches {text!r}; it reaches {seen}")
