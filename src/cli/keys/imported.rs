//! `talos keys imported`: manages keys that were made elsewhere.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::fields::{NewKey, Update};
use super::list::List;
use super::paths::IMPORTED_API_KEYS;
use super::revoke::Revoke;
use super::suspend::{self, Suspend};
use super::view;
use crate::cli::client::{Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{self, STDIN_HELP, check_key_id, duration};
use crate::cli::output::Output;
use crate::secret::SecretString;

/// Examples in the help of `talos keys imported`.
pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$LEGACY_KEY\" | talos keys imported import legacy --raw-key - --actor user:42
  talos keys imported list --actor user:42
  talos keys imported revoke \"$IMPORTED_KEY_ID\" --reason superseded
  talos keys imported delete \"$IMPORTED_KEY_ID\"";

const IMPORT_EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$LEGACY_KEY\" | talos keys imported import legacy --raw-key - --actor user:42 --scopes orders:read
  talos keys imported import legacy --raw-key \"$OTHER_LEGACY_KEY\" --actor user:42 --ttl 8760h --format json
  talos keys imported import legacy --hash \"sha256:$(printf %s \"$SOME_KEY\" | sha256sum | cut -c 1-64)\" --actor user:42";

#[derive(Subcommand)]
pub(super) enum Command {
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
    /// Update a key; only the given fields change
    #[command(after_help = "\
EXAMPLES:
  talos keys imported update \"$IMPORTED_KEY_ID\" --name legacy-2 --scopes orders:read")]
    Update(Update),
    /// Revoke a key permanently; its record is kept
    #[command(after_help = "\
EXAMPLES:
  talos keys imported revoke \"$IMPORTED_KEY_ID\" --reason superseded")]
    Revoke(Revoke),
    #[command(after_help = "\
EXAMPLES:
  talos keys imported suspend \"$IMPORTED_KEY_ID\" --reason 'seen in a public repository'")]
    Suspend(Suspend),
    /// End the suspension of a key; one of its actor stays
    #[command(after_help = "\
EXAMPLES:
  talos keys imported resume \"$IMPORTED_KEY_ID\"")]
    Resume {
        /// The key's id
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
    /// Delete a key's record; prefer revoke, which keeps the reason on record
    #[command(after_help = "\
EXAMPLES:
  talos keys imported delete \"$IMPORTED_KEY_ID\"")]
    Delete {
        /// The key's id
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
}

/// Import a key that was made elsewhere
///
/// Only a hash of it is stored. Where only a hash is known, give that with --hash: the key works
/// from now on, and its id becomes that of an imported key when it is first used. A key that no
/// request can carry, because it has a control character or begins or ends with white space, is
/// refused.
#[derive(Args)]
#[command(after_help = IMPORT_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{IMPORT_EXAMPLES}"))]
pub(super) struct Import {
    #[command(flatten)]
    key: NewKey,
    /// The key itself, or `-` to read it from stdin
    #[arg(
        long,
        value_name = "KEY|-",
        allow_hyphen_values = true,
        required_unless_present = "hash",
        conflicts_with = "hash"
    )]
    raw_key: Option<SecretString>,
    /// A hash of the key instead of the key, such as sha256:9f86d0…; `-` to read it from stdin
    ///
    /// SHA-256 or SHA-512 over the raw key, in hex or base64.
    #[arg(long, value_name = "ALGORITHM:DIGEST|-", allow_hyphen_values = true)]
    hash: Option<SecretString>,
    /// Lifetime from now: 24h, 30d, 1y6mo [default: the server's setting]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<String>,
}

/// Import up to 1000 keys
///
/// The file holds a JSON list of objects with the fields of the API (raw_key or hash, name,
/// actor_id, scopes, …), or the same list as {"requests":[…]}, or one object per line. Each key is
/// imported or refused by itself, as the response shows; the exit code is 1 when any was refused.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  echo '[{\"raw_key\":\"legacy-1-0123456789\",\"name\":\"one\",\"actor_id\":\"a\"}]' | talos keys imported batch-import -
  echo '{\"raw_key\":\"legacy-2-0123456789\",\"name\":\"two\",\"actor_id\":\"a\"}' > keys.jsonl
  talos keys imported batch-import keys.jsonl --format json")]
pub(super) struct BatchImport {
    /// The file to read, or `-` for stdin
    #[arg(value_name = "FILE|-", required_unless_present = "named", conflicts_with = "named")]
    file: Option<PathBuf>,
    /// The file to read, as an option
    #[arg(long = "file", id = "named", value_name = "FILE|-")]
    named: Option<PathBuf>,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or the request fails.
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        match self {
            Self::Import(import) => {
                let mut body = import.key.body(import.ttl.as_deref())?;
                match (import.raw_key, import.hash) {
                    (_, Some(hash)) => {
                        let hash = input::read_credential(hash)?;
                        body.insert("hash".into(), json!({ "value": hash.expose() }));
                    }
                    (raw_key, None) => {
                        let raw_key = input::CredentialInput::read(raw_key.unwrap_or_default())?;
                        if raw_key.was_trimmed {
                            output.note("stdin: the final line ending was removed from the key");
                        }
                        body.insert("raw_key".into(), raw_key.credential.expose().into());
                    }
                }
                let response = client
                    .send(Request::post(IMPORTED_API_KEYS, Value::Object(body)).expect(&["key_id"]))
                    .await?;
                output.print(&view::key(response))?;
            }
            Self::BatchImport(batch) => return batch.run(client, output).await,
            Self::Get { id } => {
                let response = client
                    .send(
                        Request::get(format!("{IMPORTED_API_KEYS}/{}", check_key_id(&id)?))
                            .expect(&["key_id"]),
                    )
                    .await?;
                output.print(&view::key(response))?;
            }
            Self::List(list) => list.run(client, output, IMPORTED_API_KEYS, "imported_api_keys").await?,
            Self::Update(update) => {
                let (body, mask) = update.body_and_mask()?;
                let path = format!("{IMPORTED_API_KEYS}/{}", check_key_id(&update.id)?);
                let response = client.send(Request::patch(path, body).query("update_mask", mask)).await?;
                output.print(&view::key(response))?;
            }
            Self::Revoke(revoke) => return revoke.run(client, output, IMPORTED_API_KEYS).await,
            Self::Suspend(suspend) => return suspend.run(client, output, IMPORTED_API_KEYS).await,
            Self::Resume { id } => return suspend::resume(&id, client, output, IMPORTED_API_KEYS).await,
            Self::Delete { id } => {
                client
                    .send(Request::new(Method::DELETE, format!("{IMPORTED_API_KEYS}/{}", check_key_id(&id)?)))
                    .await?;
                output.note(&format!("deleted {id}"));
            }
        }
        Ok(Outcome::Done)
    }
}

impl BatchImport {
    async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        // clap requires exactly one of the two.
        let file = self.file.or(self.named).unwrap_or_default();
        let text = input::read_file(&file, input::MAX_BATCH_BYTES)?;
        let requests = input::parse_batch(&text)
            .map_err(|problem| Failure::usage(format!("{}: {problem}", file.display())))?;
        let request =
            Request::post(format!("{IMPORTED_API_KEYS}:batchCreate"), json!({ "requests": requests }));
        let response = client.send(request).await?;
        let failures = response.value["failure_count"].as_u64().unwrap_or(0);
        output.print(&view::imports(response))?;
        if failures == 0 {
            return Ok(Outcome::Done);
        }
        output.note(&format!("{failures} of {} keys were refused", requests.len()));
        Ok(Outcome::PartialFailure)
    }
}
