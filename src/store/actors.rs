//! Actors: a row for those that have a name, metadata, limits or a suspension.
//!
//! The keys of an actor aren't touched by a change of it, however many there are: the row of a key
//! is read together with suspension and limits of its actor, and the change has a number of the
//! log.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::clock_skew;
use super::key_counts::lock_network;
use super::mutations::{NewEntry, erase_actor_events, insert_entries, take_numbers};
use super::statement::Statement;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::record::kind_code;
use crate::key::{
    Actor, ActorId, ChangeRecord, KeyKind, KeyName, Metadata, NetworkId, RatePolicies, RecordedTimes,
    Suspension,
};

/// Columns that [`read`] reads.
const COLUMNS: &str =
    "display_name, metadata, rate_policies, suspension, created_at, updated_at, updated_by, mutation";

/// Maximum number of actors that one statement finds.
const MAX_FOUND_AT_ONCE: usize = 1_000;

/// Outcome of a change of an actor.
#[derive(Debug)]
pub enum ActorOutcome {
    /// The actor is changed; its number of the log is in it.
    Done(Box<Actor>),
    /// The actor had this state before.
    Unchanged(Box<Actor>),
}

/// Outcome of the deletion of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorDeletion {
    /// The row is deleted; this is the change's number of the log.
    Deleted(u64),
    /// There was no row.
    NotRecorded,
    /// The row stays, as the actor has keys: without it, keys of a suspended actor would work.
    HasKeys,
}

/// Numbers of an actor's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActorKeyCounts {
    /// Issued keys, in any state.
    pub issued: u64,
    /// Imported keys, in any state.
    pub imported: u64,
}

impl Store {
    /// Returns an actor, which needs no row.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_actor(&self, network: NetworkId, id: ActorId) -> Result<Actor, StoreError> {
        self.run(async move |inner| {
            let find = find(&inner, network, &id);
            let row = inner.read(|connection| find.fetch_optional(connection).boxed()).await?;
            row.map_or_else(
                || Ok(Actor::implicit(network, id.clone())),
                |row| read(&row, network, id.clone()),
            )
        })
        .await
    }

    /// Returns those of these actors that have a row.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_recorded_actors(
        &self,
        network: NetworkId,
        ids: HashSet<ActorId>,
    ) -> Result<Vec<Actor>, StoreError> {
        self.run(async move |inner| {
            let mut found = vec![];
            for ids in ids.iter().collect::<Vec<_>>().chunks(MAX_FOUND_AT_ONCE) {
                let start = format!("SELECT {COLUMNS}, actor_id FROM actors WHERE network_id = ");
                let mut select = Statement::new(start, network);
                for (at, id) in ids.iter().enumerate() {
                    select
                        .push(if at == 0 { " AND actor_id IN (" } else { ", " })
                        .text(id.as_str().to_owned());
                }
                select.push(")");
                let select = select.query(&inner);
                for row in inner.read(|connection| select.fetch_all(connection).boxed()).await? {
                    let id = ActorId::from_stored(row.try_get("actor_id")?);
                    let id = id.map_err(|_| StoreError::Corrupt("actor_id"))?;
                    found.push(read(&row, network, id)?);
                }
            }
            Ok(found)
        })
        .await
    }

    /// Counts the keys of an actor, of each kind up to `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_actor_keys(
        &self,
        network: NetworkId,
        id: ActorId,
        most: u32,
    ) -> Result<ActorKeyCounts, StoreError> {
        self.run(async move |inner| {
            let count = async |kind| {
                let count = count_keys(&inner, network, &id, kind, most);
                read_count(&inner.read(|connection| count.fetch_one(connection).boxed()).await?)
            };
            let (issued, imported) = (count(KeyKind::Issued).await?, count(KeyKind::Imported).await?);
            Ok(ActorKeyCounts { issued, imported })
        })
        .await
    }

    /// Changes an actor to the result of `change`, which gets its current state.
    ///
    /// # Errors
    /// When the database fails; the change may then be made or not.
    pub async fn change_actor<F>(
        &self,
        network: NetworkId,
        id: ActorId,
        now: Timestamp,
        change: F,
    ) -> Result<ActorOutcome, StoreError>
    where
        F: Fn(&Actor) -> Actor + Send + Sync + 'static,
    {
        self.run(move |inner| change_actor(inner, network, id, now, change)).await
    }

    /// Deletes the row of an actor that has no keys, for a caller if that is verified.
    ///
    /// # Errors
    /// When the database fails; the row may then be deleted or not.
    pub async fn delete_actor(
        &self,
        network: NetworkId,
        id: ActorId,
        now: Timestamp,
        caller: Option<Arc<str>>,
    ) -> Result<ActorDeletion, StoreError> {
        self.run(move |inner| delete_actor(inner, network, id, now, caller)).await
    }
}

