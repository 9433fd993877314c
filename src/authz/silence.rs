//! Clients that say nothing: they may be gone without a word.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep};

use super::connection::Bounds;
use crate::http2::Session;

/// Finds out whether a silent client is still there.
pub struct Silence {
    bounds: Bounds,
    /// When there is something to do next.
    timer: Pin<Box<Sleep>>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    /// It hasn't said anything yet.
    New,
    /// Something came since the timer was set.
    Broken,
    Silent,
    /// It was asked.
    Asked,
}

impl Silence {
    /// Of a client that hasn't said anything yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, timer: Box::pin(sleep(bounds.patience)), state: State::New }
    }

    /// Notes that it isn't silent.
    pub fn is_broken(&mut self) {
        if self.state != State::New {
            self.state = State::Broken;
        }
    }

    /// Ready when the client is gone.
    pub fn poll<C>(&mut self, session: &RefCell<Session<C>>, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let mut session = session.borrow_mut();
            let next = match self.state {
                State::New if !session.is_greeted() => return Poll::Ready(()),
                State::Asked => return Poll::Ready(()),
                State::New | State::Broken => {
                    self.state = State::Silent;
                    session.forgive();
                    self.bounds.silence
                }
                State::Silent => {
                    session.inquire();
                    self.state = State::Asked;
                    self.bounds.pong
                }
            };
            self.timer.as_mut().reset(Instant::now() + next);
        }
        Poll::Pending
    }
}
