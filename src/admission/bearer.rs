//! Tokens of callers: JWTs of one issuer, for one audience, signed with a key that the issuer publishes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::config::AuthJwt;
use crate::credential::jwk;
use crate::secret::SecretString;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Why a token isn't good. For the log: a caller isn't told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// Not a JWT that we could verify.
    #[error("it is malformed, or of a kind that isn't accepted")]
    Malformed,
    /// The issuer has published no such key, as far as we know.
    #[error("it names no key of the issuer's")]
    UnknownKey,
    /// Somebody else signed it.
    #[error("its signature is wrong")]
    Signature,
    /// Somebody else's.
    #[error("it isn't of the issuer")]
    Issuer,
    /// For somebody else.
    #[error("it isn't for this audience")]
    Audience,
    /// Its time is over, hasn't come, or isn't told.
    #[error("it is out of its time")]
    Time,
    /// Nobody is named.
    #[error("it has no subject")]
    Subject,
}

/// Whoever holds a good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its `sub`.
    pub subject: String,
    /// What the claim says that decides on roles.
    pub values: Vec<String>,
}

/// Verifies tokens.
pub struct Bearer {
    issuer: String,
    audience: String,
    leeway: Duration,
    claim: String,
    /// Where the issuer publishes its keys.
    url: Option<SecretString>,
    keys: ArcSwap<Vec<IssuerKey>>,
    missed: AtomicBool,
}

struct IssuerKey {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Bearer {
    /// As the settings say, and without any key yet.
    pub fn new(jwt: &AuthJwt) -> Self {
        Self {
            issuer: jwt.issuer.clone().unwrap_or_default(),
            audience: jwt.audience.clone().unwrap_or_default(),
            leeway: jwt.leeway,
            claim: jwt.claim.clone(),
            url: jwt.url(),
            keys: ArcSwap::default(),
            missed: AtomicBool::new(false),
        }
    }

    /// Where the issuer publishes its keys.
    pub fn url(&self) -> Option<&SecretString> {
        self.url.as_ref()
    }

    /// Takes the keys of a key set in the place of those that there are; how many it has. Keys of kinds that aren't
    /// known are left out.
    ///
    /// # Errors
    /// When it is no key set, has no key of use, or one that anybody could forge with: then those
    /// that there are stay.
    pub fn take_keys(&self, document: &str) -> Result<usize, &'static str> {
        let document: Value =
            serde_json::from_str(document).map_err(|_| "must be a JSON object with a list `keys`")?;
        let all = document.get("keys").and_then(Value::as_array);
        let all = all.ok_or("must be a JSON object with a list `keys`")?;
        if all.iter().any(|key| jwk::forgeable(key).is_some()) {
            return Err("has a key in whose name anybody can sign");
        }
        let keys: Vec<IssuerKey> = all.iter().filter_map(IssuerKey::read).collect();
        if keys.is_empty() {
            return Err("has no key that could verify a token");
        }
        let count = keys.len();
        self.keys.store(keys.into());
        Ok(count)
    }

    /// Whether a token named a key that isn't known since the last time that this was asked.
    pub fn has_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// The holder of a token that is good at `now`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Holder, BearerError> {
        let claims = self.signed_claims(token)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.issuer) || self.issuer.is_empty() {
            return Err(BearerError::Issuer);
        }
        let audiences = texts(claims.get("aud"));
        if self.audience.is_empty() || !audiences.contains(&self.audience) {
            return Err(BearerError::Audience);
        }
        let time = |name: &str| claims.get(name).and_then(Value::as_f64);
        let (now, leeway) = (now.as_micros() as f64 / 1e6, self.leeway.as_secs_f64());
        let ended = time("exp").is_none_or(|exp| exp + leeway <= now);
        let begins_later = match claims.get("nbf") {
            None => false,
            Some(_) => time("nbf").is_none_or(|nbf| nbf - leeway > now),
        };
        if ended || begins_later {
            return Err(BearerError::Time);
        }
        let subject = text("sub").filter(|subject| !subject.is_empty()).ok_or(BearerError::Subject)?;
        Ok(Holder { subject: subject.to_owned(), values: texts(claims.get(&self.claim)) })
    }

    fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, BearerError> {
        if token.len() > MAX_TOKEN {
            return Err(BearerError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| BearerError::Malformed)?;
        if header.crit.is_some_and(|names| !names.is_empty()) {
            return Err(BearerError::Malformed);
        }
        let keys = self.keys.load();
        let fitting: Vec<&IssuerKey> = match &header.kid {
            Some(kid) => keys.iter().filter(|key| key.kid.as_ref() == Some(kid)).collect(),
            // Without a name there must be no choice.
            None => keys.iter().filter(|key| key.algorithms.contains(&header.alg)).collect(),
        };
        let [key] = fitting[..] else {
            self.missed.store(true, Ordering::Relaxed);
            return Err(BearerError::UnknownKey);
        };
        // The key decides how it is used; the token may only agree.
        if !key.algorithms.contains(&header.alg) {
            return Err(BearerError::Malformed);
        }
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode(token, &key.key, &validation);
        decoded.map(|decoded| decoded.claims).map_err(|_| BearerError::Signature)
    }
}

impl IssuerKey {
    /// None for a key that isn't for signatures, or of a kind that we don't know.
    fn read(value: &Value) -> Option<Self> {
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
            // A secret that is published is none.
            _ => return None,
        };
        let named = match jwk.common.key_algorithm {
            None => None,
            Some(named) => Some(of_name(named)?),
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

fn of_name(name: KeyAlgorithm) -> Option<Algorithm> {
    name.to_string().parse().ok()
}

/// A text, or a list of texts.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => {
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => vec![],
    }
}
