//! What comes in.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::duration;
use crate::error::ApiError;
use crate::http::body::{object, objects};
use crate::key::{
    ActorId, AddressList, FieldError, KeyName, Metadata, RatePolicy, RateUnit, RevocationReason, Scopes,
    TEN_YEARS, Visibility,
};
use crate::secret::SecretString;
use crate::service::{ImportRequest, KeyRequest, ListRequest, RotateRequest, Update};

/// Most credentials verified by one request.
pub const MAX_BATCH_VERIFY: usize = 100;
/// Most keys imported by one request.
pub const MAX_BATCH_IMPORT: usize = 1_000;
/// Longest `request_id`, in characters.
const MAX_REQUEST_ID: usize = 36;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitPolicy {
    #[serde(default, deserialize_with = "int64")]
    quota: Option<i64>,
    window: Option<String>,
    unit: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpRestriction {
    allowed_cidrs: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueBody {
    name: Option<String>,
    actor_id: Option<String>,
    scopes: Option<Vec<String>>,
    ttl: Option<String>,
    metadata: Option<Map<String, Value>>,
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportBody {
    raw_key: Option<SecretString>,
    name: Option<String>,
    actor_id: Option<String>,
    scopes: Option<Vec<String>>,
    ttl: Option<String>,
    metadata: Option<Map<String, Value>>,
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    pub reason: Option<String>,
    pub description: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfRevokeRequest {
    pub credential: Option<SecretString>,
    pub reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyBody {
    pub credential: Option<SecretString>,
    pub expected_audiences: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeriveBody {
    pub credential: Option<SecretString>,
    pub algorithm: Option<String>,
    pub ttl: Option<String>,
    pub scopes: Option<Vec<String>>,
    pub audiences: Option<Vec<String>>,
    pub custom_claims: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateBody {
    name: Option<String>,
    scopes: Option<Vec<String>>,
    metadata: Option<Map<String, Value>>,
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    grace_period: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchImportBody {
    #[serde(default, deserialize_with = "objects")]
    pub requests: Option<Vec<ImportBody>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchVerifyBody {
    #[serde(default, deserialize_with = "objects")]
    pub requests: Option<Vec<VerifyBody>>,
}

/// Reads the query of a listing.
pub fn list_request(pairs: Vec<(String, String)>) -> Result<ListRequest, ApiError> {
    let mut request = ListRequest::default();
    let mut seen = vec![];
    for (name, value) in pairs {
        if seen.contains(&name) {
            return Err(ApiError::field(name, "stands there twice"));
        }
        match name.as_str() {
            "page_token" => request.page_token = value,
            "filter" => request.filter = value,
            "page_size" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // More than fits is cut to the largest page, like any large number.
                request.page_size = if value.is_empty() { 0 } else { value.parse().unwrap_or(u32::MAX) };
            }
            "page_size" => return Err(ApiError::field(name, "must be a number from 0")),
            _ => {
                let name: String = name.chars().take(128).collect();
                return Err(ApiError::field(name, "is not a known parameter"));
            }
        }
        seen.push(name);
    }
    Ok(request)
}

impl TryFrom<IssueBody> for KeyRequest {
    type Error = ApiError;

    fn try_from(body: IssueBody) -> Result<Self, ApiError> {
        let rate_policy = body.rate_limit_policy.map(rate_policy).transpose()?.flatten();
        Ok(Self {
            name: field("name", KeyName::parse(&body.name.unwrap_or_default()))?,
            actor: field("actor_id", ActorId::parse(&body.actor_id.unwrap_or_default()))?,
            scopes: field("scopes", Scopes::parse(&body.scopes.unwrap_or_default()))?,
            ttl: ttl(body.ttl.as_deref())?,
            metadata: field("metadata", body.metadata.map(Metadata::new).transpose())?,
            visibility: visibility(body.visibility.as_deref())?,
            addresses: addresses(body.ip_restriction)?,
            rate_policy,
            request_id: request_id(body.request_id)?,
        })
    }
}

impl TryFrom<ImportBody> for ImportRequest {
    type Error = ApiError;

    fn try_from(body: ImportBody) -> Result<Self, ApiError> {
        let raw_key = body.raw_key.unwrap_or_default();
        let key = IssueBody {
            name: body.name,
            actor_id: body.actor_id,
            scopes: body.scopes,
            ttl: body.ttl,
            metadata: body.metadata,
            visibility: body.visibility,
            ip_restriction: body.ip_restriction,
            rate_limit_policy: body.rate_limit_policy,
            request_id: body.request_id,
        };
        Ok(Self { raw_key, key: key.try_into()? })
    }
}

impl TryFrom<RotateBody> for RotateRequest {
    type Error = ApiError;

    /// What is absent is inherited; what is there counts, empty or not.
    fn try_from(body: RotateBody) -> Result<Self, ApiError> {
        let changes = Update {
            name: body.name.map(|name| field("name", KeyName::parse(&name))).transpose()?,
            scopes: body.scopes.map(|texts| scopes(Some(texts))).transpose()?,
            metadata: body
                .metadata
                .map(|object| field("metadata", Metadata::new(object).map(Some)))
                .transpose()?,
            addresses: body.ip_restriction.map(|restriction| addresses(Some(restriction))).transpose()?,
            rate_policy: body.rate_limit_policy.map(rate_policy).transpose()?,
        };
        let visibility = body.visibility.filter(|name| name != "KEY_VISIBILITY_UNSPECIFIED");
        let grace = span("grace_period", body.grace_period.as_deref())?.unwrap_or_default();
        if grace > TEN_YEARS {
            return Err(ApiError::field("grace_period", "must be 315360000s at most"));
        }
        Ok(Self {
            changes,
            visibility: visibility.map(|name| self::visibility(Some(&name))).transpose()?,
            grace,
        })
    }
}

pub(super) fn field<T>(name: &'static str, value: Result<T, FieldError>) -> Result<T, ApiError> {
    value.map_err(|FieldError(problem)| match problem.starts_with('[') {
        // `[3] must be …` is about one item of the list.
        true => {
            let (item, problem) = problem.split_once(' ').unwrap_or((&problem, ""));
            ApiError::field(format!("{name}{item}"), problem)
        }
        false => ApiError::field(name, problem),
    })
}

/// Scopes of a request.
pub fn scopes(texts: Option<Vec<String>>) -> Result<Scopes, ApiError> {
    field("scopes", Scopes::parse(&texts.unwrap_or_default()))
}

/// A span of time; unset and zero mean the default.
pub fn ttl(text: Option<&str>) -> Result<Option<Duration>, ApiError> {
    span("ttl", text)
}

fn span(name: &'static str, text: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let span = duration::parse(text).map_err(|error| ApiError::field(name, error))?;
    Ok(Some(span).filter(|span| !span.is_zero()))
}

/// A reason to revoke.
pub fn reason(name: Option<&str>) -> Result<RevocationReason, ApiError> {
    let names = "must be one of the REVOCATION_REASON_… of the API";
    let reason =
        name.map(|name| RevocationReason::from_name(name).ok_or_else(|| ApiError::field("reason", names)));
    Ok(reason.transpose()?.unwrap_or_default())
}

pub(super) fn visibility(name: Option<&str>) -> Result<Visibility, ApiError> {
    match name {
        None | Some("KEY_VISIBILITY_UNSPECIFIED") => Ok(Visibility::default()),
        Some(name) => Visibility::from_name(name).ok_or_else(|| {
            ApiError::field("visibility", "must be KEY_VISIBILITY_SECRET or KEY_VISIBILITY_PUBLIC")
        }),
    }
}

pub(super) fn addresses(restriction: Option<IpRestriction>) -> Result<AddressList, ApiError> {
    let blocks = restriction.and_then(|restriction| restriction.allowed_cidrs).unwrap_or_default();
    field("ip_restriction.allowed_cidrs", AddressList::parse(&blocks))
}

pub(super) fn rate_policy(policy: RateLimitPolicy) -> Result<Option<RatePolicy>, ApiError> {
    let window = span("rate_limit_policy.window", policy.window.as_deref())?;
    let unit = policy.unit.filter(|unit| !unit.is_empty());
    let quota = policy.quota.filter(|quota| *quota != 0);
    if quota.is_none() && window.is_none() && unit.is_none() {
        return Ok(None);
    }
    let unit = match unit {
        None => RateUnit::default(),
        Some(unit) => RateUnit::from_name(&unit).ok_or_else(|| {
            let names = "must be requests, content-bytes or concurrent-requests";
            ApiError::field("rate_limit_policy.unit", names)
        })?,
    };
    let policy = RatePolicy::new(quota.unwrap_or_default(), window.unwrap_or_default(), unit);
    field("rate_limit_policy", policy).map(Some)
}

fn request_id(id: Option<String>) -> Result<Option<String>, ApiError> {
    let id = id.filter(|id| !id.is_empty());
    match &id {
        Some(id) if id.chars().count() > MAX_REQUEST_ID || id.chars().any(char::is_control) => {
            let problem = "must be 36 characters at most, none of them a control character";
            Err(ApiError::field("request_id", problem))
        }
        _ => Ok(id),
    }
}

/// A 64-bit integer, as a string or a number.
fn int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    let problem = || serde::de::Error::custom("expected a 64-bit integer");
    match Option::<Either>::deserialize(deserializer).map_err(|_| problem())? {
        None => Ok(None),
        Some(Either::Number(number)) => Ok(Some(number)),
        Some(Either::Text(text)) => text.parse().map(Some).map_err(|_| problem()),
    }
}
