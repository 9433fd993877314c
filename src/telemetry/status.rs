//! Status of the process in one reading: for `GET /status`, `talos status` and the gauges of
//! `/metrics`.
//!
//! The names of the fields are the API's: fields are added, and never renamed or removed.
//! `talos status` shows what `cli/status.rs` lists, and `metrics/exposition.rs` makes the gauges.

mod audit;
mod certificates;
mod dependencies;
mod problems;
mod signing;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

pub use audit::{AuditLog, DatabaseLacks, OutsideChange};
pub use certificates::Certificate;
use dependencies::{RedisStatus, TracesStatus};
pub use problems::unadopted_problem;
pub use signing::{PrefixKeys, SecretKeys, Signing};

use super::metrics::Metrics;
use crate::cache::freshness::Freshness;
use crate::clock::{BootTime, Clock};
use crate::plane::{Plane, Planes};
use crate::readiness::Readiness;
use crate::redis::BreakerState;
use crate::service::Service;
use crate::settings::Settings;

/// Readings of the mutation log's head that are older than this are reported as unknown.
const MAX_LOG_AGE: Duration = Duration::from_secs(5);

/// State of the process that belongs to no other module.
pub struct Process {
    started: BootTime,
    planes: Vec<&'static str>,
    /// Newest number of the mutation log when it was last read.
    log_newest: AtomicU64,
    /// Boot time of that reading, in microseconds; 0 before the first.
    log_read: AtomicU64,
    /// Tables of Ory Talos in the database with keys that weren't adopted (`talos migrate adopt`).
    unadopted: Mutex<Vec<String>>,
}

impl Process {
    /// A process that begins to serve these planes.
    pub fn new(planes: Planes, clock: &Clock) -> Self {
        let (log_newest, log_read) = (AtomicU64::new(0), AtomicU64::new(0));
        let planes = planes.iter().map(Plane::name).collect();
        Self { started: clock.boot_now(), planes, log_newest, log_read, unadopted: Mutex::default() }
    }

    /// Records the newest number of the mutation log at `at`.
    pub fn record_log_head(&self, newest: u64, at: BootTime) {
        self.log_newest.store(newest, Ordering::Relaxed);
        self.log_read.store(at.as_micros().max(1), Ordering::Release);
    }

    /// Records the tables of Ory Talos with keys that weren't adopted.
    pub fn record_unadopted(&self, tables: Vec<String>) {
        *self.unadopted.lock() = tables;
    }

    /// Returns true if some table of Ory Talos has keys that weren't adopted.
    pub fn has_unadopted(&self) -> bool {
        !self.unadopted.lock().is_empty()
    }

    /// Newest number of the mutation log; None when it wasn't read recently.
    fn log_newest(&self, now: BootTime) -> Option<u64> {
        let read = self.log_read.load(Ordering::Acquire);
        let known = read != 0 && now.since(BootTime::from_micros(read)) <= MAX_LOG_AGE;
        known.then(|| self.log_newest.load(Ordering::Relaxed))
    }
}

/// Status of the process. Times are in seconds. Unknown values are absent.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Name of the [`Mode`](crate::cache::freshness::Mode) in which the process answers.
    pub mode: &'static str,
    /// Problems in words, the worst first.
    pub problems: Vec<String>,
    /// Time after its revocation for which a key may still be allowed here, at present.
    pub bound_seconds: f64,
    /// The same for tokens that were made from a key.
    pub exposure: Exposure,
    /// Age of what is known of the mutation log.
    pub lease: Lease,
    /// Relay of the mutation log by another instance.
    pub relay: Relay,
    /// Number in the mutation log up to which every change is known here.
    pub epoch: u64,
    /// The mutation log itself.
    pub log: Log,
    /// Polls of the mutation log, and the server that answers them.
    pub poll: Poll,
    /// The database.
    pub database: Database,
    /// The cache in memory, and Redis behind it.
    pub cache: Cache,
    /// State of the circuit breaker in front of Redis: `closed` lets requests through; `none`
    /// without Redis.
    pub breaker: &'static str,
    /// The clients of Redis; empty without Redis.
    pub redis: Vec<RedisStatus>,
    /// The export of traces; absent when none are exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<TracesStatus>,
    /// The operator's deny list.
    pub deny_list: DenyList,
    /// The audit log; absent when none is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditLog>,
    /// Keys by the secrets and prefixes that they need; absent before they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
    /// The listeners' certificates; absent without TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    /// Version of the program.
    pub version: &'static str,
    /// Time since the process began to serve.
    pub uptime_seconds: f64,
    /// The settings in force.
    pub settings: SettingsStatus,
    /// Planes that are served.
    pub planes: Vec<&'static str>,
    /// Tables of Ory Talos in the database with keys that weren't adopted; absent when there are
    /// none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unadopted_tables: Vec<String>,
}

