//! The command line.

mod jwk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::app::{self, Planes, ServeError};
use crate::config::{self, Loaded};
use crate::settings::SettingsError;
use crate::store::Store;
use crate::telemetry;

/// Exit code for a command or a configuration that can't be used (EX_USAGE of sysexits.h).
const UNUSABLE: u8 = 64;

/// API keys at the Envoy edge: an ext_authz server with admin and public planes.
#[derive(Parser)]
#[command(name = "talos", version, about)]
struct Cli {
    /// The configuration file (YAML); every key can also be set as TALOS_<PATH>
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve all planes, or one of them beside metrics
    Serve {
        /// The plane to serve alone
        plane: Option<Plane>,
    },
    /// Look after the database's schema
    Migrate {
        #[command(subcommand)]
        command: Migrate,
    },
    /// JSON Web Keys
    Jwk {
        #[command(subcommand)]
        command: jwk::Command,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Plane {
    /// Issues, imports, lists, verifies, derives, revokes
    Admin,
    /// selfRevoke and the public keys
    Public,
    /// Envoy's ext_authz
    Authz,
}

#[derive(Subcommand)]
enum Migrate {
    /// Bring the schema up to this version's
    Up {
        /// The database [default: $DB_DSN, $DSN, then the configuration's db.dsn]
        #[arg(long, value_name = "DSN")]
        database: Option<String>,
    },
}

/// Runs the command that the process was called with.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way as well, on stdout and as a success.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { UNUSABLE } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Serve { plane } => serve(cli.config, plane),
        Command::Migrate { command: Migrate::Up { database } } => migrate_up(cli.config, database),
        Command::Jwk { command } => command.run().map_err(Failure::failed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            eprintln!("talos: {message}");
            ExitCode::from(code)
        }
    }
}

struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn failed(error: impl ToString) -> Self {
        Self { code: 1, message: error.to_string() }
    }

    fn unusable(error: impl ToString) -> Self {
        Self { code: UNUSABLE, message: error.to_string() }
    }
}

fn serve(file: Option<PathBuf>, plane: Option<Plane>) -> Result<(), Failure> {
    let load = match plane {
        // Without an admin plane its rules don't matter.
        Some(Plane::Public | Plane::Authz) => config::load_without_admin,
        Some(Plane::Admin) | None => config::load,
    };
    let Loaded { config, warnings } = load(file.as_deref(), std::env::vars()).map_err(Failure::unusable)?;
    config.require_serving_secret().map_err(Failure::unusable)?;
    let unsupported = config.unsupported();
    if !unsupported.is_empty() {
        return Err(Failure::unusable(unsupported.join("\n")));
    }
    telemetry::log::start(&config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let only = |wanted: fn(&Plane) -> bool| plane.as_ref().is_none_or(wanted);
    let planes = Planes {
        admin: only(|plane| matches!(plane, Plane::Admin)),
        public: only(|plane| matches!(plane, Plane::Public)),
        authz: only(|plane| matches!(plane, Plane::Authz)),
    };
    block_on(app::serve(&config, planes))?.map_err(|error| match error {
        ServeError::Settings(
            SettingsError::NoHmacSecret | SettingsError::KeySet { .. } | SettingsError::KeySource { .. },
        )
        | ServeError::DenyFile(_) => Failure::unusable(error),
        error => Failure::failed(error),
    })
}

fn migrate_up(file: Option<PathBuf>, database: Option<String>) -> Result<(), Failure> {
    let from_environment = || ["DB_DSN", "DSN"].iter().find_map(|name| std::env::var(name).ok());
    let dsn = match database.or_else(from_environment) {
        Some(dsn) => dsn.into(),
        None => {
            let loaded = config::load_without_admin(file.as_deref(), std::env::vars());
            loaded.map_err(Failure::unusable)?.config.db.dsn
        }
    };
    let version = block_on(Store::migrate_up(dsn.expose()))?.map_err(Failure::failed)?;
    println!("the schema is at version {version}");
    Ok(())
}

fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(Failure::failed)?.block_on(future))
}
