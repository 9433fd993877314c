//! Imported keys. Talos knows only a hash of them.

use sha2::{Digest, Sha512_256};

use crate::key::{KeyId, NetworkId};

/// Returns SHA-512/256 over `<network id text> 0x00 <raw key>`.
pub fn key_id(network: NetworkId, raw_key: &str) -> KeyId {
    let hash = Sha512_256::new()
        .chain_update(network.to_string())
        .chain_update([0])
        .chain_update(raw_key)
        .finalize();
    KeyId::Imported(hash.into())
}

/// Returns why no request could carry a raw key, `None` if one can.
///
/// Header values have no control characters, and every hop trims white space. Such a key would
/// verify here, but be unknown in every request.
pub fn unpresentable(raw_key: &str) -> Option<&'static str> {
    if raw_key.ends_with(['\n', '\r']) {
        return Some("ends with a line ending, which no request can carry; leave it out");
    }
    if raw_key.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Some("has a control character, which no request can carry");
    }
    if raw_key.starts_with([' ', '\t']) || raw_key.ends_with([' ', '\t']) {
        return Some("begins or ends with white space, which no request can carry; leave it out");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_no_header_can_carry_is_refused_with_the_reason() {
        for (raw_key, reason) in [
            ("key\n", "line ending"),
            ("key\r\n", "line ending"),
            ("key\r", "line ending"),
            ("\nkey", "control character"),
            ("k\0ey", "control character"),
            ("k\u{1b}ey", "control character"),
            ("key\u{7f}", "control character"),
            (" key", "white space"),
            ("key ", "white space"),
            ("\tkey", "white space"),
            ("key\t", "white space"),
            (" ", "white space"),
        ] {
            assert!(unpresentable(raw_key).is_some_and(|why| why.contains(reason)), "{raw_key:?}");
        }
        for good in ["key", "a key", "a\tkey", "k\"e,y;=%", "schlüssel", "\u{a0}key\u{3000}"] {
            assert_eq!(unpresentable(good), None, "{good:?}");
        }
    }
}
