//! Evaluates the `filter_enabled_metadata` of a check.
//!
//! Istio implements an AuthorizationPolicy with action CUSTOM by an RBAC filter whose shadow rules
//! set metadata, and an ext_authz filter that is only enabled for requests with that metadata.

use super::headers::{Match, string_matches};
use super::http_filter::{ExtAuthz, HttpFilter};
use super::node::Node;
use super::route_target::RouteTarget;

/// Name of the dynamic metadata of RBAC filters.
const RBAC: &str = "envoy.filters.http.rbac";

/// Returns true if every request has the metadata that a check requires: a shadow rule before it
/// matches all requests, on all routes.
pub(super) fn is_always_met(
    check: &ExtAuthz<'_>,
    filters: &[HttpFilter<'_>],
    targets: &[RouteTarget<'_>],
) -> bool {
    let wanted = check.config.get("filter_enabled_metadata");
    let path = wanted.items("path");
    let ([only], Some(RBAC), false) =
        (&path[..], wanted.get("filter").text(), wanted.get("invert").is_true())
    else {
        return false;
    };
    let Some(key) = only.get("key").text() else { return false };
    // The last filter that writes the metadata decides.
    let mut before = filters.iter().take(check.index).rev().filter(|filter| filter.kind == Some("RBAC"));
    let Some(rbac) = before.find(|filter| metadata_key(filter) == key) else { return false };
    let is_replaced = |target: &RouteTarget<'_>| {
        target.levels.iter().any(|level| !level.get("typed_per_filter_config").entry(rbac.name).is_absent())
    };
    let value = wanted.get_path("value.string_match");
    let rules = rbac.config.get_path("shadow_rules.policies");
    let policies: Vec<(&str, Node<'_>)> = rules.entries().collect();
    // Envoy records the first policy that matches, so another provider's policy could hide ours.
    !rbac.disabled
        && rbac.config.get("shadow_matcher").is_absent()
        && !targets.is_empty()
        && !targets.iter().any(is_replaced)
        && policies.iter().all(|(name, _)| string_matches(&value, name) == Match::Yes)
        && policies.iter().any(|(_, policy)| matches_all(policy))
}

/// Returns the metadata key in which an RBAC filter records the shadow policy that matched.
fn metadata_key(rbac: &HttpFilter<'_>) -> String {
    let prefix = rbac.config.get("shadow_rules_stat_prefix").text().unwrap_or_default();
    format!("{prefix}shadow_effective_policy_id")
}

fn matches_all(policy: &Node<'_>) -> bool {
    policy.get("condition").is_absent()
        && policy.get("checked_condition").is_absent()
        && policy.items("permissions").iter().any(|one| is_anything(one, "rules"))
        && policy.items("principals").iter().any(|one| is_anything(one, "ids"))
}

/// Returns true if a permission (`field` = `rules`) or principal (`field` = `ids`) matches
/// anything.
fn is_anything(one: &Node<'_>, field: &str) -> bool {
    let all = one.get(&format!("and_{field}")).items(field);
    let some = one.get(&format!("or_{field}")).items(field);
    one.get("any").is_true()
        || (!all.is_empty() && all.iter().all(|one| is_anything(one, field)))
        || some.iter().any(|one| is_anything(one, field))
}
