//! Tests of leases and stamps with a real SQLite file and a manual clock.

use super::*;
use crate::clock::Timestamp;
use crate::key::{Actor, KeyName};
use crate::rng::Rng;
use crate::store::{LogEntry, LogSubject, Mutation, Store};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(60);
const CONFIG: LeaseConfig =
    LeaseConfig { lease: LEASE, poll: Duration::from_secs(1), relay: Duration::from_secs(10), grace: GRACE };
const SECOND: Duration = Duration::from_secs(1);

async fn store() -> (Store, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let dsn = format!("sqlite://{}/talos.db", directory.path().display());
    (Store::open(&dsn, Rng::seeded(1)).await.unwrap(), directory)
}

#[tokio::test]
async fn the_lease_counts_from_before_the_poll_and_expires() {
    let (store, _directory) = store().await;
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let freshness = Freshness::new(clock.clone(), CONFIG, LEASE);
    let slot = Slot::for_key(NetworkId::SINGLE, KeyId::Issued(Uuid::nil()));
    let stamp = freshness.before_read(slot).stamp(0);
    assert!(!freshness.is_fresh(slot, stamp), "nothing is known before the first poll");
    freshness.poll(&store).await.unwrap();
    let stamp = freshness.before_read(slot).stamp(0);
    assert!(freshness.is_fresh(slot, stamp));
    clock.advance(LEASE);
    assert_eq!(freshness.mode(), Mode::Fresh);
    clock.advance(SECOND);
    assert!(!freshness.is_fresh(slot, stamp), "no outage is proven yet");

    store.close().await;
    assert!(freshness.renew(&store).await.is_err());
    assert_eq!(freshness.mode(), Mode::Static);
    assert!(freshness.is_fresh(slot, stamp));
    clock.advance(GRACE);
    assert_eq!(freshness.mode(), Mode::Closed);
    assert!(!freshness.is_fresh(slot, stamp));
}

#[tokio::test]
async fn a_change_invalidates_rows_read_before_it() {
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let (store, _directory) = store().await;
    let freshness = Freshness::new(clock, CONFIG, LEASE);
    freshness.poll(&store).await.unwrap();
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    let slot = Slot::for_key(NetworkId::SINGLE, key_id);
    let pending = freshness.before_read(slot);
    let (old, new) = (pending.stamp(4), pending.stamp(5));
    freshness.apply(&Mutation { n: 5, network: NetworkId::SINGLE, key_id });
    assert!(!freshness.is_fresh(slot, old));
    assert!(freshness.is_fresh(slot, new));
    freshness.apply(&Mutation { n: 3, network: NetworkId::SINGLE, key_id });
    assert!(!freshness.is_fresh(slot, old), "a late, older change takes nothing back");
}

#[tokio::test]
async fn what_a_server_said_of_unknown_keys_ends_when_polls_come_from_another() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), CONFIG, LEASE);
    freshness.poll(&store).await.unwrap();
    let slots = [Slot::for_key(NetworkId::SINGLE, KEY)];
    let (servers, stamp) = (freshness.servers(), freshness.before_read_of(&slots).stamp(5));
    assert!(freshness.are_unknown(&slots, stamp, servers));
    freshness.poll(&store).await.unwrap();
    assert!(freshness.are_unknown(&slots, stamp, servers), "from the same server again");
    freshness.note_server(&ServerId::new("another"));
    assert!(!freshness.are_unknown(&slots, stamp, servers));
    assert!(freshness.is_fresh(slots[0], stamp), "a row that was found stays valid");
    let later = freshness.servers();
    freshness.apply(&Mutation { n: 6, network: NetworkId::SINGLE, key_id: KEY });
    assert!(!freshness.are_unknown(&slots, stamp, later), "imported since");
}

#[tokio::test]
async fn a_rewritten_log_drops_all_rows_and_starts_a_lineage() {
    let ((before, _a), (restored, _b)) = (store().await, store().await);
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), CONFIG, LEASE);
    freshness.poll(&before).await.unwrap();
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    let slot = Slot::for_key(NetworkId::SINGLE, key_id);
    freshness.apply(&Mutation { n: 9, network: NetworkId::SINGLE, key_id });
    let old = freshness.before_read(slot).stamp(9);
    assert!(freshness.is_fresh(slot, old));
    freshness.poll(&restored).await.unwrap();
    assert!(!freshness.is_fresh(slot, old));
    let new = freshness.before_read(slot).stamp(0);
    assert!(freshness.is_fresh(slot, new), "small numbers count again");
}

