//! Checks everything that serving needs and that can be checked without a network.
//!
//! `talos serve` begins with it and `talos config check` is it, so both find the same.

use super::{bind, build, denied_templates, deny_file, jwks_refresh, paths};
use crate::admin_auth::AdminAuth;
use crate::audit;
use crate::clock::Clock;
use crate::config::{CacheType, Config, KeySetUrl, Loaded, Problem, RateLimitBackend, Source};
use crate::plane::{Plane, Planes};
use crate::redis::{RedisSettingsError, check as check_redis};
use crate::settings::sources::{Documents, Reading, Renewed, is_https};
use crate::settings::{SettingsError, check_signing_key, key_set};
use crate::store::Store;
use crate::telemetry::traces;
use crate::tls::{Validity, problem_of_cas};

/// Options of the checks.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// If true, key sets are also fetched from servers.
    pub fetch: bool,
    /// If false, only settings are checked: files that they name may be missing.
    pub files: bool,
}

/// Result of the checks.
#[derive(Debug, Default)]
pub struct Preflight {
    /// Problems that keep the server from starting.
    pub problems: Vec<Problem>,
    /// Problems that don't.
    pub warnings: Vec<Problem>,
}

/// Checks a configuration for a process that serves `planes`.
pub async fn preflight(source: &Source, loaded: &Loaded, planes: Planes, options: Options) -> Preflight {
    let mut checks = Checks { source, loaded, found: Preflight::default() };
    let config = &loaded.config;
    checks.settings(config, options);
    if options.files {
        checks.key_sets(config, options.fetch).await;
        checks.files(config, planes).await;
    }
    checks.found
}

/// Returns a problem for each file of a DSN that can't be read.
fn unreadable_dsn_files(key: &str, dsn: &str) -> impl Iterator<Item = String> {
    Store::dsn_files(dsn).into_iter().filter_map(move |(parameter, file)| {
        let read = std::fs::File::open(&file).and_then(|mut file| std::io::Read::read(&mut file, &mut [0]));
        let error = read.err()?;
        Some(format!("{key}: the parameter {parameter} names {}: {error}", file.display()))
    })
}

struct Checks<'a> {
    source: &'a Source,
    loaded: &'a Loaded,
    found: Preflight,
}

