//! Connections of one listener: accepted within bounds, served, drained.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio_util::sync::CancellationToken;

use super::accept::{Acceptor, Connection};
use super::bounds::{DRAIN, HEADER_TIMEOUT, KEEPALIVE, MAX_HEADERS, MAX_STREAMS};

/// Serves a listener until `stop`, then lets what is under way end.
pub async fn serve<H, F, B>(acceptor: Acceptor, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = Arc::new(builder());
    let graceful = GracefulShutdown::new();
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => break,
            incoming = acceptor.accept() => incoming,
        };
        let (handle, builder, watcher) = (handle.clone(), Arc::clone(&builder), graceful.watcher());
        let stop = stop.clone();
        tokio::spawn(async move {
            let opened = tokio::select! {
                () = stop.cancelled() => None,
                opened = incoming.open() => opened,
            };
            let Some(Connection { stream, peer, place }) = opened else {
                return;
            };
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                let answer = handle(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            // How a connection ends is its client's business.
            let _ = watcher.watch(connection).await;
            drop(place);
        });
    }
    drop(acceptor);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still busy when the time to drain was over");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS);
    builder
}
