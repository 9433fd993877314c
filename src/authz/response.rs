//! Encoding of responses that let a request pass.
//!
//! Every response overwrites or removes each identity header, so that no client can forge one.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use prost_types::Struct;
use talos_proto::{BoolValue, CheckResponse, HeaderValue, HeaderValueOption, OkHttpResponse, Status};

use super::identity_headers::{IDENTITY_HEADERS, header_text};
use super::metadata;
use super::principal::Principal;
use crate::cache::memory::{EncodedResponse, SplitResponse};
use crate::clock::Timestamp;
use crate::config::{Authz, CredentialSource};
use crate::key::{Key, SpentCredits};
use crate::limit::RateDecision;

/// `HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD`
const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;
/// `HeaderValueOption.HeaderAppendAction.APPEND_IF_EXISTS_OR_ADD`
const APPEND_IF_EXISTS_OR_ADD: i32 = 0;
/// Number of the field `CheckResponse.dynamic_metadata`.
pub(super) const DYNAMIC_METADATA: u32 = 4;
/// Number of the field `CheckResponse.ok_response`.
const OK_RESPONSE: u32 = 3;
/// Length of the number that says until when an answer counts.
const FRESH_UNTIL_LEN: usize = size_of::<f64>();
/// Beginning of the value of the header that carries the token.
const BEARER: &str = "Bearer ";
/// Length of an empty `HeaderValueOption.header`, in bytes.
const HEADER_FIELD_LEN: usize = 2;
/// Numbers of fields of `OkHttpResponse`.
const HEADERS: u32 = 2;
const HEADERS_TO_REMOVE: u32 = 5;
const RESPONSE_HEADERS_TO_ADD: u32 = 6;

/// Response headers with the key's rate policy and its remaining quota
/// (draft-ietf-httpapi-ratelimit-headers).
pub(super) const RATE_LIMIT_POLICY: &str = "ratelimit-policy";
/// See [`RATE_LIMIT_POLICY`].
pub(super) const RATE_LIMIT: &str = "ratelimit";
/// Response header with the credits that the key has left.
pub(super) const CREDITS_REMAINING: &str = "talos-credits-remaining";

/// Half of an encoded response, with the ranges of bytes that few other principals have.
pub(super) struct OwnedHalf {
    pub(super) bytes: Vec<u8>,
    pub(super) own: Vec<Range<usize>>,
}

/// Encodes the part of the response that is the same for every request of a principal on a route.
///
/// `token` is the JWT that goes upstream, `fresh_until` the end of the lease by which the answer
/// counts.
pub fn encode_ok(
    settings: &Authz,
    principal: &Principal<'_>,
    token: Option<&str>,
    fresh_until: Timestamp,
) -> EncodedResponse {
    let [mut outer, ok] = encode_halves(settings, principal, token.map(|token| (token, 0)));
    outer.bytes.put_f64_le(metadata::seconds(fresh_until));
    encode(&outer.bytes, &ok.bytes, &[])
}

/// Encodes the two halves of the response of [`encode_ok`]: the fields of the CheckResponse, but
/// for the number that says until when it counts, which is the end of them; and those of its
/// OkHttpResponse. Beside the token stands the offset from which on it is the principal's own.
pub(super) fn encode_halves(
    settings: &Authz,
    principal: &Principal<'_>,
    token: Option<(&str, usize)>,
) -> [OwnedHalf; 2] {
    let mut shared = metadata::allowed(Some(principal), "ok");
    let own = metadata::split_own(&mut shared);
    // Concatenated encodings of two messages decode as their merge.
    let mut outer = outer_fields(shared);
    let own_start = outer.len();
    push_field(DYNAMIC_METADATA, &own.encode_to_vec(), &mut outer);
    let own = std::iter::once(own_start..outer.len()).collect();
    // The number stands last.
    push_field(DYNAMIC_METADATA, &metadata::fresh_until(Timestamp::from_secs(0)).encode_to_vec(), &mut outer);
    outer.truncate(outer.len() - FRESH_UNTIL_LEN);
    [OwnedHalf { bytes: outer, own }, encode_headers(settings, principal, token)]
}

