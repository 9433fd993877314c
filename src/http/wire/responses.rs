//! Responses.

use std::borrow::Cow;
use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::credits::{CreditsBody, CreditsOut};
use super::names;
use super::rate_limits::{
    NamedRateLimitPolicy, NamedRateLimitPolicyOut, RateLimitPolicy, RateLimitPolicyOut,
    rate_limit_policies_out, rate_limit_policy_out,
};
use super::requests::IpRestriction;
use super::state::SuspensionOut;
use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
use crate::key::{ActorId, CreditBalance, Key, Metadata, RevocationReason, Scope, SpentCredits, Status};
use crate::limit::RateDecision;
use crate::service::verify::{Identity, Verification};

#[derive(Serialize)]
struct IpRestrictionOut {
    allowed_cidrs: Vec<String>,
}

/// A key.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "IssuedApiKey")]
pub(crate) struct KeyOut<'a> {
    /// The id: a UUID for an issued key, the SHA-512/256 of network and key in hexadecimal for an
    /// imported one.
    key_id: String,
    /// Name, for people.
    name: &'a str,
    /// Actor on whose behalf the key acts.
    actor_id: &'a str,
    /// Scopes of the key.
    scopes: Vec<&'a str>,
    /// The owner's own attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    metadata: Option<&'a RawValue>,
    #[schemars(with = "names::KeyStatus")]
    status: &'static str,
    #[schemars(with = "names::KeyVisibility")]
    visibility: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IpRestriction")]
    ip_restriction: Option<IpRestrictionOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateLimitPolicy")]
    rate_limit_policy: Option<RateLimitPolicyOut>,
    /// All limits, if a list of them was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NamedRateLimitPolicy>")]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicyOut>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CreditsBody")]
    credits: Option<CreditsOut>,
    /// Time of creation.
    #[schemars(extend("format" = "date-time"))]
    create_time: String,
    /// Time of the last change.
    #[schemars(extend("format" = "date-time"))]
    update_time: String,
    /// Time of expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    expire_time: Option<String>,
    /// Time of the last use, to the day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    last_used_time: Option<String>,
    /// Address of the client of the last use that was counted. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "names::RevocationReason")]
    revocation_reason: Option<&'static str>,
    /// Description of the revocation, beside REVOCATION_REASON_PRIVILEGE_WITHDRAWN.
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_description: Option<&'a str>,
    /// End of the grace period in which the key is valid beside its successor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    supersede_time: Option<String>,
    /// Parts of the key that the settings keep from working, such as limits that aren't enforced,
    /// and an end by an issuance policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>")]
    warnings: Vec<Cow<'static, str>>,
    /// Suspension of the key. `status` stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspension: Option<SuspensionOut>,
    /// Suspension of the actor, which is one of all its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_suspension: Option<SuspensionOut>,
    /// Limits of the actor, which count the uses of all its keys together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NamedRateLimitPolicy>")]
    actor_rate_limit_policies: Option<Vec<NamedRateLimitPolicyOut>>,
    /// Caller who issued or imported the key, if authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<&'a str>,
    /// Caller who made the last change, if authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<&'a str>,
    /// Caller who revoked the key, if authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_by: Option<&'a str>,
    /// Key that this one replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    /// Key that replaces this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
}

/// Imported key, for the description. It looks like an issued one.
pub(crate) struct ImportedKey;

impl JsonSchema for ImportedKey {
    fn schema_name() -> Cow<'static, str> {
        "ImportedApiKey".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        KeyOut::json_schema(generator)
    }
}

