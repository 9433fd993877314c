//! `talos jwk`: generates keys, and fetches the public keys of a server.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::client::{Client, Request};
use super::connection::Connection;
use super::exit::{Failure, Outcome};
use super::keys::view;
use super::output::{Format, Output, write_stdout};
use crate::credential::new_jwk::{Curve, NewKey, RsaAlgorithm, generate, without_private};
use crate::rng::Rng;

/// Examples in the help of `talos jwk`.
pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  talos jwk generate eddsa --kid prod-1 --jwks -o signing-key.jwks.json
  talos jwk get -q";

const GENERATE_HELP: &str = "\
This server signs with EdDSA (eddsa) or RS256 (rsa). The other types are for other programs: this server can't use
them as signing keys.

EXAMPLES:
  talos jwk generate eddsa --kid prod-2 --jwks -o next-key.jwks.json
  talos jwk generate rsa --bits 3072 -o rsa-key.json";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Generate a key
    #[command(after_help = GENERATE_HELP)]
    Generate {
        #[command(subcommand)]
        key: Generate,
    },
    Get(Get),
}

#[derive(Subcommand)]
pub(super) enum Generate {
    /// Ed25519 key for EdDSA: recommended for signing derived tokens
    #[command(
        alias = "ed25519",
        after_help = "\
EXAMPLES:
  talos jwk generate eddsa --jwks -o keys.jwks.json
  talos jwk generate eddsa --kid prod-3 -o prod-3.json"
    )]
    Eddsa {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        half: Half,
    },
    /// RSA key for RS256: for verifiers that don't support EdDSA
    #[command(after_help = "\
EXAMPLES:
  talos jwk generate rsa --jwks -o rsa.jwks.json
  talos jwk generate rsa --bits 4096 --alg PS256 --public-only -o rsa-public.json")]
    Rsa {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        half: Half,
        /// Key size: 2048, 3072, 4096 or 8192
        #[arg(long, default_value_t = 2048)]
        bits: u16,
        /// Signature algorithm; this server only loads RS256
        #[arg(long, value_enum, default_value = "RS256")]
        alg: Alg,
    },
    /// Elliptic curve key for ECDSA; not for this server
    #[command(after_help = "\
EXAMPLES:
  talos jwk generate ecdsa -o ec-key.json
  talos jwk generate ecdsa --curve P-384 --kid ec-1 -o ec-p384.json")]
    Ecdsa {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        half: Half,
        /// The curve, which determines the algorithm: ES256, ES384 or ES512
        #[arg(long, value_enum, default_value = "P-256")]
        curve: NamedCurve,
    },
    /// Symmetric key for HS256, HS384 or HS512, depending on its size; not for this server
    ///
    /// It is not a value for secrets.hmac.current, which is plain text.
    #[command(after_help = "\
EXAMPLES:
  talos jwk generate hmac -o hmac-key.json
  talos jwk generate hmac --bits 256 --kid shared-1 -o hmac-256.json")]
    Hmac {
        #[command(flatten)]
        document: Document,
        /// Key size in bits: 256 to 4096, a multiple of 8
        #[arg(long, default_value_t = 512)]
        bits: u16,
    },
}

/// Options for the generated document.
#[derive(Args)]
pub(super) struct Document {
    /// Key id [default: the RFC 7638 thumbprint]
    #[arg(long)]
    kid: Option<String>,
    /// Intended use of the key
    #[arg(long = "use", value_enum, value_name = "USE", default_value = "sig")]
    usage: Usage,
    /// Write a key set that holds the key, instead of the key itself
    #[arg(long)]
    jwks: bool,
    /// Write to a new file with permissions 0600 [default: stdout]
    ///
    /// An existing file is never overwritten, as it may hold the only copy of a key.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Option to omit the private half of a key pair.
#[derive(Args)]
pub(super) struct Half {
    /// Write only the public half; the private half is discarded
    #[arg(long)]
    public_only: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Usage {
    /// Signatures
    Sig,
    /// Encryption; this server ignores such keys
    Enc,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum NamedCurve {
    #[value(name = "P-256")]
    P256,
    #[value(name = "P-384")]
    P384,
    #[value(name = "P-521")]
    P521,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Alg {
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "RS384")]
    Rs384,
    #[value(name = "RS512")]
    Rs512,
    #[value(name = "PS256")]
    Ps256,
    #[value(name = "PS384")]
    Ps384,
    #[value(name = "PS512")]
    Ps512,
}

/// Fetch the public keys that verify derived tokens
///
/// Cache them for 5 to 15 minutes, and fetch them again when a token has an unknown kid.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos jwk get
  talos jwk get -e http://localhost:4421 --format table
  talos jwk get -q")]
pub(super) struct Get {
    /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "json-pretty", value_parser = Format::parse)]
    format: Format,
    /// Print only the kids, one per line
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connection: Box<Connection>,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Fails when no key can be generated or fetched.
    pub(super) async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        match self {
            Self::Generate { key } => key.run()?,
            Self::Get(get) => {
                let client = Client::new(&get.connection.server(endpoint)?)?;
                let response =
                    client.send(Request::get("/v2alpha1/derivedKeys/jwks.json").expect(&["keys"])).await?;
                Output::new(get.format, get.quiet).print(&view::key_set(response))?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Generate {
    fn run(self) -> Result<(), Failure> {
        let (new, document, public_only) = match self {
            Self::Eddsa { document, half } => (NewKey::Ed25519, document, half.public_only),
            Self::Rsa { document, half, bits, alg } => {
                (NewKey::Rsa { bits, algorithm: alg.into() }, document, half.public_only)
            }
            Self::Ecdsa { document, half, curve } => (NewKey::Ec(curve.into()), document, half.public_only),
            Self::Hmac { document, bits } => (NewKey::Symmetric { bits }, document, false),
        };
        let mut jwk = generate(new, document.kid.as_deref(), &Rng::system()).map_err(Failure::usage)?;
        if matches!(document.usage, Usage::Enc) {
            // `alg` names a signature algorithm.
            jwk.shift_remove("alg");
            jwk.insert("use".to_owned(), "enc".into());
        }
        if public_only {
            without_private(&mut jwk);
        }
        document.write(jwk)
    }
}

impl Document {
    fn write(&self, jwk: Map<String, Value>) -> Result<(), Failure> {
        let document = if self.jwks { json!({ "keys": [jwk] }) } else { Value::Object(jwk) };
        let text = Zeroizing::new(format!("{document:#}\n"));
        match &self.output {
            Some(path) => write_private(path, &text)
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display()))),
            None => write_stdout(&text),
        }
    }
}

/// Creates a file with permissions 0600.
///
/// An existing file isn't overwritten, as it may hold the only copy of a key.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

impl From<NamedCurve> for Curve {
    fn from(curve: NamedCurve) -> Self {
        match curve {
            NamedCurve::P256 => Self::P256,
            NamedCurve::P384 => Self::P384,
            NamedCurve::P521 => Self::P521,
        }
    }
}

impl From<Alg> for RsaAlgorithm {
    fn from(alg: Alg) -> Self {
        match alg {
            Alg::Rs256 => Self::Rs256,
            Alg::Rs384 => Self::Rs384,
            Alg::Rs512 => Self::Rs512,
            Alg::Ps256 => Self::Ps256,
            Alg::Ps384 => Self::Ps384,
            Alg::Ps512 => Self::Ps512,
        }
    }
}
