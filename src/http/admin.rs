//! The admin plane's operations: JSON in, one call of the service, JSON out.

pub mod change;
pub mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::epoch::with_epoch;
use super::notice::with_notice;
use super::wire::{
    BatchImportBody, BatchImportOut, BatchImportResult, DeriveBody, DeriveOut, ImportBody, IssueBody,
    IssueOut, KeyOut, ListImportedOut, ListIssuedOut, MAX_BATCH_IMPORT, TokenOut, custom_claims,
    list_request, scopes, token_format, ttl,
};
use super::{Context, InForce, body, json, no_such_resource};
use crate::audit::Call;
use crate::caller::Peer;
use crate::config::ClientIpSource;
use crate::credential::Presented;
use crate::error::{ApiError, Reason};
use crate::key::KeyKind;
use crate::secret::SecretString;
use crate::service::{Acknowledged, DeriveRequest, ImportRequest, KeyRequest, Listed};
use crate::settings::Settings;

type Answer = Result<Response, ApiError>;

/// The call as it is recorded.
pub type Recorded = Extension<Arc<Call>>;

pub async fn issue(
    State(context): State<Context>,
    Extension(settings): InForce,
    Extension(call): Recorded,
    request: Request,
) -> Answer {
    let body: IssueBody = body::read(request, body::ADMIN_LIMIT).await?;
    let issued = context.service.issue(&settings, KeyRequest::try_from(body)?, &call).await?;
    let answer = IssueOut {
        issued_api_key: KeyOut::new(&issued.key, context.service.clock.now()),
        secret: issued.secret.as_ref().map(SecretString::expose),
    };
    Ok(with_notice(ok(StatusCode::CREATED, &answer)?, std::iter::once(&issued.key)))
}

pub async fn import(
    State(context): State<Context>,
    Extension(settings): InForce,
    Extension(call): Recorded,
    request: Request,
) -> Answer {
    let body: ImportBody = body::read(request, body::ADMIN_LIMIT).await?;
    let imported = context.service.import(&settings, ImportRequest::try_from(body)?, &call).await?;
    let Acknowledged { value: key, epoch } = imported;
    let response = ok(StatusCode::CREATED, &KeyOut::new(&key, context.service.clock.now()))?;
    Ok(with_epoch(with_notice(response, std::iter::once(&key)), epoch))
}

pub async fn import_batch(
    State(context): State<Context>,
    Extension(settings): InForce,
    Extension(call): Recorded,
    request: Request,
) -> Answer {
    let body: BatchImportBody = body::read(request, body::ADMIN_LIMIT).await?;
    let requests = batch(body.requests, MAX_BATCH_IMPORT)?;
    let requests = requests.into_iter().map(ImportRequest::try_from).collect();
    let imported = context.service.import_batch(&settings, requests, &call).await?;
    let Acknowledged { value: results, epoch } = imported;
    let failed = results.iter().filter(|result| result.is_err()).count();
    if failed == results.len()
        && let Some(Err(first)) = results.first()
    {
        let field = first.field.as_ref();
        let field = field.map_or_else(|| "requests[0]".to_owned(), |field| format!("requests[0].{field}"));
        let message = format!("none of the keys could be imported; the first: {}", first.message);
        return Err(ApiError { reason: first.reason, message: message.into(), field: Some(field.into()) });
    }
    let now = context.service.clock.now();
    let answer = BatchImportOut {
        success_count: results.len() - failed,
        failure_count: failed,
        results: (0..).zip(&results).map(|(at, result)| BatchImportResult::new(at, result, now)).collect(),
    };
    let response = with_notice(ok(StatusCode::OK, &answer)?, results.iter().flatten());
    Ok(with_epoch(response, epoch))
}

/// The items of a batch: one at least, `most` at most.
fn batch<T>(items: Option<Vec<T>>, most: usize) -> Result<Vec<T>, ApiError> {
    let items = items.unwrap_or_default();
    match (1..=most).contains(&items.len()) {
        true => Ok(items),
        false => Err(ApiError::field("requests", format!("must have 1 to {most} items"))),
    }
}

pub async fn get_issued(
    State(context): State<Context>,
    Extension(settings): InForce,
    KeyPath(id): KeyPath,
) -> Answer {
    get(&context, &settings, KeyKind::Issued, &id).await
}

