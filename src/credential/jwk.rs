//! JSON Web Keys (RFC 7517): parsing of key sets, and publication of their public half.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey};
use pkcs1::UintRef;
use pkcs1::der::Encode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Error in a key set. Never quotes key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// The document is not a key set.
    #[error("must be a JSON object with a list `keys`")]
    NotASet,
    /// A key is not usable.
    #[error("keys[{index}]: {problem}")]
    Key {
        /// Index in the set, from 0.
        index: usize,
        /// The problem.
        problem: &'static str,
    },
}

/// A key that verifies and, with its private half, signs.
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    verifier: DecodingKey,
    signer: Option<Signer>,
    for_signatures: bool,
    public: Value,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Returns the `kid`, or the RFC 7638 thumbprint if there is none.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns EdDSA or RS256. The key's type decides, never a token's header.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the key that verifies signatures.
    pub const fn verifier(&self) -> &DecodingKey {
        &self.verifier
    }

    /// Returns the length of a signature in bytes.
    pub fn signature_len(&self) -> usize {
        match &self.signer {
            Some(Signer::Rsa(pair)) => pair.public_modulus_len(),
            _ => 64,
        }
    }

    /// Signs. Returns `None` without a private half, or if the library fails.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self.signer.as_ref()? {
            Signer::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }

    fn read(index: usize, jwk: &Value) -> Result<Option<Self>, JwkError> {
        let fail = |problem| JwkError::Key { index, problem };
        let text = |name| jwk.get(name).and_then(Value::as_str);
        if text("use") == Some("enc") {
            return Ok(None);
        }
        if let Some(problem) = forgeable(jwk) {
            return Err(fail(problem));
        }
        let (algorithm, signer, public) = match text("kty") {
            Some("OKP") if text("crv") == Some("Ed25519") => {
                let x = text("x").ok_or(fail("x is missing"))?;
                let signer = ed25519(jwk, x).map_err(fail)?;
                (Algorithm::EdDSA, signer, json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
            }
            Some("RSA") => {
                let n = text("n").ok_or(fail("n is missing"))?;
                let e = text("e").ok_or(fail("e is missing"))?;
                if modulus_bits(n).is_none_or(|bits| !(2_048..=8_192).contains(&bits)) {
                    return Err(fail("n must be base64url without padding, of 2048 to 8192 bits"));
                }
                let signer = rsa(jwk).map_err(fail)?;
                (Algorithm::RS256, signer, json!({ "kty": "RSA", "n": n, "e": e }))
            }
            _ => return Err(fail("kty must be OKP with crv Ed25519, or RSA")),
        };
        let name = format!("{algorithm:?}");
        if text("alg").is_some_and(|alg| alg != name) {
            return Err(fail("alg doesn't fit the key's type: EdDSA for Ed25519, RS256 for RSA"));
        }
        let parsed: Jwk =
            serde_json::from_value(public.clone()).map_err(|_| fail("members are malformed"))?;
        let kid = match text("kid") {
            Some(kid) if !kid.is_empty() => kid.to_owned(),
            _ => thumbprint(&parsed).ok_or(fail("members are malformed"))?,
        };
        let verifier = DecodingKey::from_jwk(&parsed).map_err(|_| fail("members are malformed"))?;
        Ok(Some(Self {
            public: published(public, &kid, &name),
            kid,
            algorithm,
            verifier,
            signer,
            for_signatures: text("use") == Some("sig"),
        }))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SigningKey({}, {:?})", self.kid, self.algorithm)
    }
}

/// Returns why anybody could forge signatures of a key, `None` if that can't be seen.
///
/// An Ed25519 point of small order is the public half of no secret: one signature fits every eighth
/// message or all of them. With an RSA exponent of 1, every message is its own signature.
pub fn forgeable(jwk: &Value) -> Option<&'static str> {
    let bytes = |name| jwk.get(name).and_then(Value::as_str).and_then(|text| BASE64URL.decode(text).ok());
    match jwk.get("kty").and_then(Value::as_str)? {
        "OKP" if jwk.get("crv").and_then(Value::as_str) == Some("Ed25519") => {
            // The parser reports what can't be decoded.
            let point = <[u8; 32]>::try_from(bytes("x")?).ok();
            match point.and_then(|point| VerifyingKey::from_bytes(&point).ok()) {
                None => Some("x is no point of Ed25519"),
                Some(key) => {
                    key.is_weak().then_some("x is a point of small order: anybody can sign in its name")
                }
            }
        }
        "RSA" => {
            let exponent = bytes("e")?;
            let digits = exponent.iter().skip_while(|byte| **byte == 0).count();
            let last = exponent.last().copied().unwrap_or_default();
            let is_sound = last % 2 == 1 && (digits > 1 || last > 1);
            (!is_sound).then_some("e must be odd and at least 3: anybody can sign in the name of another")
        }
        _ => None,
    }
}

