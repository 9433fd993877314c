//! Polls of the log: only a successful poll extends the lease.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ledger::Lease;
use super::log_tail::{LogTail, is_gapless};
use super::observed_heads::ObservedHeads;
use super::stall::StallDetector;
use super::{Freshness, PollFailure};
use crate::clock::{BootTime, Moment};
use crate::mutants::{self, Mutant};
use crate::store::{
    Evidence, LogEntry, LogStart, LogSubject, Mutation, NotAuthoritative, PollError, Proof, ServerId, Store,
    StoreError,
};

/// Timeout of the one poll that requests wait for after the lease expired: well within their
/// budget.
const LAPSED_POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Proof of a complete poll: every change up to the end that the log had when the poll began is
/// applied, and the primary said so. Only this extends the lease.
struct CaughtUp {
    valid_from: Moment,
}

impl CaughtUp {
    /// Creates the proof for a poll that began at `began`.
    fn new(began: Moment) -> Self {
        Self { valid_from: began }
    }

    /// Includes the proof of a part of the log.
    fn with_proof(self, proof: &Proof) -> Self {
        if mutants::is_on(Mutant::OldConnection) {
            return self;
        }
        Self { valid_from: proof.valid_from(self.valid_from) }
    }
}

/// Start of a poll.
struct Begun {
    at: Moment,
    /// Time since the previous poll ended.
    idle: Duration,
    /// True if the process stalled before the poll.
    after_stall: bool,
    /// True if the lease was expired.
    was_lapsed: bool,
}

impl Freshness {
    /// Reads the changes since the last poll, then extends the lease. The lease counts from the
    /// moment before the read.
    ///
    /// # Errors
    /// When the database fails, doesn't answer in time, or isn't the primary; the lease then
    /// expires.
    pub async fn poll(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.poll_turn.lock().await;
        self.poll_in_turn(store).await
    }

    /// Polls if the lease is expired and no outage is known. Of all concurrent callers one polls,
    /// and the others wait for it.
    ///
    /// # Errors
    /// Those of [`Freshness::poll`].
    pub async fn renew(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.poll_turn.lock().await;
        match self.is_lapsed() && !self.has_outage(&self.ledger) {
            true => self.poll_in_turn(store).await,
            false => Ok(()),
        }
    }

    /// Ensures that every change up to number `n` is known here, with one poll if needed.
    /// Concurrent callers share a poll that began after they came. Returns false if the log doesn't
    /// reach `n`.
    ///
    /// # Errors
    /// Those of [`Freshness::poll`].
    pub async fn ensure_polled(&self, n: u64, store: &Store) -> Result<bool, StoreError> {
        if self.polled_to() >= n {
            return Ok(true);
        }
        let begun_before = self.polls_begun.load(Ordering::Acquire);
        let _turn = self.poll_turn.lock().await;
        if self.polled_to() < n && self.polls_ended.load(Ordering::Acquire) <= begun_before {
            self.poll_in_turn(store).await?;
        }
        Ok(self.polled_to() >= n)
    }

    /// Returns the timeout of a poll that begins now.
    fn poll_timeout(&self) -> Duration {
        let lease = self.config.lease;
        match self.age() {
            // Requests must not wait for a poll that began before the lease expired.
            Some(age) if age <= lease => (lease - age).max(LAPSED_POLL_TIMEOUT),
            // Earlier polls proved an outage: this one only has to confirm it.
            Some(_) if self.outage_evidence().is_some() && !self.has_outage(&self.ledger) => {
                LAPSED_POLL_TIMEOUT
            }
            // A later result would be too old.
            Some(_) | None => lease,
        }
    }

    fn is_lapsed(&self) -> bool {
        self.age().is_none_or(|age| age > self.config.lease)
    }

