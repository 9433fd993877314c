//! The load generator. Each run is one round against one server; `loadtest/run` compares many.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "measures with the real clock, outside of the process under test"
)]

mod admin;
mod baseline;
mod check;
mod check_response;
mod edge;
mod http;
mod import;
mod key_file;
mod message;
mod open_loop;
mod process;
mod request;
mod startup;
mod stats;
mod target;
mod workload;
mod writes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Puts load on a server and prints the result: one JSON object on stdout.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends Checks as Envoy does.
    Check(check::Options),
    /// Sends HTTP requests through Envoy.
    Edge(edge::Options),
    /// Calls operations of the admin plane.
    Admin(admin::Options),
    /// Changes keys of many networks.
    Writes(writes::Options),
    /// Issues keys and writes them to a file.
    Keys(key_file::Options),
    /// Imports many keys and writes some of them to a file.
    Import(import::Options),
    /// Writes the message of a Check to a file.
    Message(message::Options),
    /// Reads keys from Redis or a database without Talos.
    Bare(baseline::Options),
    /// Starts a server and measures the time until its first answer.
    Start(startup::Options),
}

/// Error of a round.
pub type LoadError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let local = tokio::task::LocalSet::new();
    let round = local.run_until(async {
        match Options::parse().command {
            Command::Check(options) => check::run(options).await,
            Command::Edge(options) => edge::run(options).await,
            Command::Admin(options) => admin::run(options).await,
            Command::Writes(options) => writes::run(options).await,
            Command::Keys(options) => key_file::run(options).await,
            Command::Import(options) => import::run(options).await,
            Command::Message(options) => message::run(&options),
            Command::Bare(options) => baseline::run(options).await,
            Command::Start(options) => startup::run(options).await,
        }
    });
    match round.await {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
