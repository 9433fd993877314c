//! Ids by digest: under them, a key is found of which only a hash was imported, and a key that is
//! known already isn't imported again by its hash.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};

use futures_util::FutureExt;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Row};

use super::new_key::NewKey;
use super::{Inner, Store, StoreError};
use crate::credential::imported_hash::{DigestIds, KnownDigests};
use crate::key::{KeyId, KeyKind, NetworkId};

/// Bit of the column `hashes` for SHA-256.
const SHA256: u8 = 1;
/// Bit of the column `hashes` for SHA-512.
const SHA512: u8 = 2;

/// Algorithms of which hashes were ever imported.
///
/// A lookup reads them in its own statement: what a process remembers may be old, and then the
/// lookup is repeated with the ids that were left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HashAlgorithms(u8);

impl HashAlgorithms {
    /// Reads the column `hashes`, here named `name`.
    pub(super) fn from_row(row: &AnyRow, name: &str) -> Result<Self, StoreError> {
        let bits = row.try_get::<i16, _>(name)?;
        u8::try_from(bits).map(Self).map_err(|_| StoreError::Corrupt("hashes"))
    }

    /// Returns true if it has an algorithm that `other` lacks.
    pub(super) const fn exceeds(self, other: Self) -> bool {
        self.0 & !other.0 != 0
    }

    /// Returns the ids to look for.
    pub(super) fn ids(self, digests: DigestIds) -> impl Iterator<Item = KeyId> {
        let has = move |bit| self.0 & bit != 0;
        let ids = [(has(SHA256), digests.sha256), (has(SHA512), digests.sha512)];
        ids.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, id)| id)
    }
}

/// Algorithms of imported hashes that a process remembers.
#[derive(Default)]
pub(super) struct HashHint(AtomicU8);