    /// Returns the time at which a poll last proved an outage, if that is still valid.
    fn outage_evidence(&self) -> Option<BootTime> {
        let shown = BootTime::from_micros(self.outage_evidence.load(Ordering::Acquire));
        let is_valid = self.clock.boot_now().since(shown) <= self.outage_validity();
        (is_valid && shown.as_micros() != 0).then_some(shown)
    }

    /// Polls once; the caller holds the lock of polls. Watches meanwhile if the process itself
    /// stalls, since a deadline that passes in a stall is no evidence of an outage.
    async fn poll_in_turn(&self, store: &Store) -> Result<(), StoreError> {
        let number = self.polls_begun.fetch_add(1, Ordering::AcqRel) + 1;
        let begun = self.begin();
        let mut stall = StallDetector::new(begun.at.boot, self.config.lease / 4);
        let result = {
            let catch_up = self.catch_up(store, begun.at, Instant::now() + self.poll_timeout());
            tokio::pin!(catch_up);
            loop {
                tokio::select! {
                    biased;
                    result = &mut catch_up => break result,
                    () = sleep(stall.interval()) => stall.observe(self.clock.boot_now()),
                }
            }
        };
        let ended = self.clock.moment();
        stall.observe(ended.boot);
        let result = match result {
            Ok(caught_up) => self.check_age(caught_up, store, begun.at, ended),
            Err(error) => Err(error),
        };
        if let Err(PollError { error: StoreError::LogBroken, .. }) = &result {
            let (store, now) = (store.clone(), self.clock.now());
            // The next poll finds its entry.
            tokio::spawn(async move {
                if let Err(error) = store.mend_log(now).await {
                    tracing::warn!(%error, "the mutation log can't be continued");
                }
            });
        }
        match &result {
            Ok(caught_up) => self.record_success(caught_up, &begun, ended),
            Err(error) => self.record_failure(error, &begun, ended, stall.has_stalled()),
        }
        self.poll_ended.store(ended.boot.as_micros(), Ordering::Release);
        self.polls_ended.store(number, Ordering::Release);
        result.map(drop).map_err(|failed| failed.error)
    }

    /// Notes the state at the start of a poll, and forgets evidence from before a stall.
    fn begin(&self) -> Begun {
        let at = self.clock.moment();
        let idle = at.boot.since(BootTime::from_micros(self.poll_ended.load(Ordering::Acquire)));
        let after_stall = self.has_polled() && idle > self.timing().max_idle();
        if after_stall && !mutants::is_on(Mutant::OldOutage) {
            self.outage_evidence.store(0, Ordering::Release);
            self.has_stalled.store(true, Ordering::Release);
        }
        Begun { at, idle, after_stall, was_lapsed: self.is_lapsed() }
    }

    /// Fails a poll whose result is older than the lease already.
    fn check_age(
        &self,
        caught_up: CaughtUp,
        store: &Store,
        began: Moment,
        ended: Moment,
    ) -> Result<CaughtUp, PollError> {
        let valid_from = caught_up.valid_from;
        if !self.has_polled() || ended.since(valid_from) <= self.config.lease {
            return Ok(caught_up);
        }
        let error = match store.renewal_error() {
            Some(_) if began.since(valid_from) > self.config.lease / 2 => NotAuthoritative::Unproven.into(),
            _ => StoreError::TimedOut,
        };
        Err(PollError { error, evidence: Evidence::Outage })
    }

    fn record_success(&self, caught_up: &CaughtUp, begun: &Begun, ended: Moment) {
        let took = ended.since(begun.at);
        if self.has_polled() && self.is_lapsed() {
            self.record_lapse(&lapse_cause(begun, took));
        }
        let is_late = mutants::is_on(Mutant::LeaseFromTheEnd);
        self.ledger.extend(lease_from(if is_late { ended } else { caught_up.valid_from }));
        self.has_lapsed.store(false, Ordering::Release);
        self.outage_evidence.store(0, Ordering::Release);
        self.has_stalled.store(false, Ordering::Release);
        self.last_poll_micros.store(micros(took), Ordering::Relaxed);
    }

