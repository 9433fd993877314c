//! Rows of keys that are wanted at the same time are read by one statement.
//!
//! A lookup that comes while few are under way is read at once, by itself. What comes meanwhile waits for one of those to
//! end, and then all of it is read together. So a lone lookup waits for nobody, and a process that has just started and
//! meets a thousand keys at once needs a few statements on a few connections, not a thousand on all.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use parking_lot::{Mutex, MutexGuard};
use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::mutations::read_tag;
use super::row::{COLUMNS, read_key};
use super::server::authoritative;
use super::transaction::READ_PATIENCE;
use super::{Inner, Store, StoreError};
use crate::key::{Key, KeyId, NetworkId};

/// So many reads go on at once, as long as none of them is slow.
const READS: usize = 2;
/// So many connections are opened before anybody asks: for those, and for what goes on beside them.
const FIRST_CONNECTIONS: usize = READS + 2;
/// A read that takes longer is slow: others begin beside it, as its connection may lead nowhere.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long a read waits for a poll that settles which server is the primary: within what a Check may take.
const SETTLING: Duration = Duration::from_millis(100);
/// How many keys a statement may ask for. Few different statements, so that each connection has them prepared; what is
/// left over of one asks for its last key again. The largest fits into one TLS record (see [`super::dialect::CHUNK`]).
const SIZES: [usize; 3] = [1, 8, 32];
const MOST: usize = SIZES[SIZES.len() - 1];

/// A row as of some number of the log, both read at one moment.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The log's newest number at that moment.
    pub counter: u64,
    /// The tag of that entry of the log.
    pub tag: u128,
    /// The key, if there is one.
    pub key: Option<Arc<Key>>,
}

/// What came of a lookup. Those that were read together fail together.
type Answer = Result<Lookup, Arc<StoreError>>;

/// A key whose row is wanted, and by whom.
struct Wanted {
    network: NetworkId,
    id: KeyId,
    answer: oneshot::Sender<Answer>,
}

/// The lookups of one database.
#[derive(Default)]
pub(super) struct Lookups(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Wanted>,
    /// Reads under way.
    reads: usize,
}

impl Store {
    /// Opens the connections that will be used first, and prepares a lookup's statement there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prepare_lookups(&self) -> Result<(), StoreError> {
        self.run(async |inner| {
            inner.readers.fill(FIRST_CONNECTIONS, READ_PATIENCE).await?;
            let nobody = [(NetworkId::SINGLE, KeyId::Issued(Uuid::nil()))];
            let reads = (0..FIRST_CONNECTIONS).map(|_| read(&inner, &nobody));
            try_join_all(reads).await.map(drop)
        })
        .await
    }

    /// Looks a key up together with the log's newest number, in one statement that begins after this call.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_key(&self, network: NetworkId, id: KeyId) -> Result<Lookup, Arc<StoreError>> {
        let (sender, answer) = oneshot::channel();
        if let Some(reading) = Lookups::add(&self.0, Wanted { network, id, answer: sender }) {
            spawn(reading);
        }
        let answer = answer.await;
        answer.unwrap_or_else(|_| Err(Arc::new(StoreError::Interrupted)))
    }
}

impl Lookups {
    /// Has a lookup wait; the read that is to be begun for it, unless enough are under way.
    fn add(inner: &Arc<Inner>, wanted: Wanted) -> Option<Reading> {
        let mut queue = inner.lookups.lock();
        queue.waiting.push_back(wanted);
        (queue.reads < READS).then(|| Reading::of(inner, &mut queue))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock()
    }
}

impl Queue {
    /// The lookups that the next read is for: those that came first.
    fn next(&mut self) -> Option<Vec<Wanted>> {
        let most = self.waiting.len().min(MOST);
        (most > 0).then(|| self.waiting.drain(..most).collect())
    }
}

/// Reads what waits, until nothing does.
struct Reading {
    inner: Arc<Inner>,
    /// Whether it is among those under way.
    counts: bool,
}

