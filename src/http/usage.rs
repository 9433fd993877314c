//! Handlers that report usage.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};

use super::admin::extract::QueryPairs;
use super::audit::origin;
use super::context::{Context, NetworkSettings};
use super::notice::limit_warning;
use super::reply::{Reply, ok};
use super::wire::{SelfUsageOut, UsageOut, usage_request};

pub(super) async fn usage(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    QueryPairs(query): QueryPairs,
) -> Reply {
    let report = context.service.usage(&settings, usage_request(query, false)?).await?;
    ok(StatusCode::OK, &UsageOut::from(report))
}

pub(super) async fn self_usage(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    QueryPairs(query): QueryPairs,
    request: Request,
) -> Reply {
    let origin = origin(&context, &request);
    let usage_request = usage_request(query, true)?;
    let credential = bearer(request.headers()).unwrap_or_default();
    let usage = context.service.self_usage(&settings, credential, usage_request, &origin).await?;
    let warnings = limit_warning(&settings, &usage.key).into_iter().collect();
    ok(StatusCode::OK, &SelfUsageOut::from(usage).with_warnings(warnings))
}

/// Returns the credential of the one `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let (scheme, credential) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}
