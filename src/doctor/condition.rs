//! On what a check depends: metadata that an RBAC filter before it gives to the requests which its shadow rules match. So
//! Istio makes an AuthorizationPolicy CUSTOM.

use super::chain::{ExtAuthz, Filter, Leaf};
use super::headers::{Match, string_matches};
use super::node::Node;

/// The metadata of RBAC filters.
const RBAC: &str = "envoy.filters.http.rbac";

/// Whether every request that comes to a check has what its `filter_enabled_metadata` asks for, so far as the filters
/// before it and the routes tell: a shadow rule matches them all, whichever route they take.
pub fn is_always_met(check: &ExtAuthz<'_>, filters: &[Filter<'_>], leaves: &[Leaf<'_>]) -> bool {
    let wanted = check.config.get("filter_enabled_metadata");
    let path = wanted.items("path");
    let ([only], Some(RBAC), false) =
        (&path[..], wanted.get("filter").text(), wanted.get("invert").is_true())
    else {
        return false;
    };
    let Some(key) = only.get("key").text() else { return false };
    // Who writes it last, decides.
    let mut before = filters.iter().take(check.index).rev().filter(|filter| filter.kind == Some("RBAC"));
    let Some(rbac) = before.find(|filter| verdict_of(filter) == key) else { return false };
    let is_replaced = |leaf: &Leaf<'_>| {
        leaf.levels.iter().any(|level| !level.get("typed_per_filter_config").entry(rbac.name).is_absent())
    };
    let value = wanted.find("value.string_match");
    let rules = rbac.config.find("shadow_rules.policies");
    let policies: Vec<(&String, Node<'_>)> = rules.value.as_object().map_or_else(Vec::new, |policies| {
        policies.iter().map(|(name, policy)| (name, Node::new(policy, rules.path.clone()))).collect()
    });
    // Envoy writes down the first that matches: another provider's would stand in for ours.
    !rbac.disabled
        && rbac.config.get("shadow_matcher").is_absent()
        && !leaves.is_empty()
        && !leaves.iter().any(is_replaced)
        && policies.iter().all(|(name, _)| string_matches(&value, name) == Match::Yes)
        && policies.iter().any(|(_, policy)| matches_all(policy))
}

/// Where an RBAC filter writes which of its shadow rules matched.
fn verdict_of(rbac: &Filter<'_>) -> String {
    let prefix = rbac.config.get("shadow_rules_stat_prefix").text().unwrap_or_default();
    format!("{prefix}shadow_effective_policy_id")
}

fn matches_all(policy: &Node<'_>) -> bool {
    policy.get("condition").is_absent()
        && policy.get("checked_condition").is_absent()
        && policy.items("permissions").iter().any(|one| is_anything(one, "rules"))
        && policy.items("principals").iter().any(|one| is_anything(one, "ids"))
}

/// Whether a permission (of `rules`) or a principal (of `ids`) is that of everybody.
fn is_anything(one: &Node<'_>, of: &str) -> bool {
    let all = one.get(&format!("and_{of}")).items(of);
    let some = one.get(&format!("or_{of}")).items(of);
    one.get("any").is_true()
        || (!all.is_empty() && all.iter().all(|one| is_anything(one, of)))
        || some.iter().any(|one| is_anything(one, of))
}
