#!/usr/bin/env python3
"""Tests the examples for Istio and Envoy Gateway: validates them, converts them to Envoy configurations, and runs these.

Neither product is available for tests, so `istio` and `envoy_gateway` do the conversion. Envoy validates the result,
`talos doctor` has no findings, and requests through a running Envoy and Talos have the documented results.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO / "envoy"))

import tools  # noqa: E402

sys.path.insert(0, str(tools.ensure_kubernetes_validate()))

import envoy_gateway  # noqa: E402
import istio  # noqa: E402
import run  # noqa: E402
import schemas  # noqa: E402
import yaml  # noqa: E402

FILES = {"istio": ["gateway.yaml", "mesh-config.yaml", "talos.yaml"],
         "envoy-gateway": ["gateway.yaml", "patch.yaml", "talos.yaml"]}
# Findings of `talos doctor` in the example for Envoy Gateway without its patches.
UNPATCHED = {"warning raw-headers", "warning validate-mutations", "note no-health-check", "note forged-trailers",
             "note endless-streams"}
FORGED = {"x-talos-actor-id": "mallory", "x-talos-foo": "mallory"}
TALOS = """
serve:
  public: { host: 127.0.0.1 }
authz:
  routes: %s
"""
ISTIO_ROUTES = """
    - { path: { prefix: /open }, mode: "off" }
    - { path: { prefix: /reports }, scopes: reports:read }
