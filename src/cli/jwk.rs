//! `talos jwk`: making keys, and fetching the public ones of a server.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::client::{Client, Request};
use super::exit::{Failure, Outcome};
use super::keys::view;
use super::output::{Format, Output, write_out};
use crate::credential::new_jwk::{Curve, NewKey, RsaAlgorithm, generate, without_private};
use crate::rng::Rng;

/// Of `talos jwk`.
pub const EXAMPLES: &str = "\
EXAMPLES:
  talos jwk generate eddsa --kid prod-1 --jwks -o signing-key.jwks.json
  talos jwk get -q";

const GENERATE_HELP: &str = "\
Talos itself signs with EdDSA (eddsa) and RS256 (rsa). The other types are for other programs of yours: a key set
with one of them can't be a signing key of this server.

EXAMPLES:
  talos jwk generate eddsa --kid prod-2 --jwks -o next-key.jwks.json
  talos jwk generate rsa --bits 3072 -o rsa-key.json";

#[derive(Subcommand)]
pub enum Command {
    /// Make a key
    #[command(after_help = GENERATE_HELP)]
    Generate {
        #[command(subcommand)]
        key: Generate,
    },
    Get(Get),
}

#[derive(Subcommand)]
pub enum Generate {
    /// Ed25519, for EdDSA: what to sign derived tokens with
    #[command(after_help = "\
EXAMPLES:
  talos jwk generate eddsa --jwks -o keys.jwks.json
  talos jwk generate eddsa --kid prod-3 -o prod-3.json")]
    Eddsa {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        half: Half,
    },
    /// RSA, for RS256: where the verifiers know no EdDSA
    #[command(after_help = "\
EXAMPLES:
  talos jwk generate rsa --jwks -o rsa.jwks.json
  talos jwk generate rsa --bits 4096 --alg PS256 --public-only -o rsa-public.json")]
    Rsa {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        half: Half,
        /// Its size: 2048, 3072, 4096 or 8192
        #[arg(long, default_value_t = 2048)]
        bits: u16,
        /// What it signs with; this server loads RS256 only
        #[arg(long, value_enum, default_value = "RS256")]
        alg: Alg,
    },
    /// Elliptic curve, for ECDSA; not for this server
    #[command(after_help = "\
EXAMPLES:
  talos jwk generate ecdsa -o ec-key.json
  talos jwk generate ecdsa --curve P-384 --kid ec-1 -o ec-p384.json")]
    Ecdsa {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        half: Half,
        /// The curve; it decides the algorithm: ES256, ES384 or ES512
        #[arg(long, value_enum, default_value = "P-256")]
        curve: NamedCurve,
    },
    /// A symmetric key, for HS256, HS384 or HS512 by its size; not for this server
    ///
    /// It is no value for secrets.hmac.current either: that is a plain text.
    #[command(after_help = "\
EXAMPLES:
  talos jwk generate hmac -o hmac-key.json
  talos jwk generate hmac --bits 256 --kid shared-1 -o hmac-256.json")]
    Hmac {
        #[command(flatten)]
        document: Document,
        /// Its size: 256 to 4096 in steps of 8
        #[arg(long, default_value_t = 512)]
        bits: u16,
    },
}

/// What is written, and where.
#[derive(Args)]
pub struct Document {
    /// Its id [default: its RFC 7638 thumbprint]
    #[arg(long)]
    kid: Option<String>,
    /// What it is for
    #[arg(long = "use", value_enum, value_name = "USE", default_value = "sig")]
    usage: Usage,
    /// Write a key set with this key instead of the bare key
    #[arg(long)]
    jwks: bool,
    /// Write to a new file that only its owner can read [default: stdout]
    ///
    /// A file that is there already is never overwritten: it may be the only copy of a key.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Which half of a key pair.
#[derive(Args)]
pub struct Half {
    /// Leave the private half out; nobody has it then
    #[arg(long)]
    public_only: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Usage {
    /// Signatures
    Sig,
    /// Encryption; this server passes such keys over
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
/// Keep them for 5 to 15 minutes, and fetch them anew when a token has an unknown kid.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES:
  talos jwk get
  talos jwk get -e http://localhost:4421 --format table
  talos jwk get -q")]
pub struct Get {
    /// table, json, json-pretty, yaml, jsonpath=PATH or jsonpointer=POINTER
    #[arg(long, value_name = "FORMAT", default_value = "json-pretty", value_parser = Format::parse)]
    format: Format,
    /// Print only the kids, one a line
    #[arg(short, long)]
    quiet: bool,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// When no key can be made or fetched.
    pub async fn run(self, endpoint: Option<&str>) -> Result<Outcome, Failure> {
        match self {
            Self::Generate { key } => key.run()?,
            Self::Get(get) => {
                let answer =
                    Client::new(endpoint)?.send(Request::get("/v2alpha1/derivedKeys/jwks.json")).await?;
                Output::new(get.format, get.quiet).print(&view::key_set(answer))?;
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
        let mut jwk = generate(new, document.kid.as_deref(), &Rng::system()).map_err(Failure::unusable)?;
        if matches!(document.usage, Usage::Enc) {
            // Its `alg` says how it signs.
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
            None => write_out(&text),
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
