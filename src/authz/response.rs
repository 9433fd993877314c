//! What Envoy is answered. Every answer removes or overwrites each header that upstream believes.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use talos_proto::{
    BoolValue, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus, OkHttpResponse,
    Status,
};

use super::request::Malformed;
use crate::config::{Authz, CredentialSource};
use crate::credential::claims::Authority;
use crate::error::{ApiError, Reason};
use crate::key::verdict::Denial;
use crate::key::{Key, Metadata, Scopes};
use crate::service::upstream::{IDENTITY_HEADERS, header_text};

/// `HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD`
const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;
/// Field of CheckResponse that holds the OkHttpResponse.
const OK_RESPONSE: u32 = 3;
/// Fields of OkHttpResponse.
const HEADERS: u32 = 2;
const HEADERS_TO_REMOVE: u32 = 5;
const QUERY_PARAMETERS_TO_REMOVE: u32 = 8;

/// Who is let through, as upstream and Envoy's own filters are told.
pub struct Caller<'a> {
    key_id: String,
    network_id: String,
    actor: Option<&'a str>,
    scopes: &'a Scopes,
    visibility: &'static str,
    metadata: Option<&'a Metadata>,
}

impl<'a> Caller<'a> {
    /// The holder of a key.
    pub fn of_key(key: &'a Key) -> Self {
        Self {
            key_id: key.id.to_string(),
            network_id: key.network.to_string(),
            actor: Some(key.actor.as_str()),
            scopes: &key.scopes,
            visibility: key.visibility.claim(),
            metadata: key.metadata.as_ref(),
        }
    }

    /// The holder of a derived token.
    pub fn of_token(authority: &'a Authority, network: crate::key::NetworkId) -> Self {
        Self {
            key_id: authority.key_id.clone(),
            network_id: network.to_string(),
            actor: authority.actor.as_ref().map(crate::key::ActorId::as_str),
            scopes: &authority.scopes,
            visibility: authority.visibility.claim(),
            metadata: authority.metadata.as_ref(),
        }
    }
}

/// The encoded parts of an OK answer that are the same for every request of a caller on a route.
pub struct OkParts {
    /// Fields of the OkHttpResponse.
    pub ok_fields: Bytes,
    /// Fields of the CheckResponse beside it.
    pub outer_fields: Bytes,
}

/// Encodes what upstream is told of a caller. `token` is the JWT that goes upstream.
pub fn ok_parts(settings: &Authz, caller: &Caller<'_>, token: Option<&str>) -> OkParts {
    let scopes = caller.scopes.to_string();
    let values = [
        Some(caller.key_id.as_str()),
        caller.actor,
        Some(scopes.as_str()).filter(|scopes| !scopes.is_empty()),
        Some(caller.network_id.as_str()),
    ];
    let mut answer = OkHttpResponse::default();
    for (name, value) in IDENTITY_HEADERS.into_iter().zip(values) {
        match value {
            Some(value) => answer.headers.push(overwrite(name, &header_text(value))),
            // Not set empty: a header that we have no value for doesn't exist.
            None => answer.headers_to_remove.push(Bytes::from_static(name.as_bytes())),
        }
    }
    match token {
        Some(token) => answer.headers.push(overwrite(&settings.token_header, &format!("Bearer {token}"))),
        None => answer.headers_to_remove.extend(own_token_header(settings)),
    }
    OkParts { ok_fields: answer.encode_to_vec().into(), outer_fields: outer_fields(caller_metadata(caller)) }
}

/// The parts of the answer that lets a request through without knowing who sends it.
pub fn anonymous_parts(settings: &Authz) -> OkParts {
    let identity = IDENTITY_HEADERS.into_iter().map(|name| Bytes::from_static(name.as_bytes()));
    let answer = OkHttpResponse {
        headers_to_remove: identity.chain(own_token_header(settings)).collect(),
        ..OkHttpResponse::default()
    };
    OkParts { ok_fields: answer.encode_to_vec().into(), outer_fields: outer_fields(Struct::default()) }
}

