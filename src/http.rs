//! The HTTP planes: admin, public and metrics. From here on down nobody knows HTTP.

mod admin;
mod body;
mod epoch;
mod guard;
mod health;
mod notice;
mod observe;
mod openapi;
mod public;
mod recorded;
mod routes;
mod wire;

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use self::admin::{change, verify};
use self::observe::Observed;
use self::openapi::operations;
use self::routes::Routes;

pub use guard::throttle::Throttle;
pub use wire::listed_key;

use crate::admission::Admission;
use crate::error::{ApiError, Reason};
use crate::event::Operation;
use crate::plane::Plane;
use crate::readiness::Readiness;
use crate::service::Service;
use crate::settings::Settings;
use crate::telemetry::metrics::{Format, Metrics};
use crate::telemetry::status::{Process, Status};

/// The settings for the host that a request is for: its network's own, from its beginning to its end.
type InForce = Extension<Arc<Settings>>;

/// What the handlers work with.
#[derive(Clone)]
pub struct Context {
    /// The operations.
    pub service: Arc<Service>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether we are ready.
    pub readiness: Arc<Readiness>,
    /// What is known of the process.
    pub process: Arc<Process>,
    /// Whether questions about health stay out of the request log.
    pub exclude_health: bool,
    /// Who may call the admin plane.
    pub admission: Arc<Admission>,
    /// How often selfRevoke is called.
    pub throttle: Arc<Throttle>,
}

/// The admin plane. It serves the public routes as well, so that one base URL serves existing clients.
pub fn admin_router(context: Context) -> Router {
    let routes = openapi::described(admin_routes());
    let with = || context.clone();
    let routes = answering_for_nothing_else(routes)
        .layer(from_fn_with_state(with(), guard::throttle::limit))
        .layer(from_fn_with_state(with(), guard::callers::identify))
        .layer(from_fn_with_state(with(), guard::cross_site::refuse))
        .layer(from_fn_with_state(with(), guard::cors::on_admin))
        .layer(from_fn_with_state(with(), guard::host::on_admin));
    finish(Plane::Admin, routes, context)
}

fn admin_routes() -> Routes {
    Routes::default()
        .recorded(Operation::Issue, &operations::ISSUE, admin::issue)
        .at(&operations::LIST_ISSUED, admin::list_issued)
        .at(&operations::GET_ISSUED, admin::get_issued)
        .recorded(Operation::Update, &operations::UPDATE_ISSUED, change::update_issued)
        .recorded(Operation::Rotate, &operations::ROTATE_ISSUED, change::rotate_issued)
        .recorded(Operation::Revoke, &operations::REVOKE_ISSUED, change::revoke_issued)
        .recorded(Operation::Import, &operations::IMPORT, admin::import)
        .recorded(Operation::ImportBatch, &operations::IMPORT_BATCH, admin::import_batch)
        .at(&operations::LIST_IMPORTED, admin::list_imported)
        .at(&operations::GET_IMPORTED, admin::get_imported)
        .recorded(Operation::Update, &operations::UPDATE_IMPORTED, change::update_imported)
        .recorded(Operation::Revoke, &operations::REVOKE_IMPORTED, change::revoke_imported)
        .recorded(Operation::Delete, &operations::DELETE_IMPORTED, change::delete_imported)
        .recorded(Operation::Revoke, &operations::REVOKE_ANY, change::revoke_any)
        .at(&operations::VERIFY, verify::verify)
        .at(&operations::VERIFY_BATCH, verify::verify_batch)
        .recorded(Operation::Derive, &operations::DERIVE, admin::derive)
        .merge(public_routes())
}

/// The public plane: what a key's holder may do, and nothing else.
pub fn public_router(context: Context) -> Router {
    let with = || context.clone();
    let routes = answering_for_nothing_else(public_routes().into_router())
        .layer(from_fn_with_state(with(), guard::throttle::limit))
        .layer(from_fn_with_state(with(), guard::cors::on_public))
        .layer(from_fn_with_state(with(), guard::host::on_public));
    finish(Plane::Public, routes, context)
}

/// The metrics plane.
pub fn metrics_router(context: Context) -> Router {
    let routes = health_routes().into_router();
    let routes = routes.route("/metrics", get(metrics)).route("/status", get(status));
    finish(Plane::Metrics, answering_for_nothing_else(routes), context)
}

fn public_routes() -> Routes {
    health_routes()
        .recorded(Operation::SelfRevoke, &operations::SELF_REVOKE, public::self_revoke)
        .at(&operations::JWKS, public::jwks)
}

fn health_routes() -> Routes {
    Routes::default().at(&operations::ALIVE, health::alive).at(&operations::READY, health::ready)
}

/// One constant answer to what a plane doesn't know.
fn answering_for_nothing_else(routes: Router<Context>) -> Router<Context> {
    routes.fallback(not_found).method_not_allowed_fallback(async || method_not_allowed())
}

/// What every plane has: bounds on what it does.
fn finish(plane: Plane, routes: Router<Context>, context: Context) -> Router {
    let observed = Observed { context: context.clone(), plane };
    routes
        .layer(axum::middleware::from_fn(guard::guard))
        .layer(from_fn_with_state(observed, observe::observe))
        .with_state(context)
}

/// Whether a path is that of a probe.
fn is_health(path: &str) -> bool {
    [operations::ALIVE.path, operations::READY.path].contains(&path)
}

/// Whether a path is one of those that everybody may use, on whichever plane.
fn is_for_anyone(path: &str) -> bool {
    is_health(path) || [operations::SELF_REVOKE.path, operations::JWKS.path].contains(&path)
}

async fn not_found() -> ApiError {
    no_such_resource()
}

fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "this resource has no such method")
}

fn no_such_resource() -> ApiError {
    ApiError::new(Reason::NotFound, "there is no such resource")
}

/// In the format that is asked for; Prometheus's own when nothing is said.
async fn metrics(State(context): State<Context>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format =
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text };
    let text = context.metrics.render(&context.service, context.status(), format);
    ([(CONTENT_TYPE, format.media_type())], text).into_response()
}

async fn status(State(context): State<Context>) -> Result<Response, ApiError> {
    let text = serde_json::to_string(&context.status());
    let text = text.map_err(|_| ApiError::new(Reason::InternalServerError, "the status can't be written"))?;
    Ok(json(text).into_response())
}

impl Context {
    fn status(&self) -> Status {
        Status::read(&self.service, &self.metrics, &self.readiness, &self.process)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.reason.http())
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        // For whoever tells of answers.
        (status, Extension(self.reason), json(self.to_json().to_string())).into_response()
    }
}

/// A JSON body. Answers of ours are about keys: nobody on the way may keep them.
fn json(text: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], text)
}