"""
# Broken examples: directory, file, a text and its replacement, the check that must find it, and a part of its message.
BROKEN = [
    ("istio", "mesh-config.yaml", "timeout: 0.25s", "timeot: 0.25s", "own", "timeot is unknown"),
    ("istio", "mesh-config.yaml", 'statusOnError: "503"', "statusOnError: 503", "own", "statusOnError is 503"),
    ("istio", "mesh-config.yaml", "service: talos-authz.", "service: authz.", "own", "is for another host"),
    ("istio", "mesh-config.yaml", "timeout: 0.25s", "timeout: 25s", "doctor", "timeout"),
    ("istio", "mesh-config.yaml", "failOpen: false", "failOpen: true", "doctor", "fail-open"),
    ("istio", "mesh-config.yaml", 'statusOnError: "503"', "# none", "doctor", "status-on-error"),
    ("istio", "gateway.yaml", "action: CUSTOM", "action: CUSTOMS", "schema", "action"),
    ("istio", "gateway.yaml", "targetRefs:", "targetRef:", "schema", "targetRef"),
    ("istio", "gateway.yaml", "name: talos # from", "name: tallos # from", "own", "no such provider"),
    ("istio", "gateway.yaml", "rules: [{}]", "rules: [{ to: [{ operation: { paths: [/a] } }] }]", "own", "all requests"),
    ("istio", "gateway.yaml", "applyTo: CLUSTER", "applyTo: CLUSTERS", "schema", "applyTo"),
    ("istio", "gateway.yaml", "workloadSelector:", "workloadSelectors:", "schema", "workloadSelectors"),
    ("istio", "gateway.yaml", "encode_raw_headers: true", "encode_raw_header: true", "envoy", "encode_raw_header"),
    ("istio", "gateway.yaml", "merge_slashes: true", "merge_slashes: often", "envoy", "merge_slashes"),
    ("istio", "gateway.yaml", "service_name: envoy", "service: envoy", "envoy", "service"),
    ("istio", "gateway.yaml", "- remove_on_match:", "- remove_match:", "envoy", "remove_match"),
    ("istio", "gateway.yaml", "service: talos-authz.", "service: authz.", "own", "matches no cluster"),
    ("istio", "gateway.yaml", "default_value: true", "default_value: false", "doctor", "note conditional-check"),
    ("istio", "gateway.yaml", "authority: talos-authz.", "authority: talos|authz.", "doctor", "bad-authority"),
    ("istio", "gateway.yaml", "subFilter: { name: envoy.filters.http.cors }", "subFilter: { name: envoy.filters.http.fault }", "doctor", "cors-after-check"),
    ("istio", "gateway.yaml", "- remove: authorization", "# not the token", "doctor", "note forged-trailers"),
    ("istio", "gateway.yaml", "request_trailers_mutations:", "request_trailer_mutations:", "envoy", "request_trailer_mutations"),
    ("istio", "talos.yaml", "mode: STRICT", "mode: STRONG", "schema", "mode"),
    ("istio", "talos.yaml", "mode: STRICT", "mode: PERMISSIVE", "own", "isn't STRICT"),
    ("istio", "talos.yaml", "principals: [cluster.local/ns/operators/sa/console]", "namespaces: [operators]", "own", "4420"),
    ("istio", "talos.yaml", "connectTimeout: 0.2s", "connectTimout: 0.2s", "schema", "connectTimout"),
    ("istio", "talos.yaml", "connectTimeout: 0.2s", "connectTimeout: 2s", "doctor", "connect-timeout"),
    ("envoy-gateway", "gateway.yaml", "protocol: HTTPS", "protocols: HTTPS", "schema", "protocols"),
    ("envoy-gateway", "gateway.yaml", "parentRefs:", "parents:", "schema", "parents"),
    ("envoy-gateway", "talos.yaml", "timeout: 250ms", "timeout: 0.25s", "own", "timeout is '0.25s'"),
    ("envoy-gateway", "talos.yaml", "statusOnError: 503", 'statusOnError: "503"', "own", "statusOnError is '503'"),
    ("envoy-gateway", "talos.yaml", "statusOnError: 503", "statusOnErrors: 503", "own", "statusOnErrors is unknown"),
    ("envoy-gateway", "talos.yaml", "interval: 1s\n            base", "interval: 1.5s\n            base", "own", "interval is '1.5s'"),
    ("envoy-gateway", "talos.yaml", "escapedSlashesAction: RejectRequest", "escapedSlashesAction: REJECT", "own", "REJECT"),
    ("envoy-gateway", "talos.yaml", "caCertificateRefs:", "caCertificateRef:", "schema", "caCertificateRef"),
    ("envoy-gateway", "talos.yaml", "  from:", "  form:", "schema", "form"),
    ("envoy-gateway", "talos.yaml", "name: talos-authz\n          namespace", "name: authz\n          namespace", "own", "ReferenceGrant"),
    ("envoy-gateway", "talos.yaml", "failOpen: false", "failOpen: true", "doctor", "fail-open"),
    ("envoy-gateway", "talos.yaml", "connectionKeepalive: { interval: 5s, timeout: 1s }", "{}", "doctor", "no-keepalive"),
    ("envoy-gateway", "talos.yaml", "maxParallelRequests: 4096", "maxParallelRetries: 4096", "own", "maxParallelRetries"),
    ("envoy-gateway", "patch.yaml", "op: add", "op: ad", "own", "op is 'ad'"),
    ("envoy-gateway", "patch.yaml", "path: /encode_raw_headers", "path: /encode_raw_header", "envoy", "encode_raw_header"),
    ("envoy-gateway", "patch.yaml", "name: edge/edge/https", "name: edge/edge/http", "own", "finds nothing"),
    ("envoy-gateway", "patch.yaml", "name: securitypolicy/edge/talos/", "name: securitypolicy/talos/", "own", "finds nothing"),
    ("envoy-gateway", "patch.yaml", "x[^a-z0-9]talos[^a-z0-9].*", "x-talos", "doctor", "note forged-trailers"),
    ("envoy-gateway", "patch.yaml", "cluster.v3.Cluster", "cluster.v3.Clusters", "own", "Clusters"),
    ("envoy-gateway", "patch.yaml", "grpc_health_check:", "grpc_check:", "envoy", "grpc_check"),
    ("envoy-gateway", "patch.yaml", "authority: talos-authz.talos.svc.cluster.local", "# none", "doctor", "error bad-authority"),
    ("envoy-gateway", "patch.yaml", "no_traffic_interval: 1s", "# none", "doctor", "slow-health-check"),
]


def documents(folder, broken=None):
    """Returns all documents of an example's files, with a text of one file replaced."""
    found = {}
    for file in FILES[folder]:
        text = (REPO / "envoy" / folder / file).read_text()
        if broken and broken[0] == file:
            if broken[1] not in text:
                raise SystemExit(f"envoy/{folder}/{file} has no `{broken[1]}`")
            text = text.replace(*broken[1:], 1)
        found[file] = [one for one in yaml.safe_load_all(text) if one]
    return found