#[tokio::test]
async fn only_polls_raise_the_number_that_is_known_without_a_gap() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), CONFIG, LEASE);
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    freshness.poll(&store).await.unwrap();
    freshness.apply(&Mutation { n: 9, network: NetworkId::SINGLE, key_id });
    assert_eq!((freshness.newest(), freshness.polled_to()), (9, 0), "changes 1 to 8 may be unknown here");
    assert!(freshness.ensure_polled(0, &store).await.unwrap());
    assert!(!freshness.ensure_polled(9, &store).await.unwrap(), "the log has no such number yet");
    store.close().await;
    assert!(freshness.ensure_polled(9, &store).await.is_err());
    assert!(freshness.ensure_polled(0, &store).await.unwrap(), "what is known needs no poll");
}

#[tokio::test]
async fn concurrent_callers_of_ensure_polled_share_one_poll() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), CONFIG, LEASE);
    let polling = freshness.poll_turn.lock().await;
    let waiting = futures_util::future::join_all((0..50).map(|_| freshness.ensure_polled(9, &store)));
    let (known, ()) = tokio::join!(waiting, async { drop(polling) });
    assert!(known.into_iter().all(|known| !known.unwrap()));
    assert_eq!(freshness.polls_begun.load(Ordering::Acquire), 1);
    // A later caller may need a later number, so it polls again.
    assert!(!freshness.ensure_polled(9, &store).await.unwrap());
    assert_eq!(freshness.polls_begun.load(Ordering::Acquire), 2);
}

#[tokio::test]
async fn an_unknown_outcome_invalidates_rows_read_before_it_only() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), CONFIG, LEASE);
    freshness.poll(&store).await.unwrap();
    let key_id = KeyId::Issued(Uuid::from_u128(7));
    let slot = Slot::for_key(NetworkId::SINGLE, key_id);
    let before = freshness.before_read(slot).stamp(0);
    freshness.invalidate_unknown(NetworkId::SINGLE, key_id);
    assert!(!freshness.is_fresh(slot, before));
    let after = freshness.before_read(slot).stamp(0);
    assert!(freshness.is_fresh(slot, after), "the key can be looked up anew");
    freshness.apply(&Mutation { n: 1, network: NetworkId::SINGLE, key_id });
    assert!(!freshness.is_fresh(slot, after), "the change came through after all");
}

/// A change of an actor, read from the log by another instance, concerns the keys of that actor.
#[tokio::test]
async fn a_change_of_an_actor_invalidates_the_rows_of_its_keys() {
    let (store, _directory) = store().await;
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let freshness = Freshness::new(clock.clone(), CONFIG, LEASE);
    freshness.poll(&store).await.unwrap();
    let network = NetworkId::SINGLE;
    let actor = |name: &str| ActorId::parse(name).unwrap();
    let slot = |key, name: &str| {
        Slot::for_key(network, KeyId::Issued(Uuid::from_u128(key))).with_actor(network, &actor(name))
    };
    let (one, another, other) = (slot(1, "a"), slot(2, "a"), slot(3, "b"));
    let stamp = freshness.before_read(one).stamp(0);
    let rename = |of: &Actor| Actor { display_name: KeyName::parse("name").ok(), ..of.clone() };
    store.change_actor(network, actor("a"), clock.now(), rename).await.unwrap();
    for slot in [one, another, other] {
        assert!(freshness.is_fresh(slot, stamp), "it isn't known yet");
    }
    freshness.poll(&store).await.unwrap();
    assert!(!freshness.is_fresh(one, stamp) && !freshness.is_fresh(another, stamp));
    assert!(freshness.is_fresh(other, stamp));
    assert!(freshness.is_fresh(one, freshness.before_read(one).stamp(1)));
}

