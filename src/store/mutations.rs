//! Log of changes, from which every instance learns that a cached row is stale (see
//! `cache::freshness`).

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use tokio::time::Instant;

use super::dialect::{MAX_ROWS, placeholders};
use super::poller::{Evidence, PollError, PollTiming, Proof, Statement};
use super::server::authoritative;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::{Clock, Timestamp};
use crate::key::{KeyId, NetworkId};

/// Most entries read by one statement.
const READ_BATCH: i64 = 10_000;
/// Most entries deleted by one statement.
pub const TRIM_BATCH: u64 = 1_000;

/// Change of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// Number of the change; changes are committed in this order.
    pub n: u64,
    /// Network of the key.
    pub network: NetworkId,
    /// The key.
    pub key_id: KeyId,
}

/// Entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Number of the entry.
    pub n: u64,
    /// Random tag: the same number with another tag belongs to another history.
    pub tag: u128,
    /// Changed key; `None` for the first entry, and for issued keys.
    pub subject: Option<(NetworkId, KeyId)>,
}

/// Start of a read of the log.
#[derive(Debug, Clone, Copy)]
pub enum LogStart {
    /// The entry of this number.
    At(u64),
    /// The newest entry before this time by the writers' clocks, or a later one: another instance
    /// may have read the log up to there.
    Since(Timestamp),
}

/// Part of the log, with its proof.
#[derive(Debug)]
pub struct LogPart {
    /// Newest number of the log when the read began: the entries up to there are all changes that
    /// were committed by then.
    pub end: u64,
    /// Entries in order, at most 10,000.
    pub entries: Vec<LogEntry>,
    /// Proof that the primary answered.
    pub proof: Proof,
}

impl Store {
    /// Reads a part of the log on the poll connection, by `deadline`. One statement reads the end,
    /// the entries and the server's identity at the same moment.
    ///
    /// # Errors
    /// When the database fails, or the server that answers isn't the primary.
    pub async fn read_log(
        &self,
        start: LogStart,
        clock: &Clock,
        timing: PollTiming,
        deadline: Instant,
    ) -> Result<LogPart, PollError> {
        let (clock, inner) = (clock.clone(), Arc::clone(&self.0));
        let task = async move {
            let entries = match start {
                LogStart::At(_) => "WHERE n >= $1 ORDER BY n LIMIT $2",
                LogStart::Since(_) => "ORDER BY n DESC LIMIT $1",
            };
            let text = format!(
                "SELECT n AS n, 0 AS at, {id} AS server_id, {state} AS server_state, '' AS tag, '' AS network_id, \
                 '' AS key_id FROM mutation_counter WHERE id = 1 UNION ALL \
                 SELECT n, at, '', '', tag, network_id, key_id FROM (SELECT n, at, tag, network_id, key_id \
                 FROM mutation_log {entries}) AS entries",
                id = inner.dialect.server_id(),
                state = inner.dialect.server_state(),
            );
            let query = {
                let inner = Arc::clone(&inner);
                move || {
                    let query = inner.query(text.clone());
                    match start {
                        LogStart::At(n) => query.bind(i64::try_from(n).unwrap_or(i64::MAX)).bind(READ_BATCH),
                        LogStart::Since(_) => query.bind(READ_BATCH),
                    }
                }
            };
            let statement: Statement = Arc::new(move |connection| query().fetch_all(connection).boxed());
            let (rows, proof) = inner.poller.fetch(statement, &clock, timing, deadline).await?;
            if let Some(file) = inner.poller.file() {
                let inner = Arc::clone(&inner);
                tokio::spawn(async move { inner.anchor.follow(file, inner.poller.options()).await });
            }
            let (end, mut entries) =
                read_part(&rows).map_err(|error| PollError { error, evidence: Evidence::Outage })?;
            if let LogStart::Since(since) = start {
                let before = entries.iter().rposition(|(_, at)| *at < since.as_micros());
                entries.drain(..before.unwrap_or(0));
            }
            let entries = entries.into_iter().map(|(entry, _)| entry).collect();
            Ok(LogPart { end, entries, proof })
        };
        let task = tokio::spawn(task);
        task.await.unwrap_or(Err(PollError { error: StoreError::Interrupted, evidence: Evidence::None }))
    }

