//! Health of one client's Redis: the cause for which it can't be used, said once in the log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::cause::{Cause, CauseKind};
use crate::clock::{BootTime, Clock};

/// Time within which commands that take too long are logged once: on a busy machine a few of them
/// come and go.
const SLOW_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// State of a client's Redis, for status and metrics.
#[derive(Debug, Clone)]
pub struct RedisReport {
    /// Use of the client.
    pub purpose: &'static str,
    /// Address of the server, or number of the cluster's addresses; `None` before the first
    /// connection.
    pub server: Option<String>,
    /// Cause for which it can't be used; `None` while it can.
    pub cause: Option<Cause>,
    /// Time since it can't be used.
    pub degraded_for: Duration,
    /// Consequence meanwhile.
    pub effect: &'static str,
    /// Attempts to connect that failed, since the start.
    pub connection_failures: u64,
}

/// Health of a client.
pub(super) struct Health {
    clock: Clock,
    purpose: &'static str,
    effect: &'static str,
    state: Mutex<State>,
    is_degraded: AtomicBool,
    connection_failures: AtomicU64,
}

#[derive(Default)]
struct State {
    server: Option<String>,
    degraded: Option<Degraded>,
    /// Time at which slow commands were last logged.
    slow_logged: Option<BootTime>,
}

struct Degraded {
    cause: Cause,
    since: BootTime,
    /// Command whose success shows that the cause is gone; any connection if it is empty.
    command: String,
    is_logged: bool,
}

impl State {
    /// Returns true if a cause is worth a line of the log.
    fn is_news(&mut self, kind: CauseKind, now: BootTime) -> bool {
        if self.degraded.as_ref().is_some_and(|known| known.cause.kind == kind) {
            return false;
        }
        if kind != CauseKind::Slow {
            return true;
        }
        let is_due = self.slow_logged.is_none_or(|logged| now.since(logged) >= SLOW_LOG_INTERVAL);
        if is_due {
            self.slow_logged = Some(now);
        }
        is_due
    }
}

impl Health {
    /// Creates the health of a client before its first connection. `effect` says what happens while
    /// Redis can't be used.
    pub(super) fn new(clock: Clock, purpose: &'static str, effect: &'static str) -> Self {
        Self {
            clock,
            purpose,
            effect,
            state: Mutex::default(),
            is_degraded: AtomicBool::new(false),
            connection_failures: AtomicU64::new(0),
        }
    }

    /// Records an attempt to connect that failed.
    pub(super) fn connecting_failed(&self, cause: Cause) {
        self.connection_failures.fetch_add(1, Ordering::Relaxed);
        self.degrade(cause, "");
    }

    /// Records a cause. It is logged unless it is the one that is known already.
    pub(super) fn degrade(&self, cause: Cause, command: &str) {
        let (mut state, now) = (self.state.lock(), self.clock.boot_now());
        // The cause of a failed command doesn't replace that of a failed connection.
        let is_outranked = state.degraded.as_ref().is_some_and(|known| known.command.is_empty());
        if !command.is_empty() && is_outranked {
            return;
        }
        let is_news = state.is_news(cause.kind, now);
        if is_news {
            self.log(&cause);
        }
        let before = state.degraded.take();
        let was_logged = before.as_ref().is_some_and(|before| before.is_logged);
        state.degraded = Some(Degraded {
            cause,
            since: before.map_or(now, |before| before.since),
            command: command.to_owned(),
            is_logged: is_news || was_logged,
        });
        self.is_degraded.store(true, Ordering::Relaxed);
    }

    fn log(&self, cause: &Cause) {
        let (purpose, effect, cure) = (self.purpose, self.effect, cause.kind.cure());
        let (cause, reason) = (cause.kind, &cause.reason);
        let name = cause.name();
        match cause {
            CauseKind::Unreachable | CauseKind::Tls => {
                tracing::warn!(purpose, cause = name, %reason, cure, "Redis can't be reached: {effect}");
            }
            _ => tracing::warn!(purpose, cause = name, %reason, cure, "Redis can't be used: {effect}"),
        }
    }

