//! Findings about the Envoy process as a whole: its admin interface and its connection limit.

use crate::doctor::dump::{Dump, is_loopback};
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::Node;

/// Examines the bootstrap configuration.
pub(crate) fn examine(dump: &Dump<'_>, findings: &mut Findings) {
    let bootstrap = &dump.bootstrap;
    if bootstrap.is_absent() {
        return;
    }
    let socket = bootstrap.get_path("admin.address.socket_address");
    let address = socket.get("address");
    if address.text().is_some_and(|address| !is_loopback(address)) {
        let port = socket.get("port_value").number().unwrap_or(9901);
        findings.add(
            "admin-exposed",
            Severity::Error,
            &address,
            "anybody who can reach Envoy's admin interface can stop Envoy, turn filters off by runtime keys and read \
             its configuration",
            format!("admin:\n  address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}"),
        );
    }
    let monitors = bootstrap.get_path("overload_manager").items("resource_monitors");
    let has_limit = monitors.iter().any(|monitor| {
        monitor.get("name").text().is_some_and(|name| name.contains("downstream_max_connections"))
    });
    if !has_limit && !has_runtime_limit(&bootstrap.get("layered_runtime")) {
        findings.add(
            "no-connection-limit",
            Severity::Note,
            &bootstrap.get("overload_manager"),
            "clients can open connections until Envoy has no file descriptors left, also not for connections to Talos",
            "overload_manager:\n  resource_monitors:\n    - name: envoy.resource_monitors.global_downstream_max_connections\n      \
             typed_config:\n        \"@type\": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig\n        \
             max_active_downstream_connections: 10000",
        );
    }
}

/// Returns true if a runtime layer limits connections. Runtime keys may be nested.
fn has_runtime_limit(runtime: &Node<'_>) -> bool {
    const NAMES: [&str; 2] =
        ["overload.global_downstream_max_connections", "global_downstream_max_connections"];
    let has = |layer: &Node<'_>, name: &str| layer.tree.entry(name).is_some_and(|value| !value.is_null());
    runtime.descendants().iter().any(|layer| {
        has(layer, NAMES[0])
            || layer.tree.entry("overload").is_some_and(|nested| has(&Node::new(nested, ""), NAMES[1]))
    })
}
