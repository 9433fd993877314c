//! Detection of a database that is behind the log, as after a restore from a backup: keys that were
//! revoked, suspended or deleted since are valid again.
//!
//! The database knows where each log ends. If a log goes on after that, its changes are compared
//! with the rows of their keys. What is lacking is remembered beside the log until the database has
//! it again, so that a restart forgets nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::json;

use super::chain::ChainKey;
use super::changes::{Difference, RecordedChange, find_lacking};
use super::parts::{Part, parts_beside, resolve};
use super::verify::Verifier;
use crate::clock::Clock;
use crate::store::{ClockSkew, Store, StoreError};

/// Most bytes of a log that are examined, the newest first.
const MAX_EXAMINED_BYTES: u64 = 256 * 1024 * 1024;
/// Most lacking changes that are looked at again in one round.
const MAX_RECHECKED: usize = 1_000;
/// Extension of the file that remembers from which line on the database lacks changes.
pub const MARKER_EXTENSION: &str = "replay";

/// Changes of the log that the database lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Revocations, rotations, and suspensions of keys or actors, whose keys are valid again.
    pub revocations: usize,
    /// Deletions.
    pub deletions: usize,
    /// Keys that were issued or imported, and are unknown now.
    pub keys: usize,
    /// Updates, whose values the log doesn't have, and what else can't be repeated.
    pub updates: usize,
}

impl Lacking {
    fn of(differences: &[Difference]) -> Self {
        let mut lacking = Self::default();
        for difference in differences {
            let count = match difference.name() {
                "deleted" => &mut lacking.deletions,
                "created" => &mut lacking.keys,
                "updated" | "resumed" | "actor resumed" => &mut lacking.updates,
                // Of an actor without keys, which may have been erased.
                _ if difference.is_lost => &mut lacking.updates,
                _ => &mut lacking.revocations,
            };
            *count += 1;
        }
        lacking
    }

    /// Returns true if nothing is lacking.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Comparison of this process's log with the database.
pub struct Behind {
    store: Store,
    path: PathBuf,
    keys: Vec<ChainKey>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lacking: Lacking,
    /// Changes that can be repeated, and haven't been yet.
    repeatable: Vec<Difference>,
}

impl Behind {
    /// Creates the comparison of the log at `path`.
    pub fn new(store: Store, path: &Path, keys: Vec<ChainKey>, clock: Clock) -> Self {
        Self { store, path: path.to_owned(), keys, clock, state: Mutex::default() }
    }

    /// Returns what the database lacks.
    pub fn lacking(&self) -> Lacking {
        self.state.lock().lacking
    }

    /// Returns the skew of this process's clock against the database's.
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        self.store.clock_skew()
    }

    /// Compares the log of a chain with the database if it goes on after the last line that the
    /// database knows, or if the database lacked something when the process before ended. Says so
    /// if something is lacking.
    ///
    /// # Errors
    /// When the log can't be read, or the database fails.
    pub async fn examine_at_start(
        &self,
        chain: &str,
        last: Option<u64>,
        known: Option<u64>,
    ) -> Result<(), BehindError> {
        let marked = self.read_marker();
        let ahead = last.filter(|last| known.is_none_or(|known| known < *last)).map(|_| known.unwrap_or(0));
        match marked.into_iter().chain(ahead).min() {
            Some(known) => self.examine(chain, known).await,
            None => Ok(()),
        }
    }

    /// Compares the lines of a chain after number `known` with the database.
    ///
    /// # Errors
    /// When the log can't be read, or the database fails.
    pub async fn examine(&self, chain: &str, known: u64) -> Result<(), BehindError> {
        let (path, chain, keys) = (self.path.clone(), chain.to_owned(), self.keys.clone());
        let read = tokio::task::spawn_blocking(move || read_changes(&path, &chain, &keys, known)).await;
        let Since { changes, is_whole } = read.map_err(|_| StoreError::Interrupted)??;
        let differences = find_lacking(&self.store, vec![changes], self.clock.now()).await?;
        let lacking = Lacking::of(&differences);
        let repeatable: Vec<_> = differences.into_iter().filter(Difference::is_repeatable).collect();
        // What wasn't looked at may lack what was lacking before.
        if is_whole || !repeatable.is_empty() {
            self.mark((!repeatable.is_empty()).then_some(known));
        }
        if !lacking.is_empty() {
            let Lacking { revocations, deletions, keys, updates } = lacking;
            tracing::error!(
                file = %self.path.display(), after = known, revocations, deletions, lost_keys = keys, updates,
                "the database is behind the audit log: it was restored from a backup, or is another one. Keys that were \
                 revoked, suspended or deleted since are valid again: run `talos audit replay FILE… --dry-run` (docs/upgrade.md)"
            );
        }
        *self.state.lock() = State { lacking, repeatable };
        Ok(())
    }

    /// Looks again at what was lacking. Once all that can be repeated is there, nothing is reported
    /// any more.
    pub async fn recheck(&self) {
        let changes: Vec<_> = {
            let state = self.state.lock();
            state.repeatable.iter().take(MAX_RECHECKED).map(|lacking| lacking.change.clone()).collect()
        };
        if changes.is_empty() {
            return;
        }
        let rechecked = changes.len();
        let Ok(still) = find_lacking(&self.store, vec![changes], self.clock.now()).await else {
            return;
        };
        let mut state = self.state.lock();
        let end = rechecked.min(state.repeatable.len());
        let rest = state.repeatable.split_off(end);
        state.repeatable = rest.into_iter().chain(still).collect();
        let left = Lacking::of(&state.repeatable);
        state.lacking.revocations = left.revocations;
        state.lacking.deletions = left.deletions;
        if state.repeatable.is_empty() {
            state.lacking = Lacking::default();
            drop(state);
            self.mark(None);
            tracing::info!("the database has the revocations and deletions of the audit log again");
        }
    }

