//! Credits of keys: the uses that are left, and how they are spent and refilled.
//!
//! They belong to the key that was first given them, and to the keys that replace it by rotation:
//! all of these spend from one balance, in a row of its own.

use std::sync::Arc;
use std::time::Duration;

use super::refill::{MAX_CREDITS, Refill};
use super::{FieldError, KeyId};
use crate::clock::Timestamp;

/// Balance of credits, by which a use is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditBalance {
    /// Credits that are left.
    pub remaining: u64,
    /// Refill, if there is one.
    pub refill: Option<Refill>,
    /// Time at which the next refill is due.
    pub due: Option<Timestamp>,
}

impl CreditBalance {
    /// Makes a balance that was set at `now`.
    pub fn new(remaining: u64, refill: Option<Refill>, now: Timestamp) -> Self {
        Self { remaining, refill, due: refill.map(|refill| refill.schedule.next_after(now)) }
    }

    /// Checks a number of credits.
    ///
    /// # Errors
    /// Fails if it is negative, or too large.
    pub fn check_remaining(remaining: i64) -> Result<u64, FieldError> {
        let remaining = u64::try_from(remaining).ok().filter(|remaining| *remaining <= MAX_CREDITS);
        remaining.ok_or(FieldError::new("must be 0 to 1000000000000000"))
    }

    /// Returns the amounts, for comparison with another request's.
    pub fn fingerprint(&self) -> serde_json::Value {
        serde_json::json!([self.remaining.to_string(), self.refill.map(|refill| refill.to_stored())])
    }

    /// Returns the balance at `now`. A refill that is due fills up to its amount and leaves what is
    /// above it; several that were missed count once. The next one is due after `now`.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        match self.refill.filter(|_| self.due.is_none_or(|due| due <= now)) {
            Some(refill) => Self {
                remaining: self.remaining.max(refill.amount),
                due: Some(refill.schedule.next_after(now)),
                ..self
            },
            None => self,
        }
    }

    /// Spends `cost`, or nothing if less is left.
    pub fn spend(&mut self, cost: u32, now: Timestamp) -> SpentCredits {
        *self = self.at(now);
        let left = self.remaining.checked_sub(u64::from(cost));
        self.remaining = left.unwrap_or(self.remaining);
        self.outcome(left.is_some(), cost, now)
    }

    /// Returns the outcome of a use that costs `cost`, after which the balance is this one.
    pub fn outcome(&self, allowed: bool, cost: u32, now: Timestamp) -> SpentCredits {
        let helps = self.refill.is_some_and(|refill| refill.amount >= u64::from(cost));
        let wait = |due: Timestamp| {
            let micros = due.as_micros().saturating_sub(now.as_micros());
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        let retry_after = self.due.filter(|_| helps && !allowed).map(wait);
        SpentCredits { allowed, remaining: self.remaining, retry_after }
    }
}

/// Decision about one use of a key that has credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpentCredits {
    /// True if its cost was spent.
    pub allowed: bool,
    /// Credits that are left after it.
    pub remaining: u64,
    /// Time until the refill that makes it possible, if there is one.
    pub retry_after: Option<Duration>,
}

impl SpentCredits {
    /// Returns the `Retry-After` header in whole seconds; `None` if waiting doesn't help.
    pub fn retry_after_secs(&self) -> Option<u64> {
        let whole = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after.map(|wait| whole(wait).max(1))
    }
}

/// Credits of a key, as they were when its row was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credits {
    /// Id by which their row is found: that of the key that was first given them, or a random one
    /// if the keys that replaced it still spend others by that id.
    pub account: KeyId,
    /// Balance at that time.
    pub balance: CreditBalance,
}

impl Credits {
    /// Gives a key credits at `now`, which it is the first to have. Of the balance, the amounts
    /// count.
    pub fn new(account: KeyId, given: CreditBalance, now: Timestamp) -> Self {
        Self { account, balance: CreditBalance::new(given.remaining, given.refill, now) }
    }

