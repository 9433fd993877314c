"""Converts the example for Envoy Gateway to the Envoy configuration of the Gateway, as far as the example affects it.

Envoy Gateway can't be had for tests, and neither can the schema of its objects: what isn't known here is refused. TLS is
left out; that Talos is on this machine stands for it.
"""

import re

from fields import Fields
from istio import TYPES, the

GROUP = "gateway.envoyproxy.io/v1alpha1"
# A duration of the Gateway API; `0.25s` is invalid there.
DURATION = r"([0-9]{1,5}(h|m|s|ms)){1,4}"
ANNOTATION = "gateway.envoyproxy.io/"
ESCAPED_SLASHES = {"KeepUnchanged": "KEEP_UNCHANGED", "RejectRequest": "REJECT_REQUEST",
                   "UnescapeAndForward": "UNESCAPE_AND_FORWARD", "UnescapeAndRedirect": "UNESCAPE_AND_REDIRECT"}
UNDERSCORES = {"Allow": "ALLOW", "RejectRequest": "REJECT_REQUEST", "DropHeader": "DROP_HEADER"}
TRIGGERS = ("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
            "retriable-status-codes", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
PROTOCOL_OPTIONS = "common_http_protocol_options"
# Places of a listener, and types, that a patch may have.
PLACE = rf"\.\.http_filters(\[\?\(@\.name=='[^']+'\)\]\.typed_config)?|\.\.{PROTOCOL_OPTIONS}"
PATCHED = {LISTENER: bool, "type.googleapis.com/envoy.config.cluster.v3.Cluster": list}


def seconds(duration):
    """Converts a duration to protobuf's JSON form."""
    units = {"h": 3600_000, "m": 60_000, "s": 1000, "ms": 1}
    total = sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", duration))
    return f"{total / 1000:g}s"


def strict(one, kind):
    """Returns the fields of an object of Envoy Gateway, without those that all objects have."""
    fields = Fields(f"{kind} {one['metadata']['name']}", one)
    fields.take("apiVersion", (GROUP,))
    fields.take("kind", (kind,))
    fields.rest.pop("metadata")
    return fields


def targets(fields, kinds):
    """Returns the targets of a policy, which must be in its namespace."""
    for target in fields.take("spec.targetRefs", list):
        found = Fields(f"{fields.name}: targetRefs", target)
        found.take("group", ("gateway.networking.k8s.io",))
        found.take("kind", kinds)
        found.take("name", str)
        found.take("sectionName", str, "")
        fields.found += found.problems()


def security_policy(one):
    """Returns the filter, its per-route configuration, Talos' cluster, the Services that it calls, and the problems."""
    fields = strict(one, "SecurityPolicy")
    targets(fields, ("Gateway", "HTTPRoute", "GRPCRoute"))
    at = "spec.extAuth"
    name = f"securitypolicy/{one['metadata']['namespace']}/{one['metadata']['name']}"
    services = fields.take(f"{at}.grpc.backendRefs", list)
    for service in services:
        found = Fields(f"{fields.name}: backendRefs", service)
        found.take("name", str)
        found.take("namespace", str, "")
        found.take("port", range(1, 65536))
        found.take("kind", ("Service",), "Service")
        fields.found += found.problems()
    config = {
        "@type": f"{TYPES}.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": fields.take(f"{at}.failOpen", bool, False),
        "clear_route_cache": fields.take(f"{at}.recomputeRoute", bool, False),
        "grpc_service": {
            "envoy_grpc": {"cluster_name": f"{name}/extauth/0", "authority": authority(services)},
            "timeout": seconds(fields.take(f"{at}.timeout", DURATION, "10s")),
        },
    }
    if fields.take(f"{at}.includeRouteMetadata", bool, False):
        config["route_metadata_context_namespaces"] = ["envoy-gateway"]
    status = fields.take(f"{at}.statusOnError", range(400, 512), None)
    if status:
        config["status_on_error"] = {"code": status}
    extensions = {}
    for extension in fields.take(f"{at}.contextExtensions", list, []):
        found = Fields(f"{fields.name}: contextExtensions", extension)
        found.take("type", ("Value",))
        extensions[found.take("name", str)] = found.take("value", str)
        fields.found += found.problems()
    settings = f"{at}.grpc.backendSettings"
    cluster, retry = backend(fields, settings)
    if retry:
        config["grpc_service"]["retry_policy"] = retry
    filter_ = {"name": f"envoy.filters.http.ext_authz/{name}", "disabled": True, "typed_config": config}
    route = {"@type": f"{TYPES}.http.ext_authz.v3.ExtAuthzPerRoute", "check_settings": {"context_extensions": extensions}}
    return filter_, route, {"name": f"{name}/extauth/0", **cluster}, services, fields.problems()


def authority(services):
    """Returns the cluster's name in checks."""
    first = services[0]
    return f"{first.get('name')}.{first.get('namespace', 'default')}:{first.get('port')}"


def backend(fields, at):
    """Converts `backendSettings` to a cluster and a retry policy."""
    retry = None
    triggers = fields.take(f"{at}.retry.retryOn.triggers", list, None)
    if triggers:
        fields.found += [f"{fields.name}: no trigger {one}" for one in triggers if one not in TRIGGERS]
        back_off = f"{at}.retry.perRetry.backOff"
        retry = {"retry_on": ",".join(triggers), "num_retries": fields.take(f"{at}.retry.numRetries", int, 2),
                 "retry_back_off": {
                     "base_interval": seconds(fields.take(f"{back_off}.baseInterval", DURATION)),
                     "max_interval": seconds(fields.take(f"{back_off}.maxInterval", DURATION))}}
    http2 = {"initial_stream_window_size": 65536, "initial_connection_window_size": 1048576}
    interval = fields.take(f"{at}.http2.connectionKeepalive.interval", DURATION, None)
    if interval:
        timeout = fields.take(f"{at}.http2.connectionKeepalive.timeout", DURATION)
        http2["connection_keepalive"] = {"interval": seconds(interval), "timeout": seconds(timeout)}
    cluster = {
        "connect_timeout": seconds(fields.take(f"{at}.timeout.tcp.connectTimeout", DURATION, "10s")),
        "common_lb_config": {},
        "ignore_health_on_host_removal": True,
        "per_connection_buffer_limit_bytes": 32768,
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": http2},
        }},
    }
    passive = f"{at}.healthCheck.passive"
    errors = fields.take(f"{passive}.consecutiveGatewayErrors", int, None)
    if errors is not None:
        cluster["outlier_detection"] = {
            "interval": seconds(fields.take(f"{passive}.interval", DURATION, "3s")),
            "base_ejection_time": seconds(fields.take(f"{passive}.baseEjectionTime", DURATION, "30s")),
            "max_ejection_percent": fields.take(f"{passive}.maxEjectionPercent", range(101), 10),
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": errors,
            "enforcing_consecutive_gateway_failure": 100,
        }
    panic = fields.take(f"{at}.healthCheck.panicThreshold", range(101), 50)
    if panic != 50:
        cluster["common_lb_config"]["healthy_panic_threshold"] = {"value": panic}
    breaker = f"{at}.circuitBreaker"
    threshold = {"max_retries": 1024}
    for field, name in (("maxConnections", "max_connections"), ("maxPendingRequests", "max_pending_requests"),
                        ("maxParallelRequests", "max_requests")):
        value = fields.take(f"{breaker}.{field}", int, None)
        if value is not None:
            threshold[name] = value
    percent = fields.take(f"{breaker}.retryBudget.percent.numerator", range(101), None)
    if percent is not None:
        threshold["retry_budget"] = {
            "budget_percent": {"value": percent},
            "min_retry_concurrency": fields.take(f"{breaker}.retryBudget.minRetryConcurrency", int, 3),
        }
    cluster["circuit_breakers"] = {"thresholds": [threshold]}
    return cluster, retry


