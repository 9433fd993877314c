//! `talos completions`: prints shell completion scripts.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::Failure;
use super::output::write_stdout;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos completions bash > talos.bash
  talos completions zsh > _talos
  talos completions fish > talos.fish

Install the file where the shell looks for it: ~/.local/share/bash-completion/completions/talos, a directory of
zsh's $fpath, or ~/.config/fish/completions/talos.fish.")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// Fails when stdout can't be written to.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut Cli::command(), "talos", &mut script);
        write_stdout(&String::from_utf8_lossy(&script))
    }
}
