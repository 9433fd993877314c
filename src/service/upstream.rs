//! Tokens that go upstream for a key or a macaroon, and the bound on the headers that carry them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use super::mint::{MintRequest, Minted, mint, minted_len};
use super::{MintError, Service, UpstreamHeadersLen};
use crate::cache::memory::Entry;
use crate::clock::Timestamp;
use crate::credential::TokenFormat;
use crate::credential::claims::{Authority, Subject};
use crate::error::ApiError;
use crate::key::{Key, NetworkId};
use crate::rng::Rng;
use crate::settings::Settings;

/// Maximum length of all headers that go upstream for a key, in bytes.
const MAX_UPSTREAM_HEADERS_LEN: usize = 8 * 1024;

impl Service {
    /// Returns the bound on a key's upstream headers.
    pub(super) fn headers_bound(&self) -> HeadersBound {
        HeadersBound { rng: self.rng.clone(), headers_len: self.upstream_headers_len }
    }

    /// Mints the token that goes upstream for a request with this key.
    ///
    /// # Errors
    /// Fails if there is no signing key.
    pub fn mint_for_upstream(
        &self,
        settings: &Settings,
        entry: &Arc<Entry>,
        audience: Option<&str>,
        now: Timestamp,
    ) -> Result<Minted, MintError> {
        let audiences: Vec<String> = audience.map(str::to_owned).into_iter().collect();
        let request = MintRequest {
            ttl: settings.authz.token_ttl,
            backdated: backdating(settings),
            not_after: entry.end(),
            audiences: &audiences,
            scopes: &entry.key.scopes,
            custom: &Map::new(),
        };
        mint(settings, &self.rng, now, TokenFormat::Jwt, &Subject::of_key(&entry.key), &request)
    }

    /// Mints the JWT that goes upstream in place of a macaroon, with what its caveats leave of its
    /// permissions and lifetime.
    ///
    /// # Errors
    /// Fails if there is no signing key.
    pub fn mint_for_macaroon(
        &self,
        settings: &Settings,
        network: NetworkId,
        authority: &Authority,
        audience: Option<&str>,
    ) -> Result<Minted, MintError> {
        // A route's audience is one of the macaroon's: others have been rejected before.
        let audience = audience.map(|audience| vec![audience.to_owned()]);
        let request = MintRequest {
            ttl: settings.authz.token_ttl,
            backdated: backdating(settings),
            not_after: Some(authority.expires),
            audiences: audience.as_ref().unwrap_or(&authority.audiences),
            scopes: &authority.scopes,
            custom: &authority.custom,
        };
        let subject = Subject::of_token(authority, network);
        mint(settings, &self.rng, self.clock.now(), TokenFormat::Jwt, &subject, &request)
    }
}

/// Returns the time before now at which tokens for upstream begin, so that backends whose clocks
/// are behind by `clock_skew` accept them. Shorter where a maximum age would end them early.
fn backdating(settings: &Settings) -> Duration {
    let longest =
        settings.max_token_age.map_or(Duration::MAX, |age| age.saturating_sub(settings.authz.token_ttl));
    settings.clock_skew.min(longest)
}

/// Bound on the headers that go upstream for a key.
#[derive(Clone)]
pub(super) struct HeadersBound {
    rng: Rng,
    headers_len: UpstreamHeadersLen,
}

impl HeadersBound {
    /// Checks that a key's headers are not too large. Done when a key is written, not when it is
    /// used.
    ///
    /// # Errors
    /// Fails if they are.
    pub(super) fn check(&self, settings: &Settings, key: &Key) -> Result<(), ApiError> {
        let request = MintRequest {
            ttl: settings.authz.token_ttl,
            backdated: backdating(settings),
            not_after: None,
            audiences: &[],
            scopes: &key.scopes,
            custom: &Map::new(),
        };
        let token = minted_len(settings, &self.rng, key.updated, &Subject::of_key(key), &request);
        if (self.headers_len)(settings, key, token) > MAX_UPSTREAM_HEADERS_LEN {
            let problem =
                "the headers made of scopes, metadata, addresses and actor would be larger than 8 KiB";
            return Err(ApiError::field("scopes", problem));
        }
        Ok(())
    }
}
