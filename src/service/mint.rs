//! Tokens that stand for a key for a while.

use std::time::Duration;

use serde_json::Map;

use crate::clock::Timestamp;
use crate::credential::claims::{Grant, Subject, claims_json};
use crate::credential::jwk::SigningKey;
use crate::credential::{TokenFormat, jwt, macaroon};
use crate::key::Scopes;
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
    /// When what it stands for ends itself.
    pub ends: Option<Timestamp>,
    /// Whom it is for.
    pub audiences: &'a [String],
    /// What it allows.
    pub scopes: &'a Scopes,
    /// Free claims.
    pub custom: &'a Map<String, serde_json::Value>,
}

/// Mints a token for `subject`.
///
/// # Errors
/// When there is nothing to sign with; a macaroon needs no key.
pub fn mint(
    settings: &Settings,
    rng: &Rng,
    now: Timestamp,
    format: TokenFormat,
    subject: &Subject<'_>,
    terms: &Terms<'_>,
) -> Result<Minted, MintError> {
    let expires = terms.ends.into_iter().fold(now.plus(terms.ttl), Timestamp::min);
    let grant = grant(settings, rng, now, expires, terms);
    let claims_json = claims_json(subject, &grant);
    let token = match format {
        TokenFormat::Jwt => jwt::sign(signer(settings)?, &claims_json).ok_or(MintError::Refused)?,
        TokenFormat::Macaroon => {
            let prefix = settings.macaroon_prefix();
            macaroon::make(&settings.secrets, prefix, grant.issuer, grant.id, &claims_json)
        }
    };
    Ok(Minted { token, claims_json, issued_at: now, expires: Timestamp::from_secs(expires.as_secs()) })
}

/// How long the JWT would be, in bytes; None when there is nothing to sign with.
pub fn minted_len(
    settings: &Settings,
    rng: &Rng,
    now: Timestamp,
    subject: &Subject<'_>,
    terms: &Terms<'_>,
) -> Option<usize> {
    let claims_json = claims_json(subject, &grant(settings, rng, now, now.plus(terms.ttl), terms));
    Some(jwt::signed_len(signer(settings).ok()?, &claims_json))
}

fn signer(settings: &Settings) -> Result<&SigningKey, MintError> {
    settings.signing_key().ok_or_else(|| match &settings.signing_key_id {
        Some(kid) if !settings.keys.is_empty() => MintError::NoSuchKey(kid.clone()),
        _ => MintError::NoKey,
    })
}

fn grant<'a>(
    settings: &'a Settings,
    rng: &Rng,
    now: Timestamp,
    expires: Timestamp,
    terms: &Terms<'a>,
) -> Grant<'a> {
    Grant {
        issuer: settings.issuer(),
        id: rng.uuid(),
        issued_at: now,
        expires,
        audiences: terms.audiences,
        scopes: terms.scopes,
        custom: terms.custom,
    }
}
