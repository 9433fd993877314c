//! The HTTP planes: admin, public and metrics. From here on down nobody knows HTTP.

mod admin;
mod body;
mod guard;
mod health;
mod public;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use admin::{change, verify};

pub use wire::listed_key;

use crate::error::{ApiError, Reason};
use crate::readiness::Readiness;
use crate::service::Service;
use crate::telemetry::metrics::Metrics;

/// What the handlers work with.
#[derive(Clone)]
pub struct Context {
    /// The operations.
    pub service: Arc<Service>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether we are ready.
    pub readiness: Arc<Readiness>,
}

/// The address at the other end of the connection; None on a Unix socket.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<IpAddr>);

/// Where a holder revokes a key.
const SELF_REVOKE: &str = "/v2alpha1/apiKeys:selfRevoke";
/// Where the public keys are published.
const JWKS: &str = "/v2alpha1/derivedKeys/jwks.json";

/// The admin plane. It serves the public routes as well, so that one base URL serves existing clients.
pub fn admin_router(context: Context) -> Router {
    const ISSUED: &str = "/v2alpha1/admin/issuedApiKeys";
    const IMPORTED: &str = "/v2alpha1/admin/importedApiKeys";
    let issued = get(admin::get_issued).patch(change::update_issued).post(change::act_on_issued);
    let imported = get(admin::get_imported)
        .patch(change::update_imported)
        .delete(change::delete_imported)
        .post(change::act_on_imported);
    let routes = Router::new()
        .route(ISSUED, post(admin::issue).get(admin::list_issued))
        .route(&format!("{ISSUED}/{{id}}"), issued)
        .route(IMPORTED, post(admin::import).get(admin::list_imported))
        .route(&format!("{IMPORTED}:batchCreate"), post(admin::import_batch))
        .route(&format!("{IMPORTED}/{{id}}"), imported)
        .route("/v2alpha1/admin/apiKeys/{id}", post(change::act_on_any))
        .route("/v2alpha1/admin/apiKeys:verify", post(verify::verify))
        .route("/v2alpha1/admin/apiKeys:batchVerify", post(verify::verify_batch))
        .route("/v2alpha1/admin/apiKeys:derive", post(admin::derive));
    finish(routes.merge(public_routes()), context)
}

/// The public plane: what a key's holder may do, and nothing else.
pub fn public_router(context: Context) -> Router {
    finish(public_routes(), context)
}

/// The metrics plane.
pub fn metrics_router(context: Context) -> Router {
    finish(health::routes().route("/metrics", get(metrics)), context)
}

fn public_routes() -> Router<Context> {
    health::routes().route(SELF_REVOKE, post(public::self_revoke)).route(JWKS, get(public::jwks))
}

/// What every plane has: one constant answer to what it doesn't know, and bounds on what it does.
fn finish(routes: Router<Context>, context: Context) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(async || {
            ApiError::new(Reason::MethodNotAllowed, "this resource has no such method")
        })
        .layer(axum::middleware::from_fn(guard::guard))
        .with_state(context)
}

async fn not_found() -> ApiError {
    no_such_resource()
}

fn no_such_resource() -> ApiError {
    ApiError::new(Reason::NotFound, "there is no such resource")
}

async fn metrics(State(context): State<Context>) -> Response {
    let text = context.metrics.render(&context.service);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.reason.http())
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        (status, json(self.to_json().to_string())).into_response()
    }
}

/// A JSON body. Answers of ours are about keys: nobody on the way may keep them.
fn json(text: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], text)
}
