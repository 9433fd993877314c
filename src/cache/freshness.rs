//! Lease on the knowledge of changes: how current it is, and whether a cached row may be used.
//!
//! Every change to a key has a number in the database's log. A cached row carries the number up to
//! which it is known to be current, its *stamp*. This module knows for each key the number of its
//! last change, and until when that knowledge is valid. A row is fresh only if the lease is valid
//! and its key hasn't changed since its stamp.
//!
//! Instead of a map from keys to their last changes there are 65,536 slots. A key's slot is chosen
//! by its hash, and a slot has the highest number of any of its keys. Two keys in one slot cost a
//! needless read of the database now and then. They never make a stale row look fresh, and the
//! table needs no lock, no trimming and no more than half a MiB.
//!
//! A row also depends on its key's actor, whose changes concern all its keys at once. Those are
//! rare, so 4,096 further slots are enough for all actors, and small enough to stay in a
//! processor's cache. One number for all actors would cost a hit as much, and would make every
//! change of one actor reload the keys of all.

#[cfg(test)]
mod assumptions;
mod changes;
#[cfg(test)]
mod edge_model;
mod follower;
mod ledger;
mod log_tail;
#[cfg(test)]
mod model;
mod observed_heads;
mod poll;
mod relay;
#[cfg(test)]
mod relay_model;
mod stall;
#[cfg(test)]
mod tests;

use std::sync::atomic::{self, AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

pub use follower::{Follower, FollowerUpdate, LineageEnded, SlotChange};
pub use relay::{MAX_RELAY_ENTRIES, RelayClient, RelayRequest, RelayResponse};

use crate::clock::{BootTime, Clock, Moment, Timestamp};
use crate::key::{ActorId, KeyId, NetworkId};
use crate::mutants::{self, Mutant};
use crate::store::{PollTiming, ServerId};
use ledger::{Lease, Ledger};
use log_tail::LogTail;
use observed_heads::ObservedHeads;

/// Slots of keys.
const SLOTS: usize = 1 << 16;
/// Slots of actors, which follow those of keys. The first is that of no actor, and never changes.
const ACTOR_SLOTS: u16 = 1 << 12;

/// Log position up to which a row is known to be current, and the lineage of that log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Twice the number of the newest log entry that the row includes; plus one if the row was read
    /// after [`Freshness::invalidate_unknown`].
    at: u64,
    /// Lineage of the log; it is incremented when the log is found to be rewritten.
    lineage: u64,
}

impl Stamp {
    /// Returns true if both stamps are of one lineage.
    pub const fn same_lineage(self, other: Self) -> bool {
        self.lineage == other.lineage
    }
}

/// State before a read of the database or of Redis, from which the stamp of its result is made.
#[derive(Debug, Clone, Copy)]
pub struct PendingStamp {
    before: u64,
    lineage: u64,
}

impl PendingStamp {
    /// Makes the stamp of a row that was read together with the log's newest number `counter`.
    pub const fn stamp(self, counter: u64) -> Stamp {
        // An unknown outcome after `counter` is resolved by a read that began after it.
        let invalidated = counter * 2 + 1;
        let at = if self.before == invalidated { invalidated } else { counter * 2 };
        Stamp { at, lineage: self.lineage }
    }
}

/// Mode of an instance, by what it knows of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The lease is valid.
    Fresh,
    /// The database can't be reached; another instance relays its log.
    Relayed,
    /// The database can't be reached; known keys stay valid for a while.
    Static,
    /// Nothing is known that is current enough for any key.
    Closed,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::Relayed, Self::Static, Self::Closed];

    /// Returns the name for people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Relayed => "relayed",
            Self::Static => "static",
            Self::Closed => "closed",
        }
    }

    /// Returns true if rows stay valid past their soft expiry, as they can't be read again.
    pub const fn skips_refresh(self) -> bool {
        matches!(self, Self::Relayed | Self::Static)
    }
}

/// Settings of the lease.
#[derive(Debug, Clone, Copy)]
pub struct LeaseConfig {
    /// Time for which the result of a poll is valid (`consistency.lease`).
    pub lease: Duration,
    /// Time from the start of a poll to that of the next (`consistency.poll`).
    pub poll: Duration,
    /// Time after the lease for which a relayed log is valid (`consistency.relay`); zero disables
    /// the relay.
    pub relay: Duration,
    /// Time after the lease for which known keys stay valid in an outage (`consistency.grace`).
    pub grace: Duration,
}

