//! Generation of JSON Web Keys, for Talos to sign with and for other programs.

use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use pkcs1::UintRef;
use pkcs1::der::Decode;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::jwk::{published, thumbprint};
use crate::rng::Rng;

/// Private members of all key types.
pub const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// Type of a key to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewKey {
    /// Ed25519, for EdDSA.
    Ed25519,
    /// RSA.
    Rsa {
        /// Length: 2048, 3072, 4096 or 8192 bits.
        bits: u16,
        /// Signature algorithm. Talos signs only with RS256.
        algorithm: RsaAlgorithm,
    },
    /// Elliptic curve, for ECDSA. Talos doesn't use it.
    Ec(Curve),
    /// Random bytes, for HMAC. Talos doesn't use them.
    Symmetric {
        /// Length: 256 to 4096 bits, a multiple of 8.
        bits: u16,
    },
}

/// Signature algorithm of an RSA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
}

/// NIST curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// For ES256.
    P256,
    /// For ES384.
    P384,
    /// For ES512.
    P521,
}

impl RsaAlgorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }
}

impl Curve {
    const fn row(self) -> (&'static str, &'static str, &'static EcdsaSigningAlgorithm) {
        match self {
            Self::P256 => ("P-256", "ES256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            Self::P384 => ("P-384", "ES384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            Self::P521 => ("P-521", "ES512", &ECDSA_P521_SHA512_FIXED_SIGNING),
        }
    }
}

const UNABLE: &str = "the machine could not make a key";

/// Generates a private JWK. `kid` defaults to the RFC 7638 thumbprint.
///
/// # Errors
/// Fails with a description if the size is not allowed or no key can be generated.
pub fn generate(new: NewKey, kid: Option<&str>, rng: &Rng) -> Result<Map<String, Value>, &'static str> {
    let (jwk, alg) = match new {
        NewKey::Ed25519 => (ed25519(rng).ok_or(UNABLE)?, "EdDSA"),
        NewKey::Rsa { bits, algorithm } => {
            let size = match bits {
                2048 => KeySize::Rsa2048,
                3072 => KeySize::Rsa3072,
                4096 => KeySize::Rsa4096,
                8192 => KeySize::Rsa8192,
                _ => return Err("the size of an RSA key must be 2048, 3072, 4096 or 8192 bits"),
            };
            (rsa(size).ok_or(UNABLE)?, algorithm.name())
        }
        NewKey::Ec(curve) => {
            let (name, alg, algorithm) = curve.row();
            (elliptic(name, algorithm).ok_or(UNABLE)?, alg)
        }
        NewKey::Symmetric { bits } if !(256..=4096).contains(&bits) || bits % 8 != 0 => {
            return Err("the size of a symmetric key must be 256 to 4096 bits and a multiple of 8");
        }
        NewKey::Symmetric { bits } => (symmetric(bits, rng), hmac_algorithm(bits)),
    };
    let kid = match kid {
        Some(kid) => kid.to_owned(),
        None => {
            let parsed = serde_json::from_value(jwk.clone()).map_err(|_| UNABLE)?;
            thumbprint(&parsed).ok_or(UNABLE)?
        }
    };
    match published(jwk, &kid, alg) {
        Value::Object(members) => Ok(members),
        _ => Err(UNABLE),
    }
}

/// Removes the private members of a JWK.
pub fn without_private(jwk: &mut Map<String, Value>) {
    for name in PRIVATE {
        jwk.shift_remove(name);
    }
}

fn ed25519(rng: &Rng) -> Option<Value> {
    let seed = Zeroizing::new(rng.bytes::<32>());
    let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).ok()?;
    let x = BASE64URL.encode(pair.public_key().as_ref());
    let d = BASE64URL.encode(seed.as_slice());
    Some(json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "d": d }))
}

fn rsa(size: KeySize) -> Option<Value> {
    let pair = RsaKeyPair::generate(size).ok()?;
    let pkcs8 = pair.as_der().ok()?;
    let info = pkcs8::PrivateKeyInfoRef::from_der(pkcs8.as_ref()).ok()?;
    let key = pkcs1::RsaPrivateKey::from_der(info.private_key.as_bytes()).ok()?;
    let text = |number: UintRef<'_>| BASE64URL.encode(number.as_bytes());
    Some(json!({
        "kty": "RSA",
        "n": text(key.modulus),
        "e": text(key.public_exponent),
        "d": text(key.private_exponent),
        "p": text(key.prime1),
        "q": text(key.prime2),
        "dp": text(key.exponent1),
        "dq": text(key.exponent2),
        "qi": text(key.coefficient),
    }))
}

