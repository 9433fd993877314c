//! Settings that this version reads but doesn't act upon. Serving refuses them: a setting that is silently without
//! effect is worse than one that is missing. A row goes when its feature comes.

use super::authz::CredentialSource;
use super::cache::{CacheRedis, CacheType};
use super::model::Config;
use super::serve::AuthMode;

/// A key, and whether it is set to something that isn't built.
type Row = (&'static str, fn(&Config) -> bool);

const ROWS: &[Row] = &[
    ("cache.type", |c| c.cache.kind == CacheType::Redis),
    ("cache.redis.addrs", |c| c.cache.redis.addrs != CacheRedis::default().addrs),
    ("cache.redis.username", |c| c.cache.redis.username.is_some()),
    ("cache.redis.password", |c| c.cache.redis.password.is_some()),
    ("cache.redis.db", |c| c.cache.redis.db != CacheRedis::default().db),
    ("cache.redis.timeout", |c| c.cache.redis.timeout != CacheRedis::default().timeout),
    ("cache.redis.check_timeout", |c| c.cache.redis.check_timeout != CacheRedis::default().check_timeout),
    ("cache.redis.pool_size", |c| c.cache.redis.pool_size != CacheRedis::default().pool_size),
    ("cache.redis.min_idle_conns", |c| c.cache.redis.min_idle_conns != CacheRedis::default().min_idle_conns),
    ("cache.redis.conn_max_idle_time", |c| {
        c.cache.redis.conn_max_idle_time != CacheRedis::default().conn_max_idle_time
    }),
    ("cache.redis.conn_max_lifetime", |c| {
        c.cache.redis.conn_max_lifetime != CacheRedis::default().conn_max_lifetime
    }),
    ("cache.redis.tls.enabled", |c| c.cache.redis.tls.enabled),
    ("cache.redis.tls.ca_file", |c| c.cache.redis.tls.ca_file.is_some()),
    ("cache.redis.tls.cert_file", |c| c.cache.redis.tls.cert_file.is_some()),
    ("cache.redis.tls.key_file", |c| c.cache.redis.tls.key_file.is_some()),
    ("cache.redis.tls.server_name", |c| c.cache.redis.tls.server_name.is_some()),
    ("rate_limit.enabled", |c| c.rate_limit.enabled),
    ("multitenancy.enabled", |c| c.multitenancy.enabled),
    ("tracing.enabled", |c| c.tracing.enabled),
    ("serve.http.tls.cert_file", |c| c.serve.http.tls.cert_file.is_some()),
    ("serve.http.tls.key_file", |c| c.serve.http.tls.key_file.is_some()),
    ("serve.http.tls.client_ca_file", |c| c.serve.http.tls.client_ca_file.is_some()),
    ("serve.public.tls.cert_file", |c| c.serve.public.tls.cert_file.is_some()),
    ("serve.public.tls.key_file", |c| c.serve.public.tls.key_file.is_some()),
    ("serve.public.tls.client_ca_file", |c| c.serve.public.tls.client_ca_file.is_some()),
    ("serve.metrics.tls.cert_file", |c| c.serve.metrics.tls.cert_file.is_some()),
    ("serve.metrics.tls.key_file", |c| c.serve.metrics.tls.key_file.is_some()),
    ("serve.metrics.tls.client_ca_file", |c| c.serve.metrics.tls.client_ca_file.is_some()),
    ("serve.authz.tls.cert_file", |c| c.serve.authz.tls.cert_file.is_some()),
    ("serve.authz.tls.key_file", |c| c.serve.authz.tls.key_file.is_some()),
    ("serve.authz.tls.client_ca_file", |c| c.serve.authz.tls.client_ca_file.is_some()),
    ("serve.http.auth.mode", |c| c.serve.http.auth.mode != AuthMode::None),
    ("serve.http.cors.enabled", |c| c.serve.http.cors.enabled),
    ("serve.public.cors.enabled", |c| c.serve.public.cors.enabled),
    ("serve.http.allowed_hosts", |c| !c.serve.http.allowed_hosts.is_empty()),
    ("serve.public.allowed_hosts", |c| !c.serve.public.allowed_hosts.is_empty()),
    ("audit.file", |c| c.audit.file.is_some()),
    ("audit.key", |c| c.audit.key.is_some()),
    ("authz.sources", |c| {
        c.authz.sources.iter().any(|source| !matches!(source, CredentialSource::Header { .. }))
    }),
    ("authz.routes", |c| !c.authz.routes.is_empty()),
    ("credentials.derived_tokens.jwt.signing_keys.urls", |c| {
        let urls = &c.credentials.derived_tokens.jwt.signing_keys.urls;
        urls.iter().any(|url| url.expose().starts_with("https://"))
    }),
];

impl Config {
    /// One full error text for each setting that this version can't honour; empty when it can serve.
    pub fn unsupported(&self) -> Vec<String> {
        ROWS.iter()
            .filter(|(_, is_set)| is_set(self))
            .map(|(key, _)| format!("{key}: not supported by this version; remove it"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn the_defaults_are_supported() {
        assert_eq!(Config::default().unsupported(), Vec::<String>::new());
    }

    #[test]
    fn every_row_is_a_key() {
        for (key, _) in ROWS {
            assert!(keys::find(key).is_some(), "{key}");
        }
    }

    #[test]
    fn what_is_not_built_is_named() {
        let mut config = Config::default();
        config.cache.kind = CacheType::Redis;
        config.authz.sources = vec![CredentialSource::Cookie { name: "key".to_owned() }];
        let texts = config.unsupported();
        let expected = ["cache.type", "authz.sources"]
            .map(|key| format!("{key}: not supported by this version; remove it"));
        assert_eq!(texts, expected);
    }
}
