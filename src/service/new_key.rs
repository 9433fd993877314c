//! Issuing and importing of keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::issuance::{limit_reached, scopes_of_set, writer};
use super::retry::{fingerprint, request_conflict, seal};
use super::{Acknowledged, Service, unavailable};
use crate::audit::Call;
use crate::credential::imported_hash::{DigestIds, ImportedHash, KnownDigests};
use crate::credential::request_seal::SealedRequest;
use crate::credential::{Form, Presented, api_key, imported};
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{
    Actor, ActorId, AddressList, CreditBalance, Credits, Key, KeyId, KeyName, Metadata, NetworkId,
    Provenance, RatePolicies, RatePolicy, Scopes, Signer, Suspensions, TEN_YEARS, Visibility,
};
use crate::secret::SecretString;
use crate::settings::Settings;
use crate::store::{ActorLimit, IdempotencyKey, InsertLimits, InsertOutcome, NewKey, RepeatedKey};

/// Metadata of the error for a key that is known already: its id.
const EXISTING_ID: &str = "key_id";

/// Attributes of a new key, issued or imported.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// Name.
    pub name: KeyName,
    /// Actor.
    pub actor: ActorId,
    /// Scopes.
    pub scopes: Scopes,
    /// Named set of scopes, in place of `scopes`.
    pub role: Option<String>,
    /// Lifetime. The default of the settings if `None`.
    pub ttl: Option<Duration>,
    /// Metadata.
    pub metadata: Option<Metadata>,
    /// Secret or publishable.
    pub visibility: Visibility,
    /// Addresses from which it may be used.
    pub addresses: AddressList,
    /// Rate policy named `default`.
    pub rate_policy: Option<RatePolicy>,
    /// All rate policies, unset if there is no list.
    pub rate_policies: RatePolicies,
    /// Credits, of which the amounts count.
    pub credits: Option<CreditBalance>,
    /// Idempotency key of the request.
    pub request_id: Option<String>,
}

/// Material of a key that was made elsewhere.
pub enum KeyMaterial {
    /// The raw key. Only its hash is stored.
    Raw(SecretString),
    /// Hash of the raw key. The raw key is verified by it when it is first shown.
    Hash(ImportedHash),
}

/// Request to import a key that was made elsewhere.
pub struct ImportRequest {
    /// The key or its hash.
    pub material: KeyMaterial,
    /// The other attributes.
    pub key: KeyRequest,
}

/// An issued key.
pub struct Issued {
    /// Row in the database.
    pub key: Key,
    /// Credential. `None` if the request repeats an earlier one whose secret isn't shown again.
    pub secret: Option<SecretString>,
}

impl Service {
    /// Issues a key.
    ///
    /// # Errors
    /// Fails if an attribute is invalid, the request id was used with another body, or the database
    /// fails.
    pub async fn issue(
        &self,
        settings: &Settings,
        request: KeyRequest,
        call: &Call,
    ) -> Result<Issued, ApiError> {
        let prefix = match request.visibility {
            Visibility::Secret => &settings.secret_prefix,
            Visibility::Public => public_prefix(settings)?,
        };
        let uuid = self.rng.uuid();
        let (signer, caller) = (settings.signer(prefix), call.origin().verified_caller());
        let scope_set = request.role.clone();
        let (key, mut idempotency) =
            self.new_key(settings, KeyId::Issued(uuid), request, "", signer, caller)?;
        let limits = self.check_new(settings, &key, &writer(call, scope_set.as_deref())).await?;
        let secret = api_key::make(&settings.secrets, prefix, uuid, key.created);
        let request_id = idempotency.as_ref().map(|request| request.id.clone());
        if let Some(IdempotencyKey { id, seal: sealed, .. }) = &mut idempotency {
            let caller = call.origin().caller.as_ref();
            let request = SealedRequest { network: settings.network, request_id: id, caller };
            *sealed = seal(settings, &request, &secret);
        }
        self.check_clock()?;
        call.record_intent(settings.network, vec![key.id]).await?;
        let new = vec![NewKey { key: key.clone(), request: idempotency, digests: KnownDigests::default() }];
        let inserted = self.insert(settings, new, vec![limits]).await?;
        match inserted.into_iter().next() {
            Some(Ok(Inserted::New(key))) => {
                let occurrence = Occurrence::of_key(Event::IssuedKeyCreated, &key);
                call.record_event(occurrence.with("APIKeyPrefix", Some(prefix.as_str())));
                Ok(Issued { key: *key, secret: Some(secret) })
            }
            Some(Ok(Inserted::Repeated(earlier))) => {
                call.set_keys(vec![earlier.key.id]);
                call.confirm_key(Event::IssuedKeyCreated, &earlier.key);
                let request_id = request_id.as_deref().unwrap_or_default();
                let secret = self.secret_again(settings, request_id, &earlier, call).await?;
                Ok(Issued { key: earlier.key, secret })
            }
            Some(Err(error)) => Err(error),
            None => Err(nothing_inserted()),
        }
    }

