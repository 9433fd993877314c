//! `talos audit verify`: verifies the hash chains of audit logs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::files::{self, Chains, LogFile, NO_KEY, names_key};
use crate::audit::verify::{Findings, UnresolvedCall, Verifier};
use crate::audit::{ChainKey, ChainKeys, instance};
use crate::cli::client::JsonBody;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::{Output, Table, View};
use crate::cli::source::source;
use crate::clock::Clock;
use crate::secret::SecretString;
use crate::store::{AuditHead, Store};

/// Pauses before the database is asked again for the end of a chain, in which a running server
/// reports it.
const HEAD_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(2)];
/// Most missing chains that are listed.
const MAX_MISSING: usize = 100;

/// Verify that an audit log is complete: no line changed, removed, added or reordered
///
/// audit.key and audit.key_retired are read from the configuration or the environment; no HMAC
/// secret is needed. The database, which records every chain and where it ends, is --database, else
/// db.dsn of the configuration. Without it, missing chains and lines missing at the end can't be
/// detected, and the result says so.
///
/// Name all files that the servers of this database have written, rotated ones as well, in any
/// order; files that end with .lock or .replay are skipped. With less, say what is left out: --only
/// for the logs of one machine, --no-history if older files were removed on purpose, --part for any
/// part.
///
/// The exit code is 0 when the logs are complete, 1 when they aren't, and 64 when the key of a
/// keyed log is missing. Operations whose process ended before it wrote their outcome are listed as
/// unknown.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos audit verify audit.jsonl*
  talos audit verify audit.jsonl* --format json
  talos audit verify audit.jsonl* --only
  talos audit verify audit.jsonl --part")]
pub(crate) struct Verify {
    /// The audit log and its rotated files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The database that records where the log ends [default: the configuration's db.dsn]
    #[arg(long, value_name = "DSN")]
    database: Option<SecretString>,
    /// The files are only a part of the log: expect neither other lines nor other chains
    #[arg(long)]
    part: bool,
    /// Expect only the chains of these files, not all that the database knows
    #[arg(long)]
    only: bool,
    /// Older files were removed on purpose: don't expect the lines before these files
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    output: Output,
}

impl Verify {
    /// Runs the command. `file` is the configuration that `--config` names.
    ///
    /// # Errors
    /// Fails when a file can't be read or the configuration is invalid.
    pub(crate) async fn run(self, file: Option<&Path>) -> Result<Outcome, Failure> {
        let loaded = source(file.map(Path::to_owned))?.without_admin().load();
        let config = loaded.map_err(Failure::usage)?.config;
        let keys = ChainKeys::from_config(&config.audit, Clock::system().now()).all();
        let dsn = self.database.as_ref().unwrap_or(&config.db.dsn);
        let is_keyless = config.audit.key.is_none() && config.audit.key_retired.is_empty();
        let heads = Heads::open(dsn.expose()).await;
        let findings = self.verify(&keys, is_keyless, &heads).await;
        heads.close().await;
        let findings = findings?;
        let is_whole = findings.iter().all(|found| found.problems.is_empty());
        self.output.print(&view(&findings, is_whole))?;
        Ok(if is_whole { Outcome::Done } else { Outcome::AuditBroken })
    }

    async fn verify(
        &self,
        keys: &[ChainKey],
        is_keyless: bool,
        heads: &Heads,
    ) -> Result<Vec<Findings>, Failure> {
        // The database is read before the files: lines written meanwhile are then extra, not
        // missing.
        let known = heads.read().await;
        let chains = files::read(&self.files)?;
        if is_keyless && chains.values().flatten().any(names_key) {
            return Err(Failure::usage(NO_KEY));
        }
        let mut expected = match (&known, self.part || self.only) {
            (Ok(known), false) => known.keys().cloned().collect(),
            _ => BTreeSet::new(),
        };
        let mut findings = vec![];
        for (chain, files) in &chains {
            let head = known.as_ref().ok().and_then(|known| head_of(known, chain.as_deref(), files));
            if let Some(head) = head {
                expected.remove(&head.chain);
            }
            let mut found = verify_chain(keys, head, files, !self.part);
            self.judge(&mut found, known.as_ref().map(|_| head));
            if let Some(line) = found.unknown_to_database.filter(|_| !self.part)
                && !heads.learns(chain.as_deref(), line).await
            {
                let known = head.map_or(0, |head| head.lines);
                found.problems.push(format!(
                    "the database knows this chain only to line {known}, and line {line} was acknowledged: the \
                     database was restored from a backup, or can't be written (see talos audit replay --dry-run)"
                ));
            }
            if is_keyless {
                let note = "audit.key is unset: whoever can write the file could have rewritten it";
                found.notes.push(note.to_owned());
            }
            findings.push(found);
        }
        if let Ok(known) = &known {
            let missing: Vec<_> = expected.iter().filter_map(|chain| known.get(chain)).collect();
            findings.extend(missing.iter().take(MAX_MISSING).map(|head| missing_chain(keys, head)));
            if let Some(last) = findings.last_mut() {
                last.more_problems += missing.len().saturating_sub(MAX_MISSING) as u64;
            }
        }
        note_empty(&chains, &mut findings);
        Ok(findings)
    }

