//! The admin plane's operations: JSON in, one call of the service, JSON out.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::wire::{
    DeriveBody, DeriveOut, ImportBody, IssueBody, IssueOut, KeyOut, ListImportedOut, ListIssuedOut,
    RevokeBody, TokenOut, VerifyBody, VerifyOut, list_request, reason, scopes, token_format, ttl,
};
use super::{Context, Peer, body, json, no_such_resource};
use crate::config::ClientIpSource;
use crate::credential::Presented;
use crate::error::{ApiError, Reason};
use crate::key::{KeyKind, NetworkId, Revocation, Status};
use crate::secret::SecretString;
use crate::service::verify::{Attempt, CacheResult, CacheUse, Identity, Unavailable};
use crate::service::{DeriveRequest, ImportRequest, KeyRequest, Listed};

type Answer = Result<Response, ApiError>;

pub async fn issue(State(context): State<Context>, request: Request) -> Answer {
    let body: IssueBody = body::read(request, body::ADMIN_LIMIT).await?;
    let issued = context.service.issue(NetworkId::SINGLE, KeyRequest::try_from(body)?).await?;
    let answer = IssueOut {
        issued_api_key: KeyOut::new(&issued.key, context.service.clock.now()),
        secret: issued.secret.as_ref().map(SecretString::expose),
    };
    ok(StatusCode::CREATED, &answer)
}

pub async fn import(State(context): State<Context>, request: Request) -> Answer {
    let body: ImportBody = body::read(request, body::ADMIN_LIMIT).await?;
    let key = context.service.import(NetworkId::SINGLE, ImportRequest::try_from(body)?).await?;
    ok(StatusCode::CREATED, &KeyOut::new(&key, context.service.clock.now()))
}

pub async fn get_issued(State(context): State<Context>, KeyPath(id): KeyPath) -> Answer {
    get(&context, KeyKind::Issued, &id).await
}

