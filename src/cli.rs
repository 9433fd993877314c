//! The command line: its commands, and which module runs each.

mod audit;
mod client;
mod completions;
mod config;
mod connection;
mod context;
mod contexts;
mod doctor;
mod events;
mod exit;
mod health;
mod hints;
mod init;
mod input;
mod jsonpath;
mod jwk;
mod keys;
mod migrate;
mod output;
mod pages;
mod policy;
mod reference;
mod routes;
mod scopes;
mod server;
mod source;
mod status;
mod stderr;
mod usage;
mod whoami;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::app::{self, ServeError};
use crate::plane::{self, Planes};
use crate::store::StoreError;
use crate::telemetry;
use exit::{Failure, Outcome};

/// API keys at the Envoy edge: an ext_authz server with admin and public planes.
#[derive(Parser)]
#[command(name = "talos", version, about, after_help = format!("\
EXAMPLES:
  talos serve --config talos.yaml
  talos keys issue backend --actor user:42 --scopes orders:read
  printf %s \"$SECRET\" | talos keys verify -
  talos jwk generate eddsa --jwks -o signing-key.jwks.json

{}", exit::HELP))]
struct Cli {
    /// The configuration file (YAML); every key can also be set as TALOS_<PATH>
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Base URL of the server, or unix:// and the path of its socket, for keys and jwk get
    /// [default: $TALOS_ENDPOINT, the current context, http://localhost:4420]; for status: of its
    /// metrics listener [default: http://localhost:4422]
    ///
    /// $HTTP_PROXY is not used and redirects are not followed. An https:// server is verified with
    /// --ca-cert, the CA certificates in $SSL_CERT_FILE, or those of the system.
    #[arg(short, long, global = true, value_name = "URL")]
    endpoint: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: all planes, or only one of them (metrics are always served)
    #[command(after_help = "\
EXAMPLES:
  talos serve --config talos.yaml
  talos serve authz --config talos.yaml")]
    Serve {
        /// Serve only this plane
        plane: Option<Plane>,
    },
    Init(init::Init),
    Status(status::Status),
    Health(health::Health),
    Doctor(doctor::Doctor),
    /// Check or show the configuration, or print its schema
    #[command(after_help = config::EXAMPLES)]
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    Keys(Box<keys::Keys>),
    Actors(keys::actors::Actors),
    Usage(usage::Usage),
    Events(events::Events),
    Routes(routes::Routes),
    Whoami(whoami::Whoami),
    Policy(policy::Policy),
    Scopes(scopes::Scopes),
    /// Generate JSON Web Keys, or fetch the public keys of a server
    #[command(after_help = jwk::EXAMPLES)]
    Jwk {
        #[command(subcommand)]
        command: jwk::Command,
    },
    Migrate(migrate::Migrate),
    /// Verify the audit log, or repeat what a restored database lacks of it
    #[command(after_help = audit::EXAMPLES)]
    Audit {
        #[command(subcommand)]
        command: audit::Command,
    },
    /// Name servers and select the one that commands use
    #[command(after_help = context::EXAMPLES)]
    Context {
        #[command(subcommand)]
        command: context::Command,
    },
    Completions(completions::Completions),
    #[command(hide = true)]
    Reference(reference::Reference),
    /// Print the version
    #[command(after_help = "\
EXAMPLES:
  talos version")]
    Version,
    /// Removed: the authz plane (talos serve authz) replaces the proxy
    #[command(after_help = "\
EXAMPLES:
  talos serve authz --config talos.yaml")]
    Proxy {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Plane {
    /// Key management: issue, import, list, verify, derive, revoke
    Admin,
    /// selfRevoke and the public keys (JWKS)
    Public,
    /// Envoy's ext_authz over gRPC
    Authz,
}

/// Runs the command named by the process's arguments and returns its exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::report_clap_error(&error),
    };
    match cli.run() {
        Ok(outcome) => outcome.code(),
        Err(failure) => failure.report(),
    }
}

impl Cli {
    fn run(self) -> Result<Outcome, Failure> {
        let endpoint = self.endpoint.as_deref();
        match self.command {
            Command::Serve { plane } => serve(self.config, plane)?,
            Command::Keys(keys) => return block_on(keys.run(endpoint))?,
            Command::Actors(actors) => return block_on(actors.run(endpoint))?,
            Command::Usage(usage) => return block_on(usage.run(endpoint))?,
            Command::Events(events) => return block_on(events.run(endpoint))?,
            Command::Routes(routes) => return block_on(routes.run(endpoint))?,
            Command::Whoami(whoami) => return block_on(whoami.run(endpoint))?,
            Command::Policy(policy) => return block_on(policy.run(endpoint, self.config))?,
            Command::Scopes(scopes) => return block_on(scopes.run(endpoint))?,
            Command::Status(status) => return block_on(status.run(endpoint))?,
            Command::Doctor(doctor) => return block_on(doctor.run(self.config))?,
            Command::Jwk { command } => return block_on(command.run(endpoint))?,
            Command::Migrate(migrate) => return block_on(migrate.run(self.config.as_deref(), endpoint))?,
            Command::Audit { command } => return block_on(command.run(self.config.as_deref()))?,
            Command::Init(init) => init.run()?,
            Command::Config { command } => return command.run(self.config),
            Command::Context { command } => command.run(endpoint)?,
            Command::Completions(completions) => completions.run()?,
            Command::Reference(reference) => reference.run()?,
            Command::Health(health) => block_on(health.run(endpoint, self.config.as_deref()))??,
            Command::Version => output::write_stdout(&format!("talos {}\n", env!("CARGO_PKG_VERSION")))?,
            Command::Proxy { arguments: _ } => return Err(Failure::usage(PROXY_REMOVED)),
        }
        Ok(Outcome::Done)
    }
}

/// Error message of `talos proxy`, which Ory Talos has and this server replaces.
const PROXY_REMOVED: &str = "`talos proxy` does not exist here: run `talos serve authz` beside each Envoy and point its \
    ext_authz filter at it (docs/envoy.md). It caches verified keys in memory and receives \
    revocations. A client that verifies keys over HTTP calls the admin plane, which has its own cache.";

fn serve(file: Option<PathBuf>, plane: Option<Plane>) -> Result<(), Failure> {
    let source = source::source(file)?.for_planes(planes(plane));
    let loaded = source.load().map_err(Failure::usage)?;
    loaded.config.require_serving_secret().map_err(Failure::usage)?;
    telemetry::log::start(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    block_on(app::serve(source, loaded, planes(plane)))?.map_err(|error| match error {
        ServeError::Settings(_)
        | ServeError::Preflight(_)
        | ServeError::TemplateFile(_)
        | ServeError::Traces(_)
        | ServeError::Redis(_)
        | ServeError::Store(StoreError::Dsn(_))
        | ServeError::DenyFile(_)
        | ServeError::AdminJwks(_)
        | ServeError::Tls { .. } => Failure::usage(error),
        error => Failure::failed(error),
    })
}

/// The planes that a process serves.
fn planes(plane: Option<Plane>) -> Planes {
    match plane {
        None => Planes::All,
        Some(Plane::Admin) => Planes::Only(plane::Plane::Admin),
        Some(Plane::Public) => Planes::Only(plane::Plane::Public),
        Some(Plane::Authz) => Planes::Only(plane::Plane::Authz),
    }
}

fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::failed)?;
    let output = runtime.block_on(future);
    // Without waiting for blocking calls: a second signal ends the server at once, and a command
    // has its answer.
    runtime.shutdown_background();
    Ok(output)
}
