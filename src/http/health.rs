//! Liveness and readiness: bodies without detail, and never a query per request.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;

use super::{Context, json};

/// The two routes of health.
pub fn routes() -> Router<Context> {
    Router::new().route("/health/alive", get(alive)).route("/health/ready", get(ready))
}

async fn alive() -> impl IntoResponse {
    json(r#"{"status":"ok"}"#.to_owned())
}

async fn ready(State(context): State<Context>) -> impl IntoResponse {
    match context.readiness.database_answers(&context.service.clock) {
        true => (StatusCode::OK, json(r#"{"status":"ok"}"#.to_owned())),
        false => (StatusCode::SERVICE_UNAVAILABLE, json(r#"{"status":"unavailable"}"#.to_owned())),
    }
}
