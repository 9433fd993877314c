//! How this process is doing, in one reading: for `GET /status`, for `talos status` and for the gauges of `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::metrics::Metrics;
use crate::cache::freshness::Mode;
use crate::clock::{BootTime, Clock};
use crate::plane::{Plane, Planes};
use crate::readiness::Readiness;
use crate::redis::BreakerState;
use crate::service::Service;

/// Oldest reading of the log's end that still says something.
const MAX_LOG_AGE: Duration = Duration::from_secs(5);

/// For how long it is a problem that the deny list shrank: long enough to be seen by who looks
/// after a change.
const MAX_SHRUNK_AGE: Duration = Duration::from_secs(600);

/// What is known of the process beside its work.
pub struct Process {
    started: BootTime,
    planes: Vec<&'static str>,
    /// The newest number of the log when it was last asked for, and when that was; 0 before the first time.
    log_newest: AtomicU64,
    log_read: AtomicU64,
}

impl Process {
    /// A process that serves these planes from now on.
    pub fn new(planes: Planes, clock: &Clock) -> Self {
        let (log_newest, log_read) = (AtomicU64::new(0), AtomicU64::new(0));
        let planes = planes.iter().map(Plane::name).collect();
        Self { started: clock.boot_now(), planes, log_newest, log_read }
    }

    /// Notes where the log ended at `at`.
    pub fn record_log_head(&self, newest: u64, at: BootTime) {
        self.log_newest.store(newest, Ordering::Relaxed);
        self.log_read.store(at.as_micros().max(1), Ordering::Release);
    }

    /// Where the log ended lately.
    fn log_newest(&self, now: BootTime) -> Option<u64> {
        let read = self.log_read.load(Ordering::Acquire);
        let known = read != 0 && now.since(BootTime::from_micros(read)) <= MAX_LOG_AGE;
        known.then(|| self.log_newest.load(Ordering::Relaxed))
    }
}

/// The reading. Times are in seconds; what isn't known is absent.
#[derive(Debug, Serialize)]
pub struct Status {
    /// How the process may answer: see [`Mode`].
    pub mode: &'static str,
    /// What is wrong, in words, the worst first.
    pub problems: Vec<String>,
    /// How long after its revocation a key may still be allowed here, as things stand.
    pub bound_seconds: f64,
    /// The same for all that is derived from the key.
    pub exposure: Exposure,
    /// How fresh our knowledge is.
    pub lease: Lease,
    /// What another instance tells of the database.
    pub relay: Relay,
    /// The number of the log up to which every change is known here.
    pub epoch: u64,
    /// The log itself.
    pub log: Log,
    /// The polls of the log, and the server that they come from.
    pub poll: Poll,
    /// The database.
    pub database: Database,
    /// L1.
    pub cache: Cache,
    /// What Redis's circuit breaker says: `closed` lets everything through; `none` without Redis.
    pub breaker: &'static str,
    /// The operator's own list.
    pub deny_list: DenyList,
    /// The audit log; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditLog>,
    /// Of the program.
    pub version: &'static str,
    /// Since the process began to serve.
    pub uptime_seconds: f64,
    /// The settings in force.
    pub settings: InForce,
    /// What is served.
    pub planes: Vec<&'static str>,
}

/// How long after its revocation a key or what was made of it may still be of use.
#[derive(Debug, Serialize)]
pub struct Exposure {
    /// The key itself, at the edge.
    pub key_seconds: f64,
    /// A token that went upstream (`authz.token_ttl`); a backend's own leeway comes on top.
    pub upstream_token_seconds: f64,
    /// A token derived through the API, where it is verified without us:
    /// `credentials.derived_tokens.max_ttl`, or what is left of the life of tokens that were
    /// derived under a longer one since the process began.
    pub derived_token_seconds: f64,
}

/// The lease.
#[derive(Debug, Serialize)]
pub struct Lease {
    /// How long the knowledge of one poll counts.
    pub seconds: f64,
    /// How long known keys stay valid after that, while the database can't be asked.
    pub grace_seconds: f64,
    /// How often it has run out.
    pub lapses: u64,
    /// How often it was found after that that the database can't be reached.
    pub outages: u64,
    /// How old the knowledge in force is; absent before the first poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
}

