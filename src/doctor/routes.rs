//! What routes say about the check: where it is turned off, what they do to our headers, and ways around it.

use std::collections::HashMap;

use super::chain::{ExtAuthz, Leaf, Manager};
use super::cluster::Service;
use super::headers;
use super::node::Node;
use super::{Findings, Severity};

/// The context extensions that Talos knows.
const EXTENSIONS: [&str; 6] =
    ["talos.mode", "talos.scopes", "talos.any_scope", "talos.audience", "talos.token", "talos.visibility"];

/// What a route makes of a filter.
enum PerRoute<'a> {
    /// As the chain has it.
    Unsaid,
    /// On, with or without settings.
    On,
    /// Off, said there.
    Off(Node<'a>),
}

impl Leaf<'_> {
    /// Whether some level takes all identity headers away before the request goes upstream.
    fn is_stripped(&self) -> bool {
        self.levels.iter().any(headers::removes_identity)
    }
}

/// The most specific word about a filter.
fn per_route<'a>(leaf: &Leaf<'a>, filter: &str) -> PerRoute<'a> {
    for level in &leaf.levels {
        let entry = level.get("typed_per_filter_config").entry(filter);
        if entry.is_absent() {
            continue;
        }
        let (kind, config) = entry.unwrapped();
        let disabled = config.get("disabled");
        if disabled.is_true() {
            return PerRoute::Off(disabled);
        }
        // Wrapped, so that it could have been turned off there.
        let (_, inner) = match kind {
            Some("FilterConfig") => config.get("config").unwrapped(),
            _ => (kind, config),
        };
        return match inner.get("disabled") {
            disabled if disabled.is_true() => PerRoute::Off(disabled),
            _ => PerRoute::On,
        };
    }
    PerRoute::Unsaid
}

/// The `check_settings` that a route has for a filter, at any level.
fn settings<'a>(leaf: &Leaf<'a>, filter: &str) -> Vec<Node<'a>> {
    let at = |level: &Node<'a>| {
        let (kind, config) = level.get("typed_per_filter_config").entry(filter).unwrapped();
        let (_, config) =
            if kind == Some("FilterConfig") { config.get("config").unwrapped() } else { (kind, config) };
        config.get("check_settings")
    };
    leaf.levels.iter().map(at).filter(|settings| !settings.is_absent()).collect()
}

/// Other services that routes have asked instead of the filter's own.
pub fn other_services<'a>(manager: &Manager<'a>) -> Vec<Service<'a>> {
    let mut found = vec![];
    for check in &manager.checks {
        for settings in manager.leaves.iter().flat_map(|leaf| settings(leaf, check.name)) {
            let service = settings.get("grpc_service");
            if !service.is_absent() {
                found.push(Service::of(&service));
            }
        }
    }
    found
}

