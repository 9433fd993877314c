//! Findings about runtime layers of the bootstrap configuration that turn a check off.

use super::filter::{DENY_AT_DISABLE, is_all};
use crate::doctor::dump::Dump;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::http_filter::ExtAuthz;
use crate::doctor::node::{Node, to_yaml};

/// Examines the runtime keys of one ext_authz filter.
pub(crate) fn examine(dump: &Dump<'_>, check: &ExtAuthz<'_>, findings: &mut Findings) {
    let enabled = check.config.get("filter_enabled");
    let deny = check.config.get("deny_at_disable");
    let share = value_of(dump, &enabled);
    let denying = value_of(dump, &deny);
    let denies = match &denying {
        Some(value) => value.is_true(),
        None => deny.get("default_value").is_true(),
    };
    if let Some(share) = share.as_ref().filter(|share| !is_whole(share)) {
        let (severity, why) = match denies {
            true => (Severity::Warning, "this runtime key disables the check: those requests are refused"),
            false => (
                Severity::Error,
                "this runtime key disables the check: requests go upstream unchecked, with forged x-talos-* headers",
            ),
        };
        findings.add("filter-enabled", severity, share, why, removal(share));
    }
    let Some(denying) = denying.filter(|_| !denies) else { return };
    let default = enabled.get("default_value");
    let may_be_lowered = share.is_some() || enabled.get("runtime_key").text().is_some();
    let is_lowered = !enabled.is_absent() && !is_all(&default);
    if is_lowered || may_be_lowered {
        let severity = if is_lowered && share.is_none() { Severity::Error } else { Severity::Warning };
        findings.add(
            "deny-at-disable",
            severity,
            &denying,
            "this runtime key lets requests pass unchecked that filter_enabled leaves out",
            format!("{}\n# and keep in the filter\n# {DENY_AT_DISABLE}", removal(&denying)),
        );
    }
}

/// Returns true if a runtime value enables a feature for all requests: an integer is a percentage.
fn is_whole(value: &Node<'_>) -> bool {
    match value.tree.is_map() {
        true => is_all(value),
        false => value.number().is_none_or(|percent| percent >= 100),
    }
}

/// Returns how to take a runtime value away.
fn removal(value: &Node<'_>) -> String {
    let key = value.path.rsplit('[').next().unwrap_or_default().trim_end_matches(']');
    format!("# remove {}", to_yaml(key))
}

/// Returns the value that static layers give to the runtime key of a setting. The last layer
/// counts.
fn value_of<'a>(dump: &Dump<'a>, setting: &Node<'a>) -> Option<Node<'a>> {
    let key = setting.get("runtime_key").text()?;
    let layers = dump.bootstrap.get("layered_runtime").items("layers");
    layers.iter().rev().find_map(|layer| lookup(&layer.get("static_layer"), key))
}

/// Returns the value of a key, of which any part may be nested.
fn lookup<'a>(layer: &Node<'a>, key: &str) -> Option<Node<'a>> {
    let whole = layer.entry(key);
    if !whole.is_absent() {
        return Some(whole);
    }
    key.match_indices('.').find_map(|(dot, _)| {
        let nested = layer.entry(&key[..dot]);
        if nested.is_absent() { None } else { lookup(&nested, &key[dot + 1..]) }
    })
}
