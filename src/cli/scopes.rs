//! `talos scopes`: what other routes would do to the keys that are used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::input::read_file;
use super::pages::next_page;
use super::usage::print::{Column, Form, print};
use crate::cli::stderr;
use crate::clock::{Clock, Timestamp};
use crate::duration;
use crate::escape::visible;

const EXAMPLES: &str = "\
EXAMPLES:
  printf '%s' '[{name: orders, path: {prefix: /orders}, scopes: orders:write}]' > new.yaml
  talos scopes preview --routes new.yaml --since 7d
  talos scopes preview --routes new.yaml --since 30d --format json";

/// Path of the preview.
const PREVIEW: &str = "/v2alpha1/admin/scopes:preview";
/// Largest page of the API.
const PAGE_SIZE: u32 = 1_000;
/// Largest file of routes, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

const COLUMNS: &[Column] = &[
    Column { heading: "ACTOR", field: "actor_id" },
    Column { heading: "KEY ID", field: "key_id" },
    Column { heading: "NAME", field: "name" },
    Column { heading: "ROUTE", field: "route" },
    Column { heading: "COUNT", field: "count" },
    Column { heading: "WOULD BE", field: "verdict" },
    Column { heading: "REASON", field: "reason" },
    Column { heading: "MISSING", field: "missing_scopes" },
    Column { heading: "LAST USED", field: "last_used_time" },
];

/// Show what other routes would do to the keys that are used
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP))]
pub(super) struct Scopes {
    #[command(flatten)]
    connection: Box<Connection>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the recorded requests that candidate routes would refuse, by key
    ///
    /// Usage records the names of routes: a candidate judges the requests that were counted under
    /// its name; one without a name has that of the rule in force with the same host, methods and
    /// path. Keys are judged by the scopes that they have now. What can't be told is said on
    /// stderr, and in JSON as untold.
    #[command(after_help = EXAMPLES)]
    Preview(Preview),
}

#[derive(Args)]
struct Preview {
    /// YAML file with the candidates: a list as in authz.routes, or a configuration with it
    #[arg(long, value_name = "FILE")]
    routes: PathBuf,
    /// Begin this long ago [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "start")]
    since: Option<std::time::Duration>,
    /// Begin at this time (RFC 3339); its whole hour counts
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<Timestamp>,
    /// End at this time (RFC 3339): hours that begin before it count [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    end: Option<Timestamp>,
    /// Form of the output
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "table")]
    format: Form,
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::from_rfc3339(text).ok_or("must be a time such as 2026-04-17T05:00:00Z")
}

impl Scopes {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the arguments or the routes are invalid, or the server is unreachable or answers
    /// with an error.
    pub(super) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let Self { connection, command: Command::Preview(preview) } = self;
        let routes = routes(&preview.routes)?;
        let client = Client::new(&connection.server(endpoint)?)?;
        let report = preview.report(&client, routes).await?;
        print(&report, COLUMNS, preview.format)?;
        if preview.format != Form::Json {
            for untold in report["untold"].as_array().into_iter().flatten() {
                let text = |field: &str| untold[field].as_str().unwrap_or_default();
                let (route, reason) = (visible(text("route")), text("reason"));
                let route = if route.is_empty() { String::new() } else { format!(" of {route}") };
                stderr::line(format_args!(
                    "nothing can be told about {} requests{route}: {reason}",
                    untold["count"]
                ));
            }
        }
        Ok(Outcome::Done)
    }
}

impl Preview {
    /// Returns the rows of all pages.
    async fn report(&self, client: &Client, routes: Value) -> Result<Value, Failure> {
        // The same start for every page, as their tokens are bound to it.
        let start = self.since.map(|since| Clock::system().now().minus(since)).or(self.start);
        let (mut rows, mut untold, mut requests) = (vec![], BTreeMap::<(String, String), u64>::new(), 0);
        let (mut token, mut times) = (String::new(), None);
        loop {
            let mut body = json!({ "routes": routes, "page_size": PAGE_SIZE, "page_token": token });
            for (name, time) in [("start_time", start), ("end_time", self.end)] {
                if let Some(time) = time {
                    body[name] = time.to_rfc3339().into();
                }
            }
            let mut page = client.send(Request::post(PREVIEW, body)).await?.value;
            requests += page["request_count"].as_u64().unwrap_or(0);
            for one in page["untold"].as_array().into_iter().flatten() {
                let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
                let count = one["count"].as_u64().unwrap_or(0);
                *untold.entry((text("route"), text("reason"))).or_default() += count;
            }
            if let Some(Value::Array(more)) = page.get_mut("rows").map(Value::take) {
                rows.extend(more);
            }
            let next = next_page(&page, &token)?;
            let (start, end) = times.get_or_insert((page["start_time"].clone(), page["end_time"].clone()));
            let Some(next) = next else {
                let untold = untold.into_iter();
                let untold = untold.map(
                    |((route, reason), count)| json!({ "route": route, "count": count, "reason": reason }),
                );
                return Ok(json!({ "start_time": start, "end_time": end, "rows": rows,
                    "untold": untold.collect::<Vec<_>>(), "request_count": requests }));
            };
            token = next;
        }
    }
}

/// Reads the candidates: a list, or that of `routes` or `authz.routes` in a mapping.
fn routes(file: &std::path::Path) -> Result<Value, Failure> {
    let bad = |problem: &str| Failure::usage(format!("--routes {}: {problem}", file.display()));
    let text = read_file(file, MAX_FILE)?;
    let value: serde_norway::Value = serde_norway::from_str(&text).map_err(|_| bad("is not YAML"))?;
    let value = serde_json::to_value(value).map_err(|_| bad("has keys that are no texts"))?;
    let found = match &value {
        Value::Array(_) => Some(&value),
        _ => ["/authz/routes", "/routes"].into_iter().find_map(|place| value.pointer(place)),
    };
    let found = found.filter(|list| list.as_array().is_some_and(|list| !list.is_empty()));
    found.cloned().ok_or_else(|| bad("must be a list of routes, or a configuration with authz.routes"))
}
