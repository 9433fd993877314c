//! Writes a CheckRequest to a file, for load generators without gRPC.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::LoadError;
use crate::key_file;
use crate::request::Requests;

/// Writes the gRPC message of a Check, including its prefix.
#[derive(Args)]
pub(crate) struct Options {
    /// File of keys; the message has the first one.
    #[arg(long)]
    keys: PathBuf,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

/// Writes the message.
pub(crate) fn run(options: &Options) -> Result<Value, LoadError> {
    let keys = key_file::read(&options.keys)?;
    let key = keys.first().ok_or("the file has no keys")?;
    let message = Requests::default().encode(&key.secret);
    std::fs::write(&options.out, &message)?;
    Ok(json!({ "bytes": message.len() }))
}
