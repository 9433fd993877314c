//! Table of all keys, read from the types: every field from which `Config` is deserialized is a
//! key, so the table is always complete.
//!
//! A derived `Deserialize` passes its field names to the deserializer. [`Probe`] is a deserializer
//! that records what is requested at one path, and stops there.

use std::cell::Cell;
use std::fmt;
use std::sync::LazyLock;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::model::Config;

/// Kind of a key's value, to which texts of environment variables are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Integer,
    Float,
    Text,
    /// List of texts, or of mappings if the key is in [`OBJECT_LISTS`].
    List,
}

/// One key with a value.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted path, such as `serve.http.port`.
    pub path: String,
    /// Environment variable, such as `TALOS_SERVE_HTTP_PORT`.
    pub variable: String,
    pub kind: Kind,
}

/// All keys, in the order of the structs.
pub(super) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    collect(&mut Vec::new(), &mut keys);
    keys
});

/// Lists whose entries are mappings. A variable holds them as YAML or JSON.
pub(super) const OBJECT_LISTS: &[&str] =
    &["authz.routes", "authz.sources", "multitenancy.networks", "issuance_policies"];

/// Mappings with names of the operator's own. A variable holds them as YAML or JSON.
pub(super) const MAPPINGS: &[&str] = &["roles"];

/// Secret keys and sections. `cache.redis.addrs` may hold a URL with a password.
const SECRETS: &[&str] = &[
    "secrets",
    "db.dsn",
    "migrate.dsn",
    "cache.redis.password",
    "cache.redis.sentinel.password",
    "cache.redis.addrs",
    "audit.key",
    "audit.key_retired",
    "serve.http.auth.jwt.jwks",
    "credentials.derived_tokens.jwt.signing_keys.urls",
];

/// Returns true if the value at `path`, which may be an entry of a list, is secret.
pub(super) fn is_secret(path: &str) -> bool {
    SECRETS.iter().any(|secret| {
        path.strip_prefix(secret).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// Finds the key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Returns true if there are keys below `path`.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns true for a key, a section, or an entry of a list.
pub(super) fn is_known(path: &str) -> bool {
    let (path, _) = path.split_once('[').unwrap_or((path, ""));
    find(path).is_some() || is_section(path)
}

/// Field names of a list's entries, with which indexed variables may end.
pub(super) fn entry_fields(path: &str) -> &'static [&'static str] {
    match path {
        "authz.sources" => &[
            "header",
            "scheme",
            "scheme_optional",
            "key_in",
            "query",
            "cookie",
            "path",
            "websocket_protocol",
        ],
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
    // Always an error: the probe stops as soon as it knows the kind.
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

/// Deserializer that follows `path`, field by field, and records in `found` what is requested at
/// its end.
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

/// Stops a deserialization that isn't needed any more.
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

/// Implements the methods for one kind of value per line.
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

/// A mapping with one field, whose value is the rest of the path.
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

    /// The list is written out, as a change of it is a change of the file format.
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
            ("serve.http.console", "enabled"),
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
            ("migrate", "dsn"),
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
            ("cache.redis.sentinel", "master username password"),
            ("rate_limit", "enabled backend"),
            ("quota", "api_keys_max"),
            ("idempotency", "reveal_for"),
            ("last_used", "queue_size flush_size flush_interval num_workers"),
            ("usage", "enabled flush_interval max_rows keep_hours keep_days"),
            ("multitenancy", "enabled networks"),
            ("metrics", "compat"),
            ("tracing", "enabled exporter endpoint sample_rate service_name service_version environment"),
            (
                "authz",
                "token_ttl token_header sources on_unavailable client_address trusted_hops realm reveal_reason \
                 denied_template_file preflight routes",
            ),
            ("authz.edge", "enabled"),
            ("consistency", "lease poll relay grace deny_file"),
            ("audit", "file key key_retired max_size"),
            ("errors", "domain docs_url"),
        ];
        let documented: BTreeSet<String> = documented
            .iter()
            .flat_map(|(section, names)| names.split(' ').map(move |name| format!("{section}.{name}")))
            .chain(["issuance_policies", "roles"].map(str::to_owned))
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
