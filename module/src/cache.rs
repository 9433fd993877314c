//! Entries of one stream, bounded in bytes and number, for all threads of Envoy together.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;

use crate::config::Fingerprint;
use crate::entry::Entry;

/// Parts of the cache that are locked apart.
const SHARDS: usize = 64;
/// Entries that a thread keeps at hand.
const FRONT_ENTRIES: usize = 256;
/// Largest entry that a thread keeps at hand, in bytes: those are outside of the cache's bound.
const MAX_FRONT_ENTRY_BYTES: u64 = 4 * 1024;

/// Credential under a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheKey {
    /// SHA-256 of the server's seed and the credential.
    pub index: [u8; 32],
    /// Tells policies apart, and hosts where they decide.
    pub policy: Fingerprint,
}

impl std::hash::Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.index);
    }
}

/// Hasher that takes the first eight bytes of what is a hash already.
#[derive(Default)]
pub(crate) struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Map by credential and policy.
pub(crate) type KeyMap<T> = HashMap<CacheKey, T, BuildHasherDefault<PrefixHasher>>;

/// Bounds of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of all entries.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

/// Cache of entries. It evicts those that weren't used since it last came by them.
pub(crate) struct Cache {
    shards: Box<[RwLock<Shard>]>,
    bounds: Bounds,
}

#[derive(Default)]
struct Shard {
    entries: KeyMap<Arc<Entry>>,
    /// Keys of the entries in the order in which eviction comes by; a key of none is skipped.
    order: VecDeque<CacheKey>,
    bytes: u64,
}

impl Cache {
    /// Creates an empty cache.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), bounds }
    }

    fn shard(&self, key: &CacheKey) -> &RwLock<Shard> {
        // The first bytes choose the place in the map.
        &self.shards[usize::from(key.index[31]) % SHARDS]
    }

    /// Returns an entry.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        let entry = self.shard(key).read().entries.get(key).map(Arc::clone)?;
        if !entry.is_recent.load(Ordering::Relaxed) {
            entry.is_recent.store(true, Ordering::Relaxed);
        }
        Some(entry)
    }

    /// Inserts an entry in place of an older one, and evicts others if there are too many.
    pub(crate) fn insert(&self, key: CacheKey, entry: Arc<Entry>) {
        let max = |bound: u64| (bound / SHARDS as u64).max(1);
        let mut shard = self.shard(&key).write();
        shard.bytes += entry.bytes;
        match shard.entries.insert(key, entry) {
            Some(older) => {
                shard.bytes -= older.bytes;
                older.is_removed.store(true, Ordering::Release);
            }
            None => shard.order.push_back(key),
        }
        while shard.bytes > max(self.bounds.bytes) || shard.entries.len() as u64 > max(self.bounds.entries) {
            if !shard.evict() {
                return;
            }
        }
    }

    /// Removes an entry.
    pub(crate) fn remove(&self, key: &CacheKey) {
        self.shard(key).write().remove(key);
    }

    /// Removes all entries for which this is true.
    pub(crate) fn remove_if(&self, is_old: impl Fn(&Entry) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let old: Vec<CacheKey> =
                shard.entries.iter().filter(|(_, entry)| is_old(entry)).map(|(key, _)| *key).collect();
            for key in &old {
                shard.remove(key);
            }
            let Shard { entries, order, .. } = &mut *shard;
            order.retain(|key| entries.contains_key(key));
        }
    }

    /// Returns the bytes and the number of the entries.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (u64, usize) {
        let of = |shard: &RwLock<Shard>| (shard.read().bytes, shard.read().entries.len());
        self.shards.iter().map(of).fold((0, 0), |(bytes, count), (more, one)| (bytes + more, count + one))
    }
}

impl Shard {
    fn remove(&mut self, key: &CacheKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            entry.is_removed.store(true, Ordering::Release);
        }
    }

    /// Removes the next entry that wasn't used since eviction came by. Returns false if there is
    /// none at all.
    fn evict(&mut self) -> bool {
        // Each entry is passed over once at most, so this ends.
        while let Some(key) = self.order.pop_front() {
            let Some(entry) = self.entries.get(&key) else { continue };
            if entry.is_recent.swap(false, Ordering::Relaxed) {
                self.order.push_back(key);
            } else {
                self.remove(&key);
                return true;
            }
        }
        false
    }
}