    fn marker(&self) -> PathBuf {
        let mut marker = self.path.as_os_str().to_owned();
        marker.push(".");
        marker.push(MARKER_EXTENSION);
        marker.into()
    }

    fn read_marker(&self) -> Option<u64> {
        let text = fs::read(self.marker()).ok()?;
        // The file's existence says that something was lacking, whatever its content.
        let value: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        Some(value.and_then(|value| value["after"].as_u64()).unwrap_or(0))
    }

    /// Remembers from which line on something is lacking, or that nothing is.
    fn mark(&self, after: Option<u64>) {
        let marker = self.marker();
        let marked = match after {
            Some(after) => {
                let note = "the database lacks changes after this line: see talos audit replay";
                fs::write(&marker, format!("{}\n", json!({ "after": after, "note": note })))
            }
            None => match fs::remove_file(&marker) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        if let Err(error) = marked {
            tracing::warn!(%error, file = %marker.display(), "can't be written: after a restart it may not be known what the database lacks");
        }
    }
}

/// Error of a comparison.
#[derive(Debug, thiserror::Error)]
pub enum BehindError {
    /// The log can't be read.
    #[error("audit.file: {0}")]
    File(#[from] io::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Changes that a log has after a line.
#[derive(Debug, Default)]
struct Since {
    changes: Vec<RecordedChange>,
    /// True if all lines after that one were read.
    is_whole: bool,
}

/// Reads the changes of a log after line `known`, with those of its files that were moved aside.
fn read_changes(path: &Path, chain: &str, keys: &[ChainKey], known: u64) -> io::Result<Since> {
    let newest = newest_parts(path, chain, known)?;
    let mut verifier = Verifier::new(keys, None).with_changes();
    for part in newest.iter().rev() {
        verifier.read(&part.path.display().to_string(), &fs::read(&part.path)?);
    }
    // A file that doesn't begin as one of a log, as somebody else has truncated it, has the last
    // lines.
    let target = resolve(path);
    let length = fs::metadata(&target).map_or(0, |metadata| metadata.len());
    let is_unread = length > 0 && !newest.iter().any(|part| part.path.file_name() == target.file_name());
    if is_unread && length <= MAX_EXAMINED_BYTES {
        verifier.read(&target.display().to_string(), &fs::read(&target)?);
    }
    let found = verifier.finish(false);
    let begins_in_time = newest.last().is_some_and(|part| part.first <= known.saturating_add(1));
    if !begins_in_time {
        let before = newest.last().map(|part| part.first);
        tracing::warn!(
            file = %path.display(), after = known, before,
            "lines of the audit log were not compared with the database: no file beside it has them, or they are too \
             long for the start. If they were moved elsewhere or compressed, `talos audit replay FILE…` reads them"
        );
    }
    if let Some(problem) = found.problems.first() {
        tracing::warn!(file = %path.display(), %problem, "not all lines of the audit log were compared with the database: run `talos audit verify`");
    }
    let is_whole = begins_in_time && !is_unread && found.problems.is_empty();
    let changes = found.changes.into_iter().filter(|change| change.line > known).collect();
    Ok(Since { changes, is_whole })
}

/// Returns the files of a log that may have lines after `known`, the newest first, as far as there
/// is room for them.
fn newest_parts(path: &Path, chain: &str, known: u64) -> io::Result<Vec<Part>> {
    let mut parts = parts_beside(path)?;
    parts.retain(|part| part.chain == chain);
    let mut room = MAX_EXAMINED_BYTES;
    let mut newest = vec![];
    for part in parts.into_iter().rev() {
        // A copy that has less of the same lines.
        if newest.last().is_some_and(|newer: &Part| newer.first == part.first) {
            continue;
        }
        let is_last = part.first <= known.saturating_add(1);
        if part.length > room {
            break;
        }
        room -= part.length;
        newest.push(part);
        if is_last {
            break;
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Mac;

    #[test]
    fn a_file_that_does_not_begin_as_one_of_a_log_is_not_taken_for_compared() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (keys, mut mac, mut lines) = ([ChainKey::unkeyed()], Mac::NONE, vec![]);
        for seq in 1..=3 {
            let object = match seq {
                1 => json!({
                    "seq": 1, "kind": "begin", "chain": "c", "key": keys[0].name(), "previous": mac.to_string(),
                    "time": "2026-01-01T00:00:00Z",
                }),
                _ => json!({ "seq": seq, "kind": "intent", "time": "2026-01-01T00:00:00Z" }),
            };
            let (line, next) = keys[0].sign_line(&mac, &object.to_string());
            mac = next;
            lines.push(line + "\n");
        }
        fs::write(directory.path().join("audit.jsonl.1"), lines[..2].concat()).unwrap();
        for (current, is_whole) in [(String::new(), true), (format!("\0\0{}", lines[2]), false)] {
            fs::write(&path, current).unwrap();
            let since = read_changes(&path, "c", &keys, 1).unwrap();
            assert_eq!(since.is_whole, is_whole, "{since:?}");
        }
    }
}
