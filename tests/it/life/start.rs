//! Starting, and refusing to start with an error that helps.

use std::net::TcpListener;

use futures_util::future::join_all;
use serde_json::json;

use crate::rig::grpc::{Grpc, Health};
use crate::rig::http::{Base, Call, Version};
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};
use crate::rig::talos::{HMAC_SECRET, JWKS, Setup};

const AUTHORIZATION: &str = "envoy.service.auth.v3.Authorization";

#[tokio::test(flavor = "multi_thread")]
async fn without_the_secret_it_says_so_and_ends() {
    let output = Setup::new().unset("TALOS_SECRETS_HMAC_CURRENT").refused().await;
    assert!(output.contains("project has no HMAC key configured"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_set_the_secret_is_what_it_names_first() {
    let output = Setup::bare().run(&["serve"]).await;
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code > 0), "{:?}: {message}", output.status);
    assert!(message.contains("project has no HMAC key configured"), "stderr: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_setting_is_named() {
    let cases = [
        ("TALOS_SECRETS_HMAC_CURRENT", "short", "secrets.hmac.current"),
        ("TALOS_CACHE_TTL", "banana", "cache.ttl"),
        ("TALOS_SERVE_PUBLIC_PORT", "65536", "serve.public.port"),
        ("TALOS_AUTHZ_ON_UNAVAILABLE", "allow", "authz.on_unavailable"),
        ("TALOS_DB_DSN", "nonsense", "db.dsn"),
        (
            "TALOS_CREDENTIALS_DERIVED_TOKENS_JWT_SIGNING_KEYS_URLS",
            "file:///nonesuch/keys.json",
            "signing_keys.urls",
        ),
    ];
    for (variable, value, key) in cases {
        let output = Setup::new().set(variable, value).refused().await;
        assert!(output.contains(key), "{variable}={value}: {output}");
        assert!(!output.contains("panicked"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_by_key() {
    let cases = [
        ("serve:\n  htpp:\n    port: 1\n", "htpp"),
        ("cache:\n  ttl: banana\n", "cache.ttl"),
        (
            "credentials:\n  api_keys:\n    prefix:\n      current: [a]\n",
            "credentials.api_keys.prefix.current",
        ),
        ("serve: [\n", "talos.yaml"),
    ];
    let setup = Setup::new();
    let file = setup.path("talos.yaml");
    for (text, key) in cases {
        std::fs::write(&file, text).must("writing a configuration");
        let output = setup.run(&["serve", "--config", &file.to_string_lossy()]).await;
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}: {message}");
        assert!(message.contains(key), "{text}: {message}");
    }
    let output = setup.run(&["serve", "--config", "nonesuch.yaml"]).await;
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("nonesuch.yaml"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_bind_fails_the_start() {
    for plane in ["http", "public", "metrics", "authz"] {
        let taken = TcpListener::bind("127.0.0.1:0").must("taking a port");
        let port = taken.local_addr().must("the taken address").port().to_string();
        let output =
            Setup::new().set(&format!("TALOS_SERVE_{}_PORT", plane.to_uppercase()), &port).refused().await;
        assert!(output.contains(&format!("serve.{plane}")), "{output}");
        assert!(output.contains(&port) && output.contains("in use"), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authz_plane_says_when_it_can_decide() {
    let talos = Setup::new().spawn();
    let authz = talos.authz;
    for service in ["", AUTHORIZATION] {
        until("the authz plane is healthy", async || {
            let grpc = Grpc::connect(authz).await.ok()?;
            match grpc.health(service).await.must("a health check") {
                Health::Serving => Some(()),
                Health::NotServing => None,
                other => panic!("{service:?} is {other}"),
            }
        })
        .await;
    }
    let grpc = talos.grpc().await;
    for service in ["", AUTHORIZATION] {
        assert_eq!(grpc.health(service).await, Ok(Health::Serving), "{service:?}");
    }
    assert_eq!(grpc.health("nonesuch").await, Ok(Health::Refused(5)), "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_can_be_migrated_first() {
    let setup = Setup::new();
    for _ in 0..2 {
        let output = setup.run(&["migrate", "up"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    assert_eq!(talos.verify(&key.secret).await["is_valid"], true);

    let file = setup.path("other.db");
    let dsn = format!("sqlite://{}", file.display());
    let without_secret = Setup::bare();
    let output = without_secret.run(&["migrate", "up", "--database", &dsn]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_at_once_on_a_new_file_all_find_its_whole_schema() {
    for _ in 0..3 {
        let setup = Setup::new();
        let processes = join_all((0..4).map(|_| setup.start())).await;
        let key = processes[0].issue(json!({})).await;
        for talos in &processes {
            assert_eq!(talos.verify(&key.secret).await["is_valid"], true);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_release_is_left_alone() {
    needs!(Python);
    let setup = Setup::new().sqlite();
    let output = setup.run(&["migrate", "up"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rig/newer_schema.py");
    crate::rig::python::run(&[script, &setup.path("talos.db").to_string_lossy()]).await;
    let message = setup.refused().await;
    assert!(message.to_lowercase().contains("schema"), "{message}");
    let output = setup.run(&["migrate", "up"]).await;
    assert!(!output.status.success(), "a newer schema was migrated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_after_a_restart() {
    let setup = Setup::new();
    let first = setup.start().await;
    let (issued, revoked) = (first.issue(json!({})).await, first.issue(json!({})).await);
    let imported = first.import("legacy-0123456789", json!({})).await;
    first.revoke(&revoked).await;
    let keys = first.public.get(JWKS).await.expect(200).json();
    first.stop().await;

    let second = setup.start().await;
    assert_eq!(second.verify(&issued.secret).await["is_valid"], true);
    assert_eq!(second.verify(&imported.secret).await["is_valid"], true);
    assert_eq!(second.verify(&revoked.secret).await["is_valid"], false);
    assert_eq!(second.public.get(JWKS).await.expect(200).json(), keys);
}

/// The address of a listener that a log names.
fn listens_at(log: &str, plane: &str) -> Option<Base> {
    let line = log
        .lines()
        .find(|line| line.contains("listening") && line.contains(&format!("plane=\"{plane}\"")))?;
    let (_, address) = line.split_once("address=")?;
    let address = address.split_whitespace().next()?.trim_matches('"');
    Some(Base(address.parse().ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn planes_in_processes_of_their_own_share_a_host_and_a_file() {
    let yaml = format!(
        "serve:\n  http: {{port: {}}}\n  public: {{host: 127.0.0.1, port: {}}}\n  authz: {{port: {}}}\n\
         secrets: {{hmac: {{current: {HMAC_SECRET}}}}}\n",
        free_port(),
        free_port(),
        free_port()
    );
    let setup = Setup::bare().sqlite();
    std::fs::write(setup.path("talos.yaml"), yaml).must("writing a configuration");
    assert!(setup.run(&["migrate", "up"]).await.status.success());
    let mut addresses = vec![];
    let mut running = vec![];
    for plane in ["admin", "public", "authz"] {
        let mut command = setup.program(env!("CARGO_BIN_EXE_talos"));
        command.args(["serve", plane, "--config", "talos.yaml"]);
        let mut process = Process::spawn("talos", command, &setup.path(&format!("{plane}.log")));
        let metrics = until("the metrics listener", async || {
            assert!(process.ended().is_none(), "{plane}: {}", process.log());
            listens_at(&process.log(), "metrics")
        })
        .await;
        until("it is ready", async || {
            let ready = metrics.try_send(Version::Http1, Call::get("/health/ready")).await.ok()?;
            (ready.status == 200).then_some(())
        })
        .await;
        if !addresses.is_empty() {
            assert!(process.log().contains("set serve.metrics.port to choose one"), "{}", process.log());
        }
        assert!(!addresses.contains(&metrics.0), "{plane}: {metrics:?}");
        addresses.push(metrics.0);
        running.push(process);
    }
    // A port that was chosen is an error when it is taken.
    let port = addresses[0].port().to_string();
    let chosen = setup.set("TALOS_SERVE_METRICS_PORT", &port).set("TALOS_SERVE_HTTP_PORT", "0");
    let output = chosen.run(&["serve", "admin", "--config", "talos.yaml"]).await;
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("serve.metrics: can't listen on")
            && message.contains("set another serve.metrics.port"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_begins_with_what_is_served_and_with_what() {
    let talos = Setup::new().planes("authz").start().await;
    let log = talos.process.log();
    let line = log.lines().find(|line| line.contains("starting")).must(&log);
    for part in [
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        "config=\"environment only\"",
        "database=",
        "schema=",
        "planes=\"authz, metrics\"",
        "networks=\"one, of any host\"",
        "signing_key=\"it-1\"",
        "rate_limits=\"off\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}
