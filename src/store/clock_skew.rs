//! Skew between this process's clock and the database's, by which all instances are compared.
//!
//! SQLite has no clock but the machine's, so there is no skew.

use std::time::Duration;

use super::StoreError;
use super::dialect::Dialect;
use crate::clock::Timestamp;

/// Skew beyond which nothing is written that the clock would falsify. More than the time that a
/// write may wait for others.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(30);

/// Skew that is worth a warning: clocks that are kept by NTP differ by less than a second.
const CLOCK_SKEW_WARNING: Duration = Duration::from_secs(5);

/// Measured skew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    /// Time by which this process is ahead, in microseconds; negative if it is behind.
    ahead_micros: i64,
    /// Uncertainty of the measurement, in microseconds.
    error_micros: i64,
}

impl ClockSkew {
    /// Compares the database's time with the process's times before and after it was read.
    pub(super) fn measure(before: Timestamp, after: Timestamp, database: Timestamp) -> Self {
        let (before, after) = (before.as_micros(), after.as_micros());
        // If the clock was set meanwhile, the later reading counts.
        let before = before.min(after);
        let error_micros = after.saturating_sub(before) / 2;
        let middle = before.saturating_add(error_micros);
        Self { ahead_micros: middle.saturating_sub(database.as_micros()), error_micros }
    }

    /// Returns the time by which this process is ahead, in seconds; negative if it is behind.
    pub fn seconds_ahead(self) -> f64 {
        self.ahead_micros as f64 / 1e6
    }

    /// Returns true if the skew is worth a warning.
    pub fn is_suspicious(self) -> bool {
        self.exceeds(CLOCK_SKEW_WARNING)
    }

    /// Checks that what this process's clock says may be written or signed.
    ///
    /// # Errors
    /// When it is too far from the database's.
    pub fn check(self) -> Result<(), StoreError> {
        match self.exceeds(MAX_CLOCK_SKEW) {
            true => Err(StoreError::ClockSkew { seconds_ahead: self.ahead_micros / 1_000_000 }),
            false => Ok(()),
        }
    }

    /// Returns a time of this process as the database's clock has it, if the skew is more than what
    /// may be written.
    pub fn correct(self, now: Timestamp) -> Timestamp {
        match self.exceeds(MAX_CLOCK_SKEW) {
            true => Timestamp::from_micros(now.as_micros().saturating_sub(self.ahead_micros)),
            false => now,
        }
    }

    /// Returns true if the skew is more than `bound`, whatever the uncertainty.
    pub fn exceeds(self, bound: Duration) -> bool {
        let least = self.ahead_micros.saturating_abs().saturating_sub(self.error_micros);
        u128::try_from(least).is_ok_and(|least| least > bound.as_micros())
    }
}

/// Returns true if a time that this process read is too far from the database's.
pub(super) fn is_off(at: Timestamp, database: Option<Timestamp>) -> bool {
    database.is_some_and(|database| at.as_micros().abs_diff(database.as_micros()) > max_micros())
}

/// Checks a time that is about to be written.
///
/// # Errors
/// When the process's clock is too far from the database's.
pub(super) fn check(at: Timestamp, database: Option<Timestamp>) -> Result<(), StoreError> {
    match database.filter(|_| is_off(at, database)) {
        Some(database) => {
            Err(StoreError::ClockSkew { seconds_ahead: at.as_secs().saturating_sub(database.as_secs()) })
        }
        None => Ok(()),
    }
}

fn max_micros() -> u64 {
    u64::try_from(MAX_CLOCK_SKEW.as_micros()).unwrap_or(u64::MAX)
}

impl Dialect {
    /// Returns an SQL expression for the database's time in microseconds since 1970 UTC; 0 where
    /// the database has no clock of its own.
    pub(super) const fn clock(self) -> &'static str {
        match self {
            Self::Sqlite => "0",
            // The time of the statement: the transaction may have begun long before.
            Self::Postgres | Self::Cockroach => {
                "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
            }
            // Without a time zone, whose hours may be ambiguous.
            Self::MySql => "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))",
        }
    }
}

/// Interprets a value of [`Dialect::clock`].
pub(super) fn database_time(micros: i64) -> Option<Timestamp> {
    (micros != 0).then(|| Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_skew() {
        let at = Timestamp::from_secs;
        let skew = ClockSkew::measure(at(100), at(140), at(101));
        assert_eq!(skew.seconds_ahead(), 19.0);
        assert!(!skew.exceeds(Duration::ZERO), "it may have been read at once");
        let behind = ClockSkew::measure(at(100), at(102), at(701));
        assert_eq!(behind.seconds_ahead(), -600.0);
        assert!(behind.exceeds(Duration::from_secs(598)) && !behind.exceeds(Duration::from_secs(599)));
        assert_eq!(behind.correct(at(101)), at(701));
        assert_eq!(ClockSkew::measure(at(100), at(100), at(101)).correct(at(5)), at(5), "near enough");
        // Five years ahead, and set back meanwhile.
        let ahead = ClockSkew::measure(at(200_000_000), at(101), at(101));
        assert!(!ahead.exceeds(Duration::ZERO));
    }

    #[test]
    fn times_within_the_bound_are_written() {
        let database = Some(Timestamp::from_secs(1_000));
        for (at, is_right) in [(1_000, true), (970, true), (969, false), (1_030, true), (1_031, false)] {
            assert_eq!(check(Timestamp::from_secs(at), database).is_ok(), is_right, "{at}");
        }
        assert!(check(Timestamp::from_secs(0), None).is_ok());
    }
}
