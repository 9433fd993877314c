//! Commands on a connection that a background task keeps up.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, PushInfo, PushKind, RedisError, RedisResult};
use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::breaker::CircuitBreaker;
use super::cause::{Cause, CauseKind};
use super::connection::{Alive, Connected, Connection, Pushes, Target, texts};
use super::health::{Health, RedisReport};
use super::settings::{RedisSettings, RedisSettingsError};
use super::single::RightsCheck;
use crate::clock::Clock;

/// First pause after a connection that failed; each further one is twice as long.
const MIN_RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to connect: what was cured is used again within seconds.
const MAX_RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks at a connection: whether it is alive, and its server still the primary.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Stands for the circuit breaker where a command is named.
const BREAKER: &str = "circuit breaker";

/// Client with one multiplexed connection. Commands fail at once while it isn't connected.
pub(crate) struct RedisClient {
    target: Target,
    settings: RedisSettings,
    connection: ArcSwapOption<Connection>,
    breaker: CircuitBreaker,
    health: Health,
    /// Wakes the task that connects: the present connection can't be used.
    reconnect: Notify,
    rights: RightsCheck,
}

/// Use of a client.
pub(crate) struct RedisUse {
    /// Name, for log, status and metrics.
    pub purpose: &'static str,
    /// Consequence while Redis can't be used.
    pub effect: &'static str,
    /// Commands that the user must be allowed to run.
    pub rights: RightsCheck,
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
    pub(crate) fn new(
        settings: RedisSettings,
        clock: Clock,
        RedisUse { purpose, effect, rights }: RedisUse,
    ) -> Result<Self, RedisSettingsError> {
        Ok(Self {
            target: Target::new(&settings)?,
            settings,
            connection: ArcSwapOption::empty(),
            breaker: CircuitBreaker::new(clock.clone()),
            health: Health::new(clock, purpose, effect),
            reconnect: Notify::new(),
            rights,
        })
    }

    /// Returns what is known of Redis.
    pub(crate) fn report(&self) -> RedisReport {
        self.health.report()
    }

