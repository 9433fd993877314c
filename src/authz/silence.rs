//! Clients that say nothing: they may be gone without a word.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep};

use super::connection::Bounds;
use crate::http2::Session;

/// How many times it is looked whether something came, before a client is asked: looking each time that something comes
/// would cost every Check a look at the clock.
const LOOKS: u32 = 6;

/// Finds out whether a silent client is still there.
pub struct Silence {
    bounds: Bounds,
    /// When there is something to do next.
    timer: Pin<Box<Sleep>>,
    state: State,
    /// How many times it was looked since the client's unrest was forgiven.
    unforgiven: u32,
    /// Whether nothing had come when it was looked last.
    is_quiet: bool,
}

enum State {
    /// So many times it hadn't said anything yet.
    New(u32),
    /// So many times nothing had come.
    Silent(u32),
    /// It was asked.
    Asked,
}

impl Silence {
    /// Of a client that hasn't said anything yet.
    pub fn new(bounds: Bounds) -> Self {
        let timer = Box::pin(sleep(bounds.silence / LOOKS));
        Self { bounds, timer, state: State::New(0), unforgiven: 0, is_quiet: false }
    }

    /// Notes that it isn't silent.
    pub fn is_broken(&mut self) {
        if !matches!(self.state, State::New(_)) {
            self.state = State::Silent(0);
        }
    }

    /// Returns whether nothing came between the last two looks, once for each look.
    pub const fn take_quiet(&mut self) -> bool {
        std::mem::replace(&mut self.is_quiet, false)
    }

    /// Ready when the client is gone.
    pub fn poll<C>(&mut self, session: &RefCell<Session<C>>, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let mut session = session.borrow_mut();
            let step = self.bounds.silence / LOOKS;
            self.unforgiven += 1;
            if self.unforgiven == LOOKS {
                self.unforgiven = 0;
                session.forgive();
            }
            self.is_quiet = !matches!(self.state, State::Silent(0));
            let (state, next) = match self.state {
                State::Asked => return Poll::Ready(()),
                State::New(looks) if !session.is_greeted() => {
                    let looks = looks + 1;
                    if step * looks >= self.bounds.patience {
                        return Poll::Ready(());
                    }
                    (State::New(looks), step)
                }
                State::New(looks) | State::Silent(looks) if looks + 1 < LOOKS => {
                    (State::Silent(looks + 1), step)
                }
                State::New(_) | State::Silent(_) => {
                    session.inquire();
                    (State::Asked, self.bounds.pong)
                }
            };
            self.state = state;
            self.timer.as_mut().reset(Instant::now() + next);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;
    use crate::http2::Limits;

    fn silence() -> Silence {
        let moment = Duration::from_millis(6);
        Silence::new(Bounds { patience: moment / 3, silence: moment, pong: moment / 3, ..Bounds::default() })
    }

    fn session() -> RefCell<Session<()>> {
        RefCell::new(Session::new(Limits { streams: 1, head: 1, unrest: 1, output: 1_000, queued: 0 }))
    }

    /// Waits until the client is asked (true) or gone.
    async fn is_asked(silence: &mut Silence, session: &RefCell<Session<()>>) -> bool {
        let written = session.borrow().output().len();
        poll_fn(|context| match silence.poll(session, context) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending if session.borrow().output().len() > written => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    #[tokio::test]
    async fn who_is_silent_is_asked_and_who_does_not_answer_is_gone() {
        let (mut silence, session) = (silence(), session());
        let mut input = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..];
        while let Ok(Some((taken, _))) = session.borrow_mut().receive(input) {
            input = &input[taken..];
        }
        assert!(session.borrow().is_greeted());
        for _ in 0..3 {
            assert!(is_asked(&mut silence, &session).await);
            silence.is_broken();
        }
        assert!(is_asked(&mut silence, &session).await);
        assert!(!is_asked(&mut silence, &session).await, "it didn't answer");
    }

    #[tokio::test]
    async fn who_says_nothing_at_first_is_not_asked() {
        let (mut silence, session) = (silence(), session());
        silence.is_broken();
        assert!(!is_asked(&mut silence, &session).await);
    }
}
