"""What a million keys do: to a cached Check, to memory, to lists, to the log of changes, and to a start."""

import http.client
import json
import statistics
import time
from pathlib import Path

from servers import LoadError, Talos
from stores import Stores, resident, stripped_size

# A key in so many is asked for.
SHARE = 5
# Keys of the server that the large one is compared with.
FEW = 1_000
# Keys that no Check asks for: for what a first look costs.
SPARE = 500
# Keys of the database that a start is measured with.
START_KEYS = 100_000
STARTS = 5
# Settings that a large gateway would have, too: room for all keys in use, and their uses noted in large batches.
ROOMY = {"TALOS_CACHE_MEMORY_MAX_SIZE": str(1 << 30), "TALOS_LAST_USED_QUEUE_SIZE": "50000",
         "TALOS_LAST_USED_FLUSH_SIZE": "5000", "TALOS_LAST_USED_FLUSH_INTERVAL": "1s"}


def compare(comparison, kinds):
    """All of it, on each kind of database; then a start."""
    stores = Stores(comparison.processes)
    try:
        for kind in kinds:
            grown(comparison, stores, kind)
            comparison.processes.end()
        start(comparison, stores)
    finally:
        comparison.processes.end()
        stores.close()


def say(text):
    print(f"  {text}", flush=True)


def imported(comparison, stores, kind, name, count, keep):
    """A new database with so many imported keys: its DSN, and the file of those that are kept."""
    processes = comparison.processes
    dsn, path = stores.new(kind, name), processes.folder / f"{name}-imported.json"
    talos = Talos(processes, name, dsn=dsn)
    outcome = processes.generate("import", "--admin", f"127.0.0.1:{talos.admin}", "--count", count, "--keep", keep,
                                 "--out", path)
    processes.end(talos.process)
    say(f"{kind}: {count:,} keys imported in {outcome['seconds']:.0f} s")
    return dsn, path, count / outcome["seconds"]


