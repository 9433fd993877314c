//! Connections of one listener: accepted within bounds, served, drained.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::listeners::{Connection, Listener};
use crate::http::Peer;

/// Most connections of one listener; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a client may take to send the head of a request, or leave a connection idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a silent HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Most streams of one HTTP/2 connection at once: Envoy sends all Checks of a worker over one.
const MAX_STREAMS: u32 = 1_024;
/// Most Checks that Envoy has given up before we read them. More, and the connection is closed, with all that is in
/// flight on it: after a moment in which the machine gave us no time, that would make it worse. Browsers and other
/// strangers reach the other planes only.
const MAX_CANCELLED: usize = 10_240;
/// Largest head of a request, in bytes.
const MAX_HEADERS: u32 = 64 * 1024;
/// How long to wait after accepting failed, as it does when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long what is under way may take once we are told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Which protocols a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 by prior knowledge.
    Http,
    /// HTTP/2 alone, as gRPC needs it.
    Http2,
}

/// Serves a listener until `stop`, then lets what is under way end.
pub async fn serve<H, F, B>(listener: Listener, protocol: Protocol, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = Arc::new(builder(protocol));
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            // The semaphore is never closed; were it, nothing more would be accepted.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, connection) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let (stream, peer): (Box<dyn Stream>, _) = match connection {
            Ok(Connection::Tcp(stream, peer)) => (Box::new(stream), Some(peer)),
            Ok(Connection::Unix(stream)) => (Box::new(stream), None),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let handle = handle.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let answer = handle(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // How a connection ends is its client's business.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still busy when the time to drain was over");
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

fn builder(protocol: Protocol) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS);
    match protocol {
        Protocol::Http => builder,
        Protocol::Http2 => {
            builder.http2().max_pending_accept_reset_streams(MAX_CANCELLED);
            builder.http2_only()
        }
    }
}