    /// Records a connection that may be used.
    pub(super) fn connected(&self, server: String) {
        let mut state = self.state.lock();
        let purpose = self.purpose;
        let degraded = state.degraded.take();
        self.is_degraded.store(false, Ordering::Relaxed);
        match degraded {
            Some(Degraded { since, .. }) => {
                let after = self.clock.boot_now().since(since);
                tracing::info!(purpose, server, after = ?after, "connected to Redis again");
            }
            None if state.server.as_deref() != Some(server.as_str()) => {
                tracing::info!(purpose, server, "connected to Redis");
            }
            None => tracing::debug!(purpose, server, "connected to Redis"),
        }
        state.server = Some(server);
    }

    /// Returns true if a command's success may say something.
    pub(super) fn is_degraded(&self) -> bool {
        self.is_degraded.load(Ordering::Relaxed)
    }

    /// Records that a command succeeded: a cause that this command had found is gone.
    pub(super) fn command_succeeded(&self, command: &str) {
        let mut state = self.state.lock();
        let is_cured =
            state.degraded.as_ref().is_some_and(|known| !command.is_empty() && known.command == command);
        if !is_cured {
            return;
        }
        let was_logged = state.degraded.take().is_some_and(|known| known.is_logged);
        self.is_degraded.store(false, Ordering::Relaxed);
        if was_logged {
            tracing::info!(purpose = self.purpose, "Redis can be used again");
        }
    }

    /// Returns the state.
    pub(super) fn report(&self) -> RedisReport {
        let state = self.state.lock();
        let degraded = state.degraded.as_ref();
        let now = self.clock.boot_now();
        RedisReport {
            purpose: self.purpose,
            server: state.server.clone(),
            cause: degraded.map(|degraded| degraded.cause.clone()),
            degraded_for: degraded.map_or(Duration::ZERO, |degraded| now.since(degraded.since)),
            effect: self.effect,
            connection_failures: self.connection_failures.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn health() -> (Clock, Health) {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        (clock.clone(), Health::new(clock, "tests", "nothing is tested"))
    }

    fn kind(health: &Health) -> Option<CauseKind> {
        health.report().cause.map(|cause| cause.kind)
    }

    #[test]
    fn a_cause_lasts_until_what_found_it_succeeds() {
        let (clock, health) = health();
        health.connected("one".to_owned());
        assert!(!health.is_degraded() && kind(&health).is_none());
        health.degrade(Cause::new(CauseKind::OutOfMemory, "full"), "SET");
        clock.advance(Duration::from_secs(3));
        health.command_succeeded("GET");
        assert_eq!(
            (kind(&health), health.report().degraded_for.as_secs()),
            (Some(CauseKind::OutOfMemory), 3)
        );
        health.command_succeeded("SET");
        assert_eq!(kind(&health), None);

        health.connecting_failed(Cause::new(CauseKind::Replica, "a replica"));
        health.degrade(Cause::new(CauseKind::OutOfMemory, "full"), "SET");
        health.command_succeeded("SET");
        assert_eq!(kind(&health), Some(CauseKind::Replica), "a command doesn't outrank a connection");
        health.connected("one".to_owned());
        assert_eq!((kind(&health), health.report().connection_failures), (None, 1));
    }

    #[test]
    fn each_change_is_news_once_and_slow_commands_once_a_minute() {
        let now = |seconds: u64| BootTime::from_micros(seconds * 1_000_000);
        let mut state = State::default();
        assert!(state.is_news(CauseKind::Slow, now(1)));
        assert!(!state.is_news(CauseKind::Slow, now(60)) && state.is_news(CauseKind::Slow, now(61)));
        let (_, health) = health();
        health.degrade(Cause::new(CauseKind::Replica, "a replica"), "");
        let mut state = health.state.lock();
        assert!(!state.is_news(CauseKind::Replica, now(2)) && state.is_news(CauseKind::Tls, now(2)));
    }
}
