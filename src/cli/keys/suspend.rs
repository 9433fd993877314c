//! `suspend`, `resume` and `finish` of keys, and the options of every suspension.

use clap::Args;
use serde_json::{Map, Value, json};

use super::view;
use crate::cli::client::{Client, Request};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input::{check_key_id, time};
use crate::cli::output::Output;

/// Options of a suspension.
#[derive(Args)]
pub(super) struct Suspension {
    /// Reason, for people
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// End: a time (2026-12-07T08:00:00Z), a date (2026-12-07, midnight UTC) or a duration from now
    /// (72h) [default: until it is resumed]
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
}

impl Suspension {
    /// Returns the body of the request.
    pub(super) fn body(self) -> Value {
        let mut body = Map::new();
        for (name, value) in [("reason", self.reason), ("until", self.until)] {
            body.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        Value::Object(body)
    }
}

/// Refuse a key everywhere, until it is resumed or the suspension ends by itself
///
/// Suspending a suspended key replaces reason and end.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos keys issued suspend \"$KEY_ID\" --reason 'invoice 7 is open' --until 72h
  talos keys issued resume \"$KEY_ID\"")]
pub(super) struct Suspend {
    /// The key's id
    #[arg(value_name = "KEY_ID")]
    id: String,
    #[command(flatten)]
    suspension: Suspension,
}

impl Suspend {
    /// Suspends the key in `collection`, one of the paths of the API.
    ///
    /// # Errors
    /// Fails when the id is no key's or the request fails.
    pub(super) async fn run(
        self,
        client: &Client,
        output: &Output,
        collection: &str,
    ) -> Result<Outcome, Failure> {
        let Self { id, suspension } = self;
        post(client, output, (collection, &id, "suspend"), suspension.body()).await
    }
}

/// Resumes the key in `collection`.
///
/// # Errors
/// Fails when the id is no key's or the request fails.
pub(super) async fn resume(
    id: &str,
    client: &Client,
    output: &Output,
    collection: &str,
) -> Result<Outcome, Failure> {
    post(client, output, (collection, id, "resume"), json!({})).await
}

/// Ends the grace period of the key in `collection`.
///
/// # Errors
/// Fails when the id is no key's or the request fails.
pub(super) async fn finish(
    id: &str,
    client: &Client,
    output: &Output,
    collection: &str,
) -> Result<Outcome, Failure> {
    post(client, output, (collection, id, "finish"), json!({})).await
}

/// Sends a custom method of a key and prints the key.
async fn post(
    client: &Client,
    output: &Output,
    (collection, id, method): (&str, &str, &str),
    body: Value,
) -> Result<Outcome, Failure> {
    let path = format!("{collection}/{}:{method}", check_key_id(id)?);
    let response = client.send(Request::post(path, body)).await?;
    output.print(&view::key(response))?;
    Ok(Outcome::Done)
}
