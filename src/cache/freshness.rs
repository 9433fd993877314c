//! The lease: how fresh this instance's knowledge of changes is, and whether a remembered answer may be used.
//!
//! Every change to a key has a number in the database's log. A remembered row carries the number up to which it is
//! known to be true, its *stamp*; this module knows for each key the number of its last change, and until when that
//! knowledge itself counts. An answer is allowed only if the lease holds and nothing has changed since its stamp.
//!
//! Instead of a map from key to last change there are 65,536 slots, a key's chosen by its hash, each with the highest
//! number of any key in it. Two keys in one slot cost an unneeded look at the database now and then; they never make
//! a stale answer look fresh, and the table needs no lock, no trimming and no more than half a MiB.

#[cfg(test)]
mod assumptions;
mod ledger;
#[cfg(test)]
mod model;
mod poll;
mod relay;
#[cfg(test)]
mod relay_model;
mod tail;
mod witnesses;

use std::sync::atomic::{self, AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

pub use relay::{Answer, Asker, MAX_PART, Question};

use crate::clock::{BootTime, Clock, Moment, Timestamp};
use crate::key::{KeyId, NetworkId};
use crate::store::{Mutation, PollTiming};
use ledger::{Lease, Ledger};
use tail::Tail;
use witnesses::Witnesses;

const SLOTS: usize = 1 << 16;

/// Up to which change something is known to be true, and in which history of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Twice the highest number of the log that it takes into account; one more if it was read after a doubt.
    at: u64,
    /// Which history: counts up when the database's is found rewritten.
    lineage: u64,
}

impl Stamp {
    /// Whether both are of the same history.
    pub const fn same_lineage(self, other: Self) -> bool {
        self.lineage == other.lineage
    }
}

/// What was known just before a lookup began; makes the stamp of what it finds.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    before: u64,
    lineage: u64,
}

impl Pending {
    /// The stamp of a row that was read together with the log's newest number `counter`.
    pub const fn stamp(self, counter: u64) -> Stamp {
        // A doubt about everything up to `counter` is answered by a lookup that began after it.
        let doubted = counter * 2 + 1;
        let at = if self.before == doubted { doubted } else { counter * 2 };
        Stamp { at, lineage: self.lineage }
    }
}

/// How an instance may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The lease holds.
    Fresh,
    /// The database can't be asked; another instance relays what it says.
    Relayed,
    /// The database can't be asked; known keys stay valid for a while.
    Static,
    /// Nothing can be said about any key.
    Closed,
}

impl Mode {
    /// All of them, for tables.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::Relayed, Self::Static, Self::Closed];

    /// The word for people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Relayed => "relayed",
            Self::Static => "static",
            Self::Closed => "closed",
        }
    }

    /// Whether what is known counts although it was to be read again by now: there is nobody to read it from.
    pub const fn spares_rereading(self) -> bool {
        matches!(self, Self::Relayed | Self::Static)
    }
}

/// What was promised about how stale an answer may be.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long the knowledge of one poll counts.
    pub lease: Duration,
    /// From the beginning of a poll to that of the next.
    pub poll: Duration,
    /// How much longer what another instance relays counts; zero when nothing is to be relayed.
    pub relay: Duration,
    /// How long known keys stay valid after the lease, while nobody can be asked.
    pub grace: Duration,
}

/// One entry's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key.
    pub fn of(network: NetworkId, key_id: KeyId) -> Self {
        // FNV-1a: spreading is all that is asked of it.
        let bytes = network.as_bytes().iter().chain(key_id.as_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self((hash >> 48) as u16 ^ (hash >> 16) as u16)
    }
}