/// Returns the length of an RSA modulus, `None` if it isn't base64url.
fn modulus_bits(n: &str) -> Option<usize> {
    let bytes = BASE64URL.decode(n).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some((bytes.len() - first) * 8 - bytes[first].leading_zeros() as usize)
}

/// Keys that sign and verify derived tokens.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<SigningKey>,
}

impl KeySet {
    /// Adds the keys of a key set. Encryption keys are skipped.
    ///
    /// # Errors
    /// Fails if the document isn't a key set, or a key is of an unknown type, malformed, or has the
    /// `kid` of another.
    pub fn read(&mut self, document: &str) -> Result<(), JwkError> {
        let document: Value = serde_json::from_str(document).map_err(|_| JwkError::NotASet)?;
        let jwks = document.get("keys").and_then(Value::as_array);
        for (index, jwk) in jwks.ok_or(JwkError::NotASet)?.iter().enumerate() {
            let Some(key) = SigningKey::read(index, jwk)? else {
                continue;
            };
            if self.find(&key.kid).is_some() {
                let problem = "another key has the same kid";
                return Err(JwkError::Key { index, problem });
            }
            self.keys.push(key);
        }
        Ok(())
    }

    /// Returns the key with this `kid`.
    pub fn find(&self, kid: &str) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.kid == kid)
    }

    /// Returns the signing key: the named one or, if none is named, the first with `use: sig`, else
    /// the first.
    pub fn signing(&self, named: Option<&str>) -> Option<&SigningKey> {
        match named {
            Some(kid) => self.find(kid).filter(|key| key.signer.is_some()),
            None => {
                let mut able = self.keys.iter().filter(|key| key.signer.is_some());
                let first = able.clone().next();
                able.find(|key| key.for_signatures).or(first)
            }
        }
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns `{"keys":[…]}` with public members only.
    pub fn public_json(&self) -> String {
        let keys: Vec<&Value> = self.keys.iter().map(|key| &key.public).collect();
        json!({ "keys": keys }).to_string()
    }
}

pub(super) fn published(mut jwk: Value, kid: &str, alg: &str) -> Value {
    if let Value::Object(members) = &mut jwk {
        members.insert("alg".into(), alg.into());
        members.insert("use".into(), "sig".into());
        members.insert("kid".into(), kid.into());
    }
    jwk
}

pub(super) fn thumbprint(jwk: &Jwk) -> Option<String> {
    jwk.thumbprint(ThumbprintHash::SHA256).ok()
}

fn ed25519(jwk: &Value, x: &str) -> Result<Option<Signer>, &'static str> {
    let Some(seed) = jwk.get("d").and_then(Value::as_str) else {
        return Ok(None);
    };
    let decode = |text: &str| BASE64URL.decode(text).map(Zeroizing::new);
    let (Ok(seed), Ok(public)) = (decode(seed), decode(x)) else {
        return Err("d and x must be base64url without padding");
    };
    Ed25519KeyPair::from_seed_and_public_key(&seed, &public)
        .map(|pair| Some(Signer::Ed25519(pair)))
        .map_err(|_| "d and x must be the two halves of one Ed25519 key")
}

const RSA_PRIVATE: [&str; 6] = ["d", "p", "q", "dp", "dq", "qi"];

fn rsa(jwk: &Value) -> Result<Option<Signer>, &'static str> {
    if jwk.get("d").is_none() {
        return Ok(None);
    }
    let member = |name: &str| {
        let text = jwk.get(name).and_then(Value::as_str);
        text.and_then(|text| BASE64URL.decode(text).ok()).map(Zeroizing::new)
    };
    let names = ["n", "e"].into_iter().chain(RSA_PRIVATE);
    let numbers: Option<Vec<Zeroizing<Vec<u8>>>> = names.map(member).collect();
    let numbers = numbers.ok_or("n, e, d, p, q, dp, dq and qi must all be there as base64url")?;
    let uints: Result<Vec<UintRef<'_>>, _> = numbers.iter().map(|bytes| UintRef::new(bytes)).collect();
    let problem = "must be a sound RSA key of 2048 bits or more";
    let uints = uints.map_err(|_| problem)?;
    let der = pkcs1::RsaPrivateKey {
        modulus: uints[0],
        public_exponent: uints[1],
        private_exponent: uints[2],
        prime1: uints[3],
        prime2: uints[4],
        exponent1: uints[5],
        exponent2: uints[6],
        coefficient: uints[7],
        other_prime_infos: None,
    };
    let der = Zeroizing::new(der.to_der().map_err(|_| problem)?);
    RsaKeyPair::from_der(&der).map(|pair| Some(Signer::Rsa(pair))).map_err(|_| problem)
}

#[cfg(test)]
mod tests {
    use super::super::new_jwk::{NewKey, RsaAlgorithm, generate};
    use super::*;
    use crate::rng::Rng;
    use serde_json::Map;

    const RSA: NewKey = NewKey::Rsa { bits: 2048, algorithm: RsaAlgorithm::Rs256 };