/// Looks at all routes of all connection managers.
pub fn examine(managers: &[Manager<'_>], found: &mut Findings) {
    // Upstreams that believe identity headers, each with a route that says so.
    let mut believing: HashMap<&str, &str> = HashMap::new();
    for manager in managers {
        for leaf in &manager.leaves {
            let is_checked = manager.checks.iter().any(|check| is_on(leaf, check));
            if let (true, Some(cluster), Some(route)) = (is_checked, leaf.cluster, leaf.levels.first()) {
                believing.entry(cluster).or_insert(&route.path);
            }
        }
    }
    for manager in managers {
        match manager.checks.is_empty() {
            true => unchecked(manager, &believing, found),
            false => manager.leaves.iter().for_each(|leaf| checked(manager, leaf, found)),
        }
    }
}

fn is_on(leaf: &Leaf<'_>, check: &ExtAuthz<'_>) -> bool {
    match per_route(leaf, check.name) {
        PerRoute::On => true,
        PerRoute::Off(_) => false,
        PerRoute::Unsaid => !check.is_disabled,
    }
}

/// A connection manager that asks nobody.
fn unchecked(manager: &Manager<'_>, believing: &HashMap<&str, &str>, found: &mut Findings) {
    // An Istio sidecar's way out isn't where requests come in.
    if believing.is_empty() || manager.direction() == Some("OUTBOUND") {
        return;
    }
    let fix = format!(
        "{}\n# or, if this listener is to stay without keys, on its routes:\n{}",
        super::filter::WHOLE,
        headers::removal()
    );
    for leaf in manager.leaves.iter().filter(|leaf| !leaf.is_answered && !leaf.is_stripped()) {
        let (Some(cluster), Some(route)) = (leaf.cluster, leaf.levels.first()) else { continue };
        if let Some(other) = believing.get(cluster) {
            found.add(
                "unprotected-route",
                Severity::Error,
                route,
                format!(
                    "leads to {cluster}, which believes x-talos-* headers as {other} leads there too, and nobody checks \
                     what comes this way: a client writes the identity that it wants to have"
                ),
                fix.as_str(),
            );
        }
    }
    let leads_on = manager.leaves.iter().any(|leaf| !leaf.is_answered && !leaf.is_stripped());
    let tells =
        manager.leaves.iter().any(|leaf| leaf.cluster.is_some_and(|name| believing.contains_key(name)));
    if leads_on && !tells {
        found.add(
            "unchecked-listener",
            Severity::Note,
            &manager.node.get("http_filters"),
            "no filter asks Talos here; the upstreams are others than those that Talos protects",
            fix,
        );
    }
}

/// A route of a connection manager that asks Talos.
fn checked(manager: &Manager<'_>, leaf: &Leaf<'_>, found: &mut Findings) {
    if leaf.is_answered {
        return;
    }
    let is_on_here = manager.checks.iter().any(|check| is_on(leaf, check));
    for check in &manager.checks {
        for settings in settings(leaf, check.name) {
            check_settings(&settings, found);
        }
        if !is_on_here {
            turned_off(check, leaf, found);
        }
    }
    for level in &leaf.levels {
        for option in level.items("request_headers_to_add") {
            let key = option.find("header.key");
            if key.text().is_some_and(headers::is_ours) {
                found.add(
                    "identity-overwritten",
                    Severity::Error,
                    &key,
                    "is set after the check: upstream believes this value, alone or beside ours",
                    "request_headers_to_add: [] # give it a name that doesn't begin with x-talos-",
                );
            }
        }
        let removed = level.get("request_headers_to_remove");
        let takes_ours = removed.any_text(headers::is_ours);
        if takes_ours && is_on_here {
            found.add(
                "identity-removed",
                Severity::Warning,
                &removed,
                "takes away what Talos has just said of the caller: routes' removals come after the check, not before",
                "request_headers_to_remove: [] # Talos removes or overwrites what the client sent",
            );
        }
    }
}

fn turned_off(check: &ExtAuthz<'_>, leaf: &Leaf<'_>, found: &mut Findings) {
    let (id, place) = match per_route(leaf, check.name) {
        PerRoute::Off(disabled) => ("route-disabled", disabled),
        _ => ("filter-disabled", check.config.get("disabled")),
    };
    let fix = format!(
        "check_settings:\n  context_extensions:\n    talos.mode: \"off\" # nothing is checked, forged headers are removed\n\
         # or, if Talos isn't to be asked at all, on that route:\n{}",
        headers::removal()
    );
    if check.is_stripped || leaf.is_stripped() {
        found.add(
            id,
            Severity::Note,
            &place,
            "nothing is checked here; forged x-talos-* headers are removed elsewhere",
            fix,
        );
        return;
    }
    let route = leaf.levels.first().map(|route| route.path.as_str()).unwrap_or_default();
    found.add(
        id,
        Severity::Error,
        &place,
        format!(
            "requests of {route} go upstream unchecked, with the x-talos-* headers that the client wrote"
        ),
        fix,
    );
}

fn check_settings(settings: &Node<'_>, found: &mut Findings) {
    let extensions = settings.get("context_extensions");
    for key in extensions.value.as_object().into_iter().flat_map(|extensions| extensions.keys()) {
        if key.starts_with("talos.") && !EXTENSIONS.contains(&key.as_str()) {
            found.add(
                "unknown-extension",
                Severity::Error,
                &extensions.entry(key),
                "Talos doesn't know this key and answers 500 to each request of the route, rather than guess",
                format!("context_extensions: {{}} # known are {}", EXTENSIONS.join(", ")),
            );
        }
    }
    super::filter::request_body(&settings.get("with_request_body"), found);
}
