//! `talos reference`: the reference pages, made from what the program itself reads.

mod api;
mod commands;
mod man;
mod settings;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Subcommand};

use super::Cli;
use super::exit::Failure;
use super::output::write_stdout;
use crate::config::schema;
use crate::http::api_outline;

/// Print a reference page in Markdown, or write the manual pages
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos reference cli > cli.md
  talos reference configuration > configuration.md
  talos reference api > api.md
  talos reference man man1")]
pub(super) struct Reference {
    #[command(subcommand)]
    page: Page,
}

#[derive(Subcommand)]
enum Page {
    /// Every command with its options
    Cli,
    /// Every setting with its default and its variable
    Configuration,
    /// Every operation of the HTTP API
    Api,
    /// Manual pages, one file a command
    Man {
        /// Directory that gets the files; it is created if it isn't there
        directory: PathBuf,
    },
}

impl Reference {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the output can't be written.
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.page {
            Page::Cli => write_stdout(&commands::page(built())),
            Page::Configuration => write_stdout(&settings::page(&schema())),
            Page::Api => write_stdout(&api::page(&api_outline())),
            Page::Man { directory } => man::write(&built(), &directory),
        }
    }
}

/// The commands with everything that clap adds to them.
fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}
