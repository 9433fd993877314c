//! How a connection gets on: what a client leaves unfinished for too long ends it.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::bounds::{EXCHANGE_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, MAX_GIVEN_UP};
use crate::telemetry::connections::Refused;

/// What HTTP/2 by prior knowledge begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// One connection's progress.
#[derive(Clone)]
pub struct Pace(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    given_up: Notify,
}

struct State {
    /// Known from the first bytes on.
    is_http2: Option<bool>,
    /// When the connection was made, or the last request ended.
    idle_since: Instant,
    /// When the first byte of a request came whose head isn't there yet. Not known with HTTP/2, where other bytes come.
    head_since: Option<Instant>,
    /// Requests that haven't been answered to the last byte, with their beginnings.
    open: BTreeMap<u64, Instant>,
    begun: u64,
    given_up: u64,
}

impl Pace {
    /// Of a connection that has just been made.
    pub fn new() -> Self {
        let state = State {
            is_http2: None,
            idle_since: Instant::now(),
            head_since: None,
            open: BTreeMap::new(),
            begun: 0,
            given_up: 0,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), given_up: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Notes that a request's head is there. It lasts until what is returned is dropped.
    pub fn begin(&self) -> Exchange {
        let mut state = self.state();
        state.begun += 1;
        state.head_since = None;
        let number = state.begun;
        state.open.insert(number, Instant::now());
        Exchange { pace: self.clone(), number, answered: false }
    }

    fn end(&self, number: u64, answered: bool) {
        let mut state = self.state();
        state.open.remove(&number);
        state.idle_since = Instant::now();
        if !answered {
            state.given_up += 1;
            if state.gives_up_too_much() {
                self.0.given_up.notify_one();
            }
        }
    }

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        let is_http2 = *state
            .is_http2
            .get_or_insert_with(|| PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]));
        if !is_http2 && state.open.is_empty() && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// Resolves once the client has left something unfinished for too long, with what that was.
    pub async fn overdue(&self) -> Refused {
        loop {
            let (due, why) = self.state().due();
            if due <= Instant::now() {
                return why;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.0.given_up.notified() => {}
            }
        }
    }
}

impl State {
    fn gives_up_too_much(&self) -> bool {
        self.given_up >= MAX_GIVEN_UP && self.given_up * 2 > self.begun
    }

    /// When the connection is overdue if nothing changes.
    fn due(&self) -> (Instant, Refused) {
        if self.gives_up_too_much() {
            return (self.idle_since, Refused::GivenUp);
        }
        if let Some((_, began)) = self.open.first_key_value() {
            return (*began + EXCHANGE_TIMEOUT, Refused::SlowExchange);
        }
        match (self.head_since, self.is_http2) {
            (Some(since), _) => (since + HEAD_TIMEOUT, Refused::SlowHead),
            (None, None) => (self.idle_since + HEAD_TIMEOUT, Refused::SlowHead),
            (None, Some(_)) => (self.idle_since + IDLE_TIMEOUT, Refused::Idle),
        }
    }
}

/// A request that is under way.
pub struct Exchange {
    pace: Pace,
    number: u64,
    answered: bool,
}

impl Exchange {
    /// Notes that there is an answer; it is still to be sent.
    pub fn answered<B>(mut self, body: B) -> Answering<B> {
        self.answered = true;
        Answering { body, _exchange: self }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.pace.end(self.number, self.answered);
    }
}

/// The body of an answer: with its end the exchange is over.
pub struct Answering<B> {
    body: B,
    _exchange: Exchange,
}

impl<D: Buf, B: Body<Data = D> + Unpin> Body for Answering<B> {
    type Data = D;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<D>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream of which it is noted that bytes come.
pub struct Paced<S> {
    stream: S,
    pace: Pace,
}

impl<S> Paced<S> {
    /// Notes into `pace`.
    pub fn new(stream: S, pace: Pace) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.pace.read(&buffer.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// For what it is closed if nothing changes, and in how many seconds from now.
    fn due(pace: &Pace) -> (Refused, u64) {
        let (at, why) = pace.state().due();
        // What has passed since the beginning of this test is less than a second.
        (why, (at + Duration::from_millis(999)).saturating_duration_since(Instant::now()).as_secs())
    }

    #[test]
    fn each_kind_of_slowness_has_its_time() {
        let silent = Pace::new();
        assert_eq!(due(&silent), (Refused::SlowHead, HEAD_TIMEOUT.as_secs()));

        let slow_head = Pace::new();
        slow_head.read(b"GET / HT");
        let since = slow_head.state().head_since;
        slow_head.read(b"TP");
        assert_eq!(slow_head.state().head_since, since, "more bytes don't begin it anew");
        assert_eq!(due(&slow_head), (Refused::SlowHead, HEAD_TIMEOUT.as_secs()));

        for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let pace = Pace::new();
            pace.read(first);
            let (exchange, second) = (pace.begin(), pace.begin());
            assert_eq!(due(&pace), (Refused::SlowExchange, EXCHANGE_TIMEOUT.as_secs()));
            drop(exchange.answered(()));
            assert_eq!(due(&pace), (Refused::SlowExchange, EXCHANGE_TIMEOUT.as_secs()));
            drop(second.answered(()));
            assert_eq!(due(&pace), (Refused::Idle, IDLE_TIMEOUT.as_secs()));
        }
        // Windows and pings come to an HTTP/2 connection without a request.
        let idle = Pace::new();
        idle.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        idle.read(b"\0\0\0\0\0\0\0\0\0");
        assert_eq!(due(&idle), (Refused::Idle, IDLE_TIMEOUT.as_secs()));
    }

    #[tokio::test]
    async fn who_gives_up_most_requests_is_sent_away() {
        let pace = Pace::new();
        for _ in 0..MAX_GIVEN_UP {
            drop(pace.begin().answered(()));
        }
        for _ in 0..MAX_GIVEN_UP {
            drop(pace.begin());
        }
        assert_eq!(pace.state().due().1, Refused::SlowHead, "no more than it was answered");
        drop(pace.begin());
        assert_eq!(pace.overdue().await, Refused::GivenUp);
    }
}
