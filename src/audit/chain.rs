//! The chain: each line's MAC covers the line and the MAC of the line before, so that none can be changed, taken out,
//! put in or moved by whoever doesn't have the key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::config::Audit;
use crate::credential::secrets::hmac_sha256;
use crate::secret::SecretString;

/// What stands between a line's text and its MAC.
const MEMBER: &str = ",\"mac\":\"";

/// The MAC of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 32]);

impl Mac {
    /// What the first line of a chain follows.
    pub const NONE: Self = Self([0; 32]);

    /// From 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

/// Lower case alone: a line has one text.
fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What keys a chain.
#[derive(Clone)]
pub struct ChainKey {
    lines: Hmac<Sha256>,
    heads: Hmac<Sha256>,
    name: String,
}

impl ChainKey {
    /// Prepares the raw bytes of `audit.key`.
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
            name: name[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// A chain that shows accidents and no more: anybody can make one.
    pub fn none() -> Self {
        Self { name: "none".to_owned(), ..Self::new(b"") }
    }

    /// Tells one key from another and nothing else of it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The MAC of a line: of its text up to its MAC, after the line whose MAC is `previous`.
    pub fn mac(&self, previous: &Mac, text: &[u8]) -> Mac {
        Mac(self.lines.clone().chain_update(previous.0).chain_update(text).finalize().into_bytes().into())
    }

    /// What proves that a chain had so many lines, the last with this MAC: who reads the MAC off the file can't make it.
    pub fn seal(&self, chain: &str, lines: u64, mac: &Mac) -> Mac {
        let seal = self.heads.clone().chain_update(chain).chain_update([0]);
        Mac(seal.chain_update(lines.to_be_bytes()).chain_update(mac.0).finalize().into_bytes().into())
    }

    /// A line, without its end: an object's text and its MAC in it.
    pub fn close(&self, previous: &Mac, object: &str) -> (String, Mac) {
        let text = object.strip_suffix('}').unwrap_or(object);
        let mac = self.mac(previous, text.as_bytes());
        (format!("{text}{MEMBER}{mac}\"}}"), mac)
    }
}

/// The keys that a chain is or was written under.
pub struct ChainKeys {
    /// Keys it from now on.
    pub current: ChainKey,
    /// Keyed it before.
    pub retired: Vec<ChainKey>,
}

impl ChainKeys {
    /// Those of a configuration that count at `now`.
    pub fn of(config: &Audit, now: Timestamp) -> Self {
        let key = |secret: &SecretString| ChainKey::new(secret.expose().as_bytes());
        let retired = config.key_retired.iter().filter(|retired| retired.is_live(now.as_secs()));
        Self {
            current: config.key.as_ref().map_or_else(ChainKey::none, key),
            retired: retired.map(|retired| key(&retired.value)).collect(),
        }
    }

    /// All of them, the current one first.
    pub fn all(self) -> Vec<ChainKey> {
        std::iter::once(self.current).chain(self.retired).collect()
    }
}

impl Mac {
    /// Compares without telling where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Takes a line apart: the text that its MAC covers, and the MAC. None when it has none.
pub fn open(line: &str) -> Option<(&str, Mac)> {
    let rest = line.strip_suffix("\"}")?;
    let at = rest.len().checked_sub(64)?;
    let mac = Mac::parse(rest.get(at..)?)?;
    Some((rest[..at].strip_suffix(MEMBER)?, mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_opens_to_what_it_was_closed_with() {
        let key = ChainKey::new(b"a key");
        let (line, mac) = key.close(&Mac::NONE, r#"{"seq":1,"a":"b"}"#);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
        let (text, read) = open(&line).unwrap();
        assert_eq!((text, read), (r#"{"seq":1,"a":"b""#, mac));
        assert!(key.mac(&Mac::NONE, text.as_bytes()).is(&mac));
        assert!(!key.mac(&mac, text.as_bytes()).is(&mac), "after another line");
        assert!(!ChainKey::new(b"another").mac(&Mac::NONE, text.as_bytes()).is(&mac));
        assert!(!ChainKey::none().mac(&Mac::NONE, text.as_bytes()).is(&mac));
        assert_ne!(key.name(), ChainKey::new(b"another").name());
        assert!(!key.seal("c", 1, &mac).is(&key.seal("c", 2, &mac)));
        assert!(!key.seal("c", 1, &mac).is(&key.seal("d", 1, &mac)));
    }

    proptest! {
        #[test]
        fn opening_never_panics(line in any::<String>()) {
            let _ = open(&line);
        }

        #[test]
        fn no_other_text_has_the_mac(object in "\\PC{0,40}", other in "\\PC{0,40}") {
            prop_assume!(object != other);
            let key = ChainKey::new(b"k");
            prop_assert!(!key.mac(&Mac::NONE, object.as_bytes()).is(&key.mac(&Mac::NONE, other.as_bytes())));
        }
    }
}
