//! Deletion of keys: their rows are gone, and the log tells every instance.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::changes::read_row;
use super::credits::release_credits;
use super::dialect::MAX_ROWS;
use super::digests::id_by_digest;
use super::key_counts::{add_to_count, lock_network};
use super::mutations::{LoggedChange, erase_events, log_changes};
use super::row::{read_key, selected};
use super::transaction::End;
use super::usage::delete_usage;
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{ChangeRecord, Key, KeyId, KeyKind, NetworkId};

impl Store {
    /// Deletes those of these keys of one network that exist, in one transaction, for a caller if
    /// that is verified. Returns their changes, in the order of the log.
    ///
    /// # Errors
    /// When the database fails; the keys may then be deleted or not.
    pub async fn delete_keys(
        &self,
        network: NetworkId,
        ids: Vec<KeyId>,
        now: Timestamp,
        caller: Option<Arc<str>>,
    ) -> Result<Vec<Mutation>, StoreError> {
        self.run(move |inner| delete_keys(inner, network, ids, now, caller)).await
    }
}

/// Deletes keys of a network in one transaction, with their usage and the values in their events.
async fn delete_keys(
    inner: Arc<Inner>,
    network: NetworkId,
    ids: Vec<KeyId>,
    now: Timestamp,
    caller: Option<Arc<str>>,
) -> Result<Vec<Mutation>, StoreError> {
    let event = ChangeRecord::of_deletion(caller).into_stored();
    inner
        .write((ids, event), move |inner, transaction, (ids, event)| {
            async move {
                let count = lock_network(inner, transaction, network).await?;
                let existing = existing_keys(inner, transaction, network, ids).await?;
                if existing.is_empty() {
                    return Ok(End::Rollback(vec![]));
                }
                let counted = existing.iter().filter(|key| count.includes(key)).count();
                let counted = i64::try_from(counted).map_err(|_| StoreError::Corrupt("live"))?;
                for key in &existing {
                    release_credits(inner, transaction, key).await?;
                }
                let earlier: Vec<KeyId> = existing.iter().filter_map(earlier_id).collect();
                let existing: Vec<KeyId> = existing.iter().map(|key| key.id).collect();
                delete_rows(inner, transaction, network, &existing).await?;
                for chunk in earlier.chunks(MAX_ROWS) {
                    delete_usage(inner, transaction, network, chunk).await?;
                }
                add_to_count(inner, transaction, network, -counted).await?;
                for ids in [&existing, &earlier] {
                    erase_events(inner, transaction, network, ids).await?;
                }
                let change =
                    |id: &KeyId| LoggedChange { network, key_id: *id, at: now, event: Some(event.clone()) };
                let changes = existing.iter().map(change).collect();
                // From here on, changes of other networks wait.
                let (mutations, _) = log_changes(inner, transaction, changes).await?;
                Ok(End::Commit(mutations))
            }
            .boxed()
        })
        .await
}

/// Returns the id that a key had while only a hash of it was known.
fn earlier_id(key: &Key) -> Option<KeyId> {
    key.provenance.replaces.filter(|_| key.id.kind() == KeyKind::Imported)
}

/// Reads those of these keys that exist, in the order of the ids. The network's keys must be
/// locked.
async fn existing_keys(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    ids: &[KeyId],
) -> Result<Vec<Key>, StoreError> {
    let mut existing = HashMap::new();
    for chunk in ids.chunks(MAX_ROWS) {
        let places = places(chunk);
        let columns = selected(inner.dialect);
        let find = format!("SELECT {columns} FROM api_keys WHERE network_id = $1 AND key_id IN ({places})");
        let find = inner.query(find).bind(network.to_string());
        let find = chunk.iter().fold(find, |find, id| find.bind(id.to_string()));
        for row in find.fetch_all(&mut *transaction).await? {
            let key = read_key(&row)?;
            existing.insert(key.id, key);
        }
    }
    let mut found = vec![];
    for id in ids {
        match existing.remove(id) {
            Some(key) => found.push(key),
            // The key may have got another id by its first use, if a hash of it was imported.
            None => found.extend(upgraded(inner, transaction, network, *id).await?),
        }
    }
    found.dedup_by_key(|key| key.id);
    Ok(found)
}

/// Reads a key by an id that it had while only a hash of it was known.
async fn upgraded(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    id: KeyId,
) -> Result<Option<Key>, StoreError> {
    match id_by_digest(inner, transaction, network, id).await? {
        Some(current) => read_row(inner, transaction, network, current).await,
        None => Ok(None),
    }
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
        // After the row, which a process that counts holds until its numbers are there.
        delete_usage(inner, transaction, network, chunk).await?;
    }
    Ok(())
}

/// Returns the placeholders of ids, after the first one of the statement.
fn places(ids: &[KeyId]) -> String {
    let places: Vec<String> = (2..ids.len() + 2).map(|place| format!("${place}")).collect();
    places.join(", ")
}
