//! Issuance policies in force: what is wrong with a key that is written, and when a key that
//! exists ends by them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use crate::config::{ApplyTo, IssuancePolicy, problems_of};

use crate::caller::Role;
use crate::clock::Timestamp;
use crate::config::{Config, PatternText, ScopeSet};
use crate::duration;
use crate::key::{Key, Scope, Scopes, Visibility};

/// Most scopes that a problem names.
const MAX_NAMED_SCOPES: usize = 10;

/// Named sets of scopes.
#[derive(Debug, Clone, Default)]
pub struct ScopeSets(Arc<BTreeMap<String, ScopeSet>>);

impl ScopeSets {
    /// Returns the sets of a configuration.
    pub(super) fn of(config: &Config) -> Self {
        Self(Arc::new(config.roles.clone()))
    }

    /// Returns the scopes of a set.
    pub fn get(&self, name: &str) -> Option<&Scopes> {
        self.0.get(name).map(ScopeSet::scopes)
    }

    /// Returns the names of all sets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Circumstances of a request that writes a key, which the key doesn't record.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// Role of the caller.
    pub role: Role,
    /// Named set of scopes of the request.
    pub scope_set: Option<&'a str>,
}

/// Rule of a policy that a key breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Field of the key.
    pub field: &'static str,
    /// Demand that the key doesn't meet, with policy and rule.
    pub problem: String,
    /// Name of the policy.
    pub policy: String,
}

/// End of a key by a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyEnd {
    /// The time.
    pub at: Timestamp,
    /// Name of the policy.
    pub policy: String,
}

/// Limit on the number of an actor's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysPerActor {
    /// Name of the policy.
    pub policy: String,
    /// Visibility of the keys that are counted; any if `None`.
    pub visibility: Option<Visibility>,
    /// Most active keys.
    pub most: u32,
}

/// Policies of a network, in their order.
#[derive(Debug, Clone, Default)]
pub struct IssuancePolicies(Arc<[IssuancePolicy]>);

