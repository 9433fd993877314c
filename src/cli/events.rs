//! `talos events`: follows what changes.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Client, ClientError, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::output::cell;
use crate::cli::stderr;
use crate::clock::{Clock, Timestamp};
use crate::duration;
use crate::escape::visible;

const EXAMPLES: &str = "\
EXAMPLES:
  talos events tail --since 30m --no-follow
  talos events tail --after oldest --no-follow --format json
  talos events tail --type talos.key.revoked,talos.actor.suspended --after oldest --no-follow";

/// Path of the events.
const EVENTS: &str = "/v2alpha1/admin/events";
/// Wait of one request: shorter than the time that a request may take.
const WAIT: &str = "20s";
/// Largest page of the API.
const PAGE_SIZE: &str = "1000";
/// First pause before a failed request is repeated; each further one is twice as long.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Longest of those pauses.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Follow what changes: who changed which key or actor, and how
#[derive(Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", super::exit::HELP))]
pub(super) struct Events {
    #[command(flatten)]
    connection: Box<Connection>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print each change as it is made, until Ctrl-C
    ///
    /// If the server can't be reached, it is asked again until it answers; no change is missed. The
    /// log is kept for an hour at least. When it doesn't reach back to where this left off, or was
    /// rewritten by a restore, the command ends and says so.
    #[command(after_help = EXAMPLES)]
    Tail(Tail),
}

/// Options of `tail`.
#[derive(Args)]
struct Tail {
    /// Begin after this place: the id of an event, the number of an epoch, or oldest [default: now]
    #[arg(long, value_name = "PLACE", conflicts_with = "since")]
    after: Option<String>,
    /// Begin with this time: a duration back from now (30m), a time (2026-12-07T08:00:00Z) or a
    /// date
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Only events of these types, such as talos.key.revoked, separated by commas
    #[arg(long = "type", value_name = "TYPES")]
    types: Option<String>,
    /// Only events of this key
    #[arg(long, value_name = "KEY_ID")]
    key: Option<String>,
    /// Only events of this actor and its keys
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// End once everything that has changed so far is printed
    #[arg(long)]
    no_follow: bool,
    /// Form of the output: columns, or one CloudEvent per line
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "table")]
    format: Form,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Columns for people
    Table,
    /// JSON, one event per line
    Json,
}

fn since(text: &str) -> Result<Timestamp, &'static str> {
    let ago = duration::parse(text).ok().map(|ago| Clock::system().now().minus(ago));
    let date = || (text.len() == 10).then(|| Timestamp::from_rfc3339(&format!("{text}T00:00:00Z"))).flatten();
    ago.or_else(|| Timestamp::from_rfc3339(text))
        .or_else(date)
        .ok_or("must be a duration (30m), a time (2026-12-07T08:00:00Z) or a date (2026-12-07)")
}

impl Events {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the server can't be reached at first, answers with an error, or its log doesn't
    /// go on from where the command left off.
    pub(super) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let Self { connection, command: Command::Tail(tail) } = self;
        let client = Client::new(&connection.server(endpoint)?)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(Failure::failed)?;
        tokio::select! {
            ended = tail.follow(&client) => ended,
            _ = tokio::signal::ctrl_c() => Ok(Outcome::Done),
            _ = terminated.recv() => Ok(Outcome::Done),
        }
    }
}

impl Tail {
    async fn follow(&self, client: &Client) -> Result<Outcome, Failure> {
        let (mut place, mut pause, mut is_connected) = (None::<String>, MIN_PAUSE, false);
        loop {
            let page = match client.send(self.request(place.as_deref())).await {
                Ok(page) => page.value,
                Err(error) if is_connected && !self.no_follow && is_passing(&error) => {
                    stderr::line(format_args!("talos: {error}; trying again"));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                    continue;
                }
                Err(error) => return Err(self.explained(error, client).await),
            };
            if !is_connected && self.format == Form::Table && !print(&heading())? {
                return Ok(Outcome::Done);
            }
            (is_connected, pause) = (true, MIN_PAUSE);
            let events = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            let text: String = events.iter().map(|event| self.line(event)).collect();
            if !text.is_empty() && !print(&text)? {
                return Ok(Outcome::Done);
            }
            let Some(next) = page["next"].as_str() else {
                return Err(Failure::failed("the server's answer has no place to go on from"));
            };
            place = Some(next.to_owned());
            if self.no_follow && page["has_more"] != true {
                return Ok(Outcome::Done);
            }
        }
    }

