//! Thread that writes the log. Lines that wait are written and synced together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::chain::{ChainKey, ChainKeys, Mac};
use super::file::LogFile;
use super::outside::OutsideChange;
use super::tail::Link;
use crate::clock::{BootTime, Clock};

/// Maximum number of lines per sync.
const MAX_BATCH: usize = 1_024;
/// Maximum number of lines retained while the disk fails. Beyond that, outcomes stay unknown.
const MAX_RETAINED: usize = 10_000;

/// Request to the writer.
pub(super) enum Request {
    /// Writes a line.
    Line(Line),
    /// Checks whether the file was moved, and writes retained lines.
    CheckFile,
}

/// A line to write.
pub(super) struct Line {
    /// JSON object. Number and time are inserted before its members.
    pub object: String,
    /// Retain the line if it can't be written now.
    pub retain: bool,
    /// Gets the line's number once it is on disk.
    pub ack: Option<oneshot::Sender<u64>>,
}

/// State of the writer, for other threads.
#[derive(Debug, Default)]
pub struct State {
    failing: AtomicBool,
    lines: AtomicU64,
    failures: AtomicU64,
    outside_changes: [AtomicU64; OutsideChange::ALL.len()],
    last_outside_change: Mutex<Option<NoticedChange>>,
}

/// A change of the file that somebody else made.
#[derive(Debug, Clone, Copy)]
pub struct NoticedChange {
    /// The change.
    pub change: OutsideChange,
    /// Number of the last line before it.
    pub after: u64,
    /// Time at which it was noticed.
    pub at: BootTime,
}

impl State {
    /// Returns whether the last write failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Returns the number of lines written.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Returns the number of failed writes.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns how often somebody else changed the file, by change.
    pub fn outside_changes(&self) -> [(OutsideChange, u64); OutsideChange::ALL.len()] {
        let count = |change| self.outside_changes[change as usize].load(Ordering::Relaxed);
        OutsideChange::ALL.map(|change| (change, count(change)))
    }

    /// Returns the last change of the file that somebody else made.
    pub fn last_outside_change(&self) -> Option<NoticedChange> {
        *self.last_outside_change.lock()
    }

    fn record_outside_change(&self, noticed: NoticedChange) {
        self.outside_changes[noticed.change as usize].fetch_add(1, Ordering::Relaxed);
        *self.last_outside_change.lock() = Some(noticed);
    }
}

/// Reason for a `begin` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BeginReason {
    /// The process started.
    Start,
    /// The file before was full.
    Size,
    /// Somebody else changed the file before.
    Outside(OutsideChange),
}

impl BeginReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Size => "size",
            Self::Outside(change) => change.name(),
        }
    }
}

/// The writer.
pub(super) struct Writer {
    pub file: LogFile,
    pub max_size: u64,
    pub key: ChainKey,
    pub instance: String,
    pub end: Link,
    pub clock: Clock,
    pub state: Arc<State>,
    pub head: watch::Sender<Link>,
    /// Reason to write a `begin` line first.
    pub begin: Option<BeginReason>,
    /// Bytes of an incomplete line that were truncated.
    pub torn: u64,
    /// Last line that a database knew which lacks changes of the log.
    pub database_known_to: Option<u64>,
    retained: Vec<String>,
    /// True if a full file couldn't be moved aside the last time.
    is_rotation_failing: bool,
}

impl Writer {
    #[allow(clippy::too_many_arguments, reason = "they are the fields")]
    /// Creates a writer that continues after `end`.
    pub(super) fn new(
        file: LogFile,
        max_size: u64,
        key: ChainKey,
        instance: String,
        end: Link,
        clock: Clock,
        state: Arc<State>,
        head: watch::Sender<Link>,
        torn: u64,
    ) -> Self {
        let (begin, retained) = (Some(BeginReason::Start), vec![]);
        let database_known_to = None;
        Self {
            file,
            max_size,
            key,
            instance,
            end,
            clock,
            state,
            head,
            begin,
            torn,
            database_known_to,
            retained,
            is_rotation_failing: false,
        }
    }

