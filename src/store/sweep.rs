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
            let ended = find_ended(&inner, now).await?;
            record_all(&inner, &ended, now).await?;
            Ok(ended.len())
        })
        .await
    }
}

/// Network and id of a key.
type Subject = (String, String);

/// Returns the keys that ended first, in the order in which their rows are locked.
async fn find_ended(inner: &Inner, now: Timestamp) -> Result<Vec<Subject>, StoreError> {
    let due_at = inner.dialect.due_at();
    let due =
        format!("SELECT network_id, key_id FROM api_keys WHERE {due_at} <= $1 ORDER BY {due_at} LIMIT $2");
    let due = inner.query(due).bind(now.as_micros()).bind(SWEEP_BATCH as i64);
    let rows = inner.read(|connection| due.fetch_all(connection).boxed()).await?;
    let mut ended: Vec<Subject> = vec![];
    for row in &rows {
        ended.push((row.try_get("network_id")?, row.try_get("key_id")?));
    }
    // Each database locks rows in the order of the statement.
    ended.sort_unstable();
    Ok(ended)
}

/// Records the states of keys at `now`, except of those whose end was moved meanwhile.
async fn record_all(inner: &Inner, ended: &[Subject], now: Timestamp) -> Result<(), StoreError> {
    for network in ended.chunk_by(|one, other| one.0 == other.0) {
        for chunk in network.chunks(MAX_ROWS) {
            record(inner, chunk.to_vec(), now).await?;
        }
    }
    Ok(())
}

/// Records the states of keys of one network at `now`, in a transaction of its own: changes wait
/// for few rows at a time.
async fn record(inner: &Inner, keys: Vec<Subject>, now: Timestamp) -> Result<(), StoreError> {
    inner
        .write(keys, move |inner, transaction, keys| {
            async move {
                let Some((network, _)) = keys.first() else {
                    return Ok(End::Rollback(()));
                };
                let places: Vec<String> = (3..keys.len() + 3).map(|place| format!("${place}")).collect();
                // Still due: a change may have moved the end since it was read. Within a COALESCE,
                // so that rows are found and locked by their ids, not by the index of what is due.
                let update = format!(
                    "UPDATE api_keys SET swept = CASE WHEN superseded_at <= $1 THEN 2 ELSE 3 END \
                     WHERE network_id = $2 AND key_id IN ({places}) AND COALESCE({due_at}, {never}) <= ${last}",
                    places = places.join(", "),
                    due_at = inner.dialect.due_at(),
                    never = i64::MAX,
                    last = keys.len() + 3
                );
                let update = inner.query(update).bind(now.as_micros()).bind(network.clone());
                let update = keys.iter().fold(update, |update, (_, key_id)| update.bind(key_id.clone()));
                update.bind(now.as_micros()).execute(&mut *transaction).await?;
                Ok(End::Commit(()))
            }
            .boxed()
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::imported_hash::KnownDigests;
    use crate::key::{Key, KeyId, NetworkId};
    use crate::rng::Rng;
    use crate::store::{KeyChange, NewKey};
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_key_that_is_prolonged_while_a_sweep_runs_stays_active() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let ids = [1, 2].map(|number| KeyId::Issued(Uuid::from_u128(number)));
        let new = ids.map(|id| NewKey {
            key: Key { expires: Some(NOW), ..Key::sample(id, NOW.minus(HOUR)) },
            request: None,
            digests: KnownDigests::default(),
        });
        store.insert_keys(new.into(), None).await.unwrap();
        let ended = find_ended(&store.0, NOW).await.unwrap();
        assert_eq!(ended.len(), 2);
        let prolong = |key: &Key| {
            let key = Key { expires: Some(NOW.plus(HOUR)), ..key.clone() };
            Ok::<_, ()>(KeyChange { key, successor: None })
        };
        store.change_key(NetworkId::SINGLE, ids[0], NOW, prolong).await.unwrap();
        record_all(&store.0, &ended, NOW).await.unwrap();
        let mut swept = vec![];
        for id in ids {
            let state = format!("SELECT swept FROM api_keys WHERE key_id = '{id}'");
            swept.push(store.number(state).await.unwrap());
        }
        assert_eq!(swept, [1, 3], "active, and expired");
        assert!(find_ended(&store.0, NOW).await.unwrap().is_empty());
    }
}
