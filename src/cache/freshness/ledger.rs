//! What those who answer and the one who polls share without a lock, and in which order they touch it.
//!
//! Who answers reads the lease first, then what changed. Who polls writes what changed first, then the lease. So whoever
//! finds the lease of a poll finds all that this poll brought. Slots are numbers here and nothing else of ours is known:
//! `tests/orders.rs` takes this file as it is, and tries all orders in which threads can see each other's steps.

use super::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

/// Since when the lease counts, by two clocks, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// Boot time; 0 before the first poll.
    pub boot: u64,
    /// Wall time, against a clock that is set.
    pub wall: i64,
}

/// Whether a poll begun after the lease's end has failed.
const NOT_TRIED: u8 = 0;
const POLL_FAILED: u8 = 1;

pub(super) struct Ledger {
    /// For each slot what an answer must have been stamped with at least.
    slots: Box<[AtomicU64]>,
    lineage: AtomicU64,
    lease_boot: AtomicU64,
    lease_wall: AtomicI64,
    lapse: AtomicU8,
}

impl Ledger {
    pub fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            lineage: AtomicU64::new(0),
            lease_boot: AtomicU64::new(0),
            lease_wall: AtomicI64::new(0),
            lapse: AtomicU8::new(NOT_TRIED),
        }
    }

    /// Whether an answer of that stamp may be given while the lease is such that `counts` is true of it.
    pub fn allows(&self, counts: impl FnOnce(Lease) -> bool, slot: usize, at: u64, lineage: u64) -> bool {
        counts(self.lease()) && self.is_unchanged(slot, at, lineage)
    }

    /// The lease in force.
    pub fn lease(&self) -> Lease {
        let boot = self.lease_boot.load(Ordering::Acquire);
        Lease { boot, wall: self.lease_wall.load(Ordering::Relaxed) }
    }

    /// Whether nothing has changed since that stamp.
    pub fn is_unchanged(&self, slot: usize, at: u64, lineage: u64) -> bool {
        self.needed(slot) <= at && self.lineage() == lineage
    }

    /// What an answer of that slot must be stamped with at least.
    pub fn needed(&self, slot: usize) -> u64 {
        self.slots[slot].load(Ordering::Acquire)
    }

    /// The history of the database that is known here.
    pub fn lineage(&self) -> u64 {
        self.lineage.load(Ordering::Acquire)
    }

    /// From here on, nothing older will do in that slot.
    pub fn raise(&self, slot: usize, at: u64) {
        self.slots[slot].fetch_max(at, Ordering::AcqRel);
    }

    /// Another history: what was read before doesn't count any more, and numbers are small again.
    pub fn begin_anew(&self) {
        self.next_lineage();
        for slot in &self.slots {
            slot.store(0, Ordering::Release);
        }
    }

    /// What was read up to now doesn't count any more.
    pub fn next_lineage(&self) {
        self.lineage.fetch_add(1, Ordering::AcqRel);
    }

    /// The lease counts from there, once all that the poll brought is taken in.
    pub fn extend(&self, lease: Lease) {
        self.lease_wall.store(lease.wall, Ordering::Relaxed);
        self.lease_boot.store(lease.boot, Ordering::Release);
        self.lapse.store(NOT_TRIED, Ordering::Release);
    }

    /// Notes that a poll begun after the lease's end has failed.
    pub fn note_failure(&self) {
        self.lapse.store(POLL_FAILED, Ordering::Release);
    }

    /// Whether one has.
    pub fn has_failed(&self) -> bool {
        self.lapse.load(Ordering::Acquire) == POLL_FAILED
    }
}
