//! `talos keys issue` and `talos keys issued`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::fields::{Fields, NewKey, Update};
use super::list::List;
use super::revoke::{self, Revoke};
use super::view;
use crate::cli::client::{Answer, Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{Visibility, key_id, span};
use crate::cli::output::Output;

/// Where issued keys are.
pub const PATH: &str = "/v2alpha1/admin/issuedApiKeys";

/// Of `talos keys issued`.
pub const EXAMPLES: &str = "\
EXAMPLES:
  talos keys issued list --status active
  talos keys issued get \"$KEY_ID\"
  talos keys issued rotate \"$KEY_ID\" --grace-period 24h -q
  talos keys issued revoke \"$KEY_ID\" --reason key_compromise";

/// Issue a new key
///
/// The secret is in this answer and never again: the server keeps nothing of it.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos keys issue backend --actor user:42 --scopes orders:read,orders:write --ttl 720h
  talos keys issue backend --actor user:42 --metadata '{\"team\":\"blue\"}' --allowed-cidrs 10.0.0.0/8,::1/128
  talos keys issue backend --actor user:42 --rate-limit-quota 100 --rate-limit-window 60s --format json
  SECRET=$(talos keys issue backend --actor user:42 --request-id deploy-7 -q)")]
pub struct Issue {
    #[command(flatten)]
    key: NewKey,
    /// How long it lives: 24h, 30d, 1y6mo; 0 for the server's own default
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = span)]
    ttl: String,
}

#[derive(Subcommand)]
pub enum Command {
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
  talos keys issued list --filter 'status = KEY_STATUS_REVOKED' --format json
  talos keys issued list --format 'jsonpath=$.issued_api_keys[*].name'")]
    List(List),
    /// Change a key; only what is given changes
    #[command(after_help = "\
EXAMPLES:
  talos keys issued update \"$KEY_ID\" --name backend-2 --scopes orders:read
  talos keys issued update \"$KEY_ID\" --allowed-cidrs '' --rate-limit-quota 0
  talos keys issued update \"$KEY_ID\" --update-mask metadata")]
    Update(Update),
    Rotate(Rotate),
    /// Revoke a key, for good
    #[command(after_help = "\
EXAMPLES:
  talos keys issued revoke \"$KEY_ID\" --reason key_compromise")]
    Revoke(Revoke),
}

/// Put a new key in the place of one: a new id and a new secret; what isn't given stays as it was
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  SECRET=$(talos keys issued rotate \"$KEY_ID\" --grace-period 24h -q)
  talos keys issued rotate \"$OTHER_KEY_ID\" --scopes orders:read --format json")]
pub struct Rotate {
    /// The id of the key to replace
    #[arg(value_name = "KEY_ID")]
    id: String,
    /// The new key's name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Who may see the new key
    #[arg(long, value_enum)]
    visibility: Option<Visibility>,
    /// How long the old key stays valid beside the new one, such as 24h [default: it ends at once]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    grace_period: Option<String>,
}

impl Issue {
    /// Runs it.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(&self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let body = self.key.body(Some(&self.ttl))?;
        let answer = client.send(Request::post(PATH, Value::Object(body))).await?;
        show_secret(answer, output)
    }
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        match self {
            Self::Issue(issue) => return issue.run(client, output).await,
            Self::Get { id } => {
                let answer = client.send(Request::get(format!("{PATH}/{}", key_id(&id)?))).await?;
                output.print(&view::key(answer))?;
            }
            Self::List(list) => list.run(client, output, PATH, "issued_api_keys").await?,
            Self::Update(update) => {
                let (body, mask) = update.body_and_mask()?;
                let path = format!("{PATH}/{}", key_id(&update.id)?);
                let answer = client.send(Request::patch(path, body).query("update_mask", mask)).await?;
                output.print(&view::key(answer))?;
            }
            Self::Rotate(rotate) => return rotate.run(client, output).await,
            Self::Revoke(revoke) => return revoke.run(client, output, revoke::ISSUED).await,
        }
        Ok(Outcome::Done)
    }
}

impl Rotate {
    async fn run(&self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let mut body = Map::new();
        self.fields.put(&mut body)?;
        let optional = [
            ("name", self.name.as_deref()),
            ("visibility", self.visibility.map(Visibility::name)),
            ("grace_period", self.grace_period.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        let path = format!("{PATH}/{}:rotate", key_id(&self.id)?);
        let answer = client.send(Request::post(path, Value::Object(body))).await?;
        show_secret(answer, output)
    }
}

/// Prints an answer with a secret in it. Without one (the request was a repetition) a script that wants it gets an
/// error, not an empty text.
fn show_secret(answer: Answer, output: &Output) -> Result<Outcome, Failure> {
    let is_shown = answer.value["secret"].is_string();
    if !is_shown && output.is_quiet() {
        return Err(Failure::failed("this request was answered before: the secret is shown only once"));
    }
    output.print(&view::secret(answer))?;
    if is_shown && output.is_table() {
        output.tell("Keep the secret now: it is shown only once.");
    }
    Ok(Outcome::Done)
}
