//! L1: keys that have proven themselves, in process.

mod recent;

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use moka::sync::Cache;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::freshness::{Slot, Stamp};
use crate::clock::Timestamp;
use crate::key::{Key, KeyId, NetworkId};
use crate::rng::Rng;

/// Where an entry is found: the network, and SHA-256 over a seed of this process and the credential, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    network: NetworkId,
    credential: [u8; 32],
}

impl Hash for Index {
    /// The hash of the credential is a seeded one already: its first eight bytes will do, for all networks.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.credential[..8]);
    }
}

/// A key whose credential was shown and proven.
pub struct Entry {
    /// Its row.
    pub key: Arc<Key>,
    /// Up to which change the row is known to be true.
    pub stamp: Stamp,
    /// Where later changes to it are noted.
    pub slot: Slot,
    /// Settings under which possession was proven.
    pub generation: u64,
    /// When the row is read again all the same.
    pub soft_expiry: Timestamp,
    /// When it must not be used any more, whatever else holds.
    pub hard_expiry: Option<Timestamp>,
    /// When its use was last noted.
    pub last_use: LastUse,
    /// Answers made for it.
    pub answers: Answers,
    /// What Envoy is told of its holder, encoded when the first request is refused.
    pub holder: OnceLock<Bytes>,
}

/// When a key's use was last noted, as far as this process knows.
#[derive(Default)]
pub struct LastUse(AtomicI64);

impl LastUse {
    /// As the row says; None when it was never used.
    pub fn new(last_used: Option<Timestamp>) -> Self {
        Self(AtomicI64::new(last_used.map_or(i64::MIN, Timestamp::as_micros)))
    }

