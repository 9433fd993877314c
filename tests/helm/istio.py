"""Converts the example for Istio to the Envoy configuration of a gateway, as far as the example affects it.

Istio isn't available for tests. Its own filters, which Envoy's builds don't have, and TLS between workloads are left
out; Talos runs on this machine instead.
"""

import copy

from fields import Fields

HTTP = "envoy.filters.network.http_connection_manager"
TYPES = "type.googleapis.com/envoy.extensions.filters"
# Metadata key of the matching shadow policy, and the prefix of a provider's policies.
VERDICT = "istio_ext_authz_shadow_effective_policy_id"


def problems(documents):
    """Validates the mesh configuration and the references between the files."""
    found = []
    mesh = Fields("mesh-config.yaml", documents["mesh-config.yaml"][0])
    provider(mesh, found)
    found += mesh.problems()
    host = cluster_name(documents).split("|")[3]
    objects = [one for file in ("talos.yaml", "gateway.yaml") for one in documents[file]]
    custom = the(objects, "AuthorizationPolicy", lambda one: one["spec"]["action"] == "CUSTOM")
    names = [one["name"] for one in documents["mesh-config.yaml"][0]["meshConfig"]["extensionProviders"]]
    if custom["spec"]["provider"]["name"] not in names:
        found.append("AuthorizationPolicy: no such provider")
    if custom["spec"]["rules"] != [{}]:
        found.append("AuthorizationPolicy: doesn't match all requests")
    rule = the(objects, "DestinationRule")
    if rule["spec"]["host"] != host or not host.startswith(f"{rule['metadata']['name']}.{rule['metadata']['namespace']}.svc."):
        found.append("DestinationRule: is for another host")
    if the(objects, "PeerAuthentication")["spec"]["mtls"]["mode"] != "STRICT":
        found.append("PeerAuthentication: isn't STRICT")
    allow = the(objects, "AuthorizationPolicy", lambda one: one["spec"]["action"] == "ALLOW")
    for rule in allow["spec"]["rules"]:
        ports = {port for to in rule["to"] for port in to["operation"]["ports"]}
        if ports != {"4421"} and not all(one["source"].get("principals") for one in rule.get("from", [{"source": {}}])):
            found.append(f"AuthorizationPolicy: anybody may call {ports}")
    return found


def the(objects, kind, holds=lambda one: True):
    """Returns the only object of a kind."""
    (one,) = [one for one in objects if one["kind"] == kind and holds(one)]
    return one


def provider(mesh, found):
    """Converts an extension provider to an ext_authz filter."""
    (one,) = mesh.take("meshConfig.extensionProviders", list)
    fields = Fields("extensionProviders", one)
    name = fields.take("name", str)
    service = fields.take("envoyExtAuthzGrpc.service", str)
    port = fields.take("envoyExtAuthzGrpc.port", range(1, 65536))
    config = {
        "@type": f"{TYPES}.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": fields.take("envoyExtAuthzGrpc.failOpen", bool, False),
        "grpc_service": {
            "envoy_grpc": {"cluster_name": f"outbound|{port}||{service}", "authority": service},
            "timeout": fields.take("envoyExtAuthzGrpc.timeout", r"\d+(\.\d+)?s", "600s"),
        },
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [{"key": VERDICT}],
            "value": {"string_match": {"prefix": f"istio-ext-authz-{name}"}},
        },
    }
    status = fields.take("envoyExtAuthzGrpc.statusOnError", r"[45]\d\d", None)
    if status:
        config["status_on_error"] = {"code": int(status)}
    if fields.take("envoyExtAuthzGrpc.clearRouteCache", bool, False):
        config["clear_route_cache"] = True
    found += fields.problems()
    return name, config


def cluster_name(documents):
    return provider(Fields("", documents["mesh-config.yaml"][0]), [])[1]["grpc_service"]["envoy_grpc"]["cluster_name"]


def shadow_rules(name, policy):
    """Converts an AuthorizationPolicy to an RBAC filter with shadow rules, which enforces nothing."""
    rules = {}
    for index, rule in enumerate(policy["spec"]["rules"]):
        fields = Fields("rules", rule)
        paths = [path for to in fields.take("to", list, []) for path in to["operation"]["paths"]]
        if fields.problems():
            raise ValueError(f"{rule}: not known here")
        wanted = [{"url_path": {"path": {"exact": path}}} for path in paths]
        permission = {"and_rules": {"rules": [{"or_rules": {"rules": wanted}} if wanted else {"any": True}]}}
        key = f"istio-ext-authz-{name}-ns[{policy['metadata']['namespace']}]-policy[{policy['metadata']['name']}]-rule[{index}]"
        rules[key] = {"permissions": [permission], "principals": [{"and_ids": {"ids": [{"any": True}]}}]}
    return {"@type": f"{TYPES}.http.rbac.v3.RBAC", "shadow_rules": {"action": "DENY", "policies": rules},
            "shadow_rules_stat_prefix": "istio_ext_authz_"}


