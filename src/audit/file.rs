//! File of the log: opened at the end of its chain, appended to atomically, and rotated when full.
//!
//! Others may move, remove, truncate or extend it at any time (logrotate, a shell). Each append
//! begins by looking for that, and the file's real end counts, never a remembered one.

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::{self, Mac};

/// Maximum number of processes on one machine with the same `audit.file`.
const MAX_PROCESSES: u32 = 64;

/// End of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Id of the chain.
    pub chain: String,
    /// Number of lines.
    pub lines: u64,
    /// MAC of the last line.
    pub mac: Mac,
}

/// End of a file when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// End of the chain. `None` if the file is empty or its last line can't be parsed.
    pub last: Option<Link>,
    /// Bytes of an incomplete last line, now truncated. It was never acknowledged.
    pub torn: u64,
}

/// Change of the file that somebody else made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutsideChange {
    /// The file has another name now, or another file has its name.
    Moved,
    /// The file was removed.
    Removed,
    /// The file is shorter than what was written to it.
    Truncated,
    /// The file is longer than what was written to it.
    Extended,
}

impl OutsideChange {
    /// All changes.
    pub const ALL: [Self; 4] = [Self::Moved, Self::Removed, Self::Truncated, Self::Extended];

    /// Returns the name in the log, in metrics and in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Removed => "removed",
            Self::Truncated => "truncated",
            Self::Extended => "extended",
        }
    }
}

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
    ///
    /// # Errors
    /// Fails if the file can't be created, read or written, or all names are taken.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Tail)> {
        for number in 1..=MAX_PROCESSES {
            let path = if number == 1 { path.to_owned() } else { with_suffix(path, &number.to_string()) };
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
    /// bytes of an incomplete line that were truncated.
    ///
    /// # Errors
    /// Fails if no file can be opened. Then nothing has changed.
    pub(super) fn recover(&mut self, change: OutsideChange, suffix: &str) -> io::Result<u64> {
        if matches!(change, OutsideChange::Moved | OutsideChange::Removed) {
            return Ok(self.reopen()?.torn);
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

    /// Opens the file that the path names now. Creates it if there is none.
    ///
    /// # Errors
    /// Fails if that can't be done. Then nothing has changed.
    fn reopen(&mut self) -> io::Result<Tail> {
        let (file, length, tail) = open_at(&self.path)?;
        (self.file, self.length) = (file, length);
        (self.has_partial, self.is_unterminated) = (false, false);
        Ok(tail)
    }

    /// Renames the file by appending `suffix`, and opens a new one.
    ///
    /// # Errors
    /// Fails if that can't be done, or the name is taken.
    pub(super) fn rotate(&mut self, suffix: &str) -> io::Result<()> {
        let aside = with_suffix(&self.path, suffix);
        if aside.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.path, aside)?;
        self.reopen().map(drop)
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
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let beside = with_suffix(path, &format!("check-{}", std::process::id()));
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
    fs::remove_file(beside)
}

/// Returns true if another process has the log open and locked.
pub(super) fn is_in_use(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).open(path);
    opened.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

/// Opens a file and locks it, and removes an incomplete last line. Returns it with its length and
/// the end of its chain.
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
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    let (length, tail) = read_tail(&file)?;
    if tail.torn > 0 {
        file.set_len(length)?;
        file.sync_all()?;
    }
    Ok((file, length, tail))
}

/// Reads up to the last whole line. Returns its end.
fn read_tail(file: &File) -> io::Result<(u64, Tail)> {
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let (mut line, mut last, mut chain) = (vec![], vec![], None);
    let mut end = 0;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            let last = chain.and_then(|chain| link(chain, &last));
            return Ok((end, Tail { last, torn: read }));
        }
        end += read;
        line.pop();
        if line.windows(BEGIN.len()).any(|window| window == BEGIN) {
            chain = value(&line).and_then(|value| Some(value.get("chain")?.as_str()?.to_owned())).or(chain);
        }
        std::mem::swap(&mut last, &mut line);
    }
}

const BEGIN: &[u8] = br#""kind":"begin""#;

fn link(chain: String, line: &[u8]) -> Option<Link> {
    let (_, mac) = chain::split_line(std::str::from_utf8(line).ok()?)?;
    Some(Link { chain, lines: value(line)?.get("seq")?.as_u64()?, mac })
}

fn value(line: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::ChainKey;

    fn lines(chain: &str, count: u64) -> (String, Mac) {
        let (key, mut mac, mut text) = (ChainKey::unkeyed(), Mac::NONE, String::new());
        for seq in 1..=count {
            let object = match seq {
                1 => format!(r#"{{"seq":1,"kind":"begin","chain":"{chain}"}}"#),
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
        file.recover(OutsideChange::Moved, "x").unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        file.rotate("1").unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.1")).unwrap(), "two\n");
        assert!(file.rotate("1").is_err(), "nothing is overwritten");
        fs::remove_file(&path).unwrap();
        assert_eq!(file.outside_change().unwrap(), Some(OutsideChange::Removed));
        fs::remove_dir_all(&directory).unwrap();
        assert!(file.recover(OutsideChange::Removed, "x").is_err());
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
                file.recover(change, suffix).unwrap();
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
        fs::remove_file(with_suffix(&path, "lock")).unwrap();
        let (second, _) = LogFile::open(&path).unwrap();
        assert_eq!(second.path(), directory.path().join("audit.jsonl.2"));
    }
}
