//! Atomic state that readers and polls share without a lock, and the order in which they access it.
//!
//! Readers load the lease first, then the slots. Polls store the slots first, then the lease. So
//! whoever loads the lease of a poll sees all changes that this poll brought. Slots are plain
//! numbers here, and nothing else of the crate is used: `tests/orders.rs` includes this file, and
//! tries all orders in which threads can see each other's steps.

use super::atomic::{AtomicI64, AtomicU64, Ordering};

/// Start of a lease by two clocks, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// Boot time; 0 before the first lease.
    pub boot: u64,
    /// Wall time, which may be set.
    pub wall: i64,
}

/// Bits of a slot for the position in the log; the bits above are for the lineage.
const AT_BITS: u32 = 44;

/// Slots, leases and the last outage.
pub(super) struct Ledger {
    /// Least stamp of a fresh row, for each slot. A value of an older lineage demands nothing any
    /// more, however late it was stored.
    slots: Box<[AtomicU64]>,
    lineage: AtomicU64,
    polled: AtomicLease,
    relayed: AtomicLease,
    /// Boot time at which an outage was last found after the lease expired; 0 if there is none.
    outage: AtomicU64,
}

/// Lease that is replaced now and then.
struct AtomicLease {
    boot: AtomicU64,
    wall: AtomicI64,
}

impl AtomicLease {
    fn none() -> Self {
        Self { boot: AtomicU64::new(0), wall: AtomicI64::new(0) }
    }

    fn load(&self) -> Lease {
        let boot = self.boot.load(Ordering::Acquire);
        Lease { boot, wall: self.wall.load(Ordering::Relaxed) }
    }

    /// Stores a lease. Whoever loads the new boot time sees all earlier stores, the wall time among
    /// them.
    fn store(&self, lease: Lease) {
        self.wall.store(lease.wall, Ordering::Relaxed);
        self.boot.store(lease.boot, Ordering::Release);
    }
}

impl Ledger {
    /// Creates a ledger without a lease.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            lineage: AtomicU64::new(0),
            polled: AtomicLease::none(),
            relayed: AtomicLease::none(),
            outage: AtomicU64::new(0),
        }
    }

    /// Returns true if a row with this stamp is fresh, under leases that `is_valid`. A row depends
    /// on two slots: that of its key and that of its actor.
    pub(super) fn is_fresh(
        &self,
        is_valid: impl FnOnce(&Self) -> bool,
        slots: [usize; 2],
        at: u64,
        lineage: u64,
    ) -> bool {
        is_valid(self) && self.is_unchanged(slots, at, lineage)
    }

    /// Returns the lease of the last poll.
    pub(super) fn lease(&self) -> Lease {
        self.polled.load()
    }

    /// Returns the relayed lease.
    pub(super) fn relayed(&self) -> Lease {
        self.relayed.load()
    }

    /// Returns true if nothing in the slots has changed since that stamp.
    pub(super) fn is_unchanged(&self, slots: [usize; 2], at: u64, lineage: u64) -> bool {
        let stamp = pack(lineage, at);
        slots.iter().all(|slot| self.slots[*slot].load(Ordering::Acquire) <= stamp)
            && self.lineage() == lineage
    }

    /// Returns the least position of a fresh row in the slot, in the current lineage.
    pub(super) fn min_stamp(&self, slot: usize) -> u64 {
        let stored = self.slots[slot].load(Ordering::Acquire);
        if stored >> AT_BITS == self.lineage() { stored & ((1 << AT_BITS) - 1) } else { 0 }
    }

    /// Returns the value of a slot: a later lineage, or position, is greater.
    pub(super) fn value(&self, slot: usize) -> u64 {
        self.slots[slot].load(Ordering::Acquire)
    }

    /// Returns the number of slots.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the current lineage.
    pub(super) fn lineage(&self) -> u64 {
        self.lineage.load(Ordering::Acquire)
    }

    /// Raises the least position in a slot, for rows of one lineage.
    pub(super) fn raise(&self, slot: usize, lineage: u64, at: u64) {
        self.slots[slot].fetch_max(pack(lineage, at), Ordering::AcqRel);
    }

    /// Starts another lineage: earlier rows aren't fresh any more, and numbers may be small again.
    pub(super) fn next_lineage(&self) {
        self.lineage.fetch_add(1, Ordering::AcqRel);
    }

    /// Replaces the lease; to be called after all changes of the poll are stored.
    pub(super) fn extend(&self, lease: Lease) {
        self.polled.store(lease);
        self.outage.store(0, Ordering::Release);
    }

    /// Replaces the relayed lease; to be called after all relayed changes are stored.
    pub(super) fn extend_relayed(&self, lease: Lease) {
        self.relayed.store(lease);
    }

    /// Records that an outage was found at that boot time.
    pub(super) fn record_outage(&self, boot: u64) {
        self.outage.store(boot.max(1), Ordering::Release);
    }

    /// Returns the boot time at which an outage was last found; `None` if there is none.
    pub(super) fn outage(&self) -> Option<u64> {
        Some(self.outage.load(Ordering::Acquire)).filter(|boot| *boot != 0)
    }
}

/// Packs a stamp into a slot's value: a later lineage is greater than any position of an earlier
/// one.
pub(super) const fn pack(lineage: u64, at: u64) -> u64 {
    let max = (1 << AT_BITS) - 1;
    lineage << AT_BITS | if at < max { at } else { max }
}
