//! Findings about an HTTP connection manager whose filters call Talos: paths, client addresses,
//! header names, and the filters before and after that call, here the *check*.
//!
//! Ids of findings are for scripts, so they stay. Each has a row in docs/doctor.md and faults in
//! tests/it/doctor/faults/manager.rs.

use super::cluster::takes_trailers;
use crate::config::{Authz, ClientAddress};
use crate::doctor::accelerator::{filters_between, is_accelerator};
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::dump::{Dump, is_loopback};
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::headers;
use crate::doctor::http_filter::HttpFilter;
use crate::doctor::node::{Node, to_yaml};
use crate::doctor::options::Options;

/// Examines one connection manager that calls Talos.
pub(crate) fn examine(
    dump: &Dump<'_>,
    manager: &ConnectionManager<'_>,
    options: Options<'_>,
    findings: &mut Findings,
) {
    check_paths(&manager.node, findings);
    check_requests(&manager.node, findings);
    check_addresses(manager, options.authz, findings);
    check_order(manager, findings);
    check_trailers(dump, manager, options.authz, findings);
    check_upgrades(manager, options, findings);
    check_listener(manager, findings);
}

fn check_paths(node: &Node<'_>, findings: &mut Findings) {
    let normalize = node.get("normalize_path");
    if !normalize.is_true() {
        findings.add(
            "normalize-path",
            Severity::Error,
            &normalize,
            "/open/../reports matches the route of /open, but the upstream serves /reports",
            "normalize_path: true",
        );
    }
    let merge = node.get("merge_slashes");
    if !merge.is_true() {
        findings.add(
            "merge-slashes",
            Severity::Warning,
            &merge,
            "//reports doesn't match the route of /reports, but many upstreams serve /reports for it",
            "merge_slashes: true",
        );
    }
    let escaped = node.get("path_with_escaped_slashes_action");
    let is_safe = [("REJECT_REQUEST", 2), ("UNESCAPE_AND_REDIRECT", 3), ("UNESCAPE_AND_FORWARD", 4)];
    if !escaped.is_one_of(&is_safe) {
        findings.add(
            "escaped-slashes",
            Severity::Warning,
            &escaped,
            "/open%2F..%2Freports matches the route of /open, but many upstreams serve /reports",
            "path_with_escaped_slashes_action: REJECT_REQUEST",
        );
    }
}

fn check_requests(node: &Node<'_>, findings: &mut Findings) {
    let underscores = node.get_path("common_http_protocol_options.headers_with_underscores_action");
    if !underscores.is_one_of(&[("REJECT_REQUEST", 1), ("DROP_HEADER", 2)]) {
        findings.add(
            "underscores",
            Severity::Warning,
            &underscores,
            "many servers treat x_talos_actor_id as x-talos-actor-id, so clients can forge identity headers",
            "common_http_protocol_options:\n  headers_with_underscores_action: REJECT_REQUEST",
        );
    }
    let timeout = node.get("request_headers_timeout");
    if !timeout.seconds().is_some_and(|seconds| seconds > 0.0) {
        findings.add(
            "slow-headers",
            Severity::Note,
            &timeout,
            "a client that sends its headers very slowly holds a stream for minutes",
            "request_headers_timeout: 10s",
        );
    }
}

/// Checks where Envoy takes the client's address from, and compares it with Talos' settings.
fn check_addresses(manager: &ConnectionManager<'_>, authz: Option<&Authz>, findings: &mut Findings) {
    let node = &manager.node;
    let remote = node.get("use_remote_address");
    let detection = node.items("original_ip_detection_extensions");
    if !remote.is_true() && detection.is_empty() && !manager.is_inbound() {
        findings.add(
            "use-remote-address",
            Severity::Warning,
            &remote,
            "Envoy takes the client's address from X-Forwarded-For, which the client sets, and trusts its x-envoy-* \
             headers",
            "use_remote_address: true",
        );
    }
    check_internal_addresses(node, findings);
    check_proxy_protocol(manager, findings);
    if let Some(authz) = authz {
        check_client_address(node, &detection, authz, findings);
    }
}

fn check_internal_addresses(node: &Node<'_>, findings: &mut Findings) {
    let internal = node.get("internal_address_config");
    let ranges = internal.items("cidr_ranges");
    let is_all = ranges.iter().any(|range| range.get("prefix_len").number().unwrap_or(0) == 0);
    if !internal.is_absent() && (ranges.is_empty() || is_all) {
        let why = match is_all {
            true => "every client is \"internal\" and may control Envoy with x-envoy-* headers",
            false => {
                "clients with private addresses are \"internal\" and may control Envoy with x-envoy-* headers (without \
                 this block, since Envoy 1.33, no client may)"
            }
        };
        findings.add(
            "internal-addresses",
            Severity::Warning,
            &internal,
            why,
            "# remove internal_address_config",
        );
    }
}

