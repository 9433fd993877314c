//! Memory that requests to the HTTP planes hold: limited for a connection and for the process.
//!
//! A request is charged for its header, for what was read of its body, and for its response until
//! the client has taken it. One that finds no room is answered with 503 and costs nothing more.
//! Each connection has a guaranteed part, so that health checks are answered whatever others do.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body as _, Frame, SizeHint};
use http2_server::{MemoryLimits, MemoryPool};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::limits::HTTP2_STREAM_WINDOW;
use crate::error::{ApiError, Reason};
use crate::http::MemoryExhausted;
use crate::plane::Plane;
use crate::telemetry::refused_requests::{RefusedRequests, RequestRefusal};

/// Memory of a request beside its bytes: its task, its stream, its route. In bytes.
const REQUEST_COST: usize = 8 * 1024;
/// Memory of a header field beside its bytes.
const FIELD_COST: usize = 64;
/// Most that a response is charged, in bytes. Only long lists for callers of the admin plane are
/// larger, and what they hold must not keep anybody from reading them.
const MAX_RESPONSE_CHARGE: u64 = 4 * 1024 * 1024;
/// Copies of a body that are made while it is read and parsed.
const BODY_COPIES: usize = 2;

/// Memory that all connections to the HTTP planes share.
pub(super) struct HttpMemory {
    pool: MemoryPool,
    refused: RefusedRequests,
}

impl HttpMemory {
    /// Creates a pool of which nothing is used.
    pub(super) fn new(limits: MemoryLimits, refused: RefusedRequests) -> Self {
        Self { pool: MemoryPool::new(limits), refused }
    }

    /// The account of a new connection to `plane`.
    pub(super) fn connection(self: &Arc<Self>, plane: Plane) -> Arc<ConnectionMemory> {
        Arc::new(ConnectionMemory { process: Arc::clone(self), plane, used: Mutex::default() })
    }
}

/// Memory of one connection, whose requests may run on several threads.
pub(super) struct ConnectionMemory {
    process: Arc<HttpMemory>,
    plane: Plane,
    /// Bytes that are charged.
    used: Mutex<usize>,
}

impl ConnectionMemory {
    fn grow(&self, bytes: usize) -> bool {
        let mut used = self.used.lock();
        let wanted = used.saturating_add(bytes);
        let has_room = self.process.pool.grow(*used, wanted);
        if has_room {
            *used = wanted;
        }
        has_room
    }

    fn shrink(&self, bytes: usize) {
        *self.used.lock() -= bytes;
        self.process.pool.shrink(bytes);
    }

    /// Charges a request. None when there is no room for it.
    pub(super) fn admit(self: &Arc<Self>, request: Request<Incoming>) -> Option<(Request<Body>, Admitted)> {
        let is_http2 = request.version() == Version::HTTP_2;
        let prepaid = window_of(request.body());
        let charge = Arc::new(Charge::new(self, header_size(&request) + prepaid)?);
        let paid = Arc::clone(&charge);
        let request = request.map(|body| Body::new(CountedBody { body, prepaid, charge: paid }));
        Some((request, Admitted { charge, is_http2 }))
    }

    /// The response to a request that finds no room.
    pub(super) fn refuse(&self) -> Response<ChargedBody> {
        self.process.refused.count(self.plane, RequestRefusal::Memory);
        let problem = "too much is asked for at once; try again later";
        let mut response = ApiError::new(Reason::ServiceUnavailable, problem).into_response();
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response.map(|body| ChargedBody { body, last: None, is_http2: false, _charge: None })
    }
}

/// A request that is charged.
pub(super) struct Admitted {
    charge: Arc<Charge>,
    is_http2: bool,
}

impl Admitted {
    /// Charges the response to it, which is another one when there is no room for it.
    pub(super) fn respond(self, response: Response<Body>) -> Response<ChargedBody> {
        let Self { charge, is_http2 } = self;
        let hint = response.body().size_hint();
        let size = hint.upper().unwrap_or(hint.lower()).min(MAX_RESPONSE_CHARGE);
        match charge.grow(usize::try_from(size).unwrap_or(usize::MAX)) {
            true => response.map(|body| ChargedBody { body, last: None, is_http2, _charge: Some(charge) }),
            false => charge.connection.refuse(),
        }
    }
}

/// Memory of a request's header, and what the request takes in any case.
fn header_size(request: &Request<Incoming>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_COST);
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    REQUEST_COST + target + fields.sum::<usize>()
}

