//! Handlers that change a key: update, rotate, revoke, delete.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;

use super::extract::{AuditedCall, CustomMethodId, PathId, QueryPairs};
use crate::audit::Call;
use crate::error::ApiError;
use crate::http::body;
use crate::http::context::{Context, NetworkSettings};
use crate::http::epoch::with_epoch;
use crate::http::notice::{warnings, with_earlier_revocation, with_notice};
use crate::http::reply::{Reply, ok};
use crate::http::wire::{
    ErasedActorOut, KeyBody, KeyOut, RevokeBody, RotateBody, RotateOut, WrappedImported, WrappedIssued,
    Wrapper, force, reason, update, update_mask,
};
use crate::key::{ActorId, KeyKind, Revocation};
use crate::service::{Acknowledged, RotateRequest};
use crate::settings::Settings;

pub(crate) async fn update_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(id): PathId,
    QueryPairs(query): QueryPairs,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    update_key(&context, &settings, KeyKind::Issued, &id, query, request, &call).await
}

pub(crate) async fn update_imported(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(id): PathId,
    QueryPairs(query): QueryPairs,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    update_key(&context, &settings, KeyKind::Imported, &id, query, request, &call).await
}

async fn update_key(
    context: &Context,
    settings: &Arc<Settings>,
    kind: KeyKind,
    id: &str,
    query: Vec<(String, String)>,
    request: Request,
    call: &Call,
) -> Reply {
    let mask = update_mask(query)?;
    let text = body::read_text(request, body::ADMIN_LIMIT).await?;
    let (fixed, update) = update(&mask, unwrap(kind, &text)?)?;
    let updated = context.service.update(settings, kind, id, fixed, update, call).await?;
    let Acknowledged { value: key, epoch } = updated;
    let out = KeyOut::new(&key, context.service.clock.now()).with_warnings(warnings(settings, &key));
    let response = ok(StatusCode::OK, &out)?;
    Ok(with_epoch(with_notice(response, settings, std::iter::once(&key)), epoch))
}

/// Parses the resource, by itself or wrapped in an object.
fn unwrap(kind: KeyKind, text: &[u8]) -> Result<KeyBody, ApiError> {
    // Anything but an object is refused below.
    let wrapper = body::parse::<Wrapper>(text).ok();
    match kind {
        KeyKind::Issued if wrapper.as_ref().is_some_and(|wrapper| wrapper.issued_api_key) => {
            body::parse::<WrappedIssued>(text).map(|body| body.issued_api_key.unwrap_or_default())
        }
        KeyKind::Imported if wrapper.as_ref().is_some_and(|wrapper| wrapper.imported_api_key) => {
            body::parse::<WrappedImported>(text).map(|body| body.imported_api_key.unwrap_or_default())
        }
        _ => body::parse(text),
    }
}

pub(crate) async fn revoke_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    revoke(&context, &settings, Some(KeyKind::Issued), &id, request, &call).await
}

pub(crate) async fn revoke_imported(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    revoke(&context, &settings, Some(KeyKind::Imported), &id, request, &call).await
}

/// Revokes a key of either kind.
pub(crate) async fn revoke_any(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    revoke(&context, &settings, None, &id, request, &call).await
}

async fn revoke(
    context: &Context,
    settings: &Settings,
    kind: Option<KeyKind>,
    id: &str,
    request: Request,
    call: &Call,
) -> Reply {
    let body: RevokeBody = body::read(request, body::ADMIN_LIMIT).await?;
    let description = body.description.filter(|description| !description.is_empty());
    let revocation = Revocation { reason: reason(body.reason.as_deref())?, description };
    let revoked = context.service.revoke(settings.network, kind, id, revocation, call).await?;
    let response = with_earlier_revocation(StatusCode::NO_CONTENT.into_response(), revoked.value);
    Ok(with_epoch(response, revoked.epoch))
}

pub(crate) async fn rotate_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let body: RotateBody = body::read(request, body::ADMIN_LIMIT).await?;
    let rotated = context.service.rotate(&settings, &id, RotateRequest::try_from(body)?, &call).await?;
    let Acknowledged { value: rotated, epoch } = rotated;
    let now = context.service.clock.now();
    let answer = RotateOut {
        issued_api_key: KeyOut::new(&rotated.key, now).with_warnings(warnings(&settings, &rotated.key)),
        old_issued_api_key: KeyOut::new(&rotated.old, now).with_warnings(warnings(&settings, &rotated.old)),
        secret: rotated.secret.expose(),
    };
    let response = with_notice(ok(StatusCode::CREATED, &answer)?, &settings, std::iter::once(&rotated.key));
    Ok(with_epoch(response, epoch))
}

pub(crate) async fn delete_imported(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(id): PathId,
    Extension(call): AuditedCall,
) -> Reply {
    delete(&context, &settings, KeyKind::Imported, &id, &call).await
}

pub(crate) async fn delete_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(id): PathId,
    Extension(call): AuditedCall,
) -> Reply {
    delete(&context, &settings, KeyKind::Issued, &id, &call).await
}

async fn delete(context: &Context, settings: &Settings, kind: KeyKind, id: &str, call: &Call) -> Reply {
    let deleted = context.service.delete(settings.network, kind, id, call).await?;
    Ok(with_epoch(StatusCode::NO_CONTENT.into_response(), deleted.epoch))
}

pub(crate) async fn delete_actor(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(actor): PathId,
    QueryPairs(query): QueryPairs,
    Extension(call): AuditedCall,
) -> Reply {
    let force = force(&query)?;
    let actor = ActorId::from_stored(&actor).map_err(|error| ApiError::field("actor_id", error.0))?;
    let erased = context.service.delete_actor(settings.network, &actor, force, &call).await?;
    let Acknowledged { value: erased, epoch } = erased;
    let answer = ErasedActorOut {
        issued_api_key_count: erased.issued,
        imported_api_key_count: erased.imported,
        has_more: erased.has_more,
    };
    Ok(with_epoch(ok(StatusCode::OK, &answer)?, epoch))
}
