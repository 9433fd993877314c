//! Progress timeouts of connections to the HTTP planes: a client that leaves something unfinished
//! for too long is disconnected.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::http_memory::{ConnectionMemory, HeaderCharge};
use super::limits::{EXCHANGE_TIMEOUT, HEADER_READ_TIMEOUT, IDLE_TIMEOUT, MAX_CANCELLED_REQUESTS};
use super::stream::ReadHook;
use crate::telemetry::connections::ConnectionRefusal;

/// First bytes of HTTP/2 with prior knowledge (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Progress of one connection. Clones share it.
#[derive(Clone)]
pub(super) struct Progress(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Wakes whoever waits for a timeout: the connection has to end before it.
    has_failed: Notify,
}

struct State {
    /// Known once the first bytes have come.
    is_http2: Option<bool>,
    /// Start of the connection, or end of the last request.
    idle_since: Instant,
    /// First byte of a request whose header is incomplete. Not tracked for HTTP/2, where other
    /// frames come, too.
    header_since: Option<Instant>,
    /// Requests whose response isn't complete, with their start.
    open: BTreeMap<u64, Instant>,
    started: u64,
    cancelled: u64,
    /// Memory of an incomplete header, over HTTP/1.1.
    header: HeaderCharge,
    /// True once a header found no room.
    is_out_of_memory: bool,
}

impl Progress {
    /// Progress of a connection that was just opened.
    pub(super) fn new(memory: &Arc<ConnectionMemory>) -> Self {
        let state = State {
            is_http2: None,
            idle_since: Instant::now(),
            header_since: None,
            open: BTreeMap::new(),
            started: 0,
            cancelled: 0,
            header: HeaderCharge::new(memory),
            is_out_of_memory: false,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), has_failed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Records that the header of a request is complete. The request lasts until the returned
    /// exchange is dropped.
    pub(super) fn begin(&self) -> Exchange {
        let mut state = self.state();
        state.started += 1;
        state.header_since = None;
        state.header.reset();
        let number = state.started;
        state.open.insert(number, Instant::now());
        Exchange { progress: self.clone(), number, is_answered: false }
    }

    fn end(&self, number: u64, is_answered: bool) {
        let mut state = self.state();
        state.open.remove(&number);
        state.idle_since = Instant::now();
        if !is_answered {
            state.cancelled += 1;
            if state.has_cancelled_too_many() {
                self.0.has_failed.notify_one();
            }
        }
    }

    /// Resolves with the reason once the client has left something unfinished for too long.
    pub(super) async fn timed_out(&self) -> ConnectionRefusal {
        loop {
            let (deadline, reason) = self.state().deadline();
            if deadline <= Instant::now() {
                return reason;
            }
            tokio::select! {
                () = sleep_until(deadline) => {}
                () = self.0.has_failed.notified() => {}
            }
        }
    }
}

impl ReadHook for Progress {
    fn on_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        let is_http2 = *state
            .is_http2
            .get_or_insert_with(|| PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]));
        if !is_http2 && state.open.is_empty() && state.header_since.is_none() {
            state.header_since = Some(Instant::now());
        }
        // From its request on, a header is charged as a part of that.
        if !is_http2 && state.open.is_empty() && !state.header.grow(bytes.len()) {
            state.is_out_of_memory = true;
            self.0.has_failed.notify_one();
        }
    }
}

impl State {
    fn has_cancelled_too_many(&self) -> bool {
        self.cancelled >= MAX_CANCELLED_REQUESTS && self.cancelled * 2 > self.started
    }

    /// The moment at which the connection times out if nothing changes, and the reason.
    fn deadline(&self) -> (Instant, ConnectionRefusal) {
        if self.is_out_of_memory {
            return (self.idle_since, ConnectionRefusal::Memory);
        }
        if self.has_cancelled_too_many() {
            return (self.idle_since, ConnectionRefusal::CancelledRequests);
        }
        if let Some((_, start)) = self.open.first_key_value() {
            return (*start + EXCHANGE_TIMEOUT, ConnectionRefusal::SlowExchange);
        }
        match (self.header_since, self.is_http2) {
            (Some(since), _) => (since + HEADER_READ_TIMEOUT, ConnectionRefusal::SlowHeader),
            (None, None) => (self.idle_since + HEADER_READ_TIMEOUT, ConnectionRefusal::SlowHeader),
            (None, Some(_)) => (self.idle_since + IDLE_TIMEOUT, ConnectionRefusal::Idle),
        }
    }
}