/// Time after its revocation for which a key, or a token made from it, may still be of use.
#[derive(Debug, Serialize)]
pub struct Exposure {
    /// The key itself, at the edge.
    pub key_seconds: f64,
    /// A token that was sent upstream (`authz.token_ttl`). The leeway of a backend comes on top.
    pub upstream_token_seconds: f64,
    /// A token that was derived through the API, where it is verified without Talos:
    /// `credentials.derived_tokens.max_ttl`, or the remaining life of tokens that were derived
    /// under a longer one since the process began.
    pub derived_token_seconds: f64,
}

/// Lease on cached rows.
#[derive(Debug, Serialize)]
pub struct Lease {
    /// Time for which the result of a poll counts.
    pub seconds: f64,
    /// Time after that for which known keys stay valid while the database can't be reached.
    pub grace_seconds: f64,
    /// Times that it has run out.
    pub lapses: u64,
    /// Times that it had run out and no new connection to the database could be made.
    pub outages: u64,
    /// Age of the poll that it counts from; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
}

/// Relay of the mutation log through Redis (`consistency.relay`).
#[derive(Debug, Serialize)]
pub struct Relay {
    /// Time beyond the lease for which relayed entries count; 0 when nothing is relayed.
    pub seconds: f64,
    /// Age of what was last relayed; absent when nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Answers sent to instances that can't reach the database.
    pub answers: u64,
}

/// Mutation log in the database.
#[derive(Debug, Serialize)]
pub struct Log {
    /// Newest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<u64>,
    /// Number of changes that aren't known here yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Old entries that this process deleted.
    pub trimmed: u64,
    /// Times that it was found rewritten (a restore, a failover) and the cache was dropped.
    pub rewritten: u64,
}

/// Polls of the mutation log, and the server that answers them.
#[derive(Debug, Serialize)]
pub struct Poll {
    /// Address and version of the server that answered the last poll; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Role of the server: `primary`, as answers of others are refused; for SQLite `file`. Absent
    /// before the first poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Identity of the server; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Time for which this server has answered polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_age_seconds: Option<f64>,
    /// Duration of the last poll that succeeded.
    pub seconds: f64,
    /// Polls that failed: no answer, an error, or an answer that can't be relied on.
    pub failures: u64,
    /// Reason of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Age of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_age_seconds: Option<f64>,
    /// Reason for which no new connection can be made for polls; absent while one can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect_error: Option<String>,
}

/// Database and its connection pool.
#[derive(Debug, Serialize)]
pub struct Database {
    /// True if it answers.
    pub answers: bool,
    /// Rows of keys read from it.
    pub key_reads: u64,
    /// Lookups of credentials never seen before that were refused because too many others waited.
    pub guesses_refused: u64,
    /// Open connections.
    pub connections: u32,
    /// Open connections that aren't in use.
    pub idle_connections: u32,
    /// Maximum number of connections.
    pub max_connections: u32,
    /// Time by which this process's clock is ahead of the database's; negative if it is behind.
    /// Absent before the first poll, and for SQLite, which has no clock of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_seconds: Option<f64>,
    /// True if the skew is worth a warning.
    pub clock_is_off: bool,
    /// Version of the schema, if a newer program has added to it; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_schema: Option<i64>,
}

/// Cache in memory, and Redis behind it.
#[derive(Debug, Serialize)]
pub struct Cache {
    /// True if it is used.
    pub enabled: bool,
    /// Keys in memory.
    pub keys: u64,
    /// Unknown key ids in memory.
    pub unknown_keys: u64,
    /// Checks answered from memory.
    pub hits: u64,
    /// Checks that memory couldn't answer.
    pub misses: u64,
    /// Share of hits; absent before the first lookup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<f64>,
    /// Lookups answered from Redis.
    pub redis_hits: u64,
    /// Lookups that Redis couldn't answer.
    pub redis_misses: u64,
    /// Share of hits in Redis; absent before the first lookup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_hit_ratio: Option<f64>,
}

/// Deny list (`consistency.deny_file`).
#[derive(Debug, Serialize)]
pub struct DenyList {
    /// Keys that it refuses.
    pub keys: u64,
    /// True if the content of the file is in force.
    pub current: bool,
    /// Keys that are still refused although the file no longer names them; absent when there are
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// The last time that a far shorter list was put into force; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrunk: Option<Shrunk>,
}

/// A far shorter deny list that was put into force.
#[derive(Debug, Serialize)]
pub struct Shrunk {
    /// Number of keys refused before.
    pub from: u64,
    /// Number of keys refused since.
    pub to: u64,
    /// Time since then.
    pub age_seconds: f64,
}

/// Settings in force.
#[derive(Debug, Serialize)]
pub struct SettingsStatus {
    /// Number of the settings, counted from the start.
    pub generation: u64,
    /// True if everything that was last read of the configuration is in force.
    pub current: bool,
}

