//! What comes in.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::names;
use crate::credential::{MAX_LEN as MAX_CREDENTIAL, TokenFormat};
use crate::duration;
use crate::error::ApiError;
use crate::http::body::{object, objects};
use crate::key::strict::{self, Numbers};
use crate::key::{
    ActorId, AddressList, FieldError, KeyName, MAX_LABEL, Metadata, RatePolicy, RateUnit, RevocationReason,
    Scope, Scopes, TEN_YEARS, Visibility,
};
use crate::secret::SecretString;
use crate::service::{ImportRequest, KeyRequest, ListRequest, MAX_DESCRIPTION, RotateRequest, Update};

/// Most credentials verified by one request.
pub const MAX_BATCH_VERIFY: usize = 100;
/// Most keys imported by one request.
pub const MAX_BATCH_IMPORT: usize = 1_000;
/// Longest `request_id`, in characters.
const MAX_REQUEST_ID: usize = 36;

/// [`Scope::parse`] as a pattern.
pub(super) const SCOPE: &str = r#"^[!#-\[\]-~]*$"#;
/// No control characters, as a pattern.
pub(super) const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// [`ActorId::parse`] as a pattern.
const ACTOR: &str =
    r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$";

/// How often a key may be used.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimitPolicy {
    /// Units per window, 1 at least.
    #[serde(default, deserialize_with = "int64")]
    #[schemars(with = "Option<String>", extend("format" = "int64"))]
    quota: Option<i64>,
    /// The window, such as `60s`: between a second and ten years.
    window: Option<String>,
    /// What is counted: `requests` (the default), `content-bytes` or `concurrent-requests`. The
    /// latter two are stored and reported, for a gateway to enforce; the answer's `Warning` header
    /// says that Talos doesn't.
    unit: Option<String>,
}

/// From where a key may be used.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IPRestriction")]
pub struct IpRestriction {
    /// CIDR blocks such as `10.0.0.0/8` and `2001:db8::/32`. None at all means from anywhere.
    #[schemars(length(max = AddressList::MAX))]
    allowed_cidrs: Option<Vec<String>>,
}

/// The key to issue.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IssueApiKeyRequest")]
pub struct IssueBody {
    /// For people to read; needed.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(NO_CONTROL))]
    name: Option<String>,
    /// On whose behalf the key acts; needed. No white space at its ends.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(ACTOR))]
    actor_id: Option<String>,
    /// What the key may do: RFC 6749 scope-tokens, no two alike.
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    scopes: Option<Vec<String>>,
    /// How long the key lives, such as `3600s`, `1h30m` or `1y`: between a second and ten years, and not beyond
    /// `credentials.api_keys.max_ttl`. Unset or zero means the default.
    ttl: Option<String>,
    /// The caller's own attributes: at most 4096 bytes of JSON, nested 16 levels at most, no name
    /// twice in an object, numbers that a double holds (whole ones within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    #[schemars(with = "Option<names::KeyVisibility>")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    /// The caller's idempotency key: the same request under the same id gives the first key again, without its secret.
    #[schemars(length(max = MAX_REQUEST_ID), pattern(NO_CONTROL))]
    request_id: Option<String>,
}

/// The key to import. It can't have the form of a credential that Talos makes itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImportApiKeyRequest")]
pub struct ImportBody {
    /// The key itself, of which only a hash is kept; needed.
    #[schemars(required, with = "String", length(min = 1, max = MAX_CREDENTIAL))]
    raw_key: Option<SecretString>,
    /// For people to read; needed.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(NO_CONTROL))]
    name: Option<String>,
    /// On whose behalf the key acts; needed. No white space at its ends.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(ACTOR))]
    actor_id: Option<String>,
    /// What the key may do: RFC 6749 scope-tokens, no two alike.
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    scopes: Option<Vec<String>>,
    /// How long the key lives, such as `3600s`, `1h30m` or `1y`: between a second and ten years, and not beyond
    /// `credentials.api_keys.max_ttl`. Unset or zero means the default.
    ttl: Option<String>,
    /// The caller's own attributes: at most 4096 bytes of JSON, nested 16 levels at most, no name
    /// twice in an object, numbers that a double holds (whole ones within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    #[schemars(with = "Option<names::KeyVisibility>")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    /// The caller's idempotency key: the same request under the same id gives the first key again, without its secret.
    #[schemars(length(max = MAX_REQUEST_ID), pattern(NO_CONTROL))]
    request_id: Option<String>,
}

