//! Changes of the configuration while the process runs: those that apply, and those that need a
//! restart.

use super::keys::KEYS;
use super::load::Loaded;
use super::model::{Config, Multitenancy, Network, RateLimit};
use super::serve::{Serve, ServeHttp, ServePublic};
use super::show::at;
use super::{Auth, Authz, Cache, ConfigError, Problem, contradictions, validate};

/// Compares a key in two configurations.
type Differs = fn(&Config, &Config) -> bool;
/// Keys that are masked or incomplete in the printed form, which is compared for all others.
const MASKED: [(&str, Differs); 12] = [
    ("db.dsn", |a, b| a.db.dsn != b.db.dsn),
    ("secrets.hmac.current", |a, b| a.secrets.hmac.current != b.secrets.hmac.current),
    ("secrets.hmac.retired", |a, b| a.secrets.hmac.retired != b.secrets.hmac.retired),
    ("credentials.derived_tokens.jwt.signing_keys.urls", |a, b| {
        a.credentials.derived_tokens.jwt.signing_keys != b.credentials.derived_tokens.jwt.signing_keys
    }),
    ("cache.redis.addrs", |a, b| a.cache.redis.addrs != b.cache.redis.addrs),
    ("cache.redis.password", |a, b| a.cache.redis.password != b.cache.redis.password),
    ("cache.redis.sentinel.password", |a, b| {
        a.cache.redis.sentinel.password != b.cache.redis.sentinel.password
    }),
    ("migrate.dsn", |a, b| a.migrate.dsn != b.migrate.dsn),
    ("audit.key", |a, b| a.audit.key != b.audit.key),
    ("audit.key_retired", |a, b| a.audit.key_retired != b.audit.key_retired),
    ("serve.http.auth.jwt.jwks", |a, b| a.serve.http.auth.jwt.jwks != b.serve.http.auth.jwt.jwks),
    // With the content of their own files, which isn't printed.
    ("multitenancy.networks", |a, b| a.multitenancy.networks != b.multitenancy.networks),
];

/// Result of loading a configuration while another is in force.
#[derive(Debug)]
pub struct Change {
    /// Configuration to put into force: new values where they apply at once, old ones elsewhere.
    pub config: Config,
    /// Keys that apply at once.
    pub applied: Vec<&'static str>,
    /// Keys that differ and need a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// Compares this configuration, which is in force, with a new one.
    ///
    /// # Errors
    /// When new values contradict old ones that only a restart changes.
    pub fn change_to(&self, new: Loaded) -> Result<Change, ConfigError> {
        let config = merged(self, &new.config);
        // The rules of the admin plane and of listeners are checked at the start only.
        let found = validate::check(&config, None).into_iter().chain(contradictions::check(&config));
        let problems: Vec<Problem> = found
            .map(|(key, message)| {
                let kept = self.to_masked();
                match at(&kept, path(&key)) == at(&new.config.to_masked(), path(&key)) {
                    true => new.origins.problem(key, message),
                    false => {
                        let origin = "the value in force, which only a restart changes".to_owned();
                        Problem::new(key, message, origin)
                    }
                }
            })
            .collect();
        if !problems.is_empty() {
            return Err(ConfigError::Invalid(problems));
        }
        let applied = differing(self, &config);
        let needs_restart = differing(&config, &new.config);
        Ok(Change { config, applied, needs_restart })
    }
}

/// The path of a key, which may be an entry of a list.
fn path(key: &str) -> &str {
    key.split_once('[').map_or(key, |(path, _)| path)
}

/// `old` with the values of `new` that apply without a restart.
fn merged(old: &Config, new: &Config) -> Config {
    Config {
        secrets: new.secrets.clone(),
        credentials: new.credentials.clone(),
        quota: new.quota.clone(),
        idempotency: new.idempotency.clone(),
        issuance_policies: new.issuance_policies.clone(),
        roles: new.roles.clone(),
        authz: Authz { routes: new.authz.routes.clone(), edge: new.authz.edge.clone(), ..old.authz.clone() },
        cache: Cache { enabled: new.cache.enabled, ttl: new.cache.ttl, ..old.cache.clone() },
        multitenancy: Multitenancy { networks: networks(old, new), ..new.multitenancy },
        rate_limit: RateLimit { enabled: new.rate_limit.enabled, ..old.rate_limit.clone() },
        serve: Serve {
            http: ServeHttp {
                client_ip_source: new.serve.http.client_ip_source,
                console: new.serve.http.console.clone(),
                cors: new.serve.http.cors.clone(),
                allowed_hosts: new.serve.http.allowed_hosts.clone(),
                auth: Auth { roles: new.serve.http.auth.roles.clone(), ..old.serve.http.auth.clone() },
                request_log: new.serve.http.request_log.clone(),
                ..old.serve.http.clone()
            },
            public: ServePublic {
                cors: new.serve.public.cors.clone(),
                allowed_hosts: new.serve.public.allowed_hosts.clone(),
                self_revoke: new.serve.public.self_revoke.clone(),
                ..old.serve.public.clone()
            },
            ..old.serve.clone()
        },
        ..old.clone()
    }
}

