//! The lease and the stamps, against a real SQLite file and a clock that is moved by hand.

use super::*;
use crate::clock::Timestamp;
use crate::rng::Rng;
use crate::store::{Logged, Store};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(60);
const TERMS: Terms =
    Terms { lease: LEASE, poll: Duration::from_secs(1), relay: Duration::from_secs(10), grace: GRACE };
const SECOND: Duration = Duration::from_secs(1);

async fn store() -> (Store, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let dsn = format!("sqlite://{}/talos.db", directory.path().display());
    (Store::open(&dsn, Rng::seeded(1)).await.unwrap(), directory)
}

#[tokio::test]
async fn the_lease_counts_from_before_the_poll_and_runs_out() {
    let (store, _directory) = store().await;
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let freshness = Freshness::new(clock.clone(), TERMS, LEASE);
    let slot = Slot::of(NetworkId::SINGLE, KeyId::Issued(Uuid::nil()));
    let stamp = freshness.begin(slot).stamp(0);
    assert!(!freshness.allows(slot, stamp), "nothing is known before the first poll");
    freshness.poll(&store).await.unwrap();
    let stamp = freshness.begin(slot).stamp(0);
    assert!(freshness.allows(slot, stamp));
    clock.advance(LEASE);
    assert_eq!(freshness.mode(), Mode::Fresh);
    clock.advance(SECOND);
    assert!(!freshness.allows(slot, stamp), "no poll since the lapse has failed yet");

    store.close().await;
    assert!(freshness.renew(&store).await.is_err());
    assert_eq!(freshness.mode(), Mode::Static);
    assert!(freshness.allows(slot, stamp));
    clock.advance(GRACE);
    assert_eq!(freshness.mode(), Mode::Closed);
    assert!(!freshness.allows(slot, stamp));
}

#[tokio::test]
async fn a_change_outdates_what_was_read_before_it() {
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let (store, _directory) = store().await;
    let freshness = Freshness::new(clock, TERMS, LEASE);
    freshness.poll(&store).await.unwrap();
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    let slot = Slot::of(NetworkId::SINGLE, key_id);
    let pending = freshness.begin(slot);
    let (old, new) = (pending.stamp(4), pending.stamp(5));
    freshness.apply(&Mutation { n: 5, network: NetworkId::SINGLE, key_id });
    assert!(!freshness.allows(slot, old));
    assert!(freshness.allows(slot, new));
    freshness.apply(&Mutation { n: 3, network: NetworkId::SINGLE, key_id });
    assert!(!freshness.allows(slot, old), "a late, older change takes nothing back");
}

#[tokio::test]
async fn a_rewritten_history_drops_what_was_known_and_counts_anew() {
    let ((before, _a), (restored, _b)) = (store().await, store().await);
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), TERMS, LEASE);
    freshness.poll(&before).await.unwrap();
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    let slot = Slot::of(NetworkId::SINGLE, key_id);
    freshness.apply(&Mutation { n: 9, network: NetworkId::SINGLE, key_id });
    let old = freshness.begin(slot).stamp(9);
    assert!(freshness.allows(slot, old));
    freshness.poll(&restored).await.unwrap();
    assert!(!freshness.allows(slot, old));
    let new = freshness.begin(slot).stamp(0);
    assert!(freshness.allows(slot, new), "small numbers count again");
}

#[tokio::test]
async fn what_is_known_without_a_gap_is_what_was_polled() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), TERMS, LEASE);
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    freshness.poll(&store).await.unwrap();
    freshness.apply(&Mutation { n: 9, network: NetworkId::SINGLE, key_id });
    assert_eq!((freshness.newest(), freshness.polled()), (9, 0), "changes 1 to 8 may be unknown here");
    assert!(freshness.knows(0, &store).await.unwrap());
    assert!(!freshness.knows(9, &store).await.unwrap(), "the log has no such number yet");
    store.close().await;
    assert!(freshness.knows(9, &store).await.is_err());
    assert!(freshness.knows(0, &store).await.unwrap(), "what is known needs no poll");
}

