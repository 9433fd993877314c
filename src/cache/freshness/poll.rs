//! Polling the log: the one way in which the lease is extended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ledger::Lease;
use super::tail::{Tail, is_gapless};
use super::witnesses::Witnesses;
use super::{Freshness, PollFailure};
use crate::clock::{BootTime, Moment};
use crate::store::{
    Evidence, LogStart, Logged, Mutation, NotAuthoritative, PollError, Proof, Store, StoreError,
};

/// How long the one poll may take for which requests wait when the lease has lapsed: well within their budget.
const QUICK: Duration = Duration::from_millis(100);

/// What a whole poll has proven: every change up to the log's end, as that was when the poll began, is taken in, and
/// the server that said so was the one that counts. Only this extends the lease.
struct CaughtUp {
    from: Moment,
}

impl CaughtUp {
    /// The poll began at `began`.
    fn new(began: Moment) -> Self {
        Self { from: began }
    }

    /// Takes in where a part of the log came from.
    fn by(self, proof: Proof) -> Self {
        Self { from: proof.counts_from(self.from) }
    }
}

impl Freshness {
    /// Reads what changed since the last poll, then extends the lease to count from the moment before the reading.
    ///
    /// # Errors
    /// When the database fails, is silent, or isn't the one that counts; the lease then runs out by itself.
    pub async fn poll(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        self.poll_in_turn(store).await
    }

    /// As [`Freshness::poll`], but only if the lease has lapsed and nobody has tried since: of all who find it so one
    /// polls, and the others have waited for that.
    ///
    /// # Errors
    /// When the database fails or is silent.
    pub async fn renew(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        match self.is_lapsed() && !self.is_cut_off(&self.ledger) {
            true => self.poll_in_turn(store).await,
            false => Ok(()),
        }
    }

    /// How long a poll may take that begins now.
    fn patience(&self) -> Duration {
        let lease = self.terms.lease;
        match self.age() {
            // Requests must not wait for one that began before the lease lapsed.
            Some(age) if age <= lease => (lease - age).max(QUICK),
            // Polls have shown lately that nobody can be asked: this one only has to confirm it.
            Some(_) if self.shown_outage().is_some() && !self.is_cut_off(&self.ledger) => QUICK,
            // An answer that takes longer would be too old.
            Some(_) | None => lease,
        }
    }

    fn is_lapsed(&self) -> bool {
        self.age().is_none_or(|age| age > self.terms.lease)
    }

