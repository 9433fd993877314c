//! `secrets.*` and `credentials.*`: secrets and forms of keys and tokens.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::retired::Retired;
use super::serde_forms;
use crate::secret::SecretString;

/// `secrets`: secrets of the server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// `secrets.hmac`.
    pub hmac: HmacSecrets,
}

/// `secrets.hmac`: HMAC secrets of checksums, macaroons and page tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HmacSecrets {
    /// Secret that signs and verifies; at least 32 characters. An empty text counts as unset. No
    /// default.
    #[serde(with = "serde_forms::OptionalSecret")]
    pub current: Option<SecretString>,
    /// Secrets that only verify, in this order after `current`; at least 32 characters each.
    /// Default: none.
    #[serde(with = "serde_forms::RetiredSecrets")]
    pub retired: Vec<Retired<SecretString>>,
}

/// `credentials`: forms of keys and tokens.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// `iss` of minted tokens. Unset: the admin listener's URL.
    pub issuer: Option<String>,
    /// Former values of `issuer` that presented tokens may still have. Default: none.
    pub issuer_retired: Vec<Retired<String>>,
    /// Tolerated difference of clocks for timestamps and `nbf`; 0 is allowed. Default 5m.
    #[serde(with = "serde_forms::Duration")]
    pub clock_skew: Duration,
    /// `credentials.api_keys`.
    pub api_keys: ApiKeys,
    /// `credentials.derived_tokens`.
    pub derived_tokens: DerivedTokens,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            issuer: None,
            issuer_retired: Vec::new(),
            clock_skew: Duration::from_secs(300),
            api_keys: ApiKeys::default(),
            derived_tokens: DerivedTokens::default(),
        }
    }
}

/// `credentials.api_keys`: issued and imported keys.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKeys {
    /// Lifetime of a key without a requested `ttl`, at least 1s. Unset: such a key has no expiry of
    /// its own.
    #[serde(with = "serde_forms::OptionalDuration")]
    pub default_ttl: Option<Duration>,
    /// Longest lifetime of a key, and the age beyond which an issued key is refused without a
    /// lookup. At least 1s. Default 8760h.
    #[serde(with = "serde_forms::Duration")]
    pub max_ttl: Duration,
    /// `credentials.api_keys.prefix`.
    pub prefix: ApiKeyPrefixes,
}

impl Default for ApiKeys {
    fn default() -> Self {
        Self {
            default_ttl: None,
            max_ttl: Duration::from_secs(8_760 * 3_600),
            prefix: ApiKeyPrefixes::default(),
        }
    }
}

/// `credentials.api_keys.prefix`: each matches `[A-Za-z0-9_]{1,16}`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKeyPrefixes {
    /// Prefix of new secret keys. Default `ory_ak`.
    pub current: String,
    /// Former prefixes of secret keys, which still verify. Default: none.
    pub retired: Vec<Retired<String>>,
    /// Prefix of new public keys; unset (or empty) means that none can be issued.
    #[serde(with = "serde_forms::OptionalText")]
    pub public_current: Option<String>,
    /// Former prefixes of public keys, which still verify. Default: none.
    pub public_retired: Vec<Retired<String>>,
}

impl Default for ApiKeyPrefixes {
    fn default() -> Self {
        Self {
            current: "ory_ak".to_owned(),
            retired: Vec::new(),
            public_current: None,
            public_retired: Vec::new(),
        }
    }
}

/// `credentials.derived_tokens`: JWTs and macaroons.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DerivedTokens {
    /// Lifetime of a token without a requested `ttl`. At least 1s. Default 1h.
    #[serde(with = "serde_forms::Duration")]
    pub default_ttl: Duration,
    /// Longest lifetime of a derived token. At least 1s. Default 24h. A value other
    /// than the default, or one that a reload has lowered, is also the maximum age of tokens issued
    /// before: older ones are refused, whatever their `exp`.
    #[serde(with = "serde_forms::Duration")]
    pub max_ttl: Duration,
    /// `credentials.derived_tokens.jwt`.
    pub jwt: Jwt,
    /// `credentials.derived_tokens.macaroon`.
    pub macaroon: Macaroon,
}

impl Default for DerivedTokens {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(3_600),
            max_ttl: Duration::from_secs(24 * 3_600),
            jwt: Jwt::default(),
            macaroon: Macaroon::default(),
        }
    }
}

/// `credentials.derived_tokens.jwt`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// `credentials.derived_tokens.jwt.signing_keys`.
    pub signing_keys: SigningKeys,
    /// `kid` of the signing key. Unset (or empty): the first key with `use: sig`, else the first
    /// key.
    #[serde(with = "serde_forms::OptionalText")]
    pub signing_key_id: Option<String>,
}

/// `credentials.derived_tokens.jwt.signing_keys`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SigningKeys {
    /// Key sets (JWKS): `base64://…` (secret, as it holds private keys), `file://…` or `https://…`.
    /// Default: none.
    #[serde(with = "serde_forms::KeySets")]
    pub urls: Vec<SecretString>,
}

/// `credentials.derived_tokens.macaroon`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Macaroon {
    /// `credentials.derived_tokens.macaroon.prefix`.
    pub prefix: MacaroonPrefixes,
}

/// `credentials.derived_tokens.macaroon.prefix`: each matches `[A-Za-z0-9_]{1,16}`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MacaroonPrefixes {
    /// Prefix of new macaroons. Default `mc`.
    pub current: String,
    /// Former prefixes of macaroons, which still verify. Default: none.
    pub retired: Vec<Retired<String>>,
}

impl Default for MacaroonPrefixes {
    fn default() -> Self {
        Self { current: "mc".to_owned(), retired: Vec::new() }
    }
}
