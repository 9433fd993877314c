//! `talos init`: writes a configuration for production, with keys, into a new directory.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use zeroize::Zeroizing;

use super::exit::Failure;
use super::output::write_stdout;
use crate::credential::new_jwk::{NewKey, generate};
use crate::rng::Rng;
use crate::store::Store;

/// The configuration file, with names in braces for what is filled in.
const TALOS_YAML: &str = include_str!("init/talos.yaml");
/// Id of the first signing key.
const FIRST_KEY: &str = "key-1";

/// Characters of a path that stand for themselves in a URL.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Write a configuration for production into a new directory
///
/// Writes talos.yaml, with an explanation of each setting, new secrets and a new signing key, and
/// the configuration of Envoy, Istio or Envoy Gateway that goes with it. Nothing that exists is
/// written over. talos.yaml and the signing key are for their owner only (mode 0600).
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos init deployment --envoy --database sqlite
  talos config check deployment/talos.yaml
  talos init mesh --istio --database 'postgres://talos:PASSWORD@db.example/talos?sslmode=verify-full'")]
pub(super) struct Init {
    /// The directory, which must be new or empty
    directory: PathBuf,
    #[command(flatten)]
    edge: Edge,
    /// `sqlite` for a file in the directory, or the DSN of a database
    #[arg(long, value_name = "DSN", default_value = "sqlite")]
    database: String,
}

/// Proxy that asks Talos.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Edge {
    /// For a plain Envoy
    #[arg(long)]
    envoy: bool,
    /// For Istio
    #[arg(long)]
    istio: bool,
    /// For Envoy Gateway
    #[arg(long)]
    envoy_gateway: bool,
}

impl Edge {
    /// Host of the authz plane, and the files beside talos.yaml.
    fn files(&self) -> (&'static str, Vec<(&'static str, &'static str)>) {
        if self.istio {
            let files = vec![
                ("istio-talos.yaml", include_str!("../../envoy/istio/talos.yaml")),
                ("istio-gateway.yaml", include_str!("../../envoy/istio/gateway.yaml")),
                ("istio-mesh-config.yaml", include_str!("../../envoy/istio/mesh-config.yaml")),
            ];
            return ("0.0.0.0", files);
        }
        if self.envoy_gateway {
            let files = vec![
                ("envoy-gateway-talos.yaml", include_str!("../../envoy/envoy-gateway/talos.yaml")),
                ("envoy-gateway-gateway.yaml", include_str!("../../envoy/envoy-gateway/gateway.yaml")),
                ("envoy-gateway-patch.yaml", include_str!("../../envoy/envoy-gateway/patch.yaml")),
            ];
            return ("0.0.0.0", files);
        }
        ("127.0.0.1", vec![("envoy.yaml", include_str!("../../envoy/envoy.yaml"))])
    }
}

impl Init {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when the directory isn't empty or can't be written to, or the DSN is malformed.
    pub(super) fn run(self) -> Result<(), Failure> {
        let is_sqlite = self.database == "sqlite";
        if !is_sqlite {
            Store::check_dsn(&self.database)
                .map_err(|error| Failure::usage(error.to_string().replacen("db.dsn", "--database", 1)))?;
        }
        let directory = new_directory(&self.directory)?;
        let place = |name: &str| directory.join(name).display().to_string();
        let dsn = match is_sqlite {
            true => format!("sqlite://{}", utf8_percent_encode(&place("talos.db"), IN_PATH)),
            false => self.database.clone(),
        };
        let rng = Rng::system();
        let (authz_host, edge_files) = self.edge.files();
        let mut text = Zeroizing::new(TALOS_YAML.to_owned());
        for (name, value) in [
            ("{dsn}", quoted(&dsn)),
            ("{hmac}", secret(&rng)),
            ("{audit_key}", secret(&rng)),
            ("{audit_file}", quoted(&place("audit.jsonl"))),
            ("{signing_keys}", quoted(&format!("file://{}", place("signing-keys.json")))),
            ("{signing_key_id}", FIRST_KEY.to_owned()),
            ("{authz_host}", authz_host.to_owned()),
        ] {
            *text = text.replacen(name, &value, 1);
        }
        let key = generate(NewKey::Ed25519, Some(FIRST_KEY), &rng).map_err(Failure::failed)?;
        let keys = Zeroizing::new(format!("{:#}\n", json!({ "keys": [key] })));
        write_new(&directory.join("talos.yaml"), &text, 0o600)?;
        write_new(&directory.join("signing-keys.json"), &keys, 0o600)?;
        for (name, content) in &edge_files {
            write_new(&directory.join(name), content, 0o644)?;
        }
        let config = shell_quoted(&self.directory.join("talos.yaml"));
        let mut told = format!("wrote into {}: talos.yaml, signing-keys.json", self.directory.display());
        edge_files.iter().for_each(|(name, _)| told.push_str(&format!(", {name}")));
        told.push_str("\n\nnext:\n");
        if !is_sqlite {
            told.push_str(&format!("  talos migrate up --config {config}\n"));
        }
        told.push_str(&format!("  talos config check {config} --connect\n  talos serve --config {config}\n"));
        if self.edge.envoy {
            let envoy = shell_quoted(&self.directory.join("envoy.yaml"));
            told.push_str(&format!(
                "  envoy -c {envoy}   # first replace its cluster and routes by yours\n  talos doctor \
                 {envoy} --config {config}\n"
            ));
        } else {
            told.push_str("  put your names into the other files, then kubectl apply them\n");
        }
        write_stdout(&told)
    }
}

/// Creates the directory, or takes an empty one; returns its full path.
fn new_directory(directory: &Path) -> Result<PathBuf, Failure> {
    let fail = |problem: String| Failure::usage(format!("{}: {problem}", directory.display()));
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            if entries.count() > 0 {
                return Err(fail("is not empty; name a new directory".to_owned()));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let created = DirBuilder::new().mode(0o700).create(directory);
            created.map_err(|error| fail(format!("can't be created: {error}")))?;
        }
        Err(error) => return Err(fail(format!("can't be used: {error}"))),
    }
    let full = std::fs::canonicalize(directory).map_err(|error| fail(error.to_string()))?;
    match full.to_str() {
        Some(text) if !text.contains(['\n', '\r']) => Ok(full),
        _ => Err(fail("its full path must be UTF-8 text on one line".to_owned())),
    }
}

/// Writes a file that must not exist.
fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(content.as_bytes()));
    written.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// A new secret of 48 random bytes.
fn secret(rng: &Rng) -> String {
    let (a, b) = (rng.bytes::<32>(), rng.bytes::<16>());
    URL_SAFE_NO_PAD.encode([&a[..], &b[..]].concat())
}

/// A text in YAML's single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A path for a shell.
fn shell_quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if is_plain { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
