//! A rate limit service as Envoy's filter asks it. It knows no limits but those that requests
//! bring.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;

use crate::rig::support::Must;

/// Limits that a request brought: requests per unit, and the unit's number.
type Limits = Vec<(u32, i32)>;
type Frames = futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

#[derive(Clone)]
pub struct RateLimitService {
    pub port: u16,
    counts: Arc<Mutex<HashMap<String, u32>>>,
    limits: Arc<Mutex<Limits>>,
}

impl RateLimitService {
    pub async fn start() -> RateLimitService {
        let listener = TcpListener::bind("127.0.0.1:0").await.must("binding the rate limit service");
        let port = listener.local_addr().must("its address").port();
        let started = RateLimitService { port, counts: Arc::default(), limits: Arc::default() };
        let served = started.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                let service = service_fn(move |request| {
                    let served = served.clone();
                    async move { Ok::<_, Infallible>(served.answer(request).await) }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        started
    }

    /// Returns the limits that requests brought since the last call.
    pub fn limits(&self) -> Limits {
        std::mem::take(&mut *self.limits.lock().must("the limits"))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<StreamBody<Frames>> {
        assert_eq!(request.uri().path(), "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
        let body = request.into_body().collect().await.must("a request").to_bytes();
        let message = RateLimitRequest::decode(&body[5..]).must("a message");
        let codes: Vec<Code> = message.descriptors.iter().map(|descriptor| self.count(descriptor)).collect();
        let overall = if codes.contains(&Code::OverLimit) { Code::OverLimit } else { Code::Ok };
        let status = |code: Code| DescriptorStatus { code: code.into(), ..DescriptorStatus::default() };
        let answer = RateLimitResponse {
            overall_code: overall.into(),
            statuses: codes.into_iter().map(status).collect(),
            ..RateLimitResponse::default()
        };
        let message = answer.encode_to_vec();
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).must("a short message"));
        framed.put_slice(&message);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let frames = vec![Ok(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))].into_iter();
        let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    fn count(&self, descriptor: &RateLimitDescriptor) -> Code {
        let Some(limit) = &descriptor.limit else { return Code::Ok };
        self.limits.lock().must("the limits").push((limit.requests_per_unit, limit.unit));
        let entries = descriptor.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value));
        let mut counts = self.counts.lock().must("the counts");
        let count = counts.entry(entries.collect::<Vec<_>>().join(",")).or_default();
        *count += 1;
        if *count > limit.requests_per_unit { Code::OverLimit } else { Code::Ok }
    }
}