def objects(found):
    """Returns the documents that are Kubernetes objects."""
    return [one for file in found.values() for one in file if "kind" in one]


def bootstrap(folder, found, ports, patched=True):
    """Returns the configuration of an Envoy on this machine, as the product would make it."""
    if folder == "istio":
        manager, talos = istio.effective(found)
        before, names = [], ["upstream"]
        cors = {"@type": f"{istio.TYPES}.http.cors.v3.CorsPolicy", "allow_methods": "GET",
                "allow_origin_string_match": [{"exact": "https://app.example.com"}]}
        manager["route_config"] = {"name": "http.8080", "virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
            "typed_per_filter_config": {"envoy.filters.http.cors": cors}}]}
    else:
        manager, before, talos, names = envoy_gateway.effective(found, patched)
    http = {"name": istio.HTTP, "typed_config": manager}
    clusters = [located({"name": name, "connect_timeout": "1s"}, ports["upstream"]) for name in names]
    return {
        "admin": {"address": address(ports["admin"])},
        # Both products set a limit here.
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 50000,
            },
        }]},
        "static_resources": {
            "listeners": [{"name": "edge", "address": address(ports["edge"]), "filter_chains": [{"filters": [*before, http]}]}],
            "clusters": [located(talos, ports["authz"]), *clusters],
        },
    }


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def located(cluster, port):
    """Gives a cluster one endpoint on this machine instead of discovered ones."""
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}
    return {**cluster, "type": "STATIC", "load_assignment": {"cluster_name": cluster["name"], "endpoints": [endpoint]}}


def own(folder, found):
    """Returns the problems that `istio` and `envoy_gateway` find."""
    module = istio if folder == "istio" else envoy_gateway
    problems = []
    try:
        problems += module.problems(found)
        module.effective(found)
    except (ValueError, KeyError) as error:
        problems.append(f"{type(error).__name__}: {error}")
    return problems


def envoy_says(config, folder, envoy=None):
    """Returns the error if an Envoy, by default the newest, rejects a configuration."""
    file = Path(folder) / "envoy.json"
    file.write_text(json.dumps(config))
    command = [envoy or tools.ensure_envoy(), "--mode", "validate", "--log-level", "warning", "--config-path", file]
    done = subprocess.run(command, capture_output=True, text=True)
    return [] if done.returncode == 0 else [done.stdout + done.stderr]


