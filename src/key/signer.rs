//! Signer of an issued key: the HMAC secret and the prefix that its credential was made with.

use std::fmt;

/// Id of an HMAC secret: a one-way fingerprint, by which rows and lists name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretId([u8; 8]);

impl SecretId {
    /// Creates the id from a fingerprint.
    pub const fn new(fingerprint: [u8; 8]) -> Self {
        Self(fingerprint)
    }

    /// Parses the 16 hexadecimal digits of an id.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fingerprint = [0; 8];
        let is_lower = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        (is_lower && hex::decode_to_slice(text, &mut fingerprint).is_ok()).then_some(Self(fingerprint))
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SecretId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SecretId({self})")
    }
}

/// Prefix of an issued key: 1 to 16 letters, digits and underscores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix {
    bytes: [u8; Self::MAX_LEN],
    length: u8,
}

impl KeyPrefix {
    /// Maximum length, in bytes.
    const MAX_LEN: usize = 16;

    /// Parses a prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut bytes = [0; Self::MAX_LEN];
        if text.is_empty() || !text.bytes().all(is_allowed) {
            return None;
        }
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        // Only ASCII was accepted.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

/// Secret and prefix that an issued key's credential was made with, as far as its row knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signer {
    /// Id of the HMAC secret. `None` for imported keys, and for keys of earlier releases until
    /// their credential is verified against the database.
    pub secret: Option<SecretId>,
    /// Prefix; `None` likewise.
    pub prefix: Option<KeyPrefix>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_prefixes_are_read_back() {
        let id = SecretId::new([0, 1, 2, 3, 4, 5, 6, 0xff]);
        assert_eq!(SecretId::parse(&id.to_string()), Some(id));
        for bad in ["", "00010203040506", "00010203040506FF", "00010203040506ff00", "zz010203040506ff"] {
            assert_eq!(SecretId::parse(bad), None, "{bad}");
        }
        for good in ["a", "ory_ak", "sixteen_chars_xx"] {
            assert_eq!(KeyPrefix::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "seventeen_chars_x", "a-b", "ü"] {
            assert_eq!(KeyPrefix::parse(bad), None, "{bad}");
        }
    }
}
