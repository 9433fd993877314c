#!/usr/bin/env python3
"""Makes the documentation's pictures of the console, `docs/images/console-*.png`, from a server with a shop's keys.

  tests/console/pictures.py [--talos FILE]
"""

import argparse
import sys
from pathlib import Path

from run import REPO, reexecute, tools

IMAGES = REPO / "docs" / "images"
SIZE = (1280, 860)


def take(stack, browser, seeded):
    """Takes the pictures of the documentation."""
    from browser import ConsolePage

    keys = seeded["keys"]
    for name, scheme, screen in [
        ("overview", "light", ""),
        ("overview", "dark", ""),
        ("keys", "light", "keys/issued"),
        ("key", "dark", f"keys/issued/{keys['GitHub Actions deploy']}"),
        ("issue", "light", "issue"),
    ]:
        with ConsolePage(browser, stack, scheme, *SIZE) as console:
            console.open(screen)
            console.page.wait_for_timeout(400)
            console.page.screenshot(path=IMAGES / f"console-{name}-{scheme}.png")
    with ConsolePage(browser, stack, "light", 860, 900) as console:
        page = console.page
        page.goto(stack.public + "/keys")
        page.get_by_label("Key", exact=True).fill(seeded["secrets"]["Partner: Nordwind GmbH"])
        page.get_by_role("button", name="Show my key").click()
        page.locator(".legend").wait_for()
        page.wait_for_timeout(400)
        page.screenshot(path=IMAGES / "console-holder-light.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talos", type=Path, default=tools.target_dir() / "debug" / "talos")
    options = parser.parse_args()
    reexecute()
    import seed
    from browser import chromium
    from stack import Stack

    with Stack(options.talos, tools.ensure_envoy()) as stack, chromium() as browser:
        take(stack, browser, seed.seed(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
