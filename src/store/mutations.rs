//! Mutation log, from which every instance learns that a cached row is stale (see
//! `cache::freshness`).

mod append;
mod mend;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};
use tokio::time::Instant;

pub(super) use append::{
    LoggedChange, NewEntry, erase_actor_events, erase_events, insert_entries, log_change, log_changes,
    log_issues, read_latest_of, read_newest, take_numbers,
};

use super::clock_skew::{ClockSkew, MAX_CLOCK_SKEW, database_time};
use super::poller::{Evidence, PollError, PollTiming, Proof, Statement};
use super::transaction::End;
use super::{Store, StoreError};
use crate::clock::{Clock, Timestamp};
use crate::key::{ActorId, KeyId, NetworkId};

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
    /// Subject of the change; `None` for the first entry, and for issued keys.
    pub subject: Option<LogSubject>,
}

/// Subject of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSubject {
    /// A key.
    Key(NetworkId, KeyId),
    /// An actor, with all its keys.
    Actor(NetworkId, ActorId),
}

/// Start of a read of the log.
#[derive(Debug, Clone, Copy)]
pub enum LogStart {
    /// The entry of this number.
    At(u64),
    /// The newest entry that is older than this, or a later one: another instance may have read the
    /// log up to there.
    Since(Duration),
}

/// Limit up to which entries of the log are old.
#[derive(Debug, Clone, Copy)]
pub struct TrimLimit {
    /// Age from which an entry is old.
    pub retention: Duration,
    /// Newest number that this process knows to be old, as it saw it that long ago.
    pub old: Option<u64>,
    /// Newest number when this process started. Later entries are as old as it saw them; the times
    /// of earlier ones must do.
    pub seen_at_start: u64,
    /// The process's time, where the database has none.
    pub now: Timestamp,
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
                LogStart::At(n) => format!("WHERE n >= {n} ORDER BY n LIMIT {READ_BATCH}"),
                LogStart::Since(_) => format!("WHERE n >= 0 ORDER BY n DESC LIMIT {READ_BATCH}"),
            };
            let text = format!(
                "SELECT n AS n, {clock} AS at, {id} AS server_id, {state} AS server_state, '' AS tag, '' AS network_id, \
                 '' AS key_id, '' AS actor_id FROM mutation_counter WHERE id = 1 UNION ALL \
                 SELECT n, at, '', '', tag, network_id, key_id, actor_id FROM (SELECT n, at, tag, network_id, key_id, \
                 COALESCE(actor_id, '') AS actor_id FROM mutation_log {entries}) AS entries",
                id = inner.dialect.server_id(),
                state = inner.dialect.server_state(),
                clock = inner.dialect.clock(),
            );
            // Unprepared: preparing takes one more round trip on each new connection, and far
            // away, round trips are what a lease is spent on.
            let query = inner.text(text);
            let statement: Statement = Arc::new(move |connection| {
                sqlx::raw_sql(AssertSqlSafe(query.clone())).fetch_all(connection).boxed()
            });
            let before = clock.now();
            let fetched = inner.poller.fetch(statement, &clock, timing, deadline).await;
            inner.reopen_if_needed();
            let (rows, proof) = fetched?;
            let after = clock.now();
            if let Some(file) = inner.poller.file() {
                let inner = Arc::clone(&inner);
                tokio::spawn(async move { inner.anchor.follow(file, inner.poller.options()).await });
            }
            let RawPart { end, database_time, mut entries } =
                read_part(&rows).map_err(|error| PollError { error, evidence: Evidence::Outage })?;
            if let Some(time) = database_time {
                *inner.clock_skew.lock() = Some(ClockSkew::measure(before, after, time));
            }
            if let LogStart::Since(age) = start {
                let since = database_time.unwrap_or(before).minus(age);
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
    /// the old entries the newest stays: instances that have polled since then continue from it or
    /// from a later one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_mutations(&self, limit: TrimLimit) -> Result<u64, StoreError> {
        self.run(async move |inner| {
            let clock = inner.dialect.clock();
            let oldest =
                format!("SELECT n, at, {clock} AS now FROM mutation_log WHERE n >= 0 ORDER BY n LIMIT $1");
            let oldest = inner.query(oldest).bind(TRIM_BATCH as i64 + 1);
            let rows = inner.read(|connection| oldest.fetch_all(connection).boxed()).await?;
            let entries: Result<Vec<(i64, i64)>, sqlx::Error> =
                rows.iter().map(|row| Ok((row.try_get("n")?, row.try_get("at")?))).collect();
            let entries = entries?;
            let now = rows.first().map(|row| row.try_get("now")).transpose()?;
            let now = now.and_then(database_time).unwrap_or(limit.now);
            let Some(kept) = newest_old(&entries, limit, now) else {
                return Ok(0);
            };
            inner
                .write(kept, |inner, transaction, kept| {
                    // Not below zero, where transactions that haven't ended keep their entries:
                    // MySQL would wait for them.
                    let delete = inner.query("DELETE FROM mutation_log WHERE n >= 0 AND n < $1").bind(*kept);
                    async move { Ok(End::Commit(delete.execute(&mut *transaction).await?.rows_affected())) }
                        .boxed()
                })
                .await
        })
        .await
    }
}

