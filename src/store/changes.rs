//! Changes of existing keys: each is one transaction, with a number of the log.
//!
//! The keys of the network are locked first (see `key_counts`): rows that are read after that can't
//! change before the commit, in any database. The number is taken as late as possible, as that
//! locks the one row that orders the changes of all networks (see `mutations`).

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::actor_limits::{ActorLimit, exceeded};
use super::clock_skew;
use super::credits::{change_credits, inherit_credits};
use super::digests::id_by_digest;
use super::key_counts::{add_to_count, lock_network, room};
use super::keys::insert_rows;
use super::mutations::{LoggedChange, log_change, read_latest_of};
use super::new_key::NewKey;
use super::requests::{IdempotencyKey, find_request};
use super::row::{bind_changes, read_key, selected};
use super::terms::replace_terms;
use super::transaction::End;
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::imported_hash::KnownDigests;
use crate::key::{ChangeRecord, Key, KeyId, KeyKind, NetworkId};

/// Change of a key.
#[derive(Debug, Clone)]
pub struct KeyChange {
    /// New state of the key.
    pub key: Key,
    /// Key that replaces it, inserted by the same transaction.
    pub successor: Option<Successor>,
}

/// Key that replaces another.
#[derive(Debug, Clone)]
pub struct Successor {
    /// The key.
    pub key: Key,
    /// Most keys that the network may have; `None` means no limit.
    pub quota: Option<u64>,
    /// Idempotency key of the request, if it has one.
    pub request: Option<IdempotencyKey>,
}

/// Outcome of a change.
#[derive(Debug)]
pub enum ChangeOutcome<R> {
    /// The key is changed.
    Done {
        /// New state of the rows.
        rows: Box<KeyChange>,
        /// Number of the change.
        mutation: Mutation,
    },
    /// The caller's rule refused the change.
    Refused {
        /// State of the key.
        key: Box<Key>,
        /// Reason of the caller's rule.
        reason: R,
    },
    /// The network has no room for the successor.
    QuotaExceeded,
    /// The actor has as many active keys as these limits allow.
    ActorLimitReached(Vec<ActorLimit>),
    /// The successor's request id was used by another request.
    RequestConflict,
    /// The key doesn't exist.
    NoSuchKey,
}

impl Store {
    /// Changes a key by the result of `change`, which gets the current state of the locked row.
    ///
    /// # Errors
    /// When the database fails; the change may then be made or not.
    pub async fn change_key<R, F>(
        &self,
        network: NetworkId,
        id: KeyId,
        now: Timestamp,
        change: F,
    ) -> Result<ChangeOutcome<R>, StoreError>
    where
        R: Send + 'static,
        F: Fn(&Key) -> Result<KeyChange, R> + Send + Sync + 'static,
    {
        self.change_key_within(network, id, now, |_| vec![], change).await
    }

    /// Changes a key as [`Store::change_key`] does, within the limits of its actor. `limits` gets
    /// the key that the change adds, or else its new state.
    ///
    /// # Errors
    /// Those of [`Store::change_key`].
    pub async fn change_key_within<R, F, L>(
        &self,
        network: NetworkId,
        id: KeyId,
        now: Timestamp,
        limits: L,
        change: F,
    ) -> Result<ChangeOutcome<R>, StoreError>
    where
        R: Send + 'static,
        F: Fn(&Key) -> Result<KeyChange, R> + Send + Sync + 'static,
        L: Fn(&Key) -> Vec<ActorLimit> + Send + Sync + 'static,
    {
        self.run(move |inner| change_key(inner, network, id, now, (change, limits))).await
    }
}

async fn change_key<R, F, L>(
    inner: Arc<Inner>,
    network: NetworkId,
    id: KeyId,
    now: Timestamp,
    change: (F, L),
) -> Result<ChangeOutcome<R>, StoreError>
where
    R: Send + 'static,
    F: Fn(&Key) -> Result<KeyChange, R> + Send + Sync,
    L: Fn(&Key) -> Vec<ActorLimit> + Send + Sync,
{
    inner
        .write(change, move |inner, transaction, change| {
            change_row(inner, transaction, (network, id), now, change).boxed()
        })
        .await
}

