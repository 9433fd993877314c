//! Requests.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::credits::{CreditsBody, credits};
use super::lists::MAX_EXPECTED_AUDIENCES;
use super::rate_limits::{
    NamedRateLimitPolicy, RateLimitPolicy, policy_list, rate_limit_changes, rate_limits,
};
use super::scalars::{field, span};
use super::{lists, names};
use crate::credential::imported_hash::{HashError, ImportedHash, MAX_HASH_TEXT};
use crate::credential::{MAX_LEN as MAX_CREDENTIAL, TokenFormat};
use crate::error::ApiError;
use crate::http::body::{object, objects};
use crate::key::strict::{self, Numbers};
use crate::key::{
    ActorId, AddressList, KeyName, MAX_LABEL, Metadata, RatePolicies, RevocationReason, Scope, Scopes,
    TEN_YEARS, UnusedGrace, Visibility,
};
use crate::secret::SecretString;
use crate::service::{
    Expiry, ImportRequest, KeyMaterial, KeyRequest, MAX_DESCRIPTION, RotateRequest, Update,
};

/// Maximum number of credentials in a verify batch.
pub(crate) const MAX_BATCH_VERIFY: usize = 100;
/// Maximum number of keys in an import batch.
pub(crate) const MAX_BATCH_IMPORT: usize = 1_000;
/// Maximum length of `request_id`, in characters.
const MAX_REQUEST_ID: usize = 36;
/// Maximum length of `role`, in characters.
pub(super) const MAX_ROLE: usize = 64;

/// [`Scope::parse`] as a pattern.
pub(super) const SCOPE: &str = r#"^[!#-\[\]-~]*$"#;
/// No control characters, as a pattern.
pub(super) const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// [`ActorId::parse`] as a pattern.
const ACTOR: &str =
    r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$";

/// Restricts the addresses from which a key may be used.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IPRestriction")]
pub(super) struct IpRestriction {
    /// CIDR blocks such as `10.0.0.0/8` and `2001:db8::/32`. An empty list allows all addresses.
    #[serde(default, deserialize_with = "lists::blocks")]
    #[schemars(length(max = AddressList::MAX))]
    allowed_cidrs: Option<Vec<String>>,
}

/// The key to issue.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IssueApiKeyRequest")]
pub struct IssueBody {
    /// Name, for people. Required.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(NO_CONTROL))]
    name: Option<String>,
    /// Actor on whose behalf the key acts. Required. No white space at its ends.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(ACTOR))]
    actor_id: Option<String>,
    /// Scopes of the key: RFC 6749 scope-tokens without duplicates.
    #[serde(default, deserialize_with = "lists::scopes")]
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    scopes: Option<Vec<String>>,
    /// Named set of scopes of the configuration (`roles`), in place of `scopes`. Its scopes are
    /// stored with the key; later changes of the set don't reach it.
    #[schemars(length(max = MAX_ROLE))]
    role: Option<String>,
    /// Lifetime, such as `3600s`, `1h30m` or `1y`: one second to ten years, and at most
    /// `credentials.api_keys.max_ttl`. Unset or zero means the default.
    ttl: Option<String>,
    /// The owner's own attributes: at most 4096 bytes of JSON, nested at most 16 levels, without
    /// repeated names, numbers that a double represents (integers within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    #[schemars(with = "Option<names::KeyVisibility>")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    /// Several limits, each with a name; beside or instead of `rate_limit_policy`, which stands for
    /// the one named `default`.
    #[serde(default, deserialize_with = "policy_list")]
    #[schemars(length(max = RatePolicies::MAX))]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicy>>,
    #[serde(default, deserialize_with = "object")]
    credits: Option<CreditsBody>,
    /// Idempotency key: a repeated request with the same id returns the first key. The caller that
    /// made it also gets its secret, within `idempotency.reveal_for` and while the key is unused.
    #[schemars(length(max = MAX_REQUEST_ID), pattern(NO_CONTROL))]
    request_id: Option<String>,
}

