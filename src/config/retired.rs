//! Retired values: former secrets, prefixes and issuers that still verify.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A former value that still verifies. Written as a plain text, or as `{value, expires_at}` with an
/// RFC 3339 time or Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired<T> {
    /// The former value.
    pub value: T,
    /// Unix seconds from which on it no longer verifies; None means never.
    pub expires_at: Option<i64>,
}

impl<T> Retired<T> {
    /// A value that verifies without end.
    pub fn new(value: T) -> Self {
        Self { value, expires_at: None }
    }

    /// Returns true if it still verifies at `now` (Unix seconds).
    pub fn is_live(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Retired<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RetiredVisitor(PhantomData))
    }
}

/// Writes the form of the file. Secrets are written by `serde_forms::RetiredSecrets`.
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
        /// The form with an expiry.
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

/// Unix seconds, read from an RFC 3339 time or a number.
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

    /// Reads digits as Unix seconds, as environment variables have no other way to write a number.
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Instant, E> {
        if let Ok(seconds) = text.parse() {
            return Ok(Instant(seconds));
        }
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|time| Instant(time.unix_timestamp()))
            .map_err(|_| E::custom("must be an RFC 3339 time such as 2026-01-31T00:00:00Z, or unix seconds"))
    }
}
