//! A WebSocket, as far as proxies see one: the handshake of each HTTP version, then bytes in both
//! directions.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::http::{Base, Version};
use crate::rig::support::{Must, within};

/// Opens one; returns the status, and what came back for the bytes that were sent if it was opened.
pub async fn echo(
    base: Base,
    version: Version,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, Option<Vec<u8>>) {
    within("a WebSocket", open(base, version, path, headers)).await
}

async fn open(base: Base, version: Version, path: &str, headers: &[(&str, &str)]) -> (u16, Option<Vec<u8>>) {
    let stream = TokioIo::new(TcpStream::connect(base.0).await.must("connecting"));
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request = request.header("sec-websocket-version", "13");
    let response = match version {
        Version::Http1 => {
            let (mut sender, connection) = http1::handshake(stream).await.must("HTTP/1.1");
            tokio::spawn(connection.with_upgrades());
            let request = request
                .uri(path)
                .header("host", base.0.to_string())
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            sender.send_request(request.body(Empty::<Bytes>::new()).must("a request")).await.must("an answer")
        }
        Version::Http2 => {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.must("HTTP/2");
            tokio::spawn(connection);
            // The server says first that it knows this kind of CONNECT.
            let ready = Request::get(base.url("/anonymous")).body(Empty::<Bytes>::new()).must("a request");
            let ready = sender.send_request(ready).await.must("an answer");
            let _ = ready.into_body().collect().await;
            let mut request = request
                .method(Method::CONNECT)
                .uri(base.url(path))
                .body(Empty::<Bytes>::new())
                .must("a request");
            request.extensions_mut().insert(Protocol::from_static("websocket"));
            sender.send_request(request).await.must("an answer")
        }
    };
    let status = response.status().as_u16();
    let is_open = status == if version == Version::Http1 { 101 } else { 200 };
    if !is_open {
        return (status, None);
    }
    let mut socket = TokioIo::new(hyper::upgrade::on(response).await.must("an upgraded connection"));
    socket.write_all(b"ping").await.must("sending");
    let mut got = vec![0; 4];
    socket.read_exact(&mut got).await.must("receiving");
    (status, Some(got))
}
