//! The command line: the real binary against a real server.

mod adopt;
mod changes;
mod connection;
mod credentials;
mod erase;
mod failures;
mod first_steps;
mod formats;
mod help;
mod imported;
mod init;
mod issued;
mod jwk;
mod list;
mod migrate;
mod suspend;

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt;

pub use help::shell;

use crate::rig::support::{Must, within};
use crate::rig::talos::{Setup, Talos};

/// A server, and commands that are sent to it.
pub struct Cli {
    pub talos: Talos,
    pub setup: Setup,
}

/// The outcome of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    pub async fn start() -> Cli {
        Cli::on(Setup::new()).await
    }

    pub async fn on(setup: Setup) -> Cli {
        let talos = setup.start().await;
        let setup = Setup::bare().set("TALOS_ENDPOINT", &talos.admin.url(""));
        Cli { talos, setup }
    }

    /// Runs `talos` with a command line that has no spaces within its words.
    pub async fn line(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>()).await
    }

    pub async fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.setup.run(arguments).await)
    }

    /// Runs a command with `stdin` as its input.
    pub async fn feed(&self, stdin: &str, arguments: &[&str]) -> Ran {
        let mut command = self.setup.program(env!("CARGO_BIN_EXE_talos"));
        command.args(arguments);
        feed(command, stdin).await
    }
}

/// Runs a program to its end with something on stdin.
pub async fn feed(command: Command, stdin: &str) -> Ran {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let what = format!("{command:?}");
    let mut child = command.spawn().must(&what);
    let mut pipe = child.stdin.take().must("a pipe to stdin");
    // A program that reads nothing has closed it by now: what it prints tells.
    let _ = pipe.write_all(stdin.as_bytes()).await;
    drop(pipe);
    Ran::from(within(&what, child.wait_with_output()).await.must(&what))
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).must("the output is UTF-8");
        Ran {
            code: output.status.code().must("an exit code"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Ran {
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// All of stdout, of a command that must have been done.
    #[track_caller]
    pub fn ok(self) -> String {
        self.expect(0).stdout
    }

    /// Returns the output that a script captures with `$(…)`.
    #[track_caller]
    pub fn captured(self) -> String {
        self.ok().trim_end_matches('\n').to_owned()
    }

    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).must("JSON on stdout")
    }

    /// The value of a line of a table of two columns.
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        let found = self.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
        found.must(&format!("{name} in {self:#?}")).trim()
    }
}
