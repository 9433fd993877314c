//! Settings: the configuration in the form in which requests use it. A request uses one snapshot
//! from its beginning to its end.

mod error;
pub mod issuance;
pub mod path;
pub mod policy;
pub mod routes;
pub mod sources;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use error::{SettingsError, SourceError};

use self::issuance::{IssuancePolicies, ScopeSets};
use self::routes::Routes;
use self::sources::Documents;
use crate::clock::Timestamp;
use crate::config::{
    AuthMode, AuthRoles, Authz, CacheType, ClientIpSource, Config, Cors, DerivedTokens, Retired,
    SelfRevokeLimit,
};
use crate::credential::jwk::{KeySet, SigningKey};
use crate::credential::secrets::{HmacSecret, HmacSecrets};
use crate::credential::{Form, Presented, classify};
use crate::host::name_of;
use crate::key::{KeyPrefix, NetworkId, Signer};

/// Settings in force. A reload replaces them as a whole.
pub type SettingsHandle = Arc<ArcSwap<Settings>>;

/// A value that is valid until some moment.
#[derive(Debug, Clone)]
pub struct Expiring<T> {
    /// The value.
    pub value: T,
    /// Moment from which on it is invalid; None means never.
    pub expires: Option<Timestamp>,
}

impl<T> Expiring<T> {
    fn unlimited(value: T) -> Self {
        Self { value, expires: None }
    }

    fn retired(entry: &Retired<T>) -> Self
    where
        T: Clone,
    {
        Self { value: entry.value.clone(), expires: entry.expires_at.map(Timestamp::from_secs) }
    }

    /// Returns true if it is valid at `now`.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|at| now < at)
    }
}

/// One snapshot of the settings of a network.
#[derive(Debug)]
pub struct Settings {
    /// Increases with every change. Cached proofs and tokens of another generation are not used.
    pub generation: u64,
    /// Network whose keys they are for.
    pub network: NetworkId,
    /// Settings of each network, by host name; None without multitenancy.
    tenants: Option<HashMap<String, Arc<Self>>>,
    /// Secrets of checksums, macaroons and page tokens.
    pub secrets: HmacSecrets,
    /// Issuers of derived tokens: the current one, then the retired ones.
    pub issuers: Vec<Expiring<String>>,
    /// Tolerated difference of clocks.
    pub clock_skew: Duration,
    /// Lifetime of a key for which none was requested.
    pub default_key_ttl: Option<Duration>,
    /// Longest lifetime of a key.
    pub max_key_ttl: Duration,
    /// Prefixes of issued keys, secret and publishable: the current ones, then the retired ones.
    pub prefixes: Vec<Expiring<String>>,
    /// Prefix of new secret keys.
    pub secret_prefix: String,
    /// Prefix of new publishable keys; without one, none can be issued.
    pub public_prefix: Option<String>,
    /// Prefixes of macaroons: the current one, then the retired ones, expired ones included.
    pub macaroon_prefixes: Vec<Expiring<String>>,
    /// Lifetime of a derived token for which none was requested.
    pub default_token_ttl: Duration,
    /// Longest lifetime of a derived token.
    pub max_token_ttl: Duration,
    /// Age from which on a derived token is refused, whatever its `exp`; None while `max_ttl` has
    /// its default, as tokens with a longer lifetime may come from another implementation.
    pub max_token_age: Option<Duration>,
    /// Key set that signs and verifies derived tokens.
    pub keys: KeySet,
    /// `kid` of the signing key, if one is named.
    pub signing_key_id: Option<String>,
    /// Public part of `keys`, as published.
    pub jwks_json: String,
    /// True if the cache is used.
    pub cache_enabled: bool,
    /// Time for which a cached row is used before it is read again.
    pub cache_ttl: Duration,
    /// Time for which an unknown key id is cached.
    pub negative_ttl: Duration,
    /// Maximum number of unrevoked keys in the network; None means any number.
    pub api_keys_max: Option<u64>,
    /// Time for which a repeated request gets the secret of its key again; zero means never.
    pub reveal_for: Duration,
    /// True if rate policies of keys are enforced.
    pub rate_limited: bool,
    /// Policies of what keys may be like.
    pub issuance: IssuancePolicies,
    /// Named sets of scopes.
    pub scope_sets: ScopeSets,
    /// True if the HTTP planes use `X-Forwarded-Host`.
    pub trust_forwarded_host: bool,
    /// True if whoever reaches the admin plane is trusted or proves who it is, so that no web page
    /// can be behind a request.
    pub admin_peers_trusted: bool,
    /// True if requests about health aren't logged.
    pub exclude_health: bool,
    /// Source of a client's address on the HTTP planes.
    pub client_ip_source: ClientIpSource,
    /// Callers of the admin plane, by role.
    pub roles: AuthRoles,
    /// Host names of the admin plane.
    pub admin_hosts: Vec<String>,
    /// Host names of the public plane; any when there are none.
    pub public_hosts: Vec<String>,
    /// True if the HTTP planes serve the console's pages.
    pub console_enabled: bool,
    /// CORS rules of the admin plane.
    pub admin_cors: Cors,
    /// CORS rules of the public plane.
    pub public_cors: Cors,
    /// Rate limits of selfRevoke.
    pub self_revoke: SelfRevokeLimit,
    /// Configuration of the authz plane.
    pub authz: Authz,
    /// Compiled `authz.routes`.
    pub routes: Arc<Routes>,
}

