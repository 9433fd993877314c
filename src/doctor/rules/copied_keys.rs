//! Findings about copies of keys that are made before the check, in places that Talos doesn't know.

use crate::config::Authz;
use crate::doctor::carriers::Carriers;
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::Node;
use crate::doctor::options::Options;

/// Consequence of a copy in the metadata or the filter state of a request.
const BESIDE: &str = "keys are copied beside the request before the check: Talos removes them from the request alone, so \
                      logs and later filters find them there";

/// Examines one connection manager that calls Talos.
pub(crate) fn examine(manager: &ConnectionManager<'_>, options: Options<'_>, findings: &mut Findings) {
    let Some(first) = manager.checks.iter().map(|check| check.index).min() else { return };
    let default = Authz::default();
    let carriers = Carriers::of(options.authz.unwrap_or(&default));
    for extension in manager.node.items("early_header_mutation_extensions") {
        let mutations = extension.get("typed_config").items("mutations");
        let cure = "# remove early_header_mutation_extensions\n# or, in it, this mutation";
        check_mutations(&mutations, cure, &carriers, findings);
    }
    for filter in manager.filters.iter().take(first) {
        let cure = "request_mutations: [] # after the check the header has no key any more";
        check_mutations(&filter.mutations(), cure, &carriers, findings);
        check_metadata(&filter.config, &carriers, findings);
        check_filter_state(&filter.config, &carriers, findings);
    }
}

/// Checks that no mutation copies a key into a header that Talos doesn't know.
fn check_mutations(mutations: &[Node<'_>], cure: &'static str, carriers: &Carriers, findings: &mut Findings) {
    for mutation in mutations {
        let value = mutation.get_path("append.header.value");
        if value.text().is_some_and(|value| carriers.removed_from(value).is_some()) {
            findings.add(
                "key-copied",
                Severity::Error,
                &value,
                "keys are copied into another header before the check: Talos doesn't know that header, so they go \
                 upstream",
                cure,
            );
        }
    }
}

/// Checks that no rule of an `envoy.extensions.filters.http.header_to_metadata.v3.Config` copies a
/// key into the request's metadata.
fn check_metadata(config: &Node<'_>, carriers: &Carriers, findings: &mut Findings) {
    for rule in config.items("request_rules") {
        let (header, cookie) = (rule.get("header"), rule.get("cookie"));
        let carrier = match header.text() {
            Some(name) if carriers.has(name, true) => &header,
            None if !cookie.is_absent() && carriers.has("cookie", true) => &cookie,
            _ => continue,
        };
        let present = rule.get("on_header_present");
        // A value of the rule's own is not the header's.
        if !present.is_absent() && present.get("value").text().is_none() {
            let cure = "request_rules: []\n# or keep the other rules";
            findings.add("key-copied", Severity::Warning, carrier, BESIDE, cure);
        }
    }
}

/// Checks that no value of an `envoy.extensions.filters.http.set_filter_state.v3.Config` is a key.
fn check_filter_state(config: &Node<'_>, carriers: &Carriers, findings: &mut Findings) {
    for value in config.items("on_request_headers") {
        let format = value.get("format_string");
        if format.any_text(|text| carriers.removed_from(text).is_some()) {
            let cure = "on_request_headers: []\n# or keep the other values";
            findings.add("key-copied", Severity::Warning, &format, BESIDE, cure);
        }
    }
}