#[test]
fn actors_that_differ_in_the_last_letter_have_slots_of_their_own() {
    let network = NetworkId::SINGLE;
    let slot = |number: u32| {
        let actor = ActorId::parse(&format!("customer:{number}")).unwrap();
        Slot::for_key(network, KEY).with_actor(network, &actor).actor_index()
    };
    let slots: std::collections::HashSet<usize> = (0..1_000).map(slot).collect();
    // Chance alone puts 113 of them where another is.
    assert!((850..=930).contains(&slots.len()), "{}", slots.len());
    assert!(!slots.contains(&SLOTS), "the slot of no actor");
}

#[tokio::test]
async fn an_unknown_outcome_for_an_actor_invalidates_rows_read_before_it_only() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), CONFIG, LEASE);
    freshness.poll(&store).await.unwrap();
    let (network, actor) = (NetworkId::SINGLE, ActorId::parse("a").unwrap());
    let slot = Slot::for_key(network, KEY).with_actor(network, &actor);
    let before = freshness.before_read(slot).stamp(0);
    freshness.invalidate_all_unknown();
    assert!(!freshness.is_fresh(slot, before));
    let after = freshness.before_read(slot).stamp(0);
    assert!(freshness.is_fresh(slot, after), "its keys can be looked up anew");
    freshness.apply_to_actor(network, &actor, 1);
    assert!(!freshness.is_fresh(slot, after), "the change came through after all");
}

#[tokio::test]
async fn heads_that_lookups_observed_must_be_in_the_polled_log() {
    let (store, _directory) = store().await;
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let freshness = Freshness::new(clock, CONFIG, LEASE);
    freshness.poll(&store).await.unwrap();
    let slot = Slot::for_key(NetworkId::SINGLE, KEY);
    let newest = freshness.tail().newest().unwrap().clone();
    let seen = freshness.stamp(freshness.before_read(slot), newest.n, newest.tag);
    freshness.poll(&store).await.unwrap();
    assert!(freshness.is_fresh(slot, seen));
    // Number 1 was observed and isn't in the log any more: the log was rewritten.
    let lost = freshness.stamp(freshness.before_read(slot), 1, 7);
    assert!(freshness.is_fresh(slot, lost));
    let under_way = freshness.before_read(slot);
    freshness.poll(&store).await.unwrap();
    assert_eq!(freshness.rewrites(), 1);
    assert!(!freshness.is_fresh(slot, lost) && !freshness.is_fresh(slot, seen));
    // A lookup that began before the rewrite gives no fresh row, and causes no further rewrite.
    let late = freshness.stamp(under_way, 1, 7);
    assert!(!freshness.is_fresh(slot, late));
    freshness.poll(&store).await.unwrap();
    assert_eq!(freshness.rewrites(), 1);
    // A change that was committed here and then lost is a rewrite as well.
    freshness.apply(&Mutation { n: 3, network: NetworkId::SINGLE, key_id: KEY });
    freshness.poll(&store).await.unwrap();
    assert_eq!((freshness.rewrites(), freshness.newest()), (2, 0));
    let anew = freshness.stamp(freshness.before_read(slot), newest.n, newest.tag);
    assert!(freshness.is_fresh(slot, anew));
}

/// Instance with an expired lease and no database, and another instance that has one.
struct CutOff {
    clock: Clock,
    freshness: Freshness,
    other: Freshness,
    client: RelayClient,
    store: Store,
    /// Store that is closed.
    gone: Store,
    _directory: tempfile::TempDir,
}

impl CutOff {
    async fn new(config: LeaseConfig) -> Self {
        let (store, directory) = store().await;
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let freshness = Freshness::new(clock.clone(), config, LEASE);
        let other = Freshness::new(clock.clone(), config, LEASE);
        freshness.poll(&store).await.unwrap();
        clock.advance(LEASE + SECOND);
        let (gone, _nowhere) = self::store().await;
        gone.close().await;
        assert!(freshness.renew(&gone).await.is_err());
        Self { clock, freshness, other, client: RelayClient::default(), store, gone, _directory: directory }
    }

