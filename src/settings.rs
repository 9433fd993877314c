//! Settings: what the configuration says, made ready for use. One request uses one snapshot from beginning to end.

mod error;
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

use self::routes::Routes;
use self::sources::Documents;
use crate::clock::Timestamp;
use crate::config::{
    AuthRoles, Authz, CacheType, ClientIpSource, Config, Cors, DerivedTokens, Retired, SelfRevokeLimit,
};
use crate::credential::jwk::{KeySet, SigningKey};
use crate::credential::secrets::{HmacSecret, HmacSecrets};
use crate::credential::{Form, Presented, classify};
use crate::host::name_of;
use crate::key::NetworkId;

/// The settings in force, replaced whole by a reload.
pub type SettingsHandle = Arc<ArcSwap<Settings>>;

/// A value that stops counting at some moment.
#[derive(Debug, Clone)]
pub struct Until<T> {
    /// The value.
    pub value: T,
    /// From when on it no longer counts; None means never.
    pub expires: Option<Timestamp>,
}

impl<T> Until<T> {
    fn always(value: T) -> Self {
        Self { value, expires: None }
    }

    fn retired(entry: &Retired<T>) -> Self
    where
        T: Clone,
    {
        Self { value: entry.value.clone(), expires: entry.expires_at.map(Timestamp::from_secs) }
    }

    /// Whether it counts at `now`.
    pub fn counts(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|at| now < at)
    }
}

/// One snapshot.
#[derive(Debug)]
pub struct Settings {
    /// Counts up with every change: what was proven or minted under another generation is proven or minted anew.
    pub generation: u64,
    /// Whose keys they are about.
    pub network: NetworkId,
    /// What is in force for each network, by its host; None when there is but one network.
    tenants: Option<HashMap<String, Arc<Self>>>,
    /// Keys checksums and page tokens.
    pub secrets: HmacSecrets,
    /// Issuers of derived tokens: the current one, then the retired.
    pub issuers: Vec<Until<String>>,
    /// How far clocks may differ.
    pub clock_skew: Duration,
    /// Life of a key that asks for none.
    pub default_key_ttl: Option<Duration>,
    /// Longest life of a key.
    pub max_key_ttl: Duration,
    /// Prefixes of issued keys that count, secret and public; the current ones first.
    pub prefixes: Vec<Until<String>>,
    /// Prefix of new secret keys.
    pub secret_prefix: String,
    /// Prefix of new publishable keys; none can be issued without.
    pub public_prefix: Option<String>,
    /// Prefixes of macaroons: the current one, then the retired, those that no longer count included.
    pub macaroon_prefixes: Vec<Until<String>>,
    /// Life of a derived token that asks for none.
    pub default_token_ttl: Duration,
    /// Longest life of a derived token.
    pub max_token_ttl: Duration,
    /// Longest time that a derived token counts after it was issued, when that was set: as long as
    /// nobody did, tokens with longer lives that were made elsewhere count until their `exp`.
    pub max_token_age: Option<Duration>,
    /// Keys that sign and verify derived tokens.
    pub keys: KeySet,
    /// `kid` of the key that signs, when one is named.
    pub signing_key_id: Option<String>,
    /// `keys`, as published.
    pub jwks_json: String,
    /// Whether cached answers are used at all.
    pub cache_enabled: bool,
    /// How long a cached answer is used before its row is read again.
    pub cache_ttl: Duration,
    /// How long an unknown id is remembered.
    pub negative_ttl: Duration,
    /// Most keys of a network that aren't revoked; None means any number.
    pub api_keys_max: Option<u64>,
    /// Whether the rate policies that keys carry are enforced.
    pub rate_limited: bool,
    /// Whether the HTTP planes believe `X-Forwarded-Host`.
    pub trust_forwarded_host: bool,
    /// Where the HTTP planes take a client's address from.
    pub client_ip_source: ClientIpSource,
    /// Who may call the admin plane.
    pub roles: AuthRoles,
    /// Under which names the admin plane is asked.
    pub admin_hosts: Vec<String>,
    /// Under which names the public plane is asked; any when there are none.
    pub public_hosts: Vec<String>,
    /// What pages of other origins may do on the admin plane.
    pub admin_cors: Cors,
    /// What pages of other origins may do on the public plane.
    pub public_cors: Cors,
    /// How often selfRevoke may be called.
    pub self_revoke: SelfRevokeLimit,
    /// The authz plane's own.
    pub authz: Authz,
    /// `authz.routes`, ready for use.
    pub routes: Arc<Routes>,
}

impl Settings {
    /// Makes a snapshot of a configuration and the key sets that it names.
    ///
    /// # Errors
    /// When there is no HMAC secret, or the key sets don't go together.
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

