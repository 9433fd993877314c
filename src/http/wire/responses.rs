//! What goes out.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::duration;
use crate::error::{ApiError, Reason};
use crate::key::{ActorId, Key, Metadata, RatePolicy, RevocationReason, Scope, Status};
use crate::service::verify::{Identity, Verification};

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
    /// Ours: until when a key that has a successor goes on beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    supersede_time: Option<String>,
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
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
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
            supersede_time: key.superseded.map(Timestamp::to_rfc3339),
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
pub struct RotateOut<'a> {
    pub issued_api_key: KeyOut<'a>,
    pub old_issued_api_key: KeyOut<'a>,
    pub secret: &'a str,
}

#[derive(Serialize)]
pub struct BatchImportOut<'a> {
    pub results: Vec<BatchImportResult<'a>>,
    pub success_count: usize,
    pub failure_count: usize,
}

/// What came of one key of a batch.
#[derive(Serialize)]
pub struct BatchImportResult<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    imported_api_key: Option<KeyOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
}

impl<'a> BatchImportResult<'a> {
    /// The result of the key at `index`.
    pub fn new(index: usize, result: &'a Result<Key, ApiError>, now: Timestamp) -> Self {
        let empty = Self { index, imported_api_key: None, error_code: None, error_message: None };
        match result {
            Ok(key) => Self { imported_api_key: Some(KeyOut::new(key, now)), ..empty },
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

#[derive(Serialize)]
pub struct BatchVerifyOut<'a> {
    pub results: Vec<VerifyOut<'a>>,
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
    /// A judgement in words. `issuer` is the current one, under whose name keys stand.
    pub fn new(verification: &'a Verification, issuer: &'a str, now: Timestamp) -> Self {
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
                ..refused.key.as_ref().map(|key| Self::of_key(key, now)).unwrap_or_default()
            },
        }
    }

    /// That nothing can be said.
    pub fn failed(error_code: &'static str, message: String) -> Self {
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
