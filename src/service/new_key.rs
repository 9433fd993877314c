//! Issuing and importing.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::upstream::check_headers_fit;
use super::{Acknowledged, Service, unavailable};
use crate::audit::Call;
use crate::credential::{Form, Presented, api_key, imported};
use crate::error::{ApiError, Reason};
use crate::event::{Event, Occurrence};
use crate::key::{
    ActorId, AddressList, Key, KeyId, KeyName, Metadata, NetworkId, RatePolicy, Scopes, TEN_YEARS, Visibility,
};
use crate::secret::SecretString;
use crate::settings::Settings;
use crate::store::{Inserted, NewKey, Request};

/// What a new key is to be, whichever way it comes.
#[derive(Debug, Clone)]
pub struct KeyRequest {
    /// Its name.
    pub name: KeyName,
    /// Its actor.
    pub actor: ActorId,
    /// Its scopes.
    pub scopes: Scopes,
    /// Its life; the project's default when None.
    pub ttl: Option<Duration>,
    /// Its attributes.
    pub metadata: Option<Metadata>,
    /// Who may see it.
    pub visibility: Visibility,
    /// From where it may be used.
    pub addresses: AddressList,
    /// How often it may be used.
    pub rate_policy: Option<RatePolicy>,
    /// The caller's idempotency key.
    pub request_id: Option<String>,
}

/// A key made elsewhere.
pub struct ImportRequest {
    /// The raw key; only its hash is kept.
    pub raw_key: SecretString,
    /// The rest.
    pub key: KeyRequest,
}

/// An issued key.
pub struct Issued {
    /// Its row.
    pub key: Key,
    /// Its credential, shown this once; None when the same request was answered before.
    pub secret: Option<SecretString>,
}

impl Service {
    /// Issues a key.
    ///
    /// # Errors
    /// When a field is out of bounds, the request id was used for something else, or the database fails.
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
        let (key, idempotency) = self.new_key(settings, KeyId::Issued(uuid), request, "")?;
        let secret = api_key::make(&settings.secrets, prefix, uuid, key.created);
        call.intend(settings.network, vec![key.id]).await?;
        let inserted = self.insert(settings, vec![NewKey { key: key.clone(), request: idempotency }]).await?;
        match inserted.into_iter().next() {
            Some(Ok((key, created))) => {
                call.concerns(vec![key.id]);
                if created {
                    let occurrence = Occurrence::of_key(Event::IssuedKeyCreated, &key);
                    call.happened(occurrence.with("APIKeyPrefix", Some(prefix.as_str())));
                }
                Ok(Issued { key, secret: created.then_some(secret) })
            }
            Some(Err(error)) => Err(error),
            None => Err(nothing_inserted()),
        }
    }

    /// Imports a key.
    ///
    /// # Errors
    /// When a field is out of bounds, the key is there already, the request id was used for something else, or the
    /// database fails.
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

    /// Imports keys, in one transaction; each succeeds or fails by itself, in order. Those that couldn't be read keep
    /// their place. The number is the highest of them all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn import_batch(
        &self,
        settings: &Settings,
        requests: Vec<Result<ImportRequest, ApiError>>,
        call: &Call,
    ) -> Result<Acknowledged<Vec<Result<Key, ApiError>>>, ApiError> {
        let network = settings.network;
        let mut news = vec![];
        let mut results = vec![];
        for request in requests {
            match request.and_then(|request| self.imported_key(settings, request)) {
                Ok(new) => {
                    news.push(new);
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error))),
            }
        }
        let mut inserted = match news.is_empty() {
            true => vec![],
            false => {
                call.intend(network, news.iter().map(|new| new.key.id).collect()).await?;
                self.insert(settings, news).await?
            }
        }
        .into_iter();
        let place = |result: Option<_>| {
            let result = result.unwrap_or_else(|| inserted.next().unwrap_or_else(|| Err(nothing_inserted())));
            note_import(call, network, &result);
            result.map(|(key, _)| key)
        };
        let keys: Vec<Result<Key, ApiError>> = results.into_iter().map(place).collect();
        let epoch = keys.iter().flatten().map(|key| key.mutation).max();
        Ok(Acknowledged { value: keys, epoch })
    }

    fn imported_key(&self, settings: &Settings, request: ImportRequest) -> Result<NewKey, ApiError> {
        let raw_key = Presented::new(request.raw_key.expose())
            .ok_or_else(|| ApiError::field("raw_key", "must be 1 to 16384 bytes long"))?;
        if settings.form(raw_key) != Form::Imported {
            let problem = "has the form of a credential that Talos makes itself, and could never verify";
            return Err(ApiError::field("raw_key", problem));
        }
        if let Some(problem) = imported::unpresentable(raw_key.expose()) {
            return Err(ApiError::field("raw_key", problem));
        }
        let id = imported::key_id(settings.network, raw_key.expose());
        let (key, request) = self.new_key(settings, id, request.key, &id.to_string())?;
        Ok(NewKey { key, request })
    }

    fn new_key(
        &self,
        settings: &Settings,
        id: KeyId,
        request: KeyRequest,
        subject: &str,
    ) -> Result<(Key, Option<Request>), ApiError> {
        // The row holds microseconds; the credential whole seconds of the same moment.
        let now = self.clock.now();
        if let Some(ttl) = request.ttl {
            check_ttl(settings, ttl)?;
        }
        let idempotency = request
            .request_id
            .clone()
            .map(|request_id| Request { id: request_id, fingerprint: fingerprint(&request, subject) });
        let key = Key {
            network: settings.network,
            id,
            name: request.name,
            actor: request.actor,
            scopes: request.scopes,
            metadata: request.metadata,
            visibility: request.visibility,
            addresses: request.addresses,
            rate_policy: request.rate_policy,
            created: now,
            updated: now,
            expires: request.ttl.or(settings.default_key_ttl).map(|ttl| now.plus(ttl)),
            superseded: None,
            revocation: None,
            last_used: None,
            mutation: 0,
        };
        check_headers_fit(settings, &self.rng, &key)?;
        Ok((key, idempotency))
    }

    /// Puts keys in; gives for each its row and whether that is new.
    async fn insert(
        &self,
        settings: &Settings,
        news: Vec<NewKey>,
    ) -> Result<Vec<Result<(Key, bool), ApiError>>, ApiError> {
        let keys: Vec<Key> = news.iter().map(|new| new.key.clone()).collect();
        let inserted = self.store.insert_keys(news, settings.api_keys_max).await.map_err(|error| {
            for key in &keys {
                self.freshness.doubt(key.network, key.id);
            }
            unavailable(error)
        })?;
        if let Some(n) = inserted.logged {
            self.freshness.note_newest(n);
        }
        let inserted = inserted.each;
        let logged = inserted.iter().filter_map(|inserted| match inserted {
            Inserted::Created(mutation) => *mutation,
            _ => None,
        });
        self.committed(&logged.collect::<Vec<_>>()).await;
        let result = |(mut key, inserted): (Key, Inserted)| match inserted {
            Inserted::Created(mutation) => {
                key.mutation = mutation.map_or(0, |mutation| mutation.n);
                Ok((key, true))
            }
            Inserted::Repeated(earlier) => Ok((*earlier, false)),
            Inserted::RequestConflict => Err(ApiError {
                field: Some("request_id".into()),
                ..ApiError::new(Reason::Conflict, "request_id: was used before, with another body")
            }),
            Inserted::IdTaken => {
                Err(ApiError::new(Reason::ApiKeyExists, "this API key has been imported already"))
            }
            Inserted::QuotaExceeded => Err(quota_exceeded()),
        };
        Ok(keys.into_iter().zip(inserted).map(result).collect())
    }
}