    /// Timeout of commands that no request waits for.
    pub(crate) const fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Circuit breaker of commands that requests wait for.
    pub(crate) const fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }

    /// Runs a command that a request waits for: within `check_timeout`, and not at all while the
    /// breaker is open. Returns `None` without a result.
    pub(crate) async fn guarded<T>(&self, command: impl Future<Output = RedisResult<T>>) -> Option<T> {
        let permit = self.breaker.try_acquire()?;
        match tokio::time::timeout(self.settings.check_timeout, command).await {
            Ok(Ok(value)) => {
                if permit.succeeded() {
                    self.health.command_succeeded(BREAKER);
                }
                Some(value)
            }
            Ok(Err(_)) | Err(_) => {
                // Without a connection, the reason why there is none is known, or will be at once.
                if permit.failed() && self.connection.load().is_some() {
                    let limit = self.settings.check_timeout;
                    let reason = format!("several commands in a row failed, or took longer than {limit:?}");
                    self.health.degrade(Cause::new(CauseKind::Slow, reason), BREAKER);
                }
                None
            }
        }
    }

    /// Reads a value.
    pub(crate) async fn get(&self, name: &str) -> RedisResult<Option<Vec<u8>>> {
        self.query(::redis::cmd("GET").arg(name)).await
    }

    /// Reads values whose names a cluster keeps on one node.
    pub(crate) async fn get_many(&self, names: &[String]) -> RedisResult<Vec<Option<Vec<u8>>>> {
        self.query(::redis::cmd("MGET").arg(names)).await
    }

    /// Writes a value that expires after `ttl`.
    pub(crate) async fn set(&self, name: &str, value: Vec<u8>, ttl: Duration) -> RedisResult<()> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.query(::redis::cmd("SET").arg(name).arg(value).arg("PX").arg(millis)).await
    }

    /// Publishes a message and deletes values, side by side. Each value is deleted by a command of
    /// its own, as a cluster's keys lie on different nodes.
    pub(crate) async fn publish_and_delete(
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

    /// Runs a script on names that a cluster keeps on one node; its result is a list of numbers.
    pub(crate) async fn eval(
        &self,
        script: &str,
        names: &[&str],
        arguments: &[u64],
    ) -> RedisResult<Vec<u64>> {
        self.query(::redis::cmd("EVAL").arg(script).arg(names.len()).arg(names).arg(arguments)).await
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let connection = self.connection.load_full();
        let connection =
            connection.ok_or_else(|| RedisError::from((::redis::ErrorKind::Io, "not connected")))?;
        let result = (*connection).clone().query(command).await;
        match &result {
            Ok(_) if self.health.is_degraded() => self.health.command_succeeded(&name_of(command)),
            Ok(_) => {}
            Err(error) => self.note_failure(&connection, error, command),
        }
        result
    }

    /// Records the cause that a server gave for refusing a command.
    fn note_failure(&self, used: &Arc<Connection>, error: &RedisError, command: &Cmd) {
        let cause = Cause::from(error.clone());
        let is_current = self.connection.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, used));
        // The check of the connection finds out if the network works.
        if !is_current || matches!(cause.kind, CauseKind::Unreachable | CauseKind::Tls) {
            return;
        }
        let needs_new_connection = cause.kind.needs_new_connection();
        if needs_new_connection {
            self.reconnect.notify_one();
        }
        let command = if needs_new_connection { String::new() } else { name_of(command) };
        self.health.degrade(cause, &command);
    }

    /// Connects, and reconnects whenever the connection is lost; never returns.
    pub(crate) async fn run(&self) {
        self.keep_connected(None::<Subscription<'_, fn(&[u8]) -> bool>>).await;
    }

    /// Keeps connected like [`RedisClient::run`], and listens to a channel.
    pub(crate) async fn run_subscribed<F: Fn(&[u8]) -> bool>(&self, subscription: Subscription<'_, F>) {
        self.keep_connected(Some(subscription)).await;
    }

    /// Connects again and again, with growing pauses. A subscriber is notified at each connection
    /// and its loss, as it may have missed messages.
    async fn keep_connected<F: Fn(&[u8]) -> bool>(&self, subscription: Option<Subscription<'_, F>>) {
        let channel = subscription.as_ref().map(|subscription| subscription.channel);
        let may_have_missed = || {
            if let Some(subscription) = &subscription {
                subscription.notify.notify_one();
            }
        };
        let mut pause = MIN_RECONNECT_PAUSE;
        loop {
            match self.target.connect(channel, self.rights).await {
                Ok(mut connected) => {
                    pause = MIN_RECONNECT_PAUSE;
                    self.health.connected(connected.server.clone());
                    self.connection.store(Some(Arc::new(connected.connection.clone())));
                    self.breaker.allow_probe();
                    may_have_missed();
                    let cause = self.listen(&mut connected, subscription.as_ref()).await;
                    self.connection.store(None);
                    may_have_missed();
                    match cause {
                        Some(cause) => self.health.degrade(cause, ""),
                        // The next attempt to connect shows if this is worth a warning.
                        None => tracing::debug!(server = connected.server, "the connection to Redis is lost"),
                    }
                }
                Err(cause) => self.health.connecting_failed(cause),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_RECONNECT_PAUSE);
        }
    }

    /// Listens until the connection is lost or can't be used. Returns the cause if it is known.
    async fn listen<F: Fn(&[u8]) -> bool>(
        &self,
        Connected { connection, pushes, primary, .. }: &mut Connected,
        subscription: Option<&Subscription<'_, F>>,
    ) -> Option<Cause> {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        loop {
            tokio::select! {
                biased;
                () = self.reconnect.notified() => return None,
                _ = looks.tick() => match self.target.look_at(connection, primary.as_ref()).await {
                    Alive::Yes => {}
                    Alive::No => return None,
                    Alive::Unusable(cause) => return Some(cause),
                },
                push = next_push(pushes) => match (&push.kind, subscription) {
                    (PushKind::Message, Some(subscription))
                        if texts(&push).any(|text| (subscription.is_relevant)(text)) =>
                    {
                        subscription.notify.notify_one();
                    }
                    // A cluster reconnects a node by itself, and may have missed messages.
                    (PushKind::Disconnection, Some(subscription)) if connection.is_cluster() => {
                        subscription.notify.notify_one();
                    }
                    (PushKind::Disconnection, None) if connection.is_cluster() => {}
                    (PushKind::Disconnection, _) => return None,
                    _ => {}
                },
            }
        }
    }
}

/// Waits for the next pushed message; a channel that is closed stands for a lost connection.
async fn next_push(pushes: &mut Pushes) -> PushInfo {
    pushes.recv().await.unwrap_or(PushInfo { kind: PushKind::Disconnection, data: vec![] })
}

/// Returns the name of a command.
fn name_of(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(::redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}
