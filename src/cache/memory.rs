//! L1: verified keys, and unknown ids, in this process.

mod entry;
mod prefix_hasher;
mod recent;
mod responses;

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use moka::sync::Cache;
use sha2::{Digest, Sha256};

pub use entry::{CacheKey, Entry, LastUse, NegativeEntry};
use prefix_hasher::PrefixHasher;
pub use responses::{CachedResponse, EncodedResponse, ResponseCache};

use crate::key::{Key, NetworkId, Suspension};
use crate::rng::Rng;

/// Largest entry, in bytes, that threads keep a reference to: such references are held outside of
/// the cache's bound.
const MAX_RECENT_ENTRY_BYTES: u32 = 4 * 1024;

/// Cache in this process; clones share it. Keys are bounded by bytes. Unknown ids are bounded by
/// number and have a cache of their own: a flood of them doesn't evict keys.
#[derive(Clone)]
pub struct MemoryCache {
    /// SHA-256 midstate seeded with random bytes, so that cache keys differ per process.
    seed: Sha256,
    /// Those bytes.
    seed_bytes: [u8; 64],
    entries: Cache<CacheKey, Arc<Entry>, BuildHasherDefault<PrefixHasher>>,
    negative: Cache<CacheKey, NegativeEntry, BuildHasherDefault<PrefixHasher>>,
}

impl MemoryCache {
    /// Creates a cache of at most `max_bytes` of keys and `max_negative` unknown ids.
    pub fn new(max_bytes: u64, max_negative: u64, rng: &Rng) -> Self {
        // A whole block of SHA-256, so that the seed costs nothing per key.
        let seed_bytes = rng.bytes::<64>();
        Self {
            seed: Sha256::new().chain_update(seed_bytes),
            seed_bytes,
            entries: Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, entry: &Arc<Entry>| weight(&entry.key))
                .build_with_hasher(BuildHasherDefault::default()),
            negative: Cache::builder()
                .max_capacity(max_negative)
                .build_with_hasher(BuildHasherDefault::default()),
        }
    }

    /// Returns the cache key of a credential. The credential itself is stored nowhere.
    pub fn cache_key(&self, network: NetworkId, credential: &str) -> CacheKey {
        let digest = self.seed.clone().chain_update(credential).finalize().into();
        CacheKey { network, digest }
    }

    /// Returns the seed of cache keys, for the one other process that makes them itself.
    pub fn seed(&self) -> &[u8; 64] {
        &self.seed_bytes
    }

    /// Returns an entry.
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    /// Returns an entry that this thread has used lately.
    pub fn get_recent(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        recent::get(key)
    }

    /// Keeps an entry for the next request with the same credential on this thread.
    pub fn put_recent(&self, key: CacheKey, entry: &Arc<Entry>) {
        if weight(&entry.key) <= MAX_RECENT_ENTRY_BYTES {
            recent::put(key, Arc::clone(entry));
        }
    }

    /// Removes an entry from those of this thread; it stays in the shared cache.
    pub fn remove_recent(&self, key: &CacheKey) {
        recent::remove(key);
    }

    /// Inserts an entry. It takes over the encoded responses of the previous one if that is for the
    /// same state of the key.
    pub fn insert(&self, key: CacheKey, entry: Arc<Entry>) {
        if let Some(older) = self.entries.get(&key)
            && older.key.mutation == entry.key.mutation
            && older.stamp.same_lineage(entry.stamp)
            && older.end() == entry.end()
        {
            entry.responses.copy_from(&older.responses);
        }
        self.entries.insert(key, entry);
    }

    /// Removes an entry.
    pub fn remove(&self, key: &CacheKey) {
        self.entries.invalidate(key);
    }

    /// Returns a negative entry.
    pub fn get_negative(&self, key: &CacheKey) -> Option<NegativeEntry> {
        self.negative.get(key)
    }

    /// Inserts a negative entry.
    pub fn insert_negative(&self, key: CacheKey, entry: NegativeEntry) {
        self.negative.insert(key, entry);
    }

    /// Returns the approximate number of keys.
    pub fn len(&self) -> u64 {
        self.entries.entry_count()
    }

    /// Returns the approximate number of unknown ids.
    pub fn negative_len(&self) -> u64 {
        self.negative.entry_count()
    }

    /// Returns true if there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Estimates the bytes of an entry, including its encoded response.
fn weight(key: &Key) -> u32 {
    const FIXED: usize = 1_400;
    let scopes: usize = key.scopes.iter().map(|scope| scope.as_str().len() + 16).sum();
    let metadata = key.metadata.as_ref().map_or(0, |metadata| metadata.json().len());
    let texts = key.name.as_str().len() + key.actor.as_str().len();
    // Each text is held four times: in the row, the headers, the metadata and the encoded token.
    let callers = key.provenance.names_len();
    let suspended = |one: &Option<Arc<Suspension>>| one.as_ref().map_or(0, |one| one.to_stored().len());
    let suspensions = suspended(&key.suspensions.own) + suspended(&key.suspensions.of_actor);
    let bytes = FIXED
        + callers
        + suspensions
        + 4 * scopes
        + 4 * metadata
        + 4 * texts
        + 32 * key.addresses.iter().count();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
