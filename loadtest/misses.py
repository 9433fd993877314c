"""Measures Checks whose key is not in memory, by the store that answers, together with that store's round trip."""

from servers import LoadError, Talos
from stores import Stores

# Keys that make a new process open connections and prepare statements before the measurement.
WARM_UP_KEYS = 256
# Concurrent Checks: connections × streams.
LOADS = {"one after the other": (1, 1), "64 at once": (4, 16)}
# Settings that put off writing last-used times: all keys are new, so they would be written during the Checks.
NO_LAST_USED = {"TALOS_LAST_USED_FLUSH_INTERVAL": "1h", "TALOS_LAST_USED_FLUSH_SIZE": "1000000", "TALOS_CACHE_TTL": "1h"}
WITHOUT_TOKEN = {"TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS": ""}


def compare(comparison, tiers):
    """Runs the rounds of each store: each key once, then again, then without Talos."""
    for tier in tiers:
        stores = Stores(comparison.processes)
        try:
            measure_store(comparison, stores, tier)
        finally:
            comparison.processes.end()
            stores.close()


def measure_store(comparison, stores, tier):
    """Measures misses of one store, under each load."""
    processes, profile = comparison.processes, comparison.profile
    count, environment, bare = profile["keys"], dict(NO_LAST_USED), []
    dsn = stores.new("postgres" if tier == "postgres" else "sqlite", f"misses-{tier}")
    if tier == "redis":
        port = stores.redis()
        environment |= {"TALOS_CACHE_TYPE": "redis", "TALOS_CACHE_REDIS_ADDRS": f"127.0.0.1:{port}"}
        bare = ["--redis", f"redis://127.0.0.1:{port}"]
    author = Talos(processes, f"author-{tier}", dsn=dsn, env=environment)
    keys, warm_up = author.issue(count), author.issue(WARM_UP_KEYS)
    bare = bare or ["--database", dsn, "--keys", keys]
    # These lookups fill Redis, if there is one.
    outcome = processes.generate("check", "--target", author.target, "--keys", keys, "--once", "--streams", 2)
    comparison.require_correct(tier, outcome)
    processes.end(author.process)
    for load, (connections, streams) in LOADS.items():
        kinds = {"": environment}
        if tier == "sqlite":
            kinds[", no token minted"] = environment | WITHOUT_TOKEN
        for suffix, settings in kinds.items():
            scenario = f"miss, {tier}, {load}{suffix}"
            rounds = [one_round(comparison, tier, dsn, settings, (keys, warm_up), (connections, streams), bare)
                      for _ in range(profile["rounds"])]
            add_results(comparison, scenario, rounds)


def one_round(comparison, tier, dsn, settings, keys, load, bare):
    """Runs one round: a new process, each key once, each key again, then the bare client."""
    processes, count = comparison.processes, comparison.profile["keys"]
    talos = Talos(processes, f"reader-{tier}", cpus=comparison.server_cpus, dsn=dsn, env=settings)
    check = ["--connections", load[0], "--streams", load[1], "--once"]
    keys, warm_up = keys
    processes.generate("check", "--target", talos.target, "--keys", warm_up, *check)
    before = store_reads(talos)
    missed = comparison.check_round(talos, keys, *check)
    reads, hits = (now - then for now, then in zip(store_reads(talos), before))
    by_tier = hits if tier == "redis" else reads
    # Under load Redis may exceed `cache.redis.check_timeout`; the database is read then.
    tolerance = (0.01 if load == (1, 1) else 0.2) * count
    if by_tier < count - tolerance or (tier == "redis" and reads > tolerance):
        raise LoadError(f"{tier}: of {count} misses {hits:.0f} were answered by Redis, {reads:.0f} by the database")
    cached = comparison.check_round(talos, keys, *check)
    processes.end(talos.process)
    alone = processes.generate("bare", *bare, "--streams", load[0] * load[1], cpus=comparison.server_cpus)
    comparison.require_correct(f"bare {tier}", alone)
    return missed, cached, alone


def store_reads(talos):
    """Returns the number of rows read from the database, and of hits in Redis."""
    return talos.metric("talos_store_key_reads_total"), talos.metric("talos_redis_hits_total") or 0


def add_results(comparison, scenario, rounds):
    """Adds the medians of all three to the table, and the part of a miss beyond the other two."""
    table, figure = comparison.table, "p50 µs"
    p50 = [[outcome["latency_us"]["p50"] for outcome in outcomes] for outcomes in rounds]
    for n, server in enumerate(["talos, miss", "talos, cached", "bare client"]):
        table.add(scenario, server, figure, [row[n] for row in p50])
    above = [missed - cached - alone for missed, cached, alone in p50]
    table.add(scenario, "miss above cached and bare", figure, above)
    cost = [missed["cpu_us"][0] - cached["cpu_us"][0] for missed, cached, _ in rounds]
    table.add(scenario, "talos, miss above cached", "CPU µs a Check", cost)
    table.add(scenario, "bare client", "CPU µs a read, the client's own", [alone["generator_cpu_us"] for _, _, alone in rounds])
    last = [sorted(row)[len(row) // 2] for row in (*zip(*p50), above, cost)]
    print("  {}: p50 of a miss {:.0f} µs, cached {:.0f}, bare client {:.0f}: {:.0f} above; CPU {:.1f} µs more"
          .format(scenario, *last), flush=True)