def grown(comparison, stores, kind):
    """A database of many keys."""
    processes, table, count = comparison.processes, comparison.table, comparison.profile["keys"]
    scenario = f"{count:,} keys, {kind}"
    dsn, path, rate = imported(comparison, stores, kind, f"many-{kind}", count, count // SHARE)
    table.add(scenario, "talos", "keys imported a second, 1,000 a batch", [rate])
    table.add(scenario, "database", "bytes a key, its change in the log included", [stores.size(dsn) / count])
    table.add(scenario, "database", "rows of the log of changes", [int(stores.execute(dsn, "SELECT count(*) FROM mutation_log"))])

    large = Talos(processes, f"many-{kind}", cpus=comparison.server_cpus, dsn=dsn, env=ROOMY)
    few_dsn, few, _ = imported(comparison, stores, kind, f"few-{kind}", FEW, FEW)
    small = Talos(processes, f"few-{kind}", cpus=comparison.server_cpus, dsn=few_dsn, env=ROOMY)
    keys = json.loads(path.read_text())
    keys, spare = keys[:-SPARE], keys[-SPARE:]
    path.write_text(json.dumps(keys))
    # As long as the other, so that the generator has as much to do for both.
    some = json.loads(few.read_text())
    cycled = processes.folder / f"cycled-{kind}.json"
    cycled.write_text(json.dumps([some[n % FEW] for n in range(len(keys))]))
    memory(comparison, scenario, large, path, len(keys))
    touch(comparison, small, few)
    cached(comparison, scenario, {"many": (large, path), "few": (small, cycled)}, len(keys))
    admin(comparison, scenario, large, count, spare)
    trim(comparison, scenario, stores, large, dsn)


def touch(comparison, server, keys):
    """Asks for each key once. A first burst may come before the connections to the database are open: it comes again."""
    first = comparison.processes.generate("check", "--target", server.target, "--keys", keys, "--once", "--streams", 2)
    outcome = comparison.processes.generate("check", "--target", server.target, "--keys", keys, "--touch", "--count", 1,
                                            "--pid", server.pid, cpus=comparison.generator_cpus)
    comparison.must_be_right("asking for each key once", outcome)
    return first["per_second"]


def memory(comparison, scenario, server, keys, count):
    """What the keys in use take: resident memory before and after each was asked for."""
    # What the start needed is given back first.
    time.sleep(3)
    before = resident(server.pid)
    per_second = touch(comparison, server, keys)
    held = server.metric("talos_cache_keys")
    if held < 0.99 * count:
        raise LoadError(f"{count} keys were asked for, L1 holds {held}")
    # The uses of the keys are written meanwhile.
    time.sleep(3)
    after = resident(server.pid)
    table = comparison.table
    table.add(scenario, "talos", "resident memory before a key is used, MiB", [before / 2**20])
    table.add(scenario, "talos", "bytes of resident memory a key in L1, its answer with a JWT included", [(after - before) / count])
    table.add(scenario, "talos", "keys a second that L1 takes in, 8 at once", [per_second])
    say(f"{count:,} keys in L1, {(after - before) / count:,.0f} bytes each")


def cached(comparison, scenario, servers, count):
    """Cached Checks over all keys in use, and over few on a server that has no others."""
    profile = comparison.profile
    load = ["--connections", profile["connections"], "--streams", profile["streams"]]
    for zipf in ("1.0", "0"):
        def measure(entry, n, zipf=zipf):
            server, keys = entry
            return comparison.check_round(server, keys, *load, "--zipf", zipf, "--seed", n + 1)

        name = f"{scenario}, {count:,} in L1, {'Zipf 1.0' if zipf == '1.0' else 'all alike'}"
        comparison.compare(name, servers, measure, {"CPU µs a Check": lambda o: o["cpu_us"][0]}, base="few")


class Admin:
    """A connection to the admin plane."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method, path, body=None):
        """The answer, and how many milliseconds it took."""
        began = time.monotonic()
        self.connection.request(method, path, json.dumps(body) if body is not None else None,
                                {"content-type": "application/json"} if body is not None else {})
        answer = self.connection.getresponse()
        text = answer.read()
        took = (time.monotonic() - began) * 1e3
        if answer.status != 200:
            raise LoadError(f"{method} {path}: {answer.status}: {text[:300]}")
        return json.loads(text), took


def admin(comparison, scenario, server, count, spare):
    """Lists and verifications, one after the other."""
    plane, table, times = Admin(server.admin), comparison.table, 15
    listing = "/v2alpha1/admin/importedApiKeys?page_size="

    def pages(what, query, expected):
        took = []
        for _ in range(times):
            page, milliseconds = plane.ask("GET", f"{listing}50{query}")
            if len(page["imported_api_keys"]) != expected:
                raise LoadError(f"{what}: {len(page['imported_api_keys'])} keys instead of {expected}")
            took.append(milliseconds)
        table.add(scenario, "talos", f"ms a page of 50: {what}", took)
        say(f"a page, {what}: {statistics.median(took):.1f} ms")

    pages("the first", "", 50)
    token, walked = "", []
    for _ in range(count // 2_000):
        page, milliseconds = plane.ask("GET", f"{listing}1000&page_token={token}")
        token = page["next_page_token"]
        walked.append(milliseconds)
    table.add(scenario, "talos", f"ms a page of 1,000, {len(walked)} in turn", walked)
    pages(f"after {count // 2:,} keys", f"&page_token={token}", 50)
    pages("one actor's", f"&filter=actor_id%3D%22user:{count // 2 + 1}%22", 1)
    pages("active ones", "&filter=status%3DKEY_STATUS_ACTIVE", 50)
    pages("revoked ones, of which there are none", "&filter=status%3DKEY_STATUS_REVOKED", 0)
    for what in ("the first time", "then"):
        took = []
        for key in spare:
            verified, milliseconds = plane.ask("POST", "/v2alpha1/admin/apiKeys:verify", {"credential": key["secret"]})
            if not verified["is_valid"] or verified["key_id"] != key["id"]:
                raise LoadError(f"verify: {verified}")
            took.append(milliseconds)
        table.add(scenario, "talos", f"ms to verify a key over HTTP, {what}", took)
        say(f"verify, {what}: {statistics.median(took):.2f} ms")


def trim(comparison, scenario, stores, server, dsn):
    """How quickly the log goes once it is old."""
    stores.execute(dsn, f"UPDATE mutation_log SET at = at - {10 * 3600 * 10**6}")
    before = server.metric("talos_log_trimmed_total") or 0
    deadline, began = time.monotonic() + 150, None
    while time.monotonic() < deadline:
        trimmed = (server.metric("talos_log_trimmed_total") or 0) - before
        if trimmed and began is None:
            began, first = time.monotonic(), trimmed
        if began is not None and time.monotonic() - began > 10:
            rate = (trimmed - first) / (time.monotonic() - began)
            comparison.table.add(scenario, "talos", "rows of the log trimmed a second, in the background", [rate])
            say(f"the log is trimmed by {rate:,.0f} rows a second")
            return
        time.sleep(0.2)
    raise LoadError("the log was not trimmed")


def start(comparison, stores):
    """From exec to the first right answer, with a database that is there."""
    processes, table = comparison.processes, comparison.table
    dsn, path, _ = imported(comparison, stores, "sqlite", "start", START_KEYS, 10)
    settled = Talos(processes, "start", cpus=comparison.server_cpus, dsn=dsn)
    processes.end(settled.process)
    for what in ("just imported", "an hour old"):
        started = []
        for _ in range(STARTS):
            outcome = processes.generate("start", "--target", settled.target, "--keys", path, "--rest", 1, "--",
                                         processes.binaries / "talos", "serve", env=settled.environment)
            started.append(outcome)
        scenario = f"start, sqlite, {START_KEYS:,} keys {what}"
        table.add(scenario, "talos", "ms from exec to the first decision", [outcome["decided_ms"] for outcome in started])
        table.add(scenario, "talos", "ms from exec until it listens", [outcome["listens_ms"] for outcome in started])
        table.add(scenario, "talos", "CPU ms of the start", [outcome["cpu_ms"] for outcome in started])
        table.add(scenario, "talos", "resident memory idle, MiB", [outcome["resident"] / 2**20 for outcome in started])
        say(f"start, {what}: {statistics.median(outcome['decided_ms'] for outcome in started):.0f} ms")
        stores.execute(dsn, f"UPDATE mutation_log SET at = at - {3 * 3600 * 10**6}")
    binary = Path(processes.binaries) / "talos"
    size = stripped_size(binary, processes.folder)
    table.add("binary", "talos", "MiB without debug information", [size and size / 2**20])
