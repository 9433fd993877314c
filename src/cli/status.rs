//! `talos status`: how a process is doing, for somebody who was woken up to ask.

use clap::Args;
use serde_json::Value;

use super::client::{Client, Request};
use super::exit::{Failure, Outcome};
use super::output::{Output, Shown, Table, cell};

/// Where the metrics plane is when nobody says anything else. $TALOS_ENDPOINT is the admin plane.
const DEFAULT_ENDPOINT: &str = "http://localhost:4422";

/// Ask a server how it is doing: problems first, then how long a revoked key may still be of use
///
/// It is the metrics listener that is asked: -e is its base URL, http://localhost:4422 by default, and $TALOS_ENDPOINT
/// is not looked at. The exit code is 0 while the server's knowledge of revocations is fresh, 1 when it isn't, and 69
/// when nobody answers.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos status -e http://localhost:4422
  talos status -e http://localhost:4422 --format jsonpath=log.lag")]
pub struct Status {
    #[command(flatten)]
    output: Output,
}

impl Status {
    /// Runs it.
    ///
    /// # Errors
    /// When nobody answers, or what answers isn't the metrics listener of a Talos server.
    pub async fn run(&self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let client = Client::new(Some(endpoint.unwrap_or(DEFAULT_ENDPOINT)))?;
        let answer = client.send(Request::get("/status")).await?;
        let Some(mode) = answer.value["mode"].as_str().map(str::to_owned) else {
            return Err(Failure::failed("the answer is no status: is this the metrics listener?"));
        };
        let table = Table::Fields(fields(&answer.value));
        self.output.print(&Shown { answer, table, quiet: vec![mode.clone()] })?;
        Ok(if mode == "fresh" { Outcome::Done } else { Outcome::NotFresh })
    }
}