/// Notes what came of importing a key, and whether that is new.
fn note_import(call: &Call, network: NetworkId, result: &Result<(Key, bool), ApiError>) {
    match result {
        Ok((key, true)) => call.happened(Occurrence::of_key(Event::ImportedKeyCreated, key)),
        // The answer to a request that was answered before.
        Ok((_, false)) => {}
        Err(error) => {
            let failed = Occurrence::new(Event::ImportFailed, network).with("KeyType", Some("imported"));
            call.happened(failed.with("Reason", Some(error.reason.name())));
        }
    }
}

/// The prefix of publishable keys.
pub(super) fn public_prefix(settings: &Settings) -> Result<&String, ApiError> {
    settings.public_prefix.as_ref().ok_or_else(|| {
        let problem = "no publishable key can be issued without credentials.api_keys.prefix.public_current";
        ApiError::field("visibility", problem)
    })
}

/// That there is no room for one more key.
pub(super) fn quota_exceeded() -> ApiError {
    let problem = "api_key_quota_exceeded: the project has as many keys as quota.api_keys_max allows; \
                   revoke some that are no longer used";
    ApiError::new(Reason::ApiKeyQuotaExceeded, problem)
}

fn nothing_inserted() -> ApiError {
    ApiError::new(Reason::InternalServerError, "the database said nothing of the key")
}

fn check_ttl(settings: &Settings, ttl: Duration) -> Result<(), ApiError> {
    if !(Duration::from_secs(1)..=TEN_YEARS).contains(&ttl) {
        return Err(ApiError::field("ttl", "must be between 1s and 315360000s"));
    }
    if ttl > settings.max_key_ttl {
        let most = crate::duration::to_proto(settings.max_key_ttl);
        return Err(ApiError::field("ttl", format!("must be {most} at most (credentials.api_keys.max_ttl)")));
    }
    Ok(())
}

/// A hash of everything that the request asks for: under the same id, the same hash must come again.
fn fingerprint(request: &KeyRequest, subject: &str) -> String {
    let KeyRequest { name, actor, scopes, ttl, metadata, visibility, addresses, rate_policy, request_id: _ } =
        request;
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let rate_policy = rate_policy.map(|policy| (policy.quota, policy.window.as_micros(), policy.unit.name()));
    let everything = serde_json::json!([
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
    let hash = Sha256::digest(everything.to_string());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
