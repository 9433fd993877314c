//! Says whether a log can be written at a path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::parts::{resolve, with_suffix};
use super::tail::read_tail;

/// First bytes of every line.
const LINE_START: &[u8] = b"{\"seq\":";

/// Fails if a file that isn't empty holds something other than a log: whoever names a wrong file,
/// such as the database, must not lose what is in it.
pub(super) fn refuse_foreign(file: &File) -> io::Result<()> {
    // Files of other writers have NULs where somebody truncated them.
    let is_blank = |byte: &&u8| **byte == 0 || byte.is_ascii_whitespace();
    let mut start = [0; 4_096];
    let read = file.read_at(&mut start, 0)?;
    let begins_as_log =
        start.iter().take(read).skip_while(is_blank).zip(LINE_START).all(|(there, ours)| there == ours);
    // Somebody may have written before the first line.
    if begins_as_log || read_tail(file)?.1.last.is_some() {
        return Ok(());
    }
    let problem = "holds something other than an audit log; name a file that doesn't exist yet";
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

/// Checks that a log at `path` can be appended to, and that files beside it can be created. Leaves
/// no trace.
///
/// # Errors
/// Fails if not.
pub(super) fn check_writable(path: &Path) -> io::Result<()> {
    match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) if !file.metadata()?.is_file() => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no file that can be read back"));
        }
        Ok(file) => refuse_foreign(&file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The lock stands beside a symbolic link, and a new file where it leads to. A file that is
    // there goes on even if it can't be moved aside.
    let target = resolve(path);
    let new = (target != path && !target.exists()).then_some(target);
    for path in std::iter::once(path.to_owned()).chain(new) {
        let beside = with_suffix(&path, &format!("check-{}", std::process::id()));
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
        fs::remove_file(beside)?;
    }
    Ok(())
}

/// Returns true if another process has the log open and locked.
pub(super) fn is_in_use(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).open(path);
    opened.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::file::LogFile;

    #[test]
    fn a_file_that_holds_something_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let foreign: [&[u8]; 5] = [
            b"SQLite format 3\0 and pages\n and more",
            br#"{"keys":[]}"#,
            b"secrets: {}",
            b"{\"sequence\":1}\n",
            b"\x80",
        ];
        for content in foreign {
            fs::write(&path, content).unwrap();
            for error in [check_writable(&path), LogFile::open(&path).map(drop)].map(Result::unwrap_err) {
                assert!(error.to_string().contains("something other than an audit log"), "{error}");
            }
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        // What a kill or a full disk left of a first line.
        for content in ["", "\n", "{", "{\"seq\":1,\"ti", "\0\0\0", "\0\0{\"seq\":7}\n"] {
            fs::write(&path, content).unwrap();
            check_writable(&path).unwrap();
            LogFile::open(&path).unwrap();
        }
    }
}
