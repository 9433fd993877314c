//! How long a server takes from its exec to its first right answer.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::answer::Answer;
use crate::check::{call, connect};
use crate::keys;
use crate::process;
use crate::request::Requests;
use crate::target::Target;

/// Longest time without a right answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_micros(500);

/// Starts a server and asks it until it answers.
#[derive(Args)]
pub struct Options {
    /// Where the server is going to listen.
    #[arg(long)]
    target: Target,
    /// Keys that it knows; the first one is asked for.
    #[arg(long)]
    keys: PathBuf,
    /// How long it may rest before its memory is looked at.
    #[arg(long, default_value_t = 2.0)]
    rest: f64,
    /// The server's command line.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// A process that ends with us.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it as the options say.
pub async fn run(options: Options) -> Result<Value, Failure> {
    let keys = keys::read(&options.keys)?;
    let key = keys.first().ok_or("no key")?;
    let message = Requests::default().with(&key.secret);
    let (program, arguments) = options.command.split_first().ok_or("no command")?;
    // What the server says is not ours: our own stdout is the result.
    let begun = Instant::now();
    let server = Server(Command::new(program).args(arguments).stdout(std::process::Stdio::null()).spawn()?);
    let mut listens = None;
    loop {
        if let Ok(sender) = connect(&options.target).await {
            listens.get_or_insert_with(|| begun.elapsed());
            if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, call(&sender, message.clone())).await
                && Answer::read(&answer).is_some_and(|answer| answer.passes() && answer.names(&key.id))
            {
                break;
            }
        }
        if begun.elapsed() > PATIENCE {
            return Err("the server gave no right answer".into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    let decided = begun.elapsed();
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