impl<'a> KeyOut<'a> {
    /// Returns a key as of `now`.
    pub(crate) fn new(key: &'a Key, now: Timestamp) -> Self {
        let (revocation, provenance) = (key.revocation.as_ref(), &key.provenance);
        let reason = revocation.map(|revocation| revocation.reason);
        let superseded = key.superseded.is_some_and(|at| at <= now).then_some(RevocationReason::Superseded);
        Self {
            key_id: key.id.to_string(),
            name: key.name.as_str(),
            actor_id: key.actor.as_str(),
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            metadata: key.metadata.as_ref().map(Metadata::raw),
            status: key.status(now).name(),
            visibility: key.visibility.name(),
            ip_restriction: (!key.addresses.is_empty()).then(|| IpRestrictionOut {
                allowed_cidrs: key.addresses.iter().map(ToString::to_string).collect(),
            }),
            rate_limit_policy: key.rate_policy.map(rate_limit_policy_out),
            rate_limit_policies: rate_limit_policies_out(&key.rate_policies),
            credits: key.credits.as_ref().map(|credits| credits.balance.at(now).into()),
            create_time: key.created.to_rfc3339(),
            update_time: key.updated.to_rfc3339(),
            expire_time: key.expires.map(Timestamp::to_rfc3339),
            last_used_time: key.last_used.map(Timestamp::to_rfc3339),
            revocation_reason: reason
                .or(superseded)
                .filter(|reason| *reason != RevocationReason::Unspecified)
                .map(RevocationReason::name),
            revocation_description: revocation.and_then(|revocation| revocation.description.as_deref()),
            supersede_time: key.superseded.map(Timestamp::to_rfc3339),
            warnings: vec![],
            last_used_address: None,
            suspension: SuspensionOut::in_force(key.suspensions.own.as_deref(), now),
            actor_suspension: SuspensionOut::in_force(key.suspensions.of_actor.as_deref(), now),
            actor_rate_limit_policies: rate_limit_policies_out(&key.actor_limits),
            created_by: provenance.created_by.as_deref(),
            updated_by: provenance.updated_by.as_deref(),
            revoked_by: provenance.revoked_by.as_deref(),
            replaces: provenance.replaces.map(|id| id.to_string()),
            replaced_by: provenance.replaced_by.map(|id| id.to_string()),
        }
    }

    /// Adds the address of the last use.
    pub(crate) fn with_last_address(self, address: Option<IpAddr>) -> Self {
        Self { last_used_address: address.map(|address| address.to_string()), ..self }
    }

    /// Adds what the settings keep the key from doing.
    pub(crate) fn with_warnings(self, warnings: Vec<Cow<'static, str>>) -> Self {
        Self { warnings, ..self }
    }
}

/// A new key.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "IssueApiKeyResponse")]
pub(crate) struct IssueOut<'a> {
    pub issued_api_key: KeyOut<'a>,
    /// The secret. Not stored; returned again only to a retry (see `request_id`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<&'a str>,
}

/// The new key and the old key that it replaces.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RotateIssuedApiKeyResponse")]
pub(crate) struct RotateOut<'a> {
    pub issued_api_key: KeyOut<'a>,
    pub old_issued_api_key: KeyOut<'a>,
    /// The secret of the new key. Not stored; returned again only to a retry (see `request_id`).
    pub secret: &'a str,
}

/// The keys of an actor that were deleted.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeleteActorResponse")]
pub(crate) struct ErasedActorOut {
    /// Number of issued keys.
    #[schemars(with = "i32")]
    pub issued_api_key_count: usize,
    /// Number of imported keys.
    #[schemars(with = "i32")]
    pub imported_api_key_count: usize,
    /// True if the actor has further keys: send the request again.
    pub has_more: bool,
}

/// Results of a batch of imports.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BatchCreateImportedApiKeysResponse")]
pub(crate) struct BatchImportOut<'a> {
    /// One result per key, in the order of the request.
    pub results: Vec<BatchImportResult<'a>>,
    /// Number of keys that were imported.
    #[schemars(with = "i32")]
    pub success_count: usize,
    /// Number of keys that were not.
    #[schemars(with = "i32")]
    pub failure_count: usize,
}

/// Result of one key of a batch.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BatchCreateImportedApiKeysResult")]
pub(crate) struct BatchImportResult<'a> {
    /// Index in the request, from 0.
    #[schemars(with = "i32")]
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ImportedKey")]
    imported_api_key: Option<KeyOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "names::BatchCreateImportedApiKeysErrorCode")]
    error_code: Option<&'static str>,
    /// Description of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
}

