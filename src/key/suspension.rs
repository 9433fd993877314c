//! Suspension of a key or of an actor: an end that can be taken back, or ends by itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::FieldError;
use crate::clock::Timestamp;

/// Suspension of a key, or of an actor with all its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// Reason, for people.
    pub reason: Option<Arc<str>>,
    /// Time at which it ends by itself.
    pub until: Option<Timestamp>,
    /// Time at which it began.
    pub at: Timestamp,
    /// Name of the caller who made it, if that was verified.
    pub by: Option<Arc<str>>,
}

/// A suspension as stored in a row, in JSON. Times are microseconds since 1970 UTC.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Arc<str>>,
}

impl Suspension {
    /// Maximum length of a reason, in characters.
    pub const MAX_REASON: usize = 1_024;

    /// Returns true if it hasn't ended by itself at `now`.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Checks the reason for a suspension.
    ///
    /// # Errors
    /// Fails if it is too long or has a control character.
    pub fn check_reason(reason: &str) -> Result<(), FieldError> {
        // Not every database can hold a NUL.
        let is_bad = |char: char| char.is_control() && !matches!(char, '\t' | '\n' | '\r');
        match reason.chars().count() > Self::MAX_REASON || reason.chars().any(is_bad) {
            true => Err(FieldError::new(
                "must be 1024 characters at most, none of them a control character but tabs and line breaks",
            )),
            false => Ok(()),
        }
    }

    /// Returns the text for a row.
    pub fn to_stored(&self) -> String {
        let stored = Stored {
            reason: self.reason.clone(),
            until: self.until.map(Timestamp::as_micros),
            at: self.at.as_micros(),
            by: self.by.clone(),
        };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Reads the text of a row.
    pub fn from_stored(text: &str) -> Option<Self> {
        let Stored { reason, until, at, by } = serde_json::from_str(text).ok()?;
        let until = until.map(Timestamp::from_micros);
        Some(Self { reason, until, at: Timestamp::from_micros(at), by })
    }
}

/// Suspensions that concern a key. Those that have ended by themselves may be among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspensions {
    /// Suspension of the key itself.
    pub own: Option<Arc<Suspension>>,
    /// Suspension of its actor.
    pub of_actor: Option<Arc<Suspension>>,
}

impl Suspensions {
    /// Returns true if the key must not be used at `now`.
    pub fn are_in_force(&self, now: Timestamp) -> bool {
        let is_in_force =
            |one: &Option<Arc<Suspension>>| one.as_ref().is_some_and(|one| one.is_in_force(now));
        is_in_force(&self.own) || is_in_force(&self.of_actor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn until(end: Option<i64>) -> Arc<Suspension> {
        let until = end.map(Timestamp::from_secs);
        Arc::new(Suspension { reason: Some("unpaid".into()), until, at: NOW, by: None })
    }

    #[test]
    fn a_suspension_ends_at_its_time_and_not_before() {
        for (end, is_suspended) in [(None, true), (Some(1_001), true), (Some(1_000), false)] {
            let own = Suspensions { own: Some(until(end)), of_actor: None };
            let of_actor = Suspensions { own: None, of_actor: Some(until(end)) };
            assert_eq!(own.are_in_force(NOW), is_suspended, "{end:?}");
            assert_eq!(of_actor.are_in_force(NOW), is_suspended, "{end:?}");
        }
        let both = Suspensions { own: Some(until(Some(1))), of_actor: Some(until(None)) };
        assert!(both.are_in_force(NOW) && !Suspensions::default().are_in_force(NOW));
    }

    #[test]
    fn stored_suspensions_round_trip() {
        for one in [until(None), until(Some(7))] {
            assert_eq!(Suspension::from_stored(&one.to_stored()), Some((*one).clone()));
        }
        let bare = Suspension { reason: None, until: None, at: NOW, by: Some("spiffe://a/b".into()) };
        assert_eq!(Suspension::from_stored(&bare.to_stored()), Some(bare));
        assert_eq!(Suspension::from_stored("{}"), None);
        assert_eq!(Suspension::from_stored(""), None);
    }

    #[test]
    fn reasons_have_bounds() {
        assert!(Suspension::check_reason("Rechnung 7\noffen").is_ok());
        assert!(Suspension::check_reason(&"ü".repeat(1_024)).is_ok());
        assert!(Suspension::check_reason(&"ü".repeat(1_025)).is_err());
        assert!(Suspension::check_reason("a\0").is_err());
    }
}
