//! What each thread has used lately, in front of the tier that all share: found without a word that another core writes.
//!
//! An entry that is found here is judged like any other, by its stamp, its expiry and the settings that it was proven
//! under, so nobody has to be told when it won't do any more. Indexes of different tiers, which tests have, can't meet:
//! each has a seed of its own.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Entry, Index};

/// Places of a thread: 300 KB, and 16 MiB of entries at most, as the shared tier counts them. Each credential has one, which the last of those
/// that share it is in.
const PLACES: usize = 4_096;

thread_local! {
    static RECENT: RefCell<Places<Arc<Entry>>> = const { RefCell::new(Places(vec![])) };
}

/// The entry that this thread has there.
pub fn get(index: &Index) -> Option<Arc<Entry>> {
    RECENT.with_borrow(|places| places.get(index).cloned())
}

/// Keeps an entry, in the place of another.
pub fn put(index: Index, entry: Arc<Entry>) {
    RECENT.with_borrow_mut(|places| places.put(index, entry));
}

/// Has it no more.
pub fn forget(index: &Index) {
    RECENT.with_borrow_mut(|places| places.forget(index));
}

/// A table without chains; there is none until something is put there.
struct Places<T>(Vec<Option<(Index, T)>>);

impl<T> Places<T> {
    fn get(&self, index: &Index) -> Option<&T> {
        self.0.get(place(index))?.as_ref().and_then(|(kept, value)| (kept == index).then_some(value))
    }

    fn put(&mut self, index: Index, value: T) {
        if self.0.is_empty() {
            self.0.resize_with(PLACES, || None);
        }
        self.0[place(&index)] = Some((index, value));
    }

    fn forget(&mut self, index: &Index) {
        if self.get(index).is_some() {
            self.0[place(index)] = None;
        }
    }
}

/// Not by the bytes that the shared tier goes by first: any others will do.
fn place(index: &Index) -> usize {
    let [.., a, b] = index.credential;
    usize::from(u16::from_le_bytes([a, b])) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::NetworkId;

    #[test]
    fn a_place_has_what_was_put_there_last_and_gives_it_to_nobody_else() {
        let index = |first, place: u16| {
            let mut credential = [first; 32];
            credential[30..].copy_from_slice(&place.to_le_bytes());
            Index { network: NetworkId::SINGLE, credential }
        };
        let (one, another, elsewhere) = (index(1, 7), index(2, 7), index(1, 8));
        let mut places = Places(vec![]);
        assert_eq!(places.get(&one), None);
        places.put(one, "one");
        for other in [another, elsewhere] {
            assert_eq!(places.get(&other), None);
            places.forget(&other);
        }
        assert_eq!(places.get(&one), Some(&"one"));
        places.put(another, "another");
        assert_eq!((places.get(&one), places.get(&another)), (None, Some(&"another")));
        places.forget(&another);
        assert_eq!(places.get(&another), None);
        places.put(index(1, u16::MAX), "last");
    }
}
