//! The table of all keys, read off the types themselves: whatever `Config` can be deserialised from is a key, so no
//! list can fall behind.
//!
//! A derived `Deserialize` hands its field names to the deserialiser. [`Probe`] is one that notes what it is asked
//! for at one path and stops there.

use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::model::Config;

/// What a key's value is made of; the environment's texts are converted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    Float,
    Text,
    /// Of texts, unless the key is in [`OBJECT_LISTS`].
    List,
}

/// One setting that has a value of its own.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted path, such as `serve.http.port`.
    pub path: String,
    /// Its environment variable, such as `TALOS_SERVE_HTTP_PORT`.
    pub variable: String,
    pub kind: Kind,
}

/// All keys, in the order of the structs.
pub(super) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    collect(&mut Vec::new(), &mut keys);
    keys
});

/// Lists whose entries are mappings; a variable holds them as YAML (so JSON, too).
pub(super) const OBJECT_LISTS: &[&str] = &["authz.routes", "authz.sources", "multitenancy.networks"];

/// Keys that are secret with all that lies under them. `cache.redis.addrs` may hold a URL with a password.
const SECRETS: &[&str] = &[
    "secrets",
    "db.dsn",
    "cache.redis.password",
    "cache.redis.addrs",
    "audit.key",
    "audit.key_retired",
    "credentials.derived_tokens.jwt.signing_keys.urls",
];

/// Whether nothing of the value at `path` (which may go into a list) may be shown.
pub(super) fn is_secret(path: &str) -> bool {
    SECRETS.iter().any(|secret| {
        path.strip_prefix(secret).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// The key at exactly this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether keys lie under `path`.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The names inside an entry of a list that has a long form, which indexed variables may end in.
pub(super) fn entry_fields(path: &str) -> &'static [&'static str] {
    match path {
        "authz.sources" => &["header", "scheme", "query", "cookie"],
        "multitenancy.networks" => &["hostname", "id", "config_path"],
        "secrets.hmac.retired" | "credentials.issuer_retired" | "audit.key_retired" => {
            &["value", "expires_at"]
        }
        _ if path.ends_with("prefix.retired") || path.ends_with("prefix.public_retired") => {
            &["value", "expires_at"]
        }
        _ => &[],
    }
}

fn collect(path: &mut Vec<&'static str>, keys: &mut Vec<Key>) {
    let found = Cell::new(None);
    // Always an error: the probe stops as soon as it knows.
    let _ = Config::deserialize(Probe { path, found: &found });
    match found.get() {
        Some(Found::Section(fields)) => {
            for &field in fields {
                path.push(field);
                collect(path, keys);
                path.pop();
            }
        }
        Some(Found::Leaf(kind)) => keys.push(Key {
            path: path.join("."),
            variable: format!("TALOS_{}", path.join("_").to_ascii_uppercase()),
            kind,
        }),
        None => {}
    }
}

#[derive(Clone, Copy)]
enum Found {
    Section(&'static [&'static str]),
    Leaf(Kind),
}

/// Goes down `path`, field by field, and notes in `found` what is asked for at its end.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [&'static str],
    found: &'a Cell<Option<Found>>,
}

impl Probe<'_> {
    fn leaf<T>(self, kind: Kind) -> Result<T, Stop> {
        if self.path.is_empty() {
            self.found.set(Some(Found::Leaf(kind)));
        }
        Err(Stop)
    }
}