    /// Writes a `begin` line, then starts the thread. It ends when all senders are gone.
    ///
    /// # Errors
    /// Fails if the `begin` line can't be written.
    pub(super) fn start(mut self, mut requests: mpsc::Receiver<Request>) -> std::io::Result<()> {
        self.write(&[])?;
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let mut batch = Vec::with_capacity(MAX_BATCH);
            while requests.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
                self.write_batch(batch.drain(..));
            }
        })?;
        Ok(())
    }

    /// Writes the lines of a batch and acknowledges them. If that fails, outcomes are kept for
    /// later, and the senders of all lines get an error.
    fn write_batch(&mut self, requests: impl Iterator<Item = Request>) {
        let lines: Vec<Line> = requests
            .filter_map(|request| match request {
                Request::Line(line) => Some(line),
                Request::CheckFile => None,
            })
            .collect();
        let retained = std::mem::take(&mut self.retained);
        let objects: Vec<&str> =
            retained.iter().chain(lines.iter().map(|line| &line.object)).map(String::as_str).collect();
        match self.write(&objects) {
            Ok(first) => {
                if self.state.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the audit log is written again");
                }
                for (number, line) in (first + retained.len() as u64..).zip(lines) {
                    // The sender may have timed out.
                    let _ = line.ack.map(|ack| ack.send(number));
                }
            }
            Err(error) => {
                self.state.failures.fetch_add(1, Ordering::Relaxed);
                if !self.state.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, file = %self.file.path().display(), "the audit log can't be written: changes are refused until it can");
                }
                self.retained = retained;
                let room = MAX_RETAINED.saturating_sub(self.retained.len());
                // Dropping the line tells its sender.
                let later = lines.into_iter().filter(|line| line.retain).take(room);
                self.retained.extend(later.map(|line| line.object));
            }
        }
    }

    /// Writes lines, after a `begin` line if needed. Returns the number of the first.
    fn write(&mut self, objects: &[&str]) -> std::io::Result<u64> {
        self.recover_from_outside()?;
        let bytes: u64 = objects.iter().map(|object| object.len() as u64 + 128).sum();
        let length = self.file.length();
        if self.max_size > 0 && length > 0 && length + bytes > self.max_size && !objects.is_empty() {
            self.rotate();
        }
        let (mut end, mut text) = (self.end.clone(), String::new());
        if let Some(begin) = self.begin {
            let object = self.begin_object(begin);
            self.push_line(&mut text, &mut end, &object);
        }
        let first = end.lines + 1;
        for object in objects {
            self.push_line(&mut text, &mut end, object);
        }
        if !text.is_empty() {
            self.file.append(text.as_bytes())?;
            self.state.lines.fetch_add(end.lines - self.end.lines, Ordering::Relaxed);
            (self.begin, self.torn, self.database_known_to) = (None, 0, None);
            self.end = end;
            self.head.send_replace(self.end.clone());
        }
        Ok(first)
    }

    /// Begins anew where somebody else has changed the file since the last write.
    fn recover_from_outside(&mut self) -> std::io::Result<()> {
        let Some(change) = self.file.outside_change()? else {
            return Ok(());
        };
        let suffix = self.suffix();
        self.torn = self.file.recover(change, &suffix, &self.end)?;
        self.begin = Some(BeginReason::Outside(change));
        let after = self.end.lines;
        self.state.record_outside_change(NoticedChange { change, after, at: self.clock.boot_now() });
        let file = self.file.path().display();
        match change {
            OutsideChange::Moved => {
                tracing::info!(%file, after, "the audit log was moved: a new file is begun")
            }
            OutsideChange::Removed => {
                tracing::error!(%file, after, "the audit log was removed by somebody else: its lines are lost unless there is a copy; a new file is begun")
            }
            OutsideChange::Truncated => {
                tracing::error!(%file, after, "the audit log was truncated by somebody else: its lines are lost unless there is a copy; a new file is begun. Rotate by renaming (logrotate: `create`, not `copytruncate`)")
            }
            OutsideChange::Extended => {
                tracing::error!(%file, after, "somebody else has written to the audit log: that file is moved aside, and a new one is begun")
            }
        }
        Ok(())
    }

    /// Returns the suffix of a file that is moved aside: its last line, so that names are unique
    /// and sort in order.
    fn suffix(&self) -> String {
        let chain: String = self.end.chain.chars().take(8).collect();
        format!("{chain}-{:012}", self.end.lines)
    }

    /// Moves a full file aside. One that grows beyond its limit is better than none.
    fn rotate(&mut self) {
        let suffix = self.suffix();
        match self.file.rotate(&suffix) {
            Ok(()) => (self.begin, self.is_rotation_failing) = (Some(BeginReason::Size), false),
            Err(error) => {
                if !std::mem::replace(&mut self.is_rotation_failing, true) {
                    let file = self.file.path().display();
                    tracing::error!(%error, %file, %suffix, "the audit log has reached audit.max_size and can't be moved aside: it grows beyond that, no line is lost, and it is tried again with each line. Files must be creatable in its directory");
                }
            }
        }
    }

    fn begin_object(&self, begin: BeginReason) -> String {
        let mut object = json!({
            "kind": "begin",
            "reason": begin.name(),
            "chain": self.end.chain,
            "previous": self.end.mac.to_string(),
            "key": self.key.name(),
            "instance": self.instance,
            "version": env!("CARGO_PKG_VERSION"),
        });
        if self.torn > 0 {
            object["torn_bytes"] = self.torn.into();
        }
        if let Some(known_to) = self.database_known_to {
            object["database_known_to"] = known_to.into();
        }
        object.to_string()
    }

    fn push_line(&self, text: &mut String, end: &mut Link, object: &str) {
        let number = end.lines + 1;
        let time = self.clock.now().to_rfc3339();
        let rest = object.strip_prefix('{').unwrap_or(object);
        let object = format!(r#"{{"seq":{number},"time":"{time}",{rest}"#);
        let (line, mac): (String, Mac) = self.key.sign_line(&end.mac, &object);
        text.push_str(&line);
        text.push('\n');
        (end.lines, end.mac) = (number, mac);
    }
}

/// Settings of a log.
pub struct LogSettings {
    /// Path of the file.
    pub path: PathBuf,
    /// Size from which a file is rotated, in bytes. 0 for never.
    pub max_size: u64,
    /// Keys of the chain.
    pub keys: ChainKeys,
}
