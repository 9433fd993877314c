//! Rotation: gives a key a successor with a new id and a new secret.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::issuance::{actor_limits, check, limit_reached, role_of};
use super::new_key::{check_ttl, public_prefix, quota_exceeded};
use super::retry::{already_rotated, fingerprint, request_conflict, seal};
use super::update::{Expiry, Update, check_rate_policies};
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
    AddressList, CreditBalance, Credits, Key, KeyId, KeyKind, KeyName, Metadata, Provenance, Revocation,
    RevocationReason, Status, UnusedGrace, Visibility,
};
use crate::secret::SecretString;
use crate::settings::Settings;
use crate::settings::issuance::Writer;
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
    /// Time without a use after which the old key ends. `grace` is the latest end then, if set.
    pub until_unused: Option<Duration>,
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
    /// expiry and a suspension.
    ///
    /// # Errors
    /// Fails if there is no such key, it isn't active or has been rotated before, the key quota has
    /// no room for both, the request id was used with another body, the successor's headers would
    /// be too large, or the database fails.
    pub async fn rotate(
        &self,
        settings: &Arc<Settings>,
        id: &str,
        mut request: RotateRequest,
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
        request.changes = request.changes.with_scopes_of_set(settings)?;
        let rotation = Arc::new(Rotation {
            settings: Arc::clone(settings),
            bound: self.headers_bound(),
            request,
            uuid,
            now,
            idempotency: idempotency.clone(),
            caller: call.origin().caller.clone(),
        });
        if let Some(Expiry::After(ttl)) = rotation.request.changes.expiry {
            check_ttl(settings, ttl)?;
        }
        self.check_clock()?;
        call.record_intent(network, vec![id, KeyId::Issued(uuid)]).await?;
        let limits = {
            let rotation = Arc::clone(&rotation);
            move |key: &Key| actor_limits(&rotation.settings, key, &rotation.writer(), now)
        };
        let apply = move |old: &Key| rotation.apply(old);
        let changed = self.store.change_key_within(network, id, now, limits, apply).await;
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
            Ok(ChangeOutcome::ActorLimitReached(limits)) => return Err(limit_reached(&limits)),
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
        let occurrence = occurrence.with("metadata.old_key_id", Some(old.id.to_string()));
        let had_end = old.expires.map(crate::clock::Timestamp::to_rfc3339);
        let occurrence = occurrence.with("metadata.old_expires_at", had_end);
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
                        confirm_rotation(&old, earlier.key.id, call);
                        let epoch = Some(old.mutation);
                        return Ok(Acknowledged { value: Rotated { key: earlier.key, secret, old }, epoch });
                    }
                }
                Some(EarlierRequest::Other) => return Err(request_conflict()),
                None => {}
            }
        }
        let Some(id) = self.store.successor_of(network, old.id).await.map_err(unavailable)? else {
            return Err(reason);
        };
        confirm_rotation(&old, id, call);
        let successor = self.store.find_key(network, id).await.map_err(unavailable)?.key;
        let is_active = successor.is_some_and(|key| key.status(self.clock.now()) == Status::Active);
        Err(already_rotated(id, is_active))
    }
}

/// Records that a key was rotated before, by a call whose response may have been lost.
fn confirm_rotation(old: &Key, successor: KeyId, call: &Call) {
    call.confirm_end(old);
    call.confirm_id(Event::IssuedKeyCreated, old.network, successor);
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
    fn verified_caller(&self) -> Option<Arc<str>> {
        self.caller.as_ref().and_then(Caller::verified_name)
    }

    fn writer(&self) -> Writer<'_> {
        let role = role_of(self.caller.as_ref());
        Writer { role, scope_set: self.request.changes.role.as_deref() }
    }

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
            unused_grace: None,
            mutation: 0,
            provenance: Provenance {
                created_by: self.verified_caller(),
                replaces: Some(old.id),
                ..Provenance::default()
            }
            .into(),
            ..request.changes.apply(old, *now)
        };
        if let Some(Some(given)) = request.changes.credits {
            key.credits = Some(Arc::new(Credits::new(key.id, given, *now)));
        }
        check_rate_policies(&key)?;
        let prefix = prefix_of(settings, key.visibility)?;
        key.signer = settings.signer(prefix);
        // The credential has its own maximum age. The row must not promise more.
        let longest = now.plus(settings.max_key_ttl);
        key.expires = key.expires.map(|end| end.min(longest));
        check(settings, &key, &self.writer(), None, *now)?;
        self.bound.check(settings, &key)?;
        let mut provenance = Provenance {
            updated_by: self.verified_caller(),
            replaced_by: Some(key.id),
            ..Provenance::clone(&old.provenance)
        };
        let mut old = Key { updated: *now, ..old.clone() };
        // While both keys are valid, both count towards the quota.
        let quota = match (request.until_unused, request.grace.is_zero()) {
            (None, true) => {
                let reason = RevocationReason::Superseded;
                old.revocation = Some(Box::new(Revocation { reason, description: None }));
                provenance.revoked_by = self.verified_caller();
                None
            }
            (None, false) => {
                old.superseded = Some(now.plus(request.grace));
                settings.api_keys_max
            }
            (Some(after), is_unlimited) => {
                let most = if is_unlimited { UnusedGrace::MAX_EXTENSION } else { request.grace };
                let latest = now.plus(most);
                old.unused_grace = Some(Box::new(UnusedGrace { after, latest }));
                old.superseded = Some(now.plus(after).min(latest));
                settings.api_keys_max
            }
        };
        old.provenance = provenance.into();
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
fn everything(request: &RotateRequest, id: KeyId) -> Value {
    let RotateRequest { changes, visibility, grace, until_unused, request_id: _ } = request;
    let Update { name, scopes, role, metadata, addresses, rate_policy, rate_policies, credits, expiry } =
        changes;
    let blocks = |list: &AddressList| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rate_policy = rate_policy.map(|policy| {
        policy.map(|policy| (policy.quota, policy.window.as_micros().to_string(), policy.unit.name()))
    });
    let mut everything = vec![
        json!("rotate"),
        json!(id.to_string()),
        json!(name.as_ref().map(KeyName::as_str)),
        json!(scopes.as_ref().map(ToString::to_string)),
        json!(metadata.as_ref().map(|metadata| metadata.as_ref().map(Metadata::json))),
        json!(addresses.as_ref().map(blocks)),
        json!(rate_policy.map(|policy| (policy.is_some(), policy))),
        json!(visibility.map(Visibility::name)),
        json!(grace.as_micros().to_string()),
    ];
    // Added later: without these, the hash is that of earlier releases.
    if let Some(policies) = rate_policies {
        everything.push(policies.fingerprint().unwrap_or_default());
    }
    if let Some(credits) = credits {
        everything.push(json!(["credits", credits.as_ref().map(CreditBalance::fingerprint)]));
    }
    if let Some(Expiry::After(ttl)) = expiry {
        everything.push(json!(["ttl", ttl.as_micros().to_string()]));
    }
    if let Some(role) = role {
        everything.push(json!(["role", role]));
    }
    if let Some(after) = until_unused {
        everything.push(json!(["until_unused", after.as_micros().to_string()]));
    }
    Value::Array(everything)
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