def doctor(source):
    """Returns the findings of `talos doctor`, each with its severity."""
    command = [run.TALOS, "doctor", source, "--format", "json", "--fail-on", "never"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {done.stderr}
    report = json.loads(done.stdout)
    if report["examined"]["filters"] == 0:
        return {"no filter asks Talos"}
    return {f"{one['severity']} {one['id']}" for one in report["findings"]}


PORTS = {"admin": 9901, "edge": 8080, "upstream": 8000, "authz": 4423}


def examine(folder):
    """Checks one unchanged example."""
    found = documents(folder)
    names = sorted(file.name for file in (REPO / "envoy" / folder).iterdir())
    problems = [] if names == FILES[folder] else [f"its files are {names}"]
    problems += own(folder, found)
    with tempfile.TemporaryDirectory(prefix="talos-edge-") as work:
        for version, envoy in tools.ensure_envoys().items():
            problems += [f"Envoy {version}: {said}" for said in envoy_says(bootstrap(folder, found, PORTS), work, envoy)]
        said = doctor(Path(work) / "envoy.json")
        if said:
            problems.append(f"the doctor finds {said}")
        if folder == "envoy-gateway":
            problems += envoy_says(bootstrap(folder, found, PORTS, patched=False), work)
            said = doctor(Path(work) / "envoy.json")
            if said != UNPATCHED:
                problems.append(f"without its patch the doctor finds {said} instead of {UNPATCHED}")
    return [f"envoy/{folder}: {problem}" for problem in problems]


def narrowed(found):
    """Makes Istio's policy match only some requests."""
    istio.the(found["gateway.yaml"], "AuthorizationPolicy")["spec"]["rules"] = [{"to": [{"operation": {"paths": ["/reports"]}}]}]


def conditions():
    """Checks the findings of `talos doctor` when Istio's policy doesn't match all requests."""
    unfound = []
    for forged, deny, wanted in ((False, True, "note"), (False, False, "note"), (True, False, "error"), (True, True, "note")):
        change = () if deny else ("gateway.yaml", "default_value: true", "default_value: false")
        found = documents("istio", change)
        narrowed(found)
        config = bootstrap("istio", found, PORTS)
        if forged:  # identity headers aren't removed
            filters = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
            filters[:] = [one for one in filters if one["name"] != "talos.strip"]
        with tempfile.TemporaryDirectory(prefix="talos-edge-") as work:
            said = envoy_says(config, work) or doctor(Path(work) / "envoy.json")
        if said != {f"{wanted} conditional-check"}:
            unfound.append(f"envoy/istio with a narrow policy (refusing {deny}, forged headers {forged}): the doctor says {said}")
    return unfound


def broken():
    """Checks that each broken example is found by the expected check; returns those that aren't."""
    unfound = []
    wrong = []
    for index, (folder, file, old, new, who, text) in enumerate(BROKEN):
        found = documents(folder, (file, old, new))
        what = f"envoy/{folder}/{file}: `{new}` in place of `{old}`"
        if who == "schema":
            whole = {json.dumps(one) for one in objects(documents(folder))}
            (one,) = [one for one in objects(found) if json.dumps(one) not in whole]
            name = f"{one['metadata']['name']}-{index}"
            wrong.append((what, name, text, {**one, "metadata": {**one["metadata"], "name": name}}))
            continue
        said = own(folder, found)
        if who != "own":
            if said:
                unfound.append(f"{what}: {said}")
                continue
            with tempfile.TemporaryDirectory(prefix="talos-edge-") as work:
                said = envoy_says(bootstrap(folder, found, PORTS), work)
                if who == "doctor":
                    said = said or sorted(doctor(Path(work) / "envoy.json"))
        if not any(text in one for one in said):
            unfound.append(f"{what}: isn't found by {who}, which says {said}")
    said = schemas.foreign([one for *_, one in wrong])
    unfound += [f"{what}: isn't found by the schema" for what, name, text, _ in wrong
                if not any(f" {name}:" in one and text in one for one in said)]
    return unfound


class Stack:
    """Runs Talos, an upstream and an Envoy with an example's configuration."""

    def __init__(self, stack, folder, talos_routes):
        self.stack, self.folder = stack, folder
        self.work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="talos-edge-")))
        self.ports = {name: run.free_port() for name in (*PORTS, "http", "public", "metrics")}
        (self.work / "talos.yaml").write_text(TALOS % talos_routes)
        env = {name: value for name, value in os.environ.items() if not name.startswith("TALOS_")}
        env |= {f"TALOS_SERVE_{plane.upper()}_PORT": str(self.ports[plane]) for plane in ("http", "public", "metrics", "authz")}
        env |= {"TALOS_SECRETS_HMAC_CURRENT": secrets.token_hex(32), "TALOS_DB_DSN": f"sqlite://{self.work}/talos.db"}
        self.talos = self.start("talos", [run.TALOS, "serve", "--config", self.work / "talos.yaml"], env)
        self.start("upstream", [sys.executable, run.UPSTREAM, "--port", str(self.ports["upstream"])], dict(os.environ))
        run.wait(lambda: run.status(self.ports["metrics"], "/health/ready") == 200, self.work)

    def start(self, name, command, env):
        log = self.stack.enter_context((self.work / f"{name}.log").open("w+"))
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.stack.callback(run.end, process)
        return process

    def envoy(self, name, found):
        """Starts an Envoy; returns its ports."""
        ports = {**self.ports, "edge": run.free_port(), "admin": run.free_port()}
        file = self.work / f"{name}.json"
        file.write_text(json.dumps(bootstrap(self.folder, found, ports)))
        self.start(name, [tools.ensure_envoy(), "--config-path", file, "--concurrency", "1", "--disable-hot-restart"], None)
        # Waits until the health check of Talos, if there is one, has passed.
        healthy = "health_flags::healthy"
        cluster = bootstrap(self.folder, found, ports)["static_resources"]["clusters"][0]["name"]
        run.wait(lambda: run.status(ports["admin"], "/ready") == 200 and any(
            line.startswith(f"{cluster}::") and line.endswith(healthy)
            for line in run.body(ports["admin"], "/clusters").splitlines()), self.work)
        return ports

    def key(self, *options):
        command = [run.TALOS, "keys", "issue", "first", "--actor", "me", "-q", "-e", f"http://127.0.0.1:{self.ports['http']}"]
        return subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout.strip()


