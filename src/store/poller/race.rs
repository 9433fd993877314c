//! Race of one statement on two connections: the old one, and a new one that is opened when the old
//! one fails or doesn't answer.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connection::{Answered, Attempt};
use super::outcome::{Evidence, PollError};
use super::timing::PollTiming;
use crate::store::StoreError;

/// Attempts under way, and what failed so far.
pub(super) struct Race {
    timing: PollTiming,
    began: Instant,
    old: Option<Attempt>,
    new: Option<Attempt>,
    new_began: Instant,
    /// Expires when a new connection is to be tried beside the old one.
    hedge: Pin<Box<Sleep>>,
    is_hedged: bool,
    has_new_failed: bool,
    error: Option<StoreError>,
}

/// Event in a race.
pub(super) enum Step {
    /// The attempt on the old connection ended.
    Old(Result<Answered, StoreError>),
    /// The attempt on the new connection ended.
    New(Result<Answered, StoreError>),
    /// The old connection hasn't answered for a while.
    Hedge,
    /// The time is over.
    Deadline,
}

impl Race {
    /// Starts with the old connection, if there is one.
    pub(super) fn new(old: Option<Attempt>, timing: PollTiming) -> Self {
        let now = Instant::now();
        Self {
            timing,
            began: now,
            old,
            new: None,
            new_began: now,
            hedge: Box::pin(sleep(timing.hedge_delay())),
            is_hedged: false,
            has_new_failed: false,
            error: None,
        }
    }

    /// Returns true if no attempt is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.old.is_none() && self.new.is_none()
    }

    /// Adds an attempt on a new connection.
    pub(super) fn start_new(&mut self, attempt: Attempt) {
        self.is_hedged = true;
        self.new_began = Instant::now();
        self.new = Some(attempt);
    }

    /// Waits for the next event. Of those that are ready, an answer comes first: a deadline that
    /// passed meanwhile doesn't make it worthless.
    pub(super) async fn next(&mut self, deadline: Instant) -> Step {
        tokio::select! {
            biased;
            result = wait_for(&mut self.old) => {
                self.old = None;
                Step::Old(result)
            }
            result = wait_for(&mut self.new) => {
                self.new = None;
                Step::New(result)
            }
            () = &mut self.hedge, if !self.is_hedged => Step::Hedge,
            () = sleep_until(deadline) => Step::Deadline,
        }
    }

    /// Records that the old connection failed.
    pub(super) fn old_failed(&mut self, error: StoreError) {
        self.error = Some(error);
    }

    /// Records that a new connection failed; another one is tried while the old one is silent.
    pub(super) fn new_failed(&mut self, error: StoreError) {
        self.error = Some(error);
        self.has_new_failed = true;
        if self.old.is_some() {
            self.is_hedged = false;
            self.hedge.as_mut().reset(Instant::now() + self.timing.hedge_delay() / 2);
        }
    }

    /// Returns true if the old connection failed, or is silent for long.
    pub(super) fn is_old_dead(&self) -> bool {
        let is_silent = self.old.is_some() && self.began.elapsed() > self.timing.hedge_delay() * 2;
        self.error.is_some() || is_silent
    }

    /// Takes the error if a new connection failed.
    pub(super) fn take_outage(&mut self) -> Option<PollError> {
        let error = self.error.take_if(|_| self.has_new_failed)?;
        Some(PollError { error, evidence: Evidence::Outage })
    }

    /// Ends the race; returns the attempt on the new connection, if it is under way.
    pub(super) fn into_new(self) -> Option<Attempt> {
        self.new
    }

    /// Ends the race at the deadline. `connect_time` is the time that opening a connection takes.
    pub(super) fn timed_out(self, connect_time: Duration) -> PollError {
        let outage_delay = self.timing.outage_delay(connect_time);
        let evidence = match self.new {
            _ if self.has_new_failed => Evidence::Outage,
            Some(_) if self.new_began.elapsed() >= outage_delay => Evidence::Outage,
            Some(_) => Evidence::NoResponse,
            None => Evidence::None,
        };
        PollError { error: self.error.unwrap_or(StoreError::TimedOut), evidence }
    }
}

async fn wait_for(attempt: &mut Option<Attempt>) -> Result<Answered, StoreError> {
    match attempt {
        Some(attempt) => attempt.await,
        None => pending().await,
    }
}
