//! Serialized forms of values: reading, printing without secrets, and JSON Schema. Used by
//! `#[serde(with = "serde_forms::…")]`.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Deserializer;
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use super::retired::Retired;
use crate::duration;
use crate::secret::SecretString;

/// Printed in place of a secret.
pub(super) const MASK: &str = "***";

/// Declares forms: a name and its JSON Schema.
macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

forms! {
    /// A duration such as `1h30m`, or 0.
    Duration = {
        "anyOf": [
            { "type": "string", "pattern": r"^\s*(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|mo|m|h|d|w|y)\s*)+)$" },
            { "const": 0 }
        ]
    };
    /// Like [`Duration`], or unset, for which the empty text stands, too.
    OptionalDuration = {
        "anyOf": [
            { "type": "string", "pattern": r"^\s*((([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|mo|m|h|d|w|y)\s*)+|0)?$" },
            { "const": 0 },
            { "type": "null" }
        ]
    };
    /// A text that may be unset. The empty text counts as unset, as charts and templates write it.
    OptionalText = { "type": ["string", "null"] };
    /// Like [`OptionalText`], for the path of a file.
    OptionalPath = { "type": ["string", "null"] };
    /// Like [`OptionalText`], for a secret.
    OptionalSecret = { "type": ["string", "null"], "writeOnly": true };
    /// A database URL, whose password is secret.
    Dsn = { "type": "string" };
    /// Like [`OptionalText`], for the URL of a key set, which may hold a password.
    OptionalKeySet = { "type": ["string", "null"] };
    /// Ids of users, as numbers, or as texts from an environment variable.
    Uids = {
        "type": "array",
        "items": { "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^[0-9]+$" }] }
    };
    /// Addresses that may be URLs with a password.
    Addresses = { "type": "array", "items": { "type": "string" } };
    /// URLs of key sets. The part after `base64://` is secret.
    KeySets = {
        "type": "array",
        "items": { "type": "string", "pattern": "^(base64|file|https)://" }
    };
}

