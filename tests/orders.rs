//! Orders in which readers may see the steps of a poll, and of a message to the accelerator, tried
//! by loom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test that can't go on panics"
)]

mod atomic {
    pub use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
}
#[path = "../src/cache/freshness/ledger.rs"]
#[expect(dead_code, reason = "parts that aren't about order")]
mod ledger;
#[path = "../module/src/rule.rs"]
mod rule;

use ledger::{Lease, Ledger};
use loom::sync::Arc;
use loom::thread;
use rule::{Conditions, Rule};

const SLOT: usize = 0;
/// Slot of the key's actor.
const ACTOR: usize = 1;
/// Slots that a row of the key depends on.
const SLOTS: [usize; 2] = [SLOT, ACTOR];
/// Position and lineage of a row that was read before any change, in the first lineage.
const STAMP: (u64, u64) = (0, 0);
/// Position of the first change.
const CHANGE: u64 = 2;
/// Expired lease at the start, and the lease of the poll that brings the change.
const OLD: Lease = Lease { boot: 1, wall: 1 };
const NEW: Lease = Lease { boot: 10, wall: 10 };

fn counts(ledger: &Ledger) -> bool {
    ledger.lease() == NEW
}

/// Validity after a poll has failed.
fn counts_relayed(ledger: &Ledger) -> bool {
    ledger.lease() == NEW || ledger.relayed() == NEW
}

/// Asserts that a row from before the change is never fresh under the lease of the poll that
/// brought the change.
fn never_allows(answer: fn(&Ledger) -> bool, poll: fn(&Ledger)) {
    loom::model(move || {
        let ledger = Arc::new(Ledger::new(2));
        ledger.extend(OLD);
        let polling = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || poll(&ledger))
        };
        assert!(!answer(&ledger), "allowed what the poll had found to be old");
        polling.join().unwrap();
        assert!(!answer(&ledger));
    });
}

fn answer(ledger: &Ledger) -> bool {
    ledger.is_fresh(counts, SLOTS, STAMP.0, STAMP.1)
}

fn answer_relayed(ledger: &Ledger) -> bool {
    ledger.is_fresh(counts_relayed, SLOTS, STAMP.0, STAMP.1)
}

fn poll(ledger: &Ledger) {
    ledger.raise(SLOT, STAMP.1, CHANGE);
    ledger.extend(NEW);
}

#[test]
fn a_reader_of_the_lease_sees_the_change() {
    never_allows(answer, poll);
}

#[test]
fn a_reader_of_the_lease_sees_the_change_of_the_actor() {
    never_allows(answer, |ledger| {
        ledger.raise(ACTOR, STAMP.1, CHANGE);
        ledger.extend(NEW);
    });
}

#[test]
fn a_reader_of_the_relayed_lease_sees_the_change() {
    never_allows(answer_relayed, |ledger| {
        ledger.raise(SLOT, STAMP.1, CHANGE);
        ledger.extend_relayed(NEW);
    });
}

#[test]
fn a_reader_of_the_lease_sees_the_new_lineage() {
    never_allows(answer, |ledger| {
        ledger.next_lineage();
        ledger.extend(NEW);
    });
}

#[test]
fn numbers_that_count_anew_are_no_old_ones() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::new(2));
        ledger.raise(SLOT, STAMP.1, CHANGE);
        let polling = {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || ledger.next_lineage())
        };
        assert!(!ledger.is_fresh(|_| true, SLOTS, STAMP.0, STAMP.1), "the slot forgot, the stamp passed");
        polling.join().unwrap();
    });
}

/// An unknown outcome of the old lineage, with its large numbers, is stored while the new one
/// begins.
#[test]
fn changes_of_an_old_lineage_demand_nothing_of_the_new_one() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::new(2));
        let invalidating = {
            let ledger = Arc::clone(&ledger);
            let lineage = ledger.lineage();
            thread::spawn(move || ledger.raise(SLOT, lineage, 1_000_001))
        };
        ledger.next_lineage();
        let lineage = ledger.lineage();
        assert!(ledger.is_unchanged(SLOTS, 0, lineage));
        invalidating.join().unwrap();
        assert!(ledger.is_unchanged(SLOTS, 0, lineage), "the slot would refuse the key for ever");
        assert_eq!(ledger.min_stamp(SLOT), 0);
    });
}

#[test]
#[should_panic(expected = "allowed what the poll had found to be old")]
fn reading_what_changed_before_the_lease_is_found_out() {
    never_allows(|ledger| ledger.is_unchanged(SLOTS, STAMP.0, STAMP.1) && counts(ledger), poll);
}

