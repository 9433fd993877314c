//! `talos audit`: whether an audit log is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::Answer;
use super::config;
use super::exit::{Failure, Outcome};
use super::output::{Output, Shown, Table};
use crate::audit::verify::{Findings, Unknown, Verifier, place};
use crate::audit::{ChainKey, ChainKeys, instance};
use crate::clock::Clock;
use crate::secret::SecretString;
use crate::store::{AuditHead, Store};

/// Of `talos audit`.
pub const EXAMPLES: &str = "\
EXAMPLES:
  talos audit verify audit.jsonl
  talos audit verify audit.jsonl* --format json";

#[derive(Subcommand)]
pub enum Command {
    Verify(Verify),
}

/// Tell whether the lines of an audit log are those that were written: all of them, unchanged and in order
///
/// audit.key and audit.key_retired come from the configuration or the environment; no HMAC secret is needed. The
/// database, where each log's end is known, is --database, else db.dsn of the configuration: without it, lines that were
/// cut off the end can't be missed, and the answer says so. Name the files that were moved aside as well, in any order,
/// to have the whole log checked; what ends with .lock is left out. The exit code is 0 when nothing is wrong and 1 when
/// something is. Calls whose process ended in the midst are listed: nobody knows whether they were done.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos audit verify audit.jsonl
  talos audit verify audit.jsonl* --format json
  talos audit verify audit.jsonl --part")]
pub struct Verify {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The database that knows where the log ends [default: the configuration's db.dsn]
    #[arg(long, value_name = "DSN")]
    database: Option<SecretString>,
    /// The files are a part of the log: don't ask for the lines after them
    #[arg(long)]
    part: bool,
    #[command(flatten)]
    output: Output,
}

/// What one file holds.
struct File {
    name: String,
    text: Vec<u8>,
    first: u64,
}

impl Verify {
    /// Runs it; `file` is what `--config` names.
    ///
    /// # Errors
    /// When a file can't be read, or the configuration can't be used.
    pub async fn run(self, file: Option<&Path>) -> Result<Outcome, Failure> {
        let loaded = config::source(file.map(Path::to_owned))?.without_admin().load();
        let config = loaded.map_err(Failure::unusable)?.config;
        let keys = ChainKeys::of(&config.audit, Clock::system().now()).all();
        let dsn = self.database.as_ref().unwrap_or(&config.db.dsn);
        let heads = Heads::open(dsn.expose()).await;
        let mut findings = vec![];
        // The database is asked before a file is read: what is written meanwhile is more than it knows of, not less.
        let chains = chains(&self.files)?;
        let known = heads.of(&chains).await;
        for (chain, files) in read(&self.files)? {
            let head = known.get(&chain);
            let mut found = verify(&keys, head.and_then(Option::as_ref), &files, !self.part);
            note_database(&mut found, &heads, head);
            if config.audit.key.is_none() && config.audit.key_retired.is_empty() {
                found
                    .notes
                    .push("audit.key is unset: whoever could write the file could rewrite it".to_owned());
            }
            findings.push(found);
        }
        heads.close().await;
        let is_whole = findings.iter().all(|found| found.problems.is_empty());
        self.output.print(&shown(&findings, is_whole))?;
        Ok(if is_whole { Outcome::Done } else { Outcome::NotWhole })
    }
}

fn verify(keys: &[ChainKey], head: Option<&AuditHead>, files: &[File], is_all: bool) -> Findings {
    let mut verifier = Verifier::new(keys, head.cloned());
    files.iter().for_each(|file| verifier.read(&file.name, &file.text));
    verifier.finish(is_all)
}

fn note_database(found: &mut Findings, heads: &Heads, head: Option<&Option<AuditHead>>) {
    let unchecked = "whether lines are missing at the end was not checked";
    match (heads, head) {
        (Heads::Unknown(problem), _) => found.notes.push(format!("{unchecked}: {problem}")),
        (Heads::Known(_), Some(Some(_))) => {}
        (Heads::Known(_), _) => {
            found.notes.push(format!("{unchecked}: the database knows nothing of this chain"));
        }
    }
}

fn is_lock(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "lock")
}

fn text_of(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))
}

/// The files and their chains.
fn chains(files: &[PathBuf]) -> Result<Vec<(&Path, Option<String>)>, Failure> {
    let logs = files.iter().filter(|file| !is_lock(file));
    logs.map(|file| Ok((file.as_path(), place(&text_of(file)?).0))).collect()
}

/// Reads the files, those of a chain together and in order.
fn read(files: &[PathBuf]) -> Result<BTreeMap<Option<String>, Vec<File>>, Failure> {
    let mut chains: BTreeMap<Option<String>, Vec<File>> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_lock(file)) {
        let text = text_of(file)?;
        let (chain, first) = place(&text);
        let name = file.display().to_string();
        chains.entry(chain).or_default().push(File { name, text, first });
    }
    chains.values_mut().for_each(|files| files.sort_by_key(|file| file.first));
    Ok(chains)
}

/// What the database knows of the ends of logs.
enum Heads {
    Known(Store),
    /// Nothing, for this reason.
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
                    // Nothing is left in it that says which chain it held.
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

fn shown(findings: &[Findings], is_whole: bool) -> Shown {
    let unknown = |unknown: &Unknown| {
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
            "unknown_outcomes": found.unknown.iter().map(unknown).collect::<Vec<_>>(),
            "not_checked": found.notes,
        })
    };
    let answer = json!({ "ok": is_whole, "chains": findings.iter().map(chain).collect::<Vec<_>>() });
    let mut fields = vec![("RESULT", if is_whole { "ok".to_owned() } else { "NOT WHOLE".to_owned() })];
    for found in findings {
        fields.extend(found.problems.iter().map(|problem| ("PROBLEM", problem.clone())));
        if found.more_problems > 0 {
            fields.push(("PROBLEM", format!("and {} more", found.more_problems)));
        }
        fields.extend(found.notes.iter().map(|note| ("NOTE", note.clone())));
        for Unknown { line, time, operation, keys, request_id } in &found.unknown {
            let keys = keys.join(" ");
            let text = format!(
                "line {line}, {time}: {operation} of {keys} (request {request_id}): nobody knows whether it was done"
            );
            fields.push(("OUTCOME UNKNOWN", text));
        }
        let chain = found.chain.as_deref().unwrap_or("-");
        fields.push(("CHAIN", format!("{chain}, {} lines", found.lines)));
    }
    let quiet = findings.iter().flat_map(|found| found.problems.iter().cloned()).collect();
    Shown { answer: Answer::from(answer), table: Table::Fields(fields), quiet }
}
