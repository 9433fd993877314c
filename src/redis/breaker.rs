//! Circuit breaker: after several failures in a row requests don't wait for Redis any more, until
//! a probe succeeds.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{BootTime, Clock};

/// Failures in a row that open the breaker.
const FAILURE_THRESHOLD: u32 = 5;
/// Time for which the breaker stays open at first; each failed probe doubles it.
const MIN_OPEN_TIME: Duration = Duration::from_millis(250);
/// Longest time for which the breaker stays open.
const MAX_OPEN_TIME: Duration = Duration::from_secs(3);

/// State of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Every command is allowed.
    Closed,
    /// One probe is allowed.
    HalfOpen,
    /// No command is allowed.
    Open,
}

/// Counts failures in a row, and decides which commands are allowed.
pub(crate) struct CircuitBreaker {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    failures: u32,
    /// Set unless the breaker is closed.
    opened: Option<BootTime>,
    open_time: Duration,
    is_probing: bool,
}

impl State {
    const CLOSED: Self = Self { failures: 0, opened: None, open_time: MIN_OPEN_TIME, is_probing: false };
}

/// Permission for one command. Dropped without an outcome, it counts as neither success nor
/// failure.
pub(crate) struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    is_probe: bool,
    has_outcome: bool,
}

impl CircuitBreaker {
    /// Creates a closed breaker.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::new(State::CLOSED) }
    }

    /// Allows a probe at once: the connection is new.
    pub(crate) fn allow_probe(&self) {
        self.state.lock().open_time = Duration::ZERO;
    }

    /// Returns the current state.
    pub(crate) fn state(&self) -> BreakerState {
        let state = self.state.lock();
        match state.opened {
            None => BreakerState::Closed,
            Some(opened) if self.clock.boot_now().since(opened) >= state.open_time => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        }
    }

    /// Returns a permit if a command is allowed now.
    pub(crate) fn try_acquire(&self) -> Option<Permit<'_>> {
        let mut state = self.state.lock();
        let Some(opened) = state.opened else {
            return Some(Permit { breaker: self, is_probe: false, has_outcome: false });
        };
        if self.clock.boot_now().since(opened) < state.open_time || state.is_probing {
            return None;
        }
        state.is_probing = true;
        Some(Permit { breaker: self, is_probe: true, has_outcome: false })
    }

    /// Records a failure of a command without a permit. Returns true if the breaker opens.
    pub(crate) fn record_failure(&self) -> bool {
        let mut state = self.state.lock();
        if state.opened.is_some() {
            return false;
        }
        state.failures += 1;
        let opens = state.failures >= FAILURE_THRESHOLD;
        if opens {
            state.opened = Some(self.clock.boot_now());
            state.open_time = MIN_OPEN_TIME;
        }
        opens
    }
}

impl Permit<'_> {
    /// Records a success. Returns true if the breaker closes.
    pub(crate) fn succeeded(mut self) -> bool {
        self.has_outcome = true;
        let mut state = self.breaker.state.lock();
        if self.is_probe {
            *state = State::CLOSED;
        } else if state.opened.is_none() {
            state.failures = 0;
        }
        self.is_probe
    }

    /// Records a failure. Returns true if the breaker opens, or stays open after a probe.
    pub(crate) fn failed(mut self) -> bool {
        self.has_outcome = true;
        if !self.is_probe {
            return self.breaker.record_failure();
        }
        let mut state = self.breaker.state.lock();
        state.opened = Some(self.breaker.clock.boot_now());
        state.open_time = (state.open_time * 2).clamp(MIN_OPEN_TIME, MAX_OPEN_TIME);
        state.is_probing = false;
        true
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.has_outcome {
            self.breaker.state.lock().is_probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn opens_probes_and_closes() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let breaker = CircuitBreaker::new(clock.clone());
        for _ in 0..FAILURE_THRESHOLD - 1 {
            breaker.try_acquire().unwrap().failed();
        }
        breaker.try_acquire().unwrap().succeeded();
        for _ in 0..FAILURE_THRESHOLD {
            assert_eq!(breaker.state(), BreakerState::Closed, "only failures in a row count");
            breaker.try_acquire().unwrap().failed();
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.try_acquire().is_none());

        clock.advance(MIN_OPEN_TIME);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        let probe = breaker.try_acquire().unwrap();
        assert!(breaker.try_acquire().is_none(), "one probe at a time");
        probe.failed();
        clock.advance(MIN_OPEN_TIME);
        assert_eq!(breaker.state(), BreakerState::Open, "the open time has doubled");
        clock.advance(MIN_OPEN_TIME);
        drop(breaker.try_acquire().unwrap());
        breaker.try_acquire().unwrap().succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
