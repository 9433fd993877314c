//! What each thread has used lately, in front of the tier that all share: found without a word that another core writes.
//!
//! It needs no upkeep. An entry that is found here is judged like any other, by its stamp, its expiry and the settings
//! that it was proven under; one that won't do any more stays until another takes its place. Indexes of different
//! tiers, which tests have, can't meet: each has a seed of its own.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Entry, Index};

/// Places of a thread: 300 KB, and with the largest entries 16 MiB. A credential has one, which the last to ask for it
/// has.
const PLACES: usize = 4_096;

type Place = Option<(Index, Arc<Entry>)>;

thread_local! {
    static RECENT: RefCell<Vec<Place>> = const { RefCell::new(vec![]) };
}

/// The entry that this thread has there.
pub fn get(index: &Index) -> Option<Arc<Entry>> {
    RECENT.with_borrow(|places| match places.get(place(index)) {
        Some(Some((kept, entry))) if kept == index => Some(Arc::clone(entry)),
        _ => None,
    })
}

/// Keeps an entry, in the place of the one before.
pub fn put(index: Index, entry: Arc<Entry>) {
    RECENT.with_borrow_mut(|places| {
        if places.is_empty() {
            places.resize_with(PLACES, || None);
        }
        places[place(&index)] = Some((index, entry));
    });
}

/// Not by the bytes that the shared tier goes by first: any others will do.
fn place(index: &Index) -> usize {
    let [.., a, b] = index.credential;
    usize::from(u16::from_le_bytes([a, b])) % PLACES
}
