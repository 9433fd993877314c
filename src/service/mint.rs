//! Tokens that stand for a key for a while.

use std::time::Duration;

use serde_json::Map;

use crate::clock::Timestamp;
use crate::credential::jwk::SigningKey;
use crate::credential::jwt::{self, Grant};
use crate::key::{Key, Scopes};
use crate::rng::Rng;
use crate::settings::Settings;

/// Why no token can be made. Both are for the operator to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// There is no key to sign with.
    #[error("no signing key is configured (credentials.derived_tokens.jwt.signing_keys.urls)")]
    NoKey,
    /// The key to sign with isn't there.
    #[error(
        "the signing key {0:?} (credentials.derived_tokens.jwt.signing_key_id) is in none of the key sets"
    )]
    NoSuchKey(String),
    /// The library refused to sign.
    #[error("the token could not be signed")]
    Refused,
}

/// A token and its times.
pub struct Minted {
    /// The token.
    pub token: String,
    /// Its claims, as JSON.
    pub claims_json: String,
    /// From when on it is valid.
    pub issued_at: Timestamp,
    /// Until when; whole seconds.
    pub expires: Timestamp,
}

/// What to put into a token.
pub struct Terms<'a> {
    /// How long it is to live; less if `ends` comes first.
    pub ttl: Duration,
    /// When the key itself ends.
    pub ends: Option<Timestamp>,
    /// Whom it is for.
    pub audiences: &'a [String],
    /// What it allows.
    pub scopes: &'a Scopes,
    /// Free claims.
    pub custom: &'a Map<String, serde_json::Value>,
}

/// Mints a token for a key.
///
/// # Errors
/// When there is nothing to sign with.
pub fn mint(
    settings: &Settings,
    rng: &Rng,
    now: Timestamp,
    key: &Key,
    terms: &Terms<'_>,
) -> Result<Minted, MintError> {
    let signer = signer(settings)?;
    let expires = terms.ends.into_iter().fold(now.plus(terms.ttl), Timestamp::min);
    let claims_json = claims(settings, rng, now, expires, key, terms);
    let token = jwt::sign(signer, &claims_json).ok_or(MintError::Refused)?;
    Ok(Minted { token, claims_json, issued_at: now, expires: Timestamp::from_secs(expires.as_secs()) })
}

/// How long the token would be, in bytes; None when there is nothing to sign with.
pub fn minted_len(
    settings: &Settings,
    rng: &Rng,
    now: Timestamp,
    key: &Key,
    terms: &Terms<'_>,
) -> Option<usize> {
    let claims = claims(settings, rng, now, now.plus(terms.ttl), key, terms);
    Some(jwt::signed_len(signer(settings).ok()?, &claims))
}

fn signer(settings: &Settings) -> Result<&SigningKey, MintError> {
    settings.signing_key().ok_or_else(|| match &settings.signing_key_id {
        Some(kid) if !settings.keys.is_empty() => MintError::NoSuchKey(kid.clone()),
        _ => MintError::NoKey,
    })
}

fn claims(
    settings: &Settings,
    rng: &Rng,
    now: Timestamp,
    expires: Timestamp,
    key: &Key,
    terms: &Terms<'_>,
) -> String {
    let grant = Grant {
        issuer: settings.issuer(),
        id: rng.uuid(),
        issued_at: now,
        expires,
        audiences: terms.audiences,
        scopes: terms.scopes,
        custom: terms.custom,
    };
    jwt::claims_json(key, &grant)
}