/// Returns the newest of these entries (number and time) that is old; `None` if only the first is.
fn newest_old(entries: &[(i64, i64)], limit: TrimLimit, now: Timestamp) -> Option<i64> {
    let is_seen = |n: i64, number: u64| u64::try_from(n).is_ok_and(|n| n <= number);
    let by_number = limit.old.and_then(|old| entries.iter().rfind(|(n, _)| is_seen(*n, old)));
    let (before, latest) = (now.minus(limit.retention).as_micros(), now.plus(MAX_CLOCK_SKEW).as_micros());
    // Up to the first entry that is newer, not all older ones: times by several clocks needn't be
    // in order, and the log must have no gap. A time that hasn't come yet is wrong, and says
    // nothing.
    let by_time = entries
        .iter()
        .take_while(|(n, at)| is_seen(*n, limit.seen_at_start) && (*at < before || *at > latest))
        .filter(|(_, at)| *at < before)
        .last();
    let kept = by_number.into_iter().chain(by_time).map(|(n, _)| *n).max();
    kept.filter(|kept| entries.first().is_some_and(|(first, _)| first < kept))
}

/// Rows of a read of the log.
struct RawPart {
    /// Newest number of the log.
    end: u64,
    /// The database's time, if it has a clock of its own.
    database_time: Option<Timestamp>,
    /// Entries with their times, in order.
    entries: Vec<(LogEntry, i64)>,
}

fn read_part(rows: &[AnyRow]) -> Result<RawPart, StoreError> {
    let (mut end, mut time, mut entries) = (None, None, vec![]);
    for row in rows {
        if row.try_get::<String, _>("server_state")?.is_empty() {
            entries.push((read(row)?, row.try_get::<i64, _>("at")?));
        } else {
            end = u64::try_from(row.try_get::<i64, _>("n")?).ok();
            time = database_time(row.try_get("at")?);
        }
    }
    // Databases don't order the parts of a UNION ALL.
    entries.sort_unstable_by_key(|(entry, _)| entry.n);
    Ok(RawPart { end: end.ok_or(StoreError::Corrupt("n"))?, database_time: time, entries })
}

fn read(row: &AnyRow) -> Result<LogEntry, StoreError> {
    let n = row.try_get::<i64, _>("n")?;
    let network = NetworkId::parse(&row.try_get::<String, _>("network_id")?);
    let key_id = KeyId::parse_any(&row.try_get::<String, _>("key_id")?);
    let actor = ActorId::from_stored(&row.try_get::<String, _>("actor_id")?).ok();
    let subject = network.and_then(|network| match (key_id, actor) {
        (Some(key_id), _) => Some(LogSubject::Key(network, key_id)),
        (None, Some(actor)) => Some(LogSubject::Actor(network, actor)),
        (None, None) => None,
    });
    Ok(LogEntry {
        n: u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?,
        tag: read_tag(&row.try_get::<String, _>("tag")?)?,
        subject,
    })
}

/// Decodes a tag from its hex digits.
pub(super) fn read_tag(digits: &str) -> Result<u128, StoreError> {
    u128::from_str_radix(digits, 16).map_err(|_| StoreError::Corrupt("tag"))
}

