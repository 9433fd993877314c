//! The generic cell rate algorithm, as virtual scheduling (ITU-T I.371, annex A).

use std::time::Duration;

use super::decision::RateDecision;
use crate::key::{PolicyName, RatePolicy};

/// Most places of a bucket. Scripts in Redis count in doubles, which are exact up to here.
const MAX_BURST: u64 = 1_000_000_000_000;

/// Parameters of the algorithm; times are in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// Time in which one place becomes free; rounded up, so that the policy is never exceeded.
    pub emission_interval: u64,
    /// Places of the bucket.
    pub burst: u64,
}

impl Gcra {
    /// Converts a policy.
    pub(super) fn new(policy: RatePolicy) -> Self {
        let burst = u64::try_from(policy.quota).unwrap_or(1).clamp(1, MAX_BURST);
        let window = u64::try_from(policy.window.as_micros()).unwrap_or(u64::MAX);
        Self { emission_interval: window.div_ceil(burst).max(1), burst }
    }

    /// Returns the time in which an empty bucket becomes full.
    pub(super) const fn refill_time(self) -> u64 {
        self.emission_interval * self.burst
    }

    /// Charges a request that costs `cost` at `now`. `full_at` is the time at which the bucket is
    /// full again (the theoretical arrival time); returns its new value.
    pub(super) fn charge(self, full_at: u64, now: u64, cost: u32) -> (u64, RateDecision) {
        let debt = self.debt(full_at, now);
        match self.admits(debt, cost) {
            true => {
                let taken = debt + self.time_of(cost);
                (now + taken, self.decision(taken, true, cost))
            }
            false => (now + debt, self.decision(debt, false, cost)),
        }
    }

    /// Returns the time after which a bucket is full again. It is cut to the refill time, as the
    /// policy may have changed and the clock been set back.
    pub(super) fn debt(self, full_at: u64, now: u64) -> u64 {
        full_at.saturating_sub(now).min(self.refill_time())
    }

    /// Returns the time in which what a request costs becomes free.
    pub(super) fn time_of(self, cost: u32) -> u64 {
        self.emission_interval.saturating_mul(u64::from(cost))
    }

    /// Returns whether a bucket with this debt has room for a request.
    pub(super) fn admits(self, debt: u64, cost: u32) -> bool {
        debt.saturating_add(self.time_of(cost)) <= self.refill_time()
    }

    /// Makes the decision for a bucket that is full again after `debt`.
    pub(super) fn decision(self, debt: u64, allowed: bool, cost: u32) -> RateDecision {
        let (needed, whole) = (self.time_of(cost), self.refill_time());
        let free = whole - debt.min(whole);
        RateDecision {
            policy: PolicyName::DEFAULT,
            allowed,
            remaining: free / self.emission_interval,
            reset: Duration::from_micros(debt),
            retry_after: (needed <= whole).then(|| Duration::from_micros(needed.saturating_sub(free))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::RateUnit;
    use proptest::prelude::*;

    fn gcra(quota: i64, window: u64) -> Gcra {
        Gcra::new(RatePolicy::new(quota, Duration::from_secs(window), RateUnit::Requests).unwrap())
    }

    #[test]
    fn a_burst_then_one_per_interval() {
        let gcra = gcra(3, 60);
        let (mut full_at, now) = (0, 1_000_000_000);
        for remaining in [2, 1, 0] {
            let (next, decision) = gcra.charge(full_at, now, 1);
            assert_eq!(
                (decision.allowed, decision.remaining, decision.retry_after == Some(Duration::ZERO)),
                (true, remaining, remaining > 0)
            );
            full_at = next;
        }
        let (same, decision) = gcra.charge(full_at, now, 1);
        assert_eq!(same, full_at, "a denial costs nothing");
        assert_eq!(decision.retry_after, Some(Duration::from_secs(20)));
        assert_eq!(decision.reset, Duration::from_secs(60));
        assert!(!gcra.charge(full_at, now + 19_999_999, 1).1.allowed);
        assert!(gcra.charge(full_at, now + 20_000_000, 1).1.allowed);
    }

    #[test]
    fn a_request_takes_what_it_costs_or_nothing() {
        let gcra = gcra(10, 60);
        let now = 1_000_000_000;
        let (full_at, decision) = gcra.charge(0, now, 7);
        assert_eq!((decision.allowed, decision.remaining), (true, 3));
        let (same, decision) = gcra.charge(full_at, now, 4);
        assert_eq!((same, decision.allowed, decision.remaining), (full_at, false, 3));
        assert_eq!(
            (decision.retry_after, decision.retry_after_secs()),
            (Some(Duration::from_secs(6)), Some(6))
        );
        assert!(gcra.charge(full_at, now + 6_000_000, 4).1.allowed);
        let (_, decision) = gcra.charge(0, now, 11);
        assert!(!decision.allowed, "more than the whole quota");
        assert_eq!((decision.retry_after, decision.retry_after_secs()), (None, None), "it never passes");
    }

    #[test]
    fn the_largest_policy_overflows_nothing() {
        for (quota, window) in [(i64::MAX, 1), (i64::MAX, 315_360_000), (1, 315_360_000), (1, 1)] {
            let gcra = gcra(quota, window);
            let now = 4_000_000_000_000_000;
            let (full_at, decision) = gcra.charge(0, now, 1);
            assert!(decision.allowed && full_at > now && full_at < 1 << 53);
            let (_, decision) = gcra.charge(full_at, now, u32::MAX);
            assert!(!decision.allowed || quota > i64::from(u32::MAX));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_denies_for_one_interval_at_most() {
        let gcra = gcra(10, 60);
        let (full_at, _) = gcra.charge(0, 10_000_000_000, 1);
        let (full_at, decision) = gcra.charge(full_at, 1_000_000, 1);
        assert!(!decision.allowed);
        assert!(gcra.charge(full_at, 1_000_000 + gcra.emission_interval, 1).1.allowed, "after one interval");
    }

    proptest! {
        /// Compares with a count of what was admitted in every window: never more than the burst
        /// and the places that became free.
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
                let (next, decision) = gcra.charge(full_at, now, 1);
                full_at = next;
                if decision.allowed {
                    admitted.push(now);
                } else {
                    prop_assert!(gcra.charge(full_at, now + u64::try_from(decision.retry_after.unwrap().as_micros()).unwrap(), 1).1.allowed);
                }
            }
            for (index, begin) in admitted.iter().enumerate() {
                for (count, end) in (1_u64..).zip(&admitted[index..]) {
                    let freed = (end - begin) / gcra.emission_interval;
                    prop_assert!(count <= gcra.burst + freed, "{count} between {begin} and {end}");
                }
            }
        }
    }
}
