//! L1: verified keys, and unknown ids, in this process.

mod entry;
mod prefix_hasher;
mod recent;
mod responses;
mod template;
mod weight;

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use entry::ShortKey;
pub use entry::{CacheKey, Digest, Entry, LastUse, NegativeEntry, Weight};
use moka::ops::compute::Op;
use prefix_hasher::PrefixHasher;
pub use responses::{CachedResponse, EncodedResponse, ResponseCache};
pub use template::{Conditions, Half, SplitResponse, Templates};

use crate::key::NetworkId;
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
    entries: Cache<ShortKey, Arc<Entry>, BuildHasherDefault<PrefixHasher>>,
    templates: Arc<Templates>,
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
                .weigher(|_, entry: &Arc<Entry>| entry.weigh())
                .build_with_hasher(BuildHasherDefault::default()),
            templates: Arc::default(),
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
        self.entries.get(&key.short()).filter(|entry| entry.is_of(key))
    }

    /// Returns an entry that this thread has used lately.
    pub fn get_recent(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        recent::get(key)
    }

    /// Keeps an entry for the next request with the same credential on this thread.
    pub fn put_recent(&self, entry: &Arc<Entry>) {
        if entry.weight.get() <= MAX_RECENT_ENTRY_BYTES {
            recent::put(entry);
        }
    }

    /// Removes an entry from those of this thread; it stays in the shared cache.
    pub fn remove_recent(&self, key: &CacheKey) {
        recent::remove(key);
    }

    /// Inserts an entry. It takes over the encoded responses of the previous one if that is for the
    /// same state of the same key.
    pub fn insert(&self, entry: Arc<Entry>) {
        let key = entry.cache_key();
        if let Some(older) = self.get(&key)
            && older.key.mutation == entry.key.mutation
            && older.stamp.same_lineage(entry.stamp)
            && older.end() == entry.end()
        {
            entry.responses.copy_from(&older.responses);
        }
        self.entries.insert(key.short(), entry);
    }

    /// Weighs an entry again, which has got another encoded response, if it is still there.
    pub fn weigh_again(&self, entry: &Arc<Entry>) {
        let key = entry.cache_key().short();
        // Putting it again is how moka weighs it again.
        self.entries.entry_by_ref(&key).and_compute_with(|found| match found {
            Some(found) if Arc::ptr_eq(found.value(), entry) => Op::Put(Arc::clone(entry)),
            _ => Op::Nop,
        });
    }

    /// Returns what the encoded responses of all keys share.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Removes an entry.
    pub fn remove(&self, key: &CacheKey) {
        self.entries.invalidate(&key.short());
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

    /// Returns the approximate number of bytes of all keys, as they count against the bound.
    pub fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    /// Does what the cache has put off, so that its numbers are exact and what it evicted is freed.
    pub fn settle(&self) {
        self.entries.run_pending_tasks();
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

#[cfg(test)]
mod tests;
