//! Writing of counted Checks: adds the threads' tables up, and saves absolute numbers in batches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::counter::UsageCounter;
use super::rows::{CheckKey, CheckTable, CountedKey, UsageRows, UseState};
use crate::clock::Clock;
use crate::key::{KeyId, NetworkId};
use crate::store::{KeyUse, Store, StoreError, USAGE_BATCH, UsageRow};

/// Tables that may wait to be added up.
const MAX_WAITING_TABLES: usize = 32;
/// Precision of the last use of a key; at the end of the process it is exact.
const USE_PRECISION: Duration = Duration::from_secs(60);
/// Time after the end of an hour for which its rows stay in memory.
const LATE: Duration = Duration::from_secs(10 * 60);
/// Time for the last write.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of the counting.
#[derive(Debug, Clone, Copy)]
pub struct UsageSettings {
    /// True if Checks are counted.
    pub is_enabled: bool,
    /// Longest time of counting that is lost when the process is killed.
    pub flush_interval: Duration,
    /// Most rows in memory.
    pub max_rows: usize,
}

/// Writer of what the threads count.
pub struct UsageWriter {
    settings: UsageSettings,
    queue: mpsc::Receiver<CheckTable>,
}

/// Creates a counter and its writer.
pub fn usage_counter(settings: UsageSettings) -> (UsageCounter, UsageWriter) {
    let (sender, queue) = mpsc::channel(MAX_WAITING_TABLES);
    let counter = UsageCounter::new(settings.is_enabled, settings.flush_interval, sender);
    (counter, UsageWriter { settings, queue })
}

/// Writing in progress.
struct Writing {
    store: Store,
    clock: Clock,
    /// Identifies the rows of this process; a later one has another.
    process: Uuid,
    counter: Arc<UsageCounter>,
    queue: mpsc::Receiver<CheckTable>,
    rows: UsageRows,
}

/// Rows and uses of one transaction.
type Batch = (Vec<(CheckKey, u64)>, Vec<((NetworkId, KeyId), UseState)>);

impl UsageWriter {
    /// Writes numbers until `stop` is cancelled, then what is left, within a limited time.
    ///
    /// What can't be written stays in memory, and is written later. `process` identifies the rows.
    pub async fn write(
        self,
        counter: Arc<UsageCounter>,
        store: Store,
        clock: Clock,
        process: Uuid,
        stop: CancellationToken,
    ) {
        let Self { settings, queue } = self;
        if !settings.is_enabled {
            return stop.cancelled().await;
        }
        let rows = UsageRows::new(settings.max_rows);
        let mut writing = Writing { store, clock, process, counter, queue, rows };
        // The rest of the interval is for the handover of the tables, and the write itself.
        let mut tick = tokio::time::interval(settings.flush_interval * 4 / 5);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(table) = writing.queue.recv() => writing.merge(table),
                _ = tick.tick() => tokio::select! {
                    () = writing.flush(USE_PRECISION) => {}
                    // The interrupted write is repeated below.
                    () = stop.cancelled() => break,
                },
                () = stop.cancelled() => break,
            }
        }
        writing.queue.close();
        while let Some(table) = writing.queue.recv().await {
            writing.merge(table);
        }
        if tokio::time::timeout(DRAIN_TIMEOUT, writing.flush(Duration::ZERO)).await.is_err() {
            tracing::warn!("the last numbers of usage could not be written in time");
        }
        let left = writing.rows.unwritten().len();
        if left > 0 {
            tracing::warn!(
                rows = left,
                "numbers of usage are lost: the database didn't take them before the end"
            );
        }
    }
}

impl Writing {
    fn merge(&mut self, table: CheckTable) {
        let merged = self.rows.merge(table, self.store.corrected(self.clock.now()));
        let readings = &self.counter.readings;
        readings.overflowed.fetch_add(merged.overflowed, Ordering::Relaxed);
        readings.rows.store(self.rows.len() as u64, Ordering::Relaxed);
        if merged.checks > 0 && readings.unwritten_since.load(Ordering::Relaxed) == 0 {
            let now = self.clock.boot_now().as_micros().max(1);
            readings.unwritten_since.store(now, Ordering::Relaxed);
        }
    }