    /// Returns the newest number of the log.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_number(&self) -> Result<u64, StoreError> {
        self.run(async |inner| {
            let newest = inner.query("SELECT n FROM mutation_counter WHERE id = 1");
            let row = inner.read(|connection| newest.fetch_one(connection).boxed()).await?;
            u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| StoreError::Corrupt("n"))
        })
        .await
    }

    /// Deletes the oldest entries of the log, at most [`TRIM_BATCH`], and returns their number. Of
    /// the entries before `before` the newest stays: instances that have polled since then continue
    /// from it or from a later one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_mutations(&self, before: Timestamp) -> Result<u64, StoreError> {
        let oldest = "SELECT n, at FROM mutation_log ORDER BY n LIMIT $1";
        self.run(async move |inner| {
            let oldest = inner.query(oldest).bind(TRIM_BATCH as i64 + 1);
            let rows = inner.read(|connection| oldest.fetch_all(connection).boxed()).await?;
            let entries: Result<Vec<(i64, i64)>, sqlx::Error> =
                rows.iter().map(|row| Ok((row.try_get("n")?, row.try_get("at")?))).collect();
            let entries = entries?;
            // Up to the first entry that is newer, not all older ones: times by several clocks
            // needn't be in order, and the log must have no gap.
            let old = entries.iter().take_while(|(_, at)| *at < before.as_micros());
            let Some((kept, _)) = old.last().filter(|kept| Some(*kept) != entries.first()) else {
                return Ok(0);
            };
            inner
                .write(*kept, |inner, transaction, kept| {
                    let delete = inner.query("DELETE FROM mutation_log WHERE n < $1").bind(*kept);
                    async move { Ok(End::Commit(delete.execute(&mut *transaction).await?.rows_affected())) }
                        .boxed()
                })
                .await
        })
        .await
    }
}

/// Returns the end of the log, and the entries with their times, in order.
fn read_part(rows: &[AnyRow]) -> Result<(u64, Vec<(LogEntry, i64)>), StoreError> {
    let (mut end, mut entries) = (None, vec![]);
    for row in rows {
        if row.try_get::<String, _>("server_state")?.is_empty() {
            entries.push((read(row)?, row.try_get::<i64, _>("at")?));
        } else {
            end = u64::try_from(row.try_get::<i64, _>("n")?).ok();
        }
    }
    // Databases don't order the parts of a UNION ALL.
    entries.sort_unstable_by_key(|(entry, _)| entry.n);
    Ok((end.ok_or(StoreError::Corrupt("n"))?, entries))
}

fn read(row: &AnyRow) -> Result<LogEntry, StoreError> {
    let n = row.try_get::<i64, _>("n")?;
    let network = NetworkId::parse(&row.try_get::<String, _>("network_id")?);
    let key_id = KeyId::parse_any(&row.try_get::<String, _>("key_id")?);
    Ok(LogEntry {
        n: u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?,
        tag: read_tag(&row.try_get::<String, _>("tag")?)?,
        subject: network.zip(key_id),
    })
}

/// Decodes a tag from its hex digits.
pub(super) fn read_tag(digits: &str) -> Result<u128, StoreError> {
    u128::from_str_radix(digits, 16).map_err(|_| StoreError::Corrupt("tag"))
}

/// Numbers a change and logs it, inside the transaction that makes it. Incrementing the one row
/// locks it until the commit: no later number can be visible before this one.
pub(super) async fn log_mutation(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    key_id: KeyId,
    at: Timestamp,
) -> Result<Mutation, StoreError> {
    let mutations = log_mutations(inner, transaction, &[(network, key_id, at)]).await?;
    mutations.first().copied().ok_or(StoreError::Corrupt("n"))
}

/// Logs that keys were issued, with one number, which it returns. Their ids can't have been looked
/// up before, so no cached row is stale; but a restore that loses them must be noticed, too.
///
/// To be called last: the row that orders all changes stays locked until the commit.
pub(super) async fn log_issue(
    inner: &Inner,
    transaction: &mut AnyConnection,
    at: Timestamp,
) -> Result<u64, StoreError> {
    let n = take_numbers(inner, transaction, 1).await?;
    insert_entries(inner, transaction, [(n, String::new(), String::new(), at)]).await?;
    u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))
}

/// Takes `count` numbers and returns the last. Fails if the server isn't the primary.
async fn take_numbers(inner: &Inner, transaction: &mut AnyConnection, count: i64) -> Result<i64, StoreError> {
    let increment = inner.query("UPDATE mutation_counter SET n = n + $1 WHERE id = 1").bind(count);
    increment.execute(&mut *transaction).await?;
    let (id, state) = (inner.dialect.server_id(), inner.dialect.server_state());
    let read =
        format!("SELECT n, {id} AS server_id, {state} AS server_state FROM mutation_counter WHERE id = 1");
    let row = inner.query(read).fetch_one(&mut *transaction).await?;
    inner.poller.check_server(&authoritative(&row, "server_id", "server_state")?)?;
    Ok(row.try_get::<i64, _>("n")?)
}

