//! Batched lookups: rows of keys that are wanted at the same time are read by one statement.
//!
//! A lookup that comes while few reads are under way is read at once. Further lookups wait until
//! one of those ends, and then all of them are read together. So a single lookup never waits, and a
//! process that has just started and gets a thousand keys at once needs a few statements on a few
//! connections, not a thousand on all.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::digests::HashAlgorithms;
use super::mutations::read_tag;
use super::row::{read_key, selected};
use super::server::authoritative;
use super::transaction::READ_TIMEOUT;
use super::wanted::{RowLookup, ids};
use super::{Inner, Store, StoreError};
use crate::credential::imported_hash::DigestIds;
use crate::key::{Key, KeyId, NetworkId};

/// Reads under way at once, not counting slow ones.
const MAX_CONCURRENT_READS: usize = 2;
/// Connections that are opened at the start: for those reads, and for other queries beside them.
const INITIAL_CONNECTIONS: usize = MAX_CONCURRENT_READS + 2;
/// Time after which a read is slow: others begin beside it, as its connection may be dead.
const SLOW_READ: Duration = Duration::from_millis(5);
/// Time that a read waits for a poll that finds the primary: less than the timeout of a Check.
const PRIMARY_WAIT: Duration = Duration::from_millis(100);
/// Numbers of ids per statement. They are few, so that each connection has the statements
/// prepared; a smaller batch repeats its last id. The largest fits into one TLS record (see
/// [`super::dialect::MAX_ROWS`]). Three are needed for one credential whose hash may have been
/// imported.
const BATCH_SIZES: [usize; 5] = [1, 3, 8, 32, 3 * MAX_BATCH];
/// Most lookups of one statement.
const MAX_BATCH: usize = 32;

/// Row of a key, and the head of the log at the same moment.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Newest number of the log.
    pub counter: u64,
    /// Tag of that log entry.
    pub tag: u128,
    /// The key, if it exists.
    pub key: Option<Arc<Key>>,
}

/// Result of a lookup. Lookups of one batch share their error.
type LookupResult = Result<Lookup, Arc<StoreError>>;

/// Lookup that waits for a read.
struct PendingLookup {
    wanted: RowLookup,
    result: oneshot::Sender<LookupResult>,
}

/// Lookups of one database.
#[derive(Default)]
pub(super) struct Lookups(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<PendingLookup>,
    /// Number of reads under way, not counting slow ones.
    reads: usize,
}

impl Store {
    /// Opens the connections that are used first, and prepares the statement of a lookup there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prepare_lookups(&self) -> Result<(), StoreError> {
        self.run(async |inner| {
            inner.readers.warm_up(INITIAL_CONNECTIONS, READ_TIMEOUT).await?;
            let id = KeyId::Issued(Uuid::nil());
            let no_key = [RowLookup { network: NetworkId::SINGLE, id, digests: None }];
            let reads = (0..INITIAL_CONNECTIONS).map(|_| read(&inner, &no_key));
            try_join_all(reads).await.map(drop)
        })
        .await
    }

    /// Looks up a key together with the log's head, in one statement that begins after this call.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_key(&self, network: NetworkId, id: KeyId) -> Result<Lookup, Arc<StoreError>> {
        self.find_presented(network, id, None).await
    }

    /// Looks up a key like [`Store::find_key`], also by the ids that it has while only a hash of it
    /// is known; the key's id says which of them it has. Where no hashes were imported, the
    /// statement is that of `find_key`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_presented(
        &self,
        network: NetworkId,
        id: KeyId,
        digests: Option<DigestIds>,
    ) -> Result<Lookup, Arc<StoreError>> {
        let (sender, result) = oneshot::channel();
        let wanted = RowLookup { network, id, digests };
        if let Some(reader) = Lookups::add(&self.0, PendingLookup { wanted, result: sender }) {
            spawn(reader);
        }
        let result = result.await;
        result.unwrap_or_else(|_| Err(Arc::new(StoreError::Interrupted)))
    }
}

