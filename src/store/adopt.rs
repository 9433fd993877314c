//! Keys that are copied from another database, with their ids, times and state.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;
use tokio::time::Instant;

use super::changes::read_row;
use super::credits::insert_credits;
use super::dialect::Dialect;
use super::digests::{id_by_digest, record_all_hashes};
use super::key_counts::{add_to_count, lock_network};
use super::keys::insert_rows;
use super::mutations::{LoggedChange, log_changes};
use super::new_key::NewKey;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::imported_hash::KnownDigests;
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
    /// never changed. Changes of all networks wait while the rows are written: give few keys to a
    /// call.
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
    let began = Instant::now();
    let adopted = inner
        .write(keys, move |inner, transaction, keys| adopt(inner, transaction, keys, now, dry_run).boxed())
        .await?;
    if inner.dialect == Dialect::Sqlite {
        // Writers of other processes look for the lock now and then. Between two of many calls it
        // would be free too shortly to be found.
        tokio::time::sleep(began.elapsed()).await;
    }
    Ok(adopted)
}

/// Adopts keys in the caller's transaction: all that is read before all that is written, the number
/// of the log late.
async fn adopt(
    inner: &Inner,
    transaction: &mut AnyConnection,
    keys: &[Key],
    now: Timestamp,
    dry_run: bool,
) -> Result<End<Vec<Adopted>>, StoreError> {
    // The reads that decide about the inserts need the locks, which everybody takes in the order of
    // the ids.
    let networks: BTreeMap<String, NetworkId> =
        keys.iter().map(|key| (key.network.to_string(), key.network)).collect();
    let mut counts = vec![];
    for network in networks.into_values() {
        counts.push((network, lock_network(inner, transaction, network).await?));
    }
    let (mut adopted, mut new) = (Vec::with_capacity(keys.len()), Vec::<NewKey>::new());
    for key in keys {
        let same = |new: &&NewKey| (new.key.network, new.key.id) == (key.network, key.id);
        let existing = match new.iter().find(same) {
            Some(new) => Some(new.key.clone()),
            None => read_existing(inner, transaction, key).await?,
        };
        adopted.push(match existing {
            Some(existing) => compared(&existing, key),
            None => {
                new.push(NewKey { key: key.clone(), request: None, digests: KnownDigests::default() });
                Adopted::New
            }
        });
    }
    if dry_run {
        return Ok(End::Rollback(adopted));
    }
    for NewKey { key, .. } in &new {
        insert_credits(inner, transaction, key).await?;
    }
    for (network, count) in counts {
        let counted = new.iter().filter(|new| new.key.network == network && count.includes(&new.key));
        let counted = i64::try_from(counted.count()).map_err(|_| StoreError::Corrupt("live"))?;
        add_to_count(inner, transaction, network, counted).await?;
    }
    // From here on, changes of other networks wait.
    let change = |NewKey { key, .. }: &NewKey| LoggedChange {
        network: key.network,
        key_id: key.id,
        at: now,
        event: None,
    };
    let (mutations, _) = log_changes(inner, transaction, new.iter().map(change).collect()).await?;
    for (new, mutation) in new.iter_mut().zip(mutations) {
        new.key.mutation = mutation.n;
    }
    insert_rows(inner, transaction, &new).await?;
    // An id doesn't tell whether only a hash of the key is known, which is looked up by its digest.
    if new.iter().any(|new| new.key.id.kind() == KeyKind::Imported) {
        record_all_hashes(inner, transaction).await?;
    }
    Ok(End::Commit(adopted))
}

/// Compares the key that exists with the one to adopt, which may have got another id since.
fn compared(existing: &Key, key: &Key) -> Adopted {
    let differences = existing.differences(&Key { id: existing.id, ..key.clone() });
    match differences.is_empty() {
        true => Adopted::Unchanged,
        false => Adopted::Different(differences),
    }
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
    use crate::key::{KeyId, KeyName};
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

    #[tokio::test]
    async fn keys_of_one_call_are_compared_with_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let now = Timestamp::from_secs(1_790_000_000);
        let one = Key::sample(KeyId::Imported([1; 32]), now);
        let renamed = Key { name: KeyName::parse("another").ok().unwrap(), ..one.clone() };
        let other = Key::sample(KeyId::Imported([2; 32]), now);
        let keys = vec![one.clone(), one, renamed, other];
        let expected = [Adopted::New, Adopted::Unchanged, Adopted::Different(vec!["name"]), Adopted::New];
        for (dry_run, logged) in [(true, 0), (false, 2)] {
            assert_eq!(store.adopt_keys(keys.clone(), now, dry_run).await.unwrap(), expected);
            assert_eq!(store.newest_number().await.unwrap(), logged);
            let rows = store.number("SELECT count(*) FROM api_keys").await.unwrap();
            assert_eq!(u64::try_from(rows).unwrap(), logged);
        }
        let numbered = "SELECT count(*) FROM api_keys JOIN mutation_log ON n = mutation \
                        AND mutation_log.key_id = api_keys.key_id";
        assert_eq!(store.number(numbered).await.unwrap(), 2);
    }
}
