//! Handlers for those who follow changes, ask what the edge would decide, and who they are.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::admin::extract::QueryPairs;
use super::body;
use super::context::{Context, NetworkSettings};
use super::epoch::with_epoch;
use super::openapi::follow::WHOAMI;
use super::openapi::operation::Access;
use super::reply::{Reply, ok};
use super::routes::Routes;
use super::wire::{EventsOut, ExplainBody, ExplainOut, WhoamiOut, follow_request};
use crate::caller::{Caller, Role};
use crate::error::{ApiError, Reason};
use crate::service::explain::ExplainRequest;

/// Media type of a batch of CloudEvents, which has nothing beside them.
const BATCH: &str = "application/cloudevents-batch+json";
/// Response header with the next `after`.
const NEXT: HeaderName = HeaderName::from_static("talos-next-after");

/// Operations of a role, by their ids.
type Allowed = Arc<[(Access, &'static str)]>;

pub(super) async fn events(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    QueryPairs(query): QueryPairs,
    headers: HeaderMap,
) -> Reply {
    let (network, request) = (settings.network, follow_request(query)?);
    let followed = context.service.follow(network, request, context.readiness.draining()).await?;
    let events = EventsOut::new(followed, network);
    let mut response = match accepts_batch(&headers) {
        false => ok(StatusCode::OK, &events)?,
        true => batch(&events)?,
    };
    if let Ok(next) = HeaderValue::from_str(events.next()) {
        response.headers_mut().insert(NEXT, next);
    }
    Ok(with_epoch(response, Some(events.epoch())))
}

fn accepts_batch(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    ranges.any(|range| range.split(';').next().is_some_and(|range| range.trim().eq_ignore_ascii_case(BATCH)))
}

fn batch(events: &EventsOut) -> Result<Response, ApiError> {
    let text = serde_json::to_string(events.batch())
        .map_err(|_| ApiError::new(Reason::InternalServerError, "the response can't be serialised"))?;
    Ok(([(CONTENT_TYPE, BATCH), (CACHE_CONTROL, "no-store")], text).into_response())
}

pub(super) async fn explain(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    request: Request,
) -> Reply {
    let body: ExplainBody = body::read(request, body::PUBLIC_LIMIT).await?;
    let request = ExplainRequest::try_from(body)?;
    let explanation = context.explainer.explain(&settings, &request).await;
    ok(StatusCode::OK, &ExplainOut::from(explanation))
}

/// Adds the operation that tells callers who they are and what they may do of `routes`.
pub(super) fn with_whoami(routes: Routes) -> Routes {
    let operations = routes.operations().iter().map(|operation| (operation.access, operation.id));
    let allowed: Allowed = operations.chain([(WHOAMI.access, WHOAMI.id)]).collect();
    routes.at(&WHOAMI, move |context: State<Context>, settings: NetworkSettings, request: Request| {
        let allowed = Arc::clone(&allowed);
        async move { whoami(&allowed, &context, &settings, &request) }
    })
}

fn whoami(allowed: &Allowed, context: &Context, settings: &NetworkSettings, request: &Request) -> Reply {
    let caller = request.extensions().get::<Caller>().cloned();
    let caller =
        caller.ok_or_else(|| ApiError::new(Reason::Unauthorized, "the caller is not authenticated"))?;
    let may = |access: Access| match access {
        Access::Anyone => true,
        Access::From(least) => caller.role >= least,
    };
    let operations = allowed.iter().filter(|(access, _)| may(*access)).map(|(_, id)| *id).collect();
    let out = WhoamiOut::new(&caller, context.admin_auth.mode(), settings.network, operations);
    let server = context.service.snapshot();
    let networks = server.all().filter_map(|(host, network)| Some((host?, network.network)));
    ok(StatusCode::OK, &out.with_networks(networks.filter(|_| caller.role == Role::Admin)))
}