impl HashHint {
    pub(super) fn get(&self) -> HashAlgorithms {
        HashAlgorithms(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, algorithms: HashAlgorithms) {
        self.0.store(algorithms.0, Ordering::Relaxed);
    }
}

/// Returns the bits of the hashes that are imported by these new keys.
fn imported_hashes(new: &[NewKey]) -> u8 {
    new.iter().fold(0, |bits, NewKey { key, digests, .. }| {
        let KnownDigests { sha256, sha512 } = *digests;
        let bit = |known: Option<KeyId>, bit: u8| if known == Some(key.id) { bit } else { 0 };
        bits | bit(sha256, SHA256) | bit(sha512, SHA512)
    })
}

/// Records that hashes of these algorithms exist, if `new` has any. The row that orders all changes
/// must be locked.
pub(super) async fn record_hashes(
    inner: &Inner,
    transaction: &mut AnyConnection,
    new: &[NewKey],
) -> Result<(), StoreError> {
    record(inner, transaction, HashAlgorithms(imported_hashes(new))).await
}

/// Records that hashes of every algorithm may exist, where the ids of keys don't tell. The row that
/// orders all changes must be locked.
pub(super) async fn record_all_hashes(
    inner: &Inner,
    transaction: &mut AnyConnection,
) -> Result<(), StoreError> {
    record(inner, transaction, HashAlgorithms(SHA256 | SHA512)).await
}

async fn record(
    inner: &Inner,
    transaction: &mut AnyConnection,
    imported: HashAlgorithms,
) -> Result<(), StoreError> {
    if imported == HashAlgorithms::default() {
        return Ok(());
    }
    let read = inner.query("SELECT hashes FROM mutation_counter WHERE id = 1");
    let known = HashAlgorithms::from_row(&read.fetch_one(&mut *transaction).await?, "hashes")?;
    if imported.exceeds(known) {
        let update = inner.query("UPDATE mutation_counter SET hashes = $1 WHERE id = 1");
        update.bind(i16::from(known.0 | imported.0)).execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Ids that new imported keys can't have, each with the id of the key that has it.
#[derive(Default)]
pub(super) struct TakenIds(HashMap<KeyId, KeyId>);

impl TakenIds {
    /// Reads which ids of these keys exist. All keys are of one network.
    pub(super) async fn read(
        &mut self,
        inner: &Inner,
        transaction: &mut AnyConnection,
        new: &[NewKey],
    ) -> Result<(), StoreError> {
        let Some(network) = new.first().map(|new| new.key.network) else {
            return Ok(());
        };
        let ids: [Vec<KeyId>; 3] = [
            new.iter().map(|new| new.key.id).collect(),
            new.iter().filter_map(|new| new.digests.sha256).collect(),
            new.iter().filter_map(|new| new.digests.sha512).collect(),
        ];
        for (column, ids) in ["key_id", "sha256_id", "sha512_id"].into_iter().zip(ids) {
            if ids.is_empty() {
                continue;
            }
            let places: Vec<String> = (2..ids.len() + 2).map(|number| format!("${number}")).collect();
            let find = format!(
                "SELECT {column} AS taken, key_id FROM api_keys WHERE network_id = $1 AND {column} IN ({})",
                places.join(", ")
            );
            let find = inner.query(find).bind(network.to_string());
            let find = ids.iter().fold(find, |find, id| find.bind(id.to_string()));
            for row in find.fetch_all(&mut *transaction).await? {
                self.0.insert(read_id(&row, "taken")?, read_id(&row, "key_id")?);
            }
        }
        Ok(())
    }

    /// Returns the id of the key that a new one collides with.
    pub(super) fn of(&self, new: &NewKey) -> Option<KeyId> {
        candidates(new).find_map(|id| self.0.get(&id).copied())
    }

    /// Counts a new key as existing.
    pub(super) fn insert(&mut self, new: &NewKey) {
        self.0.extend(candidates(new).map(|id| (id, new.key.id)));
    }
}

/// Returns the ids under which a key would be found.
fn candidates(NewKey { key, digests, .. }: &NewKey) -> impl Iterator<Item = KeyId> {
    [Some(key.id), digests.sha256, digests.sha512].into_iter().flatten()
}

fn read_id(row: &AnyRow, column: &'static str) -> Result<KeyId, StoreError> {
    KeyId::parse_any(&row.try_get::<String, _>(column)?).ok_or(StoreError::Corrupt("key_id"))
}

/// Returns the current id of a key by an id of its digest.
pub(super) async fn id_by_digest(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    id: KeyId,
) -> Result<Option<KeyId>, StoreError> {
    if id.kind() != KeyKind::Imported {
        return Ok(None);
    }
    let rows = find_by_digest(inner, network, id).fetch_all(&mut *transaction).await?;
    rows.first().map(|row| read_id(row, "key_id")).transpose()
}

fn find_by_digest(inner: &Inner, network: NetworkId, id: KeyId) -> Query<'static, Any, AnyArguments> {
    let find = "SELECT key_id FROM api_keys WHERE network_id = $1 AND sha256_id = $2 \
                UNION ALL SELECT key_id FROM api_keys WHERE network_id = $3 AND sha512_id = $4";
    let find = inner.query(find);
    (0..2).fold(find, |find, _| find.bind(network.to_string()).bind(id.to_string()))
}

impl Store {
    /// Returns the current id of a key that once had `id`, while only a hash of it was known.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn current_id(&self, network: NetworkId, id: KeyId) -> Result<Option<KeyId>, StoreError> {
        if id.kind() != KeyKind::Imported {
            return Ok(None);
        }
        self.run(async move |inner| {
            let find = find_by_digest(&inner, network, id);
            let rows = inner.read(|connection| find.fetch_all(connection).boxed()).await?;
            rows.first().map(|row| read_id(row, "key_id")).transpose()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::credential::imported;
    use crate::credential::imported_hash::ImportedHash;
    use crate::key::Key;
    use crate::rng::Rng;
    use crate::store::{HashUpgrade, InsertOutcome};
    use sha2::{Digest, Sha256};

    const NETWORK: NetworkId = NetworkId::SINGLE;

    fn row(id: KeyId) -> Key {
        Key::sample(id, Timestamp::from_secs(1_790_000_000))
    }

    fn hashed(raw_key: &str) -> NewKey {
        let hash = hex::encode(Sha256::digest(raw_key));
        let hash = ImportedHash::parse(Some("sha256"), None, &hash).unwrap();
        NewKey { key: row(hash.key_id(NETWORK)), request: None, digests: hash.known(NETWORK) }
    }

    async fn find(store: &Store, raw_key: &str) -> Option<KeyId> {
        let digests = Some(DigestIds::of(NETWORK, raw_key));
        let found = store.find_presented(NETWORK, imported::key_id(NETWORK, raw_key), digests).await;
        found.unwrap().key.map(|key| key.id)
    }

    async fn open(directory: &tempfile::TempDir) -> Store {
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        Store::open(&dsn, Rng::seeded(1)).await.unwrap()
    }

    /// Statements for a number of unknown credentials.
    async fn cost(store: &Store, unknown: usize) -> u64 {
        let before = store.0.lookup_statements.load(Ordering::Relaxed);
        for number in 0..unknown {
            assert_eq!(find(store, &format!("unknown {number}")).await, None);
        }
        store.0.lookup_statements.load(Ordering::Relaxed) - before
    }

    /// `TALOS_TEST_HASHES` and `TALOS_TEST_UNKNOWN` make it larger.
    #[tokio::test]
    async fn unknown_credentials_cost_one_statement_each_with_and_without_hashes() {
        let number =
            |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
        let (hashes, unknown) = (number("TALOS_TEST_HASHES", 3_000), number("TALOS_TEST_UNKNOWN", 500));
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory).await;
        assert_eq!(cost(&store, unknown).await, unknown as u64);
        let names: Vec<String> = (0..hashes).map(|number| format!("hash {number}")).collect();
        for chunk in names.chunks(1_000) {
            store.insert_keys(chunk.iter().map(|name| hashed(name)).collect(), None).await.unwrap();
        }
        assert_eq!(find(&store, "hash 1").await, Some(hashed("hash 1").key.id));
        assert_eq!(cost(&store, unknown).await, unknown as u64);
    }

    /// The memory of a process may be old.
    #[tokio::test]
    async fn a_hash_that_another_process_imported_is_found_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (open(&directory).await, open(&directory).await);
        assert_eq!(find(&one, "a").await, None);
        other.insert_keys(vec![hashed("a")], None).await.unwrap();
        assert_eq!(find(&one, "a").await, Some(hashed("a").key.id));
        assert_eq!(find(&one, "b").await, None);
    }

    #[tokio::test]
    async fn an_upgrade_happens_once_and_both_ids_lead_to_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory).await;
        let pending = hashed("a").key.id;
        store.insert_keys(vec![hashed("a")], None).await.unwrap();
        let (to, digests) = (imported::key_id(NETWORK, "a"), DigestIds::of(NETWORK, "a"));
        let now = Timestamp::from_secs(1_790_000_001);
        let upgrade = HashUpgrade { network: NETWORK, from: pending, to, digests, now };
        let changes = store.upgrade_hash(upgrade).await.unwrap();
        assert_eq!(changes.iter().map(|change| change.key_id).collect::<Vec<_>>(), [pending, to]);
        assert!(store.upgrade_hash(upgrade).await.unwrap().is_empty());
        assert_eq!(find(&store, "a").await, Some(to));
        for id in digests.all() {
            assert_eq!(store.current_id(NETWORK, id).await.unwrap(), Some(to));
        }
        let inserted = store.insert_keys(vec![hashed("a")], None).await.unwrap();
        assert!(matches!(inserted.each[..], [InsertOutcome::IdTaken(id)] if id == to));
        let deleted = store.delete_keys(NETWORK, vec![pending], now, None).await.unwrap();
        assert_eq!(deleted.len(), 1);
        assert_eq!(find(&store, "a").await, None);
    }
}
