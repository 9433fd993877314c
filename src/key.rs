//! API keys: the types of a key and of its attributes.

mod actor;
mod address;
mod change_record;
mod credits;
pub mod deny;
mod differences;
mod fields;
mod grace;
mod id;
mod interned;
mod pattern;
mod provenance;
mod rate;
mod rate_policies;
pub mod record;
mod refill;
#[cfg(test)]
mod sample;
mod scope;
mod signer;
mod status;
pub mod strict;
mod suspension;
pub mod terms;
pub mod verdict;

pub use actor::{Actor, RecordedTimes};
pub use address::AddressList;
pub use change_record::{ChangeKind, ChangeRecord, FieldChange};
pub use credits::{CreditBalance, Credits, SpentCredits};
pub use fields::{ActorId, KeyName, MAX_LABEL, Metadata, TEN_YEARS};
pub use grace::UnusedGrace;
pub use id::{KeyId, KeyKind, NetworkId};
pub use pattern::NamePattern;
pub use provenance::{KeyProvenance, Provenance};
pub use rate::{RatePolicy, RateUnit};
pub use rate_policies::{NamedRatePolicy, PolicyName, RateEnforcer, RatePolicies, RateScope};
pub use refill::{MAX_CREDITS, Refill, RefillInterval, RefillSchedule};
pub use scope::{Scope, Scopes, covers};
pub use signer::{KeyPrefix, SecretId, Signer};
pub use status::{Revocation, RevocationReason, Status, Visibility};
pub use suspension::{Suspension, Suspensions};

use std::sync::Arc;

use crate::clock::Timestamp;

/// A key, as stored in its row. Contains nothing of its secret.
#[derive(Debug, Clone)]
pub struct Key {
    /// Network that it belongs to.
    pub network: NetworkId,
    /// Id, unique within the network.
    pub id: KeyId,
    /// Name, for people.
    pub name: KeyName,
    /// Actor on whose behalf it is used.
    pub actor: ActorId,
    /// Scopes.
    pub scopes: Scopes,
    /// The owner's own attributes.
    pub metadata: Option<Metadata>,
    /// Secret or publishable.
    pub visibility: Visibility,
    /// Addresses from which it may be used.
    pub addresses: AddressList,
    /// Rate policy named `default`.
    pub rate_policy: Option<RatePolicy>,
    /// All rate policies, `default` among them; unset if it is the only one that was ever set.
    pub rate_policies: RatePolicies,
    /// Rate policies of its actor, which count the uses of all keys of that together.
    pub actor_limits: RatePolicies,
    /// Credits, if its uses cost some.
    pub credits: Option<Arc<Credits>>,
    /// Time at which it was issued or imported.
    pub created: Timestamp,
    /// Time of the last change, except of its last use.
    pub updated: Timestamp,
    /// Expiry.
    pub expires: Option<Timestamp>,
    /// End of the grace period after its rotation.
    pub superseded: Option<Timestamp>,
    /// Grace period that uses put off.
    pub unused_grace: Option<Box<UnusedGrace>>,
    /// Revocation. Never removed once set.
    pub revocation: Option<Box<Revocation>>,
    /// Suspensions, which leave its status alone.
    pub suspensions: Suspensions,
    /// Callers that made and changed it, and the keys before and after it.
    pub provenance: KeyProvenance,
    /// Last use, to the day.
    pub last_used: Option<Timestamp>,
    /// Number of its last change in the mutation log. 0 if it has none. Of an imported key that was
    /// never changed, a number from before its import.
    pub mutation: u64,
    /// Secret and prefix of its credential, as far as known.
    pub signer: Signer,
}

impl Key {
    /// Returns its status at `now`. Expiry is computed, not stored.
    pub fn status(&self, now: Timestamp) -> Status {
        if self.revocation.is_some() || self.superseded.is_some_and(|at| at <= now) {
            Status::Revoked
        } else if self.expires.is_some_and(|at| at <= now) {
            Status::Expired
        } else {
            Status::Active
        }
    }

