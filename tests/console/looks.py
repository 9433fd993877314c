"""How the screens look: no barrier that axe knows, no overflow, in both schemes and narrow."""

import json
from pathlib import Path

import axe_playwright_python
from browser import ConsolePage

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def screens(seeded):
    """Addresses of the screens, by name."""
    keys = seeded["keys"]
    return {
        "overview": "",
        "keys": "keys/issued",
        "imported": "keys/imported",
        "key": f"keys/issued/{keys['Checkout service']}",
        "key-limited": f"keys/issued/{keys['Partner: Nordwind GmbH']}",
        "key-replaced": f"keys/issued/{keys['GitHub Actions deploy']}",
        "key-suspended": f"keys/issued/{keys[chr(65) + 'da' + chr(39) + 's laptop']}",
        "issue": "issue",
        "rotate": f"keys/issued/{keys['Search indexer']}/rotate",
        "leak": "leak",
        "routes": "routes",
        "activity": "activity",
        "instances": "instances",
        "actor": "actors/user%3Aada",
    }


def violations(page):
    """Returns the problems that axe finds on a page."""
    page.evaluate(AXE)
    found = page.evaluate(f"axe.run(document, {json.dumps(RULES)}).then((found) => found.violations)")
    return [f"{one['id']}: {one['help']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}" for one in found for node in one["nodes"]]


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def all_screens(scheme, width):
    """Returns a test of all screens in a colour scheme and width: no barriers, and no scrolling sideways."""
    def look(stack, browser, seeded, folder):
        wrong = []
        with ConsolePage(browser, stack, scheme, width) as console:
            for name, address in screens(seeded).items():
                console.open(address)
                console.page.wait_for_timeout(50)
                console.snapshot(folder, f"{name}-{scheme}-{width}")
                wrong += [f"{name}: {one}" for one in violations(console.page)]
                if overflow(console.page) > 0:
                    wrong.append(f"{name}: is {overflow(console.page)} px wider than {width}")
            console.page.goto(stack.public + "/keys")
            console.page.wait_for_selector("#app h1")
            wrong += [f"holder: {one}" for one in violations(console.page)]
        assert not wrong, "\n".join(wrong)

    look.__name__ = f"all_screens_{scheme}_{width}"
    return look


def dialogs(stack, browser, seeded, folder):
    """Dialogs, too, are without barriers, and give the focus back."""
    wrong = []
    with ConsolePage(browser, stack, "dark", 360) as console:
        page = console.page
        console.open(f"keys/issued/{seeded['keys']['Fraud scoring']}")
        for name in ["Edit", "Suspend", "Revoke"]:
            button = page.get_by_role("button", name=name)
            button.click()
            page.locator("dialog").wait_for()
            page.locator("dialog summary").click()
            wrong += [f"{name}: {one}" for one in violations(page)]
            if overflow(page) > 0:
                wrong.append(f"{name}: is wider than the window")
            page.keyboard.press("Escape")
            page.locator("dialog").wait_for(state="detached")
            assert button.evaluate("(one) => one === document.activeElement"), f"{name}: the focus is lost"
    assert not wrong, "\n".join(wrong)


def menu(stack, browser, seeded, folder):
    """The menu of narrow screens is closed by its button, by Escape, beside it, and by each of its links."""
    with ConsolePage(browser, stack, width=360) as console:
        page = console.page
        console.open("keys/issued")
        button, side = page.get_by_role("button", name="Menu"), page.locator("#side")
        for close in [
            lambda: page.keyboard.press("Escape"), lambda: button.click(), lambda: page.mouse.click(350, 300),
            # The screen that is shown already.
            lambda: side.get_by_role("link", name="Keys", exact=True).click(),
        ]:
            button.click()
            side.wait_for()
            assert side.get_by_role("link", name="Overview").is_visible()
            close()
            side.wait_for(state="hidden")
        button.click()
        side.wait_for()
        wrong = violations(page)
        page.keyboard.press("Escape")
        side.wait_for(state="hidden")
        assert button.evaluate("(one) => one === document.activeElement"), "the focus is lost"
    assert not wrong, "\n".join(wrong)


LOOKS = [all_screens("light", 1280), all_screens("dark", 1280), all_screens("light", 360), all_screens("dark", 360), dialogs, menu]
