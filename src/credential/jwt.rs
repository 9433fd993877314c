//! Derived JWTs: signed with EdDSA or RS256, verified without any state.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Serialize;

use super::TokenFormat;
use super::claims::{Authority, Expectation, PresentedClaims};
use super::jwk::{KeySet, SigningKey};
use crate::key::verdict::Denial;

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

/// Signs claims. Returns `None` if `signer` has no private half.
pub fn sign(signer: &SigningKey, claims_json: &str) -> Option<String> {
    let mut token = unsigned(signer, claims_json);
    let signature = signer.sign(token.as_bytes())?;
    token.push('.');
    BASE64URL.encode_string(signature, &mut token);
    Some(token)
}

/// Returns the length of the signed token, in bytes.
pub fn signed_len(signer: &SigningKey, claims_json: &str) -> usize {
    let signature = signer.signature_len();
    unsigned(signer, claims_json).len() + 1 + (signature * 4).div_ceil(3)
}

#[expect(clippy::expect_used, reason = "three texts always serialise")]
fn unsigned(signer: &SigningKey, claims_json: &str) -> String {
    let header = Header { alg: &format!("{:?}", signer.algorithm()), typ: "JWT", kid: signer.kid() };
    let header = serde_json::to_vec(&header).expect("three texts serialise");
    let mut token = String::with_capacity((header.len() + claims_json.len()) * 4 / 3 + 512);
    BASE64URL.encode_string(header, &mut token);
    token.push('.');
    BASE64URL.encode_string(claims_json, &mut token);
    token
}

/// Verifies a token: the signature by the key that its `kid` names, then the claims.
///
/// # Errors
/// Fails with the first that doesn't hold.
pub fn verify(keys: &KeySet, token: &str, expected: &Expectation<'_>) -> Result<Authority, Denial> {
    let shown = check_signature(keys, token).ok_or(Denial::SignatureInvalid)?;
    shown.judge(TokenFormat::Jwt, &[], expected)
}

fn check_signature(keys: &KeySet, token: &str) -> Option<PresentedClaims> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let extended = header.crit.is_some_and(|names| !names.is_empty());
    let key = keys.find(&header.kid?).filter(|_| !extended)?;
    decode(token, key.verifier(), key)
}

fn decode(token: &str, verifier: &DecodingKey, key: &SigningKey) -> Option<PresentedClaims> {
    // The library verifies the signature under the key's own algorithm. Times and names are
    // verified later, by our clock.
    let mut validation = Validation::new(key.algorithm());
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode(token, verifier, &validation).ok()?;
    Some(decoded.claims)
}
