//! Counters of the planes. No label ever names a key, an actor or a tenant.

mod exposition;

use std::borrow::Cow;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

pub use exposition::Format;

use super::connections::Connections;
use super::deny_file::DenyFile;
use super::edge::Edge;
use super::histogram::Histogram;
use super::ory_metrics::OryMetrics;
use super::refused_requests::RefusedRequests;
use crate::plane::Plane;
use crate::service::verify::CacheResult;

type Labels = [(&'static str, &'static str); 2];

/// All counters.
#[derive(Default)]
pub struct Metrics {
    /// Checks of the authz plane.
    pub checks: Checks,
    /// Cache results of Checks.
    pub lookups: Lookups,
    /// JWTs minted for upstream.
    pub tokens_minted: Counter,
    /// Reloads of the configuration.
    pub reloads: Reloads,
    /// Deleted entries of the mutation log.
    pub log_trimmed: Counter,
    /// Connections and certificates.
    pub connections: Connections,
    /// Requests to the HTTP planes.
    pub requests: Requests,
    /// Requests refused before their operation began.
    pub refused_requests: RefusedRequests,
    /// State of the deny file.
    pub deny_file: DenyFile,
    /// Streams to modules in Envoy.
    pub edge: Edge,
    /// HTTP metrics with the names of Ory Talos, if they are wanted.
    pub ory: Option<OryMetrics>,
}

/// Checks by decision and reason, and their durations.
pub struct Checks {
    all: Family<Labels, Counter>,
    /// Cached, so that allowing a request doesn't take the lock of the family.
    allowed: Counter,
    /// Indexed by [`Tier`].
    durations: [Histogram; 3],
}

/// Tier that answered a Check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tier {
    /// No lookup: the request has no credential, a token, or a text that can't be a key.
    #[default]
    None,
    /// The cache in memory.
    Memory,
    /// Redis or the database.
    Lookup,
}

impl Tier {
    const ALL: [Self; 3] = [Self::None, Self::Memory, Self::Lookup];

    /// Value of labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Memory => "memory",
            Self::Lookup => "lookup",
        }
    }
}

impl From<CacheResult> for Tier {
    fn from(result: CacheResult) -> Self {
        match result {
            CacheResult::Hit => Self::Memory,
            CacheResult::Miss => Self::Lookup,
            CacheResult::Skip => Self::None,
        }
    }
}

impl Default for Checks {
    fn default() -> Self {
        let all = Family::<Labels, Counter>::default();
        let allowed = all.get_or_create(&[("decision", "allow"), ("reason", "ok")]).clone();
        Self { all, allowed, durations: Default::default() }
    }
}

impl Checks {
    /// Records the duration of a Check.
    pub fn took(&self, tier: Tier, duration: Duration) {
        self.durations[tier as usize].observe(duration);
    }

    /// Counts an allowed request.
    pub fn allowed(&self) {
        self.allowed.inc();
    }

    /// Counts a refused request.
    pub fn refused(&self, reason: &'static str) {
        self.all.get_or_create(&[("decision", "deny"), ("reason", reason)]).inc();
    }
}

type RequestLabels = [(&'static str, Cow<'static, str>); 4];
type DurationLabels = [(&'static str, Cow<'static, str>); 3];

/// Requests to the HTTP planes, by the route of the operation.
#[derive(Default)]
pub struct Requests {
    all: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
}

impl Requests {
    /// Counts a request and records its duration.
    pub fn count(
        &self,
        plane: Plane,
        route: Cow<'static, str>,
        method: &'static str,
        status: u16,
        duration: Duration,
    ) {
        let labels = [("plane", plane.name().into()), ("route", route), ("method", method.into())];
        let [plane, route, method] = labels.clone();
        self.all.get_or_create(&[plane, route, method, ("status", status.to_string().into())]).inc();
        self.durations.get_or_create(&labels).observe(duration);
    }
}

/// Checks by the result of the cache in memory.
#[derive(Default)]
pub struct Lookups {
    hits: Counter,
    misses: Counter,
    skipped: Counter,
}

impl Lookups {
    /// Counts a Check.
    pub fn count(&self, result: CacheResult) {
        match result {
            CacheResult::Hit => self.hits.inc(),
            CacheResult::Miss => self.misses.inc(),
            CacheResult::Skip => self.skipped.inc(),
        };
    }

    /// Checks that memory answered, and those that it couldn't answer.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }
}

/// Outcome of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// New settings are in force.
    Applied,
    /// The configuration hasn't changed.
    Unchanged,
    /// The new configuration can't be used.
    Refused,
}

/// Reloads by outcome, and fetches of key sets from servers.
pub struct Reloads {
    all: Family<[(&'static str, &'static str); 1], Counter>,
    fetches: Family<[(&'static str, &'static str); 1], Counter>,
    successful: Gauge,
}

impl Default for Reloads {
    fn default() -> Self {
        let (all, fetches, successful) = (Family::default(), Family::default(), Gauge::default());
        // Exported from the start, so that the first increase is visible.
        for outcome in ["applied", "unchanged", "refused"] {
            let _: &Counter = &all.get_or_create(&[("outcome", outcome)]);
        }
        for outcome in ["ok", "failed"] {
            let _: &Counter = &fetches.get_or_create(&[("outcome", outcome)]);
        }
        successful.set(1);
        Self { all, fetches, successful }
    }
}

impl Reloads {
    /// Counts a reload. `is_complete` says whether everything that was read is in force.
    pub fn count(&self, reload: Reload, is_complete: bool) {
        let outcome = match reload {
            Reload::Applied => "applied",
            Reload::Unchanged => "unchanged",
            Reload::Refused => "refused",
        };
        self.all.get_or_create(&[("outcome", outcome)]).inc();
        self.successful.set(i64::from(is_complete));
    }

    /// Returns true if everything that was last read is in force.
    pub fn was_last_successful(&self) -> bool {
        self.successful.get() == 1
    }

    /// Counts a round of fetches from servers.
    pub fn fetched(&self, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.fetches.get_or_create(&[("outcome", outcome)]).inc();
    }
}
