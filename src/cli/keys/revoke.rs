//! `revoke` of keys of any kind, and `self-revoke`.

use clap::Args;
use serde_json::{Map, Value};

use super::paths::SELF_REVOKE;
use crate::cli::client::{Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{self, Reason, STDIN_HELP, check_key_id};
use crate::cli::output::{Output, Table, View};
use crate::secret::SecretString;

const SELF_EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$SECRET\" | talos keys self-revoke - --reason key_compromise
  talos keys self-revoke \"$OTHER_SECRET\" -e http://localhost:4421";

/// Revoke a key of either kind permanently
///
/// Revoking a revoked key succeeds and changes nothing.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos keys revoke \"$KEY_ID\" --reason superseded
  talos keys revoke \"$IMPORTED_KEY_ID\" --reason privilege_withdrawn --reason-text 'contract ended'")]
pub(super) struct Revoke {
    /// The key's id
    #[arg(value_name = "KEY_ID")]
    id: String,
    /// Reason: key_compromise, affiliation_changed, superseded or privilege_withdrawn
    #[arg(long, value_parser = Reason::parse)]
    reason: Option<Reason>,
    /// Description of the reason; only with privilege_withdrawn
    #[arg(long, value_name = "TEXT")]
    reason_text: Option<String>,
}

/// Revoke a key that you hold; its secret is the authorization
///
/// Works on the public plane, too: no access to the admin plane is needed.
#[derive(Args)]
#[command(after_help = SELF_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{SELF_EXAMPLES}"))]
pub(super) struct SelfRevoke {
    /// The key's secret, or `-` to read it from stdin
    #[arg(value_name = "SECRET|-")]
    credential: SecretString,
    /// Reason: key_compromise, affiliation_changed or superseded
    #[arg(long, value_parser = Reason::parse)]
    reason: Option<Reason>,
}

impl Revoke {
    /// Revokes the key in `collection`, one of the paths of the API.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or the request fails.
    pub(super) async fn run(
        self,
        client: &Client,
        output: &Output,
        collection: &str,
    ) -> Result<Outcome, Failure> {
        let mut body = Map::new();
        let optional =
            [("reason", self.reason.map(Reason::name)), ("description", self.reason_text.as_deref())];
        for (name, value) in optional {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        let path = format!("{collection}/{}:revoke", check_key_id(&self.id)?);
        client.send(Request::post(path, Value::Object(body))).await?;
        output.note(&format!("revoked {}", self.id));
        Ok(Outcome::Done)
    }
}

impl SelfRevoke {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when stdin can't be read or the request fails.
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let credential = input::read_credential(self.credential)?;
        let mut body = Map::new();
        body.insert("credential".into(), credential.expose().into());
        if let Some(reason) = self.reason {
            body.insert("reason".into(), reason.name().into());
        }
        let body = client.send(Request::post(SELF_REVOKE, Value::Object(body))).await?;
        output.print(&View { body, table: Table::Fields(vec![]), quiet: vec![] })?;
        output.note("revoked");
        Ok(Outcome::Done)
    }
}
