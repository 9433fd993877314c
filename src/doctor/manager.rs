//! The connection manager around the check: paths, addresses, header names, and what stands before and after it.

use super::chain::{Filter, Manager};
use super::cluster::takes_trailers;
use super::dump::Dump;
use super::headers;
use super::node::{Node, yaml};
use super::{Findings, Question, Severity};
use crate::config::{Authz, ClientAddress};

/// Looks at one connection manager that asks Talos.
pub fn examine(dump: &Dump<'_>, manager: &Manager<'_>, question: Question<'_>, found: &mut Findings) {
    paths(&manager.node, found);
    requests(&manager.node, found);
    addresses(manager, question.authz, found);
    order(manager, found);
    trailers(dump, manager, question.authz, found);
    upgrades(manager, question, found);
}

fn paths(node: &Node<'_>, found: &mut Findings) {
    let normalize = node.get("normalize_path");
    if !normalize.is_true() {
        found.add(
            "normalize-path",
            Severity::Error,
            &normalize,
            "/open/../reports takes the route of /open, and the upstream serves /reports",
            "normalize_path: true",
        );
    }
    let merge = node.get("merge_slashes");
    if !merge.is_true() {
        found.add(
            "merge-slashes",
            Severity::Warning,
            &merge,
            "//reports doesn't take the route of /reports, and many upstreams serve it all the same",
            "merge_slashes: true",
        );
    }
    let escaped = node.get("path_with_escaped_slashes_action");
    let is_safe = ["REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"];
    if !escaped.text().is_some_and(|action| is_safe.contains(&action)) {
        found.add(
            "escaped-slashes",
            Severity::Warning,
            &escaped,
            "/open%2F..%2Freports takes the route of /open, and many upstreams serve /reports",
            "path_with_escaped_slashes_action: REJECT_REQUEST",
        );
    }
}

fn requests(node: &Node<'_>, found: &mut Findings) {
    let underscores = node.find("common_http_protocol_options.headers_with_underscores_action");
    if !matches!(underscores.text(), Some("REJECT_REQUEST" | "DROP_HEADER")) {
        found.add(
            "underscores",
            Severity::Warning,
            &underscores,
            "many servers read x_talos_actor_id as x-talos-actor-id: a forged identity in other letters",
            "common_http_protocol_options:\n  headers_with_underscores_action: REJECT_REQUEST",
        );
    }
    let timeout = node.get("request_headers_timeout");
    if !timeout.seconds().is_some_and(|seconds| seconds > 0.0) {
        found.add(
            "slow-headers",
            Severity::Note,
            &timeout,
            "a client that sends its headers byte by byte holds a stream for minutes",
            "request_headers_timeout: 10s",
        );
    }
}

fn addresses(manager: &Manager<'_>, authz: Option<&Authz>, found: &mut Findings) {
    let node = &manager.node;
    let remote = node.get("use_remote_address");
    let detection = node.items("original_ip_detection_extensions");
    let is_inbound = manager.direction() == Some("INBOUND");
    if !remote.is_true() && detection.is_empty() && !is_inbound {
        found.add(
            "use-remote-address",
            Severity::Warning,
            &remote,
            "Envoy takes the client's address from X-Forwarded-For, which the client writes, and believes its x-envoy-* \
             headers",
            "use_remote_address: true",
        );
    }
    let internal = node.get("internal_address_config");
    let ranges = internal.items("cidr_ranges");
    let is_all = ranges.iter().any(|range| range.get("prefix_len").number().unwrap_or(0) == 0);
    if !internal.is_absent() && (ranges.is_empty() || is_all) {
        let why = match is_all {
            true => "every client is \"internal\" and may steer Envoy with x-envoy-* headers",
            false => {
                "every private address is \"internal\" and may steer Envoy with x-envoy-* headers (without this \
                      block, since Envoy 1.33, nobody may)"
            }
        };
        found.add(
            "internal-addresses",
            Severity::Warning,
            &internal,
            why,
            "# without internal_address_config",
        );
    }
    for filter in manager.listener.items("listener_filters") {
        let (kind, config) = filter.get("typed_config").unwrapped();
        let optional = config.get("allow_requests_without_proxy_protocol");
        if kind == Some("ProxyProtocol") && optional.is_true() {
            found.add(
                "optional-proxy-protocol",
                Severity::Warning,
                &optional,
                "who connects directly begins with a PROXY line and has the address that it writes there",
                "allow_requests_without_proxy_protocol: false",
            );
        }
    }
    let Some(authz) = authz else { return };
    let hops_at = detection
        .iter()
        .map(|extension| extension.get("typed_config").get("xff_num_trusted_hops"))
        .find(|hops| !hops.is_absent())
        .unwrap_or_else(|| node.get("xff_num_trusted_hops"));
    let hops = hops_at.number().unwrap_or(0);
    match authz.client_address {
        ClientAddress::Peer if hops > 0 => found.add(
            "client-address",
            Severity::Error,
            &hops_at,
            format!(
                "{hops} trusted proxies stand before this Envoy, but Talos takes the connection's peer for the client: \
                 address lists are held against the nearest proxy's address (authz.client_address: peer)"
            ),
            format!("# talos.yaml\nauthz: {{ client_address: xff, trusted_hops: {} }}", hops.saturating_add(1)),
        ),
        ClientAddress::External if !remote.is_true() => found.add(
            "client-address",
            Severity::Error,
            &remote,
            "x-envoy-external-address, which Talos reads (authz.client_address: external), is Envoy's word only with \
             use_remote_address; else the client's",
            "use_remote_address: true",
        ),
        ClientAddress::Xff => {
            // Envoy has put the peer at the end by the time of the check, unless told not to.
            let is_appended = !node.get("skip_xff_append").is_true() || !remote.is_true();
            let expected = if is_appended { hops.saturating_add(1) } else { hops };
            if u64::from(authz.trusted_hops) != expected {
                found.add(
                    "client-address",
                    Severity::Error,
                    &hops_at,
                    format!(
                        "Envoy trusts {hops} proxies before it, so the client is entry {expected} of X-Forwarded-For from \
                         the right; Talos takes entry {} (authz.trusted_hops): a proxy's address, or one that the client wrote",
                        authz.trusted_hops
                    ),
                    format!("# talos.yaml\nauthz: {{ client_address: xff, trusted_hops: {} }}", expected.max(1)),
                );
            }
        }
        ClientAddress::Peer | ClientAddress::External => {}
    }
}

