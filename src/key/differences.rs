//! Differences between two records of a key.

use std::sync::Arc;

use super::{Credits, Key, Metadata, RevocationReason};

impl Key {
    /// Returns the API names of the fields that differ. Ignores the last use, the credits that are
    /// left, the position in the mutation log and the signer, which change by themselves, the
    /// actor's suspension and limits, and who made the changes.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        // Destructured, so that a new field can't be forgotten here.
        let Self {
            network,
            id,
            name,
            actor,
            scopes,
            metadata,
            visibility,
            addresses,
            rate_policy,
            rate_policies,
            actor_limits: _,
            credits,
            created,
            updated,
            expires,
            superseded,
            unused_grace: _,
            revocation,
            suspensions,
            provenance: _,
            last_used: _,
            mutation: _,
            signer: _,
        } = self;
        let reason = |key: &Self| key.revocation.as_ref().map(|revocation| revocation.reason);
        let description =
            |key: &Self| key.revocation.as_ref().and_then(|revocation| revocation.description.clone());
        let set_reason = |key: &Self| reason(key).filter(|reason| *reason != RevocationReason::Unspecified);
        // Only the refill is compared: the balance changes with each use.
        let refill = |credits: Option<&Arc<Credits>>| credits.map(|credits| credits.balance.refill);
        let same = [
            ("key_id", (*network, *id) == (other.network, other.id)),
            ("name", *name == other.name),
            ("actor_id", *actor == other.actor),
            ("scopes", *scopes == other.scopes),
            ("metadata", same_metadata(metadata.as_ref(), other.metadata.as_ref())),
            ("status", revocation.is_some() == other.revocation.is_some()),
            ("visibility", *visibility == other.visibility),
            ("ip_restriction", *addresses == other.addresses),
            ("rate_limit_policy", *rate_policy == other.rate_policy),
            ("rate_limit_policies", *rate_policies == other.rate_policies),
            ("credits", refill(credits.as_ref()) == refill(other.credits.as_ref())),
            ("create_time", *created == other.created),
            ("update_time", *updated == other.updated),
            ("expire_time", *expires == other.expires),
            ("supersede_time", *superseded == other.superseded),
            ("suspension", suspensions.own == other.suspensions.own),
            ("revocation_reason", set_reason(self) == set_reason(other)),
            ("revocation_description", description(self) == description(other)),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect()
    }
}

/// Compares metadata, regardless of the order of members.
fn same_metadata(one: Option<&Metadata>, other: Option<&Metadata>) -> bool {
    one == other || one.map(Metadata::object) == other.map(Metadata::object)
}
