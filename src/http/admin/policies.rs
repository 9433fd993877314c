//! Handlers that list and check issuance policies, and preview routes. They change nothing.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::error::{ApiError, Reason};
use crate::http::body;
use crate::http::context::{Context, NetworkSettings};
use crate::http::reply::{Reply, ok};
use crate::http::wire::{
    CheckPoliciesBody, CheckPoliciesOut, ListPoliciesOut, PreviewScopesBody, PreviewScopesOut,
};
use crate::service::{PolicyCheckRequest, ScopesPreviewRequest};

/// Checks of policies at once. The others wait: compiled patterns may take tens of megabytes.
const MAX_CHECKS: usize = 2;

static CHECKS: Semaphore = Semaphore::const_new(MAX_CHECKS);

pub(crate) async fn list_policies(Extension(settings): NetworkSettings) -> Reply {
    ok(StatusCode::OK, &ListPoliciesOut::new(&settings.issuance, &settings.scope_sets))
}

pub(crate) async fn check_policies(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    request: Request,
) -> Reply {
    let body: CheckPoliciesBody = body::read(request, body::ADMIN_LIMIT).await?;
    let turn = CHECKS.acquire().await;
    // Compiling takes processor time, and goes on if the client is gone: so it keeps the turn.
    let compiled = spawn_blocking(move || (PolicyCheckRequest::try_from(body), turn)).await;
    let (request, _turn) =
        compiled.map_err(|_| ApiError::new(Reason::InternalServerError, "internal error"))?;
    let found = context.service.check_policies(&settings, request?).await?;
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
