//! Filter of keys, and the reading of it for a key in memory.

use crate::clock::Timestamp;
use crate::key::terms::metadata_values;
use crate::key::{Key, KeyPrefix, SecretId, Status};

/// Number that stands for the expiry of a key that never expires: later than any time.
pub const NEVER_EXPIRES: i64 = i64::MAX;
/// Number that stands for the last use of a key that was never used: earlier than any time.
pub(super) const NEVER_USED: i64 = -1;

/// Range of times, in microseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// First time; `None` for any.
    pub from: Option<i64>,
    /// First time after the range; `None` for any.
    pub until: Option<i64>,
}

/// Condition on names. It ignores the case of the letters A to Z.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameFilter {
    /// The name is this text.
    Is(String),
    /// The name begins with this text.
    StartsWith(String),
}

/// Filter of keys; what is absent matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Actor of the keys.
    pub actor: Option<String>,
    /// Status of the keys.
    pub status: Option<Status>,
    /// Secrets of the keys, of which one must match; `None` in the list matches keys whose secret
    /// isn't known.
    pub secrets: Option<Vec<Option<SecretId>>>,
    /// Prefix of the keys.
    pub prefix: Option<KeyPrefix>,
    /// Times of creation.
    pub created: TimeRange,
    /// Conditions that no index holds together with an order.
    pub more: Box<Conditions>,
}

/// Conditions on keys; what is absent matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Name of the keys.
    pub name: Option<NameFilter>,
    /// Scopes that the keys all have, as they are written.
    pub scopes: Vec<String>,
    /// Paths and values that the metadata of the keys has.
    pub metadata: Vec<(String, String)>,
    /// Expiry. Keys that never expire are later than any time.
    pub expires: TimeRange,
    /// Last use. Keys that were never used are earlier than any time.
    pub last_used: TimeRange,
    /// Beginning of the name, the actor, the id or a value of the metadata.
    pub search: Option<String>,
}

impl TimeRange {
    /// Returns true if the range has a bound.
    pub fn is_bounded(&self) -> bool {
        *self != Self::default()
    }

    /// Returns true if a time is in the range.
    pub fn contains(&self, time: i64) -> bool {
        self.from.is_none_or(|from| from <= time) && self.until.is_none_or(|until| time < until)
    }
}

impl NameFilter {
    /// Returns the text.
    pub fn text(&self) -> &str {
        match self {
            Self::Is(text) | Self::StartsWith(text) => text,
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Is(text) => name.eq_ignore_ascii_case(text),
            Self::StartsWith(text) => starts_with(name, text),
        }
    }
}

impl Filter {
    /// Returns true if there are no conditions beyond those that an index holds together with the
    /// order of creation.
    pub(super) fn is_plain(&self) -> bool {
        let conditions = [self.actor.is_some(), self.secrets.is_some(), self.prefix.is_some()];
        let has_one_at_most = conditions.iter().filter(|is_there| **is_there).count() <= 1;
        has_one_at_most && *self.more == Conditions::default()
    }

    /// Returns true if a key matches at `now`.
    pub(super) fn matches(&self, key: &Key, now: Timestamp) -> bool {
        self.actor.as_ref().is_none_or(|actor| key.actor.as_str() == actor)
            && self.status.is_none_or(|status| key.status(now) == status)
            && self.secrets.as_ref().is_none_or(|secrets| secrets.contains(&key.signer.secret))
            && self.prefix.as_ref().is_none_or(|prefix| key.signer.prefix.as_ref() == Some(prefix))
            && self.created.contains(key.created.as_micros())
            && self.more.matches(key)
    }
}

impl Conditions {
    fn matches(&self, key: &Key) -> bool {
        let values = match &key.metadata {
            Some(metadata) if !self.metadata.is_empty() || self.search.is_some() => metadata_values(metadata),
            _ => vec![],
        };
        let has_scope = |scope: &String| key.scopes.iter().any(|one| one.as_str() == scope);
        let has_value = |(path, value): &(String, String)| {
            values.iter().any(|found| found.path == *path && found.value == *value)
        };
        let expires = key.expires.map_or(NEVER_EXPIRES, Timestamp::as_micros);
        let last_used = key.last_used.map_or(NEVER_USED, Timestamp::as_micros);
        let is_found = |text: &String| {
            let lower = text.to_ascii_lowercase();
            starts_with(key.name.as_str(), text)
                || key.actor.as_str().starts_with(text)
                || key.actor.as_str().starts_with(&lower)
                || key.id.to_string().starts_with(&lower)
                || values.iter().any(|found| starts_with(&found.value, text))
        };
        self.name.as_ref().is_none_or(|name| name.matches(key.name.as_str()))
            && self.scopes.iter().all(has_scope)
            && self.metadata.iter().all(has_value)
            && self.expires.contains(expires)
            && self.last_used.contains(last_used)
            && self.search.as_ref().is_none_or(is_found)
    }
}

/// Compares the beginning of a text without the case of the letters A to Z.
fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(start))
}