impl Lookups {
    /// Queues a lookup. Returns the reader to start for it, unless enough reads are under way.
    fn add(inner: &Arc<Inner>, lookup: PendingLookup) -> Option<BatchReader> {
        let mut queue = inner.lookups.0.lock();
        queue.waiting.push_back(lookup);
        (queue.reads < MAX_CONCURRENT_READS).then(|| BatchReader::new(inner, &mut queue))
    }
}

impl Queue {
    /// Takes the next batch, oldest first.
    fn next_batch(&mut self) -> Option<Vec<PendingLookup>> {
        let size = self.waiting.len().min(MAX_BATCH);
        (size > 0).then(|| self.waiting.drain(..size).collect())
    }
}

/// Reads batches until no lookup waits.
struct BatchReader {
    inner: Arc<Inner>,
    /// True while it is one of the reads under way.
    has_slot: bool,
}

impl BatchReader {
    fn new(inner: &Arc<Inner>, queue: &mut Queue) -> Self {
        queue.reads += 1;
        Self { inner: Arc::clone(inner), has_slot: true }
    }

    /// Reads batch after batch until nothing waits. A read that is slow gives its slot to another
    /// reader.
    async fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            let ids: Vec<_> = batch.iter().map(|lookup| lookup.wanted).collect();
            self.inner.key_reads.fetch_add(ids.len() as u64, Ordering::Relaxed);
            let inner = Arc::clone(&self.inner);
            let mut read = pin!(read(&inner, &ids));
            let rows = match timeout(SLOW_READ, &mut read).await {
                Ok(rows) => rows,
                Err(_) => {
                    self.yield_slot();
                    read.await
                }
            };
            let rows = rows.map_err(Arc::new);
            for lookup in batch {
                let result = match &rows {
                    Ok(rows) => rows.lookup(&lookup.wanted),
                    Err(error) => Err(Arc::clone(error)),
                };
                // Fails if the caller has stopped waiting.
                let _ = lookup.result.send(result);
            }
            if !self.has_slot {
                // Another reader has the slot.
                break;
            }
        }
    }

    /// Yields the slot to another reader: at once if a lookup waits, else with the next lookup.
    fn yield_slot(&mut self) {
        let mut queue = self.inner.lookups.0.lock();
        queue.reads -= 1;
        self.has_slot = false;
        if !queue.waiting.is_empty() {
            let next = Self::new(&self.inner, &mut queue);
            // Unlocked before: a runtime that shuts down drops the reader here, which locks.
            drop(queue);
            spawn(next);
        }
    }

    /// Takes the next batch. Without one, gives up the slot under the same lock, so that no lookup
    /// waits for this reader in vain.
    fn next_batch(&mut self) -> Option<Vec<PendingLookup>> {
        let mut queue = self.inner.lookups.0.lock();
        let batch = queue.next_batch();
        if batch.is_none() {
            queue.reads -= 1;
            self.has_slot = false;
        }
        batch
    }
}

/// Starts a reader; in a function of its own, as the future of [`BatchReader::run`] would contain
/// itself otherwise.
fn spawn(reader: BatchReader) {
    tokio::spawn(reader.run());
}

impl Drop for BatchReader {
    /// Gives up the slot, also after a panic.
    fn drop(&mut self) {
        if self.has_slot {
            self.inner.lookups.0.lock().reads -= 1;
        }
    }
}

/// Result of one statement.
struct Rows {
    counter: u64,
    tag: u128,
    /// Algorithms of which hashes were imported.
    algorithms: HashAlgorithms,
    /// Keys by the columns `network_id` and `key_id`.
    keys: HashMap<(String, String), Result<Arc<Key>, Arc<StoreError>>>,
}