/// `consistency.relay`: the log of changes, through Redis.
#[derive(Debug, Serialize)]
pub struct Relay {
    /// How much longer than the lease what is relayed counts; 0 when nothing is relayed.
    pub seconds: f64,
    /// How old what was relayed last is; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Answers given to instances that can't reach the database.
    pub answers: u64,
}

/// The log of changes, as the database has it.
#[derive(Debug, Serialize)]
pub struct Log {
    /// Its newest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<u64>,
    /// How many changes are not known here yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// How many old entries were deleted by this process.
    pub trimmed: u64,
    /// How often it was found rewritten (a restore, a failover), and all that was cached dropped.
    pub rewritten: u64,
}

/// The polls of the log, and the server that they come from.
#[derive(Debug, Serialize)]
pub struct Poll {
    /// Address and version of the server that the last poll came from; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What it is: `primary`, the only role that polls are taken from; for SQLite `file`. Absent before the first poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// What tells the server from every other; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// For how long polls have come from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_age_seconds: Option<f64>,
    /// How long the last one that succeeded took.
    pub seconds: f64,
    /// How many failed: no answer, an error, or an answer that proves nothing.
    pub failures: u64,
    /// Why the last one that failed did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// How long ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_age_seconds: Option<f64>,
    /// Why no new connection can be made beside the one that polls use; absent while one can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect_error: Option<String>,
}

/// The database.
#[derive(Debug, Serialize)]
pub struct Database {
    /// Whether it answers.
    pub answers: bool,
    /// Key rows asked of it, ever.
    pub key_reads: u64,
    /// Lookups of credentials that nobody here had seen before, sent away as there were too many at once.
    pub guesses_refused: u64,
    /// Open connections.
    pub connections: u32,
    /// Those of them that nobody uses.
    pub idle_connections: u32,
    /// Most that there may be.
    pub max_connections: u32,
}

/// L1, and L2 behind it.
#[derive(Debug, Serialize)]
pub struct Cache {
    /// Whether it is used.
    pub enabled: bool,
    /// Keys held.
    pub keys: u64,
    /// Ids held that are known to be unknown.
    pub unknown_keys: u64,
    /// Checks that it answered.
    pub hits: u64,
    /// Checks that it couldn't answer.
    pub misses: u64,
    /// The share of the former; absent while there are neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<f64>,
    /// Lookups that Redis answered.
    pub redis_hits: u64,
    /// Lookups that it couldn't answer.
    pub redis_misses: u64,
    /// The share of the former; absent while there are neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_hit_ratio: Option<f64>,
}

/// `consistency.deny_file`.
#[derive(Debug, Serialize)]
pub struct DenyList {
    /// Keys that it refuses.
    pub keys: u64,
    /// Whether the file is there and what it says is in force.
    pub current: bool,
    /// Keys that are still refused although the file no longer names them; absent when there are
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// The last time that the list lost so many keys that it needed a second look; absent before
    /// the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<Shrunk>,
}

/// A deny list that lost many keys.
#[derive(Debug, Serialize)]
pub struct Shrunk {
    /// Keys refused before.
    pub from: u64,
    /// Keys refused since.
    pub to: u64,
    /// How long ago.
    pub age_seconds: f64,
}

/// The audit log.
#[derive(Debug, Serialize)]
pub struct AuditLog {
    /// Whether what was to be written last could be.
    pub writable: bool,
    /// Lines written by this process.
    pub lines: u64,
    /// Times that nothing could be written.
    pub failures: u64,
}

/// The settings in force.
#[derive(Debug, Serialize)]
pub struct InForce {
    /// Their number, counted from the start.
    pub generation: u64,
    /// Whether all that was read last of the configuration is in force.
    pub current: bool,
}