/// A token header of our own must not be forged either; one that is a credential's source is the client's to send.
fn own_token_header(settings: &Authz) -> Option<Bytes> {
    let is_source = settings.sources.iter().any(
        |source| matches!(source, CredentialSource::Header { name, .. } if *name == settings.token_header),
    );
    let standard = settings.token_header == "authorization";
    (!is_source && !standard).then(|| Bytes::copy_from_slice(settings.token_header.as_bytes()))
}

/// What one request adds to the parts that are ready: fields of the OkHttpResponse.
#[derive(Default)]
pub struct Extras(BytesMut);

impl Extras {
    /// A header of the request that doesn't go upstream.
    pub fn remove_header(&mut self, name: &[u8]) {
        self.text(HEADERS_TO_REMOVE, name);
    }

    /// A parameter of the query that doesn't go upstream, by its name as it is written there.
    pub fn remove_query_parameter(&mut self, name: &str) {
        self.text(QUERY_PARAMETERS_TO_REMOVE, name.as_bytes());
    }

    /// A header of the request that goes upstream with another value.
    pub fn set_header(&mut self, name: &str, value: &str) {
        self.text(HEADERS, &overwrite(name, value).encode_to_vec());
    }

    fn text(&mut self, field: u32, value: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(value.len() as u64, &mut self.0);
        self.0.put_slice(value);
    }
}

/// Puts an OK answer together: the ready parts, and what this one request adds to them.
pub fn ok(ok_fields: &[u8], outer_fields: &[u8], extras: &Extras) -> Bytes {
    let inner_len = ok_fields.len() + extras.0.len();
    let mut out = BytesMut::with_capacity(outer_fields.len() + inner_len + 8);
    out.put_slice(outer_fields);
    encode_key(OK_RESPONSE, WireType::LengthDelimited, &mut out);
    encode_varint(inner_len as u64, &mut out);
    out.put_slice(ok_fields);
    out.put_slice(&extras.0);
    out.freeze()
}

/// Why a request isn't let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It needs a credential and has none.
    #[error("an API key is required")]
    Missing,
    /// Its credential can't be told.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its credential is no good.
    #[error("{0}")]
    Denied(Denial),
    /// Its credential doesn't allow this.
    #[error("the credential lacks a scope that this route needs")]
    InsufficientScope(Scopes),
    /// A publishable key on a route for secret ones.
    #[error("publishable keys are not accepted here")]
    Publishable,
    /// The route's policy can't be meant as it stands.
    #[error("the route's policy is misconfigured")]
    Misconfigured,
    /// We can't tell.
    #[error("the credential can't be checked at present")]
    Unavailable,
}

impl Refusal {
    /// The word for logs, metadata and metric labels.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(Malformed::Ambiguous) => "ambiguous",
            Self::Malformed(Malformed::Unreadable) => "malformed",
            Self::Denied(denial) => denial.label(),
            Self::InsufficientScope(_) => "insufficient_scope",
            Self::Publishable => "publishable",
            Self::Misconfigured => "misconfigured",
            Self::Unavailable => "unavailable",
        }
    }

    /// As the client sees it: expired, revoked and unknown look alike.
    fn error(&self) -> ApiError {
        let reason = match self {
            Self::Missing => Reason::Unauthorized,
            Self::Malformed(_) => Reason::BadRequest,
            Self::Denied(Denial::AddressNotAllowed) => Reason::IpNotAllowed,
            Self::Denied(_) => return ApiError::new(Reason::Unauthorized, "the credential is not valid"),
            Self::InsufficientScope(_) | Self::Publishable => Reason::Forbidden,
            Self::Misconfigured => Reason::InternalServerError,
            Self::Unavailable => Reason::ServiceUnavailable,
        };
        ApiError::new(reason, self.to_string())
    }

    /// `WWW-Authenticate` after RFC 6750 and RFC 9110.
    fn challenge(&self, realm: &str) -> Option<String> {
        let bearer = format!("Bearer realm=\"{realm}\"");
        match self {
            Self::Missing => Some(bearer),
            Self::Denied(Denial::AddressNotAllowed) => None,
            Self::Denied(_) => Some(format!("{bearer}, error=\"invalid_token\"")),
            Self::InsufficientScope(scopes) => {
                Some(format!("{bearer}, error=\"insufficient_scope\", scope=\"{scopes}\""))
            }
            _ => None,
        }
    }

    /// The number of the gRPC status beside the HTTP answer.
    const fn grpc_code(&self) -> i32 {
        match self {
            Self::Missing => 16,
            Self::Denied(Denial::AddressNotAllowed) | Self::InsufficientScope(_) | Self::Publishable => 7,
            Self::Denied(_) => 16,
            Self::Malformed(_) => 3,
            Self::Misconfigured => 13,
            Self::Unavailable => 14,
        }
    }
}

