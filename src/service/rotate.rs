//! Rotation: gives a key a successor with a new id and a new secret.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::new_key::{public_prefix, quota_exceeded};
use super::retry::{already_rotated, fingerprint, request_conflict, seal};
use super::update::{Update, check_rate_policies};
use super::upstream::HeadersBound;
use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::credential::api_key;
use crate::credential::request_seal::SealedRequest;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{
    AddressList, Key, KeyId, KeyKind, KeyName, Metadata, Revocation, RevocationReason, Status, Visibility,
};
use crate::secret::SecretString;
use crate::settings::Settings;
use crate::store::{ChangeOutcome, EarlierRequest, IdempotencyKey, KeyChange, Successor};

/// Request to rotate a key.
#[derive(Debug, Clone, Default)]
pub struct RotateRequest {
    /// Attributes that the successor doesn't inherit.
    pub changes: Update,
    /// Visibility of the successor. Inherited if `None`.
    pub visibility: Option<Visibility>,
    /// Time for which the old key stays valid. Zero revokes it at once.
    pub grace: Duration,
    /// Idempotency key of the request.
    pub request_id: Option<String>,
}

/// Result of a rotation.
pub struct Rotated {
    /// The successor.
    pub key: Key,
    /// Credential of the successor.
    pub secret: SecretString,
    /// The old key after the rotation.
    pub old: Key,
}

impl Service {
    /// Replaces an issued key. Attributes that the request doesn't set are inherited, including the
    /// expiry.
    ///
    /// # Errors
    /// Fails if there is no such key, it isn't active or has been rotated before, the key quota has
    /// no room for both, the request id was used with another body, the successor's headers would
    /// be too large, or the database fails.
    pub async fn rotate(
        &self,
        settings: &Arc<Settings>,
        id: &str,
        request: RotateRequest,
        call: &Call,
    ) -> Result<Acknowledged<Rotated>, ApiError> {
        let id = KeyId::parse(KeyKind::Issued, id).ok_or_else(no_such_key)?;
        let (network, now) = (settings.network, self.clock.now());
        let uuid = self.rng.uuid();
        let idempotency = request.request_id.clone().map(|request_id| IdempotencyKey {
            id: request_id,
            fingerprint: fingerprint(&everything(&request, id)),
            seal: None,
        });
        let rotation = Rotation {
            settings: Arc::clone(settings),
            bound: self.headers_bound(),
            request,
            uuid,
            now,
            idempotency: idempotency.clone(),
            caller: call.origin().caller.clone(),
        };
        self.check_clock()?;
        call.record_intent(network, vec![id, KeyId::Issued(uuid)]).await?;
        let changed = self.store.change_key(network, id, now, move |old| rotation.apply(old)).await;
        let (rows, epoch) = match changed {
            Ok(ChangeOutcome::Done { rows, mutation }) => {
                self.publish(&[mutation]).await;
                (*rows, mutation.n)
            }
            Ok(ChangeOutcome::Refused { key: old, reason }) => {
                return self.rotated_before(settings, idempotency, *old, reason, call).await;
            }
            Ok(ChangeOutcome::NoSuchKey) => return Err(no_such_key()),
            Ok(ChangeOutcome::QuotaExceeded) => return Err(quota_exceeded()),
            Ok(ChangeOutcome::RequestConflict) => return Err(request_conflict()),
            Err(error) => {
                self.freshness.invalidate_unknown(network, id);
                return Err(unavailable(error));
            }
        };
        let KeyChange { key: old, successor: Some(Successor { key, .. }) } = rows else {
            return Err(ApiError::new(Reason::InternalServerError, "the successor is missing"));
        };
        let prefix = prefix_of(settings, key.visibility)?;
        let secret = api_key::make(&settings.secrets, prefix, uuid, key.created);
        let occurrence = Occurrence::of_key(Event::IssuedKeyRotated, &key);
        let occurrence = occurrence.with("APIKeyPrefix", Some(prefix.as_str()));
        let occurrence = occurrence.with("RotatedFrom", Some(old.id.to_string()));
        let old_expiry = old.superseded.map(crate::clock::Timestamp::to_rfc3339);
        let occurrence = occurrence.with("OldKeyExpiry", old_expiry);
        call.record_event(occurrence.with("metadata.previous_key_id", Some(old.id.to_string())));
        Ok(Acknowledged { value: Rotated { key, secret, old }, epoch: Some(epoch) })
    }

