//! The help of every command, and that what it shows as an example works.

use serde_json::json;

use super::{Cli, Ran, feed};
use crate::rig::support::Must;
use crate::rig::talos::Setup;

/// Commands whose examples would serve for ever, or say what to do instead.
const NOT_RUN: [&str; 3] = ["", "serve", "proxy"];

/// The help of a command.
async fn help(path: &[String]) -> String {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    Ran::from(Setup::bare().run(&arguments).await).ok()
}

/// Every command that there is, by its words.
async fn commands() -> Vec<Vec<String>> {
    let mut found = vec![vec![]];
    let mut at = 0;
    while at < found.len() {
        let path = found[at].clone();
        let text = help(&path).await;
        let listed = text.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
        for line in listed.unwrap_or_default().lines() {
            let name = line.split_whitespace().next().must("the name of a command");
            if line.starts_with("  ") && !line.starts_with("   ") && name != "help" {
                found.push(path.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
        at += 1;
    }
    found
}

#[track_caller]
fn examples(text: &str) -> Vec<&str> {
    let block = text.split("\nEXAMPLES:\n").nth(1).must(&format!("EXAMPLES in\n{text}"));
    let lines = block.lines().take_while(|line| line.starts_with("  ")).map(str::trim).collect::<Vec<_>>();
    assert!(!lines.is_empty(), "no example in\n{text}");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_examples() {
    let commands = commands().await;
    assert!(commands.len() > 35, "{commands:?}");
    for path in &commands {
        let text = help(path).await;
        let name = path.join(" ");
        let lines = examples(&text);
        let shows_itself = lines.iter().any(|line| line.contains(&format!("talos {name}")));
        assert!(shows_itself || name == "proxy", "talos {name}: {lines:?}");
    }
    for name in NOT_RUN {
        assert!(commands.iter().any(|path| path.join(" ") == name), "{name} is no command");
    }
}

/// Runs the examples of a command with all that they name at hand.
async fn run_examples(cli: &Cli, path: &[String]) {
    let name = path.join(" ");
    let (key, other) = (cli.talos.issue(json!({ "scopes": ["orders:read"] })), cli.talos.issue(json!({})));
    let (key, other) = tokio::join!(key, other);
    let imported = cli.talos.import(&format!("imported for {name}"), json!({})).await;
    let dir = cli.setup.path(&name.replace(' ', "-"));
    std::fs::create_dir(&dir).must("a directory for the examples");

    let text = help(path).await;
    let script: String = examples(&text).iter().map(|line| format!("{line}\n")).collect();
    let script = script
        .replace("http://localhost:4420", &cli.talos.admin.url(""))
        .replace("http://localhost:4421", &cli.talos.public.url(""))
        .replace("http://localhost:4422", &cli.talos.metrics.url(""));
    // A database that has a schema and no key, and an audit log that has no line.
    let prelude = "talos migrate up --database sqlite://talos.db\n: > audit.jsonl\n";
    let script = format!("{prelude}{script}");
    let mut shell = shell(&cli.setup);
    shell.current_dir(&dir);
    for (variable, value) in [
        ("KEY_ID", key.id.as_str()),
        ("SECRET", &key.secret),
        ("OTHER_KEY_ID", &other.id),
        ("OTHER_SECRET", &other.secret),
        ("IMPORTED_KEY_ID", &imported.id),
        ("LEGACY_KEY", &format!("legacy for {name}")),
        ("OTHER_LEGACY_KEY", &format!("other legacy for {name}")),
        ("SOME_KEY", &format!("hashed for {name}")),
    ] {
        shell.env(variable, value);
    }
    let ran = feed(shell, &script).await;
    assert_eq!(ran.code, 0, "talos {name}:\n{script}\n{ran:#?}");
}

/// `sh` that reads a script from stdin, stops at the first failure, and finds our `talos`.
pub fn shell(setup: &Setup) -> std::process::Command {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_talos"));
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let directories = binary.parent().map(Into::into).into_iter().chain(std::env::split_paths(&directories));
    let mut shell = setup.program("sh");
    shell.args(["-eux", "-s"]).env("PATH", std::env::join_paths(directories).must("a PATH"));
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_works() {
    let cli = Cli::start().await;
    for path in commands().await {
        let name = path.join(" ");
        if !NOT_RUN.contains(&name.as_str()) {
            run_examples(&cli, &path).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = Ran::from(Setup::bare().run(&["completions", shell]).await).ok();
        for word in ["derive-token", "batch-import", "rotate", "jsonpointer"] {
            // Only some show a help text beside the word.
            let is_there = script.contains(word) || (word == "jsonpointer" && shell == "bash");
            assert!(is_there, "{word} for {shell}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_error() {
    let setup = Setup::bare();
    let ran = feed(shell(&setup), "talos completions zsh | head -1\n").await.expect(0);
    assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
}
