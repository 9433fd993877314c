//! The lease: how fresh this instance's knowledge of changes is, and whether a remembered answer may be used.
//!
//! Every change to a key has a number in the database's log. A remembered row carries the number up to which it is
//! known to be true, its *stamp*; this module knows for each key the number of its last change, and until when that
//! knowledge itself counts. An answer is allowed only if the lease holds and nothing has changed since its stamp.
//!
//! Instead of a map from key to last change there are 65,536 slots, a key's chosen by its hash, each with the highest
//! number of any key in it. Two keys in one slot cost an unneeded look at the database now and then; they never make
//! a stale answer look fresh, and the table needs no lock, no trimming and no more than half a MiB.

mod ledger;
#[cfg(test)]
mod model;

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::{self, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::{BootTime, Clock, Timestamp};
use crate::key::{KeyId, NetworkId};
use crate::store::{Logged, Mutation, Store, StoreError};
use ledger::{Lease, Ledger};

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
    /// The database can't be asked; known keys stay valid for a while.
    Static,
    /// Nothing can be said about any key.
    Closed,
}

impl Mode {
    /// All of them, for tables.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Static, Self::Closed];

    /// The word for people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Static => "static",
            Self::Closed => "closed",
        }
    }
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
    /// How long the knowledge of one poll counts.
    lease: Duration,
    /// How old an entry of the shared cache may be that is still of use: so much of the log is read at the start.
    look_back: Duration,
    /// How long known keys stay valid after the lease, while the database can't be asked.
    grace: Duration,
    /// What an answer must be stamped with at least (see [`Stamp::at`]), and since when the lease counts.
    ledger: Ledger,
    newest: AtomicU64,
    /// The number up to which polls have read every change. `newest` may be ahead of it, by changes made here.
    polled: AtomicU64,
    /// How many polls have begun, and which of them was the last to end.
    polls_begun: AtomicU64,
    polls_ended: AtomicU64,
    /// The newest entry that was read. Held across a poll, so that polls are one after the other.
    seen: Mutex<Option<Logged>>,
    /// The log's tail, all of it taken in: what others know is compared with it.
    tail: std::sync::Mutex<Tail>,
}

/// The newest entries of the log: number and tag, without a gap.
#[derive(Default)]
struct Tail(VecDeque<(u64, u128)>);

/// Most entries of the tail; what is stamped with an older one is read from the database again.
const MAX_TAIL: usize = 1 << 16;

impl Tail {
    fn push(&mut self, n: u64, tag: u128) {
        if self.0.len() == MAX_TAIL {
            self.0.pop_front();
        }
        self.0.push_back((n, tag));
    }

    fn has(&self, n: u64, tag: u128) -> bool {
        let Some((oldest, _)) = self.0.front() else {
            return false;
        };
        let place = n.checked_sub(*oldest).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.0.get(place)) == Some(&(n, tag))
    }
}

/// How long the one poll may take for which requests wait when the lease has lapsed: well within their budget.
const QUICK: Duration = Duration::from_millis(100);

impl Freshness {
    /// Knows nothing yet: no answer is allowed before the first poll.
    pub fn new(clock: Clock, lease: Duration, grace: Duration, look_back: Duration) -> Self {
        Self {
            clock,
            lease,
            grace,
            look_back,
            ledger: Ledger::new(SLOTS),
            newest: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            polls_begun: AtomicU64::new(0),
            polls_ended: AtomicU64::new(0),
            seen: Mutex::new(None),
            tail: std::sync::Mutex::default(),
        }
    }

    /// How long the knowledge of one poll counts.
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// How long known keys stay valid after the lease, while the database can't be asked.
    pub const fn grace(&self) -> Duration {
        self.grace
    }

    /// Whether a poll has ever succeeded.
    pub fn has_begun(&self) -> bool {
        self.ledger.lease().boot != 0
    }

    /// How long ago the knowledge in force was asked for; None before the first poll.
    pub fn age(&self) -> Option<Duration> {
        self.age_of(self.ledger.lease())
    }

    fn age_of(&self, lease: Lease) -> Option<Duration> {
        let boot = self.clock.boot().as_micros();
        let wall = self.clock.now().as_micros() - lease.wall;
        // Whichever clock says more: one may have stood still, the other been set back.
        let micros = boot.saturating_sub(lease.boot).max(u64::try_from(wall).unwrap_or(0));
        (lease.boot != 0).then_some(Duration::from_micros(micros))
    }

