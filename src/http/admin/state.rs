//! Handlers that suspend and resume keys, and end a grace period early.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;

use super::extract::{AuditedCall, CustomMethodId};
use crate::audit::Call;
use crate::error::ApiError;
use crate::http::body;
use crate::http::context::{Context, NetworkSettings};
use crate::http::epoch::with_epoch;
use crate::http::notice::warnings;
use crate::http::reply::{Reply, ok};
use crate::http::wire::{EmptyBody, KeyOut, SuspendBody};
use crate::key::{Key, KeyKind};
use crate::service::{Acknowledged, SuspendRequest};
use crate::settings::Settings;

pub(crate) async fn suspend_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    suspend(&context, &settings, KeyKind::Issued, &id, request, &call).await
}

pub(crate) async fn suspend_imported(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    suspend(&context, &settings, KeyKind::Imported, &id, request, &call).await
}

async fn suspend(
    context: &Context,
    settings: &Settings,
    kind: KeyKind,
    id: &str,
    request: Request,
    call: &Call,
) -> Reply {
    let body: SuspendBody = body::read(request, body::ADMIN_LIMIT).await?;
    let request = SuspendRequest::try_from(body)?;
    let changed = context.service.suspend(settings.network, kind, id, request, call).await;
    changed_key(context, settings, changed)
}

pub(crate) async fn resume_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    resume(&context, &settings, KeyKind::Issued, &id, request, &call).await
}

pub(crate) async fn resume_imported(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    resume(&context, &settings, KeyKind::Imported, &id, request, &call).await
}

async fn resume(
    context: &Context,
    settings: &Settings,
    kind: KeyKind,
    id: &str,
    request: Request,
    call: &Call,
) -> Reply {
    let EmptyBody {} = body::read(request, body::ADMIN_LIMIT).await?;
    let changed = context.service.resume(settings.network, kind, id, call).await;
    changed_key(context, settings, changed)
}

pub(crate) async fn finish(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    CustomMethodId(id): CustomMethodId,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let EmptyBody {} = body::read(request, body::ADMIN_LIMIT).await?;
    let changed = context.service.finish(settings.network, &id, &call).await;
    changed_key(&context, &settings, changed)
}

/// Returns the response with a key after its change.
fn changed_key(
    context: &Context,
    settings: &Settings,
    changed: Result<Acknowledged<Key>, ApiError>,
) -> Reply {
    let Acknowledged { value: key, epoch } = changed?;
    let out = KeyOut::new(&key, context.service.clock.now()).with_warnings(warnings(settings, &key));
    Ok(with_epoch(ok(StatusCode::OK, &out)?, epoch))
}
