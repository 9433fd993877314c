//! Faults of a configuration with the accelerator, planted in the one that we ship.

use super::faults::Change::{self, After, Before, Replace, Without};
use super::{ROOT, found, report};
use crate::cli::Ran;
use crate::rig::support::Must;
use crate::rig::talos::Setup;

const MODULE: &str = "- name: talos.late\n  typed_config:\n    \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter\n    \
    dynamic_module_config: { name: talos_module }\n    filter_name: accelerator";

/// The finding, its severity, and the changes that cause it.
const FAULTS: [(&str, &str, &[Change]); 13] = [
    ("accelerator-condition", "error", &[Without("filter_enabled_metadata:")]),
    ("accelerator-condition", "error", &[Without("invert: true")]),
    ("accelerator-condition", "error", &[Replace("invert: true", "invert: false")]),
    ("accelerator-condition", "error", &[Replace("path: [{ key: decision }]", "path: [{ key: reason }]")]),
    ("accelerator-condition", "error", &[Replace("exact: allow", "prefix: allow")]),
    ("accelerator-condition", "error", &[Replace("filter: envoy.filters.http.ext_authz", "filter: other")]),
    (
        "accelerator-denied",
        "error",
        &[After("clear_route_cache: false", "deny_at_disable: { default_value: true, runtime_key: a }")],
    ),
    ("accelerator-policy", "error", &[After("- match: { prefix: / }", CONTEXT_IN_ROUTE)]),
    (
        "accelerator-settings",
        "error",
        &[Replace(r#"{"accelerate": true}"#, r#"{"accelerate": true, "settings": {"talos.scopes": "a"}}"#)],
    ),
    (
        "accelerator-order",
        "warning",
        &[Without("- name: talos.accelerator"), Before("- name: talos.trailers", MODULE)],
    ),
    ("accelerator-unchecked", "warning", &[After("- match: { prefix: / }", UNCHECKED_ROUTE)]),
    ("accelerator-idle", "warning", &[Without("talos.accelerator:")]),
    ("fail-open", "error", &[Replace("failure_mode_allow: false", "failure_mode_allow: true")]),
];

/// Policy where the module can't see it, within a route.
const CONTEXT_IN_ROUTE: &str = "  typed_per_filter_config:\n    envoy.filters.http.ext_authz:\n      \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n      \
    check_settings: { context_extensions: { talos.scopes: \"reports:read\" } }";

/// Route whose requests aren't checked.
const UNCHECKED_ROUTE: &str = "  typed_per_filter_config:\n    envoy.filters.http.ext_authz:\n      \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n      disabled: true";

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_beside_the_accelerator_is_found() {
    let setup = Setup::bare();
    let path = format!("{ROOT}/envoy/accelerated.yaml");
    let shipped = std::fs::read_to_string(&path).must(&path);
    let page = std::fs::read_to_string(format!("{ROOT}/docs/doctor.md")).must("docs/doctor.md");
    let mut missed = vec![];
    for (id, severity, changes) in FAULTS {
        let config = changes.iter().fold(shipped.clone(), |config, change| change.made_to(&config));
        std::fs::write(setup.path("planted.yaml"), config).must("writing a configuration");
        let ran = Ran::from(setup.run(&["doctor", "planted.yaml", "--format", "json"]).await);
        let report = report(&ran);
        if !found(&report).contains(&(id, severity)) {
            missed.push(format!("{id} ({severity}): {report:#}"));
        }
        assert!(page.contains(&format!("`{id}`")), "docs/doctor.md lacks {id}");
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
