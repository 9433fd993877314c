//! Entries of one stream, bounded in bytes and number, for all threads of Envoy together.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Fingerprint;
use crate::entry::Entry;
use crate::prefix_hasher::PrefixHasher;

/// Entries that a thread keeps at hand.
const FRONT_ENTRIES: usize = 256;
/// Largest entry that a thread keeps at hand, in bytes: those are outside of the cache's bound.
const MAX_FRONT_ENTRY_BYTES: u64 = 4 * 1024;

/// Removals between two runs of what moka puts off.
const REMOVED_AT_ONCE: usize = 64;
/// Uses of an entry at hand of which the cache is told one: it keeps what is used often.
const TOLD_USE: u32 = 32;

/// Credential under a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheKey {
    /// SHA-256 of the server's seed and the credential.
    pub index: [u8; 32],
    /// Tells policies apart, and hosts where they decide.
    pub policy: Fingerprint,
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.index);
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

/// Cache of entries, for all threads of Envoy together.
pub(crate) struct Cache {
    entries: moka::sync::Cache<CacheKey, Arc<Entry>, BuildHasherDefault<PrefixHasher>>,
}

impl Cache {
    /// Creates an empty cache.
    pub(crate) fn new(bounds: Bounds) -> Self {
        // With a least weight, the bytes bound the number, too.
        let least = bounds.bytes / bounds.entries.max(1);
        let weight =
            move |_: &CacheKey, entry: &Arc<Entry>| u32::try_from(entry.bytes.max(least)).unwrap_or(u32::MAX);
        let entries = moka::sync::Cache::builder()
            .max_capacity(bounds.bytes)
            .weigher(weight)
            .eviction_listener(|_, entry: Arc<Entry>, _| entry.is_removed.store(true, Ordering::Release))
            .build_with_hasher(BuildHasherDefault::default());
        Self { entries }
    }

    /// Returns an entry, which this thread then has at hand. `stream` tells caches apart.
    pub(crate) fn get(&self, stream: u64, key: &CacheKey) -> Option<Arc<Entry>> {
        if let Some((entry, uses)) = get_recent(stream, key) {
            if uses.is_multiple_of(TOLD_USE) {
                self.entries.get(key);
            }
            return Some(entry);
        }
        let entry = self.entries.get(key)?;
        put_recent(stream, *key, &entry);
        Some(entry)
    }

    /// Inserts an entry in place of an older one; others are evicted if there are too many.
    pub(crate) fn insert(&self, key: CacheKey, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
        // What moka puts off, the next caller would do: a thread of Envoy's, while a request waits.
        self.entries.run_pending_tasks();
    }

    /// Removes an entry.
    pub(crate) fn remove(&self, key: &CacheKey) {
        self.entries.invalidate(key);
        self.entries.run_pending_tasks();
    }

    /// Removes all entries for which this is true.
    pub(crate) fn remove_if(&self, is_old: impl Fn(&Entry) -> bool) {
        for (index, (key, _)) in self.entries.iter().filter(|(_, entry)| is_old(entry)).enumerate() {
            self.entries.invalidate(&*key);
            if index % REMOVED_AT_ONCE == 0 {
                self.entries.run_pending_tasks();
            }
        }
        self.entries.run_pending_tasks();
    }

    /// Returns the weight and the number of the entries.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.weighted_size(), self.entries.entry_count())
    }
}

/// Entry that this thread used lately, the stream that it belongs to, and its uses here.
type Place = Option<(u64, CacheKey, Arc<Entry>, u32)>;

thread_local! {
    static FRONT: RefCell<[Place; FRONT_ENTRIES]> = const { RefCell::new([const { None }; FRONT_ENTRIES]) };
}

fn place(key: &CacheKey) -> usize {
    usize::from(key.index[16]) % FRONT_ENTRIES
}

/// Returns an entry of a stream that this thread has at hand, unless the cache has removed it, and
/// the number of its uses.
fn get_recent(stream: u64, key: &CacheKey) -> Option<(Arc<Entry>, u32)> {
    FRONT.with_borrow_mut(|front| match &mut front[place(key)] {
        Some((of, kept, entry, uses)) if *of == stream && kept == key => {
            *uses = uses.wrapping_add(1);
            (!entry.is_removed.load(Ordering::Acquire)).then(|| (Arc::clone(entry), *uses))
        }
        _ => None,
    })
}

/// Keeps an entry at hand for this thread.
fn put_recent(stream: u64, key: CacheKey, entry: &Arc<Entry>) {
    if entry.bytes <= MAX_FRONT_ENTRY_BYTES {
        FRONT.with_borrow_mut(|front| front[place(&key)] = Some((stream, key, Arc::clone(entry), 0)));
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
        assert!(matches!(cache.size(), (_, 100..=128)), "{:?}", cache.size());
        // One that is larger than the bound isn't kept.
        let large = entry(64_000_001);
        cache.insert(key(20_000), Arc::clone(&large));
        cache.size();
        assert!(cache.get(7, &key(20_000)).is_none() && large.is_removed.load(Ordering::Acquire));
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
        assert!(cache.get(7, &key(1)).is_some());
        assert!(get_recent(7, &key(1)).is_some());
        cache.remove(&key(1));
        assert!(cache.get(7, &key(1)).is_none());
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
        assert!(cache.get(7, &key(0)).is_none() && cache.get(7, &key(1)).is_some());
    }

    #[test]
    fn what_a_thread_uses_often_stays() {
        let cache = Cache::new(Bounds { bytes: 64_000_000, entries: 128 });
        for n in 0..100 {
            cache.insert(key(n), entry(100));
        }
        for n in 0..20_000 {
            assert!(cache.get(9, &key(1)).is_some(), "after {n} others");
            // Others that are wanted once, and asked for again at once if they aren't kept.
            cache.get(9, &key(1_000 + n));
            cache.insert(key(1_000 + n), entry(100));
        }
    }
}
