//! Knowledge of one stream: slots, lease, settings, entries. It is dropped with its stream.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::cache::{Bounds, Cache, CacheKey, KeyMap};
use crate::clock::{BootTime, Clock, Moment, Timestamp};
use crate::config::{Fingerprint, RouteSettings};
use crate::entry::{Entry, SLOTS};
use crate::ledger::Lease;
use crate::rule::{Conditions, Rule};
use crate::settings::Settings;

/// Most questions that wait to be sent.
const MAX_QUEUED_ASKS: usize = 256;
/// Most credentials of which it is remembered that they were asked for.
const MAX_KNOWN_ASKS: usize = 4_096;
/// Time for which a question without an answer isn't asked again.
const ASK_PAUSE_MICROS: u64 = 5_000_000;
/// Time in which an entry that is due is asked for at most once.
const REFRESH_PAUSE_MICROS: i64 = 1_000_000;
/// Most entries with uses that the server hasn't been told of; uses of others aren't counted.
const MAX_USED: usize = 65_536;
/// Bits of a stamp for the position in the server's log; those above are for the log's lineage.
const POSITION_BITS: u32 = 44;
/// Positions from here on can't be told apart.
const MAX_POSITION: u64 = (1 << POSITION_BITS) - 1;

/// Everything that came on one stream.
pub(crate) struct State {
    /// Differs for each stream of the process.
    id: u64,
    clock: Clock,
    /// SHA-256 midstate with the server's seed.
    seed: Sha256,
    rule: Rule,
    /// Settings in force; `None` while nothing may be accelerated.
    settings: ArcSwapOption<Settings>,
    entries: Cache,
    asks: Mutex<Asks>,
    used: Mutex<Vec<Arc<Entry>>>,
}

/// Questions for the server.
#[derive(Default)]
struct Asks {
    queue: Vec<Question>,
    /// Boot time in microseconds before which nothing is asked again.
    known: KeyMap<u64>,
}

/// Question about a credential under a policy.
pub(crate) struct Question {
    /// What is asked for.
    pub key: CacheKey,
    /// Settings of the route.
    pub extensions: Vec<(String, String)>,
    /// Host of the request, where it decides.
    pub host: Vec<u8>,
    /// Generation of the settings.
    pub generation: u64,
    /// Boot time in microseconds.
    pub since: u64,
}

/// A credential under a route's policy, as a request shows it.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    /// The credential.
    pub credential: &'a [u8],
    /// Settings of the route.
    pub route: &'a RouteSettings,
    /// Host of the request, where it decides.
    pub host: Option<&'a [u8]>,
    /// Settings in force.
    pub settings: &'a Settings,
}

/// Reason for which no entry was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// There is none.
    Unknown,
    /// There is one that can't be used.
    Unusable,
}

/// Reason for which an entry can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Nothing is known that is current enough: for no entry.
    NoLease,
    /// The key or its actor has changed, or the entry's time is over.
    Stale,
}

