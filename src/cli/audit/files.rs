//! Files of audit logs, by their chains.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::audit::MARKER_EXTENSION;
use crate::audit::verify::position;
use crate::cli::exit::Failure;

/// Error of reading a keyed log without the key.
pub(super) const NO_KEY: &str = "audit.key: is unset, but this log was written under a key: set TALOS_AUDIT_KEY, or name the \
    configuration by --config";

/// One file of an audit log.
pub(super) struct LogFile {
    /// Path, for messages.
    pub name: String,
    /// Path.
    pub path: PathBuf,
    /// Content.
    pub text: Vec<u8>,
    first: u64,
}

/// Files of each chain, in order; those that name no chain are under `None`.
pub(super) type Chains = BTreeMap<Option<String>, Vec<LogFile>>;

/// Reads the files, those of a chain together and in order. Files beside a log that aren't logs are
/// left out.
///
/// # Errors
/// When a file can't be read.
pub(super) fn read(files: &[PathBuf]) -> Result<Chains, Failure> {
    let mut chains = Chains::new();
    for path in files.iter().filter(|file| !is_beside_a_log(file)) {
        let text =
            std::fs::read(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        let (chain, first) = position(&text);
        let (name, path) = (path.display().to_string(), path.clone());
        chains.entry(chain).or_default().push(LogFile { name, path, text, first });
    }
    chains.values_mut().for_each(|files| files.sort_by_key(|file| file.first));
    Ok(chains)
}

/// Returns true if a line says that the lines after it were written under a key.
pub(super) fn names_key(file: &LogFile) -> bool {
    file.text.split(|byte| *byte == b'\n').any(|line| {
        let line: Option<Value> = serde_json::from_slice(line).ok();
        line.is_some_and(|line| line["kind"] == "begin" && line["key"].is_string() && line["key"] != "none")
    })
}

fn is_beside_a_log(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "lock" || extension == MARKER_EXTENSION)
}
