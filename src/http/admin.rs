//! Handlers of the admin plane: each parses JSON, calls the service once and returns JSON.

pub(super) mod actors;
pub(super) mod change;
pub(super) mod extract;
pub(super) mod policies;
pub(super) mod state;
pub(super) mod verify;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;

use self::extract::{AuditedCall, PathId, QueryPairs, batch, presented};
use super::body;
use super::client_address::client_address;
use super::context::{Context, NetworkSettings};
use super::epoch::with_epoch;
use super::notice::{warnings, with_notice};
use super::reply::{Reply, ok};
use super::wire::{
    BatchImportBody, BatchImportOut, BatchImportResult, DeriveBody, DeriveOut, ImportBody, IssueBody,
    IssueOut, KeyOut, ListImportedOut, ListIssuedOut, MAX_BATCH_IMPORT, TokenOut, custom_claims,
    list_request, scopes, token_format, ttl,
};
use crate::clock::Timestamp;
use crate::error::ApiError;
use crate::key::{Key, KeyKind};
use crate::secret::SecretString;
use crate::service::{Acknowledged, DeriveRequest, ImportRequest, KeyRequest, Listed};
use crate::settings::Settings;

pub(super) async fn issue(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let body: IssueBody = body::read(request, body::ADMIN_LIMIT).await?;
    let issued = context.service.issue(&settings, KeyRequest::try_from(body)?, &call).await?;
    let answer = IssueOut {
        issued_api_key: KeyOut::new(&issued.key, context.service.clock.now())
            .with_warnings(warnings(&settings, &issued.key)),
        secret: issued.secret.as_ref().map(SecretString::expose),
    };
    Ok(with_notice(ok(StatusCode::CREATED, &answer)?, &settings, std::iter::once(&issued.key)))
}

pub(super) async fn import(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let body: ImportBody = body::read(request, body::ADMIN_LIMIT).await?;
    let imported = context.service.import(&settings, ImportRequest::try_from(body)?, &call).await?;
    let Acknowledged { value: key, epoch } = imported;
    let out = KeyOut::new(&key, context.service.clock.now()).with_warnings(warnings(&settings, &key));
    let response = ok(StatusCode::CREATED, &out)?;
    Ok(with_epoch(with_notice(response, &settings, std::iter::once(&key)), epoch))
}

pub(super) async fn import_batch(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let body: BatchImportBody = body::read(request, body::ADMIN_LIMIT).await?;
    let report_all = body.report_all.unwrap_or(false);
    let requests = batch(body.requests, MAX_BATCH_IMPORT)?;
    let requests = requests.into_iter().map(ImportRequest::try_from).collect();
    let imported = context.service.import_batch(&settings, requests, &call).await?;
    let Acknowledged { value: results, epoch } = imported;
    let failed = results.iter().filter(|result| result.is_err()).count();
    if failed == results.len()
        && !report_all
        && let Some(Err(first)) = results.first()
    {
        let field = first.field.as_ref();
        let field = field.map_or_else(|| "requests[0]".to_owned(), |field| format!("requests[0].{field}"));
        let message = format!("none of the keys could be imported; the first: {}", first.message);
        return Err(ApiError { field: Some(field.into()), ..ApiError::new(first.reason, message) });
    }
    let now = context.service.clock.now();
    let answer = BatchImportOut {
        success_count: results.len() - failed,
        failure_count: failed,
        results: (0..)
            .zip(&results)
            .map(|(at, result)| BatchImportResult::new(at, result, now, |key| warnings(&settings, key)))
            .collect(),
    };
    let response = with_notice(ok(StatusCode::OK, &answer)?, &settings, results.iter().flatten());
    Ok(with_epoch(response, epoch))
}

pub(super) async fn get_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(id): PathId,
) -> Reply {
    get(&context, &settings, KeyKind::Issued, &id).await
}

pub(super) async fn get_imported(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    PathId(id): PathId,
) -> Reply {
    get(&context, &settings, KeyKind::Imported, &id).await
}

async fn get(context: &Context, settings: &Settings, kind: KeyKind, id: &str) -> Reply {
    let key = context.service.get(settings.network, kind, id).await?;
    let address = context.service.last_address(settings.network, key.id).await?;
    let out = KeyOut::new(&key, context.service.clock.now())
        .with_warnings(warnings(settings, &key))
        .with_last_address(address);
    ok(StatusCode::OK, &out)
}

pub(super) async fn list_issued(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    QueryPairs(query): QueryPairs,
) -> Reply {
    let Listed { keys, next_page_token, total } = list(&context, &settings, KeyKind::Issued, query).await?;
    let now = context.service.clock.now();
    let issued_api_keys = keys.iter().map(|key| with_warnings(&settings, key, now)).collect();
    let total_size = total.map(|total| total.count);
    let total_size_is_estimate = total.filter(|total| !total.is_exact).map(|_| true);
    let page = ListIssuedOut { issued_api_keys, next_page_token, total_size, total_size_is_estimate };
    ok(StatusCode::OK, &page)
}

pub(super) async fn list_imported(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    QueryPairs(query): QueryPairs,
) -> Reply {
    let Listed { keys, next_page_token, total } = list(&context, &settings, KeyKind::Imported, query).await?;
    let now = context.service.clock.now();
    let imported_api_keys = keys.iter().map(|key| with_warnings(&settings, key, now)).collect();
    let total_size = total.map(|total| total.count);
    let total_size_is_estimate = total.filter(|total| !total.is_exact).map(|_| true);
    let page = ListImportedOut { imported_api_keys, next_page_token, total_size, total_size_is_estimate };
    ok(StatusCode::OK, &page)
}

fn with_warnings<'a>(settings: &Settings, key: &'a Key, now: Timestamp) -> KeyOut<'a> {
    KeyOut::new(key, now).with_warnings(warnings(settings, key))
}

async fn list(
    context: &Context,
    settings: &Settings,
    kind: KeyKind,
    query: Vec<(String, String)>,
) -> Result<Listed, ApiError> {
    let request = list_request(query)?;
    context.service.list(settings, kind, request).await
}

pub(super) async fn derive(
    State(context): State<Context>,
    Extension(settings): NetworkSettings,
    Extension(call): AuditedCall,
    request: Request,
) -> Reply {
    let client = client_address(settings.client_ip_source, &request);
    let body: DeriveBody = body::read(request, body::ADMIN_LIMIT).await?;
    let credential = body.credential.unwrap_or_default();
    let request = DeriveRequest {
        credential: presented(&credential)?,
        client,
        format: token_format(body.algorithm.as_deref())?,
        ttl: ttl(body.ttl.as_deref())?,
        scopes: scopes(body.scopes)?,
        audiences: body.audiences.unwrap_or_default(),
        custom_claims: custom_claims(body.custom_claims.as_deref())?,
    };
    let derived = context.service.derive(&settings, request, &call).await?;
    let token = TokenOut {
        token: derived.token,
        claims: derived.claims,
        expire_time: derived.expires.to_rfc3339(),
        scopes: derived.scopes.iter().map(ToString::to_string).collect(),
        audiences: derived.audiences,
    };
    ok(StatusCode::OK, &DeriveOut { token })
}
