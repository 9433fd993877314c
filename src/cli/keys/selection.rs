//! Options that select keys of a list, and order them.

use std::time::Duration;

use clap::Args;

use crate::cli::client::Request;
use crate::cli::input::parse_status;
use crate::clock::{Clock, Timestamp};
use crate::duration;

/// Orders of the API.
const ORDERS: [&str; 6] = [
    "create_time",
    "create_time desc",
    "expire_time",
    "expire_time desc",
    "last_used_time",
    "last_used_time desc",
];

/// Options that select keys.
#[derive(Args, Default)]
pub(super) struct Selection {
    /// Only keys of this actor
    #[arg(long, value_name = "ID", conflicts_with = "filter")]
    actor: Option<String>,
    /// Only keys that are active, revoked or expired
    #[arg(long, value_parser = parse_status, conflicts_with = "filter")]
    status: Option<&'static str>,
    /// Only keys that need this HMAC secret: current, retired, unknown, or an id of `talos status`
    #[arg(long, value_name = "WHICH|ID", conflicts_with = "filter")]
    secret: Option<String>,
    /// Only keys with this prefix
    #[arg(long, conflicts_with = "filter")]
    prefix: Option<String>,
    /// Only keys whose name begins with this
    #[arg(long, value_name = "BEGINNING", conflicts_with = "filter")]
    name: Option<String>,
    /// Only keys with exactly this scope (wildcards aren't expanded); may be repeated
    #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "filter")]
    scopes: Vec<String>,
    /// Only keys whose metadata has this value, such as team=blue; may be repeated
    #[arg(long, value_name = "PATH=VALUE", value_parser = path_and_value, conflicts_with = "filter")]
    metadata: Vec<(String, String)>,
    /// Only keys made since: a time, a date, or a duration ago, such as 7d
    #[arg(long, value_name = "TIME", value_parser = past, conflicts_with = "filter")]
    created_after: Option<Timestamp>,
    /// Only keys made before
    #[arg(long, value_name = "TIME", value_parser = past, conflicts_with = "filter")]
    created_before: Option<Timestamp>,
    /// Only keys that end after: a time, a date, or a duration from now; keys without an end, too
    #[arg(long, value_name = "TIME", value_parser = future, conflicts_with = "filter")]
    expires_after: Option<Timestamp>,
    /// Only keys that end before
    #[arg(long, value_name = "TIME", value_parser = future, conflicts_with = "filter")]
    expires_before: Option<Timestamp>,
    /// Only keys used since: a time, a date, or a duration ago
    #[arg(long, value_name = "TIME", value_parser = past, conflicts_with = "filter")]
    used_after: Option<Timestamp>,
    /// Only keys used before, and not since; keys without a use, too
    #[arg(long, value_name = "TIME", value_parser = past, conflicts_with = "filter")]
    used_before: Option<Timestamp>,
    /// Only keys that were neither made nor used for this time, such as 90d
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with_all = ["filter", "used_before", "created_before"])]
    unused: Option<Duration>,
    /// Only keys that match a filter, such as 'actor_id = "a" AND status = KEY_STATUS_ACTIVE'
    #[arg(long, value_name = "AIP-160")]
    filter: Option<String>,
    /// Only keys whose name, actor, id or a value of whose metadata begins with this
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
}

/// Order of a list.
#[derive(Args, Default)]
pub(super) struct Sorting {
    /// Order: create_time, expire_time or last_used_time, with ' desc' for the latest first
    #[arg(long, value_name = "FIELD [desc]", value_parser = ORDERS, hide_possible_values = true)]
    pub order_by: Option<String>,
}

