//! What upstream is told about a caller, and how much room that takes.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Map;

use super::mint::{Minted, Terms, mint, minted_len};
use super::{MintError, Service};
use crate::cache::memory::Entry;
use crate::clock::Timestamp;
use crate::credential::TokenFormat;
use crate::credential::claims::{Authority, Subject};
use crate::error::ApiError;
use crate::key::{Key, NetworkId, Scopes};
use crate::rng::Rng;
use crate::settings::Settings;

/// The headers that upstream believes. Whatever a client sends under these names is taken away.
pub const IDENTITY_HEADERS: [&str; 4] =
    ["x-talos-key-id", "x-talos-actor-id", "x-talos-scopes", "x-talos-network-id"];

/// What all header names of ours begin with.
pub const HEADER_PREFIX: &str = "x-talos-";

/// Most bytes that our headers may take together.
pub const MAX_HEADERS_LEN: usize = 8 * 1024;

/// Writes an identity as it may stand in a header, percent-encoded wherever it has to be: different
/// identities are different texts, and decoding gives each back.
///
/// Encoded are what is no ASCII, control characters, white space at the ends, which servers take
/// away, and `%` itself.
pub fn header_text(value: &str) -> Cow<'_, str> {
    let last = value.len().saturating_sub(1);
    let is_plain = |at: usize, byte: u8| match byte {
        b'%' => false,
        b' ' => at != 0 && at != last,
        byte => byte.is_ascii_graphic(),
    };
    if value.bytes().enumerate().all(|(at, byte)| is_plain(at, byte)) {
        return Cow::Borrowed(value);
    }
    let mut encoded = String::with_capacity(value.len() * 3);
    for (at, byte) in value.bytes().enumerate() {
        if is_plain(at, byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(encoded)
}

impl Service {
    /// The token that goes upstream for a request with this key.
    ///
    /// # Errors
    /// When there is nothing to sign with.
    pub fn mint_for_upstream(
        &self,
        settings: &Settings,
        entry: &Arc<Entry>,
        audience: Option<&str>,
        now: Timestamp,
    ) -> Result<Minted, MintError> {
        let audiences: Vec<String> = audience.map(str::to_owned).into_iter().collect();
        let terms = Terms {
            ttl: settings.authz.token_ttl,
            ends: entry.hard_expiry,
            audiences: &audiences,
            scopes: &entry.key.scopes,
            custom: &Map::new(),
        };
        mint(settings, &self.rng, now, TokenFormat::Jwt, &Subject::of_key(&entry.key), &terms)
    }

    /// The JWT that goes upstream in place of a macaroon: all that its holder left of it, and for no longer.
    ///
    /// # Errors
    /// When there is nothing to sign with.
    pub fn exchange_for_upstream(
        &self,
        settings: &Settings,
        network: NetworkId,
        authority: &Authority,
        audience: Option<&str>,
    ) -> Result<Minted, MintError> {
        // A route's audience is one of the macaroon's own, else it had been refused.
        let audience = audience.map(|audience| vec![audience.to_owned()]);
        let terms = Terms {
            ttl: settings.authz.token_ttl,
            ends: Some(authority.expires),
            audiences: audience.as_ref().unwrap_or(&authority.audiences),
            scopes: &authority.scopes,
            custom: &authority.custom,
        };
        let subject = Subject::of_token(authority, network);
        mint(settings, &self.rng, self.clock.now(), TokenFormat::Jwt, &subject, &terms)
    }
}

/// Refuses a key whose headers would be too large for upstream: when it is written, not when it is used.
///
/// # Errors
/// When they would be.
pub(super) fn check_headers_fit(settings: &Settings, rng: &Rng, key: &Key) -> Result<(), ApiError> {
    let terms = Terms {
        ttl: settings.authz.token_ttl,
        ends: None,
        audiences: &[],
        scopes: &key.scopes,
        custom: &Map::new(),
    };
    let token = minted_len(settings, rng, key.updated, &Subject::of_key(key), &terms);
    let line = |name: &str, value: usize| name.len() + value + ": \r\n".len();
    let token = token.map_or(0, |token| line(&settings.authz.token_header, "Bearer ".len() + token));
    let values = [
        key.id.to_string().len(),
        header_text(key.actor.as_str()).len(),
        scopes_len(&key.scopes),
        key.network.to_string().len(),
    ];
    let identity: usize = IDENTITY_HEADERS.iter().zip(values).map(|(name, value)| line(name, value)).sum();
    if token + identity > MAX_HEADERS_LEN {
        let problem = "the headers made of scopes, metadata, addresses and actor would be larger than 8 KiB";
        return Err(ApiError::field("scopes", problem));
    }
    Ok(())
}

fn scopes_len(scopes: &Scopes) -> usize {
    scopes.iter().map(|scope| scope.as_str().len() + 1).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_texts_are_ascii_and_read_back() {
        for (value, text) in [
            ("user_1 a/b:c@d", "user_1 a/b:c@d"),
            ("user_1 50%", "user_1 50%25"),
            ("jürgen 50%", "j%C3%BCrgen 50%25"),
            ("j%C3%BCrgen", "j%25C3%25BCrgen"),
            (" a  b ", "%20a  b%20"),
            (" ", "%20"),
            ("a\tb\u{7f}", "a%09b%7F"),
        ] {
            assert_eq!(header_text(value), text);
        }
    }

    /// Decodes as any server does that follows RFC 3986.
    fn decoded(text: &str) -> String {
        let (mut bytes, mut rest) = (vec![], text.as_bytes());
        while let Some((first, after)) = rest.split_first() {
            match first {
                b'%' => {
                    let digits = std::str::from_utf8(&after[..2]).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = &after[2..];
                }
                byte => {
                    bytes.push(*byte);
                    rest = after;
                }
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    /// Texts that are close to each other: parts of encodings, white space, and what servers fold
    /// together.
    fn identity() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "%", "%25", "%C3%BC", "ü", "u\u{308}", " ", "\t", "\u{a0}", "20", "a", "A",
        ]);
        prop_oneof![prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat()), any::<String>()]
    }

    proptest! {
        #[test]
        fn different_identities_are_different_headers(a in identity(), b in identity()) {
            let (header_a, header_b) = (header_text(&a), header_text(&b));
            // As a server that trims and compares them.
            prop_assert_eq!(a == b, header_a.trim() == header_b.trim());
            prop_assert!(header_a.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
            prop_assert_eq!(decoded(header_a.trim()), a);
        }
    }
}
