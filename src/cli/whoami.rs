//! `talos whoami`: shows who the server takes the caller for.

use clap::Args;

use super::client::{Client, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::output::{Output, Table, View, cell, plain};

/// Number of operations in one line of the table.
const OPERATIONS_A_LINE: usize = 2;

/// Show who the server takes you for, and what you may do
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos whoami
  talos whoami --format jsonpath=role")]
pub(super) struct Whoami {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Box<Connection>,
}

impl Whoami {
    /// Runs the command against the server at `endpoint`, or the default one.
    ///
    /// # Errors
    /// Fails when the server is unreachable or answers with an error.
    pub(super) async fn run(&self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        let client = Client::new(&self.connection.server(endpoint)?)?;
        let body = client.send(Request::get("/v2alpha1/admin/whoami").expect(&["caller"])).await?;
        let fields = [
            ("CALLER", "caller"),
            ("VERIFIED", "is_verified"),
            ("BY", "proof"),
            ("AUTH MODE", "auth_mode"),
            ("ROLE", "role"),
            ("NETWORK", "network_id"),
        ];
        let mut fields = fields.map(|(name, field)| (name, cell(&body.value[field]))).to_vec();
        let networks = body.value["networks"].as_array().into_iter().flatten();
        let networks: Vec<String> = networks.map(|network| cell(&network["hostname"])).collect();
        if !networks.is_empty() {
            fields.push(("NETWORKS", networks.join(", ")));
        }
        // A few on each line, so that the table fits a terminal.
        let operations = body.value["operations"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, few) in operations.chunks(OPERATIONS_A_LINE).enumerate() {
            let names: Vec<String> = few.iter().map(cell).collect();
            fields.push((if index == 0 { "MAY" } else { "" }, names.join(", ")));
        }
        let quiet = vec![plain(&body.value["caller"])];
        self.output.print(&View { table: Table::Fields(fields), quiet, body })?;
        Ok(Outcome::Done)
    }
}
