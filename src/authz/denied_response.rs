//! Encoding of responses that deny a request, in a format that the client can read.

use bytes::Bytes;
use http::StatusCode;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use talos_proto::{CheckResponse, DeniedHttpResponse, HttpStatus, Status};

use super::challenge::Authenticator;
use super::deny_reason::{DeniedRequest, DenyReason};
use super::hint::hint;
use super::metadata;
use super::request::{GRPC_WEB, Headers};
use super::response::{DYNAMIC_METADATA, overwrite};
use super::template::{Template, Templates, Values};
use crate::config::Authz;
use crate::error::ApiError;

/// ASCII characters that are encoded in `grpc-message`.
const GRPC_ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// HTML page for browsers, unless the operator has a template.
const DEFAULT_PAGE: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{{status}} {{title}}</title>\n\
    <h1>{{status}} {{title}}</h1>\n<p>{{message}}</p></html>\n";

/// Encodes the response to a denied request.
///
/// `request_id` is visible ASCII. The HTTP status is always set. Without it Envoy would send 403
/// for all reasons.
pub(super) fn encode_denied(
    denied: DeniedRequest,
    settings: &Authz,
    templates: &Templates,
    headers: &Headers<'_>,
    request_id: &str,
) -> Bytes {
    let DeniedRequest { reason, principal } = denied;
    let mut error = reason.error(settings.reveal_reason);
    error.metadata.extend(hint(&reason, headers, &settings.sources).map(|hint| ("hint", hint)));
    let authenticator = Authenticator::of(&settings.sources, headers);
    let status = match reason.asks_for_credential() {
        true => authenticator.status(),
        false => error.reason.http(),
    };
    let Content { content_type, body, extra_headers } =
        content(&reason, &error, status, templates, headers, request_id);
    let mut lines = vec![overwrite("content-type", &content_type)];
    lines.push(overwrite("x-request-id", request_id));
    lines.extend(authenticator.challenges(&reason, settings));
    lines.extend(reason.rate_headers().into_iter().map(|(name, value)| overwrite(name, &value)));
    lines.extend(extra_headers.into_iter().map(|(name, value)| overwrite(name, &value)));
    let response = CheckResponse {
        status: Some(Status { code: reason.grpc_code(), message: error.message.to_string() }),
        denied_response: Some(DeniedHttpResponse {
            status: Some(HttpStatus { code: status.into() }),
            headers: lines,
            body,
        }),
        ok_response: None,
        dynamic_metadata: None,
    };
    let mut response = response.encode_to_vec();
    // Concatenated encodings of two messages decode as their merge.
    let mut decision = metadata::denied(reason.label());
    if let DenyReason::CreditsExhausted(spent) = &reason {
        decision.fields.extend(metadata::credits(spent.remaining).fields);
    }
    let decision = decision.encode_to_vec();
    encode_key(DYNAMIC_METADATA, WireType::LengthDelimited, &mut response);
    encode_varint((decision.len() + principal.len()) as u64, &mut response);
    response.extend_from_slice(&decision);
    response.extend_from_slice(&principal);
    response.into()
}

/// Returns the error as JSON. Its code is the HTTP status.
fn json(error: &ApiError, status: u16, request_id: &str) -> serde_json::Value {
    let error = ApiError { message: with_hint(error).into(), ..error.clone() };
    let mut json = error.to_json(request_id);
    if let Some(code) = json.pointer_mut("/error/code") {
        *code = status.into();
    }
    json
}

struct Content<'a> {
    content_type: String,
    body: String,
    extra_headers: Vec<(&'a str, String)>,
}

/// Returns the body and its type: in the form of gRPC or gRPC-Web for their clients, else by the
/// operator's templates, as HTML for browsers, or as JSON.
fn content<'a>(
    reason: &DenyReason,
    error: &ApiError,
    status: u16,
    templates: &'a Templates,
    headers: &Headers<'_>,
    request_id: &str,
) -> Content<'a> {
    if headers.is_grpc_web() {
        // Envoy takes it for plain HTTP, so the status and its message are set here. A text would
        // be no message of gRPC-Web; without a body, Envoy drops the content type.
        let message = utf8_percent_encode(&error.message, GRPC_ENCODED).to_string();
        let extra_headers = vec![("grpc-status", reason.grpc_code().to_string()), ("grpc-message", message)];
        return Content { content_type: GRPC_WEB.to_owned(), body: String::new(), extra_headers };
    }
    if headers.is_grpc() {
        // Envoy sends the body as the message of the gRPC status. Its mapping of HTTP statuses to
        // gRPC codes is wrong for malformed requests, so the code is set here.
        let extra_headers = vec![("grpc-status", reason.grpc_code().to_string())];
        return Content {
            content_type: "text/plain".to_owned(),
            body: error.message.to_string(),
            extra_headers,
        };
    }
    let scopes = match reason {
        DenyReason::InsufficientScope(demand) => demand.needed.to_string(),
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
        hint: hint_of(error).unwrap_or_default(),
        request_id,
    };
    if let Some(template) = templates.find(status, headers) {
        let extra_headers = template.headers().map(|(name, value)| (name, value.to_owned())).collect();
        return Content {
            content_type: template.content_type().to_owned(),
            body: template.render(&values),
            extra_headers,
        };
    }
    if headers.prefers("text/html") {
        let message = with_hint(error);
        let values = Values { message: &message, ..values };
        let body = Template::html_page(DEFAULT_PAGE).render(&values);
        let content_type = "text/html; charset=utf-8".to_owned();
        return Content { content_type, body, extra_headers: vec![] };
    }
    Content {
        content_type: "application/json".to_owned(),
        body: json(error, status, request_id).to_string(),
        extra_headers: vec![],
    }
}

/// The advice, if there is some.
fn hint_of(error: &ApiError) -> Option<&str> {
    error.metadata.iter().find(|(name, _)| *name == "hint").map(|(_, hint)| hint.as_str())
}

/// The message with its advice.
fn with_hint(error: &ApiError) -> String {
    match hint_of(error) {
        Some(hint) => format!("{}: {hint}", error.message),
        None => error.message.to_string(),
    }
}