    /// What may be answered now.
    pub fn mode(&self) -> Mode {
        self.mode_under(self.ledger.lease())
    }

    fn mode_under(&self, lease: Lease) -> Mode {
        match self.age_of(lease) {
            Some(age) if age <= self.lease => Mode::Fresh,
            Some(age) if age <= self.lease + self.grace && self.ledger.has_failed() => Mode::Static,
            _ => Mode::Closed,
        }
    }

    /// How long after its revocation a key may still be allowed here, in the mode in force.
    pub fn bound(&self) -> Duration {
        match self.mode() {
            Mode::Fresh => self.lease,
            Mode::Static => self.lease + self.grace,
            Mode::Closed => Duration::ZERO,
        }
    }

    /// Whether what carries `stamp` may be used for an answer now.
    pub fn allows(&self, slot: Slot, stamp: Stamp) -> bool {
        let counts = |lease| self.mode_under(lease) != Mode::Closed;
        self.ledger.allows(counts, usize::from(slot.0), stamp.at, stamp.lineage)
    }

    /// To be called before a lookup; then [`Pending::stamp`] with what it read.
    pub fn begin(&self, slot: Slot) -> Pending {
        Pending { before: self.ledger.needed(usize::from(slot.0)), lineage: self.ledger.lineage() }
    }

    /// The stamp of a row that another instance read when the log's newest entry was `n`; None unless that is an entry
    /// of the tail that is known here, as then every later change of its key is known here, too.
    pub fn shared_stamp(&self, n: u64, tag: u128) -> Option<Stamp> {
        // Under the lock, so that the lineage is that of the tail.
        let tail = self.tail();
        tail.has(n, tag).then(|| Stamp { at: n * 2, lineage: self.ledger.lineage() })
    }

    fn tail(&self) -> std::sync::MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a change: nothing older may be said about its key from here on.
    pub fn apply(&self, mutation: &Mutation) {
        self.raise(mutation.network, mutation.key_id, mutation.n * 2);
        self.newest.fetch_max(mutation.n, Ordering::AcqRel);
    }

    /// Takes in that a change may have been made, as the database failed before it said: what was read before now
    /// doesn't count any more, what is read from now on does. (If the change comes through later, a poll brings it.)
    pub fn doubt(&self, network: NetworkId, key_id: KeyId) {
        self.raise(network, key_id, self.newest() * 2 + 1);
    }

    /// The newest number of the log that is known here.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// The number up to which every change is known here, none left out.
    pub fn polled(&self) -> u64 {
        self.polled.load(Ordering::Acquire)
    }

    fn raise(&self, network: NetworkId, key_id: KeyId, at: u64) {
        let slot = Slot::of(network, key_id);
        self.ledger.raise(usize::from(slot.0), at);
    }

