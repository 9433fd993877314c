//! A model of the relay: one instance that can't reach the database any more, one that can, and a Redis that shows
//! whatever anybody has ever written to it. The instances are real, their steps come in random order. What the invariant
//! finds in the wrong variants, and doesn't find in ours, is why each part of the rule is there.

use std::time::Duration;

use super::ledger::Lease;
use super::poll::lease_from;
use super::{Answer, Asker, Freshness, Mode, Question, Slot, Stamp, Terms};
use crate::clock::{Clock, Timestamp};
use crate::key::{KeyId, NetworkId};
use crate::rng::Rng;
use crate::store::Logged;

/// How the instances work.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    /// As they do.
    Real,
    /// What was relayed counts from the moment in which it is heard.
    LeaseFromTheHearing,
    /// The other one reads the questions after the log.
    QuestionsAfterTheLog,
    /// It reads them after its connection was opened, whose server may be the primary no longer.
    QuestionsAfterTheConnection,
    /// Any answer is one to us.
    AnyNonce,
    /// What is missing before the answer's part is not asked after.
    GapsAllowed,
}

const TICK: Duration = Duration::from_secs(1);
const TERMS: Terms =
    Terms { lease: Duration::from_secs(3), poll: RUN, relay: Duration::from_secs(2), grace: Duration::ZERO };
/// Longer than a run: that the database can't be reached stays known for all of it.
const RUN: Duration = Duration::from_secs(1_000);
const STEPS: usize = 80;
const RUNS: u64 = 40_000;
/// A second key's changes only make the log longer.
const KEYS: [KeyId; 2] = [KeyId::Imported([1; 32]), KeyId::Imported([2; 32])];

/// A poll of the other one, between its steps.
enum Poll {
    Idle,
    /// Connected, with the questions and the log of that moment.
    Connected(Vec<Question>, Vec<Logged>),
    /// The same, with the questions that had been asked when the statement was sent.
    Asked(Vec<Question>, Vec<Logged>),
    Read(Vec<Question>, Vec<Logged>),
}

struct Model<'a> {
    variant: Variant,
    clock: &'a Clock,
    rng: &'a Rng,
    /// The database.
    log: Vec<Logged>,
    revoked: Option<Timestamp>,
    /// Redis, and all that was ever in it.
    question: Option<Question>,
    answers: Vec<Answer>,
    /// The one that can poll.
    other: &'a Freshness,
    poll: Poll,
    /// The one that can't.
    cut_off: &'a Freshness,
    asker: Asker,
    /// Asked, and on its way to Redis.
    asked: Option<Question>,
    /// The key as it was when both could.
    entry: Stamp,
}

impl<'a> Model<'a> {
    /// Long after the run before, and numbers go on: nothing of that counts any more.
    fn new(
        variant: Variant,
        clock: &'a Clock,
        rng: &'a Rng,
        cut_off: &'a Freshness,
        other: &'a Freshness,
    ) -> Self {
        clock.advance(RUN);
        let first =
            Logged { n: cut_off.polled() + 1_000, tag: u128::from_be_bytes(rng.bytes()), subject: None };
        for freshness in [cut_off, other] {
            let mut tail = freshness.tail();
            tail.clear();
            tail.push(first.clone());
            freshness.polled.store(first.n, super::Ordering::Release);
            freshness.ledger.extend(now(clock));
        }
        let entry = cut_off.begin(slot()).stamp(first.n);
        cut_off.ledger.note_outage(clock.boot_now().as_micros());
        Self {
            variant,
            clock,
            rng,
            log: vec![first],
            revoked: None,
            question: None,
            answers: vec![],
            other,
            poll: Poll::Idle,
            cut_off,
            asker: Asker::default(),
            asked: None,
            entry,
        }
    }

    /// One step of whoever is next. False when the revoked key was allowed later than the bound says.
    fn step(&mut self, chance: u8) -> bool {
        match chance % 16 {
            0..=2 => self.clock.advance(TICK),
            3 => self.change(usize::from(chance / 16) % 2),
            4..=6 => self.ask(),
            7..=10 => self.poll_on(chance / 16 < 4),
            11..=13 => self.hear(usize::from(chance / 16)),
            _ => return self.check(),
        }
        true
    }

    fn change(&mut self, which: usize) {
        let n = self.log.last().map_or(0, |last| last.n) + 1;
        let subject = Some((NetworkId::SINGLE, KEYS[which]));
        self.log.push(Logged { n, tag: u128::from_be_bytes(self.rng.bytes()), subject });
        if which == 0 && self.revoked.is_none() {
            self.revoked = Some(self.clock.now());
        }
    }

    fn ask(&mut self) {
        match self.asked.take() {
            None => self.asked = self.asker.ask(self.cut_off, self.rng),
            Some(asked) => self.question = Some(asked),
        }
    }

