//! The rule of use: what Envoy's threads read of an entry's conditions, and what the stream's
//! thread writes, in an order by which whoever sees the lease of a message sees all that came
//! with it and before it.
//!
//! `tests/orders.rs` of the product includes this file, and tries all orders in which threads can
//! see each other's steps.

use super::atomic::{AtomicBool, AtomicU64, Ordering};
use super::ledger::{Lease, Ledger};

/// Slots, lease and generation of one stream.
pub(super) struct Rule {
    ledger: Ledger,
    /// Generation of the settings in force; 0 for none.
    generation: AtomicU64,
    /// Boot time of the lease that was stored last. This and the next one are for the stream's
    /// thread alone: what others read is only written by it, never read.
    stored_boot: AtomicU64,
    /// Lineage that was stored last.
    stored_lineage: AtomicU64,
}

/// Conditions of an entry, beside time and address.
pub(super) struct Conditions<'a> {
    /// Slots of the key and of its actor.
    pub slots: [usize; 2],
    /// Lineage of the stamp.
    pub lineage: u64,
    /// Position of the stamp.
    pub position: u64,
    /// Generation of the settings by which the entry was made.
    pub generation: u64,
    /// True once the cache has removed the entry, while a thread may have it at hand.
    pub is_removed: &'a AtomicBool,
}

impl Rule {
    /// Creates the rule of a new stream, without a lease.
    pub(super) fn new(slots: usize) -> Self {
        let zero = || AtomicU64::new(0);
        let (generation, stored_boot, stored_lineage) = (zero(), zero(), zero());
        Self { ledger: Ledger::new(slots), generation, stored_boot, stored_lineage }
    }

    /// Returns the lease, and true if nothing is known under it that ends the entry. The lease is
    /// read first.
    pub(super) fn read(&self, entry: &Conditions<'_>) -> (Lease, bool) {
        let lease = self.ledger.lease();
        let is_unchanged = self.ledger.is_unchanged(entry.slots, entry.position, entry.lineage);
        let is_current = self.generation() == entry.generation;
        (lease, is_unchanged && is_current && !entry.is_removed.load(Ordering::Acquire))
    }

    /// Returns the generation of the settings in force; 0 for none.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Ends all entries of other generations.
    pub(super) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Begins the lineage of a stamp, if it is a later one: that ends the entries of earlier ones.
    pub(super) fn reach(&self, lineage: u64) {
        let stored = self.stored_lineage.fetch_max(lineage, Ordering::Relaxed);
        (stored..lineage).for_each(|_| self.ledger.next_lineage());
    }

    /// Applies the new value of a slot, before the lease that it came with.
    pub(super) fn raise(&self, slot: usize, lineage: u64, position: u64) {
        self.ledger.raise(slot, lineage, position);
    }

    /// Extends the lease, after all that came with it is applied. An earlier one than that in force
    /// is ignored.
    pub(super) fn extend(&self, lease: Lease) {
        if lease.boot > self.stored_boot.fetch_max(lease.boot, Ordering::Relaxed) {
            self.ledger.extend(lease);
        }
    }
}
