//! Lines for people, on stderr.

use std::fmt::Display;
use std::io::Write;

/// Writes a line. A reader that went away (`2>&1 | head -1`) is no error.
pub(super) fn line(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
