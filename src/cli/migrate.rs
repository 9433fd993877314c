//! `talos migrate`: the database's schema, and the keys of another one.

mod adopt;
mod listing;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::Answer;
use super::config;
use super::exit::{Failure, Outcome};
use super::output::{Format, Output, Shown, Table};
use crate::secret::SecretString;
use crate::store::{Step, StepState, Store, StoreError};

/// Look after the database's schema, and take over the keys of another one
///
/// The database is --database, else $DB_DSN, else $DSN, else db.dsn of the configuration. A new SQLite file is made and
/// migrated by `talos serve` itself; run `migrate up` after an upgrade. Name the database itself, not a PgBouncer before
/// it.
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
    /// Bring the schema up to this version's
    #[command(after_help = "\
EXAMPLES:
  talos migrate up --database sqlite://talos.db")]
    Up,
    /// Take the last steps back; stderr tells what they dropped
    ///
    /// Each step is a transaction of its own (but not with MySQL, which has none for tables). Data goes with the tables and columns that are dropped, so this needs --yes as soon as the database holds a key.
    /// Make a backup first, and stop every process that serves from the database.
    #[command(after_help = "\
EXAMPLES:
  talos migrate down --database sqlite://talos.db
  talos migrate down --steps 2 --yes --database sqlite://talos.db")]
    Down {
        /// How many steps
        #[arg(long, value_name = "N", default_value_t = 1)]
        steps: usize,
        /// Even when keys are lost
        #[arg(long)]
        yes: bool,
    },
    /// Tell which steps are applied, pending or dirty
    #[command(after_help = "\
EXAMPLES:
  talos migrate status --database sqlite://talos.db
  talos migrate status --database sqlite://talos.db --format jsonpath=version")]
    Status {
        /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
        #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = Format::parse)]
        format: Format,
    },
    /// Set the version without running anything
    ///
    /// For a schema that a failed migration left dirty: bring the tables into the state of a version by hand, then
    /// say here which one it is. Nothing is looked at: a version that the tables don't have breaks the next migration.
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
    /// Runs it.
    ///
    /// # Errors
    /// When the database can't be found, reached or migrated.
    pub async fn run(self, file: Option<&Path>) -> Result<Outcome, Failure> {
        let dsn = dsn(self.database, file)?;
        match self.command {
            Command::Up => {
                let version = Store::migrate_up(dsn.expose()).await.map_err(Failure::failed)?;
                println!("the schema is at version {version}");
            }
            Command::Down { steps, yes } => down(dsn.expose(), steps, yes).await?,
            Command::Status { format } => {
                let steps = Store::migrations(dsn.expose()).await.map_err(Failure::failed)?;
                Output::new(format, false).print(&status(&steps))?;
            }
            Command::Force { version } => {
                Store::migrate_force(dsn.expose(), version).await.map_err(|error| match error {
                    StoreError::NoSuchVersion { .. } => Failure::unusable(error),
                    error => Failure::failed(error),
                })?;
                println!("the schema is said to be at version {version}");
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
            Ok(loaded.map_err(Failure::unusable)?.config.db.dsn)
        }
    }
}

async fn down(dsn: &str, steps: usize, yes: bool) -> Result<(), Failure> {
    let undone = Store::migrate_down(dsn, steps, yes).await.map_err(|error| match error {
        StoreError::WouldLoseKeys { .. } => Failure::unusable(format!("{error}: say so with --yes")),
        error => Failure::failed(error),
    })?;
    for step in &undone {
        eprintln!("took back {} ({})", step.version, step.name);
        for statement in &step.drops {
            eprintln!("  {statement}");
        }
    }
    let version = version(&Store::migrations(dsn).await.map_err(Failure::failed)?);
    println!("the schema is at version {version}");
    Ok(())
}

/// The newest step that the database has in full.
fn version(steps: &[Step]) -> i64 {
    let has = |step: &&Step| matches!(step.state, StepState::Applied | StepState::Unknown);
    steps.iter().filter(has).map(|step| step.version).max().unwrap_or(0)
}

fn status(steps: &[Step]) -> Shown {
    let answer = json!({
        "version": version(steps),
        "dirty": steps.iter().any(|step| step.state == StepState::Dirty),
        "migrations": steps
            .iter()
            .map(|step| json!({ "version": step.version, "name": step.name, "state": step.state.name() }))
            .collect::<Vec<_>>(),
    });
    let line = |step: &Step| vec![step.version.to_string(), step.name.clone(), step.state.name().to_owned()];
    let table = Table::Rows(vec!["VERSION", "NAME", "STATE"], steps.iter().map(line).collect());
    Shown { answer: Answer::from(answer), table, quiet: vec![] }
}
