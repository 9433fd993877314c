//! The chain of MACs.
//!
//! The MAC of a line covers the line and the MAC of the line before. Without the key, no line can
//! be changed, removed, inserted or moved unnoticed.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::config::Audit;
use crate::credential::secrets::hmac_sha256;
use crate::secret::SecretString;

/// Text between a line's content and its MAC.
const MAC_MEMBER: &str = ",\"mac\":\"";

/// MAC of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 32]);

impl Mac {
    /// Predecessor of the first line.
    pub const NONE: Self = Self([0; 32]);

    /// Parses 64 lower-case hexadecimal digits. A MAC has only this one text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        // `hex` accepts upper case.
        (!text.bytes().any(|byte| byte.is_ascii_uppercase())).then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Key of a chain.
#[derive(Clone)]
pub struct ChainKey {
    lines: Hmac<Sha256>,
    heads: Hmac<Sha256>,
    name: String,
}

impl ChainKey {
    /// Derives the key from the bytes of `audit.key`.
    ///
    /// # Panics
    /// Never: HMAC takes a key of any length.
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    pub fn new(secret: &[u8]) -> Self {
        let keyed = |purpose: &[u8]| {
            Hmac::new_from_slice(&hmac_sha256(secret, purpose)).expect("HMAC takes a key of any length")
        };
        let name = hmac_sha256(secret, b"talos/audit/v1/key-name");
        Self {
            lines: keyed(b"talos/audit/v1/lines"),
            heads: keyed(b"talos/audit/v1/heads"),
            name: hex::encode(&name[..8]),
        }
    }

    /// Returns the key of logs without `audit.key`. It detects accidents only, since anybody has
    /// it.
    pub fn unkeyed() -> Self {
        Self { name: "none".to_owned(), ..Self::new(b"") }
    }

    /// Returns a fingerprint of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the MAC of a line that follows `previous`. `text` is the line up to its MAC.
    pub fn mac(&self, previous: &Mac, text: &[u8]) -> Mac {
        Mac(self.lines.clone().chain_update(previous.0).chain_update(text).finalize().into_bytes().into())
    }

    /// Returns the MAC over the number of lines and the last MAC, for the database. It can't be
    /// made from the file alone.
    pub fn seal(&self, chain: &str, lines: u64, mac: &Mac) -> Mac {
        let seal = self.heads.clone().chain_update(chain).chain_update([0]);
        Mac(seal.chain_update(lines.to_be_bytes()).chain_update(mac.0).finalize().into_bytes().into())
    }

    /// Adds the MAC to a line, given as a JSON object. Returns the line without its end, and the
    /// MAC.
    pub fn sign_line(&self, previous: &Mac, object: &str) -> (String, Mac) {
        let text = object.strip_suffix('}').unwrap_or(object);
        let mac = self.mac(previous, text.as_bytes());
        (format!("{text}{MAC_MEMBER}{mac}\"}}"), mac)
    }
}

/// Keys of a chain, current and former.
pub struct ChainKeys {
    /// Key for new lines.
    pub current: ChainKey,
    /// Keys of earlier lines.
    pub retired: Vec<ChainKey>,
}

impl ChainKeys {
    /// Returns the keys of a configuration that are valid at `now`.
    pub fn from_config(config: &Audit, now: Timestamp) -> Self {
        let key = |secret: &SecretString| ChainKey::new(secret.expose().as_bytes());
        let retired = config.key_retired.iter().filter(|retired| retired.is_live(now.as_secs()));
        Self {
            current: config.key.as_ref().map_or_else(ChainKey::unkeyed, key),
            retired: retired.map(|retired| key(&retired.value)).collect(),
        }
    }

    /// Returns all keys, the current one first.
    pub fn all(self) -> Vec<ChainKey> {
        std::iter::once(self.current).chain(self.retired).collect()
    }
}

impl Mac {
    /// Compares in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Splits a line into the text that its MAC covers and the MAC. Returns `None` if it has none.
pub(super) fn split_line(line: &str) -> Option<(&str, Mac)> {
    let rest = line.strip_suffix("\"}")?;
    let at = rest.len().checked_sub(64)?;
    let mac = Mac::parse(rest.get(at..)?)?;
    Some((rest[..at].strip_suffix(MAC_MEMBER)?, mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_opens_to_what_it_was_closed_with() {
        let key = ChainKey::new(b"a key");
        let (line, mac) = key.sign_line(&Mac::NONE, r#"{"seq":1,"a":"b"}"#);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
        let (text, read) = split_line(&line).unwrap();
        assert_eq!((text, read), (r#"{"seq":1,"a":"b""#, mac));
        assert!(key.mac(&Mac::NONE, text.as_bytes()).matches(&mac));
        assert!(!key.mac(&mac, text.as_bytes()).matches(&mac), "after another line");
        assert!(!ChainKey::new(b"another").mac(&Mac::NONE, text.as_bytes()).matches(&mac));
        assert!(!ChainKey::unkeyed().mac(&Mac::NONE, text.as_bytes()).matches(&mac));
        assert_ne!(key.name(), ChainKey::new(b"another").name());
        assert!(!key.seal("c", 1, &mac).matches(&key.seal("c", 2, &mac)));
        assert!(!key.seal("c", 1, &mac).matches(&key.seal("d", 1, &mac)));
    }

    proptest! {
        #[test]
        fn opening_never_panics(line in any::<String>()) {
            let _ = split_line(&line);
        }

        #[test]
        fn no_other_text_has_the_mac(object in "\\PC{0,40}", other in "\\PC{0,40}") {
            prop_assume!(object != other);
            let key = ChainKey::new(b"k");
            prop_assert!(!key.mac(&Mac::NONE, object.as_bytes()).matches(&key.mac(&Mac::NONE, other.as_bytes())));
        }
    }
}