    /// Imports a key.
    ///
    /// # Errors
    /// Fails if an attribute is invalid, the key exists already, the request id was used with
    /// another body, or the database fails.
    pub async fn import(
        &self,
        settings: &Settings,
        request: ImportRequest,
        call: &Call,
    ) -> Result<Acknowledged<Key>, ApiError> {
        let Acknowledged { value, epoch } = self.import_batch(settings, vec![Ok(request)], call).await?;
        let key = value.into_iter().next().unwrap_or_else(|| Err(nothing_inserted()))?;
        Ok(Acknowledged { value: key, epoch })
    }

    /// Imports keys in one transaction. Each succeeds or fails by itself; results are in the order
    /// of `requests`.
    ///
    /// Requests that could not be parsed are passed as errors and keep their place. The epoch is
    /// the highest of all.
    ///
    /// # Errors
    /// Fails if the database fails.
    pub async fn import_batch(
        &self,
        settings: &Settings,
        requests: Vec<Result<ImportRequest, ApiError>>,
        call: &Call,
    ) -> Result<Acknowledged<Vec<Result<Key, ApiError>>>, ApiError> {
        let network = settings.network;
        let (mut news, mut limits) = (vec![], vec![]);
        let mut results = vec![];
        for request in requests {
            let new = match request {
                Ok(request) => self.imported_key(settings, request, call).await,
                Err(error) => Err(error),
            };
            match new {
                Ok((new, of_actor)) => {
                    news.push(new);
                    limits.push(of_actor);
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        let mut inserted = match news.is_empty() {
            true => vec![],
            false => {
                self.check_clock()?;
                call.record_intent(network, news.iter().map(|new| new.key.id).collect()).await?;
                self.insert(settings, news, limits).await?
            }
        }
        .into_iter();
        let place = |(index, result): (usize, Option<_>)| {
            let result = result.unwrap_or_else(|| {
                let inserted = inserted.next().unwrap_or_else(|| Err(nothing_inserted()))?;
                Ok(match inserted {
                    Inserted::New(key) => (*key, true),
                    Inserted::Repeated(earlier) => (earlier.key, false),
                })
            });
            note_import(call, network, index, &result);
            result.map(|(key, _)| key)
        };
        let keys: Vec<Result<Key, ApiError>> = results.into_iter().enumerate().map(place).collect();
        let epoch = keys.iter().flatten().map(|key| key.mutation).max();
        Ok(Acknowledged { value: keys, epoch })
    }

    async fn imported_key(
        &self,
        settings: &Settings,
        request: ImportRequest,
        call: &Call,
    ) -> Result<(NewKey, Vec<ActorLimit>), ApiError> {
        let network = settings.network;
        let (id, digests) = match &request.material {
            KeyMaterial::Raw(raw_key) => {
                let raw_key = importable(settings, raw_key)?.expose();
                (imported::key_id(network, raw_key), DigestIds::of(network, raw_key).into())
            }
            KeyMaterial::Hash(hash) => (hash.key_id(network), hash.known(network)),
        };
        let (subject, caller) = (id.to_string(), call.origin().verified_caller());
        let scope_set = request.key.role.clone();
        let (key, request) = self.new_key(settings, id, request.key, &subject, Signer::default(), caller)?;
        let limits = self.check_new(settings, &key, &writer(call, scope_set.as_deref())).await?;
        Ok((NewKey { key, request, digests }, limits))
    }

    /// Makes the key of a request, and the record by which a repetition of it is recognised.
    /// `subject` is the imported key's id, which is part of the request's fingerprint; empty for
    /// issued keys.
    fn new_key(
        &self,
        settings: &Settings,
        id: KeyId,
        request: KeyRequest,
        subject: &str,
        signer: Signer,
        created_by: Option<Arc<str>>,
    ) -> Result<(Key, Option<IdempotencyKey>), ApiError> {
        // The row has microseconds, the credential whole seconds of the same time.
        let now = self.clock.now();
        if let Some(ttl) = request.ttl {
            check_ttl(settings, ttl)?;
        }
        let idempotency = request.request_id.clone().map(|id| IdempotencyKey {
            id,
            fingerprint: fingerprint(&everything(&request, subject)),
            seal: None,
        });
        let scopes = match &request.role {
            Some(role) => scopes_of_set(settings, role)?,
            None => request.scopes,
        };
        let key = Key {
            network: settings.network,
            id,
            name: request.name,
            actor: request.actor,
            scopes,
            metadata: request.metadata,
            visibility: request.visibility,
            addresses: request.addresses,
            rate_policy: request.rate_policy,
            rate_policies: request.rate_policies,
            actor_limits: RatePolicies::UNSET,
            credits: request.credits.map(|given| Arc::new(Credits::new(id, given, now))),
            created: now,
            updated: now,
            expires: request.ttl.or(settings.default_key_ttl).map(|ttl| now.plus(ttl)),
            superseded: None,
            unused_grace: None,
            revocation: None,
            suspensions: Suspensions::default(),
            provenance: Provenance { created_by, ..Provenance::default() }.into(),
            last_used: None,
            mutation: 0,
            signer,
        };
        self.headers_bound().check(settings, &key)?;
        Ok((key, idempotency))
    }

    /// Inserts keys. Returns each row.
    async fn insert(
        &self,
        settings: &Settings,
        news: Vec<NewKey>,
        actors: Vec<Vec<ActorLimit>>,
    ) -> Result<Vec<Result<Inserted, ApiError>>, ApiError> {
        let keys: Vec<Key> = news.iter().map(|new| new.key.clone()).collect();
        let limits = InsertLimits { quota: settings.api_keys_max, actors };
        let inserted = self.store.insert_keys_within(news, limits).await.map_err(|error| {
            for key in &keys {
                self.freshness.invalidate_unknown(key.network, key.id);
            }
            unavailable(error)
        })?;
        if let Some(n) = inserted.logged {
            self.freshness.record_written(n);
        }
        let inserted = inserted.each;
        let logged = inserted.iter().filter_map(|inserted| match inserted {
            InsertOutcome::Created(mutation) => *mutation,
            _ => None,
        });
        self.publish(&logged.collect::<Vec<_>>()).await;
        let actors = self.recorded_actors(settings.network, &keys).await;
        let result = |(mut key, inserted): (Key, InsertOutcome)| match inserted {
            InsertOutcome::Created(mutation) => {
                key.mutation = mutation.map_or(0, |mutation| mutation.n);
                if let Some(actor) = actors.get(&key.actor) {
                    key.suspensions.of_actor.clone_from(&actor.suspension);
                    key.actor_limits.clone_from(&actor.rate_policies);
                }
                Ok(Inserted::New(Box::new(key)))
            }
            InsertOutcome::Repeated(earlier) => Ok(Inserted::Repeated(earlier)),
            InsertOutcome::RequestConflict => Err(request_conflict()),
            InsertOutcome::IdTaken(existing) => Err(exists(existing)),
            InsertOutcome::QuotaExceeded => Err(quota_exceeded()),
            InsertOutcome::ActorLimitReached(limits) => Err(limit_reached(&limits)),
        };
        Ok(keys.into_iter().zip(inserted).map(result).collect())
    }

    /// Returns the actors of new keys that have a row. None if the database fails: then the answer
    /// only tells less, as the keys are made.
    async fn recorded_actors(&self, network: NetworkId, keys: &[Key]) -> HashMap<ActorId, Actor> {
        let ids = keys.iter().map(|key| key.actor.clone()).collect();
        let actors = self.store.find_recorded_actors(network, ids).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the actors of new keys can't be read");
            vec![]
        });
        actors.into_iter().map(|actor| (actor.id.clone(), actor)).collect()
    }
}

/// Row of a request that makes a key.
enum Inserted {
    /// The row is new.
    New(Box<Key>),
    /// An earlier request with the same id and body inserted it.
    Repeated(Box<RepeatedKey>),
}

/// Checks a raw key.
fn importable<'a>(settings: &Settings, raw_key: &'a SecretString) -> Result<Presented<'a>, ApiError> {
    let raw_key = Presented::new(raw_key.expose())
        .ok_or_else(|| ApiError::field("raw_key", "must be 1 to 16384 bytes long"))?;
    if settings.form(raw_key) != Form::Imported {
        let problem = "has the form of a credential that Talos makes itself, and could never verify";
        return Err(ApiError::field("raw_key", problem));
    }
    match imported::unpresentable(raw_key.expose()) {
        Some(problem) => Err(ApiError::field("raw_key", problem)),
        None => Ok(raw_key),
    }
}