/// Changes a row, and its successor's if there is one, in a transaction that holds the network's
/// lock: limits, quota, credits, log entry, row, terms. The log entry comes late, as it orders the
/// changes of all networks.
async fn change_row<R, F, L>(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (network, id): (NetworkId, KeyId),
    now: Timestamp,
    (change, limits): &(F, L),
) -> Result<End<ChangeOutcome<R>>, StoreError>
where
    R: Send + 'static,
    F: Fn(&Key) -> Result<KeyChange, R> + Send + Sync,
    L: Fn(&Key) -> Vec<ActorLimit> + Send + Sync,
{
    let mut count = lock_network(inner, transaction, network).await?;
    let Some(before) = read_current(inner, transaction, network, id).await? else {
        return Ok(End::Rollback(ChangeOutcome::NoSuchKey));
    };
    let id = before.id;
    let mut rows = match change(&before) {
        Ok(rows) => rows,
        Err(reason) => {
            let mutation = latest_number(inner, transaction, &before).await?;
            let key = Box::new(Key { mutation, ..before });
            return Ok(End::Rollback(ChangeOutcome::Refused { key, reason }));
        }
    };
    let successor = rows.successor.as_ref().map(|successor| &successor.key);
    let limits = limits(successor.unwrap_or(&rows.key));
    let states = (&before, &rows.key, successor);
    let full = exceeded(inner, transaction, states, &limits, now).await?;
    if !full.is_empty() {
        return Ok(End::Rollback(ChangeOutcome::ActorLimitReached(full)));
    }
    if let Some(Successor { key, quota, request }) = &rows.successor {
        if let Some(request) = request
            && find_request(inner, transaction, network, request).await?.is_some()
        {
            return Ok(End::Rollback(ChangeOutcome::RequestConflict));
        }
        if let Some(quota) = quota
            && room(inner, transaction, &mut count, *quota, 1, now).await? == 0
        {
            // Committed, as ended grace periods may have been subtracted from the count.
            return Ok(End::Commit(ChangeOutcome::QuotaExceeded));
        }
        let digests = KnownDigests::default();
        let row = NewKey { key: key.clone(), request: request.clone(), digests };
        insert_rows(inner, transaction, &[row]).await?;
        inherit_credits(inner, transaction, &before, key).await?;
    }
    let successors = i64::from(rows.successor.is_some());
    let difference = successors + i64::from(count.includes(&rows.key)) - i64::from(count.includes(&before));
    add_to_count(inner, transaction, network, difference).await?;
    let successor = rows.successor.as_ref().map(|successor| successor.key.id);
    let event = Some(ChangeRecord::of_change(&before, &rows.key, successor).into_stored());
    // Before that, as uses of the key may hold the row.
    change_credits(inner, transaction, &before, &mut rows.key, now).await?;
    // From here on, changes of other networks wait.
    let change = LoggedChange { network, key_id: id, at: now, event };
    let (mutation, time) = log_change(inner, transaction, change).await?;
    rows.key.mutation = mutation.n;
    if rows.successor.is_some() {
        clock_skew::check(now, time)?;
    } else if let Some(time) = time.filter(|_| clock_skew::is_off(now, time)) {
        // A wrong clock doesn't keep a key from being revoked.
        rows.key.updated = time;
    }
    update_row(inner, transaction, &rows, &before).await?;
    if rows.key.scopes != before.scopes || rows.key.metadata != before.metadata {
        replace_terms(inner, transaction, &rows.key).await?;
    }
    if rows.key.expires != before.expires {
        update_expiry(inner, transaction, &rows.key).await?;
    }
    Ok(End::Commit(ChangeOutcome::Done { rows: Box::new(rows), mutation }))
}

/// Returns the number of a key's last change. The row of an imported key that wasn't changed since
/// has an earlier one, as it is written before the number of the import is taken.
async fn latest_number(inner: &Inner, transaction: &mut AnyConnection, key: &Key) -> Result<u64, StoreError> {
    let logged = match key.id.kind() {
        KeyKind::Issued => None,
        KeyKind::Imported => read_latest_of(inner, transaction, key.network, key.id).await?,
    };
    Ok(key.mutation.max(logged.unwrap_or_default()))
}

/// Writes another expiry, which revives a key that was recorded as expired.
async fn update_expiry(inner: &Inner, transaction: &mut AnyConnection, key: &Key) -> Result<(), StoreError> {
    let update = "UPDATE api_keys SET expires_at = $1, swept = CASE swept WHEN 3 THEN 1 ELSE swept END \
                  WHERE network_id = $2 AND key_id = $3";
    inner
        .query(update)
        .bind(key.expires.map(Timestamp::as_micros))
        .bind(key.network.to_string())
        .bind(key.id.to_string())
        .execute(&mut *transaction)
        .await?;
    Ok(())
}

