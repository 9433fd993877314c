//! A key, as its holder may see it.

use schemars::JsonSchema;
use serde::Serialize;

use super::rate_limits::{
    NamedRateLimitPolicy, NamedRateLimitPolicyOut, RateLimitPolicy, RateLimitPolicyOut,
    rate_limit_policies_out, rate_limit_policy_out,
};
use crate::clock::Timestamp;
use crate::key::{Key, Scope};

/// A key, as its holder may see it: nothing of its owner, and none of its attributes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OwnApiKey")]
pub(super) struct OwnKeyOut {
    /// Name, for people.
    name: String,
    /// Scopes of the key.
    scopes: Vec<String>,
    /// Addresses from which the key may be used; absent if from all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>")]
    allowed_cidrs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateLimitPolicy")]
    rate_limit_policy: Option<RateLimitPolicyOut>,
    /// All limits, if a list of them was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NamedRateLimitPolicy>")]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicyOut>>,
    /// Limits of the actor, which count the uses of all its keys together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NamedRateLimitPolicy>")]
    actor_rate_limit_policies: Option<Vec<NamedRateLimitPolicyOut>>,
    /// Time of creation.
    #[schemars(extend("format" = "date-time"))]
    create_time: String,
    /// Time of expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    expire_time: Option<String>,
    /// End of the grace period in which the key is valid beside its successor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    supersede_time: Option<String>,
    /// Parts of the key that the settings keep from working: limits that aren't enforced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) warnings: Vec<&'static str>,
}

impl From<&Key> for OwnKeyOut {
    fn from(key: &Key) -> Self {
        Self {
            name: key.name.as_str().to_owned(),
            scopes: key.scopes.iter().map(Scope::as_str).map(str::to_owned).collect(),
            allowed_cidrs: key.addresses.iter().map(ToString::to_string).collect(),
            rate_limit_policy: key.rate_policy.map(rate_limit_policy_out),
            rate_limit_policies: rate_limit_policies_out(&key.rate_policies),
            actor_rate_limit_policies: rate_limit_policies_out(&key.actor_limits),
            create_time: key.created.to_rfc3339(),
            expire_time: key.expires.map(Timestamp::to_rfc3339),
            supersede_time: key.superseded.map(Timestamp::to_rfc3339),
            warnings: vec![],
        }
    }
}
