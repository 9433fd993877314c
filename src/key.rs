//! What an API key is: the words that every other module speaks.

mod address;
pub mod deny;
mod differences;
mod fields;
mod id;
mod rate;
pub mod record;
mod scope;
mod status;
pub mod strict;
pub mod verdict;

pub use address::AddressList;
pub use fields::{ActorId, KeyName, MAX_LABEL, Metadata, TEN_YEARS};
pub use id::{KeyId, KeyKind, NetworkId};
pub use rate::{RatePolicy, RateUnit};
pub use scope::{Scope, Scopes, covers};
pub use status::{Revocation, RevocationReason, Status, Visibility};

use crate::clock::Timestamp;

/// One key as it stands in its row. Nothing of its secret is in it.
#[derive(Debug, Clone)]
pub struct Key {
    /// The tenant it belongs to.
    pub network: NetworkId,
    /// Its identity within the network.
    pub id: KeyId,
    /// For people.
    pub name: KeyName,
    /// On whose behalf it acts.
    pub actor: ActorId,
    /// What it may do.
    pub scopes: Scopes,
    /// The caller's own attributes.
    pub metadata: Option<Metadata>,
    /// Whether it may be shown to the world.
    pub visibility: Visibility,
    /// From where it may be used.
    pub addresses: AddressList,
    /// How often it may be used.
    pub rate_policy: Option<RatePolicy>,
    /// When it was issued or imported.
    pub created: Timestamp,
    /// When anything but its last use last changed.
    pub updated: Timestamp,
    /// When it stops being valid by itself.
    pub expires: Option<Timestamp>,
    /// When the key that replaced it takes over for good.
    pub superseded: Option<Timestamp>,
    /// Set once it has been revoked; never unset.
    pub revocation: Option<Revocation>,
    /// About when it was last used (to the day).
    pub last_used: Option<Timestamp>,
    /// Number of its last mutation in the mutation log; 0 when it has had none.
    pub mutation: u64,
}

impl Key {
    /// Its state at `now`: expiry is computed, never stored.
    pub fn status(&self, now: Timestamp) -> Status {
        if self.revocation.is_some() || self.superseded.is_some_and(|at| at <= now) {
            Status::Revoked
        } else if self.expires.is_some_and(|at| at <= now) {
            Status::Expired
        } else {
            Status::Active
        }
    }

    /// The moment at which it stops being valid without anyone's doing, if there is one.
    pub fn ends(&self) -> Option<Timestamp> {
        self.expires.into_iter().chain(self.superseded).min()
    }
}

/// Why a field's value was refused; says what is allowed, never repeats the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldError(pub std::borrow::Cow<'static, str>);

impl FieldError {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(std::borrow::Cow::Borrowed(text))
    }
}