    /// Returns true if it is revoked at `now` whatever follows: a use from before an end that uses
    /// put off may be recorded only later, and the key then lives on.
    pub fn is_revoked_for_good(&self, now: Timestamp) -> bool {
        let is_final = |end: Timestamp| self.unused_grace.as_deref().is_none_or(|grace| grace.latest <= end);
        self.revocation.is_some() || self.superseded.is_some_and(|end| end <= now && is_final(end))
    }

    /// Sets all rate policies; without any, the key has none.
    pub fn set_rate_policies(&mut self, policies: RatePolicies) {
        self.rate_policy = policies.default_policy().map(|default| default.policy);
        self.rate_policies = policies;
    }

    /// Sets or removes the rate policy named `default`. The others stay.
    pub fn set_default_rate_policy(&mut self, policy: Option<RatePolicy>) {
        self.rate_policies = self.rate_policies.with_default(policy);
        self.rate_policy = policy;
    }

    /// Returns whether it or its actor has a rate policy, whoever enforces it.
    pub const fn has_rate_policy(&self) -> bool {
        self.rate_policy.is_some() || self.has_named_rate_policies()
    }

    /// Returns whether uses may be charged to more than the policy named `default` of the key.
    pub const fn has_named_rate_policies(&self) -> bool {
        !self.rate_policies.is_unset() || !self.actor_limits.is_unset()
    }

    /// Returns the value of the `RateLimit-Policy` header
    /// (draft-ietf-httpapi-ratelimit-headers).
    pub fn rate_policy_header(&self) -> Option<String> {
        match self.has_named_rate_policies() {
            false => self.rate_policy.map(|policy| policy.header_named(PolicyName::DEFAULT.as_str())),
            true => RatePolicies::header(self.all_rate_policies()),
        }
    }

    /// Returns its rate policies and those of its actor, each of which takes the place of a policy
    /// of the key that has the same name and counts by actor.
    fn all_rate_policies(&self) -> impl Iterator<Item = NamedRatePolicy> {
        let alone = self.rate_policy.filter(|_| self.rate_policies.is_unset());
        let alone = alone.map(NamedRatePolicy::default_of);
        let own = alone.into_iter().chain(self.rate_policies.as_slice().iter().copied());
        let of_actor = self.actor_limits.as_slice();
        let is_replaced = move |policy: &NamedRatePolicy| {
            policy.scope == RateScope::Actor && of_actor.iter().any(|other| other.name == policy.name)
        };
        own.filter(move |policy| !is_replaced(policy)).chain(of_actor.iter().copied())
    }

    /// Returns the limits that Envoy enforces, requests and unit, each with the name of its policy.
    /// A policy of the key goes before one of its actor with the same name.
    pub fn envoy_limits(&self) -> impl Iterator<Item = (PolicyName, (u32, &'static str))> {
        let own = self.rate_policies.as_slice();
        // One that Talos counts doesn't take the place of one that only Envoy can enforce.
        let is_own = move |name: PolicyName| {
            own.iter().any(|policy| policy.name == name && policy.envoy_limit().is_some())
        };
        let of_actor = self.actor_limits.as_slice().iter().filter(move |policy| !is_own(policy.name));
        own.iter().chain(of_actor).filter_map(|policy| Some((policy.name, policy.envoy_limit()?)))
    }

    /// Returns the rate policies for which Talos counts uses.
    pub fn counted_rate_policies(&self) -> impl Iterator<Item = NamedRatePolicy> {
        self.all_rate_policies().filter(NamedRatePolicy::is_counted)
    }

    /// Bounds the last use by `now`: it was written by another clock, which may have been ahead.
    #[must_use]
    pub fn with_last_use_until(self, now: Timestamp) -> Self {
        Self { last_used: self.last_used.map(|at| at.min(now)), ..self }
    }

    /// Returns the time at which it stops being valid by itself, if any.
    pub fn ends(&self) -> Option<Timestamp> {
        self.expires.into_iter().chain(self.superseded).min()
    }
}

/// Reason for refusing a field's value. Says what is allowed and never repeats the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldError(pub std::borrow::Cow<'static, str>);

impl FieldError {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(text))
    }
}
