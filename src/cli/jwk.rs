//! `talos jwk`: making the keys that sign derived tokens.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::credential::jwk::{NewKey, generate, without_private};
use crate::rng::Rng;

#[derive(Subcommand)]
pub enum Command {
    /// Make a key: Ed25519 for EdDSA, or RSA for RS256
    ///
    /// Example: talos jwk generate eddsa --kid prod-1 --jwks -o signing-key.jwks.json
    Generate(Generate),
}

#[derive(Args)]
pub struct Generate {
    /// The type of the key
    algorithm: Algorithm,
    /// Its id [default: its RFC 7638 thumbprint]
    #[arg(long)]
    kid: Option<String>,
    /// What it is for
    #[arg(long = "use", value_name = "USE", default_value = "sig")]
    usage: String,
    /// Write a key set with this key instead of the bare key
    #[arg(long)]
    jwks: bool,
    /// Leave the private half out
    #[arg(long)]
    public_only: bool,
    /// Size of an RSA key
    #[arg(long, default_value_t = 2048)]
    bits: u16,
    /// Write to a new file that only its owner can read [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Algorithm {
    Eddsa,
    Rsa,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// In words.
    pub fn run(self) -> Result<(), String> {
        let Self::Generate(options) = self;
        let new = match options.algorithm {
            Algorithm::Eddsa => NewKey::Ed25519,
            Algorithm::Rsa => NewKey::Rsa(options.bits),
        };
        let mut jwk = generate(new, options.kid.as_deref(), &Rng::system())?;
        jwk.insert("use".to_owned(), Value::String(options.usage));
        if options.public_only {
            without_private(&mut jwk);
        }
        let document = if options.jwks { json!({ "keys": [jwk] }) } else { Value::Object(jwk) };
        let text = Zeroizing::new(format!("{document:#}\n"));
        match options.output {
            Some(path) => write_private(&path, &text).map_err(|error| format!("{}: {error}", path.display())),
            None => std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("stdout: {error}")),
        }
    }
}

/// Makes a file for its owner alone; one that is there already isn't overwritten, as it may be the only copy of a key.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
