//! The one thread that writes the log: whatever waits goes to the disk together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::chain::{ChainKey, ChainKeys, Mac};
use super::file::{Link, LogFile};
use crate::clock::Clock;

/// Most lines that go to the disk together.
const MAX_BATCH: usize = 1_024;
/// Most outcomes that are kept while the disk takes nothing. Of those beyond, the outcome stays unknown.
const MAX_KEPT: usize = 10_000;

/// What the writer is asked to do.
pub enum Request {
    /// Write a line.
    Line(Line),
    /// Look whether the file was moved, and write what was kept.
    Look,
}

/// A line to be.
pub struct Line {
    /// A JSON object; its number and time are put before what it has.
    pub object: String,
    /// Whether to write it later if it can't be written now.
    pub keep: bool,
    /// Told the line's number once that is on the disk.
    pub written: Option<oneshot::Sender<u64>>,
}

/// What is known of the writer elsewhere.
#[derive(Debug, Default)]
pub struct State {
    failing: AtomicBool,
    lines: AtomicU64,
    failures: AtomicU64,
}

impl State {
    /// Whether what was to be written last could not be.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Lines written.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Times that the disk took nothing.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Why a new file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// The process began.
    Start,
    /// The file before was full.
    Size,
    /// The file before was moved or removed.
    Moved,
}

impl Begin {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Size => "size",
            Self::Moved => "moved",
        }
    }
}

/// The writer.
pub struct Writer {
    pub file: LogFile,
    pub max_size: u64,
    pub key: ChainKey,
    pub instance: String,
    pub end: Link,
    pub clock: Clock,
    pub state: Arc<State>,
    pub head: watch::Sender<Link>,
    /// Why the next line must be preceded by one that says where the chain comes from.
    pub begin: Option<Begin>,
    /// Bytes of a torn line that were taken away.
    pub torn: u64,
    kept: Vec<String>,
}

impl Writer {
    #[allow(clippy::too_many_arguments, reason = "they are the fields")]
    /// A writer that goes on after `end`.
    pub fn new(
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
        let (begin, kept) = (Some(Begin::Start), vec![]);
        Self { file, max_size, key, instance, end, clock, state, head, begin, torn, kept }
    }

    /// Writes what comes, until nobody is left to send anything. Says at once where the chain goes on.
    ///
    /// # Errors
    /// When not even that first line can be written.
    pub fn start(mut self, mut requests: mpsc::Receiver<Request>) -> std::io::Result<()> {
        self.write(&[])?;
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let mut batch = Vec::with_capacity(MAX_BATCH);
            while requests.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
                self.serve(batch.drain(..));
            }
        })?;
        Ok(())
    }

    fn serve(&mut self, requests: impl Iterator<Item = Request>) {
        let lines: Vec<Line> = requests
            .filter_map(|request| match request {
                Request::Line(line) => Some(line),
                Request::Look => None,
            })
            .collect();
        let kept = std::mem::take(&mut self.kept);
        let objects: Vec<&str> =
            kept.iter().chain(lines.iter().map(|line| &line.object)).map(String::as_str).collect();
        match self.write(&objects) {
            Ok(first) => {
                if self.state.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the audit log is written again");
                }
                for (number, line) in (first + kept.len() as u64..).zip(lines) {
                    // Who asked may have stopped waiting.
                    let _ = line.written.map(|written| written.send(number));
                }
            }
            Err(error) => {
                self.state.failures.fetch_add(1, Ordering::Relaxed);
                if !self.state.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, file = %self.file.path().display(), "the audit log can't be written: changes are refused");
                }
                self.kept = kept;
                let room = MAX_KEPT.saturating_sub(self.kept.len());
                // Whoever waits learns it by the sender's end.
                let later = lines.into_iter().filter(|line| line.keep).take(room);
                self.kept.extend(later.map(|line| line.object));
            }
        }
    }

    /// Writes lines, and what has to stand before them; gives the number of the first.
    fn write(&mut self, objects: &[&str]) -> std::io::Result<u64> {
        if !self.file.is_in_place()? {
            self.torn = self.file.reopen()?.torn;
            self.begin = Some(Begin::Moved);
        }
        let bytes: u64 = objects.iter().map(|object| object.len() as u64 + 128).sum();
        let length = self.file.length();
        if self.max_size > 0 && length > 0 && length + bytes > self.max_size && !objects.is_empty() {
            self.move_aside()?;
        }
        let (mut end, mut text) = (self.end.clone(), String::new());
        if let Some(begin) = self.begin {
            let object = self.begin_object(begin);
            self.add(&mut text, &mut end, &object);
        }
        let first = end.lines + 1;
        for object in objects {
            self.add(&mut text, &mut end, object);
        }
        if !text.is_empty() {
            self.file.append(text.as_bytes())?;
            self.state.lines.fetch_add(end.lines - self.end.lines, Ordering::Relaxed);
            (self.begin, self.torn) = (None, 0);
            self.end = end;
            self.head.send_replace(self.end.clone());
        }
        Ok(first)
    }

    fn move_aside(&mut self) -> std::io::Result<()> {
        let chain: String = self.end.chain.chars().take(8).collect();
        // By the number of its last line, so that names are in order and each is there once.
        let suffix = format!("{chain}-{:012}", self.end.lines);
        match self.file.move_aside(&suffix) {
            Ok(()) => self.begin = Some(Begin::Size),
            // A file that grows is better than none.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                tracing::warn!(%suffix, "the audit log can't be moved aside: there is a file of that name");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn begin_object(&self, begin: Begin) -> String {
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
        object.to_string()
    }

    fn add(&self, text: &mut String, end: &mut Link, object: &str) {
        let number = end.lines + 1;
        let time = self.clock.now().to_rfc3339();
        let rest = object.strip_prefix('{').unwrap_or(object);
        let object = format!(r#"{{"seq":{number},"time":"{time}",{rest}"#);
        let (line, mac): (String, Mac) = self.key.close(&end.mac, &object);
        text.push_str(&line);
        text.push('\n');
        (end.lines, end.mac) = (number, mac);
    }
}

/// How to open a log.
pub struct LogSettings {
    /// Where the file is.
    pub path: PathBuf,
    /// From which size on a file is moved aside, in bytes; 0 for never.
    pub max_size: u64,
    /// What keys the chain.
    pub keys: ChainKeys,
}
