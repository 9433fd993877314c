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
    /// Updates, whose values the log doesn't have.
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

    /// Compares the log with the database if it goes on after the last line that the database
    /// knows, or if the database lacked something when the process before ended. Says so if
    /// something is lacking.
    ///
    /// # Errors
    /// When the log can't be read, or the database fails.
    pub async fn examine_at_start(&self, last: Option<u64>, known: Option<u64>) -> Result<(), BehindError> {
        let marked = self.read_marker();
        let ahead = last.filter(|last| known.is_none_or(|known| known < *last)).map(|_| known.unwrap_or(0));
        match marked.into_iter().chain(ahead).min() {
            Some(known) => self.examine(known).await,
            None => Ok(()),
        }
    }

    /// Compares the lines after number `known` with the database.
    ///
    /// # Errors
    /// When the log can't be read, or the database fails.
    pub async fn examine(&self, known: u64) -> Result<(), BehindError> {
        let (path, keys) = (self.path.clone(), self.keys.clone());
        let read = tokio::task::spawn_blocking(move || read_changes(&path, &keys, known)).await;
        let changes = read.map_err(|_| StoreError::Interrupted)??;
        let differences = find_lacking(&self.store, changes, self.clock.now()).await?;
        let lacking = Lacking::of(&differences);
        let repeatable: Vec<_> = differences.into_iter().filter(Difference::is_repeatable).collect();
        self.mark((!repeatable.is_empty()).then_some(known));
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
        let Ok(still) = find_lacking(&self.store, changes, self.clock.now()).await else {
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

/// Reads the changes of a log after line `known`, with those of its rotated files.
fn read_changes(path: &Path, keys: &[ChainKey], known: u64) -> io::Result<Vec<RecordedChange>> {
    let mut files = rotated_after(path, known)?;
    files.push(path.to_owned());
    let mut room = MAX_EXAMINED_BYTES;
    let mut newest = vec![];
    for file in files.into_iter().rev() {
        let length = fs::metadata(&file)?.len();
        if length > room {
            tracing::warn!(file = %file.display(), "the audit log is too long to be compared with the database at the start: this file and older ones are left out; `talos audit replay` reads all of them");
            break;
        }
        room -= length;
        newest.push(file);
    }
    let mut verifier = Verifier::new(keys, None).with_changes();
    for file in newest.iter().rev() {
        verifier.read(&file.display().to_string(), &fs::read(file)?);
    }
    let changes = verifier.finish(false).changes;
    Ok(changes.into_iter().filter(|change| change.line > known).collect())
}

/// Returns the files of a log that were moved aside by `Writer::rotate` and have a line after
/// `known`, in order.
fn rotated_after(path: &Path, known: u64) -> io::Result<Vec<PathBuf>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut rotated = vec![];
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let suffix = file.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.'));
        let last =
            suffix.and_then(|suffix| suffix.rsplit_once('-')).and_then(|(_, last)| last.parse::<u64>().ok());
        rotated.extend(last.filter(|last| *last > known).map(|last| (last, entry.path())));
    }
    rotated.sort();
    Ok(rotated.into_iter().map(|(_, path)| path).collect())
}