impl<'a> BatchImportResult<'a> {
    /// Returns the result of the key at `index`, with its warnings.
    pub(crate) fn new(
        index: usize,
        result: &'a Result<Key, ApiError>,
        now: Timestamp,
        warnings: impl Fn(&Key) -> Vec<Cow<'static, str>>,
    ) -> Self {
        let empty = Self { index, imported_api_key: None, error_code: None, error_message: None };
        match result {
            Ok(key) => {
                let out = KeyOut::new(key, now).with_warnings(warnings(key));
                Self { imported_api_key: Some(out), ..empty }
            }
            Err(error) => Self {
                error_code: Some(batch_error_code(error.reason)),
                error_message: Some(&error.message),
                ..empty
            },
        }
    }
}

const fn batch_error_code(reason: Reason) -> &'static str {
    match reason {
        Reason::ApiKeyExists | Reason::Conflict => "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_ALREADY_EXISTS",
        Reason::ApiKeyQuotaExceeded => "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_RESOURCE_EXHAUSTED",
        Reason::FailedPrecondition => "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_FAILED_PRECONDITION",
        reason if reason.http() < 500 => "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_INVALID_ARGUMENT",
        _ => "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_INTERNAL",
    }
}

/// Results of a batch of verifications.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BatchVerifyApiKeysResponse")]
pub(crate) struct BatchVerifyOut<'a> {
    /// One result per credential, in the order of the request.
    pub results: Vec<VerifyOut<'a>>,
}

/// A page of issued keys.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListIssuedApiKeysResponse")]
pub(crate) struct ListIssuedOut<'a> {
    /// The keys.
    pub issued_api_keys: Vec<KeyOut<'a>>,
    /// Token of the next page. Empty on the last page.
    pub next_page_token: String,
    /// Number of keys in the list, if the request asks for it and it is cheap to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size: Option<u64>,
    /// True if `total_size` is an estimate; 10000 then stands for more than can be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size_is_estimate: Option<bool>,
}

/// A page of imported keys.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListImportedApiKeysResponse")]
pub(crate) struct ListImportedOut<'a> {
    /// The keys.
    #[schemars(with = "Vec<ImportedKey>")]
    pub imported_api_keys: Vec<KeyOut<'a>>,
    /// Token of the next page. Empty on the last page.
    pub next_page_token: String,
    /// Number of keys in the list, if the request asks for it and it is cheap to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size: Option<u64>,
    /// True if `total_size` is an estimate; 10000 then stands for more than can be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size_is_estimate: Option<bool>,
}

/// A derived token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub(crate) struct TokenOut {
    /// The token.
    pub token: String,
    /// Claims of the token, for information.
    pub claims: Map<String, Value>,
    /// Time of expiry.
    #[schemars(extend("format" = "date-time"))]
    pub expire_time: String,
    /// Scopes of the token.
    pub scopes: Vec<String>,
    /// Audiences of the token.
    pub audiences: Vec<String>,
}

/// The derived token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeriveTokenResponse")]
pub(crate) struct DeriveOut {
    pub token: TokenOut,
}

/// Result of a verification.
#[derive(Serialize, JsonSchema, Default)]
#[schemars(rename = "VerifyApiKeyResponse")]
pub(crate) struct VerifyOut<'a> {
    /// True if the credential may be used. The other members may help to tell why not.
    pub is_valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "names::VerificationErrorCode")]
    pub error_code: Option<&'static str>,
    /// Description of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Id of the key, or of the parent key of a derived token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Actor on whose behalf the key acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<&'a str>,
    /// Scopes of the credential.
    pub scopes: Vec<&'a str>,
    /// Audiences of a derived token.
    pub audiences: Vec<&'a str>,
    /// Metadata of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    pub metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "names::KeyStatus")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "names::KeyVisibility")]
    pub visibility: Option<&'static str>,
    /// Time of expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expire_time: Option<String>,
    /// Issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RateLimitPolicy")]
    pub rate_limit_policy: Option<RateLimitPolicyOut>,
    /// Remaining uses in this window, if they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub rate_limit_remaining: Option<String>,
    /// Time at which the full quota is available again, if uses are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub rate_limit_reset_time: Option<String>,
    /// Credits of the key after this use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CreditsBody")]
    pub(super) credits: Option<CreditsOut>,
}