/// Bytes of a body that may come before anybody reads them.
fn window_of(body: &Incoming) -> usize {
    let window = u64::from(HTTP2_STREAM_WINDOW);
    let bytes = if body.is_end_stream() { 0 } else { body.size_hint().upper().unwrap_or(window).min(window) };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The charge for a request, given back when it is dropped.
struct Charge {
    connection: Arc<ConnectionMemory>,
    bytes: AtomicUsize,
}

impl Charge {
    /// Charges so many bytes; None when there is no room for them.
    fn new(connection: &Arc<ConnectionMemory>, bytes: usize) -> Option<Self> {
        let charge = Self { connection: Arc::clone(connection), bytes: AtomicUsize::new(0) };
        charge.grow(bytes).then_some(charge)
    }

    fn grow(&self, bytes: usize) -> bool {
        let has_room = self.connection.grow(bytes);
        if has_room {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        has_room
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.connection.shrink(*self.bytes.get_mut());
    }
}

/// The charge for the bytes of an incomplete header.
pub(super) struct HeaderCharge {
    connection: Arc<ConnectionMemory>,
    bytes: usize,
}

impl HeaderCharge {
    /// Charges nothing yet.
    pub(super) fn new(connection: &Arc<ConnectionMemory>) -> Self {
        Self { connection: Arc::clone(connection), bytes: 0 }
    }

    /// Charges more; false when there is no room for it.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let has_room = self.connection.grow(bytes);
        self.bytes += if has_room { bytes } else { 0 };
        has_room
    }

    /// Gives everything back.
    pub(super) fn reset(&mut self) {
        self.connection.shrink(std::mem::take(&mut self.bytes));
    }
}

impl Drop for HeaderCharge {
    fn drop(&mut self) {
        self.reset();
    }
}

/// A request's body, charged as it is read.
struct CountedBody {
    body: Incoming,
    /// Bytes that are charged already.
    prepaid: usize,
    charge: Arc<Charge>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        let bytes = frame.data_ref().map_or(0, Bytes::len) * BODY_COPIES;
        let prepaid = bytes.min(self.prepaid);
        self.prepaid -= prepaid;
        Poll::Ready(Some(match self.charge.grow(bytes - prepaid) {
            true => Ok(frame),
            false => Err(MemoryExhausted.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body, charged until the client has taken it.
///
/// hyper hands a body to HTTP/2 as soon as the client's window has room for a byte of it. So over
/// HTTP/2 the last byte follows by itself: it is asked for once all before it is on its way.
pub(super) struct ChargedBody {
    body: Body,
    last: Option<Bytes>,
    is_http2: bool,
    _charge: Option<Arc<Charge>>,
}

impl http_body::Body for ChargedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(last) = self.last.take() {
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(mut data) => {
                    if self.is_http2 && data.len() > 1 {
                        self.last = Some(data.split_off(data.len() - 1));
                    }
                    Frame::data(data)
                }
                Err(frame) => frame,
            })),
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        match (hint.exact(), &self.last) {
            (Some(exact), Some(last)) => SizeHint::with_exact(exact + last.len() as u64),
            _ => hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    const LIMITS: MemoryLimits = MemoryLimits { connection: 1_000, guaranteed: 100, process: 3_000 };

    fn pool() -> Arc<HttpMemory> {
        Arc::new(HttpMemory::new(LIMITS, RefusedRequests::default()))
    }

    #[test]
    fn a_connection_gets_its_limit_and_everybody_the_guaranteed_part() {
        let pool = pool();
        let connections: Vec<_> = (0..10).map(|_| pool.connection(Plane::Public)).collect();
        let charges: Vec<Charge> =
            connections.iter().filter_map(|connection| Charge::new(connection, 1_000)).collect();
        assert_eq!(charges.len(), 2, "as much as is left for all others, at most");
        assert!(!charges[0].grow(1), "a connection's own limit");
        let newcomer = pool.connection(Plane::Public);
        let guaranteed = Charge::new(&newcomer, 100).expect("what is guaranteed");
        assert!(guaranteed.grow(400) && !guaranteed.grow(1), "half of what is left");
        drop((charges, guaranteed));
        assert_eq!(pool.pool.used(), 0);
    }

    proptest! {
        #[test]
        fn the_sum_is_right_whatever_is_charged_and_given_back(
            steps in prop::collection::vec((0_usize..5, 0_usize..400, any::<bool>()), 0..200),
        ) {
            let pool = pool();
            let connections: Vec<_> = (0..5).map(|_| pool.connection(Plane::Admin)).collect();
            let mut charges: Vec<Charge> = vec![];
            for (connection, bytes, gives_back) in steps {
                match gives_back && !charges.is_empty() {
                    true => drop(charges.remove(bytes % charges.len())),
                    false => charges.extend(Charge::new(&connections[connection], bytes)),
                }
                let used: Vec<usize> = connections.iter().map(|connection| *connection.used.lock()).collect();
                prop_assert_eq!(pool.pool.used(), used.iter().sum::<usize>());
                prop_assert!(pool.pool.used() <= LIMITS.process + 5 * LIMITS.guaranteed);
                prop_assert!(used.iter().all(|used| *used <= LIMITS.connection));
            }
        }
    }

    #[tokio::test]
    async fn over_http2_the_last_byte_comes_by_itself_and_the_length_stays_right() {
        for (is_http2, parts) in [(false, vec![5]), (true, vec![4, 1])] {
            let mut body = ChargedBody { body: Body::from("12345"), last: None, is_http2, _charge: None };
            let mut left = 5;
            for part in parts {
                assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(left), false));
                let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
                assert_eq!(frame.unwrap().unwrap().into_data().unwrap().len() as u64, part);
                left -= part;
            }
            assert!(body.is_end_stream());
        }
        assert!(
            ChargedBody { body: Body::empty(), last: None, is_http2: true, _charge: None }.is_end_stream()
        );
    }
}
