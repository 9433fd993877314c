//! Weights of entries: the bytes that they take in memory.

use std::mem::{size_of, size_of_val};
use std::sync::Arc;

use super::entry::Entry;
use crate::key::{Credits, Key, RatePolicies, Revocation, Suspension, UnusedGrace};

/// Bytes of the counters of an `Arc`.
const COUNTERS: usize = 16;
/// Share by which the allocator rounds sizes up: 1 / this.
const ROUNDING: usize = 16;
/// Bytes that moka takes for an entry: its key, its place in the table and in the queue, its times.
const OF_MOKA: usize = 248;

impl Entry {
    /// Computes its weight, and returns it.
    pub(super) fn weigh(&self) -> u32 {
        let weight = u32::try_from(of_entry(self)).unwrap_or(u32::MAX);
        self.weight.set(weight);
        weight
    }
}

/// Returns the bytes that an entry takes, its row and its encoded responses included.
fn of_entry(entry: &Entry) -> usize {
    let denied = entry.denied_metadata.get().map_or(0, |bytes| size_of_val(bytes) + 32 + bytes.len());
    let bytes = COUNTERS + size_of::<Entry>() + of_row(&entry.key) + entry.responses.heap_bytes() + denied;
    OF_MOKA + bytes + bytes / ROUNDING
}

/// Returns the bytes of a row.
fn of_row(key: &Key) -> usize {
    let suspended = |one: &Option<Arc<Suspension>>| one.as_ref().map_or(0, |one| of_suspension(one));
    let policies = |one: &RatePolicies| match one.as_slice() {
        [] => 0,
        all => COUNTERS + size_of_val(all),
    };
    let revocation = key.revocation.as_ref().map_or(0, |revocation| {
        size_of::<Revocation>() + revocation.description.as_ref().map_or(0, |text| text.len())
    });
    COUNTERS
        + size_of::<Key>()
        + shared_text(key.name.as_str().len())
        + shared_text(key.actor.as_str().len())
        + key.scopes.heap_bytes()
        + key.metadata.as_ref().map_or(0, |metadata| shared_text(metadata.json().len()))
        + key.addresses.heap_bytes()
        + policies(&key.rate_policies)
        + policies(&key.actor_limits)
        + key.credits.as_ref().map_or(0, |_| COUNTERS + size_of::<Credits>())
        + revocation
        + key.unused_grace.as_ref().map_or(0, |_| size_of::<UnusedGrace>())
        + suspended(&key.suspensions.own)
        + suspended(&key.suspensions.of_actor)
        + key.provenance.heap_bytes()
}

fn of_suspension(one: &Suspension) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| shared_text(text.len()));
    COUNTERS + size_of::<Suspension>() + text(&one.reason) + text(&one.by)
}

/// Returns the bytes of an `Arc<str>`.
fn shared_text(len: usize) -> usize {
    (COUNTERS + len).next_multiple_of(8)
}
