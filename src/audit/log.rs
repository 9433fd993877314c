//! Handle of the log: opens it, writes lines, and reports its head to the database.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::behind::{Behind, BehindError};
use super::chain::Mac;
use super::changes::CLOCK_AHEAD_SECONDS;
use super::file::LogFile;
use super::parts::end_of_moved;
use super::tail::Link;
use super::writer::{Line, LogSettings, Request, State, Writer};
use crate::clock::Clock;
use crate::escape;
use crate::rng::Rng;
use crate::store::{AuditHead, Store, StoreError};

/// Maximum number of queued lines.
const MAX_QUEUED_LINES: usize = 4_096;
/// Maximum time until a line is on disk.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for which an outcome waits until the database knows the head. Then it is reported
/// later.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed report of the head.
const HEAD_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Time between two checks that the database still knows the head.
const HEAD_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Error opening the log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file can't be used.
    #[error("audit.file: {path}: {error}")]
    File {
        /// Path of the file.
        path: String,
        /// Cause.
        error: std::io::Error,
    },
    /// The database can't tell where the chain ended.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log can't be compared with the database.
    #[error(transparent)]
    Behind(#[from] BehindError),
    /// The task that reads the file was cancelled.
    #[error("audit.file: the task that reads it was cancelled")]
    Interrupted,
}

/// The line is not on disk, and may never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log can't be written")]
pub struct WriteFailed;

/// Handle of this process's log.
#[derive(Clone)]
pub struct AuditLog {
    requests: mpsc::Sender<Request>,
    state: Arc<State>,
    /// Progress of the reports to the database.
    progress: watch::Receiver<HeadProgress>,
    behind: Arc<Behind>,
}

#[derive(Debug, Clone, Copy, Default)]
struct HeadProgress {
    lines: u64,
    failing: bool,
}

/// Reports the head of the chain to the database.
pub struct HeadReporter {
    store: Store,
    clock: Clock,
    key: super::chain::ChainKey,
    instance: String,
    head: watch::Receiver<Link>,
    progress: watch::Sender<HeadProgress>,
    behind: Arc<Behind>,
}