/// This instance's knowledge of changes.
pub struct Freshness {
    clock: Clock,
    terms: Terms,
    /// How old an entry of the shared cache may be that is still of use: so much of the log is read at the start.
    look_back: Duration,
    /// What an answer must be stamped with at least (see [`Stamp::at`]), and since when the leases count.
    ledger: Ledger,
    newest: AtomicU64,
    /// The number up to which every change is taken in. `newest` may be ahead of it, by changes made here.
    polled: AtomicU64,
    /// How many polls have begun, and which of them was the last to end.
    polls_begun: AtomicU64,
    polls_ended: AtomicU64,
    /// Boot time at which the last poll ended, whatever came of it.
    poll_ended: AtomicU64,
    /// How long the last poll that succeeded took, in microseconds.
    poll_took: AtomicU64,
    /// Boot time at which a poll last showed that the database can't be reached; 0 when none has since the last one
    /// that succeeded, or since the process stood still.
    shown_outage: AtomicU64,
    /// How often it was found, after the lease's end, that the database can't be reached.
    outages: AtomicU64,
    /// Whether the process has stood still since the last poll that succeeded: its connections may be dead.
    stood_still: AtomicBool,
    /// How often the lease ran out.
    lapses: AtomicU64,
    /// Whether it has, and that is counted.
    has_lapsed: AtomicBool,
    /// How often the log was found not to go on from where it was left.
    rewritten: AtomicU64,
    /// How many polls failed.
    failures: AtomicU64,
    /// The last poll that failed, and why.
    last_failure: Mutex<Option<PollFailure>>,
    /// Held across a poll, so that polls are one after the other.
    turn: tokio::sync::Mutex<()>,
    /// The log's tail, all of it taken in: where the next poll goes on, and what others know is compared with.
    tail: Mutex<Tail>,
    /// What lookups have seen beyond the tail. Locked after the tail, by whoever locks both.
    witnesses: Mutex<Witnesses>,
}

impl Freshness {
    /// Knows nothing yet: no answer is allowed before the first poll.
    pub fn new(clock: Clock, terms: Terms, look_back: Duration) -> Self {
        Self {
            clock,
            terms,
            look_back,
            ledger: Ledger::new(SLOTS),
            newest: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            polls_begun: AtomicU64::new(0),
            polls_ended: AtomicU64::new(0),
            poll_ended: AtomicU64::new(0),
            poll_took: AtomicU64::new(0),
            shown_outage: AtomicU64::new(0),
            outages: AtomicU64::new(0),
            stood_still: AtomicBool::new(false),
            lapses: AtomicU64::new(0),
            has_lapsed: AtomicBool::new(false),
            rewritten: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_failure: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            tail: Mutex::default(),
            witnesses: Mutex::default(),
        }
    }

    /// What was promised.
    pub const fn terms(&self) -> Terms {
        self.terms
    }

    /// Whether a poll has ever succeeded.
    pub fn has_begun(&self) -> bool {
        self.ledger.lease().boot != 0
    }

    /// How long ago the last successful poll began; None before the first.
    pub fn age(&self) -> Option<Duration> {
        self.age_of(self.ledger.lease())
    }

    /// The moment as of which the last successful poll counts; None before the first.
    pub fn known_since(&self) -> Option<BootTime> {
        Some(self.ledger.lease().boot).filter(|boot| *boot != 0).map(BootTime::from_micros)
    }

    /// How long ago was asked what another instance relayed last; None when nothing was ever relayed.
    pub fn relayed_age(&self) -> Option<Duration> {
        self.age_of(self.ledger.relayed())
    }

    fn age_of(&self, lease: Lease) -> Option<Duration> {
        let began =
            Moment { boot: BootTime::from_micros(lease.boot), wall: Timestamp::from_micros(lease.wall) };
        (lease.boot != 0).then(|| self.clock.moment().since(began))
    }

    fn timing(&self) -> PollTiming {
        PollTiming { lease: self.terms.lease, interval: self.terms.poll }
    }

    /// How long it is known that nobody can be asked, once that was found: as long as it takes to find it again.
    fn outage_validity(&self) -> Duration {
        (self.terms.lease + self.terms.poll) * 2
    }

    /// Whether nobody can be asked, as was found a moment ago. What was found before the process stood still says
    /// nothing of now.
    fn is_cut_off(&self, ledger: &Ledger) -> bool {
        let found = ledger.outage().map(BootTime::from_micros);
        found.is_some_and(|found| self.clock.boot_now().since(found) <= self.outage_validity())
    }

    /// What may be answered now.
    pub fn mode(&self) -> Mode {
        self.mode_by(&self.ledger)
    }

    fn mode_by(&self, ledger: &Ledger) -> Mode {
        let polled = self.age_of(ledger.lease());
        if polled.is_some_and(|age| age <= self.terms.lease) {
            return Mode::Fresh;
        }
        if !self.is_cut_off(ledger) {
            return Mode::Closed;
        }
        let relayed = self.age_of(ledger.relayed());
        let counts = |age: Option<Duration>, more| age.is_some_and(|age| age <= self.terms.lease + more);
        if counts(relayed, self.terms.relay) {
            Mode::Relayed
        } else if counts(polled, self.terms.grace) || counts(relayed, self.terms.grace) {
            // What was relayed is what a poll said: it begins the grace anew.
            Mode::Static
        } else {
            Mode::Closed
        }
    }