fn check_proxy_protocol(manager: &ConnectionManager<'_>, findings: &mut Findings) {
    for filter in manager.listener.items("listener_filters") {
        let (kind, config) = filter.get("typed_config").unwrap_typed();
        let optional = config.get("allow_requests_without_proxy_protocol");
        if kind == Some("ProxyProtocol") && optional.is_true() {
            findings.add(
                "optional-proxy-protocol",
                Severity::Warning,
                &optional,
                "a client that connects directly can send a PROXY line and so choose its own address",
                "allow_requests_without_proxy_protocol: false",
            );
        }
    }
}

/// Compares Envoy's settings for the client's address with those of Talos.
fn check_client_address(node: &Node<'_>, detection: &[Node<'_>], authz: &Authz, findings: &mut Findings) {
    let remote = node.get("use_remote_address");
    let hops_at = detection
        .iter()
        .map(|extension| extension.get("typed_config").get("xff_num_trusted_hops"))
        .find(|hops| !hops.is_absent())
        .unwrap_or_else(|| node.get("xff_num_trusted_hops"));
    let hops = hops_at.number().unwrap_or(0);
    match authz.client_address {
        ClientAddress::Peer if hops > 0 => findings.add(
            "client-address",
            Severity::Error,
            &hops_at,
            format!(
                "this Envoy is behind {hops} trusted proxies, but Talos uses the address of the connection's peer: \
                 address lists are compared with the nearest proxy's address (authz.client_address: peer)"
            ),
            format!("# talos.yaml\nauthz: {{ client_address: xff, trusted_hops: {} }}", hops.saturating_add(1)),
        ),
        ClientAddress::External if !remote.is_true() => findings.add(
            "client-address",
            Severity::Error,
            &remote,
            "Talos reads x-envoy-external-address (authz.client_address: external), but without use_remote_address the \
             client can set this header",
            "use_remote_address: true",
        ),
        ClientAddress::Xff => {
            // Before the check, Envoy appends the peer's address, unless configured not to.
            let is_appended = !node.get("skip_xff_append").is_true() || !remote.is_true();
            let expected = if is_appended { hops.saturating_add(1) } else { hops };
            if u64::from(authz.trusted_hops) != expected {
                findings.add(
                    "client-address",
                    Severity::Error,
                    &hops_at,
                    format!(
                        "Envoy trusts {hops} proxies in front of it, so the client is entry {expected} of X-Forwarded-For \
                         from the right; Talos takes entry {} (authz.trusted_hops), which is a proxy's address or set by \
                         the client",
                        authz.trusted_hops
                    ),
                    format!("# talos.yaml\nauthz: {{ client_address: xff, trusted_hops: {} }}", expected.max(1)),
                );
            }
        }
        ClientAddress::Peer | ClientAddress::External => {}
    }
}

/// Filters that run custom code or call a service that may change a request.
pub(super) const PROGRAMMABLE_FILTERS: [&str; 5] =
    ["Lua", "LuaPerRoute", "Wasm", "ExternalProcessor", "DynamicModuleFilter"];
/// Name of ext_authz's dynamic metadata.
pub(super) const EXT_AUTHZ_METADATA: &str = "envoy.filters.http.ext_authz";

fn check_order(manager: &ConnectionManager<'_>, findings: &mut Findings) {
    let Some(first) = manager.checks.iter().min_by_key(|check| check.index) else { return };
    for filter in manager.filters.iter().take(first.index).filter(|filter| !is_accelerator(filter)) {
        check_filter_before(manager, filter, first.name, findings);
    }
    let module = manager.filters.iter().find(|filter| is_accelerator(filter));
    let module = module.map_or(first.name, |module| module.name);
    for filter in filters_between(&manager.filters, first.index) {
        check_identity(filter, "accelerator's decision", module, findings);
    }
    for filter in manager.filters.iter().skip(first.index + 1) {
        check_filter_after(filter, first.name, findings);
    }
}

/// Returns the order of two filters.
fn order(first: &str, second: &str) -> String {
    format!("http_filters: # in this order\n  - name: {}\n  - name: {}", to_yaml(first), to_yaml(second))
}