impl Rows {
    /// Returns the result for one of the requested keys.
    fn lookup(&self, wanted: &RowLookup) -> LookupResult {
        let ids = [wanted.id].into_iter().chain(wanted.digests.into_iter().flat_map(DigestIds::all));
        let find = |id: KeyId| self.keys.get(&(wanted.network.to_string(), id.to_string()));
        let key = ids.into_iter().find_map(find).cloned().transpose()?;
        Ok(Lookup { counter: self.counter, tag: self.tag, key })
    }
}

/// Reads keys. Looks for hashes if the last lookup saw that there are any; and if there turn out to
/// be others, once more.
async fn read(inner: &Inner, wanted: &[RowLookup]) -> Result<Rows, StoreError> {
    let hint = inner.hash_hint.get();
    let rows = read_ids(inner, &ids(wanted, hint)).await?;
    inner.hash_hint.set(rows.algorithms);
    let may_lack = |wanted: &&RowLookup| {
        wanted.digests.is_some() && rows.lookup(wanted).is_ok_and(|found| found.key.is_none())
    };
    match rows.algorithms.exceeds(hint) && wanted.iter().any(|wanted| may_lack(&wanted)) {
        true => read_ids(inner, &ids(wanted, rows.algorithms)).await,
        false => Ok(rows),
    }
}

/// Reads like [`read_once`], and once more if the server wasn't the primary or the connection was
/// lost: similar connections are evicted by then, so the next one is new.
async fn read_ids(inner: &Inner, ids: &[(NetworkId, KeyId)]) -> Result<Rows, StoreError> {
    match read_once(inner, ids).await {
        Err(StoreError::NotAuthoritative(_)) => {
            inner.poller.verify_primary(PRIMARY_WAIT).await;
            read_once(inner, ids).await
        }
        Err(StoreError::Sql(error)) if inner.dialect.is_connection_lost(&error) => {
            inner.eviction.evict_all("the server or the network closed one of them");
            read_once(inner, ids).await
        }
        result => result,
    }
}

