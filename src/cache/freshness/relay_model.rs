//! Model of the relay: one instance that can't reach the database any more, one that can, and a
//! Redis that returns anything that was ever written to it. The instances are real; their steps
//! come in random order. The invariant fails for each wrong variant and holds for the real one, so
//! each part of the protocol is needed.

use std::time::Duration;

use super::ledger::Lease;
use super::poll::lease_from;
use super::{Freshness, LeaseConfig, Mode, RelayClient, RelayRequest, RelayResponse, Slot, Stamp};
use crate::clock::{Clock, Timestamp};
use crate::key::{KeyId, NetworkId};
use crate::rng::Rng;
use crate::store::{LogEntry, LogSubject};

/// Variant of the protocol.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    /// The real protocol.
    Real,
    /// The relayed lease counts from the moment at which the response is accepted.
    LeaseFromTheAcceptance,
    /// The other instance reads the requests after the log.
    RequestsAfterTheLog,
    /// It reads them after its connection was opened, whose server may not be the primary any more.
    RequestsAfterTheConnection,
    /// Any response counts as one to our request.
    AnyNonce,
    /// Missing entries before those of the response aren't noticed.
    GapsAllowed,
}

const TICK: Duration = Duration::from_secs(1);
const CONFIG: LeaseConfig = LeaseConfig {
    lease: Duration::from_secs(3),
    poll: RUN,
    relay: Duration::from_secs(2),
    grace: Duration::ZERO,
};
/// Longer than a run, so that the outage stays known for all of it.
const RUN: Duration = Duration::from_secs(1_000);
const STEPS: usize = 80;
const RUNS: u64 = 40_000;
/// Keys; changes of the second one only make the log longer.
const KEYS: [KeyId; 2] = [KeyId::Imported([1; 32]), KeyId::Imported([2; 32])];

/// Poll of the other instance, between its steps.
enum Poll {
    Idle,
    /// Connected; the requests and the log of that moment.
    Connected(Vec<RelayRequest>, Vec<LogEntry>),
    /// Sent; the requests that the variant may answer, and the log of the connection.
    Sent(Vec<RelayRequest>, Vec<LogEntry>),
    Read(Vec<RelayRequest>, Vec<LogEntry>),
}

struct Model<'a> {
    variant: Variant,
    clock: &'a Clock,
    rng: &'a Rng,
    /// The database.
    log: Vec<LogEntry>,
    revoked: Option<Timestamp>,
    /// Request in Redis.
    request: Option<RelayRequest>,
    responses: Vec<RelayResponse>,
    /// Instance that can poll.
    other: &'a Freshness,
    poll: Poll,
    /// Instance that can't.
    cut_off: &'a Freshness,
    client: RelayClient,
    /// Request on its way to Redis.
    sent: Option<RelayRequest>,
    /// Stamp of the key's row when both instances could poll.
    entry: Stamp,
}

impl<'a> Model<'a> {
    /// Creates a model. The clock and the numbers continue those of the previous run, so that
    /// nothing of it is valid.
    fn new(
        variant: Variant,
        clock: &'a Clock,
        rng: &'a Rng,
        cut_off: &'a Freshness,
        other: &'a Freshness,
    ) -> Self {
        clock.advance(RUN);
        let first =
            LogEntry { n: cut_off.polled_to() + 1_000, tag: u128::from_be_bytes(rng.bytes()), subject: None };
        for freshness in [cut_off, other] {
            let mut tail = freshness.tail();
            tail.clear();
            tail.push(first.clone());
            freshness.polled_to.store(first.n, super::Ordering::Release);
            freshness.ledger.extend(now(clock));
        }
        let entry = cut_off.before_read(slot()).stamp(first.n);
        cut_off.ledger.record_outage(clock.boot_now().as_micros());
        Self {
            variant,
            clock,
            rng,
            log: vec![first],
            revoked: None,
            request: None,
            responses: vec![],
            other,
            poll: Poll::Idle,
            cut_off,
            client: RelayClient::default(),
            sent: None,
            entry,
        }
    }

    /// Runs one step. Returns false if the revoked key was allowed after the bound.
    fn step(&mut self, entropy: u8) -> bool {
        match entropy % 16 {
            0..=2 => self.clock.advance(TICK),
            3 => self.change(usize::from(entropy / 16) % 2),
            4..=6 => self.request(),
            7..=10 => self.poll_on(entropy / 16 < 4),
            11..=13 => self.accept(usize::from(entropy / 16)),
            _ => return self.check(),
        }
        true
    }

    fn change(&mut self, which: usize) {
        let n = self.log.last().map_or(0, |last| last.n) + 1;
        let subject = Some(LogSubject::Key(NetworkId::SINGLE, KEYS[which]));
        self.log.push(LogEntry { n, tag: u128::from_be_bytes(self.rng.bytes()), subject });
        if which == 0 && self.revoked.is_none() {
            self.revoked = Some(self.clock.now());
        }
    }

    fn request(&mut self) {
        match self.sent.take() {
            None => self.sent = self.client.request(self.cut_off, self.rng),
            Some(sent) => self.request = Some(sent),
        }
    }

