"""Comparison through Envoy: alone, with its own api_key_auth, with the floor, and with Talos."""

import json

import tools
from servers import Floor, Talos, free_port, status

# Share of the saturation throughput at which latencies are measured.
LATENCY_LOAD = 0.7
# Minimum number of rounds: the noise is about a third.
MIN_ROUNDS = 15


def configuration(listen, admin, filters, clusters=()):
    """Returns the configuration of an Envoy that answers requests itself after its filters."""
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    address = {"socket_address": {"address": "127.0.0.1", "port_value": listen}}
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    http = {
        "@type": manager, "stat_prefix": "edge", "use_remote_address": True, "normalize_path": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}]}
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [{"name": "edge", "address": address, "filter_chains": [chain]}],
            "clusters": list(clusters),
        },
    }


def ext_authz(port):
    """Returns the ext_authz filter and its cluster, with the settings of envoy/envoy.yaml."""
    filter_type = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
    options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    authz = {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": filter_type, "transport_api_version": "V3", "failure_mode_allow": False,
            "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "0.25s"},
            "encode_raw_headers": True, "validate_mutations": True, "status_on_error": {"code": "ServiceUnavailable"},
        },
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    cluster = {
        "name": "authz", "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options, "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return authz, cluster


def api_key_auth(secrets):
    """Returns Envoy's own filter with these keys in its configuration."""
    filter_type = "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
    credentials = [{"key": secret, "client": f"client-{n}"} for n, secret in enumerate(secrets)]
    config = {"@type": filter_type, "credentials": credentials, "key_sources": [{"header": "authorization"}]}
    return {"name": "envoy.filters.http.api_key_auth", "typed_config": config}


class Envoy:
    """An Envoy in front of one server, or of none."""

    def __init__(self, processes, envoy, name, concurrency, filters=(), clusters=(), server=None, keys=None):
        self.port, admin, self.server, self.keys = free_port(), free_port(), server, keys
        path = processes.directory / f"{name}.json"
        path.write_text(json.dumps(configuration(self.port, admin, filters, clusters)))
        command = [envoy, "--config-path", path, "--concurrency", concurrency, "--log-level", "warning",
                   "--base-id", 1 + self.port, "--disable-hot-restart"]
        self.process = processes.start(name, command)
        processes.wait_until("Envoy is ready", lambda: status(admin, "/ready") == 200)

    @property
    def pids(self):
        return [self.process.pid, *([self.server.pid] if self.server else [])]


def compare(comparison):
    """Measures throughput and cost of Envoy with each, then latencies at a share of the floor's throughput."""
    processes, profile = comparison.processes, comparison.profile
    envoy = tools.ensure_envoy()
    for concurrency in (1, 2):
        talos, floor = Talos(processes, f"talos-edge-{concurrency}"), Floor(processes, f"floor-edge-{concurrency}")
        keys = talos.issue(profile["keys"])
        # Fills the cache: first Checks of keys are measured by the profile `misses`.
        processes.generate("check", "--target", talos.target, "--keys", keys, "--touch", "--seconds", 1)
        few = processes.directory / f"few-{concurrency}.json"
        few.write_text(json.dumps(json.loads(keys.read_text())[:10]))
        secrets = [key["secret"] for key in json.loads(keys.read_text())]

        def behind(server, name):
            authz, cluster = ext_authz(server.port)
            return Envoy(processes, envoy, f"{name}-{concurrency}", concurrency, [authz], [cluster], server, keys)

        def own(count, name, file):
            return Envoy(processes, envoy, f"{name}-{concurrency}", concurrency, [api_key_auth(secrets[:count])], keys=file)

        edges = {
            "Envoy alone": Envoy(processes, envoy, f"alone-{concurrency}", concurrency, keys=keys),
            "api_key_auth, 10 keys": own(10, "ten", few),
            f"api_key_auth, {len(secrets):,} keys": own(len(secrets), "all", keys),
            "floor": behind(floor, "floor"),
            "talos": behind(talos, "talos"),
        }

        def measure(edge, n, rate=None):
            always_ok = ["--always-ok"] if edge.server is not talos else []
            arguments = ["edge", "--target", f"127.0.0.1:{edge.port}", "--keys", edge.keys, "--seed", n + 1,
                         "--seconds", profile["seconds"] / 2, "--connections", 32, *always_ok,
                         *(["--rate", rate] if rate else [])]
            for pid in edge.pids:
                arguments += ["--pid", pid]
            outcome = processes.generate(*arguments)
            comparison.require_correct("through Envoy", outcome)
            return outcome

        scenario = f"through Envoy, --concurrency {concurrency}"
        figures = {
            "requests a second": lambda o: o["per_second"],
            "Envoy's CPU µs a request": lambda o: o["cpu_us"][0],
            "server's CPU µs a request": lambda o: o["cpu_us"][1] if len(o["cpu_us"]) > 1 else None,
        }
        before, profile["rounds"] = profile["rounds"], comparison.options.rounds or max(profile["rounds"], MIN_ROUNDS)
        comparison.compare(scenario, edges, measure, figures)
        of_floor = [row for name, server, what, row in comparison.table.rows
                    if (name, server, what) == (scenario, "floor", "requests a second")][0]
        rate = round(sorted(of_floor)[len(of_floor) // 2] * LATENCY_LOAD)
        two = {name: edges[name] for name in ("floor", "talos")}
        figures = {"p50 µs": lambda o: o["latency_us"]["p50"], "p99 µs": lambda o: o["latency_us"]["p99"]}
        comparison.compare(f"{scenario}, {LATENCY_LOAD:.0%} of the floor's saturation", two,
                           lambda edge, n: measure(edge, n, rate), figures)
        profile["rounds"] = before
        processes.end()
