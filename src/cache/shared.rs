//! L2: rows that instances share through Redis, and the word that something changed.
//!
//! Nothing that is read here is believed for being here. An entry carries a MAC, so that whoever can write to Redis
//! can't make a key; and its stamp, so that it is used only while [`Freshness`](super::freshness::Freshness) knows of
//! no later change. A change that is announced here is only a reason to look into the database's log at once. So a
//! Redis that is slow, flushed, gone or taken over costs time, and nothing else.

mod breaker;
mod entry;
mod link;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

pub(crate) use breaker::Breaker;
pub use breaker::BreakerState;
pub use entry::SharedEntry;
pub(crate) use link::Link;
pub use link::{LinkError, RedisSettings, RedisTls};

use crate::clock::Clock;
use crate::credential::secrets::HmacSecrets;
use crate::key::{KeyId, NetworkId};
use crate::store::Mutation;
use entry::{entry_name, is_announcement, open_entry, seal_announcement, seal_entry};

/// How long a change waits for being announced, before it is acknowledged.
const ANNOUNCE: Duration = Duration::from_millis(50);
/// Most entries on their way to Redis at once; further ones aren't written.
const MAX_WRITES: usize = 256;

/// The tier that instances share.
pub struct Shared {
    link: Link,
    breaker: Breaker,
    check_timeout: Duration,
    writes: Arc<Semaphore>,
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
        })
    }

    /// Keeps connected and listens, for ever. `changed` is notified when a change was announced under the secrets that
    /// `secrets` gives, and whenever one may have been missed.
    pub async fn run(&self, changed: &Notify, with_secrets: impl Fn(&dyn Fn(&HmacSecrets) -> bool) -> bool) {
        let is_ours =
            |message: &[u8]| with_secrets(&|secrets| is_announcement(secrets, self.breaker.now(), message));
        self.link.run(changed, is_ours).await;
    }

    /// What the circuit breaker lets through.
    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    /// The entry of a key; None when there is none, it isn't ours, or Redis gives no answer in time.
    pub async fn get(&self, secrets: &HmacSecrets, network: NetworkId, key_id: KeyId) -> Option<SharedEntry> {
        let attempt = self.breaker.try_begin()?;
        let name = entry_name(network, key_id);
        let get = self.link.get(&name);
        match tokio::time::timeout(self.check_timeout, get).await {
            Ok(Ok(value)) => {
                attempt.succeeded();
                value.and_then(|value| open_entry(secrets, self.breaker.now(), network, key_id, &value))
            }
            Ok(Err(_)) | Err(_) => {
                attempt.failed();
                None
            }
        }
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
