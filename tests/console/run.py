#!/usr/bin/env python3
"""Tests of the console in a real Chromium, with a Talos and an Envoy of their own.

  tests/console/run.py                      all
  tests/console/run.py keyboard hostile     those whose names have one of these words
  tests/console/run.py --talos FILE         with this program; by default the debug build
"""

import argparse
import subprocess
import sys
import time
import traceback
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO / "envoy"), str(REPO / "tests")]

import services  # noqa: E402
import tools  # noqa: E402


def reexecute():
    """Goes on with the packages that the tests need on the path."""
    import os

    packages = [str(tools.ensure_playwright()), str(tools.ensure_python_packages())]
    if not set(packages) <= set(os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        path = os.pathsep.join(filter(None, [*packages, os.environ.get("PYTHONPATH")]))
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONPATH": path})


def checks(stack):
    """Checks that generated files are current."""
    for command in [["pack", "--check"], ["vendor", "--check"], ["generate", "--check", stack.admin]]:
        subprocess.run([sys.executable, REPO / "console" / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL)


def tests(talos, stack, browser, seeded, folder):
    """All tests, by name."""
    import changing
    import flows
    import governed
    import hostile
    import looks
    import many
    import newer
    import problems
    import roles

    yield "made_files", lambda: checks(stack)
    for look in looks.LOOKS:
        yield look.__name__, lambda look=look: look(stack, browser, seeded, folder)
    for flow in flows.FLOWS:
        yield flow.__name__, lambda flow=flow: flow(stack, browser)
    for test in [*hostile.HOSTILE, *newer.NEWER, *problems.PROBLEMS, *changing.CHANGING]:
        yield test.__name__, lambda test=test: test(stack, browser, seeded)
    yield "roles", lambda: roles.roles(talos, browser)
    yield "governed", lambda: governed.governed(talos, browser)
    yield "screens_are_quick", lambda: many.screens_are_quick(stack, browser, seeded)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="run the tests whose names have one of these")
    parser.add_argument("--talos", type=Path, default=tools.target_dir() / "debug" / "talos")
    options = parser.parse_args()
    reexecute()
    import seed
    from browser import chromium, find_chromium
    from stack import Stack

    if find_chromium() is None:
        services.install(["chromium"])
    folder = tools.target_dir() / "console"
    passed, failed = 0, []
    with Stack(options.talos, tools.ensure_envoy()) as stack, chromium() as browser:
        seeded = seed.seed(stack)
        for name, test in tests(options.talos, stack, browser, seeded, folder):
            if options.words and not any(word in name for word in options.words):
                continue
            began = time.monotonic()
            try:
                test()
                passed += 1
                print(f"  ok    {name}, {time.monotonic() - began:.1f} s", flush=True)
            except Exception:  # any: the other tests still say something
                failed.append(name)
                print(f"  FAIL  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
