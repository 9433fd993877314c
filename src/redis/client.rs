//! Commands on a connection that a background task keeps up.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, RedisError, RedisResult};
use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::breaker::CircuitBreaker;
use super::connection::{Connection, Event, Pushes, Target, texts};
use super::settings::{RedisSettings, RedisSettingsError};
use crate::clock::Clock;

/// First pause after a connection that failed; each further one is twice as long.
const MIN_RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to connect.
const MAX_RECONNECT_PAUSE: Duration = Duration::from_secs(5);

/// Client with one multiplexed connection. Commands fail at once while it isn't connected.
pub(crate) struct RedisClient {
    target: Target,
    settings: RedisSettings,
    connection: ArcSwapOption<Connection>,
    breaker: CircuitBreaker,
    /// Use of this client, for the log.
    purpose: &'static str,
}

/// Channel to listen to.
pub(crate) struct Subscription<'a, F> {
    /// Name of the channel.
    pub channel: &'static str,
    /// Selects messages by their payload.
    pub is_relevant: F,
    /// Notified after a relevant message, and whenever one may have been missed.
    pub notify: &'a Notify,
}

impl RedisClient {
    /// Checks settings; [`RedisClient::run`] connects.
    ///
    /// # Errors
    /// When an address or a certificate can't be used, or plaintext would leave this machine and
    /// isn't allowed to.
    pub fn new(
        settings: RedisSettings,
        clock: Clock,
        purpose: &'static str,
    ) -> Result<Self, RedisSettingsError> {
        Ok(Self {
            target: Target::new(&settings)?,
            settings,
            connection: ArcSwapOption::empty(),
            breaker: CircuitBreaker::new(clock, purpose),
            purpose,
        })
    }

    /// Timeout of commands that no request waits for.
    pub const fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Circuit breaker of commands that requests wait for.
    pub const fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// Runs a command that a request waits for: within `check_timeout`, and not at all while the
    /// breaker is open. Returns `None` without a result.
    pub async fn guarded<T>(&self, command: impl Future<Output = RedisResult<T>>) -> Option<T> {
        let permit = self.breaker.try_acquire()?;
        match tokio::time::timeout(self.settings.check_timeout, command).await {
            Ok(Ok(value)) => {
                permit.succeeded();
                Some(value)
            }
            Ok(Err(_)) | Err(_) => {
                permit.failed();
                None
            }
        }
    }

    /// Reads a value.
    pub async fn get(&self, name: &str) -> RedisResult<Option<Vec<u8>>> {
        self.query(::redis::cmd("GET").arg(name)).await
    }

    /// Reads values whose names a cluster keeps on one node.
    pub async fn get_many(&self, names: &[String]) -> RedisResult<Vec<Option<Vec<u8>>>> {
        self.query(::redis::cmd("MGET").arg(names)).await
    }

    /// Writes a value that expires after `ttl`.
    pub async fn set(&self, name: &str, value: Vec<u8>, ttl: Duration) -> RedisResult<()> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.query(::redis::cmd("SET").arg(name).arg(value).arg("PX").arg(millis)).await
    }

    /// Publishes a message and deletes values, side by side. Each value is deleted by a command of
    /// its own, as a cluster's keys lie on different nodes.
    pub async fn publish_and_delete(
        &self,
        channel: &str,
        message: Option<Vec<u8>>,
        names: &[String],
    ) -> RedisResult<()> {
        let publish = message.map(|message| ::redis::cmd("PUBLISH").arg(channel).arg(message).to_owned());
        let delete = names.iter().map(|name| ::redis::cmd("DEL").arg(name).to_owned());
        let commands: Vec<Cmd> = publish.into_iter().chain(delete).collect();
        let all = commands.iter().map(|command| self.query::<()>(command));
        futures_util::future::try_join_all(all).await.map(drop)
    }

    /// Runs a script on one name; its result is two numbers.
    pub async fn eval(&self, script: &str, name: &str, arguments: &[u64]) -> RedisResult<[u64; 2]> {
        let (first, second) =
            self.query(::redis::cmd("EVAL").arg(script).arg(1).arg(name).arg(arguments)).await?;
        Ok([first, second])
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let connection = self.connection.load_full();
        let connection =
            connection.ok_or_else(|| RedisError::from((::redis::ErrorKind::Io, "not connected")))?;
        (*connection).clone().query(command).await
    }

    /// Connects, and reconnects whenever the connection is lost; never returns.
    pub async fn run(&self) {
        self.keep_connected(None::<Subscription<'_, fn(&[u8]) -> bool>>).await;
    }

    /// Keeps connected like [`RedisClient::run`], and listens to a channel.
    pub async fn run_subscribed<F: Fn(&[u8]) -> bool>(&self, subscription: Subscription<'_, F>) {
        self.keep_connected(Some(subscription)).await;
    }

    async fn keep_connected<F: Fn(&[u8]) -> bool>(&self, subscription: Option<Subscription<'_, F>>) {
        let (purpose, timeout) = (self.purpose, self.settings.timeout);
        let channel = subscription.as_ref().map(|subscription| subscription.channel);
        let may_have_missed = || {
            if let Some(subscription) = &subscription {
                subscription.notify.notify_one();
            }
        };
        let mut pause = MIN_RECONNECT_PAUSE;
        loop {
            match tokio::time::timeout(timeout, self.target.connect(timeout, channel)).await {
                Ok(Ok((connection, mut pushes))) => {
                    tracing::info!(purpose, "connected to Redis");
                    pause = MIN_RECONNECT_PAUSE;
                    self.connection.store(Some(Arc::new(connection.clone())));
                    may_have_missed();
                    self.listen(connection, &mut pushes, subscription.as_ref()).await;
                    self.connection.store(None);
                    tracing::warn!(purpose, "the connection to Redis is lost: reconnecting");
                    may_have_missed();
                }
                Ok(Err(error)) => {
                    // The text may quote the server, and never has a password.
                    tracing::warn!(purpose, kind = ?error.kind(), %error, "Redis can't be reached");
                }
                Err(_) => tracing::warn!(purpose, "Redis doesn't answer: connecting timed out"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RECONNECT_PAUSE);
        }
    }

    /// Listens until the connection is lost.
    async fn listen<F: Fn(&[u8]) -> bool>(
        &self,
        connection: Connection,
        pushes: &mut Pushes,
        subscription: Option<&Subscription<'_, F>>,
    ) {
        loop {
            let event = connection.next_event(pushes, self.settings.timeout).await;
            match (event, subscription) {
                (Event::Closed, _) => return,
                (Event::Message(push), Some(subscription)) => {
                    if texts(&push).any(|text| (subscription.is_relevant)(text)) {
                        subscription.notify.notify_one();
                    }
                }
                (Event::Reconnected, Some(subscription)) => subscription.notify.notify_one(),
                (Event::Message(_) | Event::Reconnected, None) => {}
            }
        }
    }
}
