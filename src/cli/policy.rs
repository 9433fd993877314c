//! `talos policy`: issuance policies in force, and keys that break them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{Client, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::output::plain;
use super::pages::next_page;
use super::source::source;
use super::usage::print::{Column, Form, print};
use crate::cli::stderr;

const EXAMPLES: &str = "\
EXAMPLES:
  talos policy list
  talos policy check
  printf '%s' 'issuance_policies: [{name: short-lived, max_ttl: 30d, apply: all}]' > new.yaml
  talos policy check --config new.yaml
  talos policy check --config new.yaml --by last-used --format csv";

/// Path of the policies in force.
const POLICIES: &str = "/v2alpha1/admin/policies";
/// Path of the check.
const CHECK: &str = "/v2alpha1/admin/policies:check";
/// Largest page of the API.
const PAGE_SIZE: u32 = 1_000;

const LIST_COLUMNS: &[Column] = &[
    Column { heading: "KIND", field: "kind" },
    Column { heading: "NAME", field: "name" },
    Column { heading: "DEMANDS OR SCOPES", field: "content" },
];

const COLUMNS: &[Column] = &[
    Column { heading: "ACTOR", field: "actor_id" },
    Column { heading: "KEY ID", field: "key_id" },
    Column { heading: "NAME", field: "name" },
    Column { heading: "LAST USED", field: "last_used_time" },
    Column { heading: "ENDS BY POLICY", field: "policy_end_time" },
    Column { heading: "BREAKS", field: "breaks" },
];

/// List issuance policies, and check keys against them
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP))]
pub(super) struct Policy {
    #[command(flatten)]
    connection: Box<Connection>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the policies in force and the named sets of scopes (roles)
    #[command(after_help = EXAMPLES)]
    List {
        /// Form of the output
        #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "table")]
        format: Form,
    },
    /// List the active keys that break the policies in force, or those of --config
    ///
    /// With --config, the policies (issuance_policies) of that file are candidates: nothing is
    /// changed. Policies for a role, and max_keys_per_actor, break no key that exists.
    #[command(after_help = EXAMPLES)]
    Check {
        /// Order of the keys
        #[arg(long, value_enum, value_name = "ORDER", default_value = "actor")]
        by: Order,
        /// Form of the output
        #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "table")]
        format: Form,
    },
}

/// Order of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// By actor, then by the last use, the latest first
    Actor,
    /// By the last use, the latest first
    LastUsed,
}

impl Policy {
    /// Runs the command against the server at `endpoint`, or the default one, with the candidates
    /// of `config` if it is given.
    ///
    /// # Errors
    /// Fails when the arguments or the configuration are invalid, or the server is unreachable or
    /// answers with an error.
    pub(super) async fn run(
        self,
        endpoint: Option<&str>,
        config: Option<PathBuf>,
    ) -> Result<Outcome, Failure> {
        let Self { connection, command } = self;
        let (by, format) = match command {
            Command::List { format } => return list(&connection, endpoint, format).await,
            Command::Check { by, format } => (by, format),
        };
        let candidates = config.map(|file| candidates(file, connection.network())).transpose()?;
        let client = Client::new(&connection.server(endpoint)?)?;
        let (mut rows, scanned) = all_keys(&client, candidates).await?;
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        rows.sort_by_cached_key(|row| std::cmp::Reverse((text(row, "last_used_time"), text(row, "key_id"))));
        if by == Order::Actor {
            rows.sort_by_cached_key(|row| text(row, "actor_id"));
        }
        let report = json!({ "rows": rows, "scanned_count": scanned });
        print(&report, COLUMNS, format)?;
        if format != Form::Json {
            stderr::line(format_args!("{} of {scanned} active keys break a policy", rows.len()));
        }
        Ok(Outcome::Done)
    }
}

async fn list(connection: &Connection, endpoint: Option<&str>, format: Form) -> Result<Outcome, Failure> {
    let client = Client::new(&connection.server(endpoint)?)?;
    let mut report = client.send(Request::get(POLICIES).expect(&["issuance_policies"])).await?.value;
    if format != Form::Json {
        report["rows"] = listed(&report);
    }
    print(&report, LIST_COLUMNS, format)?;
    Ok(Outcome::Done)
}

/// Returns a row for each policy, with what it sets, and for each named set of scopes.
fn listed(policies: &Value) -> Value {
    let row =
        |kind: &str, name: &Value, content: String| json!({ "kind": kind, "name": name, "content": content });
    let mut rows = vec![];
    for policy in policies["issuance_policies"].as_array().into_iter().flatten() {
        let members = policy.as_object().into_iter().flatten();
        let is_set = |name: &str, value: &Value| {
            name != "name" && ![json!(false), json!([]), json!({})].contains(value)
        };
        let set = members.filter(|(name, value)| is_set(name, value));
        let content: Vec<String> = set.map(|(name, value)| format!("{name}: {}", plain(value))).collect();
        rows.push(row("policy", &policy["name"], content.join(", ")));
    }
    for (name, scopes) in policies["roles"].as_object().into_iter().flatten() {
        let scopes: Vec<String> = scopes.as_array().into_iter().flatten().map(plain).collect();
        rows.push(row("role", &json!(name), scopes.join(", ")));
    }
    rows.into()
}

/// Reads the policies of a file, of the network with this host if it has settings of its own.
fn candidates(file: PathBuf, network: Option<&str>) -> Result<Value, Failure> {
    let loaded = source(Some(file))?.without_admin().load().map_err(Failure::usage)?;
    let config = &loaded.config;
    let own = network.and_then(|host| config.tenants().find(|(network, _)| network.hostname == host));
    let policies = &own.map_or(config, |(_, config)| config).issuance_policies;
    serde_json::to_value(policies).map_err(Failure::failed)
}

/// Returns the keys of all pages, and the number of keys that were looked at.
async fn all_keys(client: &Client, candidates: Option<Value>) -> Result<(Vec<Value>, u64), Failure> {
    let (mut rows, mut scanned, mut token) = (vec![], 0, String::new());
    loop {
        let mut body = json!({ "page_size": PAGE_SIZE, "page_token": token });
        if let Some(policies) = &candidates {
            body["issuance_policies"] = policies.clone();
        }
        let mut page = client.send(Request::post(CHECK, body)).await?.value;
        scanned += page["scanned_count"].as_u64().unwrap_or(0);
        if let Some(Value::Array(keys)) = page.get_mut("keys").map(Value::take) {
            rows.extend(keys.into_iter().map(with_breaks));
        }
        match next_page(&page, &token)? {
            Some(next) => token = next,
            None => return Ok((rows, scanned)),
        }
    }
}

/// Adds the policies that a key breaks, each with its field.
fn with_breaks(mut key: Value) -> Value {
    let violations = key["violations"].as_array().into_iter().flatten();
    let breaks = violations.map(|violation| {
        let text = |field: &str| violation[field].as_str().unwrap_or_default();
        format!("{}: {}", text("policy"), text("field"))
    });
    let breaks: Value = breaks.collect();
    key["breaks"] = breaks;
    key
}
