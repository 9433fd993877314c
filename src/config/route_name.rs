//! Names of routes, under which their requests are counted.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bytes of a name.
const MAX_LEN: usize = 32;

/// Name of a route: 1 to 32 lower-case letters, digits, `_`, `-` and `.`. By default it is empty,
/// which stands for no name.
///
/// The text is within the value, so that a copy is no allocation and counts no references.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteName([u8; MAX_LEN]);

impl RouteName {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(MAX_LEN);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }

    /// Returns the first eight bytes, for hashing.
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 32 lower-case letters, digits, _, - and .")]
pub struct RouteNameError;

impl FromStr for RouteName {
    type Err = RouteNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
        let mut name = [0; MAX_LEN];
        match name.get_mut(..text.len()) {
            Some(start) if !text.is_empty() && text.bytes().all(is_allowed) => {
                start.copy_from_slice(text.as_bytes());
                Ok(Self(name))
            }
            _ => Err(RouteNameError),
        }
    }
}

impl fmt::Debug for RouteName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}

impl Serialize for RouteName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RouteName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RouteName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouteName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Name of a route: 1 to 32 lower-case letters, digits, `_`, `-` and `.`.",
            "type": "string",
            "pattern": "^[a-z0-9_.-]{1,32}$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        let longest = "a".repeat(MAX_LEN);
        for name in ["orders", "orders.read-1_x", &longest] {
            assert_eq!(name.parse::<RouteName>().unwrap().as_str(), name);
        }
        for bad in ["", "Orders", "a b", "ä", "a\0", &"a".repeat(MAX_LEN + 1)] {
            assert!(bad.parse::<RouteName>().is_err(), "{bad:?}");
        }
        assert_eq!(RouteName::default().as_str(), "");
    }
}
