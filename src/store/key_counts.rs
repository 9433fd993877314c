//! Number of keys of each network, kept for the quota, and the lock of a network's keys.
//!
//! Every transaction that inserts, changes or deletes keys changes the network's row in
//! `key_counts`, and does so before it takes a number of the log. So what a transaction reads about
//! the keys of its network stays true until its commit, and networks wait for each other only while
//! a number is taken.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::{AnyConnection, Row};

use super::clock_skew::MAX_CLOCK_SKEW;
use super::server::authoritative;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, NetworkId};

/// Most ended grace periods that one statement subtracts from a count.
const SETTLE_BATCH: usize = 10_000;
/// Timeout of a recount, which reads all keys of a network and locks none.
const RECOUNT_TIMEOUT: Duration = Duration::from_secs(120);

/// Count of a network whose keys are locked.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyCount {
    network: NetworkId,
    /// Number of keys that are neither revoked nor superseded up to `settled`.
    live: i64,
    /// Grace periods that ended up to this time are subtracted.
    settled: Timestamp,
}

impl KeyCount {
    /// Returns true if a key is part of the count.
    pub(super) fn includes(&self, key: &Key) -> bool {
        key.revocation.is_none() && key.superseded.is_none_or(|at| at > self.settled)
    }

    /// Returns how many further keys the network may have.
    fn room(&self, quota: u64) -> u64 {
        quota.saturating_sub(u64::try_from(self.live).unwrap_or(0))
    }
}

impl Store {
    /// Counts the keys of a network and corrects the kept count, unless that was done after `due`.
    /// Returns the correction. Only programs that don't keep the count make one necessary: a
    /// release before it, or an operator's SQL.
    ///
    /// Row and keys are read by one statement, so the difference is exact at that moment; later
    /// changes keep the count themselves.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recount_keys(
        &self,
        network: NetworkId,
        now: Timestamp,
        due: Timestamp,
    ) -> Result<i64, StoreError> {
        self.run(move |inner| recount(inner, network, now, due)).await
    }
}

/// Counts the keys of a network and corrects its stored number, unless that was done since `due`.
/// Returns the correction.
async fn recount(
    inner: Arc<Inner>,
    network: NetworkId,
    now: Timestamp,
    due: Timestamp,
) -> Result<i64, StoreError> {
    let latest = now.plus(MAX_CLOCK_SKEW);
    let kept =
        inner.query("SELECT recounted_at FROM key_counts WHERE network_id = $1").bind(network.to_string());
    match inner.read(|connection| kept.fetch_optional(connection).boxed()).await? {
        // A time to come is that of a wrong clock, and says nothing.
        Some(row) if (due.as_micros() + 1..=latest.as_micros()).contains(&row.try_get::<i64, _>(0)?) => {
            return Ok(0);
        }
        Some(_) => {}
        None => insert_missing(&inner, network).await?,
    }
    let count = "SELECT live, recounts, (SELECT count(*) FROM api_keys WHERE api_keys.network_id = key_counts.network_id \
                 AND revocation_reason IS NULL AND (superseded_at IS NULL OR superseded_at > settled_at)) AS counted \
                 FROM key_counts WHERE network_id = $1";
    let count = inner.query(count).bind(network.to_string());
    let count = inner.read_within(RECOUNT_TIMEOUT, |connection| count.fetch_one(connection).boxed(), Ok);
    let row = count.await?;
    let (live, recounts) = (row.try_get::<i64, _>("live")?, row.try_get::<i64, _>("recounts")?);
    let correction = row.try_get::<i64, _>("counted")? - live;
    inner
        .write((), move |inner, transaction, ()| {
            async move {
                // Another instance may have made the same correction meanwhile.
                let correct = "UPDATE key_counts SET live = live + $1, recounts = recounts + 1, recounted_at = $2 \
                               WHERE network_id = $3 AND recounts = $4";
                let corrected = inner
                    .query(correct)
                    .bind(correction)
                    .bind(now.as_micros())
                    .bind(network.to_string())
                    .bind(recounts)
                    .execute(&mut *transaction)
                    .await?;
                Ok(End::Commit(if corrected.rows_affected() == 0 { 0 } else { correction }))
            }
            .boxed()
        })
        .await
}

/// Inserts the row of a network, unless another transaction does.
async fn insert_missing(inner: &Inner, network: NetworkId) -> Result<(), StoreError> {
    inner
        .write((), move |inner, transaction, ()| {
            async move {
                lock_network(inner, transaction, network).await?;
                Ok(End::Commit(()))
            }
            .boxed()
        })
        .await
}

/// Locks the keys of a network until the transaction ends. To be called before a number of the log
/// is taken. Fails if the server isn't the primary.
pub(super) async fn lock_network(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
) -> Result<KeyCount, StoreError> {
    let mut was_seen = false;
    loop {
        let lock = inner.query("UPDATE key_counts SET live = live WHERE network_id = $1");
        let locked = lock.bind(network.to_string()).execute(&mut *transaction).await?.rows_affected();
        let Some(count) = read_count(inner, transaction, network).await? else {
            insert_count(inner, transaction, network, 0).await?;
            return Ok(KeyCount { network, live: 0, settled: Timestamp::from_micros(0) });
        };
        // A row that another transaction inserted between the two statements isn't locked yet.
        if locked > 0 || was_seen {
            return Ok(count);
        }
        was_seen = true;
    }
}

