//! What a refused client is shown: each kind of client gets what it can read.

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use talos_proto::{CheckResponse, DeniedHttpResponse, HttpStatus, Status};

use super::metadata;
use super::refusal::{Refusal, Refused};
use super::request::Headers;
use super::response::overwrite;
use super::template::{Template, Templates, Values};
use crate::config::Authz;
use crate::error::ApiError;

/// Field of CheckResponse that holds the dynamic metadata.
const DYNAMIC_METADATA: u32 = 4;

/// What a refusal shows when no template of the operator's says otherwise.
const PAGE: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{{status}} {{title}}</title>\n\
    <h1>{{status}} {{title}}</h1>\n<p>{{message}}</p></html>\n";

/// Encodes a refusal. The HTTP status is always set: without it Envoy would make every refusal a 403.
pub fn denied(refused: Refused, settings: &Authz, templates: &Templates, headers: &Headers<'_>) -> Bytes {
    let Refused { refusal, known } = refused;
    let error = refusal.error(settings.reveal_reason);
    let status = error.reason.http();
    let Shown { content_type, body, extra } = shown(&refusal, &error, templates, headers);
    let challenge = refusal.challenge(&settings.realm, settings.reveal_reason);
    let mut lines = vec![overwrite("content-type", &content_type)];
    lines.extend(challenge.map(|challenge| overwrite("www-authenticate", &challenge)));
    lines.extend(refusal.rate_headers().into_iter().map(|(name, value)| overwrite(name, &value)));
    lines.extend(extra.into_iter().map(|(name, value)| overwrite(name, &value)));
    let answer = CheckResponse {
        status: Some(Status { code: refusal.grpc_code(), message: error.message.to_string() }),
        denied_response: Some(DeniedHttpResponse {
            status: Some(HttpStatus { code: status.into() }),
            headers: lines,
            body,
        }),
        ok_response: None,
        dynamic_metadata: None,
    };
    let mut answer = answer.encode_to_vec();
    // Encoded messages one after the other are one that has the fields of both.
    let decided = metadata::denied(refusal.label()).encode_to_vec();
    encode_key(DYNAMIC_METADATA, WireType::LengthDelimited, &mut answer);
    encode_varint((decided.len() + known.len()) as u64, &mut answer);
    answer.extend_from_slice(&decided);
    answer.extend_from_slice(&known);
    answer.into()
}

struct Shown<'a> {
    content_type: String,
    body: String,
    extra: Vec<(&'a str, String)>,
}

fn shown<'a>(
    refusal: &Refusal,
    error: &ApiError,
    templates: &'a Templates,
    headers: &Headers<'_>,
) -> Shown<'a> {
    if headers.is_grpc() {
        // Envoy makes the body the message of the gRPC status. The code that it makes of the HTTP status is the wrong
        // one for a malformed request; ours is taken instead.
        let extra = vec![("grpc-status", refusal.grpc_code().to_string())];
        return Shown { content_type: "text/plain".to_owned(), body: error.message.to_string(), extra };
    }
    let status = error.reason.http();
    let scopes = match refusal {
        Refusal::InsufficientScope(scopes) => scopes.to_string(),
        _ => String::new(),
    };
    let values = Values {
        status,
        title: StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Refused"),
        message: &error.message,
        reason: error.reason.name(),
        scopes: &scopes,
        request_id: headers.request_id(),
    };
    if let Some(template) = templates.find(status, headers) {
        let extra = template.headers().map(|(name, value)| (name, value.to_owned())).collect();
        return Shown {
            content_type: template.content_type().to_owned(),
            body: template.fill(&values),
            extra,
        };
    }
    if headers.prefers("text/html") {
        let body = Template::html(PAGE).fill(&values);
        return Shown { content_type: "text/html; charset=utf-8".to_owned(), body, extra: vec![] };
    }
    Shown { content_type: "application/json".to_owned(), body: error.to_json().to_string(), extra: vec![] }
}
