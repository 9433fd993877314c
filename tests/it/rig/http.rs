//! A small HTTP client: one connection a request, HTTP/1.1 or HTTP/2 with prior knowledge, and raw
//! bytes for odd cases.

use std::future::ready;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::rig::support::{Json, Must, TIMEOUT, within};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http1,
    Http2,
}

pub const BOTH: [Version; 2] = [Version::Http1, Version::Http2];

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    pub path: String,
    headers: Vec<(String, Bytes)>,
    body: Bytes,
    /// Trailers, sent after the body.
    trailers: HeaderMap,
    /// The address to connect from, if a test needs one.
    source: Option<IpAddr>,
}

impl Call {
    pub fn new(method: &str, path: &str) -> Call {
        let method = method.parse().must("an HTTP method");
        Call {
            method,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            trailers: HeaderMap::new(),
            source: None,
        }
    }

    pub fn get(path: &str) -> Call {
        Call::new("GET", path)
    }

    pub fn post(path: &str) -> Call {
        Call::new("POST", path)
    }

    pub fn header(self, name: &str, value: &str) -> Call {
        self.header_bytes(name, value.as_bytes())
    }

    /// Adds a header whose value isn't text.
    pub fn header_bytes(mut self, name: &str, value: &[u8]) -> Call {
        self.headers.push((name.to_owned(), Bytes::copy_from_slice(value)));
        self
    }

    /// Adds a trailer. Over HTTP/1.1 a request with trailers needs a body.
    pub fn trailer(mut self, name: &str, value: &str) -> Call {
        let name: HeaderName = name.parse().must("the name of a trailer");
        self.trailers.append(name, value.parse().must("the value of a trailer"));
        self
    }

    pub fn bearer(self, credential: &str) -> Call {
        self.header("authorization", &format!("Bearer {credential}"))
    }

    pub fn api_key(self, credential: &str) -> Call {
        self.header("x-api-key", credential)
    }

