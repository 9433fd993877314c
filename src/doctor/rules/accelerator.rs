//! Findings about the accelerator, a dynamic module before the check.

use super::routes::{per_route_config, per_route_settings};
use crate::doctor::accelerator::{CONDITION, filters_between, is_accelerator, is_its_condition};
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::http_filter::{ExtAuthz, HttpFilter};
use crate::doctor::node::{Node, to_yaml};
use crate::doctor::route_target::RouteTarget;
use crate::doctor::tree::{Data, Tree};

/// Prefix of the context extensions that are for Talos.
const PREFIX: &str = "talos.";

/// Examines the accelerator of a connection manager, if it has one.
pub(crate) fn examine(manager: &ConnectionManager<'_>, findings: &mut Findings) {
    let mut filters = manager.filters.iter().enumerate();
    let Some((index, module)) = filters.find(|(_, filter)| is_accelerator(filter)) else { return };
    for check in &manager.checks {
        if index > check.index {
            findings.add(
                "accelerator-order",
                Severity::Warning,
                &module.node,
                "the accelerator runs after the check, which asks Talos about every request: it lets nothing pass",
                format!(
                    "http_filters: # in this order\n  - name: {}\n  - name: {}",
                    to_yaml(module.name),
                    to_yaml(check.name)
                ),
            );
            continue;
        }
        check_condition(check, findings);
        check_policies(manager, module, check, findings);
    }
    check_between(manager, module, findings);
    check_opt_in(manager, module, findings);
    check_settings(manager, module, findings);
    check_unchecked(manager, module, findings);
}

/// Checks that nothing changes a request between the accelerator's decision and the check.
fn check_between(manager: &ConnectionManager<'_>, module: &HttpFilter<'_>, findings: &mut Findings) {
    let Some(check) = manager.checks.iter().min_by_key(|check| check.index) else { return };
    // CORS answers preflights, which have no key, and changes no request.
    for filter in filters_between(&manager.filters, check.index).filter(|filter| filter.kind != Some("Cors"))
    {
        findings.add(
            "accelerator-order",
            if filter.disabled { Severity::Warning } else { Severity::Error },
            &filter.node,
            "the filter runs after the accelerator's decision and before the check: what it changes in a request that the \
             accelerator lets pass, such as its route or x-talos-* headers, nothing checks any more",
            format!(
                "http_filters: # in this order\n  - name: {}\n  - name: {}\n  - name: {}",
                to_yaml(filter.name),
                to_yaml(module.name),
                to_yaml(check.name)
            ),
        );
    }
}

/// Checks that the check is skipped for what the accelerator let pass, and only for that.
fn check_condition(check: &ExtAuthz<'_>, findings: &mut Findings) {
    let condition = check.config.get("filter_enabled_metadata");
    if !is_its_condition(&condition) {
        let why = match condition.is_absent() {
            true => {
                "what the accelerator lets pass is checked as well, when its key is already replaced by a token: it is \
                 refused, or costs what it should save"
            }
            false => {
                "the check must be skipped for what the accelerator lets pass, and for nothing else: with another \
                 namespace, key or value, or without invert, unchecked requests go upstream, or known keys are refused"
            }
        };
        findings.add("accelerator-condition", Severity::Error, &condition, why, CONDITION);
    }
    let denies = check.config.get("deny_at_disable");
    if denies.get("default_value").is_true() {
        findings.add(
            "accelerator-denied",
            Severity::Error,
            &denies,
            "deny_at_disable refuses every request that the accelerator lets pass",
            "# remove deny_at_disable",
        );
    }
}

/// Checks that no policy stands where the accelerator can't see it, on a route that it serves.
fn check_policies(
    manager: &ConnectionManager<'_>,
    module: &HttpFilter<'_>,
    check: &ExtAuthz<'_>,
    findings: &mut Findings,
) {
    let is_served =
        |target: &&RouteTarget<'_>| has_opted_in(target, module.name) && !target.disables(module.name);
    let targets = manager.targets.iter().filter(is_served);
    for settings in targets.flat_map(|target| per_route_settings(target, check.name)) {
        let extensions = settings.get("context_extensions");
        let has_policy = extensions.entries().any(|(key, _)| key.starts_with(PREFIX));
        if has_policy {
            findings.add(
                "accelerator-policy",
                Severity::Error,
                &extensions,
                "the accelerator can't see context extensions: it lets requests of this route pass by another policy",
                "# remove context_extensions\n# the policy as metadata of the route, which both see:\n\
                 # metadata: { filter_metadata: { talos: { scopes: \"reports:read\" } } }\n\
                 # and in the ext_authz filter:\n# route_metadata_context_namespaces: [talos]",
            );
        }
    }
}

