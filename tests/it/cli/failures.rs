//! Failures of commands, and the exit codes that scripts see.

use std::net::TcpListener;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Cli, Ran};
use crate::rig::process::free_port;
use crate::rig::support::Must;
use crate::rig::talos::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_server_are_one_line() {
    let cli = Cli::start().await;
    for (line, output) in [
        ("keys issued get b2a748d2-4516-456f-8781-314b6a4507d0", "(API_KEY_NOT_FOUND, HTTP 404)"),
        ("keys issue a --actor a --scopes a,a", "(BAD_REQUEST, HTTP 400)"),
        ("keys issued list --page-token nonsense", "(BAD_REQUEST, HTTP 400)"),
        ("keys self-revoke nonsense", "(UNKNOWN_CREDENTIAL, HTTP 400)"),
        ("keys derive-token nonsense", "HTTP 401)"),
    ] {
        let ran = cli.line(line).await.expect(1);
        assert_eq!((ran.stdout.as_str(), ran.stderr.lines().count()), ("", 1), "{line}: {}", ran.stderr);
        assert!(
            ran.stderr.starts_with("talos: ") && ran.stderr.trim_end().ends_with(output),
            "{}",
            ran.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_exit_with_64_and_send_nothing() {
    // No server listens there, so a request that is sent would exit with 69.
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let setup = Setup::bare().set("TALOS_ENDPOINT", &nowhere);
    for line in [
        "keys",
        "keys nonesuch",
        "keys issue a",
        "keys issue a --actor a --ttl soon",
        "keys issue a --actor a --metadata []",
        "keys issue a --actor a --visibility hidden",
        "keys issue a --actor a --rate-limit-quota 5",
        "keys issue a --actor a --rate-limit-window 5s",
        "keys issued get ..",
        "keys issued get a/b",
        "keys issued update a",
        "keys issued update a --name b --update-mask scopes",
        "keys issued list --status dead",
        "keys issued list --actor a --filter b",
        "keys revoke a --reason bored",
        "keys imported import a --actor a",
        "keys imported batch-import",
        "keys imported batch-import nonesuch.json",
        "keys batch-verify",
        "keys batch-verify a -",
        "keys derive-token a --algorithm rot13",
        "keys issued list --format xml",
        "keys issued list --format jsonpath=",
        "keys issued list --format jsonpath=$[",
        "keys issued list -e localhost:4420",
        "jwk generate hmac --public-only",
        "jwk generate hmac --bits 100",
        "jwk generate rsa --bits 1024",
        "jwk generate ecdsa --curve P-192",
        "completions csh",
        "proxy --upstream http://talos:4420 --listen :9090",
    ] {
        let ran = Ran::from(setup.run(&line.split_whitespace().collect::<Vec<_>>()).await);
        assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{line}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_given_as_an_id_is_not_sent_and_not_repeated() {
    let setup = Setup::bare().set("TALOS_ENDPOINT", &format!("http://127.0.0.1:{}", free_port()));
    let ran = Ran::from(setup.run(&["keys", "revoke", "ory_ak_v1_s3cret_s3cret"]).await).expect(64);
    assert!(ran.stderr.contains("KEY_ID") && !ran.stderr.contains("s3cret"), "{}", ran.stderr);
    let ran = Ran::from(setup.run(&["keys", "issued", "list", "-e", "s3cret://a:s3cret@b"]).await).expect(64);
    assert!(ran.stderr.contains("--endpoint") && !ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_stdin_is_no_credential() {
    let cli = Cli::start().await;
    for stdin in ["", "\n"] {
        let ran = cli.feed(stdin, &["keys", "verify", "-"]).await.expect(64);
        assert!(ran.stderr.contains("stdin"), "{}", ran.stderr);
    }
    let ran = cli.feed("\n\n", &["keys", "batch-verify", "-"]).await.expect(64);
    assert!(ran.stderr.contains("one per line"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_exits_with_69() {
    let port = free_port();
    let ran = Ran::from(
        Setup::bare().run(&["jwk", "get", "-e", &format!("http://u:s3cret@127.0.0.1:{port}")]).await,
    );
    let ran = ran.expect(69);
    assert!(ran.stderr.contains(&format!("http://127.0.0.1:{port} gave no answer")), "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_of_other_servers_are_errors() {
    let html = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>";
    let gateway = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let elsewhere = "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for (answer, output) in [(html, "HTTP 200"), (gateway, "HTTP 502"), (elsewhere, "redirect")] {
        let listener = TcpListener::bind("127.0.0.1:0").must("a port");
        let port = listener.local_addr().must("its address").port();
        listener.set_nonblocking(true).must("a listener for tokio");
        let listener = tokio::net::TcpListener::from_std(listener).must("a listener for tokio");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.must("a connection");
            let mut buffer = vec![0; 65_536];
            let read = stream.read(&mut buffer).await.must("a request");
            stream.write_all(answer.as_bytes()).await.must("answering");
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        let endpoint = format!("http://127.0.0.1:{port}/prefix/");
        // A proxy of the environment is passed by.
        let setup =
            Setup::bare().set("http_proxy", "http://127.0.0.1:1").set("HTTP_PROXY", "http://127.0.0.1:1");
        let ran = Ran::from(setup.run(&["keys", "verify", "s3cret", "-e", &endpoint]).await).expect(1);
        assert!(ran.stderr.contains(output) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        let request = server.await.must("the server");
        let line = "POST /prefix/v2alpha1/admin/apiKeys:verify?charge=false HTTP/1.1";
        assert!(request.starts_with(line), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_is_the_option_then_the_variable() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({})).await;
    let wrong = format!("http://127.0.0.1:{}", free_port());
    let right = cli.talos.admin.url("/");
    let get = ["keys", "issued", "get", key.id.as_str(), "-q", "-e", right.as_str()];
    let setup = Setup::bare().set("TALOS_ENDPOINT", &wrong);
    assert_eq!(Ran::from(setup.run(&get).await).captured(), key.id);
    // Ory's commands take it before the subcommand as well.
    let get = ["-e", right.as_str(), "keys", "issued", "get", key.id.as_str(), "-q"];
    assert_eq!(Ran::from(setup.run(&get).await).captured(), key.id);
    Ran::from(setup.run(&get[2..]).await).expect(69);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_command_names_its_replacement() {
    let ran = Ran::from(Setup::bare().run(&["proxy", "--upstream", "http://talos:4420"]).await).expect(64);
    assert!(ran.stderr.contains("talos serve authz"), "{}", ran.stderr);
}