/// Logs many changes with successive numbers, like [`log_mutation`].
pub(super) async fn log_mutations(
    inner: &Inner,
    transaction: &mut AnyConnection,
    changes: &[(NetworkId, KeyId, Timestamp)],
) -> Result<Vec<Mutation>, StoreError> {
    let count = i64::try_from(changes.len()).map_err(|_| StoreError::Corrupt("n"))?;
    if count == 0 {
        return Ok(vec![]);
    }
    let first = take_numbers(inner, transaction, count).await? - count + 1;
    let numbered: Vec<_> = (first..).zip(changes).collect();
    let entries =
        numbered.iter().map(|(n, (network, key_id, at))| (*n, network.to_string(), key_id.to_string(), *at));
    insert_entries(inner, transaction, entries).await?;
    let mutation = |(n, (network, key_id, _)): &(i64, &(NetworkId, KeyId, Timestamp))| {
        let n = u64::try_from(*n).map_err(|_| StoreError::Corrupt("n"))?;
        Ok(Mutation { n, network: *network, key_id: *key_id })
    };
    numbered.iter().map(mutation).collect()
}

/// Inserts log entries (number, network, key, time), each with its own tag.
async fn insert_entries(
    inner: &Inner,
    transaction: &mut AnyConnection,
    entries: impl IntoIterator<Item = (i64, String, String, Timestamp)>,
) -> Result<(), StoreError> {
    let entries: Vec<_> = entries.into_iter().collect();
    for chunk in entries.chunks(MAX_ROWS) {
        let values = placeholders(chunk.len(), 5);
        let insert = format!("INSERT INTO mutation_log (n, tag, network_id, key_id, at) VALUES {values}");
        let insert = chunk.iter().fold(inner.query(insert), |insert, (n, network, key_id, at)| {
            let tag = u128::from_be_bytes(inner.rng.bytes());
            insert
                .bind(*n)
                .bind(format!("{tag:032x}"))
                .bind(network.clone())
                .bind(key_id.clone())
                .bind(at.as_micros())
        });
        insert.execute(&mut *transaction).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rng::Rng;

    const MINUTE: i64 = 60;

    /// Opens a store whose log has an entry for each of these times, after the first one.
    async fn store(times: impl IntoIterator<Item = i64>) -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let times: Vec<i64> = times.into_iter().collect();
        let log = async move |inner: std::sync::Arc<Inner>| {
            inner
                .write(times, |inner, transaction, times| {
                    async move {
                        for at in times {
                            let (network, key_id) = (NetworkId::SINGLE, KeyId::Imported([7; 32]));
                            let at = Timestamp::from_secs(*at);
                            log_mutation(inner, transaction, network, key_id, at).await?;
                        }
                        Ok(End::Commit(()))
                    }
                    .boxed()
                })
                .await
        };
        store.run(log).await.unwrap();
        (store, directory)
    }

    async fn numbers(store: &Store) -> Vec<u64> {
        let second = Duration::from_secs(1);
        let timing = PollTiming { lease: second * 5, interval: second };
        let deadline = Instant::now() + second * 5;
        let part = store.read_log(LogStart::At(0), &Clock::system(), timing, deadline).await.unwrap();
        part.entries.iter().map(|entry| entry.n).collect()
    }

    #[tokio::test]
    async fn old_entries_are_trimmed_except_the_newest() {
        let (store, _directory) = store([1, 2, 3, 100, 101].map(|minute| minute * MINUTE)).await;
        assert_eq!(store.newest_number().await.unwrap(), 5);
        for (before, left) in [
            (0, vec![0, 1, 2, 3, 4, 5]),
            (2, vec![1, 2, 3, 4, 5]),
            (50, vec![3, 4, 5]),
            (100, vec![3, 4, 5]),
            (1_000, vec![5]),
            (2_000, vec![5]),
        ] {
            store.trim_mutations(Timestamp::from_secs(before * MINUTE)).await.unwrap();
            assert_eq!(numbers(&store).await, left, "before minute {before}");
        }
        assert_eq!(store.newest_number().await.unwrap(), 5, "numbers continue");
    }

    #[tokio::test]
    async fn trimming_leaves_no_gap_when_clocks_disagree() {
        let (store, _directory) = store([1, 90, 2, 3, 91].map(|minute| minute * MINUTE)).await;
        assert_eq!(store.trim_mutations(Timestamp::from_secs(50 * MINUTE)).await.unwrap(), 1);
        assert_eq!(numbers(&store).await, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn each_trim_is_bounded_and_all_together_are_complete() {
        let (store, _directory) = store(1..=2_500).await;
        let before = Timestamp::from_secs(10_000);
        for expected in [TRIM_BATCH, TRIM_BATCH, 500, 0] {
            assert_eq!(store.trim_mutations(before).await.unwrap(), expected);
        }
        assert_eq!(numbers(&store).await, [2_500]);
    }

    #[tokio::test]
    async fn concurrent_trims_are_safe() {
        let (store, _directory) = store(1..=5_000).await;
        let before = Timestamp::from_secs(4_000);
        let trim = async || while store.trim_mutations(before).await.unwrap() > 0 {};
        tokio::join!(trim(), trim(), trim());
        assert_eq!(numbers(&store).await, (3_999..=5_000).collect::<Vec<_>>());
    }
}