impl Reading {
    fn of(inner: &Arc<Inner>, queue: &mut Queue) -> Self {
        queue.reads += 1;
        Self { inner: Arc::clone(inner), counts: true }
    }

    async fn run(mut self) {
        while let Some(batch) = self.next() {
            let ids: Vec<_> = batch.iter().map(|wanted| (wanted.network, wanted.id)).collect();
            self.inner.key_reads.fetch_add(ids.len() as u64, Ordering::Relaxed);
            let inner = Arc::clone(&self.inner);
            let mut reading = pin!(read(&inner, &ids));
            let read = match timeout(PATIENCE, &mut reading).await {
                Ok(read) => read,
                Err(_) => {
                    self.step_aside();
                    reading.await
                }
            };
            let read = read.map_err(Arc::new);
            for wanted in batch {
                let answer = match &read {
                    Ok(rows) => rows.lookup(wanted.network, wanted.id),
                    Err(error) => Err(Arc::clone(error)),
                };
                // Whoever has stopped waiting misses nothing.
                let _ = wanted.answer.send(answer);
            }
            if !self.counts {
                // Others go on in its place.
                break;
            }
        }
    }

    /// Lets another begin in its place: at once if anything waits, else with the next lookup.
    fn step_aside(&mut self) {
        let mut queue = self.inner.lookups.lock();
        queue.reads -= 1;
        self.counts = false;
        if !queue.waiting.is_empty() {
            let next = Self::of(&self.inner, &mut queue);
            spawn(next);
        }
    }

    /// What is to be read next. When that is nothing, this is no longer under way: found out and noted under one lock, so
    /// that no lookup counts on it in vain.
    fn next(&mut self) -> Option<Vec<Wanted>> {
        let mut queue = self.inner.lookups.lock();
        let batch = queue.next();
        if batch.is_none() {
            queue.reads -= 1;
            self.counts = false;
        }
        batch
    }
}

/// Not in [`Reading::run`] itself, which would contain itself then.
fn spawn(reading: Reading) {
    tokio::spawn(reading.run());
}

impl Drop for Reading {
    /// Also when it panics.
    fn drop(&mut self) {
        if self.counts {
            self.inner.lookups.lock().reads -= 1;
        }
    }
}

/// What one statement found.
struct Rows {
    counter: u64,
    tag: u128,
    /// By the columns `network_id` and `key_id`.
    keys: HashMap<(String, String), Result<Arc<Key>, Arc<StoreError>>>,
}

impl Rows {
    /// What it found of one of the keys that it asked for.
    fn lookup(&self, network: NetworkId, id: KeyId) -> Answer {
        let key = self.keys.get(&(network.to_string(), id.to_string())).cloned().transpose()?;
        Ok(Lookup { counter: self.counter, tag: self.tag, key })
    }
}

/// As [`read_once`], and once more when the server that answered isn't the one that counts, or its connection was lost:
/// the others like it are closed by then, and the next one is new.
async fn read(inner: &Inner, ids: &[(NetworkId, KeyId)]) -> Result<Rows, StoreError> {
    match read_once(inner, ids).await {
        Err(StoreError::NotAuthoritative(_)) => {
            inner.poller.settle(SETTLING).await;
            read_once(inner, ids).await
        }
        Err(StoreError::Sql(error)) if inner.dialect.has_lost_connection(&error) => {
            inner.suspicion.raise("one of them was closed by the server, or on the way to it");
            read_once(inner, ids).await
        }
        result => result,
    }
}

