//! `talos health`: the health check of a container image without a shell.

use std::path::Path;

use clap::Args;

use super::client::{Client, ClientError, Request};
use super::connection::Connection;
use super::exit::Failure;
use super::output::write_stdout;
use super::source::source;

/// Tell by the exit code whether a server is ready: its database answers
///
/// Asks the metrics listener: -e is its base URL. Without -e it is the address in --config and the
/// environment, http://127.0.0.1:4422 by default, so that the command serves as the health check of
/// a container. The exit code is 0 if it is ready, 1 if not, and 69 if the server can't be reached.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos health -e http://localhost:4422
  talos health --alive -e http://localhost:4422")]
pub(super) struct Health {
    /// Ask only whether the process runs
    #[arg(long)]
    alive: bool,
    #[command(flatten)]
    connection: Box<Connection>,
}

impl Health {
    /// Runs the command. `file` is the configuration that `--config` names.
    ///
    /// # Errors
    /// Fails when the server isn't ready or can't be reached.
    pub(super) async fn run(&self, endpoint: Option<&str>, file: Option<&Path>) -> Result<(), Failure> {
        let endpoint = endpoint.map_or_else(|| listener(file), |endpoint| Ok(endpoint.to_owned()))?;
        let client = Client::new(&self.connection.server_at(&endpoint)?)?;
        let path = if self.alive { "/health/alive" } else { "/health/ready" };
        match client.send(Request::get(path).expect(&["status", "errors"])).await {
            Ok(_) => write_stdout("ok\n"),
            Err(ClientError::NotTalos { status: 503, .. }) => {
                Err(Failure::failed("not ready: the database doesn't answer, or the server is stopping"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the URL of the metrics listener that the configuration names.
fn listener(file: Option<&Path>) -> Result<String, Failure> {
    let loaded = source(file.map(Path::to_owned))?.without_admin().load().map_err(Failure::usage)?;
    let metrics = loaded.config.serve.metrics;
    let host = match metrics.host.as_str() {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" | "[::]" => "[::1]".to_owned(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let scheme = if metrics.tls.cert_file.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{host}:{}", metrics.port))
}
