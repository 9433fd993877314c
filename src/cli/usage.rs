//! `talos usage`: reports of how often keys are used.

pub(super) mod print;
mod unused;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::print::{Column, Form, print};
use super::client::{Client, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::pages::next_page;
use crate::clock::{Clock, Timestamp};
use crate::duration;

const EXAMPLES: &str = "\
EXAMPLES:
  talos usage report --since 7d --group-by actor --limit 10
  talos usage report --since 24h --group-by hour,outcome --format json
  talos usage report --unused 90d
  talos usage export --since 30d --group-by day,actor,key --format csv";

/// Path of the report.
const USAGE: &str = "/v2alpha1/admin/usage";
/// Largest page of the API.
const MAX_PAGE: u32 = 1000;

/// Report how often keys are used, by whom, and with what result
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP))]
pub(super) struct Usage {
    #[command(flatten)]
    connection: Box<Connection>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the largest numbers, or the keys that aren't used
    ///
    /// On a terminal, bars show the numbers as well.
    #[command(after_help = EXAMPLES)]
    Report {
        #[command(flatten)]
        selection: Selection,
        /// Most rows, at most 1000
        #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Instead of numbers, show the active keys that haven't been used for this time, by actor
        #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with_all = ["since", "start", "end", "group_by", "key", "route", "outcome"])]
        unused: Option<std::time::Duration>,
        /// Form of the output
        #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "table")]
        format: Form,
    },
    /// Write all numbers
    #[command(after_help = EXAMPLES)]
    Export {
        #[command(flatten)]
        selection: Selection,
        /// Most rows [default: all]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Form of the output
        #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "csv")]
        format: Form,
    },
}

/// Selection of Checks.
#[derive(Args, Clone)]
struct Selection {
    /// Begin this long ago [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "start")]
    since: Option<std::time::Duration>,
    /// Begin at this time (RFC 3339); its whole hour counts
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<Timestamp>,
    /// End at this time (RFC 3339): hours that begin before it count [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    end: Option<Timestamp>,
    /// Group by these, separated by commas: day or hour, outcome, route, key, actor
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = ["day", "hour", "outcome", "route", "key", "actor"], default_value = "actor")]
    group_by: Vec<String>,
    /// Only keys of this actor
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Only this key
    #[arg(long, value_name = "KEY_ID")]
    key: Option<String>,
    /// Only routes of this name
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only this result: allow, or the reason of a refusal
    #[arg(long)]
    outcome: Option<String>,
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::from_rfc3339(text).ok_or("must be a time such as 2026-04-17T05:00:00Z")
}

impl Usage {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the arguments are invalid, or the server is unreachable or answers with an error.
    pub(super) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let Self { connection, command } = self;
        let client = Client::new(&connection.server(endpoint)?)?;
        match command {
            Command::Report { selection, unused: Some(time), format, .. } => {
                let report = unused::report(&client, selection.actor.as_deref(), time).await?;
                print(&report, unused::COLUMNS, format)?;
            }
            Command::Report { selection, limit, unused: None, format } => {
                let page = client.send(selection.request(limit)).await?.value;
                let report = json!({
                    "start_time": page["start_time"], "end_time": page["end_time"], "rows": page["rows"],
                });
                print(&report, &selection.columns(), format)?;
            }
            Command::Export { selection, limit, format } => {
                let report = selection.all_pages(&client, limit.unwrap_or(usize::MAX)).await?;
                print(&report, &selection.columns(), format)?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Selection {
    fn request(&self, page_size: u32) -> Request {
        let mut request = Request::get(USAGE)
            .query("group_by", self.group_by.join(","))
            .query("page_size", page_size.to_string());
        let since = self.since.map(|since| Clock::system().now().minus(since));
        for (name, time) in [("start_time", since.or(self.start)), ("end_time", self.end)] {
            if let Some(time) = time {
                request = request.query(name, time.to_rfc3339());
            }
        }
        match self.filter() {
            Some(filter) => request.query("filter", filter),
            None => request,
        }
    }

    fn filter(&self) -> Option<String> {
        let fields = [
            ("actor_id", &self.actor),
            ("key_id", &self.key),
            ("route", &self.route),
            ("outcome", &self.outcome),
        ];
        let quoted = |text: &String| text.replace('\\', r"\\").replace('"', "\\\"");
        let parts = fields.iter().filter_map(|(name, value)| {
            value.as_ref().map(|value| format!("{name} = \"{}\"", quoted(value)))
        });
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| parts.join(" AND "))
    }

    /// Returns the rows of all pages, at most `limit`.
    async fn all_pages(&self, client: &Client, limit: usize) -> Result<Value, Failure> {
        // The same start for every page, as their tokens are bound to it.
        let start = self.since.map(|since| Clock::system().now().minus(since)).or(self.start);
        let pinned = Self { since: None, start, ..self.clone() };
        let (mut rows, mut token, mut times) = (vec![], String::new(), None);
        loop {
            let mut request = pinned.request(MAX_PAGE);
            if !token.is_empty() {
                request = request.query("page_token", token.clone());
            }
            let mut page = client.send(request).await?.value;
            if let Some(Value::Array(more)) = page.get_mut("rows").map(Value::take) {
                rows.extend(more);
            }
            let next = next_page(&page, &token)?;
            let (start, end) = times.get_or_insert((page["start_time"].clone(), page["end_time"].clone()));
            match next {
                Some(next) if rows.len() < limit => token = next,
                _ => {
                    rows.truncate(limit);
                    return Ok(json!({ "start_time": start, "end_time": end, "rows": rows }));
                }
            }
        }
    }

    /// Returns the columns of the groups.
    fn columns(&self) -> Vec<Column> {
        let has = |name: &str| self.group_by.iter().any(|group| group == name);
        let has_time = has("day") || has("hour");
        let mut columns = vec![];
        for (is_shown, heading, field) in [
            (has_time, if has("day") { "DAY" } else { "HOUR" }, "start_time"),
            (has("actor"), "ACTOR", "actor_id"),
            (has("key"), "KEY ID", "key_id"),
            (has("route"), "ROUTE", "route"),
            (has("outcome"), "OUTCOME", "outcome"),
            (true, "COUNT", "count"),
            (has("key") && !has_time, "FIRST USED", "first_used_time"),
            (has("key") && !has_time, "LAST USED", "last_used_time"),
            (has("key") && !has_time, "LAST ADDRESS", "last_used_address"),
        ] {
            if is_shown {
                columns.push(Column { heading, field });
            }
        }
        columns
    }
}
