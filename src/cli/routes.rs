//! `talos routes`: asks what the edge would decide.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Client, JsonBody, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::input::{self, STDIN_HELP};
use super::output::{Output, Table, View, cell, plain};
use crate::secret::SecretString;

const EXAMPLES: &str = "\
EXAMPLES:
  talos routes explain GET https://api.example.com/orders/7
  printf %s \"$SECRET\" | talos routes explain POST api.example.com/orders --credential -
  talos routes explain GET /orders --credential \"$SECRET\" --client-address 192.0.2.7 --format json";

/// Ask which rule a request matches, and what the edge would decide
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP))]
pub(super) struct Routes {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Box<Connection>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Explain the decision about a request
    ///
    /// Nothing is charged, no use is counted, and rate limits are not looked at. Without a
    /// credential it says what the route asks for. The exit code is 0 whatever the decision.
    #[command(after_help = EXAMPLES, after_long_help = format!("{STDIN_HELP}\n\n{EXAMPLES}"))]
    Explain(Explain),
}

/// Options of `explain`.
#[derive(Args)]
struct Explain {
    /// The method
    method: String,
    /// The URL, with or without its scheme, or a path
    #[arg(value_name = "URL|PATH")]
    target: String,
    /// The credential, or `-` to read it from stdin
    #[arg(long, value_name = "CREDENTIAL|-")]
    credential: Option<SecretString>,
    /// The client's address, for keys that are bound to addresses
    #[arg(long, value_name = "ADDRESS")]
    client_address: Option<String>,
    /// A context extension of Envoy's route, such as talos.scopes=orders:read
    #[arg(long, value_name = "NAME=VALUE", value_parser = extension)]
    extension: Vec<(String, String)>,
}

fn extension(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Routes {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the arguments are invalid, or the server is unreachable or answers with an error.
    pub(super) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let Self { output, connection, command: Command::Explain(explain) } = self;
        let client = Client::new(&connection.server(endpoint)?)?;
        let body = client.send(Request::post("/v2alpha1/admin/routes:explain", explain.body()?)).await?;
        output.print(&view(body))?;
        Ok(Outcome::Done)
    }
}

impl Explain {
    fn body(self) -> Result<Value, Failure> {
        let (host, path) = split_target(&self.target);
        let mut body = json!({ "method": self.method, "host": host, "path": path });
        if let Some(credential) = self.credential {
            body["credential"] = input::read_credential(credential)?.expose().into();
        }
        if let Some(address) = self.client_address {
            body["client_address"] = address.into();
        }
        let extensions = self.extension.into_iter().map(|(name, value)| (name, value.into()));
        let extensions: Map<String, Value> = extensions.collect();
        if !extensions.is_empty() {
            body["context_extensions"] = extensions.into();
        }
        Ok(body)
    }
}

/// Returns the host and the path of a URL, whose scheme may be missing, or of a path.
fn split_target(target: &str) -> (&str, &str) {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    (host, if path.is_empty() { "/" } else { path })
}

fn view(body: JsonBody) -> View {
    let value = &body.value;
    let fields = [
        ("DECISION", "/decision"),
        ("REASON", "/reason"),
        ("MESSAGE", "/message"),
        ("RULE", "/rule/index"),
        ("RULE NAME", "/rule/name"),
        ("RULE HOST", "/rule/host"),
        ("RULE METHODS", "/rule/methods"),
        ("RULE PATH", "/rule/path"),
        ("MODE", "/demand/mode"),
        ("SCOPES", "/demand/scopes"),
        ("ANY SCOPE", "/demand/any_scope"),
        ("VISIBILITY", "/demand/visibility"),
        ("COST", "/demand/cost"),
        ("AUDIENCE", "/demand/audience"),
        ("TOKEN", "/demand/token"),
        ("KEY ID", "/key_id"),
        ("ACTOR", "/actor_id"),
        ("MISSING SCOPES", "/missing_scopes"),
    ];
    let shown = fields.into_iter().filter_map(|(name, pointer)| {
        let text = cell(value.pointer(pointer)?);
        (!text.is_empty()).then_some((name, text))
    });
    let mut shown: Vec<_> = shown.collect();
    if value.get("rule").is_none() {
        shown.insert(shown.len().min(3), ("RULE", "(none matches)".to_owned()));
    }
    View { table: Table::Fields(shown), quiet: vec![plain(&value["decision"])], body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_or_a_path() {
        for (target, host, path) in [
            ("https://api.example.com/orders?page=2", "api.example.com", "/orders?page=2"),
            ("api.example.com:8443/orders", "api.example.com:8443", "/orders"),
            ("http://api.example.com", "api.example.com", "/"),
            ("/orders", "", "/orders"),
            ("https://[::1]:8443/a", "[::1]:8443", "/a"),
        ] {
            assert_eq!(split_target(target), (host, path), "{target}");
        }
    }
}
