//! Texts of the drivers' errors, with what an operator should do about them.

use std::fmt;

use sqlx::Error;
use sqlx::error::DatabaseError;

/// An error of the driver: the server's own text, its code and the cure, if one is known.
pub(super) struct ErrorText<'a>(pub &'a Error);

impl fmt::Display for ErrorText<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Database(error) => {
                out.write_str(error.message())?;
                if let Some(code) = error.code() {
                    write!(out, " ({code})")?;
                }
                match cure(&**error) {
                    Some(cure) => write!(out, ": {cure}"),
                    None => Ok(()),
                }
            }
            Error::Io(error) => error.fmt(out),
            Error::PoolTimedOut => out.write_str("no connection was free, or could be opened, in time"),
            other => other.fmt(out),
        }
    }
}

/// Returns what to do about an error, by its SQLSTATE (PostgreSQL, appendix
/// A; MySQL's are the same where they exist).
fn cure(error: &dyn DatabaseError) -> Option<&'static str> {
    match error.code()?.as_ref() {
        "3D000" => Some(NO_DATABASE),
        // MySQL has no state of its own for it.
        "42000" if error.message().starts_with("Unknown database") => Some(NO_DATABASE),
        "28000" | "28P01" => Some("correct user and password in the DSN, or let the server accept them"),
        "53300" => Some("raise the server's max_connections, or lower max_conns in the DSN"),
        "57P03" => Some("wait until the server has started"),
        _ => None,
    }
}

const NO_DATABASE: &str = "create it, or correct its name in the DSN";
