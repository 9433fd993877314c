//! The load generator. Each call of it is one round against one server; `loadtest/run` makes a comparison of many.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "measures the real clock, from outside of the process under test"
)]

mod admin;
mod answer;
mod bare;
mod check;
mod edge;
mod http;
mod import;
mod keys;
mod message;
mod mix;
mod outcome;
mod pace;
mod process;
mod request;
mod start;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Puts load on a server and says how it bore it: one JSON object on stdout.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks, as Envoy sends them.
    Check(check::Options),
    /// HTTP requests through Envoy.
    Edge(edge::Options),
    /// Operations of the admin plane.
    Admin(admin::Options),
    /// Issues keys and writes them to a file.
    Keys(keys::Options),
    /// Imports many keys, and writes some of them to a file.
    Import(import::Options),
    /// Writes the message of a Check to a file.
    Message(message::Options),
    /// Reads from a tier without Talos.
    Bare(bare::Options),
    /// Starts a server, and tells how long it took to its first answer.
    Start(start::Options),
}

/// Why a round could not be made.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let local = tokio::task::LocalSet::new();
    let done = local.run_until(async {
        match Options::parse().command {
            Command::Check(options) => check::run(options).await,
            Command::Edge(options) => edge::run(options).await,
            Command::Admin(options) => admin::run(options).await,
            Command::Keys(options) => keys::run(options).await,
            Command::Import(options) => import::run(options).await,
            Command::Message(options) => message::run(&options),
            Command::Bare(options) => bare::run(options).await,
            Command::Start(options) => start::run(options).await,
        }
    });
    match done.await {
        Ok(outcome) => {
            println!("{outcome}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