/// Reads the row of a key, also by the id that it had while only a hash of it was known.
pub(super) async fn read_current(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    id: KeyId,
) -> Result<Option<Key>, StoreError> {
    if let Some(key) = read_row(inner, transaction, network, id).await? {
        return Ok(Some(key));
    }
    match id_by_digest(inner, transaction, network, id).await? {
        Some(current) => read_row(inner, transaction, network, current).await,
        None => Ok(None),
    }
}

/// Reads the row of a key.
pub(super) async fn read_row(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    id: KeyId,
) -> Result<Option<Key>, StoreError> {
    let columns = selected(inner.dialect);
    let find = format!("SELECT {columns} FROM api_keys WHERE network_id = $1 AND key_id = $2");
    let row = inner
        .query(find)
        .bind(network.to_string())
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
    row.map(|row| read_key(&row)).transpose()
}

/// Writes the columns that a change may have changed.
async fn update_row(
    inner: &Inner,
    transaction: &mut AnyConnection,
    KeyChange { key, successor }: &KeyChange,
    before: &Key,
) -> Result<(), StoreError> {
    // Uses put off the end of a grace period without the network's lock: an end that the change
    // leaves as it was may be a later one by now.
    let superseded = match key.superseded == before.superseded {
        true => "COALESCE(superseded_at, $10)",
        false => "$10",
    };
    // Without the columns that never change, and without the last use, which is written separately.
    let update = format!(
        "UPDATE api_keys SET name = $1, scopes = $2, metadata = $3, allowed_cidrs = $4, rate_quota = $5, \
         rate_window = $6, rate_unit = $7, rate_policies = $8, updated_at = $9, superseded_at = {superseded}, \
         revocation_reason = $11, revocation_description = $12, mutation = $13, suspension = $14, \
         updated_by = $15, revoked_by = $16, unused_grace = $17, grace_limit_at = $18, \
         credits_id = $19, replaced_by = COALESCE($20, replaced_by), \
         terms_at = CASE WHEN terms_at = $21 THEN $22 ELSE terms_at END \
         WHERE network_id = $23 AND key_id = $24"
    );
    bind_changes(inner.query(update), key)
        .bind(successor.as_ref().map(|successor| successor.key.id.to_string()))
        // Terms that are as old as the row stay so.
        .bind(i64::try_from(before.mutation).unwrap_or(i64::MAX))
        .bind(i64::try_from(key.mutation).unwrap_or(i64::MAX))
        .bind(key.network.to_string())
        .bind(key.id.to_string())
        .execute(&mut *transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::key::UnusedGrace;
    use crate::rng::Rng;

    const NETWORK: NetworkId = NetworkId::SINGLE;
    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// Opens a new database with one key, whose grace period ends an hour after its last use.
    async fn store(key: &Key) -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let new = NewKey { key: key.clone(), request: None, digests: KnownDigests::default() };
        store.insert_keys(vec![new], None).await.unwrap();
        (store, directory)
    }

    /// Writes what a change made of a row that it has read.
    async fn write(store: &Store, before: Key, after: Key) {
        let rows = KeyChange { key: after, successor: None };
        let update = async move |inner: Arc<Inner>| {
            inner
                .write((rows, before), |inner, transaction, (rows, before)| {
                    async move { Ok(End::Commit(update_row(inner, transaction, rows, before).await?)) }
                        .boxed()
                })
                .await
        };
        store.run(update).await.unwrap();
    }

    /// In databases that let several write, a use is recorded while a change has read the row.
    #[tokio::test]
    async fn a_change_keeps_the_end_that_a_use_puts_off_meanwhile() {
        let id = KeyId::Issued(Uuid::from_u128(1));
        let key = Key {
            superseded: Some(NOW.plus(HOUR)),
            unused_grace: Some(Box::new(UnusedGrace { after: HOUR, latest: NOW.plus(HOUR * 24) })),
            ..Key::sample(id, NOW.minus(HOUR))
        };
        let (store, _directory) = store(&key).await;
        let find = async || Key::clone(&store.find_key(NETWORK, id).await.unwrap().key.unwrap());
        let before = find().await;
        let used = NOW.plus(HOUR / 2);
        store.extend_graces(vec![(NETWORK, id, used)]).await.unwrap();
        write(&store, before.clone(), Key { updated: used, ..before }).await;
        let after = find().await;
        assert_eq!((after.updated, after.superseded), (used, Some(used.plus(HOUR))));
        // An end that the change sets counts.
        write(&store, after.clone(), Key { superseded: Some(used), ..after }).await;
        assert_eq!(find().await.superseded, Some(used));
    }
}
