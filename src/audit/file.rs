//! File of the log: opened at the end of its chain, appended to atomically, and rotated when full.
//!
//! Others may move, remove, truncate or extend it at any time (logrotate, a shell). Each append
//! begins by looking for that, and the file's real end counts, never a remembered one.

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::outside::OutsideChange;
use super::parts::{Part, directory, resolve, with_suffix};
use super::tail::{Link, Tail, read_tail};
use super::writable::refuse_foreign;

/// Maximum number of processes on one machine with the same `audit.file`.
const MAX_PROCESSES: u32 = 64;
/// Maximum number of names that are tried: some may be those of files that were moved aside.
const MAX_NAMES: u32 = 10_000;

/// File of this process. Locks keep it from others: one on a file beside it, so that its name is
/// taken, and one on itself, in case that other file is removed.
pub(super) struct LogFile {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
    file: File,
    /// Length after the last append.
    length: u64,
    /// True if a part of a failed append may be beyond `length`.
    has_partial: bool,
    /// True if the file ends within a line of somebody else.
    is_unterminated: bool,
}

impl LogFile {
    /// Opens the file at `path`, or at `path` with suffix `.2`, `.3` … if other processes hold it.
    /// A file that has such a name because it was moved aside is left alone.
    ///
    /// # Errors
    /// Fails if the file can't be created, read or written, or all names are taken.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Tail)> {
        let mut processes = 0;
        for number in 1..=MAX_NAMES {
            if processes == MAX_PROCESSES {
                break;
            }
            let path = if number == 1 { path.to_owned() } else { with_suffix(path, &number.to_string()) };
            if number > 1 && Part::read(&path).is_some_and(|part| !part.is_of_name(&path)) {
                continue;
            }
            if let Ok(file) = File::open(&path) {
                refuse_foreign(&file)?;
            }
            processes += 1;
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(with_suffix(&path, "lock"))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => continue,
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            let (file, length, tail) = match open_at(&path) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                opened => opened?,
            };
            truncate_torn(&file, length, &tail)?;
            let (has_partial, is_unterminated) = (false, false);
            return Ok((Self { path, _lock: lock, file, length, has_partial, is_unterminated }, tail));
        }
        Err(io::Error::other(format!("{MAX_PROCESSES} processes have files of this name")))
    }

    /// Returns the path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns what somebody else has done to the file since the last append.
    ///
    /// # Errors
    /// Fails if the file system doesn't answer.
    pub(super) fn outside_change(&mut self) -> io::Result<Option<OutsideChange>> {
        if self.has_partial {
            self.remove_partial()?;
        }
        let ours = self.file.metadata()?;
        let is_in_place = match fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(match (is_in_place, ours.len().cmp(&self.length)) {
            (false, _) if ours.nlink() == 0 => Some(OutsideChange::Removed),
            (false, _) => Some(OutsideChange::Moved),
            (true, Ordering::Less) => Some(OutsideChange::Truncated),
            (true, Ordering::Greater) => Some(OutsideChange::Extended),
            (true, Ordering::Equal) => None,
        })
    }

    /// Makes the file fit for appending after a change from outside: a new one, unless this one is
    /// empty. What somebody else left is moved aside under `suffix`, and not changed. Returns the
    /// bytes of an incomplete line that were truncated. `end` is the end of the log.
    ///
    /// # Errors
    /// Fails if no file can be opened. Then nothing has changed.
    pub(super) fn recover(&mut self, change: OutsideChange, suffix: &str, end: &Link) -> io::Result<u64> {
        if matches!(change, OutsideChange::Moved | OutsideChange::Removed) {
            return self.reopen(suffix, end);
        }
        let length = self.file.metadata()?.len();
        if length > 0 && self.rotate(suffix).is_ok() {
            return Ok(0);
        }
        // Goes on with this file, as no other can be made.
        self.is_unterminated = length > 0 && self.byte_at(length - 1)? != b'\n';
        self.length = length;
        Ok(0)
    }

    /// Opens the file that the path names now, if it is empty or ends as this log does. Creates it
    /// if there is none. Any other is moved aside under `suffix`: it is one of another log, as
    /// logrotate may rename `audit.jsonl` to `audit.jsonl.2`, the name of a second process's.
    /// Returns the bytes of an incomplete line that were truncated.
    ///
    /// # Errors
    /// Fails if that can't be done. Then nothing has changed.
    fn reopen(&mut self, suffix: &str, end: &Link) -> io::Result<u64> {
        let (file, length, tail) = open_at(&self.path)?;
        if length + tail.torn == 0 || tail.last.as_ref() == Some(end) {
            truncate_torn(&file, length, &tail)?;
            self.go_on_with(file, length);
            return Ok(tail.torn);
        }
        let target = resolve(&self.path);
        let aside = with_suffix(&target, suffix);
        if aside.try_exists()? {
            self.go_on_with(file, length + tail.torn);
            self.is_unterminated = tail.torn > 0;
            return Ok(0);
        }
        fs::rename(&target, &aside)?;
        tracing::warn!(
            file = %target.display(), aside = %aside.display(),
            "another log's file had the name of the audit log, as after a rotation of several logs by one pattern: it is moved aside, unchanged"
        );
        let (file, length, _) = open_at(&self.path)?;
        self.go_on_with(file, length);
        Ok(0)
    }

    fn go_on_with(&mut self, file: File, length: u64) {
        (self.file, self.length) = (file, length);
        (self.has_partial, self.is_unterminated) = (false, false);
    }

    /// Renames the file by appending `suffix`, and opens a new one. Of a symbolic link, the target
    /// is renamed, and the new file has its name.
    ///
    /// # Errors
    /// Fails if that can't be done, or the name is taken. Then the log goes on in the same file.
    pub(super) fn rotate(&mut self, suffix: &str) -> io::Result<()> {
        let target = resolve(&self.path);
        let aside = with_suffix(&target, suffix);
        if aside.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&target, &aside)?;
        match open_at(&self.path) {
            Ok((file, length, _)) => {
                self.go_on_with(file, length);
                Ok(())
            }
            Err(error) => {
                // If that fails as well, the next append finds that the file was moved.
                let _ = fs::rename(&aside, &target);
                Err(error)
            }
        }
    }

    /// Appends whole lines and syncs them: all or none.
    ///
    /// # Errors
    /// Fails if they can't be written.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let end_of_line: &[u8] = if self.is_unterminated { b"\n" } else { b"" };
        let written = self.file.write_all(end_of_line).and_then(|()| self.file.write_all(lines));
        let written = written.and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += (end_of_line.len() + lines.len()) as u64;
                self.is_unterminated = false;
            }
            Err(_) => self.has_partial = self.remove_partial().is_err(),
        }
        written
    }

    /// Removes the part of a failed append. Never makes the file longer: somebody else may have
    /// truncated it.
    fn remove_partial(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.length {
            self.file.set_len(self.length)?;
            // Truncated between these two calls, it would end in NULs now.
            self.truncate_nuls()?;
        }
        self.has_partial = false;
        Ok(())
    }

    fn truncate_nuls(&self) -> io::Result<()> {
        let mut length = self.file.metadata()?.len();
        let before = length;
        while length > 0 && self.byte_at(length - 1)? == 0 {
            length -= 1;
        }
        if length < before { self.file.set_len(length) } else { Ok(()) }
    }

    fn byte_at(&self, offset: u64) -> io::Result<u8> {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset)?;
        Ok(byte[0])
    }
}

