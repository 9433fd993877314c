//! History of a simulation, in virtual time, for the judge.

use std::collections::{BTreeMap, BTreeSet};

use talos::cache::freshness::Mode;

/// Everything that the judge may know.
#[derive(Default)]
pub struct History {
    /// For each key, since when it may be used and since when not, by the server at the address.
    pub truth: BTreeMap<String, Vec<(u64, bool)>>,
    pub checks: Vec<Checked>,
    pub changes: Vec<Change>,
    pub modes: Vec<Seen>,
    pub polls: Vec<Polled>,
    /// Times at which the address was given to another server.
    pub switchovers: Vec<u64>,
    /// Spans in which an instance's way to the database was hurt.
    pub hurt: Vec<Hurt>,
    /// Keys that were changed on a server that wasn't at the address any more: no cache can mend a
    /// database that two servers claim to be.
    pub split: BTreeSet<String>,
    /// Commits on such a server: instances and times.
    pub deposed_commits: Vec<(usize, u64)>,
    /// Number of panics.
    pub panics: usize,
}

/// Check of a key, and its result.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Time of the decision.
    pub at: u64,
    pub instance: usize,
    pub key: String,
    pub answer: Answer,
    /// Mode of the instance at that time; that of the module's decisions is always fresh.
    pub mode: Mode,
    /// True if the module in Envoy let it pass.
    pub by_module: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Allowed,
    Refused,
    Unavailable,
}

/// Change of a key by an instance.
#[derive(Debug, Clone)]
pub struct Change {
    pub instance: usize,
    pub key: String,
    /// True if the key may be used after the change.
    pub active: bool,
    pub began: u64,
    pub ended: u64,
    pub acknowledged: bool,
}

/// Mode of an instance at some time.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub at: u64,
    pub instance: usize,
    pub mode: Mode,
    /// Time at which its process started.
    pub started: u64,
}

/// Poll of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Polled {
    pub instance: usize,
    pub from: u64,
    pub until: u64,
    pub succeeded: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Hurt {
    pub instance: usize,
    pub from: u64,
    pub until: u64,
}

impl History {
    pub fn record_truth(&mut self, now: u64, keys: &BTreeMap<String, bool>) {
        for (key, active) in keys {
            let states = self.truth.entry(key.clone()).or_default();
            if states.last().is_none_or(|(_, last)| last != active) {
                states.push((now, *active));
            }
        }
        // A server that lacks a key doesn't let it pass.
        for (_, states) in self.truth.iter_mut().filter(|(key, _)| !keys.contains_key(*key)) {
            if states.last().is_some_and(|(_, active)| *active) {
                states.push((now, false));
            }
        }
    }

    pub fn record_split(&mut self, before: &[(String, bool)], after: &[(String, bool)]) {
        let changed = after.iter().filter(|key| !before.contains(key));
        self.split.extend(changed.map(|(key, _)| key.clone()));
    }

    /// Returns true if a key was in this state at some time from `from` to `until`, both included.
    pub fn was(&self, key: &str, active: bool, from: u64, until: u64) -> bool {
        let Some(states) = self.truth.get(key) else {
            return !active;
        };
        let starts = states.iter().map(|(at, _)| *at).skip(1).chain([u64::MAX]);
        // Before its first state a key doesn't exist.
        let first = states.first().map_or(0, |(at, _)| *at);
        let is_absent = !active && from <= first;
        is_absent
            || states
                .iter()
                .zip(starts)
                .any(|((at, state), end)| *state == active && *at <= until && end >= from)
    }

    /// Returns true if an instance's way to the database was hurt between two times.
    pub fn was_hurt(&self, instance: usize, from: u64, until: u64) -> bool {
        self.hurt.iter().any(|hurt| hurt.instance == instance && hurt.from <= until && hurt.until >= from)
    }
}