/// Encodes a refusal. The HTTP status is always set: without it Envoy would make every refusal a 403.
pub fn denied(refusal: &Refusal, settings: &Authz, to_grpc: bool) -> Bytes {
    let error = refusal.error();
    let (content_type, body) = match to_grpc {
        // Envoy makes the body the message of the gRPC status.
        true => ("text/plain", error.message.to_string()),
        false => ("application/json", error.to_json().to_string()),
    };
    let challenge = refusal.challenge(&settings.realm);
    let headers = [("content-type", Some(content_type)), ("www-authenticate", challenge.as_deref())];
    let headers = headers.into_iter().filter_map(|(name, value)| Some(overwrite(name, value?)));
    let metadata = [("decision", text("deny")), ("reason", text(refusal.label()))];
    let answer = CheckResponse {
        status: Some(Status { code: refusal.grpc_code(), message: error.message.to_string() }),
        denied_response: Some(DeniedHttpResponse {
            status: Some(HttpStatus { code: error.reason.http().into() }),
            headers: headers.collect(),
            body,
        }),
        ok_response: None,
        dynamic_metadata: Some(Struct {
            fields: metadata.map(|(name, value)| (name.to_owned(), value)).into(),
        }),
    };
    answer.encode_to_vec().into()
}

fn outer_fields(metadata: Struct) -> Bytes {
    let answer = CheckResponse {
        status: Some(Status::default()),
        dynamic_metadata: Some(metadata),
        ..CheckResponse::default()
    };
    answer.encode_to_vec().into()
}

/// Sets a header for every Envoy: newer ones read the action, those up to 1.36 only `append`, and 1.37 would append
/// when both are unset.
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: Bytes::copy_from_slice(name.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            raw_value: Bytes::new(),
        }),
        append: Some(BoolValue { value: false }),
        append_action: OVERWRITE_IF_EXISTS_OR_ADD,
    }
}

fn caller_metadata(caller: &Caller<'_>) -> Struct {
    let scopes = caller.scopes.iter().map(|scope| text(scope.as_str())).collect();
    let mut fields = vec![
        ("decision", text("allow")),
        ("key_id", text(&caller.key_id)),
        ("network_id", text(&caller.network_id)),
        ("scopes", value(Kind::ListValue(ListValue { values: scopes }))),
        ("visibility", text(caller.visibility)),
    ];
    fields.extend(caller.actor.map(|actor| ("actor_id", text(actor))));
    let metadata = caller.metadata.map(|metadata| serde_json::Value::Object(metadata.object()));
    fields.extend(metadata.map(|metadata| ("metadata", json(metadata))));
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

const fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

fn json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    value(match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(truth) => Kind::BoolValue(truth),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(self::json).collect() })
        }
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members.into_iter().map(|(name, member)| (name, self::json(member))).collect(),
        }),
    })
}