/// Opens a file and locks it. Returns it with its length up to the last whole line and the end of
/// its chain.
fn open_at(path: &Path) -> io::Result<(File, u64, Tail)> {
    let is_new = !path.try_exists()?;
    let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let problem = "another process writes this file";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
        }
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    if is_new {
        // Make the file name survive a power cut.
        File::open(directory(&resolve(path)))?.sync_all()?;
    }
    read_tail(&file).map(|(length, tail)| (file, length, tail))
}

/// Removes an incomplete last line.
fn truncate_torn(file: &File, length: u64, tail: &Tail) -> io::Result<()> {
    if tail.torn > 0 {
        file.set_len(length)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{ChainKey, Mac};

    fn lines(chain: &str, count: u64) -> (String, Mac) {
        let (key, mut mac, mut text) = (ChainKey::unkeyed(), Mac::NONE, String::new());
        for seq in 1..=count {
            let object = match seq {
                1 => {
                    let instance = "host:/var/log/audit.jsonl";
                    format!(r#"{{"seq":1,"kind":"begin","chain":"{chain}","instance":"{instance}"}}"#)
                }
                _ => format!(r#"{{"seq":{seq},"kind":"intent"}}"#),
            };
            let (line, next) = key.sign_line(&mac, &object);
            mac = next;
            text += &line;
            text += "\n";
        }
        (text, mac)
    }

    #[test]
    fn a_process_goes_on_after_the_last_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (text, mac) = lines("c", 3);
        for torn in ["", "{\"seq\":4,", "{"] {
            fs::write(&path, format!("{text}{torn}")).unwrap();
            let (file, tail) = LogFile::open(&path).unwrap();
            assert_eq!(tail.last, Some(Link { chain: "c".to_owned(), lines: 3, mac }), "{torn}");
            assert_eq!((tail.torn, file.length()), (torn.len() as u64, text.len() as u64), "{torn}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, format!("{text}garbage\n")).unwrap();
        let (_, tail) = LogFile::open(&path).unwrap();
        assert_eq!(tail, Tail { last: None, torn: 0 });
    }

    #[test]
    fn two_processes_have_two_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (first, _) = LogFile::open(&path).unwrap();
        let (second, _) = LogFile::open(&path).unwrap();
        assert_eq!(first.path(), path);
        assert_eq!(second.path(), directory.path().join("audit.jsonl.2"));
        drop(first);
        let (third, _) = LogFile::open(&path).unwrap();
        assert_eq!(third.path(), path);
    }

    fn end() -> Link {
        Link { chain: "c".to_owned(), lines: 1, mac: Mac::NONE }
    }

    /// Opens a file, writes a line, and returns the file with its path.
    fn written(directory: &Path) -> (LogFile, PathBuf) {
        let path = directory.join("audit.jsonl");
        let (mut file, _) = LogFile::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        assert_eq!(file.outside_change().unwrap(), None);
        (file, path)
    }

    #[test]
    fn a_moved_or_removed_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, path) = written(directory.path());
        fs::rename(&path, directory.path().join("old")).unwrap();
        assert_eq!(file.outside_change().unwrap(), Some(OutsideChange::Moved));
        file.recover(OutsideChange::Moved, "x", &end()).unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        file.rotate("1").unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.1")).unwrap(), "two\n");
        assert!(file.rotate("1").is_err(), "nothing is overwritten");
        fs::remove_file(&path).unwrap();
        assert_eq!(file.outside_change().unwrap(), Some(OutsideChange::Removed));
        fs::remove_dir_all(&directory).unwrap();
        assert!(file.recover(OutsideChange::Removed, "x", &end()).is_err());
    }

    #[test]
    fn the_real_end_counts_after_a_change_from_outside() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, path) = written(directory.path());
        let aside = |suffix: &str| fs::read_to_string(directory.path().join(format!("audit.jsonl.{suffix}")));
        let outside = || OpenOptions::new().append(true).open(&path).unwrap();
        let mut append = |line: &str, suffix: &str| {
            let change = file.outside_change().unwrap();
            if let Some(change) = change {
                file.recover(change, suffix, &end()).unwrap();
            }
            file.append(line.as_bytes()).unwrap();
            (change, fs::read_to_string(&path).unwrap())
        };
        outside().set_len(0).unwrap();
        assert_eq!(append("two\n", "a"), (Some(OutsideChange::Truncated), "two\n".to_owned()));
        outside().set_len(2).unwrap();
        assert_eq!(append("three\n", "b"), (Some(OutsideChange::Truncated), "three\n".to_owned()));
        assert_eq!(aside("b").unwrap(), "tw");
        outside().write_all(b"hello").unwrap();
        assert_eq!(append("four\n", "c"), (Some(OutsideChange::Extended), "four\n".to_owned()));
        assert_eq!(aside("c").unwrap(), "three\nhello");
        // The name that it would be moved to is taken: a line of its own all the same.
        outside().write_all(b"hello").unwrap();
        let (change, text) = append("five\n", "c");
        assert_eq!((change, &*text), (Some(OutsideChange::Extended), "four\nhello\nfive\n"));
        assert_eq!(append("six\n", "d").0, None);
    }

    #[test]
    fn another_log_s_file_is_not_taken_for_the_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, path) = written(directory.path());
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let (theirs, _) = lines("other", 3);
        let theirs = format!("{theirs}{{\"seq\":4,");
        fs::rename(&path, directory.path().join("old")).unwrap();
        fs::write(&path, &theirs).unwrap();
        assert_eq!(file.outside_change().unwrap(), Some(OutsideChange::Moved));
        assert_eq!(file.recover(OutsideChange::Moved, "aside", &end()).unwrap(), 0);
        file.append(b"two\n").unwrap();
        assert_eq!((read("audit.jsonl"), read("audit.jsonl.aside")), ("two\n".to_owned(), theirs.clone()));
        // Without a name for it, there is a line of its own all the same.
        fs::write(directory.path().join("new"), &theirs).unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        file.recover(OutsideChange::Removed, "aside", &end()).unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(read("audit.jsonl"), format!("{theirs}\nthree\n"));
        // A copy of its own lines goes on.
        let (ours, mac) = lines("c", 3);
        fs::write(directory.path().join("new"), format!("{ours}{{")).unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        let end = Link { chain: "c".to_owned(), lines: 3, mac };
        assert_eq!(file.recover(OutsideChange::Removed, "b", &end).unwrap(), 1);
        file.append(b"four\n").unwrap();
        assert_eq!(read("audit.jsonl"), format!("{ours}four\n"));
    }

    #[test]
    fn a_file_that_was_moved_aside_is_no_file_of_another_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        fs::write(directory.path().join("audit.jsonl.2"), lines("c", 3).0).unwrap();
        let (_first, _) = LogFile::open(&path).unwrap();
        let (second, _) = LogFile::open(&path).unwrap();
        assert_eq!(second.path(), directory.path().join("audit.jsonl.3"));
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.2")).unwrap(), lines("c", 3).0);
    }

    #[test]
    fn a_symbolic_link_stays_and_its_target_is_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let link = directory.path().join("audit.jsonl");
        std::os::unix::fs::symlink("volume/log", &link).unwrap();
        let (mut file, path) = written(directory.path());
        file.rotate("1").unwrap();
        file.append(b"two\n").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        let read = |name: &str| fs::read_to_string(volume.join(name)).unwrap();
        assert_eq!((read("log.1"), read("log")), ("one\n".to_owned(), "two\n".to_owned()));
        assert_eq!(file.outside_change().unwrap(), None);
    }

    #[test]
    fn a_file_that_can_not_be_renamed_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, path) = written(directory.path());
        assert!(file.rotate(&"long".repeat(100)).is_err());
        assert_eq!(file.outside_change().unwrap(), None);
        file.append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn removing_a_partial_append_never_makes_the_file_longer() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, path) = written(directory.path());
        let outside = || OpenOptions::new().append(true).open(&path).unwrap();
        outside().write_all(b"tw").unwrap();
        file.has_partial = true;
        assert_eq!(file.outside_change().unwrap(), None, "the part was its own");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        outside().set_len(0).unwrap();
        file.has_partial = true;
        assert_eq!(file.outside_change().unwrap(), Some(OutsideChange::Truncated));
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        // As if it had been truncated between the two calls.
        outside().set_len(4).unwrap();
        file.truncate_nuls().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn a_lock_file_that_is_removed_gives_the_file_to_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let (_first, path) = written(directory.path());
        fs::write(&path, lines("c", 1).0).unwrap();
        fs::remove_file(with_suffix(&path, "lock")).unwrap();
        let (second, _) = LogFile::open(&path).unwrap();
        assert_eq!(second.path(), directory.path().join("audit.jsonl.2"));
    }
}
