//! Keys that are copied from another database, with their ids, times and state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::changes::read_row;
use super::credits::insert_credits;
use super::key_counts::{add_to_count, lock_network};
use super::keys::insert_row;
use super::mutations::log_mutation;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, NetworkId};

/// Outcome of adopting a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// The key is inserted.
    New,
    /// The key exists with the same state.
    Unchanged,
    /// The key exists and differs in these fields; it isn't changed.
    Different(Vec<&'static str>),
}

impl Store {
    /// Inserts keys as they are, in one transaction; with `dry_run`, only returns what the outcome
    /// would be. Each new key is logged, as its id may be cached as unknown. Existing rows are
    /// never changed.
    ///
    /// # Errors
    /// When the database fails; the keys may then be inserted or not, and adopting them again is
    /// safe.
    pub async fn adopt_keys(
        &self,
        keys: Vec<Key>,
        now: Timestamp,
        dry_run: bool,
    ) -> Result<Vec<Adopted>, StoreError> {
        self.run(move |inner| adopt_keys(inner, keys, now, dry_run)).await
    }
}

async fn adopt_keys(
    inner: Arc<Inner>,
    keys: Vec<Key>,
    now: Timestamp,
    dry_run: bool,
) -> Result<Vec<Adopted>, StoreError> {
    inner
        .write(keys, move |inner, transaction, keys| {
            async move {
                // The reads that decide about the inserts need the locks, which everybody takes in
                // the order of the ids.
                let networks: BTreeMap<String, NetworkId> =
                    keys.iter().map(|key| (key.network.to_string(), key.network)).collect();
                let mut counts = HashMap::new();
                for network in networks.into_values() {
                    counts.insert(network, lock_network(inner, transaction, network).await?);
                }
                let mut adopted = Vec::with_capacity(keys.len());
                for key in keys {
                    let is_counted = counts.get(&key.network).is_some_and(|count| count.includes(key));
                    adopted.push(adopt_key(inner, transaction, key, is_counted, now).await?);
                }
                Ok(if dry_run { End::Rollback(adopted) } else { End::Commit(adopted) })
            }
            .boxed()
        })
        .await
}

async fn adopt_key(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
    is_counted: bool,
    now: Timestamp,
) -> Result<Adopted, StoreError> {
    if let Some(existing) = read_row(inner, transaction, key.network, key.id).await? {
        let differences = existing.differences(key);
        return Ok(match differences.is_empty() {
            true => Adopted::Unchanged,
            false => Adopted::Different(differences),
        });
    }
    let mutation = log_mutation(inner, transaction, key.network, key.id, now).await?.0.n;
    insert_row(inner, transaction, &Key { mutation, ..key.clone() }).await?;
    insert_credits(inner, transaction, key).await?;
    add_to_count(inner, transaction, key.network, i64::from(is_counted)).await?;
    Ok(Adopted::New)
}
