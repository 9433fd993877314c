//! Polling the log: the one way in which the lease is extended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Freshness;
use super::ledger::Lease;
use super::tail::{Tail, is_gapless};
use super::witnesses::Witnesses;
use crate::clock::{BootTime, Timestamp};
use crate::store::{Logged, Mutation, Store, StoreError};

/// How long the one poll may take for which requests wait when the lease has lapsed: well within their budget.
const QUICK: Duration = Duration::from_millis(100);
/// As much, at most, for the first poll of a process that stood still: that it is slow says nothing of the database.
const AWAKENING: Duration = Duration::from_secs(1);

impl Freshness {
    /// Reads what changed since the last poll, then extends the lease to count from the moment before the reading.
    ///
    /// # Errors
    /// When the database fails or is silent; the lease then runs out by itself.
    pub async fn poll(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        self.poll_in_turn(store, self.patience()).await
    }

    /// As [`Freshness::poll`], but only if the lease has lapsed and nobody has tried since: of all who find it so one
    /// polls, not for long, and the others have waited for that.
    ///
    /// # Errors
    /// When the database fails or is silent.
    pub async fn renew(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        match self.is_lapsed() && !self.ledger.has_failed() {
            true => self.poll_in_turn(store, self.patience()).await,
            false => Ok(()),
        }
    }

    /// How long a poll may take that begins now. Requests must not wait for one that began before the lease lapsed, and
    /// not for long for the first one after that; from then on only one whose answer would be too old is of no use.
    fn patience(&self) -> Duration {
        let since_last =
            || self.clock.boot().since(BootTime::from_micros(self.poll_began.load(Ordering::Acquire)));
        match self.age() {
            Some(age) if age <= self.terms.lease => (self.terms.lease - age).max(QUICK),
            // Nobody has tried for as long as the lease: we were suspended, or stopped. What was revoked meanwhile must
            // not pass because the machine is busy waking up.
            Some(_) if !self.ledger.has_failed() && since_last() > self.terms.lease => {
                self.terms.lease.min(AWAKENING).max(QUICK)
            }
            Some(_) if !self.ledger.has_failed() => QUICK,
            Some(_) | None => self.terms.lease,
        }
    }

    fn is_lapsed(&self) -> bool {
        self.age().is_none_or(|age| age > self.terms.lease)
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
        let _turn = self.turn.lock().await;
        if self.polled() < n && self.polls_ended.load(Ordering::Acquire) <= begun_before {
            self.poll_in_turn(store, self.patience()).await?;
        }
        Ok(self.polled() >= n)
    }

    async fn poll_in_turn(&self, store: &Store, patience: Duration) -> Result<(), StoreError> {
        let poll = self.polls_begun.fetch_add(1, Ordering::AcqRel) + 1;
        let (boot, wall) = (self.clock.boot(), self.clock.now());
        self.poll_began.store(boot.as_micros(), Ordering::Release);
        let lapsed = self.is_lapsed();
        let result = self.catch_up(store, patience).await;
        match &result {
            Ok(()) => self.ledger.extend(lease_from(boot, wall)),
            Err(_) if lapsed => {
                if !self.ledger.has_failed() {
                    self.lapses.fetch_add(1, Ordering::AcqRel);
                }
                self.ledger.note_failure();
            }
            Err(_) => {}
        }
        self.polls_ended.store(poll, Ordering::Release);
        result
    }

    async fn catch_up(&self, store: &Store, patience: Duration) -> Result<(), StoreError> {
        // Noted before the reading: it must find them.
        let (witnesses, newest_here) = (self.witnesses().clone(), self.newest());
        loop {
            let Some(last) = self.tail().newest().map(|entry| entry.n) else {
                return self.begin_history(store, patience).await;
            };
            let read = store.mutations_from(last, patience).await?;
            let goes_on = self.follow(&read);
            let is_all = read.last().is_none_or(|newest| newest.n <= last);
            if !goes_on || is_all && !self.confirms(&witnesses, newest_here) {
                tracing::error!(
                    last,
                    "the log doesn't go on from there (a restore, a failover, or it was trimmed meanwhile): everything \
                     cached is dropped"
                );
                self.rewritten.fetch_add(1, Ordering::Relaxed);
                self.forget();
            } else if is_all {
                return Ok(());
            }
        }
    }

    /// Whether the log, all of it read, has what was seen of it before: by lookups, and by whoever made a change here.
    pub(super) fn confirms(&self, witnesses: &Witnesses, newest_here: u64) -> bool {
        let tail = self.tail();
        let confirmed =
            tail.newest().is_some_and(|newest| newest.n >= newest_here) && witnesses.are_confirmed_by(&tail);
        if confirmed {
            self.witnesses().forget_all_of(witnesses);
        }
        confirmed
    }

    /// Takes in a part of the log that goes on from what is known here, or that says nothing new. False when it is of
    /// another history, or something is missing in it or before it: then nothing is taken in.
    pub(super) fn follow(&self, part: &[Logged]) -> bool {
        let mut tail = self.tail();
        let (Some(known), Some(end)) = (tail.newest(), part.last()) else {
            return false;
        };
        if !is_gapless(part) {
            return false;
        }
        if end.n <= known.n {
            // Somebody was quicker: what was read by one was relayed to the other.
            return tail.has(end.n, end.tag);
        }
        let Some(place) = part.iter().position(|entry| entry == known) else {
            return false;
        };
        for entry in &part[place + 1..] {
            self.take_in(&mut tail, entry.clone());
        }
        self.polled.store(end.n, Ordering::Release);
        true
    }

    /// Takes the log as it is now for the beginning. What was read before is dropped, the numbers with it, as another
    /// history counts anew; so is what was read meanwhile, which may have missed a change that isn't read again.
    async fn begin_history(&self, store: &Store, patience: Duration) -> Result<(), StoreError> {
        self.forget();
        // Older entries as well: what others put into the shared cache lately is as good as it was.
        let mut log = store.newest_mutations(self.clock.now().minus(self.look_back), patience).await?;
        let gap = log.windows(2).rposition(|pair| pair[1].n != pair[0].n + 1);
        let log = log.split_off(gap.map_or(0, |gap| gap + 1));
        let newest = log.last().ok_or(StoreError::Corrupt("mutation_log"))?.n;
        // All of it under the lock: nobody follows an empty tail.
        let mut tail = self.tail();
        self.newest.store(newest, Ordering::Release);
        for entry in log {
            self.take_in(&mut tail, entry);
        }
        self.ledger.next_lineage();
        self.polled.store(newest, Ordering::Release);
        Ok(())
    }

    fn forget(&self) {
        // Under the lock of the tail, which vouches for stamps of its own lineage alone.
        let mut tail = self.tail();
        self.polled.store(0, Ordering::Release);
        self.ledger.begin_anew();
        *self.witnesses() = Witnesses::default();
        tail.clear();
    }

    fn take_in(&self, tail: &mut Tail, entry: Logged) {
        // The change before the entry: whoever finds the entry in the tail finds its change taken in.
        if let Some((network, key_id)) = entry.subject {
            self.apply(&Mutation { n: entry.n, network, key_id });
        }
        tail.push(entry);
    }
}

/// A lease that counts from there.
pub(super) fn lease_from(boot: BootTime, wall: Timestamp) -> Lease {
    Lease { boot: boot.as_micros().max(1), wall: wall.as_micros() }
}
