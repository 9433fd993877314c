//! A gRPC client that sends whatever bytes it is given, over one HTTP/2 connection.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::rig::check::Verdict;
use crate::rig::http::Base;
use crate::rig::support::{Must, TIMEOUT, within};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Most cancelled calls that a client remembers.
const MAX_CANCELLED: usize = 20_000;

type AnyBody = BoxBody<Bytes, Infallible>;

#[derive(Clone)]
pub struct Grpc {
    base: Base,
    sender: http2::SendRequest<AnyBody>,
    authorization: Option<String>,
}

impl Grpc {
    pub async fn connect(base: Base) -> Result<Grpc, String> {
        let stream = TcpStream::connect(base.0).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Grpc::over(base, stream).await
    }

    /// Makes a client over an open connection of any kind.
    pub async fn over<S>(base: Base, stream: S) -> Result<Grpc, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Answers to calls that were given up may still come, however many there were.
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_reset_streams(MAX_CANCELLED);
        let handshake = builder.handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Grpc { base, sender, authorization: None })
    }

    /// Returns the client with a credential in each call.
    pub fn with_bearer(&self, credential: &str) -> Grpc {
        Grpc { authorization: Some(format!("Bearer {credential}")), ..self.clone() }
    }

    /// Sends a Check that must be decided.
    pub async fn check(&self, request: &CheckRequest) -> Verdict {
        let answer = self.check_bytes(request.encode_to_vec()).await.must("a Check");
        answer.verdict().must("a Check that is decided")
    }

    /// Sends a Check of any bytes; an error when the connection, not the call, failed.
    pub async fn check_bytes(&self, message: Vec<u8>) -> Result<Answer, String> {
        self.call(CHECK, Full::new(framed(&message)).boxed()).await
    }

    /// Begins a Check of which only a part is sent. What is called next on the connection is sent
    /// behind it.
    pub async fn check_slowly(&self, request: &CheckRequest) -> SlowCheck {
        let message = framed(&request.encode_to_vec());
        let (rest, parts) = mpsc::unbounded_channel();
        let half = message.len() / 2;
        rest.send(message.slice(..half)).must("sending half a message");
        let (begun, has_begun) = oneshot::channel();
        let body = ChannelBody { parts, begun: Some(begun) }.boxed();
        let grpc = self.clone();
        let answer = tokio::spawn(async move { grpc.call(CHECK, body).await });
        has_begun.await.must("a Check that begins");
        SlowCheck { rest, missing: message.slice(half..), answer }
    }

    pub async fn health(&self, service: &str) -> Result<Health, String> {
        let answer = self.call(HEALTH_CHECK, Full::new(framed(&health_request(service))).boxed()).await?;
        Ok(match answer.code {
            0 => Health::decode(&answer.message),
            code => Health::Refused(code),
        })
    }

    /// Follows a service's health.
    pub async fn watch(&self, service: &str) -> Watch {
        let body = Full::new(framed(&health_request(service))).boxed();
        let response = self.send(HEALTH_WATCH, body).await.must("watching a service's health");
        Watch { body: response.into_body(), held: BytesMut::new() }
    }

    /// Sends server reflection of a version a request with one field; returns the response.
    pub async fn reflect(&self, version: &str, field: u8, value: &str) -> Result<Answer, String> {
        let length = u8::try_from(value.len()).must("a short value");
        let message = [&[field << 3 | 2, length], value.as_bytes()].concat();
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        self.call(&path, Full::new(framed(&message)).boxed()).await
    }

    /// Opens a call of which both sides send for as long as they like.
    pub async fn open(
        &self,
        path: &str,
    ) -> Result<(mpsc::UnboundedSender<Bytes>, Response<Incoming>), String> {
        let (sender, parts) = mpsc::unbounded_channel();
        let body = ChannelBody { parts, begun: None }.boxed();
        let response = within("the head of a response", self.send(path, body)).await?;
        Ok((sender, response))
    }

    async fn call(&self, path: &str, body: AnyBody) -> Result<Answer, String> {
        let exchange = async {
            let (head, body) = self.send(path, body).await?.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?;
            // An error without a message may come as headers alone.
            let trailers = body.trailers().unwrap_or(&head.headers);
            let code = field(trailers, "grpc-status").ok_or_else(|| format!("no grpc-status in {head:?}"))?;
            let code = code.parse().map_err(|_| format!("grpc-status {code}"))?;
            let text = field(trailers, "grpc-message").unwrap_or_default();
            let mut message = body.to_bytes();
            Ok(Answer { code, text, message: message.split_off(message.len().min(5)) })
        };
        tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn send(&self, path: &str, body: AnyBody) -> Result<Response<Incoming>, String> {
        let mut request = Request::post(self.base.url(path))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body).map_err(|error| error.to_string())?;
        let mut sender = self.sender.clone();
        sender.send_request(request).await.map_err(|error| format!("{error:?}"))
    }
}

fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A message with its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).must("a message under 4 GiB");
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(length);
    frame.put_slice(message);
    frame.freeze()
}

/// The response to a call.
pub struct Answer {
    pub code: u32,
    pub text: String,
    pub message: Bytes,
}

impl Answer {
    pub fn verdict(&self) -> Result<Verdict, String> {
        if self.code != 0 {
            return Err(format!("grpc-status {}: {}", self.code, self.text));
        }
        let response = CheckResponse::decode(&self.message[..]).map_err(|error| error.to_string())?;
        Ok(Verdict(response))
    }
}

/// A Check in flight, the end of its message still to be sent.
pub struct SlowCheck {
    rest: mpsc::UnboundedSender<Bytes>,
    missing: Bytes,
    answer: tokio::task::JoinHandle<Result<Answer, String>>,
}

impl SlowCheck {
    pub async fn finish(self) -> Result<Answer, String> {
        self.rest.send(self.missing).map_err(|_| "the call has ended already".to_owned())?;
        drop(self.rest);
        self.answer.await.must("the task of a call")
    }
}

/// A body in parts.
struct ChannelBody {
    parts: mpsc::UnboundedReceiver<Bytes>,
    /// Told when the first part is taken.
    begun: Option<oneshot::Sender<()>>,
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.poll_recv(context);
        if part.is_ready()
            && let Some(begun) = self.begun.take()
        {
            // Nobody may wait for it any more.
            let _ = begun.send(());
        }
        part.map(|part| part.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`, or the call's own error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Health {
    Unknown,
    Serving,
    NotServing,
    Refused(u32),
}

impl Health {
    /// Reads the one field of the message, an enum.
    #[track_caller]
    fn decode(message: &[u8]) -> Health {
        match message {
            [] | [0x08, 0] => Health::Unknown,
            [0x08, 1] => Health::Serving,
            [0x08, 2] => Health::NotServing,
            other => panic!("not a HealthCheckResponse: {other:?}"),
        }
    }
}

impl Display for Health {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self:?}")
    }
}

/// `HealthCheckRequest`: field 1 is the service's name.
fn health_request(service: &str) -> Vec<u8> {
    let length = u8::try_from(service.len()).must("a short service name");
    [&[0x0a, length], service.as_bytes()].concat()
}

/// A stream of a service's states.
pub struct Watch {
    body: Incoming,
    held: BytesMut,
}

impl Watch {
    /// The next state; none when the stream ended.
    pub async fn next(&mut self) -> Option<Health> {
        loop {
            if let [0, a, b, c, d, rest @ ..] = &self.held[..] {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= length {
                    let state = Health::decode(&rest[..length]);
                    let _ = self.held.split_to(5 + length);
                    return Some(state);
                }
            }
            let frame = within("the next state of a service", self.body.frame()).await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.held.extend_from_slice(&data);
            }
        }
    }
}