    /// Takes the next step of the other one's poll. A demoted server shows the log as it was when the connection was
    /// opened: that is the oldest it can show, as the connection reached the primary then.
    fn poll_on(&mut self, is_demoted: bool) {
        let asked = self.question.into_iter().collect();
        self.poll = match std::mem::replace(&mut self.poll, Poll::Idle) {
            Poll::Idle => Poll::Connected(asked, self.log.clone()),
            Poll::Connected(known, log) => match self.variant {
                Variant::QuestionsAfterTheConnection => Poll::Asked(asked, log),
                _ => Poll::Asked(known, log),
            },
            Poll::Asked(questions, log) if is_demoted => Poll::Read(questions, log),
            Poll::Asked(questions, _) => Poll::Read(questions, self.log.clone()),
            Poll::Read(questions, read) => {
                assert!(self.other.follow(&read));
                let questions = match self.variant {
                    Variant::QuestionsAfterTheLog => asked,
                    _ => questions,
                };
                self.answers.extend(self.other.answer(&questions));
                Poll::Idle
            }
        };
    }

    /// Mostly the newest answer, sometimes an old one, or what somebody cut out of one.
    fn hear(&mut self, which: usize) {
        let Some(newest) = self.answers.last() else {
            return;
        };
        let mut answer = match which {
            0..8 => newest.clone(),
            _ => self.answers[which % self.answers.len()].clone(),
        };
        match self.variant {
            Variant::LeaseFromTheHearing => {
                if self.asker.hear(self.cut_off, &answer) {
                    self.cut_off.ledger.extend_relayed(now(self.clock));
                }
                return;
            }
            Variant::AnyNonce => {
                // As if it held the newest of ours.
                if let Some(ours) = self.asked.or(self.question) {
                    answer.nonces.push(ours.nonce);
                }
            }
            Variant::GapsAllowed => {
                // Redis lost the beginning.
                let kept = answer.part.split_off(which.min(answer.part.len()));
                let known = self.cut_off.tail().newest().cloned();
                answer.part = known.into_iter().chain(kept).collect();
                for (n, entry) in (answer.part.first().map_or(0, |first| first.n)..).zip(&mut answer.part) {
                    entry.n = n;
                }
                answer.newest = answer.part.last().map_or(0, |last| last.n);
            }
            Variant::Real | Variant::QuestionsAfterTheLog | Variant::QuestionsAfterTheConnection => {
                if which == 15 && answer.part.len() > 1 {
                    answer.part.remove(0);
                }
            }
        }
        self.asker.hear(self.cut_off, &answer);
    }

    /// The invariant.
    fn check(&self) -> bool {
        let allowed = self.cut_off.allows(slot(), self.entry);
        let bound = match self.cut_off.mode() {
            Mode::Fresh => TERMS.lease,
            Mode::Relayed => TERMS.lease + TERMS.relay,
            Mode::Static | Mode::Closed => Duration::ZERO,
        };
        let too_late = self.revoked.is_some_and(|revoked| self.clock.now() > revoked.plus(bound));
        !(allowed && too_late)
    }
}

fn slot() -> Slot {
    Slot::of(NetworkId::SINGLE, KEYS[0])
}

fn now(clock: &Clock) -> Lease {
    lease_from(clock.moment())
}

/// The first runs in which the invariant is broken, no more of them than `enough`, and how often the relay was in force
/// until then.
fn broken_runs(variant: Variant, enough: usize) -> (Vec<u64>, u64) {
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let (rng, new) = (Rng::seeded(1), || Freshness::new(clock.clone(), TERMS, TERMS.lease));
    let (cut_off, other) = (new(), new());
    let mut relayed = 0;
    let broken = |seed: &u64| {
        let chances: [u8; STEPS] = Rng::seeded(*seed).bytes();
        let mut model = Model::new(variant, &clock, &rng, &cut_off, &other);
        let kept = chances.into_iter().all(|chance| model.step(chance));
        relayed += u64::from(cut_off.mode() == Mode::Relayed);
        !kept
    };
    let broken = (0..RUNS).filter(broken).take(enough).collect();
    (broken, relayed)
}

#[test]
fn each_part_of_the_relay_is_needed() {
    for variant in [
        Variant::LeaseFromTheHearing,
        Variant::QuestionsAfterTheLog,
        Variant::QuestionsAfterTheConnection,
        Variant::AnyNonce,
        Variant::GapsAllowed,
    ] {
        let (broken, _) = broken_runs(variant, 5);
        assert_eq!(broken.len(), 5, "{variant:?} looks as good as ours, but for {broken:?}");
    }
}

#[test]
fn all_parts_of_the_relay_are_enough() {
    let (broken, relayed) = broken_runs(Variant::Real, 1);
    assert_eq!(broken, Vec::<u64>::new());
    assert!(relayed > RUNS / 20, "only {relayed} runs ended in relayed mode");
}