pub async fn get_imported(State(context): State<Context>, KeyPath(id): KeyPath) -> Answer {
    get(&context, KeyKind::Imported, &id).await
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

async fn get(context: &Context, kind: KeyKind, id: &str) -> Answer {
    let key = context.service.get(NetworkId::SINGLE, kind, id).await?;
    ok(StatusCode::OK, &KeyOut::new(&key, context.service.clock.now()))
}

type ListQuery = Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>;

pub async fn list_issued(State(context): State<Context>, query: ListQuery) -> Answer {
    let Listed { keys, next_page_token } = list(&context, KeyKind::Issued, query).await?;
    let now = context.service.clock.now();
    let issued_api_keys = keys.iter().map(|key| KeyOut::new(key, now)).collect();
    ok(StatusCode::OK, &ListIssuedOut { issued_api_keys, next_page_token })
}

pub async fn list_imported(State(context): State<Context>, query: ListQuery) -> Answer {
    let Listed { keys, next_page_token } = list(&context, KeyKind::Imported, query).await?;
    let now = context.service.clock.now();
    let imported_api_keys = keys.iter().map(|key| KeyOut::new(key, now)).collect();
    ok(StatusCode::OK, &ListImportedOut { imported_api_keys, next_page_token })
}

async fn list(context: &Context, kind: KeyKind, query: ListQuery) -> Result<Listed, ApiError> {
    let Query(pairs) = query.map_err(|_| ApiError::field("query", "must be UTF-8"))?;
    let request = list_request(pairs)?;
    context.service.list(NetworkId::SINGLE, kind, request).await
}

pub async fn act_on_issued(State(context): State<Context>, KeyPath(id): KeyPath, request: Request) -> Answer {
    act(&context, Some(KeyKind::Issued), &id, request).await
}

pub async fn act_on_imported(
    State(context): State<Context>,
    KeyPath(id): KeyPath,
    request: Request,
) -> Answer {
    act(&context, Some(KeyKind::Imported), &id, request).await
}

pub async fn act_on_any(State(context): State<Context>, KeyPath(id): KeyPath, request: Request) -> Answer {
    act(&context, None, &id, request).await
}

/// Custom methods (AIP-136): `{key_id}:{verb}`, which the router can't take apart.
async fn act(context: &Context, kind: Option<KeyKind>, id_and_verb: &str, request: Request) -> Answer {
    let Some((id, "revoke")) = id_and_verb.rsplit_once(':') else {
        return Err(no_such_resource());
    };
    let body: RevokeBody = body::read(request, body::ADMIN_LIMIT).await?;
    let description = body.description.filter(|description| !description.is_empty());
    let revocation = Revocation { reason: reason(body.reason.as_deref())?, description };
    context.service.revoke(NetworkId::SINGLE, kind, id, revocation).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn verify(State(context): State<Context>, request: Request) -> Answer {
    let settings = context.service.snapshot();
    let client = client(settings.client_ip_source, &request);
    let cache = cache_use(request.headers());
    let body: VerifyBody = body::read(request, body::ADMIN_LIMIT).await?;
    let credential = body.credential.unwrap_or_default();
    let audiences = body.expected_audiences.unwrap_or_default();
    let attempt = Attempt {
        network: NetworkId::SINGLE,
        credential: presented(&credential)?,
        client,
        audiences: &audiences,
        cache,
    };
    let verification = context.service.verify(&settings, &attempt).await.map_err(|Unavailable| {
        ApiError::new(Reason::ServiceUnavailable, "the credential can't be checked at present; try again")
    })?;
    let now = context.service.clock.now();
    let answer = match &verification.verdict {
        Ok(Identity::Key(entry)) => VerifyOut {
            is_valid: true,
            issuer: Some(settings.issuer().into()),
            ..VerifyOut::of_key(&entry.key, now)
        },
        Ok(Identity::Token(authority)) => VerifyOut {
            is_valid: true,
            key_id: Some(authority.key_id.clone()),
            actor_id: authority.actor.as_ref().map(crate::key::ActorId::as_str),
            scopes: authority.scopes.iter().map(crate::key::Scope::as_str).collect(),
            audiences: authority.audiences.iter().map(String::as_str).collect(),
            metadata: authority.metadata.as_ref().map(crate::key::Metadata::raw),
            status: Some(Status::Active.name()),
            visibility: Some(authority.visibility.name()),
            expire_time: Some(authority.expires.to_rfc3339()),
            issuer: Some(authority.issuer.as_str().into()),
            ..VerifyOut::default()
        },
        Err(refused) => VerifyOut {
            error_code: Some(refused.denial.error_code()),
            error_message: Some(refused.denial.to_string()),
            ..refused.key.as_ref().map(|key| VerifyOut::of_key(key, now)).unwrap_or_default()
        },
    };
    let cache = match verification.cache {
        CacheResult::Hit => "HIT",
        CacheResult::Miss => "MISS",
        CacheResult::Skip => "SKIP",
    };
    Ok(([("ory-talos-cache", cache)], ok(StatusCode::OK, &answer)?).into_response())
}

pub async fn derive(State(context): State<Context>, request: Request) -> Answer {
    let settings = context.service.snapshot();
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
        custom_claims: body.custom_claims.unwrap_or_default(),
    };
    let derived = context.service.derive(NetworkId::SINGLE, request).await?;
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

/// `no-store` spares the cache altogether, `no-cache` (and its HTTP/1.0 form) only the reading.
fn cache_use(headers: &HeaderMap) -> CacheUse {
    let says = |name: &str, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if says("cache-control", "no-store") {
        CacheUse::None
    } else if says("cache-control", "no-cache") || says("pragma", "no-cache") {
        CacheUse::NoRead
    } else {
        CacheUse::Full
    }
}

/// The client's address, from where the settings say. Of X-Forwarded-For the last entry counts, which the nearest
/// proxy wrote.
fn client(source: ClientIpSource, request: &Request) -> Option<IpAddr> {
    let header = |name: &str| {
        let value = request.headers().get_all(name).iter().next_back()?.to_str().ok()?;
        value.rsplit(',').next()?.trim().parse().ok()
    };
    match source {
        ClientIpSource::RemoteAddr => request.extensions().get::<Peer>().and_then(|peer| peer.0),
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
