//! `migrate from`: imports the keys of another product from its export.

mod document;
mod entry;
mod kong;
mod kubernetes;
mod table;
mod unkey;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::client::{Client, JsonBody, Request};
use crate::cli::connection::Connection;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::input;
use crate::cli::output::{Output, Table, View};
use crate::clock::Clock;
use entry::{Entry, Export};

/// Largest file in bytes: about a hundred thousand keys.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Keys per request.
const MAX_BATCH: usize = 500;
/// Bytes per request, below the server's limit.
const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;
const BATCH_CREATE: &str = "/v2alpha1/admin/importedApiKeys:batchCreate";

/// Import the keys of another product from its export
///
/// FILE is decK's YAML (kong: `deck gateway dump`), JSON of Unkey's API (unkey: answers of
/// apis.listKeys, with plaintext or hash), Secrets of Kubernetes (authorino, envoy-gateway:
/// `kubectl get secrets -o yaml`), or a CSV whose first line names the columns (csv: key or hash,
/// name, actor_id, scopes, expires, ttl, allowed_cidrs, metadata, metadata.*).
///
/// For each key, it says what doesn't carry over. Nothing is overwritten: a key that is known
/// already stays as it is, so the command can be repeated. Secrets are never printed. The exit code
/// is 1 if a key was refused.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  printf 'key,name,actor_id,scopes\\n%s,legacy,user:42,orders:read\\n' \"$LEGACY_KEY\" > keys.csv
  talos migrate from csv keys.csv --dry-run
  talos migrate from csv keys.csv
  talos migrate from csv keys.csv --format json")]
pub(super) struct MoveFrom {
    /// The product, or csv
    #[arg(value_enum, value_name = "SOURCE")]
    source: Source,
    /// The file to read, or `-` for stdin
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Only say what would be imported; nothing is sent
    #[arg(long)]
    dry_run: bool,
    /// Actor of keys for which the file names nobody
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Box<Connection>,
}

/// Product that an export is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// Kong, by decK's YAML
    Kong,
    /// Unkey, by JSON of its API
    Unkey,
    /// Authorino, by its Secrets
    Authorino,
    /// Envoy Gateway, by the Secrets of its APIKeyAuth
    EnvoyGateway,
    /// Any, by a table
    Csv,
}

/// Result of the import of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Imported,
    WouldImport,
    Known,
    LeftOut,
    Refused,
}

impl Fate {
    const ALL: [Self; 5] = [Self::Imported, Self::WouldImport, Self::Known, Self::LeftOut, Self::Refused];

    const fn name(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::WouldImport => "would import",
            Self::Known => "known",
            Self::LeftOut => "left out",
            Self::Refused => "refused",
        }
    }

    const fn member(self) -> &'static str {
        match self {
            Self::WouldImport => "would_import",
            Self::LeftOut => "left_out",
            other => other.name(),
        }
    }
}

/// Result of one key.
struct Line {
    entry: Entry,
    outcome: Fate,
    /// Id of the key, or why it isn't imported.
    detail: String,
}

impl MoveFrom {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the file can't be read or isn't such an export, or the server can't be reached.
    pub(super) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let text = input::read_file(&self.file, MAX_FILE_BYTES)?;
        let Export { entries, notes } = self
            .source
            .read(&text)
            .map_err(|problem| Failure::usage(format!("{}: {problem}", self.file.display())))?;
        if entries.is_empty() {
            let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
            return Err(Failure::usage(format!("{}: has no keys{notes}", self.file.display())));
        }
        let (mut lines, bodies) = self.prepare(entries);
        if !self.dry_run && !bodies.is_empty() {
            let client = Client::new(&self.connection.server(endpoint)?)?;
            for batch in batches(bodies) {
                if let Err(failure) = send(&client, batch, &mut lines).await {
                    let done = count(&lines, Fate::Imported);
                    self.output
                        .note(&format!("{done} keys were imported before that; run the command again"));
                    return Err(failure);
                }
            }
        }
        self.output.print(&self.view(&lines, &notes))?;
        for note in &notes {
            self.output.note(note);
        }
        self.output.note(&summary(&lines));
        let is_refused = lines.iter().any(|line| line.outcome == Fate::Refused);
        Ok(if is_refused { Outcome::PartialFailure } else { Outcome::Done })
    }

    /// Checks all keys, and returns the bodies of those that are to be sent.
    fn prepare(&self, entries: Vec<Entry>) -> (Vec<Line>, Vec<(usize, Value)>) {
        let now = Clock::system().now();
        let (mut lines, mut bodies) = (Vec::with_capacity(entries.len()), vec![]);
        let mut seen: HashMap<[u8; 32], String> = HashMap::new();
        for entry in entries {
            let fingerprint = entry.fingerprint();
            let earlier = fingerprint.and_then(|of| seen.get(&of).cloned());
            let (outcome, detail) = match (entry.left_out(now), earlier) {
                (Some(why), _) => (Fate::LeftOut, why),
                (None, Some(place)) => (Fate::LeftOut, format!("is the same key as {place}")),
                (None, None) => match entry.body(self.actor.as_deref(), now) {
                    Ok(body) => {
                        bodies.push((lines.len(), body));
                        (Fate::WouldImport, String::new())
                    }
                    Err(problem) => (Fate::Refused, problem),
                },
            };
            if outcome == Fate::WouldImport {
                seen.extend(fingerprint.map(|of| (of, entry.place.clone())));
            }
            lines.push(Line { entry, outcome, detail });
        }
        (lines, bodies)
    }

    fn view(&self, lines: &[Line], notes: &[String]) -> View {
        let mut body = json!({
            "dry_run": self.dry_run,
            "keys": lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "notes": notes,
        });
        for outcome in Fate::ALL {
            body[outcome.member()] = count(lines, outcome).into();
        }
        let columns = vec!["PLACE", "NAME", "ACTOR", "RESULT", "KEY ID OR REASON", "NOT CARRIED OVER"];
        let row = |line: &Line| {
            let Line { entry, outcome, detail } = line;
            let actor = entry.actor.clone().or_else(|| self.actor.clone()).unwrap_or_default();
            let (place, name) = (entry.place.clone(), entry.name.clone());
            vec![place, name, actor, outcome.name().to_owned(), detail.clone(), entry.lost.join("; ")]
        };
        let ids = lines.iter().filter(|line| line.outcome == Fate::Imported);
        let quiet = ids.map(|line| line.detail.clone()).collect();
        View {
            body: JsonBody::from(body),
            table: Table::Rows(columns, lines.iter().map(row).collect()),
            quiet,
        }
    }
}