def requests(folder):
    """Sends requests through an example's Envoy; returns the unexpected results."""
    problems = []

    def expect(port, path, key, wanted, headers=FORGED, method="GET"):
        headers = {**headers, **({"authorization": f"Bearer {key}"} if key else {})}
        status, answered, body = run.send(port, method, path, headers)
        if status != wanted or "mallory" in body:
            problems.append(f"envoy/{folder}: {method} {path} gives {status} instead of {wanted}: {body[:500]}")
        return answered, body

    with contextlib.ExitStack() as stack:
        found = documents(folder)
        here = Stack(stack, folder, ISTIO_ROUTES if folder == "istio" else "[]")
        ports = here.envoy("envoy", found)
        edge = ports["edge"]
        key, reader = here.key(), here.key("--scopes", "reports:read")
        said = doctor(f"http://127.0.0.1:{ports['admin']}")
        if said:
            problems.append(f"envoy/{folder}: in the running Envoy the doctor finds {said}")
        expect(edge, "/", None, 401)
        expect(edge, "/", key + "x", 401)
        if '"x-talos-actor-id",\n      "me"' not in expect(edge, "/", key, 200)[1]:
            problems.append(f"envoy/{folder}: the upstream isn't told whose key it was")
        expect(edge, "/reports", key, 403)
        expect(edge, "/reports", reader, 200)
        expect(edge, "/open", None, 200)
        expect(edge, "/open/..%2freports", None, 400)
        expect(edge, "/open/../reports", None, 401)
        expect(edge, "/open", None, 400, {"x_talos_actor_id": "mallory"})
        if folder == "istio":
            preflight = {"origin": "https://app.example.com", "access-control-request-method": "GET"}
            if "access-control-allow-origin" not in expect(edge, "/", None, 200, preflight, "OPTIONS")[0]:
                problems.append(f"envoy/{folder}: preflights aren't answered")
            # With a narrower rule, no request passes unchecked, and identity headers are removed in any case.
            for name, deny, wanted in (("narrow", "true", 503), ("open", "false", 200)):
                found = documents(folder, ("gateway.yaml", "default_value: true", f"default_value: {deny}"))
                narrowed(found)
                narrow = here.envoy(name, found)["edge"]
                expect(narrow, "/reports", reader, 200)
                expect(narrow, "/", None, wanted)
        run.end(here.talos)
        expect(edge, "/", key, 503)
        expect(edge, "/open", None, 503)
    return problems


def main():
    found = [one for folder in FILES for one in objects(documents(folder))]
    problems = schemas.foreign(found)
    for folder in FILES:
        problems += examine(folder)
    problems += broken() + conditions()
    if not problems:
        for folder in FILES:
            problems += requests(folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(FILES)} examples, {len(found)} objects, {len(BROKEN)} broken copies: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
