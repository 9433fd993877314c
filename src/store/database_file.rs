//! File of an SQLite database, and the check that its path still names the file that is open.
//!
//! A connection keeps reading and writing the file that it opened, whatever becomes of its name.
//! After a restore by rename that file has no name: writes to it are lost, and changes of others
//! are never seen.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::server::NotAuthoritative;

/// Device and inode of a file.
type Inode = (u64, u64);

/// Identity of the file that the path of a database names at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    database: Inode,
    /// Write-ahead log beside it, which has changes that aren't in the database yet; `None` before
    /// it is created.
    wal: Option<Inode>,
    /// Index of the log, which is also what processes lock; `None` before it is created.
    shm: Option<Inode>,
}

impl FileId {
    /// Returns true if `later` is the same database, with the same log.
    pub(super) fn is_same_database(self, later: Self) -> bool {
        self.compare(later).is_ok()
    }

    /// Checks that `later` is the same database. Its log may have been created meanwhile, but not
    /// replaced or removed: SQLite does neither while a connection is open.
    ///
    /// # Errors
    /// When the database or its log is another one.
    pub(super) fn compare(self, later: Self) -> Result<(), NotAuthoritative> {
        let is_kept = |before: Option<Inode>, now: Option<Inode>| before.is_none() || before == now;
        let is_left = |before: Option<Inode>, now: Option<Inode>| before.is_some() && before == now;
        if self.database != later.database {
            let is_log_left = is_left(self.wal, later.wal) || is_left(self.shm, later.shm);
            return Err(if is_log_left { NotAuthoritative::LogLeft } else { NotAuthoritative::FileReplaced });
        }
        match is_kept(self.wal, later.wal) && is_kept(self.shm, later.shm) {
            true => Ok(()),
            false => Err(NotAuthoritative::LogReplaced),
        }
    }

    /// Returns the same database before its log is created.
    pub(super) const fn without_log(self) -> Self {
        Self { wal: None, shm: None, ..self }
    }

    /// Returns true if processes that opened this still have it open: the last one deletes the
    /// index of the log when it closes.
    pub(super) fn is_used_as_of(self, later: Self) -> bool {
        self.database == later.database && self.shm.is_some() && self.shm == later.shm
    }
}

/// Path of a database.
pub(super) struct DatabaseFile {
    path: PathBuf,
}

impl DatabaseFile {
    /// Creates the file of the database at a path.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Returns the path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the path names now.
    ///
    /// # Errors
    /// When it names nothing.
    pub(super) fn current(&self) -> Result<FileId, StoreError> {
        // SQLite follows symbolic links, and keeps its log beside the file that they lead to.
        let path = match fs::canonicalize(&self.path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NotAuthoritative::FileReplaced.into());
            }
            Err(error) => return Err(sqlx::Error::Io(error).into()),
        };
        let database = inode(&path)?.ok_or(NotAuthoritative::FileReplaced)?;
        let beside = |suffix: &str| {
            let mut beside = path.clone().into_os_string();
            beside.push(suffix);
            inode(Path::new(&beside))
        };
        Ok(FileId { database, wal: beside("-wal")?, shm: beside("-shm")? })
    }

    /// Checks that the path still names the file that was opened.
    ///
    /// # Errors
    /// When it names another file, or none.
    pub(super) fn check(&self, opened: FileId) -> Result<(), StoreError> {
        Ok(opened.compare(self.current()?)?)
    }
}

fn inode(path: &Path) -> Result<Option<Inode>, StoreError> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some((file.dev(), file.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(sqlx::Error::Io(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_not_the_same_once_it_or_its_log_is_replaced_or_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let file = DatabaseFile::new(&path("talos.db"));
        assert!(file.current().is_err(), "no file");
        fs::write(path("talos.db"), "one").unwrap();
        let opened = file.current().unwrap();
        fs::write(path("talos.db-wal"), "its log").unwrap();
        assert!(file.check(opened).is_ok(), "the log was created meanwhile");

        let with_log = file.current().unwrap();
        fs::write(path("talos.db"), "changed where it stands").unwrap();
        assert!(file.check(with_log).is_ok());
        // Kept under another name, so that the next file can't get its inode.
        fs::rename(path("talos.db-wal"), path("old-wal")).unwrap();
        assert!(file.check(with_log).is_err(), "no log");
        fs::write(path("talos.db-wal"), "another log").unwrap();
        assert!(file.check(with_log).is_err(), "another log");

        fs::rename(path("talos.db"), path("old.db")).unwrap();
        assert!(file.check(opened).is_err(), "no file");
        fs::write(path("talos.db"), "two").unwrap();
        assert!(file.check(opened).is_err(), "another file");
    }

    #[test]
    fn a_log_belongs_to_its_database() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let file = DatabaseFile::new(&path("talos.db"));
        for name in ["talos.db", "talos.db-wal", "talos.db-shm"] {
            fs::write(path(name), "one").unwrap();
        }
        let opened = file.current().unwrap();
        let compared = || opened.compare(file.current().unwrap());
        for name in ["talos.db-wal", "talos.db-shm"] {
            fs::rename(path(name), path("away")).unwrap();
            assert_eq!(compared(), Err(NotAuthoritative::LogReplaced), "no {name}");
            fs::write(path(name), "another").unwrap();
            assert_eq!(compared(), Err(NotAuthoritative::LogReplaced), "another {name}");
            fs::rename(path("away"), path(name)).unwrap();
            assert_eq!(compared(), Ok(()));
        }
        assert!(opened.is_used_as_of(file.current().unwrap()));
        fs::rename(path("talos.db"), path("old.db")).unwrap();
        fs::write(path("talos.db"), "two").unwrap();
        assert_eq!(compared(), Err(NotAuthoritative::LogLeft));
        fs::remove_file(path("talos.db-wal")).unwrap();
        assert_eq!(compared(), Err(NotAuthoritative::LogLeft), "its index is left");
        fs::remove_file(path("talos.db-shm")).unwrap();
        assert_eq!(compared(), Err(NotAuthoritative::FileReplaced));
        assert!(!opened.is_used_as_of(file.current().unwrap()));
    }

    #[test]
    fn a_symbolic_link_stands_for_the_file_that_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["one", "two"] {
            fs::write(path(name), name).unwrap();
            fs::write(path(&format!("{name}-wal")), "its log").unwrap();
        }
        symlink(path("one"), path("link")).unwrap();
        let file = DatabaseFile::new(&path("link"));
        let opened = file.current().unwrap();
        assert_eq!(opened, DatabaseFile::new(&path("one")).current().unwrap());
        fs::rename(path("one-wal"), path("old-wal")).unwrap();
        assert!(file.check(opened).is_err(), "no log");
        fs::rename(path("old-wal"), path("one-wal")).unwrap();
        assert!(file.check(opened).is_ok());
        fs::remove_file(path("link")).unwrap();
        symlink(path("two"), path("link")).unwrap();
        assert!(file.check(opened).is_err(), "the link leads elsewhere");
    }
}
