//! Findings about the Envoy process as a whole: its admin interface and its connection limit.

use crate::doctor::dump::{Dump, is_loopback};
use crate::doctor::findings::{Findings, Severity};

/// Examines the bootstrap configuration.
pub fn examine(dump: &Dump<'_>, findings: &mut Findings) {
    let bootstrap = &dump.bootstrap;
    if bootstrap.is_absent() {
        return;
    }
    let address = bootstrap.get_path("admin.address.socket_address.address");
    if address.text().is_some_and(|address| !is_loopback(address)) {
        findings.add(
            "admin-exposed",
            Severity::Error,
            &address,
            "anybody who can reach Envoy's admin interface can stop Envoy, turn filters off by runtime keys and read \
             its configuration",
            "admin:\n  address: { socket_address: { address: 127.0.0.1, port_value: 9901 } }",
        );
    }
    let monitors = bootstrap.get_path("overload_manager").items("resource_monitors");
    let has_limit = monitors.iter().any(|monitor| {
        monitor.get("name").text().is_some_and(|name| name.contains("downstream_max_connections"))
    });
    let has_runtime_limit = bootstrap.get("layered_runtime").any_text(|_| true)
        && bootstrap.get("layered_runtime").descendants().iter().any(|layer| {
            let layer = layer.value.as_object();
            layer.is_some_and(|layer| layer.contains_key("overload.global_downstream_max_connections"))
        });
    if !has_limit && !has_runtime_limit {
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
