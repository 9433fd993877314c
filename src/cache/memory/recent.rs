//! Direct-mapped cache of recent entries, one per thread, in front of the shared cache: a hit reads
//! no memory that other cores write.
//!
//! Entries that are found here are checked like any other, by stamp, expiry and settings, so they
//! needn't be invalidated. Cache keys of different caches, which tests create, don't collide: each
//! cache has its own seed.

use std::cell::RefCell;
use std::sync::Arc;

use super::entry::{CacheKey, Entry};

/// Positions per thread: 64 KiB, and at most 16 MiB of entries that the shared cache may have
/// evicted. A cache key has one position; the last entry that is put there replaces the previous
/// one.
const CAPACITY: usize = 4_096;

thread_local! {
    static RECENT: RefCell<DirectMapped<Arc<Entry>>> = const { RefCell::new(DirectMapped(vec![])) };
}

/// Returns an entry of this thread.
pub(super) fn get(key: &CacheKey) -> Option<Arc<Entry>> {
    RECENT.with_borrow(|recent| recent.get(key).filter(|entry| entry.is_of(key)).cloned())
}

/// Puts an entry in its position.
pub(super) fn put(entry: &Arc<Entry>) {
    RECENT.with_borrow_mut(|recent| recent.put(&entry.cache_key(), Arc::clone(entry)));
}

/// Removes an entry of this thread.
pub(super) fn remove(key: &CacheKey) {
    RECENT.with_borrow_mut(|recent| recent.remove(key));
}

/// Table with one position per key and no chains; allocated when something is first put there.
struct DirectMapped<T>(Vec<Option<(u64, T)>>);

impl<T> DirectMapped<T> {
    /// Returns the value of a key, or of one with the same [`tag`]. Those of others are told from
    /// it here, without reading their memory.
    fn get(&self, key: &CacheKey) -> Option<&T> {
        self.0.get(position(key))?.as_ref().and_then(|(kept, value)| (*kept == tag(key)).then_some(value))
    }

    fn put(&mut self, key: &CacheKey, value: T) {
        if self.0.is_empty() {
            self.0.resize_with(CAPACITY, || None);
        }
        self.0[position(key)] = Some((tag(key), value));
    }

    fn remove(&mut self, key: &CacheKey) {
        if self.get(key).is_some() {
            self.0[position(key)] = None;
        }
    }
}

/// Returns the position of a key, from other bytes than those that the shared cache hashes.
fn position(key: &CacheKey) -> usize {
    let [.., a, b] = key.digest;
    usize::from(u16::from_le_bytes([a, b])) % CAPACITY
}

/// Returns the part of a digest by which most others are told from it.
fn tag(key: &CacheKey) -> u64 {
    let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = key.digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::NetworkId;

    #[test]
    fn a_position_has_the_last_entry_put_there_and_returns_it_only_for_its_key() {
        let key = |first, position: u16| {
            let mut digest = [first; 32];
            digest[30..].copy_from_slice(&position.to_le_bytes());
            CacheKey { network: NetworkId::SINGLE, digest }
        };
        let (one, another, elsewhere) = (key(1, 7), key(2, 7), key(1, 8));
        let mut recent = DirectMapped(vec![]);
        assert_eq!(recent.get(&one), None);
        recent.put(&one, "one");
        for other in [another, elsewhere] {
            assert_eq!(recent.get(&other), None);
            recent.remove(&other);
        }
        assert_eq!(recent.get(&one), Some(&"one"));
        recent.put(&another, "another");
        assert_eq!((recent.get(&one), recent.get(&another)), (None, Some(&"another")));
        recent.remove(&another);
        assert_eq!(recent.get(&another), None);
        recent.put(&key(1, u16::MAX), "last");
        assert_eq!(size_of::<Option<(u64, Arc<Entry>)>>() * CAPACITY, 64 * 1024);
    }
}
