//! `talos keys issue` and `talos keys issued`: issues and manages keys.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value};

use super::fields::{KeyFields, NewKey, Update};
use super::list::List;
use super::paths::ISSUED_API_KEYS;
use super::revoke::Revoke;
use super::suspend::{self, Suspend};
use super::view;
use crate::cli::client::{Client, JsonBody, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{Visibility, check_key_id, duration};
use crate::cli::output::Output;

/// Examples in the help of `talos keys issued`.
pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  talos keys issued list --status active
  talos keys issued get \"$KEY_ID\"
  talos keys issued rotate \"$KEY_ID\" --grace-period 24h -q
  talos keys issued revoke \"$KEY_ID\" --reason key_compromise";

/// Issue a new key
///
/// The server doesn't store the secret. Only a repetition with the same --request-id gets it again,
/// by the same caller, soon (idempotency.reveal_for) and before the key's first use.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos keys issue backend --actor user:42 --scopes orders:read,orders:write --ttl 720h
  talos keys issue backend --actor user:42 --metadata '{\"team\":\"blue\"}' --allowed-cidrs 10.0.0.0/8,::1/128
  talos keys issue backend --actor user:42 --rate-limit-quota 100 --rate-limit-window 60s --format json
  talos keys issue backend --actor user:42 --rate-limit burst=10/1s --rate-limit day=10000/24h,actor
  talos keys issue backend --actor user:42 --credits 500 --credits-refill '1000/month@1 03:00'
  SECRET=$(talos keys issue backend --actor user:42 --request-id deploy-7 -q)")]
pub(super) struct Issue {
    #[command(flatten)]
    key: NewKey,
    /// Lifetime: 24h, 30d, 1y6mo; 0 for the server's default
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    ttl: String,
}

#[derive(Subcommand)]
pub(super) enum Command {
    #[command(hide = true)]
    Issue(Issue),
    /// Show a key
    #[command(after_help = "\
EXAMPLES:
  talos keys issued get \"$KEY_ID\"
  talos keys issued get \"$KEY_ID\" --format jsonpath=expire_time")]
    Get {
        /// The key's id
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
    /// List keys
    #[command(after_help = "\
EXAMPLES:
  talos keys issued list --actor user:42 --status active
  talos keys issued list --all -q
  talos keys issued list --name back --order-by 'last_used_time desc' --total
  talos keys issued list --secret retired --status active
  talos keys issued list --filter 'status = KEY_STATUS_REVOKED' --format json
  talos keys issued list --format 'jsonpath=$.issued_api_keys[*].name'")]
    List(List),
    /// Update a key; only the given fields change
    #[command(after_help = "\
EXAMPLES:
  talos keys issued update \"$KEY_ID\" --name backend-2 --scopes orders:read
  talos keys issued update \"$KEY_ID\" --allowed-cidrs '' --rate-limit-quota 0
  talos keys issued update \"$KEY_ID\" --credits 1000
  talos keys issued update \"$KEY_ID\" --update-mask metadata
  talos keys issued update \"$KEY_ID\" --ttl 12h")]
    Update(Update),
    Rotate(Rotate),
    /// Revoke a key permanently
    #[command(after_help = "\
EXAMPLES:
  talos keys issued revoke \"$KEY_ID\" --reason key_compromise")]
    Revoke(Revoke),
    Suspend(Suspend),
    /// End the suspension of a key; one of its actor stays
    #[command(after_help = "\
EXAMPLES:
  talos keys issued resume \"$KEY_ID\"")]
    Resume {
        /// The key's id
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
    /// End a rotated key now, before its grace period does
    #[command(after_help = "\
EXAMPLES:
  talos keys issued rotate \"$KEY_ID\" --grace-period 24h -q
  talos keys issued finish \"$KEY_ID\"")]
    Finish {
        /// The id of the key that was rotated
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
    /// Delete a key's record; prefer revoke, which keeps the reason on record
    #[command(after_help = "\
EXAMPLES:
  talos keys issued delete \"$OTHER_KEY_ID\"")]
    Delete {
        /// The key's id
        #[arg(value_name = "KEY_ID")]
        id: String,
    },
}

/// Replace a key by a new one with a new id and secret; fields that aren't given are copied
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  SECRET=$(talos keys issued rotate \"$KEY_ID\" --grace-period 24h --request-id rotate-7 -q)
  talos keys issued rotate \"$OTHER_KEY_ID\" --scopes orders:read --format json")]