/// Checks that no route has opted in whose requests aren't checked.
fn check_unchecked(manager: &ConnectionManager<'_>, module: &HttpFilter<'_>, findings: &mut Findings) {
    let is_unchecked = |target: &&RouteTarget<'_>| {
        !target.is_answered_locally
            && !target.disables(module.name)
            && manager.checks.iter().all(|check| target.disables(check.name))
            && has_opted_in(target, module.name)
    };
    let Some(target) = manager.targets.iter().find(is_unchecked) else { return };
    let Some(route) = target.levels.first() else { return };
    let name = to_yaml(module.name);
    findings.add(
        "accelerator-unchecked",
        Severity::Warning,
        route,
        "this route isn't checked, but has opted in: the accelerator replaces the keys that it knows, and lets all others \
         go upstream as they are",
        format!(
            "# on the route:\ntyped_per_filter_config:\n  {name}:\n    \"@type\": \
             type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute\n    \
             dynamic_module_config: {{ name: talos_module, do_not_close: true }}\n    filter_config:\n      \
             \"@type\": type.googleapis.com/google.protobuf.StringValue\n      value: '{{\"accelerate\": false}}'"
        ),
    );
}

/// Checks that no route has a policy that only the accelerator reads.
fn check_settings(manager: &ConnectionManager<'_>, module: &HttpFilter<'_>, findings: &mut Findings) {
    for target in &manager.targets {
        let Some((config, json)) = route_json(target, module.name) else { continue };
        let has_settings = json["settings"].as_object().is_some_and(|settings| !settings.is_empty());
        if has_settings && json["accelerate"] == true {
            findings.add(
                "accelerator-settings",
                Severity::Error,
                &config,
                "only the accelerator reads these settings: the check decides about the keys that it doesn't know by \
                 another policy",
                "# remove \"settings\"\n# the policy as metadata of the route, which both see:\n\
                 # metadata: { filter_metadata: { talos: { scopes: \"reports:read\" } } }\n\
                 # and in the ext_authz filter:\n# route_metadata_context_namespaces: [talos]",
            );
        }
    }
}

/// Returns the most specific settings of a route for the accelerator, which are the only ones that
/// count, and the JSON in them.
fn route_json<'a>(target: &RouteTarget<'a>, module: &str) -> Option<(Node<'a>, serde_json::Value)> {
    let mut levels = target.levels.iter();
    let level = levels.find(|level| !level.get("typed_per_filter_config").entry(module).is_absent())?;
    let (kind, config) = per_route_config(level, module).get("filter_config").unwrap_typed();
    let value = config.get("value");
    let json = match kind {
        // Valid for routes from Envoy 1.39 on.
        Some("Struct") => to_json(value.tree),
        _ => serde_json::from_str(value.raw_text().unwrap_or_default()).ok()?,
    };
    Some((config, json))
}

/// Returns a value of a `google.protobuf.Struct` as JSON.
fn to_json(tree: &Tree<'_>) -> serde_json::Value {
    match &tree.data {
        Data::Null => serde_json::Value::Null,
        Data::List(items) => items.iter().map(to_json).collect(),
        Data::Map(entries) => entries.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect(),
        Data::Plain(_) | Data::Quoted(_) | Data::Block(_) => match (tree.text(), tree.boolean()) {
            (Some(text), _) => text.into(),
            (None, Some(boolean)) => boolean.into(),
            (None, None) => tree.number().into(),
        },
    }
}

/// Returns true if a route has opted in.
fn has_opted_in(target: &RouteTarget<'_>, module: &str) -> bool {
    route_json(target, module).is_some_and(|(_, json)| json["accelerate"] == true)
}

/// Checks that some route has opted in.
fn check_opt_in(manager: &ConnectionManager<'_>, module: &HttpFilter<'_>, findings: &mut Findings) {
    let is_used = manager.targets.iter().any(|target| has_opted_in(target, module.name));
    if !is_used && !manager.targets.is_empty() {
        let name = to_yaml(module.name);
        findings.add(
            "accelerator-idle",
            Severity::Warning,
            &module.node,
            "no route has opted in, so the accelerator leaves every request alone",
            format!(
                "# on the virtual host, or on routes:\ntyped_per_filter_config:\n  {name}:\n    \"@type\": \
                 type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute\n    \
                 dynamic_module_config: {{ name: talos_module, do_not_close: true }}\n    filter_config:\n      \
                 \"@type\": type.googleapis.com/google.protobuf.StringValue\n      value: '{{\"accelerate\": true}}'"
            ),
        );
    }
}