/// Hash of the key to import, instead of the key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ApiKeyHash")]
struct HashBody {
    /// `sha256` or `sha512`. May be left out if the value begins with it.
    algorithm: Option<String>,
    /// `hex` or `base64`. If left out, the length of the value says which.
    encoding: Option<String>,
    /// Digest over the raw key, alone or with a prefix such as `sha256:`. Required.
    #[schemars(required, with = "String", length(min = 1, max = MAX_HASH_TEXT))]
    value: Option<SecretString>,
}

/// The key to import: `raw_key`, or `hash` where the raw key isn't known. It can't have the form of
/// a credential that Talos makes itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ImportApiKeyRequest")]
pub struct ImportBody {
    /// The raw key, of which only a hash is stored. Required without `hash`.
    #[schemars(with = "Option<String>", length(min = 1, max = MAX_CREDENTIAL))]
    raw_key: Option<SecretString>,
    /// Hash of the raw key. The key works from now on, and gets the id of an imported key when it
    /// is first shown. Slow hashes (bcrypt, scrypt, argon2) are refused.
    #[serde(default, deserialize_with = "object")]
    hash: Option<HashBody>,
    /// Name, for people. Required.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(NO_CONTROL))]
    name: Option<String>,
    /// Actor on whose behalf the key acts. Required. No white space at its ends.
    #[schemars(required, length(min = 1, max = MAX_LABEL), pattern(ACTOR))]
    actor_id: Option<String>,
    /// Scopes of the key: RFC 6749 scope-tokens without duplicates.
    #[serde(default, deserialize_with = "lists::scopes")]
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    scopes: Option<Vec<String>>,
    /// Named set of scopes of the configuration (`roles`), in place of `scopes`. Its scopes are
    /// stored with the key; later changes of the set don't reach it.
    #[schemars(length(max = MAX_ROLE))]
    role: Option<String>,
    /// Lifetime, such as `3600s`, `1h30m` or `1y`: one second to ten years, and at most
    /// `credentials.api_keys.max_ttl`. Unset or zero means the default.
    ttl: Option<String>,
    /// The owner's own attributes: at most 4096 bytes of JSON, nested at most 16 levels, without
    /// repeated names, numbers that a double represents (integers within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    #[schemars(with = "Option<names::KeyVisibility>")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    /// Several limits, each with a name; beside or instead of `rate_limit_policy`, which stands for
    /// the one named `default`.
    #[serde(default, deserialize_with = "policy_list")]
    #[schemars(length(max = RatePolicies::MAX))]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicy>>,
    #[serde(default, deserialize_with = "object")]
    credits: Option<CreditsBody>,
    /// Idempotency key: a repeated request with the same id returns the first key.
    #[schemars(length(max = MAX_REQUEST_ID), pattern(NO_CONTROL))]
    request_id: Option<String>,
}

/// The reason for a revocation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeBody {
    #[schemars(with = "Option<names::RevocationReason>")]
    pub reason: Option<String>,
    /// Description, only beside REVOCATION_REASON_PRIVILEGE_WITHDRAWN.
    #[schemars(length(max = MAX_DESCRIPTION))]
    pub description: Option<String>,
}

/// The key that its holder revokes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SelfRevokeApiKeyRequest")]
pub(crate) struct SelfRevokeRequest {
    /// The whole key, which proves possession. Required.
    #[schemars(required, with = "String", length(min = 1, max = MAX_CREDENTIAL))]
    pub credential: Option<SecretString>,
    #[schemars(with = "Option<names::RevocationReason>")]
    pub reason: Option<String>,
}

/// A credential to verify.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "VerifyApiKeyRequest")]
pub(crate) struct VerifyBody {
    /// A key or a derived token. Required.
    #[schemars(required, with = "String", length(min = 1, max = MAX_CREDENTIAL))]
    pub credential: Option<SecretString>,
    /// Expected audiences: a derived token must have one of them. An empty list accepts any token.
    #[serde(default, deserialize_with = "lists::expected_audiences")]
    #[schemars(length(max = MAX_EXPECTED_AUDIENCES))]
    pub expected_audiences: Option<Vec<String>>,
}

