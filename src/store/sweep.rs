//! Sweep of states: records that time has ended keys, so that an index finds them by their state.
//!
//! Only filters of lists read the recorded state, and they look at the times as well.

use std::time::Duration;

use futures_util::FutureExt;
use sqlx::Row;

use super::clock_skew::database_time;
use super::dialect::MAX_ROWS;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;

/// Most keys of one sweep.
pub const SWEEP_BATCH: usize = 1_000;
/// Time after the end of a key before which it isn't recorded, as clocks differ.
const SWEEP_MARGIN: Duration = Duration::from_secs(60);

impl Store {
    /// Records the states of the keys that ended first, at most [`SWEEP_BATCH`], and returns their
    /// number.
    ///
    /// A key counts as ended when `now` and the database's clock, if it has one, both say so: what
    /// is recorded is never taken back, so one wrong clock must not end keys.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_states(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.run(async move |inner| {
            let clock = inner.query(format!("SELECT {} AS micros", inner.dialect.clock()));
            let row = inner.read(|connection| clock.fetch_one(connection).boxed()).await?;
            let database = database_time(row.try_get("micros")?);
            let now = database.map_or(now, |database| now.min(database)).minus(SWEEP_MARGIN);
            let due_at = inner.dialect.due_at();
            let due = format!(
                "SELECT network_id, key_id FROM api_keys WHERE {due_at} <= $1 ORDER BY {due_at} LIMIT $2"
            );
            let due = inner.query(due).bind(now.as_micros()).bind(SWEEP_BATCH as i64);
            let rows = inner.read(|connection| due.fetch_all(connection).boxed()).await?;
            let mut ended: Vec<(String, String)> = vec![];
            for row in &rows {
                ended.push((row.try_get("network_id")?, row.try_get("key_id")?));
            }
            // Each database locks rows in the order of the statement.
            ended.sort_unstable();
            for network in ended.chunk_by(|one, other| one.0 == other.0) {
                for chunk in network.chunks(MAX_ROWS) {
                    record(&inner, chunk.to_vec(), now).await?;
                }
            }
            Ok(ended.len())
        })
        .await
    }
}

/// Records the states of keys of one network at `now`, in a transaction of its own: changes wait
/// for few rows at a time.
async fn record(inner: &Inner, keys: Vec<(String, String)>, now: Timestamp) -> Result<(), StoreError> {
    inner
        .write(keys, move |inner, transaction, keys| {
            async move {
                let Some((network, _)) = keys.first() else {
                    return Ok(End::Rollback(()));
                };
                let places: Vec<String> = (3..keys.len() + 3).map(|place| format!("${place}")).collect();
                let update = format!(
                    "UPDATE api_keys SET swept = CASE WHEN superseded_at <= $1 THEN 2 ELSE 3 END \
                     WHERE network_id = $2 AND key_id IN ({})",
                    places.join(", ")
                );
                let update = inner.query(update).bind(now.as_micros()).bind(network.clone());
                let update = keys.iter().fold(update, |update, (_, key_id)| update.bind(key_id.clone()));
                update.execute(&mut *transaction).await?;
                Ok(End::Commit(()))
            }
            .boxed()
        })
        .await
}
