//! The log of changes, by which every instance learns that what it knows is old (see `cache::freshness`).

use futures_util::FutureExt;
use sqlx::{Any, Row, Transaction};

use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

/// Most entries of the log read at once.
const BATCH: i64 = 10_000;

/// A change that was made to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation {
    /// Its number: commits happen in this order.
    pub n: u64,
    /// The key's network.
    pub network: NetworkId,
    /// The key.
    pub key_id: KeyId,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its number.
    pub n: u64,
    /// Random: the same number with another tag is another history.
    pub tag: u128,
    /// What changed; None for the entry with which the log begins.
    pub subject: Option<(NetworkId, KeyId)>,
}

impl Store {
    /// The log's newest entries: those from `since` on, by the clocks of those who wrote them, and at least the last
    /// one; in order, 10,000 at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_mutations(&self, since: Timestamp) -> Result<Vec<Logged>, StoreError> {
        let newest = "SELECT n, tag, network_id, key_id, at FROM mutation_log ORDER BY n DESC LIMIT $1";
        self.run(async move |inner| {
            let newest = inner.query(newest).bind(BATCH);
            let rows = inner.read(|connection| newest.fetch_all(connection).boxed()).await?;
            let mut log = vec![];
            for row in &rows {
                if !log.is_empty() && row.try_get::<i64, _>("at")? < since.as_micros() {
                    break;
                }
                log.push(read(row)?);
            }
            log.reverse();
            Ok(log)
        })
        .await
    }

    /// The entries from number `from` on, that one included, in order; 10,000 at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mutations_from(&self, from: u64) -> Result<Vec<Logged>, StoreError> {
        let tail = "SELECT n, tag, network_id, key_id FROM mutation_log WHERE n >= $1 ORDER BY n LIMIT $2";
        self.run(async move |inner| {
            let from = i64::try_from(from).unwrap_or(i64::MAX);
            let tail = inner.query(tail).bind(from).bind(BATCH);
            let rows = inner.read(|connection| tail.fetch_all(connection).boxed()).await?;
            rows.iter().map(read).collect()
        })
        .await
    }
}

fn read(row: &sqlx::any::AnyRow) -> Result<Logged, StoreError> {
    let n = row.try_get::<i64, _>("n")?;
    let network = NetworkId::parse(&row.try_get::<String, _>("network_id")?);
    let key_id = KeyId::parse_any(&row.try_get::<String, _>("key_id")?);
    Ok(Logged {
        n: u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?,
        tag: read_tag(&row.try_get::<String, _>("tag")?)?,
        subject: network.zip(key_id),
    })
}

/// A tag from its hex digits.
pub(super) fn read_tag(digits: &str) -> Result<u128, StoreError> {
    u128::from_str_radix(digits, 16).map_err(|_| StoreError::Corrupt("tag"))
}

/// Gives the change its number and logs it, inside the transaction that makes it. Incrementing the one row takes its
/// lock until the commit: no later number can be seen before this one.
pub(super) async fn log_mutation(
    inner: &Inner,
    transaction: &mut Transaction<'static, Any>,
    network: NetworkId,
    key_id: KeyId,
    at: Timestamp,
) -> Result<Mutation, StoreError> {
    inner.query("UPDATE mutation_counter SET n = n + 1 WHERE id = 1").execute(&mut **transaction).await?;
    let row =
        inner.query("SELECT n FROM mutation_counter WHERE id = 1").fetch_one(&mut **transaction).await?;
    let n: i64 = row.try_get(0)?;
    let tag = u128::from_be_bytes(inner.rng.bytes());
    inner
        .query("INSERT INTO mutation_log (n, tag, network_id, key_id, at) VALUES ($1, $2, $3, $4, $5)")
        .bind(n)
        .bind(format!("{tag:032x}"))
        .bind(network.to_string())
        .bind(key_id.to_string())
        .bind(at.as_micros())
        .execute(&mut **transaction)
        .await?;
    let n = u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?;
    Ok(Mutation { n, network, key_id })
}
