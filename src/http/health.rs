//! Handlers of liveness and readiness. They never query the database.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;

use super::context::Context;
use super::reply::json;

/// Succeeds while the process runs.
pub(super) async fn alive() -> impl IntoResponse {
    json(r#"{"status":"ok"}"#.to_owned())
}

/// Succeeds while the database answers.
pub(super) async fn ready(State(context): State<Context>) -> impl IntoResponse {
    match context.readiness.is_database_up(&context.service.clock) {
        true => (StatusCode::OK, json(r#"{"status":"ok"}"#.to_owned())),
        false => (StatusCode::SERVICE_UNAVAILABLE, json(r#"{"status":"unavailable"}"#.to_owned())),
    }
}