/// Entry that this thread used lately, and the stream that it belongs to.
type Place = Option<(u64, CacheKey, Arc<Entry>)>;

thread_local! {
    static FRONT: RefCell<[Place; FRONT_ENTRIES]> = const { RefCell::new([const { None }; FRONT_ENTRIES]) };
}

fn place(key: &CacheKey) -> usize {
    usize::from(key.index[16]) % FRONT_ENTRIES
}

/// Returns an entry of a stream that this thread has at hand, unless the cache has removed it.
pub(crate) fn get_recent(stream: u64, key: &CacheKey) -> Option<Arc<Entry>> {
    FRONT.with_borrow(|front| match &front[place(key)] {
        Some((of, kept, entry)) if *of == stream && kept == key => {
            (!entry.is_removed.load(Ordering::Acquire)).then(|| Arc::clone(entry))
        }
        _ => None,
    })
}

/// Keeps an entry at hand for this thread.
pub(crate) fn put_recent(stream: u64, key: CacheKey, entry: &Arc<Entry>) {
    if entry.bytes <= MAX_FRONT_ENTRY_BYTES {
        FRONT.with_borrow_mut(|front| front[place(&key)] = Some((stream, key, Arc::clone(entry))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> CacheKey {
        let mut index = [0; 32];
        index[..8].copy_from_slice(&n.to_le_bytes());
        index[16] = n as u8;
        index[31] = n as u8;
        CacheKey { index, policy: [0; 32] }
    }

    fn entry(bytes: u64) -> Arc<Entry> {
        Arc::new(Entry { bytes, ..Entry::for_tests() })
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let cache = Cache::new(Bounds { bytes: 64_000, entries: 6_400 });
        for n in 0..10_000 {
            cache.insert(key(n), entry(100));
            let (bytes, count) = cache.size();
            assert!(bytes <= 64_000 && count <= 640, "{bytes} bytes, {count} entries");
        }
        let cache = Cache::new(Bounds { bytes: 64_000_000, entries: 128 });
        (0..10_000).for_each(|n| cache.insert(key(n), entry(100)));
        assert_eq!(cache.size(), (12_800, 128));
        // One that is larger than the bound isn't kept.
        cache.insert(key(1), entry(64_000_000));
        assert!(cache.get(&key(1)).is_none());
    }

    #[test]
    fn what_is_used_stays() {
        let cache = Cache::new(Bounds { bytes: 64_000, entries: 6_400 });
        cache.insert(key(0), entry(100));
        for n in (64..64_000).step_by(64) {
            assert!(cache.get(&key(0)).is_some());
            cache.insert(key(n), entry(100));
        }
    }

    #[test]
    fn a_replaced_or_removed_entry_is_in_no_threads_hand() {
        let cache = Cache::new(Bounds { bytes: 64_000, entries: 6_400 });
        let first = entry(100);
        cache.insert(key(1), Arc::clone(&first));
        put_recent(7, key(1), &first);
        assert!(get_recent(7, &key(1)).is_some());
        assert!(get_recent(8, &key(1)).is_none(), "of another stream");
        assert!(get_recent(7, &CacheKey { policy: [1; 32], ..key(1) }).is_none(), "of another policy");
        cache.insert(key(1), entry(100));
        assert!(get_recent(7, &key(1)).is_none());
        let second = cache.get(&key(1)).unwrap();
        put_recent(7, key(1), &second);
        cache.remove(&key(1));
        assert!(get_recent(7, &key(1)).is_none() && cache.get(&key(1)).is_none());
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn old_entries_are_removed_together() {
        let cache = Cache::new(Bounds { bytes: 64_000, entries: 6_400 });
        for n in 0..100 {
            cache.insert(key(n), Arc::new(Entry { bytes: 10, generation: n % 2, ..Entry::for_tests() }));
        }
        cache.remove_if(|entry| entry.generation == 0);
        assert_eq!(cache.size(), (500, 50));
        assert!(cache.get(&key(0)).is_none() && cache.get(&key(1)).is_some());
    }
}
