//! L2: key rows that instances share through Redis, and announcements of changes.
//!
//! The content of Redis isn't trusted. An entry carries a MAC, so that whoever can
//! write to Redis can't make a key. It carries a stamp, so that it is used only while
//! [`Freshness`](super::freshness::Freshness) knows of no later change. An announcement only makes
//! this instance poll the database's log at once. So a Redis that is slow, flushed, gone or taken
//! over costs time, and nothing else.

mod entry;
mod relay;
mod seal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

pub use entry::RedisEntry;

use super::freshness::{RelayRequest, RelayResponse};
use crate::clock::Clock;
use crate::credential::secrets::HmacSecrets;
use crate::key::{KeyId, NetworkId};
use crate::redis::{
    BreakerState, RedisClient, RedisReport, RedisResult, RedisSettings, RedisSettingsError, RedisUse,
    Subscription,
};
use crate::store::Mutation;
use entry::{entry_name, open_announcement, open_entry, seal_announcement, seal_entry};

/// Channel on which changes are announced.
const CHANNEL: &str = "talos:v1:changes";
/// Time that a change waits for its announcement before it is acknowledged.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_millis(50);
/// Timeout of the relay's commands. No request waits for them, so neither the timeout of lookups
/// nor the breaker, which goes by that, applies.
const RELAY_TIMEOUT: Duration = Duration::from_millis(500);
/// Entries on their way to Redis at once; further ones aren't written.
const MAX_CONCURRENT_WRITES: usize = 256;

/// Use of Redis for the cache. The commands show whether the user has the rights that are needed.
/// The message that is published carries no MAC, so nobody takes it for an announcement.
const USE: RedisUse = RedisUse {
    purpose: "cache",
    effect: "lookups go to the database",
    rights: &[
        &["SET", "talos:v1:key:rights", "", "PX", "1"],
        &["GET", "talos:v1:key:rights"],
        &["MGET", "talos:v1:{relay}:rights"],
        &["DEL", "talos:v1:key:rights"],
        &["PUBLISH", CHANNEL, ""],
    ],
};

/// Cache tier that instances share.
pub struct RedisCache {
    client: RedisClient,
    clock: Clock,
    writes: Arc<Semaphore>,
    counters: Counters,
}

/// Counters since the start.
#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    relay_responses: AtomicU64,
}

impl RedisCache {
    /// Checks settings; [`RedisCache::run`] connects.
    ///
    /// # Errors
    /// When an address or a certificate can't be used, or plaintext would leave this machine and
    /// isn't allowed to.
    pub fn new(settings: RedisSettings, clock: Clock) -> Result<Self, RedisSettingsError> {
        Ok(Self {
            client: RedisClient::new(settings, clock.clone(), USE)?,
            clock,
            writes: Arc::new(Semaphore::new(MAX_CONCURRENT_WRITES)),
            counters: Counters::default(),
        })
    }

    /// Keeps connected and listens for announcements; never returns. `changed` is notified when a
    /// change was announced whose number `is_news`, and whenever an announcement may have been
    /// missed. `with_secrets` gives the secrets that announcements are verified with.
    pub async fn run(
        &self,
        changed: &Notify,
        with_secrets: impl Fn(&dyn Fn(&HmacSecrets) -> Option<u64>) -> Option<u64>,
        is_news: impl Fn(u64) -> bool,
    ) {
        let is_relevant = |message: &[u8]| {
            let open = |secrets: &HmacSecrets| open_announcement(secrets, self.clock.now(), message);
            // A known number comes from a message that was duplicated, delayed or replayed.
            with_secrets(&open).is_some_and(&is_news)
        };
        let subscription = Subscription { channel: CHANNEL, is_relevant, notify: changed };
        self.client.run_subscribed(subscription).await;
    }

    /// Returns the state of the circuit breaker.
    pub fn breaker_state(&self) -> BreakerState {
        self.client.breaker().state()
    }

    /// Returns what is known of Redis.
    pub fn report(&self) -> RedisReport {
        self.client.report()
    }

    /// Reads the entry of a key. Returns `None` when there is none, its MAC is wrong, or Redis
    /// doesn't answer in time.
    pub async fn get(&self, secrets: &HmacSecrets, network: NetworkId, key_id: KeyId) -> Option<RedisEntry> {
        let name = entry_name(network, key_id);
        let value = self.client.guarded(self.client.get(&name)).await.flatten();
        let entry = value.and_then(|value| open_entry(secrets, self.clock.now(), network, key_id, &value));
        let counter = if entry.is_some() { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        entry
    }

    /// Returns how many lookups found an entry, and how many didn't.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.counters.hits.load(Ordering::Relaxed), self.counters.misses.load(Ordering::Relaxed))
    }

