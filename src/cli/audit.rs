//! `talos audit`: verifies the hash chain of an audit log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::JsonBody;
use super::exit::{Failure, Outcome};
use super::output::{Output, Table, View};
use super::source::source;
use crate::audit::verify::{Findings, UnresolvedCall, Verifier, position};
use crate::audit::{ChainKey, ChainKeys, instance};
use crate::clock::Clock;
use crate::secret::SecretString;
use crate::store::{AuditHead, Store};

/// Examples in the help of `talos audit`.
pub const EXAMPLES: &str = "\
EXAMPLES:
  talos audit verify audit.jsonl
  talos audit verify audit.jsonl* --format json";

/// Error of verifying a keyed log without the key.
const NO_KEY: &str = "audit.key: is unset, but this log was written under a key: set TALOS_AUDIT_KEY, or name the \
    configuration by --config";

#[derive(Subcommand)]
pub enum Command {
    Verify(Verify),
}

/// Verify that an audit log is complete: no line changed, removed, added or reordered
///
/// audit.key and audit.key_retired are read from the configuration or the environment; no HMAC
/// secret is needed. The database, which records where each log ends, is --database, else db.dsn of
/// the configuration. Without it, lines missing at the end can't be detected, and the result says
/// so. To check the whole log, also name its rotated files, in any order; files that end with .lock
/// are skipped.
///
/// The exit code is 0 when the log is complete, 1 when it isn't, and 64 when the key of a keyed log
/// is missing. Operations whose process ended before it wrote their outcome are listed as unknown.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos audit verify audit.jsonl
  talos audit verify audit.jsonl* --format json
  talos audit verify audit.jsonl --part")]
pub struct Verify {
    /// The audit log and its rotated files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The database that records where the log ends [default: the configuration's db.dsn]
    #[arg(long, value_name = "DSN")]
    database: Option<SecretString>,
    /// The files are only a part of the log: don't expect the lines that follow them
    #[arg(long)]
    part: bool,
    #[command(flatten)]
    output: Output,
}

/// One file of an audit log.
struct LogFile {
    name: String,
    text: Vec<u8>,
    first: u64,
}

impl Verify {
    /// Runs the command. `file` is the configuration that `--config` names.
    ///
    /// # Errors
    /// Fails when a file can't be read or the configuration is invalid.
    pub async fn run(self, file: Option<&Path>) -> Result<Outcome, Failure> {
        let loaded = source(file.map(Path::to_owned))?.without_admin().load();
        let config = loaded.map_err(Failure::usage)?.config;
        let keys = ChainKeys::from_config(&config.audit, Clock::system().now()).all();
        let dsn = self.database.as_ref().unwrap_or(&config.db.dsn);
        let heads = Heads::open(dsn.expose()).await;
        let is_keyless = config.audit.key.is_none() && config.audit.key_retired.is_empty();
        let mut findings = vec![];
        // The database is read before the files: lines written meanwhile are then extra, not
        // missing.
        let chains = chains(&self.files)?;
        let known = heads.of(&chains).await;
        for (chain, files) in read(&self.files)? {
            if is_keyless && files.iter().any(|file| names_key(&file.text)) {
                heads.close().await;
                return Err(Failure::usage(NO_KEY));
            }
            let head = known.get(&chain);
            let mut found = verify(&keys, head.and_then(Option::as_ref), &files, !self.part);
            note_database(&mut found, &heads, head);
            if is_keyless {
                found.notes.push(
                    "audit.key is unset: whoever can write the file could have rewritten it".to_owned(),
                );
            }
            findings.push(found);
        }
        heads.close().await;
        let is_whole = findings.iter().all(|found| found.problems.is_empty());
        self.output.print(&view(&findings, is_whole))?;
        Ok(if is_whole { Outcome::Done } else { Outcome::AuditBroken })
    }
}

fn verify(keys: &[ChainKey], head: Option<&AuditHead>, files: &[LogFile], is_all: bool) -> Findings {
    let mut verifier = Verifier::new(keys, head.cloned());
    files.iter().for_each(|file| verifier.read(&file.name, &file.text));
    verifier.finish(is_all)
}

/// Returns true if a line says that the lines after it were written under a key.
fn names_key(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let line: Option<Value> = serde_json::from_slice(line).ok();
        line.is_some_and(|line| line["kind"] == "begin" && line["key"].is_string() && line["key"] != "none")
    })
}