impl Duration {
    pub(super) fn serialize<S: Serializer>(value: &std::time::Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&duration::to_text(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<std::time::Duration, D::Error> {
        duration::deserialize(d)
    }
}

impl OptionalDuration {
    pub(super) fn serialize<S: Serializer>(
        value: &Option<std::time::Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(duration::to_text).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<std::time::Duration>, D::Error> {
        duration::deserialize_option(d)
    }
}

impl OptionalText {
    pub(super) fn serialize<S: Serializer>(value: &Option<String>, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
        Ok(Option::<String>::deserialize(d)?.filter(|text| !text.is_empty()))
    }
}

impl OptionalPath {
    pub(super) fn serialize<S: Serializer>(value: &Option<PathBuf>, s: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|path| path.display().to_string()).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(OptionalText::deserialize(d)?.map(PathBuf::from))
    }
}

impl OptionalSecret {
    pub(super) fn serialize<S: Serializer>(value: &Option<SecretString>, s: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|_| MASK).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SecretString>, D::Error> {
        Ok(Option::<SecretString>::deserialize(d)?.filter(|secret| !secret.is_empty()))
    }
}

impl OptionalKeySet {
    pub(super) fn serialize<S: Serializer>(value: &Option<SecretString>, s: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|url| masked_key_set(url.expose())).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SecretString>, D::Error> {
        OptionalSecret::deserialize(d)
    }
}

impl Dsn {
    pub(super) fn serialize<S: Serializer>(value: &SecretString, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&masked_url(value.expose()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<SecretString, D::Error> {
        SecretString::deserialize(d)
    }
}

impl Uids {
    pub(super) fn serialize<S: Serializer>(value: &[u32], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u32>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Uid {
            Number(u32),
            Text(String),
        }
        let uids: Vec<Uid> = Vec::deserialize(d)?;
        let number = |uid| match uid {
            Uid::Number(uid) => Ok(uid),
            Uid::Text(text) => text.parse().map_err(|_| serde::de::Error::custom("must be numbers of users")),
        };
        uids.into_iter().map(number).collect()
    }
}

impl Addresses {
    pub(super) fn serialize<S: Serializer>(value: &[String], s: S) -> Result<S::Ok, S::Error> {
        let shown = |address: &String| {
            if is_host_and_port(address) { address.clone() } else { masked_url(address) }
        };
        s.collect_seq(value.iter().map(shown))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
        Vec::deserialize(d)
    }
}

impl KeySets {
    pub(super) fn serialize<S: Serializer>(value: &[SecretString], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(value.iter().map(|url| masked_key_set(url.expose())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<SecretString>, D::Error> {
        Vec::deserialize(d)
    }
}

/// Former secrets, each with its expiry.
pub(super) struct RetiredSecrets;

impl JsonSchema for RetiredSecrets {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RetiredSecrets".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<Retired<String>>::json_schema(generator)
    }
}

impl RetiredSecrets {
    pub(super) fn serialize<S: Serializer>(value: &[Retired<SecretString>], s: S) -> Result<S::Ok, S::Error> {
        let mut entries = s.serialize_seq(Some(value.len()))?;
        for entry in value {
            entries.serialize_element(&Retired { value: MASK.to_owned(), expires_at: entry.expires_at })?;
        }
        entries.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<Retired<SecretString>>, D::Error> {
        Vec::deserialize(d)
    }
}

fn is_host_and_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

/// URL of a key set without its secrets: a document in it may hold private keys.
fn masked_key_set(url: &str) -> String {
    match url {
        url if url.starts_with("file://") => url.to_owned(),
        url if url.starts_with("https://") => masked_url(url),
        _ => format!("base64://{MASK}"),
    }
}

/// Masks the password of a URL, and the values of parameters that aren't known to be harmless. A
/// text that doesn't look like a URL is masked as a whole.
fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return MASK.to_owned();
    };
    if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return MASK.to_owned();
    }
    // A password may hold any of `:/?@`, so it ends at the last `@`.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let (host, query) = match rest.split_once('?') {
        Some((host, query)) => (host, Some(query)),
        None => (rest, None),
    };
    let mut shown = format!("{scheme}://");
    match user.map(|user| user.split_once(':')) {
        Some(Some((name, _))) => shown.push_str(&format!("{name}:{MASK}@")),
        // A user name without a password may be a token.
        Some(None) => shown.push_str(&format!("{MASK}@")),
        None => {}
    }
    shown.push_str(host);
    for (index, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if is_harmless(name) => shown.push_str(parameter),
            Some((name, _)) => shown.push_str(&format!("{name}={MASK}")),
            None => shown.push_str(MASK),
        }
    }
    shown
}

/// Parameters of database URLs that hold no secret.
fn is_harmless(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "max_conns",
        "max_idle_conns",
        "max_conn_lifetime",
        "max_conn_idle_time",
        "sslmode",
        "sslrootcert",
        "tls",
        "mode",
        "cache",
        "application_name",
        "parseTime",
    ];
    NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_printed_without_their_secrets() {
        let table = [
            ("sqlite://talos.db", "sqlite://talos.db"),
            ("sqlite:///var/lib/talos.db?mode=rwc", "sqlite:///var/lib/talos.db?mode=rwc"),
            ("postgres://talos@db/x", "postgres://***@db/x"),
            ("postgres://talos:hunter2@db:5432/x", "postgres://talos:***@db:5432/x"),
            ("postgres://talos:hun/ter@2@db/x?sslmode=require", "postgres://talos:***@db/x?sslmode=require"),
            ("mysql://talos:hunter2@tcp(db:3306)/x?tls=true", "mysql://talos:***@tcp(db:3306)/x?tls=true"),
            (
                "postgres://db/x?user=talos&password=hunter2&max_conns=5",
                "postgres://db/x?user=***&password=***&max_conns=5",
            ),
            ("postgres://talos:hun?ter2@db/x", "postgres://talos:***@db/x"),
            ("postgres://hunter2?x=y@db/x", "postgres://***@db/x"),
            ("hunter2", "***"),
            ("talos:hun://ter2@tcp(db:3306)/x", "***"),
            ("", "***"),
        ];
        for (url, shown) in table {
            assert_eq!(masked_url(url), shown, "{url}");
        }
    }
}
