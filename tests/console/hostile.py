"""Names, scopes and reasons that try to be more than text."""

import json
import re

from browser import ConsolePage
from stack import REPO, call

NAMES = [
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=2>",
    "\"><svg onload=window.hit=3>",
    "'-window.hit-'",
    "javascript:window.hit=4",
    "{{constructor.constructor('window.hit=5')()}}",
    "${window.hit=6}",
    "</textarea></title><iframe srcdoc='<script>parent.hit=7</script>'>",
    "abc\u202egnp.exe",
    "zero\u200bwidth\u2060\ufeff",
    "\u2066isolate\u2069",
    "tags\U000e0041\U000e0042\U000e007f",
    "\u3164\u115ffillers\uffa0",
    "joiner\u034f\u2800\ufe0f\U000e0100 end",
    "&lt;b&gt;&amp;amp;",
    "=HYPERLINK(\"https://evil.example\",\"x\")",
    "e\u0301" * 60,
    "\U0001f511" * 40,
    "x" * 255,
    "\u0626\u0644\u0639\u0631\u0628\u064a\u0629",
]


# Characters of these names that may not reach a screen as they are.
HIDDEN = "\u202e\u2066\u200b\ufeff\u2060\U000e0041\U000e007f\u3164\u115f\uffa0\u034f\u2800\ufe0f\U000e0100"


def hostile_text_stays_text(stack, browser, seeded):
    """Names with markup, directions and control characters run nothing and break no screen."""
    metadata = {name: name for name in NAMES[:6]} | {"long": "y" * 3000}
    keys = [stack.issue(name, f"actor:{number}{name.strip()}"[:255], scopes=["<b>scope</b>", "'onclick=x"], metadata=metadata)[0]
            for number, name in enumerate(NAMES)]
    for key in keys[:4]:
        stack.api("POST", f"/v2alpha1/admin/issuedApiKeys/{key['key_id']}:suspend", {"reason": key["name"]})
    with ConsolePage(browser, stack, width=360) as console:
        page = console.page
        shown = 0
        for screen in ["keys/issued", "", "activity"]:
            console.open(screen)
            text = page.inner_text("body")
            shown += sum(name in text for name in NAMES[:6])
            text += page.evaluate("[...document.querySelectorAll('[title], [aria-label]')].map((one) => `${one.title} ${one.ariaLabel}`).join(' ')")
            assert not any(char in text for char in HIDDEN), "a character that is invisible or changes its surroundings"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{screen} is too wide"
        assert shown >= 6, "the names are on no screen"
        for key in keys:
            console.open(f"keys/issued/{key['key_id']}")
            assert page.locator("#app b script, #app h1 *:not(.pill):not(svg):not(path)").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), key["name"]
            page.goto(f"{stack.admin}/console/#/actors/{key_path(key['actor_id'])}")
            console.settle()
        # An address with markup is no more than an address.
        for screen in ["keys/issued?q=<img src=x onerror=window.hit=8>", "<script>window.hit=9</script>", "activity?key=<svg onload=window.hit=1>",
                       "issue?actor=\"><img src=x onerror=window.hit=2>", "keys/issued/..%2f..%2fhealth%2falive"]:
            page.goto(f"{stack.admin}/console/#/{screen}")
            page.wait_for_selector("#app h1, #app .notice")
        assert page.evaluate("window.hit") is None
        console.wrong = [one for one in console.wrong if "net::ERR" not in one]


def invisible_characters_are_spelled_out(stack, browser, seeded):
    """The console spells out the characters that the command line escapes, and no others."""
    table = re.search(r"const INVISIBLE:.*?];", (REPO / "src" / "escape.rs").read_text(), re.DOTALL)[0]
    escaped = {point for first, last in re.findall(r"\('\\u\{(\w+)\}', '\\u\{(\w+)\}'\)", table) for point in range(int(first, 16), int(last, 16) + 1)}
    assert len(escaped) > 4000, "the table isn't read"
    with ConsolePage(browser, stack) as console:
        console.open("leak")
        spelled_out = console.page.evaluate(
            "import('/console/js/ui.js').then(({ shown }) => Array.from({ length: 0x110000 }, (_, point) => point)"
            ".filter((point) => point < 0xd800 || point > 0xdfff).filter((point) => shown(String.fromCodePoint(point)) !== String.fromCodePoint(point)))"
        )
        assert set(spelled_out) == escaped, [hex(point) for point in set(spelled_out) ^ escaped][:20]


def key_path(text):
    from urllib.parse import quote

    return quote(text, safe="")


def files_are_guarded(stack, browser, seeded):
    """The pages' headers, and what isn't served."""
    status, _ = call("GET", stack.admin + "/console/")
    assert status == 200
    for path in ["/console/../Cargo.toml", "/console/%2e%2e/Cargo.toml", "/console/keys.html", "/console/js/", "/console/nothing.js", "/consolex"]:
        assert call("GET", stack.admin + path)[0] == 404, path
    assert call("GET", stack.public + "/console/")[0] == 404
    # Pages of other sites neither frame nor read it; a link to it works.
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
    assert call("GET", stack.admin + "/console/js/main.js", headers=foreign)[0] == 403
    opened = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert call("GET", stack.admin + "/console/", headers=opened)[0] == 200
    framed = opened | {"sec-fetch-dest": "iframe"}
    assert call("GET", stack.admin + "/console/", headers=framed)[0] == 403
    assert call("GET", stack.admin + "/v2alpha1/admin/issuedApiKeys", headers=opened)[0] == 403
    # A name that leads here doesn't help a page of another site (DNS rebinding).
    assert call("GET", stack.admin + "/console/", headers={"host": "evil.example"})[0] == 403
    # Forms of other sites can't send JSON: anything else is refused, and there are no cookies to ride on.
    body = json.dumps({"name": "a", "actor_id": "b"})
    status, text = call("POST", stack.admin + "/v2alpha1/admin/issuedApiKeys", body, {"content-type": "text/plain", "origin": "https://evil.example"})
    assert status == 403, text


HOSTILE = [hostile_text_stays_text, invisible_characters_are_spelled_out, files_are_guarded]
