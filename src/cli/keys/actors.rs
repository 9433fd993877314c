//! `talos actors`: suspends, resumes, describes and erases actors.

use clap::{ArgGroup, Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::paths::ACTORS;
use super::rate_limit::RateLimit;
use super::suspend::Suspension;
use super::view;
use crate::cli::client::{Client, JsonBody, Request};
use crate::cli::connection::Connection;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::json_object;
use crate::cli::output::Output;

/// Member that each answer about an actor has.
const OF_ACTOR: &[&str] = &["actor_id"];

const EXAMPLES: &str = "\
EXAMPLES:
  talos keys issue backend --actor user:43 -q
  talos actors suspend user:43 --reason 'invoice 7 is open' --until 72h
  talos actors resume user:43
  talos actors delete user:43 --force";

/// Suspend, resume, describe and erase actors with all their keys
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
    /// Show an actor
    #[command(after_help = "\
EXAMPLES:
  talos actors get user:42
  talos actors get user:42 --format jsonpath=suspension")]
    Get {
        /// The actor's id
        #[arg(value_name = "ACTOR", allow_hyphen_values = true)]
        actor: String,
    },
    /// Update what is recorded of an actor; only the given fields change
    #[command(after_help = "\
EXAMPLES:
  talos actors update user:42 --display-name 'Example Ltd' --metadata '{\"plan\":\"gold\"}'
  talos actors update user:42 --display-name ''
  talos actors update user:42 --rate-limit day=10000/24h --rate-limit burst=50/1s")]
    #[command(group = ArgGroup::new("change").required(true).multiple(true).args(["display_name", "metadata", "rate_limit"]))]
    Update {
        /// The actor's id
        #[arg(value_name = "ACTOR", allow_hyphen_values = true)]
        actor: String,
        /// Name, for people; empty for none
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
        /// Custom attributes; {} for none
        #[arg(long, value_name = "JSON", value_parser = json_object)]
        metadata: Option<Map<String, Value>>,
        /// Limit for all keys of the actor together; repeated for several, empty for none
        #[arg(long, value_name = "NAME=QUOTA/WINDOW[,envoy]", value_parser = RateLimit::parse)]
        rate_limit: Option<Vec<RateLimit>>,
    },
    /// Refuse all keys of an actor everywhere, those issued later among them
    ///
    /// It lasts until the actor is resumed or the suspension ends by itself. Suspending a suspended
    /// actor replaces reason and end.
    #[command(after_help = "\
EXAMPLES:
  talos actors suspend user:42 --reason 'invoice 7 is open' --until 72h
  talos actors resume user:42")]
    Suspend {
        /// The actor's id
        #[arg(value_name = "ACTOR", allow_hyphen_values = true)]
        actor: String,
        #[command(flatten)]
        suspension: Suspension,
    },
    /// End the suspension of an actor; keys that are suspended themselves stay so
    #[command(after_help = "\
EXAMPLES:
  talos actors resume user:42")]
    Resume {
        /// The actor's id
        #[arg(value_name = "ACTOR", allow_hyphen_values = true)]
        actor: String,
    },
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
        let Self { output, connection, command } = self;
        let client = Client::new(&connection.server(endpoint)?)?;
        let response = match command {
            Command::Get { actor } => client.send(Request::get(path(&actor)).expect(OF_ACTOR)).await?,
            Command::Update { actor, display_name, metadata, rate_limit } => {
                let mut mask = vec![];
                let mut body = Map::new();
                if let Some(name) = display_name {
                    mask.push("display_name");
                    body.insert("display_name".into(), name.into());
                }
                if let Some(metadata) = metadata {
                    mask.push("metadata");
                    // A field that is in the mask but not in the body is cleared.
                    if !metadata.is_empty() {
                        body.insert("metadata".into(), metadata.into());
                    }
                }
                if let Some(limits) = rate_limit {
                    mask.push("rate_limit_policies");
                    body.extend(RateLimit::list(&limits).map(|list| ("rate_limit_policies".into(), list)));
                }
                let request = Request::patch(path(&actor), Value::Object(body)).expect(OF_ACTOR);
                client.send(request.query("update_mask", mask.join(","))).await?
            }
            Command::Suspend { actor, suspension } => {
                let request = Request::post(format!("{}:suspend", path(&actor)), suspension.body());
                client.send(request.expect(OF_ACTOR)).await?
            }
            Command::Resume { actor } => {
                let request = Request::post(format!("{}:resume", path(&actor)), json!({}));
                client.send(request.expect(OF_ACTOR)).await?
            }
            Command::Delete { actor, force } => return delete(&client, &output, &actor, force).await,
        };
        output.print(&view::actor(response))?;
        Ok(Outcome::Done)
    }
}

/// Returns the path of an actor.
fn path(actor: &str) -> String {
    format!("{ACTORS}/{}", utf8_percent_encode(actor, NON_ALPHANUMERIC))
}

async fn delete(client: &Client, output: &Output, actor: &str, force: bool) -> Result<Outcome, Failure> {
    let path = path(actor);
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
