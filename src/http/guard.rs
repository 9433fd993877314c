//! What every request passes: a bound on its time, and a panic that stays its own. Below it, what only some pass.

pub mod callers;
pub mod cors;
pub mod cross_site;
pub mod host;
pub mod throttle;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::error::{ApiError, Reason};

/// Longest time that a request may take, its body included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Answers 504 for what takes too long and 500 for what panics.
pub async fn guard(request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::new(Reason::InternalServerError, "something went wrong here").into_response(),
        Err(_) => ApiError::new(Reason::GatewayTimeout, "the request took too long").into_response(),
    }
}
