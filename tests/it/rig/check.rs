//! A CheckRequest as Envoy would send it, and what the answer to it says.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, HeaderMap, HeaderValue, HeaderValueOption, Metadata, SocketAddress, address,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, OkHttpResponse,
};
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value as ProtobufValue, value::Kind};
use serde_json::Value;

use crate::rig::support::Must;

#[derive(Clone, Default)]
pub struct Check {
    headers: Vec<(String, Vec<u8>)>,
    extensions: HashMap<String, String>,
    source: Option<String>,
    raw: bool,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    metadata: HashMap<String, Struct>,
}

impl Check {
    pub fn bearer(credential: &str) -> Check {
        Check::default().header("authorization", format!("Bearer {credential}"))
    }

    pub fn api_key(credential: &str) -> Check {
        Check::default().header("x-api-key", credential)
    }

    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Check {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a context extension, as a route of Envoy does.
    pub fn route(mut self, name: &str, value: &str) -> Check {
        self.extensions.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn from(mut self, address: &str) -> Check {
        self.source = Some(address.to_owned());
        self
    }

    pub fn method(mut self, method: &str) -> Check {
        self.method = Some(method.to_owned());
        self
    }

    pub fn path(mut self, path: &str) -> Check {
        self.path = Some(path.to_owned());
        self
    }

    pub fn host(mut self, host: &str) -> Check {
        self.host = Some(host.to_owned());
        self
    }

    /// Sets a namespace of the metadata of Envoy's route.
    pub fn metadata(mut self, namespace: &str, value: &Value) -> Check {
        let Some(Kind::StructValue(fields)) = protobuf(value).kind else { panic!("{value} is no object") };
        self.metadata.insert(namespace.to_owned(), fields);
        self
    }

    /// Sends the headers in the form of Envoy's `encode_raw_headers`.
    pub fn raw(mut self) -> Check {
        self.raw = true;
        self
    }

    pub fn build(&self) -> CheckRequest {
        let method = self.method.as_deref().unwrap_or("GET");
        let path = self.path.as_deref().unwrap_or("/orders?page=2");
        let host = self.host.as_deref().unwrap_or("shop.test");
        let pseudo = [(":method", method), (":path", path), (":authority", host)];
        let mut headers = pseudo.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec();
        headers.extend(self.headers.iter().cloned());
        let mut http = HttpRequest {
            id: "1".to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            host: host.to_owned(),
            scheme: "http".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            ..HttpRequest::default()
        };
        if self.raw {
            let headers = headers.into_iter().map(|(key, raw_value)| HeaderValue {
                key,
                raw_value,
                value: String::new(),
            });
            http.header_map = Some(HeaderMap { headers: headers.collect() });
        } else {
            for (name, value) in headers {
                let value = String::from_utf8(value).must("a header value for the text form");
                // In this form Envoy joins headers of one name.
                http.headers.entry(name).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
            }
        }
        let source = self.source.as_deref().unwrap_or("127.0.0.1");
        let attributes = AttributeContext {
            source: Some(Peer { address: Some(socket(source)), ..Peer::default() }),
            request: Some(Request { time: None, http: Some(http) }),
            context_extensions: self.extensions.clone(),
            route_metadata_context: (!self.metadata.is_empty())
                .then(|| Metadata { filter_metadata: self.metadata.clone(), ..Metadata::default() }),
            ..AttributeContext::default()
        };
        CheckRequest { attributes: Some(attributes) }
    }
}

fn protobuf(value: &Value) -> ProtobufValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().must("a number")),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(protobuf).collect() }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect(),
        }),
    };
    ProtobufValue { kind: Some(kind) }
}

