//! The log as everybody else sees it: opened where it left off, written to by waiting, its end told to the database.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::chain::Mac;
use super::file::{Link, LogFile};
use super::writer::{Line, LogSettings, Request, State, Writer};
use crate::clock::Clock;
use crate::escape;
use crate::rng::Rng;
use crate::store::{AuditHead, Store, StoreError};

/// Most lines that may wait.
const QUEUE: usize = 4_096;
/// How long a line may take to get to the disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an outcome waits for the database to know the log's end. What isn't told in time is told later.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);
/// How long to leave the database alone after it took no end.
const HEAD_PAUSE: Duration = Duration::from_secs(1);

/// Why the log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file can't be used.
    #[error("audit.file: {path}: {error}")]
    File {
        /// Where it is.
        path: String,
        /// What is wrong.
        error: std::io::Error,
    },
    /// The database doesn't say where the chain ended.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task that reads the file ended.
    #[error("audit.file: it could not be read")]
    Interrupted,
}

/// The line isn't on the disk, and may never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log can't be written")]
pub struct Unrecorded;

/// A handle to the log of this process.
#[derive(Clone)]
pub struct AuditLog {
    requests: mpsc::Sender<Request>,
    state: Arc<State>,
    /// Up to which line the database knows the chain, and whether it took the last that it was told.
    told: watch::Receiver<Told>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    lines: u64,
    failing: bool,
}

/// Tells the database where the chain ends.
pub struct Heads {
    store: Store,
    clock: Clock,
    key: super::chain::ChainKey,
    instance: String,
    head: watch::Receiver<Link>,
    told: watch::Sender<Told>,
}

impl AuditLog {
    /// Opens the log, and goes on with the chain that it holds or that the database knows of.
    ///
    /// # Errors
    /// When the file can't be written, or the database gives no answer.
    pub async fn open(
        settings: LogSettings,
        store: Store,
        clock: Clock,
        rng: &Rng,
    ) -> Result<(Self, Heads), AuditError> {
        let fail = |error| AuditError::File { path: settings.path.display().to_string(), error };
        let path = settings.path.clone();
        let opened = tokio::task::spawn_blocking(move || LogFile::open(&path)).await;
        let (file, tail) = opened.map_err(|_| AuditError::Interrupted)?.map_err(fail)?;
        let instance = instance(file.path());
        let known = store.audit_head_of(&instance).await?;
        let known = known.filter(|known| is_sealed(known, &settings)).map(|known| Link {
            chain: known.chain,
            lines: known.lines,
            mac: Mac(known.mac),
        });
        let end = match (tail.last, known) {
            (None, None) => Link { chain: rng.uuid().to_string(), lines: 0, mac: Mac::NONE },
            (Some(last), None) => last,
            // The database may not have heard of the last lines.
            (Some(last), Some(known)) if last.chain == known.chain && last.lines >= known.lines => last,
            (last, Some(known)) => {
                if last.is_some() {
                    let file = file.path().display();
                    tracing::error!(%file, "the audit log doesn't end where the database says: lines are missing; `talos audit verify` tells more");
                }
                known
            }
        };
        let (head, head_of_writer) = watch::channel(end.clone());
        let (told, told_of) = watch::channel(Told::default());
        let (sender, requests) = mpsc::channel(QUEUE);
        let state = Arc::new(State::default());
        let writer = Writer::new(
            file,
            settings.max_size,
            settings.keys.current.clone(),
            instance.clone(),
            end,
            clock.clone(),
            Arc::clone(&state),
            head,
            tail.torn,
        );
        let started = tokio::task::spawn_blocking(move || writer.start(requests)).await;
        started.map_err(|_| AuditError::Interrupted)?.map_err(fail)?;
        let heads = Heads { store, clock, key: settings.keys.current, instance, head: head_of_writer, told };
        Ok((Self { requests: sender, state, told: told_of }, heads))
    }

    /// Writes a line; gives its number once it is on the disk.
    ///
    /// # Errors
    /// When it isn't in time.
    pub(super) async fn write(&self, object: Map<String, Value>, keep: bool) -> Result<u64, Unrecorded> {
        let (written, number) = oneshot::channel();
        let line = Line { object: text_of(object), keep, written: Some(written) };
        let write = async {
            self.requests.send(Request::Line(line)).await.map_err(|_| Unrecorded)?;
            number.await.map_err(|_| Unrecorded)
        };
        timeout(PATIENCE, write).await.unwrap_or(Err(Unrecorded))
    }