impl Status {
    /// Reads everything, and asks nobody.
    pub fn read(service: &Service, metrics: &Metrics, readiness: &Readiness, process: &Process) -> Self {
        // long: one field of the status after the other.
        let (settings, freshness) = (service.snapshot(), &service.freshness);
        let (mode, now, epoch) = (freshness.mode(), service.clock.boot_now(), freshness.polled_to());
        let seconds = |duration: Duration| duration.as_secs_f64();
        let bound = freshness.bound();
        let newest = process.log_newest(now);
        let connections = service.store.pool_stats();
        let (hits, misses) = metrics.lookups.hits_and_misses();
        let shared = service.shared.as_ref();
        let (redis_hits, redis_misses) = shared.map_or((0, 0), |shared| shared.hits_and_misses());
        let terms = freshness.config();
        let mut status = Self {
            mode: mode.name(),
            problems: vec![],
            bound_seconds: seconds(bound),
            exposure: Exposure {
                key_seconds: seconds(bound),
                upstream_token_seconds: seconds(bound + settings.authz.token_ttl),
                derived_token_seconds: seconds(
                    bound + settings.longest_token_ttl().max(service.outstanding.left(now)),
                ),
            },
            lease: Lease {
                seconds: seconds(terms.lease),
                grace_seconds: seconds(terms.grace),
                lapses: freshness.lapses(),
                outages: freshness.outages(),
                age_seconds: freshness.age().map(seconds),
            },
            relay: Relay {
                seconds: seconds(shared.map_or(Duration::ZERO, |_| terms.relay)),
                age_seconds: freshness.relayed_age().map(seconds),
                answers: shared.map_or(0, |shared| shared.relay_responses()),
            },
            epoch,
            log: Log {
                newest,
                // What was polled since is known all the same.
                lag: newest.map(|newest| newest.saturating_sub(epoch)),
                trimmed: metrics.log_trimmed.get(),
                rewritten: freshness.rewrites(),
            },
            poll: Poll::read(service, now),
            database: Database {
                answers: readiness.is_database_up(&service.clock),
                key_reads: service.store.key_reads(),
                guesses_refused: service.bulkhead.refused(),
                connections: connections.open,
                idle_connections: connections.idle,
                max_connections: connections.max,
            },
            cache: Cache {
                enabled: settings.cache_enabled,
                keys: service.memory.len(),
                unknown_keys: service.memory.negative_len(),
                hits,
                misses,
                hit_ratio: share(hits, misses),
                redis_hits,
                redis_misses,
                redis_hit_ratio: share(redis_hits, redis_misses),
            },
            breaker: breaker(service).unwrap_or("none"),
            deny_list: DenyList {
                keys: service.deny_list.load().len() as u64,
                current: metrics.deny_file.is_current(),
                held: Some(metrics.deny_file.held()).filter(|held| *held > 0),
                shrunk: metrics.deny_file.shrunk().map(|shrunk| Shrunk {
                    from: shrunk.from,
                    to: shrunk.to,
                    age_seconds: seconds(now.since(shrunk.at)),
                }),
            },
            audit: service.audit.log().map(|log| AuditLog {
                writable: !log.state().is_failing(),
                lines: log.state().lines(),
                failures: log.state().failures(),
            }),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: seconds(now.since(process.started)),
            settings: InForce {
                generation: settings.generation,
                current: metrics.reloads.was_last_successful(),
            },
            planes: process.planes.clone(),
        };
        status.problems = status.problems(mode, readiness.is_draining());
        status
    }

