//! Checks and readers for the small texts that settings are made of.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::Deserializer;

use crate::secret::SecretString;

/// A text that may be unset; the empty text counts as unset, as charts and templates write it.
pub(super) fn optional<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(d)?.filter(|text| !text.is_empty()))
}

/// As [`optional`], for a secret.
pub(super) fn optional_secret<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<SecretString>::deserialize(d)?.filter(|secret| !secret.is_empty()))
}

/// As [`optional`], for a path.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(optional(d)?.map(PathBuf::from))
}

/// RFC 9110 token: the letters of header names, methods and authentication schemes.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
