//! The operator's deny list (`consistency.deny_file`), read at the start and whenever it changes.
//!
//! Additions are applied at once. Removals are applied at once as long as they are few: a truncated
//! list (`grep -v ID list > list`) looks like one that was emptied on purpose, so a [`ShrinkGuard`]
//! waits until such a list has stood unchanged.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::shrink_guard::{ShrinkGuard, TooManyTogether, Verdict};
use super::watched::Watched;
use crate::clock::{Clock, Timestamp};
use crate::key::deny::{DenyList, DenyListError};
use crate::service::Service;
use crate::telemetry::deny_file::Shrunk;
use crate::telemetry::metrics::Metrics;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// Time between two looks at the file.
const INTERVAL: Duration = Duration::from_millis(250);
/// Looks in a row that may find the file changing before it is read all the same, as others may
/// append to it for hours.
const MAX_CHANGING_LOOKS: u32 = 3;
/// Time for which a list that removes many keys has to stand unchanged before it is applied, and
/// for which removals are counted together.
const CONFIRMATION_TIME: Duration = Duration::from_secs(10);
/// The same, in looks: a process that was stopped meanwhile has not looked.
const CONFIRMATION_LOOKS: u128 = CONFIRMATION_TIME.as_millis() / INTERVAL.as_millis();
/// Age below which a file may still be being written when the start reads it.
const YOUNG: Duration = Duration::from_secs(1);
/// Looks at a young file before it is read all the same.
const MAX_START_LOOKS: u32 = 8;

/// A deny file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("consistency.deny_file: {}: {problem}", path.display())]
pub struct DenyFileError {
    path: PathBuf,
    problem: Problem,
}

