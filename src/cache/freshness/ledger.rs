//! What those who answer and the one who polls share without a lock, and in which order they touch it.
//!
//! Who answers reads the lease first, then what changed. Who polls writes what changed first, then the lease. So whoever
//! finds the lease of a poll finds all that this poll brought. Slots are numbers here and nothing else of ours is known:
//! `tests/orders.rs` takes this file as it is, and tries all orders in which threads can see each other's steps.

use super::atomic::{AtomicI64, AtomicU64, Ordering};

/// Since when the lease counts, by two clocks, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// Boot time; 0 before there was anything to count.
    pub boot: u64,
    /// Wall time, against a clock that is set.
    pub wall: i64,
}

/// Bits of a slot that hold a number of the log, twice; those above hold the lineage that it belongs to.
const AT_BITS: u32 = 44;

pub(super) struct Ledger {
    /// For each slot what an answer must have been stamped with at least, and in which lineage. What belongs to an
    /// older lineage than the one in force demands nothing any more, however late it was written.
    slots: Box<[AtomicU64]>,
    lineage: AtomicU64,
    polled: AtomicLease,
    relayed: AtomicLease,
    /// Boot time at which it was last found, after the lease's end, that nobody can be asked; 0 when somebody can.
    outage: AtomicU64,
}

/// A lease that is replaced now and then.
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

    /// Whoever finds the new boot time finds what was taken in before, and the new wall time.
    fn store(&self, lease: Lease) {
        self.wall.store(lease.wall, Ordering::Relaxed);
        self.boot.store(lease.boot, Ordering::Release);
    }
}

impl Ledger {
    pub fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            lineage: AtomicU64::new(0),
            polled: AtomicLease::none(),
            relayed: AtomicLease::none(),
            outage: AtomicU64::new(0),
        }
    }

    /// Whether an answer of that stamp may be given, if what `counts` reads of the leases says that they count.
    pub fn allows(&self, counts: impl FnOnce(&Self) -> bool, slot: usize, at: u64, lineage: u64) -> bool {
        counts(self) && self.is_unchanged(slot, at, lineage)
    }

    /// The lease of the last poll.
    pub fn lease(&self) -> Lease {
        self.polled.load()
    }

    /// The lease of what another instance relayed last.
    pub fn relayed(&self) -> Lease {
        self.relayed.load()
    }

    /// Whether nothing has changed since that stamp.
    pub fn is_unchanged(&self, slot: usize, at: u64, lineage: u64) -> bool {
        self.slots[slot].load(Ordering::Acquire) <= packed(lineage, at) && self.lineage() == lineage
    }

    /// What an answer of that slot must be stamped with at least, in the lineage in force.
    pub fn needed(&self, slot: usize) -> u64 {
        let needed = self.slots[slot].load(Ordering::Acquire);
        if needed >> AT_BITS == self.lineage() { needed & ((1 << AT_BITS) - 1) } else { 0 }
    }

    /// The history of the database that is known here.
    pub fn lineage(&self) -> u64 {
        self.lineage.load(Ordering::Acquire)
    }

    /// From here on, nothing older will do in that slot, as long as the lineage is that one.
    pub fn raise(&self, slot: usize, lineage: u64, at: u64) {
        self.slots[slot].fetch_max(packed(lineage, at), Ordering::AcqRel);
    }

    /// Another history: what was read up to now doesn't count any more, and numbers may be small again.
    pub fn next_lineage(&self) {
        self.lineage.fetch_add(1, Ordering::AcqRel);
    }

    /// The lease counts from there, once all that the poll brought is taken in.
    pub fn extend(&self, lease: Lease) {
        self.polled.store(lease);
        self.outage.store(0, Ordering::Release);
    }

    /// The other lease counts from there, once all that was relayed is taken in.
    pub fn extend_relayed(&self, lease: Lease) {
        self.relayed.store(lease);
    }

    /// Notes that nobody can be asked, at that boot time.
    pub fn note_outage(&self, boot: u64) {
        self.outage.store(boot.max(1), Ordering::Release);
    }

    /// When that was found last; None when somebody can be asked, as far as is known.
    pub fn outage(&self) -> Option<u64> {
        Some(self.outage.load(Ordering::Acquire)).filter(|boot| *boot != 0)
    }
}

/// A stamp as slots hold it: a later lineage is more than any number of an earlier one.
const fn packed(lineage: u64, at: u64) -> u64 {
    let most = (1 << AT_BITS) - 1;
    lineage << AT_BITS | if at < most { at } else { most }
}
