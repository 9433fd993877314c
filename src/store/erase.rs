//! Deletion of keys: their rows are gone, and the log tells every instance.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::{AnyConnection, Row};

use super::dialect::MAX_ROWS;
use super::mutations::log_mutations;
use super::transaction::End;
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

impl Store {
    /// Deletes those of these keys of one network that exist, in one transaction. Returns their
    /// changes, in the order of the log.
    ///
    /// # Errors
    /// When the database fails; the keys may then be deleted or not.
    pub async fn delete_keys(
        &self,
        network: NetworkId,
        ids: Vec<KeyId>,
        now: Timestamp,
    ) -> Result<Vec<Mutation>, StoreError> {
        self.run(move |inner| delete_keys(inner, network, ids, now)).await
    }
}

async fn delete_keys(
    inner: Arc<Inner>,
    network: NetworkId,
    ids: Vec<KeyId>,
    now: Timestamp,
) -> Result<Vec<Mutation>, StoreError> {
    inner
        .write(ids, move |inner, transaction, ids| {
            async move {
                inner.lock_order(transaction).await?;
                let existing = existing_ids(inner, transaction, network, ids).await?;
                if existing.is_empty() {
                    return Ok(End::Rollback(vec![]));
                }
                let changes: Vec<_> = existing.iter().map(|id| (network, *id, now)).collect();
                let mutations = log_mutations(inner, transaction, &changes).await?;
                delete_rows(inner, transaction, network, &existing).await?;
                Ok(End::Commit(mutations))
            }
            .boxed()
        })
        .await
}

/// Returns those of these ids that exist, in their order. The row that orders all changes must be
/// locked.
async fn existing_ids(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    ids: &[KeyId],
) -> Result<Vec<KeyId>, StoreError> {
    let mut existing = HashSet::new();
    for chunk in ids.chunks(MAX_ROWS) {
        let find =
            format!("SELECT key_id FROM api_keys WHERE network_id = $1 AND key_id IN ({})", places(chunk));
        let find = inner.query(find).bind(network.to_string());
        let find = chunk.iter().fold(find, |find, id| find.bind(id.to_string()));
        for row in find.fetch_all(&mut *transaction).await? {
            let id = KeyId::parse_any(&row.try_get::<String, _>("key_id")?);
            existing.insert(id.ok_or(StoreError::Corrupt("key_id"))?);
        }
    }
    Ok(ids.iter().copied().filter(|id| existing.remove(id)).collect())
}

/// Deletes the rows of keys. All rows that are ever deleted are deleted here.
async fn delete_rows(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    ids: &[KeyId],
) -> Result<(), StoreError> {
    for chunk in ids.chunks(MAX_ROWS) {
        let delete = format!("DELETE FROM api_keys WHERE network_id = $1 AND key_id IN ({})", places(chunk));
        let delete = inner.query(delete).bind(network.to_string());
        let delete = chunk.iter().fold(delete, |delete, id| delete.bind(id.to_string()));
        delete.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Returns the placeholders of ids, after the first one of the statement.
fn places(ids: &[KeyId]) -> String {
    let places: Vec<String> = (2..ids.len() + 2).map(|place| format!("${place}")).collect();
    places.join(", ")
}
