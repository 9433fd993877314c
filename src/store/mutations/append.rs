//! Appends to the log, inside the transaction that makes the change.

use sqlx::{AnyConnection, Row};

use crate::clock::Timestamp;
use crate::key::{ActorId, ChangeRecord, Key, KeyId, NetworkId};
use crate::mutants::{self, Mutant};
use crate::store::clock_skew::{self, database_time};
use crate::store::dialect::{Dialect, MAX_ROWS, placeholders};
use crate::store::server::authoritative;
use crate::store::statement::Statement;
use crate::store::{Inner, Mutation, StoreError};

/// Change of a key to log.
#[derive(Debug, Clone)]
pub(in crate::store) struct LoggedChange {
    pub network: NetworkId,
    pub key_id: KeyId,
    pub at: Timestamp,
    /// Stored [`ChangeRecord`], for those who follow the log.
    pub event: Option<String>,
}

impl LoggedChange {
    /// The change that makes a key.
    pub(in crate::store) fn of_new(key: &Key) -> Self {
        let event = Some(ChangeRecord::of_new(key).into_stored());
        Self { network: key.network, key_id: key.id, at: key.created, event }
    }
}

/// Entry to insert.
pub(in crate::store) struct NewEntry {
    pub n: i64,
    pub network: String,
    /// Empty without a key whose cached rows are stale.
    pub key_id: String,
    pub actor: Option<String>,
    pub at: Timestamp,
    /// Id of the changed key or actor.
    pub subject: Option<String>,
    /// Stored [`ChangeRecord`].
    pub event: Option<String>,
}

/// Numbers a change and logs it. Incrementing the one row locks it until the commit: no later
/// number can be visible before this one. Returns the database's time as well.
pub(in crate::store) async fn log_change(
    inner: &Inner,
    transaction: &mut AnyConnection,
    change: LoggedChange,
) -> Result<(Mutation, Option<Timestamp>), StoreError> {
    let (mutations, time) = log_changes(inner, transaction, vec![change]).await?;
    Ok((mutations.first().copied().ok_or(StoreError::Corrupt("n"))?, time))
}

/// Logs many changes with successive numbers, like [`log_change`]. Entries have the database's
/// time, if it has a clock of its own.
///
/// Changes of all networks wait from the moment at which the numbers are taken. So entries that
/// fill several statements are written before, below zero, and moved to their numbers by one
/// statement. Nobody sees them below zero, as no transaction sees another's before its commit.
pub(in crate::store) async fn log_changes(
    inner: &Inner,
    transaction: &mut AnyConnection,
    changes: Vec<LoggedChange>,
) -> Result<(Vec<Mutation>, Option<Timestamp>), StoreError> {
    let count = i64::try_from(changes.len()).map_err(|_| StoreError::Corrupt("n"))?;
    if count == 0 {
        return Ok((vec![], None));
    }
    let keys: Vec<_> = changes.iter().map(|change| (change.network, change.key_id)).collect();
    let (last, time) = match changes.len() > MAX_ROWS {
        true => log_in_advance(inner, transaction, changes, count).await?,
        false => {
            let (last, time) = take_numbers(inner, transaction, count).await?;
            insert_entries(inner, transaction, entries(changes, last - count + 1, time)).await?;
            (last, time)
        }
    };
    let mut mutations = vec![];
    for (n, (network, key_id)) in (last - count + 1..).zip(keys) {
        let n = u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?;
        mutations.push(Mutation { n, network, key_id });
    }
    Ok((mutations, time))
}

/// Writes the entries of changes before their numbers are taken. Returns the last number and the
/// database's time.
async fn log_in_advance(
    inner: &Inner,
    transaction: &mut AnyConnection,
    changes: Vec<LoggedChange>,
    count: i64,
) -> Result<(i64, Option<Timestamp>), StoreError> {
    let first = number_below_zero(inner);
    insert_entries(inner, transaction, entries(changes, first, None)).await?;
    let (last, time) = take_numbers(inner, transaction, count).await?;
    let distance = last - count + 1 - first;
    let mut move_up = Statement::begin("UPDATE mutation_log SET n = n + ");
    move_up.number(distance);
    if let Some(time) = time {
        move_up.push(", at = ").number(time.as_micros());
    }
    match inner.dialect {
        // A range would also lock what follows it: maybe entries of a batch that waits for the
        // counter.
        Dialect::MySql => {
            move_up.push(" WHERE n IN (").number(first);
            (first + 1..first + count).for_each(|n| {
                move_up.push(", ").number(n);
            });
            move_up.push(")");
        }
        Dialect::Sqlite | Dialect::Postgres | Dialect::Cockroach => {
            move_up.push(" WHERE n >= ").number(first).push(" AND n <= ").number(first + count - 1);
        }
    }
    let moved = move_up.query(inner).execute(&mut *transaction).await?;
    match i64::try_from(moved.rows_affected()) {
        Ok(moved) if moved == count => Ok((last, time)),
        _ => Err(StoreError::Corrupt("n")),
    }
}