#[tokio::test]
async fn those_who_wait_for_a_number_share_one_poll() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), TERMS, LEASE);
    let polling = freshness.turn.lock().await;
    let waiting = futures_util::future::join_all((0..50).map(|_| freshness.knows(9, &store)));
    let (known, ()) = tokio::join!(waiting, async { drop(polling) });
    assert!(known.into_iter().all(|known| !known.unwrap()));
    assert_eq!(freshness.polls_begun.load(Ordering::Acquire), 1);
    // Who comes later may have a later number in mind.
    assert!(!freshness.knows(9, &store).await.unwrap());
    assert_eq!(freshness.polls_begun.load(Ordering::Acquire), 2);
}

#[tokio::test]
async fn a_doubt_outdates_what_was_read_before_it_and_nothing_after() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), TERMS, LEASE);
    freshness.poll(&store).await.unwrap();
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    let slot = Slot::of(NetworkId::SINGLE, key_id);
    let before = freshness.begin(slot).stamp(0);
    freshness.doubt(NetworkId::SINGLE, key_id);
    assert!(!freshness.allows(slot, before));
    let after = freshness.begin(slot).stamp(0);
    assert!(freshness.allows(slot, after), "the key can be looked up anew");
    freshness.apply(&Mutation { n: 1, network: NetworkId::SINGLE, key_id });
    assert!(!freshness.allows(slot, after), "the change came through after all");
}

#[tokio::test]
async fn what_a_lookup_saw_must_be_in_the_log_when_it_is_polled() {
    let (store, _directory) = store().await;
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let freshness = Freshness::new(clock, TERMS, LEASE);
    freshness.poll(&store).await.unwrap();
    let slot = Slot::of(NetworkId::SINGLE, KEY);
    let newest = freshness.tail().newest().unwrap().clone();
    let seen = freshness.stamp(freshness.begin(slot), newest.n, newest.tag);
    freshness.poll(&store).await.unwrap();
    assert!(freshness.allows(slot, seen));
    // Number 1 was there a moment ago, and is not any more: the database is another one.
    let lost = freshness.stamp(freshness.begin(slot), 1, 7);
    assert!(freshness.allows(slot, lost));
    let under_way = freshness.begin(slot);
    freshness.poll(&store).await.unwrap();
    assert_eq!(freshness.rewritten(), 1);
    assert!(!freshness.allows(slot, lost) && !freshness.allows(slot, seen));
    // A lookup from before that ends only now is of no use, and no reason to begin anew once more.
    let late = freshness.stamp(under_way, 1, 7);
    assert!(!freshness.allows(slot, late));
    freshness.poll(&store).await.unwrap();
    assert_eq!(freshness.rewritten(), 1);
    // So is a change that was made here, committed and lost.
    freshness.apply(&Mutation { n: 3, network: NetworkId::SINGLE, key_id: KEY });
    freshness.poll(&store).await.unwrap();
    assert_eq!((freshness.rewritten(), freshness.newest()), (2, 0));
    let anew = freshness.stamp(freshness.begin(slot), newest.n, newest.tag);
    assert!(freshness.allows(slot, anew));
}

/// An instance whose lease has run out, with no database to ask, and one beside it that has one.
struct CutOff {
    clock: Clock,
    freshness: Freshness,
    other: Freshness,
    asker: Asker,
    store: Store,
    /// Which can't be reached.
    gone: Store,
    _directory: tempfile::TempDir,
}

impl CutOff {
    async fn new(terms: Terms) -> Self {
        let (store, directory) = store().await;
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let freshness = Freshness::new(clock.clone(), terms, LEASE);
        let other = Freshness::new(clock.clone(), terms, LEASE);
        freshness.poll(&store).await.unwrap();
        clock.advance(LEASE + SECOND);
        let (gone, _nowhere) = self::store().await;
        gone.close().await;
        assert!(freshness.renew(&gone).await.is_err());
        Self { clock, freshness, other, asker: Asker::default(), store, gone, _directory: directory }
    }

