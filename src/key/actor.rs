//! Actors: those on whose behalf keys act.

use std::sync::Arc;

use super::{ActorId, KeyName, Metadata, NamedRatePolicy, NetworkId, RatePolicies, Suspension};
use crate::clock::Timestamp;

/// An actor. It needs no row of its own to exist: keys only have to name it.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Network that it belongs to.
    pub network: NetworkId,
    /// Id, unique within the network.
    pub id: ActorId,
    /// Name, for people; under the rules of a key's name.
    pub display_name: Option<KeyName>,
    /// The owner's own attributes.
    pub metadata: Option<Metadata>,
    /// Rate policies, each for the uses of all its keys together.
    pub rate_policies: RatePolicies,
    /// Suspension of all its keys, which may have ended by itself.
    pub suspension: Option<Arc<Suspension>>,
    /// Times at which its row was made and last changed; `None` without a row.
    pub recorded: Option<RecordedTimes>,
    /// Verified caller who changed it last.
    pub updated_by: Option<Arc<str>>,
    /// Number of its last change in the mutation log. 0 if it has none.
    pub mutation: u64,
}

/// Times of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedTimes {
    /// Time at which it was made.
    pub created: Timestamp,
    /// Time of the last change.
    pub updated: Timestamp,
}

impl Actor {
    /// Returns an actor without a row.
    pub const fn implicit(network: NetworkId, id: ActorId) -> Self {
        Self {
            network,
            id,
            display_name: None,
            metadata: None,
            rate_policies: RatePolicies::UNSET,
            suspension: None,
            recorded: None,
            updated_by: None,
            mutation: 0,
        }
    }

    /// Returns true if Talos counts uses for one of its rate policies.
    pub fn has_counted_limits(&self) -> bool {
        self.rate_policies.as_slice().iter().any(NamedRatePolicy::is_counted)
    }

    /// Returns true if names, metadata, rate policies and suspension are the same.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.display_name == other.display_name
            && self.metadata == other.metadata
            && self.rate_policies == other.rate_policies
            && self.suspension == other.suspension
    }
}