/// Filters whose code or service may do anything to a request.
const CODE: [&str; 5] = ["Lua", "LuaPerRoute", "Wasm", "ExternalProcessor", "DynamicModuleFilter"];
/// What ext_authz calls its dynamic metadata.
const METADATA: &str = "envoy.filters.http.ext_authz";

fn order(manager: &Manager<'_>, found: &mut Findings) {
    let Some(first) = manager.checks.iter().map(|check| check.index).min() else { return };
    for filter in manager.filters.iter().take(first) {
        before(manager, filter, found);
    }
    for filter in manager.filters.iter().skip(first + 1) {
        after(filter, found);
    }
}

fn before(manager: &Manager<'_>, filter: &Filter<'_>, found: &mut Findings) {
    let needs_check = |text: &str| text == METADATA || headers::is_ours(text);
    let is_rate_limit = matches!(filter.kind, Some("RateLimit" | "LocalRateLimit"));
    let reads_identity = match filter.kind {
        Some("RBAC") => filter.config.any_text(needs_check),
        _ if is_rate_limit => {
            filter.config.any_text(needs_check)
                || manager.leaves.iter().flat_map(|leaf| &leaf.levels).any(|level| {
                    level.get("rate_limits").any_text(needs_check)
                        || level.get("route").get("rate_limits").any_text(needs_check)
                })
        }
        _ => false,
    };
    let enforces = ["rules", "matcher"].iter().any(|field| !filter.config.get(field).is_absent());
    let fix = "http_filters: # in this order\n  - name: envoy.filters.http.ext_authz\n  - name: …\n  - name: envoy.filters.http.router";
    match filter.kind {
        _ if reads_identity => found.add(
            "identity-too-early",
            Severity::Error,
            &filter.config,
            "decides by what Talos says of the caller, but stands before the check: it sees what the client wrote, or nothing",
            fix,
        ),
        Some("RBAC") if enforces => found.add(
            "acts-before-check",
            Severity::Note,
            &filter.config,
            "decides before Talos has: right for addresses, of no use for callers",
            fix,
        ),
        Some("CacheConfig") => found.add(
            "acts-before-check",
            Severity::Error,
            &filter.config,
            "answers from its cache before anybody has looked at the key",
            fix,
        ),
        Some("Buffer" | "FileSystemBufferFilterConfig") => found.add(
            "acts-before-check",
            Severity::Warning,
            &filter.config,
            "keeps whole bodies of strangers in memory before anybody has looked at the key",
            fix,
        ),
        Some("GrpcJsonTranscoder") => found.add(
            "acts-before-check",
            Severity::Warning,
            &filter.config,
            "writes another path and method before Talos chooses the policy by them",
            fix,
        ),
        Some(kind) if CODE.contains(&kind) => found.add(
            "acts-before-check",
            Severity::Note,
            &filter.config,
            "its code runs for requests that nobody has checked, and decides what Talos gets to see",
            fix,
        ),
        _ => {}
    }
}

