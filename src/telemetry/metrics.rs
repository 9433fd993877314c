//! What the planes count. No key, actor or tenant is ever a label.

mod exposition;

use std::borrow::Cow;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

pub use exposition::Format;

use super::connections::Connections;
use super::deny_file::DenyFile;
use super::histogram::Histogram;
use super::refused_requests::RefusedRequests;
use crate::plane::Plane;
use crate::service::verify::CacheResult;

type Labels = [(&'static str, &'static str); 2];

/// The counters that the planes count up.
#[derive(Default)]
pub struct Metrics {
    /// Decisions of the authz plane.
    pub checks: Checks,
    /// Where its answers came from.
    pub lookups: Lookups,
    /// JWTs minted for upstream.
    pub tokens_minted: Counter,
    /// Reloads of the configuration.
    pub reloads: Reloads,
    /// Old entries of the log that were deleted.
    pub log_trimmed: Counter,
    /// Connections and certificates.
    pub connections: Connections,
    /// Requests of the HTTP planes.
    pub requests: Requests,
    /// Requests refused before anything of them was done.
    pub refused_requests: RefusedRequests,
    /// The deny list's file.
    pub deny_file: DenyFile,
}

/// Decisions by outcome and reason, and how long they took.
pub struct Checks {
    all: Family<Labels, Counter>,
    /// Looked up once: allowing must not take the family's lock.
    allowed: Counter,
    /// By tier, in the order of [`Tier`].
    durations: [Histogram; 3],
}

/// Where the answer to a Check came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tier {
    /// No key was looked for: none was shown, or a token, or what can't be a key.
    #[default]
    None,
    /// L1.
    Memory,
    /// L2 or the database.
    Lookup,
}

impl Tier {
    const ALL: [Self; 3] = [Self::None, Self::Memory, Self::Lookup];

    /// Its name in labels.
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
    /// Counts how long a decision took.
    pub fn took(&self, tier: Tier, duration: Duration) {
        self.durations[tier as usize].observe(duration);
    }

    /// Counts a request that was let through.
    pub fn allowed(&self) {
        self.allowed.inc();
    }

    /// Counts one that wasn't.
    pub fn refused(&self, reason: &'static str) {
        self.all.get_or_create(&[("decision", "deny"), ("reason", reason)]).inc();
    }
}

type Request = [(&'static str, Cow<'static, str>); 4];
type Timed = [(&'static str, Cow<'static, str>); 3];

/// Requests of the HTTP planes, by the routes as they are described.
#[derive(Default)]
pub struct Requests {
    all: Family<Request, Counter>,
    durations: Family<Timed, Histogram>,
}

impl Requests {
    /// Counts one.
    pub fn count(
        &self,
        plane: Plane,
        route: Cow<'static, str>,
        method: &'static str,
        status: u16,
        took: Duration,
    ) {
        let timed = [("plane", plane.name().into()), ("route", route), ("method", method.into())];
        let [plane, route, method] = timed.clone();
        self.all.get_or_create(&[plane, route, method, ("status", status.to_string().into())]).inc();
        self.durations.get_or_create(&timed).observe(took);
    }
}

/// Lookups by what L1 had to say.
#[derive(Default)]
pub struct Lookups {
    hits: Counter,
    misses: Counter,
    skipped: Counter,
}

impl Lookups {
    /// Counts one.
    pub fn count(&self, result: CacheResult) {
        match result {
            CacheResult::Hit => self.hits.inc(),
            CacheResult::Miss => self.misses.inc(),
            CacheResult::Skip => self.skipped.inc(),
        };
    }

    /// How many there were that L1 answered, and that it couldn't answer.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }
}

/// What came of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Something is in force that wasn't before.
    Applied,
    /// There was nothing new.
    Unchanged,
    /// What was read is no good.
    Refused,
}

/// Reloads by what came of them, and fetches of key sets from other servers.
pub struct Reloads {
    all: Family<[(&'static str, &'static str); 1], Counter>,
    fetches: Family<[(&'static str, &'static str); 1], Counter>,
    successful: Gauge,
}

impl Default for Reloads {
    fn default() -> Self {
        let (all, fetches, successful) = (Family::default(), Family::default(), Gauge::default());
        // From the start there is something to compare later values with.
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
    /// Counts one; `all_in_force` says whether all that was read is in force now.
    pub fn count(&self, reload: Reload, all_in_force: bool) {
        let outcome = match reload {
            Reload::Applied => "applied",
            Reload::Unchanged => "unchanged",
            Reload::Refused => "refused",
        };
        self.all.get_or_create(&[("outcome", outcome)]).inc();
        self.successful.set(i64::from(all_in_force));
    }

    /// Whether all that was read last is in force.
    pub fn was_last_successful(&self) -> bool {
        self.successful.get() == 1
    }

    /// Counts a round of fetches from other servers.
    pub fn fetched(&self, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.fetches.get_or_create(&[("outcome", outcome)]).inc();
    }
}
