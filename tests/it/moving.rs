//! Moving in: docs/migrate-from-ory.md, with what is different from Ory Talos as somebody who moves
//! meets it; and, in their own files, hashes and the exports of other products.

mod exports;
mod hashes;
mod ory_tables;
mod surface;

use serde_json::{Value, json};

use crate::cli::Ran;
use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must, until};
use crate::rig::talos::{DERIVE, HMAC_SECRET, ISSUED, Setup, Talos, VERIFY};

/// Configurations in the shapes in which teams have them, each with what it must say here.
const FILES: [(&str, &str, &[&str]); 5] = [
    (
        "one process in a container",
        "serve: {http: {host: 0.0.0.0, port: 4420}, metrics: {host: 0.0.0.0, port: 4422}}\n\
         credentials: {issuer: 'http://localhost:4420'}\n\
         log: {level: info, format: json}\nmultitenancy: {enabled: false}\n",
        &["/serve/http/trusted_network", "/serve/http/allowed_hosts"],
    ),
    (
        "an admin process on an internal address",
        "serve: {http: {host: 0.0.0.0, port: 4420}}\ncredentials: {issuer: 'https://keys.example.com'}\n",
        &["/serve/http/trusted_network", "/serve/http/allowed_hosts"],
    ),
    (
        "production with Redis in plaintext",
        "serve:\n  http:\n    host: '0.0.0.0'\n    cors: {enabled: true, allowed_origins: ['https://app.example.com']}\n    \
         request_log: {exclude_health_endpoints: true}\n  metrics: {host: '0.0.0.0'}\n\
         credentials:\n  issuer: 'https://keys.example.com'\n  \
         api_keys: {default_ttl: 2160h, max_ttl: 8760h, prefix: {current: talos}}\n\
         cache: {type: redis, ttl: 5m, redis: {addrs: ['redis.internal:6379'], pool_size: 100, timeout: 3s}}\n\
         rate_limit: {enabled: true, backend: redis}\n",
        &["/serve/http/trusted_network", "/serve/http/allowed_hosts", "/cache/redis/tls/enabled"],
    ),
    (
        "tokens for a week",
        "credentials: {derived_tokens: {default_ttl: 168h}}\n",
        &["/credentials/derived_tokens/max_ttl"],
    ),
    ("one behind an authenticating proxy on the same host", "serve: {http: {host: 127.0.0.1}}\n", &[]),
];

/// The block of YAML that the message lists.
fn lines_of(output: &str) -> Value {
    let Some((_, rest)) = output.split_once("add these lines to the file:\n") else { return json!({}) };
    let block: Vec<&str> = rest.lines().take_while(|line| line.starts_with("    ")).collect();
    serde_norway::from_str(&block.join("\n")).must(rest)
}

