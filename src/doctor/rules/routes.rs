//! Findings about routes: where the check is disabled, what changes identity headers, and ways
//! around the check.

use std::collections::{HashMap, HashSet};

use super::cluster::GrpcService;
use super::cure;
use super::other_ways::{TrustingClusters, check_admin_routes, check_tcp_proxies};
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::dump::Dump;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::headers;
use crate::doctor::http_filter::ExtAuthz;
use crate::doctor::node::{Node, to_yaml};
use crate::doctor::options::Options;
use crate::doctor::route_target::RouteTarget;

/// A route's configuration of a filter.
enum PerRoute<'a> {
    /// The route has none: the chain's setting applies.
    Inherited,
    /// Enabled, with or without settings.
    Enabled,
    /// Disabled by the setting at this node.
    Disabled(Node<'a>),
}

impl RouteTarget<'_> {
    /// Returns true if some level removes all identity headers before the request goes upstream.
    fn is_identity_stripped(&self) -> bool {
        self.levels.iter().any(headers::lists_all_identity)
    }
}

/// Returns the most specific configuration of a filter on a route.
fn per_route<'a>(target: &RouteTarget<'a>, filter: &str) -> PerRoute<'a> {
    for level in &target.levels {
        let entry = level.get("typed_per_filter_config").entry(filter);
        if entry.is_absent() {
            continue;
        }
        let (kind, config) = entry.unwrap_typed();
        let disabled = config.get("disabled");
        if disabled.is_true() {
            return PerRoute::Disabled(disabled);
        }
        // FilterConfig wraps a configuration and can disable it.
        let (_, inner) = match kind {
            Some("FilterConfig") => config.get("config").unwrap_typed(),
            _ => (kind, config),
        };
        return match inner.get("disabled") {
            disabled if disabled.is_true() => PerRoute::Disabled(disabled),
            _ => PerRoute::Enabled,
        };
    }
    PerRoute::Inherited
}

/// Returns the `check_settings` for a filter at all levels of a route.
pub(crate) fn per_route_settings<'a>(target: &RouteTarget<'a>, filter: &str) -> Vec<Node<'a>> {
    let of_level = |level| per_route_config(level, filter).get("check_settings");
    target.levels.iter().map(of_level).filter(|settings| !settings.is_absent()).collect()
}

/// Returns the configuration for a filter at one level of a route, without what wraps it.
pub(crate) fn per_route_config<'a>(level: &Node<'a>, filter: &str) -> Node<'a> {
    let (kind, config) = level.get("typed_per_filter_config").entry(filter).unwrap_typed();
    if kind == Some("FilterConfig") { config.get("config").unwrap_typed().1 } else { config }
}

/// Returns the gRPC services that routes use instead of the filter's own.
pub(crate) fn other_services<'a>(
    manager: &ConnectionManager<'a>,
    options: Options<'_>,
) -> Vec<GrpcService<'a>> {
    let mut services = vec![];
    for check in &manager.checks {
        for settings in manager.targets.iter().flat_map(|target| per_route_settings(target, check.name)) {
            let service = settings.get("grpc_service");
            if !service.is_absent() {
                services.push(GrpcService::parse(&service, options));
            }
        }
    }
    services
}

/// Examines the routes of all connection managers.
pub(crate) fn examine(dump: &Dump<'_>, managers: &[ConnectionManager<'_>], findings: &mut Findings) {
    let mut trusting = TrustingClusters::default();
    for manager in managers {
        for target in &manager.targets {
            let is_checked = manager.checks.iter().any(|check| is_enabled(target, check));
            // What comes out of a tunnel isn't checked: its cluster need not trust the headers.
            let is_checked = is_checked && target.connect_config().is_none();
            if let (true, Some(cluster), Some(route)) = (is_checked, target.cluster, target.levels.first()) {
                trusting.insert(dump, cluster, &route.path);
            }
        }
    }
    for manager in managers {
        match manager.checks.is_empty() {
            true => check_unprotected(dump, manager, &trusting, findings),
            false => {
                for target in &manager.targets {
                    check_protected(manager, target, findings);
                    check_tunnel(dump, target, &trusting, findings);
                }
                check_all_names(manager, findings);
            }
        }
    }
    check_tcp_proxies(dump, &trusting, findings);
    check_admin_routes(dump, managers, findings);
}

