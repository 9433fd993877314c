"""Measures the effect of a million keys on cached Checks, memory, lists, the mutation log and startup."""

import http.client
import json
import statistics
import time
from pathlib import Path

from servers import LoadError, Talos
from stores import Stores, resident, stripped_size

# One key in this many is used.
USED_SHARE = 5
# Keys of the small server that the large one is compared with.
FEW = 1_000
# Keys that no Check uses, to measure first verifications.
SPARE = 500
# Keys of the database that startup is measured with.
START_KEYS = 100_000
STARTS = 5
# Settings of a large gateway: room for all keys in use, and last-used times written in large batches.
LARGE_SETTINGS = {"TALOS_CACHE_MEMORY_MAX_SIZE": str(1 << 30), "TALOS_LAST_USED_QUEUE_SIZE": "50000",
         "TALOS_LAST_USED_FLUSH_SIZE": "5000", "TALOS_LAST_USED_FLUSH_INTERVAL": "1s"}


def compare(comparison, kinds):
    """Runs the measurements on each kind of database, then those of startup."""
    stores = Stores(comparison.processes)
    try:
        for kind in kinds:
            measure_growth(comparison, stores, kind)
            comparison.processes.end()
        measure_startup(comparison, stores)
    finally:
        comparison.processes.end()
        stores.close()


def log(text):
    print(f"  {text}", flush=True)


def imported(comparison, stores, kind, name, count, keep):
    """Creates a database with imported keys; returns its DSN, the file of the kept keys, and the import rate."""
    processes = comparison.processes
    dsn, path = stores.new(kind, name), processes.directory / f"{name}-imported.json"
    talos = Talos(processes, name, dsn=dsn)
    outcome = processes.generate("import", "--admin", f"127.0.0.1:{talos.admin}", "--count", count, "--keep", keep,
                                 "--out", path)
    processes.end(talos.process)
    log(f"{kind}: {count:,} keys imported in {outcome['seconds']:.0f} s")
    return dsn, path, count / outcome["seconds"]