/// A request in flight, from its complete header to the last byte of the response.
pub(super) struct Exchange {
    progress: Progress,
    number: u64,
    is_answered: bool,
}

impl Exchange {
    /// Records that there is a response, whose body is still to be sent.
    pub(super) fn answered<B>(mut self, body: B) -> ExchangeBody<B> {
        self.is_answered = true;
        ExchangeBody { body, _exchange: self }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.progress.end(self.number, self.is_answered);
    }
}

/// The body of a response, whose end completes the exchange.
pub(super) struct ExchangeBody<B> {
    body: B,
    _exchange: Exchange,
}

impl<D: Buf, B: Body<Data = D> + Unpin> Body for ExchangeBody<B> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use http2_server::MemoryLimits;

    use crate::app::http_memory::HttpMemory;
    use crate::plane::Plane;

    fn progress() -> Progress {
        let limits = MemoryLimits { connection: 1_000, guaranteed: 100, process: 400 };
        Progress::new(&Arc::new(HttpMemory::new(limits, Default::default())).connection(Plane::Public))
    }

    /// The reason for which the connection times out, and in how many seconds.
    fn timeout(progress: &Progress) -> (ConnectionRefusal, u64) {
        let (at, reason) = progress.state().deadline();
        // Less than a second has passed since the test began.
        (reason, (at + Duration::from_millis(999)).saturating_duration_since(Instant::now()).as_secs())
    }

    #[test]
    fn each_kind_of_slowness_has_its_time() {
        let silent = progress();
        assert_eq!(timeout(&silent), (ConnectionRefusal::SlowHeader, HEADER_READ_TIMEOUT.as_secs()));

        let mut slow_header = progress();
        slow_header.on_read(b"GET / HT");
        let since = slow_header.state().header_since;
        slow_header.on_read(b"TP");
        assert_eq!(slow_header.state().header_since, since, "more bytes don't restart the timeout");
        assert_eq!(timeout(&slow_header), (ConnectionRefusal::SlowHeader, HEADER_READ_TIMEOUT.as_secs()));

        for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut progress = progress();
            progress.on_read(first);
            let (exchange, second) = (progress.begin(), progress.begin());
            assert_eq!(timeout(&progress), (ConnectionRefusal::SlowExchange, EXCHANGE_TIMEOUT.as_secs()));
            drop(exchange.answered(()));
            assert_eq!(timeout(&progress), (ConnectionRefusal::SlowExchange, EXCHANGE_TIMEOUT.as_secs()));
            drop(second.answered(()));
            assert_eq!(timeout(&progress), (ConnectionRefusal::Idle, IDLE_TIMEOUT.as_secs()));
        }
        // Windows and pings come to an HTTP/2 connection without a request.
        let mut idle = progress();
        idle.on_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        idle.on_read(b"\0\0\0\0\0\0\0\0\0");
        assert_eq!(timeout(&idle), (ConnectionRefusal::Idle, IDLE_TIMEOUT.as_secs()));
    }

    #[tokio::test]
    async fn a_header_that_finds_no_room_ends_the_connection() {
        let mut progress = progress();
        for _ in 0..2 {
            progress.on_read(&[b'a'; 200]);
            assert_eq!(timeout(&progress).0, ConnectionRefusal::SlowHeader);
            // With a request its bytes are counted as that.
            drop(progress.begin().answered(()));
        }
        progress.on_read(&[b'a'; 150]);
        progress.on_read(&[b'a'; 51]);
        assert_eq!(progress.timed_out().await, ConnectionRefusal::Memory);
    }

    #[tokio::test]
    async fn a_client_that_cancels_most_requests_is_disconnected() {
        let progress = progress();
        for _ in 0..MAX_CANCELLED_REQUESTS {
            drop(progress.begin().answered(()));
        }
        for _ in 0..MAX_CANCELLED_REQUESTS {
            drop(progress.begin());
        }
        assert_eq!(progress.state().deadline().1, ConnectionRefusal::SlowHeader, "as many as were answered");
        drop(progress.begin());
        assert_eq!(progress.timed_out().await, ConnectionRefusal::CancelledRequests);
    }
}
