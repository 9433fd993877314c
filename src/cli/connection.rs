//! Options that say which server a command calls and how it authenticates there.

use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::client::has_user;
use super::contexts::{Context, Contexts};
use super::exit::Failure;
use super::input;
use super::server::Server;
use crate::secret::SecretString;

/// URL of the admin plane when nothing else names one.
const DEFAULT_ENDPOINT: &str = "http://localhost:4420";
/// Environment variable that names the server's base URL.
const ENDPOINT_ENV: &str = "TALOS_ENDPOINT";
/// Largest certificate, key or token file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Options of a connection to a server.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Connection options")]
pub(super) struct Connection {
    /// Use this context of `talos context list` instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Verify the server with the CA certificates in this PEM file [default: those of the system]
    #[arg(long, global = true, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// Authenticate with the client certificate in this PEM file
    #[arg(long, global = true, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Private key of --client-cert, a PEM file
    #[arg(long, global = true, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// Authenticate with this bearer token; prefer --token-file, as all users see arguments
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        conflicts_with = "token_file",
        allow_hyphen_values = true
    )]
    token: Option<SecretString>,
    /// Authenticate with the bearer token in this file
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Host name of the network to use, when the server has several
    #[arg(long, global = true, value_name = "HOST")]
    network: Option<String>,
}

impl Connection {
    /// Returns the host name of the network, if the options name one.
    pub(super) fn network(&self) -> Option<&str> {
        self.network.as_deref()
    }

    /// Returns the server to call: each option, else the context's value.
    ///
    /// The context is that of `--context`, else the current one. An endpoint that is given by
    /// `--endpoint` or the environment replaces the current context as a whole, so that its
    /// credentials aren't sent to another server.
    ///
    /// # Errors
    /// Fails when a file can't be read, or there is no such context.
    pub(super) fn server(&self, endpoint: Option<&str>) -> Result<Server, Failure> {
        let from_environment = std::env::var(ENDPOINT_ENV).ok().filter(|value| !value.is_empty());
        let endpoint = endpoint.map(str::to_owned);
        let context = match (&self.context, &endpoint, &from_environment) {
            (None, Some(_), _) | (None, None, Some(_)) => Context::default(),
            (name, ..) => Contexts::load()?.find(name.as_deref())?.cloned().unwrap_or_default(),
        };
        let of_context = Some(context.endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
        let endpoint = match self.context {
            Some(_) => endpoint.or(of_context),
            None => endpoint.or(from_environment).or(of_context),
        };
        self.with_context(endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()), &context)
    }

    /// Returns a server at a fixed endpoint, without a context.
    ///
    /// # Errors
    /// Fails when a file can't be read.
    pub(super) fn server_at(&self, endpoint: &str) -> Result<Server, Failure> {
        self.with_context(endpoint.to_owned(), &Context::default())
    }

    fn with_context(&self, endpoint: String, context: &Context) -> Result<Server, Failure> {
        let or = |option: &Option<PathBuf>, context: &Option<PathBuf>| option.clone().or(context.clone());
        let ca_cert = match or(&self.ca_cert, &context.ca_cert) {
            Some(path) => Some(read("--ca-cert", &path)?.as_bytes().to_vec()),
            None => None,
        };
        let certificate = or(&self.client_cert, &context.client_cert);
        let key = or(&self.client_key, &context.client_key);
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let certificate = read("--client-cert", &certificate)?;
                let key = read("--client-key", &key)?;
                Some(Zeroizing::new([certificate.as_bytes(), b"\n", key.as_bytes()].concat()))
            }
            (None, None) => None,
            (Some(_), None) => return Err(Failure::usage("--client-cert needs --client-key")),
            (None, Some(_)) => return Err(Failure::usage("--client-key needs --client-cert")),
        };
        let token = match (&self.token, or(&self.token_file, &context.token_file)) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => {
                let text = read("--token-file", &path)?;
                match text.trim() {
                    "" => return Err(Failure::usage(format!("--token-file: {}: is empty", path.display()))),
                    token => Some(token.into()),
                }
            }
            (None, None) => None,
        };
        let network = self.network.clone().or(context.network.clone());
        Ok(Server { endpoint, ca_cert, identity, token, network })
    }

    /// Returns the options as a context, which refers to files and holds no secret.
    ///
    /// # Errors
    /// Fails when a token is given by itself, or a path is relative and can't be resolved.
    pub(super) fn to_context(&self, endpoint: String) -> Result<Context, Failure> {
        if self.token.is_some() {
            return Err(Failure::usage("--token: a context holds no secrets; use --token-file"));
        }
        if has_user(&endpoint) {
            let problem =
                "--endpoint: a context holds no secrets; leave out user and password, and use --token-file";
            return Err(Failure::usage(problem));
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err(Failure::usage("--client-cert and --client-key need each other"));
        }
        let absolute = |path: &Option<PathBuf>| match path {
            Some(path) => std::path::absolute(path)
                .map(Some)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display()))),
            None => Ok(None),
        };
        Ok(Context {
            endpoint,
            ca_cert: absolute(&self.ca_cert)?,
            client_cert: absolute(&self.client_cert)?,
            client_key: absolute(&self.client_key)?,
            token_file: absolute(&self.token_file)?,
            network: self.network.clone(),
        })
    }
}

fn read(option: &str, path: &Path) -> Result<Zeroizing<String>, Failure> {
    input::read_file(path, MAX_FILE_BYTES).map_err(|error| error.in_option(option))
}