fn is_enabled(target: &RouteTarget<'_>, check: &ExtAuthz<'_>) -> bool {
    match per_route(target, check.name) {
        PerRoute::Enabled => true,
        PerRoute::Disabled(_) => false,
        PerRoute::Inherited => !check.is_disabled,
    }
}

/// Checks a connection manager without a check.
fn check_unprotected(
    dump: &Dump<'_>,
    manager: &ConnectionManager<'_>,
    trusting: &TrustingClusters<'_>,
    findings: &mut Findings,
) {
    // The outbound listeners of an Istio sidecar don't receive requests from clients.
    if trusting.is_empty() || manager.is_outbound() {
        return;
    }
    let removal = headers::removal_yaml();
    let fix = format!(
        "# if this listener should work without keys, on the route:\n{removal}\n# or, to check its requests:\n{}",
        cure::recommended()
    );
    let is_open = |target: &&RouteTarget<'_>| !target.is_answered_locally && !target.is_identity_stripped();
    let mut reasons: HashMap<&str, Option<String>> = HashMap::new();
    let mut leads_upstream = false;
    for target in manager.targets.iter().filter(is_open) {
        leads_upstream = true;
        if let (Some(header), Some(route)) = (target.cluster_header(), target.levels.first()) {
            findings.add(
                "unprotected-route",
                Severity::Error,
                route,
                format!(
                    "the client names the cluster in the header {header}, and the route leads unchecked there, to {} as \
                     well: a client can send any identity",
                    trusting.example()
                ),
                fix.clone(),
            );
        }
        let (Some(cluster), Some(route)) = (target.cluster, target.levels.first()) else { continue };
        let reason = reasons.entry(cluster).or_insert_with(|| trusting.reason(dump, cluster));
        if let Some(reason) = reason {
            findings.add(
                "unprotected-route",
                Severity::Error,
                route,
                format!("the route leads unchecked to {reason}: a client can send any identity"),
                fix.clone(),
            );
        }
    }
    if leads_upstream && reasons.values().all(Option::is_none) {
        findings.add(
            "unchecked-listener",
            Severity::Note,
            &manager.node.get("http_filters"),
            "no filter calls Talos here; its upstreams are not among those that Talos protects",
            format!(
                "# if this listener should work without keys:\nroute_config:\n  {}\n# or, to check its requests:\n{}",
                removal.replace('\n', "\n  "),
                cure::recommended()
            ),
        );
    }
}

/// Checks that a tunnel, whose requests nobody checks, leads to no server that trusts identity
/// headers.
fn check_tunnel(
    dump: &Dump<'_>,
    target: &RouteTarget<'_>,
    trusting: &TrustingClusters<'_>,
    findings: &mut Findings,
) {
    let (Some(config), Some(cluster)) = (target.connect_config(), target.cluster) else { return };
    if let Some(reason) = trusting.reason(dump, cluster) {
        findings.add(
            "unprotected-route",
            Severity::Error,
            &config,
            format!(
                "Envoy ends CONNECT here, and the requests in the tunnel go unchecked to {reason}: a client can send any \
                 identity in them"
            ),
            "# remove connect_config\n# or let the route lead to a proxy that trusts no x-talos-* headers",
        );
    }
}

/// Checks a route of a connection manager that calls Talos.
fn check_protected(manager: &ConnectionManager<'_>, target: &RouteTarget<'_>, findings: &mut Findings) {
    if target.is_answered_locally {
        return;
    }
    let is_checked = manager.checks.iter().any(|check| is_enabled(target, check));
    for check in &manager.checks {
        for settings in per_route_settings(target, check.name) {
            super::filter::check_request_body(&settings.get("with_request_body"), findings);
            check_http_service(&settings.get("http_service"), findings);
        }
        if !is_checked {
            check_disabled(check, target, findings);
        }
    }
    for level in &target.levels {
        for option in level.items("request_headers_to_add") {
            let key = option.get_path("header.key");
            if key.text().is_some_and(headers::is_talos_header) {
                findings.add(
                    "identity-overwritten",
                    Severity::Error,
                    &key,
                    "the header is set after the check: upstream trusts this value, alone or beside that of Talos",
                    "request_headers_to_add: [] # use a header name that doesn't begin with x-talos-",
                );
            }
        }
        let removed = level.get("request_headers_to_remove");
        let removes_identity = removed.any_text(headers::is_talos_header);
        if removes_identity && is_checked {
            findings.add(
                "identity-removed",
                Severity::Warning,
                &removed,
                "the route removes the identity headers that Talos has set: a route's removals happen after the check",
                "request_headers_to_remove: [] # Talos itself removes or overwrites those of the client",
            );
        }
    }
}

