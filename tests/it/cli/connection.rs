//! The commands against servers that are secured or have several networks, and contexts.

use serde_json::json;

use super::Ran;
use crate::rig::authority::{Authority, uri};
use crate::rig::http::{Call, Version};
use crate::rig::process::free_port;
use crate::rig::support::Must;
use crate::rig::talos::{JWKS, Setup};

/// Runs `talos` with a line of arguments.
async fn run(setup: &Setup, line: &str) -> Ran {
    Ran::from(setup.run(&line.split_whitespace().collect::<Vec<_>>()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_managed_with_a_client_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let setup = Setup::new()
        .tls("HTTP", &authority.issue("localhost", 2100))
        .client_ca("HTTP", &clients)
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "mtls")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "spiffe://test/admin");
    let talos = setup
        .start_until(async |talos| {
            let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
            ready.is_ok_and(|reply| reply.status == 200)
        })
        .await;
    let cli = Setup::bare();
    let (certificate, key) = clients.client(vec![uri("spiffe://test/admin")], 2100);
    for (file, pem) in [("ca.pem", authority.pem()), ("me.pem", certificate), ("me.key", key)] {
        std::fs::write(cli.path(file), pem).must("writing a PEM file");
    }
    let endpoint = talos.admin.url("").replace("http://", "https://").replace("127.0.0.1", "localhost");
    let issue = format!("keys issue first --actor me -q -e {endpoint}");
    let ran = run(&cli, &issue).await.expect(69);
    assert!(ran.stderr.contains("--ca-cert"), "{}", ran.stderr);
    let ran = run(&cli, &format!("{issue} --ca-cert ca.pem")).await.expect(69);
    assert!(ran.stderr.contains("--client-cert"), "{}", ran.stderr);
    let all = format!("{issue} --ca-cert ca.pem --client-cert me.pem --client-key me.key");
    assert!(!run(&cli, &all).await.captured().is_empty());
    run(&cli, &format!("{issue} --client-cert me.pem")).await.expect(64);
    let (_, other) = clients.client(vec![uri("spiffe://test/admin")], 2100);
    std::fs::write(cli.path("other.key"), other).must("writing a PEM file");
    let ran = run(&cli, &all.replace("me.key", "other.key")).await.expect(64);
    assert!(ran.stderr.contains("--client-key: is not the private key"), "{}", ran.stderr);
    run(&cli, &format!("{issue} --ca-cert me.key")).await.expect(64);
    run(&cli, &format!("{issue} --ca-cert nonesuch.pem")).await.expect(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_managed_with_a_bearer_token() {
    let provider = Setup::new().set("TALOS_CREDENTIALS_ISSUER", "https://provider.test").start().await;
    let setup = Setup::new();
    let published = setup.path("provider.json");
    std::fs::write(&published, provider.public.get(JWKS).await.expect(200).text()).must("writing a key set");
    let talos = setup
        .set("TALOS_SERVE_HTTP_AUTH_MODE", "jwt")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_ISSUER", "https://provider.test")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_AUDIENCE", "talos-admin")
        .set("TALOS_SERVE_HTTP_AUTH_JWT_JWKS", &format!("file://{}", published.display()))
        .set("TALOS_SERVE_HTTP_AUTH_JWT_CLAIM", "groups")
        .set("TALOS_SERVE_HTTP_AUTH_ROLES_ADMIN", "operators")
        .start()
        .await;
    let key = provider.issue(json!({})).await;
    let claims = json!({ "custom_claims": { "groups": "operators" }, "audiences": ["talos-admin"] });
    let token = provider.derive(&key, claims).await;
    let cli = Setup::bare().set("TALOS_ENDPOINT", &talos.admin.url(""));
    std::fs::write(cli.path("token"), format!("{token}\n")).must("writing a token");
    let ran = run(&cli, "keys issued list").await.expect(1);
    assert!(ran.stderr.trim_end().ends_with("authenticate with --client-cert or --token-file"), "{ran:?}");
    run(&cli, "keys issued list --token-file token").await.ok();
    run(&cli, &format!("keys issued list --token {token}")).await.ok();
    let ran = run(&cli, "keys issued list --token s3cret").await.expect(1);
    assert!(ran.stderr.contains("UNAUTHORIZED") && !ran.stderr.contains("s3cret"), "{ran:?}");
    run(&cli, "keys issued list --token a --token-file token").await.expect(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_managed_over_a_unix_socket() {
    let setup = Setup::new();
    let socket = setup.path("admin.sock");
    let talos = setup.set("TALOS_SERVE_HTTP_SOCKET", &socket.display().to_string()).start().await;
    let cli = Setup::bare();
    let endpoint = format!("unix://{}", socket.display());
    let secret = run(&cli, &format!("keys issue first --actor me -q -e {endpoint}")).await.captured();
    assert_eq!(talos.verify(&secret).await["is_valid"], true);
    let nowhere = format!("unix://{}", cli.path("nonesuch.sock").display());
    let ran = run(&cli, &format!("keys issued list -e {nowhere}")).await.expect(69);
    assert!(ran.stderr.contains(&nowhere), "{}", ran.stderr);
    run(&cli, "keys issued list -e unix://relative.sock").await.expect(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_each_network_are_managed() {
    let networks = json!([
        { "hostname": "a.example", "id": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa" },
        { "hostname": "b.example", "id": "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb" },
    ]);
    let talos = Setup::new()
        .set("TALOS_MULTITENANCY_ENABLED", "true")
        .set("TALOS_MULTITENANCY_NETWORKS", &networks.to_string())
        .start()
        .await;
    let cli = Setup::bare().set("TALOS_ENDPOINT", &talos.admin.url(""));
    let issue = async |network: &str| {
        run(&cli, &format!("keys issue first --actor me -q --network {network}")).await.captured()
    };
    let (a, b) = (issue("a.example").await, issue("b.example").await);
    for (secret, network, code) in [(&a, "a.example", 0), (&b, "b.example", 0), (&a, "b.example", 2)] {
        run(&cli, &format!("keys verify {secret} --network {network}")).await.expect(code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_name_servers() {
    let (one, two) = (Setup::new().start().await, Setup::new().start().await);
    let cli = Setup::bare();
    let home = cli.path("config");
    let cli = cli.set("XDG_CONFIG_HOME", &home.display().to_string());
    assert_eq!(run(&cli, "context list -q").await.ok(), "");
    for (name, talos) in [("one", &one), ("two", &two)] {
        run(&cli, &format!("context set {name} --endpoint {}", talos.admin.url(""))).await.ok();
    }
    let issue =
        async |options: &str| run(&cli, &format!("keys issue k --actor a -q {options}")).await.captured();
    let (of_one, of_two) = (issue("").await, issue("--context two").await);
    assert_eq!(one.verify(&of_one).await["is_valid"], true);
    assert_eq!(two.verify(&of_two).await["is_valid"], true);
    run(&cli, "context use two").await.ok();
    assert_eq!(two.verify(&issue("").await).await["is_valid"], true);
    let listed = run(&cli, "context list -o json").await.json();
    assert_eq!(
        (listed["current"].as_str(), listed["contexts"].as_object().map(|all| all.len())),
        (Some("two"), Some(2))
    );

    // An endpoint that is given replaces the current context, but not one that is named.
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let away = cli.clone().set("TALOS_ENDPOINT", &nowhere);
    run(&away, "keys issued list").await.expect(69);
    run(&away, "keys issued list --context one").await.ok();
    run(&cli, &format!("keys issued list --context one -e {nowhere}")).await.expect(69);

    // The file holds no secret and is its owner's alone.
    run(&cli, "context set three --endpoint http://localhost --token s3cret").await.expect(64);
    run(&cli, "context set three --endpoint http://me:s3cret@localhost").await.expect(64);
    run(&cli, "context set three").await.expect(64);
    run(&cli, "context set three --endpoint localhost").await.expect(64);
    let file = home.join("talos/contexts.yaml");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).must("the file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    for line in ["context use nonesuch", "context delete nonesuch", "keys issued list --context nonesuch"] {
        let ran = run(&cli, line).await.expect(64);
        assert!(ran.stderr.contains("nonesuch"), "{}", ran.stderr);
    }
    run(&cli, "context delete two").await.ok();
    assert_eq!(run(&cli, "context list -q").await.ok(), "one\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_a_command() {
    let version = format!("talos {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&Setup::bare(), "version").await.ok(), version);
}

/// A person at a terminal sees that the command waits; a pipe sees nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_a_prompt_for_input() {
    let setup = Setup::bare();
    let script = format!(
        "import os, pty\n\
         pid, terminal = pty.fork()\n\
         if pid == 0: os.execv({0:?}, [{0:?}, 'keys', 'verify', '-', '-e', 'http://127.0.0.1:{1}'])\n\
         text = b''\n\
         while b'reading a credential from stdin' not in text: text += os.read(terminal, 1000)\n\
         os.write(terminal, b'key\\n\\x04')\n\
         os.waitpid(pid, 0)",
        env!("CARGO_BIN_EXE_talos"),
        free_port(),
    );
    let mut command = tokio::process::Command::from(setup.program("python3"));
    let status = command.args(["-c", &script]).status().await.must("python3");
    assert!(status.success(), "{status}");
}
