//! Responses that several handlers and middleware send.

use std::sync::Arc;

use axum::Extension;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{ApiError, Reason};

/// Result of a handler.
pub(super) type Reply = Result<Response, ApiError>;

/// Returns a response with a JSON body of `value`.
///
/// # Errors
/// Fails if the value can't be serialised.
pub(super) fn ok<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let text = serde_json::to_string(value)
        .map_err(|_| ApiError::new(Reason::InternalServerError, "the response can't be serialised"))?;
    Ok((status, json(text)).into_response())
}

/// Returns a JSON body. Responses are about keys, so no proxy may cache them.
pub(super) fn json(text: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], text)
}

/// Returns the error for a method that a resource doesn't have.
pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "this resource has no such method")
}

/// Message of the error for an unknown path.
pub const NO_SUCH_RESOURCE: &str = "there is no such resource";

/// Returns the error for an unknown path.
pub(super) fn no_such_resource() -> ApiError {
    ApiError::new(Reason::NotFound, NO_SUCH_RESOURCE)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.reason.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json(self.to_json("").to_string());
        // The audit log and the throttle read the reason. The telemetry layer, which knows the id
        // of the request, adds it to the body.
        (status, Extension(self.reason), Extension(Arc::new(self)), body).into_response()
    }
}
