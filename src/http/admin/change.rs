//! Changing a key: update, rotate, revoke, delete.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;

use super::{ActedOn, Answer, KeyPath, Pairs, ok};
use crate::error::ApiError;
use crate::http::wire::{
    KeyBody, KeyOut, RevokeBody, RotateBody, RotateOut, WrappedImported, WrappedIssued, Wrapper, reason,
    update, update_mask,
};
use crate::http::{Context, body};
use crate::key::{Key, KeyKind, NetworkId, Revocation};
use crate::service::RotateRequest;

pub async fn update_issued(
    State(context): State<Context>,
    KeyPath(id): KeyPath,
    Pairs(query): Pairs,
    request: Request,
) -> Answer {
    update_key(&context, KeyKind::Issued, &id, query, request).await
}

pub async fn update_imported(
    State(context): State<Context>,
    KeyPath(id): KeyPath,
    Pairs(query): Pairs,
    request: Request,
) -> Answer {
    update_key(&context, KeyKind::Imported, &id, query, request).await
}

async fn update_key(
    context: &Context,
    kind: KeyKind,
    id: &str,
    query: Vec<(String, String)>,
    request: Request,
) -> Answer {
    let mask = update_mask(query)?;
    let text = body::read_text(request, body::ADMIN_LIMIT).await?;
    let (fixed, update) = update(&mask, unwrap(kind, &text)?)?;
    let key: Key = context.service.update(NetworkId::SINGLE, kind, id, fixed, update).await?;
    ok(StatusCode::OK, &KeyOut::new(&key, context.service.clock.now()))
}

/// The resource, whether it stands there by itself or in the member that has its name.
fn unwrap(kind: KeyKind, text: &[u8]) -> Result<KeyBody, ApiError> {
    // What isn't even an object is refused as a resource below.
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

pub async fn revoke_issued(State(context): State<Context>, ActedOn(id): ActedOn, request: Request) -> Answer {
    revoke(&context, Some(KeyKind::Issued), &id, request).await
}

pub async fn revoke_imported(
    State(context): State<Context>,
    ActedOn(id): ActedOn,
    request: Request,
) -> Answer {
    revoke(&context, Some(KeyKind::Imported), &id, request).await
}

/// For keys of either kind.
pub async fn revoke_any(State(context): State<Context>, ActedOn(id): ActedOn, request: Request) -> Answer {
    revoke(&context, None, &id, request).await
}

async fn revoke(context: &Context, kind: Option<KeyKind>, id: &str, request: Request) -> Answer {
    let body: RevokeBody = body::read(request, body::ADMIN_LIMIT).await?;
    let description = body.description.filter(|description| !description.is_empty());
    let revocation = Revocation { reason: reason(body.reason.as_deref())?, description };
    context.service.revoke(NetworkId::SINGLE, kind, id, revocation).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn rotate_issued(State(context): State<Context>, ActedOn(id): ActedOn, request: Request) -> Answer {
    let body: RotateBody = body::read(request, body::ADMIN_LIMIT).await?;
    let rotated = context.service.rotate(NetworkId::SINGLE, &id, RotateRequest::try_from(body)?).await?;
    let now = context.service.clock.now();
    let answer = RotateOut {
        issued_api_key: KeyOut::new(&rotated.key, now),
        old_issued_api_key: KeyOut::new(&rotated.old, now),
        secret: rotated.secret.expose(),
    };
    ok(StatusCode::CREATED, &answer)
}

pub async fn delete_imported(State(context): State<Context>, KeyPath(id): KeyPath) -> Answer {
    context.service.delete_imported(NetworkId::SINGLE, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