    /// Adds what the database, or the lack of its record, says of a chain.
    fn judge(&self, found: &mut Findings, head: Result<Option<&AuditHead>, &String>) {
        if found.earlier > 0 && !self.part && !self.no_history {
            found.problems.push(format!(
                "history is missing: the {} lines before line {} are in none of these files (--no-history if they \
                 were removed on purpose)",
                found.earlier,
                found.earlier + 1
            ));
        }
        let unchecked = "lines missing at the end were not checked for";
        match head {
            Err(problem) => found.notes.push(format!("{unchecked}: {problem}")),
            Ok(Some(_)) => {}
            Ok(None) => {
                found.notes.push(format!("{unchecked}: the database has no record of this chain"));
                if found.lines > 0 && !self.part {
                    let problem = "the database has no record of this chain: it was restored from an older backup, it \
                                   is another database, or the file comes from elsewhere";
                    found.problems.push(problem.to_owned());
                }
            }
        }
    }
}

fn verify_chain(keys: &[ChainKey], head: Option<&AuditHead>, files: &[LogFile], is_all: bool) -> Findings {
    let mut verifier = Verifier::new(keys, head.cloned());
    files.iter().for_each(|file| verifier.read(&file.name, &file.text));
    verifier.finish(is_all)
}

/// Returns the head of a chain. A file that names none is looked up by its name.
fn head_of<'a>(
    known: &'a BTreeMap<String, AuditHead>,
    chain: Option<&str>,
    files: &[LogFile],
) -> Option<&'a AuditHead> {
    match chain {
        Some(chain) => known.get(chain),
        None => {
            let instances: Vec<String> = files.iter().map(|file| instance(&file.path)).collect();
            known.values().find(|head| instances.contains(&head.instance))
        }
    }
}

fn missing_chain(keys: &[ChainKey], head: &AuditHead) -> Findings {
    let mut found = Verifier::new(keys, Some(head.clone())).finish(true);
    found.chain = Some(head.chain.clone());
    found.problems.insert(
        0,
        format!(
            "chain {} of {}, {} lines, is in none of these files (--only if it is kept elsewhere)",
            head.chain, head.instance, head.lines
        ),
    );
    found
}

/// Adds a note if no file has a line at all: then nothing was verified.
fn note_empty(chains: &Chains, findings: &mut [Findings]) {
    if findings.iter().all(|found| found.lines == 0)
        && let Some(found) = findings.first_mut()
    {
        let names: Vec<_> = chains.values().flatten().map(|file| file.name.as_str()).collect();
        found.notes.push(format!("no line of an audit log is in these files: {}", names.join(" ")));
    }
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

    /// Reads all heads, by chain. Returns the reason if they can't be read.
    async fn read(&self) -> Result<BTreeMap<String, AuditHead>, String> {
        match self {
            Self::Known(store) => {
                let heads = store.audit_heads().await.map_err(|error| error.to_string())?;
                Ok(heads.into_iter().map(|head| (head.chain.clone(), head)).collect())
            }
            Self::Unknown(problem) => Err(problem.clone()),
        }
    }

    /// Returns true if the database learns of a line soon: a server that runs is reporting it.
    async fn learns(&self, chain: Option<&str>, line: u64) -> bool {
        let (Self::Known(store), Some(chain)) = (self, chain) else {
            return true;
        };
        for pause in HEAD_PAUSES {
            tokio::time::sleep(pause).await;
            let head = store.audit_head_of_chain(chain).await;
            if head.ok().flatten().is_some_and(|head| head.lines >= line) {
                return true;
            }
        }
        false
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
