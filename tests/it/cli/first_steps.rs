//! The first steps of somebody new: wrong endpoints, other programs' answers, closed streams, no
//! home. Each message says what is wrong and what to do.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::help::shell;
use super::{Cli, Ran, feed};
use crate::rig::support::Must;
use crate::rig::talos::Setup;

/// Runs a command against a server that gives one answer to everything.
async fn against(answer: &'static str, line: &str) -> Ran {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.must("a port");
    let port = listener.local_addr().must("its address").port();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.must("a connection");
            let mut buffer = vec![0; 65_536];
            stream.read(&mut buffer).await.must("a request");
            // The client may be gone before all is written.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let endpoint = format!("http://127.0.0.1:{port}");
    let words: Vec<&str> = line.split_whitespace().chain(["-e", &endpoint]).collect();
    let ran = Ran::from(Setup::bare().run(&words).await);
    server.abort();
    ran
}

macro_rules! answer {
    ($status:literal, $body:literal) => {
        concat!("HTTP/1.1 ", $status, "\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n", $body)
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_other_programs_are_told_with_a_cure() {
    for (given, code, output) in [
        (answer!("404 Not Found", "<html>nginx</html>"), 1, "is it the base URL of a Talos server?"),
        (answer!("200 OK", "<html>Login</html>"), 1, "is it the base URL of a Talos server?"),
        (answer!("200 OK", "{\"hello\":\"world\"}"), 1, "is it the base URL of a Talos server?"),
        (answer!("302 Found", ""), 1, "name the URL to which it leads"),
        (answer!("502 Bad Gateway", "<html>"), 1, "is `talos serve` running?"),
        (answer!("503 Service Unavailable", "upstream connect error"), 1, "is `talos serve` running?"),
        (answer!("403 Forbidden", "RBAC: access denied"), 1, "in front of the server refuses"),
        (answer!("413 Payload Too Large", "x"), 1, "takes less at once"),
        (answer!("400 Bad Request", "Client sent an HTTP request to an HTTPS server."), 1, "https://"),
        ("SSH-2.0-OpenSSH_9.6\r\n", 69, "https://"),
        ("", 69, "hung up"),
    ] {
        for line in
            ["keys list", "keys verify abc", "whoami", "keys issued get b2a748d2-4516-456f-8781-314b6a4507d0"]
        {
            let ran = against(given, line).await.expect(code);
            assert_eq!((ran.stdout.as_str(), ran.stderr.lines().count()), ("", 1), "{line}: {ran:?}");
            assert!(ran.stderr.contains(output), "{line}, {given:?}: {}", ran.stderr);
        }
    }
    // It is some server's health, but not this one's.
    let ran = against(answer!("200 OK", "{\"hello\":\"world\"}"), "health").await.expect(1);
    assert!(ran.stderr.contains("base URL"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_plane_is_told_apart() {
    let cli = Cli::start().await;
    let at = async |line: &str, endpoint: String| {
        let words: Vec<&str> = line.split_whitespace().chain(["-e", &endpoint]).collect();
        Ran::from(Setup::bare().run(&words).await)
    };
    let (admin, public) = (cli.talos.admin.url(""), cli.talos.public.url(""));
    for (line, endpoint) in [
        ("keys list", public.clone()),
        ("keys list", cli.talos.metrics.url("")),
        ("keys list", format!("{admin}/v2alpha1/admin")),
        ("status", admin.clone()),
        ("events tail", public),
    ] {
        let ran = at(line, endpoint).await.expect(1);
        assert_eq!(ran.stdout, "", "{line}");
        assert!(ran.stderr.contains("serve.http (port 4420)"), "{line}: {}", ran.stderr);
    }
    let ran = at("keys list", cli.talos.authz.url("")).await.expect(69);
    assert!(ran.stderr.contains("is for Envoy alone"), "{}", ran.stderr);
    let ran = at("keys list", "http://127.0.0.1:1".to_owned()).await.expect(69);
    assert!(ran.stderr.contains("start `talos serve`"), "{}", ran.stderr);
    let ran = at("keys list", "http://nonesuch.invalid".to_owned()).await.expect(69);
    assert!(ran.stderr.contains("check the host name"), "{}", ran.stderr);
    let ran = at("keys list", "localhost:4420".to_owned()).await.expect(64);
    assert!(ran.stderr.contains("as in http://localhost:4420"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_streams_are_no_panic() {
    let setup = Setup::bare();
    for (command, code) in [
        ("talos config check nonesuch.yaml", "64\n"),
        ("talos keys list -e http://127.0.0.1:1", "69\n"),
        ("talos keys isue", "64\n"),
        ("talos keys verify - <&-", "64\n"),
        ("talos config schema", ""),
        ("talos --help", ""),
    ] {
        let script = format!("set +x; : > code; ( {command} || echo $? > code ) 2>&1 | true; cat code");
        let ran = feed(shell(&setup), &script).await.expect(0);
        assert_eq!(ran.stdout, code, "{command}: {ran:?}");
    }
    for closed in ["<&-", ">&-", "2>&-"] {
        let script = format!("talos config check - {closed}");
        let ran = feed(shell(&setup), &script).await.expect(0);
        assert!(!ran.stderr.contains("panicked"), "{closed}: {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_home_and_a_home_of_others_are_told() {
    let bare = || Setup::bare().unset("XDG_CONFIG_HOME");
    let set = ["context", "set", "a", "--endpoint", "http://localhost"];
    let ran = Ran::from(bare().unset("HOME").run(&set).await).expect(64);
    assert!(ran.stderr.contains("set HOME or XDG_CONFIG_HOME"), "{}", ran.stderr);
    let ran = Ran::from(bare().set("HOME", "/proc").run(&set).await).expect(1);
    assert!(ran.stderr.contains("set XDG_CONFIG_HOME to a directory"), "{}", ran.stderr);
    Ran::from(bare().unset("HOME").run(&["context", "list"]).await).expect(0);
    let home = bare();
    std::fs::create_dir_all(home.path(".config/talos")).must("a directory");
    std::fs::write(home.path(".config/talos/contexts.yaml"), "nonsense: [").must("a file");
    let directory = home.path("").display().to_string();
    let ran = Ran::from(home.set("HOME", &directory).run(&["keys", "list"]).await).expect(64);
    assert!(ran.stderr.contains("correct or delete the file"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_told_with_what_they_may_be() {
    let setup = Setup::bare();
    let ran = Ran::from(setup.run(&["migrate", "up", "--database", "sqlite://no/such.db"]).await).expect(1);
    assert!(ran.stderr.contains("there is no directory no: create it"), "{}", ran.stderr);
    let ran = Ran::from(setup.run(&["migrate", "status", "--database", "sqlite://none.db"]).await).expect(1);
    assert!(ran.stderr.contains("there is no file none.db: `talos migrate up` makes it"), "{}", ran.stderr);
    for (line, output) in [
        ("migrate force abc", "one of those that `talos migrate status` lists"),
        ("serve --port 4420", "settings are no options"),
        ("kyes list", "'keys'"),
        ("migrate status --database talos.db", "--database: must begin with sqlite://"),
        ("keys issue a --actor x --ttl 5", "needs a unit"),
        ("keys list --status foo", "must be active, revoked or expired"),
        ("jwk generate ed25519 --nonesuch", "--nonesuch"),
    ] {
        let ran = Ran::from(setup.run(&line.split_whitespace().collect::<Vec<_>>()).await).expect(64);
        assert!(ran.stderr.contains(output), "{line}: {}", ran.stderr);
    }
}

/// The table of whoami fits a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn whoami_says_what_the_caller_may_do() {
    let cli = Cli::start().await;
    let shown = cli.line("whoami").await.ok();
    let may = shown.lines().find(|line| line.starts_with("MAY ")).must(&shown).to_owned();
    assert!(may.contains("adminIssueApiKey"), "{may}");
    assert!(shown.contains("adminWhoami") && shown.lines().all(|line| line.len() <= 80), "{shown}");
}

/// Output for programs is the same in any terminal.
#[tokio::test(flavor = "multi_thread")]
async fn narrow_terminals_and_colours_change_no_value() {
    let cli = Cli::start().await;
    cli.line("keys issue a-name-that-is-quite-long-for-a-table --actor an-actor-that-is-long-too -q")
        .await
        .ok();
    let wide = cli.line("keys list").await.ok();
    for (variable, value) in [("COLUMNS", "20"), ("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR_FORCE", "1")]
    {
        let setup = cli.setup.clone().set(variable, value);
        let words = ["keys", "list", "-e", &cli.talos.admin.url("")];
        assert_eq!(Ran::from(setup.run(&words).await).ok(), wide, "{variable}");
    }
}

#[test]
fn a_closed_stdin_needs_no_terminal() {
    let setup = Setup::bare();
    let mut command = setup.program(env!("CARGO_BIN_EXE_talos"));
    let output = command.args(["keys", "verify", "-"]).stdin(Stdio::null()).output().must("running talos");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}
