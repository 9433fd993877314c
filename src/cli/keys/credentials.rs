//! `verify`, `batch-verify` and `derive-token`: what is asked with a credential in hand.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::view;
use crate::cli::client::{Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{self, STDIN_HELP, items, object, span};
use crate::cli::output::Output;
use crate::secret::SecretString;

const ANY: &str = "/v2alpha1/admin/apiKeys";

const VERIFY_EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$SECRET\" | talos keys verify -
  talos keys verify \"$SECRET\" --no-cache --format json
  talos keys verify \"$SECRET\" -q > /dev/null || echo refused";

const BATCH_EXAMPLES: &str = "\
EXAMPLES:
  printf '%s\\n' \"$SECRET\" \"$OTHER_SECRET\" | talos keys batch-verify -
  printf '%s\\n' \"$SECRET\" \"$OTHER_SECRET\" > credentials.txt
  talos keys batch-verify --file credentials.txt --format json
  talos keys batch-verify \"$SECRET\" \"$OTHER_SECRET\"";

const DERIVE_EXAMPLES: &str = "\
EXAMPLES:
  TOKEN=$(printf %s \"$SECRET\" | talos keys derive-token - --ttl 5m -q)
  talos keys derive-token \"$SECRET\" --scopes orders:read --audience shop --claims '{\"order\":7}'
  talos keys derive-token \"$SECRET\" --algorithm macaroon --format json";

/// Ask whether a credential is valid: a key or a derived token
///
/// The exit code is 0 when it is, and 2 when it isn't.
#[derive(Args)]
#[command(after_help = VERIFY_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{VERIFY_EXAMPLES}"))]
pub struct Verify {
    /// The credential, or `-` to read it from stdin
    #[arg(value_name = "CREDENTIAL|-")]
    credential: SecretString,
    #[command(flatten)]
    how: How,
}

/// How credentials are checked.
#[derive(Args)]
pub struct How {
    /// Have the server look it up anew
    #[arg(long)]
    no_cache: bool,
    /// Accept a derived token only for one of these audiences, with commas between them
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    audience: Vec<String>,
}

/// Ask about up to 100 credentials in one request
///
/// The exit code is 0 when all are valid, and 2 when one isn't.
#[derive(Args)]
#[command(after_help = BATCH_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{BATCH_EXAMPLES}"))]
pub struct BatchVerify {
    /// The credentials, or `-` to read them from stdin, one a line
    #[arg(value_name = "CREDENTIAL|-", required_unless_present = "file", conflicts_with = "file")]
    credentials: Vec<SecretString>,
    /// A file to read them from, one a line
    #[arg(long, value_name = "FILE|-")]
    file: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// Derive a short-lived token from a key
#[derive(Args)]
#[command(after_help = DERIVE_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{DERIVE_EXAMPLES}"))]
pub struct DeriveToken {
    /// The key's secret, or `-` to read it from stdin
    #[arg(value_name = "SECRET|-")]
    credential: SecretString,
    /// What kind of token
    #[arg(long, value_enum, default_value = "jwt")]
    algorithm: Algorithm,
    /// How long it lives, such as 5m [default: the server's own, 1h unless it was changed]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    ttl: Option<String>,
    /// Claims of your own; those that the server sets itself can't be set
    #[arg(long, value_name = "JSON", value_parser = object)]
    claims: Option<Map<String, Value>>,
    /// What it may do: some of the key's scopes, with commas between them [default: all of them]
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Vec<String>,
    /// For whom it is: audiences, with commas between them
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    audience: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Algorithm {
    /// A signed token that anybody can check with the public keys
    Jwt,
    /// A token that its holder can narrow
    Macaroon,
}

impl How {
    fn request(&self, credential: &SecretString) -> Value {
        let mut body = json!({ "credential": credential.expose() });
        let audiences = items(&self.audience);
        if !audiences.is_empty() {
            body["expected_audiences"] = json!(audiences);
        }
        body
    }
}

impl Verify {
    /// Runs it.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let credential = input::credential(self.credential)?;
        let request = Request::post(format!("{ANY}:verify"), self.how.request(&credential));
        let answer = client.send(request.no_cache(self.how.no_cache)).await?;
        let outcome = outcome(std::slice::from_ref(&answer.value));
        output.print(&view::verification(answer))?;
        Ok(outcome)
    }
}

impl BatchVerify {
    /// Runs it.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let from_stdin = || PathBuf::from("-");
        let file = match self.credentials.as_slice() {
            [one] if one.expose() == "-" => Some(from_stdin()),
            many if many.iter().any(|credential| credential.expose() == "-") => {
                return Err(Failure::unusable("`-` stands for all credentials: give it alone"));
            }
            _ => self.file,
        };
        let credentials = match file {
            None => self.credentials,
            Some(file) => {
                let text = input::file(&file, input::MAX_BATCH)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.map(SecretString::from).collect()
            }
        };
        if credentials.is_empty() {
            return Err(Failure::unusable("no credential to verify: one a line is expected"));
        }
        let requests: Vec<Value> =
            credentials.iter().map(|credential| self.how.request(credential)).collect();
        let request = Request::post(format!("{ANY}:batchVerify"), json!({ "requests": requests }));
        let answer = client.send(request.no_cache(self.how.no_cache)).await?;
        let outcome = outcome(answer.value["results"].as_array().map(Vec::as_slice).unwrap_or_default());
        output.print(&view::verifications(answer))?;
        Ok(outcome)
    }
}

/// An answer that doesn't say that a credential is valid says that it isn't.
fn outcome(verifications: &[Value]) -> Outcome {
    let all_valid = verifications.iter().all(|verification| verification["is_valid"] == true);
    if all_valid && !verifications.is_empty() { Outcome::Done } else { Outcome::Invalid }
}

impl DeriveToken {
    /// Runs it.
    ///
    /// # Errors
    /// As any command's.
    pub async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let credential = input::credential(self.credential)?;
        let algorithm = match self.algorithm {
            Algorithm::Jwt => "TOKEN_ALGORITHM_JWT",
            Algorithm::Macaroon => "TOKEN_ALGORITHM_MACAROON",
        };
        let mut body = json!({ "credential": credential.expose(), "algorithm": algorithm });
        if let Some(ttl) = self.ttl {
            body["ttl"] = ttl.into();
        }
        if let Some(claims) = self.claims {
            body["custom_claims"] = Value::Object(claims);
        }
        for (name, list) in [("scopes", items(&self.scopes)), ("audiences", items(&self.audience))] {
            if !list.is_empty() {
                body[name] = json!(list);
            }
        }
        let answer = client.send(Request::post(format!("{ANY}:derive"), body)).await?;
        output.print(&view::token(answer))?;
        Ok(Outcome::Done)
    }
}
