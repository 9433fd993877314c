//! Update of a key's attributes. The secret stays.

use std::sync::Arc;
use std::time::Duration;

use super::change::Refusal;
use super::issuance::{actor_limits, check, role_of, scopes_of_set};
use super::{Acknowledged, Service, no_such_key};
use crate::audit::Call;
use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
use crate::event::Event;
use crate::key::{
    ActorId, AddressList, CreditBalance, Credits, FieldError, Key, KeyId, KeyKind, KeyName, Metadata,
    Provenance, RatePolicies, RatePolicy, Scopes, Status, TEN_YEARS, Visibility,
};
use crate::settings::Settings;
use crate::settings::issuance::Writer;

/// Changes to a key. `None` leaves an attribute as it is.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Name.
    pub name: Option<KeyName>,
    /// Scopes.
    pub scopes: Option<Scopes>,
    /// Named set of scopes, in place of `scopes`.
    pub role: Option<String>,
    /// Metadata. `Some(None)` removes it.
    pub metadata: Option<Option<Metadata>>,
    /// Addresses from which the key may be used. An empty list allows all.
    pub addresses: Option<AddressList>,
    /// Rate policy named `default`. `Some(None)` removes it.
    pub rate_policy: Option<Option<RatePolicy>>,
    /// All rate policies. Unset ones remove them all.
    pub rate_policies: Option<RatePolicies>,
    /// Credits, of which the amounts count. `Some(None)` takes them away.
    pub credits: Option<Option<CreditBalance>>,
    /// Expiry.
    pub expiry: Option<Expiry>,
}

/// Another expiry of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At a time.
    At(Timestamp),
    /// After that time, counted from the change.
    After(Duration),
}

impl Expiry {
    /// Returns the time for a change at `now`.
    pub fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::After(ttl) => now.plus(ttl),
        }
    }

    const fn field(self) -> &'static str {
        match self {
            Self::At(_) => "expire_time",
            Self::After(_) => "ttl",
        }
    }

    /// Checks it for a key, by the limits that hold for issuing.
    fn check(self, settings: &Settings, key: &Key, now: Timestamp) -> Result<(), ApiError> {
        if key.status(now) == Status::Revoked {
            let problem = "the key is revoked for good, so its end can't be moved; issue a new one";
            return Err(ApiError::new(Reason::FailedPrecondition, problem));
        }
        let (end, second) = (self.time(now), Duration::from_secs(1));
        if end < now.plus(second) || end > now.plus(TEN_YEARS) {
            return Err(ApiError::field(
                self.field(),
                "must end the key in one second to ten years from now",
            ));
        }
        let (from, since) = match key.id.kind() {
            // The credential itself has its time of issue, from which its age counts.
            KeyKind::Issued => (key.created, "from the time of issue; rotate the key for a longer life"),
            KeyKind::Imported => (now, "from now"),
        };
        if end > from.plus(settings.max_key_ttl) {
            let most = crate::duration::to_proto(settings.max_key_ttl);
            let problem = format!("must end the key {most} (credentials.api_keys.max_ttl) at most {since}");
            return Err(ApiError::field(self.field(), problem));
        }
        Ok(())
    }
}

impl Update {
    /// Returns the key with these changes, made at `now`.
    pub fn apply(&self, key: &Key, now: Timestamp) -> Key {
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
        if let Some(credits) = self.credits {
            let account = key.credits.as_ref().map_or(key.id, |credits| credits.account);
            key.credits = credits.map(|given| Arc::new(Credits::new(account, given, now)));
        }
        if let Some(expiry) = self.expiry {
            key.expires = Some(expiry.time(now));
        }
        key
    }

    /// Returns the update with the scopes of the named set, if it has one.
    ///
    /// # Errors
    /// Fails if there is no such set.
    pub(super) fn with_scopes_of_set(mut self, settings: &Settings) -> Result<Self, ApiError> {
        if let Some(role) = &self.role {
            self.scopes = Some(scopes_of_set(settings, role)?);
        }
        Ok(self)
    }

    /// Returns the fields that issuance policies judge among those that are updated, each with its
    /// name in the request.
    fn judged_fields(&self) -> Vec<(&'static str, &'static str)> {
        [
            self.expiry.map(|expiry| ("ttl", expiry.field())),
            self.scopes.as_ref().map(|_| ("scopes", "scopes")),
            self.metadata.as_ref().map(|_| ("metadata", "metadata")),
            self.addresses.as_ref().map(|_| ("ip_restriction", "ip_restriction")),
            self.name.as_ref().map(|_| ("name", "name")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn is_empty(&self) -> bool {
        let Self { name, scopes, role, metadata, addresses, rate_policy, rate_policies, credits, expiry } =
            self;
        name.is_none()
            && scopes.is_none()
            && role.is_none()
            && metadata.is_none()
            && addresses.is_none()
            && rate_policy.is_none()
            && rate_policies.is_none()
            && credits.is_none()
            && expiry.is_none()
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
        // The id of the path may be one that the key had before its first use.
        let fixed = Fixed { key_id: fixed.key_id.filter(|given| given != id), ..fixed };
        if update.is_empty() {
            let key = self.get(network, kind, id).await?;
            fixed.check(&key)?;
            return Ok(Acknowledged { value: key, epoch: None });
        }
        if update.expiry.is_some() {
            self.check_clock()?;
        }
        let update = update.with_scopes_of_set(settings)?;
        let id = KeyId::parse(kind, id).ok_or_else(no_such_key)?;
        let (bound, now) = (self.headers_bound(), self.clock.now());
        let (caller, role) = (call.origin().verified_caller(), role_of(call.origin().caller.as_ref()));
        let limits = {
            let (settings, scope_set) = (Arc::clone(settings), update.role.clone());
            move |key: &Key| {
                actor_limits(&settings, key, &Writer { role, scope_set: scope_set.as_deref() }, now)
            }
        };
        let rewrite = {
            let settings = Arc::clone(settings);
            move |key: &Key| -> Result<Key, Refusal> {
                fixed.check(key)?;
                let updated = update.apply(key, now);
                check_rate_policies(&updated)?;
                // Credits are set anew: others may have been spent since.
                let sets_credits = update.credits.flatten().is_some();
                if !sets_credits && updated.differences(key).is_empty() {
                    return Err(Refusal::Unchanged);
                }
                if let Some(expiry) = update.expiry {
                    expiry.check(&settings, key, now)?;
                }
                let writer = Writer { role, scope_set: update.role.as_deref() };
                check(&settings, &updated, &writer, Some(&update.judged_fields()), now)?;
                let provenance =
                    Provenance { updated_by: caller.clone(), ..Provenance::clone(&key.provenance) };
                let key = Key { updated: now, provenance: provenance.into(), ..updated };
                bound.check(&settings, &key)?;
                Ok(key)
            }
        };
        self.change_within((network, id), now, Event::updated(kind), limits, rewrite, call).await
    }
}
