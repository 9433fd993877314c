//! `talos audit`: verifies an audit log, and repeats what a restored database lacks of it.

mod files;
mod replay;
mod verify;

use std::path::Path;

use clap::Subcommand;

use super::exit::{Failure, Outcome};

/// Examples in the help of `talos audit`.
pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  talos audit verify audit.jsonl*
  talos audit replay audit.jsonl* --dry-run";

#[derive(Subcommand)]
pub(super) enum Command {
    Verify(verify::Verify),
    Replay(replay::Replay),
}

impl Command {
    /// Runs the command. `file` is the configuration that `--config` names.
    ///
    /// # Errors
    /// Fails when a file can't be read, the configuration is invalid, or the database fails.
    pub(super) async fn run(self, file: Option<&Path>) -> Result<Outcome, Failure> {
        match self {
            Self::Verify(verify) => verify.run(file).await,
            Self::Replay(replay) => replay.run(file).await,
        }
    }
}