    /// Advances the clock, and polls in vain.
    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        assert!(self.freshness.poll(&self.gone).await.is_err());
    }

    fn request(&mut self) -> RelayRequest {
        self.client.request(&self.freshness, &Rng::system()).unwrap()
    }

    async fn response(&self, requests: &[RelayRequest]) -> Option<RelayResponse> {
        self.other.poll(&self.store).await.unwrap();
        self.other.relay_response(requests)
    }

    fn accepts(&mut self, response: &RelayResponse) -> bool {
        self.client.accept(&self.freshness, response)
    }
}

const KEY: KeyId = KeyId::Issued(Uuid::from_u128(7));

/// Makes log entries with these numbers, each a change of the key.
fn log(numbers: std::ops::RangeInclusive<u64>) -> Vec<LogEntry> {
    let entry = |n| LogEntry {
        n,
        tag: u128::from(n) + 1_000,
        subject: Some(LogSubject::Key(NetworkId::SINGLE, KEY)),
    };
    numbers.map(entry).collect()
}

#[tokio::test]
async fn the_relayed_lease_counts_from_the_request() {
    let mut cut_off = CutOff::new(CONFIG).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Static);
    let request = cut_off.request();
    cut_off.clock.advance(SECOND);
    let response = cut_off.response(&[request]).await.unwrap();
    cut_off.clock.advance(SECOND);
    assert!(cut_off.accepts(&response));
    assert_eq!(cut_off.freshness.relayed_age(), Some(SECOND * 2));
    assert_eq!(cut_off.freshness.mode(), Mode::Relayed);
    assert_eq!(cut_off.freshness.bound(), LEASE + CONFIG.relay);
    // Accepted again, the response extends nothing.
    cut_off.advance(SECOND * 13).await;
    assert!(cut_off.accepts(&response));
    assert_eq!(cut_off.freshness.mode(), Mode::Relayed);
    cut_off.advance(SECOND).await;
    assert!(cut_off.accepts(&response));
    assert_eq!(cut_off.freshness.mode(), Mode::Static, "the relayed lease has expired");
    cut_off.advance(GRACE - CONFIG.relay - SECOND).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Static, "the grace counts from what was relayed");
    cut_off.advance(SECOND).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Closed);
}

#[tokio::test]
async fn responses_without_our_nonce_are_ignored() {
    let mut cut_off = CutOff::new(CONFIG).await;
    let mut neighbour = RelayClient::default();
    let theirs = neighbour.request(&cut_off.freshness, &Rng::system()).unwrap();
    let (ours, response) = (cut_off.request(), cut_off.response(&[theirs]).await.unwrap());
    assert!(!cut_off.accepts(&response));
    assert_eq!(cut_off.freshness.mode(), Mode::Static);
    let both = cut_off.response(&[theirs, ours]).await.unwrap();
    assert!(cut_off.accepts(&both));
    assert_eq!(cut_off.response(&[]).await, None);
    let other_history = RelayRequest { tag: ours.tag ^ 1, ..ours };
    let of_the_future = RelayRequest { n: ours.n + 1, ..ours };
    assert_eq!(cut_off.response(&[other_history, of_the_future]).await, None);
}

#[tokio::test]
async fn a_relayed_change_invalidates_rows_read_before_it() {
    let mut cut_off = CutOff::new(CONFIG).await;
    let slot = Slot::for_key(NetworkId::SINGLE, KEY);
    let old = cut_off.freshness.before_read(slot).stamp(0);
    let request = cut_off.request();
    let response = cut_off.response(&[request]).await.unwrap();
    let with = |log: Vec<LogEntry>| {
        let newest = log.last().unwrap().n;
        RelayResponse {
            nonces: vec![request.nonce],
            newest,
            entries: [response.entries.clone(), log].concat(),
        }
    };
    // An entry is missing before the relayed ones, or between them.
    assert!(!cut_off.accepts(&with(log(2..=3))));
    assert!(!cut_off.accepts(&with([log(1..=1), log(3..=3)].concat())));
    let beyond = RelayResponse { nonces: vec![request.nonce], newest: 1, entries: log(1..=1) };
    assert!(!cut_off.accepts(&beyond));
    // The entries are of another history.
    let mut rewritten = with(log(1..=2));
    rewritten.entries[0].tag ^= 1;
    assert!(!cut_off.accepts(&rewritten));
    assert!(!cut_off.accepts(&RelayResponse { entries: vec![], ..with(log(1..=1)) }));
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.polled_to()), (Mode::Static, 0));
    assert!(cut_off.freshness.is_fresh(slot, old));

    // An incomplete log is applied, and extends the lease only with the rest.
    assert!(!cut_off.accepts(&RelayResponse { newest: 5, ..with(log(1..=2)) }));
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.polled_to()), (Mode::Static, 2));
    assert!(!cut_off.freshness.is_fresh(slot, old));
    assert!(cut_off.accepts(&with(log(1..=5))));
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.polled_to()), (Mode::Relayed, 5));
    assert!(cut_off.accepts(&with(log(1..=2))), "an older response that brings nothing new");
    assert_eq!(cut_off.freshness.polled_to(), 5);
}