pub async fn get_imported(
    State(context): State<Context>,
    Extension(settings): InForce,
    KeyPath(id): KeyPath,
) -> Answer {
    get(&context, &settings, KeyKind::Imported, &id).await
}

/// The last segment of the path. One that isn't text names no key.
pub struct KeyPath(String);

impl<S: Send + Sync> FromRequestParts<S> for KeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| no_such_resource())
    }
}

/// The key that a custom method is about: the last segment of the path, without the method's name.
pub struct ActedOn(String);

impl<S: Send + Sync> FromRequestParts<S> for ActedOn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let KeyPath(segment) = KeyPath::from_request_parts(parts, state).await?;
        let (id, _) = segment.rsplit_once(':').ok_or_else(no_such_resource)?;
        Ok(Self(id.to_owned()))
    }
}

async fn get(context: &Context, settings: &Settings, kind: KeyKind, id: &str) -> Answer {
    let key = context.service.get(settings.network, kind, id).await?;
    ok(StatusCode::OK, &KeyOut::new(&key, context.service.clock.now()))
}

/// A query, pair by pair.
pub struct Pairs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let malformed = || ApiError::field("query", "must be UTF-8");
        // What isn't UTF-8 would be read with replacement characters in its place.
        if !parts.uri.query().is_none_or(is_utf8) {
            return Err(malformed());
        }
        let Query(pairs) = Query::from_request_parts(parts, state).await.map_err(|_| malformed())?;
        Ok(Self(pairs))
    }
}

/// Whether a text is UTF-8 once its percent-encoding is undone.
fn is_utf8(encoded: &str) -> bool {
    let mut parts = encoded.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        // A percent sign without two digits stands for itself.
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend(part.as_bytes()),
        }
    }
    std::str::from_utf8(&bytes).is_ok()
}

pub async fn list_issued(
    State(context): State<Context>,
    Extension(settings): InForce,
    Pairs(query): Pairs,
) -> Answer {
    let Listed { keys, next_page_token } = list(&context, &settings, KeyKind::Issued, query).await?;
    let now = context.service.clock.now();
    let issued_api_keys = keys.iter().map(|key| KeyOut::new(key, now)).collect();
    ok(StatusCode::OK, &ListIssuedOut { issued_api_keys, next_page_token })
}

pub async fn list_imported(
    State(context): State<Context>,
    Extension(settings): InForce,
    Pairs(query): Pairs,
) -> Answer {
    let Listed { keys, next_page_token } = list(&context, &settings, KeyKind::Imported, query).await?;
    let now = context.service.clock.now();
    let imported_api_keys = keys.iter().map(|key| KeyOut::new(key, now)).collect();
    ok(StatusCode::OK, &ListImportedOut { imported_api_keys, next_page_token })
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

pub async fn derive(
    State(context): State<Context>,
    Extension(settings): InForce,
    Extension(call): Recorded,
    request: Request,
) -> Answer {
    let client = client(settings.client_ip_source, &request);
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

fn presented(credential: &SecretString) -> Result<Presented<'_>, ApiError> {
    if credential.is_empty() {
        return Err(ApiError {
            field: Some("credential".into()),
            ..ApiError::new(Reason::CredentialRequired, "credential: is required")
        });
    }
    Presented::new(credential.expose())
        .ok_or_else(|| ApiError::field("credential", "must be 16384 bytes at most"))
}

/// The client's address, from where the settings say. Of X-Forwarded-For the last entry counts, which the nearest
/// proxy wrote.
pub fn client(source: ClientIpSource, request: &Request) -> Option<IpAddr> {
    let header = |name: &str| {
        let value = request.headers().get_all(name).iter().next_back()?.to_str().ok()?;
        value.rsplit(',').next()?.trim().parse().ok()
    };
    match source {
        ClientIpSource::RemoteAddr => request.extensions().get::<Peer>().and_then(|peer| peer.address),
        ClientIpSource::CfConnectingIp => header("cf-connecting-ip"),
        ClientIpSource::XForwardedFor => header("x-forwarded-for"),
        ClientIpSource::XRealIp => header("x-real-ip"),
        ClientIpSource::TrueClientIp => header("true-client-ip"),
    }
}

fn ok<T: Serialize>(status: StatusCode, answer: &T) -> Answer {
    let text = serde_json::to_string(answer)
        .map_err(|_| ApiError::new(Reason::InternalServerError, "the answer can't be written"))?;
    Ok((status, json(text)).into_response())
}