    /// True for the first to use the key in `precision` after the use that was noted: that one is to be noted.
    pub fn is_due(&self, now: Timestamp, precision: Duration) -> bool {
        let noted = self.0.load(Ordering::Relaxed);
        let due = noted <= now.minus(precision).as_micros();
        // A plain load first: on the hot path there is nothing to note.
        due && self.0.compare_exchange(noted, now.as_micros(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The use could not be noted: the next one is to be.
    pub fn forget(&self) {
        self.0.store(i64::MIN, Ordering::Relaxed);
    }
}

impl Clone for LastUse {
    fn clone(&self) -> Self {
        Self(AtomicI64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// A ready answer of the authz plane to a request with this key.
#[derive(Clone)]
pub struct Answer {
    /// Settings under which it was made.
    pub generation: u64,
    /// Whether it carries a token, and for which audience.
    pub token: Option<Option<Box<str>>>,
    /// From when on whoever comes first makes a new one.
    pub refresh_at: Option<Timestamp>,
    /// When it must not be used any more.
    pub expires: Option<Timestamp>,
    /// What is answered.
    pub ready: Ready,
}

/// An encoded CheckResponse that lets a request through: its other fields, then the OkHttpResponse.
#[derive(Clone, Default)]
pub struct Ready {
    /// All of it.
    pub message: Bytes,
    /// Where the other fields end.
    pub outer_end: usize,
    /// Where the OkHttpResponse's own fields begin.
    pub ok_start: usize,
}

/// Most different answers kept for one key: routes rarely name more audiences.
const MAX_ANSWERS: usize = 8;

/// The answers of one entry. Reading takes no lock; making one does.
#[derive(Default)]
pub struct Answers {
    ready: ArcSwap<Vec<Answer>>,
    making: Mutex<()>,
}

impl Answers {
    /// The answer that fits, made by `make` when there is none. One that is due for renewal is renewed by whoever
    /// comes first, while the others go on with it until it expires.
    ///
    /// # Errors
    /// Whatever `make` fails with.
    pub fn get_or_make<E>(
        &self,
        now: Timestamp,
        fits: impl Fn(&Answer) -> bool,
        make: impl FnOnce() -> Result<Answer, E>,
    ) -> Result<Ready, E> {
        let find = || {
            let answers = self.ready.load();
            let found = answers.iter().find(|answer| fits(answer) && answer.counts(now));
            found.map(|answer| (answer.ready.clone(), answer.is_due(now)))
        };
        let making = match find() {
            Some((ready, false)) => return Ok(ready),
            Some((ready, true)) => match self.making.try_lock() {
                Some(making) => making,
                None => return Ok(ready),
            },
            None => self.making.lock(),
        };
        // Somebody may have been quicker.
        if let Some((ready, false)) = find() {
            return Ok(ready);
        }
        let made = make()?;
        let ready = made.ready.clone();
        let others = self.ready.load();
        let others = others.iter().filter(|answer| !fits(answer) && answer.counts(now));
        let answers = std::iter::once(made).chain(others.take(MAX_ANSWERS - 1).cloned());
        self.ready.store(Arc::new(answers.collect()));
        drop(making);
        Ok(ready)
    }

    /// Takes over the answers of an older entry for the same state of the same key.
    pub fn inherit(&self, older: &Self) {
        self.ready.store(older.ready.load_full());
    }
}

impl Answer {
    fn counts(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|at| now < at)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.refresh_at.is_some_and(|at| at <= now)
    }
}

/// That an id was unknown.
#[derive(Debug, Clone, Copy)]
pub struct Unknown {
    /// The id.
    pub key_id: KeyId,
    /// Up to which change.
    pub stamp: Stamp,
    /// Where a change that makes it known is noted.
    pub slot: Slot,
    /// Settings under which it was looked for.
    pub generation: u64,
    /// When it is looked for again all the same.
    pub expires: Timestamp,
}

/// The tier in process; clones are the same one. Its bounds are bytes for keys and a number for unknown ids, which have a space of their own:
/// garbage can't push good keys out.
#[derive(Clone)]
pub struct Memory {
    /// Has taken in a block's worth of chance.
    seeded: Sha256,
    keys: Cache<Index, Arc<Entry>, BuildHasherDefault<First8>>,
    unknown: Cache<Index, Unknown, BuildHasherDefault<First8>>,
}

impl Memory {
    /// A tier of at most `bytes` bytes of keys and `unknown` unknown ids.
    pub fn new(bytes: u64, unknown: u64, rng: &Rng) -> Self {
        Self {
            seeded: Sha256::new().chain_update(rng.bytes::<64>()),
            keys: Cache::builder()
                .max_capacity(bytes)
                .weigher(|_, entry: &Arc<Entry>| weigh(&entry.key))
                .build_with_hasher(BuildHasherDefault::default()),
            unknown: Cache::builder().max_capacity(unknown).build_with_hasher(BuildHasherDefault::default()),
        }
    }

    /// Where a credential's entry is. The raw credential is kept nowhere.
    pub fn index(&self, network: NetworkId, credential: &str) -> Index {
        let credential = self.seeded.clone().chain_update(credential).finalize().into();
        Index { network, credential }
    }

    /// The entry there.
    pub fn get(&self, index: &Index) -> Option<Arc<Entry>> {
        self.keys.get(index)
    }

    /// The entry there, if this thread has used it lately.
    pub fn recent(&self, index: &Index) -> Option<Arc<Entry>> {
        recent::get(index)
    }

    /// Has it at hand for this thread's next request with the same credential.
    pub fn keep_recent(&self, index: Index, entry: &Arc<Entry>) {
        if weigh(&entry.key) <= MOST_RECENT {
            recent::put(index, Arc::clone(entry));
        }
    }

    /// Doesn't have it at hand any more; it stays where all threads find it.
    pub fn forget_recent(&self, index: &Index) {
        recent::forget(index);
    }

    /// Puts an entry there, with the answers of the one before if that showed the same state of the key.
    pub fn insert(&self, index: Index, entry: Arc<Entry>) {
        if let Some(older) = self.keys.get(&index)
            && older.key.mutation == entry.key.mutation
            && older.stamp.same_lineage(entry.stamp)
            && older.hard_expiry == entry.hard_expiry
        {
            entry.answers.inherit(&older.answers);
        }
        self.keys.insert(index, entry);
    }

    /// Whether the id there is known to be unknown.
    pub fn unknown(&self, index: &Index) -> Option<Unknown> {
        self.unknown.get(index)
    }

    /// Remembers that the id there is unknown.
    pub fn insert_unknown(&self, index: Index, unknown: Unknown) {
        self.unknown.insert(index, unknown);
    }

    /// About how many keys are held.
    pub fn len(&self) -> u64 {
        self.keys.entry_count()
    }

    /// About how many unknown ids are held.
    pub fn unknown_len(&self) -> u64 {
        self.unknown.entry_count()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Largest entry, in bytes, of which threads keep a reference of their own: that is beside the cache's bound.
const MOST_RECENT: u32 = 4 * 1024;

/// About how many bytes an entry takes, the answer that it will have included.
fn weigh(key: &Key) -> u32 {
    const FIXED: usize = 1_200;
    let scopes: usize = key.scopes.iter().map(|scope| scope.as_str().len() + 16).sum();
    let metadata = key.metadata.as_ref().map_or(0, |metadata| metadata.json().len());
    let texts = key.name.as_str().len() + key.actor.as_str().len();
    // Texts stand in the row, in the headers, in the metadata and, longer by a third, in the token.
    let bytes = FIXED + 4 * scopes + 4 * metadata + 4 * texts + 32 * key.addresses.iter().count();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// For what is a hash already.
#[derive(Default)]
struct First8(u64);

impl Hasher for First8 {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn answer(refresh: i64, expires: i64) -> Answer {
        Answer {
            generation: 1,
            token: None,
            refresh_at: Some(Timestamp::from_secs(refresh)),
            expires: Some(Timestamp::from_secs(expires)),
            ready: Ready { message: format!("{refresh} {expires}").into(), ..Ready::default() },
        }
    }

    #[test]
    fn an_answer_is_made_once_renewed_when_due_and_never_used_late() {
        let answers = Answers::default();
        let made = Cell::new(0);
        let get = |now: i64| {
            let make = || {
                made.set(made.get() + 1);
                Ok::<_, ()>(answer(now + 5, now + 10))
            };
            answers.get_or_make(Timestamp::from_secs(now), |_| true, make).unwrap()
        };
        for (now, expected) in [(0, 1), (4, 1), (5, 2), (9, 2), (30, 3)] {
            let ready = get(now);
            let (_, expires) = str::from_utf8(&ready.message).unwrap().split_once(' ').unwrap();
            assert!(expires.parse::<i64>().unwrap() > now);
            assert_eq!(made.get(), expected, "at {now}");
        }
    }

    #[test]
    fn while_one_renews_the_others_go_on() {
        let answers = Answers::default();
        let make = |refresh, expires| move || Ok::<_, ()>(answer(refresh, expires));
        let now = Timestamp::from_secs(0);
        answers.get_or_make(now, |_| true, make(1, 10)).unwrap();
        let _making = answers.making.lock();
        let later = Timestamp::from_secs(5);
        let old = answers.get_or_make(later, |_| true, make(100, 200)).unwrap();
        assert_eq!(old.message, "1 10");
    }
}