fn merge(into: &mut Value, other: Value) {
    match (into, other) {
        (Value::Object(into), Value::Object(other)) => {
            for (key, value) in other {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, other) => *into = other,
    }
}

/// One message lists everything that a file must say; with these lines it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_runs_with_the_lines_that_its_error_lists() {
    for (name, file, wanted) in FILES {
        let setup = Setup::bare();
        let secret = format!("secrets: {{hmac: {{current: {HMAC_SECRET}}}}}\n");
        std::fs::write(setup.path("talos.yaml"), format!("{file}{secret}")).must("a configuration");
        let checked = Ran::from(setup.run(&["config", "check", "talos.yaml"]).await);
        let lines = lines_of(&checked.stderr);
        assert_eq!(checked.code, if wanted.is_empty() { 0 } else { 64 }, "{name}: {checked:#?}");
        for key in wanted {
            assert!(lines.pointer(key).is_some(), "{name}: no {key} in {lines:#}");
        }
        let mut whole: Value = serde_norway::from_str(&format!("{file}{secret}")).must(name);
        merge(&mut whole, lines);
        let whole_file = setup.path("whole.yaml");
        std::fs::write(&whole_file, whole.to_string()).must("a configuration");
        let hosts = ["HTTP", "PUBLIC", "METRICS", "AUTHZ"].map(|plane| format!("TALOS_SERVE_{plane}_HOST"));
        let setup = hosts.iter().fold(Setup::from_file(whole_file), |setup, host| setup.unset(host));
        let talos = setup.start().await;
        let key = talos.issue(json!({})).await;
        assert_eq!(talos.verify(&key.secret).await["is_valid"], true, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_says_which_listeners_it_hides() {
    let talos = Setup::new().set("container", "oci").unset("KUBERNETES_SERVICE_HOST").start().await;
    let log = talos.process.log();
    for key in ["serve.http.host is 127.0.0.1", "serve.metrics.host is 127.0.0.1"] {
        assert!(log.contains(key), "{log}");
    }
    let talos = Setup::new().set("container", "oci").set("KUBERNETES_SERVICE_HOST", "10.0.0.1").start().await;
    assert!(!talos.process.log().contains("nothing outside of this container"), "pods share their loopback");
}

/// The maximum life of derived tokens is a setting, which the error about a longer one names.
#[tokio::test(flavor = "multi_thread")]
async fn derived_tokens_live_as_long_as_the_setting_allows() {
    let derive = async |talos: &Talos, ttl: &str| {
        let key = talos.issue(json!({ "ttl": "720h" })).await;
        talos.admin.post(DERIVE, &json!({ "credential": key.secret, "ttl": ttl })).await
    };
    let talos = Talos::start().await;
    derive(&talos, "24h").await.expect(200);
    let output = derive(&talos, "168h").await.expect_bad_request();
    assert!(output.contains("credentials.derived_tokens.max_ttl"), "{output}");
    let talos = Setup::new().set("TALOS_CREDENTIALS_DERIVED_TOKENS_MAX_TTL", "168h").start().await;
    derive(&talos, "168h").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_requests_leave_the_log_without_a_restart() {
    let dir = Setup::bare();
    let file = dir.path("talos.yaml");
    let write = |exclude: bool| {
        let text = format!(
            "secrets: {{hmac: {{current: {HMAC_SECRET}}}}}\n\
             serve: {{http: {{request_log: {{exclude_health_endpoints: {exclude}}}}}}}\n"
        );
        std::fs::write(&file, text).must("a configuration");
    };
    write(false);
    let talos = Setup::from_file(file.clone()).start().await;
    let lines = || talos.process.log().matches("route=\"/health/alive\"").count();
    talos.admin.get("/health/alive").await.expect(200);
    until("a line", async || (lines() > 0).then_some(())).await;
    write(true);
    until("no line any more", async || {
        let before = lines();
        talos.admin.get("/health/alive").await.expect(200);
        talos.admin.get(&format!("{ISSUED}?page_size=1")).await.expect(200);
        (lines() == before).then_some(())
    })
    .await;
    until("the log names it", async || {
        talos.process.log().contains("serve.http.request_log.exclude_health_endpoints").then_some(())
    })
    .await;
}

/// Keys of Ory Talos in the same database are reported until they are adopted.
#[tokio::test(flavor = "multi_thread")]
async fn unadopted_keys_are_reported() {
    let id = "0b8f1c9e-6a1d-4a53-9c5f-3f1f9b7f2a11";
    let setup = Setup::new();
    setup.start().await.stop().await;
    setup.sql(
        "CREATE TABLE issued_api_keys (nid VARCHAR(36) NOT NULL, key_id VARCHAR(64) NOT NULL, \
         name VARCHAR(255), PRIMARY KEY (nid, key_id))",
    );
    let status = async |talos: &Talos| talos.metrics.get("/status").await.expect(200).json();
    let talos = setup.start().await;
    assert_eq!(status(&talos).await["problems"], json!([]), "an empty table is nobody's key");
    talos.stop().await;

    setup.sql(&format!(
        "INSERT INTO issued_api_keys (nid, key_id, name) VALUES ('00000000-0000-0000-0000-000000000000', '{id}', 'old')"
    ));
    let talos = setup.start().await;
    let line = "the database holds keys of Ory Talos that are unknown here (in issued_api_keys)";
    assert!(talos.process.log().contains(line), "{}", talos.process.log());
    let problems = status(&talos).await["problems"].to_string();
    assert!(problems.contains(line) && problems.contains("talos migrate adopt"), "{problems}");
    let up = Ran::from(setup.run(&["migrate", "up"]).await);
    assert!(up.code == 0 && up.stderr.contains(line), "{up:#?}");

    let now = "2026-01-01T00:00:00Z";
    let key = json!({ "key_id": id, "name": "old", "actor_id": "user:1", "status": "KEY_STATUS_ACTIVE",
        "create_time": now, "update_time": now, "scopes": [], "visibility": "KEY_VISIBILITY_SECRET" });
    std::fs::write(setup.path("issued.json"), json!({ "issued_api_keys": [key] }).to_string()).must("a list");
    Ran::from(setup.run(&["migrate", "adopt", "issued.json"]).await).expect(0);
    until("the problem is gone", async || (status(&talos).await["problems"] == json!([])).then_some(()))
        .await;
    // A restart has nothing to tell of; its log goes on in the same file.
    let before = talos.process.log().matches(line).count();
    talos.stop().await;
    let talos = setup.start().await;
    assert_eq!(talos.process.log().matches(line).count(), before);
}

/// The vendor's own tables in the way are named, not only a failed statement.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_the_same_name_are_reported() {
    let setup = Setup::bare().set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET).sqlite();
    std::fs::write(setup.path("talos.db"), "").must("a file");
    setup.sql("CREATE TABLE api_keys (nid VARCHAR(36) NOT NULL, key_id VARCHAR(64) NOT NULL)");
    let up = Ran::from(setup.run(&["migrate", "up"]).await).expect(1);
    for said in [setup.refused().await, up.stderr] {
        assert!(said.contains("the table api_keys of this database is one of Ory Talos"), "{said}");
        assert!(said.contains("talos migrate adopt"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_an_exit_code() {
    let talos = Talos::start().await;
    let endpoint = talos.metrics.url("");
    let bare = Setup::bare();
    for words in [&["health", "-e", &endpoint][..], &["health", "--alive", "-e", &endpoint]] {
        assert_eq!(Ran::from(bare.run(words).await).expect(0).stdout, "ok\n");
    }
    // Without -e it is the listener of the configuration, as in a container.
    let port = talos.metrics.0.port().to_string();
    let own = Setup::bare().set("TALOS_SERVE_METRICS_PORT", &port).set("TALOS_SERVE_METRICS_HOST", "0.0.0.0");
    Ran::from(own.run(&["health"]).await).expect(0);
    talos.stop().await;
    Ran::from(bare.run(&["health", "-e", &endpoint]).await).expect(69);
}

/// Addresses are counted from the right, and a token is derived only from an address that its key
/// allows.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_judged_as_the_page_says() {
    let setup = Setup::new()
        .set("TALOS_SERVE_HTTP_CLIENT_IP_SOURCE", "CLIENT_IP_SOURCE_X_FORWARDED_FOR")
        .start()
        .await;
    let key = setup.issue(json!({ "ip_restriction": { "allowed_cidrs": ["192.0.2.0/24"] } })).await;
    let verify = async |forwarded: &str| {
        let body = json!({ "credential": key.secret });
        let call = Call::post(VERIFY).json(&body).header("x-forwarded-for", forwarded);
        setup.admin.send(Version::Http1, call).await.expect(200).json()["is_valid"].clone()
    };
    assert_eq!(verify("203.0.113.9, 192.0.2.7").await, true);
    assert_eq!(verify("192.0.2.7, 203.0.113.9").await, false);
    let body = json!({ "credential": key.secret });
    let derive = async |forwarded: &str| {
        let call = Call::post(DERIVE).json(&body).header("x-forwarded-for", forwarded);
        setup.admin.send(Version::Http1, call).await.status
    };
    assert_eq!((derive("192.0.2.7").await, derive("203.0.113.9").await), (200, 403));
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_settings_are_named() {
    for (file, problem) in [
        ("tracing: {exporter: jaeger}\n", "tracing.exporter: "),
        ("secrets: {default: {current: x}}\n", "secrets.default: unknown key"),
        ("db: {dsn: 'oracle://x'}\n", "db.dsn"),
    ] {
        let setup = Setup::bare().set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
        std::fs::write(setup.path("talos.yaml"), file).must("a configuration");
        let said = Ran::from(setup.run(&["--config", "talos.yaml", "serve"]).await);
        assert!(said.code != 0 && said.stderr.contains(problem), "{file}: {said:#?}");
    }
    let said = Ran::from(Setup::bare().run(&["proxy", "--upstream", "http://x"]).await).expect(64);
    assert!(said.stderr.contains("talos serve authz"), "{}", said.stderr);
    let issued = Talos::start().await.issue(json!({})).await;
    assert_eq!(issued.resource.text("/key_id"), issued.id);
}