fn check_filter_before(
    manager: &ConnectionManager<'_>,
    filter: &HttpFilter<'_>,
    check: &str,
    findings: &mut Findings,
) {
    let needs_check = |text: &str| text == EXT_AUTHZ_METADATA || headers::is_talos_header(text);
    let reads_identity = match filter.kind {
        Some("RBAC") => filter.config.any_text(needs_check),
        _ if filter.is_rate_limit() => {
            filter.config.any_text(needs_check)
                || manager.targets.iter().flat_map(|target| &target.levels).any(|level| {
                    level.get("rate_limits").any_text(needs_check)
                        || level.get("route").get("rate_limits").any_text(needs_check)
                })
        }
        _ => false,
    };
    let enforces = ["rules", "matcher"].iter().any(|field| !filter.config.get(field).is_absent());
    let fix = order(check, filter.name);
    match filter.kind {
        _ if reads_identity => findings.add(
            "identity-too-early",
            Severity::Error,
            &filter.config,
            "the filter decides by identity headers or metadata of Talos, but runs before the check: it sees values that \
             the client sent, or none",
            fix,
        ),
        Some("RBAC") if enforces => findings.add(
            "acts-before-check",
            Severity::Note,
            &filter.config,
            "the filter runs before the check: it can decide by addresses, but not by the caller's identity",
            fix,
        ),
        Some("CacheConfig") => findings.add(
            "acts-before-check",
            Severity::Error,
            &filter.config,
            "the filter answers from its cache before the key is checked",
            fix,
        ),
        Some("Buffer" | "FileSystemBufferFilterConfig") => findings.add(
            "acts-before-check",
            Severity::Warning,
            &filter.config,
            "the filter buffers whole bodies in memory before the key is checked",
            fix,
        ),
        Some("GrpcJsonTranscoder") => findings.add(
            "acts-before-check",
            Severity::Warning,
            &filter.config,
            "the filter changes the path and method before Talos selects a policy by them",
            fix,
        ),
        Some(kind) if PROGRAMMABLE_FILTERS.contains(&kind) => findings.add(
            "acts-before-check",
            Severity::Note,
            &filter.config,
            "the filter's code runs for unchecked requests and may change what Talos sees",
            fix,
        ),
        _ => {}
    }
}

fn check_filter_after(filter: &HttpFilter<'_>, check: &str, findings: &mut Findings) {
    if filter.kind == Some("Cors") {
        findings.add(
            "cors-after-check",
            Severity::Warning,
            &filter.config,
            "CORS preflight requests carry no key, so the check refuses them before this filter can answer",
            order(filter.name, check),
        );
    }
    check_identity(filter, "check", check, findings);
}

/// Checks that a filter that runs after a decision leaves the identity headers alone. The decision
/// is that of the filter `decides`.
fn check_identity(filter: &HttpFilter<'_>, decision: &str, decides: &str, findings: &mut Findings) {
    let mutations = filter.mutations();
    if let Some(key) = headers::find_identity_override(&mutations) {
        findings.add(
            "identity-overwritten",
            Severity::Error,
            &key,
            format!(
                "the header is set after the {decision}: upstream trusts this value, alone or beside that of Talos"
            ),
            "request_mutations: [] # use a header name that doesn't begin with x-talos-",
        );
    }
    if headers::removes_all_identity(&mutations) {
        findings.add(
            "identity-removed",
            Severity::Warning,
            &filter.config,
            "the filter removes the identity headers that Talos has set",
            order(filter.name, decides),
        );
    }
    let is_code = filter.kind.is_some_and(|kind| PROGRAMMABLE_FILTERS.contains(&kind));
    let claims =
        matches!(filter.kind, Some("JwtAuthentication")) && filter.config.any_text(headers::mentions_talos);
    if claims || (is_code && filter.config.any_text(headers::mentions_talos)) {
        findings.add(
            "identity-overwritten",
            Severity::Warning,
            &filter.config,
            format!(
                "the filter uses x-talos-* headers and runs after the {decision}: upstream trusts what it writes there"
            ),
            "# read x-talos-* headers, but write only headers with other names",
        );
    }
}

/// Checks that forged identity headers are removed from request trailers.
///
/// Trailers arrive after the check, so they go upstream unless a filter removes them.
fn check_trailers(
    dump: &Dump<'_>,
    manager: &ConnectionManager<'_>,
    authz: Option<&Authz>,
    findings: &mut Findings,
) {
    let token_header = authz.map_or("authorization", |authz| authz.token_header.as_str());
    let strips = |filter: &&HttpFilter<'_>| {
        headers::removes_all_trusted(&filter.trailer_mutations(), token_header) && !filter.disabled
    };
    let stripping: Vec<&HttpFilter<'_>> = manager.filters.iter().filter(strips).collect();
    let fix = trailers_fix(token_header, stripping.is_empty());
    let filters = manager.node.get("http_filters");
    if let Some((severity, reach)) = worst_reach(dump, manager, &stripping) {
        let why = format!(
            "request trailers go upstream as the client sent them, including x-talos-* and {token_header}, and many \
             servers merge them into the headers; {reach}"
        );
        findings.add("forged-trailers", severity, &filters, why, fix);
        return;
    }
    let exact = |filter: &&&HttpFilter<'_>| headers::removes_spellings(&filter.trailer_mutations());
    let exact: Vec<&HttpFilter<'_>> = stripping.iter().filter(exact).copied().collect();
    if let Some((severity, reach)) = worst_reach(dump, manager, &exact) {
        let why = format!(
            "request trailers such as x.talos.actor.id go upstream as the client sent them, and servers that read all \
             characters but letters and digits alike take them for x-talos-*; {reach}"
        );
        findings.add("forged-trailers", severity.max(Severity::Warning), &filters, why, fix);
    }
}

