//! Telemetry of each request: a log line, metrics and a span.
//!
//! They contain the route, but never the content of path, query or body.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::context::Context;
use crate::error::{ApiError, Reason};
use crate::plane::Plane;
use crate::telemetry::ory_metrics::{Exchange, OryMetrics};
use crate::trace;

/// Header with the request id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a request id, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// Route label of unknown paths.
const UNMATCHED: &str = "unmatched";

/// State of the layer.
#[derive(Clone)]
pub(super) struct TelemetryState {
    /// Context of the planes.
    pub context: Context,
    /// The plane.
    pub plane: Plane,
}

/// Request id of the client, or a generated one.
#[derive(Clone)]
pub(super) struct RequestId(pub String);

/// The path of the operation that answered.
#[derive(Clone, Copy)]
pub(super) struct Route(pub &'static str);

/// Runs a request and records it.
pub(super) async fn record(
    State(state): State<TelemetryState>,
    mut request: Request,
    next: Next,
) -> Response {
    let TelemetryState { context, plane } = state;
    let clock = &context.service.clock;
    let began = clock.boot_now();
    let method = method_name(request.method());
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let request_id =
        request_id(request.headers()).unwrap_or_else(|| context.service.rng.uuid().hyphenated().to_string());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let parent = request.headers().get("traceparent").map(|value| value.as_bytes().to_vec());
    let ory = context.metrics.ory.as_ref().filter(|_| plane != Plane::Metrics);
    let in_flight = ory.map(OryMetrics::begin);
    let request_bytes = content_length(request.headers());
    let work = async {
        let response = next.run(request).await;
        let route = match (response.extensions().get::<Route>(), matched) {
            (Some(Route(path)), _) => Cow::Borrowed(*path),
            (None, Some(path)) => Cow::Owned(path),
            (None, None) => Cow::Borrowed(UNMATCHED),
        };
        let status = response.status().as_u16();
        trace::set_attribute("http.request.method", method);
        trace::set_attribute("http.route", route.clone().into_owned());
        trace::set_attribute("http.response.status_code", i64::from(status));
        trace::set_attribute("talos.plane", plane.name());
        trace::set_attribute("talos.request_id", request_id.clone());
        let took = clock.boot_now().since(began);
        // Within the span, so that the line has the id of its trace.
        if !(context.service.settings.load().exclude_health && route.starts_with("/health/")) {
            let duration_ms = took.as_secs_f64() * 1e3;
            let plane = plane.name();
            tracing::info!(plane, method, route = &*route, status, duration_ms, request_id, "request");
        }
        (response, route, status, took)
    };
    let span = trace::start_server_span(method, parent.as_deref())
        .or_else(|| trace::span_of_caller(parent.as_deref()));
    let (mut response, route, status, took) = match span {
        Some(span) => span.run(work).await,
        None => work.await,
    };
    identify(&mut response, method, &request_id);
    if let Some(ory) = ory {
        let response_bytes = response.body().size_hint().lower();
        let route = route.clone();
        ory.record(Exchange { method, route, status, took, request_bytes, response_bytes });
    }
    drop(in_flight);
    context.metrics.requests.count(plane, route, method, status, took);
    response
}

/// Adds the request id to the headers and, for an error, to the body.
fn identify(response: &mut Response, method: &str, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let error = response.extensions_mut().remove::<Arc<ApiError>>();
    // selfRevoke has one constant answer to everything that isn't a usable key.
    let is_constant = |error: &Arc<ApiError>| error.reason == Reason::UnknownCredential;
    if let Some(error) = error.filter(|error| method != "HEAD" && !is_constant(error)) {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = error.to_json(request_id).to_string().into();
    }
}

/// Returns the announced size of a body; 0 if none is announced.
fn content_length(headers: &HeaderMap) -> u64 {
    let text = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Returns the method label. Unknown methods share one.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Returns the client's request id if it is short and printable.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-request-id")?.to_str().ok()?;
    let good = (1..=MAX_REQUEST_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_request_id_is_short_and_visible() {
        let read = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_bytes(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(read(b"5f0c-1"), Some("5f0c-1".to_owned()));
        for bad in [&b""[..], b"a b", b"\xff", &[b'a'; 129]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(request_id(&HeaderMap::new()), None);
    }
}