    /// Time passes, in which it polls in vain as it does.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        assert!(self.freshness.poll(&self.gone).await.is_err());
    }

    fn ask(&mut self) -> Question {
        self.asker.ask(&self.freshness, &Rng::system()).unwrap()
    }

    async fn answer(&self, questions: &[Question]) -> Option<Answer> {
        self.other.poll(&self.store).await.unwrap();
        self.other.answer(questions)
    }

    fn hears(&mut self, answer: &Answer) -> bool {
        self.asker.hear(&self.freshness, answer)
    }
}

const KEY: KeyId = KeyId::Issued(Uuid::from_u128(7));

/// The entries of the log with these numbers, each a change of the key.
fn log(numbers: std::ops::RangeInclusive<u64>) -> Vec<Logged> {
    let entry = |n| Logged { n, tag: u128::from(n) + 1_000, subject: Some((NetworkId::SINGLE, KEY)) };
    numbers.map(entry).collect()
}

#[tokio::test]
async fn what_is_relayed_counts_from_the_question() {
    let mut cut_off = CutOff::new(TERMS).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Static);
    let question = cut_off.ask();
    cut_off.clock.advance(SECOND);
    let answer = cut_off.answer(&[question]).await.unwrap();
    cut_off.clock.advance(SECOND);
    assert!(cut_off.hears(&answer));
    assert_eq!(cut_off.freshness.relayed_age(), Some(SECOND * 2));
    assert_eq!(cut_off.freshness.mode(), Mode::Relayed);
    assert_eq!(cut_off.freshness.bound(), LEASE + TERMS.relay);
    // Heard again, it says no more than it did.
    cut_off.advance(SECOND * 13).await;
    assert!(cut_off.hears(&answer));
    assert_eq!(cut_off.freshness.mode(), Mode::Relayed);
    cut_off.advance(SECOND).await;
    assert!(cut_off.hears(&answer));
    assert_eq!(cut_off.freshness.mode(), Mode::Static, "its time is over");
    cut_off.advance(GRACE - TERMS.relay - SECOND).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Static, "the grace counts from what was relayed");
    cut_off.advance(SECOND).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Closed);
}

#[tokio::test]
async fn an_answer_to_somebody_else_or_to_nobody_is_none() {
    let mut cut_off = CutOff::new(TERMS).await;
    let mut neighbour = Asker::default();
    let theirs = neighbour.ask(&cut_off.freshness, &Rng::system()).unwrap();
    let (ours, answer) = (cut_off.ask(), cut_off.answer(&[theirs]).await.unwrap());
    assert!(!cut_off.hears(&answer));
    assert_eq!(cut_off.freshness.mode(), Mode::Static);
    let both = cut_off.answer(&[theirs, ours]).await.unwrap();
    assert!(cut_off.hears(&both));
    assert_eq!(cut_off.answer(&[]).await, None);
    let other_history = Question { tag: ours.tag ^ 1, ..ours };
    let of_the_future = Question { n: ours.n + 1, ..ours };
    assert_eq!(cut_off.answer(&[other_history, of_the_future]).await, None);
}

#[tokio::test]
async fn a_change_that_is_relayed_outdates_what_was_read_before_it() {
    let mut cut_off = CutOff::new(TERMS).await;
    let slot = Slot::of(NetworkId::SINGLE, KEY);
    let old = cut_off.freshness.begin(slot).stamp(0);
    let question = cut_off.ask();
    let answer = cut_off.answer(&[question]).await.unwrap();
    let with = |log: Vec<Logged>| {
        let newest = log.last().unwrap().n;
        Answer { nonces: vec![question.nonce], newest, part: [answer.part.clone(), log].concat() }
    };
    // Something is missing between what is known here and what is relayed, or within it.
    assert!(!cut_off.hears(&with(log(2..=3))));
    assert!(!cut_off.hears(&with([log(1..=1), log(3..=3)].concat())));
    let beyond = Answer { nonces: vec![question.nonce], newest: 1, part: log(1..=1) };
    assert!(!cut_off.hears(&beyond));
    // Or it is of another history.
    let mut rewritten = with(log(1..=2));
    rewritten.part[0].tag ^= 1;
    assert!(!cut_off.hears(&rewritten));
    assert!(!cut_off.hears(&Answer { part: vec![], ..with(log(1..=1)) }));
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.polled()), (Mode::Static, 0));
    assert!(cut_off.freshness.allows(slot, old));

    // What isn't all of it is taken in, and doesn't count before the rest does.
    assert!(!cut_off.hears(&Answer { newest: 5, ..with(log(1..=2)) }));
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.polled()), (Mode::Static, 2));
    assert!(!cut_off.freshness.allows(slot, old));
    assert!(cut_off.hears(&with(log(1..=5))));
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.polled()), (Mode::Relayed, 5));
    assert!(cut_off.hears(&with(log(1..=2))), "an older one that says nothing new");
    assert_eq!(cut_off.freshness.polled(), 5);
}