impl IssuancePolicies {
    /// Returns these policies.
    pub fn new(policies: Vec<IssuancePolicy>) -> Self {
        Self(policies.into())
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the policies.
    pub fn as_slice(&self) -> &[IssuancePolicy] {
        &self.0
    }

    /// Returns all that is wrong at `now` with a key that is written.
    pub fn judge(&self, key: &Key, writer: &Writer<'_>, now: Timestamp) -> Vec<Violation> {
        self.in_force_for(key, writer, now).flat_map(|policy| broken(policy, key)).collect()
    }

    /// Returns the limits at `now` on the number of keys of the actor of a key that is written.
    pub fn limits(&self, key: &Key, writer: &Writer<'_>, now: Timestamp) -> Vec<KeysPerActor> {
        let limit = |policy: &IssuancePolicy| {
            policy.max_keys_per_actor.map(|most| KeysPerActor {
                policy: policy.name.clone(),
                visibility: policy.applies_to.visibility.map(Into::into),
                most,
            })
        };
        self.in_force_for(key, writer, now).filter_map(limit).collect()
    }

    /// Returns what each policy finds wrong with a key that exists, whether or not it applies to
    /// such keys. Policies for a role are left out, as keys don't record it.
    pub fn check(&self, key: &Key) -> Vec<Violation> {
        let policies = self.0.iter().filter(|policy| policy.applies_to.role.is_none());
        policies.filter(|policy| matches(policy, key)).flat_map(|policy| broken(policy, key)).collect()
    }

    /// Returns the earliest end of a key by policies that apply to all keys; `None` if none ends it
    /// before it ends anyway.
    pub fn end_of(&self, key: &Key) -> Option<PolicyEnd> {
        let policies = self.0.iter().filter(|policy| policy.apply == ApplyTo::All && matches(policy, key));
        let ends = policies.filter_map(|policy| {
            let at = end_by(policy, key)?;
            Some(PolicyEnd { at, policy: policy.name.clone() })
        });
        ends.min_by_key(|end| end.at).filter(|end| key.ends().is_none_or(|ends| end.at < ends))
    }

    fn in_force_for<'a>(
        &'a self,
        key: &'a Key,
        writer: &'a Writer<'_>,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a IssuancePolicy> {
        self.0.iter().filter(move |policy| {
            let is_for =
                |role: &String| *role == writer.role.name() || writer.scope_set == Some(role.as_str());
            policy.from.is_none_or(|from| from.time() <= now)
                && policy.applies_to.role.as_ref().is_none_or(is_for)
                && matches(policy, key)
        })
    }
}

/// Returns whether a policy is for a key, apart from its writer.
fn matches(policy: &IssuancePolicy, key: &Key) -> bool {
    let of = &policy.applies_to;
    of.actor_prefix.as_ref().is_none_or(|prefix| key.actor.as_str().starts_with(prefix))
        && of.visibility.is_none_or(|visibility| Visibility::from(visibility) == key.visibility)
}

/// Returns the time at which a policy that applies to all keys ends a key.
fn end_by(policy: &IssuancePolicy, key: &Key) -> Option<Timestamp> {
    let from = policy.from.map_or(Timestamp::from_micros(0), |from| from.time());
    let by_age = policy.max_ttl.map(|max_ttl: Duration| key.created.plus(max_ttl).max(from));
    let breaks_rule = breaks_require_ttl(policy, key) || other_violations(policy, key).next().is_some();
    breaks_rule.then_some(from).into_iter().chain(by_age).min()
}

/// Returns all rules of a policy that a key breaks.
fn broken(policy: &IssuancePolicy, key: &Key) -> Vec<Violation> {
    let max_ttl = policy.max_ttl.filter(|max_ttl| {
        let end = key.created.plus(*max_ttl);
        key.expires.is_none_or(|expires| expires > end)
    });
    let max_ttl = max_ttl.map(|max_ttl| {
        let most = duration::to_proto(max_ttl);
        violation(policy, "ttl", "max_ttl", format!("must end the key at most {most} after its creation"))
    });
    let require_ttl = breaks_require_ttl(policy, key)
        .then(|| violation(policy, "ttl", "require_ttl", "must be set".to_owned()));
    max_ttl.into_iter().chain(require_ttl).chain(other_violations(policy, key)).collect()
}

fn breaks_require_ttl(policy: &IssuancePolicy, key: &Key) -> bool {
    policy.require_ttl && key.expires.is_none()
}

/// Returns the rules about anything but its end that a key breaks.
fn other_violations<'a>(policy: &'a IssuancePolicy, key: &'a Key) -> impl Iterator<Item = Violation> + 'a {
    let scopes = policy.allowed_scopes.as_ref().and_then(|allowed| problem_of_scopes(allowed.scopes(), key));
    let metadata = problem_of_metadata(&policy.required_metadata, key);
    let is_open = policy.require_ip_restriction && key.addresses.is_empty();
    let addresses = is_open.then(|| "must have at least one block in allowed_cidrs".to_owned());
    let pattern = policy.name_pattern.as_ref().map(PatternText::pattern);
    let name = pattern.filter(|pattern| !pattern.matches(key.name.as_str()));
    let name = name.map(|pattern| format!("must match {}", pattern.as_str()));
    [
        ("scopes", "allowed_scopes", scopes),
        ("metadata", "required_metadata", metadata),
        ("ip_restriction", "require_ip_restriction", addresses),
        ("name", "name_pattern", name),
    ]
    .into_iter()
    .filter_map(move |(field, rule, problem)| problem.map(|problem| violation(policy, field, rule, problem)))
}

fn problem_of_scopes(allowed: &Scopes, key: &Key) -> Option<String> {
    let refused: Vec<&str> =
        key.scopes.iter().filter(|scope| !allowed.grant(scope)).map(Scope::as_str).collect();
    let list =
        |scopes: &mut dyn Iterator<Item = &str>| scopes.take(MAX_NAMED_SCOPES).collect::<Vec<_>>().join(", ");
    let allowed = match allowed.is_empty() {
        true => "none".to_owned(),
        false => list(&mut allowed.iter().map(Scope::as_str)),
    };
    let problem = || format!("must not have {} (allowed: {allowed})", list(&mut refused.iter().copied()));
    (!refused.is_empty()).then(problem)
}

fn problem_of_metadata(required: &[String], key: &Key) -> Option<String> {
    if required.is_empty() {
        return None;
    }
    let object = key.metadata.as_ref().map(crate::key::Metadata::object).unwrap_or_default();
    let is_missing = |name: &&String| object.get(*name).is_none_or(serde_json::Value::is_null);
    let missing: Vec<&str> = required.iter().filter(is_missing).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("must have {}", missing.join(", ")))
}

fn violation(policy: &IssuancePolicy, field: &'static str, rule: &str, problem: String) -> Violation {
    let problem = format!("{problem} (issuance policy {}: {rule})", policy.name);
    Violation { field, problem, policy: policy.name.clone() }
}