def client_traffic_policy(one):
    """Returns settings of the connection manager, the connection limit, and the problems."""
    fields = strict(one, "ClientTrafficPolicy")
    targets(fields, ("Gateway",))
    escaped = fields.take("spec.path.escapedSlashesAction", tuple(ESCAPED_SLASHES), "UnescapeAndRedirect")
    underscores = fields.take("spec.headers.withUnderscoresAction", tuple(UNDERSCORES), "RejectRequest")
    manager = {
        "merge_slashes": not fields.take("spec.path.disableMergeSlashes", bool, False),
        "path_with_escaped_slashes_action": ESCAPED_SLASHES.get(escaped),
        "common_http_protocol_options": {"headers_with_underscores_action": UNDERSCORES.get(underscores)},
    }
    removed = fields.take("spec.headers.earlyRequestHeaders.remove", list, [])
    if removed:
        manager["early_header_mutation_extensions"] = [{
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                "mutations": [{"remove": name} for name in removed],
            },
        }]
    timeout = fields.take("spec.timeout.http.requestHeadersReceivedTimeout", DURATION, None)
    if timeout:
        manager["request_headers_timeout"] = seconds(timeout)
    limit = fields.take("spec.connection.connectionLimit.value", int, None)
    return manager, limit, fields.problems()