    /// Has a line written without waiting for it; false when too many wait already.
    pub(super) fn write_later(&self, object: Map<String, Value>) -> bool {
        let line = Line { object: text_of(object), keep: true, written: None };
        self.requests.try_send(Request::Line(line)).is_ok()
    }

    /// Waits until the database knows of line `number`, as long as it takes what it is told.
    pub(super) async fn told(&self, number: u64) {
        let mut told = self.told.clone();
        let known = told.wait_for(|told| told.failing || told.lines >= number);
        // What it doesn't know yet it will be told.
        let _ = timeout(HEAD_PATIENCE, known).await;
    }

    /// Has the writer look whether its file was moved, and write what it kept.
    pub fn look(&self) {
        // With a full queue it is busy enough.
        let _ = self.requests.try_send(Request::Look);
    }

    /// What is known of the writer.
    pub fn state(&self) -> &State {
        &self.state
    }
}

fn is_sealed(head: &AuditHead, settings: &LogSettings) -> bool {
    let keys = std::iter::once(&settings.keys.current).chain(&settings.keys.retired);
    let sealed =
        keys.into_iter().any(|key| key.seal(&head.chain, head.lines, &Mac(head.mac)).is(&Mac(head.seal)));
    if !sealed {
        tracing::error!(
            chain = head.chain,
            "what the database says of the audit log's end was not written under audit.key or a retired one, and doesn't count"
        );
    }
    sealed
}

/// A name for the file that no other file has: the machine and the path.
pub fn instance(path: &std::path::Path) -> String {
    let host = rustix::system::uname();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = format!("{}:{}", host.nodename().to_string_lossy(), path.display());
    // The column takes so many.
    let keep = name.chars().count().saturating_sub(255);
    name.chars().skip(keep).collect()
}

impl Heads {
    /// Goes on until the log is closed; then the database knows its end, if it can be told.
    pub async fn tell(mut self) {
        loop {
            let head = self.head.borrow_and_update().clone();
            let lines = self.told.borrow().lines;
            if head.lines > lines {
                let failing = !self.save(&head).await;
                let lines = if failing { lines } else { head.lines };
                self.told.send_replace(Told { lines, failing });
                if failing {
                    let closed = async { while self.head.changed().await.is_ok() {} };
                    if timeout(HEAD_PAUSE, closed).await.is_ok() {
                        let head = self.head.borrow().clone();
                        self.save(&head).await;
                        return;
                    }
                    continue;
                }
            }
            if self.head.changed().await.is_err() {
                let head = self.head.borrow().clone();
                if head.lines > self.told.borrow().lines {
                    self.save(&head).await;
                }
                return;
            }
        }
    }

    async fn save(&self, head: &Link) -> bool {
        let seal = self.key.seal(&head.chain, head.lines, &head.mac);
        let head = AuditHead {
            chain: head.chain.clone(),
            instance: self.instance.clone(),
            lines: head.lines,
            mac: head.mac.0,
            seal: seal.0,
        };
        let saved = self.store.save_audit_head(head, self.clock.now()).await;
        if let Err(error) = &saved {
            tracing::warn!(%error, "the database doesn't know the audit log's end: lines cut off there would not be missed");
        }
        saved.is_ok()
    }
}

/// An object as it stands in a line, with nothing in it that a terminal obeys or that nobody sees.
fn text_of(object: Map<String, Value>) -> String {
    escape::json(&Value::Object(object).to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whoever did something is told apart from everybody else, and nothing of a line is
        /// hidden.
        #[test]
        fn different_actors_are_different_lines(a in any::<String>(), b in any::<String>()) {
            let line = |actor: &str| text_of(Map::from_iter([("ActorID".to_owned(), Value::from(actor))]));
            prop_assert_eq!(a == b, line(&a) == line(&b));
            prop_assert!(!line(&a).contains(escape::is_hidden));
            let read: Value = serde_json::from_str(&line(&a)).unwrap();
            prop_assert_eq!(&read["ActorID"], &a);
        }
    }
}
