//! Measures the time from the exec of a server to its first correct response.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::LoadError;
use crate::check::{call, connect};
use crate::check_response::CheckResponse;
use crate::key_file;
use crate::process;
use crate::request::Requests;
use crate::target::Target;

/// Timeout of the first correct response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_micros(500);

/// Starts a server and sends Checks until one is answered correctly.
#[derive(Args)]
pub(crate) struct Options {
    /// Address that the server will listen on.
    #[arg(long)]
    target: Target,
    /// File of keys; the first one is sent.
    #[arg(long)]
    keys: PathBuf,
    /// Idle time before its memory is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    rest: f64,
    /// The server's command line.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// A process that is killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the measurement.
pub(crate) async fn run(options: Options) -> Result<Value, LoadError> {
    let keys = key_file::read(&options.keys)?;
    let key = keys.first().ok_or("no key")?;
    let message = Requests::default().encode(&key.secret);
    let (program, arguments) = options.command.split_first().ok_or("no command")?;
    // The server's output is discarded: this process's stdout is the result.
    let started = Instant::now();
    let server = Server(Command::new(program).args(arguments).stdout(std::process::Stdio::null()).spawn()?);
    let mut listens = None;
    loop {
        if let Ok(sender) = connect(&options.target).await {
            listens.get_or_insert_with(|| started.elapsed());
            if let Ok(Ok(response)) =
                tokio::time::timeout(RESPONSE_TIMEOUT, call(&sender, message.clone())).await
                && CheckResponse::decode(&response)
                    .is_some_and(|response| response.is_allowed() && response.has_key_id(&key.id))
            {
                break;
            }
        }
        if started.elapsed() > RESPONSE_TIMEOUT {
            return Err("the server gave no correct response in time".into());
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    let decided = started.elapsed();
    let cpu = process::cpu(server.0.id());
    tokio::time::sleep(Duration::from_secs_f64(options.rest)).await;
    let resident = process::resident(server.0.id());
    Ok(json!({
        "listens_ms": listens.map(|time| time.as_secs_f64() * 1e3),
        "decided_ms": decided.as_secs_f64() * 1e3,
        "cpu_ms": cpu.map(|time| time.as_secs_f64() * 1e3),
        "resident": resident,
    }))
}