impl AuditLog {
    /// Opens the log and continues the chain in it, or the one that the database knows.
    ///
    /// # Errors
    /// Fails if the file can't be written, or the database doesn't answer.
    pub async fn open(
        settings: LogSettings,
        store: Store,
        clock: Clock,
        rng: &Rng,
    ) -> Result<(Self, HeadReporter), AuditError> {
        let fail = |error| AuditError::File { path: settings.path.display().to_string(), error };
        let path = settings.path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let (file, tail) = LogFile::open(&path)?;
            let moved = match file.length() {
                0 => end_of_moved(file.path(), &instance(file.path()))?,
                _ => None,
            };
            Ok::<_, std::io::Error>((file, tail, moved))
        });
        let (file, tail, moved) = opened.await.map_err(|_| AuditError::Interrupted)?.map_err(fail)?;
        let instance = instance(file.path());
        let (last, known) = ends(&store, &settings, &instance, tail.last, moved).await?;
        let known_to = known.as_ref().map(|known| known.lines);
        let LogSettings { max_size, keys, .. } = settings;
        let current = keys.current.clone();
        let behind = Arc::new(Behind::new(store.clone(), file.path(), keys.all(), clock.clone()));
        if let Some(Link { chain, .. }) = last.as_ref().or(known.as_ref()) {
            behind.examine_at_start(chain, last.as_ref().map(|last| last.lines), known_to).await?;
        }
        let end = match (last, known) {
            (None, None) => Link { chain: rng.uuid().to_string(), lines: 0, mac: Mac::NONE },
            (Some(last), None) => last,
            // The last lines may not have been reported.
            (Some(last), Some(known)) if last.lines >= known.lines => last,
            (last, Some(known)) => {
                if last.is_some() {
                    let file = file.path().display();
                    tracing::error!(%file, "the audit log ends before the last line that the database knows: lines are missing; run `talos audit verify`");
                }
                known
            }
        };
        let (head, head_of_writer) = watch::channel(end.clone());
        let (progress, progress_receiver) = watch::channel(HeadProgress::default());
        let (sender, requests) = mpsc::channel(MAX_QUEUED_LINES);
        let state = Arc::new(State::default());
        let mut writer = Writer::new(
            file,
            max_size,
            current.clone(),
            instance.clone(),
            end,
            clock.clone(),
            Arc::clone(&state),
            head,
            tail.torn,
        );
        writer.database_known_to = known_to.or(Some(0)).filter(|_| !behind.lacking().is_empty());
        let started = tokio::task::spawn_blocking(move || writer.start(requests)).await;
        started.map_err(|_| AuditError::Interrupted)?.map_err(fail)?;
        let heads = HeadReporter {
            store,
            clock,
            key: current,
            instance,
            head: head_of_writer,
            progress,
            behind: Arc::clone(&behind),
        };
        Ok((Self { requests: sender, state, progress: progress_receiver, behind }, heads))
    }

    /// Writes a line. Returns its number once it is on disk.
    ///
    /// # Errors
    /// Fails if it isn't on disk in time.
    pub(super) async fn write(
        &self,
        mut object: Map<String, Value>,
        retain: bool,
    ) -> Result<u64, WriteFailed> {
        let (ack, number) = oneshot::channel();
        self.note_clock(&mut object);
        let line = Line { object: to_json_text(object), retain, ack: Some(ack) };
        let write = async {
            self.requests.send(Request::Line(line)).await.map_err(|_| WriteFailed)?;
            number.await.map_err(|_| WriteFailed)
        };
        timeout(WRITE_TIMEOUT, write).await.unwrap_or(Err(WriteFailed))
    }

    /// Queues a line without waiting. Returns false if the queue is full.
    pub(super) fn enqueue(&self, mut object: Map<String, Value>) -> bool {
        self.note_clock(&mut object);
        let line = Line { object: to_json_text(object), retain: true, ack: None };
        self.requests.try_send(Request::Line(line)).is_ok()
    }

    /// Notes by how much the clock that dates a line is off, if it is.
    fn note_clock(&self, object: &mut Map<String, Value>) {
        if let Some(skew) = self.behind.clock_skew().filter(|skew| skew.is_suspicious()) {
            // The cast saturates.
            object.insert(CLOCK_AHEAD_SECONDS.to_owned(), (skew.seconds_ahead().round() as i64).into());
        }
    }

    /// Waits until the database knows line `number`, unless reports fail.
    pub(super) async fn wait_for_head(&self, number: u64) {
        let mut progress = self.progress.clone();
        let known = progress.wait_for(|progress| progress.failing || progress.lines >= number);
        // After a timeout, the head is reported later.
        let _ = timeout(HEAD_TIMEOUT, known).await;
    }

    /// Makes the writer check whether the file was moved, and write retained lines.
    pub fn check_file(&self) {
        // With a full queue, the writer checks anyway.
        let _ = self.requests.try_send(Request::CheckFile);
    }

    /// Returns the state of the writer.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the comparison of the log with the database.
    pub fn behind(&self) -> &Behind {
        &self.behind
    }
}

/// Returns the end of the log, and the one that the database knows. `last` is the end of its file,
/// `moved` that of the files that somebody else has moved while no process ran, if they have the
/// lines.
async fn ends(
    store: &Store,
    settings: &LogSettings,
    instance: &str,
    last: Option<Link>,
    moved: Option<Link>,
) -> Result<(Option<Link>, Option<Link>), StoreError> {
    if let Some(moved) = moved.filter(|_| last.is_none()) {
        let known = known_end(store, settings, instance, Some(&moved)).await?;
        // Without the newest of them, the database knows more.
        if known.as_ref().is_none_or(|known| known.lines <= moved.lines) {
            return Ok((Some(moved), known));
        }
    }
    let known = known_end(store, settings, instance, last.as_ref()).await?;
    if let (None, Some(known)) = (&last, &known) {
        tracing::warn!(
            file = instance,
            lines = known.lines,
            "no file of the audit log has the last lines that the database knows, so it was not compared with the \
             database. If they were moved elsewhere or compressed, and the database was restored from a backup, run \
             `talos audit replay FILE… --dry-run` over them"
        );
    }
    Ok((last, known))
}

/// Returns the end that the database knows: of the file's chain, or, if the file names none, of the
/// last chain that was written under its name. A database that was restored from a backup may know
/// only an older chain; then the file's goes on.
async fn known_end(
    store: &Store,
    settings: &LogSettings,
    instance: &str,
    last: Option<&Link>,
) -> Result<Option<Link>, StoreError> {
    let known = match last {
        Some(last) => store.audit_head_of_chain(&last.chain).await?,
        None => store.audit_head_of(instance).await?,
    };
    let known = known.filter(|known| is_sealed(known, settings));
    Ok(known.map(|known| Link { chain: known.chain, lines: known.lines, mac: Mac(known.mac) }))
}

