//! What a route asks of a credential: Envoy's context extensions over our own defaults.

use talos_proto::Entry;

use crate::config::{Audience, RouteMode, RouteToken, RouteVisibility, ScopeList};
use crate::key::Scopes;

/// The demands of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether a credential is needed at all.
    pub mode: RouteMode,
    /// Scopes that it must all have.
    pub scopes: Scopes,
    /// Scopes of which it must have one, unless empty.
    pub any_scope: Scopes,
    /// Whom the minted token is for.
    pub audience: Option<String>,
    /// What goes upstream; by default a JWT when one can be signed.
    pub token: Option<RouteToken>,
    /// Whether publishable keys are refused.
    pub secret_only: bool,
}

/// A context extension that can't be meant as it stands: the request is refused, never guessed about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("context extension {key}: {problem}")]
pub struct PolicyError {
    key: String,
    problem: String,
}

impl Policy {
    /// Reads the `talos.*` context extensions; others aren't ours.
    ///
    /// # Errors
    /// When one is unknown or its value is out of range.
    pub fn from_extensions(extensions: &[Entry]) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for extension in extensions {
            let Some(key) = extension.key.strip_prefix(b"talos.") else {
                continue;
            };
            policy.set(key, &extension.value).map_err(|problem| PolicyError {
                key: String::from_utf8_lossy(&extension.key).chars().take(64).collect(),
                problem,
            })?;
        }
        Ok(policy)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let value = std::str::from_utf8(value).map_err(|_| "must be UTF-8")?;
        match key {
            b"mode" => self.mode = parse(value)?,
            b"scopes" => self.scopes = parse::<ScopeList>(value)?.into_scopes(),
            b"any_scope" => self.any_scope = parse::<ScopeList>(value)?.into_scopes(),
            b"audience" => self.audience = Some(parse::<Audience>(value)?.as_str().to_owned()),
            b"token" => self.token = Some(parse(value)?),
            b"visibility" => self.secret_only = parse::<RouteVisibility>(value)? == RouteVisibility::Secret,
            _ => return Err("is not known".to_owned()),
        }
        Ok(())
    }
}

fn parse<T: std::str::FromStr<Err: ToString>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Policy, PolicyError> {
        let entry = |(key, value): &(&'static str, &'static str)| Entry {
            key: key.as_bytes().into(),
            value: value.as_bytes().into(),
        };
        Policy::from_extensions(&pairs.iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn every_key_is_understood_or_refused() {
        let policy = read(&[
            ("talos.mode", "optional"),
            ("talos.scopes", "a b"),
            ("talos.audience", "orders"),
            ("talos.token", "none"),
            ("talos.visibility", "secret"),
            ("other", "is not ours"),
        ])
        .unwrap();
        assert_eq!(policy.mode, RouteMode::Optional);
        assert_eq!(policy.scopes.to_string(), "a b");
        assert_eq!(policy.audience.as_deref(), Some("orders"));
        assert_eq!(policy.token, Some(RouteToken::None));
        assert!(policy.secret_only);
        for bad in [
            ("talos.mode", "Required"),
            ("talos.mode", ""),
            ("talos.scopes", ""),
            ("talos.any_scope", "a\u{1}"),
            ("talos.token", "macaroon"),
            ("talos.visibility", "public"),
            ("talos.scope", "a"),
            ("talos.", ""),
        ] {
            assert!(read(&[bad]).unwrap_err().to_string().contains(bad.0), "{bad:?}");
        }
    }
}