#[tokio::test]
async fn a_disabled_relay_is_never_needed() {
    let cut_off = CutOff::new(LeaseConfig { relay: Duration::ZERO, ..CONFIG }).await;
    assert!(!cut_off.freshness.needs_relay(SECOND));
    let cut_off = CutOff::new(CONFIG).await;
    assert!(cut_off.freshness.needs_relay(SECOND));
    assert!(!cut_off.other.needs_relay(SECOND), "an instance without any log has nothing to continue");
    cut_off.other.poll(&cut_off.store).await.unwrap();
    for (age, wants) in [(3, false), (4, true)] {
        cut_off.other.poll(&cut_off.store).await.unwrap();
        cut_off.clock.advance(SECOND * age);
        assert_eq!(cut_off.other.needs_relay(SECOND), wants, "{age} s after the last poll");
    }
}

#[tokio::test]
async fn old_evidence_of_an_outage_expires() {
    let cut_off = CutOff::new(CONFIG).await;
    assert_eq!(cut_off.freshness.mode(), Mode::Static);
    // There was no poll meanwhile: the process stalled.
    cut_off.clock.advance(GRACE / 2);
    assert_eq!(cut_off.freshness.mode(), Mode::Closed);
    assert!(cut_off.freshness.renew(&cut_off.gone).await.is_err());
    assert_eq!(cut_off.freshness.mode(), Mode::Static, "found again, within the grace");
}

#[tokio::test]
async fn each_lapse_is_counted_once() {
    let mut cut_off = CutOff::new(CONFIG).await;
    assert_eq!(cut_off.freshness.lapses(), 1);
    cut_off.advance(SECOND).await;
    cut_off.advance(SECOND).await;
    assert_eq!(cut_off.freshness.lapses(), 1, "the same one");
    cut_off.freshness.poll(&cut_off.store).await.unwrap();
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.lapses()), (Mode::Fresh, 1));
    // The lease expired without a failed poll.
    cut_off.clock.advance(LEASE + SECOND);
    cut_off.freshness.poll(&cut_off.store).await.unwrap();
    assert_eq!((cut_off.freshness.mode(), cut_off.freshness.lapses()), (Mode::Fresh, 2));
    let failure = cut_off.freshness.last_failure().unwrap();
    assert!(failure.reason.starts_with("the database"), "{}", failure.reason);
    cut_off.client.clear();
}

/// The outcome of a change is unknown, and the lineage that its number belongs to ends.
#[tokio::test]
async fn an_unknown_outcome_of_an_old_lineage_has_no_effect_on_the_new_one() {
    let (store, _directory) = store().await;
    let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), CONFIG, LEASE);
    freshness.poll(&store).await.unwrap();
    freshness.record_written(1_000_000);
    freshness.invalidate_unknown(NetworkId::SINGLE, KEY);
    freshness.poll(&store).await.unwrap();
    assert_eq!((freshness.rewrites(), freshness.newest()), (1, 0));
    let slot = Slot::for_key(NetworkId::SINGLE, KEY);
    assert!(freshness.is_fresh(slot, freshness.before_read(slot).stamp(0)), "small numbers count");
    freshness.invalidate_unknown(NetworkId::SINGLE, KEY);
    assert!(freshness.is_fresh(slot, freshness.before_read(slot).stamp(0)), "a later lookup resolves it");
}
