//! Encodes CheckRequests as Envoy sends them, with twenty raw headers.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress, address};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::google::protobuf::Timestamp;
use prost::Message;

/// Headers of a browser and of proxies. The credential is sent as `authorization`.
const HEADERS: [(&str, &str); 19] = [
    (":authority", "api.example.com"),
    (":path", "/v1/orders/4711/items?page=2&limit=50"),
    (":method", "GET"),
    (":scheme", "https"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cache-control", "no-cache"),
    ("content-type", "application/json"),
    ("cookie", "theme=dark; consent=1"),
    ("origin", "https://app.example.com"),
    ("referer", "https://app.example.com/orders"),
    ("sec-fetch-mode", "cors"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("x-client-version", "2026.11.3"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "6f1d0c8e-57a2-4c0e-9a3e-0d5f8a1b2c3d"),
];

/// Scheme before the credential; it occurs nowhere else in the message.
const SCHEME: &str = "Bearer ";

/// Encodes one message per credential, mostly by copying a template.
#[derive(Default)]
pub(crate) struct Requests {
    templates: HashMap<usize, (Vec<u8>, usize)>,
}

impl Requests {
    /// Returns the gRPC message of a credential, including the five-byte prefix.
    pub(crate) fn encode(&mut self, credential: &str) -> Bytes {
        let (template, at) = self.templates.entry(credential.len()).or_insert_with(|| {
            let message = check_request(credential).encode_to_vec();
            let scheme = message.windows(SCHEME.len()).position(|part| part == SCHEME.as_bytes());
            (message, scheme.map_or(0, |at| at + SCHEME.len()))
        });
        let mut framed = BytesMut::with_capacity(template.len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(template.len()).unwrap_or(u32::MAX));
        framed.put_slice(template);
        framed[5 + *at..][..credential.len()].copy_from_slice(credential.as_bytes());
        framed.freeze()
    }
}

fn check_request(credential: &str) -> CheckRequest {
    let bearer = format!("{SCHEME}{credential}");
    let lines = HEADERS.iter().copied().chain([("authorization", bearer.as_str())]);
    let headers = lines.map(|(key, value)| HeaderValue {
        key: key.to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    });
    let http = HttpRequest {
        id: "1234567890123456789".to_owned(),
        method: "GET".to_owned(),
        path: "/v1/orders/4711/items?page=2&limit=50".to_owned(),
        host: "api.example.com".to_owned(),
        scheme: "https".to_owned(),
        protocol: "HTTP/2".to_owned(),
        size: -1,
        header_map: Some(HeaderMap { headers: headers.collect() }),
        ..HttpRequest::default()
    };
    let time = Timestamp { seconds: 1_790_000_000, nanos: 123_456_000 };
    let attributes = AttributeContext {
        source: Some(Peer { address: Some(socket("203.0.113.7", 51_324)), ..Peer::default() }),
        destination: Some(Peer { address: Some(socket("10.0.0.12", 8_443)), ..Peer::default() }),
        request: Some(Request { time: Some(time), http: Some(http) }),
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(attributes) }
}

fn socket(ip: &str, port: u32) -> Address {
    let port_specifier = Some(PortSpecifier::PortValue(port));
    let socket = SocketAddress { address: ip.to_owned(), port_specifier, ..SocketAddress::default() };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copied_messages_equal_encoded_ones() {
        let mut requests = Requests::default();
        for credential in ["k", "ory_ak_v1_abc_def", "other_v1_abc_def1"] {
            let framed = requests.encode(credential);
            let decoded = CheckRequest::decode(&framed[5..]).unwrap();
            assert_eq!(decoded, check_request(credential));
        }
    }
}