/// The token to derive.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DeriveTokenRequest")]
pub(crate) struct DeriveBody {
    /// The key to derive from. Required.
    #[schemars(required, with = "String", length(min = 1, max = MAX_CREDENTIAL))]
    pub credential: Option<SecretString>,
    #[schemars(with = "Option<names::TokenAlgorithm>")]
    pub algorithm: Option<String>,
    /// Lifetime, such as `300s` or `5m`: at least a second, and at most that of the key and
    /// `credentials.derived_tokens.max_ttl`. Unset or zero means the default.
    pub ttl: Option<String>,
    /// Scopes of the token, a subset of the key's. An empty list means all of them.
    #[serde(default, deserialize_with = "lists::scopes")]
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    pub scopes: Option<Vec<String>>,
    /// Audiences of the token (`aud`).
    #[serde(default, deserialize_with = "lists::audiences")]
    pub audiences: Option<Vec<String>>,
    /// Custom claims: at most 4096 bytes of JSON. Names that Talos sets itself are ignored.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub custom_claims: Option<Box<RawValue>>,
}

/// Changes for the new key. Absent fields are inherited.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdminRotateIssuedApiKeyBody")]
pub struct RotateBody {
    /// Name, for people.
    #[schemars(length(min = 1, max = MAX_LABEL), pattern(NO_CONTROL))]
    name: Option<String>,
    /// Scopes of the key: RFC 6749 scope-tokens without duplicates.
    #[serde(default, deserialize_with = "lists::scopes")]
    #[schemars(length(max = Scopes::MAX), inner(length(min = 1, max = Scope::MAX_LEN), pattern(SCOPE)))]
    scopes: Option<Vec<String>>,
    /// Named set of scopes of the configuration (`roles`), in place of `scopes`. Its scopes are
    /// stored with the key; later changes of the set don't reach it.
    #[schemars(length(max = MAX_ROLE))]
    role: Option<String>,
    /// The owner's own attributes: at most 4096 bytes of JSON, nested at most 16 levels, without
    /// repeated names, numbers that a double represents (integers within 2^53 - 1).
    #[schemars(with = "Option<Map<String, Value>>")]
    metadata: Option<Box<RawValue>>,
    #[schemars(with = "Option<names::KeyVisibility>")]
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    /// Several limits, each with a name; beside or instead of `rate_limit_policy`, which stands for
    /// the one named `default`.
    #[serde(default, deserialize_with = "policy_list")]
    #[schemars(length(max = RatePolicies::MAX))]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicy>>,
    /// Credits of the new key alone. If unset, it shares those of the old key.
    #[serde(default, deserialize_with = "object")]
    credits: Option<CreditsBody>,
    /// Lifetime of the new key, such as `720h`: one second to ten years, and at most
    /// `credentials.api_keys.max_ttl`. If unset or zero, the end of the old key is inherited.
    ttl: Option<String>,
    /// Time for which the old key stays valid, such as `1h`; at most ten years. Revoked at once if
    /// unset.
    grace_period: Option<String>,
    /// Time without a use after which the old key ends, such as `24h`: one hour to one year. Its
    /// uses put the end off, for `grace_period` at most, or a year.
    until_unused: Option<String>,
    /// Idempotency key: repeated by the same caller, within `idempotency.reveal_for` and while the
    /// new key is unused, the request gets the same keys and the same secret. Shared with the
    /// requests that issue and import keys.
    #[schemars(length(max = MAX_REQUEST_ID), pattern(NO_CONTROL))]
    request_id: Option<String>,
}

