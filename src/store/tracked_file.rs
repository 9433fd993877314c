//! SQLite file that pools share, with what its path named when it was last checked.
//!
//! Connections of one process share the log and its index. If one of these is removed or replaced
//! under them, a further connection would still get the old ones, and another process the new
//! ones: each would overwrite what the other wrote. So all must be closed before one is opened.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::StoreError;
use super::database_file::{DatabaseFile, FileId};
use super::eviction::ConnectionEviction;
use super::server::NotAuthoritative;

/// File of a database, and its last known identity.
pub(super) struct TrackedFile {
    file: DatabaseFile,
    last: Mutex<FileId>,
    eviction: ConnectionEviction,
    /// True while no connection may be opened.
    is_blocked: AtomicBool,
    /// True while somebody closes the connections.
    is_closing: AtomicBool,
}

impl TrackedFile {
    /// Tracks the database at a path, which must exist.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn new(path: &Path, eviction: ConnectionEviction) -> Result<Self, StoreError> {
        let file = DatabaseFile::new(path);
        let last = Mutex::new(file.current()?);
        let (is_blocked, is_closing) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { file, last, eviction, is_blocked, is_closing })
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// Returns what the path names now, and evicts all connections if that is another file than
    /// before: they lead to a file that has no name any more.
    ///
    /// # Errors
    /// When the path names no file, or one that can't be opened safely now.
    pub(super) fn refresh(&self) -> Result<FileId, StoreError> {
        let current = self.file.current()?;
        let mut last = self.last.lock();
        if self.is_blocked.load(Ordering::Acquire) {
            return Err(NotAuthoritative::LogReplaced.into());
        }
        if let Err(reason) = last.compare(current) {
            self.eviction.evict_all(reason);
            match reason {
                NotAuthoritative::FileReplaced => {}
                NotAuthoritative::LogReplaced => {
                    self.is_blocked.store(true, Ordering::Release);
                    return Err(reason.into());
                }
                // What was opened stays the last, until the files of the other database are gone.
                _ => return Err(reason.into()),
            }
        }
        *last = current;
        Ok(current)
    }

    /// Returns true if all connections must be closed, and nobody has begun to close them.
    pub(super) fn begin_closing(&self) -> bool {
        self.is_blocked.load(Ordering::Acquire) && !self.is_closing.swap(true, Ordering::AcqRel)
    }

    /// Returns true if another process still has the file open as it was.
    ///
    /// # Errors
    /// When the path names no file.
    pub(super) fn is_used(&self) -> Result<bool, StoreError> {
        let current = self.file.current()?;
        Ok(self.last.lock().is_used_as_of(current))
    }

    /// Allows connections again, now that all others are closed.
    pub(super) fn end_closing(&self) {
        let mut last = self.last.lock();
        *last = last.without_log();
        self.is_closing.store(false, Ordering::Release);
        self.is_blocked.store(false, Ordering::Release);
    }
}
