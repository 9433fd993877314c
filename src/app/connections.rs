//! Serves the connections of an HTTP plane, and drains them when the process stops.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Acceptor, Connection};
use super::http_memory::{ConnectionMemory, HttpMemory};
use super::limits::{
    CLOSE_TIMEOUT, DRAIN_TIMEOUT, HTTP2_CONNECTION_WINDOW, HTTP2_STREAM_WINDOW, IDLE_CLOSE_TIMEOUT,
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE,
};
use super::progress::Progress;
use super::stream::HookedStream;
use crate::telemetry::connections::ConnectionRefusal;

/// Serves a listener until `stop`, then waits for requests in flight.
pub(super) async fn serve<H, F>(
    acceptor: Acceptor,
    memory: Arc<HttpMemory>,
    stop: CancellationToken,
    handle: H,
) where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let builder = Arc::new(builder());
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = acceptor.accept() => accepted,
        };
        let (handle, builder, stop) = (handle.clone(), Arc::clone(&builder), stop.clone());
        let memory = memory.connection(acceptor.plane());
        connections.spawn(async move {
            let connection = tokio::select! {
                () = stop.cancelled() => None,
                connection = accepted.handshake() => connection,
            };
            if let Some(connection) = connection {
                serve_connection(connection, memory, &builder, &stop, handle).await;
            }
        });
    }
    let plane = acceptor.plane().name();
    drop(acceptor);
    connections.close();
    if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        let open = connections.len();
        tracing::warn!(plane, open, "connections were still open at the end of the drain; closing them");
    }
}

/// Serves a connection until it is over: after a timeout, or when the process stops, it is shut
/// down gracefully, and closed after a further time.
async fn serve_connection<H, F>(
    connection: Connection,
    memory: Arc<ConnectionMemory>,
    builder: &Builder<TokioExecutor>,
    stop: &CancellationToken,
    handle: H,
) where
    H: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Connection { stream, peer, guard } = connection;
    let progress = Progress::new(&memory);
    let service = {
        let progress = progress.clone();
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let exchange = progress.begin();
            let admitted = memory.admit(request).map(|(request, admitted)| (handle(request), admitted));
            let memory = Arc::clone(&memory);
            async move {
                let response = match admitted {
                    Some((response, admitted)) => admitted.respond(response.await),
                    None => memory.refuse(),
                };
                Ok::<_, Infallible>(response.map(|body| exchange.answered(body)))
            }
        })
    };
    let stream = TokioIo::new(HookedStream::new(stream, progress.clone()));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let (mut is_shutting_down, mut has_timed_out) = (false, false);
    // Set once the client has to close the connection.
    let mut close_deadline = pin!(sleep(Duration::MAX));
    loop {
        tokio::select! {
            // An error is the client's: the connection is over in either case.
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if !is_shutting_down => {
                is_shutting_down = true;
                connection.as_mut().graceful_shutdown();
            }
            reason = progress.timed_out(), if !has_timed_out => {
                guard.count_refused(reason);
                has_timed_out = true;
                is_shutting_down = true;
                connection.as_mut().graceful_shutdown();
                let timeout = match reason {
                    ConnectionRefusal::Idle => IDLE_CLOSE_TIMEOUT,
                    _ => CLOSE_TIMEOUT,
                };
                close_deadline.as_mut().reset(Instant::now() + timeout);
            }
            () = close_deadline.as_mut() => return,
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // `Progress` has the read timeout: hyper's would also end idle connections.
    builder.http1().header_read_timeout(None).max_buf_size(MAX_HEADER_LIST_SIZE as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST_SIZE);
    builder
}
