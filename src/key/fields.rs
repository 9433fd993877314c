//! Text attributes of a key, validated where they come in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::FieldError;
use super::strict::{self, Numbers};

/// Maximum duration of any field.
pub const TEN_YEARS: Duration = Duration::from_secs(315_360_000);

/// Maximum length of a name or actor id, in characters.
pub const MAX_LABEL: usize = 255;

/// Id of an actor: 1 to 255 characters without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActorId(Arc<str>);

/// Name of a key: 1 to 255 characters without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(Arc<str>);

fn label(text: &str) -> Result<Arc<str>, FieldError> {
    let within = (1..=MAX_LABEL).contains(&text.chars().take(MAX_LABEL + 1).count());
    if within && !text.chars().any(char::is_control) {
        Ok(text.into())
    } else {
        Err(FieldError::new("must be 1 to 255 characters without control characters"))
    }
}

impl ActorId {
    /// Parses the actor id of a new key.
    ///
    /// White space at the ends is refused. Headers and forms lose it, so two actors could be
    /// mistaken for one.
    ///
    /// # Errors
    /// Fails if it is empty, too long, or has a control character or white space at an end.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        match text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
            true => Err(FieldError::new("must not begin or end with white space")),
            false => Self::from_stored(text),
        }
    }

    /// Parses the actor id of an existing key or token. Earlier releases accepted white space at
    /// the ends.
    ///
    /// # Errors
    /// Fails if it is empty, too long or has a control character.
    pub fn from_stored(text: &str) -> Result<Self, FieldError> {
        label(text).map(Self)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyName {
    /// Parses the name of a key.
    ///
    /// # Errors
    /// Fails if it is empty, too long or has a control character.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        label(text).map(Self)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The owner's own attributes of a key: a JSON object of at most 4 KiB.
#[derive(Clone)]
pub struct Metadata(Arc<RawValue>);

impl Metadata {
    /// Maximum length of the serialised object, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// Parses the metadata of a new key.
    ///
    /// # Errors
    /// Fails if it isn't an object, is too large or too deeply nested, or parsers could read it
    /// differently.
    pub fn parse(json: &RawValue) -> Result<Self, FieldError> {
        Self::new(strict::object(json, Numbers::Doubles)?)
    }

    /// Accepts the metadata of an existing key or token. Earlier releases accepted numbers of any
    /// size.
    ///
    /// # Errors
    /// Fails if it is too large or too deeply nested.
    pub fn new(object: Map<String, Value>) -> Result<Self, FieldError> {
        let object = Value::Object(object);
        if depth(&object) > strict::MAX_DEPTH {
            return Err(FieldError::new("must not be nested more than 16 levels deep"));
        }
        let json = object.to_string();
        if json.len() > Self::MAX_LEN {
            return Err(FieldError::new("must be 4096 bytes of JSON at most"));
        }
        Self::from_json(json).ok_or(FieldError::new("must be a JSON object"))
    }

    /// Restores metadata from the output of [`Metadata::json`] in a row.
    pub fn from_json(json: String) -> Option<Self> {
        let is_object = json.starts_with('{');
        let raw = RawValue::from_string(json).ok()?;
        is_object.then(|| Self(raw.into()))
    }

    /// Returns the serialised object.
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// Returns the object for serialisation within another.
    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// Returns the object.
    pub fn object(&self) -> Map<String, Value> {
        // Checked to be an object when it was created.
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Metadata").field(&self.json()).finish()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_out_what_breaks_a_header() {
        for good in ["a", "schlüssel 鍵", &"ü".repeat(255)] {
            assert!(ActorId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a\r\nb", "\u{7f}", "\u{85}", &"x".repeat(256)] {
            assert!(KeyName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn actors_have_no_white_space_at_their_ends() {
        for bad in [" ", " a", "a ", "\u{a0}a", "a\u{3000}", "\u{2003}", " a b "] {
            let problem = ActorId::parse(bad).unwrap_err().to_string();
            assert_eq!(problem, "must not begin or end with white space", "{bad:?}");
            // An actor id stored by an earlier release stays valid.
            assert_eq!(ActorId::from_stored(bad).unwrap().as_str(), bad);
        }
        assert!(ActorId::parse("a b").is_ok());
        assert!(ActorId::from_stored("").is_err() && ActorId::from_stored("a\nb").is_err());
    }

    #[test]
    fn metadata_has_bounds() {
        let object = |json: &str| serde_json::from_str::<Map<String, Value>>(json).unwrap();
        assert_eq!(
            Metadata::new(object(r#"{"b":1,"a":[true,null]}"#)).unwrap().json(),
            r#"{"b":1,"a":[true,null]}"#
        );
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(4089));
        assert!(Metadata::new(object(&large)).is_err());
        let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(4088));
        assert!(Metadata::new(object(&fits)).is_ok());
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(16), "]".repeat(16));
        assert!(Metadata::new(object(&deep)).is_err());
    }
}