/// Ends a deserialisation that has told what it had to.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Each line: the methods for one kind of value.
macro_rules! leaves {
    ($($kind:ident: $($method:ident)*;)*) => {$($(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
            self.leaf(Kind::$kind)
        }
    )*)*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    leaves! {
        Bool: deserialize_bool;
        Integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
            deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64;
        Float: deserialize_f32 deserialize_f64;
        Text: deserialize_any deserialize_char deserialize_str deserialize_string deserialize_bytes
            deserialize_byte_buf deserialize_unit deserialize_identifier deserialize_ignored_any;
        List: deserialize_seq deserialize_map;
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.path.split_first() {
            None => {
                self.found.set(Some(Found::Section(fields)));
                Err(Stop)
            }
            Some((field, rest)) => visitor.visit_map(OneField { field, probe: Probe { path: rest, ..self } }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stop> {
        self.leaf(Kind::Text)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, Stop> {
        self.leaf(Kind::Text)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Stop> {
        self.leaf(Kind::List)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Stop> {
        self.leaf(Kind::List)
    }
}

/// A mapping of one field, whose value is the rest of the way.
struct OneField<'a> {
    field: &'static str,
    probe: Probe<'a>,
}

impl<'de> de::MapAccess<'de> for OneField<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let key: de::value::StrDeserializer<'_, Stop> = self.field.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(self.probe)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A change here is a change of the file format, so the list is written out.
    #[test]
    fn the_documented_keys_are_the_keys() {
        let documented = [
            (
                "serve.http",
                "host port socket client_ip_source trust_forwarded_host trusted_network allowed_hosts",
            ),
            ("serve.http.auth", "mode unix_uids"),
            ("serve.http.auth.roles", "viewer issuer admin"),
            ("serve.http.auth.xfcc", "peers"),
            ("serve.http.auth.jwt", "issuer audience jwks leeway claim"),
            (
                "serve.http.cors",
                "enabled allowed_origins allowed_methods allowed_headers exposed_headers allow_credentials max_age debug",
            ),
            ("serve.http.request_log", "exclude_health_endpoints"),
            ("serve.http.tls", "cert_file key_file client_ca_file"),
            ("serve.public", "host port allowed_hosts"),
            ("serve.public.self_revoke", "per_address total"),
            (
                "serve.public.cors",
                "enabled allowed_origins allowed_methods allowed_headers exposed_headers allow_credentials max_age debug",
            ),
            ("serve.public.tls", "cert_file key_file client_ca_file"),
            ("serve.metrics", "host port"),
            ("serve.metrics.tls", "cert_file key_file client_ca_file"),
            ("serve.authz", "host port socket max_connection_age"),
            ("serve.authz.tls", "cert_file key_file client_ca_file"),
            ("db", "dsn"),
            ("log", "level format"),
            ("secrets.hmac", "current retired"),
            ("credentials", "issuer issuer_retired clock_skew"),
            ("credentials.api_keys", "default_ttl max_ttl"),
            ("credentials.api_keys.prefix", "current retired public_current public_retired"),
            ("credentials.derived_tokens", "default_ttl max_ttl"),
            ("credentials.derived_tokens.jwt.signing_keys", "urls"),
            ("credentials.derived_tokens.jwt", "signing_key_id"),
            ("credentials.derived_tokens.macaroon.prefix", "current retired"),
            ("cache", "enabled type ttl negative_ttl negative_size"),
            ("cache.memory", "max_size num_counters"),
            (
                "cache.redis",
                "addrs username password db timeout check_timeout pool_size min_idle_conns conn_max_idle_time conn_max_lifetime",
            ),
            ("cache.redis.tls", "enabled ca_file cert_file key_file server_name"),
            ("rate_limit", "enabled backend"),
            ("quota", "api_keys_max"),
            ("last_used", "queue_size flush_size flush_interval num_workers"),
            ("multitenancy", "enabled networks"),
            ("tracing", "enabled exporter endpoint sample_rate service_name service_version environment"),
            (
                "authz",
                "token_ttl token_header sources on_unavailable client_address trusted_hops realm reveal_reason \
                 denied_template_file preflight routes",
            ),
            ("consistency", "lease poll relay grace deny_file"),
            ("audit", "file key key_retired max_size"),
        ];
        let documented: BTreeSet<String> = documented
            .iter()
            .flat_map(|(section, names)| names.split(' ').map(move |name| format!("{section}.{name}")))
            .collect();
        let keys: BTreeSet<String> = KEYS.iter().map(|key| key.path.clone()).collect();
        assert_eq!(keys, documented);
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let variables: BTreeSet<&str> = KEYS.iter().map(|key| key.variable.as_str()).collect();
        assert_eq!(variables.len(), KEYS.len());
    }

    #[test]
    fn kinds() {
        let table = [
            ("serve.http.port", Kind::Integer),
            ("serve.http.cors.enabled", Kind::Bool),
            ("quota.api_keys_max", Kind::Integer),
            ("tracing.sample_rate", Kind::Float),
            ("cache.type", Kind::Text),
            ("cache.ttl", Kind::Text),
            ("credentials.api_keys.default_ttl", Kind::Text),
            ("secrets.hmac.current", Kind::Text),
            ("secrets.hmac.retired", Kind::List),
            ("authz.routes", Kind::List),
        ];
        for (path, kind) in table {
            assert_eq!(find(path).map(|key| key.kind), Some(kind), "{path}");
        }
        assert!(OBJECT_LISTS.iter().all(|path| find(path).is_some()));
    }

    #[test]
    fn secrets_cover_what_lies_under_them() {
        for path in ["secrets", "secrets.hmac.retired[0].value", "db.dsn", "audit.key"] {
            assert!(is_secret(path), "{path}");
        }
        for path in ["secretsx", "db", "audit.file", "serve.http.port"] {
            assert!(!is_secret(path), "{path}");
        }
        assert!(SECRETS.iter().all(|path| find(path).is_some() || is_section(path)));
    }
}
