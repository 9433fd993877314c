//! A WebSocket, as far as proxies see one: the handshake of each HTTP version, then bytes in both
//! directions.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::{HeaderMap, Method, Request, Response};
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
    within("a WebSocket", async {
        let response = handshake(base, version, path, headers).await;
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
    })
    .await
}

/// Opens one; returns the status and the headers of the answer.
pub async fn negotiate(
    base: Base,
    version: Version,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap) {
    let (head, _) = within("a WebSocket", handshake(base, version, path, headers)).await.into_parts();
    (head.status.as_u16(), head.headers)
}

/// Opens a tunnel with `CONNECT` and credentials for the proxy; returns the status.
pub async fn tunnel(base: Base, credentials: &str) -> u16 {
    let request =
        format!("CONNECT edge:443 HTTP/1.1\r\nhost: edge:443\r\nproxy-authorization: {credentials}\r\n\r\n");
    within("a tunnel", async {
        let mut stream = TcpStream::connect(base.0).await.must("connecting");
        stream.write_all(request.as_bytes()).await.must("sending");
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.must("a status line");
        String::from_utf8_lossy(&head[9..]).parse().must("a status")
    })
    .await
}

async fn handshake(base: Base, version: Version, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let stream = TokioIo::new(TcpStream::connect(base.0).await.must("connecting"));
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request = request.header("sec-websocket-version", "13");
    match version {
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
    }
}