/// Slots that a row depends on: that of its key and, once the row is read, that of its actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    key: u16,
    actor: u16,
}

impl Slot {
    /// Returns the slot of a key whose actor isn't known.
    pub fn for_key(network: NetworkId, key_id: KeyId) -> Self {
        Self { key: hash(network, key_id.as_bytes()), actor: 0 }
    }

    /// Adds the slot of the key's actor.
    #[must_use]
    pub fn with_actor(self, network: NetworkId, actor: &ActorId) -> Self {
        let actor = hash(network, actor.as_str().as_bytes()) % (ACTOR_SLOTS - 1) + 1;
        Self { actor, ..self }
    }

    fn key_index(self) -> usize {
        usize::from(self.key)
    }

    fn actor_index(self) -> usize {
        SLOTS + usize::from(self.actor)
    }

    fn indices(self) -> [usize; 2] {
        [self.key_index(), self.actor_index()]
    }
}

/// Hashes by FNV-1a, as it only has to distribute well. Its last step is that of MurmurHash3: else
/// the last bytes, in which the ids of actors often differ, would hardly count.
fn hash(network: NetworkId, id: &[u8]) -> u16 {
    let bytes = network.as_bytes().iter().chain(id);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash >> 48) as u16 ^ (hash >> 16) as u16
}

/// Failed poll.
#[derive(Debug, Clone)]
pub struct PollFailure {
    /// Time at which it ended.
    pub at: BootTime,
    /// Reason, for people.
    pub reason: String,
}

/// Knowledge of changes that this instance has.
pub struct Freshness {
    clock: Clock,
    config: LeaseConfig,
    /// Part of the log that the first poll reads: entries of the shared cache up to this age are
    /// usable.
    history_window: Duration,
    /// Leases, and for each slot the least [`Stamp`] of a fresh row.
    ledger: Ledger,
    newest: AtomicU64,
    /// Number up to which every change is known. `newest` may be ahead, by changes made here.
    polled_to: AtomicU64,
    /// Number of polls that have begun.
    polls_begun: AtomicU64,
    /// The one of those that ended last.
    polls_ended: AtomicU64,
    /// Boot time at which the last poll ended, whether it succeeded or failed.
    poll_ended: AtomicU64,
    /// Duration of the last successful poll, in microseconds.
    last_poll_micros: AtomicU64,
    /// Boot time at which a poll last proved that the database can't be reached; 0 if none did
    /// since the last success or the last stall of the process.
    outage_evidence: AtomicU64,
    /// Number of outages found after the lease expired.
    outages: AtomicU64,
    /// True if the process stalled since the last successful poll: its connections may be dead.
    has_stalled: AtomicBool,
    /// Number of times the lease expired.
    lapses: AtomicU64,
    /// True while the lease is expired, so that each lapse is counted once.
    has_lapsed: AtomicBool,
    /// Number of times the log was found to be rewritten.
    rewrites: AtomicU64,
    /// Number of failed polls.
    failures: AtomicU64,
    last_failure: Mutex<Option<PollFailure>>,
    /// Tells those who follow the log that there is something new, or another log.
    progress: watch::Sender<()>,
    /// Held during a poll, so that polls run one after the other.
    poll_turn: tokio::sync::Mutex<()>,
    /// Newest entries of the log that are applied: the next poll continues there, and positions
    /// that others know are compared with it.
    tail: Mutex<LogTail>,
    /// Server that the last poll came from.
    server: Mutex<Option<ServerId>>,
    /// Number of times that polls began to come from another server.
    servers: AtomicU64,
    /// Log heads that lookups saw beyond the tail. Locked after the tail where both are locked.
    observed_heads: Mutex<ObservedHeads>,
}