#[test]
#[should_panic(expected = "allowed what the poll had found to be old")]
fn writing_the_lease_before_what_changed_is_found_out() {
    never_allows(answer, |ledger| {
        ledger.extend(NEW);
        ledger.raise(SLOT, STAMP.1, CHANGE);
    });
}

#[test]
#[should_panic(expected = "allowed what the poll had found to be old")]
fn writing_the_lease_before_the_change_of_the_actor_is_found_out() {
    never_allows(answer, |ledger| {
        ledger.extend(NEW);
        ledger.raise(ACTOR, STAMP.1, CHANGE);
    });
}

#[test]
#[should_panic(expected = "allowed what the poll had found to be old")]
fn writing_the_lease_of_what_was_relayed_before_the_change_is_found_out() {
    never_allows(answer_relayed, |ledger| {
        ledger.extend_relayed(NEW);
        ledger.raise(SLOT, STAMP.1, CHANGE);
    });
}

/// Knowledge of the accelerator, and the flag of an entry that a thread of Envoy's has at hand.
struct Stream {
    rule: Rule,
    is_removed: atomic::AtomicBool,
}

/// Generations of settings: the entry's, and a later one.
const GENERATION: u64 = 1;
const LATER: u64 = 2;

impl Stream {
    /// Reads as the module does.
    fn answer(&self) -> bool {
        let (lease, is_current) = self.rule.read(&self.conditions());
        lease == NEW && is_current
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            slots: SLOTS,
            lineage: STAMP.1,
            position: STAMP.0,
            generation: GENERATION,
            is_removed: &self.is_removed,
        }
    }
}

/// Asserts that an entry is never used under the lease of a message that came with, or after, what
/// ends it: `steps` are those of the stream's thread.
fn never_uses(answer: fn(&Stream) -> bool, steps: [fn(&Stream); 2]) {
    loom::model(move || {
        let stream = Arc::new(Stream { rule: Rule::new(2), is_removed: atomic::AtomicBool::new(false) });
        stream.rule.set_generation(GENERATION);
        stream.rule.extend(OLD);
        let receiving = {
            let stream = Arc::clone(&stream);
            thread::spawn(move || steps.iter().for_each(|step| step(&stream)))
        };
        assert!(!answer(&stream), "used what had ended before the lease");
        receiving.join().unwrap();
        assert!(!answer(&stream));
    });
}

/// What ends an entry: a change of its key or its actor, other settings, another lineage, and the
/// server's word that only a Check may answer.
const ENDS: [fn(&Stream); 5] = [
    |stream| stream.rule.raise(SLOT, STAMP.1, CHANGE),
    |stream| stream.rule.raise(ACTOR, STAMP.1, CHANGE),
    |stream| stream.rule.set_generation(LATER),
    |stream| stream.rule.reach(STAMP.1 + 1),
    |stream| stream.is_removed.store(true, atomic::Ordering::Release),
];

fn extend(stream: &Stream) {
    stream.rule.extend(NEW);
}

#[test]
fn the_accelerator_sees_what_came_before_its_lease() {
    ENDS.into_iter().for_each(|end| never_uses(Stream::answer, [end, extend]));
}

/// Asserts that a wrong order makes [`never_uses`] fail, in a thread of its own: loom keeps state
/// in the thread that has panicked.
fn is_found_out(answer: fn(&Stream) -> bool, steps: [fn(&Stream); 2]) {
    std::thread::spawn(move || never_uses(answer, steps)).join().expect_err("nothing was found");
}

#[test]
fn a_lease_before_what_came_with_it_is_found_out() {
    for end in ENDS {
        is_found_out(Stream::answer, [extend, end]);
    }
}

#[test]
fn reading_the_lease_last_is_found_out() {
    for end in ENDS {
        let answer: fn(&Stream) -> bool = |stream| {
            let (_, is_current) = stream.rule.read(&stream.conditions());
            let (lease, _) = stream.rule.read(&stream.conditions());
            is_current && lease == NEW
        };
        is_found_out(answer, [end, extend]);
    }
}

#[test]
fn an_older_lease_never_replaces_a_newer_one() {
    loom::model(|| {
        let rule = Arc::new(Rule::new(2));
        rule.extend(NEW);
        rule.extend(OLD);
        let is_removed = atomic::AtomicBool::new(false);
        let conditions = Conditions {
            slots: SLOTS,
            lineage: STAMP.1,
            position: STAMP.0,
            generation: 0,
            is_removed: &is_removed,
        };
        assert_eq!(rule.read(&conditions), (NEW, true));
    });
}
