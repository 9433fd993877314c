//! `secrets.*` and `credentials.*`: what proves a key and what signs a token.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::forms;
use crate::secret::SecretString;

/// `secrets`: what nobody may read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// `secrets.hmac`.
    pub hmac: HmacSecrets,
}

/// `secrets.hmac`: the raw texts that key every checksum, macaroon and page token.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HmacSecrets {
    /// Signs and verifies; at least 32 characters. The empty text counts as unset. No default.
    #[serde(with = "forms::OptionalSecret")]
    pub current: Option<SecretString>,
    /// Only verify, in this order after `current`; at least 32 characters each. Default: none.
    #[serde(with = "forms::RetiredSecrets")]
    pub retired: Vec<Retired<SecretString>>,
}

/// `credentials`: the forms of keys and tokens.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// `iss` of minted tokens. Unset: the admin listener's URL.
    pub issuer: Option<String>,
    /// Issuers that presented tokens may still carry. Default: none.
    pub issuer_retired: Vec<Retired<String>>,
    /// How far clocks may differ when timestamps and `nbf` are judged. Default 5m; 0 is allowed.
    #[serde(with = "forms::Duration")]
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
    /// Life of a key for which no `ttl` was asked, at least 1s. Unset: such a key has no expiry of its own.
    #[serde(with = "forms::OptionalDuration")]
    pub default_ttl: Option<Duration>,
    /// Longest life, and the age beyond which an issued key is refused unseen. At least 1s. Default 8760h.
    #[serde(with = "forms::Duration")]
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
    /// Of newly issued secret keys. Default `ory_ak`.
    pub current: String,
    /// Of secret keys that still verify. Default: none.
    pub retired: Vec<Retired<String>>,
    /// Of newly issued public keys; unset (or empty) means that none can be issued.
    #[serde(with = "forms::OptionalText")]
    pub public_current: Option<String>,
    /// Of public keys that still verify. Default: none.
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
    /// Life of a token for which no `ttl` was asked. At least 1s. Default 1h.
    #[serde(with = "forms::Duration")]
    pub default_ttl: Duration,
    /// Longest life of a derived token. At least 1s. Default 24h. Any other value, and one that is
    /// lowered in a reload, also ends tokens that are older, whatever their `exp`.
    #[serde(with = "forms::Duration")]
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
    /// `kid` of the key that signs. Unset (or empty): the first with `use: sig`, else the first.
    #[serde(with = "forms::OptionalText")]
    pub signing_key_id: Option<String>,
}

/// `credentials.derived_tokens.jwt.signing_keys`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SigningKeys {
    /// JWKS resources, `base64://…` (holding private keys, hence secret), `file://…` or `https://…`. Default: none.
    #[serde(with = "forms::KeySets")]
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
    /// Of newly derived macaroons. Default `mc`.
    pub current: String,
    /// Of macaroons that still verify. Default: none.
    pub retired: Vec<Retired<String>>,
}

impl Default for MacaroonPrefixes {
    fn default() -> Self {
        Self { current: "mc".to_owned(), retired: Vec::new() }
    }
}

/// A former value that still verifies. Written as the plain text, or as `{value, expires_at}` where `expires_at` is
/// RFC 3339 text or unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired<T> {
    /// The former value.
    pub value: T,
    /// Unix seconds from which on it no longer verifies; unset means never.
    pub expires_at: Option<i64>,
}

impl<T> Retired<T> {
    /// A value that verifies without end.
    pub fn new(value: T) -> Self {
        Self { value, expires_at: None }
    }

    /// Whether it still verifies at `now` (unix seconds).
    pub fn is_live(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Retired<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RetiredVisitor(PhantomData))
    }
}

/// As it is written. A secret has no such form: see `forms::RetiredSecrets`.
impl Serialize for Retired<String> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(expires_at) = self.expires_at else {
            return serializer.serialize_str(&self.value);
        };
        let time = OffsetDateTime::from_unix_timestamp(expires_at).ok();
        let time = time.and_then(|time| time.format(&Rfc3339).ok());
        let mut entry = serializer.serialize_map(Some(2))?;
        entry.serialize_entry("value", &self.value)?;
        match time {
            Some(time) => entry.serialize_entry("expires_at", &time)?,
            None => entry.serialize_entry("expires_at", &expires_at)?,
        }
        entry.end()
    }
}

impl JsonSchema for Retired<String> {
    fn schema_name() -> Cow<'static, str> {
        "Retired".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A former value that still verifies, until `expires_at` if that is given.",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "value": { "type": "string", "description": "The former value." },
                        "expires_at": {
                            "description": "RFC 3339 time or unix seconds, from when on it no longer verifies.",
                            "type": ["string", "integer", "null"]
                        }
                    },
                    "required": ["value"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

struct RetiredVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for RetiredVisitor<T> {
    type Value = Retired<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or {value, expires_at}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(Retired::new)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        /// The long form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Entry<T> {
            value: T,
            #[serde(default)]
            expires_at: Option<Instant>,
        }
        let entry = Entry::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Retired { value: entry.value, expires_at: entry.expires_at.map(|instant| instant.0) })
    }
}

/// Unix seconds, read from RFC 3339 text or a number.
struct Instant(i64);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InstantVisitor)
    }
}

struct InstantVisitor;

impl Visitor<'_> for InstantVisitor {
    type Value = Instant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an RFC 3339 time such as 2026-01-31T00:00:00Z, or unix seconds")
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Instant, E> {
        Ok(Instant(seconds))
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Instant, E> {
        i64::try_from(seconds).map(Instant).map_err(|_| E::custom("unix seconds out of range"))
    }

    /// Digits alone are unix seconds: a variable of the environment has no other way to give a number.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Instant, E> {
        if let Ok(seconds) = text.parse() {
            return Ok(Instant(seconds));
        }
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|time| Instant(time.unix_timestamp()))
            .map_err(|_| E::custom("must be an RFC 3339 time such as 2026-01-31T00:00:00Z, or unix seconds"))
    }
}
