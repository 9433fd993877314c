//! File of the log: opened at the end of its chain, appended to atomically, rotated when full, and
//! reopened when someone else has moved it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::{self, Mac};

/// Maximum number of processes on one machine with the same `audit.file`.
const MAX_PROCESSES: u32 = 64;

/// End of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Id of the chain.
    pub chain: String,
    /// Number of lines.
    pub lines: u64,
    /// MAC of the last line.
    pub mac: Mac,
}

/// End of a file when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Tail {
    /// End of the chain. `None` if the file is empty or its last line can't be parsed.
    pub last: Option<Link>,
    /// Bytes of an incomplete last line, now truncated. It was never acknowledged.
    pub torn: u64,
}

/// File of this process. A lock keeps it from others.
pub struct LogFile {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
    file: File,
    length: u64,
}

impl LogFile {
    /// Opens the file at `path`, or at `path` with suffix `.2`, `.3` … if other processes hold it.
    ///
    /// # Errors
    /// Fails if the file can't be created, read or written, or all names are taken.
    pub fn open(path: &Path) -> io::Result<(Self, Tail)> {
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
            let (file, length, tail) = open_at(&path)?;
            return Ok((Self { path, _lock: lock, file, length }, tail));
        }
        Err(io::Error::other(format!("{MAX_PROCESSES} processes have files of this name")))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether the path still names this file. Not so once someone has moved or removed it.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens the file that the path names now. Creates it if there is none.
    ///
    /// # Errors
    /// Fails if that can't be done. Then nothing has changed.
    pub fn reopen(&mut self) -> io::Result<Tail> {
        let (file, length, tail) = open_at(&self.path)?;
        (self.file, self.length) = (file, length);
        Ok(tail)
    }

    /// Renames the file by appending `suffix`, and opens a new one.
    ///
    /// # Errors
    /// Fails if that can't be done, or the name is taken.
    pub fn rotate(&mut self, suffix: &str) -> io::Result<()> {
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
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.length += lines.len() as u64,
            // Remove what was written of them. If that fails too, the next start truncates it.
            Err(_) => {
                let _ = self.file.set_len(self.length);
            }
        }
        written
    }
}

/// Checks that a log at `path` can be appended to, and that files beside it can be created. Leaves
/// no trace.
///
/// # Errors
/// Fails if not.
pub fn check_writable(path: &Path) -> io::Result<()> {
    match OpenOptions::new().read(true).append(true).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let beside = with_suffix(path, &format!("check-{}", std::process::id()));
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
    fs::remove_file(beside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

fn open_at(path: &Path) -> io::Result<(File, u64, Tail)> {
    let is_new = !path.try_exists()?;
    let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
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
    fn it_goes_on_after_the_last_whole_line() {
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

    #[test]
    fn it_notices_that_it_was_moved_or_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (mut file, _) = LogFile::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        assert!(file.is_in_place().unwrap());
        fs::rename(&path, directory.path().join("old")).unwrap();
        assert!(!file.is_in_place().unwrap());
        file.reopen().unwrap();
        file.append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        file.rotate("1").unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl.1")).unwrap(), "two\n");
        assert!(file.rotate("1").is_err(), "nothing is overwritten");
        fs::remove_dir_all(&directory).unwrap();
        assert!(!file.is_in_place().unwrap());
        assert!(file.reopen().is_err());
    }
}
