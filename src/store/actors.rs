//! Actors: a row for those that have a name, metadata, limits or a suspension.
//!
//! The keys of an actor aren't touched by a change of it, however many there are: the row of a key
//! is read together with suspension and limits of its actor, and the change has a number of the
//! log.

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::key_counts::lock_network;
use super::mutations::{NewEntry, erase_actor_events, insert_entries, take_numbers};
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::record::kind_code;
use crate::key::{
    Actor, ActorId, ChangeRecord, KeyKind, KeyName, Metadata, NetworkId, RatePolicies, RecordedTimes,
    Suspension,
};

/// Outcome of a change of an actor.
#[derive(Debug)]
pub enum ActorOutcome {
    /// The actor is changed; its number of the log is in it.
    Done(Box<Actor>),
    /// The actor had this state before.
    Unchanged(Box<Actor>),
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
                let exactly = inner.dialect.actor_equals_exactly();
                let exactly = exactly.map(|exactly| format!(" AND {exactly}$4")).unwrap_or_default();
                let limit = if exactly.is_empty() { 4 } else { 5 };
                let count = format!(
                    "SELECT count(*) FROM (SELECT 1 AS one FROM api_keys WHERE network_id = $1 AND kind = $2 \
                     AND actor_id = $3{exactly} LIMIT ${limit}) AS counted"
                );
                let query = inner.query(count).bind(network.to_string()).bind(kind_code(kind));
                let query = query.bind(id.as_str().to_owned());
                let query = if exactly.is_empty() { query } else { query.bind(id.as_str().to_owned()) };
                let query = query.bind(i64::from(most));
                let row = inner.read(|connection| query.fetch_one(connection).boxed()).await?;
                u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| StoreError::Corrupt("count"))
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

    /// Deletes the row of an actor, for a caller if that is verified. Returns the number of that
    /// change; `None` if there was no row.
    ///
    /// # Errors
    /// When the database fails; the row may then be deleted or not.
    pub async fn delete_actor(
        &self,
        network: NetworkId,
        id: ActorId,
        now: Timestamp,
        caller: Option<Arc<str>>,
    ) -> Result<Option<u64>, StoreError> {
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
                let created = before.recorded.map_or(now, |recorded| recorded.created);
                let event = ChangeRecord::of_actor(&before, &after).into_stored();
                // From here on, changes of other networks wait.
                let mutation = log_actor(inner, transaction, (network, id), now, event).await?;
                let recorded = Some(RecordedTimes { created, updated: now });
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
) -> Result<Option<u64>, StoreError> {
    let event = ChangeRecord::of_actor_deletion(caller).into_stored();
    inner
        .write((id, event), move |inner, transaction, (id, event)| {
            async move {
                lock_network(inner, transaction, network).await?;
                let delete = "DELETE FROM actors WHERE network_id = $1 AND actor_id = $2";
                let delete = inner.query(delete).bind(network.to_string()).bind(id.as_str().to_owned());
                if delete.execute(&mut *transaction).await?.rows_affected() == 0 {
                    return Ok(End::Rollback(None));
                }
                erase_actor_events(inner, transaction, network, id.as_str()).await?;
                let n = log_actor(inner, transaction, (network, id), now, event.clone()).await?;
                Ok(End::Commit(Some(n)))
            }
            .boxed()
        })
        .await
}

/// Logs the change of an actor, which concerns all its keys, with one number, which it returns.
///
/// To be called inside the transaction that makes the change, after the
/// network is locked.
async fn log_actor(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (network, actor): (NetworkId, &ActorId),
    at: Timestamp,
    event: String,
) -> Result<u64, StoreError> {
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
    u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

fn find(inner: &Inner, network: NetworkId, id: &ActorId) -> Query {
    let find = "SELECT display_name, metadata, rate_policies, suspension, created_at, updated_at, updated_by, \
                mutation FROM actors WHERE network_id = $1 AND actor_id = $2";
    inner.query(find).bind(network.to_string()).bind(id.as_str().to_owned())
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
    inner
        .query(statement)
        .bind(actor.display_name.as_ref().map(|name| name.as_str().to_owned()))
        .bind(actor.metadata.as_ref().map(|metadata| metadata.json().to_owned()))
        .bind(actor.rate_policies.to_whole_json())
        .bind(actor.suspension.as_ref().map(|suspension| suspension.to_stored()))
        .bind(recorded.created.as_micros())
        .bind(recorded.updated.as_micros())
        .bind(actor.updated_by.as_ref().map(ToString::to_string))
        .bind(i64::try_from(actor.mutation).unwrap_or(i64::MAX))
        .bind(actor.network.to_string())
        .bind(actor.id.as_str().to_owned())
        .execute(&mut *transaction)
        .await?;
    Ok(())
}
