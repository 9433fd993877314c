//! Update of a key's attributes. The secret stays.

use std::sync::Arc;

use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{
    ActorId, AddressList, FieldError, Key, KeyId, KeyKind, KeyName, Metadata, RatePolicies, RatePolicy,
    Scopes, Visibility,
};
use crate::settings::Settings;
use crate::store::{ChangeOutcome, KeyChange, Mutation};

/// Changes to a key. `None` leaves an attribute as it is.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Name.
    pub name: Option<KeyName>,
    /// Scopes.
    pub scopes: Option<Scopes>,
    /// Metadata. `Some(None)` removes it.
    pub metadata: Option<Option<Metadata>>,
    /// Addresses from which the key may be used. An empty list allows all.
    pub addresses: Option<AddressList>,
    /// Rate policy named `default`. `Some(None)` removes it.
    pub rate_policy: Option<Option<RatePolicy>>,
    /// All rate policies. Unset ones remove them all.
    pub rate_policies: Option<RatePolicies>,
}

impl Update {
    /// Returns the key with these changes.
    pub fn apply(&self, key: &Key) -> Key {
        let mut key = key.clone();
        if let Some(name) = &self.name {
            key.name = name.clone();
        }
        if let Some(scopes) = &self.scopes {
            key.scopes = scopes.clone();
        }
        if let Some(metadata) = &self.metadata {
            key.metadata = metadata.clone();
        }
        if let Some(addresses) = &self.addresses {
            key.addresses = addresses.clone();
        }
        if let Some(rate_policies) = &self.rate_policies {
            key.set_rate_policies(rate_policies.clone());
        }
        if let Some(rate_policy) = self.rate_policy {
            key.set_default_rate_policy(rate_policy);
        }
        key
    }

    fn is_empty(&self) -> bool {
        let Self { name, scopes, metadata, addresses, rate_policy, rate_policies } = self;
        name.is_none()
            && scopes.is_none()
            && metadata.is_none()
            && addresses.is_none()
            && rate_policy.is_none()
            && rate_policies.is_none()
    }
}

/// Attributes that never change. A request may repeat them.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// Key id, as text.
    pub key_id: Option<String>,
    /// Actor.
    pub actor: Option<ActorId>,
    /// Visibility, which is part of the key's prefix.
    pub visibility: Option<Visibility>,
}

impl Fixed {
    fn check(&self, key: &Key) -> Result<(), ApiError> {
        let problem = "can't be changed";
        if self.key_id.as_ref().is_some_and(|id| *id != key.id.to_string()) {
            return Err(ApiError::field("key_id", "is not the one of the path"));
        }
        if self.actor.as_ref().is_some_and(|actor| *actor != key.actor) {
            return Err(ApiError::field("actor_id", problem));
        }
        if self.visibility.is_some_and(|visibility| visibility != key.visibility) {
            return Err(ApiError::field("visibility", problem));
        }
        Ok(())
    }
}

/// Checks the rate policies of a key together: the new numbers of `default` may not go with the
/// rest of its policy.
pub(super) fn check_rate_policies(key: &Key) -> Result<(), ApiError> {
    key.rate_policies.check().map_err(|FieldError(problem)| match problem.split_once(' ') {
        Some((item, problem)) if item.starts_with('[') => {
            ApiError::field(format!("rate_limit_policies{item}"), problem)
        }
        _ => ApiError::field("rate_limit_policies", problem),
    })
}

/// Reason for which an update writes nothing.
enum Refusal {
    /// It is not allowed.
    Error(ApiError),
    /// The key has these attributes already.
    Unchanged,
}

impl Service {
    /// Changes attributes of a key in any state. Returns the key after the change. An update that
    /// leaves everything as it is, such as a repeated one, writes nothing.
    ///
    /// # Errors
    /// Fails if there is no such key, `fixed` differs from it, its headers would be too large, or
    /// the database fails.
    pub async fn update(
        &self,
        settings: &Arc<Settings>,
        kind: KeyKind,
        id: &str,
        fixed: Fixed,
        update: Update,
        call: &Call,
    ) -> Result<Acknowledged<Key>, ApiError> {
        let network = settings.network;
        if update.is_empty() {
            let key = self.get(network, kind, id).await?;
            fixed.check(&key)?;
            return Ok(Acknowledged { value: key, epoch: None });
        }
        let id = KeyId::parse(kind, id).ok_or_else(no_such_key)?;
        call.record_intent(network, vec![id]).await?;
        let (bound, now) = (self.headers_bound(), self.clock.now());
        let rewrite = {
            let settings = Arc::clone(settings);
            move |key: &Key| {
                fixed.check(key).map_err(Refusal::Error)?;
                let updated = update.apply(key);
                check_rate_policies(&updated).map_err(Refusal::Error)?;
                if updated.differences(key).is_empty() {
                    return Err(Refusal::Unchanged);
                }
                let key = Key { updated: now, ..updated };
                bound.check(&settings, &key).map_err(Refusal::Error)?;
                Ok(KeyChange { key, successor: None })
            }
        };
        let changed = self.store.change_key(network, id, now, rewrite).await;
        match changed {
            Ok(ChangeOutcome::Done { rows, mutation }) => {
                self.publish(&[mutation]).await;
                call.record_event(Occurrence::of_key(Event::updated(kind), &rows.key));
                Ok(Acknowledged { value: rows.key.with_last_use_until(now), epoch: Some(mutation.n) })
            }
            // If another instance changed it, this one may not know yet.
            Ok(ChangeOutcome::Refused { key, reason: Refusal::Unchanged }) => {
                let n = key.mutation;
                self.freshness.apply(&Mutation { n, network, key_id: id });
                Ok(Acknowledged { value: *key, epoch: Some(n) })
            }
            Ok(ChangeOutcome::Refused { reason: Refusal::Error(error), .. }) => Err(error),
            Ok(ChangeOutcome::NoSuchKey) => Err(no_such_key()),
            Ok(ChangeOutcome::QuotaExceeded | ChangeOutcome::RequestConflict) => Err(ApiError::new(
                Reason::InternalServerError,
                "the database reported a full quota or a repeated request for an update, which adds no key",
            )),
            Err(error) => {
                self.freshness.invalidate_unknown(network, id);
                Err(unavailable(error))
            }
        }
    }
}
