//! `talos actors`: erases actors.

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::json;

use super::paths::ACTORS;
use super::view;
use crate::cli::client::{Client, JsonBody, Request};
use crate::cli::connection::Connection;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::Output;

const EXAMPLES: &str = "\
EXAMPLES:
  talos keys issue backend --actor user:43 -q
  talos actors delete user:43 --force";

/// Erase actors with all their keys
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Actors {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Box<Connection>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Delete all keys of an actor, issued and imported, with all their data
    ///
    /// Without --force, an actor with an active key is refused. The audit log keeps what it has
    /// recorded; tokens that were derived from the keys stay valid until they expire.
    #[command(after_help = EXAMPLES)]
    Delete {
        /// The actor's id
        #[arg(value_name = "ACTOR", allow_hyphen_values = true)]
        actor: String,
        /// Delete active keys, too
        #[arg(long)]
        force: bool,
    },
}

impl Actors {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the arguments are invalid, or the server is unreachable or answers with an error.
    pub(crate) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let Self { output, connection, command: Command::Delete { actor, force } } = self;
        let client = Client::new(&connection.server(endpoint)?)?;
        let path = format!("{ACTORS}/{}", utf8_percent_encode(&actor, NON_ALPHANUMERIC));
        let (mut issued, mut imported) = (0, 0);
        loop {
            let request = Request::new(Method::DELETE, path.clone());
            let request = if force { request.query("force", "true") } else { request };
            let response = client.send(request).await?;
            issued += response.value["issued_api_key_count"].as_u64().unwrap_or(0);
            imported += response.value["imported_api_key_count"].as_u64().unwrap_or(0);
            // One request deletes a bounded number of keys.
            if response.value["has_more"] != true {
                break;
            }
        }
        let erased = json!({ "issued_api_key_count": issued, "imported_api_key_count": imported });
        output.print(&view::erased(JsonBody::from(erased)))?;
        Ok(Outcome::Done)
    }
}
