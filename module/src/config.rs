//! Configuration of the filter and of its routes, JSON in Envoy's configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Default for [`FilterSettings::max_bytes`].
const DEFAULT_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Least bytes of entries.
const MIN_MAX_BYTES: u64 = 64 * 1024;
/// Most bytes of entries.
const MAX_MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Longest path of a Unix socket, in bytes (`sun_path` without its zero byte).
const MAX_SOCKET_PATH: usize = 107;
/// Most settings of a route.
pub(crate) const MAX_EXTENSIONS: usize = 16;
/// Most bytes of a route's settings, keys and values together.
const MAX_EXTENSION_BYTES: usize = 2 * 1024;
/// Prefix of the keys of a route's settings.
const KEY_PREFIX: &str = "talos.";

/// Problem in the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It isn't JSON of the expected form.
    #[error("the configuration of the module isn't valid: {0}")]
    Json(#[from] serde_json::Error),
    /// A field has a value out of range.
    #[error("{field}: {problem}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it must be.
        problem: &'static str,
    },
    /// There are too many sockets.
    #[error("socket: at most {0} different sockets can be used in one Envoy")]
    Sockets(usize),
}

/// Configuration of the filter.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterSettings {
    /// Unix socket of the authz plane (`serve.authz.socket`).
    pub socket: PathBuf,
    /// False: every request is left to ext_authz.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Bytes of entries, for all threads together.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
}

const fn enabled() -> bool {
    true
}

const fn default_max_bytes() -> u64 {
    DEFAULT_MAX_BYTES
}

impl FilterSettings {
    /// Reads the JSON of `filter_config`.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let settings: Self = serde_json::from_slice(json)?;
        let fail = |field, problem| Err(ConfigError::Field { field, problem });
        if !settings.socket.is_absolute() || settings.socket.as_os_str().len() > MAX_SOCKET_PATH {
            return fail("socket", "must be an absolute path of at most 107 bytes");
        }
        if !(MIN_MAX_BYTES..=MAX_MAX_BYTES).contains(&settings.max_bytes) {
            return fail("max_bytes", "must be from 65536 to 4294967296");
        }
        Ok(settings)
    }
}

/// Configuration of a route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    accelerate: bool,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

/// Route for which requests may be accelerated, if the operator says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteSettings {
    /// True if requests of the route may be accelerated.
    pub accelerate: bool,
    /// Policy of the route, as in the `context_extensions` of ext_authz.
    pub extensions: Vec<(String, String)>,
    /// Tells entries of different policies apart.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of a policy.
pub(crate) type Fingerprint = [u8; 32];

impl RouteSettings {
    /// Reads the JSON of `filter_config` of a route.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let raw: RawRoute = serde_json::from_slice(json)?;
        let fail = |problem| Err(ConfigError::Field { field: "settings", problem });
        if raw.settings.keys().any(|key| !key.starts_with(KEY_PREFIX)) {
            return fail("each key must begin with talos.");
        }
        match Self::new(raw.accelerate, raw.settings) {
            Some(route) => Ok(route),
            None => fail("must have at most 16 keys, and 2048 bytes in all"),
        }
    }

    fn new(accelerate: bool, settings: BTreeMap<String, String>) -> Option<Self> {
        let bytes: usize = settings.iter().map(|(key, value)| key.len() + value.len()).sum();
        if settings.len() > MAX_EXTENSIONS || bytes > MAX_EXTENSION_BYTES {
            return None;
        }
        let extensions: Vec<_> = settings.into_iter().collect();
        let fingerprint = fingerprint(&extensions);
        Some(Self { accelerate, extensions, fingerprint })
    }

    /// Returns these settings with those of the route's metadata beneath, whose keys may lack the
    /// prefix. `None` if that is too much, or a key is there twice.
    pub(crate) fn over(&self, metadata: Vec<(String, String)>) -> Option<Self> {
        let count = metadata.len();
        let full = |(key, value): (String, String)| match key.starts_with(KEY_PREFIX) {
            true => (key, value),
            false => (format!("{KEY_PREFIX}{key}"), value),
        };
        let mut settings: BTreeMap<_, _> = metadata.into_iter().map(full).collect();
        if settings.len() != count {
            return None;
        }
        settings.extend(self.extensions.iter().cloned());
        Self::new(self.accelerate, settings)
    }
}

