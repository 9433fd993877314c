//! Source of the configuration that a command reads.

use std::path::PathBuf;

use super::exit::Failure;
use crate::config::Source;

/// Returns the configuration source: the file, if given, overridden by this process's environment.
///
/// # Errors
/// When a variable isn't UTF-8 text.
pub(super) fn source(file: Option<PathBuf>) -> Result<Source, Failure> {
    let mut variables = vec![];
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("TALOS_") => {
                return Err(Failure::usage(format!("{name}: must be UTF-8 text")));
            }
            Err(_) => {}
        }
    }
    Ok(Source::new(file, variables))
}