impl State {
    /// Creates the state of a new stream, without knowledge.
    pub(crate) fn new(clock: Clock, index_seed: &[u8], bounds: Bounds) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            clock,
            seed: Sha256::new().chain_update(index_seed),
            rule: Rule::new(SLOTS),
            settings: ArcSwapOption::empty(),
            entries: Cache::new(bounds),
            asks: Mutex::default(),
            used: Mutex::default(),
        }
    }

    /// Returns the settings in force.
    pub(crate) fn settings(&self) -> arc_swap::Guard<Option<Arc<Settings>>> {
        self.settings.load()
    }

    /// Replaces the settings; entries of other ones are dropped.
    pub(crate) fn set_settings(&self, settings: Option<Arc<Settings>>) {
        let generation = settings.as_ref().map_or(0, |settings| settings.generation);
        // No reader finds entries of an older generation usable once this is stored.
        self.rule.set_generation(generation);
        self.settings.store(settings);
        self.entries.remove_if(|entry| entry.generation != generation);
        *self.asks.lock() = Asks::default();
    }

    /// Returns the cache key of a credential. `host` is that of the request, where it decides.
    pub(crate) fn cache_key(&self, credential: &[u8], policy: &Fingerprint, host: Option<&[u8]>) -> CacheKey {
        let index = self.seed.clone().chain_update(credential).finalize().into();
        let policy = match host {
            None => *policy,
            Some(host) => Sha256::new().chain_update(policy).chain_update(host).finalize().into(),
        };
        CacheKey { index, policy }
    }

    /// Returns the entry of a credential, if it may be used now. Otherwise the server is asked
    /// about it soon.
    pub(crate) fn find(&self, lookup: Lookup<'_>) -> Result<Found, NotFound> {
        let key = self.cache_key(lookup.credential, &lookup.route.fingerprint, lookup.host);
        let found = match self.get(&key) {
            None => Err(NotFound::Unknown),
            Some(entry) => match self.usable(&entry, lookup.settings) {
                Ok(usable) => Ok(Found { key, entry, usable }),
                Err(_) => Err(NotFound::Unusable),
            },
        };
        if found.is_err() {
            self.ask(key, lookup);
        }
        found
    }

    /// Asks about an entry that is used and due to be refreshed, at most once in
    /// [`REFRESH_PAUSE_MICROS`].
    pub(crate) fn refresh_if_due(&self, found: &Found, lookup: Lookup<'_>) {
        let (entry, now) = (&found.entry, found.usable.now);
        let is_due = |at: i64| now >= at.max(entry.next_ask.load(Ordering::Relaxed));
        if entry.refresh_at.is_some_and(is_due) {
            entry.next_ask.store(now.saturating_add(REFRESH_PAUSE_MICROS), Ordering::Relaxed);
            self.ask(found.key, lookup);
        }
    }

    /// Returns an entry, whether it may be used or not.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        self.entries.get(self.id, key)
    }

    /// Inserts an entry.
    pub(crate) fn insert(&self, key: CacheKey, entry: Entry) {
        let (lineage, position) = split(entry.stamp);
        if position == MAX_POSITION || entry.generation != self.rule.generation() {
            return;
        }
        self.rule.reach(lineage);
        self.asks.lock().known.remove(&key);
        self.entries.insert(key, Arc::new(entry));
    }

    /// Removes an entry.
    pub(crate) fn remove(&self, key: &CacheKey) {
        self.entries.remove(key);
    }

    /// Returns the moment at which an entry may be used: now, by the rule of revocations. The
    /// time is read last.
    pub(crate) fn usable(&self, entry: &Entry, settings: &Settings) -> Result<Usable, Unusable> {
        let (lineage, position) = split(entry.stamp);
        let (slots, generation, is_removed) = (entry.slots, entry.generation, &entry.is_removed);
        let conditions = Conditions { slots, lineage, position, generation, is_removed };
        let (lease, is_current) = self.rule.read(&conditions);
        let now = self.clock.moment();
        let age = now.since(moment(lease)).as_micros();
        if lease.boot == 0 || age > u128::from(settings.lease_micros) {
            return Err(Unusable::NoLease);
        }
        let wall = now.wall.as_micros();
        let is_over = wall >= entry.expires || entry.key_end.is_some_and(|end| wall >= end);
        if !is_current || entry.generation != settings.generation || is_over {
            return Err(Unusable::Stale);
        }
        let left = settings.lease_micros.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
        let lease_end = wall.saturating_add_unsigned(left);
        Ok(Usable { now: wall, fresh_until: entry.key_end.map_or(lease_end, |end| end.min(lease_end)) })
    }

    /// Applies the new value of a slot, before the lease that it came with.
    pub(crate) fn raise(&self, slot: u32, value: u64) {
        if let Some(slot) = usize::try_from(slot).ok().filter(|slot| *slot < SLOTS) {
            let (lineage, position) = split(value);
            self.rule.raise(slot, lineage, position);
        }
    }

    /// Extends the lease to one that began at this moment, after all changes are applied. An
    /// earlier one than that in force is ignored.
    pub(crate) fn extend(&self, start: Moment) {
        self.rule.extend(Lease { boot: start.boot.as_micros(), wall: start.wall.as_micros() });
    }

    /// Queues a question about a credential that the server is just being asked about by
    /// ext_authz. Nothing is queued if the same was asked lately, or too much was.
    pub(crate) fn ask(&self, key: CacheKey, lookup: Lookup<'_>) {
        let now = self.clock.boot_now().as_micros();
        // Where another thread has it, that one asks; the next request with this key asks again.
        let Some(mut asks) = self.asks.try_lock() else { return };
        if asks.known.get(&key).is_some_and(|until| *until > now) || asks.queue.len() >= MAX_QUEUED_ASKS {
            return;
        }
        // The stream's thread makes room: a flood of unknown credentials costs no time here.
        if asks.known.len() >= MAX_KNOWN_ASKS {
            return;
        }
        asks.known.insert(key, now + ASK_PAUSE_MICROS);
        asks.queue.push(Question {
            key,
            extensions: lookup.route.extensions.clone(),
            host: lookup.host.unwrap_or_default().to_vec(),
            generation: lookup.settings.generation,
            since: now,
        });
    }

    /// Returns questions that have waited for this time, at most `max`: the ones that came first.
    pub(crate) fn take_questions(&self, max: usize, min_wait_micros: u64) -> Vec<Question> {
        let now = self.clock.boot_now().as_micros();
        let mut asks = self.asks.lock();
        if asks.known.len() >= MAX_KNOWN_ASKS / 2 {
            asks.known.retain(|_, until| *until > now);
        }
        let ripe = asks.queue.iter().take_while(|asked| asked.since + min_wait_micros <= now).count();
        asks.queue.drain(..ripe.min(max)).collect()
    }

    /// Records that there is no entry, and that nothing is asked again for a time.
    pub(crate) fn pause_asking(&self, key: CacheKey, micros: u64) {
        let until = self.clock.boot_now().as_micros().saturating_add(micros);
        let mut asks = self.asks.lock();
        if asks.known.len() < MAX_KNOWN_ASKS || asks.known.contains_key(&key) {
            asks.known.insert(key, until);
        }
    }

    /// Counts a use of an entry by a client, whose address may be unknown.
    pub(crate) fn record_use(&self, entry: &Arc<Entry>, now_micros: i64, client: Option<IpAddr>) {
        entry.last_use.store(now_micros, Ordering::Relaxed);
        // Who holds the lock writes one that is as new.
        if let Some(mut last) = entry.last_client.try_lock() {
            *last = client;
        }
        // The first one puts it on the list.
        if entry.uses.fetch_add(1, Ordering::AcqRel) == 0 {
            let mut used = self.used.lock();
            match used.len() < MAX_USED {
                true => used.push(Arc::clone(entry)),
                // Its next use tries again.
                false => entry.uses.store(0, Ordering::Release),
            }
        }
    }

    /// Adds entries of an older stream, which were used and aren't reported.
    pub(crate) fn add_used(&self, entries: Vec<Arc<Entry>>) {
        self.used.lock().extend(entries);
    }

    /// Returns the entries that were used since the last call.
    pub(crate) fn take_used(&self) -> Vec<Arc<Entry>> {
        std::mem::take(&mut self.used.lock())
    }
}

/// An entry that may be used.
pub(crate) struct Found {
    /// Its cache key.
    key: CacheKey,
    /// The entry.
    pub entry: Arc<Entry>,
    /// Moment at which it may be used.
    pub usable: Usable,
}

/// Moment at which an entry may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usable {
    /// Wall time in microseconds.
    pub now: i64,
    /// Wall time in microseconds until which the answer counts.
    pub fresh_until: i64,
}

impl Usable {
    /// Returns the time until which the answer counts in seconds, to the millisecond, rounded
    /// down.
    pub(crate) fn fresh_until_seconds(self) -> f64 {
        self.fresh_until.div_euclid(1_000) as f64 / 1_000.0
    }
}

/// Splits a stamp, or the value of a slot, into lineage and position.
const fn split(value: u64) -> (u64, u64) {
    (value >> POSITION_BITS, value & MAX_POSITION)
}

fn moment(lease: Lease) -> Moment {
    Moment { boot: BootTime::from_micros(lease.boot), wall: Timestamp::from_micros(lease.wall) }
}
