//! Numbers of Checks: written in batches by each process, as absolute values of its own rows.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use futures_util::FutureExt;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use super::dialect::{MAX_ROWS, placeholders};
use super::digests::id_by_digest;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

/// Most rows, and most uses, of one call of [`Store::save_usage`]: with one statement for each,
/// the rows of keys stay locked for a few round trips only. Changes of these keys wait for that,
/// and all other changes may wait for them.
pub const USAGE_BATCH: usize = MAX_ROWS;

/// Tables of usage, from which a key's rows are deleted with it.
const TABLES: [&str; 3] = ["usage_hours", "usage_days", "usage_keys"];

/// Number of Checks of one process in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Network of the key.
    pub network: NetworkId,
    /// Start of the hour.
    pub hour: Timestamp,
    /// Id of the key; or a text that is no id, for Checks without a key.
    pub key: String,
    /// Name of the route; empty if it has none.
    pub route: String,
    /// `allow`, or the reason of the refusal.
    pub outcome: &'static str,
    /// Number of Checks since the process counts this hour.
    pub count: u64,
}

/// First and last use of a key by one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// Network of the key.
    pub network: NetworkId,
    /// Id of the key.
    pub key: KeyId,
    /// First use.
    pub first: Timestamp,
    /// Last use.
    pub last: Timestamp,
    /// Address of the client of the last use, if known.
    pub address: Option<IpAddr>,
}

impl Store {
    /// Saves rows of a process, at most [`USAGE_BATCH`] of each kind, in one transaction. A number
    /// that is saved never becomes smaller, so a repeated or late call changes nothing. Returns
    /// those keys of `keys` that don't exist any more, with the id that such a key has now, if it
    /// has one: nothing of theirs is saved.
    ///
    /// # Errors
    /// When the database fails; the rows may then be saved or not.
    pub async fn save_usage(
        &self,
        process: Uuid,
        rows: Vec<UsageRow>,
        uses: Vec<KeyUse>,
        keys: Vec<(NetworkId, KeyId)>,
    ) -> Result<HashMap<(NetworkId, KeyId), Option<KeyId>>, StoreError> {
        self.run(async move |inner| {
            inner
                .write((rows, uses, keys), move |inner, transaction, (rows, uses, keys)| {
                    async move {
                        let gone = lock_keys(inner, transaction, keys).await?;
                        let names: HashSet<(NetworkId, String)> =
                            gone.keys().map(|(network, key)| (*network, key.to_string())).collect();
                        let is_there = |row: &&UsageRow| !names.contains(&(row.network, row.key.clone()));
                        let rows: Vec<&UsageRow> = rows.iter().filter(is_there).collect();
                        for chunk in rows.chunks(MAX_ROWS) {
                            save_rows(inner, transaction, process, chunk).await?;
                        }
                        let uses = uses.iter().filter(|used| !gone.contains_key(&(used.network, used.key)));
                        let uses: Vec<&KeyUse> = uses.collect();
                        for chunk in uses.chunks(MAX_ROWS) {
                            save_uses(inner, transaction, chunk).await?;
                        }
                        Ok(End::Commit(gone))
                    }
                    .boxed()
                })
                .await
        })
        .await
    }
}