#[tokio::test]
async fn without_a_relay_nobody_asks() {
    let cut_off = CutOff::new(Terms { relay: Duration::ZERO, ..TERMS }).await;
    assert!(!cut_off.freshness.wants_relay(SECOND));
    let cut_off = CutOff::new(TERMS).await;
    assert!(cut_off.freshness.wants_relay(SECOND));
    assert!(!cut_off.other.wants_relay(SECOND), "who never knew anything has nothing to go on from");
    cut_off.other.poll(&cut_off.store).await.unwrap();
    for (age, wants) in [(3, false), (4, true)] {
        cut_off.other.poll(&cut_off.store).await.unwrap();
        cut_off.clock.advance(SECOND * age);
        assert_eq!(cut_off.other.wants_relay(SECOND), wants, "{age} s after the last poll");
    }
}

#[tokio::test]
async fn an_outage_that_was_found_long_ago_says_nothing_of_now() {
    let cut_off = CutOff::new(TERMS).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Static);
    // Nobody polled meanwhile: the process stood still.
    cut_off.clock.advance(GRACE / 2);
    assert_eq!(cut_off.freshness.mode(), Mode::Closed);
    assert!(cut_off.freshness.renew(&cut_off.gone).await.is_err());
    assert_eq!(cut_off.freshness.mode(), Mode::Static, "found again, and the grace isn't used up");
}

#[tokio::test]
async fn a_lapse_is_counted_once_whatever_caused_it() {
    let mut cut_off = CutOff::new(TERMS).await;
    assert_eq!(cut_off.freshness.lapses(), 1);
    cut_off.advance(SECOND).await;
    cut_off.advance(SECOND).await;
    assert_eq!(cut_off.freshness.lapses(), 1, "the same one");
    cut_off.freshness.poll(&cut_off.store).await.unwrap();
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.lapses()), (Mode::Fresh, 1));
    // No poll failed: there was none.
    cut_off.clock.advance(LEASE + SECOND);
    cut_off.freshness.poll(&cut_off.store).await.unwrap();
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.lapses()), (Mode::Fresh, 2));
    let failure = cut_off.freshness.last_failure().unwrap();
    assert!(failure.reason.starts_with("the database"), "{}", failure.reason);
    cut_off.asker.rest();
}

/// A change whose outcome is not known, while the history that its number belongs to ends.
#[tokio::test]
async fn a_doubt_about_an_old_history_refuses_nothing_of_the_new_one() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), TERMS, LEASE);
    freshness.poll(&store).await.unwrap();
    freshness.note_newest(1_000_000);
    freshness.doubt(NetworkId::SINGLE, KEY);
    freshness.poll(&store).await.unwrap();
    assert_eq!((freshness.rewritten(), freshness.newest()), (1, 0));
    let slot = Slot::of(NetworkId::SINGLE, KEY);
    assert!(freshness.allows(slot, freshness.begin(slot).stamp(0)), "small numbers count");
    freshness.doubt(NetworkId::SINGLE, KEY);
    assert!(freshness.allows(slot, freshness.begin(slot).stamp(0)), "a lookup after the doubt answers it");
}
