//! Faults of a configuration with the accelerator, planted in the one that we ship.

use serde_json::Value;

use super::faults::Change::{self, After, Before, Replace, Without};
use super::{ROOT, found, report};
use crate::cli::Ran;
use crate::rig::support::Must;
use crate::rig::talos::Setup;

const MODULE: &str = "- name: talos.late\n  typed_config:\n    \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter\n    \
    dynamic_module_config: { name: talos_module }\n    filter_name: accelerator";

const CHECK: &str = "- name: envoy.filters.http.ext_authz";
const OPT_IN: &str = r#"value: '{"accelerate": true}'"#;
/// Makes the configuration of routes a `Struct`, as they may have from Envoy 1.39 on.
const STRUCT: Change = Replace("protobuf.StringValue\n", "protobuf.Struct\n");
/// Names the module by its file, as a filter may from Envoy 1.38 on.
const BY_FILE: Change = Replace(
    "dynamic_module_config: { name: talos_module, do_not_close: true }",
    "dynamic_module_config: { module: { local: { filename: /opt/libtalos_module.so } }, do_not_close: true }",
);

/// Filters between the module and the check.
const CODE: &str = "- name: between\n  typed_config:\n    \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n    \
    default_source_code: { inline_string: \"function envoy_on_request(handle) handle:clearRouteCache() end\" }";
const IDENTITY: &str = "- name: between\n  typed_config:\n    \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n    \
    mutations: { request_mutations: [{ append: { header: { key: x-talos-actor-id, value: \"%REQ(x-user)%\" } } }] }";
const CORS: &str = "- name: between\n  typed_config:\n    \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";

/// The finding, its severity, and the changes that cause it.
const FAULTS: [(&str, &str, &[Change]); 18] = [
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
    ("accelerator-order", "error", &[Before(CHECK, CODE)]),
    ("identity-overwritten", "error", &[Before(CHECK, IDENTITY)]),
    ("accelerator-unchecked", "warning", &[After("- match: { prefix: / }", UNCHECKED_ROUTE)]),
    (
        "accelerator-unchecked",
        "warning",
        &[
            STRUCT,
            Replace(OPT_IN, "value: { accelerate: true }"),
            After("- match: { prefix: / }", UNCHECKED_ROUTE),
        ],
    ),
    (
        "accelerator-settings",
        "error",
        &[STRUCT, Replace(OPT_IN, "value: { accelerate: true, settings: { talos.scopes: a } }")],
    ),
    ("accelerator-condition", "error", &[BY_FILE, Without("filter_enabled_metadata:")]),
    ("accelerator-idle", "warning", &[Without("talos.accelerator:")]),
    ("fail-open", "error", &[Replace("failure_mode_allow: false", "failure_mode_allow: true")]),
];

/// What is no fault: a finding, and changes that don't cause it.
const SOUND: [(&str, &[Change]); 4] = [
    ("accelerator-order", &[Before(CHECK, CORS)]),
    ("accelerator-idle", &[STRUCT, Replace(OPT_IN, "value: { accelerate: true }")]),
    (
        "accelerator-policy",
        &[Without("talos.accelerator:"), After("- match: { prefix: / }", CONTEXT_IN_ROUTE)],
    ),
    (
        "accelerator-policy",
        &[
            Replace(OPT_IN, r#"value: '{"accelerate": false}'"#),
            After("- match: { prefix: / }", CONTEXT_IN_ROUTE),
        ],
    ),
];

/// Policy where the module can't see it, within a route.
const CONTEXT_IN_ROUTE: &str = "  typed_per_filter_config:\n    envoy.filters.http.ext_authz:\n      \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n      \
    check_settings: { context_extensions: { talos.scopes: \"reports:read\" } }";

/// Route whose requests aren't checked.
const UNCHECKED_ROUTE: &str = "  typed_per_filter_config:\n    envoy.filters.http.ext_authz:\n      \
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n      disabled: true";

/// Returns the doctor's report about the configuration that we ship, with changes.
async fn examined(setup: &Setup, changes: &[Change]) -> Value {
    let path = format!("{ROOT}/envoy/accelerated.yaml");
    let shipped = std::fs::read_to_string(&path).must(&path);
    let config = changes.iter().fold(shipped, |config, change| change.made_to(&config));
    std::fs::write(setup.path("planted.yaml"), config).must("writing a configuration");
    let ran = Ran::from(setup.run(&["doctor", "planted.yaml", "--format", "json"]).await);
    report(&ran)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_beside_the_accelerator_is_found() {
    let setup = Setup::bare();
    let page = std::fs::read_to_string(format!("{ROOT}/docs/doctor.md")).must("docs/doctor.md");
    let mut missed = vec![];
    for (id, severity, changes) in FAULTS {
        let report = examined(&setup, changes).await;
        if !found(&report).contains(&(id, severity)) {
            missed.push(format!("{id} ({severity}): {report:#}"));
        }
        assert!(page.contains(&format!("`{id}`")), "docs/doctor.md lacks {id}");
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_fault_beside_the_accelerator_is_not_found() {
    let setup = Setup::bare();
    for (id, changes) in SOUND {
        let report = examined(&setup, changes).await;
        assert!(found(&report).iter().all(|(found, _)| *found != id), "{id}: {report:#}");
    }
}
