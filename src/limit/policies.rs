//! Buckets of a key that has several policies.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::decision::{BucketKey, RateDecision};
use super::gcra::Gcra;
use crate::key::{Key, PolicyName, RateScope};

/// Bytes of an actor's digest in the name of a bucket.
const ACTOR_DIGEST_LEN: usize = 16;

/// Bucket of one policy.
pub(super) struct PolicyBucket {
    /// Name in Redis, shared by all instances and releases: with another name, buckets are full
    /// again. All buckets of an actor's keys have one hash tag, as a script's keys must lie on one
    /// node of a cluster.
    pub name: String,
    /// Parameters of the policy.
    pub gcra: Gcra,
    policy: PolicyName,
}

impl PolicyBucket {
    /// Returns the key of the bucket in this process.
    pub(super) fn key(&self) -> BucketKey {
        BucketKey::Named(Sha256::digest(&self.name).into())
    }
}

/// Returns the buckets of the policies for which uses are counted.
pub(super) fn buckets_of(key: &Key) -> Vec<PolicyBucket> {
    let mut tag = String::new();
    for byte in &Sha256::digest(key.actor.as_str())[..ACTOR_DIGEST_LEN] {
        // Writing to a string never fails.
        let _ = write!(tag, "{byte:02x}");
    }
    let network = key.network;
    let bucket = |policy: crate::key::NamedRatePolicy| {
        let policy_name = policy.name.as_str();
        let whose = match policy.scope {
            RateScope::Key => format!("key:{}:{policy_name}", key.id),
            // Counted in time: policies with another window would cut each other's debts.
            RateScope::Actor => format!("actor:{policy_name}:{}", policy.policy.window.as_micros()),
        };
        PolicyBucket {
            name: format!("talos:v1:limit:{{{network}:{tag}}}:{whose}"),
            gcra: Gcra::new(policy.policy),
            policy: policy.name,
        }
    };
    key.counted_rate_policies().map(bucket).collect()
}

/// Returns the decision of the policy that is nearest to its end: of those that refuse, the one
/// that does so longest; else the one with the least left. `debts` are those after the charge.
pub(super) fn nearest(
    buckets: &[PolicyBucket],
    debts: &[u64],
    allowed: bool,
    cost: u32,
) -> Option<RateDecision> {
    let decisions = buckets.iter().zip(debts).map(|(PolicyBucket { gcra, policy, .. }, debt)| {
        let allowed = allowed || gcra.admits(*debt, cost);
        RateDecision { policy: *policy, ..gcra.decision(*debt, allowed, cost) }
    });
    match allowed {
        true => decisions.min_by_key(|decision| (decision.remaining, std::cmp::Reverse(decision.reset))),
        // One that no time helps refuses longest.
        false => decisions
            .filter(|one| !one.allowed)
            .max_by_key(|decision| (decision.retry_after.is_none(), decision.retry_after)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::clock::Timestamp;
    use crate::key::{
        ActorId, AddressList, KeyId, KeyName, NamedRatePolicy, NetworkId, Provenance, RateEnforcer,
        RatePolicies, RatePolicy, RateUnit, Scopes, Signer, Suspensions, Visibility,
    };

    /// Returns a key without a policy.
    fn key_of(id: u128, actor: &str) -> Key {
        Key {
            network: NetworkId::SINGLE,
            id: KeyId::Issued(Uuid::from_u128(id)),
            name: KeyName::parse("n").unwrap(),
            actor: ActorId::parse(actor).unwrap(),
            scopes: Scopes::default(),
            metadata: None,
            visibility: Visibility::Secret,
            addresses: AddressList::default(),
            rate_policy: None,
            rate_policies: RatePolicies::default(),
            actor_limits: RatePolicies::default(),
            credits: None,
            created: Timestamp::from_secs(1_000),
            updated: Timestamp::from_secs(1_000),
            expires: None,
            superseded: None,
            revocation: None,
            last_used: None,
            unused_grace: None,
            mutation: 0,
            signer: Signer::default(),
            suspensions: Suspensions::default(),
            provenance: Provenance::default().into(),
        }
    }

    fn policy(name: &str, quota: i64, scope: RateScope) -> NamedRatePolicy {
        let policy = RatePolicy::new(quota, Duration::from_secs(60), RateUnit::Requests).unwrap();
        NamedRatePolicy {
            name: PolicyName::parse(name).unwrap(),
            policy,
            scope,
            enforcer: RateEnforcer::Talos,
        }
    }

    #[test]
    fn buckets_of_an_actor_have_one_hash_tag_and_are_shared() {
        let policies = [policy("a", 1, RateScope::Key), policy("b", 2, RateScope::Actor)];
        let names = |id, actor| {
            let mut key = key_of(id, actor);
            key.set_rate_policies(RatePolicies::new(policies.to_vec()).unwrap());
            buckets_of(&key).into_iter().map(|bucket| bucket.name).collect::<Vec<_>>()
        };
        let (one, other, stranger) = (names(1, "}x{"), names(2, "}x{"), names(3, "y"));
        let tag = |name: &str| name.split(['{', '}']).nth(1).unwrap().to_owned();
        assert_ne!(one[0], other[0]);
        assert_eq!(one[1], other[1]);
        assert_ne!(one[1], stranger[1]);
        for name in one.iter().chain(&other) {
            assert_eq!(tag(name), tag(&one[0]));
        }
    }

    #[test]
    fn the_decision_is_that_of_the_policy_nearest_to_its_end() {
        let mut key = key_of(1, "x");
        let policies = vec![policy("wide", 60, RateScope::Key), policy("narrow", 6, RateScope::Key)];
        key.set_rate_policies(RatePolicies::new(policies).unwrap());
        let buckets = buckets_of(&key);
        let name = |debts: [u64; 2], allowed| {
            let decision = nearest(&buckets, &debts, allowed, 1).unwrap();
            (decision.policy.as_str().to_owned(), decision.remaining, decision.allowed)
        };
        let seconds = |count: u64| count * 1_000_000;
        assert_eq!(name([seconds(1), seconds(10)], true), ("narrow".to_owned(), 5, true));
        assert_eq!(name([seconds(58), seconds(10)], true), ("wide".to_owned(), 2, true));
        assert_eq!(name([seconds(60), seconds(10)], false), ("wide".to_owned(), 0, false));
        assert_eq!(name([seconds(60), seconds(60)], false), ("narrow".to_owned(), 0, false));
        let never = nearest(&buckets, &[seconds(60), 0], false, 7).unwrap();
        assert_eq!((never.policy.as_str(), never.retry_after_secs()), ("narrow", None), "7 of 6");
    }
}
