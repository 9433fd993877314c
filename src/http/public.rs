//! Handlers of public operations: revocation by a key's holder, and the public keys.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::admin::extract::AuditedCall;
use super::body;
use super::context::{Context, NetworkSettings};
use super::epoch::with_epoch;
use super::reply::json;
use super::wire::{SelfRevokeRequest, reason};
use crate::error::ApiError;

pub(super) async fn self_revoke(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    Extension(call): AuditedCall,
    request: Request,
) -> Result<Response, ApiError> {
    let request: SelfRevokeRequest = body::read(request, body::PUBLIC_LIMIT).await?;
    let credential = request.credential.unwrap_or_default();
    let reason = reason(request.reason.as_deref())?;
    let revoked = context.service.self_revoke(&settings, credential.expose(), reason, &call).await?;
    Ok(with_epoch(json("{}".to_owned()).into_response(), revoked.epoch))
}

pub(super) async fn jwks(Extension(settings): NetworkSettings) -> Response {
    // May be cached: keys are published long before they sign.
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=60")];
    (headers, settings.jwks_json.clone()).into_response()
}