fn note_database(found: &mut Findings, heads: &Heads, head: Option<&Option<AuditHead>>) {
    let unchecked = "lines missing at the end were not checked for";
    match (heads, head) {
        (Heads::Unknown(problem), _) => found.notes.push(format!("{unchecked}: {problem}")),
        (Heads::Known(_), Some(Some(_))) => {}
        (Heads::Known(_), _) => {
            found.notes.push(format!("{unchecked}: the database has no record of this chain"));
        }
    }
}

fn is_lock(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "lock")
}

fn text_of(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))
}

/// Returns each file with the id of its chain.
fn chains(files: &[PathBuf]) -> Result<Vec<(&Path, Option<String>)>, Failure> {
    let logs = files.iter().filter(|file| !is_lock(file));
    logs.map(|file| Ok((file.as_path(), position(&text_of(file)?).0))).collect()
}

/// Reads the files, those of a chain together and in order.
fn read(files: &[PathBuf]) -> Result<BTreeMap<Option<String>, Vec<LogFile>>, Failure> {
    let mut chains: BTreeMap<Option<String>, Vec<LogFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_lock(file)) {
        let text = text_of(file)?;
        let (chain, first) = position(&text);
        let name = file.display().to_string();
        chains.entry(chain).or_default().push(LogFile { name, text, first });
    }
    chains.values_mut().for_each(|files| files.sort_by_key(|file| file.first));
    Ok(chains)
}

/// The database's record of where each chain ends.
enum Heads {
    /// The open database.
    Known(Store),
    /// The database can't be opened, for this reason.
    Unknown(String),
}

impl Heads {
    async fn open(dsn: &str) -> Self {
        match Store::open_existing(dsn).await {
            Ok(store) => Self::Known(store),
            Err(error) => Self::Unknown(error.to_string()),
        }
    }

    async fn of(&self, chains: &[(&Path, Option<String>)]) -> BTreeMap<Option<String>, Option<AuditHead>> {
        let mut known = BTreeMap::new();
        if let Self::Known(store) = self {
            for (file, chain) in chains {
                let head = match chain {
                    Some(chain) => store.audit_head_of_chain(chain).await,
                    // The file no longer has a line that names its chain.
                    None => store.audit_head_of(&instance(file)).await,
                };
                match head {
                    Ok(head) => drop(known.insert(chain.clone(), head)),
                    Err(error) => eprintln!("talos: {error}"),
                }
            }
        }
        known
    }

    async fn close(self) {
        if let Self::Known(store) = self {
            store.close().await;
        }
    }
}

fn view(findings: &[Findings], is_whole: bool) -> View {
    let unknown = |unknown: &UnresolvedCall| {
        json!({
            "line": unknown.line,
            "time": unknown.time,
            "operation": unknown.operation,
            "keys": unknown.keys,
            "request_id": unknown.request_id,
        })
    };
    let chain = |found: &Findings| {
        json!({
            "chain": found.chain.clone().unwrap_or_default(),
            "first": found.first.unwrap_or_default(),
            "last": found.last.unwrap_or_default(),
            "lines": found.lines,
            "problems": found.problems,
            "more_problems": found.more_problems,
            "unknown_outcomes": found.unresolved.iter().map(unknown).collect::<Vec<_>>(),
            "not_checked": found.notes,
        })
    };
    let body = json!({ "ok": is_whole, "chains": findings.iter().map(chain).collect::<Vec<_>>() });
    let mut fields = vec![("RESULT", if is_whole { "ok".to_owned() } else { "NOT WHOLE".to_owned() })];
    for found in findings {
        fields.extend(found.problems.iter().map(|problem| ("PROBLEM", problem.clone())));
        if found.more_problems > 0 {
            fields.push(("PROBLEM", format!("and {} more", found.more_problems)));
        }
        fields.extend(found.notes.iter().map(|note| ("NOTE", note.clone())));
        for UnresolvedCall { line, time, operation, keys, request_id } in &found.unresolved {
            let keys = keys.join(" ");
            let text = format!(
                "line {line}, {time}: {operation} of {keys} (request {request_id}): the process ended before it \
                 recorded the outcome"
            );
            fields.push(("OUTCOME UNKNOWN", text));
        }
        let chain = found.chain.as_deref().unwrap_or("-");
        fields.push(("CHAIN", format!("{chain}, {} lines", found.lines)));
    }
    let quiet = findings.iter().flat_map(|found| found.problems.iter().cloned()).collect();
    View { body: JsonBody::from(body), table: Table::Fields(fields), quiet }
}
