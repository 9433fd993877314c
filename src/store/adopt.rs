//! Keys that are copied from another database, with their ids, times and state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::changes::read_row;
use super::credits::insert_credits;
use super::digests::{id_by_digest, record_all_hashes};
use super::key_counts::{add_to_count, lock_network};
use super::keys::insert_row;
use super::mutations::log_mutation;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, KeyKind, NetworkId};

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
                let mut has_new_imported = false;
                for key in keys {
                    let is_counted = counts.get(&key.network).is_some_and(|count| count.includes(key));
                    let outcome = adopt_key(inner, transaction, key, is_counted, now).await?;
                    has_new_imported |= outcome == Adopted::New && key.id.kind() == KeyKind::Imported;
                    adopted.push(outcome);
                }
                // An id doesn't tell whether only a hash of the key is known, which is looked up by
                // its digest.
                if has_new_imported {
                    record_all_hashes(inner, transaction).await?;
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
    if let Some(existing) = read_existing(inner, transaction, key).await? {
        let differences = existing.differences(&Key { id: existing.id, ..key.clone() });
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

/// Reads the key with the same id, or the one that had it while only a hash of it was known.
async fn read_existing(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
) -> Result<Option<Key>, StoreError> {
    if let Some(existing) = read_row(inner, transaction, key.network, key.id).await? {
        return Ok(Some(existing));
    }
    match id_by_digest(inner, transaction, key.network, key.id).await? {
        Some(current) => read_row(inner, transaction, key.network, current).await,
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha512};

    use super::*;
    use crate::credential::imported;
    use crate::credential::imported_hash::{DigestIds, ImportedHash};
    use crate::rng::Rng;
    use crate::store::HashUpgrade;

    const NETWORK: NetworkId = NetworkId::SINGLE;

    /// A list doesn't tell of which keys only a hash is known.
    #[tokio::test]
    async fn an_adopted_hash_is_found_and_known_after_its_upgrade() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let now = Timestamp::from_secs(1_790_000_000);
        let hash = hex::encode(Sha512::digest("a"));
        let pending = ImportedHash::parse(Some("sha512"), None, &hash).unwrap().key_id(NETWORK);
        let (native, digests) = (imported::key_id(NETWORK, "a"), DigestIds::of(NETWORK, "a"));
        let find = async || {
            let found = store.find_presented(NETWORK, native, Some(digests)).await;
            found.unwrap().key.map(|key| key.id)
        };
        let adopt = async |dry_run: bool| {
            let keys = vec![Key::sample(pending, now)];
            store.adopt_keys(keys, now, dry_run).await.unwrap()
        };
        assert_eq!((adopt(true).await, find().await), (vec![Adopted::New], None));
        assert_eq!((adopt(false).await, find().await), (vec![Adopted::New], Some(pending)));
        assert_eq!(adopt(false).await, [Adopted::Unchanged]);

        let upgrade = HashUpgrade { network: NETWORK, from: pending, to: native, digests, now };
        assert_eq!(store.upgrade_hash(upgrade).await.unwrap().len(), 2);
        assert_eq!((adopt(false).await, find().await), (vec![Adopted::Unchanged], Some(native)));
    }
}