impl Settings {
    /// Builds settings from a configuration and the key sets that it names.
    ///
    /// # Errors
    /// When there is no HMAC secret, or the key sets can't be used together.
    pub fn build(config: &Config, documents: &Documents, generation: u64) -> Result<Self, SettingsError> {
        let routes = Arc::new(Routes::compile(&config.authz.routes));
        let main = Self::of_network(NetworkId::SINGLE, config, documents, generation, &routes)?;
        if !config.multitenancy.enabled {
            return Ok(main);
        }
        let mut tenants = HashMap::new();
        for (network, config) in config.tenants() {
            let hostname = network.hostname.clone();
            let name = name_of(&hostname).map(Cow::into_owned);
            let (Some(name), Some(id)) = (name, NetworkId::parse(&network.id)) else {
                return Err(SettingsError::NoNetwork { hostname });
            };
            let settings = Self::of_network(id, config, documents, generation, &routes)
                .map_err(|problem| SettingsError::OfNetwork { hostname, problem: Box::new(problem) })?;
            tenants.insert(name, Arc::new(settings));
        }
        Ok(Self { tenants: Some(tenants), ..main })
    }

    /// Limits the age of tokens that were derived under a longer `max_ttl` of `replaced` to the one
    /// of these settings. To be called before the settings are shared.
    pub fn limit_tokens_of(&mut self, replaced: &Self) {
        if self.max_token_ttl < replaced.max_token_ttl || replaced.max_token_age.is_some() {
            self.max_token_age = Some(self.max_token_ttl);
        }
        for (host, tenant) in self.tenants.iter_mut().flatten() {
            let before = replaced.tenants.as_ref().and_then(|tenants| tenants.get(host));
            if let (Some(tenant), Some(before)) = (Arc::get_mut(tenant), before) {
                tenant.limit_tokens_of(before);
            }
        }
    }

    /// Builds the settings of one network.
    fn of_network(
        network: NetworkId,
        config: &Config,
        documents: &Documents,
        generation: u64,
        routes: &Arc<Routes>,
    ) -> Result<Self, SettingsError> {
        let credentials = &config.credentials;
        let prefix = &credentials.api_keys.prefix;
        let tokens = &credentials.derived_tokens;
        let keys = key_set(config, documents)?;
        let macaroon = &tokens.macaroon.prefix;
        Ok(Self {
            generation,
            network,
            tenants: None,
            secrets: hmac_secrets(config)?,
            issuers: std::iter::once(Expiring::unlimited(config.issuer()))
                .chain(credentials.issuer_retired.iter().map(Expiring::retired))
                .collect(),
            clock_skew: credentials.clock_skew,
            default_key_ttl: credentials.api_keys.default_ttl,
            max_key_ttl: credentials.api_keys.max_ttl,
            prefixes: std::iter::once(&prefix.current)
                .chain(&prefix.public_current)
                .cloned()
                .map(Expiring::unlimited)
                .chain(prefix.retired.iter().chain(&prefix.public_retired).map(Expiring::retired))
                .collect(),
            secret_prefix: prefix.current.clone(),
            public_prefix: prefix.public_current.clone(),
            macaroon_prefixes: std::iter::once(Expiring::unlimited(macaroon.current.clone()))
                .chain(macaroon.retired.iter().map(Expiring::retired))
                .collect(),
            default_token_ttl: tokens.default_ttl,
            max_token_ttl: tokens.max_ttl,
            max_token_age: (tokens.max_ttl != DerivedTokens::default().max_ttl).then_some(tokens.max_ttl),
            jwks_json: keys.public_json(),
            keys,
            signing_key_id: tokens.jwt.signing_key_id.clone(),
            cache_enabled: config.cache.enabled && config.cache.kind != CacheType::Noop,
            cache_ttl: config.cache.ttl,
            negative_ttl: config.cache.negative_ttl,
            api_keys_max: config.quota.api_keys_max,
            reveal_for: config.idempotency.reveal_for,
            rate_limited: config.rate_limit.enabled,
            issuance: IssuancePolicies::new(config.issuance_policies.clone()),
            scope_sets: ScopeSets::of(config),
            trust_forwarded_host: config.serve.http.trust_forwarded_host,
            admin_peers_trusted: config.serve.http.trusted_network
                || config.serve.http.auth.mode != AuthMode::None,
            exclude_health: config.serve.http.request_log.exclude_health_endpoints,
            client_ip_source: config.serve.http.client_ip_source,
            roles: config.serve.http.auth.roles.clone(),
            admin_hosts: config.serve.http.allowed_hosts.clone(),
            public_hosts: config.serve.public.allowed_hosts.clone(),
            console_enabled: config.serve.http.console.enabled,
            admin_cors: config.serve.http.cors.clone(),
            public_cors: config.serve.public.cors.clone(),
            self_revoke: config.serve.public.self_revoke.clone(),
            authz: config.authz.clone(),
            routes: Arc::clone(routes),
        })
    }