async fn change_actor<F>(
    inner: Arc<Inner>,
    network: NetworkId,
    id: ActorId,
    now: Timestamp,
    change: F,
) -> Result<ActorOutcome, StoreError>
where
    F: Fn(&Actor) -> Actor + Send + Sync,
{
    inner
        .write((id, change), move |inner, transaction, (id, change)| {
            async move {
                // The lock of the network's keys is that of its actors, too.
                lock_network(inner, transaction, network).await?;
                let row = find(inner, network, id).fetch_optional(&mut *transaction).await?;
                let before = match &row {
                    Some(row) => read(row, network, id.clone())?,
                    None => Actor::implicit(network, id.clone()),
                };
                let after = change(&before);
                if after.is_same_as(&before) {
                    return Ok(End::Rollback(ActorOutcome::Unchanged(Box::new(before))));
                }
                let event = ChangeRecord::of_actor(&before, &after).into_stored();
                // From here on, changes of other networks wait.
                let (mutation, time) = log_actor(inner, transaction, (network, id), now, event).await?;
                let recorded = Some(times(before.recorded, now, time));
                let after = Actor { recorded, mutation, ..after };
                write(inner, transaction, &after, row.is_some()).await?;
                Ok(End::Commit(ActorOutcome::Done(Box::new(after))))
            }
            .boxed()
        })
        .await
}

async fn delete_actor(
    inner: Arc<Inner>,
    network: NetworkId,
    id: ActorId,
    now: Timestamp,
    caller: Option<Arc<str>>,
) -> Result<ActorDeletion, StoreError> {
    let event = ChangeRecord::of_actor_deletion(caller).into_stored();
    inner
        .write((id, event), move |inner, transaction, (id, event)| {
            async move {
                lock_network(inner, transaction, network).await?;
                for kind in [KeyKind::Issued, KeyKind::Imported] {
                    let count = count_keys(inner, network, id, kind, 1);
                    if read_count(&count.fetch_one(&mut *transaction).await?)? > 0 {
                        return Ok(End::Rollback(ActorDeletion::HasKeys));
                    }
                }
                let mut delete = Statement::new("DELETE FROM actors WHERE network_id = ".to_owned(), network);
                push_actor(inner, &mut delete, id);
                let delete = delete.query(inner);
                if delete.execute(&mut *transaction).await?.rows_affected() == 0 {
                    return Ok(End::Rollback(ActorDeletion::NotRecorded));
                }
                erase_actor_events(inner, transaction, network, id).await?;
                let (n, _) = log_actor(inner, transaction, (network, id), now, event.clone()).await?;
                Ok(End::Commit(ActorDeletion::Deleted(n)))
            }
            .boxed()
        })
        .await
}

/// Returns the times of a row that is changed at `now` by the process's clock, or at `database` by
/// the database's: that counts if the two differ too much, as a wrong clock keeps no actor from
/// being suspended.
fn times(before: Option<RecordedTimes>, now: Timestamp, database: Option<Timestamp>) -> RecordedTimes {
    let now = database.filter(|_| clock_skew::is_off(now, database)).unwrap_or(now);
    let Some(RecordedTimes { created, updated }) = before else {
        return RecordedTimes { created: now, updated: now };
    };
    // The clock was read before the lock: another change may have come between. A time that hasn't
    // come yet is that of a wrong clock, and ends here.
    let latest = now.plus(clock_skew::MAX_CLOCK_SKEW);
    RecordedTimes { created, updated: if updated <= latest { now.max(updated) } else { now } }
}

/// Logs the change of an actor, which concerns all its keys, with one number, which it returns with
/// the database's time.
///
/// To be called inside the transaction that makes the change, after the
/// network is locked.
async fn log_actor(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (network, actor): (NetworkId, &ActorId),
    at: Timestamp,
    event: String,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let (n, time) = take_numbers(inner, transaction, 1).await?;
    let actor = Some(actor.as_str().to_owned());
    let entry = NewEntry {
        n,
        network: network.to_string(),
        key_id: String::new(),
        actor: actor.clone(),
        at: time.unwrap_or(at),
        subject: actor,
        event: Some(event),
    };
    insert_entries(inner, transaction, [entry]).await?;
    Ok((u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?, time))
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

/// Returns the query that counts the keys of an actor of a kind, up to `most`.
fn count_keys(inner: &Inner, network: NetworkId, id: &ActorId, kind: KeyKind, most: u32) -> Query {
    let start = "SELECT count(*) FROM (SELECT 1 AS one FROM api_keys WHERE network_id = ";
    let mut count = Statement::new(start.to_owned(), network);
    count.push(" AND kind = ").number(kind_code(kind).into());
    push_actor(inner, &mut count, id);
    count.push(" LIMIT ").number(i64::from(most)).push(") AS counted");
    count.query(inner)
}

fn read_count(row: &AnyRow) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| StoreError::Corrupt("count"))
}