/// Reads the rows of at most three times [`MAX_BATCH`] ids and the log's head. One statement reads
/// both at the same moment: a head that is read later would include changes that the rows don't.
async fn read_once(inner: &Inner, ids: &[(NetworkId, KeyId)]) -> Result<Rows, StoreError> {
    #[cfg(test)]
    inner.lookup_statements.fetch_add(1, Ordering::Relaxed);
    let size = BATCH_SIZES.into_iter().find(|size| ids.len() <= *size).unwrap_or(3 * MAX_BATCH);
    // One SELECT for each key instead of `key_id IN (…)`: without statistics of a new table,
    // PostgreSQL would compare all keys of a network with those.
    let columns = selected(inner.dialect);
    let one = |n| {
        format!(
            "SELECT {columns} FROM api_keys WHERE network_id = ${} AND key_id = ${}",
            2 * n + 1,
            2 * n + 2
        )
    };
    let find = format!(
        "SELECT counter.n AS counter_n, counter.hashes AS counter_hashes, (SELECT tag FROM mutation_log WHERE n = counter.n) AS counter_tag, \
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
        inner.poller.check_server(&authoritative(first, "server_id", "server_state")?)?;
        Ok(rows)
    };
    let rows = inner.read_checked(|connection| find.fetch_all(connection).boxed(), check).await?;
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let counter = first.try_get::<i64, _>("counter_n")?;
    let mut keys = HashMap::new();
    for row in &rows {
        // Without a key, the row has only the log's head.
        if let Some(id) = row.try_get::<Option<String>, _>("key_id")? {
            // A row that can't be read fails only the lookups of its key.
            let network = row.try_get::<String, _>("network_id")?;
            keys.insert((network, id), read_key(row).map(Arc::new).map_err(Arc::new));
        }
    }
    Ok(Rows {
        counter: u64::try_from(counter).map_err(|_| StoreError::Corrupt("counter_n"))?,
        tag: read_tag(&first.try_get::<String, _>("counter_tag")?)?,
        algorithms: HashAlgorithms::from_row(first, "counter_hashes")?,
        keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::key::KeyName;
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
        let name = KeyName::parse(&format!("{network} {number}")).unwrap();
        Key { network, name, ..Key::sample(id(number), Timestamp::from_secs(1_790_000_000)) }
    }

    /// Opens a store with the keys of even numbers below `count`, in both networks.
    async fn store(count: u128) -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        for network in networks() {
            let keys = (0..count).step_by(2).map(|number| NewKey {
                key: key(network, number),
                request: None,
                digests: Default::default(),
            });
            store.insert_keys(keys.collect(), None).await.unwrap();
        }
        (store, directory)
    }

    /// Returns the name of the key that was found.
    fn found(result: LookupResult) -> Option<String> {
        result.unwrap().key.map(|key| key.name.as_str().to_owned())
    }

    #[tokio::test]
    async fn each_lookup_gets_its_own_key() {
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
        let open = store.0.readers.stats().open;
        assert_eq!(open as usize, INITIAL_CONNECTIONS);
        assert_eq!(store.key_reads(), 0, "no key was looked up");
    }

    #[tokio::test]
    async fn waiting_lookups_are_read_together() {
        let (store, _directory) = store(0).await;
        let add = |number| {
            let result = oneshot::channel().0;
            let wanted = RowLookup { network: networks()[0], id: id(number), digests: None };
            Lookups::add(&store.0, PendingLookup { wanted, result })
        };
        let mut readers: Vec<_> =
            (0..MAX_CONCURRENT_READS as u128).map(|number| add(number).unwrap()).collect();
        for number in MAX_CONCURRENT_READS as u128..100 {
            assert!(add(number).is_none(), "enough are under way");
        }
        let mut read = vec![];
        while let Some(batch) = readers[0].next_batch() {
            assert!(batch.len() == MAX_BATCH || read.len() + batch.len() == 100);
            read.extend(batch.into_iter().map(|lookup| lookup.wanted.id));
        }
        assert_eq!(read, (0..100).map(id).collect::<Vec<_>>());
        drop(readers);
        assert_eq!(store.0.lookups.0.lock().reads, 0);
    }

    #[tokio::test]
    async fn reads_that_hang_do_not_block_others() {
        let (store, _directory) = store(10).await;
        let max = store.0.readers.stats().max;
        let held = try_join_all((0..max).map(|_| store.0.readers.acquire(READ_TIMEOUT))).await.unwrap();
        let begun: Vec<_> = (1..MAX_CONCURRENT_READS)
            .map(|_| BatchReader::new(&store.0, &mut store.0.lookups.0.lock()))
            .collect();
        let mut lookups = vec![];
        // The second waits until the first has yielded its slot.
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
            timeout(READ_TIMEOUT, has_begun).await.expect("it begins while the others hang");
        }
        drop(begun);
        for checkout in held {
            store.0.readers.release(checkout, Ok(Ok(()))).unwrap();
        }
        for (number, lookup) in lookups.into_iter().enumerate() {
            assert_eq!(lookup.await.unwrap().is_some(), number % 2 == 0);
        }
        assert_eq!(store.0.lookups.0.lock().reads, 0);
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_and_a_database_that_is_gone() {
        let (store, _directory) = store(10).await;
        let corrupt =
            store.0.query("UPDATE api_keys SET visibility = 9 WHERE key_id = $1").bind(id(4).to_string());
        corrupt.execute(store.0.writers.reclaim()).await.unwrap();
        let lookups = [2, 4, 6].map(|number| store.find_key(networks()[0], id(number)));
        let [two, four, six] = <[_; 3]>::try_from(join_all(lookups).await).unwrap();
        assert!(found(two).is_some() && found(six).is_some());
        assert!(matches!(*four.unwrap_err(), StoreError::Corrupt("visibility")));
        store.close().await;
        let lookups = (0..10).map(|number| store.find_key(networks()[0], id(number)));
        assert!(join_all(lookups).await.iter().all(Result::is_err));
    }
}
