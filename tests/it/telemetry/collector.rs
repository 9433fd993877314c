//! A collector of OTLP over gRPC that keeps what it is sent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use crate::rig::support::{Must, until};

#[derive(Clone)]
pub struct Collector {
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
    /// All messages, as bytes.
    bytes: Vec<u8>,
}

impl Collector {
    pub async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.must("binding the collector");
        let port = listener.local_addr().must("its address").port();
        let collector = Collector { port, seen: Arc::default() };
        let served = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                let service = service_fn(move |request| {
                    let served = served.clone();
                    async move { Ok::<_, Infallible>(served.take(request).await) }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        collector
    }

    /// One that is reached over TLS, with a certificate and key.
    pub async fn start_tls((certificate, key): (String, String)) -> Collector {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().must("a chain");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).must("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().must("versions").with_no_client_auth();
        let mut config = config.with_single_cert(chain, key).must("a pair");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.must("binding the collector");
        let port = listener.local_addr().must("its address").port();
        let collector = Collector { port, seen: Arc::default() };
        let served = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served, acceptor) = (served.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let served = served.clone();
                        async move { Ok::<_, Infallible>(served.take(request).await) }
                    });
                    let connection = http2::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        collector
    }

    async fn take(
        &self,
        request: Request<Incoming>,
    ) -> Response<StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>
    {
        assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let body = request.into_body().collect().await.must("a request").to_bytes();
        let message = ExportTraceServiceRequest::decode(&body[5..]).must("a message");
        {
            let mut seen = self.seen.lock().must("what was seen");
            seen.bytes.extend(&body);
            for resource in message.resource_spans {
                seen.resource = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
                seen.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        // An empty message.
        let frames =
            vec![Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))].into_iter();
        let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    /// Waits for spans of which `enough` says that they are.
    pub async fn until(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        until(what, async || {
            let seen = self.seen.lock().must("what was seen");
            enough(&seen.spans).then(|| seen.spans.clone())
        })
        .await
    }

    /// Returns an attribute of the spans' resource.
    pub fn resource(&self, name: &str) -> Option<String> {
        text(&self.seen.lock().must("what was seen").resource, name)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.seen.lock().must("what was seen").bytes.clone()
    }
}

/// An attribute as text.
pub fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()? {
        AnyValue { value: Some(any_value::Value::StringValue(text)) } => Some(text.clone()),
        AnyValue { value: Some(any_value::Value::IntValue(number)) } => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}