    /// When a poll last showed that the database can't be reached, unless that is long ago.
    fn shown_outage(&self) -> Option<BootTime> {
        let shown = BootTime::from_micros(self.shown_outage.load(Ordering::Acquire));
        (self.clock.boot_now().since(shown) <= self.outage_validity() && shown.as_micros() != 0)
            .then_some(shown)
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
            self.poll_in_turn(store).await?;
        }
        Ok(self.polled() >= n)
    }

    async fn poll_in_turn(&self, store: &Store) -> Result<(), StoreError> {
        let poll = self.polls_begun.fetch_add(1, Ordering::AcqRel) + 1;
        let began = self.clock.moment();
        let idle = began.boot.since(BootTime::from_micros(self.poll_ended.load(Ordering::Acquire)));
        let has_stood_still = self.has_begun() && idle > self.timing().idle();
        if has_stood_still {
            self.shown_outage.store(0, Ordering::Release);
            self.stood_still.store(true, Ordering::Release);
        }
        let (lapsed, patience) = (self.is_lapsed(), self.patience());
        let mut standstill = StandstillWatch::new(began.boot, self.terms.lease / 4);
        let result = {
            let catch_up = self.catch_up(store, began, Instant::now() + patience);
            tokio::pin!(catch_up);
            loop {
                tokio::select! {
                    result = &mut catch_up => break result,
                    () = sleep(standstill.interval()) => standstill.observe(self.clock.boot_now()),
                }
            }
        };
        let ended = self.clock.moment();
        standstill.observe(ended.boot);
        let took = ended.since(began);
        let result = match result {
            // What it brought is as old as its beginning.
            Ok(CaughtUp { from }) if self.has_begun() && ended.since(from) > self.terms.lease => {
                let error = match store.renewal_error() {
                    Some(_) if began.since(from) > self.terms.lease / 2 => NotAuthoritative::Unproven.into(),
                    _ => StoreError::TimedOut,
                };
                Err(PollError { error, evidence: Evidence::Outage })
            }
            result => result,
        };
        match &result {
            Ok(CaughtUp { from }) => {
                if self.has_begun() && self.is_lapsed() {
                    self.note_lapse(&cause(has_stood_still, idle, took));
                }
                self.ledger.extend(lease_from(*from));
                self.has_lapsed.store(false, Ordering::Release);
                self.shown_outage.store(0, Ordering::Release);
                self.stood_still.store(false, Ordering::Release);
                self.poll_took.store(micros(took), Ordering::Relaxed);
            }
            Err(failed) => {
                // A deadline that passed while the process stood still says nothing of the database.
                if standstill.is_noticed {
                    self.stood_still.store(true, Ordering::Release);
                }
                let shows_outage = match failed.evidence {
                    Evidence::Outage => !standstill.is_noticed,
                    Evidence::Silence => !self.stood_still.load(Ordering::Acquire),
                    Evidence::None => false,
                };
                if shows_outage {
                    self.shown_outage.store(ended.boot.as_micros().max(1), Ordering::Release);
                }
                if lapsed && self.has_begun() && self.shown_outage().is_some() {
                    if !self.is_cut_off(&self.ledger) {
                        // Before the mode: whoever sees the mode sees the count.
                        self.outages.fetch_add(1, Ordering::AcqRel);
                    }
                    self.ledger.note_outage(ended.boot.as_micros());
                }
                let reason = failed.error.to_string();
                self.failures.fetch_add(1, Ordering::Relaxed);
                if self.has_begun() && self.is_lapsed() {
                    self.note_lapse(&reason);
                }
                *self.last_failure.lock() = Some(PollFailure { at: ended.boot, reason });
            }
        }
        self.poll_ended.store(ended.boot.as_micros(), Ordering::Release);
        self.polls_ended.store(poll, Ordering::Release);
        result.map(drop).map_err(|failed| failed.error)
    }

    /// Counts and logs that the lease has run out, once for each time that it does.
    fn note_lapse(&self, cause: &str) {
        if !self.has_lapsed.swap(true, Ordering::AcqRel) {
            self.lapses.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(
                cause,
                age_seconds = self.age().unwrap_or_default().as_secs_f64(),
                "the lease ran out: what is known of revocations is older than consistency.lease"
            );
        }
    }

    async fn catch_up(&self, store: &Store, began: Moment, deadline: Instant) -> Result<CaughtUp, PollError> {
        // Noted before the reading: it must find them.
        let (witnesses, newest_here) = (self.witnesses().clone(), self.newest());
        let mut caught_up = CaughtUp::new(began);
        // What was committed by the time of the first reading is enough. Others may write faster than this reads.
        let mut end = None;
        loop {
            let Some(last) = self.tail().newest().map(|entry| entry.n) else {
                return self.begin_history(store, began, deadline).await;
            };
            let part = store.read_log(LogStart::At(last), &self.clock, self.timing(), deadline).await?;
            caught_up = caught_up.by(part.proof);
            let end = *end.get_or_insert(part.end);
            let goes_on = self.follow(&part.entries);
            let is_all = self.polled() >= end;
            let is_more = part.entries.last().is_some_and(|newest| newest.n > last);
            if !goes_on || !is_all && !is_more || is_all && !self.confirms(&witnesses, newest_here) {
                tracing::error!(
                    last,
                    "the log doesn't go on from there (a restore, a failover, or it was trimmed meanwhile): everything \
                     cached is dropped"
                );
                self.rewritten.fetch_add(1, Ordering::Relaxed);
                self.forget();
            } else if is_all {
                return Ok(caught_up);
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
    async fn begin_history(
        &self,
        store: &Store,
        began: Moment,
        deadline: Instant,
    ) -> Result<CaughtUp, PollError> {
        self.forget();
        // Older entries as well: what others put into the shared cache lately is as good as it was.
        let since = LogStart::Since(self.clock.now().minus(self.look_back));
        let part = store.read_log(since, &self.clock, self.timing(), deadline).await?;
        let mut log = part.entries;
        let gap = log.windows(2).rposition(|pair| pair[1].n != pair[0].n + 1);
        let log = log.split_off(gap.map_or(0, |gap| gap + 1));
        let corrupt = PollError { error: StoreError::Corrupt("mutation_log"), evidence: Evidence::Outage };
        let newest = log.last().map(|newest| newest.n).filter(|newest| *newest == part.end).ok_or(corrupt)?;
        // All of it under the lock: nobody follows an empty tail.
        let mut tail = self.tail();
        self.newest.store(newest, Ordering::Release);
        // The numbers before the lineage: whoever finds this lineage finds numbers that belong to it.
        self.ledger.next_lineage();
        for entry in log {
            self.take_in(&mut tail, entry);
        }
        self.polled.store(newest, Ordering::Release);
        Ok(CaughtUp::new(began).by(part.proof))
    }

    fn forget(&self) {
        // Under the lock of the tail, which vouches for stamps of its own lineage alone.
        let mut tail = self.tail();
        self.polled.store(0, Ordering::Release);
        self.ledger.next_lineage();
        *self.witnesses() = Witnesses::default();
        tail.clear();
    }

    fn take_in(&self, tail: &mut Tail, entry: Logged) {
        // The change before the entry: whoever finds the entry in the tail finds its change taken in.
        match entry.subject {
            Some((network, key_id)) => self.apply(&Mutation { n: entry.n, network, key_id }),
            None => self.note_newest(entry.n),
        }
        tail.push(entry);
    }
}

/// Notices that the process, or its machine, stood still: whoever looks at the clock all the time misses much of it.
struct StandstillWatch {
    last: BootTime,
    limit: Duration,
    is_noticed: bool,
}

impl StandstillWatch {
    /// From `now` on; what takes less than `limit` is a busy machine.
    fn new(now: BootTime, limit: Duration) -> Self {
        Self { last: now, limit, is_noticed: false }
    }

    /// How often to look.
    fn interval(&self) -> Duration {
        self.limit / 5
    }

    fn observe(&mut self, now: BootTime) {
        self.is_noticed |= now.since(self.last) > self.limit;
        self.last = now;
    }
}

/// Why a poll that succeeded came too late.
fn cause(has_stood_still: bool, idle: Duration, took: Duration) -> String {
    let (idle, took) = (idle.as_secs_f64(), took.as_secs_f64());
    match has_stood_still {
        true => format!("nobody polled for {idle:.1} s: the process, or its machine, stood still"),
        false => format!("the last poll took {took:.1} s, after {idle:.1} s without one"),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A lease that counts from there.
pub(super) fn lease_from(from: Moment) -> Lease {
    Lease { boot: from.boot.as_micros().max(1), wall: from.wall.as_micros() }
}
