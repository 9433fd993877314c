//! Model of one instance among others: random steps around the real ledger and the real stamps. The
//! invariant fails for seven wrong variants and holds for the real one, so each part of the
//! protocol is needed.

use super::ledger::{Lease, Ledger};
use super::{PendingStamp, Stamp};
use crate::rng::Rng;

/// Variant of the protocol.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    /// The real protocol.
    Real,
    /// Changed keys are deleted from both caches; entries have no stamps.
    DeleteOnly,
    /// The lease counts from the end of the poll.
    LeaseFromTheEnd,
    /// The number is read after the row, by another statement.
    NumberAfterTheRow,
    /// Entries are used until a TTL ends.
    TtlOnly,
    /// Readers load the slots before the lease.
    ReaderSwapped,
    /// Changes of the actor are no changes of its keys.
    ActorForgotten,
    /// The actor is read before the key, by another statement.
    ActorBeforeTheRow,
}

/// Lease in ticks.
const LEASE: u64 = 4;
const TTL: u64 = 4;
/// Slot of the one key.
const SLOT: usize = 0;
/// Slot of its actor.
const ACTOR: usize = 1;
const STEPS: usize = 60;
/// Forty times as many runs as the rarest wrong variant needs to fail.
const RUNS: u64 = 60_000;

/// State that is read: of the key, and of its actor.
#[derive(Clone, Copy, PartialEq)]
struct Row {
    key_active: bool,
    actor_active: bool,
}

impl Row {
    /// Returns true if the key may be used.
    fn is_active(self) -> bool {
        self.key_active && self.actor_active
    }
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

/// Lookup in the database, between its steps.
#[derive(Clone, Copy)]
enum Fill {
    Idle,
    Begun(PendingStamp),
    /// Only in the variant `NumberAfterTheRow`.
    HasRow(PendingStamp, Row),
    /// Only in the variant `ActorBeforeTheRow`.
    HasActor(PendingStamp, bool),
    Read(PendingStamp, Shared),
    /// Memory is written; the write to Redis may take long.
    WroteMemory(Shared),
}

/// Poll, between its steps.
#[derive(Clone, Copy)]
enum Poll {
    Idle,
    Begun(u64),
    Read(u64, u64),
    TakenIn(u64),
}

/// Check, between its steps.
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
    /// Slot of each change, in the order of their numbers.
    log: Vec<usize>,
    /// Time since which the key may be used, or may not.
    since: u64,
    // Redis.
    shared: Option<Shared>,
    // The instance.
    ledger: Ledger,
    polled: u64,
    memory: Option<Entry>,
    fills: [Fill; 2],
    promotion: Option<(PendingStamp, Shared)>,
    poll: Poll,
    check: Check,
}

impl Model {
    fn new(variant: Variant) -> Self {
        let ledger = Ledger::new(2);
        ledger.extend(Lease { boot: 1, wall: 1 });
        Self {
            variant,
            now: 1,
            counter: 0,
            row: Row { key_active: true, actor_active: true },
            log: vec![],
            since: 0,
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

    /// Runs one step. Returns false if a Check that began after the bound allowed a suspended key,
    /// or refused one that was resumed.
    fn step(&mut self, entropy: u8) -> bool {
        match entropy % 16 {
            0 | 1 => self.now += 1,
            2 => self.change(entropy / 16),
            3..=5 => self.fill(usize::from(entropy) % 2),
            6 | 7 => self.promote(),
            8..=10 => self.poll_on(entropy),
            _ => return self.check_on(),
        }
        true
    }

    /// Another instance suspends or resumes the key or its actor; its announcement may be lost.
    fn change(&mut self, entropy: u8) {
        let before = self.row.is_active();
        let slot = match entropy {
            0..4 => {
                self.row.key_active = !self.row.key_active;
                SLOT
            }
            4..8 => {
                self.row.actor_active = !self.row.actor_active;
                ACTOR
            }
            _ => {
                self.shared = None;
                if self.variant == Variant::DeleteOnly {
                    self.memory = None;
                }
                return;
            }
        };
        self.counter += 1;
        self.log.push(slot);
        if self.row.is_active() != before {
            self.since = self.now;
        }
    }

    fn before_read(&self) -> PendingStamp {
        PendingStamp { before: self.ledger.min_stamp(SLOT), lineage: self.ledger.lineage() }
    }

    fn fill(&mut self, which: usize) {
        self.fills[which] = match self.fills[which] {
            Fill::Idle => Fill::Begun(self.before_read()),
            Fill::Begun(pending) if self.variant == Variant::NumberAfterTheRow => {
                Fill::HasRow(pending, self.row)
            }
            Fill::Begun(pending) if self.variant == Variant::ActorBeforeTheRow => {
                Fill::HasActor(pending, self.row.actor_active)
            }
            Fill::HasActor(pending, actor_active) => {
                Fill::Read(pending, Shared { row: Row { actor_active, ..self.row }, counter: self.counter })
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

    /// Copies from Redis to memory, up to the number that polls have reached.
    fn promote(&mut self) {
        match self.promotion.take() {
            Some((pending, read)) if read.counter <= self.polled => self.remember(pending, read),
            Some(_) => {}
            None => self.promotion = self.shared.map(|read| (self.before_read(), read)),
        }
    }

    fn remember(&mut self, pending: PendingStamp, read: Shared) {
        let stamp = pending.stamp(read.counter);
        self.memory = Some(Entry { row: read.row, stamp, filled: self.now });
    }

    fn poll_on(&mut self, entropy: u8) {
        // Every fourth poll fails somewhere.
        if entropy > 192 {
            self.poll = Poll::Idle;
            return;
        }
        self.poll = match self.poll {
            Poll::Idle => Poll::Begun(self.now),
            Poll::Begun(at) => Poll::Read(at, self.counter),
            Poll::Read(at, newest) => {
                for n in self.polled + 1..=newest {
                    match (self.variant, self.log[n as usize - 1]) {
                        (Variant::DeleteOnly, _) => self.memory = None,
                        (Variant::ActorForgotten, ACTOR) => {}
                        (_, slot) => self.ledger.raise(slot, self.ledger.lineage(), n * 2),
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
                || model.ledger.is_unchanged([SLOT, ACTOR], entry.stamp.at, entry.stamp.lineage)
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

    /// Checks the invariant. What isn't fresh gives no answer.
    fn judge(&self, asked: u64, entry: Entry, is_fresh: bool) -> bool {
        let too_late = asked > self.since + LEASE;
        !(is_fresh && too_late && entry.row.is_active() != self.row.is_active())
    }
}

/// Returns the first runs that break the invariant, at most `enough`.
fn broken_runs(variant: Variant, enough: usize) -> Vec<u64> {
    let broken = |seed: &u64| {
        let steps: [u8; STEPS] = Rng::seeded(*seed).bytes();
        let mut model = Model::new(variant);
        !steps.into_iter().all(|entropy| model.step(entropy))
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
        Variant::ActorForgotten,
        Variant::ActorBeforeTheRow,
    ] {
        // Five failures show that there are enough runs for the real variant.
        let broken = broken_runs(variant, 5);
        assert_eq!(broken.len(), 5, "{variant:?} breaks the invariant only in {broken:?}");
    }
}

#[test]
fn all_parts_of_the_rule_are_enough() {
    assert_eq!(broken_runs(Variant::Real, 1), Vec::<u64>::new());
}
