//! `talos migrate`: migrates the database's schema, adopts the keys of another Talos, and imports
//! those of another product.

mod adopt;
mod from;
mod from_database;
mod listing;
mod ory_row;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::JsonBody;
use super::exit::{Failure, Outcome};
use super::output::{Format, Output, Table, View, write_stdout};
use super::source::source;
use crate::cli::stderr;
use crate::secret::SecretString;
use crate::store::{RevertOptions, Step, StepState, Store, StoreError};
use crate::telemetry::status::unadopted_problem;

/// Migrate the database's schema, adopt the keys of another Talos, or import those of another
/// product
///
/// `from` works through a server's API. The others work on the database: --database, else
/// migrate.dsn of the configuration, else $DB_DSN, else $DSN, else db.dsn of the configuration.
/// `talos serve` creates and migrates a new SQLite file by itself; run `migrate up` after an
/// upgrade. PgBouncer may stand before PostgreSQL, in any mode but `statement`.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos migrate up --database sqlite://talos.db
  talos migrate status --database sqlite://talos.db
  talos keys issued list --all --format json -e http://localhost:4420 | talos migrate adopt - --database sqlite://talos.db
  printf 'key,actor_id\\nlegacy-key-0123456789,user:42\\n' | talos migrate from csv - --dry-run")]
pub(super) struct Migrate {
    /// The database [default: the configuration's migrate.dsn, $DB_DSN, $DSN, then the
    /// configuration's db.dsn]
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
    /// in dropped tables and columns is lost: when there is any, the command says what, and needs
    /// --yes. Make a backup first, and stop every process that uses the database: while others are
    /// connected, --force is needed.
    #[command(after_help = "\
EXAMPLES:
  talos migrate down --database sqlite://talos.db
  talos migrate down --steps 2 --yes --database sqlite://talos.db")]
    Down {
        /// Number of migrations to revert
        #[arg(long, value_name = "N", default_value_t = 1)]
        steps: usize,
        /// Revert even when data is lost
        #[arg(long)]
        yes: bool,
        /// Revert even while other processes use the database
        #[arg(long)]
        force: bool,
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
        #[arg(value_name = "VERSION", value_parser = schema_version)]
        version: i64,
    },
    Adopt(adopt::Adopt),
    From(from::MoveFrom),
}

impl Migrate {
    /// Runs the command. `file` is the configuration that `--config` names, `endpoint` the server
    /// of the commands that need one.
    ///
    /// # Errors
    /// Fails when the database can't be found, reached or migrated.
    pub(super) async fn run(self, file: Option<&Path>, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let command = match self.command {
            Command::From(from) => return from.run(endpoint).await,
            command => command,
        };
        let dsn = dsn(self.database, file)?;
        match command {
            Command::Up => {
                let version = Store::migrate_up(dsn.expose()).await.map_err(failure)?;
                let known = Store::known_schema(dsn.expose()).map_err(failure)?;
                println!("the schema is at version {version}");
                if version > known {
                    println!(
                        "this program knows {known}; the newer steps are additive, so it runs beside them"
                    );
                }
                note_unadopted(dsn.expose()).await;
            }
            Command::Down { steps, yes, force } => {
                let options = RevertOptions { lose_data: yes, while_in_use: force };
                down(dsn.expose(), steps, options).await?;
            }
            Command::Status { format } => {
                let steps = Store::migrations(dsn.expose()).await.map_err(failure)?;
                let output = Output::new(format, false);
                if output.is_table() {
                    write_stdout(&summary(&steps))?;
                }
                output.print(&status(&steps))?;
            }
            Command::Force { version } => {
                Store::migrate_force(dsn.expose(), version).await.map_err(failure)?;
                println!("the schema's version is now recorded as {version}");
            }
            Command::Adopt(adopt) => return adopt.run(dsn.expose()).await,
            Command::From(from) => return from.run(endpoint).await,
        }
        Ok(Outcome::Done)
    }
}

/// Finds the DSN, and checks it.
fn dsn(argument: Option<SecretString>, file: Option<&Path>) -> Result<SecretString, Failure> {
    let (origin, dsn) = find_dsn(argument, file)?;
    match Store::check_dsn(dsn.expose()) {
        Ok(_) => Ok(dsn),
        Err(StoreError::Dsn(problem)) => Err(Failure::usage(format!("{origin}: {problem}"))),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// Returns the DSN, and what it comes from.
fn find_dsn(
    argument: Option<SecretString>,
    file: Option<&Path>,
) -> Result<(&'static str, SecretString), Failure> {
    if let Some(dsn) = argument {
        return Ok(("--database", dsn));
    }
    let variable = |name: &'static str| std::env::var(name).ok().map(|dsn| (name, SecretString::from(dsn)));
    let from_environment = ["DB_DSN", "DSN"].into_iter().find_map(variable);
    let source = source(file.map(Path::to_owned));
    // Migrations need no settings of networks.
    let loaded = source
        .and_then(|source| source.without_admin().without_network_files().load().map_err(Failure::usage));
    match (loaded, from_environment) {
        (Ok(loaded), from_environment) => {
            let config = loaded.config;
            let own = config.migrate.dsn.map(|dsn| ("migrate.dsn", dsn));
            Ok(own.or(from_environment).unwrap_or(("db.dsn", config.db.dsn)))
        }
        // The variables need no configuration.
        (Err(_), Some(found)) => Ok(found),
        (Err(error), None) => Err(error),
    }
}

/// Returns the failure of a command on a database.
fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::NoSuchVersion { .. } => Failure::usage(error),
        StoreError::WouldLose { .. } => Failure::usage(format!("{error}: use --yes to revert anyway")),
        StoreError::InUse { .. } => Failure::usage(format!("{error}, or use --force")),
        error => Failure::failed(error),
    }
}

/// Says on stderr which keys of Ory Talos in the same database aren't known here yet.
async fn note_unadopted(dsn: &str) {
    let Ok(store) = Store::open_existing(dsn).await else { return };
    if let Some(problem) = unadopted_problem(&store.unadopted_tables().await.unwrap_or_default()) {
        stderr::line(format_args!("{problem}"));
    }
    store.close().await;
}

fn schema_version(text: &str) -> Result<i64, &'static str> {
    text.parse().map_err(|_| "must be a number, one of those that `talos migrate status` lists")
}

async fn down(dsn: &str, steps: usize, options: RevertOptions) -> Result<(), Failure> {
    let reverted = Store::migrate_down(dsn, steps, options).await.map_err(failure)?;
    for step in &reverted {
        stderr::line(format_args!("reverted {} ({})", step.version, step.name));
        for statement in &step.drops {
            stderr::line(format_args!("  {statement}"));
        }
    }
    let version = version(&Store::migrations(dsn).await.map_err(failure)?);
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