    /// Returns the request for what comes after a place, or for the first page.
    fn request(&self, place: Option<&str>) -> Request {
        let request = Request::get(EVENTS).query("page_size", PAGE_SIZE);
        let mut request = if self.no_follow { request } else { request.query("wait", WAIT) };
        for (name, value) in [("type", &self.types), ("key_id", &self.key), ("actor_id", &self.actor)] {
            if let Some(value) = value {
                request = request.query(name, value.clone());
            }
        }
        match (place, self.after.as_deref(), self.since) {
            (Some(place), ..) | (None, Some(place), _) => request.query("after", place.to_owned()),
            (None, None, Some(since)) => request.query("since", since.to_rfc3339()),
            (None, None, None) => request.query("after", "now"),
        }
    }

    /// Adds what to do to the error of a log that doesn't go on.
    async fn explained(&self, error: ClientError, client: &Client) -> Failure {
        if !matches!(error, ClientError::Api { status: 410, .. }) {
            return error.into();
        }
        let oldest = match self.since {
            Some(_) => oldest(client).await,
            None => None,
        };
        let from = oldest.map(|time| format!(", from {time} on")).unwrap_or_default();
        Failure::failed(format!(
            "{error}\nRead the keys anew (talos keys issued list, talos keys imported list), and follow from now: \
             talos events tail\nOr see what is still kept{from}: talos events tail --after oldest"
        ))
    }

    fn line(&self, event: &Value) -> String {
        match self.format {
            Form::Json => format!("{event}\n"),
            Form::Table => row([
                &text(&event["time"]),
                &text(&event["data"]["epoch"]),
                &text(&event["type"]),
                &text(&event["subject"]),
                &text(&event["data"]["actor_id"]),
                &text(&event["data"]["caller"]),
                &changes(&event["data"]),
            ]),
        }
    }
}

/// Returns true if a later request may succeed.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Api { status, .. } | ClientError::NotTalos { status, .. } => {
            *status == 429 || *status >= 500
        }
        _ => false,
    }
}

/// Returns the time of the oldest event that is kept, if there is one.
async fn oldest(client: &Client) -> Option<String> {
    let request = Request::get(EVENTS).query("after", "oldest").query("page_size", "1");
    let page = client.send(request).await.ok()?.value;
    Some(visible(page["events"][0]["time"].as_str()?).into_owned())
}

fn heading() -> String {
    row(["TIME", "EPOCH", "EVENT", "SUBJECT", "ACTOR", "CALLER", "CHANGES"])
}

/// Formats a row. Widths are those of usual values, as later rows aren't known yet.
fn row([time, epoch, event, subject, actor, caller, changes]: [&str; 7]) -> String {
    let row =
        format!("{time:<27}  {epoch:<7}  {event:<21}  {subject:<36}  {actor:<16}  {caller:<16}  {changes}");
    format!("{}\n", row.trim_end())
}

/// Formats the fields that differ.
fn changes(data: &Value) -> String {
    if data["erased"] == true {
        return "(erased)".to_owned();
    }
    let one = |change: &Value| {
        let field = visible(change["field"].as_str().unwrap_or_default()).into_owned();
        match (change.get("before"), change.get("after")) {
            (None, None) => field,
            (None, Some(after)) => format!("{field}={}", cell(after)),
            (Some(before), after) => {
                format!("{field}={}->{}", cell(before), after.map(cell).unwrap_or_default())
            }
        }
    };
    let mut parts: Vec<String> = data["changes"].as_array().into_iter().flatten().map(one).collect();
    if let Some(successor) = data["replaced_by"].as_str() {
        parts.push(format!("replaced_by={}", visible(successor)));
    }
    parts.join(" ")
}

/// Formats a value; a dash if there is none, so that tools such as `awk` can count columns.
fn text(value: &Value) -> String {
    match cell(value) {
        text if text.is_empty() => "-".to_owned(),
        text => text,
    }
}

/// Prints to stdout. Returns false once nobody reads it.
fn print(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("stdout: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_stand_in_one_cell() {
        let data = json!({ "replaced_by": "k2", "changes": [
            { "field": "scopes", "before": ["a"], "after": ["a", "b"] },
            { "field": "name", "after": "x\u{1b}[2J" },
            { "field": "expire_time", "before": "2026-01-01T00:00:00Z" },
            { "field": "metadata" },
        ]});
        let shown =
            r"scopes=a->a,b name=x\u{1b}[2J expire_time=2026-01-01T00:00:00Z-> metadata replaced_by=k2";
        assert_eq!(changes(&data), shown);
        assert_eq!(changes(&json!({ "erased": true, "changes": [] })), "(erased)");
    }

    #[test]
    fn a_time_is_a_duration_back_a_time_or_a_date() {
        assert!(since("1h").unwrap() < Clock::system().now());
        assert_eq!(since("2026-12-07"), since("2026-12-07T00:00:00Z"));
        assert!(since("yesterday").is_err());
    }
}
