//! A model of one instance among others, its steps in random order, around the real ledger and the real stamps. What
//! the invariant finds in five wrong variants, and doesn't find in ours, is why each part of it is there.

use super::ledger::{Lease, Ledger};
use super::{Pending, Stamp};
use crate::rng::Rng;

/// How the instance works.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    /// As it does.
    Real,
    /// What changed is deleted from both caches; entries carry no stamps.
    DeleteOnly,
    /// The lease counts from the end of the poll.
    LeaseFromTheEnd,
    /// The number is read after the row, in a statement of its own.
    NumberAfterTheRow,
    /// Entries are used until they are old.
    TtlOnly,
    /// What changed is read before the lease.
    ReaderSwapped,
}

/// Time is in ticks.
const LEASE: u64 = 4;
const TTL: u64 = 4;
/// The one slot that all is about.
const SLOT: usize = 0;
const STEPS: usize = 60;
/// Forty times as many as the last of the wrong variants needs to be found.
const RUNS: u64 = 60_000;

#[derive(Clone, Copy)]
struct Row {
    active: bool,
}

#[derive(Clone, Copy)]
struct Shared {
    row: Row,
    counter: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    row: Row,
    stamp: Stamp,
    filled: u64,
}

/// A lookup in the database, between its steps.
#[derive(Clone, Copy)]
enum Fill {
    Idle,
    Begun(Pending),
    /// Of the wrong variant alone.
    HasRow(Pending, Row),
    Read(Pending, Shared),
    /// Its way into Redis can be slow: a write behind.
    WroteMemory(Shared),
}

/// A poll, between its steps.
#[derive(Clone, Copy)]
enum Poll {
    Idle,
    Begun(u64),
    Read(u64, u64),
    TakenIn(u64),
}

/// A Check, between its steps.
#[derive(Clone, Copy)]
enum Check {
    Idle,
    Found { asked: u64, entry: Entry },
    LeaseRead { asked: u64, entry: Entry },
    ChangesRead { asked: u64, entry: Entry },
}

struct Model {
    variant: Variant,
    now: u64,
    // The database.
    counter: u64,
    row: Row,
    revoked: Option<u64>,
    // Redis.
    shared: Option<Shared>,
    // The instance.
    ledger: Ledger,
    polled: u64,
    memory: Option<Entry>,
    fills: [Fill; 2],
    promotion: Option<(Pending, Shared)>,
    poll: Poll,
    check: Check,
}

impl Model {
    fn new(variant: Variant) -> Self {
        let ledger = Ledger::new(1);
        ledger.extend(Lease { boot: 1, wall: 1 });
        Self {
            variant,
            now: 1,
            counter: 0,
            row: Row { active: true },
            revoked: None,
            shared: None,
            ledger,
            polled: 0,
            memory: None,
            fills: [Fill::Idle; 2],
            promotion: None,
            poll: Poll::Idle,
            check: Check::Idle,
        }
    }

    /// One step of whoever is next. False when a revoked key was allowed by a Check that was asked after the bound.
    fn step(&mut self, chance: u8) -> bool {
        match chance % 16 {
            0 | 1 => self.now += 1,
            2 => self.revoke(chance),
            3..=5 => self.fill(usize::from(chance) % 2),
            6 | 7 => self.promote(),
            8..=10 => self.poll_on(chance),
            _ => return self.check_on(),
        }
        true
    }

    /// Another instance revokes the key; its word to Redis may get lost.
    fn revoke(&mut self, chance: u8) {
        if self.revoked.is_none() {
            self.counter += 1;
            self.row.active = false;
            self.revoked = Some(self.now);
            return;
        }
        if chance < 128 {
            self.shared = None;
            if self.variant == Variant::DeleteOnly {
                self.memory = None;
            }
        }
    }

    fn begin(&self) -> Pending {
        Pending { before: self.ledger.needed(SLOT), lineage: self.ledger.lineage() }
    }

    fn fill(&mut self, which: usize) {
        self.fills[which] = match self.fills[which] {
            Fill::Idle => Fill::Begun(self.begin()),
            Fill::Begun(pending) if self.variant == Variant::NumberAfterTheRow => {
                Fill::HasRow(pending, self.row)
            }
            Fill::Begun(pending) => Fill::Read(pending, Shared { row: self.row, counter: self.counter }),
            Fill::HasRow(pending, row) => Fill::Read(pending, Shared { row, counter: self.counter }),
            Fill::Read(pending, read) => {
                self.remember(pending, read);
                Fill::WroteMemory(read)
            }
            Fill::WroteMemory(read) => {
                self.shared = Some(read);
                Fill::Idle
            }
        };
    }