fn after(filter: &Filter<'_>, found: &mut Findings) {
    if filter.kind == Some("Cors") {
        found.add(
            "cors-after-check",
            Severity::Warning,
            &filter.config,
            "a browser's preflight carries no key: it is refused before this filter could answer it, and so is the page",
            "http_filters: # in this order\n  - name: envoy.filters.http.cors\n  - name: envoy.filters.http.ext_authz",
        );
    }
    let mutations = filter.mutations();
    if let Some(key) = headers::sets_identity(&mutations) {
        found.add(
            "identity-overwritten",
            Severity::Error,
            &key,
            "is set after the check: upstream believes this value, alone or beside ours",
            "# give the header a name that doesn't begin with x-talos-",
        );
    }
    if headers::strip_identity(&mutations) {
        found.add(
            "identity-removed",
            Severity::Warning,
            &filter.config,
            "takes away what Talos has just said of the caller",
            "http_filters: # in this order\n  - name: envoy.filters.http.header_mutation\n  - name: envoy.filters.http.ext_authz",
        );
    }
    let is_code = filter.kind.is_some_and(|kind| CODE.contains(&kind));
    let mentions = |text: &str| {
        let text = text.to_ascii_lowercase().replace('_', "-");
        text.contains(crate::service::upstream::HEADER_PREFIX)
    };
    let claims = matches!(filter.kind, Some("JwtAuthentication")) && filter.config.any_text(mentions);
    if claims || (is_code && filter.config.any_text(mentions)) {
        found.add(
            "identity-overwritten",
            Severity::Warning,
            &filter.config,
            "has to do with x-talos-* headers and stands after the check: what it writes there, upstream believes",
            "# read them, but write headers of other names",
        );
    }
}

/// Trailers come after the check: what the client sent there goes upstream unless a filter takes it
/// out.
fn trailers(dump: &Dump<'_>, manager: &Manager<'_>, authz: Option<&Authz>, found: &mut Findings) {
    let token_header = authz.map_or("authorization", |authz| authz.token_header.as_str());
    let strips = |filter: &&Filter<'_>| {
        headers::strip_all(&filter.trailer_mutations(), token_header) && !filter.disabled
    };
    let stripping: Vec<&Filter<'_>> = manager.filters.iter().filter(strips).collect();
    let open = manager
        .leaves
        .iter()
        .filter(|leaf| !leaf.is_answered && stripping.iter().all(|filter| leaf.turns_off(filter.name)));
    let mut worst: Option<(Severity, String)> = None;
    for leaf in open {
        let (severity, whither) = match leaf.cluster.map(|name| (name, dump.cluster(name))) {
            Some((name, Some(cluster))) if takes_trailers(cluster) => {
                (Severity::Error, format!("the cluster {name} is spoken to in a way that carries them"))
            }
            Some((_, Some(_))) => (
                Severity::Note,
                "HTTP/1.1, which its clusters speak now, doesn't carry them, HTTP/2 does".to_owned(),
            ),
            Some((name, None)) => (
                Severity::Warning,
                format!("the dump doesn't say what the cluster {name} speaks; HTTP/2 carries them"),
            ),
            None => (
                Severity::Warning,
                "the dump doesn't say where each route leads; HTTP/2 carries them".to_owned(),
            ),
        };
        if worst.as_ref().is_none_or(|(worst, _)| severity < *worst) {
            worst = Some((severity, whither));
        }
    }
    if let Some((severity, whither)) = worst {
        found.add(
            "forged-trailers",
            severity,
            &manager.node.get("http_filters"),
            format!(
                "trailers of a request go upstream as the client wrote them, x-talos-* and {token_header} among them, and \
                 many servers add them to the headers; {whither}"
            ),
            trailers_fix(token_header),
        );
    }
}

fn trailers_fix(token_header: &str) -> String {
    format!(
        "http_filters: # before the router\n  - name: talos.trailers\n    typed_config:\n      \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n      \
         mutations:\n        request_trailers_mutations:\n          \
         - remove_on_match: {{ key_matcher: {{ safe_regex: {{ regex: \"{}\" }} }} }}\n          - remove: {}",
        headers::OUR_NAMES,
        yaml(token_header)
    )
}

/// A protocol upgrade may bring filters of its own, in place of the chain's.
fn upgrades(manager: &Manager<'_>, question: Question<'_>, found: &mut Findings) {
    for upgrade in manager.node.items("upgrade_configs") {
        let filters = upgrade.items("filters");
        if !filters.is_empty() && !filters.iter().any(|filter| Filter::asks_talos(filter, question)) {
            let kind = upgrade.get("upgrade_type").text().unwrap_or("upgraded");
            found.add(
                "unchecked-upgrade",
                Severity::Error,
                &upgrade.get("filters"),
                format!(
                    "{kind} requests take these filters instead of the chain's, and none of them asks Talos"
                ),
                "# without filters: the upgrade takes those of the connection manager",
            );
        }
    }
}
