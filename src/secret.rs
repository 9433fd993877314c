//! Secret text: wiped when dropped, without `Display` or `Serialize`, hidden in `Debug`.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use zeroize::Zeroize;

/// Secret text. Only [`expose`](Self::expose) gives its content, so that every use can be searched
/// for.
#[derive(Clone, Default)]
pub struct SecretString(String);

impl SecretString {
    /// Takes ownership of `text`, whose memory is wiped on drop.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the content, which must not be printed, logged or stored.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns true for the empty text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for SecretString {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretString(…)")
    }
}

/// Compares in constant time for texts of one length; the length itself is not hidden.
impl PartialEq for SecretString {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |seen, (x, y)| seen | (x ^ y)) == 0
    }
}

impl Eq for SecretString {}

impl From<String> for SecretString {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for SecretString {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // With `deserialize_string`, a format may report a mismatch itself, and quote the secret.
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// Rejects every other scalar itself, as serde's own messages for a wrong type quote the value.
impl Visitor<'_> for SecretVisitor {
    type Value = SecretString;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretString, E> {
        Ok(SecretString::new(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<SecretString, E> {
        Ok(SecretString(text))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretString, E> {
        Err(not_a_string())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretString, E> {
        Err(not_a_string())
    }

    fn visit_i128<E: de::Error>(self, _: i128) -> Result<SecretString, E> {
        Err(not_a_string())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretString, E> {
        Err(not_a_string())
    }

    fn visit_u128<E: de::Error>(self, _: u128) -> Result<SecretString, E> {
        Err(not_a_string())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretString, E> {
        Err(not_a_string())
    }

    fn visit_char<E: de::Error>(self, c: char) -> Result<SecretString, E> {
        Ok(SecretString(c.to_string()))
    }

    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<SecretString, E> {
        Err(not_a_string())
    }
}

fn not_a_string<E: de::Error>() -> E {
    E::custom("must be a text; put it in quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_content() {
        let secret = SecretString::new("correct horse");
        assert_eq!(format!("{secret:?}"), "SecretString(…)");
        assert_eq!(format!("{:#?}", Some(&secret)), "Some(\n    SecretString(…),\n)");
    }

    #[test]
    fn compares_by_content() {
        assert_eq!(SecretString::new("a"), SecretString::from("a"));
        assert_ne!(SecretString::new("a"), SecretString::new("b"));
        assert_ne!(SecretString::new("a"), SecretString::new("aa"));
    }

    #[test]
    fn wrong_types_are_refused_without_their_content() {
        for json in ["123456", "-123456", "123456.5", "true", "[123456]", "{\"123456\":1}", "null"] {
            let error = serde_json::from_str::<SecretString>(json).unwrap_err().to_string();
            assert!(!error.contains("123456"), "{json}: {error}");
        }
        let secret: SecretString = serde_json::from_str("\"123456\"").unwrap();
        assert_eq!(secret.expose(), "123456");
    }
}