/// Returns the error for a key that is known already.
fn exists(existing: KeyId) -> ApiError {
    let problem = "this API key has been imported already";
    let id = existing.to_string();
    ApiError {
        metadata: vec![(EXISTING_ID, id.clone())],
        ..ApiError::new(Reason::ApiKeyExists, format!("{problem}, as {id}"))
    }
}

/// Returns the id of the key that an import found there already.
fn existing_id(error: &ApiError) -> Option<KeyId> {
    let (_, id) = error.metadata.iter().find(|(name, _)| *name == EXISTING_ID)?;
    KeyId::parse_any(id).filter(|_| error.reason == Reason::ApiKeyExists)
}

/// Records the outcome of one import. `index` is its place in the request.
fn note_import(call: &Call, network: NetworkId, index: usize, result: &Result<(Key, bool), ApiError>) {
    match result {
        Ok((key, true)) => {
            let created = Occurrence::of_key(Event::ImportedKeyCreated, key);
            call.record_event(created.with("metadata.import_source", Some(call.operation().name())));
        }
        // The request repeats an earlier one.
        Ok((key, false)) => call.confirm_key(Event::ImportedKeyCreated, key),
        Err(error) => {
            if let Some(id) = existing_id(error) {
                call.confirm_id(Event::ImportedKeyCreated, network, id);
            }
            let failed = Occurrence::new(Event::ImportFailed, network).with("KeyType", Some("imported"));
            let failed = failed.with("metadata.index", Some(index.to_string()));
            let failed = failed.with("metadata.error_code", Some(error.reason.name()));
            call.record_event(failed.with("Reason", Some(error.reason.name())));
        }
    }
}

