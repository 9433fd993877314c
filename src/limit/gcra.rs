//! The generic cell rate algorithm, as virtual scheduling (ITU-T I.371, annex A).

use std::time::Duration;

use super::Charge;
use crate::key::RatePolicy;

/// Most places of a bucket. Redis' scripts count in doubles: with this many, every time is an exact number there.
const MAX_PLACES: u64 = 1_000_000_000_000;

/// A policy as the algorithm wants it. Times are microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// The time in which one place becomes free; rounded up, so that it never is more often than the policy says.
    pub interval: u64,
    /// The places.
    pub places: u64,
}

impl Gcra {
    pub fn of(policy: RatePolicy) -> Self {
        let places = u64::try_from(policy.quota).unwrap_or(1).clamp(1, MAX_PLACES);
        let window = u64::try_from(policy.window.as_micros()).unwrap_or(u64::MAX);
        Self { interval: window.div_ceil(places).max(1), places }
    }

    /// In which time all places become free.
    pub const fn span(self) -> u64 {
        self.interval * self.places
    }

    /// One use at `now`. `full_at` is when all places will be free; gives when that is from now on.
    pub fn use_once(self, full_at: u64, now: u64) -> (u64, Charge) {
        // Never more than the whole span ahead, whatever the policy was before and the clock did.
        let debt = full_at.saturating_sub(now).min(self.span());
        let taken = debt + self.interval;
        match taken <= self.span() {
            true => (now + taken, self.charge(taken, true)),
            false => (now + debt, self.charge(debt, false)),
        }
    }

    /// What is told of a bucket that is full again after `debt`.
    pub fn charge(self, debt: u64, allowed: bool) -> Charge {
        let free = self.span() - debt.min(self.span());
        Charge {
            allowed,
            remaining: free / self.interval,
            reset: Duration::from_micros(debt),
            retry_after: Duration::from_micros(self.interval.saturating_sub(free)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::RateUnit;
    use proptest::prelude::*;

    fn gcra(quota: i64, window: u64) -> Gcra {
        Gcra::of(RatePolicy::new(quota, Duration::from_secs(window), RateUnit::Requests).unwrap())
    }

    #[test]
    fn a_burst_then_one_an_interval() {
        let gcra = gcra(3, 60);
        let (mut full_at, now) = (0, 1_000_000_000);
        for remaining in [2, 1, 0] {
            let (next, charge) = gcra.use_once(full_at, now);
            assert_eq!(
                (charge.allowed, charge.remaining, charge.retry_after.is_zero()),
                (true, remaining, remaining > 0)
            );
            full_at = next;
        }
        let (same, charge) = gcra.use_once(full_at, now);
        assert_eq!(same, full_at, "a refusal costs nothing");
        assert_eq!(charge.retry_after, Duration::from_secs(20));
        assert_eq!(charge.reset, Duration::from_secs(60));
        assert!(!gcra.use_once(full_at, now + 19_999_999).1.allowed);
        assert!(gcra.use_once(full_at, now + 20_000_000).1.allowed);
    }

    #[test]
    fn the_largest_policy_overflows_nothing() {
        for (quota, window) in [(i64::MAX, 1), (i64::MAX, 315_360_000), (1, 315_360_000), (1, 1)] {
            let gcra = gcra(quota, window);
            let now = 4_000_000_000_000_000;
            let (full_at, charge) = gcra.use_once(0, now);
            assert!(charge.allowed && full_at > now && full_at < 1 << 53);
        }
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let gcra = gcra(10, 60);
        let (full_at, _) = gcra.use_once(0, 10_000_000_000);
        let (full_at, charge) = gcra.use_once(full_at, 1_000_000);
        assert!(!charge.allowed);
        assert!(gcra.use_once(full_at, 1_000_000 + gcra.interval).1.allowed, "after one interval");
    }

    proptest! {
        /// Against a count of what was let through in every window: never more than the places and what became free.
        #[test]
        fn never_more_than_the_policy_and_its_burst(
            quota in 1_i64..50,
            window in 1_u64..20,
            steps in prop::collection::vec(0_u64..3_000_000, 1..300),
        ) {
            let gcra = gcra(quota, window);
            let (mut now, mut full_at, mut admitted) = (5_000_000_000_u64, 0, vec![]);
            for step in steps {
                now += step;
                let (next, charge) = gcra.use_once(full_at, now);
                full_at = next;
                if charge.allowed {
                    admitted.push(now);
                } else {
                    prop_assert!(gcra.use_once(full_at, now + u64::try_from(charge.retry_after.as_micros()).unwrap()).1.allowed);
                }
            }
            for (index, begin) in admitted.iter().enumerate() {
                for (count, end) in (1_u64..).zip(&admitted[index..]) {
                    let freed = (end - begin) / gcra.interval;
                    prop_assert!(count <= gcra.places + freed, "{count} between {begin} and {end}");
                }
            }
        }
    }
}
