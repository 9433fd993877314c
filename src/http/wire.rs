//! The JSON of the API, field by field (openapi.json, talos.md section 3), and its way to and from our own types.
//!
//! In: absent, `null` and `*_UNSPECIFIED` are the same. Out: booleans, lists and `next_page_token` always stand there,
//! anything else only when it is set.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::credential::TokenFormat;
use crate::duration;
use crate::error::ApiError;
use crate::key::{
    ActorId, AddressList, FieldError, Key, KeyName, Metadata, RatePolicy, RateUnit, RevocationReason, Scopes,
    Visibility,
};
use crate::secret::SecretString;
use crate::service::{ImportRequest, KeyRequest, ListRequest};

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
    ip_restriction: Option<IpRestriction>,
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
    ip_restriction: Option<IpRestriction>,
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

fn field<T>(name: &'static str, value: Result<T, FieldError>) -> Result<T, ApiError> {
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

/// What a derived token is to be; a JWT unless asked otherwise.
pub fn token_format(algorithm: Option<&str>) -> Result<TokenFormat, ApiError> {
    match algorithm {
        None | Some("TOKEN_ALGORITHM_UNSPECIFIED" | "TOKEN_ALGORITHM_JWT") => Ok(TokenFormat::Jwt),
        Some("TOKEN_ALGORITHM_MACAROON") => Ok(TokenFormat::Macaroon),
        Some(_) => Err(ApiError::field("algorithm", "must be one of the TOKEN_ALGORITHM_… of the API")),
    }
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

fn visibility(name: Option<&str>) -> Result<Visibility, ApiError> {
    match name {
        None | Some("KEY_VISIBILITY_UNSPECIFIED") => Ok(Visibility::default()),
        Some(name) => Visibility::from_name(name).ok_or_else(|| {
            ApiError::field("visibility", "must be KEY_VISIBILITY_SECRET or KEY_VISIBILITY_PUBLIC")
        }),
    }
}

fn addresses(restriction: Option<IpRestriction>) -> Result<AddressList, ApiError> {
    let blocks = restriction.and_then(|restriction| restriction.allowed_cidrs).unwrap_or_default();
    field("ip_restriction.allowed_cidrs", AddressList::parse(&blocks))
}

fn rate_policy(policy: RateLimitPolicy) -> Result<Option<RatePolicy>, ApiError> {
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

#[derive(Serialize)]
pub struct RateLimitPolicyOut {
    quota: String,
    unit: &'static str,
    window: String,
}

#[derive(Serialize)]
struct IpRestrictionOut {
    allowed_cidrs: Vec<String>,
}

/// An issued or imported key.
#[derive(Serialize)]
pub struct KeyOut<'a> {
    key_id: String,
    name: &'a str,
    actor_id: &'a str,
    scopes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    status: &'static str,
    visibility: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_restriction: Option<IpRestrictionOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_policy: Option<RateLimitPolicyOut>,
    create_time: String,
    update_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_description: Option<&'a str>,
}

impl<'a> KeyOut<'a> {
    /// A key as it stands at `now`.
    pub fn new(key: &'a Key, now: Timestamp) -> Self {
        let revocation = key.revocation.as_ref();
        let reason = revocation.map(|revocation| revocation.reason);
        let superseded = key.superseded.is_some_and(|at| at <= now).then_some(RevocationReason::Superseded);
        Self {
            key_id: key.id.to_string(),
            name: key.name.as_str(),
            actor_id: key.actor.as_str(),
            scopes: key.scopes.iter().map(crate::key::Scope::as_str).collect(),
            metadata: key.metadata.as_ref().map(Metadata::raw),
            status: key.status(now).name(),
            visibility: key.visibility.name(),
            ip_restriction: (!key.addresses.is_empty()).then(|| IpRestrictionOut {
                allowed_cidrs: key.addresses.iter().map(ToString::to_string).collect(),
            }),
            rate_limit_policy: key.rate_policy.map(rate_limit_policy_out),
            create_time: key.created.to_rfc3339(),
            update_time: key.updated.to_rfc3339(),
            expire_time: key.expires.map(Timestamp::to_rfc3339),
            last_used_time: key.last_used.map(Timestamp::to_rfc3339),
            revocation_reason: reason
                .or(superseded)
                .filter(|reason| *reason != RevocationReason::Unspecified)
                .map(RevocationReason::name),
            revocation_description: revocation.and_then(|revocation| revocation.description.as_deref()),
        }
    }
}

fn rate_limit_policy_out(policy: RatePolicy) -> RateLimitPolicyOut {
    RateLimitPolicyOut {
        quota: policy.quota.to_string(),
        unit: policy.unit.name(),
        window: duration::to_proto(policy.window),
    }
}

#[derive(Serialize)]
pub struct IssueOut<'a> {
    pub issued_api_key: KeyOut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<&'a str>,
}

#[derive(Serialize)]
pub struct ListIssuedOut<'a> {
    pub issued_api_keys: Vec<KeyOut<'a>>,
    pub next_page_token: String,
}

#[derive(Serialize)]
pub struct ListImportedOut<'a> {
    pub imported_api_keys: Vec<KeyOut<'a>>,
    pub next_page_token: String,
}

#[derive(Serialize)]
pub struct TokenOut {
    pub token: String,
    pub claims: Map<String, Value>,
    pub expire_time: String,
    pub scopes: Vec<String>,
    pub audiences: Vec<String>,
}

#[derive(Serialize)]
pub struct DeriveOut {
    pub token: TokenOut,
}

/// The answer of verify.
#[derive(Serialize, Default)]
pub struct VerifyOut<'a> {
    pub is_valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<&'a str>,
    pub scopes: Vec<&'a str>,
    pub audiences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit_policy: Option<RateLimitPolicyOut>,
}

impl<'a> VerifyOut<'a> {
    /// What there is to say of a key.
    pub fn of_key(key: &'a Key, now: Timestamp) -> Self {
        Self {
            key_id: Some(key.id.to_string()),
            actor_id: Some(key.actor.as_str()),
            scopes: key.scopes.iter().map(crate::key::Scope::as_str).collect(),
            metadata: key.metadata.as_ref().map(Metadata::raw),
            status: Some(key.status(now).name()),
            visibility: Some(key.visibility.name()),
            expire_time: key.expires.map(Timestamp::to_rfc3339),
            rate_limit_policy: key.rate_policy.map(rate_limit_policy_out),
            ..Self::default()
        }
    }
}
