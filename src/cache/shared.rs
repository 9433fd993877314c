//! L2: rows that instances share through Redis, and the word that something changed.
//!
//! Nothing that is read here is believed for being here. An entry carries a MAC, so that whoever can write to Redis
//! can't make a key; and its stamp, so that it is used only while [`Freshness`](super::freshness::Freshness) knows of
//! no later change. A change that is announced here is only a reason to look into the database's log at once. So a
//! Redis that is slow, flushed, gone or taken over costs time, and nothing else.

mod breaker;
mod entry;
mod link;
mod relay;
mod seal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

pub(crate) use breaker::Breaker;
pub use breaker::BreakerState;
pub use entry::SharedEntry;
pub(crate) use link::Link;
pub use link::{LinkError, RedisSettings, RedisTls};

use super::freshness::{Answer, Question};
use crate::clock::Clock;
use crate::credential::secrets::HmacSecrets;
use crate::key::{KeyId, NetworkId};
use crate::store::Mutation;
use entry::{entry_name, open_announcement, open_entry, seal_announcement, seal_entry};

/// How long a change waits for being announced, before it is acknowledged.
const ANNOUNCE: Duration = Duration::from_millis(50);
/// How long a question or an answer of the relay may take, to Redis or from there. Nobody waits for it, so neither the
/// patience of lookups nor the breaker, which goes by that, has a say.
const RELAY: Duration = Duration::from_millis(500);
/// Most entries on their way to Redis at once; further ones aren't written.
const MAX_WRITES: usize = 256;

/// The tier that instances share.
pub struct Shared {
    link: Link,
    breaker: Breaker,
    check_timeout: Duration,
    writes: Arc<Semaphore>,
    counts: Counts,
}

/// What was asked of the tier, ever.
#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    answers: AtomicU64,
}

impl Shared {
    /// Prepares the tier; connecting is [`Shared::run`]'s.
    ///
    /// # Errors
    /// When an address or a certificate can't be used, or plaintext would leave this machine without being asked for.
    pub fn new(settings: RedisSettings, clock: Clock) -> Result<Self, LinkError> {
        Ok(Self {
            check_timeout: settings.check_timeout,
            link: Link::new(settings)?,
            breaker: Breaker::new(clock),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
            counts: Counts::default(),
        })
    }

    /// Keeps connected and listens, for ever. `changed` is notified when a change was announced that `is_news` by its
    /// number, under the secrets that `with_secrets` gives, and whenever one may have been missed.
    pub async fn run(
        &self,
        changed: &Notify,
        with_secrets: impl Fn(&dyn Fn(&HmacSecrets) -> Option<u64>) -> Option<u64>,
        is_news: impl Fn(u64) -> bool,
    ) {
        let counts = |message: &[u8]| {
            let open = |secrets: &HmacSecrets| open_announcement(secrets, self.breaker.now(), message);
            // What is known already is a message that was doubled, late, or repeated by somebody who can't make one.
            with_secrets(&open).is_some_and(&is_news)
        };
        self.link.run(changed, counts).await;
    }

    /// What the circuit breaker lets through.
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// The entry of a key; None when there is none, it isn't ours, or Redis gives no answer in time.
    pub async fn get(&self, secrets: &HmacSecrets, network: NetworkId, key_id: KeyId) -> Option<SharedEntry> {
        let name = entry_name(network, key_id);
        let value = self.attempt(self.link.get(&name)).await.flatten();
        let entry = value.and_then(|value| open_entry(secrets, self.breaker.now(), network, key_id, &value));
        let count = if entry.is_some() { &self.counts.hits } else { &self.counts.misses };
        count.fetch_add(1, Ordering::Relaxed);
        entry
    }

