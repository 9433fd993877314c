//! The HTTP planes: admin, public and metrics. The layers below don't know HTTP.

mod admin;
mod audit;
mod body;
mod client_address;
mod console;
mod context;
mod epoch;
mod follow;
mod health;
mod middleware;
mod notice;
mod openapi;
mod public;
mod reply;
mod routes;
mod telemetry;
mod usage;
mod wire;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use self::admin::{actors, change, policies, state, verify};
use self::middleware::{admin_auth, catch_timeouts_and_panics, cors, cross_site, host, self_revoke_limit};
use self::openapi::status::STATUS;
use self::openapi::{
    erasure, follow as follow_operations, operations, policies as policy_operations,
    state as state_operations, usage as usage_operations,
};
use self::reply::{Reply, method_not_allowed, no_such_resource, ok};
use self::routes::Routes;
use self::telemetry::TelemetryState;

pub use body::MemoryExhausted;
pub use context::Context;
pub(crate) use openapi::outline::{OperationOutline, Outline, Row};
pub use reply::NO_SUCH_RESOURCE;
pub use wire::{check_import, listed_key};

use crate::error::ApiError;
use crate::event::Operation;
use crate::plane::Plane;
use crate::telemetry::metrics::Format;

/// Returns the router of the admin plane.
///
/// It has the public routes as well, so that existing clients need only one base URL.
pub fn admin_router(context: Context) -> Router {
    let routes = openapi::described(admin_routes()).merge(console::admin_routes());
    let with = || context.clone();
    let routes = with_fallbacks(routes)
        .layer(from_fn_with_state(with(), self_revoke_limit::limit))
        .layer(from_fn_with_state(with(), admin_auth::authenticate))
        .layer(from_fn_with_state(with(), cross_site::refuse))
        .layer(from_fn_with_state(with(), cors::on_admin))
        .layer(from_fn_with_state(with(), host::on_admin));
    with_common_layers(Plane::Admin, routes, context)
}

/// Returns the outline of the API that the admin plane describes.
pub(crate) fn api_outline() -> Outline {
    Outline::of(&openapi::description(&admin_routes()))
}

fn admin_routes() -> Routes {
    follow::with_whoami(key_routes())
}

fn key_routes() -> Routes {
    Routes::default()
        .audited(Operation::Issue, &operations::ISSUE, admin::issue)
        .at(&operations::LIST_ISSUED, admin::list_issued)
        .at(&operations::GET_ISSUED, admin::get_issued)
        .audited(Operation::Update, &operations::UPDATE_ISSUED, change::update_issued)
        .audited(Operation::Rotate, &operations::ROTATE_ISSUED, change::rotate_issued)
        .audited(Operation::Revoke, &operations::REVOKE_ISSUED, change::revoke_issued)
        .audited(Operation::Import, &operations::IMPORT, admin::import)
        .audited(Operation::ImportBatch, &operations::IMPORT_BATCH, admin::import_batch)
        .at(&operations::LIST_IMPORTED, admin::list_imported)
        .at(&operations::GET_IMPORTED, admin::get_imported)
        .audited(Operation::Update, &operations::UPDATE_IMPORTED, change::update_imported)
        .audited(Operation::Revoke, &operations::REVOKE_IMPORTED, change::revoke_imported)
        .audited(Operation::Delete, &operations::DELETE_IMPORTED, change::delete_imported)
        .audited(Operation::Delete, &erasure::DELETE_ISSUED, change::delete_issued)
        .audited(Operation::Suspend, &state_operations::SUSPEND_ISSUED, state::suspend_issued)
        .audited(Operation::Resume, &state_operations::RESUME_ISSUED, state::resume_issued)
        .audited(Operation::Finish, &state_operations::FINISH_ISSUED, state::finish)
        .audited(Operation::Suspend, &state_operations::SUSPEND_IMPORTED, state::suspend_imported)
        .audited(Operation::Resume, &state_operations::RESUME_IMPORTED, state::resume_imported)
        .at(&state_operations::GET_ACTOR, actors::get_actor)
        .audited(Operation::UpdateActor, &state_operations::UPDATE_ACTOR, actors::update_actor)
        .audited(Operation::SuspendActor, &state_operations::SUSPEND_ACTOR, actors::suspend_actor)
        .audited(Operation::ResumeActor, &state_operations::RESUME_ACTOR, actors::resume_actor)
        .audited(Operation::DeleteActor, &erasure::DELETE_ACTOR, change::delete_actor)
        .audited(Operation::Revoke, &operations::REVOKE_ANY, change::revoke_any)
        .at(&operations::VERIFY, verify::verify)
        .at(&operations::VERIFY_BATCH, verify::verify_batch)
        .audited(Operation::Derive, &operations::DERIVE, admin::derive)
        .at(&usage_operations::USAGE, usage::usage)
        .at(&STATUS, status)
        .at(&follow_operations::EVENTS, follow::events)
        .at(&follow_operations::EXPLAIN, follow::explain)
        .at(&policy_operations::LIST_POLICIES, policies::list_policies)
        .at(&policy_operations::CHECK_POLICIES, policies::check_policies)
        .at(&policy_operations::PREVIEW_SCOPES, policies::preview_scopes)
        .merge(public_routes())
}

/// Returns the router of the public plane: the operations that holders of keys may call.
pub fn public_router(context: Context) -> Router {
    let with = || context.clone();
    let routes = with_fallbacks(public_routes().into_router().merge(console::public_routes()))
        .layer(from_fn_with_state(with(), self_revoke_limit::limit))
        .layer(from_fn_with_state(with(), cors::on_public))
        .layer(from_fn_with_state(with(), host::on_public));
    with_common_layers(Plane::Public, routes, context)
}

/// Returns the router of the metrics plane.
pub fn metrics_router(context: Context) -> Router {
    let routes = health_routes().into_router();
    let routes = routes.route("/metrics", get(metrics)).route("/status", get(status));
    with_common_layers(Plane::Metrics, with_fallbacks(routes), context)
}

fn public_routes() -> Routes {
    health_routes()
        .audited(Operation::SelfRevoke, &operations::SELF_REVOKE, public::self_revoke)
        .at(&operations::JWKS, public::jwks)
        .at(&usage_operations::SELF_USAGE, usage::self_usage)
}

fn health_routes() -> Routes {
    Routes::default().at(&operations::ALIVE, health::alive).at(&operations::READY, health::ready)
}

/// Adds constant responses for unknown paths and methods.
fn with_fallbacks(routes: Router<Context>) -> Router<Context> {
    routes.fallback(not_found).method_not_allowed_fallback(async || method_not_allowed())
}

/// Adds the middleware that all planes have.
fn with_common_layers(plane: Plane, routes: Router<Context>, context: Context) -> Router {
    let state = TelemetryState { context: context.clone(), plane };
    routes
        .layer(axum::middleware::from_fn(catch_timeouts_and_panics))
        .layer(from_fn_with_state(state, telemetry::record))
        .with_state(context)
}

async fn not_found() -> ApiError {
    no_such_resource()
}

/// Returns the metrics in the accepted format. The default is Prometheus's text format.
async fn metrics(State(context): State<Context>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format =
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text };
    let text = context.metrics.render(&context.service, context.status(), format);
    ([(CONTENT_TYPE, format.media_type())], text).into_response()
}

async fn status(State(context): State<Context>) -> Reply {
    ok(StatusCode::OK, &context.status())
}