/// Checks that a route doesn't replace Talos by an HTTP service.
fn check_http_service(service: &Node<'_>, findings: &mut Findings) {
    if service.is_absent() {
        return;
    }
    let uri = service.get_path("server_uri.uri").text().unwrap_or("an HTTP service");
    findings.add(
        "http-service",
        Severity::Error,
        service,
        format!("requests of this route are judged by {uri} instead of Talos: x-talos-* headers stay as clients sent them"),
        "# remove http_service",
    );
}

fn check_all_names(manager: &ConnectionManager<'_>, findings: &mut Findings) {
    // Targets share their levels: each is examined once.
    let mut examined = HashSet::new();
    for level in manager.targets.iter().flat_map(|target| &target.levels) {
        if examined.insert(std::ptr::from_ref(level.tree)) {
            check_names(manager, level, findings);
        }
    }
}

/// Checks that a level's settings have the name of a filter in the chain. Envoy ignores others.
fn check_names(manager: &ConnectionManager<'_>, level: &Node<'_>, findings: &mut Findings) {
    let upgrades = manager.node.items("upgrade_configs");
    for (name, entry) in level.get("typed_per_filter_config").entries() {
        let is_upgrade = |upgrade: &Node<'_>| {
            upgrade.items("filters").iter().any(|filter| filter.get("name").text() == Some(name))
        };
        if manager.filters.iter().any(|filter| filter.name == name) || upgrades.iter().any(is_upgrade) {
            continue;
        }
        let (kind, config) = entry.clone().unwrap_typed();
        let kind = match kind {
            Some("FilterConfig") => config.get("config").unwrap_typed().0,
            kind => kind,
        };
        let filter_kind = match kind {
            Some("CorsPolicy") => "Cors",
            Some(kind) => kind.strip_suffix("PerRoute").unwrap_or(kind),
            None => continue,
        };
        let Some(filter) = manager.filters.iter().find(|filter| filter.kind == Some(filter_kind)) else {
            continue;
        };
        let severity = if filter_kind == "ExtAuthz" { Severity::Error } else { Severity::Warning };
        findings.add(
            "per-route-ignored",
            severity,
            &entry,
            format!(
                "Envoy ignores these settings: no filter of the chain has the name {name}; the filter of this kind is \
                 named {}",
                filter.name
            ),
            format!("# rename the key to\n{}: …", to_yaml(filter.name)),
        );
    }
}

fn check_disabled(check: &ExtAuthz<'_>, target: &RouteTarget<'_>, findings: &mut Findings) {
    let name = to_yaml(check.name);
    let off = format!(
        "typed_per_filter_config:\n  {name}: # no check; Talos removes forged headers\n    \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n    \
         check_settings: {{ context_extensions: {{ talos.mode: \"off\" }} }}\n\
         # or, to not call Talos at all, on that route:\n{}",
        headers::removal_yaml()
    );
    let (id, place, fix) = match per_route(target, check.name) {
        PerRoute::Disabled(disabled) => ("route-disabled", disabled, off),
        _ => (
            "filter-disabled",
            check.config.get("disabled"),
            format!("disabled: false\n# or, on the route:\n{off}"),
        ),
    };
    if check.is_identity_stripped || target.is_identity_stripped() {
        findings.add(
            id,
            Severity::Note,
            &place,
            "requests are not checked here; forged x-talos-* headers are removed elsewhere",
            fix,
        );
        return;
    }
    let route = target.levels.first().map(|route| route.path.as_str()).unwrap_or_default();
    findings.add(
        id,
        Severity::Error,
        &place,
        format!("requests of {route} go upstream unchecked, with the client's own x-talos-* headers"),
        fix,
    );
}