impl Source {
    fn read(self, text: &str) -> Result<Export, String> {
        match self {
            Self::Kong => kong::read(text),
            Self::Unkey => unkey::read(text),
            Self::Authorino => kubernetes::read_authorino(text),
            Self::EnvoyGateway => kubernetes::read_envoy_gateway(text),
            Self::Csv => table::read(text),
        }
    }
}

impl Line {
    fn to_json(&self) -> Value {
        let Self { entry, outcome, detail } = self;
        let mut json = json!({ "place": entry.place, "name": entry.name, "result": outcome.member() });
        if let Some(actor) = &entry.actor {
            json["actor_id"] = actor.as_str().into();
        }
        match outcome {
            Fate::Imported => json["key_id"] = detail.as_str().into(),
            Fate::WouldImport => {}
            Fate::Known | Fate::LeftOut | Fate::Refused => json["reason"] = detail.as_str().into(),
        }
        if !entry.lost.is_empty() {
            json["not_carried_over"] = json!(entry.lost);
        }
        json
    }
}

fn count(lines: &[Line], outcome: Fate) -> usize {
    lines.iter().filter(|line| line.outcome == outcome).count()
}

fn summary(lines: &[Line]) -> String {
    let known = count(lines, Fate::Known);
    if known > 0 && known + count(lines, Fate::LeftOut) == lines.len() {
        return format!("nothing to do: {known} of {} keys are known already", lines.len());
    }
    let counts = Fate::ALL.map(|outcome| (outcome, count(lines, outcome)));
    let shown = counts.iter().filter(|(_, count)| *count > 0);
    let shown: Vec<String> = shown.map(|(outcome, count)| format!("{count} {}", outcome.name())).collect();
    let partly = lines.iter().filter(|line| !line.entry.lost.is_empty()).count();
    let partly = match partly {
        0 => String::new(),
        partly => format!("; of {partly}, something doesn't carry over"),
    };
    format!("{} keys: {}{partly}", lines.len(), shown.join(", "))
}

/// Splits bodies into requests that the server takes.
fn batches(bodies: Vec<(usize, Value)>) -> Vec<Vec<(usize, Value)>> {
    let mut batches: Vec<Vec<(usize, Value)>> = vec![];
    let mut bytes = 0;
    for (at, body) in bodies {
        let len = body.to_string().len();
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_BATCH && bytes + len <= MAX_BATCH_BYTES => {
                bytes += len;
                batch.push((at, body));
            }
            _ => {
                bytes = len;
                batches.push(vec![(at, body)]);
            }
        }
    }
    batches
}

/// Imports one batch and records what became of each key.
async fn send(client: &Client, batch: Vec<(usize, Value)>, lines: &mut [Line]) -> Result<(), Failure> {
    let (at, requests): (Vec<usize>, Vec<Value>) = batch.into_iter().unzip();
    let request = json!({ "requests": requests, "report_all": true });
    let response = client.send(Request::post(BATCH_CREATE, request)).await?;
    let results = response.value["results"].as_array().cloned().unwrap_or_default();
    for (index, at) in at.into_iter().enumerate() {
        let result = results.get(index).unwrap_or(&Value::Null);
        let text = |pointer: &str| result.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (outcome, detail) = match (text("/error_code"), text("/imported_api_key/key_id")) {
            ("", "") => (Fate::Refused, "the server said nothing of it".to_owned()),
            ("", id) => (Fate::Imported, id.to_owned()),
            (code, _) if code.ends_with("ALREADY_EXISTS") => (Fate::Known, text("/error_message").to_owned()),
            _ => (Fate::Refused, text("/error_message").to_owned()),
        };
        if let Some(line) = lines.get_mut(at) {
            (line.outcome, line.detail) = (outcome, detail);
        }
    }
    Ok(())
}
