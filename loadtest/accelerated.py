"""Comparison through Envoy with a real upstream: alone, with its own api_key_auth, the floor, Talos, and the accelerator."""

import http.client
import json
import time

import edge
import tools
from servers import Floor, LoadError, Talos, free_port, status

# Connections of the client, one scenario each.
CONNECTIONS = (1, 8, 32)
# Share of requests that must be hits before the accelerator is measured, and the time to get there.
KNOWN = 0.97
WARM_UP_SECONDS = 120
MAX_BYTES = 256 * 1024 * 1024
# Settings of routes for the accelerator. With the second one no key has an entry, while ext_authz, which doesn't see it, lets
# every key pass: each request is a miss.
OPTED_IN = {"accelerate": True}
WITHOUT_ENTRIES = {"accelerate": True, "settings": {"talos.scopes": "load:nobody"}}
LIBRARY = "libtalos_module.so"
# Names of the servers in the tables.
ALONE, PLAIN, FAST, MISSES = "Envoy alone", "talos", "talos, accelerated", "talos, accelerator without the key"


def find_library(binaries):
    """Returns the directory of the module."""
    found = [place for place in (binaries, binaries / "deps") if (place / LIBRARY).exists()]
    if not found:
        raise LoadError(f"{LIBRARY} isn't in {binaries}: build it with `cargo build -p talos-module`")
    return found[0]


def module(socket):
    """Returns the accelerator as a filter."""
    kind = "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter"
    settings = json.dumps({"socket": str(socket), "max_bytes": MAX_BYTES})
    return {
        "name": "talos.accelerator",
        "typed_config": {
            "@type": kind, "dynamic_module_config": {"name": "talos_module", "do_not_close": True},
            "filter_name": "accelerator", "filter_config": text(settings),
        },
    }


