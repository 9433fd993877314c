//! `talos audit replay`: repeats what a restored database lacks of its audit logs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::files::{self, NO_KEY, names_key};
use crate::audit::changes::{ChangeKind, Difference, RecordedChange, Subject, find_lacking};
use crate::audit::repeat::repeat;
use crate::audit::verify::{UnresolvedCall, Verifier};
use crate::audit::{Audit, AuditLog, ChainKeys, LogSettings};
use crate::cli::client::JsonBody;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::output::{Output, Table, View};
use crate::cli::source::source;
use crate::clock::Clock;
use crate::config::Config;
use crate::rng::Rng;
use crate::secret::SecretString;
use crate::store::Store;

/// Repeat the revocations and deletions that a restored database lacks
///
/// Reads the audit logs, verifies their lines, and compares the last change of each key with the
/// database (--database, else db.dsn of the configuration). Revocations, rotations, suspensions,
/// their ends and deletions of keys that the database lacks are repeated, and recorded in the audit
/// log if audit.file is set. So are suspensions of actors and their ends. Keys that were issued or
/// imported since the backup, and updates, can't be repeated, as the log has neither secrets nor
/// values: they are listed.
///
/// Name the logs of all machines, with their rotated files. The command may run before the servers
/// start or while they run, and may be repeated. A log with a line that was changed is refused, and
/// so is one in whose midst lines are missing, unless --despite-gaps is given.
///
/// The exit code is 0 when the database lacks nothing any more, 1 when it does: with --dry-run if
/// anything would be done, otherwise if a key or an update is lost, or lines are missing.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos audit replay audit.jsonl* --dry-run
  talos audit replay audit.jsonl* --format json")]
pub(crate) struct Replay {
    /// The audit logs and their rotated files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The database that was restored [default: the configuration's db.dsn]
    #[arg(long, value_name = "DSN")]
    database: Option<SecretString>,
    /// Only list what would be done
    #[arg(long)]
    dry_run: bool,
    /// Repeat what the files have although lines between them are missing, which may have undone it
    #[arg(long)]
    despite_gaps: bool,
    #[command(flatten)]
    output: Output,
}

/// Contents of the logs.
struct Recorded {
    /// Changes of each log.
    changes: Vec<Vec<RecordedChange>>,
    unknown: Unknown,
}

/// Changes about which the logs say too little.
#[derive(Default)]
struct Unknown {
    /// Calls of unknown outcome.
    unresolved: Vec<UnresolvedCall>,
    /// Lines that are missing.
    gaps: Vec<String>,
}

/// Outcome for a difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    WouldRepeat,
    Repeated,
    NothingToDo,
    Lost,
}

impl Replay {
    /// Runs the command. `file` is the configuration that `--config` names.
    ///
    /// # Errors
    /// Fails when a file can't be read or was changed, the configuration is invalid, or the
    /// database or the audit log fails.
    pub(crate) async fn run(self, file: Option<&Path>) -> Result<Outcome, Failure> {
        let loaded = source(file.map(Path::to_owned))?.without_admin().load();
        let config = loaded.map_err(Failure::usage)?.config;
        let Recorded { changes, unknown } = self.read(&config)?;
        let dsn = self.database.as_ref().unwrap_or(&config.db.dsn);
        let store = Store::open_existing(dsn.expose()).await.map_err(Failure::failed)?;
        let done = self.replay(&config, &store, changes).await;
        store.close().await;
        let done = done?;
        self.output.print(&view(&done, &unknown, self.dry_run))?;
        let lacks = done.iter().any(|(_, result)| matches!(result, Fate::WouldRepeat | Fate::Lost));
        Ok(if lacks || !unknown.gaps.is_empty() { Outcome::PartialFailure } else { Outcome::Done })
    }

    /// Reads the logs. All lines must have the right MAC, as a forged one could revoke any key.
    fn read(&self, config: &Config) -> Result<Recorded, Failure> {
        let keys = ChainKeys::from_config(&config.audit, Clock::system().now()).all();
        let is_keyless = config.audit.key.is_none() && config.audit.key_retired.is_empty();
        let mut recorded = Recorded { changes: vec![], unknown: Unknown::default() };
        for files in files::read(&self.files)?.values() {
            if is_keyless && files.iter().any(names_key) {
                return Err(Failure::usage(NO_KEY));
            }
            let mut verifier = Verifier::new(&keys, None).with_changes();
            files.iter().for_each(|file| verifier.read(&file.name, &file.text));
            let found = verifier.finish(false);
            if let Some(problem) = &found.changed {
                return Err(Failure::failed(format!(
                    "nothing was done, as this log is not whole: {problem} (talos audit verify says more)"
                )));
            }
            if let Some(gap) = found.gaps.first()
                && !self.despite_gaps
                && !self.dry_run
            {
                return Err(Failure::failed(format!(
                    "nothing was done, as lines of this log are missing: {gap}. Name the files that have them; if there \
                     are none, --despite-gaps repeats what the others have, and --dry-run lists it"
                )));
            }
            recorded.changes.push(found.changes);
            recorded.unknown.unresolved.extend(found.unresolved);
            recorded.unknown.gaps.extend(found.gaps);
        }
        Ok(recorded)
    }

