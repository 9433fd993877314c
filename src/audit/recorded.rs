//! Changes that an audit log records, and their differences to a database.

use std::fmt;

use crate::clock::Timestamp;
use crate::key::{ActorId, KeyId, NetworkId, RevocationReason, Suspension};

/// Member of an update that a call found done: the time of the key's last change.
pub(super) const UPDATED_AT: &str = "UpdateTime";

/// Change that a log records as done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedChange {
    /// Network of the key or actor.
    pub network: NetworkId,
    /// The key or actor.
    pub subject: Subject,
    /// Id that the key had while only a hash of it was known.
    pub imported_as: Option<KeyId>,
    /// Kind of change.
    pub kind: ChangeKind,
    /// Time before the change: that of its intent.
    pub began: Timestamp,
    /// Time after the change: that of its outcome.
    pub at: Timestamp,
    /// Number of the outcome's line.
    pub line: u64,
    /// True if the call found the change done, which may have been long before.
    pub is_confirmed: bool,
}

impl RecordedChange {
    /// Returns the key, if the change is one of a key.
    pub fn key(&self) -> Option<KeyId> {
        match self.subject {
            Subject::Key(key) => Some(key),
            Subject::Actor(_) | Subject::ErasedActor => None,
        }
    }

    /// Returns true if `current`, the suspension of its subject, lacks this one that is in force at
    /// `now`, or its end.
    pub(super) fn is_lacking(&self, current: Option<&Suspension>, now: Timestamp) -> bool {
        let current = current.filter(|current| current.is_in_force(now));
        match self.kind {
            ChangeKind::Suspended(until) => {
                let lasts =
                    |end: Option<Timestamp>| end.is_none_or(|end| until.is_some_and(|until| end >= until));
                until.is_none_or(|until| now < until) && !current.is_some_and(|current| lasts(current.until))
            }
            // A later suspension may be in a log that isn't read here.
            ChangeKind::Resumed => current.is_some_and(|current| current.at < self.began),
            _ => false,
        }
    }
}

/// Subject of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A key.
    Key(KeyId),
    /// An actor, with all its keys.
    Actor(ActorId),
    /// An actor that was erased: the log doesn't have its id.
    ErasedActor,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{key}"),
            Self::Actor(actor) => f.write_str(actor.as_str()),
            Self::ErasedActor => f.write_str("an erased actor"),
        }
    }
}

/// Kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The key was issued or imported.
    Created,
    /// Attributes of the key were changed.
    Updated,
    /// The key was revoked.
    Revoked(RevocationReason),
    /// The key was rotated: it ended then, or ends at this time.
    Superseded(Option<Timestamp>),
    /// The key or actor was suspended: until it is resumed, or until this time.
    Suspended(Option<Timestamp>),
    /// The suspension of the key or actor was ended.
    Resumed,
    /// The key or actor was deleted with all its data.
    Deleted,
}

/// Difference between a log and a database: the database lacks this change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The last change of this key or actor that is lacking.
    pub change: RecordedChange,
    /// True if the key itself is lacking, or the actor may have been erased since.
    pub is_lost: bool,
}

impl Difference {
    /// Returns true if the log has all that is needed to repeat the change.
    pub fn is_repeatable(&self) -> bool {
        match self.change.kind {
            _ if self.is_lost => false,
            ChangeKind::Revoked(_)
            | ChangeKind::Superseded(_)
            | ChangeKind::Suspended(_)
            | ChangeKind::Resumed
            | ChangeKind::Deleted => true,
            ChangeKind::Created | ChangeKind::Updated => false,
        }
    }

    /// Describes the change in one word.
    pub const fn name(&self) -> &'static str {
        match (&self.change.subject, self.change.kind) {
            (Subject::Actor(_), ChangeKind::Suspended(_)) => return "actor suspended",
            (Subject::Actor(_), ChangeKind::Resumed) => return "actor resumed",
            _ => {}
        }
        match self.change.kind {
            ChangeKind::Created => "created",
            ChangeKind::Updated => "updated",
            ChangeKind::Revoked(_) => "revoked",
            ChangeKind::Superseded(_) => "rotated",
            ChangeKind::Suspended(_) => "suspended",
            ChangeKind::Resumed => "resumed",
            ChangeKind::Deleted => "deleted",
        }
    }
}
