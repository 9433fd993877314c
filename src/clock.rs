//! Clocks that are passed as arguments: only this module reads the machine's.
//!
//! There are two readings that are never mixed. [`Timestamp`] is wall time, for rows and tokens.
//! [`BootTime`] measures durations and goes on while the machine is suspended (CLOCK_BOOTTIME).

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Wall time in microseconds since 1970-01-01T00:00:00Z.
///
/// An optional one takes no more memory: the bits are those of the number with its sign inverted,
/// so that they sort like the number, and zero is none of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

/// Bit of the sign.
const SIGN: u64 = 1 << 63;

impl Timestamp {
    /// Converts from microseconds since the epoch. The least number counts as the next one.
    pub const fn from_micros(micros: i64) -> Self {
        match NonZeroU64::new(micros as u64 ^ SIGN) {
            Some(bits) => Self(bits),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Converts from seconds since the epoch; saturates far outside of any real date.
    pub const fn from_secs(secs: i64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Returns microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        (self.0.get() ^ SIGN) as i64
    }

    /// Returns whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.as_micros().div_euclid(1_000_000)
    }

    /// Adds a duration; saturates.
    pub fn plus(self, after: Duration) -> Self {
        Self::from_micros(self.as_micros().saturating_add(micros(after)))
    }

    /// Subtracts a duration; saturates.
    pub fn minus(self, before: Duration) -> Self {
        Self::from_micros(self.as_micros().saturating_sub(micros(before)))
    }

    /// Parses RFC 3339 in any time zone; truncates to microseconds.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).ok().map(Self::from_micros)
    }

    /// Formats as RFC 3339 in UTC, with as many fractional digits as the value needs.
    pub fn to_rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.as_micros()) * 1_000)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            // Only years beyond 9999 have no such text, and no field can hold one: a TTL is 10
            // years at most.
            .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Timestamp").field(&self.as_micros()).finish()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Microseconds since the machine booted, time spent suspended included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(u64);

impl BootTime {
    /// Converts from microseconds since boot.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns microseconds since boot.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Moment by both clocks, for validity that must end as soon as either clock says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Boot time: goes on while suspended, but not while a container is frozen and moved.
    pub boot: BootTime,
    /// Wall time: may be set.
    pub wall: Timestamp,
}

impl Moment {
    /// Returns the time since `earlier` by the clock that says more: one may have stood still, the
    /// other may have been set back.
    pub fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.as_micros().saturating_sub(earlier.wall.as_micros());
        let wall = Duration::from_micros(u64::try_from(wall).unwrap_or(0));
        self.boot.since(earlier.boot).max(wall)
    }

    /// Returns true if this is earlier, by boot time.
    pub fn is_before(self, other: Self) -> bool {
        self.boot < other.boot
    }

    /// Returns the earlier reading of each clock.
    pub fn earlier(self, other: Self) -> Self {
        Self { boot: self.boot.min(other.boot), wall: self.wall.min(other.wall) }
    }

    /// Returns the later moment, by boot time.
    pub fn later(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

/// Source of time: the machine's clocks, or one that tests move.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<ManualClock>),
    Read(fn() -> Moment),
}

struct ManualClock {
    wall: AtomicI64,
    boot: AtomicU64,
}

impl Clock {
    /// Uses the machine's clocks.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// Creates a clock for tests that stands at `now` until [`Clock::advance`] moves it.
    pub fn manual(now: Timestamp) -> Self {
        let (wall, boot) = (AtomicI64::new(now.as_micros()), AtomicU64::new(1_000_000));
        Self(Source::Manual(Arc::new(ManualClock { wall, boot })))
    }

    /// Creates a clock for tests that reads both times by this function.
    pub const fn read_by(read: fn() -> Moment) -> Self {
        Self(Source::Read(read))
    }

    /// Moves both readings of a manual clock forward; does nothing for other clocks.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.wall.fetch_add(micros(by), Ordering::SeqCst);
            manual.boot.fetch_add(micros(by).unsigned_abs(), Ordering::SeqCst);
        }
    }

    /// Reads wall time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Manual(manual) => Timestamp::from_micros(manual.wall.load(Ordering::SeqCst)),
            Source::Read(read) => read().wall,
            Source::System => match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
                Ok(since) => Timestamp::from_micros(micros(since)),
                Err(before) => Timestamp::from_micros(-micros(before.duration())),
            },
        }
    }

    /// Reads both clocks.
    pub fn moment(&self) -> Moment {
        Moment { boot: self.boot_now(), wall: self.now() }
    }

    /// Reads boot time.
    pub fn boot_now(&self) -> BootTime {
        match &self.0 {
            Source::Manual(manual) => BootTime(manual.boot.load(Ordering::SeqCst)),
            Source::Read(read) => read().boot,
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
    fn rfc3339_round_trips_to_the_microsecond() {
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
    fn timestamps_are_their_microseconds_and_sort_like_them() {
        let micros = [i64::MIN + 1, -1_000_000, -1, 0, 1, 1_790_000_000_000_000, i64::MAX];
        let times = micros.map(Timestamp::from_micros);
        assert_eq!(times.map(Timestamp::as_micros), micros);
        assert!(times.is_sorted());
        assert_eq!(Timestamp::from_micros(i64::MIN), times[0]);
        assert_eq!(size_of::<Option<Timestamp>>(), size_of::<Timestamp>());
        assert_eq!(format!("{:?}", times[1]), "Timestamp(-1000000)");
    }

    #[test]
    fn a_manual_clock_moves_only_when_advanced() {
        let clock = Clock::manual(Timestamp::from_secs(10));
        let boot = clock.boot_now();
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now(), Timestamp::from_secs(13));
        assert_eq!(clock.boot_now().since(boot), Duration::from_secs(3));
    }
}
