//! Findings about versions of Envoy's API that Envoy doesn't read any more.

use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::{Node, type_name};
use crate::doctor::tree::Tree;

/// Examines a connection manager and its filters.
pub(crate) fn examine(manager: &ConnectionManager<'_>, findings: &mut Findings) {
    check_extension(&manager.filter, findings);
    for filter in &manager.filters {
        check_extension(&filter.node, findings);
        let config = &filter.config;
        let version = config.get("transport_api_version");
        let calls = !config.get("grpc_service").is_absent();
        if filter.kind == Some("ExtAuthz") && calls && !version.is_value("V3", 2) {
            findings.add(
                "api-version",
                Severity::Error,
                &version,
                "Envoy refuses this configuration: the ext_authz API has version 3 only, and the default is 2",
                "transport_api_version: V3",
            );
        }
    }
}

fn check_extension(node: &Node<'_>, findings: &mut Findings) {
    let (typed, old) = (node.get("typed_config"), node.get("config"));
    if typed.is_absent() && !old.is_absent() {
        findings.add(
            "old-api",
            Severity::Error,
            &old,
            "`config` without a type belongs to API v2, which Envoy doesn't read since version 1.19",
            "typed_config:\n  \"@type\": type.googleapis.com/envoy.extensions.… # the type of the filter in API v3\n  \
             # and the fields of `config`",
        );
    }
    let name = typed.tree.entry("@type").and_then(Tree::text).unwrap_or_default();
    let is_old = |part: &str| part.starts_with("v2") || part == "v3alpha" || part == "v1";
    if type_name(typed.tree).is_some() && name.contains("envoy.") && name.split('.').any(is_old) {
        findings.add(
            "old-api",
            Severity::Error,
            &typed,
            "this type belongs to API v2, which Envoy doesn't read since version 1.19",
            "typed_config:\n  \"@type\": type.googleapis.com/envoy.extensions.… # the type of the filter in API v3",
        );
    }
}