    /// The settings for a request to `host`, in any case and with any port. None when no network
    /// has that host.
    pub fn for_host<'a, 'h>(
        self: &'a Arc<Self>,
        host: impl FnOnce() -> Option<&'h str>,
    ) -> Option<&'a Arc<Self>> {
        match &self.tenants {
            None => Some(self),
            Some(tenants) => tenants.get(&*name_of(host()?)?),
        }
    }

    /// Returns true if networks are found by the host of a request.
    pub fn has_tenants(&self) -> bool {
        self.tenants.is_some()
    }

    /// These settings, without a host, then those of each network with its host.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, &Self)> {
        let tenants = self.tenants.iter().flatten().map(|(host, tenant)| (Some(host.as_str()), &**tenant));
        std::iter::once((None, self)).chain(tenants)
    }

    /// Longest `cache_ttl` of all networks.
    pub fn longest_cache_ttl(&self) -> Duration {
        self.all().map(|(_, settings)| settings.cache_ttl).max().unwrap_or(self.cache_ttl)
    }

    /// Longest lifetime of a token that can be derived now, in any network.
    pub fn longest_token_ttl(&self) -> Duration {
        let served = self.all().filter(|(host, _)| host.is_some() == self.has_tenants());
        served.map(|(_, settings)| settings.max_token_ttl).max().unwrap_or(self.max_token_ttl)
    }

    /// The current issuer.
    pub fn issuer(&self) -> &str {
        &self.issuers[0].value
    }

    /// The entry for a key prefix, if it is valid at `now`.
    pub fn prefix(&self, prefix: &str, now: Timestamp) -> Option<&Expiring<String>> {
        self.prefixes.iter().find(|entry| entry.value == prefix && entry.is_valid_at(now))
    }

    /// The signer of new keys with this prefix.
    pub fn signer(&self, prefix: &str) -> Signer {
        Signer { secret: Some(self.secrets.current().id()), prefix: KeyPrefix::parse(prefix) }
    }

    /// The prefix of new macaroons.
    pub fn macaroon_prefix(&self) -> &str {
        &self.macaroon_prefixes[0].value
    }

    /// The entry for a macaroon prefix, if it is valid at `now`.
    pub fn macaroon_prefix_at(&self, prefix: &str, now: Timestamp) -> Option<&Expiring<String>> {
        self.macaroon_prefixes.iter().find(|entry| entry.value == prefix && entry.is_valid_at(now))
    }

    /// The form of a credential under these settings.
    pub fn form<'a>(&self, credential: Presented<'a>) -> Form<'a> {
        classify(credential, self.macaroon_prefixes.iter().map(|prefix| prefix.value.as_str()))
    }

    /// The key that signs derived tokens.
    pub fn signing_key(&self) -> Option<&SigningKey> {
        self.keys.signing(self.signing_key_id.as_deref())
    }
}

fn hmac_secrets(config: &Config) -> Result<HmacSecrets, SettingsError> {
    let hmac = &config.secrets.hmac;
    let current = hmac.current.as_ref().ok_or(SettingsError::NoHmacSecret)?;
    let retired = hmac.retired.iter().map(|entry| {
        let expires = entry.expires_at.map(Timestamp::from_secs);
        HmacSecret::new(entry.value.expose().as_bytes(), expires)
    });
    let current = HmacSecret::new(current.expose().as_bytes(), None);
    Ok(HmacSecrets::new(current, retired.collect()))
}

/// Checks that the key sets can be used together, and that a named signing key is among them.
///
/// # Errors
/// When not so.
pub fn check_signing_key(config: &Config, documents: &Documents) -> Result<(), SettingsError> {
    let keys = key_set(config, documents)?;
    match &config.credentials.derived_tokens.jwt.signing_key_id {
        Some(named) if keys.signing(Some(named)).is_none() => Err(SettingsError::NoSigningKey),
        _ => Ok(()),
    }
}

/// Merges the key sets of all documents.
///
/// # Errors
/// When a document is missing or no key set, or two keys have the same `kid`.
pub fn key_set(config: &Config, documents: &Documents) -> Result<KeySet, SettingsError> {
    let mut keys = KeySet::default();
    for (index, url) in config.credentials.derived_tokens.jwt.signing_keys.urls.iter().enumerate() {
        let key = || format!("credentials.derived_tokens.jwt.signing_keys.urls[{index}]");
        let document = documents.get(url).ok_or_else(|| SettingsError::NotRead { key: key() })?;
        keys.read(document.expose()).map_err(|problem| SettingsError::KeySet { key: key(), problem })?;
    }
    Ok(keys)
}
