//! Handlers that list and check issuance policies, and preview routes. They change nothing.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;

use crate::http::body;
use crate::http::context::{Context, NetworkSettings};
use crate::http::reply::{Reply, ok};
use crate::http::wire::{
    CheckPoliciesBody, CheckPoliciesOut, ListPoliciesOut, PreviewScopesBody, PreviewScopesOut,
};
use crate::service::ScopesPreviewRequest;

pub(crate) async fn list_policies(Extension(settings): NetworkSettings) -> Reply {
    ok(StatusCode::OK, &ListPoliciesOut::new(&settings.issuance, &settings.scope_sets))
}

pub(crate) async fn check_policies(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    request: Request,
) -> Reply {
    let body: CheckPoliciesBody = body::read(request, body::ADMIN_LIMIT).await?;
    let found = context.service.check_policies(&settings, body.into()).await?;
    ok(StatusCode::OK, &CheckPoliciesOut::from(&found))
}

pub(crate) async fn preview_scopes(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    request: Request,
) -> Reply {
    let body: PreviewScopesBody = body::read(request, body::ADMIN_LIMIT).await?;
    let request = ScopesPreviewRequest::try_from(body)?;
    let preview = context.service.preview_scopes(&settings, request).await?;
    ok(StatusCode::OK, &PreviewScopesOut::from(&preview))
}