    /// Sends the request from another address of loopback.
    pub fn from(mut self, address: &str) -> Call {
        self.source = Some(address.parse().must("an address"));
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Call {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    pub fn json(self, body: &Value) -> Call {
        self.body("application/json", body.to_string())
    }
}

/// A listener to send requests to.
#[derive(Clone, Copy, Debug)]
pub struct Base(pub SocketAddr);

impl Base {
    pub fn local(port: u16) -> Base {
        Base(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Version::Http1, Call::get(path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Version::Http1, Call::post(path).json(body)).await
    }

    pub async fn send(&self, version: Version, call: Call) -> Reply {
        let what = format!("{} {}{} over {version:?}", call.method, self.0, call.path);
        self.try_send(version, call).await.must(&what)
    }

    /// Sends a request; an error when no whole answer came back.
    pub async fn try_send(&self, version: Version, call: Call) -> Result<Reply, String> {
        let exchange = self.exchange(version, call);
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn exchange(&self, version: Version, call: Call) -> Result<Reply, String> {
        let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
        if let Some(source) = call.source {
            socket.bind((source, 0).into()).map_err(|error| error.to_string())?;
        }
        let stream = socket.connect(self.0).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        self.exchange_over(stream, version, call).await
    }

    /// Sends one request over an open connection of any kind.
    pub async fn exchange_over<S>(&self, stream: S, version: Version, call: Call) -> Result<Reply, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = match version {
            // The authority is the target of a CONNECT.
            Version::Http1 if call.method == Method::CONNECT => Request::builder().uri(self.0.to_string()),
            Version::Http1 => Request::builder().uri(&call.path),
            Version::Http2 => Request::builder().uri(self.url(&call.path)),
        };
        let names_host = call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        if version == Version::Http1 && !names_host {
            request = request.header(HOST, self.0.to_string());
        }
        request = request.method(call.method);
        for (name, value) in &call.headers {
            request = request.header(name, &value[..]);
        }
        if version == Version::Http1 && !call.trailers.is_empty() {
            let names: Vec<&str> = call.trailers.keys().map(HeaderName::as_str).collect();
            request = request.header(TRAILER, names.join(", ")).header(TRANSFER_ENCODING, "chunked");
        }
        let body = match call.trailers.is_empty() {
            true => Either::Left(Full::new(call.body)),
            false => Either::Right(Full::new(call.body).with_trailers(ready(Some(Ok(call.trailers))))),
        };
        let request = request.body(body).map_err(|error| error.to_string())?;
        let stream = TokioIo::new(stream);
        let response = match version {
            Version::Http1 => {
                let (mut sender, connection) =
                    http1::handshake(stream).await.map_err(|error| error.to_string())?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
            Version::Http2 => {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                    .await
                    .map_err(|error| error.to_string())?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        };
        let (head, body) = response.map_err(|error| format!("{error:?}"))?.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// Sends bytes over HTTP/1.1 and reads until the other side closes: the request should say
    /// `connection: close`.
    pub async fn raw(&self, request: &[u8]) -> Raw {
        let mut stream = TcpStream::connect(self.0).await.must("connecting");
        let (mut reader, mut writer) = stream.split();
        let mut answer = Vec::new();
        // A server may answer and close before it has read everything: then the write fails, and
        // what it said is still to be read.
        let both = async { tokio::join!(writer.write_all(request), reader.read_to_end(&mut answer)) };
        let (written, read) = within("a raw request", both).await;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.must(&format!("an HTTP answer (write: {written:?}, read: {read:?}, got {answer:?})"));
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        Raw { head, body: answer[end + 4..].to_vec() }
    }
}

/// An answer of which every byte counts.
#[derive(Debug)]
pub struct Raw {
    pub head: String,
    pub body: Vec<u8>,
}

impl Raw {
    #[track_caller]
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).must("a status line").parse().must("a status")
    }

    /// The answer without its `date`.
    pub fn undated(&self) -> (String, String) {
        let is_own = |line: &&str| {
            let line = line.to_ascii_lowercase();
            line.starts_with("date:") || line.starts_with("x-request-id:")
        };
        let lines = self.head.lines().filter(|line| !is_own(line));
        let body = without_request_id(&String::from_utf8_lossy(&self.body));
        (lines.collect::<Vec<_>>().join("\n"), body)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).must("a JSON body")
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Removes the id of the request from a body, as it differs each time.
fn without_request_id(body: &str) -> String {
    match body.split_once("\"request_id\":\"") {
        Some((before, rest)) => format!("{before}{}", rest.split_once('"').map_or("", |(_, after)| after)),
        None => body.to_owned(),
    }
}

impl Reply {
    /// The body without the id of its request.
    pub fn text_without_id(&self) -> String {
        without_request_id(&self.text())
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "headers {:?}, body {}", self.headers, self.text());
        self
    }

    /// Asserts the error envelope of AIP-193 with this status and reason; returns its message.
    #[track_caller]
    pub fn expect_error(self, status: u16, reason: &str) -> String {
        let error = self.expect(status).json();
        assert_eq!(error.text("/error/details/0/reason"), reason, "{error:#}");
        assert_envelope(&error, status);
        error.text("/error/message").to_owned()
    }

    /// Asserts a 400 in the error envelope, whatever its reason; returns its message.
    #[track_caller]
    pub fn expect_bad_request(self) -> String {
        let error = self.expect(400).json();
        assert_envelope(&error, 400);
        error.text("/error/message").to_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        serde_json::from_slice(&self.body).must("a JSON body")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().must(name))
    }
}

/// The form that every error has (AIP-193).
#[track_caller]
pub fn assert_envelope(document: &Value, status: u16) {
    let names: &[&str] = match status {
        400 => &["INVALID_ARGUMENT"],
        401 => &["UNAUTHENTICATED"],
        403 => &["PERMISSION_DENIED"],
        404 => &["NOT_FOUND"],
        409 => &["ALREADY_EXISTS", "FAILED_PRECONDITION"],
        500 => &["INTERNAL"],
        503 => &["UNAVAILABLE"],
        _ => &[],
    };
    let name = document.text("/error/status");
    assert!(names.is_empty() || names.contains(&name), "{name} for {status}");
    assert_eq!(document.at("/error/code"), status, "{document:#}");
    assert!(!document.text("/error/message").is_empty(), "{document:#}");
    assert_eq!(document.text("/error/details/0/@type"), "type.googleapis.com/google.rpc.ErrorInfo");
    assert_eq!(document.text("/error/details/0/domain"), "www.ory.com/talos");
    assert!(!document.text("/error/details/0/reason").is_empty(), "{document:#}");
}
