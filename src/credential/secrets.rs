//! The HMAC secrets and what is keyed with them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;

/// HMAC-SHA256 whose key schedule is done.
pub type HmacSha256 = Hmac<Sha256>;

/// HMAC-SHA256 of `message` under `key`.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    keyed(key).chain_update(message).finalize().into_bytes().into()
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// One HMAC secret, ready for use.
#[derive(Clone)]
pub struct HmacSecret {
    keyed: HmacSha256,
    page_key: [u8; 32],
    macaroons: HmacSha256,
    cache: HmacSha256,
    expires: Option<Timestamp>,
}

impl HmacSecret {
    /// Prepares the raw bytes of a secret that stops verifying at `expires`.
    pub fn new(secret: &[u8], expires: Option<Timestamp>) -> Self {
        // libmacaroons takes no root key as it is: this text keys an HMAC of it.
        let root_key = hmac_sha256(secret, b"talos/macaroon/v1/root-key");
        let macaroon_key = hmac_sha256(b"macaroons-key-generator", &root_key);
        Self {
            keyed: keyed(secret),
            page_key: hmac_sha256(secret, b"talos/pagination/v1/cursor-key"),
            macaroons: keyed(&macaroon_key),
            cache: keyed(&hmac_sha256(secret, b"talos/cache/v1")),
            expires,
        }
    }

    /// An HMAC over nothing yet.
    pub fn mac(&self) -> HmacSha256 {
        self.keyed.clone()
    }

    /// The key that seals page tokens.
    pub const fn page_key(&self) -> &[u8; 32] {
        &self.page_key
    }

    /// An HMAC over nothing yet, which begins the signature of a macaroon.
    pub fn macaroon_mac(&self) -> HmacSha256 {
        self.macaroons.clone()
    }

    /// An HMAC over nothing yet, for what is put into the shared cache.
    pub fn cache_mac(&self) -> HmacSha256 {
        self.cache.clone()
    }

    /// When it stops verifying.
    pub const fn expires(&self) -> Option<Timestamp> {
        self.expires
    }
}

/// The current secret and the retired ones, which still verify.
#[derive(Clone)]
pub struct HmacSecrets {
    current: HmacSecret,
    retired: Vec<HmacSecret>,
}

impl HmacSecrets {
    /// `current` makes and verifies, `retired` only verify.
    pub const fn new(current: HmacSecret, retired: Vec<HmacSecret>) -> Self {
        Self { current, retired }
    }

    /// The one that makes.
    pub const fn current(&self) -> &HmacSecret {
        &self.current
    }

    /// Those that verify at `now`, the current one first.
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
