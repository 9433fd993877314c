//! Page tokens: encrypted positions in a listing. Nobody else can read, change or make one.
//!
//! NaCl secretbox (XSalsa20-Poly1305) over the cursor and its listing. Encoded as base64url,
//! without padding, of a 24-byte nonce and the box.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{Key as BoxKey, KeyInit, Nonce, XSalsa20Poly1305};
use serde::{Deserialize, Serialize};

use super::secrets::{HmacSecret, HmacSecrets};
use crate::clock::Timestamp;
use crate::key::NetworkId;
use crate::rng::Rng;

const NONCE_LEN: usize = 24;
/// Maximum length of a page token, in characters.
const MAX_LEN: usize = 4096;

/// Last row of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Creation time of the key.
    pub created: Timestamp,
    /// Id of the key, as text.
    pub key_id: String,
}

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    n: String,
    #[serde(borrow)]
    l: std::borrow::Cow<'a, str>,
    c: i64,
    k: String,
}

/// Encrypts a cursor for `network` and `listing`, which names the list and its filter.
#[expect(clippy::expect_used, reason = "texts and a number always serialise, and fit the cipher")]
pub fn seal(secrets: &HmacSecrets, rng: &Rng, network: NetworkId, listing: &str, cursor: &Cursor) -> String {
    let content = Sealed {
        n: network.to_string(),
        l: listing.into(),
        c: cursor.created.as_micros(),
        k: cursor.key_id.clone(),
    };
    let content = serde_json::to_vec(&content).expect("strings and a number serialise");
    let nonce: [u8; NONCE_LEN] = rng.bytes();
    let sealed = cipher(secrets.current())
        .encrypt(&Nonce::from(nonce), content.as_slice())
        .expect("a cursor is far below the cipher's limit");
    let mut token = nonce.to_vec();
    token.extend(sealed);
    BASE64URL.encode(token)
}

/// Decrypts a token. Returns `None` if it is forged, or of another network or listing.
pub fn open(
    secrets: &HmacSecrets,
    now: Timestamp,
    network: NetworkId,
    listing: &str,
    token: &str,
) -> Option<Cursor> {
    let token = (token.len() <= MAX_LEN).then(|| BASE64URL.decode(token).ok())??;
    let (nonce, sealed) = token.split_first_chunk::<NONCE_LEN>()?;
    let content = secrets
        .verifying(now)
        .find_map(|secret| cipher(secret).decrypt(&Nonce::from(*nonce), sealed).ok())?;
    let content: Sealed<'_> = serde_json::from_slice(&content).ok()?;
    let ours = content.n == network.to_string() && content.l == listing;
    ours.then(|| Cursor { created: Timestamp::from_micros(content.c), key_id: content.k })
}

fn cipher(secret: &HmacSecret) -> XSalsa20Poly1305 {
    XSalsa20Poly1305::new(&BoxKey::from(*secret.page_key()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    fn secrets(secret: &[u8], retired: Option<&[u8]>) -> HmacSecrets {
        let retired = retired.map(|secret| HmacSecret::new(secret, None));
        HmacSecrets::new(HmacSecret::new(secret, None), retired.into_iter().collect())
    }

    #[test]
    fn opens_only_where_it_belongs() {
        let now = Timestamp::from_secs(0);
        let here = NetworkId::SINGLE;
        let there = NetworkId::new(uuid::Uuid::from_u128(1));
        let cursor = Cursor { created: Timestamp::from_secs(5), key_id: "k".into() };
        let token = seal(&secrets(b"a", None), &Rng::system(), here, "issued", &cursor);
        let open_with = |secrets, network, listing| open(&secrets, now, network, listing, &token);
        assert_eq!(open_with(secrets(b"a", None), here, "issued"), Some(cursor.clone()));
        assert_eq!(open_with(secrets(b"b", Some(b"a")), here, "issued"), Some(cursor));
        assert_eq!(open_with(secrets(b"b", None), here, "issued"), None);
        assert_eq!(open_with(secrets(b"a", None), there, "issued"), None);
        assert_eq!(open_with(secrets(b"a", None), here, "imported"), None);
    }

    proptest! {
        #[test]
        fn no_other_text_opens(text in any::<String>(), flip: prop::sample::Index) {
            let now = Timestamp::from_secs(0);
            let all = secrets(b"a", None);
            prop_assert_eq!(open(&all, now, NetworkId::SINGLE, "l", &text), None);
            let cursor = Cursor { created: now, key_id: "k".into() };
            let mut token = seal(&all, &Rng::seeded(1), NetworkId::SINGLE, "l", &cursor).into_bytes();
            let at = flip.index(token.len() - 1);
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            let token = String::from_utf8(token).unwrap();
            prop_assert_eq!(open(&all, now, NetworkId::SINGLE, "l", &token), None);
        }
    }
}