fn find(inner: &Inner, network: NetworkId, id: &ActorId) -> Query {
    let mut find = Statement::new(format!("SELECT {COLUMNS} FROM actors WHERE network_id = "), network);
    push_actor(inner, &mut find, id);
    find.query(inner)
}

/// Adds the condition that a row is of this actor, and not of one whose id differs by spaces.
fn push_actor(inner: &Inner, statement: &mut Statement, id: &ActorId) {
    statement.push(" AND actor_id = ").text(id.as_str().to_owned());
    if let Some(exactly) = inner.dialect.actor_equals_exactly() {
        statement.push(" AND ").push(exactly).text(id.as_str().to_owned());
    }
}

fn read(row: &AnyRow, network: NetworkId, id: ActorId) -> Result<Actor, StoreError> {
    let corrupt = StoreError::Corrupt;
    let name: Option<String> = row.try_get("display_name")?;
    let name = name.map(|name| KeyName::parse(&name).map_err(|_| corrupt("display_name"))).transpose()?;
    let metadata: Option<String> = row.try_get("metadata")?;
    let metadata = metadata.map(|json| Metadata::from_json(json).ok_or(corrupt("metadata"))).transpose()?;
    let limits: Option<String> = row.try_get("rate_policies")?;
    let rate_policies = RatePolicies::from_whole_json(limits.as_deref()).ok_or(corrupt("rate_policies"))?;
    let suspension: Option<String> = row.try_get("suspension")?;
    let suspension = suspension
        .map(|text| Suspension::from_stored(&text).map(Arc::new).ok_or(corrupt("suspension")))
        .transpose()?;
    let recorded = RecordedTimes {
        created: Timestamp::from_micros(row.try_get("created_at")?),
        updated: Timestamp::from_micros(row.try_get("updated_at")?),
    };
    Ok(Actor {
        network,
        id,
        display_name: name,
        metadata,
        rate_policies,
        suspension,
        recorded: Some(recorded),
        updated_by: row.try_get::<Option<String>, _>("updated_by")?.map(Into::into),
        mutation: u64::try_from(row.try_get::<i64, _>("mutation")?).map_err(|_| corrupt("mutation"))?,
    })
}

/// Inserts or updates the row of an actor.
async fn write(
    inner: &Inner,
    transaction: &mut AnyConnection,
    actor: &Actor,
    exists: bool,
) -> Result<(), StoreError> {
    let statement = match exists {
        true => {
            "UPDATE actors SET display_name = $1, metadata = $2, rate_policies = $3, suspension = $4, \
             created_at = $5, updated_at = $6, updated_by = $7, mutation = $8 \
             WHERE network_id = $9 AND actor_id = $10"
        }
        false => {
            "INSERT INTO actors (display_name, metadata, rate_policies, suspension, created_at, updated_at, \
             updated_by, mutation, network_id, actor_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        }
    };
    let recorded = actor.recorded.ok_or(StoreError::Corrupt("created_at"))?;
    let exactly = inner.dialect.actor_equals_exactly().filter(|_| exists);
    let condition = exactly.map(|exactly| format!(" AND {exactly}$11")).unwrap_or_default();
    let mut write = inner
        .query(format!("{statement}{condition}"))
        .bind(actor.display_name.as_ref().map(|name| name.as_str().to_owned()))
        .bind(actor.metadata.as_ref().map(|metadata| metadata.json().to_owned()))
        .bind(actor.rate_policies.to_whole_json())
        .bind(actor.suspension.as_ref().map(|suspension| suspension.to_stored()))
        .bind(recorded.created.as_micros())
        .bind(recorded.updated.as_micros())
        .bind(actor.updated_by.as_ref().map(ToString::to_string))
        .bind(i64::try_from(actor.mutation).unwrap_or(i64::MAX))
        .bind(actor.network.to_string())
        .bind(actor.id.as_str().to_owned());
    if exactly.is_some() {
        write = write.bind(actor.id.as_str().to_owned());
    }
    write.execute(&mut *transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_right_clock() {
        let at = Timestamp::from_secs;
        let (now, years_ahead) = (at(1_790_000_000), at(1_950_000_000));
        let new = |time| RecordedTimes { created: time, updated: time };
        for (clock, database, expected) in [
            (now, None, now),
            (now, Some(at(1_790_000_005)), now),
            (years_ahead, Some(now), now),
            (at(1_000), Some(now), now),
            // SQLite has no other clock.
            (years_ahead, None, years_ahead),
        ] {
            assert_eq!(times(None, clock, database), new(expected), "{clock:?}, {database:?}");
        }
        let changed = |updated| Some(RecordedTimes { created: at(5), updated });
        for (updated, expected) in
            [(at(1_789_000_000), now), (at(1_790_000_002), at(1_790_000_002)), (years_ahead, now)]
        {
            let expected = RecordedTimes { created: at(5), updated: expected };
            assert_eq!(times(changed(updated), now, None), expected);
            assert_eq!(times(changed(updated), years_ahead, Some(now)), expected);
        }
    }
}