    /// Returns true if `after` are the credits of `before` as they are, not others that were set
    /// since.
    pub fn are_kept(before: Option<&Arc<Self>>, after: Option<&Arc<Self>>) -> bool {
        match (before, after) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            (None, None) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::refill::{RefillInterval, RefillSchedule};
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    const START: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn daily(amount: u64) -> Refill {
        Refill { amount, schedule: RefillSchedule::parse(RefillInterval::Day, "00:00").unwrap() }
    }

    #[test]
    fn a_refusal_says_what_is_left_and_when_to_retry() {
        let mut balance = CreditBalance::new(3, Some(daily(2)), START);
        assert_eq!(balance.spend(2, START).remaining, 1);
        let refused = balance.spend(2, START);
        assert_eq!((refused.allowed, refused.remaining), (false, 1));
        let due = balance.due.unwrap();
        assert_eq!(refused.retry_after_secs(), Some((due.as_secs() - START.as_secs()) as u64));
        assert_eq!(balance.spend(3, START).retry_after_secs(), None, "no refill is enough for it");
        assert!(balance.spend(1, START).allowed);
        assert_eq!(CreditBalance::new(0, None, START).spend(1, START).retry_after, None);
        let refilled = balance.spend(1, due);
        assert_eq!((refilled.allowed, refilled.remaining), (true, 1));
        let above = CreditBalance::new(9, Some(daily(2)), START).at(due);
        assert_eq!(above.remaining, 9, "what is above the amount stays");
        let later = CreditBalance::new(0, Some(daily(2)), START).at(due.plus(Duration::from_secs(400_000)));
        assert_eq!(later.remaining, 2, "those that were missed count once");
    }

    /// The balance by a model that knows nothing of due times: it looks at each second.
    struct Model {
        remaining: u64,
        refill: Option<Refill>,
        /// Second up to which it has looked.
        seen: i64,
    }

    impl Model {
        fn spend(&mut self, cost: u64, now: i64) -> bool {
            // Midnights since it last looked; a clock that was set back shows none anew.
            let midnights = now.div_euclid(86_400) - self.seen.div_euclid(86_400);
            self.seen = self.seen.max(now);
            if let Some(refill) = self.refill.filter(|_| midnights > 0)
                && self.remaining < refill.amount
            {
                self.remaining = refill.amount;
            }
            let allowed = cost <= self.remaining;
            self.remaining -= if allowed { cost } else { 0 };
            allowed
        }
    }

    /// Uses: their cost, and the seconds by which the clock moves before each, back as well.
    fn uses() -> impl Strategy<Value = Vec<(u32, i64)>> {
        vec((0..6_u32, -50_000..100_000_i64), 0..60)
    }

    proptest! {
        #[test]
        fn balances_equal_those_of_a_naive_model(
            remaining in 0..20_u64,
            amount in 0..12_u64,
            uses in uses(),
        ) {
            let refill = (amount > 0).then(|| daily(amount));
            let mut balance = CreditBalance::new(remaining, refill, START);
            let mut model = Model { remaining, refill, seen: START.as_secs() };
            let (mut now, mut spent, mut refills) = (START.as_secs(), 0, 0);
            for (cost, moves) in uses {
                now += moves;
                let due = balance.due;
                let outcome = balance.spend(cost, Timestamp::from_secs(now));
                prop_assert_eq!(outcome.allowed, model.spend(u64::from(cost), now));
                prop_assert_eq!((outcome.remaining, balance.remaining), (model.remaining, model.remaining));
                prop_assert!(balance.due >= due, "a time at which one was due never comes again");
                refills += u64::from(balance.due != due);
                spent += if outcome.allowed { u64::from(cost) } else { 0 };
            }
            prop_assert!(spent <= remaining + refills * amount);
        }

        /// Several uses in one transaction are those same uses one after the other.
        #[test]
        fn an_outcome_tells_what_the_balance_says(remaining in any::<u32>(), cost in any::<u32>()) {
            let mut balance = CreditBalance::new(u64::from(remaining), None, START);
            let outcome = balance.spend(cost, START);
            prop_assert_eq!(outcome, balance.outcome(outcome.allowed, cost, START));
            prop_assert_eq!(outcome.allowed, cost <= remaining);
        }
    }
}