def text(value):
    return {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": value}


def opted_in(settings):
    """Returns the configuration of routes for the accelerator."""
    kind = "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute"
    return {"talos.accelerator": {
        "@type": kind, "dynamic_module_config": {"name": "talos_module", "do_not_close": True},
        "filter_config": text(json.dumps(settings)),
    }}


def skipped_by_decision(authz):
    """Returns an ext_authz filter that skips what the module let pass, as envoy/accelerated.yaml says."""
    condition = {
        "filter": "envoy.filters.http.ext_authz", "path": [{"key": "decision"}],
        "value": {"string_match": {"exact": "allow"}}, "invert": True,
    }
    return {**authz, "typed_config": {**authz["typed_config"], "filter_enabled_metadata": condition}}


class Edge:
    """An Envoy in front of the upstream."""

    def __init__(self, comparison, name, filters=(), clusters=(), server=None, keys=None, routes=None):
        processes = comparison.processes
        self.port, self.admin, self.server, self.keys = free_port(), free_port(), server, keys
        config = edge.configuration(self.port, self.admin, filters, [comparison.upstream_cluster, *clusters])
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        host = manager["route_config"]["virtual_hosts"][0]
        host["routes"] = [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]
        if routes:
            host["typed_per_filter_config"] = opted_in(routes)
        path = processes.directory / f"{name}.json"
        path.write_text(json.dumps(config))
        command = [tools.ensure_envoy(), "--config-path", path, "--concurrency", 1, "--log-level", "warning",
                   "--base-id", 1 + self.port, "--disable-hot-restart"]
        env = {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(find_library(processes.binaries))} if routes else None
        self.process = processes.start(name, command, env)
        processes.wait_until("Envoy is ready", lambda: status(self.admin, "/ready") == 200)

    @property
    def pids(self):
        return [self.process.pid, *([self.server.pid] if self.server else [])]

    def counters(self):
        """Returns the requests that the module has let pass, and all that it has looked at."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        connection.request("GET", "/stats?filter=^dynamicmodulescustom.talos_&format=json")
        found = {one["name"].rsplit("talos_", 1)[1]: one["value"] for one in json.load(connection.getresponse())["stats"]
                 if "name" in one}
        connection.close()
        return found["hits"], sum(found[name] for name in ("hits", "misses", "stale", "left_alone"))


def warm_up(comparison, fast):
    """Sends requests until the accelerator knows nearly every key that is asked for."""
    deadline = time.monotonic() + WARM_UP_SECONDS
    while True:
        before = fast.counters()
        send(comparison, fast, 0, 8, 2)
        hits, all_requests = (now - then for now, then in zip(fast.counters(), before))
        if hits >= KNOWN * all_requests:
            return
        if time.monotonic() > deadline:
            raise LoadError(f"the accelerator knew the key of {hits} of {all_requests} requests only")


def send(comparison, one, seed, connections, seconds):
    """Runs one round of requests; every response must be right."""
    always_ok = ["--always-ok"] if not isinstance(one.server, Talos) else []
    arguments = ["edge", "--target", f"127.0.0.1:{one.port}", "--keys", one.keys, "--seed", seed,
                 "--seconds", seconds, "--connections", connections, *always_ok]
    for pid in one.pids:
        arguments += ["--pid", pid]
    outcome = comparison.processes.generate(*arguments)
    comparison.require_correct("through Envoy", outcome)
    return outcome


def start_all(comparison):
    """Starts the upstream and all servers; returns the Envoys by name."""
    processes, profile = comparison.processes, comparison.profile
    upstream = edge.Envoy(processes, tools.ensure_envoy(), "upstream", 1)
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream.port}}}}
    comparison.upstream_cluster = {
        "name": "upstream", "type": "STATIC",
        "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    talos = Talos(processes, "talos-accelerated", unix=True, env={"TALOS_AUTHZ_EDGE_ENABLED": "true"})
    floor = Floor(processes, "floor-accelerated")
    keys = talos.issue(profile["keys"])
    processes.generate("check", "--target", talos.target, "--keys", keys, "--touch", "--seconds", 1)
    secrets = [key["secret"] for key in json.loads(keys.read_text())]
    to_floor, floor_cluster = edge.ext_authz(floor.port)
    to_talos, talos_cluster = edge.ext_authz(talos.port)
    socket = talos.target.removeprefix("unix:")
    endpoint = talos_cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"] = {"pipe": {"path": socket}}

    def start(name, filters=(), clusters=(), server=None, routes=None):
        file = "with-upstream-" + "".join(letter if letter.isalnum() else "-" for letter in name)
        return Edge(comparison, file, filters, clusters, server, keys, routes)

    def accelerated(name, routes):
        return start(name, [module(socket), skipped_by_decision(to_talos)], [talos_cluster], talos, routes)

    native = f"api_key_auth, {len(secrets):,} keys"
    return {
        ALONE: start(ALONE),
        native: start(native, [edge.api_key_auth(secrets)]),
        "floor": start("floor", [to_floor], [floor_cluster], floor),
        PLAIN: start(PLAIN, [to_talos], [talos_cluster], talos),
        FAST: accelerated(FAST, OPTED_IN),
        MISSES: accelerated(MISSES, WITHOUT_ENTRIES),
    }


def compare(comparison):
    """Measures all at each number of connections, in turn."""
    profile = comparison.profile
    edges = start_all(comparison)
    warm_up(comparison, edges[FAST])
    before, profile["rounds"] = profile["rounds"], comparison.options.rounds or max(profile["rounds"], edge.MIN_ROUNDS)
    figures = {
        "Envoy's CPU µs a request": lambda o: o["cpu_us"][0],
        "server's CPU µs a request": lambda o: o["cpu_us"][1] if len(o["cpu_us"]) > 1 else None,
        "requests a second": lambda o: o["per_second"],
        "p50 µs": lambda o: o["latency_us"]["p50"],
        "p99 µs": lambda o: o["latency_us"]["p99"],
        "% hits of the accelerator": lambda o: o.get("hits"),
    }
    for connections in CONNECTIONS:
        def measure(one, n, connections=connections):
            is_accelerated = one in (edges[FAST], edges[MISSES])
            then = one.counters() if is_accelerated else None
            outcome = send(comparison, one, n + 1, connections, profile["seconds"] / 2)
            if is_accelerated:
                hits, all_requests = (now - then for now, then in zip(one.counters(), then))
                outcome["hits"] = 100 * hits / max(all_requests, 1)
            return outcome

        scenario = f"with an upstream, {connections} connection{'s' if connections > 1 else ''}"
        comparison.compare(scenario, edges, measure, figures, base=ALONE)
        add_shares(comparison.table, scenario)
    profile["rounds"] = before
    comparison.processes.end()


def add_shares(table, scenario):
    """Adds, round by round, what the accelerator and its misses add to Envoy's CPU, as a share of what ext_authz adds."""
    figure = "Envoy's CPU µs a request"
    rows = {server: values for name, server, what, values in table.rows if (name, what) == (scenario, figure)}
    for server in (FAST, MISSES):
        added = [(one - alone) / (plain - alone) for one, plain, alone in zip(rows[server], rows[PLAIN], rows[ALONE])
                 if plain > alone]
        table.add(scenario, server, "added CPU of Envoy, of what talos adds", added)