/// The networks of `new`, each with the values that apply without a restart.
fn networks(old: &Config, new: &Config) -> Vec<Network> {
    let Multitenancy { networks, .. } = &new.multitenancy;
    if networks.is_empty() {
        return vec![];
    }
    // The configuration of a network has no networks itself.
    let old = Config { multitenancy: Multitenancy::default(), ..old.clone() };
    let merge = |network: &Network| Network {
        config: network.config.as_ref().map(|own| Box::new(merged(&old, own))),
        ..network.clone()
    };
    networks.iter().map(merge).collect()
}

/// Keys whose values differ.
fn differing(a: &Config, b: &Config) -> Vec<&'static str> {
    let (masked_a, masked_b) = (a.to_masked(), b.to_masked());
    let differs = |key: &str| match MASKED.iter().find(|(secret, _)| *secret == key) {
        Some((_, differs)) => differs(a, b),
        None => at(&masked_a, key) != at(&masked_b, key),
    };
    KEYS.iter().map(|key| key.path.as_str()).filter(|key| differs(key)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::keys::{self, Kind};
    use crate::config::load_without_admin;
    use crate::config::tests::config;

    /// Keys, and sections of keys, that apply without a restart.
    const LIVE: [&str; 21] = [
        "credentials",
        "secrets",
        "cache.enabled",
        "cache.ttl",
        "serve.http.console",
        "serve.http.cors",
        "serve.public.cors",
        "serve.http.allowed_hosts",
        "serve.public.allowed_hosts",
        "serve.public.self_revoke",
        "serve.http.auth.roles",
        "serve.http.client_ip_source",
        "serve.http.request_log",
        "rate_limit.enabled",
        "quota",
        "idempotency",
        "authz.routes",
        "authz.edge",
        "multitenancy",
        "issuance_policies",
        "roles",
    ];

    fn is_live(key: &str) -> bool {
        LIVE.iter()
            .any(|live| key.strip_prefix(live).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    fn change(old: &str, new: &str) -> Result<Change, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, new).unwrap();
        let new = load_without_admin(Some(file.path()), []).unwrap_or_else(|error| panic!("{new}: {error}"));
        config(old, &[]).change_to(new)
    }

    /// A value of `key` other than the default.
    fn another_value(key: &keys::Key) -> String {
        let defaults = Config::default().to_masked();
        let default = at(&defaults, &key.path);
        let text = match (key.path.as_str(), key.kind) {
            ("serve.http.client_ip_source", _) => "CLIENT_IP_SOURCE_X_REAL_IP",
            ("serve.http.auth.mode", _) => "mtls",
            ("serve.http.auth.unix_uids", _) => "[77]",
            ("serve.http.auth.jwt.leeway", _) => "8s",
            ("serve.http.auth.jwt.jwks", _) => "https://issuer/keys",
            ("log.level", _) => "debug",
            ("log.format", _) => "json",
            ("metrics.compat", _) => "ory",
            ("cache.type" | "rate_limit.backend", _) => "redis",
            ("authz.on_unavailable", _) => "error",
            ("authz.client_address", _) => "xff",
            ("authz.preflight", _) => "allow",
            ("authz.denied_template_file", _) => "denied.yaml",
            ("authz.sources", _) => "[{cookie: key}]",
            ("authz.routes", _) => "[{mode: optional}]",
            ("issuance_policies", _) => "[{name: one, require_ttl: true}]",
            ("roles", _) => "{reader: [orders:read]}",
            ("multitenancy.networks", _) => "[{hostname: a, id: 6ba7b810-9dad-41d1-80b4-00c04fd430c8}]",
            ("db.dsn", _) => "postgres://talos:secret@db/x",
            ("secrets.hmac.current" | "audit.key", _) => "0123456789abcdef0123456789abcdef",
            ("secrets.hmac.retired" | "audit.key_retired", _) => "[0123456789abcdef0123456789abcdef]",
            ("credentials.derived_tokens.jwt.signing_keys.urls", _) => "[\"base64://e30=\"]",
            ("credentials.derived_tokens.max_ttl", _) => "48h",
            ("consistency.lease", _) => "7s",
            ("consistency.poll", _) => "2s",
            ("idempotency.reveal_for", _) => "3m",
            ("usage.keep_hours" | "usage.keep_days", _) => "961h",
            ("tracing.sample_rate", _) => "0.5",
            ("errors.docs_url", _) => "https://docs.example/errors",
            (path, _) if path.ends_with("_ttl") || path.ends_with(".ttl") => "3m",
            (path, _) if path.ends_with("_interval") || path.ends_with("timeout") => "4s",
            (path, _) if path.ends_with("_time") || path.ends_with("_lifetime") => "4s",
            (
                "serve.authz.max_connection_age"
                | "credentials.clock_skew"
                | "consistency.relay"
                | "consistency.grace",
                _,
            ) => "8s",
            (_, Kind::Integer) => "77",
            (_, Kind::Bool) => return (default != true).to_string(),
            (_, Kind::List) => "[one]",
            (_, _) => "other",
        };
        text.to_owned()
    }

    /// A file in which `key` has a value other than the default.
    fn file_with(key: &keys::Key) -> String {
        let (section, value) = match key.path.rsplit_once('.') {
            // These keys need each other.
            Some((section, _)) if section.starts_with("serve.") && section.ends_with(".tls") => {
                (section, "{cert_file: a, key_file: b, client_ca_file: c}".to_owned())
            }
            Some((section, "cert_file" | "key_file")) if section == "cache.redis.tls" => {
                (section, "{cert_file: a, key_file: b}".to_owned())
            }
            _ => (key.path.as_str(), another_value(key)),
        };
        section.rsplit('.').fold(value, |inner, name| format!("{{{name}: {inner}}}"))
    }

    /// Each key either applies or is named, never neither and never both.
    #[test]
    fn every_key_applies_or_needs_a_restart() {
        // This key has no other value.
        for key in KEYS.iter().filter(|key| key.path != "tracing.exporter") {
            let (path, file) = (key.path.as_str(), file_with(key));
            let change = change("", &file).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(change.applied.contains(&path), is_live(path), "{file}: {change:?}");
            assert_eq!(change.needs_restart.contains(&path), !is_live(path), "{file}: {change:?}");
        }
    }

    #[test]
    fn live_keys_are_keys_and_masked_ones_are_complete() {
        for live in LIVE {
            assert!(keys::find(live).is_some() || keys::is_section(live), "{live}");
        }
        let secret = KEYS.iter().map(|key| key.path.as_str()).filter(|path| keys::is_secret(path));
        let masked: BTreeSet<&str> = secret.chain(["multitenancy.networks"]).collect();
        assert_eq!(MASKED.map(|(key, _)| key).into_iter().collect::<BTreeSet<_>>(), masked);
    }

    #[test]
    fn the_same_value_in_another_form_is_no_change() {
        let old = "cache: {ttl: 5m}\nlog: {level: info}\n";
        let new = "cache: {ttl: 300s}\ncredentials: {api_keys: {prefix: {public_current: ''}}}\n";
        let change = change(old, new).unwrap();
        assert!(change.applied.is_empty() && change.needs_restart.is_empty(), "{change:?}");
    }

    #[test]
    fn old_and_new_values_are_mixed_and_the_mix_is_checked() {
        let mixed =
            change("log: {level: warn}", "log: {level: debug}\ncache: {ttl: 1m, type: noop}").unwrap();
        assert_eq!(mixed.applied, ["cache.ttl"]);
        assert_eq!(mixed.needs_restart, ["log.level", "cache.type"]);
        assert_eq!(mixed.config, config("log: {level: warn}\ncache: {ttl: 1m}", &[]));

        // authz.token_ttl stays at 5m, which the new max_ttl doesn't allow.
        let new = "authz: {token_ttl: 1m}\ncredentials: {derived_tokens: {default_ttl: 1m, max_ttl: 2m}}";
        let error = change("", new).unwrap_err().to_string();
        assert_eq!(
            error,
            "authz.token_ttl: must be at most credentials.derived_tokens.max_ttl \
             (the value in force, which only a restart changes)"
        );
    }

    #[test]
    fn a_change_never_shows_a_secret() {
        let new = "db: {dsn: 'postgres://talos:hunter2@db/x'}\naudit: {key: hunter2hunter2hunter2hunter2hunter2}\n\
                   secrets: {hmac: {retired: [hunter2hunter2hunter2hunter2hunter2]}}";
        let change = change("", new).unwrap();
        assert_eq!(change.applied, ["secrets.hmac.retired"]);
        assert_eq!(change.needs_restart, ["db.dsn", "audit.key"]);
        assert!(!format!("{change:?}").contains("hunter2"));
    }
}