/// Returns the prefix of publishable keys.
pub(super) fn public_prefix(settings: &Settings) -> Result<&String, ApiError> {
    settings.public_prefix.as_ref().ok_or_else(|| {
        let problem = "no publishable key can be issued without credentials.api_keys.prefix.public_current";
        ApiError::field("visibility", problem)
    })
}

/// Returns the error for a full key quota.
pub(super) fn quota_exceeded() -> ApiError {
    let problem = "api_key_quota_exceeded: the project has as many keys as quota.api_keys_max allows; \
                   revoke some that are no longer used";
    ApiError::new(Reason::ApiKeyQuotaExceeded, problem)
}

fn nothing_inserted() -> ApiError {
    ApiError::new(Reason::InternalServerError, "the database returned no row for the key")
}

/// Checks the lifetime of a new key.
///
/// # Errors
/// Fails if it is not between one second and the maximum of the settings.
pub(super) fn check_ttl(settings: &Settings, ttl: Duration) -> Result<(), ApiError> {
    if !(Duration::from_secs(1)..=TEN_YEARS).contains(&ttl) {
        return Err(ApiError::field("ttl", "must be between 1s and 315360000s"));
    }
    if ttl > settings.max_key_ttl {
        let most = crate::duration::to_proto(settings.max_key_ttl);
        return Err(ApiError::field("ttl", format!("must be {most} at most (credentials.api_keys.max_ttl)")));
    }
    Ok(())
}

/// Returns all that a request asks for.
fn everything(request: &KeyRequest, subject: &str) -> serde_json::Value {
    let KeyRequest {
        name,
        actor,
        scopes,
        role,
        ttl,
        metadata,
        visibility,
        addresses,
        rate_policy,
        rate_policies,
        credits,
        request_id: _,
    } = request;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let rate_policy = rate_policy.map(|policy| (policy.quota, policy.window.as_micros(), policy.unit.name()));
    let mut everything = serde_json::json!([
        subject,
        name.as_str(),
        actor.as_str(),
        scopes.to_string(),
        ttl.map(|ttl| ttl.as_micros().to_string()),
        metadata.as_ref().map(Metadata::json),
        visibility.name(),
        addresses,
        rate_policy.map(|(quota, window, unit)| (quota, window.to_string(), unit)),
    ]);
    if let (Some(list), Some(role)) = (everything.as_array_mut(), role) {
        list.push(serde_json::json!(["role", role]));
    }
    // Left out if unset: earlier releases have stored fingerprints of requests without it.
    if let (Some(list), Some(policies)) = (everything.as_array_mut(), rate_policies.fingerprint()) {
        list.push(policies);
    }
    if let (Some(list), Some(credits)) = (everything.as_array_mut(), credits) {
        list.push(serde_json::json!(["credits", credits.fingerprint()]));
    }
    everything
}
