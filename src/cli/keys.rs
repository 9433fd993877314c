//! `talos keys`: the API's operations as commands. Each sends one request and prints the response.

pub(super) mod actors;
mod credentials;
mod credits;
mod fields;
mod imported;
mod issued;
mod list;
mod list_all;
mod paths;
mod rate_limit;
mod revoke;
pub(super) mod selection;
mod suspend;
pub(super) mod view;

use clap::{Args, Subcommand};

use super::client::Client;
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::output::Output;

const EXAMPLES: &str = "\
EXAMPLES:
  talos keys issue backend --actor user:42 --scopes orders:read,orders:write --ttl 720h
  talos keys list --actor user:42
  printf %s \"$SECRET\" | talos keys verify -
  talos keys revoke \"$KEY_ID\" --reason superseded

In scripts, capture the secret with -q, or the whole response as JSON:
  SECRET=$(talos keys issue ci --actor ci -q)
  talos keys issue ci --actor ci --format json";

/// Issue, import, list, verify, derive from and revoke API keys
#[derive(Args)]
#[command(
    after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP),
    after_long_help = format!("{}\n\n{EXAMPLES}\n\n{}", super::input::STDIN_HELP, super::exit::HELP),
)]
pub(super) struct Keys {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Box<Connection>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Issue(issued::Issue),
    List(list_all::ListAll),
    /// Manage issued keys
    #[command(after_help = issued::EXAMPLES)]
    Issued {
        #[command(subcommand)]
        command: issued::Command,
    },
    /// Manage imported keys
    #[command(after_help = imported::EXAMPLES)]
    Imported {
        #[command(subcommand)]
        command: imported::Command,
    },
    Revoke(revoke::Revoke),
    Verify(credentials::Verify),
    BatchVerify(credentials::BatchVerify),
    DeriveToken(credentials::DeriveToken),
    SelfRevoke(revoke::SelfRevoke),
}

impl Keys {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the arguments are invalid, or the server is unreachable or answers with an error.
    pub(super) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let Self { output, connection, command } = self;
        let client = Client::new(&connection.server(endpoint)?)?;
        match command {
            Command::Issue(issue) => issue.run(&client, &output).await,
            Command::List(list) => list.run(&client, &output).await.map(|()| Outcome::Done),
            Command::Issued { command } => command.run(&client, &output).await,
            Command::Imported { command } => command.run(&client, &output).await,
            Command::Revoke(revoke) => revoke.run(&client, &output, paths::API_KEYS).await,
            Command::Verify(verify) => verify.run(&client, &output).await,
            Command::BatchVerify(verify) => verify.run(&client, &output).await,
            Command::DeriveToken(derive) => derive.run(&client, &output).await,
            Command::SelfRevoke(revoke) => revoke.run(&client, &output).await,
        }
    }
}
