//! `talos keys imported`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::fields::{NewKey, Update};
use super::list::List;
use super::revoke::{self, Revoke};
use super::view;
use crate::cli::client::{Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{self, STDIN_HELP, key_id, span};
use crate::cli::output::Output;
use crate::secret::SecretString;

/// Where imported keys are.
pub const PATH: &str = "/v2alpha1/admin/importedApiKeys";

/// Of `talos keys imported`.
pub const EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$LEGACY_KEY\" | talos keys imported import legacy --raw-key - --actor user:42
  talos keys imported list --actor user:42
  talos keys imported revoke \"$IMPORTED_KEY_ID\" --reason superseded
  talos keys imported delete \"$IMPORTED_KEY_ID\"";

const IMPORT_EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$LEGACY_KEY\" | talos keys imported import legacy --raw-key - --actor user:42 --scopes orders:read
  talos keys imported import legacy --raw-key \"$OTHER_LEGACY_KEY\" --actor user:42 --ttl 8760h --format json";

#[derive(Subcommand)]
pub enum Command {
    Import(Import),
    BatchImport(BatchImport),
    /// Show a key
    #[command(after_help = "\
EXAMPLES:
  talos keys imported get \"$IMPORTED_KEY_ID\" --format yaml")]
    Get {
        /// The key's id
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
    /// List keys
    #[command(after_help = "\
EXAMPLES:
  talos keys imported list --actor user:42 --status active
  talos keys imported list --all -q")]
    List(List),
    /// Change a key; only what is given changes
    #[command(after_help = "\
EXAMPLES:
  talos keys imported update \"$IMPORTED_KEY_ID\" --name legacy-2 --scopes orders:read")]
    Update(Update),
    /// Revoke a key, for good; its record stays
    #[command(after_help = "\
EXAMPLES:
  talos keys imported revoke \"$IMPORTED_KEY_ID\" --reason superseded")]
    Revoke(Revoke),
    /// Delete a key's record; rather revoke it, so that it stays known why it ended
    #[command(after_help = "\
EXAMPLES:
  talos keys imported delete \"$IMPORTED_KEY_ID\"")]
    Delete {
        /// The key's id
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
}

/// Take over a key that was made elsewhere
///
/// Only a hash of it is kept. A key that no request can carry, with a control character or white
/// space at an end, is refused.
#[derive(Args)]
#[command(after_help = IMPORT_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{IMPORT_EXAMPLES}"))]
pub struct Import {
    #[command(flatten)]
    key: NewKey,
    /// The key itself, or `-` to read it from stdin
    #[arg(long, value_name = "KEY|-")]
    raw_key: SecretString,
    /// How long it lives from now: 24h, 30d, 1y6mo [default: the server's own]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    ttl: Option<String>,
}

/// Take over up to 1000 keys
///
/// The file holds a JSON list of objects with the fields of the API (raw_key, name, actor_id, scopes, …), or the same
/// as {"requests":[…]}, or one object a line. Each key is taken or refused by itself: the answer tells for each, and the
/// exit code is 1 when one was refused.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  echo '[{\"raw_key\":\"legacy-1-0123456789\",\"name\":\"one\",\"actor_id\":\"a\"}]' | talos keys imported batch-import -
  echo '{\"raw_key\":\"legacy-2-0123456789\",\"name\":\"two\",\"actor_id\":\"a\"}' > keys.jsonl
  talos keys imported batch-import keys.jsonl --format json")]
pub struct BatchImport {
    /// The file, or `-` for stdin
    #[arg(value_name = "FILE|-", required_unless_present = "named", conflicts_with = "named")]
    file: Option<PathBuf>,
    /// The same, by name
    #[arg(long = "file", id = "named", value_name = "FILE|-")]
    named: Option<PathBuf>,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        match self {
            Self::Import(import) => {
                let mut body = import.key.body(import.ttl.as_deref())?;
                let raw_key = input::Given::read(import.raw_key)?;
                if raw_key.was_trimmed {
                    output.tell("stdin: the line ending at the end is not part of the key");
                }
                body.insert("raw_key".into(), raw_key.credential.expose().into());
                let answer = client.send(Request::post(PATH, Value::Object(body))).await?;
                output.print(&view::key(answer))?;
            }
            Self::BatchImport(batch) => return batch.run(client, output).await,
            Self::Get { id } => {
                let answer = client.send(Request::get(format!("{PATH}/{}", key_id(&id)?))).await?;
                output.print(&view::key(answer))?;
            }
            Self::List(list) => list.run(client, output, PATH, "imported_api_keys").await?,
            Self::Update(update) => {
                let (body, mask) = update.body_and_mask()?;
                let path = format!("{PATH}/{}", key_id(&update.id)?);
                let answer = client.send(Request::patch(path, body).query("update_mask", mask)).await?;
                output.print(&view::key(answer))?;
            }
            Self::Revoke(revoke) => return revoke.run(client, output, revoke::IMPORTED).await,
            Self::Delete { id } => {
                client.send(Request::new(Method::DELETE, format!("{PATH}/{}", key_id(&id)?))).await?;
                output.tell(&format!("deleted {id}"));
            }
        }
        Ok(Outcome::Done)
    }
}

impl BatchImport {
    async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        // One of the two is there: clap saw to it.
        let file = self.file.or(self.named).unwrap_or_default();
        let text = input::file(&file, input::MAX_BATCH)?;
        let requests = input::batch(&text)
            .map_err(|problem| Failure::unusable(format!("{}: {problem}", file.display())))?;
        let request = Request::post(format!("{PATH}:batchCreate"), json!({ "requests": requests }));
        let answer = client.send(request).await?;
        let failures = answer.value["failure_count"].as_u64().unwrap_or(0);
        output.print(&view::imports(answer))?;
        if failures == 0 {
            return Ok(Outcome::Done);
        }
        output.tell(&format!("{failures} of {} keys were refused", requests.len()));
        Ok(Outcome::PartlyRefused)
    }
}
