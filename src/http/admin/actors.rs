//! Handlers of actors: reading, updating, suspending and resuming.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;

use super::extract::{AuditedCall, CustomMethodId, PathId, QueryPairs};
use crate::error::ApiError;
use crate::http::body;
use crate::http::context::{Context, NetworkSettings};
use crate::http::epoch::with_epoch;
use crate::http::notice::{warnings_of_actor, with_notice_of_actor};
use crate::http::reply::{Reply, ok};
use crate::http::wire::{ActorBody, ActorOut, EmptyBody, SuspendBody, actor_update};
use crate::key::ActorId;
use crate::service::{Acknowledged, CountedActor, SuspendRequest};
use crate::settings::Settings;

pub(crate) async fn get_actor(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(actor): PathId,
) -> Reply {
    let counted = context.service.get_actor(settings.network, &actor_id(&actor)?).await?;
    respond(&context, &settings, &counted)
}

pub(crate) async fn update_actor(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(actor): PathId,
    QueryPairs(query): QueryPairs,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let id = actor_id(&actor)?;
    let body: ActorBody = body::read(request, body::ADMIN_LIMIT).await?;
    let update = actor_update(&actor, &query, body)?;
    let changed = context.service.update_actor(settings.network, &id, update, &call).await?;
    let warnings = warnings_of_actor(&settings, &changed.value.actor);
    let response = changed_actor(&context, &settings, Ok(changed))?;
    Ok(with_notice_of_actor(response, &warnings))
}

pub(crate) async fn suspend_actor(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(actor): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let id = actor_id(&actor)?;
    let body: SuspendBody = body::read(request, body::ADMIN_LIMIT).await?;
    let request = SuspendRequest::try_from(body)?;
    let changed = context.service.suspend_actor(settings.network, &id, request, &call).await;
    changed_actor(&context, &settings, changed)
}

pub(crate) async fn resume_actor(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(actor): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let id = actor_id(&actor)?;
    let EmptyBody {} = body::read(request, body::ADMIN_LIMIT).await?;
    let changed = context.service.resume_actor(settings.network, &id, &call).await;
    changed_actor(&context, &settings, changed)
}

/// Parses the actor id of the path. Refuses ids with white space at an end, which earlier releases
/// accepted: some databases take them for equal to the trimmed id.
fn actor_id(text: &str) -> Result<ActorId, ApiError> {
    ActorId::parse(text).map_err(|error| ApiError::field("actor_id", error.0))
}

/// Returns the response with an actor after its change.
fn changed_actor(
    context: &Context,
    settings: &Settings,
    changed: Result<Acknowledged<CountedActor>, ApiError>,
) -> Reply {
    let Acknowledged { value: counted, epoch } = changed?;
    Ok(with_epoch(respond(context, settings, &counted)?, epoch))
}

/// Returns the response with an actor.
fn respond(context: &Context, settings: &Settings, counted: &CountedActor) -> Reply {
    let out = ActorOut::new(counted, context.service.clock.now());
    ok(StatusCode::OK, &out.with_warnings(warnings_of_actor(settings, &counted.actor)))
}
