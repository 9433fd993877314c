//! `talos events tail`.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::{back_up, restore};
use crate::cli::Cli;
use crate::rig::support::{Json, Must, within};
use crate::rig::talos::Setup;

/// A running command, and its lines.
struct Tail {
    child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(setup: &Setup, arguments: &[&str]) -> Tail {
        let mut command = Command::from(setup.program(env!("CARGO_BIN_EXE_talos")));
        command.args(["events", "tail"]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().must("starting talos events tail");
        let stdout = child.stdout.take().must("its stdout");
        Tail { child, lines: BufReader::new(stdout).lines() }
    }

    async fn line(&mut self) -> String {
        let line = within("a line", self.lines.next_line()).await.must("stdout");
        line.must("a line before the end")
    }

    async fn event(&mut self) -> Value {
        serde_json::from_str(&self.line().await).must("JSON")
    }

    /// Ends it by a signal; returns its exit code and what it wrote to stderr.
    async fn end(self, signal: Option<Signal>) -> (i32, String) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32)).must("its id");
        if let Some(signal) = signal {
            kill_process(pid, signal).must("a signal");
        }
        let received = within("its end", self.child.wait_with_output()).await.must("its end");
        let stderr = String::from_utf8_lossy(&received.stderr).into_owned();
        (received.status.code().must("an exit code"), stderr)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tailing_survives_a_restart_of_the_server_and_ends_by_ctrl_c() {
    let port = crate::rig::process::free_port().to_string();
    let mut cli = Cli::on(Setup::new().set("TALOS_SERVE_HTTP_PORT", &port)).await;
    let first = cli.talos.issue(json!({})).await;
    let mut tail = Tail::start(&cli.setup, &["--after", "oldest", "-o", "json"]);
    assert_eq!(tail.event().await.text("/subject"), first.id);
    cli.talos.process.kill();
    cli.talos = cli.talos.setup.clone().start().await;
    let second = cli.talos.issue(json!({ "name": "second" })).await;
    let received = tail.event().await;
    assert_eq!((received.text("/subject"), received.text("/type")), (&*second.id, "talos.key.issued"));
    let (code, stderr) = tail.end(Some(Signal::INT)).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("trying again"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_for_people() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "name": "backend", "actor_id": "user:1" })).await;
    let shown = cli.line("events tail --since 1h --no-follow").await.ok();
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["TIME", "EPOCH", "EVENT", "SUBJECT", "ACTOR", "CALLER", "CHANGES"]);
    assert_eq!(lines[1][1..6], ["1", "talos.key.issued", &*key.id, "user:1", "-"]);
    assert_eq!(lines[1][6], "name=backend", "{shown}");
    cli.line("events tail --since tomorrow").await.expect(64);
    cli.line("events tail --after 1 --since 1h").await.expect(64);
    cli.line("events tail --after x").await.expect(1);
    // From now: what was before isn't told.
    let shown = cli.line("events tail --no-follow -o json").await.ok();
    assert_eq!(shown, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_it_says_what_to_do() {
    let cli = Cli::on(Setup::new().set("TALOS_CONSISTENCY_POLL", "200ms")).await;
    cli.talos.issue(json!({})).await;
    back_up(&cli.talos.setup);
    let lost = cli.talos.issue(json!({})).await;
    let mut tail = Tail::start(&cli.setup, &["--after", "1", "-o", "json"]);
    assert_eq!(tail.event().await.text("/subject"), lost.id);
    restore(&cli.talos.setup);
    let (code, stderr) = tail.end(None).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("rewritten") && stderr.contains("Read the keys anew"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_what_is_kept_is_an_error_that_says_what_to_do() {
    let cli = Cli::start().await;
    let keys = [cli.talos.issue(json!({})).await, cli.talos.issue(json!({})).await];
    cli.talos.setup.sql("DELETE FROM mutation_log WHERE n < 2");
    let ran = cli.line("events tail --since 24h --no-follow").await.expect(1);
    assert_eq!(ran.stdout, "");
    for words in ["no longer kept", "Read the keys anew", "talos events tail --after oldest"] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let kept = cli.line("events tail --after oldest --no-follow -o json").await.ok();
    assert!(kept.contains(&keys[1].id) && !kept.contains(&keys[0].id), "{kept}");
    let first: Value = serde_json::from_str(kept.lines().next().must("a line")).must("JSON");
    let from = format!("still kept, from {} on:", first.text("/time"));
    assert!(ran.stderr.contains(&from), "{from}: {}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_never_there_is_an_error() {
    let setup = Setup::bare().set("TALOS_ENDPOINT", "http://127.0.0.1:1");
    let ran = setup.run(&["events", "tail"]).await;
    assert_eq!(ran.status.code(), Some(69));
}