    fn set_of(jwk: Map<String, Value>) -> KeySet {
        let mut set = KeySet::default();
        set.read(&json!({ "keys": [jwk] }).to_string()).unwrap();
        set
    }

    #[test]
    fn generated_keys_sign_and_publish_no_private_member() {
        for new in [NewKey::Ed25519, RSA] {
            let jwk = generate(new, None, &Rng::system()).unwrap();
            let secret = jwk["d"].as_str().unwrap().to_owned();
            let set = set_of(jwk);
            let key = set.signing(None).unwrap();
            assert_eq!(key.sign(b"message").unwrap().len(), key.signature_len());
            let public = set.public_json();
            assert!(!public.contains(&secret));
            assert!(RSA_PRIVATE.iter().all(|name| !public.contains(&format!("\"{name}\":"))));
        }
    }

    #[test]
    fn our_ed25519_is_everybodys_ed25519() {
        use ed25519_dalek::{Signature, SigningKey as Dalek};
        let rng = Rng::seeded(7);
        let jwk = generate(NewKey::Ed25519, Some("a"), &rng).unwrap();
        let seed = BASE64URL.decode(jwk["d"].as_str().unwrap()).unwrap();
        let dalek = Dalek::from_bytes(&seed.try_into().unwrap());
        assert_eq!(BASE64URL.encode(dalek.verifying_key()), jwk["x"].as_str().unwrap());
        let signature = set_of(jwk).signing(None).unwrap().sign(b"message").unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        assert!(dalek.verifying_key().verify_strict(b"message", &signature).is_ok());
    }

    /// The eight points of small order, and other encodings of them.
    pub(super) const SMALL_ORDER: [&str; 14] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];

    #[test]
    fn keys_that_anybody_can_sign_with_are_refused() {
        let rsa = generate(RSA, Some("r"), &Rng::system()).unwrap();
        let read = |jwk: Value| KeySet::default().read(&json!({ "keys": [jwk] }).to_string());
        for point in SMALL_ORDER {
            let x = BASE64URL.encode(hex::decode(point).unwrap());
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "a" });
            let problem = read(jwk).unwrap_err().to_string();
            assert!(problem.starts_with("keys[0]: x is "), "{point}: {problem}");
        }
        // No point has the y-coordinate 2.
        let x = BASE64URL.encode(hex::decode(format!("02{}", "00".repeat(31))).unwrap());
        let problem = read(json!({ "kty": "OKP", "crv": "Ed25519", "x": x })).unwrap_err().to_string();
        assert_eq!(problem, "keys[0]: x is no point of Ed25519");
        for (e, good) in [
            ("AQAB", true),
            ("Aw", true),
            ("AAM", true),
            ("AQ", false),
            ("AAE", false),
            ("Ag", false),
            ("", false),
            ("AQAA", false),
        ] {
            let jwk = json!({ "kty": "RSA", "n": rsa["n"], "e": e, "kid": "r" });
            assert_eq!(read(jwk).is_ok(), good, "{e}");
        }
        let short = BASE64URL.encode([&[0x7f], &[0xff_u8; 255][..]].concat());
        let problem = read(json!({ "kty": "RSA", "n": short, "e": "AQAB" })).unwrap_err().to_string();
        assert!(problem.contains("2048 to 8192 bits"), "{problem}");
    }

    #[test]
    fn the_signing_key_is_chosen_as_written() {
        let made = |kid, signs: bool| {
            let mut jwk = generate(NewKey::Ed25519, Some(kid), &Rng::system()).unwrap();
            if !signs {
                jwk.remove("use");
            }
            jwk
        };
        let mut set = KeySet::default();
        set.read(&json!({ "keys": [made("a", false), made("b", true), made("c", true)] }).to_string())
            .unwrap();
        assert_eq!(set.signing(None).unwrap().kid(), "b");
        assert_eq!(set.signing(Some("c")).unwrap().kid(), "c");
        assert!(set.signing(Some("d")).is_none(), "a named key that is missing is not replaced");
    }

    #[test]
    fn bad_sets_are_refused_with_the_place() {
        let good = generate(NewKey::Ed25519, Some("a"), &Rng::system()).unwrap();
        let other = generate(NewKey::Ed25519, Some("b"), &Rng::system()).unwrap();
        let with = |name: &str, value: Value| {
            let mut jwk = good.clone();
            jwk.insert(name.into(), value);
            json!({ "keys": [jwk] })
        };
        for (document, problem) in [
            (json!([]), "keys"),
            (json!({ "keys": {} }), "keys"),
            (with("kty", json!("EC")), "kty"),
            (with("x", other["x"].clone()), "halves"),
            (with("x", json!("???")), "base64url"),
            (with("x", json!("AAAA")), "no point"),
            (with("alg", json!("RS256")), "alg"),
            (json!({ "keys": [good.clone(), good.clone()] }), "keys[1]: another"),
        ] {
            let error = KeySet::default().read(&document.to_string()).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
