//! Connections of one listener: accepted within bounds, served, drained.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::accept::{Acceptor, Connection};
use super::bounds::{DRAIN, GOODBYE, KEEPALIVE, LAST_WORDS, MAX_HEADERS, MAX_HTTP_STREAMS};
use super::pace::{Pace, Paced};
use crate::telemetry::connections::Refused;

/// Serves a listener until `stop`, then lets what is under way end.
pub async fn serve<H, F, B>(acceptor: Acceptor, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = Arc::new(builder());
    // Whoever serves a connection holds one end: the other tells when nobody does any more.
    let (busy, mut all_done) = mpsc::channel::<()>(1);
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => break,
            incoming = acceptor.accept() => incoming,
        };
        let (handle, builder, stop, busy) =
            (handle.clone(), Arc::clone(&builder), stop.clone(), busy.clone());
        tokio::spawn(async move {
            let opened = tokio::select! {
                () = stop.cancelled() => None,
                opened = incoming.open() => opened,
            };
            if let Some(connection) = opened {
                serve_one(connection, &builder, &stop, handle).await;
            }
            drop(busy);
        });
    }
    drop((acceptor, busy));
    if tokio::time::timeout(DRAIN, all_done.recv()).await.is_err() {
        tracing::warn!("connections were still busy when the time to drain was over");
    }
}

async fn serve_one<H, F, B>(
    connection: Connection,
    builder: &Builder<TokioExecutor>,
    stop: &CancellationToken,
    handle: H,
) where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Connection { stream, peer, place } = connection;
    let pace = Pace::new();
    let service = {
        let pace = pace.clone();
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let exchange = pace.begin();
            let answer = handle(request);
            async move { Ok::<_, Infallible>(answer.await.map(|body| exchange.answered(body))) }
        })
    };
    let stream = TokioIo::new(Paced::new(stream, pace.clone()));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let (mut told_to_end, mut watched) = (false, true);
    // Set once the client is to end the connection by itself, for want of requests.
    let mut goodbye = pin!(sleep(Duration::MAX));
    loop {
        tokio::select! {
            // How a connection ends is its client's business.
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if !told_to_end => {
                told_to_end = true;
                connection.as_mut().graceful_shutdown();
            }
            why = pace.overdue(), if watched => {
                place.refused(why);
                watched = false;
                told_to_end = true;
                connection.as_mut().graceful_shutdown();
                goodbye.as_mut().reset(Instant::now() + if why == Refused::Idle { GOODBYE } else { LAST_WORDS });
            }
            () = goodbye.as_mut() => return,
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The pace of a connection is watched by ourselves: an idle one isn't a slow one.
    builder.http1().header_read_timeout(None).max_buf_size(MAX_HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(MAX_HTTP_STREAMS)
        .max_header_list_size(MAX_HEADERS);
    builder
}