    /// How long after its revocation a key may still be allowed here, in the mode in force.
    pub fn bound(&self) -> Duration {
        match self.mode() {
            Mode::Fresh => self.terms.lease,
            Mode::Relayed => self.terms.lease + self.terms.relay,
            Mode::Static => self.terms.lease + self.terms.grace,
            Mode::Closed => Duration::ZERO,
        }
    }

    /// Whether what carries `stamp` may be used for an answer now.
    pub fn allows(&self, slot: Slot, stamp: Stamp) -> bool {
        let counts = |ledger: &Ledger| self.mode_by(ledger) != Mode::Closed;
        self.ledger.allows(counts, usize::from(slot.0), stamp.at, stamp.lineage)
    }

    /// To be called before a lookup; then [`Pending::stamp`] with what it read.
    pub fn begin(&self, slot: Slot) -> Pending {
        Pending { before: self.ledger.needed(usize::from(slot.0)), lineage: self.ledger.lineage() }
    }

    /// The stamp of a row that was read together with the log's newest entry, `n` and `tag`.
    pub fn stamp(&self, pending: Pending, n: u64, tag: u128) -> Stamp {
        let tail = self.tail();
        // What was begun in another history counts for nothing, and shows nothing.
        if !tail.has(n, tag) && pending.lineage == self.ledger.lineage() {
            self.witnesses().note(n, tag);
        }
        pending.stamp(n)
    }

    fn witnesses(&self) -> MutexGuard<'_, Witnesses> {
        self.witnesses.lock()
    }

    /// The stamp of a row that another instance read when the log's newest entry was `n`; None unless that is an entry
    /// of the tail that is known here, as then every later change of its key is known here, too.
    pub fn shared_stamp(&self, n: u64, tag: u128) -> Option<Stamp> {
        // Under the lock, so that the lineage is that of the tail.
        let tail = self.tail();
        tail.has(n, tag).then(|| Stamp { at: n * 2, lineage: self.ledger.lineage() })
    }

    /// Never held across an await.
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock()
    }

    /// Takes in a change: nothing older may be said about its key from here on.
    pub fn apply(&self, mutation: &Mutation) {
        let slot = Slot::of(mutation.network, mutation.key_id);
        self.ledger.raise(usize::from(slot.0), self.ledger.lineage(), mutation.n * 2);
        self.note_newest(mutation.n);
    }

    /// Takes in that this process has written number `n` of the log: a log without it is another one.
    pub fn note_newest(&self, n: u64) {
        self.newest.fetch_max(n, Ordering::AcqRel);
    }

    /// Takes in that a change may have been made, as the database failed before it said: what was read before now
    /// doesn't count any more, what is read from now on does. (If the change comes through later, a poll brings it.)
    pub fn doubt(&self, network: NetworkId, key_id: KeyId) {
        let slot = Slot::of(network, key_id);
        loop {
            // The lineage first: its numbers are never larger than those that are read after it.
            let lineage = self.ledger.lineage();
            self.ledger.raise(usize::from(slot.0), lineage, self.newest() * 2 + 1);
            if self.ledger.lineage() == lineage {
                return;
            }
        }
    }

    /// The newest number of the log that is known here.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// The number up to which every change is known here, none left out.
    pub fn polled(&self) -> u64 {
        self.polled.load(Ordering::Acquire)
    }

    /// How often the lease ran out, the start apart: whoever looks now and then would miss a short lapse.
    pub fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    /// How often it was found, after the lease's end, that the database can't be reached: each time relayed or static mode
    /// may have begun.
    pub fn outages(&self) -> u64 {
        self.outages.load(Ordering::Acquire)
    }

    /// How often everything was dropped because the log didn't go on from where it was left.
    pub fn rewritten(&self) -> u64 {
        self.rewritten.load(Ordering::Relaxed)
    }

    /// How long the last poll that succeeded took.
    pub fn poll_took(&self) -> Duration {
        Duration::from_micros(self.poll_took.load(Ordering::Relaxed))
    }

    /// How many polls failed, each of them once.
    pub fn poll_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last poll that failed; None when none ever did.
    pub fn last_failure(&self) -> Option<PollFailure> {
        self.last_failure.lock().clone()
    }
}

/// A poll that failed.
#[derive(Debug, Clone)]
pub struct PollFailure {
    /// When it ended.
    pub at: BootTime,
    /// Why, for people.
    pub reason: String,
}

#[cfg(test)]
mod tests;
