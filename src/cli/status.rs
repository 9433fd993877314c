//! `talos status`: shows the state of a running server, for the operator on call.

use clap::Args;
use serde_json::Value;

use super::client::{Client, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::output::{Output, Table, View, cell};

/// URL of the metrics listener when `--endpoint` isn't given. $TALOS_ENDPOINT is the admin plane's.
const DEFAULT_ENDPOINT: &str = "http://localhost:4422";

/// Show a server's state: problems first, then how long revoked keys may still be accepted
///
/// Asks the metrics listener: -e is its base URL, http://localhost:4422 by default; $TALOS_ENDPOINT
/// is not used. The exit code is 0 while the server's view of revocations is fresh, 1 when it is
/// stale, and 69 when the server can't be reached.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos status -e http://localhost:4422
  talos status -e http://localhost:4422 --format jsonpath=log.lag")]
pub(super) struct Status {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Box<Connection>,
}

impl Status {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the endpoint can't be reached or isn't the metrics listener of a Talos server.
    pub(super) async fn run(&self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let client = Client::new(&self.connection.server_at(endpoint.unwrap_or(DEFAULT_ENDPOINT))?)?;
        let body = client.send(Request::get("/status")).await?;
        let Some(mode) = body.value["mode"].as_str().map(str::to_owned) else {
            return Err(Failure::failed(
                "the response is not a status: is the endpoint the metrics listener?",
            ));
        };
        let table = Table::Fields(fields(&body.value));
        self.output.print(&View { body, table, quiet: vec![mode.clone()] })?;
        Ok(if mode == "fresh" { Outcome::Done } else { Outcome::Stale })
    }
}

/// Formats the status for people, problems first. A field that the server doesn't send is a dash.
fn fields(status: &Value) -> Vec<(&'static str, String)> {
    let status = StatusDocument(status);
    let mode = match status.text("/mode") {
        mode if mode == "fresh" => mode,
        mode => mode.to_uppercase(),
    };
    let mut fields = vec![("MODE", mode)];
    for problem in status.0["problems"].as_array().into_iter().flatten() {
        fields.push(("PROBLEM", cell(problem)));
    }
    fields.extend(revocation_fields(&status));
    fields.extend(poll_fields(&status));
    fields.extend(storage_fields(&status));
    fields.extend(signing_fields(&status));
    fields.extend(process_fields(&status));
    fields
}

/// A `/status` document, with accessors that return a dash for missing fields.
struct StatusDocument<'a>(&'a Value);

impl StatusDocument<'_> {
    fn get(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    fn number(&self, pointer: &str) -> Option<f64> {
        self.get(pointer).and_then(Value::as_f64)
    }

    fn is_true(&self, pointer: &str) -> bool {
        self.get(pointer) == Some(&Value::Bool(true))
    }

    fn text(&self, pointer: &str) -> String {
        let text = self.get(pointer).map(cell).unwrap_or_default();
        if text.is_empty() { "-".to_owned() } else { text }
    }

    fn duration(&self, pointer: &str) -> String {
        self.number(pointer).map_or("-".to_owned(), format_seconds)
    }

    fn millis(&self, pointer: &str) -> String {
        self.number(pointer).map_or("-".to_owned(), |seconds| format!("{:.0} ms", seconds * 1e3))
    }
}

/// Bounds on accepting revoked credentials, and the lease and relay behind them.
fn revocation_fields(status: &StatusDocument<'_>) -> Vec<(&'static str, String)> {
    let lease = format!(
        "knowledge is {} old, valid for {}, then {} of grace",
        status.duration("/lease/age_seconds"),
        status.duration("/lease/seconds"),
        status.duration("/lease/grace_seconds")
    );
    let relay = match status.number("/relay/seconds") {
        Some(seconds) if seconds > 0.0 => match status.get("/relay/age_seconds") {
            Some(_) => format!(
                "{} old, valid for {} beyond the lease",
                status.duration("/relay/age_seconds"),
                format_seconds(seconds)
            ),
            None => "not needed yet".to_owned(),
        },
        _ => "off".to_owned(),
    };
    vec![
        ("REVOKED KEY", format!("accepted here for at most {}", status.duration("/exposure/key_seconds"))),
        (
            "  UPSTREAM TOKEN",
            format!("accepted for at most {}", status.duration("/exposure/upstream_token_seconds")),
        ),
        (
            "  DERIVED TOKEN",
            format!("accepted for at most {}", status.duration("/exposure/derived_token_seconds")),
        ),
        ("LEASE", lease),
        ("RELAY", relay),
    ]
}

/// The position in the mutation log, and the polls that read it.
fn poll_fields(status: &StatusDocument<'_>) -> Vec<(&'static str, String)> {
    let lag = match status.get("/log/lag") {
        Some(lag) => format!("{} behind the log", cell(lag)),
        None => "lag behind the log unknown".to_owned(),
    };
    let server = format!(
        "{} ({}), for {}; the last poll took {}",
        status.text("/poll/server"),
        status.text("/poll/role"),
        status.duration("/poll/server_age_seconds"),
        status.millis("/poll/seconds")
    );
    let failures = match status.get("/poll/last_failure") {
        Some(_) => format!(
            "{}, the last {} ago: {}",
            status.text("/poll/failures"),
            status.duration("/poll/last_failure_age_seconds"),
            status.text("/poll/last_failure")
        ),
        None => status.text("/poll/failures"),
    };
    vec![
        ("EPOCH", format!("{}, {lag}", status.text("/epoch"))),
        ("POLLED SERVER", server),
        ("FAILED POLLS", failures),
    ]
}

