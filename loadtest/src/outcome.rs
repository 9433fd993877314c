//! What came of a round.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::process;

/// Longest latency that is told apart.
const LONGEST: Duration = Duration::from_secs(60);
/// Most wrong answers that are described.
const MOST_TOLD: usize = 10;

/// Counted while a round goes on.
pub struct Outcome {
    latencies: Histogram<u64>,
    allowed: u64,
    refused: u64,
    refused_after_revocation: u64,
    failed: u64,
    wrong: u64,
    told: Vec<String>,
}

impl Outcome {
    /// Nothing yet.
    pub fn new() -> Self {
        // The bounds are in range, so there always is one.
        let latencies = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3);
        Self {
            latencies: latencies.unwrap_or_else(|_| unreachable!("fixed bounds")),
            allowed: 0,
            refused: 0,
            refused_after_revocation: 0,
            failed: 0,
            wrong: 0,
            told: Vec::new(),
        }
    }

    /// A right answer, so long after it was meant to be asked for.
    pub fn right(&mut self, allowed: bool, latency: Duration) {
        match allowed {
            true => self.allowed += 1,
            false => self.refused += 1,
        }
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// The refusal of a key that was good when the round began.
    pub fn refused_after_revocation(&mut self) {
        self.refused_after_revocation += 1;
    }

    /// An answer that must not be.
    pub fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push(what());
        }
    }

    /// No answer.
    pub fn failed(&mut self, why: impl FnOnce() -> String) {
        self.failed += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push(why());
        }
    }

    /// How many were answered rightly.
    pub const fn done(&self) -> u64 {
        self.allowed + self.refused
    }

    /// As JSON, for the time between two looks.
    pub fn tell(&self, window: &Window) -> Value {
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
            "told": self.told,
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

/// A look at the clock and at what the processes have cost up to now.
pub struct Look {
    at: std::time::Instant,
    cpu: Vec<(u32, Option<Duration>)>,
    own: Option<Duration>,
}

/// What lies between two looks.
pub struct Window {
    seconds: f64,
    cpu: Vec<Option<Duration>>,
    own: Option<Duration>,
    resident: Vec<Option<u64>>,
}

impl Look {
    /// Looks.
    pub fn now(pids: &[u32]) -> Self {
        Self {
            at: std::time::Instant::now(),
            cpu: pids.iter().map(|pid| (*pid, process::cpu(*pid))).collect(),
            own: process::cpu(std::process::id()),
        }
    }

    /// What has been since.
    pub fn until_now(&self) -> Window {
        let spent = |pid, before: Option<Duration>| Some(process::cpu(pid)?.saturating_sub(before?));
        Window {
            seconds: self.at.elapsed().as_secs_f64(),
            cpu: self.cpu.iter().map(|(pid, before)| spent(*pid, *before)).collect(),
            own: spent(std::process::id(), self.own),
            resident: self.cpu.iter().map(|(pid, _)| process::resident(*pid)).collect(),
        }
    }
}
