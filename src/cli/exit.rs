//! How a command ends: the exit codes, and what goes to stderr with them.

use std::process::ExitCode;

use super::client::ClientError;
use crate::escape::visible_lines;

/// What `--help` says about them.
pub const HELP: &str = "\
EXIT CODES:
  0   done
  1   the server refused or failed, or the work could not be done; status: the server's
      knowledge isn't fresh; audit verify: the log isn't whole; doctor: findings
  2   verify, batch-verify: a credential is not valid (the answer is on stdout all the same)
  64  the command or the configuration can't be used as it is
  69  the endpoint gave no answer";

/// EX_USAGE of sysexits.h.
const UNUSABLE: u8 = 64;
/// EX_UNAVAILABLE of sysexits.h.
const UNAVAILABLE: u8 = 69;

/// How a command ended that did what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it.
    Done,
    /// The answer is there, and part of the request was refused in it.
    PartlyRefused,
    /// The answer is there: the server's knowledge of revocations isn't fresh.
    NotFresh,
    /// The answer is there: an audit log isn't what was written.
    NotWhole,
    /// The answer is there: an Envoy's configuration has faults.
    Findings,
    /// The answer is there: a credential isn't valid.
    Invalid,
}

impl Outcome {
    /// Its exit code.
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::PartlyRefused | Self::NotFresh | Self::NotWhole | Self::Findings => 1,
            Self::Invalid => 2,
        })
    }
}

/// Why a command ended without doing it, in one line.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// It was tried and didn't work.
    pub fn failed(error: impl ToString) -> Self {
        Self { code: 1, message: error.to_string() }
    }

    /// It can't even be tried like this.
    pub fn unusable(error: impl ToString) -> Self {
        Self { code: UNUSABLE, message: error.to_string() }
    }

    /// Whoever was asked gave nothing of use.
    pub fn unavailable(error: impl ToString) -> Self {
        Self { code: UNAVAILABLE, message: error.to_string() }
    }

    /// Says so on stderr; gives the exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("talos: {}", visible_lines(&self.message));
        ExitCode::from(self.code)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Endpoint(_) => UNUSABLE,
            ClientError::NoAnswer { .. } => UNAVAILABLE,
            ClientError::Refused { .. } | ClientError::NotTalos { .. } | ClientError::TooLarge => 1,
        };
        Self { code, message: error.to_string() }
    }
}

/// Gives clap's own answer (help, version or a usage error) and its exit code.
pub fn by_clap(error: &clap::Error) -> ExitCode {
    // Help and version come this way as well, on stdout and as a success.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { UNUSABLE } else { 0 })
}
