//! Files of a log: the one that is written, and those that were moved aside, by Talos or by others.
//!
//! Others name such files as they like (logrotate: `.1`, `-20260101`), so their names tell nothing.
//! Their first line does: it names the chain, and the number with which the file begins.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tail::{Link, read_tail};

/// Most bytes of a first line.
const MAX_FIRST_LINE: u64 = 64 * 1024;
/// Most symbolic links that are followed.
const MAX_LINKS: usize = 32;

/// File of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Path.
    pub path: PathBuf,
    /// Id of the chain.
    pub chain: String,
    /// Instance that wrote the first line: a machine and a path.
    pub instance: String,
    /// Number of the first line.
    pub first: u64,
    /// Length in bytes.
    pub length: u64,
    /// Time of the last change, in seconds and nanoseconds.
    modified: (i64, i64),
}

impl Part {
    /// Reads the first line of a file. Returns `None` if it isn't the first one of a file of a log.
    pub(super) fn read(path: &Path) -> Option<Self> {
        // Opening a pipe would wait for its other end.
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let mut text = vec![];
        File::open(path).ok()?.take(MAX_FIRST_LINE).read_to_end(&mut text).ok()?;
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let line: Value = serde_json::from_slice(text.get(..end)?).ok()?;
        let is_begin = line["kind"] == "begin";
        Some(Self {
            path: path.to_owned(),
            chain: line["chain"].as_str().filter(|_| is_begin)?.to_owned(),
            instance: line["instance"].as_str().unwrap_or_default().to_owned(),
            first: line["seq"].as_u64()?,
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// Returns true if a file of this name wrote the first line, on whichever machine and in
    /// whichever directory.
    pub(super) fn is_of_name(&self, path: &Path) -> bool {
        let written = Path::new(&self.instance).file_name();
        written.is_none() || written == path.file_name()
    }
}

/// Returns the files of logs beside `path` whose names begin as its own, in the order of their
/// first lines.
///
/// # Errors
/// Fails if the directory can't be read.
pub(super) fn parts_beside(path: &Path) -> io::Result<Vec<Part>> {
    let target = resolve(path);
    let stem = target.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut parts: Vec<Part> = vec![];
    for entry in fs::read_dir(directory(&target))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&stem) {
            parts.extend(Part::read(&entry.path()));
        }
    }
    parts.sort_by(|a, b| (a.first, a.length, &a.path).cmp(&(b.first, b.length, &b.path)));
    Ok(parts)
}

/// Returns the end of the log whose file at `path` is empty, as somebody else has moved its lines:
/// that of the file beside it that was written last, one of this `instance` if there is any. `None`
/// if there is no such file.
///
/// # Errors
/// Fails if the directory or the file can't be read.
pub(super) fn end_of_moved(path: &Path, instance: &str) -> io::Result<Option<Link>> {
    let mut parts = parts_beside(path)?;
    parts.retain(|part| part.is_of_name(path) || part.is_of_name(&resolve(path)));
    // Copies of other machines' logs may lie beside it.
    if parts.iter().any(|part| part.instance == instance) {
        parts.retain(|part| part.instance == instance);
    }
    let Some(chain) = parts.iter().max_by_key(|part| part.modified).map(|part| part.chain.clone()) else {
        return Ok(None);
    };
    match parts.iter().rfind(|part| part.chain == chain) {
        Some(last) => Ok(read_tail(&File::open(&last.path)?)?.1.last),
        None => Ok(None),
    }
}

/// Returns the path of a file beside the log.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

/// Returns the path that symbolic links lead to, whether or not a file is there.
pub(super) fn resolve(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = directory(&path).join(target);
    }
    path
}

/// Returns the directory of a file.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::{ChainKey, Mac};

    /// Lines of a chain from number `first` on, as a file has them.
    fn lines(chain: &str, instance: &str, first: u64, last: u64) -> String {
        let (key, mut mac, mut text) = (ChainKey::unkeyed(), Mac::NONE, String::new());
        for seq in first..=last {
            let object = match seq == first {
                true => format!(
                    r#"{{"seq":{seq},"kind":"begin","chain":"{chain}","instance":"host:/var/log/{instance}"}}"#
                ),
                false => format!(r#"{{"seq":{seq},"kind":"intent"}}"#),
            };
            let (line, next) = key.sign_line(&mac, &object);
            mac = next;
            text += &line;
            text += "\n";
        }
        text
    }

    #[test]
    fn files_are_found_by_their_first_lines() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
        put("audit.jsonl", String::new());
        put("audit.jsonl.1", lines("a", "audit.jsonl", 6, 9));
        put("audit-20260101.jsonl", lines("a", "audit.jsonl", 1, 5));
        put("audit.jsonl.2", lines("b", "audit.jsonl.2", 1, 30));
        put("audit.jsonl.lock", String::new());
        put("audit.jsonl.2.gz", "\u{1f}\n".to_owned());
        put("other.1", lines("a", "audit.jsonl", 10, 12));
        let path = directory.path().join("audit.jsonl");
        let found: Vec<_> =
            parts_beside(&path).unwrap().into_iter().map(|part| (part.chain, part.first)).collect();
        assert_eq!(found, [("a".to_owned(), 1), ("b".to_owned(), 1), ("a".to_owned(), 6)]);
        // The other process's file was written later.
        put("audit.jsonl.2", lines("b", "audit.jsonl.2", 1, 31));
        let ours = "host:/var/log/audit.jsonl";
        let end = end_of_moved(&path, ours).unwrap().unwrap();
        assert_eq!((&*end.chain, end.lines), ("a", 9));
        assert_eq!(end_of_moved(&directory.path().join("elsewhere.jsonl"), ours).unwrap(), None);
        // A copy of another machine's.
        let copy = lines("c", "audit.jsonl", 1, 40).replace("host:", "other:");
        put("audit-other.jsonl", copy);
        assert_eq!(end_of_moved(&path, ours).unwrap().map(|end| end.chain), Some("a".to_owned()));
    }

    #[test]
    fn links_lead_to_a_file_that_need_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        let (link, second) = (directory.path().join("link"), directory.path().join("second"));
        std::os::unix::fs::symlink("second", &link).unwrap();
        std::os::unix::fs::symlink("/nowhere/target", &second).unwrap();
        assert_eq!(resolve(&link), Path::new("/nowhere/target"));
        assert_eq!(resolve(directory.path()), directory.path());
        std::os::unix::fs::symlink(&link, directory.path().join("third")).unwrap();
        fs::remove_file(&second).unwrap();
        std::os::unix::fs::symlink(&link, &second).unwrap();
        assert!(resolve(&link).starts_with(directory.path()), "a circle ends");
    }
}