    /// Answers a rotation of a key that can't be rotated: once more, if the request was carried out
    /// before; else with the successor's id, if there is one.
    async fn rotated_before(
        &self,
        settings: &Settings,
        request: Option<IdempotencyKey>,
        old: Key,
        reason: ApiError,
        call: &Call,
    ) -> Result<Acknowledged<Rotated>, ApiError> {
        let network = settings.network;
        if let Some(request) = request {
            let request_id = request.id.clone();
            match self.store.find_request(network, request).await.map_err(unavailable)? {
                Some(EarlierRequest::Same(earlier)) => {
                    call.set_keys(vec![old.id, earlier.key.id]);
                    if let Some(secret) = self.secret_again(settings, &request_id, &earlier, call).await? {
                        let epoch = Some(old.mutation);
                        return Ok(Acknowledged { value: Rotated { key: earlier.key, secret, old }, epoch });
                    }
                }
                Some(EarlierRequest::Other) => return Err(request_conflict()),
                None => {}
            }
        }
        let successor = self.store.successor_of(network, old.id).await.map_err(unavailable)?;
        Err(successor.map_or(reason, already_rotated))
    }
}

/// A rotation, apart from the key that it replaces.
struct Rotation {
    settings: Arc<Settings>,
    bound: HeadersBound,
    request: RotateRequest,
    /// Id of the successor.
    uuid: Uuid,
    now: Timestamp,
    idempotency: Option<IdempotencyKey>,
    caller: Option<Caller>,
}

impl Rotation {
    /// Returns the old key after the rotation, and its successor.
    fn apply(&self, old: &Key) -> Result<KeyChange, ApiError> {
        let Self { settings, request, uuid, now, .. } = self;
        check_rotatable(old, *now)?;
        let mut key = Key {
            id: KeyId::Issued(*uuid),
            visibility: request.visibility.unwrap_or(old.visibility),
            created: *now,
            updated: *now,
            last_used: None,
            mutation: 0,
            ..request.changes.apply(old)
        };
        check_rate_policies(&key)?;
        let prefix = prefix_of(settings, key.visibility)?;
        key.signer = settings.signer(prefix);
        // The credential has its own maximum age. The row must not promise more.
        let longest = now.plus(settings.max_key_ttl);
        key.expires = key.expires.map(|end| end.min(longest));
        self.bound.check(settings, &key)?;
        let mut old = Key { updated: *now, ..old.clone() };
        // While both keys are valid, both count towards the quota.
        let quota = match request.grace.is_zero() {
            true => {
                let reason = RevocationReason::Superseded;
                old.revocation = Some(Revocation { reason, description: None });
                None
            }
            false => {
                old.superseded = Some(now.plus(request.grace));
                settings.api_keys_max
            }
        };
        let idempotency = self.idempotency.clone().map(|idempotency| {
            let caller = self.caller.as_ref();
            let request = SealedRequest { network: key.network, request_id: &idempotency.id, caller };
            let secret = api_key::make(&settings.secrets, prefix, *uuid, *now);
            let seal = seal(settings, &request, &secret);
            IdempotencyKey { seal, ..idempotency }
        });
        Ok(KeyChange { key: old, successor: Some(Successor { key, quota, request: idempotency }) })
    }
}

/// Returns the prefix of new keys with this visibility.
fn prefix_of(settings: &Settings, visibility: Visibility) -> Result<&String, ApiError> {
    match visibility {
        Visibility::Secret => Ok(&settings.secret_prefix),
        Visibility::Public => public_prefix(settings),
    }
}

/// Returns all that a rotation of `id` asks for.
fn everything(request: &RotateRequest, id: KeyId) -> serde_json::Value {
    let RotateRequest { changes, visibility, grace, request_id: _ } = request;
    let Update { name, scopes, metadata, addresses, rate_policy, rate_policies } = changes;
    let blocks = |list: &AddressList| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rate_policy = rate_policy.map(|policy| {
        policy.map(|policy| (policy.quota, policy.window.as_micros().to_string(), policy.unit.name()))
    });
    let mut everything = serde_json::json!([
        "rotate",
        id.to_string(),
        name.as_ref().map(KeyName::as_str),
        scopes.as_ref().map(ToString::to_string),
        metadata.as_ref().map(|metadata| metadata.as_ref().map(Metadata::json)),
        addresses.as_ref().map(blocks),
        rate_policy.map(|policy| (policy.is_some(), policy)),
        visibility.map(Visibility::name),
        grace.as_micros().to_string(),
    ]);
    // Left out if unset: earlier releases have stored fingerprints of requests without it.
    if let (Some(list), Some(policies)) = (everything.as_array_mut(), rate_policies) {
        list.push(policies.fingerprint().unwrap_or_default());
    }
    everything
}

/// Checks that a key is active and has no successor.
fn check_rotatable(old: &Key, now: Timestamp) -> Result<(), ApiError> {
    let problem = match old.status(now) {
        Status::Revoked => "the key is revoked; issue a new one",
        Status::Expired => "the key has expired; issue a new one",
        Status::Active if old.superseded.is_some() => {
            "the key has been rotated already; rotate its successor"
        }
        Status::Active => return Ok(()),
    };
    Err(ApiError::new(Reason::FailedPrecondition, problem))
}
