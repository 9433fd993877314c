//! `keys verify`, `keys batch-verify` and `keys derive-token`: commands that send a credential.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::paths::API_KEYS;
use super::view;
use crate::cli::client::{Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{self, STDIN_HELP, duration, json_object, non_empty};
use crate::cli::output::Output;
use crate::secret::SecretString;

const VERIFY_EXAMPLES: &str = "\
EXAMPLES:
  printf %s \"$SECRET\" | talos keys verify -
  talos keys verify \"$SECRET\" --no-cache --format json
  talos keys verify \"$SECRET\" --charge
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

/// Verify a credential: a key or a derived token
///
/// The exit code is 0 when it is valid, and 2 when it isn't.
#[derive(Args)]
#[command(after_help = VERIFY_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{VERIFY_EXAMPLES}"))]
pub(super) struct Verify {
    /// The credential, or `-` to read it from stdin
    #[arg(value_name = "CREDENTIAL|-")]
    credential: SecretString,
    #[command(flatten)]
    options: VerifyOptions,
}

/// Options of both verify commands.
#[derive(Args)]
pub(super) struct VerifyOptions {
    /// Make the server read the key from its database, not from its cache
    #[arg(long)]
    no_cache: bool,
    /// Accept a derived token only for one of these audiences (comma-separated)
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    audience: Vec<String>,
    /// Count the use against the key's rate limits and credits, as a request through the gateway
    /// does
    #[arg(long)]
    charge: bool,
}

/// Verify up to 100 credentials in one request
///
/// The exit code is 0 also when credentials aren't valid, unless --fail-on-invalid is set.
#[derive(Args)]
#[command(after_help = BATCH_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{BATCH_EXAMPLES}"))]
pub(super) struct BatchVerify {
    /// The credentials, or `-` to read them from stdin, one per line
    #[arg(value_name = "CREDENTIAL|-", required_unless_present = "file", conflicts_with = "file")]
    credentials: Vec<SecretString>,
    /// Read the credentials from a file, one per line
    #[arg(long, value_name = "FILE|-")]
    file: Option<PathBuf>,
    /// Exit with 2 when a credential is not valid
    #[arg(long)]
    fail_on_invalid: bool,
    #[command(flatten)]
    options: VerifyOptions,
}

/// Derive a short-lived token from a key
#[derive(Args)]
#[command(after_help = DERIVE_EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{DERIVE_EXAMPLES}"))]
pub(super) struct DeriveToken {
    /// The key's secret, or `-` to read it from stdin
    #[arg(value_name = "SECRET|-")]
    credential: SecretString,
    /// Kind of token
    #[arg(long, value_enum, default_value = "jwt")]
    algorithm: Algorithm,
    /// Lifetime, such as 5m [default: the server's setting, 1h unless changed]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<String>,
    /// Custom claims; claims that the server sets itself are refused
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    claims: Option<Map<String, Value>>,
    /// A subset of the key's scopes (comma-separated) [default: all of them]
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Vec<String>,
    /// Audiences that the token is for (comma-separated)
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    audience: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Algorithm {
    /// A signed token that anybody can verify with the public keys
    Jwt,
    /// A token whose holder can restrict it further
    Macaroon,
}

impl VerifyOptions {
    /// Applies the options to a request.
    fn apply(&self, request: Request) -> Request {
        let request = request.no_cache(self.no_cache);
        if self.charge { request } else { request.query("charge", "false") }
    }

    fn request(&self, credential: &SecretString) -> Value {
        let mut body = json!({ "credential": credential.expose() });
        let audiences = non_empty(&self.audience);
        if !audiences.is_empty() {
            body["expected_audiences"] = json!(audiences);
        }
        body
    }
}

impl Verify {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or the request fails.
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let credential = input::read_credential(self.credential)?;
        let request = Request::post(format!("{API_KEYS}:verify"), self.options.request(&credential))
            .expect(&["is_valid"]);
        let response = client.send(self.options.apply(request)).await?;
        let outcome = outcome(std::slice::from_ref(&response.value));
        output.print(&view::verification(response))?;
        Ok(outcome)
    }
}

impl BatchVerify {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or the request fails.
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let from_stdin = || PathBuf::from("-");
        let file = match self.credentials.as_slice() {
            [one] if one.expose() == "-" => Some(from_stdin()),
            many if many.iter().any(|credential| credential.expose() == "-") => {
                return Err(Failure::usage("`-` reads all credentials from stdin: give no others beside it"));
            }
            _ => self.file,
        };
        let credentials = match file {
            None => self.credentials,
            Some(file) => {
                let text = input::read_file(&file, input::MAX_BATCH_BYTES)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.map(SecretString::from).collect()
            }
        };
        if credentials.is_empty() {
            return Err(Failure::usage("no credentials to verify: expected one per line"));
        }
        let requests: Vec<Value> =
            credentials.iter().map(|credential| self.options.request(credential)).collect();
        let request = Request::post(format!("{API_KEYS}:batchVerify"), json!({ "requests": requests }))
            .expect(&["results"]);
        let response = client.send(self.options.apply(request)).await?;
        let outcome = outcome(response.value["results"].as_array().map(Vec::as_slice).unwrap_or_default());
        output.print(&view::verifications(response))?;
        Ok(if self.fail_on_invalid { outcome } else { Outcome::Done })
    }
}

/// Returns `Done` only when every verification says that its credential is valid.
fn outcome(verifications: &[Value]) -> Outcome {
    let all_valid = verifications.iter().all(|verification| verification["is_valid"] == true);
    if all_valid && !verifications.is_empty() { Outcome::Done } else { Outcome::Invalid }
}

impl DeriveToken {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the arguments are invalid or the request fails.
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<Outcome, Failure> {
        let credential = input::read_credential(self.credential)?;
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
        for (name, list) in [("scopes", non_empty(&self.scopes)), ("audiences", non_empty(&self.audience))] {
            if !list.is_empty() {
                body[name] = json!(list);
            }
        }
        let response =
            client.send(Request::post(format!("{API_KEYS}:derive"), body).expect(&["token"])).await?;
        output.print(&view::token(response))?;
        Ok(Outcome::Done)
    }
}