    /// Sees to it that tokens which were derived under a longer `max_ttl` of `replaced` don't
    /// outlive the one of these settings. To be called before they are shared.
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

    /// The settings of one network.
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
            issuers: std::iter::once(Until::always(config.issuer()))
                .chain(credentials.issuer_retired.iter().map(Until::retired))
                .collect(),
            clock_skew: credentials.clock_skew,
            default_key_ttl: credentials.api_keys.default_ttl,
            max_key_ttl: credentials.api_keys.max_ttl,
            prefixes: std::iter::once(&prefix.current)
                .chain(&prefix.public_current)
                .cloned()
                .map(Until::always)
                .chain(prefix.retired.iter().chain(&prefix.public_retired).map(Until::retired))
                .collect(),
            secret_prefix: prefix.current.clone(),
            public_prefix: prefix.public_current.clone(),
            macaroon_prefixes: std::iter::once(Until::always(macaroon.current.clone()))
                .chain(macaroon.retired.iter().map(Until::retired))
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
            rate_limited: config.rate_limit.enabled,
            trust_forwarded_host: config.serve.http.trust_forwarded_host,
            client_ip_source: config.serve.http.client_ip_source,
            roles: config.serve.http.auth.roles.clone(),
            admin_hosts: config.serve.http.allowed_hosts.clone(),
            public_hosts: config.serve.public.allowed_hosts.clone(),
            admin_cors: config.serve.http.cors.clone(),
            public_cors: config.serve.public.cors.clone(),
            self_revoke: config.serve.public.self_revoke.clone(),
            authz: config.authz.clone(),
            routes: Arc::clone(routes),
        })
    }

    /// What is in force for a request to `host`, whichever port and case it was written with. None when that is no
    /// network's.
    pub fn of_host<'a, 'h>(
        self: &'a Arc<Self>,
        host: impl FnOnce() -> Option<&'h str>,
    ) -> Option<&'a Arc<Self>> {
        match &self.tenants {
            None => Some(self),
            Some(tenants) => tenants.get(&*name_of(host()?)?),
        }
    }

    /// Whether there are networks, found by the host of a request.
    pub fn has_tenants(&self) -> bool {
        self.tenants.is_some()
    }

    /// The settings of each network, by host; these alone, without a host, when there is but one.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, &Self)> {
        let tenants = self.tenants.iter().flatten().map(|(host, tenant)| (Some(host.as_str()), &**tenant));
        std::iter::once((None, self)).chain(tenants)
    }

    /// The longest time that anything cached is used before its row is read again.
    pub fn longest_cache_ttl(&self) -> Duration {
        self.all().map(|(_, settings)| settings.cache_ttl).max().unwrap_or(self.cache_ttl)
    }

    /// The longest life of a token that can be derived now, in whichever network.
    pub fn longest_token_ttl(&self) -> Duration {
        let served = self.all().filter(|(host, _)| host.is_some() == self.has_tenants());
        served.map(|(_, settings)| settings.max_token_ttl).max().unwrap_or(self.max_token_ttl)
    }

    /// The current issuer.
    pub fn issuer(&self) -> &str {
        &self.issuers[0].value
    }

    /// The prefix entry under which a key of `prefix` counts at `now`.
    pub fn prefix(&self, prefix: &str, now: Timestamp) -> Option<&Until<String>> {
        self.prefixes.iter().find(|entry| entry.value == prefix && entry.counts(now))
    }

    /// The prefix of new macaroons.
    pub fn macaroon_prefix(&self) -> &str {
        &self.macaroon_prefixes[0].value
    }

    /// The prefix entry under which a macaroon of `prefix` counts at `now`.
    pub fn macaroon_prefix_at(&self, prefix: &str, now: Timestamp) -> Option<&Until<String>> {
        self.macaroon_prefixes.iter().find(|entry| entry.value == prefix && entry.counts(now))
    }

    /// What form a credential has under these settings.
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

/// The keys of all documents.
///
/// # Errors
/// When one is missing, is no key set, or has a `kid` that another has, too.
pub fn key_set(config: &Config, documents: &Documents) -> Result<KeySet, SettingsError> {
    let mut keys = KeySet::default();
    for (index, url) in config.credentials.derived_tokens.jwt.signing_keys.urls.iter().enumerate() {
        let key = || format!("credentials.derived_tokens.jwt.signing_keys.urls[{index}]");
        let document = documents.get(url).ok_or_else(|| SettingsError::NotRead { key: key() })?;
        keys.read(document.expose()).map_err(|problem| SettingsError::KeySet { key: key(), problem })?;
    }
    Ok(keys)
}
