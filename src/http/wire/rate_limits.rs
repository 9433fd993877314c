//! Rate limits in requests and responses.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::names;
use super::scalars::{field, int64, span};
use crate::duration;
use crate::error::ApiError;
use crate::http::body::objects;
use crate::key::{
    FieldError, NamedRatePolicy, PolicyName, RateEnforcer, RatePolicies, RatePolicy, RateScope, RateUnit,
};

/// Limits how often a key may be used.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimitPolicy {
    /// Units per window, at least 1.
    #[serde(default, deserialize_with = "int64")]
    #[schemars(with = "Option<String>", extend("format" = "int64"))]
    quota: Option<i64>,
    /// The window, such as `60s`: one second to ten years.
    window: Option<String>,
    /// The unit: `requests` (the default), `content-bytes` or `concurrent-requests`. The latter two
    /// are stored and reported for a gateway to enforce. The `Warning` header of the response says
    /// that Talos doesn't enforce them.
    unit: Option<String>,
}

/// A rate limit with a name.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedRateLimitPolicy {
    /// Name, unique within the key. Required. The one named `default` is `rate_limit_policy`, too.
    #[schemars(required, length(min = 1, max = PolicyName::MAX_LEN), pattern("^[a-z0-9_]*$"))]
    name: Option<String>,
    /// Requests per window, at least 1.
    #[serde(default, deserialize_with = "int64")]
    #[schemars(with = "Option<String>", extend("format" = "int64"))]
    quota: Option<i64>,
    /// The window, such as `60s`: one second to ten years. With `enforce: ENVOY`, one of `1s`,
    /// `60s`, `3600s`, `86400s`, `2592000s` and `31536000s`.
    window: Option<String>,
    /// The unit: `requests`.
    unit: Option<String>,
    #[schemars(with = "Option<names::RateLimitScope>")]
    scope: Option<String>,
    #[schemars(with = "Option<names::RateLimitEnforcer>")]
    enforce: Option<String>,
}

/// Deserialises a list of rate limits, of which no more is kept than shows that there are too many.
pub(super) fn policy_list<'de, D: Deserializer<'de>>(
    list: D,
) -> Result<Option<Vec<NamedRateLimitPolicy>>, D::Error> {
    objects(list, RatePolicies::MAX)
}

/// A rate limit, in a response.
#[derive(Serialize)]
pub(crate) struct RateLimitPolicyOut {
    quota: String,
    unit: &'static str,
    window: String,
}

/// A rate limit with its name, in a response.
#[derive(Serialize)]
pub(super) struct NamedRateLimitPolicyOut {
    name: String,
    #[serde(flatten)]
    policy: RateLimitPolicyOut,
    scope: &'static str,
    enforce: &'static str,
}

/// Returns a policy as it is in responses.
pub(super) fn rate_limit_policy_out(policy: RatePolicy) -> RateLimitPolicyOut {
    RateLimitPolicyOut {
        quota: policy.quota.to_string(),
        unit: policy.unit.name(),
        window: duration::to_proto(policy.window),
    }
}

/// Returns a list of policies as it is in responses, if there is one.
pub(super) fn rate_limit_policies_out(policies: &RatePolicies) -> Option<Vec<NamedRateLimitPolicyOut>> {
    let out = |policy: &NamedRatePolicy| NamedRateLimitPolicyOut {
        name: policy.name.as_str().to_owned(),
        policy: rate_limit_policy_out(policy.policy),
        scope: policy.scope.name(),
        enforce: policy.enforcer.name(),
    };
    (!policies.is_unset()).then(|| policies.as_slice().iter().map(out).collect())
}

/// Rate limits of a request.
pub(super) struct RateLimits {
    /// Policy named `default`.
    pub default: Option<RatePolicy>,
    /// All policies, unset if there is no list.
    pub all: RatePolicies,
}

/// Parses the rate limits of a new key.
///
/// # Errors
/// Fails if one is invalid, or `rate_limit_policy` contradicts the list.
pub(super) fn rate_limits(
    alias: Option<RateLimitPolicy>,
    list: Option<Vec<NamedRateLimitPolicy>>,
) -> Result<RateLimits, ApiError> {
    let alias = alias.map(rate_policy).transpose()?.flatten();
    let mut policies = policies(list.unwrap_or_default())?;
    let listed = policies.iter().find(|policy| policy.name.is_default()).map(|policy| policy.policy);
    match (alias, listed) {
        (Some(alias), Some(listed)) if alias != listed => {
            let problem = "differs from the policy named default in rate_limit_policies, for which it stands";
            return Err(ApiError::field("rate_limit_policy", problem));
        }
        (Some(alias), None) if !policies.is_empty() => {
            policies.insert(0, NamedRatePolicy::default_of(alias));
        }
        _ => {}
    }
    let all = field("rate_limit_policies", RatePolicies::new(policies))?;
    Ok(RateLimits { default: alias.or(listed), all })
}