    /// Reads what changed since the last poll, then extends the lease to count from the moment before the reading.
    ///
    /// # Errors
    /// When the database fails or is silent; the lease then runs out by itself.
    pub async fn poll(&self, store: &Store) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        self.poll_from(store, &mut seen, self.patience()).await
    }

    /// As [`Freshness::poll`], but only if the lease has lapsed and nobody has tried since: of all who find it so one
    /// polls, not for long, and the others have waited for that.
    ///
    /// # Errors
    /// When the database fails or is silent.
    pub async fn renew(&self, store: &Store) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        match self.is_lapsed() && !self.ledger.has_failed() {
            true => self.poll_from(store, &mut seen, QUICK).await,
            false => Ok(()),
        }
    }

    /// How long a poll may take that begins now. Requests must not wait for one that began before the lease lapsed, and
    /// not for long for the first one after that; from then on only one whose answer would be too old is of no use.
    fn patience(&self) -> Duration {
        match self.age() {
            Some(age) if age <= self.lease => (self.lease - age).max(QUICK),
            Some(_) if !self.ledger.has_failed() => QUICK,
            Some(_) | None => self.lease,
        }
    }

    fn is_lapsed(&self) -> bool {
        self.age().is_none_or(|age| age > self.lease)
    }

    /// Whether every change up to number `n` is known here, after one poll if it takes one: of all who wait, those who
    /// came before a poll began share it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn knows(&self, n: u64, store: &Store) -> Result<bool, StoreError> {
        if self.polled() >= n {
            return Ok(true);
        }
        let begun_before = self.polls_begun.load(Ordering::Acquire);
        let mut seen = self.seen.lock().await;
        if self.polled() < n && self.polls_ended.load(Ordering::Acquire) <= begun_before {
            self.poll_from(store, &mut seen, self.patience()).await?;
        }
        Ok(self.polled() >= n)
    }

    async fn poll_from(
        &self,
        store: &Store,
        seen: &mut Option<Logged>,
        patience: Duration,
    ) -> Result<(), StoreError> {
        let poll = self.polls_begun.fetch_add(1, Ordering::AcqRel) + 1;
        let (boot, wall) = (self.clock.boot(), self.clock.now());
        let lapsed = self.is_lapsed();
        let result = self.catch_up(store, seen, patience).await;
        match &result {
            Ok(()) => self.extend(boot, wall),
            Err(_) if lapsed => self.ledger.note_failure(),
            Err(_) => {}
        }
        self.polls_ended.store(poll, Ordering::Release);
        result
    }

    async fn catch_up(
        &self,
        store: &Store,
        seen: &mut Option<Logged>,
        patience: Duration,
    ) -> Result<(), StoreError> {
        loop {
            let Some(last) = seen.as_ref() else {
                *seen = Some(self.begin_history(store, patience).await?);
                return Ok(());
            };
            let tail = store.mutations_from(last.n, patience).await?;
            let continues =
                tail.first() == Some(last) && tail.windows(2).all(|pair| pair[1].n == pair[0].n + 1);
            if !continues {
                tracing::error!(
                    last = last.n,
                    "the log doesn't go on from there (a restore, a failover, or it was trimmed meanwhile): everything \
                     cached is dropped"
                );
                *seen = None;
                continue;
            }
            for entry in &tail[1..] {
                self.take_in(entry);
            }
            match tail.into_iter().next_back() {
                Some(newest) if newest.n > last.n => {
                    self.polled.store(newest.n, Ordering::Release);
                    *seen = Some(newest);
                }
                _ => return Ok(()),
            }
        }
    }

    /// Takes the log as it is now for the beginning. What was read before is dropped, the numbers with it, as another
    /// history counts anew; so is what was read meanwhile, which may have missed a change that isn't read again.
    async fn begin_history(&self, store: &Store, patience: Duration) -> Result<Logged, StoreError> {
        self.polled.store(0, Ordering::Release);
        self.forget();
        // Older entries as well: what others put into the shared cache lately is as good as it was.
        let log = store.newest_mutations(self.clock.now().minus(self.look_back), patience).await?;
        let gap = log.windows(2).rposition(|pair| pair[1].n != pair[0].n + 1);
        let log = &log[gap.map_or(0, |gap| gap + 1)..];
        let newest = log.last().ok_or(StoreError::Corrupt("mutation_log"))?.clone();
        self.newest.store(newest.n, Ordering::Release);
        for entry in log {
            self.take_in(entry);
        }
        let tail = self.tail();
        self.ledger.next_lineage();
        drop(tail);
        self.polled.store(newest.n, Ordering::Release);
        Ok(newest)
    }

    fn forget(&self) {
        // Under the lock of the tail, which vouches for stamps of its own lineage alone.
        let mut tail = self.tail();
        self.ledger.begin_anew();
        tail.0.clear();
    }

    fn take_in(&self, entry: &Logged) {
        // The change before the entry: whoever finds the entry in the tail finds its change taken in.
        if let Some((network, key_id)) = entry.subject {
            self.apply(&Mutation { n: entry.n, network, key_id });
        }
        self.tail().push(entry.n, entry.tag);
    }

    fn extend(&self, boot: BootTime, wall: Timestamp) {
        self.ledger.extend(Lease { boot: boot.as_micros().max(1), wall: wall.as_micros() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use uuid::Uuid;

    const LEASE: Duration = Duration::from_secs(5);
    const GRACE: Duration = Duration::from_secs(60);
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
        let freshness = Freshness::new(clock.clone(), LEASE, GRACE, LEASE);
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
        let freshness = Freshness::new(clock, LEASE, GRACE, LEASE);
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
        let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), LEASE, GRACE, LEASE);
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
        let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), LEASE, GRACE, LEASE);
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
        let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), LEASE, GRACE, LEASE);
        let polling = freshness.seen.lock().await;
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
        let freshness = Freshness::new(Clock::manual(Timestamp::from_secs(1_000)), LEASE, GRACE, LEASE);
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
}
