//! `talos completions`: what a shell needs to complete our commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::Failure;
use super::output::write_out;

/// Print what a shell needs to complete these commands
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos completions bash > talos.bash
  talos completions zsh > _talos
  talos completions fish > talos.fish

Put the file where the shell looks for it: ~/.local/share/bash-completion/completions/talos, a directory of zsh's
$fpath, ~/.config/fish/completions/talos.fish.")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Runs it.
    ///
    /// # Errors
    /// When stdout can't be written to.
    pub fn run(&self) -> Result<(), Failure> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut Cli::command(), "talos", &mut script);
        write_out(&String::from_utf8_lossy(&script))
    }
}
