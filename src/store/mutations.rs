//! The log of changes, by which every instance learns that what it knows is old (see `cache::freshness`).

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use tokio::time::Instant;

use super::dialect::{CHUNK, placeholders};
use super::poller::{Evidence, PollError, PollTiming, Proof, Statement};
use super::server::authoritative;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::{Clock, Timestamp};
use crate::key::{KeyId, NetworkId};

/// Most entries of the log read at once.
const BATCH: i64 = 10_000;
/// Most entries of the log deleted at once.
pub const TRIM_BATCH: u64 = 1_000;

/// A change that was made to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// Its number: commits happen in this order.
    pub n: u64,
    /// The key's network.
    pub network: NetworkId,
    /// The key.
    pub key_id: KeyId,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its number.
    pub n: u64,
    /// Random: the same number with another tag is another history.
    pub tag: u128,
    /// What changed; None for the entry with which the log begins.
    pub subject: Option<(NetworkId, KeyId)>,
}

/// Where to begin reading the log.
#[derive(Debug, Clone, Copy)]
pub enum LogStart {
    /// At this number, that entry included.
    At(u64),
    /// At the newest entry made before this time, by the clocks of those who wrote it, or a later one: where another
    /// instance may have left off.
    Since(Timestamp),
}

/// A part of the log, and who says so.
#[derive(Debug)]
pub struct LogPart {
    /// The log's newest number when the reading began: whoever knows all entries up to there knows all that was
    /// committed by then.
    pub end: u64,
    /// In order, 10,000 at most.
    pub entries: Vec<Logged>,
    /// From when it counts.
    pub proof: Proof,
}

impl Store {
    /// Reads a part of the log, by `deadline`, on the connection that nobody else uses. One statement: the end and the
    /// entries are of one moment, and the server says of that moment who it is.
    ///
    /// # Errors
    /// When the database fails, or what answers isn't the server that counts.
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
                        LogStart::At(n) => query.bind(i64::try_from(n).unwrap_or(i64::MAX)).bind(BATCH),
                        LogStart::Since(_) => query.bind(BATCH),
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

    /// The newest number of the log.
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

    /// Deletes the oldest entries of the log, [`TRIM_BATCH`] at most, and says how many those were. Of the entries made
    /// before `before` the newest stays: whoever has read the log since then goes on from that one or a later.
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
            // Up to the first that is newer, not all that are older: times of several clocks needn't be in order, and a
            // log with a hole in it is none.
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

/// The end of the log, and its entries with their times, in order.
fn read_part(rows: &[AnyRow]) -> Result<(u64, Vec<(Logged, i64)>), StoreError> {
    let (mut end, mut entries) = (None, vec![]);
    for row in rows {
        if row.try_get::<String, _>("server_state")?.is_empty() {
            entries.push((read(row)?, row.try_get::<i64, _>("at")?));
        } else {
            end = u64::try_from(row.try_get::<i64, _>("n")?).ok();
        }
    }
    // Databases promise no order between the parts of a UNION ALL.
    entries.sort_unstable_by_key(|(entry, _)| entry.n);
    Ok((end.ok_or(StoreError::Corrupt("n"))?, entries))
}

fn read(row: &AnyRow) -> Result<Logged, StoreError> {
    let n = row.try_get::<i64, _>("n")?;
    let network = NetworkId::parse(&row.try_get::<String, _>("network_id")?);
    let key_id = KeyId::parse_any(&row.try_get::<String, _>("key_id")?);
    Ok(Logged {
        n: u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?,
        tag: read_tag(&row.try_get::<String, _>("tag")?)?,
        subject: network.zip(key_id),
    })
}

/// A tag from its hex digits.
pub(super) fn read_tag(digits: &str) -> Result<u128, StoreError> {
    u128::from_str_radix(digits, 16).map_err(|_| StoreError::Corrupt("tag"))
}

/// Gives the change its number and logs it, inside the transaction that makes it. Incrementing the one row takes its
/// lock until the commit: no later number can be seen before this one.
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

/// Logs that keys were issued, under one number, which it returns. Their ids can't have been asked for before, so
/// nothing that is cached is outdated; but a restore that loses them must be noticed like one that loses a change.
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

/// Takes so many numbers for a change; returns the last. Fails where changes aren't to be made any more.
async fn take_numbers(inner: &Inner, transaction: &mut AnyConnection, count: i64) -> Result<i64, StoreError> {
    let increment = inner.query("UPDATE mutation_counter SET n = n + $1 WHERE id = 1").bind(count);
    increment.execute(&mut *transaction).await?;
    let (id, state) = (inner.dialect.server_id(), inner.dialect.server_state());
    let read =
        format!("SELECT n, {id} AS server_id, {state} AS server_state FROM mutation_counter WHERE id = 1");
    let row = inner.query(read).fetch_one(&mut *transaction).await?;
    inner.poller.check(&authoritative(&row, "server_id", "server_state")?)?;
    Ok(row.try_get::<i64, _>("n")?)
}

/// As [`log_mutation`], for many changes, whose numbers follow each other.
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

/// Inserts entries of the log (number, network, key, time), each with a tag of its own.
async fn insert_entries(
    inner: &Inner,
    transaction: &mut AnyConnection,
    entries: impl IntoIterator<Item = (i64, String, String, Timestamp)>,
) -> Result<(), StoreError> {
    let entries: Vec<_> = entries.into_iter().collect();
    for chunk in entries.chunks(CHUNK) {
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

    /// A store whose log has an entry for each of these times, beside the one with which it begins.
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
    async fn what_is_old_goes_but_for_the_newest_of_it() {
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
        assert_eq!(store.newest_number().await.unwrap(), 5, "numbers go on from there");
    }

    #[tokio::test]
    async fn it_leaves_no_hole_where_clocks_disagree() {
        let (store, _directory) = store([1, 90, 2, 3, 91].map(|minute| minute * MINUTE)).await;
        assert_eq!(store.trim_mutations(Timestamp::from_secs(50 * MINUTE)).await.unwrap(), 1);
        assert_eq!(numbers(&store).await, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn it_takes_a_bounded_number_at_once_and_all_in_the_end() {
        let (store, _directory) = store(1..=2_500).await;
        let before = Timestamp::from_secs(10_000);
        for expected in [TRIM_BATCH, TRIM_BATCH, 500, 0] {
            assert_eq!(store.trim_mutations(before).await.unwrap(), expected);
        }
        assert_eq!(numbers(&store).await, [2_500]);
    }

    #[tokio::test]
    async fn several_at_once_do_no_harm() {
        let (store, _directory) = store(1..=5_000).await;
        let before = Timestamp::from_secs(4_000);
        let trim = async || while store.trim_mutations(before).await.unwrap() > 0 {};
        tokio::join!(trim(), trim(), trim());
        assert_eq!(numbers(&store).await, (3_999..=5_000).collect::<Vec<_>>());
    }
}