impl Status {
    /// Reads the state of the process. Does no I/O.
    pub fn read(service: &Service, metrics: &Metrics, readiness: &Readiness, process: &Process) -> Self {
        let (settings, freshness) = (service.snapshot(), &service.freshness);
        let (mode, now) = (freshness.mode(), service.clock.boot_now());
        let mut status = Self {
            mode: mode.name(),
            problems: vec![],
            bound_seconds: freshness.bound().as_secs_f64(),
            exposure: Exposure::read(service, &settings, now),
            lease: Lease::read(freshness),
            relay: Relay::read(service),
            epoch: freshness.polled_to(),
            log: Log::read(freshness, metrics, process.log_newest(now)),
            poll: Poll::read(service, now),
            database: Database::read(service, readiness),
            cache: Cache::read(service, &settings, metrics),
            breaker: breaker(service).unwrap_or("none"),
            redis: RedisStatus::read(service),
            traces: TracesStatus::read(),
            deny_list: DenyList::read(service, metrics, now),
            audit: AuditLog::read(service, now),
            signing: service.signers.counts().map(|counts| Signing::new(&counts)),
            certificates: Certificate::read_all(&metrics.connections, service.clock.now()),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: now.since(process.started).as_secs_f64(),
            settings: SettingsStatus {
                generation: settings.generation,
                current: metrics.reloads.was_last_successful(),
            },
            planes: process.planes.clone(),
            unadopted_tables: process.unadopted.lock().clone(),
        };
        status.problems = status.problems(mode, readiness.is_draining());
        status
    }
}

impl Exposure {
    fn read(service: &Service, settings: &Settings, now: BootTime) -> Self {
        let bound = service.freshness.bound();
        let derived = settings.longest_token_ttl().max(service.outstanding.left(now));
        Self {
            key_seconds: bound.as_secs_f64(),
            upstream_token_seconds: (bound + settings.authz.token_ttl).as_secs_f64(),
            derived_token_seconds: (bound + derived).as_secs_f64(),
        }
    }
}

impl Lease {
    fn read(freshness: &Freshness) -> Self {
        let terms = freshness.config();
        Self {
            seconds: terms.lease.as_secs_f64(),
            grace_seconds: terms.grace.as_secs_f64(),
            lapses: freshness.lapses(),
            outages: freshness.outages(),
            age_seconds: freshness.age().map(|age| age.as_secs_f64()),
        }
    }
}

impl Relay {
    fn read(service: &Service) -> Self {
        let (freshness, shared) = (&service.freshness, service.shared.as_ref());
        Self {
            seconds: shared.map_or(0.0, |_| freshness.config().relay.as_secs_f64()),
            age_seconds: freshness.relayed_age().map(|age| age.as_secs_f64()),
            answers: shared.map_or(0, |shared| shared.relay_responses()),
        }
    }
}

impl Log {
    fn read(freshness: &Freshness, metrics: &Metrics, newest: Option<u64>) -> Self {
        Self {
            newest,
            // A poll may have come after the reading of the newest number.
            lag: newest.map(|newest| newest.saturating_sub(freshness.polled_to())),
            trimmed: metrics.log_trimmed.get(),
            rewritten: freshness.rewrites(),
        }
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

impl Database {
    fn read(service: &Service, readiness: &Readiness) -> Self {
        let connections = service.store.pool_stats();
        let skew = service.store.clock_skew();
        Self {
            answers: readiness.is_database_up(&service.clock),
            key_reads: service.store.key_reads(),
            guesses_refused: service.bulkhead.refused(),
            connections: connections.open,
            idle_connections: connections.idle,
            max_connections: connections.max,
            clock_skew_seconds: skew.map(|skew| skew.seconds_ahead()),
            clock_is_off: skew.is_some_and(|skew| skew.is_suspicious()),
            newer_schema: service.store.newer_schema(),
        }
    }
}

impl Cache {
    fn read(service: &Service, settings: &Settings, metrics: &Metrics) -> Self {
        let (hits, misses) = metrics.lookups.hits_and_misses();
        let shared = service.shared.as_ref();
        let (redis_hits, redis_misses) = shared.map_or((0, 0), |shared| shared.hits_and_misses());
        Self {
            enabled: settings.cache_enabled,
            keys: service.memory.len(),
            unknown_keys: service.memory.negative_len(),
            hits,
            misses,
            hit_ratio: ratio(hits, misses),
            redis_hits,
            redis_misses,
            redis_hit_ratio: ratio(redis_hits, redis_misses),
        }
    }
}

impl DenyList {
    fn read(service: &Service, metrics: &Metrics, now: BootTime) -> Self {
        let file = &metrics.deny_file;
        Self {
            keys: service.deny_list.load().len() as u64,
            current: file.is_current(),
            held: Some(file.held()).filter(|held| *held > 0),
            shrunk: file.shrunk().map(|shrunk| Shrunk {
                from: shrunk.from,
                to: shrunk.to,
                age_seconds: now.since(shrunk.at).as_secs_f64(),
            }),
        }
    }
}

/// Share of hits; None when there were neither hits nor misses.
fn ratio(hits: u64, misses: u64) -> Option<f64> {
    (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
}

/// State of the circuit breaker in front of Redis; None without Redis.
fn breaker(service: &Service) -> Option<&'static str> {
    let shared = service.shared.as_ref()?;
    Some(match shared.breaker_state() {
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half-open",
        BreakerState::Open => "open",
    })
}
