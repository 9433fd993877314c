//! Changes of existing keys: each is one transaction, with a number of the log.
//!
//! The number is taken first, which locks the one row that orders all changes (see `mutations`).
//! Rows that are read after that can't change before the commit, in any database.

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::keys::{insert_row, is_full};
use super::mutations::log_mutation;
use super::row::{COLUMNS, bind_changes, read_key};
use super::transaction::End;
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, KeyId, NetworkId};

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
        self.run(move |inner| change_key(inner, network, id, now, change)).await
    }
}

async fn change_key<R, F>(
    inner: Arc<Inner>,
    network: NetworkId,
    id: KeyId,
    now: Timestamp,
    change: F,
) -> Result<ChangeOutcome<R>, StoreError>
where
    R: Send + 'static,
    F: Fn(&Key) -> Result<KeyChange, R> + Send + Sync,
{
    inner
        .write(change, move |inner, transaction, change| {
            async move {
                let mutation = log_mutation(inner, transaction, network, id, now).await?;
                let Some(before) = read_row(inner, transaction, network, id).await? else {
                    return Ok(End::Rollback(ChangeOutcome::NoSuchKey));
                };
                let mut rows = match change(&before) {
                    Ok(rows) => rows,
                    Err(reason) => {
                        return Ok(End::Rollback(ChangeOutcome::Refused { key: Box::new(before), reason }));
                    }
                };
                rows.key.mutation = mutation.n;
                update_row(inner, transaction, &rows.key).await?;
                if let Some(Successor { key, quota }) = &rows.successor {
                    if is_full(inner, transaction, network, *quota, now).await? {
                        return Ok(End::Rollback(ChangeOutcome::QuotaExceeded));
                    }
                    insert_row(inner, transaction, key).await?;
                }
                Ok(End::Commit(ChangeOutcome::Done { rows: Box::new(rows), mutation }))
            }
            .boxed()
        })
        .await
}

/// Reads the row of a key.
pub(super) async fn read_row(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    id: KeyId,
) -> Result<Option<Key>, StoreError> {
    let find = format!("SELECT {COLUMNS} FROM api_keys WHERE network_id = $1 AND key_id = $2");
    let row = inner
        .query(find)
        .bind(network.to_string())
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
    row.map(|row| read_key(&row)).transpose()
}

async fn update_row(inner: &Inner, transaction: &mut AnyConnection, key: &Key) -> Result<(), StoreError> {
    // Without the columns that never change, and without the last use, which is written separately.
    let update = "UPDATE api_keys SET name = $1, scopes = $2, metadata = $3, allowed_cidrs = $4, rate_quota = $5, \
                  rate_window = $6, rate_unit = $7, updated_at = $8, superseded_at = $9, revocation_reason = $10, \
                  revocation_description = $11, mutation = $12 WHERE network_id = $13 AND key_id = $14";
    bind_changes(inner.query(update), key)
        .bind(key.network.to_string())
        .bind(key.id.to_string())
        .execute(&mut *transaction)
        .await?;
    Ok(())
}