def routes(documents, policy, clusters):
    """Returns the routes of all HTTPRoutes, the longest prefix first."""
    filter_, route = policy
    found = []
    for one in (one for one in documents["gateway.yaml"] if one["kind"] == "HTTPRoute"):
        metadata = one["metadata"]
        annotations = {key.removeprefix(ANNOTATION): value for key, value in metadata.get("annotations", {}).items()
                       if key.startswith(ANNOTATION)}
        resource = {"kind": "HTTPRoute", "name": metadata["name"], "namespace": metadata["namespace"]}
        for rule in one["spec"]["rules"]:
            (match,) = rule["matches"]
            (path,) = [match["path"]["value"]]
            clusters.add(rule["backendRefs"][0]["name"])
            found.append({
                "name": f"httproute/{metadata['namespace']}/{metadata['name']}",
                "match": {"prefix": "/"} if path == "/" else {"path_separated_prefix": path},
                "route": {"cluster": rule["backendRefs"][0]["name"]},
                "metadata": {"filter_metadata": {"envoy-gateway": {"resources": [{**resource, "annotations": annotations}]}}},
                "typed_per_filter_config": {filter_["name"]: route},
            })
    return sorted(found, key=lambda one: -len(one["match"].get("path_separated_prefix", "")))


def problems(documents):
    """Validates the objects of Envoy Gateway and the references between the files."""
    policies = documents["talos.yaml"]
    security = the(policies, "SecurityPolicy")
    *_, services, found = security_policy(security)
    found += client_traffic_policy(the(policies, "ClientTrafficPolicy"))[2]
    for one in documents["patch.yaml"]:
        found += patch_policy(one)
    gateway = the(documents["gateway.yaml"], "Gateway")
    place = gateway["metadata"]["namespace"], gateway["metadata"]["name"]
    for one in policies + documents["patch.yaml"]:
        if one["apiVersion"] == GROUP:
            named = one["spec"].get("targetRefs") or [one["spec"]["targetRef"]]
            if (one["metadata"]["namespace"], named[0]["name"]) != place:
                found.append(f"{one['kind']}: is for another Gateway")
    grant = the(policies, "ReferenceGrant")
    tls = the(policies, "BackendTLSPolicy")
    for service in services:
        where = service["namespace"], service["name"]
        granted = grant["spec"]["from"][0], (grant["metadata"]["namespace"], grant["spec"]["to"][0]["name"])
        if granted != ({"group": GROUP.split("/")[0], "kind": "SecurityPolicy", "namespace": place[0]}, where):
            found.append("ReferenceGrant: doesn't let the policy refer to Talos")
        if (tls["metadata"]["namespace"], tls["spec"]["targetRefs"][0]["name"]) != where:
            found.append("BackendTLSPolicy: is for another Service")
        if not tls["spec"]["validation"]["hostname"].startswith(f"{where[1]}.{where[0]}.svc"):
            found.append("BackendTLSPolicy: wants another name")
    return found


