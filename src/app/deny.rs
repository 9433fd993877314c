//! The operator's deny list (`consistency.deny_file`), read at the start and again whenever it changes.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::key::deny::{DenyList, DenyListError};
use crate::service::Service;
use crate::telemetry::metrics::Metrics;

/// Largest file, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often it may be found changing before it is read all the same: it may be appended to for hours.
const MAX_CHANGING: u32 = 3;

/// Why there is no deny list.
#[derive(Debug, thiserror::Error)]
#[error("consistency.deny_file: {}: {problem}", path.display())]
pub struct DenyFileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is larger than 64 MiB")]
    TooLarge,
    #[error(transparent)]
    Malformed(#[from] DenyListError),
}

/// Reads the file.
///
/// # Errors
/// When it isn't there, is too large or isn't a list of key ids.
pub async fn read(path: &Path) -> Result<DenyList, DenyFileError> {
    let file = path.to_owned();
    let list = tokio::task::spawn_blocking(move || read_file(&file)).await;
    let list = list.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked).into()));
    list.map_err(|problem| DenyFileError { path: path.to_owned(), problem })
}

fn read_file(path: &Path) -> Result<DenyList, Problem> {
    let mut text = vec![];
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    match u64::try_from(text.len()).is_ok_and(|len| len <= MAX_FILE) {
        true => Ok(DenyList::parse(&text)?),
        false => Err(Problem::TooLarge),
    }
}

/// Takes up what the file says whenever it changes, for ever. A file that is gone or no good changes nothing: the last
/// list stays.
pub async fn watch(path: PathBuf, service: Arc<Service>, metrics: Arc<Metrics>) {
    let mut changes = Changes::default();
    let mut told = None;
    loop {
        let read = match look(&path).await {
            Ok(seen) if changes.note(seen) => Some(read(&path).await),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        match read {
            None => {}
            Some(Ok(list)) => {
                take_up(list, &service);
                metrics.deny_file_is_good(true);
                told = None;
            }
            Some(Err(error)) => {
                metrics.deny_file_is_good(false);
                if matches!(error.problem, Problem::Unreadable(_)) {
                    // That may pass without any change of the file.
                    changes = Changes::default();
                }
                // Once, not with every look.
                if told.as_deref() != Some(&*error.to_string()) {
                    tracing::error!(%error, "the deny list was refused; the last one stays in force");
                    told = Some(error.to_string());
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(path: &Path) -> Result<Version, DenyFileError> {
    let file = path.to_owned();
    let seen = tokio::task::spawn_blocking(move || fs::metadata(file)).await;
    let seen = seen.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked)));
    let fail = |error: std::io::Error| DenyFileError { path: path.to_owned(), problem: error.into() };
    Ok(Version::of(&seen.map_err(fail)?))
}

fn take_up(list: DenyList, service: &Service) {
    if list != **service.deny_list.load() {
        tracing::info!(keys = list.len(), "a new deny list is in force");
        service.deny_list.store(Arc::new(list));
    }
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Decides when to read the file: once it stands still between two looks, as it may be written in parts, but not much
/// later than it began to change.
#[derive(Debug, Default)]
struct Changes {
    /// What was read while it stood still.
    read: Option<Version>,
    /// What was seen last.
    last: Option<Version>,
    /// How often in a row it was found changed.
    changing: u32,
}

impl Changes {
    /// Notes what the file looks like now; true when it is to be read.
    fn note(&mut self, now: Version) -> bool {
        let stands_still = self.last.replace(now) == Some(now);
        if self.read == Some(now) {
            self.changing = 0;
            return false;
        }
        if stands_still {
            self.read = Some(now);
        }
        self.changing += 1;
        let due = stands_still || self.changing == MAX_CHANGING;
        if due {
            self.changing = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(len: u64) -> Version {
        Version { device: 1, inode: 2, len, modified: (3, 0), changed: (3, 0) }
    }

    #[test]
    fn it_is_read_when_it_stands_still_and_while_it_never_does() {
        let mut changes = Changes::default();
        let mut note = |len| changes.note(version(len));
        assert!(!note(1), "just seen");
        assert!(note(1), "stands still");
        assert!(!note(1), "was read");
        assert_eq!([2, 3, 4].map(&mut note), [false, false, true], "while it changes");
        assert!(note(4), "again once it stands still");
        assert!(!note(4), "was read");
        assert!(!note(5) && note(5), "it has changed");
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
