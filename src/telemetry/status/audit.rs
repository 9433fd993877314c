//! Status of the audit log.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::BootTime;
use crate::service::Service;

/// Audit log.
#[derive(Debug, Serialize)]
pub struct AuditLog {
    /// True if the last write succeeded.
    pub writable: bool,
    /// Lines written by this process.
    pub lines: u64,
    /// Failed writes.
    pub failures: u64,
    /// Times that somebody else moved, removed, truncated or extended the file.
    pub outside_changes: BTreeMap<&'static str, u64>,
    /// The last of them; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_outside_change: Option<OutsideChange>,
    /// Changes that the database lacks, as after a restore; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_lacks: Option<DatabaseLacks>,
}

/// Change of the file by somebody else.
#[derive(Debug, Serialize)]
pub struct OutsideChange {
    /// `moved`, `removed`, `truncated` or `extended`.
    pub change: &'static str,
    /// Number of the last line before it.
    pub after_line: u64,
    /// Time since it was noticed.
    pub age_seconds: f64,
}

/// Changes in the audit log that the database lacks.
#[derive(Debug, Serialize)]
pub struct DatabaseLacks {
    /// Revocations and rotations: these keys are valid again.
    pub revocations: usize,
    /// Deletions.
    pub deletions: usize,
    /// Keys that are unknown now.
    pub keys: usize,
    /// Updates.
    pub updates: usize,
}

impl AuditLog {
    pub(super) fn read(service: &Service, now: BootTime) -> Option<Self> {
        let log = service.audit.log()?;
        let (state, lacking) = (log.state(), log.behind().lacking());
        Some(Self {
            writable: !state.is_failing(),
            lines: state.lines(),
            failures: state.failures(),
            outside_changes: state.outside_changes().map(|(change, count)| (change.name(), count)).into(),
            last_outside_change: state.last_outside_change().map(|last| OutsideChange {
                change: last.change.name(),
                after_line: last.after,
                age_seconds: now.since(last.at).as_secs_f64(),
            }),
            database_lacks: (!lacking.is_empty()).then_some(DatabaseLacks {
                revocations: lacking.revocations,
                deletions: lacking.deletions,
                keys: lacking.keys,
                updates: lacking.updates,
            }),
        })
    }

    /// Counts of changes of the file by somebody else, before the first.
    pub fn no_outside_changes() -> BTreeMap<&'static str, u64> {
        BTreeMap::from(["moved", "removed", "truncated", "extended"].map(|change| (change, 0)))
    }

    /// Problems in words, the worst first.
    pub(super) fn problems(&self, max_age_seconds: f64) -> Vec<String> {
        let mut problems = vec![];
        if let Some(DatabaseLacks { revocations, deletions, keys, updates }) = self.database_lacks {
            problems.push(format!(
                "the database is behind the audit log, as after a restore: it lacks {revocations} revocations, \
                 {deletions} deletions, {keys} new keys and {updates} updates; run `talos audit replay FILE… --dry-run`"
            ));
        }
        if !self.writable {
            problems.push("the audit log can't be written: changes get 503 (the log says why)".to_owned());
        }
        if let Some(OutsideChange { change, after_line, age_seconds }) = &self.last_outside_change
            && *change != "moved"
            && *age_seconds < max_age_seconds
        {
            problems.push(format!(
                "the audit log was {change} by somebody else after line {after_line}, {age_seconds:.0} s ago: lines may \
                 be lost (`talos audit verify` says so)"
            ));
        }
        problems
    }
}