/// The status in words, the worst first. What an older or newer server doesn't say is a dash.
fn fields(status: &Value) -> Vec<(&'static str, String)> {
    let text = |pointer: &str| {
        let value = status.pointer(pointer).map(cell).unwrap_or_default();
        if value.is_empty() { "-".to_owned() } else { value }
    };
    let time = |pointer: &str| status.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), span);
    let millis = |pointer: &str| {
        let seconds = status.pointer(pointer).and_then(Value::as_f64);
        seconds.map_or("-".to_owned(), |seconds| format!("{:.0} ms", seconds * 1e3))
    };
    let is_true = |pointer: &str| status.pointer(pointer) == Some(&Value::Bool(true));
    let mode = match text("/mode") {
        mode if mode == "fresh" => mode,
        mode => mode.to_uppercase(),
    };
    let mut fields = vec![("MODE", mode)];
    for problem in status["problems"].as_array().into_iter().flatten() {
        fields.push(("PROBLEM", cell(problem)));
    }
    let lag = match status.pointer("/log/lag") {
        Some(lag) => format!("{} behind the log", cell(lag)),
        None => "how far behind the log is not known".to_owned(),
    };
    let hits = match status.pointer("/cache/hit_ratio").and_then(Value::as_f64) {
        Some(ratio) => format!("answered {:.1} % of Checks", ratio * 100.0),
        None => "not asked yet".to_owned(),
    };
    fields.extend([
        ("REVOKED KEY", format!("allowed here for {} at most", time("/exposure/key_seconds"))),
        ("  UPSTREAM TOKEN", format!("counts for {} at most", time("/exposure/upstream_token_seconds"))),
        ("  DERIVED TOKEN", format!("counts for {} at most", time("/exposure/derived_token_seconds"))),
        (
            "LEASE",
            format!(
                "knowledge is {} old, good for {}, then {} of grace",
                time("/lease/age_seconds"),
                time("/lease/seconds"),
                time("/lease/grace_seconds")
            ),
        ),
        (
            "RELAY",
            match status.pointer("/relay/seconds").and_then(Value::as_f64) {
                Some(seconds) if seconds > 0.0 => match status.pointer("/relay/age_seconds") {
                    Some(_) => format!(
                        "{} old, good for {} more than the lease",
                        time("/relay/age_seconds"),
                        span(seconds)
                    ),
                    None => "not needed yet".to_owned(),
                },
                _ => "off".to_owned(),
            },
        ),
        ("EPOCH", format!("{}, {lag}", text("/epoch"))),
        (
            "POLLED SERVER",
            format!(
                "{} ({}), since {}; the last poll took {}",
                text("/poll/server"),
                text("/poll/role"),
                time("/poll/server_age_seconds"),
                millis("/poll/seconds")
            ),
        ),
        (
            "FAILED POLLS",
            match status.pointer("/poll/last_failure") {
                Some(_) => format!(
                    "{}, the last {} ago: {}",
                    text("/poll/failures"),
                    time("/poll/last_failure_age_seconds"),
                    text("/poll/last_failure")
                ),
                None => text("/poll/failures"),
            },
        ),
        (
            "DATABASE",
            format!(
                "{}; {} connections, {} idle, {} at most",
                if is_true("/database/answers") { "answers" } else { "GIVES NO ANSWER" },
                text("/database/connections"),
                text("/database/idle_connections"),
                text("/database/max_connections")
            ),
        ),
        (
            "CACHE",
            format!(
                "{}; {} keys, {} unknown ids; {hits}",
                if is_true("/cache/enabled") { "on" } else { "off" },
                text("/cache/keys"),
                text("/cache/unknown_keys")
            ),
        ),
        (
            "REDIS",
            match status.pointer("/cache/redis_hit_ratio").and_then(Value::as_f64) {
                Some(ratio) => {
                    format!("breaker {}; answered {:.1} % of lookups", text("/breaker"), ratio * 100.0)
                }
                None => format!("breaker {}", text("/breaker")),
            },
        ),
        (
            "DENY LIST",
            format!(
                "{} keys{}",
                text("/deny_list/keys"),
                match status.pointer("/deny_list/held") {
                    Some(held) => format!(", {} OF WHICH THE FILE NO LONGER NAMES", cell(held)),
                    None if is_true("/deny_list/current") => String::new(),
                    None => ", NOT WHAT THE FILE SAYS".to_owned(),
                }
            ),
        ),
        (
            "SETTINGS",
            format!(
                "generation {}{}",
                text("/settings/generation"),
                if is_true("/settings/current") { "" } else { ", NOT WHAT WAS READ LAST" }
            ),
        ),
        ("PLANES", text("/planes")),
        ("VERSION", format!("{}, up {}", text("/version"), time("/uptime_seconds"))),
    ]);
    fields
}

/// A time for people: `0.4s`, `5s`, `5m5s`, `24h0m`, `3d4h`.
fn span(seconds: f64) -> String {
    // Saturates; a status never holds a negative time.
    let whole = seconds.round() as u64;
    match whole {
        0..10 if seconds.fract() != 0.0 => format!("{seconds:.1}s"),
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m{}s", whole / 60, whole % 60),
        3_600..172_800 => format!("{}h{}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d{}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_short() {
        for (seconds, expected) in [
            (0.0, "0s"),
            (0.43, "0.4s"),
            (5.0, "5s"),
            (59.4, "59s"),
            (305.0, "5m5s"),
            (86_405.0, "24h0m"),
            (273_600.0, "3d4h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn problems_stand_at_the_top() {
        let status =
            json!({ "mode": "static", "problems": ["first", "second"], "lease": { "seconds": 5.0 } });
        let fields = fields(&status);
        let expected = [("MODE", "STATIC"), ("PROBLEM", "first"), ("PROBLEM", "second")];
        for (field, expected) in fields.iter().zip(expected) {
            assert_eq!((field.0, field.1.as_str()), expected);
        }
        let lease = fields.iter().find(|(name, _)| *name == "LEASE").unwrap();
        assert_eq!(lease.1, "knowledge is - old, good for 5s, then - of grace");
    }
}