fn elliptic(curve: &str, algorithm: &'static EcdsaSigningAlgorithm) -> Option<Value> {
    let pair = EcdsaKeyPair::generate(algorithm).ok()?;
    // Uncompressed point: 4, then x and y, each as long as the field.
    let (x, y) = match pair.public_key().as_ref() {
        [4, point @ ..] if point.len() % 2 == 0 => point.split_at(point.len() / 2),
        _ => return None,
    };
    let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().ok()?;
    // RFC 7518 demands the length of a coordinate, with leading zeros.
    if scalar.as_ref().len() != x.len() {
        return None;
    }
    let text = |bytes: &[u8]| BASE64URL.encode(bytes);
    Some(json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y), "d": text(scalar.as_ref()) }))
}

fn symmetric(bits: u16, rng: &Rng) -> Value {
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::from(bits) / 8 + 32));
    while bytes.len() < usize::from(bits) / 8 {
        bytes.extend_from_slice(&*Zeroizing::new(rng.bytes::<32>()));
    }
    bytes.truncate(usize::from(bits) / 8);
    json!({ "kty": "oct", "k": BASE64URL.encode(bytes.as_slice()) })
}

const fn hmac_algorithm(bits: u16) -> &'static str {
    match bits {
        ..384 => "HS256",
        384..512 => "HS384",
        512.. => "HS512",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;

    fn member(jwk: &Map<String, Value>, name: &str) -> Vec<u8> {
        BASE64URL.decode(jwk[name].as_str().unwrap()).unwrap()
    }

    #[test]
    fn both_halves_of_an_elliptic_key_belong_together() {
        for (curve, length, alg) in
            [(Curve::P256, 32, "ES256"), (Curve::P384, 48, "ES384"), (Curve::P521, 66, "ES512")]
        {
            let jwk = generate(NewKey::Ec(curve), None, &Rng::system()).unwrap();
            let (x, y, d) = (member(&jwk, "x"), member(&jwk, "y"), member(&jwk, "d"));
            assert_eq!([x.len(), y.len(), d.len()], [length; 3]);
            assert_eq!(jwk["alg"], alg);
            let point: Vec<u8> = [4].into_iter().chain(x).chain(y).collect();
            let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.row().2, &d, &point).unwrap();
            assert!(pair.sign(&SystemRandom::new(), b"message").is_ok());
        }
    }

    #[test]
    fn symmetric_keys_have_the_asked_size() {
        for (bits, alg) in [(256, "HS256"), (384, "HS384"), (504, "HS384"), (512, "HS512"), (4096, "HS512")] {
            let jwk = generate(NewKey::Symmetric { bits }, None, &Rng::seeded(1)).unwrap();
            assert_eq!(member(&jwk, "k").len() * 8, usize::from(bits));
            assert_eq!(jwk["alg"], alg);
        }
        for bits in [0, 128, 248, 255, 257, 4104] {
            assert!(generate(NewKey::Symmetric { bits }, None, &Rng::seeded(1)).is_err(), "{bits}");
        }
    }

    #[test]
    fn the_public_half_has_no_private_member() {
        let rsa = NewKey::Rsa { bits: 2048, algorithm: RsaAlgorithm::Ps256 };
        for new in [NewKey::Ed25519, rsa, NewKey::Ec(Curve::P256)] {
            let mut jwk = generate(new, Some("a"), &Rng::system()).unwrap();
            without_private(&mut jwk);
            assert!(PRIVATE.iter().all(|name| !jwk.contains_key(*name)), "{jwk:?}");
            assert_eq!(jwk["kid"], "a");
        }
    }

    #[test]
    fn the_kid_is_the_thumbprint_of_the_rfc() {
        // RFC 8037, appendix A.3.
        let jwk =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let parsed = serde_json::from_value(jwk).unwrap();
        assert_eq!(thumbprint(&parsed).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
