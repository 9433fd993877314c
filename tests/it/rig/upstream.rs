//! The upstream behind Envoy: a server that records each request and answers with its contents.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::rig::http::Reply;
use crate::rig::support::{Json, Must};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

impl Received {
    /// Reads the request that the upstream describes in its answer.
    #[track_caller]
    pub fn from_reply(reply: &Reply) -> Received {
        Received::from_json(&reply.json())
    }

    #[track_caller]
    pub fn from_json(echo: &Value) -> Received {
        let header = |pair: &Value| (pair.text("/0").to_owned(), pair.text("/1").to_owned());
        let headers = |pointer: &str| -> Vec<(String, String)> {
            echo.at(pointer).as_array().must("a list of headers").iter().map(header).collect()
        };
        Received {
            method: echo.text("/method").to_owned(),
            path: echo.text("/path").to_owned(),
            headers: headers("/headers"),
            body: echo.text("/body").to_owned(),
            trailers: headers("/trailers"),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All headers and trailers that a careless server would take for one of ours, in order.
    pub fn identity(&self) -> Vec<(&str, &str)> {
        let all = self.headers.iter().chain(&self.trailers);
        let ours = all.filter(|(name, _)| {
            name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").starts_with("x-talos-")
        });
        let mut ours: Vec<(&str, &str)> = ours.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        ours.sort_unstable();
        ours
    }

    /// Fails if a secret stands anywhere in the request.
    #[track_caller]
    pub fn assert_without(&self, secret: &str) {
        let all =
            format!("{} {} {:?} {} {:?}", self.method, self.path, self.headers, self.body, self.trailers);
        assert!(!all.contains(secret), "the credential reached the upstream: {all}");
    }

    /// Returns the token that came with the request.
    #[track_caller]
    pub fn token(&self) -> &str {
        let value = self.header("authorization").must("an authorization header at the upstream");
        value.strip_prefix("Bearer ").must("a bearer token at the upstream")
    }
}

pub struct Upstream {
    pub port: u16,
    seen: Arc<Mutex<Vec<Received>>>,
    server: JoinHandle<()>,
}

impl Upstream {
    pub async fn start() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.must("binding the upstream");
        let port = listener.local_addr().must("the upstream's address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = tokio::spawn(serve(listener, Arc::clone(&seen)));
        Upstream { port, seen, server }
    }

    /// Returns the requests that arrived since the last call.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.seen.lock().must("the upstream's record"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<Received>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
            let server = auto::Builder::new(TokioExecutor::new());
            // An error here is a connection that Envoy gave up: no request of a test hangs on it.
            let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Received>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().get("upgrade").is_some_and(|upgrade| upgrade == "websocket") {
        return Ok(upgrade(request, &seen));
    }
    let (head, body) = request.into_parts();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let body = body.collect().await.ok();
    let trailers = body.as_ref().and_then(|body| body.trailers()).cloned().unwrap_or_default();
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let all = |headers: &HeaderMap| {
        headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
    };
    let got = Received {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: all(&head.headers),
        body: text(&body),
        trailers: all(&trailers),
    };
    let echo = json!({
        "method": got.method, "path": got.path, "headers": got.headers, "body": got.body, "trailers": got.trailers,
    });
    seen.lock().must("the upstream's record").push(got);
    let mut response = Response::new(Full::from(echo.to_string()));
    if head.uri.path() == MOVED_PATH {
        let host = head.uri.authority().map(ToString::to_string);
        let host =
            host.or_else(|| Some(head.headers.get("host")?.to_str().ok()?.to_owned())).unwrap_or_default();
        *response.status_mut() = StatusCode::FOUND;
        let location = format!("http://{host}{NEW_PATH}");
        response.headers_mut().insert("location", location.parse().must("a header value"));
    }
    response.headers_mut().insert("content-type", "application/json".parse().must("a header value"));
    Ok(response)
}

/// A path that has moved to [`NEW_PATH`].
pub const MOVED_PATH: &str = "/moved";
pub const NEW_PATH: &str = "/arrived";

/// Opens a WebSocket, as far as proxies see one, that sends every byte back. It chooses the first
/// subprotocol that it is offered, and tells what it was offered.
fn upgrade(mut request: Request<Incoming>, seen: &Mutex<Vec<Received>>) -> Response<Full<Bytes>> {
    let headers = request.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
    let got = Received {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        headers: headers.collect(),
        body: String::new(),
        trailers: vec![],
    };
    let offered = got.header("sec-websocket-protocol").map(str::to_owned);
    seen.lock().must("the upstream's record").push(got);
    let opened = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // An error here is a socket that the other side gave up.
        let Ok(socket) = opened.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(socket));
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [("connection", "upgrade"), ("upgrade", "websocket")] {
        response.headers_mut().insert(name, value.parse().must("a header value"));
    }
    if let Some(offered) = offered {
        let chosen = offered.split(',').next().unwrap_or_default().trim();
        response.headers_mut().insert("sec-websocket-protocol", chosen.parse().must("a header value"));
        response.headers_mut().insert("x-offered", offered.parse().must("a header value"));
    }
    response
}
