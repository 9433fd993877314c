//! `revoke` in all its places, and `self-revoke`.

use clap::Args;
use serde_json::{Map, Value};

use super::{imported, issued};
use crate::cli::client::{Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{self, Reason, STDIN_HELP, key_id};
use crate::cli::output::{Output, Shown, Table};
use crate::secret::SecretString;

/// Keys of either kind.
pub const ANY: &str = "/v2alpha1/admin/apiKeys";
/// Issued keys only.
pub const ISSUED: &str = issued::PATH;
/// Imported keys only.
pub const IMPORTED: &str = imported::PATH;

const SELF_REVOKE: &str = "/v2alpha1/apiKeys:selfRevoke";

const SELF_EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$SECRET\" | talos keys self-revoke - --reason key_compromise
  talos keys self-revoke \"$OTHER_SECRET\" -e http://localhost:4421";

/// Revoke a key of either kind, for good
///
/// Revoking a revoked key succeeds and changes nothing.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos keys revoke \"$KEY_ID\" --reason superseded
  talos keys revoke \"$IMPORTED_KEY_ID\" --reason privilege_withdrawn --reason-text 'contract ended'")]
pub struct Revoke {
    /// The key's id
    #[arg(value_name = "KEY_ID")]
    id: String,
    /// Why: key_compromise, affiliation_changed, superseded or privilege_withdrawn
    #[arg(long, value_parser = Reason::parse)]
    reason: Option<Reason>,
    /// Why, in words; goes with privilege_withdrawn only
    #[arg(long, value_name = "TEXT")]
    reason_text: Option<String>,
}

/// Revoke the key that you hold, with itself as the proof
///
/// Needs no admin: the public plane has it, too.
#[derive(Args)]
#[command(after_help = SELF_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{SELF_EXAMPLES}"))]
pub struct SelfRevoke {
    /// The key's secret, or `-` to read it from stdin
    #[arg(value_name = "SECRET|-")]
    credential: SecretString,
    /// Why: key_compromise, affiliation_changed or superseded
    #[arg(long, value_parser = Reason::parse)]
    reason: Option<Reason>,
}

impl Revoke {
    /// Runs it, on keys of one place.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(self, client: &Client, output: &Output, place: &str) -> Result<Outcome, Failure> {
        let mut body = Map::new();
        let optional =
            [("reason", self.reason.map(Reason::name)), ("description", self.reason_text.as_deref())];
        for (name, value) in optional {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        let path = format!("{place}/{}:revoke", key_id(&self.id)?);
        client.send(Request::post(path, Value::Object(body))).await?;
        output.tell(&format!("revoked {}", self.id));
        Ok(Outcome::Done)
    }
}

impl SelfRevoke {
    /// Runs it.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let credential = input::credential(self.credential)?;
        let mut body = Map::new();
        body.insert("credential".into(), credential.expose().into());
        if let Some(reason) = self.reason {
            body.insert("reason".into(), reason.name().into());
        }
        let answer = client.send(Request::post(SELF_REVOKE, Value::Object(body))).await?;
        output.print(&Shown { answer, table: Table::Fields(vec![]), quiet: vec![] })?;
        output.tell("revoked");
        Ok(Outcome::Done)
    }
}
