//! Result of charging one request to a bucket.

use std::time::Duration;

use crate::key::{KeyId, NetworkId, PolicyName};

/// Identity of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BucketKey {
    /// Requests of a key that has one policy.
    Key(NetworkId, KeyId),
    /// Requests of a key or an actor that one of several policies counts: digest of its name.
    Named([u8; 32]),
}

/// Decision about one request, by the policy that is nearest to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDecision {
    /// Name of the policy that decided.
    pub policy: PolicyName,
    /// True if the request is within the limit.
    pub allowed: bool,
    /// Further requests that are allowed at once.
    pub remaining: u64,
    /// Time until the bucket is full again.
    pub reset: Duration,
    /// Time until one more such request is allowed: zero if one is allowed now, `None` if it costs
    /// more than the whole quota.
    pub retry_after: Option<Duration>,
}

impl RateDecision {
    /// Formats the `RateLimit` header: `"default";r=42` (draft-ietf-httpapi-ratelimit-headers).
    pub fn header(&self) -> String {
        format!("\"{}\";r={}", self.policy.as_str(), self.remaining)
    }

    /// Returns the `Retry-After` header in whole seconds; `None` if the request is allowed, or
    /// waiting doesn't help.
    pub fn retry_after_secs(&self) -> Option<u64> {
        let whole = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after.filter(|_| !self.allowed).map(|wait| whole(wait).max(1))
    }
}
