//! Derived macaroons: `<prefix>_v1_<base64url of a V2 binary>`. Holders can narrow them on their
//! own.
//!
//! The signature is libmacaroons' chain: HMAC-SHA256 of the identifier under the root key, then of
//! each caveat under the previous signature. Anybody can add a caveat, and nobody can remove one.

mod binary;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hmac::Mac;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use self::binary::Macaroon;
use super::TokenFormat;
use super::caveat::Caveat;
use super::claims::{Authority, Expectation, PresentedClaims};
use super::secrets::{HmacSecret, HmacSecrets, hmac_sha256};
use crate::clock::Timestamp;
use crate::key::verdict::Denial;

/// Separator of prefix and macaroon.
const MARK: &str = "_v1_";

/// Parts of a text in the form of a macaroon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    prefix: &'a str,
    encoded: &'a str,
}

impl std::fmt::Debug for Parts<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Parts({})", self.prefix)
    }
}

impl<'a> Parts<'a> {
    /// Splits a text that begins with `prefix` and `_v1_`.
    pub fn split(credential: &'a str, prefix: &str) -> Option<Self> {
        let encoded = credential.strip_prefix(prefix)?.strip_prefix(MARK)?;
        Some(Self { prefix: &credential[..prefix.len()], encoded })
    }

    /// Returns the prefix, which the signature doesn't cover.
    pub const fn prefix(&self) -> &'a str {
        self.prefix
    }
}

/// Makes a macaroon with these claims, under the current secret.
pub fn make(secrets: &HmacSecrets, prefix: &str, issuer: &str, id: Uuid, claims_json: &str) -> String {
    let identifier = format!(r#"{{"jti":"{}"}}"#, id.hyphenated());
    let caveats = vec![claims_json.as_bytes()];
    let signature = sign(secrets.current(), identifier.as_bytes(), &caveats);
    let macaroon =
        Macaroon { location: issuer.as_bytes(), identifier: identifier.as_bytes(), caveats, signature };
    let mut token = format!("{prefix}{MARK}");
    BASE64URL.encode_string(macaroon.write(), &mut token);
    token
}

/// Verifies a macaroon: the signature under the current or a retired secret, then all caveats.
///
/// # Errors
/// Fails with the first that doesn't hold.
pub fn verify(
    secrets: &HmacSecrets,
    parts: &Parts<'_>,
    expected: &Expectation<'_>,
) -> Result<Authority, Denial> {
    let proven = prove(secrets, parts, expected.now).ok_or(Denial::SignatureInvalid)?;
    let mut authority = proven.claims.judge(TokenFormat::Macaroon, &proven.caveats, expected)?;
    authority.expires = proven.secret_expires.into_iter().fold(authority.expires, Timestamp::min);
    Ok(authority)
}

/// Content of a macaroon whose signature is right.
struct Proven {
    claims: PresentedClaims,
    caveats: Vec<Caveat>,
    secret_expires: Option<Timestamp>,
}

fn prove(secrets: &HmacSecrets, parts: &Parts<'_>, now: Timestamp) -> Option<Proven> {
    let bytes = BASE64URL.decode(parts.encoded).ok()?;
    let macaroon = Macaroon::parse(&bytes)?;
    let secret = secrets.verifying(now).find(|secret| {
        sign(secret, macaroon.identifier, &macaroon.caveats).ct_eq(&macaroon.signature).into()
    })?;
    let (claims, added) = macaroon.caveats.split_first()?;
    let claims: PresentedClaims = serde_json::from_slice(claims).ok()?;
    // The signature doesn't cover the location. If it isn't the issuer, someone else has set it.
    if claims.issuer().map(str::as_bytes) != Some(macaroon.location) {
        return None;
    }
    let caveats = added.iter().map(|caveat| Caveat::parse(caveat)).collect::<Option<_>>()?;
    Some(Proven { claims, caveats, secret_expires: secret.expires() })
}

fn sign(secret: &HmacSecret, identifier: &[u8], caveats: &[&[u8]]) -> [u8; 32] {
    let first = secret.macaroon_mac().chain_update(identifier).finalize().into_bytes().into();
    caveats.iter().fold(first, |link: [u8; 32], caveat| hmac_sha256(&link, caveat))
}