/// Returns the severity of request trailers that reach upstreams past all of these filters, and
/// how they do; `None` if they reach none.
fn worst_reach(
    dump: &Dump<'_>,
    manager: &ConnectionManager<'_>,
    stripping: &[&HttpFilter<'_>],
) -> Option<(Severity, String)> {
    let open = manager.targets.iter().filter(|target| {
        !target.is_answered_locally && stripping.iter().all(|filter| target.disables(filter.name))
    });
    let reaches = open.map(|target| match target.cluster.map(|name| (name, dump.cluster(name))) {
        Some((name, Some(cluster))) if takes_trailers(cluster) => {
            (Severity::Error, format!("the protocol of the cluster {name} carries them"))
        }
        Some((_, Some(_))) => (
            Severity::Note,
            "its clusters use HTTP/1.1 now, which doesn't carry them, but HTTP/2 would".to_owned(),
        ),
        Some((name, None)) => (
            Severity::Warning,
            format!("the dump doesn't have the protocol of the cluster {name}; HTTP/2 carries them"),
        ),
        None => (
            Severity::Warning,
            "the dump doesn't have the cluster of each route; HTTP/2 carries them".to_owned(),
        ),
    });
    // The first of the worst.
    reaches.min_by_key(|(severity, _)| *severity)
}

/// Returns the filter that removes identity headers from trailers, under a name of its own if
/// routes disable that of the chain.
fn trailers_fix(token_header: &str, is_first: bool) -> String {
    let name = if is_first { "talos.trailers" } else { "talos.trailers.always" };
    format!(
        "http_filters: # before the router\n  - name: {name}\n    typed_config:\n      \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n      \
         mutations:\n        request_trailers_mutations:\n          \
         - remove_on_match: {{ key_matcher: {{ safe_regex: {{ regex: \"{}\" }} }} }}\n          - remove: {}",
        headers::TALOS_HEADER_REGEX,
        to_yaml(token_header)
    )
}

/// Checks that keys don't arrive unencrypted from other machines.
fn check_listener(manager: &ConnectionManager<'_>, findings: &mut Findings) {
    let address = manager.listener.get_path("address.socket_address.address");
    let socket = manager.chain.get("transport_socket");
    let (kind, config) = socket.get("typed_config").unwrap_typed();
    let is_encrypted = match kind {
        // Istio's mTLS may be optional, and is the mesh's own affair.
        None => !socket.get("name").is_absent() || !manager.chain.get("tls_context").is_absent(),
        Some("RawBuffer" | "StartTlsConfig") => false,
        Some(_) => !config.is_absent(),
    };
    let is_remote = address.text().is_some_and(|address| !is_loopback(address));
    if is_remote && !is_encrypted && !manager.is_inbound() {
        findings.add(
            "plain-http",
            Severity::Note,
            &socket,
            format!(
                "keys arrive at {} unencrypted: anybody on the network path can read and use them, unless a proxy before \
                 this Envoy ends TLS on the same machine",
                address.text().unwrap_or_default()
            ),
            "transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \
             \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n    \
             common_tls_context:\n      tls_certificates:\n        \
             - certificate_chain: { filename: /etc/envoy/edge.pem }\n          \
             private_key: { filename: /etc/envoy/edge-key.pem }",
        );
    }
}

/// Checks protocol upgrades, whose own filters replace those of the chain.
fn check_upgrades(manager: &ConnectionManager<'_>, options: Options<'_>, findings: &mut Findings) {
    for upgrade in manager.node.items("upgrade_configs") {
        let filters = upgrade.items("filters");
        if !filters.is_empty() && !filters.iter().any(|filter| HttpFilter::calls_talos(filter, options)) {
            let kind = upgrade.get("upgrade_type").text().unwrap_or("upgraded");
            findings.add(
                "unchecked-upgrade",
                Severity::Error,
                &upgrade.get("filters"),
                format!(
                    "{kind} requests use these filters instead of the chain's, and none of them calls Talos"
                ),
                "# remove filters\n# the upgrade then uses those of the connection manager",
            );
        }
    }
}
