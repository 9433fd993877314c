//! Rate limit of selfRevoke and usage:self, which anybody may call with a credential.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until};

use crate::error::{ApiError, Reason};
use crate::http::client_address::client_address;
use crate::http::context::Context;
use crate::http::openapi::operations;
use crate::plane::Plane;
use crate::telemetry::refused_requests::RequestRefusal;

/// Refusals of unknown credentials take a multiple of this time, which hides the duration of the
/// lookup.
const REFUSAL_STEP: Duration = Duration::from_millis(25);

/// Applies one rate limit per client to selfRevoke and usage:self together, and delays refusals of
/// unknown credentials to a multiple of [`REFUSAL_STEP`].
pub(crate) async fn limit(State(context): State<Context>, request: Request, next: Next) -> Response {
    let refusal = match request.uri().path() {
        path if path == operations::SELF_REVOKE.path => "too many keys are being revoked; try again later",
        operations::SELF_USAGE_PATH => "too many reports are being asked for; try again later",
        _ => return next.run(request).await,
    };
    let settings = context.service.snapshot();
    let client = client_address(settings.client_ip_source, &request);
    let now = context.service.clock.boot_now();
    if let Err(wait) = context.throttle.take(client, &settings.self_revoke, now) {
        context.metrics.refused_requests.count(Plane::Public, RequestRefusal::TooMany);
        let error = ApiError::new(Reason::TooManyRequests, refusal);
        let mut response = error.into_response();
        response.headers_mut().insert(RETRY_AFTER, (wait.as_secs() + 1).into());
        return response;
    }
    let began = Instant::now();
    let response = next.run(request).await;
    if response.extensions().get::<Reason>() == Some(&Reason::UnknownCredential) {
        let steps = began.elapsed().as_micros() / REFUSAL_STEP.as_micros() + 1;
        sleep_until(began + REFUSAL_STEP * u32::try_from(steps).unwrap_or(1)).await;
    }
    response
}