async fn read_count(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
) -> Result<Option<KeyCount>, StoreError> {
    let (id, state) = (inner.dialect.server_id(), inner.dialect.server_state());
    let read = format!(
        "SELECT live, settled_at, {id} AS server_id, {state} AS server_state FROM key_counts WHERE network_id = $1"
    );
    let row = inner.query(read).bind(network.to_string()).fetch_optional(&mut *transaction).await?;
    let Some(row) = row else {
        return Ok(None);
    };
    inner.poller.check_server(&authoritative(&row, "server_id", "server_state")?)?;
    let settled = Timestamp::from_micros(row.try_get("settled_at")?);
    Ok(Some(KeyCount { network, live: row.try_get("live")?, settled }))
}

/// Inserts the row of a network that never had a key. If another transaction does the same, one of
/// them is retried.
async fn insert_count(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    live: i64,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO key_counts (network_id, live, settled_at, recounts, recounted_at) VALUES ($1, $2, 0, 0, 0)";
    inner.query(insert).bind(network.to_string()).bind(live).execute(&mut *transaction).await?;
    Ok(())
}

/// Adds to the count of a network, which locks its keys.
pub(super) async fn add_to_count(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    difference: i64,
) -> Result<(), StoreError> {
    if difference == 0 {
        return Ok(());
    }
    let add = inner.query("UPDATE key_counts SET live = live + $1 WHERE network_id = $2");
    let added = add.bind(difference).bind(network.to_string()).execute(&mut *transaction).await?;
    match added.rows_affected() {
        0 => insert_count(inner, transaction, network, difference).await,
        _ => Ok(()),
    }
}

/// Returns how many further keys a locked network may have; at least `wanted` if there is room for
/// so many. Grace periods that have ended are looked for only if there is none.
pub(super) async fn room(
    inner: &Inner,
    transaction: &mut AnyConnection,
    count: &mut KeyCount,
    quota: u64,
    wanted: u64,
    now: Timestamp,
) -> Result<u64, StoreError> {
    while count.room(quota) < wanted && count.settled < now {
        settle(inner, transaction, count, now).await?;
    }
    Ok(count.room(quota))
}

