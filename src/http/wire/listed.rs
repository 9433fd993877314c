//! Parsing of keys from a listing, for migration.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::credits::{CreditsBody, credits};
use super::rate_limits::{NamedRateLimitPolicy, RateLimitPolicy, policy_list, rate_limits};
use super::requests::{ImportBody, IpRestriction, addresses, scopes, visibility};
use super::scalars::field;
use super::state::time;
use crate::clock::Timestamp;
use crate::error::ApiError;
use crate::http::body::{self, object};
use crate::key::{
    ActorId, CreditBalance, Credits, Key, KeyId, KeyKind, KeyName, Metadata, NetworkId, Provenance,
    RatePolicies, Revocation, RevocationReason, Signer, Status, Suspension, Suspensions,
};
use crate::service::{ImportRequest, MAX_DESCRIPTION};

/// A key in a listing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedKey {
    key_id: Option<String>,
    name: Option<String>,
    actor_id: Option<String>,
    scopes: Option<Vec<String>>,
    metadata: Option<Map<String, Value>>,
    status: Option<String>,
    visibility: Option<String>,
    #[serde(default, deserialize_with = "object")]
    ip_restriction: Option<IpRestriction>,
    #[serde(default, deserialize_with = "object")]
    rate_limit_policy: Option<RateLimitPolicy>,
    #[serde(default, deserialize_with = "policy_list")]
    rate_limit_policies: Option<Vec<NamedRateLimitPolicy>>,
    #[serde(default, deserialize_with = "object")]
    credits: Option<CreditsBody>,
    create_time: Option<String>,
    update_time: Option<String>,
    expire_time: Option<String>,
    last_used_time: Option<String>,
    #[serde(rename = "last_used_address")]
    _last_used_address: Option<IgnoredAny>,
    revocation_reason: Option<String>,
    revocation_description: Option<String>,
    supersede_time: Option<String>,
    #[allow(dead_code, reason = "says something of the settings, not of the key")]
    warnings: Option<Vec<String>>,
    /// Absent in listings of Ory Talos, as are the fields below.
    suspension: Option<ListedSuspension>,
    /// Suspension of the actor, which is not part of the key.
    #[serde(rename = "actor_suspension")]
    _actor_suspension: Option<IgnoredAny>,
    /// Limits of the actor, likewise.
    #[serde(rename = "actor_rate_limit_policies")]
    _actor_rate_limit_policies: Option<IgnoredAny>,
    created_by: Option<String>,
    updated_by: Option<String>,
    revoked_by: Option<String>,
    replaces: Option<String>,
    replaced_by: Option<String>,
}

/// A suspension in a listing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedSuspension {
    reason: Option<String>,
    until: Option<String>,
    suspended_at: Option<String>,
    suspended_by: Option<String>,
}

