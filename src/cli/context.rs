//! `talos context`: names servers, and selects the one that commands use.

use clap::Subcommand;
use serde_json::json;

use super::client::{JsonBody, check_endpoint};
use super::connection::Connection;
use super::contexts::Contexts;
use super::exit::Failure;
use super::output::{Output, Table, View};

/// Examples in the help of `talos context`.
pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  talos context set prod --endpoint https://keys.example:4420 --token-file /run/secrets/talos-token
  talos context use prod
  talos context list";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add or replace a context; the first one becomes the current one
    ///
    /// The file holds paths of certificates, keys and tokens, never these themselves. It is
    /// talos/contexts.yaml in $XDG_CONFIG_HOME, by default ~/.config.
    #[command(after_help = "\
EXAMPLES:
  talos context set local --endpoint unix:///run/talos/admin.sock
  talos context set prod --endpoint https://keys.example:4420 --client-cert me.pem --client-key me.key")]
    Set {
        /// Name of the context
        name: String,
        #[command(flatten)]
        connection: Box<Connection>,
    },
    /// Select the context that commands use by default
    #[command(after_help = "\
EXAMPLES:
  talos context set prod --endpoint https://keys.example:4420
  talos context use prod")]
    Use {
        /// Name of the context
        name: String,
    },
    /// List the contexts
    #[command(after_help = "\
EXAMPLES:
  talos context list
  talos context list -o json")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Remove a context
    #[command(after_help = "\
EXAMPLES:
  talos context set old --endpoint http://localhost:4420
  talos context delete old")]
    Delete {
        /// Name of the context
        name: String,
    },
}

impl Command {
    /// Runs the command. `endpoint` is the value of `--endpoint`.
    ///
    /// # Errors
    /// Fails when there is no such context, or the file can't be read or written.
    pub(super) fn run(self, endpoint: Option<&str>) -> Result<(), Failure> {
        let mut contexts = Contexts::load()?;
        match self {
            Self::Set { name, connection } => {
                let Some(endpoint) = endpoint else {
                    return Err(Failure::usage("--endpoint is missing: give the server's base URL"));
                };
                check_endpoint(endpoint)?;
                let context = connection.to_context(endpoint.to_owned())?;
                contexts.contexts.insert(name.clone(), context);
                contexts.current.get_or_insert(name);
                contexts.save()
            }
            Self::Use { name } => {
                contexts.find(Some(&name))?;
                contexts.current = Some(name);
                contexts.save()
            }
            Self::List { output } => output.print(&view(&contexts)),
            Self::Delete { name } => {
                contexts.find(Some(&name))?;
                contexts.contexts.remove(&name);
                if contexts.current.as_ref() == Some(&name) {
                    contexts.current = None;
                }
                contexts.save()
            }
        }
    }
}

fn view(contexts: &Contexts) -> View {
    let is_current = |name: &String| contexts.current.as_ref() == Some(name);
    let rows = contexts.contexts.iter().map(|(name, context)| {
        let mark = if is_current(name) { "*" } else { "" };
        let network = context.network.clone().unwrap_or_default();
        vec![mark.to_owned(), name.clone(), context.endpoint.clone(), network]
    });
    let table = Table::Rows(vec!["CURRENT", "NAME", "ENDPOINT", "NETWORK"], rows.collect());
    let quiet = contexts.contexts.keys().cloned().collect();
    let body = json!({ "current": contexts.current, "contexts": contexts.contexts });
    View { body: JsonBody::from(body), table, quiet }
}
