//! Bearer tokens of callers: JWTs of one issuer, for one audience, signed with a key that the
//! issuer publishes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::caller::{MAX_RECORDED_NAME, UNIX_USER};
use crate::clock::Timestamp;
use crate::config::AuthJwt;
use crate::credential::jwk;
use crate::secret::SecretString;

/// Maximum length of a token, in bytes.
const MAX_TOKEN_LEN: usize = 16 * 1024;

/// Reason for refusing a token. For the log only: callers don't see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is not a JWT, or its kind is not accepted.
    #[error("it is malformed, or of a kind that isn't accepted")]
    Malformed,
    /// The issuer has published no such key, as far as is known.
    #[error("its kid is that of no known key of the issuer")]
    UnknownKey,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// The token is of another issuer.
    #[error("its issuer is another")]
    Issuer,
    /// The token is for another audience.
    #[error("its audience is another")]
    Audience,
    /// The token has expired, is not valid yet, or has no expiry.
    #[error("it has expired, is not valid yet, or has no exp")]
    Time,
    /// The token names no subject, or one that can't be told from another where it is recorded.
    #[error(
        "it has no subject, or one that is longer than 255 characters, has control characters or begins with uid:"
    )]
    Subject,
}

/// Holder of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHolder {
    /// Claim `sub`.
    pub subject: String,
    /// Values of the claim that decides about roles.
    pub values: Vec<String>,
}

/// Verifier of tokens.
pub struct TokenVerifier {
    issuer: String,
    audience: String,
    leeway: Duration,
    claim: String,
    /// URL of the issuer's key set.
    url: Option<SecretString>,
    keys: ArcSwap<Vec<IssuerKey>>,
    unknown_key_seen: AtomicBool,
}

struct IssuerKey {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl TokenVerifier {
    /// Creates a verifier from the settings, without any key yet.
    pub fn new(jwt: &AuthJwt) -> Self {
        Self {
            issuer: jwt.issuer.clone().unwrap_or_default(),
            audience: jwt.audience.clone().unwrap_or_default(),
            leeway: jwt.leeway,
            claim: jwt.claim.clone(),
            url: jwt.url(),
            keys: ArcSwap::default(),
            unknown_key_seen: AtomicBool::new(false),
        }
    }

    /// Returns the URL of the issuer's key set.
    pub fn url(&self) -> Option<&SecretString> {
        self.url.as_ref()
    }

    /// Replaces the keys by those of a key set. Returns their number. Keys of unknown kinds are
    /// skipped.
    ///
    /// # Errors
    /// Fails if the document is no key set, or has no usable key, or has a key that anybody can
    /// sign with. Then the present keys stay.
    pub fn replace_keys(&self, document: &str) -> Result<usize, &'static str> {
        let document: Value =
            serde_json::from_str(document).map_err(|_| "must be a JSON object with a list `keys`")?;
        let all = document.get("keys").and_then(Value::as_array);
        let all = all.ok_or("must be a JSON object with a list `keys`")?;
        if all.iter().any(|key| jwk::forgeable(key).is_some()) {
            return Err("has a key that anybody can sign with");
        }
        let keys: Vec<IssuerKey> = all.iter().filter_map(IssuerKey::parse).collect();
        if keys.is_empty() {
            return Err("has no key that could verify a token");
        }
        let count = keys.len();
        self.keys.store(keys.into());
        Ok(count)
    }

    /// Returns whether a token has named an unknown key since the last call, and resets that.
    pub fn take_unknown_key_seen(&self) -> bool {
        self.unknown_key_seen.swap(false, Ordering::Relaxed)
    }

    /// Returns the holder of a token that is valid at `now`.
    ///
    /// # Errors
    /// Fails with the first problem found.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<TokenHolder, TokenError> {
        let claims = self.signed_claims(token)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.issuer) || self.issuer.is_empty() {
            return Err(TokenError::Issuer);
        }
        let audiences = string_list(claims.get("aud"));
        if self.audience.is_empty() || !audiences.contains(&self.audience) {
            return Err(TokenError::Audience);
        }
        let time = |name: &str| claims.get(name).and_then(Value::as_f64);
        let (now, leeway) = (now.as_micros() as f64 / 1e6, self.leeway.as_secs_f64());
        let ended = time("exp").is_none_or(|exp| exp + leeway <= now);
        let begins_later = match claims.get("nbf") {
            None => false,
            Some(_) => time("nbf").is_none_or(|nbf| nbf - leeway > now),
        };
        if ended || begins_later {
            return Err(TokenError::Time);
        }
        let subject = text("sub").filter(|subject| is_subject(subject)).ok_or(TokenError::Subject)?;
        Ok(TokenHolder { subject: subject.to_owned(), values: string_list(claims.get(&self.claim)) })
    }

    /// Verifies the signature of a token, and returns its claims unchecked.
    fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some_and(|names| !names.is_empty()) {
            return Err(TokenError::Malformed);
        }
        let keys = self.keys.load();
        let fitting: Vec<&IssuerKey> = match &header.kid {
            Some(kid) => keys.iter().filter(|key| key.kid.as_ref() == Some(kid)).collect(),
            // Without a key id there must be only one key.
            None => keys.iter().filter(|key| key.algorithms.contains(&header.alg)).collect(),
        };
        let [key] = fitting[..] else {
            self.unknown_key_seen.store(true, Ordering::Relaxed);
            return Err(TokenError::UnknownKey);
        };
        // The key decides how it is used; the token may only agree.
        if !key.algorithms.contains(&header.alg) {
            return Err(TokenError::Malformed);
        }
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode(token, &key.key, &validation);
        decoded.map(|decoded| decoded.claims).map_err(|_| TokenError::Signature)
    }
}

impl IssuerKey {
    /// Parses a key. Returns `None` if it isn't for signatures, or is of an unknown kind.
    fn parse(value: &Value) -> Option<Self> {
        if value.get("use").and_then(Value::as_str).is_some_and(|usage| usage != "sig") {
            return None;
        }
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let possible: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
            // A symmetric key in a published key set would let anybody sign.
            _ => return None,
        };
        let named = match jwk.common.key_algorithm {
            None => None,
            Some(named) => Some(algorithm_by_name(named)?),
        };
        let algorithms: Vec<Algorithm> = possible
            .iter()
            .copied()
            .filter(|algorithm| named.is_none_or(|named| named == *algorithm))
            .collect();
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { kid: jwk.common.key_id, algorithms, key })
    }
}

fn algorithm_by_name(name: KeyAlgorithm) -> Option<Algorithm> {
    name.to_string().parse().ok()
}

/// Returns true for a subject that is recorded as it is, so that no two callers have one name.
fn is_subject(text: &str) -> bool {
    !text.is_empty()
        && text.chars().count() <= MAX_RECORDED_NAME
        && !text.chars().any(char::is_control)
        && !text.starts_with(UNIX_USER)
}

/// Returns a string or list of strings as a list.
fn string_list(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => vec![],
    }
}
