//! Entries of the cache, and their keys.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::responses::ResponseCache;
use crate::cache::freshness::{Slot, Stamp};
use crate::clock::Timestamp;
use crate::key::{Key, KeyId, NetworkId};

/// SHA-256 over a seed of this process and a credential.
pub type Digest = [u8; 32];

/// Key of an entry: the network, and SHA-256 over a seed of this process and the whole credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKey {
    pub(super) network: NetworkId,
    pub(super) digest: Digest,
}

impl CacheKey {
    /// Returns the digest of seed and credential.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the key under which moka has the entry.
    pub(super) fn short(&self) -> ShortKey {
        let network = u128::from_ne_bytes(*self.network.as_bytes());
        let (digest, _) = self.digest.as_chunks::<16>();
        let digest = digest.first().map_or(0, |first| u128::from_ne_bytes(*first));
        ShortKey((digest ^ network).to_ne_bytes())
    }

    /// Makes the key from the digest that another process made with
    /// [`MemoryCache::seed`](super::MemoryCache::seed).
    pub const fn new(network: NetworkId, digest: [u8; 32]) -> Self {
        Self { network, digest }
    }
}

impl Hash for CacheKey {
    /// Hashes the first eight bytes of the digest only: it is a seeded hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.digest[..8]);
    }
}

/// First half of a digest, with the network mixed in. The entry itself has all of both, and is
/// compared with them: two credentials with the same half only evict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShortKey([u8; 16]);

impl Hash for ShortKey {
    /// Hashes the first eight bytes only: they are a seeded hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0[..8]);
    }
}

/// Key whose credential was presented and verified.
pub struct Entry {
    /// Digest of its key in the cache.
    pub digest: Digest,
    /// Row of the key.
    pub key: Arc<Key>,
    /// Log position up to which the row is known to be current.
    pub stamp: Stamp,
    /// Slots in which later changes of the key and of its actor are noted.
    pub slot: Slot,
    /// Generation of the settings under which the credential was verified.
    pub generation: u64,
    /// Time after which the row is read again.
    pub soft_expiry: Timestamp,
    /// Time after which the entry must not be used, whatever else holds.
    pub hard_expiry: Option<Timestamp>,
    /// End of the key by an issuance policy of that generation.
    pub policy_end: Option<Timestamp>,
    /// Last recorded use.
    pub last_use: LastUse,
    /// Encoded responses that allow requests with this key.
    pub responses: ResponseCache,
    /// Dynamic metadata about the key, encoded when a request with it is first denied.
    pub denied_metadata: OnceLock<Box<Bytes>>,
    /// Bytes by which it counts against the bound.
    pub weight: Weight,
}

/// Weight of an entry, in bytes, as of when it was last weighed.
#[derive(Debug, Default)]
pub struct Weight(AtomicU32);

impl Weight {
    /// Returns the weight; 0 before the first weighing.
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the weight.
    pub(super) fn set(&self, bytes: u32) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

impl Entry {
    /// Returns the time from which on the key is refused, as far as that is known now.
    pub fn end(&self) -> Option<Timestamp> {
        self.hard_expiry.into_iter().chain(self.policy_end).min()
    }

    /// Returns true if it is the entry of this key.
    pub(super) fn is_of(&self, key: &CacheKey) -> bool {
        self.digest == key.digest && self.key.network == key.network
    }

    /// Returns its key in the cache.
    pub(super) fn cache_key(&self) -> CacheKey {
        CacheKey { network: self.key.network, digest: self.digest }
    }
}

/// Time of a key's last recorded use, as far as this process knows.
#[derive(Default)]
pub struct LastUse(AtomicI64);

impl LastUse {
    /// Takes the time from a row; `None` if the key was never used.
    pub fn new(last_used: Option<Timestamp>) -> Self {
        Self(AtomicI64::new(last_used.map_or(i64::MIN, Timestamp::as_micros)))
    }

    /// Claims the recording of a use. Returns true for the first caller that is at least
    /// `precision` after the last recorded use; that caller must record its use.
    pub fn try_claim(&self, now: Timestamp, precision: Duration) -> bool {
        let recorded = self.0.load(Ordering::Relaxed);
        let is_due = recorded <= now.minus(precision).as_micros();
        // A plain load comes first: on the hot path there is nothing to record.
        is_due
            && self
                .0
                .compare_exchange(recorded, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Takes a claim back, so that the next use is recorded.
    pub fn reset(&self) {
        self.0.store(i64::MIN, Ordering::Relaxed);
    }
}

impl Clone for LastUse {
    fn clone(&self) -> Self {
        Self(AtomicI64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// Id that the database doesn't have.
#[derive(Debug, Clone, Copy)]
pub struct NegativeEntry {
    /// The unknown id.
    pub key_id: KeyId,
    /// Log position up to which the id is known to be unknown.
    pub stamp: Stamp,
    /// Number of changes of the server that polls came from, before the lookup.
    pub servers: u64,
    /// Slots in which changes are noted that create the key, by its id or one of its digests.
    pub slots: [Slot; 3],
    /// Generation of the settings under which the id was looked up.
    pub generation: u64,
    /// Time after which the id is looked up again.
    pub expires: Timestamp,
}