/// Subtracts keys whose grace period has ended, about [`SETTLE_BATCH`] of them.
async fn settle(
    inner: &Inner,
    transaction: &mut AnyConnection,
    count: &mut KeyCount,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (network, settled) = (count.network.to_string(), count.settled.as_micros());
    let end = format!(
        "SELECT superseded_at FROM api_keys WHERE network_id = $1 AND superseded_at > $2 AND superseded_at <= $3 \
         ORDER BY superseded_at LIMIT 1 OFFSET {}",
        SETTLE_BATCH - 1
    );
    let end = inner.query(end).bind(network.clone()).bind(settled).bind(now.as_micros());
    let end = match end.fetch_optional(&mut *transaction).await? {
        Some(row) => row.try_get::<i64, _>(0)?,
        None => now.as_micros(),
    };
    let ended = "SELECT count(*) FROM api_keys WHERE network_id = $1 AND superseded_at > $2 AND superseded_at <= $3 \
                 AND revocation_reason IS NULL";
    let ended = inner.query(ended).bind(network.clone()).bind(settled).bind(end);
    let ended = ended.fetch_one(&mut *transaction).await?.try_get::<i64, _>(0)?;
    let subtract = "UPDATE key_counts SET live = live - $1, settled_at = $2 WHERE network_id = $3";
    inner.query(subtract).bind(ended).bind(end).bind(network).execute(&mut *transaction).await?;
    count.live -= ended;
    count.settled = Timestamp::from_micros(end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyId, Revocation, RevocationReason};
    use crate::rng::Rng;
    use crate::store::{ChangeOutcome, InsertOutcome, KeyChange, NewKey, Successor};
    use uuid::Uuid;

    const NETWORK: NetworkId = NetworkId::SINGLE;
    /// Never reached.
    const NO_QUOTA: u64 = 1_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_secs(second)
    }

    struct World {
        store: Store,
        rng: Rng,
        keys: Vec<Key>,
        now: i64,
        _directory: tempfile::TempDir,
    }

    impl World {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let dsn = format!("sqlite://{}/talos.db", directory.path().display());
            let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
            Self { store, rng: Rng::seeded(7), keys: vec![], now: 1_000, _directory: directory }
        }

        fn below(&self, end: usize) -> usize {
            usize::from(u16::from_be_bytes(self.rng.bytes())) % end.max(1)
        }

        fn live(&self) -> u64 {
            self.keys.iter().filter(|key| key.status(at(self.now)) != crate::key::Status::Revoked).count()
                as u64
        }

        async fn insert(&mut self, quota: u64) -> bool {
            let id = match self.below(3) {
                0 => KeyId::Imported(self.rng.bytes()),
                _ => KeyId::Issued(self.rng.uuid()),
            };
            let key = Key::sample(id, at(self.now));
            let new = NewKey { key: key.clone(), request: None, digests: Default::default() };
            let inserted = self.store.insert_keys(vec![new], Some(quota)).await.unwrap().each;
            let is_new = matches!(inserted[0], InsertOutcome::Created(_));
            self.keys.extend(is_new.then_some(key));
            is_new
        }

        /// Revokes or rotates a key, in whatever state it is.
        async fn change(&mut self, grace: Option<i64>, quota: u64) {
            let index = self.below(self.keys.len());
            let Some(old) = self.keys.get(index).cloned() else { return };
            let successor = grace.map(|_| Key::sample(KeyId::Issued(self.rng.uuid()), at(self.now)));
            let mut changed = old.clone();
            match grace {
                Some(grace @ 1..) => changed.superseded = Some(at(self.now + grace)),
                _ => {
                    let reason = RevocationReason::Superseded;
                    changed.revocation = Some(Box::new(Revocation { reason, description: None }));
                }
            }
            let quota = Some(quota).filter(|_| grace.is_some_and(|grace| grace > 0));
            let now = at(self.now);
            let change = move |before: &Key| {
                if before.revocation.is_some() || (successor.is_some() && before.superseded.is_some()) {
                    return Err(());
                }
                let successor = successor.clone().map(|key| Successor { key, quota, request: None });
                Ok(KeyChange { key: changed.clone(), successor })
            };
            let outcome = self.store.change_key(NETWORK, old.id, now, change).await.unwrap();
            if let ChangeOutcome::Done { rows, .. } = outcome {
                self.keys[index] = rows.key;
                self.keys.extend(rows.successor.map(|successor| successor.key));
            }
        }

        async fn delete(&mut self) {
            let index = self.below(self.keys.len());
            if index < self.keys.len() {
                let key = self.keys.swap_remove(index);
                self.store.delete_keys(NETWORK, vec![key.id], at(self.now), None).await.unwrap();
            }
        }

        async fn drift(&self) -> i64 {
            self.store.recount_keys(NETWORK, at(self.now), at(self.now)).await.unwrap()
        }
    }

    #[tokio::test]
    async fn the_count_is_that_of_all_rows_whatever_happens() {
        let mut world = World::new().await;
        for step in 0..600 {
            match world.below(8) {
                0..=2 => assert!(world.insert(NO_QUOTA).await),
                3 => world.change(None, NO_QUOTA).await,
                4 => world.change(Some(0), NO_QUOTA).await,
                5 | 6 => world.change(Some(1 + step % 5), NO_QUOTA).await,
                _ => world.delete().await,
            }
            world.now += i64::from(step % 3 == 0);
            if step % 10 == 0 {
                assert_eq!(world.drift().await, 0, "step {step}");
                // A quota of what there is has no room, and one more has.
                let live = world.live();
                assert!(!world.insert(live).await, "step {step}: {live} live keys");
                assert!(world.insert(live + 1).await, "step {step}: {live} live keys");
            }
        }
        assert!(world.keys.len() > 100);
    }

    #[tokio::test]
    async fn a_batch_gets_the_room_that_there_is() {
        let world = World::new().await;
        let new = |number: u8| {
            let key = Key::sample(KeyId::Imported([number; 32]), at(1_000));
            NewKey { key, request: None, digests: Default::default() }
        };
        let inserted = world.store.insert_keys((0..5).map(new).collect(), Some(3)).await.unwrap().each;
        let created = inserted.iter().filter(|one| matches!(one, InsertOutcome::Created(_))).count();
        assert_eq!(created, 3);
        assert!(matches!(inserted[4], InsertOutcome::QuotaExceeded));
        assert_eq!(world.drift().await, 0);
    }

    #[tokio::test]
    async fn a_wrong_count_is_corrected_once_it_is_due() {
        let mut world = World::new().await;
        for _ in 0..5 {
            world.insert(NO_QUOTA).await;
        }
        let falsify = async |inner: Arc<Inner>| {
            inner
                .write((), |inner, transaction, ()| {
                    async move {
                        add_to_count(inner, transaction, NETWORK, -3).await?;
                        Ok(End::Commit(()))
                    }
                    .boxed()
                })
                .await
        };
        world.store.run(falsify).await.unwrap();
        assert_eq!(world.drift().await, 3);
        assert_eq!(world.drift().await, 0);
        world.store.run(falsify).await.unwrap();
        let early = world.store.recount_keys(NETWORK, at(world.now), at(world.now - 1)).await.unwrap();
        assert_eq!(early, 0, "it was counted a second ago");
        assert_eq!(world.drift().await, 3);
        let other = NetworkId::new(Uuid::from_u128(1));
        assert_eq!(world.store.recount_keys(other, at(2_000), at(2_000)).await.unwrap(), 0, "no keys");
    }
}