    async fn replay(
        &self,
        config: &Config,
        store: &Store,
        changes: Vec<Vec<RecordedChange>>,
    ) -> Result<Vec<(Difference, Fate)>, Failure> {
        let lacking = find_lacking(store, changes, Clock::system().now()).await.map_err(Failure::failed)?;
        let is_needed = lacking.iter().any(Difference::is_repeatable);
        if self.dry_run || !is_needed {
            let result = |lacking: Difference| match lacking.is_repeatable() {
                true => (lacking, Fate::WouldRepeat),
                false => (lacking, Fate::Lost),
            };
            return Ok(lacking.into_iter().map(result).collect());
        }
        let (clock, rng) = (Clock::system(), Rng::system());
        let (log, heads) = match &config.audit.file {
            Some(path) => {
                let keys = ChainKeys::from_config(&config.audit, clock.now());
                let settings = LogSettings { path: path.clone(), max_size: config.audit.max_size, keys };
                let opened = AuditLog::open(settings, store.clone(), clock.clone(), &rng).await;
                let (log, heads) = opened.map_err(Failure::failed)?;
                (Some(log), Some(tokio::spawn(heads.run())))
            }
            None => (None, None),
        };
        let audit = Arc::new(Audit::new(log));
        let request_id = format!("talos-audit-replay-{}", rng.uuid());
        let done = repeat_all(&audit, store, lacking, &request_id, &clock).await;
        // The log is closed when its last owner is dropped; the database then learns its end.
        drop(audit);
        if let Some(heads) = heads {
            let _ = heads.await;
        }
        done
    }
}

async fn repeat_all(
    audit: &Arc<Audit>,
    store: &Store,
    lacking: Vec<Difference>,
    request_id: &str,
    clock: &Clock,
) -> Result<Vec<(Difference, Fate)>, Failure> {
    let mut done = vec![];
    for difference in lacking {
        let result = match difference.is_repeatable() {
            false => Fate::Lost,
            true => match repeat(audit, store, &difference, request_id, clock.now()).await {
                Ok(true) => Fate::Repeated,
                Ok(false) => Fate::NothingToDo,
                Err(error) => {
                    let repeated = done.iter().filter(|(_, result)| *result == Fate::Repeated).count();
                    return Err(Failure::failed(format!(
                        "{error} ({repeated} changes were repeated before this failure; run the command again for the \
                         rest)"
                    )));
                }
            },
        };
        done.push((difference, result));
    }
    Ok(done)
}

impl Fate {
    const fn name(self) -> &'static str {
        match self {
            Self::WouldRepeat => "would repeat",
            Self::Repeated => "repeated",
            Self::NothingToDo => "nothing to do",
            Self::Lost => "lost",
        }
    }
}

/// Describes what an operator can do about a change that can't be repeated.
fn advice(difference: &Difference) -> &'static str {
    match difference.change.kind {
        ChangeKind::Created => "the key is unknown: issue or import it again",
        ChangeKind::Updated => "the log has no values: update the key again",
        _ if difference.is_lost => {
            "an actor was erased since, and the log doesn't say which: suspend this one again unless it was that"
        }
        _ => "",
    }
}

fn view(done: &[(Difference, Fate)], unknown: &Unknown, dry_run: bool) -> View {
    let Unknown { unresolved, gaps } = unknown;
    let change = |(difference, result): &(Difference, Fate)| {
        let id = match difference.change.subject {
            Subject::Key(_) => "key_id",
            Subject::Actor(_) | Subject::ErasedActor => "actor_id",
        };
        json!({
            "result": result.name(),
            "change": difference.name(),
            id: difference.change.subject.to_string(),
            "network": difference.change.network.to_string(),
            "time": difference.change.at.to_rfc3339(),
            "advice": advice(difference),
        })
    };
    let unknown = |unknown: &UnresolvedCall| json!({ "operation": unknown.operation, "keys": unknown.keys, "time": unknown.time });
    let count = |wanted: Fate| done.iter().filter(|(_, result)| *result == wanted).count();
    let body = json!({
        "dry_run": dry_run,
        "repeated": count(Fate::Repeated),
        "would_repeat": count(Fate::WouldRepeat),
        "lost": count(Fate::Lost),
        "changes": done.iter().map(change).collect::<Vec<_>>(),
        "unknown_outcomes": unresolved.iter().map(unknown).collect::<Vec<_>>(),
        "gaps": gaps,
    });
    let mut rows: Vec<Vec<String>> = done
        .iter()
        .map(|(difference, result)| {
            let RecordedChange { subject, at, .. } = &difference.change;
            let (result, change) = (result.name().to_owned(), difference.name().to_owned());
            vec![result, change, subject.to_string(), at.to_rfc3339(), advice(difference).to_owned()]
        })
        .collect();
    rows.extend(unresolved.iter().map(|unknown| {
        let advice = "the process ended before it recorded the outcome: look at the key".to_owned();
        let keys = unknown.keys.join(" ");
        vec!["unknown".to_owned(), unknown.operation.clone(), keys, unknown.time.clone(), advice]
    }));
    rows.extend(gaps.iter().map(|gap| {
        let nothing = String::new;
        vec!["missing".to_owned(), "lines".to_owned(), nothing(), nothing(), gap.clone()]
    }));
    let quiet = done.iter().map(|(difference, _)| difference.change.subject.to_string()).collect();
    let table = Table::Rows(vec!["RESULT", "CHANGE", "KEY OR ACTOR", "TIME", "ADVICE"], rows);
    View { body: JsonBody::from(body), table, quiet }
}
