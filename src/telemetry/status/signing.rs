//! Numbers of keys by their signers, in a status.

use serde::Serialize;

use crate::service::{SignerCount, SignerCounts, SignerState};

/// Active issued keys by the HMAC secret and the prefix that they need, as they were last counted.
#[derive(Debug, Serialize)]
pub struct Signing {
    /// By HMAC secret.
    pub secrets: Vec<SecretKeys>,
    /// By prefix.
    pub prefixes: Vec<PrefixKeys>,
}

/// Active keys of a secret.
#[derive(Debug, Serialize)]
pub struct SecretKeys {
    /// Id of the secret, a fingerprint of it; absent for keys whose secret isn't known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_id: Option<String>,
    /// `current`, `retired`, `removed` (no configuration has it) or `unknown`.
    pub state: &'static str,
    /// Number of active keys.
    pub keys: u64,
    /// True if there may be more, as counting ends at a limit.
    pub at_least: bool,
}

/// Active keys of a prefix.
#[derive(Debug, Serialize)]
pub struct PrefixKeys {
    /// Prefix; absent for keys whose prefix isn't known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `current`, `retired`, `removed` (no configuration has it) or `unknown`.
    pub state: &'static str,
    /// Number of active keys.
    pub keys: u64,
    /// True if there may be more, as counting ends at a limit.
    pub at_least: bool,
}

impl Signing {
    /// Converts counts.
    pub fn new(counts: &SignerCounts) -> Self {
        let known = |count: &SignerCount| Some(count.signer.clone()).filter(|signer| !signer.is_empty());
        let secret = |count: &SignerCount| SecretKeys {
            secret_id: known(count),
            state: count.state.name(),
            keys: count.keys,
            at_least: count.is_capped(),
        };
        let prefix = |count: &SignerCount| PrefixKeys {
            prefix: known(count),
            state: count.state.name(),
            keys: count.keys,
            at_least: count.is_capped(),
        };
        Self {
            secrets: counts.secrets.iter().map(secret).collect(),
            prefixes: counts.prefixes.iter().map(prefix).collect(),
        }
    }

    /// Returns the problems: signers that keys need and no configuration has.
    pub(super) fn problems(&self) -> Vec<String> {
        let removed = SignerState::Removed.name();
        let mut problems = vec![];
        for secret in self.secrets.iter().filter(|secret| secret.state == removed) {
            let (keys, id) = (secret.keys, secret.secret_id.as_deref().unwrap_or_default());
            problems.push(format!(
                "{keys} active keys were made with the HMAC secret {id}, which the configuration no longer has: they are \
                 refused as unknown (put it back under secrets.hmac.retired, or issue them anew)"
            ));
        }
        for prefix in self.prefixes.iter().filter(|prefix| prefix.state == removed) {
            let (keys, text) = (prefix.keys, prefix.prefix.as_deref().unwrap_or_default());
            problems.push(format!(
                "{keys} active keys have the prefix {text}, which the configuration no longer has: they are refused as \
                 unknown (put it back under credentials.api_keys.prefix.retired, or issue them anew)"
            ));
        }
        problems
    }
}