pub(super) struct Rotate {
    /// The id of the key to replace
    #[arg(value_name = "KEY_ID")]
    id: String,
    /// Name of the new key
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    fields: KeyFields,
    /// Visibility of the new key
    #[arg(long, value_enum)]
    visibility: Option<Visibility>,
    /// Lifetime of the new key: 24h, 30d, 1y6mo [default: it ends when the old key would have]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<String>,
    /// Time that the old key stays valid, such as 24h [default: it is revoked at once]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace_period: Option<String>,
    /// End the old key after this time without a use, such as 24h; uses put that off, for
    /// --grace-period at most, or a year
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    until_unused: Option<String>,
    /// Idempotency id: repeating the request with it returns the same keys and secret, soon after
    /// and before the new key is used (at most 36 characters)
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl Issue {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or the request fails.
    pub(super) async fn run(&self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let body = self.key.body(Some(&self.ttl))?;
        let response = client
            .send(Request::post(ISSUED_API_KEYS, Value::Object(body)).expect(&["issued_api_key"]))
            .await?;
        print_secret(response, output)
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or the request fails.
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        match self {
            Self::Issue(issue) => return issue.run(client, output).await,
            Self::Get { id } => {
                let response = client
                    .send(
                        Request::get(format!("{ISSUED_API_KEYS}/{}", check_key_id(&id)?)).expect(&["key_id"]),
                    )
                    .await?;
                output.print(&view::key(response))?;
            }
            Self::List(list) => list.run(client, output, ISSUED_API_KEYS, "issued_api_keys").await?,
            Self::Update(update) => {
                let (body, mask) = update.body_and_mask()?;
                let path = format!("{ISSUED_API_KEYS}/{}", check_key_id(&update.id)?);
                let response = client.send(Request::patch(path, body).query("update_mask", mask)).await?;
                output.print(&view::key(response))?;
            }
            Self::Rotate(rotate) => return rotate.run(client, output).await,
            Self::Revoke(revoke) => return revoke.run(client, output, ISSUED_API_KEYS).await,
            Self::Suspend(suspend) => return suspend.run(client, output, ISSUED_API_KEYS).await,
            Self::Resume { id } => return suspend::resume(&id, client, output, ISSUED_API_KEYS).await,
            Self::Finish { id } => return suspend::finish(&id, client, output, ISSUED_API_KEYS).await,
            Self::Delete { id } => {
                let path = format!("{ISSUED_API_KEYS}/{}", check_key_id(&id)?);
                client.send(Request::new(Method::DELETE, path)).await?;
                output.note(&format!("deleted {id}"));
            }
        }
        Ok(Outcome::Done)
    }
}

impl Rotate {
    async fn run(&self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let mut body = Map::new();
        self.fields.insert_into(&mut body)?;
        let optional = [
            ("name", self.name.as_deref()),
            ("visibility", self.visibility.map(Visibility::name)),
            ("ttl", self.ttl.as_deref()),
            ("grace_period", self.grace_period.as_deref()),
            ("until_unused", self.until_unused.as_deref()),
            ("request_id", self.request_id.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        let path = format!("{ISSUED_API_KEYS}/{}:rotate", check_key_id(&self.id)?);
        let response = client.send(Request::post(path, Value::Object(body))).await?;
        print_secret(response, output)
    }
}

/// Prints a response that has a secret.
///
/// A repeated request has none: with `--quiet` that is an error, not empty output.
fn print_secret(response: JsonBody, output: &Output) -> Result<Outcome, Failure> {
    let is_shown = response.value["secret"].is_string();
    if !is_shown && output.is_quiet() {
        return Err(Failure::failed(
            "the server answered this request before: a secret is shown only once, and again to its caller only soon \
             after and before its first use",
        ));
    }
    if !output.is_table() {
        let warnings = response.value.pointer("/issued_api_key/warnings").and_then(Value::as_array);
        for warning in warnings.into_iter().flatten().filter_map(Value::as_str) {
            output.note(&format!("warning: {warning}"));
        }
    }
    output.print(&view::secret(response))?;
    if is_shown && output.is_table() {
        output.note("Store the secret now: it is shown only once.");
    }
    Ok(Outcome::Done)
}
