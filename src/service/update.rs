//! Changing what a key is, without changing its secret.

use std::sync::Arc;

use super::upstream::check_headers_fit;
use super::{Acknowledged, Service, no_such_key, unavailable};
use crate::audit::Call;
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{
    ActorId, AddressList, Key, KeyId, KeyKind, KeyName, Metadata, RatePolicy, Scopes, Visibility,
};
use crate::settings::Settings;
use crate::store::{Changed, Rewrite};

/// What to change: None leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Its name.
    pub name: Option<KeyName>,
    /// Its scopes.
    pub scopes: Option<Scopes>,
    /// Its attributes; `Some(None)` takes them away.
    pub metadata: Option<Option<Metadata>>,
    /// From where it may be used; an empty list means everywhere.
    pub addresses: Option<AddressList>,
    /// How often it may be used; `Some(None)` takes the limit away.
    pub rate_policy: Option<Option<RatePolicy>>,
}

impl Update {
    /// The key with these changes.
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
        if let Some(rate_policy) = self.rate_policy {
            key.rate_policy = rate_policy;
        }
        key
    }

    fn is_empty(&self) -> bool {
        let Self { name, scopes, metadata, addresses, rate_policy } = self;
        name.is_none()
            && scopes.is_none()
            && metadata.is_none()
            && addresses.is_none()
            && rate_policy.is_none()
    }
}

/// What a key has for life. A request may repeat it, and can't change it.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// Its id, as text.
    pub key_id: Option<String>,
    /// Its actor.
    pub actor: Option<ActorId>,
    /// Who may see it: its prefix says so.
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

impl Service {
    /// Changes fields of a key, whatever its state; gives it as it is afterwards.
    ///
    /// # Errors
    /// When there is no such key, `fixed` isn't what it has, its headers would become too large, or the database fails.
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
        call.intend(network, vec![id]).await?;
        let (rng, now) = (self.rng.clone(), self.clock.now());
        let rewrite = {
            let settings = Arc::clone(settings);
            move |key: &Key| {
                fixed.check(key)?;
                let key = Key { updated: now, ..update.apply(key) };
                check_headers_fit(&settings, &rng, &key)?;
                Ok(Rewrite { key, successor: None })
            }
        };
        let changed = self.store.change_key(network, id, now, rewrite).await;
        match changed {
            Ok(Changed::Done { rows, mutation }) => {
                self.committed(&[mutation]).await;
                call.happened(Occurrence::of_key(Event::updated(kind), &rows.key));
                Ok(Acknowledged { value: rows.key, epoch: Some(mutation.n) })
            }
            Ok(Changed::Refused { reason, .. }) => Err(reason),
            Ok(Changed::NoSuchKey) => Err(no_such_key()),
            Ok(Changed::QuotaExceeded) => {
                Err(ApiError::new(Reason::InternalServerError, "an update needs no room"))
            }
            Err(error) => {
                self.freshness.doubt(network, id);
                Err(unavailable(error))
            }
        }
    }
}