    fn problems(&self, mode: Mode, is_draining: bool) -> Vec<String> {
        let Self { lease, relay, database, deny_list, .. } = self;
        let age = lease.age_seconds.into_iter().chain(relay.age_seconds).fold(f64::INFINITY, f64::min);
        let left = (lease.seconds + lease.grace_seconds - age).max(0.0);
        let mut problems = vec![];
        match (mode, lease.age_seconds) {
            (Mode::Fresh, _) => {}
            (Mode::Relayed, _) => problems.push(format!(
                "the log of changes can't be polled from here: another instance relays it, {:.1} s ago the last time; \
                 unknown keys get 503",
                relay.age_seconds.unwrap_or_default()
            )),
            (Mode::Static, _) => problems.push(format!(
                "the log of changes can't be polled: known keys stay valid for {left:.0} s more, even those that \
                 are revoked elsewhere, and unknown ones get 503"
            )),
            (Mode::Closed, None) => {
                problems.push("the log of changes was never polled: every key gets 503".to_owned());
            }
            (Mode::Closed, Some(age)) => problems.push(format!(
                "the log of changes was last polled {age:.0} s ago, which is too long: every key gets 503"
            )),
        }
        match (mode, &self.poll) {
            (Mode::Fresh, Poll { reconnect_error: Some(error), .. }) => problems.push(format!(
                "no new connection to the database can be made, and the lease runs out unless one is: {error}"
            )),
            (Mode::Fresh, _) => {}
            (_, Poll { last_failure: Some(reason), .. }) => {
                problems.push(format!("the last poll that failed: {reason}"));
            }
            _ => {}
        }
        if is_draining {
            problems.push("the process is stopping".to_owned());
        } else if !database.answers {
            problems.push("the database gives no answer: readiness is off".to_owned());
        }
        if self.audit.as_ref().is_some_and(|audit| !audit.writable) {
            problems.push("the audit log can't be written: changes get 503".to_owned());
        }
        if let Some(held) = deny_list.held {
            problems.push(format!(
                "consistency.deny_file no longer names {held} of the {} keys that it refuses (was it truncated?): they \
                 stay refused until it has stood unchanged for ten seconds",
                deny_list.keys
            ));
        } else if !deny_list.current {
            problems.push(format!(
                "consistency.deny_file is gone or was refused (the log says why): the last list, of {} keys, is in force",
                deny_list.keys
            ));
        }
        if let Some(shrunk) = &deny_list.shrunk
            && shrunk.age_seconds < MAX_SHRUNK_AGE.as_secs_f64()
        {
            problems.push(format!(
                "consistency.deny_file shrank from {} keys to {}, {:.0} s ago: what it no longer names is allowed again",
                shrunk.from, shrunk.to, shrunk.age_seconds
            ));
        }
        if matches!(self.breaker, "open" | "half-open") {
            problems.push("Redis fails: the database answers in its place".to_owned());
        }
        if !self.settings.current {
            let problem =
                "the configuration or a key set that was read last is not in force (the log says why)";
            problems.push(problem.to_owned());
        }
        if database.idle_connections == 0 && database.connections >= database.max_connections {
            problems.push(format!("all {} connections to the database are in use", database.connections));
        }
        problems
    }
}

impl Poll {
    fn read(service: &Service, now: BootTime) -> Self {
        let (freshness, server) = (&service.freshness, service.store.server());
        let failure = freshness.last_failure();
        let is_file = server.as_ref().is_some_and(|server| server.is_file());
        Self {
            server: server.as_ref().map(|server| server.name.clone()),
            role: server.as_ref().map(|_| if is_file { "file" } else { "primary" }),
            identity: server.as_ref().filter(|_| !is_file).map(|server| server.id.to_string()),
            server_age_seconds: server.as_ref().map(|server| now.since(server.since.boot).as_secs_f64()),
            seconds: freshness.last_poll_duration().as_secs_f64(),
            failures: freshness.poll_failures(),
            last_failure_age_seconds: failure.as_ref().map(|failure| now.since(failure.at).as_secs_f64()),
            last_failure: failure.map(|failure| failure.reason),
            reconnect_error: service.store.renewal_error(),
        }
    }
}

/// The share of the first among both; None when there is nothing to share.
fn share(hits: u64, misses: u64) -> Option<f64> {
    (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
}

/// The state of Redis's circuit breaker; None without Redis.
fn breaker(service: &Service) -> Option<&'static str> {
    let shared = service.shared.as_ref()?;
    Some(match shared.breaker_state() {
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half-open",
        BreakerState::Open => "open",
    })
}
