//! What Envoy is answered when a request may pass. Every answer removes or overwrites each header that upstream believes.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use prost_types::Struct;
use talos_proto::{BoolValue, CheckResponse, HeaderValue, HeaderValueOption, OkHttpResponse, Status};

use super::metadata;
use crate::cache::memory::Ready;
use crate::config::{Authz, CredentialSource};
use crate::credential::claims::Authority;
use crate::key::{Key, Metadata, RatePolicy, Scopes};
use crate::limit::Charge;
use crate::service::upstream::{IDENTITY_HEADERS, header_text};

/// `HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD`
const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;
/// Field of CheckResponse that holds the OkHttpResponse.
const OK_RESPONSE: u32 = 3;
/// Fields of OkHttpResponse.
const HEADERS: u32 = 2;
const HEADERS_TO_REMOVE: u32 = 5;
const RESPONSE_HEADERS_TO_ADD: u32 = 6;
const QUERY_PARAMETERS_TO_REMOVE: u32 = 8;

/// What the client is told of the key's policy and of what is left of it (draft-ietf-httpapi-ratelimit-headers).
pub const RATE_LIMIT_POLICY: &str = "ratelimit-policy";
pub const RATE_LIMIT: &str = "ratelimit";

/// Who is let through, as upstream and Envoy's own filters are told.
pub struct Caller<'a> {
    /// Of the key, or the key that the token was derived from.
    pub key_id: String,
    /// The tenant.
    pub network_id: String,
    /// Who uses the key.
    pub actor: Option<&'a str>,
    /// What the credential allows.
    pub scopes: &'a Scopes,
    /// `secret` or `public`.
    pub visibility: &'static str,
    /// What the key says beside that.
    pub metadata: Option<&'a Metadata>,
    /// How often the key may be used.
    pub rate_policy: Option<RatePolicy>,
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
            rate_policy: key.rate_policy,
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
            // Tokens say nothing of it.
            rate_policy: None,
        }
    }
}

/// The answer that is the same for every request of a caller on a route. `token` is the JWT that goes upstream.
pub fn ok(settings: &Authz, caller: &Caller<'_>, token: Option<&str>) -> Ready {
    // Scopes are ASCII without spaces: what is between spaces is one of them, as it is written.
    let scopes = caller.scopes.to_string();
    let values = [
        Some(header_text(&caller.key_id)),
        caller.actor.map(header_text),
        Some(scopes.as_str().into()).filter(|scopes: &Cow<'_, str>| !scopes.is_empty()),
        Some(header_text(&caller.network_id)),
    ];
    let mut answer = OkHttpResponse::default();
    for (name, value) in IDENTITY_HEADERS.into_iter().zip(values) {
        match value {
            Some(value) => answer.headers.push(overwrite(name, &value)),
            // Not set empty: a header that we have no value for doesn't exist.
            None => answer.headers_to_remove.push(Bytes::from_static(name.as_bytes())),
        }
    }
    match token {
        Some(token) => answer.headers.push(overwrite(&settings.token_header, &format!("Bearer {token}"))),
        None => answer.headers_to_remove.extend(own_token_header(settings)),
    }
    let policy = caller.rate_policy.map(|policy| overwrite(RATE_LIMIT_POLICY, &policy.header()));
    answer.response_headers_to_add.extend(policy);
    encode(&outer_fields(metadata::allowed(Some(caller), "ok")), &answer.encode_to_vec(), &[])
}

/// The answer that lets a request through without knowing who sends it, for whatever `reason`.
pub fn anonymous(settings: &Authz, reason: &'static str) -> Ready {
    let identity = IDENTITY_HEADERS.into_iter().map(|name| Bytes::from_static(name.as_bytes()));
    let answer = OkHttpResponse {
        headers_to_remove: identity.chain(own_token_header(settings)).collect(),
        ..OkHttpResponse::default()
    };
    encode(&outer_fields(metadata::allowed(None, reason)), &answer.encode_to_vec(), &[])
}

/// A token header of our own must not be forged either; one that is a credential's source is the client's to send.
fn own_token_header(settings: &Authz) -> Option<Bytes> {
    let is_source = settings.sources.iter().any(
        |source| matches!(source, CredentialSource::Header { name, .. } if *name == settings.token_header),
    );
    let standard = settings.token_header == "authorization";
    (!is_source && !standard).then(|| Bytes::copy_from_slice(settings.token_header.as_bytes()))
}

/// What one request adds to an answer that is ready: fields of the OkHttpResponse.
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

    /// How often the key may still be used, for the client to know.
    pub fn charged(&mut self, charge: &Charge) {
        self.text(RESPONSE_HEADERS_TO_ADD, &overwrite(RATE_LIMIT, &charge.header()).encode_to_vec());
    }

    fn text(&mut self, field: u32, value: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(value.len() as u64, &mut self.0);
        self.0.put_slice(value);
    }
}

/// What one request is answered: what is ready, shared and not copied unless there is something to add.
pub fn with(ready: Ready, extras: &Extras) -> Bytes {
    if extras.0.is_empty() {
        return ready.message;
    }
    encode(&ready.message[..ready.outer_end], &ready.message[ready.ok_start..], &extras.0).message
}

fn encode(outer_fields: &[u8], ok_fields: &[u8], extras: &[u8]) -> Ready {
    let inner = ok_fields.len() + extras.len();
    let head = key_len(OK_RESPONSE) + encoded_len_varint(inner as u64);
    // Exactly as long as needed: then it becomes shareable as it is.
    let mut out = Vec::with_capacity(outer_fields.len() + head + inner);
    out.put_slice(outer_fields);
    encode_key(OK_RESPONSE, WireType::LengthDelimited, &mut out);
    encode_varint(inner as u64, &mut out);
    let ok_start = out.len();
    out.put_slice(ok_fields);
    out.put_slice(extras);
    Ready { message: out.into(), outer_end: outer_fields.len(), ok_start }
}

fn outer_fields(metadata: Struct) -> Vec<u8> {
    let answer = CheckResponse {
        status: Some(Status::default()),
        dynamic_metadata: Some(metadata),
        ..CheckResponse::default()
    };
    answer.encode_to_vec()
}

/// Sets a header for every Envoy: newer ones read the action, those up to 1.36 only `append`, and 1.37 would append
/// when both are unset.
pub fn overwrite(name: &str, value: &str) -> HeaderValueOption {
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