/// Locks the rows of keys, so that a deletion of one waits, and then deletes what is written here.
/// Returns the keys that have no row, each with its current id if it only has another one by now.
async fn lock_keys(
    inner: &Inner,
    transaction: &mut AnyConnection,
    keys: &[(NetworkId, KeyId)],
) -> Result<HashMap<(NetworkId, KeyId), Option<KeyId>>, StoreError> {
    let mut gone: HashSet<(NetworkId, KeyId)> = keys.iter().copied().collect();
    for network in keys.chunk_by(|one, other| one.0 == other.0) {
        for chunk in network.chunks(MAX_ROWS) {
            let Some((network, _)) = chunk.first() else { continue };
            let places: Vec<String> = (2..chunk.len() + 2).map(|place| format!("${place}")).collect();
            let find = format!(
                "SELECT key_id FROM api_keys WHERE network_id = $1 AND key_id IN ({}){}",
                places.join(", "),
                inner.dialect.lock_shared()
            );
            let find = inner.query(find).bind(network.to_string());
            let find = chunk.iter().fold(find, |find, (_, key)| find.bind(key.to_string()));
            for row in find.fetch_all(&mut *transaction).await? {
                let key = KeyId::parse_any(row.try_get("key_id")?).ok_or(StoreError::Corrupt("key_id"))?;
                gone.remove(&(*network, key));
            }
        }
    }
    let mut current = HashMap::with_capacity(gone.len());
    for (network, key) in gone {
        current.insert((network, key), id_by_digest(inner, transaction, network, key).await?);
    }
    Ok(current)
}

async fn save_rows(
    inner: &Inner,
    transaction: &mut AnyConnection,
    process: Uuid,
    rows: &[&UsageRow],
) -> Result<(), StoreError> {
    let dialect = inner.dialect;
    let (greatest, _) = dialect.greatest_and_least();
    let insert = format!(
        "INSERT INTO usage_hours (network_id, hour_at, key_id, route, outcome, process_id, n) VALUES {} {}",
        placeholders(rows.len(), 7),
        dialect.on_conflict(
            "network_id, hour_at, key_id, route, outcome, process_id",
            &format!("n = {greatest}(usage_hours.n, {})", dialect.inserted("n")),
        )
    );
    let mut insert = inner.query(insert);
    for row in rows {
        insert = insert
            .bind(row.network.to_string())
            .bind(row.hour.as_micros())
            .bind(row.key.clone())
            .bind(row.route.clone())
            .bind(row.outcome)
            .bind(process.hyphenated().to_string())
            .bind(i64::try_from(row.count).unwrap_or(i64::MAX));
    }
    insert.execute(&mut *transaction).await?;
    Ok(())
}

async fn save_uses(
    inner: &Inner,
    transaction: &mut AnyConnection,
    uses: &[&KeyUse],
) -> Result<(), StoreError> {
    let dialect = inner.dialect;
    let (greatest, least) = dialect.greatest_and_least();
    let [first, last, address] =
        ["first_used_at", "last_used_at", "last_address"].map(|it| dialect.inserted(it));
    // The address first: MySQL assigns from left to right, and it is compared with the old time.
    let set = format!(
        "last_address = CASE WHEN {last} >= usage_keys.last_used_at AND {address} IS NOT NULL THEN {address} \
         ELSE usage_keys.last_address END, \
         first_used_at = {least}(usage_keys.first_used_at, {first}), \
         last_used_at = {greatest}(usage_keys.last_used_at, {last})"
    );
    let insert = format!(
        "INSERT INTO usage_keys (network_id, key_id, first_used_at, last_used_at, last_address) VALUES {} {}",
        placeholders(uses.len(), 5),
        dialect.on_conflict("network_id, key_id", &set)
    );
    let mut insert = inner.query(insert);
    for used in uses {
        insert = insert
            .bind(used.network.to_string())
            .bind(used.key.to_string())
            .bind(used.first.as_micros())
            .bind(used.last.as_micros())
            .bind(used.address.map(|address| address.to_string()));
    }
    insert.execute(&mut *transaction).await?;
    Ok(())
}

/// Deletes the usage of keys that are being deleted.
pub(super) async fn delete_usage(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    keys: &[KeyId],
) -> Result<(), StoreError> {
    let places: Vec<String> = (2..keys.len() + 2).map(|place| format!("${place}")).collect();
    let places = places.join(", ");
    for table in TABLES {
        let delete = format!("DELETE FROM {table} WHERE network_id = $1 AND key_id IN ({places})");
        let delete = inner.query(delete).bind(network.to_string());
        let delete = keys.iter().fold(delete, |delete, key| delete.bind(key.to_string()));
        delete.execute(&mut *transaction).await?;
    }
    Ok(())
}
