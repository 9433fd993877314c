//! Findings about Envoy's rate limits that count by a header in which keys come.

use std::collections::HashSet;

use crate::config::{Authz, CredentialSource};
use crate::doctor::carriers::Carriers;
use crate::doctor::connection_manager::ConnectionManager;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::http_filter::HttpFilter;
use crate::doctor::node::Node;
use crate::doctor::options::Options;

/// Examines one connection manager that calls Talos.
///
/// Behind the check the header is gone, and Envoy makes no descriptor without it. Before the check
/// the key itself is the descriptor, which the rate limit service keeps.
pub(crate) fn examine(manager: &ConnectionManager<'_>, options: Options<'_>, findings: &mut Findings) {
    let Some(check) = manager.checks.iter().map(|check| check.index).min() else { return };
    let (before, after) = manager.filters.split_at(check);
    let is_behind = after.iter().any(HttpFilter::is_rate_limit);
    let is_sent = before.iter().any(|filter| filter.kind == Some("RateLimit"));
    if !is_behind && !is_sent {
        return;
    }
    let default = Authz::default();
    let authz = options.authz.unwrap_or(&default);
    let carriers = Carriers::of(authz);
    // Targets share their levels: each is examined once.
    let mut examined = HashSet::new();
    for level in manager.targets.iter().flat_map(|target| &target.levels) {
        if !examined.insert(std::ptr::from_ref(level.tree)) {
            continue;
        }
        let limits = level.items("rate_limits").into_iter().chain(level.get("route").items("rate_limits"));
        for action in limits.flat_map(|limit| limit.items("actions")) {
            let header = action.get("request_headers").get("header_name");
            match is_behind {
                true => check_behind(&header, authz, findings),
                false => check_before(&header, &carriers, findings),
            }
        }
    }
}

/// Checks the header of a limit behind the check.
fn check_behind(header: &Node<'_>, authz: &Authz, findings: &mut Findings) {
    let Some(name) = header.text().map(str::to_ascii_lowercase) else { return };
    // Of others, only a part is removed.
    let headers = authz.sources.iter().filter(|source| matches!(source, CredentialSource::Header { .. }));
    if !headers.filter_map(CredentialSource::header).any(|key| key == name) {
        return;
    }
    let (severity, why) = match name == authz.token_header {
        true => (
            Severity::Warning,
            "the limit counts by the token that Talos writes into this header: each time a new one is made, the count \
             begins anew",
        ),
        false => (
            Severity::Error,
            "the limit counts by a header that Talos removes when the check passes: Envoy counts nothing then, so \
             nothing is limited",
        ),
    };
    let fix = "header_name: x-talos-key-id # or x-talos-actor-id";
    findings.add("limit-without-key", severity, header, why, fix);
}

/// Checks the header of a limit before the check.
fn check_before(header: &Node<'_>, carriers: &Carriers, findings: &mut Findings) {
    if header.text().is_some_and(|name| carriers.has(name, true)) {
        findings.add(
            "key-copied",
            Severity::Warning,
            header,
            "keys are sent to the rate limit service, which keeps them",
            "rate_limits: []\n# or count behind the check, by x-talos-key-id",
        );
    }
}