impl<'a> VerifyOut<'a> {
    /// Returns the result of a verification. `issuer` is the current one, which is that of keys.
    pub(crate) fn new(verification: &'a Verification, issuer: &'a str, now: Timestamp) -> Self {
        match &verification.verdict {
            Ok(Identity::Key(entry)) => {
                Self { is_valid: true, issuer: Some(issuer.into()), ..Self::of_key(&entry.key, now) }
            }
            Ok(Identity::Token(authority)) => Self {
                is_valid: true,
                key_id: Some(authority.key_id.clone()),
                actor_id: authority.actor.as_ref().map(ActorId::as_str),
                scopes: authority.scopes.iter().map(Scope::as_str).collect(),
                audiences: authority.audiences.iter().map(String::as_str).collect(),
                metadata: authority.metadata.as_ref().map(Metadata::raw),
                status: Some(Status::Active.name()),
                visibility: Some(authority.visibility.name()),
                expire_time: Some(authority.expires.to_rfc3339()),
                issuer: Some(authority.issuer.as_str().into()),
                ..Self::default()
            },
            Err(refused) => Self {
                error_code: Some(refused.denial.error_code()),
                error_message: Some(refused.denial.to_string()),
                ..refused.entry.as_ref().map(|entry| Self::of_key(&entry.key, now)).unwrap_or_default()
            },
        }
    }

    /// Adds the rate limit of a key whose use was counted. A key with no quota left is not valid.
    pub(crate) fn charged(self, charge: &RateDecision, now: Timestamp) -> Self {
        let counted = Self {
            rate_limit_remaining: Some(charge.remaining.to_string()),
            rate_limit_reset_time: Some(now.plus(charge.reset).to_rfc3339()),
            ..self
        };
        match charge.allowed {
            true => counted,
            false => Self {
                is_valid: false,
                issuer: None,
                error_code: Some("VERIFICATION_ERROR_RATE_LIMITED"),
                error_message: Some("the key was used too often; try again later".to_owned()),
                ..counted
            },
        }
    }

    /// Adds the credits that the key has, and whether they were enough.
    pub(crate) fn paid(self, balance: CreditBalance, spent: Option<&SpentCredits>) -> Self {
        let remaining = spent.map_or(balance.remaining, |spent| spent.remaining);
        let with_credits = Self { credits: Some(CreditBalance { remaining, ..balance }.into()), ..self };
        match spent.is_none_or(|spent| spent.allowed) {
            true => with_credits,
            false => Self {
                is_valid: false,
                issuer: None,
                // Existing clients know no code for it.
                error_code: Some("VERIFICATION_ERROR_RATE_LIMITED"),
                error_message: Some("credits_exhausted".to_owned()),
                ..with_credits
            },
        }
    }

    /// Returns the result for a credential that could not be verified.
    pub(crate) fn failed(error_code: &'static str, message: String) -> Self {
        Self { error_code: Some(error_code), error_message: Some(message), ..Self::default() }
    }

    fn of_key(key: &'a Key, now: Timestamp) -> Self {
        Self {
            key_id: Some(key.id.to_string()),
            actor_id: Some(key.actor.as_str()),
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            metadata: key.metadata.as_ref().map(Metadata::raw),
            status: Some(key.status(now).name()),
            visibility: Some(key.visibility.name()),
            expire_time: key.expires.map(Timestamp::to_rfc3339),
            rate_limit_policy: key.rate_policy.map(rate_limit_policy_out),
            ..Self::default()
        }
    }
}