    /// Writes all that the database doesn't have; stops at the first failure.
    async fn flush(&mut self, precision: Duration) {
        let began = self.clock.boot_now().as_micros().max(1);
        let (rows, uses) = (self.rows.unwritten(), self.rows.unwritten_uses(precision));
        for batch in batches(&rows, &uses) {
            if let Err(error) = self.save(batch).await {
                self.counter.readings.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, rows = rows.len(), "usage could not be written; trying again");
                return;
            }
        }
        self.rows.forget(self.store.corrected(self.clock.now()).minus(LATE));
        let readings = &self.counter.readings;
        readings.rows.store(self.rows.len() as u64, Ordering::Relaxed);
        let is_clean = self.rows.unwritten().is_empty();
        readings.unwritten_since.store(if is_clean { 0 } else { began }, Ordering::Relaxed);
    }

    /// Saves a batch; tables that threads hand over meanwhile are added up.
    async fn save(&mut self, (rows, uses): Batch) -> Result<(), StoreError> {
        let of_rows = rows.iter().filter_map(|(key, _)| match key.key {
            CountedKey::Key(id) => Some((*key.network.as_bytes(), key.network, id)),
            CountedKey::None | CountedKey::Other => None,
        });
        let of_uses = uses.iter().map(|((network, id), _)| (*network.as_bytes(), *network, *id));
        // In the order in which their rows are locked.
        let keys: BTreeSet<_> = of_rows.chain(of_uses).map(|(order, _, id)| (order, id)).collect();
        let keys = keys.into_iter().map(|(network, id)| (NetworkId::new(Uuid::from_bytes(network)), id));
        let saved_rows = rows.iter().map(|(key, count)| UsageRow {
            network: key.network,
            hour: key.hour,
            key: key.key.text(),
            route: key.route.as_str().to_owned(),
            outcome: key.outcome,
            count: *count,
        });
        let saved_uses = uses.iter().map(|((network, key), used)| KeyUse {
            network: *network,
            key: *key,
            first: used.first,
            last: used.last,
            address: used.address,
        });
        let (saved_rows, saved_uses) = (saved_rows.collect(), saved_uses.collect());
        let store = self.store.clone();
        let mut saving =
            std::pin::pin!(store.save_usage(self.process, saved_rows, saved_uses, keys.collect()));
        let gone = loop {
            tokio::select! {
                saved = &mut saving => break saved?,
                Some(table) = self.queue.recv() => self.merge(table),
            }
        };
        // These weren't written, so they come first.
        for (key, current) in gone {
            match current {
                Some(current) => self.rows.rename(key, current),
                None => self.rows.erase(key),
            }
        }
        for (key, count) in &rows {
            self.rows.set_written(key, *count);
        }
        for (key, used) in &uses {
            self.rows.set_use_written(key, used.last);
        }
        Ok(())
    }
}

/// Splits what is to be written into batches, each for one call of [`Store::save_usage`].
fn batches(rows: &[(CheckKey, u64)], uses: &[((NetworkId, KeyId), UseState)]) -> impl Iterator<Item = Batch> {
    let count = rows.len().max(uses.len()).div_ceil(USAGE_BATCH);
    (0..count).map(move |number| (part(rows, number), part(uses, number)))
}

fn part<T: Clone>(all: &[T], number: usize) -> Vec<T> {
    all.chunks(USAGE_BATCH).nth(number).map(<[T]>::to_vec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::settings::policy::RouteName;

    /// The rows of keys stay locked while a batch is written, also those that a change waits for.
    #[test]
    fn a_batch_is_no_more_than_a_statement_for_rows_and_one_for_uses() {
        let now = Timestamp::from_secs(1_800_000_000);
        let key = |number: u128| (NetworkId::SINGLE, KeyId::Issued(Uuid::from_u128(number)));
        let row = |number: u128| {
            let (network, id) = key(number);
            let (key, route) = (CountedKey::Key(id), RouteName::default());
            (CheckKey { network, key, route, outcome: "allow", hour: now }, 1)
        };
        let used = |number| (key(number), UseState { first: now, last: now, address: None, written: None });
        let (rows, uses): (Vec<_>, Vec<_>) = ((0..250).map(row).collect(), (0..90).map(used).collect());
        let batches: Vec<_> = batches(&rows, &uses).collect();
        assert!(batches.iter().all(|(rows, uses)| rows.len() <= USAGE_BATCH && uses.len() <= USAGE_BATCH));
        assert_eq!(batches.iter().flat_map(|(rows, _)| rows.clone()).collect::<Vec<_>>(), rows);
        let written: Vec<_> = batches.iter().flat_map(|(_, uses)| uses.iter().map(|(key, _)| *key)).collect();
        let all: Vec<_> = uses.iter().map(|(key, _)| *key).collect();
        assert_eq!(written, all);
    }
}