fn socket(ip: &str) -> Address {
    let port_specifier = Some(PortSpecifier::PortValue(40_000));
    let socket = SocketAddress { address: ip.to_owned(), port_specifier, ..SocketAddress::default() };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

#[derive(Debug, PartialEq)]
pub struct Verdict(pub CheckResponse);

impl Verdict {
    fn code(&self) -> Option<i32> {
        self.0.status.as_ref().map(|status| status.code)
    }

    /// Returns whether Envoy would let the request pass.
    pub fn passes(&self) -> bool {
        // A response without any status is OK to Envoy.
        matches!(self.code(), None | Some(0))
    }

    /// Returns whether Envoy would answer with this HTTP status; 200 when it would let the request
    /// pass.
    pub fn is(&self, status: i32) -> bool {
        match &self.0.http_response {
            Some(HttpResponse::DeniedResponse(denied)) => {
                denied.status.as_ref().is_some_and(|denied| denied.code == status)
            }
            _ => status == 200 && self.passes(),
        }
    }

    #[track_caller]
    pub fn allowed(self) -> Allowed {
        assert_eq!(self.code(), Some(0), "{self:?}");
        match self.0.http_response {
            Some(HttpResponse::OkResponse(ok)) => Allowed { ok, metadata: self.0.dynamic_metadata },
            other => panic!("allowed without an OkHttpResponse: {other:?}"),
        }
    }

    #[track_caller]
    pub fn denied(self, status: i32) -> Denied {
        assert!(!self.passes(), "{self:?}");
        match self.0.http_response {
            Some(HttpResponse::DeniedResponse(denied)) => {
                let code = denied.status.as_ref().must("a refusal's HTTP status").code;
                assert_eq!(code, status, "{denied:?}");
                Denied {
                    headers: pairs(&denied.headers),
                    body: denied.body,
                    metadata: self.0.dynamic_metadata,
                }
            }
            other => panic!("refused without a DeniedHttpResponse: {other:?}"),
        }
    }
}

pub struct Allowed {
    pub ok: OkHttpResponse,
    pub metadata: Option<Struct>,
}

impl Allowed {
    pub fn header(&self, name: &str) -> Option<String> {
        pairs(&self.ok.headers).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub fn removes(&self, name: &str) -> bool {
        self.ok.headers_to_remove.iter().any(|removed| removed.eq_ignore_ascii_case(name))
    }

    /// Returns the JWT that goes upstream.
    #[track_caller]
    pub fn token(&self) -> String {
        let value = self.header("authorization").must("an authorization header for the upstream");
        value.strip_prefix("Bearer ").must("a bearer token").to_owned()
    }

    /// Returns whether the dynamic metadata has a field.
    pub fn has(&self, name: &str) -> bool {
        fact(self.metadata.as_ref(), name).is_some()
    }

    /// Returns a value of the dynamic metadata.
    #[track_caller]
    pub fn fact(&self, name: &str) -> Value {
        fact(self.metadata.as_ref(), name).must(name)
    }
}

fn fact(facts: Option<&Struct>, name: &str) -> Option<Value> {
    facts?.fields.get(name).map(|value| json(value.kind.as_ref().must(name)))
}

#[track_caller]
fn json(kind: &Kind) -> Value {
    match kind {
        Kind::StringValue(text) => text.as_str().into(),
        Kind::ListValue(list) => {
            list.values.iter().map(|value| json(value.kind.as_ref().must("a value"))).collect()
        }
        Kind::NumberValue(number) => (*number).into(),
        Kind::StructValue(fields) => {
            let member = |(name, value): (&String, &ProtobufValue)| {
                (name.clone(), json(value.kind.as_ref().must("a value")))
            };
            Value::Object(fields.fields.iter().map(member).collect())
        }
        other => panic!("neither a text, a number, a list nor an object: {other:?}"),
    }
}

pub struct Denied {
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub metadata: Option<Struct>,
}

impl Denied {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns a field of the dynamic metadata.
    pub fn fact(&self, name: &str) -> Option<Value> {
        fact(self.metadata.as_ref(), name)
    }
}

fn pairs(options: &[HeaderValueOption]) -> Vec<(String, String)> {
    let headers = options.iter().filter_map(|option| option.header.as_ref());
    headers.map(|header| (header.key.clone(), text(header))).collect()
}

fn text(header: &HeaderValue) -> String {
    match header.value.as_str() {
        "" => String::from_utf8_lossy(&header.raw_value).into_owned(),
        value => value.to_owned(),
    }
}
