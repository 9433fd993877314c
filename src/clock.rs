//! Time as an argument: the one place that reads the machine's clocks.
//!
//! Two readings, never mixed: [`Timestamp`] is wall time, for what is written down (rows, tokens);
//! [`BootTime`] counts on through a suspend (CLOCK_BOOTTIME), for how long ago something happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Wall time in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From seconds since the epoch; saturates far outside of any real date.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time and `after` later; saturates.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(micros(after)))
    }

    /// This time less `before`; saturates.
    pub fn minus(self, before: Duration) -> Self {
        Self(self.0.saturating_sub(micros(before)))
    }

    /// From RFC 3339, in any time zone; what is finer than a microsecond is cut off.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self)
    }

    /// RFC 3339 in UTC, with as many digits of the fraction as the value needs.
    pub fn to_rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            // Only years beyond 9999 have no such text; no field can hold one (a ttl is 10 years at most).
            .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds since the machine booted, time spent suspended included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    /// From microseconds since boot.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since boot.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it isn't after.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// One moment by both clocks, for what must not count longer than either of them says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Goes on through a suspend, and stands still for a container that is frozen and moved.
    pub boot: BootTime,
    /// May be set.
    pub wall: Timestamp,
}

impl Moment {
    /// How long after `earlier` this is, by whichever clock says more: one may have stood still, the other may have
    /// been set back.
    pub fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.as_micros().saturating_sub(earlier.wall.as_micros());
        let wall = Duration::from_micros(u64::try_from(wall).unwrap_or(0));
        self.boot.since(earlier.boot).max(wall)
    }

    /// Whether this is the earlier of both.
    pub fn is_before(self, other: Self) -> bool {
        self.boot < other.boot
    }

    /// The earlier of both, by each clock.
    pub fn earlier(self, other: Self) -> Self {
        Self { boot: self.boot.min(other.boot), wall: self.wall.min(other.wall) }
    }

    /// The later of both.
    pub fn later(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

/// Where time comes from: the machine, or a test's hand.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<Hands>),
}

struct Hands {
    wall: AtomicI64,
    boot: AtomicU64,
}

impl Clock {
    /// The machine's clocks.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `now` until it is moved: for tests.
    pub fn manual(now: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Hands { wall: AtomicI64::new(now.0), boot: AtomicU64::new(1_000_000) })))
    }

    /// Moves both readings of a manual clock forward; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hands) = &self.0 {
            hands.wall.fetch_add(micros(by), Ordering::SeqCst);
            hands.boot.fetch_add(micros(by).unsigned_abs(), Ordering::SeqCst);
        }
    }

    /// Wall time now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Manual(hands) => Timestamp(hands.wall.load(Ordering::SeqCst)),
            Source::System => match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
                Ok(since) => Timestamp(micros(since)),
                Err(before) => Timestamp(-micros(before.duration())),
            },
        }
    }

    /// This moment by both clocks.
    pub fn moment(&self) -> Moment {
        Moment { boot: self.boot(), wall: self.now() }
    }

    /// Boot time now.
    pub fn boot(&self) -> BootTime {
        match &self.0 {
            Source::Manual(hands) => BootTime(hands.boot.load(Ordering::SeqCst)),
            Source::System => {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let secs = u64::try_from(time.tv_sec).unwrap_or(0);
                let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
                BootTime(secs * 1_000_000 + nanos / 1_000)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_keeps_what_the_value_holds() {
        assert_eq!(Timestamp::from_secs(0).to_rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_micros(1_776_404_737_120_000).to_rfc3339(), "2026-04-17T05:45:37.12Z");
        for (text, micros) in [
            ("2026-04-17T05:45:37.12Z", Some(1_776_404_737_120_000)),
            ("2026-04-17T07:45:37.120000999+02:00", Some(1_776_404_737_120_000)),
            ("1969-12-31T23:59:59.9999999Z", Some(-1)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000_000)),
            ("2026-04-17", None),
            ("2026-04-17T05:45:37", None),
            ("1776404737", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::from_rfc3339(text).map(Timestamp::as_micros), micros, "{text}");
        }
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(Timestamp::from_secs(10));
        let boot = clock.boot();
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now(), Timestamp::from_secs(13));
        assert_eq!(clock.boot().since(boot), Duration::from_secs(3));
    }
}
