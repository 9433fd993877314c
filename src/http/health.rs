//! Liveness and readiness: bodies without detail, and never a query per request.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;

use super::{Context, json};

/// The process runs.
pub async fn alive() -> impl IntoResponse {
    json(r#"{"status":"ok"}"#.to_owned())
}

/// The database answers.
pub async fn ready(State(context): State<Context>) -> impl IntoResponse {
    match context.readiness.is_database_up(&context.service.clock) {
        true => (StatusCode::OK, json(r#"{"status":"ok"}"#.to_owned())),
        false => (StatusCode::SERVICE_UNAVAILABLE, json(r#"{"status":"unavailable"}"#.to_owned())),
    }
}