/// Returns the time of an argument: a time, a date, or a duration that `shift` applies to now.
fn time(text: &str, shift: fn(Timestamp, Duration) -> Timestamp) -> Result<Timestamp, &'static str> {
    let date = || (text.len() == 10).then(|| Timestamp::from_rfc3339(&format!("{text}T00:00:00Z"))).flatten();
    let shifted = || duration::parse(text).ok().map(|by| shift(Clock::system().now(), by));
    let time = Timestamp::from_rfc3339(text).or_else(date).or_else(shifted);
    time.ok_or("must be a time (2026-12-07T08:00:00Z), a date (2026-12-07) or a duration (72h)")
}

fn past(text: &str) -> Result<Timestamp, &'static str> {
    time(text, Timestamp::minus)
}

fn future(text: &str) -> Result<Timestamp, &'static str> {
    time(text, Timestamp::plus)
}

fn path_and_value(text: &str) -> Result<(String, String), &'static str> {
    let pair = text.split_once('=').filter(|(path, _)| !path.is_empty());
    let (path, value) = pair.ok_or("must be a path and a value, such as team=blue")?;
    Ok((path.to_owned(), value.to_owned()))
}

/// Returns a text in quotes, as filters take it.
pub(in crate::cli) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"").replace('*', r"\*")
}

impl Selection {
    /// Returns the filter of the API; `None` if all keys are selected.
    pub(super) fn filter(&self) -> Option<String> {
        let unused = self.unused.map(|time| Clock::system().now().minus(time));
        let mut parts: Vec<String> = self.filter.clone().into_iter().collect();
        parts.extend(self.actor.as_ref().map(|actor| format!("actor_id = {}", quoted(actor))));
        parts.extend(self.status.map(|status| format!("status = {status}")));
        parts.extend(self.secret.as_ref().map(|secret| format!("secret_id = {}", quoted(secret))));
        parts.extend(self.prefix.as_ref().map(|prefix| format!("key_prefix = {}", quoted(prefix))));
        parts.extend(self.name.as_ref().map(|name| format!("name = \"{}*\"", escaped(name))));
        parts.extend(self.scopes.iter().map(|scope| format!("scopes:{}", quoted(scope))));
        let metadata = self.metadata.iter();
        parts.extend(metadata.map(|(path, value)| format!("metadata.{} = {}", quoted(path), quoted(value))));
        for (field, operator, time) in [
            ("create_time", ">=", self.created_after),
            ("create_time", "<", self.created_before.or(unused)),
            ("expire_time", ">=", self.expires_after),
            ("expire_time", "<", self.expires_before),
            ("last_used_time", ">=", self.used_after),
            ("last_used_time", "<", self.used_before.or(unused)),
        ] {
            parts.extend(time.map(|time| format!("{field} {operator} \"{}\"", time.to_rfc3339())));
        }
        (!parts.is_empty()).then(|| parts.join(" AND "))
    }

    /// Adds the selection to the request for a page.
    pub(super) fn apply(&self, request: Request) -> Request {
        let request = match self.filter() {
            Some(filter) => request.query("filter", filter),
            None => request,
        };
        match &self.query {
            Some(query) => request.query("query", query.clone()),
            None => request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_filter() {
        let time = past("2026-12-07").unwrap();
        let selection = Selection {
            name: Some("b\"*".to_owned()),
            scopes: vec!["a".to_owned(), "b".to_owned()],
            metadata: vec![path_and_value("a.b=c=d").unwrap()],
            expires_after: Some(time),
            ..Selection::default()
        };
        let expected = r#"name = "b\"\**" AND scopes:"a" AND scopes:"b" AND metadata."a.b" = "c=d" AND expire_time >= "2026-12-07T00:00:00Z""#;
        assert_eq!(selection.filter().as_deref(), Some(expected));
        let unused = Selection { unused: Some(Duration::from_secs(60)), ..Selection::default() };
        let filter = unused.filter().unwrap();
        assert!(filter.contains("create_time <") && filter.contains("last_used_time <"), "{filter}");
        assert_eq!(Selection::default().filter(), None);
        assert!(past("yesterday").is_err() && path_and_value("a").is_err());
        assert!(past("1h").unwrap() < future("1h").unwrap());
    }
}