/// Encodes the OkHttpResponse: first what many principals have in common, then a principal's own.
fn encode_headers(settings: &Authz, principal: &Principal<'_>, token: Option<(&str, usize)>) -> OwnedHalf {
    // Scopes are ASCII without spaces, so they need no encoding and are separated by spaces.
    let scopes = principal.scopes.to_string();
    let [key_id, actor_id, scope_list, network_id] = IDENTITY_HEADERS;
    let (mut answer, mut own_headers) = (OkHttpResponse::default(), vec![]);
    let scopes = Some(Cow::Borrowed(scopes.as_str())).filter(|scopes| !scopes.is_empty());
    for (name, value, is_own) in [
        (scope_list, scopes, false),
        (network_id, Some(header_text(&principal.network_id)), false),
        (key_id, Some(header_text(&principal.key_id)), true),
        (actor_id, principal.actor.map(header_text), true),
    ] {
        match value {
            Some(value) if is_own => own_headers.push(overwrite(name, &value)),
            Some(value) => answer.headers.push(overwrite(name, &value)),
            // Removed rather than set to an empty value.
            None => answer.headers_to_remove.push(Bytes::from_static(name.as_bytes())),
        }
    }
    if token.is_none() {
        answer.headers_to_remove.extend(own_token_header(settings));
    }
    let policy = principal.rate_limits_of.and_then(Key::rate_policy_header);
    answer.response_headers_to_add.extend(policy.map(|policy| overwrite(RATE_LIMIT_POLICY, &policy)));
    let mut bytes = answer.encode_to_vec();
    let own_start = bytes.len();
    for header in own_headers {
        push_field(HEADERS, &header.encode_to_vec(), &mut bytes);
    }
    let Some((token, token_own)) = token else {
        let own = std::iter::once(own_start..bytes.len()).collect();
        return OwnedHalf { bytes, own };
    };
    let value = format!("{BEARER}{token}");
    push_field(HEADERS, &overwrite(&settings.token_header, &value).encode_to_vec(), &mut bytes);
    // The value is followed by what `overwrite` says of every header.
    let value_end = bytes.len() - overwrite("", "").encoded_len() + HEADER_FIELD_LEN;
    let value_start = value_end - value.len();
    let own = vec![own_start..value_start, value_start + BEARER.len() + token_own..bytes.len()];
    OwnedHalf { bytes, own }
}

/// Encodes the response that lets an unauthenticated request pass. `reason` goes to the dynamic
/// metadata.
pub(super) fn encode_anonymous(settings: &Authz, reason: &'static str) -> EncodedResponse {
    let identity = IDENTITY_HEADERS.into_iter().map(|name| Bytes::from_static(name.as_bytes()));
    let answer = OkHttpResponse {
        headers_to_remove: identity.chain(own_token_header(settings)).collect(),
        ..OkHttpResponse::default()
    };
    encode(&outer_fields(metadata::allowed(None, reason)), &answer.encode_to_vec(), &[])
}

/// Returns the token header if a client must not send it: unless it is a credential source itself.
fn own_token_header(settings: &Authz) -> Option<Bytes> {
    let is_source = settings.sources.iter().any(
        |source| matches!(source, CredentialSource::Header { name, .. } if *name == settings.token_header),
    );
    let standard = settings.token_header == "authorization";
    (!is_source && !standard).then(|| Bytes::copy_from_slice(settings.token_header.as_bytes()))
}

/// Encoded fields of `OkHttpResponse` that one request adds to an encoded response, and its dynamic
/// metadata.
#[derive(Default)]
pub struct Extras {
    fields: BytesMut,
    /// Encoded fields of the CheckResponse, with dynamic metadata.
    metadata: Vec<u8>,
}

impl Extras {
    /// Removes a header of the request.
    pub fn remove_header(&mut self, name: &[u8]) {
        push_field(HEADERS_TO_REMOVE, name, &mut self.fields);
    }

    /// Overwrites a header of the request.
    pub fn set_header(&mut self, name: &str, value: &str) {
        push_field(HEADERS, &overwrite(name, value).encode_to_vec(), &mut self.fields);
    }

    /// Overwrites a header of the response to the client.
    pub fn add_response_header(&mut self, name: &str, value: &str) {
        push_field(RESPONSE_HEADERS_TO_ADD, &overwrite(name, value).encode_to_vec(), &mut self.fields);
    }

    /// Tells the client the remaining quota of the key.
    pub fn add_rate_limit(&mut self, charge: &RateDecision) {
        self.add_response_header(RATE_LIMIT, &charge.header());
    }