    /// Records a failed poll, and what it proves about the database.
    fn record_failure(&self, failed: &PollError, begun: &Begun, ended: Moment, stalled_during: bool) {
        // A deadline that passed during a stall proves nothing about the database.
        if stalled_during {
            self.has_stalled.store(true, Ordering::Release);
        }
        let proves_outage = match failed.evidence {
            _ if mutants::is_on(Mutant::AnyTimeout) => true,
            Evidence::Outage => !stalled_during,
            Evidence::NoResponse => !self.has_stalled.load(Ordering::Acquire),
            Evidence::None => false,
        };
        if proves_outage {
            self.outage_evidence.store(ended.boot.as_micros().max(1), Ordering::Release);
        }
        if begun.was_lapsed && self.has_polled() && self.outage_evidence().is_some() {
            if !self.has_outage(&self.ledger) {
                // Counted before the mode changes: whoever sees the mode sees the count.
                self.outages.fetch_add(1, Ordering::AcqRel);
            }
            self.ledger.record_outage(ended.boot.as_micros());
        }
        let reason = failed.error.to_string();
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.has_polled() && self.is_lapsed() {
            self.record_lapse(&reason);
        }
        *self.last_failure.lock() = Some(PollFailure { at: ended.boot, reason });
    }

    /// Counts and logs that the lease expired, once per lapse.
    fn record_lapse(&self, cause: &str) {
        if !self.has_lapsed.swap(true, Ordering::AcqRel) {
            self.lapses.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(
                cause,
                age_seconds = self.age().unwrap_or_default().as_secs_f64(),
                "the lease expired: what is known of revocations is older than consistency.lease"
            );
        }
    }

    /// Reads and applies the log up to the end that it has at the first read. Later entries don't
    /// matter: others may write faster than this reads.
    async fn catch_up(&self, store: &Store, began: Moment, deadline: Instant) -> Result<CaughtUp, PollError> {
        // Copied before the read, which must find them.
        let (observed_heads, written) = (self.observed_heads().clone(), self.newest());
        let mut caught_up = CaughtUp::new(began);
        let mut end = None;
        loop {
            let Some(last) = self.tail().newest().map(|entry| entry.n) else {
                return self.start_lineage(store, began, deadline).await;
            };
            let part = store.read_log(LogStart::At(last), &self.clock, self.timing(), deadline).await?;
            self.note_server(part.proof.server());
            caught_up = caught_up.with_proof(&part.proof);
            let end = *end.get_or_insert(part.end);
            let continues = self.append(&part.entries);
            let is_complete = self.polled_to() >= end;
            let has_more = part.entries.last().is_some_and(|newest| newest.n > last);
            let is_rewritten = !continues
                || end < last
                || !is_complete && !has_more
                || is_complete && !self.confirm_heads(&observed_heads, written);
            if is_rewritten {
                tracing::error!(
                    last,
                    "the log doesn't continue after this number (a restore, a failover, or it was trimmed \
                     meanwhile): everything cached is dropped"
                );
                self.rewrites.fetch_add(1, Ordering::Relaxed);
                self.reset();
            } else if is_complete {
                return Ok(caught_up);
            }
        }
    }

