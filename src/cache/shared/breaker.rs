//! A circuit breaker: after some failures in a row nobody waits for Redis any more, until one trial succeeds.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{BootTime, Clock, Timestamp};

/// Failures in a row that open it.
const THRESHOLD: u32 = 5;
/// How long it stays open at first; each trial that fails doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest that it stays open.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// One trial.
    HalfOpen,
    /// Nothing.
    Open,
}

pub(crate) struct Breaker {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    failures: u32,
    /// Set while it is open.
    opened: Option<BootTime>,
    pause: Duration,
    trial_since: Option<BootTime>,
}

/// Something that was let through. Dropped without a word, it counts as neither success nor failure.
pub(crate) struct Attempt<'a> {
    breaker: &'a Breaker,
    trial: bool,
    settled: bool,
}

impl Breaker {
    pub fn new(clock: Clock) -> Self {
        let state = State { failures: 0, opened: None, pause: FIRST_PAUSE, trial_since: None };
        Self { clock, state: Mutex::new(state) }
    }

    /// Wall time, by the clock that it was given.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What it lets through now.
    pub fn state(&self) -> BreakerState {
        let state = self.state.lock();
        match state.opened {
            None => BreakerState::Closed,
            Some(opened) if self.clock.boot_now().since(opened) >= state.pause => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        }
    }

    /// Lets an attempt through, or not.
    pub fn try_begin(&self) -> Option<Attempt<'_>> {
        let mut state = self.state.lock();
        let Some(opened) = state.opened else {
            return Some(Attempt { breaker: self, trial: false, settled: false });
        };
        let now = self.clock.boot_now();
        if now.since(opened) < state.pause || state.trial_since.is_some() {
            return None;
        }
        state.trial_since = Some(now);
        Some(Attempt { breaker: self, trial: true, settled: false })
    }

    /// Counts a failure that no attempt stands for.
    pub fn count_failure(&self) {
        let mut state = self.state.lock();
        if state.opened.is_none() {
            state.failures += 1;
            if state.failures >= THRESHOLD {
                state.opened = Some(self.clock.boot_now());
                tracing::warn!("the shared cache gives no answer: going on without it");
            }
        }
    }
}

impl Attempt<'_> {
    pub fn succeeded(mut self) {
        self.settled = true;
        let mut state = self.breaker.state.lock();
        if self.trial {
            tracing::info!("the shared cache answers again");
            *state = State { failures: 0, opened: None, pause: FIRST_PAUSE, trial_since: None };
        } else if state.opened.is_none() {
            state.failures = 0;
        }
    }

    pub fn failed(mut self) {
        self.settled = true;
        if self.trial {
            let mut state = self.breaker.state.lock();
            state.opened = Some(self.breaker.clock.boot_now());
            state.pause = (state.pause * 2).min(LONGEST_PAUSE);
            state.trial_since = None;
        } else {
            self.breaker.count_failure();
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.trial && !self.settled {
            self.breaker.state.lock().trial_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_tries_and_closes() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let breaker = Breaker::new(clock.clone());
        for _ in 0..THRESHOLD - 1 {
            breaker.try_begin().unwrap().failed();
        }
        breaker.try_begin().unwrap().succeeded();
        for _ in 0..THRESHOLD {
            assert_eq!(breaker.state(), BreakerState::Closed, "only failures in a row count");
            breaker.try_begin().unwrap().failed();
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.try_begin().is_none());

        clock.advance(FIRST_PAUSE);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let trial = breaker.try_begin().unwrap();
        assert!(breaker.try_begin().is_none(), "one trial at a time");
        trial.failed();
        clock.advance(FIRST_PAUSE);
        assert_eq!(breaker.state(), BreakerState::Open, "the pause has doubled");
        clock.advance(FIRST_PAUSE);
        drop(breaker.try_begin().unwrap());
        breaker.try_begin().unwrap().succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