/// Why a key is to be revoked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    #[schemars(with = "Option<names::RevocationReason>")]
    pub reason: Option<String>,
    /// More words, only beside REVOCATION_REASON_PRIVILEGE_WITHDRAWN.
    #[schemars(length(max = MAX_DESCRIPTION))]
    pub description: Option<String>,
}

/// The key that its holder wants to end.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SelfRevokeApiKeyRequest")]
pub struct SelfRevokeRequest {
    /// The whole key, which proves that it is the caller's; needed.
    #[schemars(required, with = "String", length(min = 1, max = MAX_CREDENTIAL))]
    pub credential: Option<SecretString>,
    #[schemars(with = "Option<names::RevocationReason>")]
    pub reason: Option<String>,
}

/// A credential to verify.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "VerifyApiKeyRequest")]
pub struct VerifyBody {
    /// A key or a derived token; needed.
    #[schemars(required, with = "String", length(min = 1, max = MAX_CREDENTIAL))]
    pub credential: Option<SecretString>,
    /// For whom the caller asks: a derived token must then name one of them. None at all takes every token.
    pub expected_audiences: Option<Vec<String>>,
}

/// The token to derive.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DeriveTokenRequest")]
pub struct DeriveBody {
    /// The key to derive from; needed.
    #[schemars(required, with = "String", length(min = 1, max = MAX_CREDENTIAL))]
    pub credential: Option<SecretString>,
    #[schemars(with = "Option<names::TokenAlgorithm>")]
    pub algorithm: Option<String>,
    /// How long the token lives, such as `300s` or `5m`: at least a second, and not beyond the key's own end or
    /// `credentials.derived_tokens.max_ttl`. Unset or zero means the default.
    pub ttl: Option<String>,
    /// What the token may do, of what the key may. None at all means all of it.
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    pub scopes: Option<Vec<String>>,
    /// For whom the token is (`aud`).
    pub audiences: Option<Vec<String>>,
    /// More claims: at most 4096 bytes of JSON. Those that Talos sets itself are left out.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub custom_claims: Option<Box<RawValue>>,
}

/// What is to be otherwise with the new key. What is absent stays as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminRotateIssuedApiKeyBody")]
pub struct RotateBody {
    /// For people to read.
    #[schemars(length(min = 1, max = MAX_LABEL), pattern(NO_CONTROL))]
    name: Option<String>,
    /// What the key may do: RFC 6749 scope-tokens, no two alike.
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    scopes: Option<Vec<String>>,
    /// The caller's own attributes: at most 4096 bytes of JSON, nested 16 levels at most, no name
    /// twice in an object, numbers that a double holds (whole ones within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    #[schemars(with = "Option<names::KeyVisibility>")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    /// How much longer the old key may be used, such as `1h`; ten years at most. Not at all when unset.
    grace_period: Option<String>,
}

/// Keys to import.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BatchCreateImportedApiKeysRequest", extend("required" = ["requests"]))]
pub struct BatchImportBody {
    /// The keys; needed.
    #[serde(default, deserialize_with = "objects")]
    #[schemars(required, length(min = 1, max = MAX_BATCH_IMPORT))]
    pub requests: Option<Vec<ImportBody>>,
}

/// Credentials to verify.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BatchVerifyApiKeysRequest", extend("required" = ["requests"]))]
pub struct BatchVerifyBody {
    /// The credentials; needed.
    #[serde(default, deserialize_with = "objects")]
    #[schemars(required, length(min = 1, max = MAX_BATCH_VERIFY))]
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
            metadata: metadata(body.metadata.as_deref())?,
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
            metadata: metadata(body.metadata.as_deref())?.map(Some),
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
    value.map_err(|FieldError(problem)| match problem.starts_with(['[', '.']) {
        // `[3] must be …` is about one item of the list, `.a must be …` about a member.
        true => {
            let (item, problem) = problem.split_once(' ').unwrap_or((&problem, ""));
            ApiError::field(format!("{name}{item}"), problem)
        }
        false => ApiError::field(name, problem),
    })
}

/// Attributes of a request.
pub(super) fn metadata(json: Option<&RawValue>) -> Result<Option<Metadata>, ApiError> {
    field("metadata", json.map(Metadata::parse).transpose())
}

/// Claims that are the caller's own.
pub fn custom_claims(json: Option<&RawValue>) -> Result<Map<String, Value>, ApiError> {
    let claims = json.map(|json| strict::object(json, Numbers::Integers64)).transpose();
    field("custom_claims", claims).map(Option::unwrap_or_default)
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
