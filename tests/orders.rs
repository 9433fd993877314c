//! Orders in which readers may see the steps of a poll, tried by loom.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test that can't go on panics"
)]

mod atomic {
    pub use loom::sync::atomic::{AtomicI64, AtomicU64, Ordering};
}
#[path = "../src/cache/freshness/ledger.rs"]
#[expect(dead_code, reason = "parts that aren't about order")]
mod ledger;

use ledger::{Lease, Ledger};
use loom::sync::Arc;
use loom::thread;

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