/// Database, cache, Redis and deny list.
fn storage_fields(status: &StatusDocument<'_>) -> Vec<(&'static str, String)> {
    let database = format!(
        "{}; {} connections, {} idle, at most {}",
        if status.is_true("/database/answers") { "answers" } else { "DOES NOT ANSWER" },
        status.text("/database/connections"),
        status.text("/database/idle_connections"),
        status.text("/database/max_connections")
    );
    let hits = match status.number("/cache/hit_ratio") {
        Some(ratio) => format!("answered {:.1} % of Checks", ratio * 100.0),
        None => "not used yet".to_owned(),
    };
    let cache = format!(
        "{}; {} keys, {} unknown ids; {hits}",
        if status.is_true("/cache/enabled") { "on" } else { "off" },
        status.text("/cache/keys"),
        status.text("/cache/unknown_keys")
    );
    let redis = match status.number("/cache/redis_hit_ratio") {
        Some(ratio) => {
            format!("breaker {}; answered {:.1} % of lookups", status.text("/breaker"), ratio * 100.0)
        }
        None => format!("breaker {}", status.text("/breaker")),
    };
    let newer = match status.get("/database/newer_schema") {
        Some(version) => format!("; schema {}, newer than this program", cell(version)),
        None => String::new(),
    };
    let unlisted = match status.get("/deny_list/held") {
        Some(held) => format!(", {} NO LONGER IN THE FILE BUT STILL DENIED", cell(held)),
        None if status.is_true("/deny_list/current") => String::new(),
        None => ", DIFFERS FROM THE FILE".to_owned(),
    };
    let clock = match status.number("/database/clock_skew_seconds") {
        Some(seconds) if seconds < 0.0 => format!("{} behind the database's", format_seconds(-seconds)),
        Some(seconds) => format!("{} ahead of the database's", format_seconds(seconds)),
        None => "-".to_owned(),
    };
    let audit = match status.get("/audit/lines") {
        Some(lines) => {
            let state = if status.is_true("/audit/writable") { "written" } else { "CAN'T BE WRITTEN" };
            let lacks = match status.get("/audit/database_lacks") {
                Some(_) => "; THE DATABASE IS BEHIND IT",
                None => "",
            };
            format!("{state}, {} lines by this process{lacks}", cell(lines))
        }
        None => "none".to_owned(),
    };
    vec![
        ("DATABASE", format!("{database}{newer}")),
        ("CLOCK", clock),
        ("AUDIT LOG", audit),
        ("CACHE", cache),
        ("REDIS", redis),
        ("DENY LIST", format!("{} keys{unlisted}", status.text("/deny_list/keys"))),
    ]
}

/// Active keys by the secret and prefix that they need.
fn signing_fields(status: &StatusDocument<'_>) -> Vec<(&'static str, String)> {
    let lists =
        [("HMAC SECRET", "/signing/secrets", "secret_id"), ("KEY PREFIX", "/signing/prefixes", "prefix")];
    let mut fields = vec![];
    for (name, pointer, signer) in lists {
        for count in status.get(pointer).and_then(Value::as_array).into_iter().flatten() {
            let at_least = if count["at_least"] == true { "at least " } else { "" };
            let keys = format!("{at_least}{} active keys", cell(&count["keys"]));
            let state = cell(&count["state"]);
            fields.push((
                name,
                match &count[signer] {
                    Value::String(signer) => format!("{signer} ({state}): {keys}"),
                    _ => format!("{state}: {keys}"),
                },
            ));
        }
    }
    fields
}

/// Settings in force, planes and version.
fn process_fields(status: &StatusDocument<'_>) -> Vec<(&'static str, String)> {
    let stale =
        if status.is_true("/settings/current") { "" } else { ", DIFFERS FROM THE CONFIGURATION LAST READ" };
    let mut fields = vec![
        ("SETTINGS", format!("generation {}{stale}", status.text("/settings/generation"))),
        ("PLANES", status.text("/planes")),
    ];
    for certificate in status.get("/certificates").and_then(Value::as_array).into_iter().flatten() {
        let state = if certificate["expired"] == true { "EXPIRED AT" } else { "valid until" };
        let end = format!("{} {state} {}", cell(&certificate["plane"]), cell(&certificate["expire_time"]));
        fields.push(("CERTIFICATE", end));
    }
    let version = format!("{}, up {}", status.text("/version"), status.duration("/uptime_seconds"));
    fields.push(("VERSION", version));
    fields
}

/// Formats a duration for people: `0.4s`, `5s`, `5m5s`, `24h0m`, `3d4h`.
fn format_seconds(seconds: f64) -> String {
    // The cast saturates; a status has no negative durations.
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
            assert_eq!(format_seconds(seconds), expected);
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
        let status = json!({ "certificates": [
            { "plane": "admin", "expire_time": "2100-01-01T00:00:00Z", "expired": false },
            { "plane": "authz", "expire_time": "2020-01-01T00:00:00Z", "expired": true },
        ] });
        let certificates: Vec<_> =
            self::fields(&status).into_iter().filter(|(name, _)| *name == "CERTIFICATE").collect();
        assert_eq!(certificates[0].1, "admin valid until 2100-01-01T00:00:00Z");
        assert_eq!(certificates[1].1, "authz EXPIRED AT 2020-01-01T00:00:00Z");
        let lease = fields.iter().find(|(name, _)| *name == "LEASE").unwrap();
        assert_eq!(lease.1, "knowledge is - old, valid for 5s, then - of grace");
    }
}
