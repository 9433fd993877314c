//! Appends to the log, inside the transaction that makes the change.

use sqlx::{AnyConnection, Row};

use crate::clock::Timestamp;
use crate::key::{ActorId, ChangeRecord, Key, KeyId, NetworkId};
use crate::mutants::{self, Mutant};
use crate::store::clock_skew::{self, database_time};
use crate::store::dialect::{MAX_ROWS, placeholders};
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
pub(in crate::store) async fn log_changes(
    inner: &Inner,
    transaction: &mut AnyConnection,
    changes: Vec<LoggedChange>,
) -> Result<(Vec<Mutation>, Option<Timestamp>), StoreError> {
    let count = i64::try_from(changes.len()).map_err(|_| StoreError::Corrupt("n"))?;
    if count == 0 {
        return Ok((vec![], None));
    }
    let (last, time) = take_numbers(inner, transaction, count).await?;
    let (mut mutations, mut entries) = (vec![], vec![]);
    for (n, change) in (last - count + 1..).zip(changes) {
        let LoggedChange { network, key_id, at, event } = change;
        let number = u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?;
        mutations.push(Mutation { n: number, network, key_id });
        entries.push(NewEntry {
            n,
            network: network.to_string(),
            key_id: key_id.to_string(),
            actor: None,
            at: time.unwrap_or(at),
            subject: event.is_some().then(|| key_id.to_string()),
            event,
        });
    }
    insert_entries(inner, transaction, entries).await?;
    Ok((mutations, time))
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