/// Checks that a log at `path` could be opened, without changing it.
///
/// # Errors
/// Fails if the file, or one beside it, can't be written.
pub fn check_writable(path: &std::path::Path) -> Result<(), AuditError> {
    let fail = |error| AuditError::File { path: path.display().to_string(), error };
    super::writable::check_writable(path).map_err(fail)
}

/// Returns true if another process writes the log.
pub fn is_in_use(path: &std::path::Path) -> bool {
    super::writable::is_in_use(path)
}

fn is_sealed(head: &AuditHead, settings: &LogSettings) -> bool {
    let keys = std::iter::once(&settings.keys.current).chain(&settings.keys.retired);
    let sealed = keys
        .into_iter()
        .any(|key| key.seal(&head.chain, head.lines, &Mac(head.mac)).matches(&Mac(head.seal)));
    if !sealed {
        tracing::error!(
            chain = head.chain,
            "the audit log head in the database is not sealed with audit.key or audit.key_retired; it is ignored"
        );
    }
    sealed
}

/// Returns the unique name of a file: host name and path.
pub fn instance(path: &std::path::Path) -> String {
    let host = rustix::system::uname();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = format!("{}:{}", host.nodename().to_string_lossy(), path.display());
    // Length of the database column.
    let keep = name.chars().count().saturating_sub(255);
    name.chars().skip(keep).collect()
}

impl HeadReporter {
    /// Reports the head until the log is closed, then a last time.
    pub async fn run(mut self) {
        loop {
            let head = self.head.borrow_and_update().clone();
            let lines = self.progress.borrow().lines;
            if head.lines > lines {
                let failing = !self.save(&head).await;
                let lines = if failing { lines } else { head.lines };
                self.progress.send_replace(HeadProgress { lines, failing });
                if failing {
                    let closed = async { while self.head.changed().await.is_ok() {} };
                    if timeout(HEAD_RETRY_DELAY, closed).await.is_ok() {
                        let head = self.head.borrow().clone();
                        self.save(&head).await;
                        return;
                    }
                    continue;
                }
            }
            match timeout(HEAD_CHECK_INTERVAL, self.head.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    let head = self.head.borrow().clone();
                    if head.lines > self.progress.borrow().lines {
                        self.save(&head).await;
                    }
                    return;
                }
                Err(_) => self.check(&head).await,
            }
        }
    }

    /// Checks that the database still knows the head, and saves it again if not.
    async fn check(&self, head: &Link) {
        let saved = self.progress.borrow().lines;
        match self.store.audit_head_of_chain(&head.chain).await {
            Ok(known) if known.as_ref().map_or(0, |known| known.lines) < saved => {
                self.save(head).await;
            }
            _ => {}
        }
    }

    /// Saves the head of the chain in the database. Returns false if that fails.
    async fn save(&self, head: &Link) -> bool {
        let seal = self.key.seal(&head.chain, head.lines, &head.mac);
        let row = AuditHead {
            chain: head.chain.clone(),
            instance: self.instance.clone(),
            lines: head.lines,
            mac: head.mac.0,
            seal: seal.0,
        };
        let saved = self.progress.borrow().lines;
        match self.store.save_audit_head(row, self.clock.now()).await {
            // The database has forgotten what it knew.
            Ok(known) if known < saved => self.examine(head.chain.clone(), known),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the audit log head can't be saved in the database: until it can, lines removed from the end go unnoticed");
                return false;
            }
        }
        true
    }

    /// Compares the log with the database, in the background: calls wait for the head.
    fn examine(&self, chain: String, known: u64) {
        let behind = Arc::clone(&self.behind);
        tokio::spawn(async move {
            if let Err(error) = behind.examine(&chain, known).await {
                tracing::warn!(%error, "the database has forgotten lines of the audit log, as after a restore, and they can't be compared with it");
            }
        });
    }
}

/// Serialises an object, with control and invisible characters escaped.
fn to_json_text(object: Map<String, Value>) -> String {
    escape::json(&Value::Object(object).to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Different actors give different lines, and lines hide nothing.
        #[test]
        fn different_actors_are_different_lines(a in any::<String>(), b in any::<String>()) {
            let line = |actor: &str| to_json_text(Map::from_iter([("ActorID".to_owned(), Value::from(actor))]));
            prop_assert_eq!(a == b, line(&a) == line(&b));
            prop_assert!(!line(&a).contains(escape::is_invisible));
            let read: Value = serde_json::from_str(&line(&a)).unwrap();
            prop_assert_eq!(&read["ActorID"], &a);
        }
    }
}