    /// Returns how many responses this instance wrote for instances without a database.
    pub fn relay_responses(&self) -> u64 {
        self.counters.relay_responses.load(Ordering::Relaxed)
    }

    /// Writes a relay request that expires after `ttl`, into the slot of a random number.
    pub async fn put_relay_request(
        &self,
        secrets: &HmacSecrets,
        request: &RelayRequest,
        slot: u8,
        ttl: Duration,
    ) {
        let (name, value) = (relay::request_name(slot), relay::seal_request(secrets, request));
        within_relay_timeout(self.client.set(&name, value, ttl)).await;
    }

    /// Reads the requests of instances that can't reach the database.
    pub async fn get_relay_requests(&self, secrets: &HmacSecrets) -> Vec<RelayRequest> {
        let names: Vec<String> = (0..relay::SLOTS).map(relay::request_name).collect();
        let values = within_relay_timeout(self.client.get_many(&names)).await.unwrap_or_default();
        let now = self.clock.now();
        values.into_iter().flatten().filter_map(|value| relay::open_request(secrets, now, &value)).collect()
    }

    /// Writes a relay response that expires after `ttl`.
    pub async fn put_relay_response(&self, secrets: &HmacSecrets, response: &RelayResponse, ttl: Duration) {
        let value = relay::seal_response(secrets, response);
        if within_relay_timeout(self.client.set(relay::RESPONSE_NAME, value, ttl)).await.is_some() {
            self.counters.relay_responses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads the last relay response.
    pub async fn get_relay_response(&self, secrets: &HmacSecrets) -> Option<RelayResponse> {
        let value = within_relay_timeout(self.client.get(relay::RESPONSE_NAME)).await??;
        relay::open_response(secrets, self.clock.now(), &value)
    }

    /// Writes an entry that expires after `ttl`, in a task that no request waits for. The entry is
    /// dropped while too many writes are under way.
    pub fn put(self: &Arc<Self>, secrets: &HmacSecrets, entry: &RedisEntry, ttl: Duration) {
        let Ok(write) = Arc::clone(&self.writes).try_acquire_owned() else {
            return;
        };
        let Some(permit) = self.client.breaker().try_acquire() else {
            return;
        };
        // The permit doesn't move into the task: a write that hangs must not block the next probe.
        drop(permit);
        let (name, value) = (entry_name(entry.key.network, entry.key.id), seal_entry(secrets, entry));
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            let _write = write;
            let set = cache.client.set(&name, value, ttl);
            let written = tokio::time::timeout(cache.client.timeout(), set).await;
            if !matches!(written, Ok(Ok(()))) {
                cache.client.breaker().record_failure();
            }
        });
    }

    /// Announces changes and deletes their entries. No bound rests on this.
    pub async fn announce(self: &Arc<Self>, secrets: &HmacSecrets, mutations: &[Mutation]) {
        let names = mutations.iter().map(|mutation| entry_name(mutation.network, mutation.key_id)).collect();
        if let Some(newest) = mutations.last() {
            self.announce_number(secrets, newest.n, names).await;
        }
    }

    /// Announces change number `n` of an actor. The entries of its keys stay: their stamps are
    /// older than the change.
    pub async fn announce_actor(self: &Arc<Self>, secrets: &HmacSecrets, n: u64) {
        self.announce_number(secrets, n, vec![]).await;
    }

    async fn announce_number(self: &Arc<Self>, secrets: &HmacSecrets, n: u64, names: Vec<String>) {
        let message = Some(seal_announcement(secrets, n));
        let Some(permit) = self.client.breaker().try_acquire() else {
            // An open breaker is a reason not to wait, but none not to announce.
            self.announce_in_background(names, message);
            return;
        };
        let announce = self.client.publish_and_delete(CHANNEL, message, &names);
        match tokio::time::timeout(ANNOUNCE_TIMEOUT, announce).await {
            Ok(Ok(())) => permit.succeeded(),
            Ok(Err(_)) | Err(_) => permit.failed(),
        };
    }

    fn announce_in_background(self: &Arc<Self>, names: Vec<String>, message: Option<Vec<u8>>) {
        if let Ok(write) = Arc::clone(&self.writes).try_acquire_owned() {
            let cache = Arc::clone(self);
            tokio::spawn(async move {
                let _write = write;
                let announce = cache.client.publish_and_delete(CHANNEL, message, &names);
                let _ = tokio::time::timeout(cache.client.timeout(), announce).await;
            });
        }
    }
}

async fn within_relay_timeout<T>(command: impl Future<Output = RedisResult<T>>) -> Option<T> {
    tokio::time::timeout(RELAY_TIMEOUT, command).await.ok()?.ok()
}
