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

/// A value as it may stand in a header: ASCII as it is, other text as percent-encoded UTF-8.
pub fn header_text(value: &str) -> Cow<'_, str> {
    if value.is_ascii() {
        return Cow::Borrowed(value);
    }
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        // In a text that is encoded, a percent sign must be too.
        if byte.is_ascii() && byte != b'%' {
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
    use super::*;

    #[test]
    fn header_texts_are_ascii_and_read_back() {
        assert_eq!(header_text("user_1 50%"), "user_1 50%");
        assert_eq!(header_text("jürgen 50%"), "j%C3%BCrgen 50%25");
    }
}