impl DenyFileError {
    /// Returns true if the file was read, but isn't a list of key ids.
    pub(super) fn is_malformed(&self) -> bool {
        matches!(self.problem, Problem::Malformed(_))
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is larger than 64 MiB")]
    TooLarge,
    #[error("is a pipe or a socket, not a file")]
    NotAFile,
    #[error(transparent)]
    Malformed(#[from] DenyListError),
    #[error(transparent)]
    TooManyTogether(#[from] TooManyTogether),
}

/// Reads the file for the start. There is no earlier list to compare it with, so a file that is
/// being written is waited for, two seconds at most.
///
/// # Errors
/// When the file is missing, too large, or no list of key ids.
pub(super) async fn read_at_start(path: &Path, clock: &Clock) -> Result<DenyList, DenyFileError> {
    let mut list = (version_of(path).await?, read(path).await?);
    for _ in 0..MAX_START_LOOKS {
        let (version, _) = &list;
        if version.modified_at().plus(YOUNG) < clock.now() {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
        let newer = version_of(path).await?;
        if newer == *version {
            break;
        }
        list = (newer, read(path).await?);
    }
    Ok(list.1)
}

/// Reads the file.
///
/// # Errors
/// When it is missing, too large, or no list of key ids.
pub(super) async fn read(path: &Path) -> Result<DenyList, DenyFileError> {
    let file = path.to_owned();
    let list = tokio::task::spawn_blocking(move || read_file(&file)).await;
    let list = list.unwrap_or_else(|panic| Err(std::io::Error::other(panic).into()));
    list.map_err(|problem| DenyFileError { path: path.to_owned(), problem })
}

fn read_file(path: &Path) -> Result<DenyList, Problem> {
    let mut text = vec![];
    let kind = fs::metadata(path)?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        // Opening it would block until another process writes to it.
        return Err(Problem::NotAFile);
    }
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    match u64::try_from(text.len()).is_ok_and(|len| len <= MAX_FILE) {
        true => Ok(DenyList::parse(&text)?),
        false => Err(Problem::TooLarge),
    }
}

async fn version_of(path: &Path) -> Result<FileVersion, DenyFileError> {
    let file = path.to_owned();
    let metadata = tokio::task::spawn_blocking(move || fs::metadata(file)).await;
    let metadata = metadata.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    let fail = |error: std::io::Error| DenyFileError { path: path.to_owned(), problem: error.into() };
    Ok(FileVersion::new(&metadata.map_err(fail)?))
}

/// Applies each change of the file, forever. A file that is missing or malformed changes nothing:
/// the last list stays in force.
pub(super) async fn watch(path: PathBuf, service: Arc<Service>, metrics: Arc<Metrics>) {
    let mut watched = Watched::by_polling(INTERVAL, |file| {
        fs::metadata(file).ok().map(|metadata| FileVersion::new(&metadata))
    });
    watched.set_files([path.clone()]);
    let (mut changes, mut guard) = (Changes::default(), ShrinkGuard::new(CONFIRMATION_LOOKS));
    let mut reported = None;
    loop {
        watched.wait().await;
        let has_changed = !watched.look().await.is_empty();
        let list = match watched.state(&path).copied().flatten() {
            Some(version) => match changes.should_read(version, has_changed) || guard.is_confirmation_due() {
                true => Some(read(&path).await),
                false => None,
            },
            // Reading the file tells why it can't be looked at.
            None => Some(read(&path).await).filter(Result::is_err),
        };
        let verdict = list.map(|list| {
            let in_force = service.deny_list.load_full();
            let fail =
                |problem: TooManyTogether| DenyFileError { path: path.clone(), problem: problem.into() };
            list.and_then(|list| guard.judge(list, &in_force).map_err(fail))
        });
        match verdict {
            None => {}
            Some(Ok(verdict)) => {
                apply(verdict, &service, &metrics);
                reported = None;
            }
            Some(Err(error)) => {
                metrics.deny_file.set_current(false);
                metrics.deny_file.set_held(0);
                // The list may have changed meanwhile.
                guard.forget_held();
                if matches!(error.problem, Problem::Unreadable(_)) {
                    // The file may become readable without a change of its own.
                    changes = Changes::default();
                }
                // Reported once, not at each look.
                let text = error.to_string();
                if reported.as_ref() != Some(&text) {
                    tracing::error!(%error, "the deny list was refused; the last one stays in force");
                    reported = Some(text);
                }
            }
        }
        guard.tick();
    }
}

/// Puts a verdict into force, and reports it.
fn apply(verdict: Verdict, service: &Service, metrics: &Metrics) {
    let before = service.deny_list.load_full();
    let file = &metrics.deny_file;
    match verdict {
        Verdict::Hold { together, held, is_new } => {
            file.set_current(false);
            file.set_held(held);
            if is_new {
                let (keys, seconds) = (before.len(), CONFIRMATION_TIME.as_secs());
                tracing::warn!(
                    held,
                    keys,
                    "consistency.deny_file names far fewer keys than are refused: the others stay refused until the \
                     file has stood unchanged for {seconds} s"
                );
            }
            if together != *before {
                service.deny_list.store(Arc::new(together));
            }
        }
        Verdict::Apply { list, lifted, was_held } => {
            file.set_current(true);
            file.set_held(0);
            if list == *before {
                return;
            }
            let keys = list.len();
            service.deny_list.store(Arc::new(list));
            file.lifted.inc_by(lifted as u64);
            if was_held {
                let (from, to) = (before.len() as u64, keys as u64);
                file.set_shrunk(Shrunk { from, to, at: service.clock.boot_now() });
                tracing::warn!(
                    keys,
                    lifted,
                    "a far shorter deny list is in force: keys that it doesn't name are no longer refused by it"
                );
            } else {
                tracing::info!(keys, lifted, "a new deny list is in force");
            }
        }
    }
}

/// Metadata that tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    fn new(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// The last change, rounded up to a second.
    fn modified_at(&self) -> Timestamp {
        Timestamp::from_secs(self.modified.0.max(self.changed.0)).plus(Duration::from_secs(1))
    }
}

/// Decides when to read the file: when it stands still between two looks, as it may be written in
/// parts, but not much later than it began to change.
#[derive(Debug, Default)]
struct Changes {
    /// Version that was read while it stood still.
    read: Option<FileVersion>,
    /// Looks in a row that found a version that wasn't read.
    changing_looks: u32,
}

impl Changes {
    /// Returns true if the file is to be read, after a look that found this version, new or not.
    fn should_read(&mut self, version: FileVersion, has_changed: bool) -> bool {
        if self.read == Some(version) {
            self.changing_looks = 0;
            return false;
        }
        if !has_changed {
            self.read = Some(version);
        }
        self.changing_looks += 1;
        let is_due = !has_changed || self.changing_looks == MAX_CHANGING_LOOKS;
        if is_due {
            self.changing_looks = 0;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(len: u64) -> FileVersion {
        FileVersion { device: 1, inode: 2, len, modified: (3, 0), changed: (3, 0) }
    }

    #[test]
    fn a_file_is_read_once_unchanged_and_sometimes_while_it_changes() {
        let (mut changes, mut last) = (Changes::default(), None);
        let mut look = |len| {
            let has_changed = last.replace(len) != Some(len);
            changes.should_read(version(len), has_changed)
        };
        assert!(!look(1), "just seen");
        assert!(look(1), "stands still");
        assert!(!look(1), "was read");
        assert_eq!([2, 3, 4].map(&mut look), [false, false, true], "while it changes");
        assert!(look(4), "again once it stands still");
        assert!(!look(4), "was read");
        assert!(!look(5) && look(5), "it has changed");
    }

    #[tokio::test]
    async fn a_pipe_is_named_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny.txt");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(read(&path).await.unwrap_err().to_string().ends_with("is a pipe or a socket, not a file"));
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_waited_for_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny.txt");
        fs::write(&path, "").unwrap();
        let writing = {
            let path = path.clone();
            async move {
                tokio::time::sleep(INTERVAL / 2).await;
                fs::write(&path, format!("{}\n", uuid::Uuid::nil())).unwrap();
            }
        };
        let clock = Clock::system();
        let (list, ()) = tokio::join!(read_at_start(&path, &clock), writing);
        assert_eq!(list.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_file_is_read_or_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deny.txt");
        let missing = read(&path).await.unwrap_err().to_string();
        assert!(missing.starts_with("consistency.deny_file: ") && missing.contains("deny.txt"), "{missing}");
        fs::write(&path, "# none yet\n").unwrap();
        assert!(read(&path).await.unwrap().is_empty());
        fs::write(&path, "nonsense\n").unwrap();
        let bad = read(&path).await.unwrap_err().to_string();
        assert!(bad.ends_with("not a key id in line 1"), "{bad}");
        File::options().write(true).open(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(read(&path).await.unwrap_err().to_string().ends_with("is larger than 64 MiB"));
        assert!(read(directory.path()).await.is_err(), "a directory");
    }
}
