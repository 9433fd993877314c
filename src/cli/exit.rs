//! Exit codes of the commands, and the error line on stderr that goes with them.

use std::process::ExitCode;

use super::client::ClientError;
use crate::cli::stderr;
use crate::escape::visible_lines;

/// Section of `--help` that lists the exit codes.
pub(super) const HELP: &str = "\
EXIT CODES:
  0   success
  1   the server answered with an error, or the command failed; status: the server's view of
      revocations is stale; audit verify: the log was changed or is incomplete; audit replay: the
      database lacks changes; doctor: findings
  2   verify, batch-verify --fail-on-invalid: a credential is not valid (the result is still on
      stdout)
  64  wrong usage: the arguments or the configuration are invalid
  69  the server could not be reached";

/// Wrong usage, as EX_USAGE of sysexits.h.
const EX_USAGE: u8 = 64;
/// The server is unreachable, as EX_UNAVAILABLE of sysexits.h.
const EX_UNAVAILABLE: u8 = 69;

/// Result of a command that ran and printed its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything succeeded.
    Done,
    /// Some items of the request were refused.
    PartialFailure,
    /// The server's view of revocations is stale.
    Stale,
    /// An audit log was changed, cut or reordered.
    AuditBroken,
    /// An Envoy configuration has findings.
    Findings,
    /// A credential isn't valid.
    Invalid,
}

impl Outcome {
    /// Returns the exit code.
    pub(super) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::PartialFailure | Self::Stale | Self::AuditBroken | Self::Findings => 1,
            Self::Invalid => 2,
        })
    }
}

/// Error of a command that could not run: an exit code and a message for stderr.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Creates the error of a command that was tried and failed (exit code 1).
    pub(super) fn failed(error: impl ToString) -> Self {
        Self { code: 1, message: error.to_string() }
    }

    /// Creates the error of wrong arguments or configuration (exit code 64).
    pub(super) fn usage(error: impl ToString) -> Self {
        Self { code: EX_USAGE, message: error.to_string() }
    }

    /// Creates the error of a server that can't be reached (exit code 69).
    pub(super) fn unavailable(error: impl ToString) -> Self {
        Self { code: EX_UNAVAILABLE, message: error.to_string() }
    }

    /// Prefixes the message with the name of an option.
    pub(super) fn in_option(self, option: &str) -> Self {
        Self { message: format!("{option}: {}", self.message), ..self }
    }

    /// Prints the message on stderr and returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        stderr::line(format_args!("talos: {}", visible_lines(&self.message)));
        ExitCode::from(self.code)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Option { .. } => EX_USAGE,
            ClientError::Unreachable { .. } => EX_UNAVAILABLE,
            ClientError::Api { .. } | ClientError::NotTalos { .. } | ClientError::TooLarge => 1,
        };
        Self { code, message: error.to_string() }
    }
}

/// Prints clap's output (help, version or a usage error) and returns its exit code.
pub(super) fn report_clap_error(error: &clap::Error) -> ExitCode {
    // clap also reports `--help` and `--version` as errors; these go to stdout and succeed.
    let _ = error.print();
    let is_of_serve = || error.render().to_string().contains("Usage: talos serve ");
    if error.kind() == clap::error::ErrorKind::UnknownArgument && is_of_serve() {
        stderr::line(
            "settings are no options: write them into the file of --config, or set variables such as \
             TALOS_SERVE_HTTP_PORT (`talos config show` lists all)",
        );
    }
    ExitCode::from(if error.use_stderr() { EX_USAGE } else { 0 })
}
