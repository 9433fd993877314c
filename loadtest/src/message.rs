//! A CheckRequest in a file, for load generators that know nothing of gRPC.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::keys;
use crate::request::Requests;

/// Writes the gRPC message of a Check, its prefix included.
#[derive(Args)]
pub struct Options {
    /// Keys, the first of which the message has.
    #[arg(long)]
    keys: PathBuf,
    /// File to write it to.
    #[arg(long)]
    out: PathBuf,
}

/// Writes it as the options say.
pub fn run(options: &Options) -> Result<Value, Failure> {
    let keys = keys::read(&options.keys)?;
    let key = keys.first().ok_or("a file without a key")?;
    let message = Requests::default().with(&key.secret);
    std::fs::write(&options.out, &message)?;
    Ok(json!({ "bytes": message.len() }))
}
