//! Results of a round: counts, latencies, CPU time and memory.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::process;

/// Largest latency that the histogram records.
const MAX_LATENCY: Duration = Duration::from_secs(60);
/// Number of wrong responses that are described.
const MAX_DESCRIBED: usize = 10;

/// Counters of a round.
pub(crate) struct Outcome {
    latencies: Histogram<u64>,
    allowed: u64,
    refused: u64,
    refused_after_revocation: u64,
    failed: u64,
    wrong: u64,
    errors: Vec<String>,
}

impl Outcome {
    /// Creates empty counters.
    pub(crate) fn new() -> Self {
        // The bounds are valid, so this never fails.
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY.as_micros() as u64, 3);
        Self {
            latencies: latencies.unwrap_or_else(|_| unreachable!("fixed bounds")),
            allowed: 0,
            refused: 0,
            refused_after_revocation: 0,
            failed: 0,
            wrong: 0,
            errors: Vec::new(),
        }
    }

    /// Counts a correct response; `latency` is measured from the request's intended start.
    pub(crate) fn succeeded(&mut self, allowed: bool, latency: Duration) {
        match allowed {
            true => self.allowed += 1,
            false => self.refused += 1,
        }
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts the refusal of a key that was revoked during the round.
    pub(crate) fn refused_after_revocation(&mut self) {
        self.refused_after_revocation += 1;
    }

    /// Counts an incorrect response.
    pub(crate) fn wrong(&mut self, description: impl FnOnce() -> String) {
        self.wrong += 1;
        self.describe(description);
    }

    /// Counts a request without a response.
    pub(crate) fn failed(&mut self, description: impl FnOnce() -> String) {
        self.failed += 1;
        self.describe(description);
    }

    fn describe(&mut self, description: impl FnOnce() -> String) {
        if self.errors.len() < MAX_DESCRIBED {
            self.errors.push(description());
        }
    }

    /// Returns the number of correct responses.
    pub(crate) const fn done(&self) -> u64 {
        self.allowed + self.refused
    }

    /// Returns the results as JSON, for the time between two snapshots.
    pub(crate) fn report(&self, window: &Window) -> Value {
        let done = self.done().max(1);
        let cost = |cpu: Option<Duration>| cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / done as f64);
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        let curve: Vec<_> = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0]
            .map(|q| json!([q, at(q)]))
            .into();
        json!({
            "done": self.done(),
            "allowed": self.allowed,
            "refused": self.refused,
            "refused_after_revocation": self.refused_after_revocation,
            "failed": self.failed,
            "wrong": self.wrong,
            "errors": self.errors,
            "seconds": window.seconds,
            "per_second": self.done() as f64 / window.seconds,
            "cpu_us": window.cpu.iter().map(|cpu| cost(*cpu)).collect::<Vec<_>>(),
            "generator_cpu_us": cost(window.own),
            "resident": window.resident,
            "latency_us": { "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) },
            "latency_curve": curve,
        })
    }
}

/// The time and the resources used by processes at one moment.
pub(crate) struct Snapshot {
    at: std::time::Instant,
    cpu: Vec<(u32, Option<Duration>)>,
    own: Option<Duration>,
}

/// The time and the resources used between two snapshots.
pub(crate) struct Window {
    seconds: f64,
    cpu: Vec<Option<Duration>>,
    own: Option<Duration>,
    resident: Vec<Option<u64>>,
}

impl Snapshot {
    /// Takes a snapshot.
    pub(crate) fn take(pids: &[u32]) -> Self {
        Self {
            at: std::time::Instant::now(),
            cpu: pids.iter().map(|pid| (*pid, process::cpu(*pid))).collect(),
            own: process::cpu(std::process::id()),
        }
    }

    /// Returns the difference between this snapshot and now.
    pub(crate) fn window(&self) -> Window {
        let spent = |pid, before: Option<Duration>| Some(process::cpu(pid)?.saturating_sub(before?));
        Window {
            seconds: self.at.elapsed().as_secs_f64(),
            cpu: self.cpu.iter().map(|(pid, before)| spent(*pid, *before)).collect(),
            own: spent(std::process::id(), self.own),
            resident: self.cpu.iter().map(|(pid, _)| process::resident(*pid)).collect(),
        }
    }
}