/// Parses a key of a listing. `kind` is that of the listing, if known.
///
/// # Errors
/// Fails if a field is unknown or invalid, or fields contradict each other or `now`.
pub fn listed_key(
    network: NetworkId,
    kind: Option<KeyKind>,
    json: &str,
    now: Timestamp,
) -> Result<Key, ApiError> {
    let listed: ListedKey = body::parse(json.as_bytes())?;
    let id = key_id(kind, listed.key_id.as_deref())?;
    let created = time("create_time", listed.create_time.as_deref())?
        .ok_or_else(|| ApiError::field("create_time", "is missing"))?;
    let expires = time("expire_time", listed.expire_time.as_deref())?;
    let superseded = time("supersede_time", listed.supersede_time.as_deref())?;
    let status = listed.status.as_deref().and_then(Status::from_name);
    let status = status.ok_or_else(|| {
        ApiError::field("status", "must be KEY_STATUS_ACTIVE, KEY_STATUS_REVOKED or KEY_STATUS_EXPIRED")
    })?;
    if status == Status::Expired && expires.is_none_or(|at| at > now) {
        let problem = "is KEY_STATUS_EXPIRED, and expire_time isn't past (by this machine's clock)";
        return Err(ApiError::field("status", problem));
    }
    let revocation = revocation(listed.revocation_reason.as_deref(), listed.revocation_description)?;
    let revocation = match (status, revocation) {
        (Status::Revoked, revocation) => {
            // Revoked only by the end of its grace period.
            let is_over = superseded.is_some_and(|at| at <= now)
                && revocation.as_ref().is_some_and(|of| of.reason == RevocationReason::Superseded);
            (!is_over).then(|| revocation.unwrap_or_else(unspecified))
        }
        (Status::Active | Status::Expired, None) => None,
        (Status::Active | Status::Expired, Some(_)) => {
            return Err(ApiError::field("revocation_reason", "is set, and status isn't KEY_STATUS_REVOKED"));
        }
    };
    let limits = rate_limits(listed.rate_limit_policy, listed.rate_limit_policies)?;
    let given = listed.credits.map(credits).transpose()?.flatten();
    let none_left = CreditBalance { remaining: 0, refill: None, due: None };
    let given = given.map(|given| if listed.replaced_by.is_some() { none_left } else { given });
    Ok(Key {
        network,
        id,
        name: field("name", KeyName::parse(&listed.name.unwrap_or_default()))?,
        actor: field("actor_id", ActorId::from_stored(&listed.actor_id.unwrap_or_default()))?,
        scopes: scopes(listed.scopes)?,
        metadata: field("metadata", listed.metadata.map(Metadata::new).transpose())?,
        visibility: visibility(listed.visibility.as_deref())?,
        addresses: addresses(listed.ip_restriction)?,
        rate_policy: limits.default,
        rate_policies: limits.all,
        actor_limits: RatePolicies::default(),
        // The credits of a key that was replaced belong to its successor.
        credits: given.map(|given| Arc::new(Credits::new(id, given, now))),
        created,
        updated: time("update_time", listed.update_time.as_deref())?.unwrap_or(created),
        expires,
        superseded,
        unused_grace: None,
        revocation: revocation.map(Box::new),
        suspensions: Suspensions { own: listed.suspension.map(suspension).transpose()?, of_actor: None },
        provenance: Provenance {
            created_by: listed.created_by.map(Into::into),
            updated_by: listed.updated_by.map(Into::into),
            revoked_by: listed.revoked_by.map(Into::into),
            replaces: listed.replaces.as_deref().and_then(KeyId::parse_any),
            replaced_by: listed.replaced_by.as_deref().and_then(KeyId::parse_any),
        }
        .into(),
        last_used: time("last_used_time", listed.last_used_time.as_deref())?,
        mutation: 0,
        // Recorded when the key is verified.
        signer: Signer::default(),
    })
}

/// Checks the body of an import as the API would, for migration.
///
/// # Errors
/// Fails if a field is unknown or invalid.
pub fn check_import(json: &str) -> Result<(), ApiError> {
    let body: ImportBody = body::parse(json.as_bytes())?;
    ImportRequest::try_from(body).map(drop)
}

/// Parses a suspension, so that a key that is moved while it is suspended stays so.
fn suspension(listed: ListedSuspension) -> Result<Arc<Suspension>, ApiError> {
    if let Some(reason) = &listed.reason {
        field("suspension.reason", Suspension::check_reason(reason))?;
    }
    let at = time("suspension.suspended_at", listed.suspended_at.as_deref())?;
    Ok(Arc::new(Suspension {
        reason: listed.reason.map(Into::into),
        until: time("suspension.until", listed.until.as_deref())?,
        at: at.ok_or_else(|| ApiError::field("suspension.suspended_at", "is missing"))?,
        by: listed.suspended_by.map(Into::into),
    }))
}

fn key_id(kind: Option<KeyKind>, text: Option<&str>) -> Result<KeyId, ApiError> {
    let text = text.unwrap_or_default();
    let (id, forms) = match kind {
        Some(kind @ KeyKind::Issued) => (KeyId::parse(kind, text), "must be a UUID"),
        Some(kind @ KeyKind::Imported) => (KeyId::parse(kind, text), "must be 64 lower-case hex digits"),
        None => (KeyId::parse_any(text), "must be a UUID (issued) or 64 lower-case hex digits (imported)"),
    };
    id.ok_or_else(|| ApiError::field("key_id", forms))
}

const fn unspecified() -> Revocation {
    Revocation { reason: RevocationReason::Unspecified, description: None }
}

/// Parses a revocation, if there is one.
fn revocation(reason: Option<&str>, description: Option<String>) -> Result<Option<Revocation>, ApiError> {
    let reason = match reason {
        None | Some("") => RevocationReason::Unspecified,
        Some(name) => RevocationReason::from_name(name).ok_or_else(|| {
            ApiError::field("revocation_reason", "must be one of the REVOCATION_REASON_… of the API")
        })?,
    };
    let description = description.filter(|text| !text.is_empty());
    if description.is_some() && reason != RevocationReason::PrivilegeWithdrawn {
        let problem = "is allowed only beside REVOCATION_REASON_PRIVILEGE_WITHDRAWN";
        return Err(ApiError::field("revocation_description", problem));
    }
    if description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
        return Err(ApiError::field("revocation_description", "must be 1024 characters at most"));
    }
    let says_nothing = reason == RevocationReason::Unspecified;
    Ok((!says_nothing).then_some(Revocation { reason, description }))
}
