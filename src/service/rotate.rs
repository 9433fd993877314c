//! Giving a key a successor with a new id and a new secret.

use std::sync::Arc;
use std::time::Duration;

use super::new_key::{public_prefix, quota_exceeded};
use super::update::Update;
use super::upstream::check_headers_fit;
use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::credential::api_key;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{Key, KeyId, KeyKind, Revocation, RevocationReason, Status, Visibility};
use crate::secret::SecretString;
use crate::settings::Settings;
use crate::store::{Changed, Rewrite, Successor};

/// How the successor differs, and how long the old key goes on beside it.
#[derive(Debug, Clone, Default)]
pub struct RotateRequest {
    /// What is not inherited.
    pub changes: Update,
    /// Who may see the successor; as the old key when None.
    pub visibility: Option<Visibility>,
    /// How long the old key stays valid; zero ends it at once.
    pub grace: Duration,
}

/// A rotation.
pub struct Rotated {
    /// The successor.
    pub key: Key,
    /// Its credential, shown this once.
    pub secret: SecretString,
    /// The old key, as it stands now.
    pub old: Key,
}

impl Service {
    /// Replaces an issued key. What the request leaves open is inherited, its end included.
    ///
    /// # Errors
    /// When there is no such key, it isn't active or has been rotated before, there is no room for two keys side by
    /// side, the successor's headers would become too large, or the database fails.
    pub async fn rotate(
        &self,
        settings: &Arc<Settings>,
        id: &str,
        request: RotateRequest,
        call: &Call,
    ) -> Result<Acknowledged<Rotated>, ApiError> {
        let id = KeyId::parse(KeyKind::Issued, id).ok_or_else(no_such_key)?;
        let (network, rng, now) = (settings.network, self.rng.clone(), self.clock.now());
        let uuid = self.rng.uuid();
        call.intend(network, vec![id, KeyId::Issued(uuid)]).await?;
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
                // A key dies of old age by its credential's own date as well: the row must not promise more.
                let longest = now.plus(settings.max_key_ttl);
                key.expires = key.expires.map(|end| end.min(longest));
                check_headers_fit(&settings, &rng, &key)?;
                let mut old = Key { updated: now, ..old.clone() };
                // While both are valid, both count; else one takes the other's place.
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
                Ok(Rewrite { key: old, successor: Some(Successor { key, quota }) })
            };
            self.store.change_key(network, id, now, rewrite).await
        };
        let (rows, epoch) = match changed {
            Ok(Changed::Done { rows, mutation }) => {
                self.committed(&[mutation]).await;
                (*rows, mutation.n)
            }
            Ok(Changed::Refused { reason, .. }) => return Err(reason),
            Ok(Changed::NoSuchKey) => return Err(no_such_key()),
            Ok(Changed::QuotaExceeded) => return Err(quota_exceeded()),
            Err(error) => {
                self.freshness.doubt(network, id);
                return Err(unavailable(error));
            }
        };
        let Rewrite { key: old, successor: Some(Successor { key, .. }) } = rows else {
            return Err(ApiError::new(Reason::InternalServerError, "the successor is missing"));
        };
        let prefix = match key.visibility {
            Visibility::Secret => &settings.secret_prefix,
            Visibility::Public => public_prefix(settings)?,
        };
        let secret = api_key::make(&settings.secrets, prefix, uuid, key.created);
        let occurrence = Occurrence::of_key(Event::IssuedKeyRotated, &key);
        let occurrence = occurrence.with("APIKeyPrefix", Some(prefix.as_str()));
        call.happened(occurrence.with("RotatedFrom", Some(old.id.to_string())));
        Ok(Acknowledged { value: Rotated { key, secret, old }, epoch: Some(epoch) })
    }
}

/// Only a key that is valid and has no successor may get one.
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
