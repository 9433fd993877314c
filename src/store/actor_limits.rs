//! Limits on the number of an actor's active keys, judged while the keys of its network are locked.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use futures_util::FutureExt;
use sqlx::{AnyConnection, Row};

use super::dialect::Dialect;
use super::statement::Statement;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{ActorId, Key, NetworkId, Status, Visibility};

/// Limit on the number of active keys of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorLimit {
    /// Name of the policy that sets it.
    pub policy: String,
    /// Visibility of the keys that count; any if `None`.
    pub visibility: Option<Visibility>,
    /// Most active keys.
    pub most: u32,
}

impl ActorLimit {
    /// Returns whether a key counts at `now`.
    fn counts(&self, key: &Key, now: Timestamp) -> bool {
        key.status(now) == Status::Active && self.visibility.is_none_or(|one| one == key.visibility)
    }
}

/// Limits on the keys that an insert adds.
#[derive(Debug, Clone, Default)]
pub struct InsertLimits {
    /// Most keys that the network may have; `None` means any number.
    pub quota: Option<u64>,
    /// Limits of each key's actor, in the order of the keys; none if it is empty.
    pub actors: Vec<Vec<ActorLimit>>,
}

impl InsertLimits {
    /// Returns the limits of the key at `index`.
    pub(super) fn of(&self, index: usize) -> &[ActorLimit] {
        self.actors.get(index).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns whether a key has a limit of its actor.
    pub(super) fn has_actor_limits(&self) -> bool {
        self.actors.iter().any(|limits| !limits.is_empty())
    }
}

/// Key of a number of keys: the actor, their visibility, and the number up to which they are
/// counted.
type Slot = (String, Option<&'static str>, u32);

/// Numbers of keys of actors within one transaction, those that it adds among them.
#[derive(Default)]
pub(super) struct ActorCounts(HashMap<Slot, u64>);

impl ActorCounts {
    /// Counts a new key. Returns the limits that have no room for it; if there are any, it counts
    /// nothing.
    pub(super) async fn add(
        &mut self,
        inner: &Inner,
        transaction: &mut AnyConnection,
        key: &Key,
        limits: &[ActorLimit],
    ) -> Result<Vec<ActorLimit>, StoreError> {
        let (now, mut full) = (key.created, vec![]);
        for limit in limits {
            let counted = match self.0.entry(slot(key, limit)) {
                Entry::Occupied(counted) => *counted.get(),
                Entry::Vacant(place) => {
                    let count = count(inner.dialect, key.network, &key.actor, limit, now).query(inner);
                    let row = count.fetch_one(&mut *transaction).await?;
                    *place.insert(read(&row)?)
                }
            };
            if counted >= u64::from(limit.most) {
                full.push(limit.clone());
            }
        }
        if full.is_empty() {
            // Policies with the same limit have one number.
            let slots: HashSet<Slot> = limits.iter().map(|limit| slot(key, limit)).collect();
            for slot in slots {
                *self.0.entry(slot).or_default() += 1;
            }
        }
        Ok(full)
    }
}

fn slot(key: &Key, limit: &ActorLimit) -> Slot {
    (key.actor.as_str().to_owned(), limit.visibility.map(Visibility::claim), limit.most)
}

/// Returns the limits that have no room for what a change adds.
///
/// `before` and `after` are states of the changed key, `successor` is the key that replaces it. The
/// keys of the network are locked, and nothing of the change is written yet.
pub(super) async fn exceeded(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (before, after, successor): (&Key, &Key, Option<&Key>),
    limits: &[ActorLimit],
    now: Timestamp,
) -> Result<Vec<ActorLimit>, StoreError> {
    let mut full = vec![];
    for limit in limits {
        let counts = |key: &Key| u64::from(limit.counts(key, now));
        let (old, new) = (counts(before), counts(after) + successor.map_or(0, counts));
        // Whoever has more than a new policy allows may still replace a key.
        if new <= old {
            continue;
        }
        let count = count(inner.dialect, before.network, &before.actor, limit, now).query(inner);
        let counted = read(&count.fetch_one(&mut *transaction).await?)?;
        if counted + new - old > u64::from(limit.most) {
            full.push(limit.clone());
        }
    }
    Ok(full)
}

impl Store {
    /// Returns whether an actor has no room for another key, as of now: without a lock, so only
    /// good for a report.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_at_limit(
        &self,
        network: NetworkId,
        actor: ActorId,
        limit: ActorLimit,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.run(async move |inner| {
            let count = count(inner.dialect, network, &actor, &limit, now).query(&inner);
            let row = inner.read(|connection| count.fetch_one(connection).boxed()).await?;
            Ok(read(&row)? >= u64::from(limit.most))
        })
        .await
    }
}

fn read(row: &sqlx::any::AnyRow) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| StoreError::Corrupt("count"))
}

/// Returns the statement that counts the active keys of an actor, up to one more than the limit.
fn count(
    dialect: Dialect,
    network: NetworkId,
    actor: &ActorId,
    limit: &ActorLimit,
    now: Timestamp,
) -> Statement {
    let start = "SELECT count(*) FROM (SELECT 1 AS one FROM api_keys WHERE network_id = ";
    let mut select = Statement::new(start.to_owned(), network);
    select.push(" AND kind IN (1, 2) AND actor_id = ").text(actor.as_str().to_owned());
    if let Some(exactly) = dialect.actor_equals_exactly() {
        select.push(" AND ").push(exactly).text(actor.as_str().to_owned());
    }
    select.push(" AND revocation_reason IS NULL AND (superseded_at IS NULL OR superseded_at > ");
    select.number(now.as_micros()).push(") AND (expires_at IS NULL OR expires_at > ");
    select.number(now.as_micros()).push(")");
    match limit.visibility {
        None => {}
        Some(Visibility::Secret) => {
            select.push(" AND visibility = 1");
        }
        Some(Visibility::Public) => {
            select.push(" AND visibility = 2");
        }
    }
    select.push(" LIMIT ").number(i64::from(limit.most) + 1).push(") AS counted");
    select
}
