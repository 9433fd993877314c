//! Minting of short-lived tokens that stand for a key.

use std::time::Duration;

use serde_json::Map;

use crate::clock::Timestamp;
use crate::credential::claims::{Grant, Subject, claims_json};
use crate::credential::jwk::SigningKey;
use crate::credential::{TokenFormat, jwt, macaroon};
use crate::key::Scopes;
use crate::rng::Rng;
use crate::settings::Settings;

/// Error of minting. Each is for the operator to fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// No signing key is configured.
    #[error("no signing key is configured (credentials.derived_tokens.jwt.signing_keys.urls)")]
    NoKey,
    /// The configured signing key is in none of the key sets.
    #[error(
        "the signing key {0:?} (credentials.derived_tokens.jwt.signing_key_id) is in none of the key sets"
    )]
    NoSuchKey(String),
    /// The library failed to sign.
    #[error("the token could not be signed")]
    Refused,
}

/// A minted token.
pub struct Minted {
    /// The token.
    pub token: String,
    /// Claims, as JSON.
    pub claims_json: String,
    /// Time of minting. `iat` and `nbf` may be earlier, see [`MintRequest::backdated`].
    pub issued_at: Timestamp,
    /// Expiry, in whole seconds.
    pub expires: Timestamp,
}

/// Contents of a token to mint.
pub(super) struct MintRequest<'a> {
    /// Lifetime. Shorter if `not_after` comes first.
    pub ttl: Duration,
    /// Time before now at which its validity begins, for verifiers whose clocks are behind.
    pub backdated: Duration,
    /// Latest permitted expiry: that of the key.
    pub not_after: Option<Timestamp>,
    /// Audiences.
    pub audiences: &'a [String],
    /// Scopes.
    pub scopes: &'a Scopes,
    /// Custom claims.
    pub custom: &'a Map<String, serde_json::Value>,
}

/// Mints a token for `subject`.
///
/// # Errors
/// Fails if a JWT can't be signed. A macaroon needs no signing key.
pub(super) fn mint(
    settings: &Settings,
    rng: &Rng,
    now: Timestamp,
    format: TokenFormat,
    subject: &Subject<'_>,
    request: &MintRequest<'_>,
) -> Result<Minted, MintError> {
    let expires = request.not_after.into_iter().fold(now.plus(request.ttl), Timestamp::min);
    let grant = grant(settings, rng, now, expires, request);
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

/// Returns the length of the JWT in bytes, `None` if there is no signing key.
pub(super) fn minted_len(
    settings: &Settings,
    rng: &Rng,
    now: Timestamp,
    subject: &Subject<'_>,
    request: &MintRequest<'_>,
) -> Option<usize> {
    let claims_json = claims_json(subject, &grant(settings, rng, now, now.plus(request.ttl), request));
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
    request: &MintRequest<'a>,
) -> Grant<'a> {
    Grant {
        issuer: settings.issuer(),
        id: rng.uuid(),
        issued_at: now.minus(request.backdated),
        expires,
        audiences: request.audiences,
        scopes: request.scopes,
        custom: request.custom,
    }
}