    /// Tells the client, and Envoy's other filters, the credits that the key has left.
    pub fn add_credits(&mut self, spent: &SpentCredits) {
        self.add_response_header(CREDITS_REMAINING, &spent.remaining.to_string());
        let metadata = metadata::credits(spent.remaining).encode_to_vec();
        push_field(DYNAMIC_METADATA, &metadata, &mut self.metadata);
    }

    /// Returns true if nothing is added.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.metadata.is_empty()
    }
}

/// Appends a field with a length.
fn push_field(field: u32, value: &[u8], out: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

/// Returns the response to one request.
///
/// Shares the encoded response, and copies it only if `extras` adds something.
pub fn encode_with_extras(ready: EncodedResponse, extras: &Extras) -> Bytes {
    if extras.is_empty() {
        return ready.bytes;
    }
    let [outer_end, ok_start] = ready.offsets;
    let (outer, ok) = (&ready.bytes[..outer_end], &ready.bytes[ok_start..]);
    if extras.metadata.is_empty() {
        return encode(outer, ok, &extras.fields).bytes;
    }
    // Concatenated encodings of two messages decode as their merge.
    encode(&[outer, &extras.metadata].concat(), ok, &extras.fields).bytes
}

/// Returns the length of what [`write_kept`] appends.
pub(super) fn kept_len(kept: &SplitResponse, extras: Option<&Extras>) -> usize {
    let [outer, ok] = kept.lens();
    let [metadata, fields] = extras.map_or([0; 2], |extras| [extras.metadata.len(), extras.fields.len()]);
    let inner = ok + fields;
    let head = key_len(OK_RESPONSE) + encoded_len_varint(inner as u64);
    outer + FRESH_UNTIL_LEN + metadata + head + inner
}

/// Appends the response to one request, made of the kept halves of [`encode_halves`]: with
/// `fresh_until`, and what `extras` adds.
pub(super) fn write_kept(
    kept: &SplitResponse,
    fresh_until: Timestamp,
    extras: Option<&Extras>,
    out: &mut Vec<u8>,
) {
    let [_, ok] = kept.lens();
    let [metadata, fields] = extras.map_or([&[][..]; 2], |extras| [&extras.metadata[..], &extras.fields[..]]);
    kept.write(out, |out| {
        out.extend_from_slice(&metadata::seconds(fresh_until).to_le_bytes());
        out.extend_from_slice(metadata);
        encode_key(OK_RESPONSE, WireType::LengthDelimited, out);
        encode_varint((ok + fields.len()) as u64, out);
    });
    out.extend_from_slice(fields);
}

/// Encodes a CheckResponse that allows a request: its other fields, then the OkHttpResponse. The
/// offsets of [`EncodedResponse`] are the end of the other fields, and the start of the
/// OkHttpResponse's fields.
fn encode(outer_fields: &[u8], ok_fields: &[u8], extras: &[u8]) -> EncodedResponse {
    let inner = ok_fields.len() + extras.len();
    let head = key_len(OK_RESPONSE) + encoded_len_varint(inner as u64);
    // With the exact capacity, conversion to `Bytes` doesn't copy.
    let mut out = Vec::with_capacity(outer_fields.len() + head + inner);
    out.put_slice(outer_fields);
    encode_key(OK_RESPONSE, WireType::LengthDelimited, &mut out);
    encode_varint(inner as u64, &mut out);
    let ok_start = out.len();
    out.put_slice(ok_fields);
    out.put_slice(extras);
    EncodedResponse { bytes: out.into(), offsets: [outer_fields.len(), ok_start] }
}

fn outer_fields(metadata: Struct) -> Vec<u8> {
    let answer = CheckResponse {
        status: Some(Status::default()),
        dynamic_metadata: Some(metadata),
        ..CheckResponse::default()
    };
    answer.encode_to_vec()
}

/// Returns the option that overwrites a header, for every version of Envoy.
///
/// Newer ones read the action, those up to 1.36 only `append`. 1.37 appends if neither is set.
pub(super) fn overwrite(name: &str, value: &str) -> HeaderValueOption {
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

/// Returns the option that adds a line of a header to a response that denies a request, beside
/// those that are there.
///
/// Envoy up to 1.36 sets each line that isn't to be appended; newer versions read the action.
pub(super) fn add_line(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption { append: None, append_action: APPEND_IF_EXISTS_OR_ADD, ..overwrite(name, value) }
}