impl Checks<'_> {
    /// Records the problem of an error whose text begins with the key.
    fn require<T, E: std::fmt::Display>(&mut self, result: Result<T, E>, cure: Option<&str>) -> Option<T> {
        result.map_err(|error| self.problem(&error.to_string(), cure)).ok()
    }

    fn problem(&mut self, text: &str, cure: Option<&str>) {
        let problem = self.source.problem(self.loaded, text, cure.map(str::to_owned));
        self.found.problems.push(problem);
    }

    fn warn(&mut self, text: &str, cure: Option<&str>) {
        let warning = self.source.problem(self.loaded, text, cure.map(str::to_owned));
        self.found.warnings.push(warning);
    }

    fn settings(&mut self, config: &Config, options: Options) {
        let dsn = Store::check_dsn(config.db.dsn.expose());
        if let Some(Some(file)) = self.require(dsn, None)
            && options.files
        {
            self.require(Store::check_file(&file), None);
        }
        let cure = Some("name a PEM file that this user can read");
        if options.files {
            for problem in unreadable_dsn_files("db.dsn", config.db.dsn.expose()) {
                self.problem(&problem, cure);
            }
        }
        if let Some(dsn) = &config.migrate.dsn {
            // Serving doesn't need them.
            for problem in unreadable_dsn_files("migrate.dsn", dsn.expose()).filter(|_| options.files) {
                self.warn(&problem, cure);
            }
        }
        self.expired("", config);
        for (network, config) in config.tenants() {
            self.expired(&network.hostname, config);
        }
        let uses_redis = config.cache.kind == CacheType::Redis
            || (config.rate_limit.backend == RateLimitBackend::Redis && !config.cache.redis.addrs.is_empty());
        if uses_redis {
            let mut settings = build::redis_settings(config);
            if !options.files && settings.tls.take().is_some() {
                // The addresses are judged, the certificates aren't.
                settings.plaintext_allowed = true;
            }
            let usable = check_redis(&settings);
            let is_file = matches!(usable, Err(RedisSettingsError::Tls(_)));
            self.require(usable, is_file.then_some("name PEM files that this user can read"));
            let ca_file = settings.tls.as_ref().and_then(|tls| tls.ca_file.as_deref());
            let now = Clock::system().now();
            if let Some(problem) = ca_file.and_then(|path| problem_of_cas(path, now)) {
                let text = format!("cache.redis.tls.ca_file: {problem}");
                self.warn(&text, Some("name the file of the CA that issued the server's certificate"));
            }
        }
        if config.tracing.enabled {
            self.require(traces::check_endpoint(&config.tracing), None);
            if options.files {
                self.require(
                    traces::check_files(&config.tracing),
                    Some("name a PEM file that this user can read"),
                );
            }
        }
    }

    /// Warns of retired values that have expired: those of a network if `host` isn't empty.
    fn expired(&mut self, host: &str, config: &Config) {
        let now = Clock::system().now().as_secs();
        let (hmac, credentials) = (&config.secrets.hmac, &config.credentials);
        let prefix = &credentials.api_keys.prefix;
        let mut found = vec![];
        let loaded = self.loaded;
        let mut look = |key: &str, ends: Vec<Option<i64>>| {
            // What a network has of the main file is told with that.
            if !host.is_empty() && !loaded.is_set_by_network(host, key) {
                return;
            }
            for (index, end) in ends.into_iter().enumerate() {
                if end.is_some_and(|end| end <= now) {
                    found.push(format!("{key}[{index}]: has expired, and verifies nothing any more"));
                }
            }
        };
        look("secrets.hmac.retired", hmac.retired.iter().map(|entry| entry.expires_at).collect());
        for (key, entries) in [
            ("credentials.issuer_retired", &credentials.issuer_retired),
            ("credentials.api_keys.prefix.retired", &prefix.retired),
            ("credentials.api_keys.prefix.public_retired", &prefix.public_retired),
            (
                "credentials.derived_tokens.macaroon.prefix.retired",
                &credentials.derived_tokens.macaroon.prefix.retired,
            ),
        ] {
            look(key, entries.iter().map(|entry| entry.expires_at).collect());
        }
        for text in found {
            let text = if host.is_empty() { text } else { format!("{host}: {text}") };
            self.warn(&text, Some("remove it"));
        }
    }

    /// Reads the certificates of the listeners. Those that every peer would refuse get a warning.
    fn certificates(&mut self, config: &Config, planes: Planes, clock: &Clock) {
        const REPLACE: Option<&str> = Some("replace its files: clients refuse it");
        let now = clock.now();
        for plane in planes.iter() {
            let section = format!("serve.{}.tls", config.serve.section(planes, plane).section());
            let identity = bind::identity(config, planes, plane, clock);
            let cure = Some(
                "name PEM files that this user can read and that belong together (a relative path starts at the \
                 working directory)",
            );
            let Some(Some(identity)) = self.require(identity, cure) else { continue };
            let Validity { begins, expires } = identity.validity();
            if expires <= now {
                let at = expires.to_rfc3339();
                self.warn(&format!("{section}: the certificate expired at {at}"), REPLACE);
            } else if begins > now {
                let at = begins.to_rfc3339();
                self.warn(&format!("{section}: the certificate is valid only from {at} on"), REPLACE);
            }
            if let Some(problem) = identity.files().client_ca().and_then(|path| problem_of_cas(path, now)) {
                let text = format!("{section}.client_ca_file: {problem}");
                self.warn(&text, Some("name the file of the CA that issues the clients' certificates"));
            }
        }
    }

    async fn files(&mut self, config: &Config, planes: Planes) {
        const MISSING: Option<&str> = Some("name a file that this user can read, or remove the setting");
        let clock = Clock::system();
        self.certificates(config, planes, &clock);
        let (admin, authz) = (planes.contains(Plane::Admin), planes.contains(Plane::Authz));
        for (key, socket, is_served) in [
            ("serve.http.socket", &config.serve.http.socket, admin),
            ("serve.authz.socket", &config.serve.authz.socket, authz),
        ] {
            if let Some(path) = socket.as_ref().filter(|_| is_served) {
                self.require(paths::socket(key, path), None);
            }
        }
        if let Some(path) = &config.authz.denied_template_file {
            let templates = denied_templates::read(path);
            let is_unreadable = std::fs::File::open(path).is_err();
            self.require(templates, MISSING.filter(|_| is_unreadable));
        }
        if let Some(path) = &config.consistency.deny_file {
            let list = deny_file::read(path).await;
            let cure = match &list {
                Err(error) if error.is_malformed() => "write one key's id a line; # begins a comment",
                _ => "create it (an empty file refuses nothing), or remove the setting",
            };
            self.require(list, Some(cure));
        }
        if let Some(path) = &config.audit.file {
            let cure = "create its directory, and let this user write there";
            self.require(audit::check_writable(path), Some(cure));
        }
        let auth = AdminAuth::new(&config.serve.http.auth, 0, clock);
        let is_local =
            auth.token_verifier().and_then(|tokens| tokens.url()).is_some_and(|url| !is_https(url));
        if admin && is_local {
            self.require(jwks_refresh::read_at_start(&auth).await, MISSING);
        }
    }

    /// Warns of key sets of which no key can sign. One that is named and missing is a problem.
    fn cannot_sign(&mut self, place: &str, config: &Config, documents: &Documents) {
        let jwt = &config.credentials.derived_tokens.jwt;
        if jwt.signing_keys.urls.is_empty() || jwt.signing_key_id.is_some() {
            return;
        }
        if key_set(config, documents).is_ok_and(|keys| keys.signing(None).is_none()) {
            let key = "credentials.derived_tokens.jwt.signing_keys.urls";
            let problem = "no key there can sign (public keys only?): upstream gets no JWT";
            let text = format!("{place}{key}: {problem}");
            self.warn(&text, Some("add a private key: `talos jwk generate eddsa --jwks -o FILE` makes one"));
        }
    }

    /// Reads the key sets. Remote ones are read only if `fetch` is set.
    async fn key_sets(&mut self, config: &Config, fetch: bool) {
        let urls = config.key_set_urls();
        let reading = if fetch { Reading::All } else { Reading::Offline };
        let Renewed { documents, failures } = Documents::default().renew(&urls, reading).await;
        for failure in failures.values() {
            let cure = "a signing key is made by `talos jwk generate eddsa --jwks -o FILE`";
            self.problem(&failure.to_string(), Some(cure));
        }
        if !failures.is_empty() {
            return;
        }
        let is_skipped = |set: &&KeySetUrl| documents.get(&set.url).is_none();
        let skipped: Vec<KeySetUrl> = urls.iter().filter(is_skipped).cloned().collect();
        for KeySetUrl { key, .. } in &skipped {
            self.warn(&format!("{key}: was not checked"), Some("use --fetch to fetch it"));
        }
        let documents = documents.or_empty(&urls);
        let networks = config.tenants().map(|(network, config)| (format!("{}: ", network.hostname), config));
        let all = std::iter::once((String::new(), config)).chain(networks);
        let urls_of = |config: &Config| config.credentials.derived_tokens.jwt.signing_keys.urls.clone();
        let main = urls_of(config);
        for (place, config) in all.collect::<Vec<_>>() {
            let checked = match skipped.is_empty() {
                true => check_signing_key(config, &documents),
                false => key_set(config, &documents).map(drop),
            };
            let urls = urls_of(config);
            let is_read = !urls.iter().any(|url| skipped.iter().any(|set| set.url == *url));
            // Networks without key sets of their own have those of the main file.
            if is_read && (place.is_empty() || urls != main) {
                self.cannot_sign(&place, config, &documents);
            }
            let is_absent = matches!(checked, Err(SettingsError::NoSigningKey));
            let cure = is_absent.then_some("name a key that is there, or add the key set that has it");
            self.require(checked.map_err(|error| format!("{place}{error}")), cure);
        }
    }
}