/// Changes of the policy named `default` and of the whole list. The inner `None` removes.
pub(super) type RateLimitChanges = (Option<Option<RatePolicy>>, Option<RatePolicies>);

/// Parses the rate limits of a change.
///
/// # Errors
/// Fails as [`rate_limits`] does.
pub(super) fn rate_limit_changes(
    alias: Option<RateLimitPolicy>,
    list: Option<Vec<NamedRateLimitPolicy>>,
) -> Result<RateLimitChanges, ApiError> {
    let alias_is_set = alias.is_some();
    let list_is_set = list.is_some();
    let RateLimits { default, all } = rate_limits(alias, list)?;
    // Where the list names `default`, it has the whole policy.
    let alias_counts = alias_is_set && all.default_policy().is_none();
    Ok((alias_counts.then_some(default), list_is_set.then_some(all)))
}

/// Parses the rate limits of an actor.
///
/// # Errors
/// Fails if one is invalid, or counts by key.
pub(super) fn actor_limits(list: Vec<NamedRateLimitPolicy>) -> Result<RatePolicies, ApiError> {
    let is_by_key = |policy: &NamedRateLimitPolicy| {
        policy.scope.as_deref().is_some_and(|scope| !["", RateScope::Actor.name()].contains(&scope))
    };
    if let Some(at) = list.iter().position(is_by_key) {
        let field = format!("rate_limit_policies[{at}].scope");
        return Err(ApiError::field(field, "must be ACTOR, as limits of an actor count all its keys"));
    }
    field("rate_limit_policies", RatePolicies::of_actor(policies(list)?))
}

fn policies(list: Vec<NamedRateLimitPolicy>) -> Result<Vec<NamedRatePolicy>, ApiError> {
    list.into_iter().enumerate().map(|(at, policy)| named_policy(at, policy)).collect()
}

/// Parses the policy at `at` in the list.
fn named_policy(at: usize, body: NamedRateLimitPolicy) -> Result<NamedRatePolicy, ApiError> {
    let refused =
        |part: &str, problem: &str| ApiError::field(format!("rate_limit_policies[{at}].{part}"), problem);
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let name = PolicyName::parse(&body.name.unwrap_or_default());
    let name = name.map_err(|FieldError(problem)| refused("name", &problem))?;
    let scope = match given(body.scope) {
        None => RateScope::default(),
        Some(name) => RateScope::from_name(&name).ok_or_else(|| refused("scope", "must be KEY or ACTOR"))?,
    };
    let enforcer = match given(body.enforce) {
        None => RateEnforcer::default(),
        Some(name) => {
            RateEnforcer::from_name(&name).ok_or_else(|| refused("enforce", "must be TALOS or ENVOY"))?
        }
    };
    let unit = match given(body.unit) {
        None => RateUnit::default(),
        Some(unit) => RateUnit::from_name(&unit).ok_or_else(|| refused("unit", "must be requests"))?,
    };
    let window = match given(body.window) {
        None => Duration::ZERO,
        Some(text) => duration::parse(&text).map_err(|error| refused("window", &error.to_string()))?,
    };
    let policy = RatePolicy::new(body.quota.unwrap_or_default(), window, unit);
    let policy = policy.map_err(|FieldError(problem)| match problem.split_once(' ') {
        // `window must be …` names the part.
        Some((part @ ("quota" | "window"), problem)) => refused(part, problem),
        _ => refused("quota", &problem),
    })?;
    Ok(NamedRatePolicy { name, policy, scope, enforcer })
}

/// Parses `rate_limit_policy`. Without a value in it, there is none.
fn rate_policy(policy: RateLimitPolicy) -> Result<Option<RatePolicy>, ApiError> {
    let window = span("rate_limit_policy.window", policy.window.as_deref())?;
    let unit = policy.unit.filter(|unit| !unit.is_empty());
    let quota = policy.quota.filter(|quota| *quota != 0);
    if quota.is_none() && window.is_none() && unit.is_none() {
        return Ok(None);
    }
    let unit = match unit {
        None => RateUnit::default(),
        Some(unit) => RateUnit::from_name(&unit).ok_or_else(|| {
            let names = "must be requests, content-bytes or concurrent-requests";
            ApiError::field("rate_limit_policy.unit", names)
        })?,
    };
    let policy = RatePolicy::new(quota.unwrap_or_default(), window.unwrap_or_default(), unit);
    field("rate_limit_policy", policy).map(Some)
}