/// Keys to import.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BatchCreateImportedApiKeysRequest", extend("required" = ["requests"]))]
pub(crate) struct BatchImportBody {
    /// The keys. Required.
    #[serde(default, deserialize_with = "imports")]
    #[schemars(required, length(min = 1, max = MAX_BATCH_IMPORT))]
    pub requests: Option<Vec<ImportBody>>,
    /// Returns one result per key even if none could be imported, instead of the first error.
    pub report_all: Option<bool>,
}

/// Credentials to verify.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BatchVerifyApiKeysRequest", extend("required" = ["requests"]))]
pub(crate) struct BatchVerifyBody {
    /// The credentials. Required.
    #[serde(default, deserialize_with = "verifications")]
    #[schemars(required, length(min = 1, max = MAX_BATCH_VERIFY))]
    pub requests: Option<Vec<VerifyBody>>,
}

fn imports<'de, D: Deserializer<'de>>(items: D) -> Result<Option<Vec<ImportBody>>, D::Error> {
    objects(items, MAX_BATCH_IMPORT)
}

fn verifications<'de, D: Deserializer<'de>>(items: D) -> Result<Option<Vec<VerifyBody>>, D::Error> {
    objects(items, MAX_BATCH_VERIFY)
}

impl TryFrom<IssueBody> for KeyRequest {
    type Error = ApiError;

    fn try_from(body: IssueBody) -> Result<Self, ApiError> {
        let limits = rate_limits(body.rate_limit_policy, body.rate_limit_policies)?;
        Ok(Self {
            name: field("name", KeyName::parse(&body.name.unwrap_or_default()))?,
            actor: field("actor_id", ActorId::parse(&body.actor_id.unwrap_or_default()))?,
            role: role(body.role, body.scopes.as_deref())?,
            scopes: field("scopes", Scopes::parse(&body.scopes.unwrap_or_default()))?,
            ttl: ttl(body.ttl.as_deref())?,
            metadata: metadata(body.metadata.as_deref())?,
            visibility: visibility(body.visibility.as_deref())?,
            addresses: addresses(body.ip_restriction)?,
            rate_policy: limits.default,
            rate_policies: limits.all,
            credits: body.credits.map(credits).transpose()?.flatten(),
            request_id: request_id(body.request_id)?,
        })
    }
}

impl TryFrom<ImportBody> for ImportRequest {
    type Error = ApiError;

    fn try_from(body: ImportBody) -> Result<Self, ApiError> {
        let raw_key = body.raw_key.filter(|raw_key| !raw_key.expose().is_empty());
        let material = match (raw_key, body.hash) {
            (Some(_), Some(_)) => {
                return Err(ApiError::field("hash", "stands beside raw_key; leave out one of them"));
            }
            (None, Some(hash)) => KeyMaterial::Hash(imported_hash(&hash)?),
            (Some(raw_key), None) => KeyMaterial::Raw(raw_key),
            (None, None) => {
                let problem = "must be 1 to 16384 bytes long; where the key itself isn't known, set hash";
                return Err(ApiError::field("raw_key", problem));
            }
        };
        let key = IssueBody {
            name: body.name,
            actor_id: body.actor_id,
            scopes: body.scopes,
            role: body.role,
            ttl: body.ttl,
            metadata: body.metadata,
            visibility: body.visibility,
            ip_restriction: body.ip_restriction,
            rate_limit_policy: body.rate_limit_policy,
            rate_limit_policies: body.rate_limit_policies,
            credits: body.credits,
            request_id: body.request_id,
        };
        Ok(Self { material, key: key.try_into()? })
    }
}

impl TryFrom<RotateBody> for RotateRequest {
    type Error = ApiError;

