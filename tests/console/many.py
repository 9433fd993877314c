"""A hundred thousand keys and a year of usage: each screen's first useful paint."""

import sqlite3
import time
import uuid

import seed
from browser import ConsolePage

KEYS = 100_000
DAYS = 400
# Maximum time from navigation until the main content of a screen is visible: generous, as this is a debug build.
MAX_MILLISECONDS = 4_000


def fill(stack, pattern):
    """Copies a key 100,000 times, and gives the first 50 copies usage for days 41 to 399."""
    now = int(time.time())
    with sqlite3.connect(stack.database, timeout=60) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM api_keys WHERE key_id = ?", (pattern,)).fetchone())
        names = list(row)
        rows = []
        for number in range(KEYS):
            at = (now - number * 300) * 1_000_000
            rows.append(tuple((row | {"key_id": str(uuid.UUID(int=(0x4000 << 64) + (0x8 << 60) + number, version=4)), "name": f"Key {number:06}",
                                      "actor_id": f"user:{number % 5000}", "created_at": at, "updated_at": at}).values()))
        connection.executemany(f"INSERT INTO api_keys ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", rows)
        today = now // 86_400 * 86_400
        connection.executemany(
            "INSERT INTO usage_days (network_id, day_at, key_id, route, outcome, n) VALUES (?, ?, ?, 'default', ?, ?)",
            [(seed.NIL, (today - day * 86_400) * 1_000_000, rows[number][names.index("key_id")], outcome, 1000 + number)
             for day in range(41, DAYS) for number in range(50) for outcome in ("allow", "rate_limited")],
        )
    connection.close()


def screens_are_quick(stack, browser, seeded):
    """Screens with many keys, and much usage, come up in time."""
    fill(stack, seeded["keys"]["Search indexer"])
    times = {}
    with ConsolePage(browser, stack) as console:
        page = console.page
        key = f"keys/issued/{seeded['keys']['Checkout service']}"
        for name, screen, what in [
            ("keys", "keys/issued", "a.row-link"), ("keys of an actor", "keys/issued?actor=user%3A42", "a.row-link"),
            ("key", key, ".legend"), ("overview", "", ".stat .value"), ("instance", "instances", ".stat"), ("actor", "actors/user%3A42", "a.clip"),
        ]:
            page.goto("about:blank")
            began = time.monotonic()
            page.goto(f"{stack.admin}/console/#/{screen}")
            page.locator(what).first.wait_for()
            times[name] = round((time.monotonic() - began) * 1000)
    print("    " + ", ".join(f"{name} {milliseconds} ms" for name, milliseconds in times.items()), flush=True)
    slow = {name: one for name, one in times.items() if one > MAX_MILLISECONDS}
    assert not slow, slow