/// Logs a change of a key of which nothing is told but its id, like [`append::log_change`].
#[cfg(test)]
pub(super) async fn log_mutation(
    inner: &super::Inner,
    transaction: &mut sqlx::AnyConnection,
    network: NetworkId,
    key_id: KeyId,
    at: Timestamp,
) -> Result<(Mutation, Option<Timestamp>), StoreError> {
    log_change(inner, transaction, LoggedChange { network, key_id, at, event: None }).await
}

/// Logs many such changes with successive numbers.
#[cfg(test)]
pub(super) async fn log_mutations(
    inner: &super::Inner,
    transaction: &mut sqlx::AnyConnection,
    changes: &[(NetworkId, KeyId, Timestamp)],
) -> Result<(Vec<Mutation>, Option<Timestamp>), StoreError> {
    let changes = changes.iter().map(|(network, key_id, at)| LoggedChange {
        network: *network,
        key_id: *key_id,
        at: *at,
        event: None,
    });
    log_changes(inner, transaction, changes.collect()).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rng::Rng;
    use crate::store::Inner;

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

    /// Limit of what is old before a minute, by the times of the entries alone.
    fn before(minute: i64) -> TrimLimit {
        let now = Timestamp::from_secs(minute.max(100) * MINUTE);
        let retention = Duration::from_secs((minute.max(100) - minute).unsigned_abs() * 60);
        TrimLimit { retention, old: None, seen_at_start: u64::MAX, now }
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
            store.trim_mutations(self::before(before)).await.unwrap();
            assert_eq!(numbers(&store).await, left, "before minute {before}");
        }
        assert_eq!(store.newest_number().await.unwrap(), 5, "numbers continue");
    }

    #[tokio::test]
    async fn trimming_leaves_no_gap_when_clocks_disagree() {
        let (store, _directory) = store([1, 90, 2, 3, 91].map(|minute| minute * MINUTE)).await;
        assert_eq!(store.trim_mutations(before(50)).await.unwrap(), 1);
        assert_eq!(numbers(&store).await, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_time_that_has_not_come_yet_says_nothing() {
        const YEARS: i64 = 5 * 365 * 24 * 60;
        let times = [1, YEARS, 2, YEARS, YEARS, 90, 91].map(|minute| minute * MINUTE);
        let (store, _directory) = store(times).await;
        assert_eq!(store.trim_mutations(before(50)).await.unwrap(), 3);
        assert_eq!(numbers(&store).await, [3, 4, 5, 6, 7]);
        // The process knows by its own clock that number 5 is old, whatever time its entry has.
        let by_number = TrimLimit { old: Some(5), ..before(50) };
        assert_eq!(store.trim_mutations(by_number).await.unwrap(), 2);
        assert_eq!(numbers(&store).await, [5, 6, 7]);
    }

    #[tokio::test]
    async fn entries_after_the_start_age_by_our_own_clock() {
        // Somebody else's clock is years behind.
        let (store, _directory) = store([80, 81, 1, 1, 1].map(|minute| minute * MINUTE)).await;
        let limit = TrimLimit { seen_at_start: 2, ..before(90) };
        assert_eq!(store.trim_mutations(limit).await.unwrap(), 2);
        assert_eq!(numbers(&store).await, [2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn each_trim_is_bounded_and_all_together_are_complete() {
        let (store, _directory) = store(1..=2_500).await;
        let before = TrimLimit { now: Timestamp::from_secs(10_000), ..before(100) };
        for expected in [TRIM_BATCH, TRIM_BATCH, 500, 0] {
            assert_eq!(store.trim_mutations(before).await.unwrap(), expected);
        }
        assert_eq!(numbers(&store).await, [2_500]);
    }

    #[tokio::test]
    async fn concurrent_trims_are_safe() {
        let (store, _directory) = store(1..=5_000).await;
        let before = TrimLimit { now: Timestamp::from_secs(4_000), ..before(100) };
        let trim = async || while store.trim_mutations(before).await.unwrap() > 0 {};
        tokio::join!(trim(), trim(), trim());
        assert_eq!(numbers(&store).await, (3_999..=5_000).collect::<Vec<_>>());
    }
}
