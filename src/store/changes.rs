//! Changes to a key that is there: each is one transaction, with its number in the log.
//!
//! Taking the number comes first and locks the one row that orders all changes (see `mutations`): what is read after
//! that can't change any more before the commit, whatever the database.

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

/// What a key is to become.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// The key as it is to be from now on.
    pub key: Key,
    /// The key that takes its place, put in by the same transaction.
    pub successor: Option<Successor>,
}

/// A key that takes the place of another.
#[derive(Debug, Clone)]
pub struct Successor {
    /// Its row.
    pub key: Key,
    /// Most keys that the network may have for one more to be put in; None doesn't count them.
    pub quota: Option<u64>,
}

/// What came of changing a key.
#[derive(Debug)]
pub enum Changed<R> {
    /// It is changed.
    Done {
        /// How the rows stand now.
        rows: Box<Rewrite>,
        /// The change's number.
        mutation: Mutation,
    },
    /// Nothing was changed, for the reason that the caller's own rule gave.
    Refused {
        /// How the row stands.
        key: Box<Key>,
        /// The reason.
        reason: R,
    },
    /// The network has no room for a successor.
    QuotaExceeded,
    /// There is no such key.
    NoSuchKey,
}

impl Store {
    /// Changes a key into what `rewrite` makes of it, as of the row that nobody else can change meanwhile.
    ///
    /// # Errors
    /// When the database fails; whether the change was made is then unknown.
    pub async fn change_key<R, F>(
        &self,
        network: NetworkId,
        id: KeyId,
        now: Timestamp,
        rewrite: F,
    ) -> Result<Changed<R>, StoreError>
    where
        R: Send + 'static,
        F: Fn(&Key) -> Result<Rewrite, R> + Send + Sync + 'static,
    {
        self.run(move |inner| change_key(inner, network, id, now, rewrite)).await
    }

    /// Removes a key for good; None when there is none.
    ///
    /// # Errors
    /// When the database fails; whether the key is gone is then unknown.
    pub async fn delete_key(
        &self,
        network: NetworkId,
        id: KeyId,
        now: Timestamp,
    ) -> Result<Option<Mutation>, StoreError> {
        self.run(move |inner| delete_key(inner, network, id, now)).await
    }
}

async fn change_key<R, F>(
    inner: Arc<Inner>,
    network: NetworkId,
    id: KeyId,
    now: Timestamp,
    rewrite: F,
) -> Result<Changed<R>, StoreError>
where
    R: Send + 'static,
    F: Fn(&Key) -> Result<Rewrite, R> + Send + Sync,
{
    inner
        .write(rewrite, move |inner, transaction, rewrite| {
            async move {
                let mutation = log_mutation(inner, transaction, network, id, now).await?;
                let Some(before) = read_row(inner, transaction, network, id).await? else {
                    return Ok(End::Rollback(Changed::NoSuchKey));
                };
                let mut rows = match rewrite(&before) {
                    Ok(rows) => rows,
                    Err(reason) => {
                        return Ok(End::Rollback(Changed::Refused { key: Box::new(before), reason }));
                    }
                };
                rows.key.mutation = mutation.n;
                update_row(inner, transaction, &rows.key).await?;
                if let Some(Successor { key, quota }) = &rows.successor {
                    if is_full(inner, transaction, network, *quota, now).await? {
                        return Ok(End::Rollback(Changed::QuotaExceeded));
                    }
                    insert_row(inner, transaction, key).await?;
                }
                Ok(End::Commit(Changed::Done { rows: Box::new(rows), mutation }))
            }
            .boxed()
        })
        .await
}

async fn delete_key(
    inner: Arc<Inner>,
    network: NetworkId,
    id: KeyId,
    now: Timestamp,
) -> Result<Option<Mutation>, StoreError> {
    inner
        .write((), move |inner, transaction, ()| {
            async move {
                let mutation = log_mutation(inner, transaction, network, id, now).await?;
                let deleted = inner
                    .query("DELETE FROM api_keys WHERE network_id = $1 AND key_id = $2")
                    .bind(network.to_string())
                    .bind(id.to_string())
                    .execute(&mut *transaction)
                    .await?;
                Ok(match deleted.rows_affected() {
                    0 => End::Rollback(None),
                    _ => End::Commit(Some(mutation)),
                })
            }
            .boxed()
        })
        .await
}

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
    // What never changes isn't among them, and the last use is none of a change's business.
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