/// Returns a random number far below zero, so that transactions at the same time don't collide, and
/// that is near enough to zero for the distance to any number of the log.
fn number_below_zero(inner: &Inner) -> i64 {
    (i64::from_be_bytes(inner.rng.bytes()) >> 3) - (1 << 60) - (1 << 32)
}

/// Makes the entries of changes, with successive numbers.
fn entries(
    changes: Vec<LoggedChange>,
    first: i64,
    time: Option<Timestamp>,
) -> impl Iterator<Item = NewEntry> {
    (first..).zip(changes).map(move |(n, LoggedChange { network, key_id, at, event })| NewEntry {
        n,
        network: network.to_string(),
        key_id: key_id.to_string(),
        actor: None,
        at: time.unwrap_or(at),
        subject: event.is_some().then(|| key_id.to_string()),
        event,
    })
}

/// Logs that keys were issued, and returns the last of their numbers. Their ids can't have been
/// looked up before, so no cached row is stale, and the entries name no key; but a restore that
/// loses them must be noticed, too.
///
/// To be called last: the row that orders all changes stays locked until the commit. Fails if the
/// process's clock is too far from the database's.
pub(in crate::store) async fn log_issues(
    inner: &Inner,
    transaction: &mut AnyConnection,
    issued: Vec<LoggedChange>,
) -> Result<u64, StoreError> {
    if mutants::is_on(Mutant::IssuesUnlogged) {
        return Ok(0);
    }
    let count = i64::try_from(issued.len()).map_err(|_| StoreError::Corrupt("n"))?;
    let (last, time) = take_numbers(inner, transaction, count).await?;
    if let Some(first) = issued.first() {
        clock_skew::check(first.at, time)?;
    }
    let entries = (last - count + 1..).zip(issued).map(|(n, issued)| NewEntry {
        n,
        network: issued.network.to_string(),
        key_id: String::new(),
        actor: None,
        at: time.unwrap_or(issued.at),
        subject: Some(issued.key_id.to_string()),
        event: issued.event,
    });
    insert_entries(inner, transaction, entries).await?;
    u64::try_from(last).map_err(|_| StoreError::Corrupt("n"))
}

/// Takes `count` numbers and returns the last, with the database's time. Fails if the server isn't
/// the primary.
pub(in crate::store) async fn take_numbers(
    inner: &Inner,
    transaction: &mut AnyConnection,
    count: i64,
) -> Result<(i64, Option<Timestamp>), StoreError> {
    let increment = inner.query("UPDATE mutation_counter SET n = n + $1 WHERE id = 1").bind(count);
    increment.execute(&mut *transaction).await?;
    let (id, state) = (inner.dialect.server_id(), inner.dialect.server_state());
    let clock = inner.dialect.clock();
    let read = format!(
        "SELECT n, {clock} AS now, {id} AS server_id, {state} AS server_state FROM mutation_counter WHERE id = 1"
    );
    let row = inner.query(read).fetch_optional(&mut *transaction).await?.ok_or(StoreError::NoCounter)?;
    inner.poller.check_server(&authoritative(&row, "server_id", "server_state")?)?;
    Ok((row.try_get::<i64, _>("n")?, database_time(row.try_get("now")?)))
}

/// Returns the newest number of the log that is committed, without a lock.
pub(in crate::store) async fn read_newest(
    inner: &Inner,
    transaction: &mut AnyConnection,
) -> Result<u64, StoreError> {
    let newest = inner.query("SELECT n FROM mutation_counter WHERE id = 1");
    let row = newest.fetch_optional(&mut *transaction).await?.ok_or(StoreError::NoCounter)?;
    u64::try_from(row.try_get::<i64, _>("n")?).map_err(|_| StoreError::Corrupt("n"))
}

/// Returns the number of the newest entry about a key; `None` if the log has none.
pub(in crate::store) async fn read_latest_of(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    key_id: KeyId,
) -> Result<Option<u64>, StoreError> {
    let find = inner.query("SELECT n FROM mutation_log WHERE network_id = $1 AND subject = $2");
    let find = find.bind(network.to_string()).bind(key_id.to_string());
    let mut latest = None;
    // Compared here: asked for the largest one, a database may read the log from its end.
    for row in find.fetch_all(&mut *transaction).await? {
        let n = u64::try_from(row.try_get::<i64, _>("n")?).map_err(|_| StoreError::Corrupt("n"))?;
        latest = latest.max(Some(n));
    }
    Ok(latest)
}

