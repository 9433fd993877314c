//! Keepalive: closes connections whose client is gone without a word.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http2_server::Session;
use tokio::time::{Instant, Sleep, sleep};

use super::limits::ConnectionLimits;

/// Number of times in a keepalive interval at which a connection is looked at.
///
/// Noting the time of each byte instead would cost every Check a look at the clock.
const STEPS: u32 = 6;

/// The keepalive timer of one connection.
pub(super) struct Keepalive {
    limits: ConnectionLimits,
    /// The next step.
    timer: Pin<Box<Sleep>>,
    state: State,
    /// Steps since the abuse budget was reset.
    budget_steps: u32,
    /// True when nothing had arrived at the last step.
    is_idle: bool,
}

enum State {
    /// The handshake isn't complete, after so many steps.
    Handshake(u32),
    /// Nothing has arrived for so many steps.
    Idle(u32),
    /// A PING is sent, and nothing has arrived since.
    PingSent,
}

impl Keepalive {
    /// Starts the timer of a connection on which nothing has arrived.
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let timer = Box::pin(sleep(limits.keepalive_interval / STEPS));
        Self { limits, timer, state: State::Handshake(0), budget_steps: 0, is_idle: false }
    }

    /// Notes that something has arrived.
    pub(super) fn received(&mut self) {
        if !matches!(self.state, State::Handshake(_)) {
            self.state = State::Idle(0);
        }
    }

    /// Returns whether nothing arrived between the last two steps, once for each step.
    pub(super) const fn take_idle(&mut self) -> bool {
        std::mem::replace(&mut self.is_idle, false)
    }

    /// Sends a PING when it is time; ready when the client is gone.
    pub(super) fn poll<T>(&mut self, session: &RefCell<Session<T>>, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let mut session = session.borrow_mut();
            let step = self.limits.keepalive_interval / STEPS;
            self.budget_steps += 1;
            if self.budget_steps == STEPS {
                self.budget_steps = 0;
                session.reset_abuse_budget();
            }
            self.is_idle = !matches!(self.state, State::Idle(0));
            let (state, next) = match self.state {
                State::PingSent => return Poll::Ready(()),
                State::Handshake(steps) if !session.is_handshake_complete() => {
                    let steps = steps + 1;
                    if step * steps >= self.limits.read_timeout {
                        return Poll::Ready(());
                    }
                    (State::Handshake(steps), step)
                }
                State::Handshake(steps) | State::Idle(steps) if steps + 1 < STEPS => {
                    (State::Idle(steps + 1), step)
                }
                State::Handshake(_) | State::Idle(_) => {
                    session.send_ping();
                    (State::PingSent, self.limits.keepalive_timeout)
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

    const MOMENT: Duration = Duration::from_millis(6);

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            read_timeout: MOMENT / 3,
            keepalive_interval: MOMENT,
            keepalive_timeout: MOMENT / 3,
            max_concurrent_streams: 1,
            max_header_list_size: 1,
            abuse_budget: 1,
            ..ConnectionLimits::default()
        }
    }

    fn session() -> RefCell<Session<()>> {
        RefCell::new(Session::new(limits().of_session()))
    }

    /// Waits until the client is sent a PING (true) or is gone.
    async fn is_pinged(keepalive: &mut Keepalive, session: &RefCell<Session<()>>) -> bool {
        let written = session.borrow().output().len();
        poll_fn(|context| match keepalive.poll(session, context) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending if session.borrow().output().len() > written => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    #[tokio::test]
    async fn a_silent_client_is_pinged_and_one_that_does_not_answer_is_gone() {
        let (mut keepalive, session) = (Keepalive::new(limits()), session());
        let mut input = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..];
        while let Ok(Some((taken, _))) = session.borrow_mut().receive(input) {
            input = &input[taken..];
        }
        assert!(session.borrow().is_handshake_complete());
        for _ in 0..3 {
            assert!(is_pinged(&mut keepalive, &session).await);
            keepalive.received();
        }
        assert!(is_pinged(&mut keepalive, &session).await);
        assert!(!is_pinged(&mut keepalive, &session).await, "it didn't answer");
    }

    #[tokio::test]
    async fn a_client_that_never_begins_is_not_pinged() {
        let (mut keepalive, session) = (Keepalive::new(limits()), session());
        keepalive.received();
        assert!(!is_pinged(&mut keepalive, &session).await);
    }
}
