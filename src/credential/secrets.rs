//! HMAC secrets, and the keys derived from them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::key::SecretId;

/// HMAC-SHA256 with its key schedule computed.
pub type HmacSha256 = Hmac<Sha256>;

/// Returns HMAC-SHA256 of `message` under `key`.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    keyed(key).chain_update(message).finalize().into_bytes().into()
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// A secret with its derived keys.
#[derive(Clone)]
pub struct HmacSecret {
    id: SecretId,
    keyed: HmacSha256,
    page_key: [u8; 32],
    macaroons: HmacSha256,
    cache: HmacSha256,
    requests: HmacSha256,
    expires: Option<Timestamp>,
}

impl HmacSecret {
    /// Derives the keys of a secret that stops verifying at `expires`.
    pub fn new(secret: &[u8], expires: Option<Timestamp>) -> Self {
        // libmacaroons doesn't use the root key as it is, but an HMAC of it under this text.
        let root_key = hmac_sha256(secret, b"talos/macaroon/v1/root-key");
        let macaroon_key = hmac_sha256(b"macaroons-key-generator", &root_key);
        let fingerprint = hmac_sha256(secret, b"talos/secret-id/v1");
        let [a, b, c, d, e, f, g, h, ..] = fingerprint;
        Self {
            id: SecretId::new([a, b, c, d, e, f, g, h]),
            keyed: keyed(secret),
            page_key: hmac_sha256(secret, b"talos/pagination/v1/cursor-key"),
            macaroons: keyed(&macaroon_key),
            cache: keyed(&hmac_sha256(secret, b"talos/cache/v1")),
            requests: keyed(&hmac_sha256(secret, b"talos/request-seal/v1")),
            expires,
        }
    }

    /// Returns the id, which doesn't reveal the secret.
    pub const fn id(&self) -> SecretId {
        self.id
    }

    /// Returns the HMAC of issued keys, without input.
    pub fn mac(&self) -> HmacSha256 {
        self.keyed.clone()
    }

    /// Returns the key of page tokens.
    pub const fn page_key(&self) -> &[u8; 32] {
        &self.page_key
    }

    /// Returns the HMAC that begins the signature of a macaroon, without input.
    pub fn macaroon_mac(&self) -> HmacSha256 {
        self.macaroons.clone()
    }

    /// Returns the HMAC of shared cache entries, without input.
    pub fn cache_mac(&self) -> HmacSha256 {
        self.cache.clone()
    }

    /// Returns the HMAC of request seals, without input.
    pub fn request_mac(&self) -> HmacSha256 {
        self.requests.clone()
    }

    /// Returns the time at which it stops verifying.
    pub const fn expires(&self) -> Option<Timestamp> {
        self.expires
    }
}

/// The current secret, and retired ones, which still verify.
#[derive(Clone)]
pub struct HmacSecrets {
    current: HmacSecret,
    retired: Vec<HmacSecret>,
}

impl HmacSecrets {
    /// Creates the set. `current` signs and verifies, `retired` only verify.
    pub const fn new(current: HmacSecret, retired: Vec<HmacSecret>) -> Self {
        Self { current, retired }
    }

    /// Returns the secret that signs.
    pub const fn current(&self) -> &HmacSecret {
        &self.current
    }

    /// Returns the retired secrets, expired ones included.
    pub fn retired(&self) -> &[HmacSecret] {
        &self.retired
    }

    /// Returns the secrets that verify at `now`, the current one first.
    pub fn verifying(&self, now: Timestamp) -> impl Iterator<Item = &HmacSecret> {
        let in_force = move |secret: &&HmacSecret| secret.expires.is_none_or(|at| now < at);
        std::iter::once(&self.current).chain(self.retired.iter().filter(in_force))
    }
}

impl std::fmt::Debug for HmacSecrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "HmacSecrets(1 + {} retired)", self.retired.len())
    }
}
