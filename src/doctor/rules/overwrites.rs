//! Findings about what writes identity beside Talos: settings of routes for filters after the
//! check, filters of the router and of clusters, and filters that write Talos' metadata.

use std::collections::HashSet;

use super::cluster::HTTP_PROTOCOL_OPTIONS;
use super::manager::{EXT_AUTHZ_METADATA, PROGRAMMABLE_FILTERS};
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::dump::Dump;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::headers;
use crate::doctor::http_filter::HttpFilter;
use crate::doctor::node::Node;

/// Examines one connection manager that calls Talos.
pub(crate) fn examine(dump: &Dump<'_>, manager: &ConnectionManager<'_>, findings: &mut Findings) {
    let Some(check) = manager.checks.iter().map(|check| check.index).min() else { return };
    check_routes(manager, check, findings);
    manager.filters.iter().skip(check + 1).for_each(|filter| check_injected(filter, findings));
    let routers = manager.filters.iter().filter(|filter| filter.kind == Some("Router"));
    let mut late: Vec<Node<'_>> =
        routers.flat_map(|router| router.config.items("upstream_http_filters")).collect();
    let clusters: HashSet<&str> = manager.targets.iter().filter_map(|target| target.cluster).collect();
    for cluster in clusters.into_iter().filter_map(|name| dump.cluster(name)) {
        let options = cluster.get("typed_extension_protocol_options").entry(HTTP_PROTOCOL_OPTIONS);
        late.extend(options.items("http_filters"));
    }
    for filter in late.into_iter().map(|node| HttpFilter::new(dump, node)) {
        check_late(filter.kind, &filter.config, findings);
    }
    manager.filters.iter().for_each(|filter| check_metadata(filter, findings));
}

/// Checks the settings that routes have for filters after the check.
fn check_routes(manager: &ConnectionManager<'_>, check: usize, findings: &mut Findings) {
    let is_late = |name: &str| manager.filters.iter().skip(check + 1).any(|filter| filter.name == name);
    // Targets share their levels: each is examined once.
    let mut examined = HashSet::new();
    for level in manager.targets.iter().flat_map(|target| &target.levels) {
        if !examined.insert(std::ptr::from_ref(level.tree)) {
            continue;
        }
        for (_, entry) in level.get("typed_per_filter_config").entries().filter(|(name, _)| is_late(name)) {
            let (kind, config) = match entry.unwrap_typed() {
                (Some("FilterConfig"), config) => config.get("config").unwrap_typed(),
                typed => typed,
            };
            check_late(kind, &config, findings);
        }
    }
}

/// Checks that a filter after the check doesn't inject a credential as an identity header.
fn check_injected(filter: &HttpFilter<'_>, findings: &mut Findings) {
    if filter.kind != Some("CredentialInjector") {
        return;
    }
    for object in filter.config.descendants() {
        let header = object.get("header");
        if header.text().is_some_and(headers::is_talos_header) {
            findings.add(
                "identity-overwritten",
                Severity::Error,
                &header,
                "the filter writes this header after the check: upstream trusts its value in place of that of Talos",
                "header: authorization # or any header that doesn't begin with x-talos-",
            );
        }
    }
}

/// Checks settings that take effect after the check.
fn check_late(kind: Option<&str>, config: &Node<'_>, findings: &mut Findings) {
    let mutations = match kind {
        Some("HeaderMutation" | "HeaderMutationPerRoute") => config.get("mutations"),
        _ => Node::absent(config.path.as_str()),
    };
    let requests = mutations.items("request_mutations");
    if let Some(key) = headers::find_identity_override(&requests) {
        findings.add(
            "identity-overwritten",
            Severity::Error,
            &key,
            "the header is set after the check: upstream trusts this value, alone or beside that of Talos",
            "request_mutations: [] # use a header name that doesn't begin with x-talos-",
        );
    }
    if headers::removes_all_identity(&requests) {
        findings.add(
            "identity-removed",
            Severity::Warning,
            &mutations.get("request_mutations"),
            "the identity headers that Talos has set are removed after the check",
            "request_mutations: [] # Talos itself removes or overwrites those of the client",
        );
    }
    let is_code = kind.is_some_and(|kind| PROGRAMMABLE_FILTERS.contains(&kind));
    if is_code && config.any_text(headers::mentions_talos) {
        findings.add(
            "identity-overwritten",
            Severity::Warning,
            config,
            "the code uses x-talos-* headers and runs after the check: upstream trusts what it writes there",
            "# read x-talos-* headers, but write only headers with other names",
        );
    }
}

/// Checks that a filter doesn't write the metadata in which Talos' decision stands. What Talos
/// doesn't set, as the actor of an anonymous request, stays as it is there.
fn check_metadata(filter: &HttpFilter<'_>, findings: &mut Findings) {
    // `Config` is the type of header_to_metadata and set_metadata.
    if !matches!(filter.kind, Some("Config" | "JsonToMetadata")) {
        return;
    }
    for object in filter.config.descendants() {
        let namespace = object.get("metadata_namespace");
        if namespace.text() == Some(EXT_AUTHZ_METADATA) {
            findings.add(
                "identity-overwritten",
                Severity::Error,
                &namespace,
                "the filter writes the metadata in which Talos' decision and identity stand: filters, rate limits and \
                 access logs that read them take its values for those of Talos",
                "metadata_namespace: example.own # any other name",
            );
        }
    }
}
