//! SQLite file that pools share, with what its path named when it was last checked.

use std::path::Path;

use parking_lot::Mutex;

use super::StoreError;
use super::database_file::{DatabaseFile, FileId};
use super::eviction::ConnectionEviction;
use super::server::NotAuthoritative;

/// File of a database, and its last known identity.
pub(super) struct TrackedFile {
    file: DatabaseFile,
    last: Mutex<FileId>,
}

impl TrackedFile {
    /// Tracks the database at a path, which must exist.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn new(path: &Path) -> Result<Self, StoreError> {
        let file = DatabaseFile::new(path);
        let last = Mutex::new(file.current()?);
        Ok(Self { file, last })
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &DatabaseFile {
        &self.file
    }

    /// Returns what the path names now, and evicts all connections if that is another file than
    /// before: they lead to a file that has no name any more.
    pub(super) fn refresh(&self, eviction: &ConnectionEviction) -> Result<FileId, StoreError> {
        let current = self.file.current()?;
        let mut last = self.last.lock();
        if !last.is_same_database(current) {
            eviction.evict_all(NotAuthoritative::FileReplaced);
        }
        *last = current;
        Ok(current)
    }
}