    /// Takes the next step of the other instance's poll. A demoted server shows the log as it was
    /// when the connection was opened: nothing older, as the connection reached the primary then.
    fn poll_on(&mut self, is_demoted: bool) {
        let sent = self.request.into_iter().collect();
        self.poll = match std::mem::replace(&mut self.poll, Poll::Idle) {
            Poll::Idle => Poll::Connected(sent, self.log.clone()),
            Poll::Connected(known, log) => match self.variant {
                Variant::RequestsAfterTheConnection => Poll::Sent(sent, log),
                _ => Poll::Sent(known, log),
            },
            Poll::Sent(requests, log) if is_demoted => Poll::Read(requests, log),
            Poll::Sent(requests, _) => Poll::Read(requests, self.log.clone()),
            Poll::Read(requests, read) => {
                assert!(self.other.append(&read));
                let requests = match self.variant {
                    Variant::RequestsAfterTheLog => sent,
                    _ => requests,
                };
                self.responses.extend(self.other.relay_response(&requests));
                Poll::Idle
            }
        };
    }

    /// Accepts the newest response, or sometimes an old or a truncated one.
    fn accept(&mut self, which: usize) {
        let Some(newest) = self.responses.last() else {
            return;
        };
        let mut response = match which {
            0..8 => newest.clone(),
            _ => self.responses[which % self.responses.len()].clone(),
        };
        match self.variant {
            Variant::LeaseFromTheAcceptance => {
                if self.client.accept(self.cut_off, &response) {
                    self.cut_off.ledger.extend_relayed(now(self.clock));
                }
                return;
            }
            Variant::AnyNonce => {
                // Pretends that the response has our newest nonce.
                if let Some(ours) = self.sent.or(self.request) {
                    response.nonces.push(ours.nonce);
                }
            }
            Variant::GapsAllowed => {
                // Pretends that Redis lost the first entries.
                let kept = response.entries.split_off(which.min(response.entries.len()));
                let known = self.cut_off.tail().newest().cloned();
                response.entries = known.into_iter().chain(kept).collect();
                for (n, entry) in
                    (response.entries.first().map_or(0, |first| first.n)..).zip(&mut response.entries)
                {
                    entry.n = n;
                }
                response.newest = response.entries.last().map_or(0, |last| last.n);
            }
            Variant::Real | Variant::RequestsAfterTheLog | Variant::RequestsAfterTheConnection => {
                if which == 15 && response.entries.len() > 1 {
                    response.entries.remove(0);
                }
            }
        }
        self.client.accept(self.cut_off, &response);
    }

    /// Checks the invariant.
    fn check(&self) -> bool {
        let allowed = self.cut_off.is_fresh(slot(), self.entry);
        let bound = match self.cut_off.mode() {
            Mode::Fresh => CONFIG.lease,
            Mode::Relayed => CONFIG.lease + CONFIG.relay,
            Mode::Static | Mode::Closed => Duration::ZERO,
        };
        let too_late = self.revoked.is_some_and(|revoked| self.clock.now() > revoked.plus(bound));
        !(allowed && too_late)
    }
}

fn slot() -> Slot {
    Slot::for_key(NetworkId::SINGLE, KEYS[0])
}

fn now(clock: &Clock) -> Lease {
    lease_from(clock.moment())
}

/// Returns the first runs that break the invariant, at most `enough`, and how many runs ended in
/// relayed mode.
fn broken_runs(variant: Variant, enough: usize) -> (Vec<u64>, u64) {
    let clock = Clock::manual(Timestamp::from_secs(1_000));
    let (rng, new) = (Rng::seeded(1), || Freshness::new(clock.clone(), CONFIG, CONFIG.lease));
    let (cut_off, other) = (new(), new());
    let mut relayed = 0;
    let broken = |seed: &u64| {
        let steps: [u8; STEPS] = Rng::seeded(*seed).bytes();
        let mut model = Model::new(variant, &clock, &rng, &cut_off, &other);
        let kept = steps.into_iter().all(|entropy| model.step(entropy));
        relayed += u64::from(cut_off.mode() == Mode::Relayed);
        !kept
    };
    let broken = (0..RUNS).filter(broken).take(enough).collect();
    (broken, relayed)
}

#[test]
fn each_part_of_the_relay_is_needed() {
    for variant in [
        Variant::LeaseFromTheAcceptance,
        Variant::RequestsAfterTheLog,
        Variant::RequestsAfterTheConnection,
        Variant::AnyNonce,
        Variant::GapsAllowed,
    ] {
        let (broken, _) = broken_runs(variant, 5);
        assert_eq!(broken.len(), 5, "{variant:?} breaks the invariant only in {broken:?}");
    }
}

#[test]
fn all_parts_of_the_relay_are_enough() {
    let (broken, relayed) = broken_runs(Variant::Real, 1);
    assert_eq!(broken, Vec::<u64>::new());
    assert!(relayed > RUNS / 20, "only {relayed} runs ended in relayed mode");
}