impl Freshness {
    /// Creates a state without knowledge: no row is fresh before the first poll.
    pub fn new(clock: Clock, config: LeaseConfig, history_window: Duration) -> Self {
        Self {
            clock,
            config,
            history_window,
            ledger: Ledger::new(SLOTS + usize::from(ACTOR_SLOTS)),
            newest: AtomicU64::new(0),
            polled_to: AtomicU64::new(0),
            polls_begun: AtomicU64::new(0),
            polls_ended: AtomicU64::new(0),
            poll_ended: AtomicU64::new(0),
            last_poll_micros: AtomicU64::new(0),
            outage_evidence: AtomicU64::new(0),
            outages: AtomicU64::new(0),
            has_stalled: AtomicBool::new(false),
            lapses: AtomicU64::new(0),
            has_lapsed: AtomicBool::new(false),
            rewrites: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_failure: Mutex::default(),
            progress: watch::Sender::new(()),
            poll_turn: tokio::sync::Mutex::new(()),
            tail: Mutex::default(),
            server: Mutex::default(),
            servers: AtomicU64::new(0),
            observed_heads: Mutex::default(),
        }
    }

    /// Returns the settings of the lease.
    pub const fn config(&self) -> LeaseConfig {
        self.config
    }

    /// Returns true once a poll has succeeded.
    pub fn has_polled(&self) -> bool {
        self.ledger.lease().boot != 0
    }

    /// Returns the age of the lease; `None` before the first successful poll.
    pub fn age(&self) -> Option<Duration> {
        self.age_of(self.ledger.lease())
    }

    /// Returns the moment from which the lease counts; `None` before the first successful poll.
    pub fn lease_start(&self) -> Option<BootTime> {
        Some(self.ledger.lease().boot).filter(|boot| *boot != 0).map(BootTime::from_micros)
    }

    /// Returns the wall time at which the lease of the last poll ends, by the clock that ends it
    /// sooner; `None` before the first successful poll. It lies in the past once the lease expired.
    pub fn lease_end(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        Some(now.plus(self.config.lease).minus(self.age()?))
    }

    /// Returns the age of the relayed lease, which counts from the request; `None` if nothing was
    /// relayed.
    pub fn relayed_age(&self) -> Option<Duration> {
        self.age_of(self.ledger.relayed())
    }

    fn age_of(&self, lease: Lease) -> Option<Duration> {
        let start =
            Moment { boot: BootTime::from_micros(lease.boot), wall: Timestamp::from_micros(lease.wall) };
        (lease.boot != 0).then(|| self.clock.moment().since(start))
    }

    fn timing(&self) -> PollTiming {
        PollTiming { lease: self.config.lease, interval: self.config.poll }
    }

    /// Returns how long evidence of an outage is valid: as long as finding it again takes.
    fn outage_validity(&self) -> Duration {
        (self.config.lease + self.config.poll) * 2
    }

    /// Returns true if an outage was found lately. One that was found before the process stalled
    /// says nothing of now.
    fn has_outage(&self, ledger: &Ledger) -> bool {
        let found = ledger.outage().map(BootTime::from_micros);
        found.is_some_and(|found| {
            self.clock.boot_now().since(found) <= self.outage_validity() || mutants::is_on(Mutant::OldOutage)
        })
    }

    /// Returns the current mode.
    pub fn mode(&self) -> Mode {
        self.mode_by(&self.ledger)
    }

    /// Returns the mode by the leases and the evidence of an outage in a ledger.
    fn mode_by(&self, ledger: &Ledger) -> Mode {
        let polled = self.age_of(ledger.lease());
        if polled.is_some_and(|age| age <= self.config.lease) {
            return Mode::Fresh;
        }
        if !self.has_outage(ledger) {
            return Mode::Closed;
        }
        let relayed = self.age_of(ledger.relayed());
        let is_within = |age: Option<Duration>, more| age.is_some_and(|age| age <= self.config.lease + more);
        if is_within(relayed, self.config.relay) {
            Mode::Relayed
        } else if is_within(polled, self.config.grace) || is_within(relayed, self.config.grace) {
            // A relayed log is the result of a poll, so it restarts the grace.
            Mode::Static
        } else {
            Mode::Closed
        }
    }

    /// Returns how long after its revocation a key may still be allowed here, in the current mode.
    pub fn bound(&self) -> Duration {
        match self.mode() {
            Mode::Fresh => self.config.lease,
            Mode::Relayed => self.config.lease + self.config.relay,
            Mode::Static => self.config.lease + self.config.grace,
            Mode::Closed => Duration::ZERO,
        }
    }