    /// Absent fields are inherited. Present fields count, even if empty.
    fn try_from(body: RotateBody) -> Result<Self, ApiError> {
        let (rate_policy, rate_policies) =
            rate_limit_changes(body.rate_limit_policy, body.rate_limit_policies)?;
        let changes = Update {
            name: body.name.map(|name| field("name", KeyName::parse(&name))).transpose()?,
            role: role(body.role, body.scopes.as_deref())?,
            scopes: body.scopes.map(|texts| scopes(Some(texts))).transpose()?,
            metadata: metadata(body.metadata.as_deref())?.map(Some),
            addresses: body.ip_restriction.map(|restriction| addresses(Some(restriction))).transpose()?,
            rate_policy,
            rate_policies,
            credits: body.credits.map(credits).transpose()?,
            expiry: ttl(body.ttl.as_deref())?.map(Expiry::After),
        };
        let visibility = body.visibility.filter(|name| name != "KEY_VISIBILITY_UNSPECIFIED");
        let grace = span("grace_period", body.grace_period.as_deref())?.unwrap_or_default();
        if grace > TEN_YEARS {
            return Err(ApiError::field("grace_period", "must be 315360000s at most"));
        }
        let until_unused = span("until_unused", body.until_unused.as_deref())?;
        let bounds = UnusedGrace::MIN_AFTER..=UnusedGrace::MAX_EXTENSION;
        if until_unused.is_some_and(|after| !bounds.contains(&after)) {
            return Err(ApiError::field("until_unused", "must be between 3600s and 31536000s"));
        }
        Ok(Self {
            until_unused,
            changes,
            visibility: visibility.map(|name| self::visibility(Some(&name))).transpose()?,
            grace,
            request_id: request_id(body.request_id)?,
        })
    }
}

/// Parses the hash of a key.
fn imported_hash(HashBody { algorithm, encoding, value }: &HashBody) -> Result<ImportedHash, ApiError> {
    let value = value.as_ref().map(SecretString::expose).unwrap_or_default();
    let hash = ImportedHash::parse(algorithm.as_deref(), encoding.as_deref(), value);
    hash.map_err(|HashError { field, problem }| ApiError::field(format!("hash.{field}"), problem))
}

/// Parses metadata.
pub(super) fn metadata(json: Option<&RawValue>) -> Result<Option<Metadata>, ApiError> {
    field("metadata", json.map(Metadata::parse).transpose())
}

/// Parses custom claims.
pub(crate) fn custom_claims(json: Option<&RawValue>) -> Result<Map<String, Value>, ApiError> {
    let claims = json.map(|json| strict::object(json, Numbers::Integers64)).transpose();
    field("custom_claims", claims).map(Option::unwrap_or_default)
}

/// Parses scopes.
pub(crate) fn scopes(texts: Option<Vec<String>>) -> Result<Scopes, ApiError> {
    field("scopes", Scopes::parse(&texts.unwrap_or_default()))
}

/// Parses the name of a set of scopes, which stands in place of `scopes`.
pub(super) fn role(name: Option<String>, scopes: Option<&[String]>) -> Result<Option<String>, ApiError> {
    let name = name.filter(|name| !name.is_empty());
    match &name {
        Some(name) if name.len() > MAX_ROLE => Err(ApiError::field("role", "must be 64 bytes at most")),
        Some(_) if scopes.is_some_and(|scopes| !scopes.is_empty()) => {
            Err(ApiError::field("role", "may not stand beside scopes; use one of the two"))
        }
        _ => Ok(name),
    }
}

/// Parses the format of a token. The default is a JWT.
pub(crate) fn token_format(algorithm: Option<&str>) -> Result<TokenFormat, ApiError> {
    match algorithm {
        None | Some("TOKEN_ALGORITHM_UNSPECIFIED" | "TOKEN_ALGORITHM_JWT") => Ok(TokenFormat::Jwt),
        Some("TOKEN_ALGORITHM_MACAROON") => Ok(TokenFormat::Macaroon),
        Some(_) => Err(ApiError::field("algorithm", "must be one of the TOKEN_ALGORITHM_… of the API")),
    }
}

/// Parses a duration. Unset and zero mean the default.
pub(crate) fn ttl(text: Option<&str>) -> Result<Option<Duration>, ApiError> {
    span("ttl", text)
}

/// Parses the reason for a revocation.
pub(crate) fn reason(name: Option<&str>) -> Result<RevocationReason, ApiError> {
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