def talos_cluster(documents):
    """Returns the cluster of Talos' Service with the settings of the DestinationRule."""
    found = []
    rule = the(documents["talos.yaml"], "DestinationRule")
    fields = Fields("DestinationRule", rule["spec"]["trafficPolicy"])
    fields.take("tls.mode", ("ISTIO_MUTUAL", "MUTUAL"))
    pool, outliers = "connectionPool", "outlierDetection"
    cluster = {
        "connect_timeout": fields.take(f"{pool}.tcp.connectTimeout", str, "10s"),
        "lb_policy": fields.take("loadBalancer.simple", ("LEAST_REQUEST", "ROUND_ROBIN"), "LEAST_REQUEST"),
        "circuit_breakers": {"thresholds": [{
            "max_connections": fields.take(f"{pool}.tcp.maxConnections", int, 2**32 - 1),
            "max_pending_requests": fields.take(f"{pool}.http.http1MaxPendingRequests", int, 2**32 - 1),
            "max_requests": fields.take(f"{pool}.http.http2MaxRequests", int, 2**32 - 1),
            "track_remaining": True,
            "retry_budget": {
                "budget_percent": {"value": fields.take("retryBudget.percent", int)},
                "min_retry_concurrency": fields.take("retryBudget.minRetryConcurrency", int),
            },
        }]},
        "outlier_detection": {
            "enforcing_success_rate": 0,
            "consecutive_gateway_failure": fields.take(f"{outliers}.consecutiveGatewayErrors", int),
            "enforcing_consecutive_gateway_failure": 100,
            "interval": fields.take(f"{outliers}.interval", str),
            "base_ejection_time": fields.take(f"{outliers}.baseEjectionTime", str),
            "max_ejection_percent": fields.take(f"{outliers}.maxEjectionPercent", int),
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": fields.take(f"{outliers}.minHealthPercent", int, 0)}},
        "upstream_connection_options": {"tcp_keepalive": {
            "keepalive_probes": fields.take(f"{pool}.tcp.tcpKeepalive.probes", int),
            "keepalive_time": int(fields.take(f"{pool}.tcp.tcpKeepalive.time", r"\d+s")[:-1]),
            "keepalive_interval": int(fields.take(f"{pool}.tcp.tcpKeepalive.interval", r"\d+s")[:-1]),
        }},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 1073741824}},
        }},
    }
    found += fields.problems()
    if found:
        raise ValueError("; ".join(found))
    return {"name": cluster_name(documents), **cluster}


def effective(documents):
    """Returns the connection manager (without routes) and Talos' cluster, with all settings of the example."""
    name, authz = provider(Fields("", documents["mesh-config.yaml"][0]), [])
    policy = the(documents["gateway.yaml"], "AuthorizationPolicy")
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound_0.0.0.0_8080",
        "use_remote_address": True,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "forward_client_cert_details": "SANITIZE_SET",
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            {"name": "envoy.filters.http.rbac", "typed_config": shadow_rules(name, policy)},
            {"name": "envoy.filters.http.ext_authz", "typed_config": authz},
            {"name": "envoy.filters.http.grpc_stats", "typed_config": {"@type": f"{TYPES}.http.grpc_stats.v3.FilterConfig"}},
            {"name": "envoy.filters.http.fault", "typed_config": {"@type": f"{TYPES}.http.fault.v3.HTTPFault"}},
            {"name": "envoy.filters.http.cors", "typed_config": {"@type": f"{TYPES}.http.cors.v3.Cors"}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}},
        ],
    }
    cluster = talos_cluster(documents)
    patches = the(documents["gateway.yaml"], "EnvoyFilter")["spec"]["configPatches"]
    for patch in patches:
        apply(patch, manager, cluster)
    # Istio applies merges last.
    for patch in patches:
        if patch["applyTo"] == "HTTP_FILTER" and patch["patch"]["operation"] == "MERGE":
            apply_to_filter(patch, manager)
    return manager, cluster


def apply(patch, manager, cluster):
    """Applies one patch of an EnvoyFilter; fails if it changes nothing."""
    what, operation, match = patch["applyTo"], patch["patch"]["operation"], patch["match"]
    value = copy.deepcopy(patch["patch"].get("value"))
    if match["context"] != "GATEWAY":
        raise ValueError(f"{match}: isn't for a gateway")
    if what == "CLUSTER":
        _, port, _, host = cluster["name"].split("|")
        if (match["cluster"]["service"], str(match["cluster"]["portNumber"])) != (host, port):
            raise ValueError(f"{match}: matches no cluster")
        merge(cluster, value)
        return
    if match["listener"]["filterChain"]["filter"]["name"] != HTTP:
        raise ValueError(f"{match}: matches no filter")
    filters = manager["http_filters"]
    names = [one["name"] for one in filters]
    if what == "NETWORK_FILTER" and operation == "MERGE":
        merge_typed(manager, value["typed_config"])
    elif what == "HTTP_FILTER" and operation == "INSERT_FIRST":
        filters.insert(0, value)
    elif what == "HTTP_FILTER" and operation == "REMOVE":
        del filters[names.index(match["listener"]["filterChain"]["filter"]["subFilter"]["name"])]
    elif what != "HTTP_FILTER" or operation != "MERGE":
        raise ValueError(f"{operation} {what}: not known here")


def apply_to_filter(patch, manager):
    name = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
    (one,) = [one for one in manager["http_filters"] if one["name"] == name]
    merge_typed(one["typed_config"], copy.deepcopy(patch["patch"]["value"]["typed_config"]))


def merge_typed(target, value):
    if target["@type"] != value["@type"]:
        raise ValueError(f"{value['@type']}: there is a {target['@type']}")
    merge(target, value)


def merge(target, value):
    """Merges like protobuf: appends lists, replaces entries of maps."""
    for key, new in value.items():
        old = target.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            old.update(new) if key == "typed_extension_protocol_options" else merge(old, new)
        elif isinstance(new, list) and isinstance(old, list):
            old += new
        else:
            target[key] = new
