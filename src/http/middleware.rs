//! Middleware of the planes: timeouts and panics here, the others in the files below.

pub(super) mod admin_auth;
pub(super) mod cors;
pub(super) mod cross_site;
pub(super) mod host;
pub(super) mod self_revoke_limit;
pub(super) mod throttle;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::error::{ApiError, Reason};
use crate::http::openapi::follow::may_wait;
use crate::service::MAX_WAIT;

/// Maximum time for a request, including its body. One that may wait for events has half as long
/// again, for the read after its wait.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns 504 for requests that take too long, and 500 for panics.
pub(super) async fn catch_timeouts_and_panics(request: Request, next: Next) -> Response {
    let timeout = if may_wait(request.uri().path()) { TIMEOUT + MAX_WAIT / 2 } else { TIMEOUT };
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::new(Reason::InternalServerError, "internal error").into_response(),
        Err(_) => ApiError::new(Reason::GatewayTimeout, "the request took too long").into_response(),
    }
}
