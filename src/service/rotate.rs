//! Rotation: gives a key a successor with a new id and a new secret.

use std::sync::Arc;
use std::time::Duration;

use super::new_key::{public_prefix, quota_exceeded};
use super::update::Update;
use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::credential::api_key;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{Key, KeyId, KeyKind, Revocation, RevocationReason, Status, Visibility};
use crate::secret::SecretString;
use crate::settings::Settings;
use crate::store::{ChangeOutcome, KeyChange, Successor};

/// Request to rotate a key.
#[derive(Debug, Clone, Default)]
pub struct RotateRequest {
    /// Attributes that the successor doesn't inherit.
    pub changes: Update,
    /// Visibility of the successor. Inherited if `None`.
    pub visibility: Option<Visibility>,
    /// Time for which the old key stays valid. Zero revokes it at once.
    pub grace: Duration,
}

/// Result of a rotation.
pub struct Rotated {
    /// The successor.
    pub key: Key,
    /// Credential of the successor, returned only once.
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
    /// no room for both, the successor's headers would be too large, or the database fails.
    pub async fn rotate(
        &self,
        settings: &Arc<Settings>,
        id: &str,
        request: RotateRequest,
        call: &Call,
    ) -> Result<Acknowledged<Rotated>, ApiError> {
        let id = KeyId::parse(KeyKind::Issued, id).ok_or_else(no_such_key)?;
        let (network, now) = (settings.network, self.clock.now());
        let bound = self.headers_bound();
        let uuid = self.rng.uuid();
        call.record_intent(network, vec![id, KeyId::Issued(uuid)]).await?;
        let changed = {
            let settings = Arc::clone(settings);
            let rewrite = move |old: &Key| {
                check_rotatable(old, now)?;
                let mut key = Key {
                    id: KeyId::Issued(uuid),
                    visibility: request.visibility.unwrap_or(old.visibility),
                    created: now,
                    updated: now,
                    last_used: None,
                    mutation: 0,
                    ..request.changes.apply(old)
                };
                if key.visibility == Visibility::Public {
                    public_prefix(&settings)?;
                }
                // The credential has its own maximum age. The row must not promise more.
                let longest = now.plus(settings.max_key_ttl);
                key.expires = key.expires.map(|end| end.min(longest));
                bound.check(&settings, &key)?;
                let mut old = Key { updated: now, ..old.clone() };
                // While both keys are valid, both count towards the quota.
                let quota = match request.grace.is_zero() {
                    true => None,
                    false => settings.api_keys_max,
                };
                match request.grace.is_zero() {
                    true => {
                        let reason = RevocationReason::Superseded;
                        old.revocation = Some(Revocation { reason, description: None });
                    }
                    false => old.superseded = Some(now.plus(request.grace)),
                }
                Ok(KeyChange { key: old, successor: Some(Successor { key, quota }) })
            };
            self.store.change_key(network, id, now, rewrite).await
        };
        let (rows, epoch) = match changed {
            Ok(ChangeOutcome::Done { rows, mutation }) => {
                self.publish(&[mutation]).await;
                (*rows, mutation.n)
            }
            Ok(ChangeOutcome::Refused { reason, .. }) => return Err(reason),
            Ok(ChangeOutcome::NoSuchKey) => return Err(no_such_key()),
            Ok(ChangeOutcome::QuotaExceeded) => return Err(quota_exceeded()),
            Err(error) => {
                self.freshness.invalidate_unknown(network, id);
                return Err(unavailable(error));
            }
        };
        let KeyChange { key: old, successor: Some(Successor { key, .. }) } = rows else {
            return Err(ApiError::new(Reason::InternalServerError, "the successor is missing"));
        };
        let prefix = match key.visibility {
            Visibility::Secret => &settings.secret_prefix,
            Visibility::Public => public_prefix(settings)?,
        };
        let secret = api_key::make(&settings.secrets, prefix, uuid, key.created);
        let occurrence = Occurrence::of_key(Event::IssuedKeyRotated, &key);
        let occurrence = occurrence.with("APIKeyPrefix", Some(prefix.as_str()));
        let occurrence = occurrence.with("RotatedFrom", Some(old.id.to_string()));
        call.record_event(occurrence.with("metadata.previous_key_id", Some(old.id.to_string())));
        Ok(Acknowledged { value: Rotated { key, secret, old }, epoch: Some(epoch) })
    }
}

/// Checks that a key is active and has no successor.
fn check_rotatable(old: &Key, now: crate::clock::Timestamp) -> Result<(), ApiError> {
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