    /// Counts a change of the server that polls come from. What an earlier one said of unknown keys
    /// isn't used any more: it may lack keys that were issued since it lost its place.
    pub(super) fn note_server(&self, server: &ServerId) {
        let mut last = self.server.lock();
        if last.as_ref() != Some(server) {
            *last = Some(server.clone());
            self.servers.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Returns true if the log, which is read completely, has the heads that lookups observed and
    /// the number that this process wrote last.
    pub(super) fn confirm_heads(&self, observed_heads: &ObservedHeads, written: u64) -> bool {
        let tail = self.tail();
        let is_confirmed =
            tail.newest().is_some_and(|newest| newest.n >= written || mutants::is_on(Mutant::WrittenIgnored))
                && (observed_heads.are_confirmed_by(&tail) || mutants::is_on(Mutant::HeadsIgnored));
        if is_confirmed {
            self.observed_heads().remove_confirmed(observed_heads);
        }
        is_confirmed
    }

    /// Applies entries that continue the tail, or that are in it already. Returns false, and
    /// applies none, if they are of another history, or one is missing before or between them.
    pub(super) fn append(&self, entries: &[LogEntry]) -> bool {
        let mut tail = self.tail();
        let (Some(known), Some(end)) = (tail.newest(), entries.last()) else {
            return false;
        };
        if !is_gapless(entries) {
            return false;
        }
        if end.n <= known.n {
            // A poll and a relayed response may bring the same entries.
            return tail.contains(end.n, end.tag);
        }
        let Some(index) = entries.iter().position(|entry| entry == known) else {
            return false;
        };
        for entry in &entries[index + 1..] {
            self.apply_entry(&mut tail, entry.clone());
        }
        self.polled_to.store(end.n, Ordering::Release);
        true
    }

    /// Starts a lineage with the log as it is now. Earlier rows are dropped, and the numbers with
    /// them, as another history may reuse numbers. Rows that are being read are dropped as well:
    /// they may miss a change that isn't read again.
    async fn start_lineage(
        &self,
        store: &Store,
        began: Moment,
        deadline: Instant,
    ) -> Result<CaughtUp, PollError> {
        self.reset();
        // Older entries are read as well, so that rows in the shared cache stay usable.
        let since = LogStart::Since(self.history_window);
        let part = store.read_log(since, &self.clock, self.timing(), deadline).await?;
        self.note_server(part.proof.server());
        let mut log = part.entries;
        let gap = log.windows(2).rposition(|pair| pair[1].n != pair[0].n + 1);
        let log = log.split_off(gap.map_or(0, |gap| gap + 1));
        let broken = PollError { error: StoreError::LogBroken, evidence: Evidence::Outage };
        let newest = log.last().map(|newest| newest.n).filter(|newest| *newest == part.end).ok_or(broken)?;
        // All of it under one lock, so that nobody sees a part of the tail.
        let mut tail = self.tail();
        self.newest.store(newest, Ordering::Release);
        // The number before the lineage: whoever sees this lineage sees a number that belongs to
        // it.
        self.ledger.next_lineage();
        for entry in log {
            self.apply_entry(&mut tail, entry);
        }
        self.polled_to.store(newest, Ordering::Release);
        Ok(CaughtUp::new(began).with_proof(&part.proof))
    }

    fn reset(&self) {
        // Under the lock of the tail, which confirms only stamps of its own lineage.
        let mut tail = self.tail();
        self.polled_to.store(0, Ordering::Release);
        self.ledger.next_lineage();
        *self.observed_heads() = ObservedHeads::default();
        tail.clear();
        self.progress.send_replace(());
    }

    fn apply_entry(&self, tail: &mut LogTail, entry: LogEntry) {
        // The change before the entry: whoever finds the entry in the tail finds its change
        // applied.
        match entry.subject {
            Some(LogSubject::Key(network, key_id)) => self.apply(&Mutation { n: entry.n, network, key_id }),
            Some(LogSubject::Actor(network, ref actor)) => self.apply_to_actor(network, actor, entry.n),
            None => self.record_written(entry.n),
        }
        tail.push(entry);
    }
}

/// Explains why a successful poll came too late.
fn lapse_cause(begun: &Begun, took: Duration) -> String {
    let (idle, took) = (begun.idle.as_secs_f64(), took.as_secs_f64());
    match begun.after_stall {
        true => format!("no poll for {idle:.1} s: the process was stopped or its machine suspended"),
        false => format!("the last poll took {took:.1} s, after {idle:.1} s without one"),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Makes a lease that counts from a moment.
pub(super) fn lease_from(from: Moment) -> Lease {
    Lease { boot: from.boot.as_micros().max(1), wall: from.wall.as_micros() }
}