/// Hashes a policy so that two different ones never look alike: each text after its length.
fn fingerprint(extensions: &[(String, String)]) -> Fingerprint {
    let texts = extensions.iter().flat_map(|(key, value)| [key, value]);
    let hash = texts.fold(Sha256::new(), |hash, text| {
        hash.chain_update((text.len() as u64).to_le_bytes()).chain_update(text)
    });
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_filter_needs_a_socket() {
        let settings = FilterSettings::parse(br#"{"socket": "/run/talos/authz.sock"}"#).unwrap();
        assert!(settings.enabled && settings.max_bytes == DEFAULT_MAX_BYTES);
        let settings =
            FilterSettings::parse(br#"{"socket": "/s", "enabled": false, "max_bytes": 65536}"#).unwrap();
        assert!(!settings.enabled && settings.max_bytes == 65_536);
        for (json, problem) in [
            (r"", "EOF"),
            (r"{}", "missing field `socket`"),
            (r#"{"socket": "run/talos"}"#, "absolute"),
            (r#"{"socket": "/s", "max_bytes": 1}"#, "max_bytes: must be from"),
            (r#"{"socket": "/s", "enable": true}"#, "unknown field `enable`"),
        ] {
            let found = error(FilterSettings::parse(json.as_bytes()));
            assert!(found.contains(problem), "{json}: {found}");
        }
        assert!(
            error(FilterSettings::parse(format!(r#"{{"socket": "/{}"}}"#, "s".repeat(107)).as_bytes()))
                .contains("107")
        );
    }

    #[test]
    fn a_route_opts_in_and_has_its_policy() {
        let parse = |json: &str| RouteSettings::parse(json.as_bytes());
        let plain = parse(r#"{"accelerate": true}"#).unwrap();
        assert!(plain.accelerate && plain.extensions.is_empty());
        let scoped =
            parse(r#"{"accelerate": true, "settings": {"talos.scopes": "a", "talos.mode": "required"}}"#);
        let swapped =
            parse(r#"{"accelerate": true, "settings": {"talos.mode": "required", "talos.scopes": "a"}}"#);
        let (scoped, swapped) = (scoped.unwrap(), swapped.unwrap());
        assert_eq!(scoped, swapped);
        assert_ne!(scoped.fingerprint, plain.fingerprint);
        for (json, problem) in [
            (r"{}", "missing field `accelerate`"),
            (r#"{"accelerate": true, "settings": {"scopes": "a"}}"#, "must begin with talos."),
            (r#"{"accelerate": true, "policy": {}}"#, "unknown field"),
        ] {
            assert!(error(parse(json)).contains(problem), "{json}");
        }
        let long =
            format!(r#"{{"accelerate": true, "settings": {{"talos.scopes": "{}"}}}}"#, "a".repeat(2048));
        assert!(error(parse(&long)).contains("2048 bytes"));
    }

    #[test]
    fn settings_stand_over_the_metadata_of_the_route() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let parse = |json: &str| RouteSettings::parse(json.as_bytes()).unwrap();
        let route = parse(r#"{"accelerate": true, "settings": {"talos.scopes": "a"}}"#);
        let over = route.over(pairs(&[("scopes", "b"), ("talos.mode", "required")])).unwrap();
        assert_eq!(over.extensions, pairs(&[("talos.mode", "required"), ("talos.scopes", "a")]));
        let plain = parse(r#"{"accelerate": true}"#);
        assert_eq!(plain.over(pairs(&[("scopes", "a")])).unwrap(), route);
        assert_eq!(plain.over(pairs(&[("scopes", "a"), ("talos.scopes", "b")])), None);
        assert_eq!(plain.over(pairs(&[("scopes", &"a".repeat(2048))])), None);
    }

    #[test]
    fn texts_of_a_policy_cannot_be_moved_over_their_borders() {
        let pairs = |pairs: &[(&str, &str)]| {
            fingerprint(
                &pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect::<Vec<_>>(),
            )
        };
        assert_ne!(pairs(&[("talos.a", "bc")]), pairs(&[("talos.ab", "c")]));
        assert_ne!(pairs(&[("talos.a", ""), ("talos.b", "")]), pairs(&[("talos.a", "talos.b")]));
    }
}