    /// Returns true if a row with this stamp may be used now.
    pub fn is_fresh(&self, slot: Slot, stamp: Stamp) -> bool {
        if mutants::is_on(Mutant::TtlOnly) {
            return true;
        }
        let is_valid = |ledger: &Ledger| self.mode_by(ledger) != Mode::Closed;
        self.ledger.is_fresh(is_valid, slot.indices(), stamp.at, stamp.lineage)
    }

    /// Returns true if it may be said now that there is no key with any of the ids of these slots.
    /// `servers` was noted before the read.
    ///
    /// Issuing a key is no change of it. So what a server said of unknown keys counts only while
    /// polls come from that server: another one may have issued them since.
    pub fn are_unknown(&self, slots: &[Slot], stamp: Stamp, servers: u64) -> bool {
        // The lease is loaded before everything else.
        slots.split_first().is_some_and(|(first, others)| {
            let is_unchanged =
                |slot: &Slot| self.ledger.is_unchanged(slot.indices(), stamp.at, stamp.lineage);
            self.is_fresh(*first, stamp)
                && others.iter().all(is_unchanged)
                && (self.servers() == servers || mutants::is_on(Mutant::UnknownAnywhere))
        })
    }

    /// Returns how often polls began to come from another server.
    pub fn servers(&self) -> u64 {
        self.servers.load(Ordering::Acquire)
    }

    /// Notes the state before a read that looks for the keys of all these slots.
    pub fn before_read_of(&self, slots: &[Slot]) -> PendingStamp {
        let before = slots.iter().map(|slot| self.ledger.min_stamp(slot.key_index())).max().unwrap_or(0);
        PendingStamp { before, lineage: self.ledger.lineage() }
    }

    /// Notes the state before a read; to be called before the read begins.
    pub fn before_read(&self, slot: Slot) -> PendingStamp {
        PendingStamp { before: self.ledger.min_stamp(slot.key_index()), lineage: self.ledger.lineage() }
    }

    /// Makes the stamp of a row that was read from the database together with the log's newest
    /// entry: number `n` with `tag`.
    pub fn stamp(&self, pending: PendingStamp, n: u64, tag: u128) -> Stamp {
        let tail = self.tail();
        // A read that began in another lineage proves nothing about the current one.
        if !tail.contains(n, tag) && pending.lineage == self.ledger.lineage() {
            self.observed_heads().insert(n, tag);
        }
        if mutants::is_on(Mutant::DeleteOnly) {
            return Stamp { at: self.newest() * 2 + 1, lineage: self.ledger.lineage() };
        }
        pending.stamp(n)
    }

    fn observed_heads(&self) -> MutexGuard<'_, ObservedHeads> {
        self.observed_heads.lock()
    }

    /// Makes the stamp of a row that another instance read when the log's newest entry was number
    /// `n` with `tag`. Returns `None` unless the tail has that entry: only then is every later
    /// change of the key known here.
    pub fn shared_stamp(&self, n: u64, tag: u128) -> Option<Stamp> {
        // Read under the lock, so that the lineage is that of the tail.
        let tail = self.tail();
        if mutants::is_on(Mutant::SharedUnstamped) {
            return Some(Stamp { at: self.newest() * 2, lineage: self.ledger.lineage() });
        }
        tail.contains(n, tag).then(|| Stamp { at: n * 2, lineage: self.ledger.lineage() })
    }

    /// Locks the tail; never held across an await.
    fn tail(&self) -> MutexGuard<'_, LogTail> {
        self.tail.lock()
    }

    /// Returns the newest number of the log that is known here.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Returns the number up to which every change is known here, without a gap.
    pub fn polled_to(&self) -> u64 {
        self.polled_to.load(Ordering::Acquire)
    }

    /// Returns how often the lease expired, not counting the start.
    pub fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    /// Returns how often an outage was found after the lease expired: each time relayed or static
    /// mode may have begun.
    pub fn outages(&self) -> u64 {
        self.outages.load(Ordering::Acquire)
    }

    /// Returns how often all rows were dropped because the log was rewritten.
    pub fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::Relaxed)
    }

    /// Returns the duration of the last successful poll.
    pub fn last_poll_duration(&self) -> Duration {
        Duration::from_micros(self.last_poll_micros.load(Ordering::Relaxed))
    }

    /// Returns the number of failed polls.
    pub fn poll_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns the last failed poll.
    pub fn last_failure(&self) -> Option<PollFailure> {
        self.last_failure.lock().clone()
    }
}