    /// How often an entry was found, and how often none.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.counts.hits.load(Ordering::Relaxed), self.counts.misses.load(Ordering::Relaxed))
    }

    /// How many answers to instances without a database were given here.
    pub fn answers(&self) -> u64 {
        self.counts.answers.load(Ordering::Relaxed)
    }

    /// Asks Redis on behalf of a lookup, unless the breaker is open.
    async fn attempt<T>(&self, work: impl Future<Output = Result<T, redis::RedisError>>) -> Option<T> {
        let attempt = self.breaker.try_begin()?;
        match tokio::time::timeout(self.check_timeout, work).await {
            Ok(Ok(value)) => {
                attempt.succeeded();
                Some(value)
            }
            Ok(Err(_)) | Err(_) => {
                attempt.failed();
                None
            }
        }
    }

    /// Puts a question where others look for it, for `ttl`; `place` is any number, at random.
    pub async fn ask(&self, secrets: &HmacSecrets, question: &Question, place: u8, ttl: Duration) {
        let (name, value) = (relay::question_name(place), relay::seal_question(secrets, question));
        within_relay(self.link.set(&name, value, ttl)).await;
    }

    /// The questions of those who can't reach the database.
    pub async fn questions(&self, secrets: &HmacSecrets) -> Vec<Question> {
        let names: Vec<String> = (0..relay::SLOTS).map(relay::question_name).collect();
        let values = within_relay(self.link.get_all(&names)).await.unwrap_or_default();
        let now = self.breaker.now();
        values.into_iter().flatten().filter_map(|value| relay::open_question(secrets, now, &value)).collect()
    }

    /// Puts an answer where those who asked look for it, for `ttl`.
    pub async fn answer(&self, secrets: &HmacSecrets, answer: &Answer, ttl: Duration) {
        let value = relay::seal_answer(secrets, answer);
        if within_relay(self.link.set(relay::ANSWER, value, ttl)).await.is_some() {
            self.counts.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The last answer.
    pub async fn find_answer(&self, secrets: &HmacSecrets) -> Option<Answer> {
        let value = within_relay(self.link.get(relay::ANSWER)).await??;
        relay::open_answer(secrets, self.breaker.now(), &value)
    }

    /// Stores an entry for `ttl`, beside whoever waits for its row. What finds too many others on their way isn't
    /// stored.
    pub fn put(self: &Arc<Self>, secrets: &HmacSecrets, entry: &SharedEntry, ttl: Duration) {
        let Ok(permit) = Arc::clone(&self.writes).try_acquire_owned() else {
            return;
        };
        let Some(attempt) = self.breaker.try_begin() else {
            return;
        };
        let (name, value) = (entry_name(entry.key.network, entry.key.id), seal_entry(secrets, entry));
        let shared = Arc::clone(self);
        let timeout = self.link.timeout();
        // The attempt doesn't cross into the task: a write that hangs must not hold up the breaker's trial.
        drop(attempt);
        tokio::spawn(async move {
            let _permit = permit;
            let written = tokio::time::timeout(timeout, shared.link.set(&name, value, ttl)).await;
            if !matches!(written, Ok(Ok(()))) {
                shared.breaker.count_failure();
            }
        });
    }

    /// Tells the others of changes and takes their entries away: a courtesy, on which no bound rests.
    pub async fn announce(self: &Arc<Self>, secrets: &HmacSecrets, mutations: &[Mutation]) {
        let announcements: Vec<Vec<u8>> =
            mutations.iter().last().map(|newest| seal_announcement(secrets, newest)).into_iter().collect();
        let names: Vec<String> =
            mutations.iter().map(|mutation| entry_name(mutation.network, mutation.key_id)).collect();
        let Some(attempt) = self.breaker.try_begin() else {
            // That lookups find it slow is no reason to keep silent, only one not to wait.
            self.announce_later(names, announcements);
            return;
        };
        let announce = self.link.announce(&names, announcements);
        match tokio::time::timeout(ANNOUNCE, announce).await {
            Ok(Ok(())) => attempt.succeeded(),
            Ok(Err(_)) | Err(_) => attempt.failed(),
        }
    }

    fn announce_later(self: &Arc<Self>, names: Vec<String>, announcements: Vec<Vec<u8>>) {
        if let Ok(permit) = Arc::clone(&self.writes).try_acquire_owned() {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                let _permit = permit;
                let announce = shared.link.announce(&names, announcements);
                let _ = tokio::time::timeout(shared.link.timeout(), announce).await;
            });
        }
    }
}

async fn within_relay<T>(work: impl Future<Output = Result<T, redis::RedisError>>) -> Option<T> {
    tokio::time::timeout(RELAY, work).await.ok()?.ok()
}
