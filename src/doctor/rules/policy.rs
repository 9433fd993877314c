//! Findings about the policies that Envoy's routes have for Talos: context extensions and metadata.
//!
//! Talos answers every request of a route with 500 whose settings it refuses. Its own parser judges
//! them here, too.

use std::collections::HashSet;

use super::routes::per_route_settings;
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::{Node, to_yaml};
use crate::doctor::route_target::RouteTarget;
use crate::settings::policy::{Policy, is_misspelled_key};

/// Prefix of the keys that are for Talos.
const PREFIX: &str = "talos.";
/// Text that a `/config_dump` shows in place of a context extension's value.
const REDACTED: &str = "[redacted]";
/// A valid value of each key.
const EXAMPLES: [(&str, &str, &str); 8] = [
    ("mode", "required", "required, optional or off, in quotes"),
    ("scopes", "reports:read", "scopes with spaces between them"),
    ("any_scope", "reports:read", "scopes with spaces between them"),
    ("audience", "reports", "an audience"),
    ("token", "jwt", "jwt or none"),
    ("visibility", "secret", "secret"),
    ("cost", "5", "a whole number from 0 to 10000, in quotes"),
    ("route", "reports", "a name of 1 to 32 lower-case letters, digits, _, - and ."),
];

/// Examines the routes of connection managers that call Talos.
pub(crate) fn examine(managers: &[ConnectionManager<'_>], findings: &mut Findings) {
    // Targets share their levels: each is examined once.
    let mut examined: HashSet<*const crate::doctor::tree::Tree<'_>> = HashSet::new();
    for manager in managers.iter().filter(|manager| !manager.checks.is_empty()) {
        for target in &manager.targets {
            for check in &manager.checks {
                for settings in per_route_settings(target, check.name) {
                    let extensions = settings.get("context_extensions");
                    if examined.insert(std::ptr::from_ref(extensions.tree)) {
                        check_entries(&extensions, Keys::Prefixed, findings);
                    }
                }
            }
            check_metadata(manager, target, findings);
        }
    }
}

/// Form of the keys at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// `talos.mode`; other keys are for others.
    Prefixed,
    /// `mode` or `talos.mode`; there are no others.
    All,
}

/// Checks the metadata of a route: Talos' own, and the annotations that Envoy Gateway copies there.
fn check_metadata(manager: &ConnectionManager<'_>, target: &RouteTarget<'_>, findings: &mut Findings) {
    // Weighted cluster, route, virtual host, route configuration: only the route's is sent.
    let Some(route) = target.levels.iter().rev().nth(2) else { return };
    let metadata = route.get_path("metadata.filter_metadata");
    let own = metadata.entry("talos");
    if !own.is_absent() {
        check_entries(&own, Keys::All, findings);
        let sends = |check: &Node<'_>| {
            let names = check.items("route_metadata_context_namespaces");
            names.iter().any(|name| name.text() == Some("talos"))
        };
        if let Some(check) = manager.checks.iter().find(|check| !sends(&check.config)) {
            findings.add(
                "metadata-unsent",
                Severity::Error,
                &check.config.get("route_metadata_context_namespaces"),
                format!("Envoy doesn't send Talos the metadata `talos` of routes such as {}: their settings have no effect", route.path),
                "route_metadata_context_namespaces: [talos]",
            );
        }
    }
    for resource in metadata.entry("envoy-gateway").items("resources") {
        check_entries(&resource.get("annotations"), Keys::Prefixed, findings);
    }
}

/// Checks the settings of a map by Talos' own parser.
fn check_entries(map: &Node<'_>, keys: Keys, findings: &mut Findings) {
    for (key, value) in map.entries() {
        let name = match (key.strip_prefix(PREFIX), keys) {
            (Some(name), _) => name,
            (None, Keys::All) => key,
            (None, Keys::Prefixed) if is_misspelled_key(key.as_bytes()) => key,
            (None, Keys::Prefixed) => continue,
        };
        let known = EXAMPLES.iter().find(|(known, ..)| *known == name);
        let Some((_, example, form)) = known else {
            let known: Vec<String> = EXAMPLES.iter().map(|(known, ..)| format!("{PREFIX}{known}")).collect();
            findings.add(
                "unknown-extension",
                Severity::Error,
                &value,
                "Talos doesn't know this key and answers every request of the route with 500",
                format!("# remove {}\n# the known keys are {}", to_yaml(key), known.join(", ")),
            );
            continue;
        };
        // Envoy takes an empty value for the empty text.
        let text = if value.is_absent() { Some("") } else { value.raw_text() };
        let problem = match text {
            Some(REDACTED) => continue,
            Some(text) => match Policy::default().set(name.as_bytes(), text.as_bytes()) {
                Ok(()) => continue,
                Err(problem) => problem,
            },
            None => "must be text, in quotes".to_owned(),
        };
        // YAML takes `off` without quotes for false.
        let example = if name == "mode" && value.tree.boolean() == Some(false) { "off" } else { example };
        findings.add(
            "bad-extension",
            Severity::Error,
            &value,
            format!(
                "Talos refuses this value and answers every request of the route with 500: {key} {problem}"
            ),
            format!("{key}: \"{example}\" # {form}"),
        );
    }
}