/// Reads the rows of at most [`MOST`] keys and the log's newest number. One statement, so that these are of one moment: a
/// number read after the rows would vouch for more than they know.
async fn read_once(inner: &Inner, ids: &[(NetworkId, KeyId)]) -> Result<Rows, StoreError> {
    let size = SIZES.into_iter().find(|size| ids.len() <= *size).unwrap_or(MOST);
    // Not `key_id IN (…)`: PostgreSQL without statistics of a new table would compare all of a network's keys with those.
    let one = |n| {
        format!(
            "SELECT {COLUMNS} FROM api_keys WHERE network_id = ${} AND key_id = ${}",
            2 * n + 1,
            2 * n + 2
        )
    };
    let find = format!(
        "SELECT counter.n AS counter_n, (SELECT tag FROM mutation_log WHERE n = counter.n) AS counter_tag, \
         {id} AS server_id, {state} AS server_state, found.* \
         FROM mutation_counter counter LEFT JOIN ({keys}) AS found ON 1 = 1 WHERE counter.id = 1",
        id = inner.dialect.server_id(),
        state = inner.dialect.server_state(),
        keys = (0..size).map(one).collect::<Vec<_>>().join(" UNION ALL ")
    );
    let padded = ids.iter().chain(ids.last().into_iter().cycle()).take(size);
    let find = padded
        .fold(inner.query(find), |find, (network, id)| find.bind(network.to_string()).bind(id.to_string()));
    let check = |rows: Vec<AnyRow>| {
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        inner.poller.check(&authoritative(first, "server_id", "server_state")?)?;
        Ok(rows)
    };
    let rows = inner.read_and(|connection| find.fetch_all(connection).boxed(), check).await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let counter = first.try_get::<i64, _>("counter_n")?;
    let mut keys = HashMap::new();
    for row in &rows {
        // No row of a key: none of them is there.
        if let Some(id) = row.try_get::<Option<String>, _>("key_id")? {
            // One that can't be read is nobody else's failure.
            let network = row.try_get::<String, _>("network_id")?;
            keys.insert((network, id), read_key(row).map(Arc::new).map_err(Arc::new));
        }
    }
    Ok(Rows {
        counter: u64::try_from(counter).map_err(|_| StoreError::Corrupt("counter_n"))?,
        tag: read_tag(&first.try_get::<String, _>("counter_tag")?)?,
        keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::key::{ActorId, AddressList, KeyName, Scopes, Visibility};
    use crate::rng::Rng;
    use crate::store::NewKey;
    use futures_util::future::join_all;

    fn networks() -> [NetworkId; 2] {
        [NetworkId::SINGLE, NetworkId::parse("6ba7b810-9dad-41d1-80b4-00c04fd430c8").unwrap()]
    }

    fn id(number: u128) -> KeyId {
        KeyId::Issued(Uuid::from_u128(number))
    }

    fn key(network: NetworkId, number: u128) -> Key {
        let now = Timestamp::from_secs(1_790_000_000);
        Key {
            network,
            id: id(number),
            name: KeyName::parse(&format!("{network} {number}")).unwrap(),
            actor: ActorId::parse("user:42").unwrap(),
            scopes: Scopes::default(),
            metadata: None,
            visibility: Visibility::Secret,
            addresses: AddressList::default(),
            rate_policy: None,
            created: now,
            updated: now,
            expires: None,
            superseded: None,
            revocation: None,
            last_used: None,
            mutation: 0,
        }
    }

    /// A store with the keys of even numbers below `count`, in both networks.
    async fn store(count: u128) -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        for network in networks() {
            let keys =
                (0..count).step_by(2).map(|number| NewKey { key: key(network, number), request: None });
            store.insert_keys(keys.collect(), None).await.unwrap();
        }
        (store, directory)
    }

    /// The name of the key that was found.
    fn found(answer: Answer) -> Option<String> {
        answer.unwrap().key.map(|key| key.name.as_str().to_owned())
    }

    #[tokio::test]
    async fn each_lookup_gets_its_own_key_whatever_is_read_with_it() {
        let (store, _directory) = store(200).await;
        for at_once in [1, 2, 8, 9, 64, 65, 200] {
            let wanted: Vec<_> =
                (0..at_once).flat_map(|number| networks().map(|network| (network, number))).collect();
            let (before, lookups) = (store.key_reads(), wanted.iter().chain(&wanted[..1]));
            let lookups = lookups.map(|(network, number)| store.find_key(*network, id(*number)));
            let answers: Vec<_> = join_all(lookups).await.into_iter().map(found).collect();
            assert_eq!(store.key_reads() - before, answers.len() as u64);
            assert_eq!(answers[0], answers[answers.len() - 1]);
            for ((network, number), answer) in wanted.into_iter().zip(answers) {
                let expected = (number % 2 == 0).then(|| format!("{network} {number}"));
                assert_eq!(answer, expected, "{number} of {network}, {at_once} at once");
            }
        }
    }

    #[tokio::test]
    async fn the_first_lookups_find_connections_open() {
        let (store, _directory) = store(0).await;
        store.prepare_lookups().await.unwrap();
        let (open, ..) = store.0.readers.numbers();
        assert_eq!(open as usize, FIRST_CONNECTIONS);
        assert_eq!(store.key_reads(), 0, "nobody has asked for a key");
    }

    #[tokio::test]
    async fn what_waits_is_read_together() {
        let (store, _directory) = store(0).await;
        let add = |number| {
            let wanted = Wanted { network: networks()[0], id: id(number), answer: oneshot::channel().0 };
            Lookups::add(&store.0, wanted)
        };
        let mut readings: Vec<_> = (0..READS as u128).map(|number| add(number).unwrap()).collect();
        for number in READS as u128..100 {
            assert!(add(number).is_none(), "enough are under way");
        }
        let mut read = vec![];
        while let Some(batch) = readings[0].next() {
            assert!(batch.len() == MOST || read.len() + batch.len() == 100);
            read.extend(batch.into_iter().map(|wanted| wanted.id));
        }
        assert_eq!(read, (0..100).map(id).collect::<Vec<_>>());
        drop(readings);
        assert_eq!(store.0.lookups.lock().reads, 0);
    }

    #[tokio::test]
    async fn reads_that_do_not_end_hold_nobody_up() {
        let (store, _directory) = store(10).await;
        let (.., most) = store.0.readers.numbers();
        let held = try_join_all((0..most).map(|_| store.0.readers.lend(READ_PATIENCE))).await.unwrap();
        let begun: Vec<_> = (1..READS).map(|_| Reading::of(&store.0, &mut store.0.lookups.lock())).collect();
        let mut lookups = vec![];
        // The second waits until the first has stepped aside.
        for number in 0..2 {
            let lookup = {
                let store = store.clone();
                async move { found(store.find_key(networks()[0], id(number)).await) }
            };
            lookups.push(tokio::spawn(lookup));
            let has_begun = async {
                while store.key_reads() < lookups.len() as u64 {
                    tokio::task::yield_now().await;
                }
            };
            timeout(READ_PATIENCE, has_begun).await.expect("it begins, whatever becomes of the others");
        }
        drop(begun);
        for lent in held {
            store.0.readers.take_back(lent, Ok(Ok(()))).unwrap();
        }
        for (number, lookup) in lookups.into_iter().enumerate() {
            assert_eq!(lookup.await.unwrap().is_some(), number % 2 == 0);
        }
        assert_eq!(store.0.lookups.lock().reads, 0);
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_and_a_database_that_is_gone() {
        let (store, _directory) = store(10).await;
        let spoil =
            store.0.query("UPDATE api_keys SET visibility = 9 WHERE key_id = $1").bind(id(4).to_string());
        spoil.execute(store.0.writers.raw()).await.unwrap();
        let lookups = [2, 4, 6].map(|number| store.find_key(networks()[0], id(number)));
        let [two, four, six] = <[_; 3]>::try_from(join_all(lookups).await).unwrap();
        assert!(found(two).is_some() && found(six).is_some());
        assert!(matches!(*four.unwrap_err(), StoreError::Corrupt("visibility")));
        store.close().await;
        let lookups = (0..10).map(|number| store.find_key(networks()[0], id(number)));
        assert!(join_all(lookups).await.iter().all(Result::is_err));
    }
}