/// Inserts log entries, each with its own tag.
pub(in crate::store) async fn insert_entries(
    inner: &Inner,
    transaction: &mut AnyConnection,
    entries: impl IntoIterator<Item = NewEntry>,
) -> Result<(), StoreError> {
    let entries: Vec<_> = entries.into_iter().collect();
    for chunk in entries.chunks(MAX_ROWS) {
        let values = placeholders(chunk.len(), 8);
        let insert = format!(
            "INSERT INTO mutation_log (n, tag, network_id, key_id, actor_id, at, subject, event) VALUES {values}"
        );
        let insert = chunk.iter().fold(inner.query(insert), |insert, entry| {
            let tag = u128::from_be_bytes(inner.rng.bytes());
            insert
                .bind(entry.n)
                .bind(format!("{tag:032x}"))
                .bind(entry.network.clone())
                .bind(entry.key_id.clone())
                .bind(entry.actor.clone())
                .bind(entry.at.as_micros())
                .bind(entry.subject.clone())
                .bind(entry.event.clone())
        });
        insert.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Erases what the log tells of keys: the ids stay, for those who have rows in their caches.
pub(in crate::store) async fn erase_events(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    ids: &[KeyId],
) -> Result<(), StoreError> {
    for chunk in ids.chunks(MAX_ROWS) {
        let places: Vec<String> = (2..chunk.len() + 2).map(|place| format!("${place}")).collect();
        let erase = format!(
            "UPDATE mutation_log SET event = '{erased}' WHERE network_id = $1 AND subject IN ({places}) \
             AND actor_id IS NULL",
            erased = ChangeRecord::ERASED,
            places = places.join(", ")
        );
        let erase = inner.query(erase).bind(network.to_string());
        let erase = chunk.iter().fold(erase, |erase, id| erase.bind(id.to_string()));
        erase.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Erases what the log tells of an actor, but for the id.
pub(in crate::store) async fn erase_actor_events(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    actor: &ActorId,
) -> Result<(), StoreError> {
    let erase = format!("UPDATE mutation_log SET event = '{}' WHERE network_id = ", ChangeRecord::ERASED);
    let mut erase = Statement::new(erase, network);
    erase.push(" AND subject = ").text(actor.as_str().to_owned()).push(" AND actor_id IS NOT NULL");
    if let Some(exactly) = inner.dialect.actor_equals_exactly() {
        erase.push(" AND ").push(exactly).text(actor.as_str().to_owned());
    }
    erase.query(inner).execute(&mut *transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::rng::Rng;
    use crate::store::Store;
    use crate::store::transaction::End;

    /// Logs changes of keys, and returns their numbers; with `commits` false, rolls them back.
    async fn log(store: &Store, changes: Vec<LoggedChange>, commits: bool) -> Vec<Mutation> {
        let log = async move |inner: Arc<Inner>| {
            inner
                .write((changes, commits), |inner, transaction, (changes, commits)| {
                    async move {
                        let (logged, _) = log_changes(inner, transaction, changes.clone()).await?;
                        Ok(if *commits { End::Commit(logged) } else { End::Rollback(logged) })
                    }
                    .boxed()
                })
                .await
        };
        store.run(log).await.unwrap()
    }

    /// In one statement and in several, whose entries are written before they have a number.
    #[tokio::test]
    async fn each_of_many_changes_has_the_number_that_is_returned() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let mut end = 0;
        for count in [1, MAX_ROWS, MAX_ROWS + 1, 5 * MAX_ROWS] {
            let change = |number: usize| LoggedChange {
                network: NetworkId::SINGLE,
                key_id: KeyId::Issued(uuid::Uuid::from_u128((count * 1_000 + number) as u128)),
                at: Timestamp::from_secs(1_790_000_000),
                event: Some(ChangeRecord::ERASED.to_owned()),
            };
            let changes: Vec<LoggedChange> = (0..count).map(change).collect();
            log(&store, changes.clone(), false).await;
            let logged = log(&store, changes.clone(), true).await;
            let numbers: Vec<u64> = logged.iter().map(|mutation| mutation.n).collect();
            assert_eq!(numbers, (end + 1..=end + count as u64).collect::<Vec<_>>());
            for at in [0, count / 2, count - 1] {
                assert_eq!(logged[at].key_id, changes[at].key_id);
                let n = format!("SELECT n FROM mutation_log WHERE key_id = '{}'", changes[at].key_id);
                assert_eq!(store.number(n).await.unwrap(), i64::try_from(numbers[at]).unwrap());
            }
            end += count as u64;
            assert_eq!(store.newest_number().await.unwrap(), end);
            for (query, expected) in [
                ("SELECT count(*) FROM mutation_log WHERE n < 0", 0),
                ("SELECT count(*) FROM mutation_log WHERE n > 0", end),
                ("SELECT count(*) FROM mutation_log WHERE subject = key_id", end),
            ] {
                let expected = i64::try_from(expected).unwrap();
                assert_eq!(store.number(query).await.unwrap(), expected, "{query}");
            }
        }
    }

    #[tokio::test]
    async fn numbers_below_zero_reach_any_number_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        for _ in 0..1_000 {
            let first = number_below_zero(&store.0);
            assert!(first < -(1 << 32), "room for the entries of a transaction: {first}");
            assert!((1_i64 << 62).checked_sub(first).is_some(), "{first}");
        }
    }
}