def patch_policy(one):
    """Returns the problems of an EnvoyPatchPolicy; Envoy validates its result."""
    fields = strict(one, "EnvoyPatchPolicy")
    fields.take("spec.type", ("JSONPatch",))
    fields.take("spec.targetRef.group", ("gateway.networking.k8s.io",))
    fields.take("spec.targetRef.kind", ("Gateway",))
    fields.take("spec.targetRef.name", str)
    for patch in fields.take("spec.jsonPatches", list):
        found = Fields(f"{fields.name}: jsonPatches", patch)
        kind = found.take("type", tuple(PATCHED))
        found.take("name", str)
        found.take("operation.op", ("add",))
        wanted = PATCHED.get(kind, object)
        if kind == LISTENER:
            place = found.take("operation.jsonPath", PLACE)
            # A patch of the list of filters must add a filter.
            wanted = {"..http_filters": dict, f"..{PROTOCOL_OPTIONS}": DURATION}.get(place, wanted)
        found.take("operation.path", r"/\w+")
        found.take("operation.value", wanted)
        fields.found += found.problems()
    return fields.problems()


def apply(patch, documents, manager, cluster):
    """Applies one patch of an EnvoyPatchPolicy; fails if it doesn't match anything."""
    operation = patch["operation"]
    if patch["type"] == LISTENER:
        gateway = the(documents["gateway.yaml"], "Gateway")
        name = "/".join([gateway["metadata"]["namespace"], gateway["metadata"]["name"], gateway["spec"]["listeners"][0]["name"]])
        if operation["jsonPath"] == "..http_filters":
            if patch["name"] != name:
                raise ValueError(f"{patch}: finds nothing")
            manager["http_filters"].insert(int(operation["path"].lstrip("/")), operation["value"])
            return
        if operation["jsonPath"] == f"..{PROTOCOL_OPTIONS}":
            at = [manager[PROTOCOL_OPTIONS]]
        else:
            (wanted,) = re.findall(r"'([^']+)'", operation["jsonPath"])
            at = [one["typed_config"] for one in manager["http_filters"] if one["name"] == wanted]
    else:
        name, at = cluster["name"], [cluster]
    if patch["name"] != name or not at:
        raise ValueError(f"{patch}: finds nothing")
    at[0][operation["path"].lstrip("/")] = operation["value"]


def effective(documents, patched=True):
    """Returns the connection manager with routes, the filters before it, Talos' cluster, and the names of the others."""
    filter_, route, cluster, _, found = security_policy(the(documents["talos.yaml"], "SecurityPolicy"))
    client, limit, more = client_traffic_policy(the(documents["talos.yaml"], "ClientTrafficPolicy"))
    if found + more:
        raise ValueError("; ".join(found + more))
    upstreams = set()
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "https-443",
        "use_remote_address": True,
        "normalize_path": True,
        "server_header_transformation": "PASS_THROUGH",
        **client,
        "http_filters": [
            filter_,
            {"name": "envoy.filters.http.router",
             "typed_config": {"@type": f"{TYPES}.http.router.v3.Router", "suppress_envoy_headers": True}},
        ],
        "route_config": {"name": "edge/edge/https", "virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": routes(documents, (filter_, route), upstreams)}]},
    }
    for one in documents["patch.yaml"] if patched else []:
        for patch in one["spec"]["jsonPatches"]:
            apply(patch, documents, manager, cluster)
    connections = [] if limit is None else [{"name": "envoy.filters.network.connection_limit", "typed_config": {
        "@type": f"{TYPES}.network.connection_limit.v3.ConnectionLimit",
        "stat_prefix": "connection_limit", "max_connections": limit}}]
    return manager, connections, cluster, sorted(upstreams)
