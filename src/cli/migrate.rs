//! `talos migrate`: migrates the database's schema, and adopts the keys of another Talos.

mod adopt;
mod listing;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::JsonBody;
use super::config;
use super::exit::{Failure, Outcome};
use super::output::{Format, Output, Table, View, write_stdout};
use crate::secret::SecretString;
use crate::store::{Step, StepState, Store, StoreError};
use crate::telemetry::status::unadopted_problem;

/// Migrate the database's schema, or adopt the keys of another Talos
///
/// The database is --database, else $DB_DSN, else $DSN, else db.dsn of the configuration. `talos
/// serve` creates and migrates a new SQLite file by itself; run `migrate up` after an upgrade.
/// Connect to the database directly, not through PgBouncer.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos migrate up --database sqlite://talos.db
  talos migrate status --database sqlite://talos.db
  talos keys issued list --all --format json -e http://localhost:4420 | talos migrate adopt - --database sqlite://talos.db")]
pub struct Migrate {
    /// The database [default: $DB_DSN, $DSN, then the configuration's db.dsn]
    #[arg(long, global = true, value_name = "DSN")]
    database: Option<SecretString>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Migrate the schema to this version
    #[command(after_help = "\
EXAMPLES:
  talos migrate up --database sqlite://talos.db")]
    Up,
    /// Revert the last migrations; what they drop is printed on stderr
    ///
    /// Each migration is one transaction, except with MySQL, which has no transactional DDL. Data
    /// in dropped tables and columns is lost, so --yes is needed when the database holds a key.
    /// Make a backup first, and stop every process that uses the database.
    #[command(after_help = "\
EXAMPLES:
  talos migrate down --database sqlite://talos.db
  talos migrate down --steps 2 --yes --database sqlite://talos.db")]
    Down {
        /// Number of migrations to revert
        #[arg(long, value_name = "N", default_value_t = 1)]
        steps: usize,
        /// Revert even when keys are lost
        #[arg(long)]
        yes: bool,
    },
    /// List the migrations: applied, pending or dirty
    #[command(after_help = "\
EXAMPLES:
  talos migrate status --database sqlite://talos.db
  talos migrate status --database sqlite://talos.db --format jsonpath=version")]
    Status {
        /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
        #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
        format: Format,
    },
    /// Set the recorded version without running a migration
    ///
    /// For a schema that a failed migration left dirty: repair the tables by hand, then record here
    /// the version that they have. The tables aren't checked: a wrong version breaks the next
    /// migration.
    #[command(after_help = "\
EXAMPLES:
  talos migrate force 1 --database sqlite://talos.db")]
    Force {
        /// The version of the schema; 0 for none
        #[arg(value_name = "VERSION")]
        version: i64,
    },
    Adopt(adopt::Adopt),
}

impl Migrate {
    /// Runs the command. `file` is the configuration that `--config` names.
    ///
    /// # Errors
    /// Fails when the database can't be found, reached or migrated.
    pub async fn run(self, file: Option<&Path>) -> Result<Outcome, Failure> {
        let dsn = dsn(self.database, file)?;
        match self.command {
            Command::Up => {
                let version = Store::migrate_up(dsn.expose()).await.map_err(Failure::failed)?;
                println!("the schema is at version {version}");
                note_unadopted(dsn.expose()).await;
            }
            Command::Down { steps, yes } => down(dsn.expose(), steps, yes).await?,
            Command::Status { format } => {
                let steps = Store::migrations(dsn.expose()).await.map_err(Failure::failed)?;
                let output = Output::new(format, false);
                if output.is_table() {
                    write_stdout(&summary(&steps))?;
                }
                output.print(&status(&steps))?;
            }
            Command::Force { version } => {
                Store::migrate_force(dsn.expose(), version).await.map_err(|error| match error {
                    StoreError::NoSuchVersion { .. } => Failure::usage(error),
                    error => Failure::failed(error),
                })?;
                println!("the schema's version is now recorded as {version}");
            }
            Command::Adopt(adopt) => return adopt.run(dsn.expose()).await,
        }
        Ok(Outcome::Done)
    }
}

fn dsn(argument: Option<SecretString>, file: Option<&Path>) -> Result<SecretString, Failure> {
    let from_environment =
        || ["DB_DSN", "DSN"].iter().find_map(|name| std::env::var(name).ok()).map(Into::into);
    match argument.or_else(from_environment) {
        Some(dsn) => Ok(dsn),
        None => {
            let loaded = config::source(file.map(Path::to_owned))?.without_admin().load();
            Ok(loaded.map_err(Failure::usage)?.config.db.dsn)
        }
    }
}

/// Says on stderr which keys of Ory Talos in the same database aren't known here yet.
async fn note_unadopted(dsn: &str) {
    let Ok(store) = Store::open_existing(dsn).await else { return };
    if let Some(problem) = unadopted_problem(&store.unadopted_tables().await.unwrap_or_default()) {
        eprintln!("{problem}");
    }
    store.close().await;
}

async fn down(dsn: &str, steps: usize, yes: bool) -> Result<(), Failure> {
    let reverted = Store::migrate_down(dsn, steps, yes).await.map_err(|error| match error {
        StoreError::WouldLoseKeys { .. } => Failure::usage(format!("{error}: use --yes to revert anyway")),
        error => Failure::failed(error),
    })?;
    for step in &reverted {
        eprintln!("reverted {} ({})", step.version, step.name);
        for statement in &step.drops {
            eprintln!("  {statement}");
        }
    }
    let version = version(&Store::migrations(dsn).await.map_err(Failure::failed)?);
    println!("the schema is at version {version}");
    Ok(())
}

/// Returns the newest version that is fully applied.
fn version(steps: &[Step]) -> i64 {
    let is_applied = |step: &&Step| matches!(step.state, StepState::Applied | StepState::Unknown);
    steps.iter().filter(is_applied).map(|step| step.version).max().unwrap_or(0)
}

fn is_dirty(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.state == StepState::Dirty)
}

/// Returns the two lines that Ory's guides look for.
fn summary(steps: &[Step]) -> String {
    let state = if is_dirty(steps) { "DIRTY" } else { "clean" };
    format!("Current Version: {}\nDatabase Status: {state}\n\n", version(steps))
}

fn status(steps: &[Step]) -> View {
    let body = json!({
        "version": version(steps),
        "dirty": is_dirty(steps),
        "migrations": steps
            .iter()
            .map(|step| json!({ "version": step.version, "name": step.name, "state": step.state.name() }))
            .collect::<Vec<_>>(),
    });
    let line = |step: &Step| vec![step.version.to_string(), step.name.clone(), step.state.name().to_owned()];
    let table = Table::Rows(vec!["VERSION", "NAME", "STATE"], steps.iter().map(line).collect());
    View { body: JsonBody::from(body), table, quiet: vec![] }
}