def measure_growth(comparison, stores, kind):
    """Runs the measurements on a database with many keys."""
    processes, table, count = comparison.processes, comparison.table, comparison.profile["keys"]
    scenario = f"{count:,} keys, {kind}"
    dsn, path, rate = imported(comparison, stores, kind, f"many-{kind}", count, count // USED_SHARE)
    table.add(scenario, "talos", "keys imported a second, 1,000 a batch", [rate])
    table.add(scenario, "database", "bytes a key, its change in the log included", [stores.size(dsn) / count])
    table.add(scenario, "database", "rows of the log of changes", [int(stores.execute(dsn, "SELECT count(*) FROM mutation_log"))])

    large = Talos(processes, f"many-{kind}", cpus=comparison.server_cpus, dsn=dsn, env=LARGE_SETTINGS)
    few_dsn, few, _ = imported(comparison, stores, kind, f"few-{kind}", FEW, FEW)
    small = Talos(processes, f"few-{kind}", cpus=comparison.server_cpus, dsn=few_dsn, env=LARGE_SETTINGS)
    keys = json.loads(path.read_text())
    keys, spare = keys[:-SPARE], keys[-SPARE:]
    path.write_text(json.dumps(keys))
    # Repeated to the length of the other list, so that the generator does the same work for both.
    some = json.loads(few.read_text())
    cycled = processes.directory / f"cycled-{kind}.json"
    cycled.write_text(json.dumps([some[n % FEW] for n in range(len(keys))]))
    memory(comparison, scenario, large, path, len(keys))
    touch(comparison, small, few)
    cached(comparison, scenario, {"many": (large, path), "few": (small, cycled)}, len(keys))
    admin(comparison, scenario, large, count, spare)
    trim(comparison, scenario, stores, large, dsn)


def touch(comparison, server, keys):
    """Sends each key once, and again for those that failed before the database connections were open."""
    first = comparison.processes.generate("check", "--target", server.target, "--keys", keys, "--once", "--streams", 2)
    outcome = comparison.processes.generate("check", "--target", server.target, "--keys", keys, "--touch", "--count", 1,
                                            "--pid", server.pid, cpus=comparison.generator_cpus)
    comparison.require_correct("sending each key once", outcome)
    return first["per_second"]


def memory(comparison, scenario, server, keys, count):
    """Measures the resident memory before and after each key was used."""
    # Memory of the startup is freed first.
    time.sleep(3)
    before = resident(server.pid)
    per_second = touch(comparison, server, keys)
    held = server.metric("talos_cache_keys")
    if held < 0.99 * count:
        raise LoadError(f"{count} keys were used, but the memory cache holds {held}")
    # Last-used times are written meanwhile.
    time.sleep(3)
    after = resident(server.pid)
    table = comparison.table
    table.add(scenario, "talos", "resident memory before a key is used, MiB", [before / 2**20])
    table.add(scenario, "talos", "bytes of resident memory a key in L1, its answer with a JWT included", [(after - before) / count])
    table.add(scenario, "talos", "keys a second that L1 takes in, 8 at once", [per_second])
    log(f"{count:,} keys in L1, {(after - before) / count:,.0f} bytes each")


def cached(comparison, scenario, servers, count):
    """Measures cached Checks over all keys in use, and over the few keys of the small server."""
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

    def call(self, method, path, body=None):
        """Sends a request; returns the response and its duration in milliseconds."""
        started = time.monotonic()
        self.connection.request(method, path, json.dumps(body) if body is not None else None,
                                {"content-type": "application/json"} if body is not None else {})
        answer = self.connection.getresponse()
        text = answer.read()
        took = (time.monotonic() - started) * 1e3
        if answer.status != 200:
            raise LoadError(f"{method} {path}: {answer.status}: {text[:300]}")
        return json.loads(text), took


def admin(comparison, scenario, server, count, spare):
    """Measures lists and verifications, one at a time."""
    plane, table, times = Admin(server.admin), comparison.table, 15
    listing = "/v2alpha1/admin/importedApiKeys?page_size="

    def pages(what, query, expected):
        took = []
        for _ in range(times):
            page, milliseconds = plane.call("GET", f"{listing}50{query}")
            if len(page["imported_api_keys"]) != expected:
                raise LoadError(f"{what}: {len(page['imported_api_keys'])} keys instead of {expected}")
            took.append(milliseconds)
        table.add(scenario, "talos", f"ms a page of 50: {what}", took)
        log(f"a page, {what}: {statistics.median(took):.1f} ms")

    pages("the first", "", 50)
    token, walked = "", []
    for _ in range(count // 2_000):
        page, milliseconds = plane.call("GET", f"{listing}1000&page_token={token}")
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
            verified, milliseconds = plane.call("POST", "/v2alpha1/admin/apiKeys:verify", {"credential": key["secret"]})
            if not verified["is_valid"] or verified["key_id"] != key["id"]:
                raise LoadError(f"verify: {verified}")
            took.append(milliseconds)
        table.add(scenario, "talos", f"ms to verify a key over HTTP, {what}", took)
        log(f"verify, {what}: {statistics.median(took):.2f} ms")


def trim(comparison, scenario, stores, server, dsn):
    """Measures how fast old rows of the mutation log are deleted."""
    stores.execute(dsn, f"UPDATE mutation_log SET at = at - {10 * 3600 * 10**6}")
    before = server.metric("talos_log_trimmed_total") or 0
    deadline, started = time.monotonic() + 150, None
    while time.monotonic() < deadline:
        trimmed = (server.metric("talos_log_trimmed_total") or 0) - before
        if trimmed and started is None:
            started, first = time.monotonic(), trimmed
        if started is not None and time.monotonic() - started > 10:
            rate = (trimmed - first) / (time.monotonic() - started)
            comparison.table.add(scenario, "talos", "rows of the log trimmed a second, in the background", [rate])
            log(f"the log is trimmed by {rate:,.0f} rows a second")
            return
        time.sleep(0.2)
    raise LoadError("the mutation log was not trimmed in time")


def measure_startup(comparison, stores):
    """Measures the time from exec to the first correct response, with an existing database."""
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
        log(f"start, {what}: {statistics.median(outcome['decided_ms'] for outcome in started):.0f} ms")
        stores.execute(dsn, f"UPDATE mutation_log SET at = at - {3 * 3600 * 10**6}")
    binary = Path(processes.binaries) / "talos"
    size = stripped_size(binary, processes.directory)
    table.add("binary", "talos", "MiB without debug information", [size and size / 2**20])
