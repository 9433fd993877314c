//! Sweep of states: records that time has ended keys, so that an index finds them by their state.
//!
//! Only filters of lists read the recorded state, and they look at the times as well.

use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use sqlx::Row;
use tokio::time::{Instant, sleep};

use super::clock_skew::database_time;
use super::dialect::{Dialect, MAX_ROWS};
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::KeyKind;
use crate::key::record::kind_code;

/// Most keys of one sweep.
pub const SWEEP_BATCH: usize = 1_000;
/// Time after the end of a key before which it isn't recorded, as clocks differ.
const SWEEP_MARGIN: Duration = Duration::from_secs(60);
/// Timeout of the search for keys whose recorded end is to come, which reads all expired ones.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Time of the process's last sweep.
#[derive(Default)]
pub(super) struct LastSweep(Mutex<Option<Timestamp>>);

impl LastSweep {
    /// Returns true if keys that ended by the last sweep may not have ended at `now`: the clock was
    /// set back, or the last sweep was another process's.
    fn may_be_later_than(&self, now: Timestamp) -> bool {
        self.0.lock().is_none_or(|last| now < last)
    }

    fn set(&self, now: Timestamp) {
        *self.0.lock() = Some(now);
    }
}

impl Store {
    /// Records the states of the keys that ended first, at most [`SWEEP_BATCH`], and returns their
    /// number.
    ///
    /// A key counts as ended when `now` and the database's clock, if it has one, both say so: one
    /// wrong clock must not end keys. SQLite has no clock of its own. So there, what was recorded
    /// while the clock was ahead is taken back at the first sweep of a process, and whenever the
    /// clock was set back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_states(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.run(async move |inner| {
            let clock = inner.query(format!("SELECT {} AS micros", inner.dialect.clock()));
            let row = inner.read(|connection| clock.fetch_one(connection).boxed()).await?;
            let database = database_time(row.try_get("micros")?);
            let now = database.map_or(now, |database| now.min(database)).minus(SWEEP_MARGIN);
            if inner.dialect == Dialect::Sqlite && inner.last_sweep.may_be_later_than(now) {
                take_back(&inner, now).await?;
            }
            inner.last_sweep.set(now);
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

/// Takes back what is recorded of keys whose end is to come at `now`, network by network.
async fn take_back(inner: &Inner, now: Timestamp) -> Result<(), StoreError> {
    let mut network = String::new();
    loop {
        let next = "SELECT network_id FROM api_keys WHERE network_id > $1 ORDER BY network_id LIMIT 1";
        let next = inner.query(next).bind(network);
        let Some(row) = inner.read(|connection| next.fetch_optional(connection).boxed()).await? else {
            return Ok(());
        };
        network = row.try_get("network_id")?;
        while take_back_some(inner, &network, now).await? {}
    }
}

/// Takes back what is recorded of some keys of a network. Returns true if there may be more.
async fn take_back_some(inner: &Inner, network: &str, now: Timestamp) -> Result<bool, StoreError> {
    let expired = format!(
        "SELECT key_id FROM api_keys{} WHERE network_id = $1 AND kind = $2 AND {} = 3 AND expires_at > $3 LIMIT $4",
        inner.dialect.index_hint("api_keys_by_state"),
        inner.dialect.state()
    );
    let expired = |kind| inner.query(expired.clone()).bind(network.to_owned()).bind(kind_code(kind));
    let superseded = format!(
        "SELECT key_id FROM api_keys{} WHERE network_id = $1 AND superseded_at > $2 AND swept = 2 LIMIT $3",
        inner.dialect.index_hint("api_keys_by_grace")
    );
    let superseded = inner.query(superseded).bind(network.to_owned());
    let mut has_more = false;
    for wrong in [expired(KeyKind::Issued), expired(KeyKind::Imported), superseded] {
        let wrong = wrong.bind(now.as_micros()).bind(SWEEP_BATCH as i64);
        let wrong = inner.read_within(SEARCH_TIMEOUT, |connection| wrong.fetch_all(connection).boxed(), Ok);
        let mut ids: Vec<String> = vec![];
        for row in &wrong.await? {
            ids.push(row.try_get("key_id")?);
        }
        for chunk in ids.chunks(MAX_ROWS) {
            let began = Instant::now();
            record_active(inner, network.to_owned(), chunk.to_vec(), now).await?;
            // Writers of other processes, which only ask again and again, find the lock.
            sleep(began.elapsed()).await;
        }
        has_more |= ids.len() == SWEEP_BATCH;
    }
    Ok(has_more)
}

/// Records keys of a network as active whose recorded end is to come at `now`. The next sweep
/// records another state if that is right.
async fn record_active(
    inner: &Inner,
    network: String,
    keys: Vec<String>,
    now: Timestamp,
) -> Result<(), StoreError> {
    inner
        .write((network, keys), move |inner, transaction, (network, keys)| {
            async move {
                let places: Vec<String> = (2..keys.len() + 2).map(|place| format!("${place}")).collect();
                let update = format!(
                    "UPDATE api_keys SET swept = 1 WHERE network_id = $1 AND key_id IN ({places}) \
                     AND ((swept = 3 AND expires_at > ${expires}) OR (swept = 2 AND superseded_at > ${last}))",
                    places = places.join(", "),
                    expires = keys.len() + 2,
                    last = keys.len() + 3
                );
                let update = inner.query(update).bind(network.clone());
                let update = keys.iter().fold(update, |update, key_id| update.bind(key_id.clone()));
                let update = update.bind(now.as_micros()).bind(now.as_micros());
                update.execute(&mut *transaction).await?;
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

    /// Returns the recorded states of keys.
    async fn states<const N: usize>(store: &Store, ids: [KeyId; N]) -> [i64; N] {
        let mut states = [0; N];
        for (state, id) in states.iter_mut().zip(ids) {
            let swept = format!("SELECT swept FROM api_keys WHERE key_id = '{id}'");
            *state = store.number(swept).await.unwrap();
        }
        states
    }

    /// While the process runs, or in the one before it. SQLite has no clock that would have known
    /// better.
    #[tokio::test]
    async fn what_a_clock_that_was_ahead_has_recorded_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let open = async || Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let mut store = open().await;
        let [expires, superseded, expired, endless] =
            [1, 2, 3, 4].map(|number| Key::sample(KeyId::Issued(Uuid::from_u128(number)), NOW.minus(HOUR)));
        let keys = [
            Key { expires: Some(NOW.plus(HOUR)), ..expires },
            Key { superseded: Some(NOW.plus(HOUR)), ..superseded },
            Key { expires: Some(NOW.minus(HOUR / 2)), ..expired },
            endless,
        ];
        let imported = Key::sample(KeyId::Imported([5; 32]), NOW.minus(HOUR));
        let other = NetworkId::new(Uuid::from_u128(6));
        let imported = Key { network: other, expires: Some(NOW.plus(HOUR)), ..imported };
        let ids = [keys[0].id, keys[1].id, keys[2].id, keys[3].id, imported.id];
        for keys in [keys.to_vec(), vec![imported]] {
            let new = |key| NewKey { key, request: None, digests: KnownDigests::default() };
            store.insert_keys(keys.into_iter().map(new).collect(), None).await.unwrap();
        }
        let ahead = NOW.plus(HOUR * 24 * 365 * 5);
        for restarts in [false, true] {
            store.sweep_states(ahead).await.unwrap();
            assert_eq!(states(&store, ids).await, [3, 2, 3, 1, 3], "by the wrong clock");
            if restarts {
                store.close().await;
                store = open().await;
            }
            store.sweep_states(NOW).await.unwrap();
            assert_eq!(states(&store, ids).await, [1, 1, 3, 1, 1], "restarts: {restarts}");
        }
    }
}