    /// From Redis to memory. Only what the polls have caught up with is believed.
    fn promote(&mut self) {
        match self.promotion.take() {
            Some((pending, read)) if read.counter <= self.polled => self.remember(pending, read),
            Some(_) => {}
            None => self.promotion = self.shared.map(|read| (self.begin(), read)),
        }
    }

    fn remember(&mut self, pending: Pending, read: Shared) {
        let stamp = pending.stamp(read.counter);
        self.memory = Some(Entry { row: read.row, stamp, filled: self.now });
    }

    fn poll_on(&mut self, chance: u8) {
        // Every fourth fails somewhere.
        if chance > 192 {
            self.poll = Poll::Idle;
            return;
        }
        self.poll = match self.poll {
            Poll::Idle => Poll::Begun(self.now),
            Poll::Begun(at) => Poll::Read(at, self.counter),
            Poll::Read(at, newest) => {
                if newest > self.polled {
                    match self.variant {
                        Variant::DeleteOnly => self.memory = None,
                        _ => self.ledger.raise(SLOT, self.ledger.lineage(), newest * 2),
                    }
                }
                self.polled = newest;
                Poll::TakenIn(at)
            }
            Poll::TakenIn(at) => {
                let from = if self.variant == Variant::LeaseFromTheEnd { self.now } else { at };
                self.ledger.extend(Lease { boot: from, wall: 0 });
                Poll::Idle
            }
        };
    }

    fn check_on(&mut self) -> bool {
        let lease_counts = |model: &Self| model.now - model.ledger.lease().boot <= LEASE;
        let unchanged = |model: &Self, entry: Entry| {
            model.variant == Variant::DeleteOnly
                || model.ledger.is_unchanged(SLOT, entry.stamp.at, entry.stamp.lineage)
        };
        let check = self.check;
        self.check = Check::Idle;
        match check {
            Check::Idle => {
                let asked = self.now;
                self.check = self.memory.map_or(Check::Idle, |entry| Check::Found { asked, entry });
                true
            }
            Check::Found { asked, entry } => match self.variant {
                Variant::TtlOnly => self.judge(asked, entry, self.now - entry.filled <= TTL),
                Variant::ReaderSwapped => {
                    if unchanged(self, entry) {
                        self.check = Check::ChangesRead { asked, entry };
                    }
                    true
                }
                _ => {
                    if lease_counts(self) {
                        self.check = Check::LeaseRead { asked, entry };
                    }
                    true
                }
            },
            Check::LeaseRead { asked, entry } => self.judge(asked, entry, unchanged(self, entry)),
            Check::ChangesRead { asked, entry } => self.judge(asked, entry, lease_counts(self)),
        }
    }

    /// The invariant.
    fn judge(&self, asked: u64, entry: Entry, allowed: bool) -> bool {
        let too_late = self.revoked.is_some_and(|revoked| asked > revoked + LEASE);
        !(allowed && entry.row.active && too_late)
    }
}

/// The first runs in which the invariant is broken, no more of them than `enough`.
fn broken_runs(variant: Variant, enough: usize) -> Vec<u64> {
    let broken = |seed: &u64| {
        let chances: [u8; STEPS] = Rng::seeded(*seed).bytes();
        let mut model = Model::new(variant);
        !chances.into_iter().all(|chance| model.step(chance))
    };
    (0..RUNS).filter(broken).take(enough).collect()
}

#[test]
fn each_part_of_the_rule_is_needed() {
    for variant in [
        Variant::DeleteOnly,
        Variant::LeaseFromTheEnd,
        Variant::NumberAfterTheRow,
        Variant::TtlOnly,
        Variant::ReaderSwapped,
    ] {
        // More than one, so that the number of runs is known to be large enough for ours.
        let broken = broken_runs(variant, 5);
        assert_eq!(broken.len(), 5, "{variant:?} looks as good as ours, but for {broken:?}");
    }
}

#[test]
fn all_parts_of_the_rule_are_enough() {
    assert_eq!(broken_runs(Variant::Real, 1), Vec::<u64>::new());
}
