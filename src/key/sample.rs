//! A key for tests, which name only what matters to them.

use super::{
    ActorId, AddressList, Key, KeyId, KeyName, NetworkId, Provenance, RatePolicies, Scopes, Signer,
    Suspensions, Visibility,
};
use crate::clock::Timestamp;

impl Key {
    /// Returns a secret key of the one network, made at `created`, without restrictions and end.
    pub(crate) fn sample(id: KeyId, created: Timestamp) -> Self {
        Self {
            network: NetworkId::SINGLE,
            id,
            name: KeyName::parse("name").unwrap(),
            actor: ActorId::parse("user:42").unwrap(),
            scopes: Scopes::default(),
            metadata: None,
            visibility: Visibility::Secret,
            addresses: AddressList::default(),
            rate_policy: None,
            rate_policies: RatePolicies::default(),
            actor_limits: RatePolicies::default(),
            credits: None,
            created,
            updated: created,
            expires: None,
            superseded: None,
            unused_grace: None,
            revocation: None,
            suspensions: Suspensions::default(),
            provenance: Provenance::default().into(),
            last_used: None,
            mutation: 0,
            signer: Signer::default(),
        }
    }
}
