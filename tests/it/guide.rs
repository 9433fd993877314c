//! The pages of docs/: their commands work, in order, in one shell on an empty directory; their
//! configurations are valid; the metrics that they name exist.

mod envoy;
mod unrun;

use std::path::PathBuf;

use serde_json::json;

use crate::cli::{feed, shell};
use crate::edge::Edge;
use crate::rig::authority::Authority;
use crate::rig::check::Check;
use crate::rig::database;
use crate::rig::http::{Call, Version};
use crate::rig::needs::variable;
use crate::rig::process::free_port;
use crate::rig::redis::Redis;
use crate::rig::support::{Must, until};
use crate::rig::talos::{ISSUER, JWKS, Setup, Talos};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

fn pages() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(DOCS).must(DOCS).map(|entry| entry.must("an entry").path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_name().must("a name").to_string_lossy().into_owned();
    let pages = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (name(path), std::fs::read_to_string(path).must("a page"))).collect()
}

/// A page of docs/.
pub fn page(name: &str) -> String {
    let found = pages().into_iter().find(|(page, _)| page == name);
    found.must(name).1
}

/// The blocks of a kind, in order.
pub fn blocks(page: &str, kind: &str) -> Vec<String> {
    let mut found = vec![];
    let mut inside: Option<(&str, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut inside) {
            (Some(kind), None) => inside = Some((kind, String::new())),
            (Some(_), Some(_)) => found.extend(inside.take()),
            (None, Some((_, text))) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(inside.is_none(), "a block has no end");
    found.into_iter().filter(|(found, _)| *found == kind).map(|(_, text)| text).collect()
}

/// Runs a page's commands. Where they say the usual ports, they get ports of their own: other tests
/// run beside them.
async fn follow(setup: Setup, name: &str) -> String {
    let mut setup = setup;
    let mut script = String::from("trap 'kill $! 2> /dev/null || true' EXIT; trap 'exit 1' TERM\n");
    for block in blocks(&page(name), "sh") {
        script.push_str(&block);
    }
    for (plane, usual) in [("HTTP", "4420"), ("PUBLIC", "4421"), ("METRICS", "4422"), ("AUTHZ", "4423")] {
        let port = free_port().to_string();
        script = script.replace(usual, &port);
        setup = setup.set(&format!("TALOS_SERVE_{plane}_PORT"), &port);
        match plane {
            "HTTP" => setup = setup.set("TALOS_ENDPOINT", &format!("http://localhost:{port}")),
            "METRICS" => {
                script = script.replace("talos status", &format!("talos status -e http://localhost:{port}"));
            }
            _ => {}
        }
    }
    let inner = shell(&setup);
    // Ends what the page has started, too, when it takes too long.
    let mut command = std::process::Command::new("timeout");
    command.arg("28").arg(inner.get_program()).args(inner.get_args());
    if let Some(directory) = inner.get_current_dir() {
        command.current_dir(directory);
    }
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let ran = feed(command, &script).await;
    assert_eq!(ran.code, 0, "{name}\n{script}\n{ran:#?}");
    ran.stdout
}

/// The page needs a database and a Redis that speak TLS: the test starts its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_of_its_own_comes_up_as_the_page_says() {
    needs!(Redis, Postgres);
    let authority = Authority::new();
    let redis = Redis::start_tls(authority.issue("localhost", 2040), &authority).await;
    let setup = Setup::bare();
    let redis_ca = setup.path("redis-ca.crt");
    std::fs::write(&redis_ca, authority.pem()).must("writing the authority");
    let setup = setup
        .set("DATABASE", &database::new_postgres_over_tls())
        .set("REDIS", &format!("localhost:{}", redis.port))
        .set("REDIS_CA", &redis_ca.display().to_string());
    let said = follow(setup, "deploy.md").await;
    for output in [
        "fresh",
        "spiffe://example.com/operator",
        "user:1",
        "RESULT  ok",
        "refused without a certificate",
        r#""kid":"one""#,
        "breaker closed",
    ] {
        assert!(said.contains(output), "no {output} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotate_as_the_page_says() {
    let said = follow(Setup::bare(), "secrets.md").await;
    assert!(said.contains(r#""kid":"two""#), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_and_the_deny_list_do_as_the_page_says() {
    let said = follow(Setup::bare(), "consistency.md").await;
    let shown = page("consistency.md");
    let shown = blocks(&shown, "")[0].lines().next().must("a line").to_owned();
    assert!(said.contains(&shown) && said.contains("refused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_actors_are_erased_as_the_page_says() {
    let said = follow(Setup::bare(), "erasure.md").await;
    assert!(said.contains("it has an active key") && said.contains("ISSUED KEYS"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_questions_are_answered_as_the_page_says() {
    let said = follow(Setup::bare(), "usage.md").await;
    assert!(said.contains("OUTCOME") && said.contains("LAST USED"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_as_the_page_says() {
    let said = follow(Setup::bare(), "following.md").await;
    assert!(said.contains("talos.key.suspended") && said.contains("adminListEvents"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_as_the_page_says() {
    let said = follow(Setup::bare(), "finding.md").await;
    assert!(said.contains("backend"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_actors_are_suspended_as_the_page_says() {
    let said = follow(Setup::bare(), "suspending.md").await;
    assert!(said.contains("suspended: exit code 2") && said.contains("invoice 7 is open"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_tried_out_as_the_page_says() {
    let said = follow(Setup::bare(), "policies.md").await;
    assert!(said.contains("refused: name and ttl") && said.contains("day: ttl"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_a_rollback_go_as_the_page_says() {
    follow(Setup::bare(), "upgrade.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_repeated_as_the_page_says() {
    follow(Setup::bare(), "retries.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_process_starts_as_the_page_says() {
    let stdout = follow(Setup::bare(), "start.md").await;
    assert!(stdout.contains("ACTIVE") && stdout.contains("the key is refused now"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_verifies_as_the_page_says() {
    let stdout = follow(Setup::bare(), "audit.md").await;
    assert!(stdout.contains("RESULT  ok") && stdout.contains("the change was found"), "{stdout}");
}

/// The script for a backend in Python that the page shows accepts a token for its audience, and no
/// other.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_verifies_tokens_as_the_page_says() {
    needs!(Python);
    let script = blocks(&page("backends.md"), "python").concat();
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "actor_id": "user:42", "scopes": ["orders:read"] })).await;
    let token = talos.derive(&key, json!({ "audiences": ["orders"] })).await;
    let jwks = talos.public.url(JWKS);
    for (issuer, audience, code) in
        [(ISSUER, "orders", 0), (ISSUER, "billing", 1), ("https://else.test", "orders", 1)]
    {
        let mut python = std::process::Command::new(variable("TALOS_TEST_PYTHON"));
        python.args(["-c", &script, issuer, &jwks, audience]);
        python.env("PYTHONPATH", variable("TALOS_TEST_PYTHONPATH"));
        let ran = feed(python, &token).await.expect(code);
        assert_eq!(ran.stdout == "user:42 orders:read\n", code == 0, "{ran:#?}");
    }
}

/// Envoy's own filter in front of a service, as the page shows it, accepts what Talos sends
/// upstream, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_verifies_tokens_as_the_page_says() {
    needs!(Envoy);
    let shown = blocks(&page("backends.md"), "yaml envoy").concat();
    for kind in ["eddsa", "rsa"] {
        let setup = Setup::new();
        let keys = setup.path("signing-keys.json");
        std::fs::remove_file(&keys).must("the rig's own keys");
        crate::rig::talos::generate(kind, &keys);
        let port = free_port();
        let filter: String = shown
            .replace("https://keys.example.com", ISSUER)
            .replace("talos.internal:4421", &format!("127.0.0.1:{port}"))
            .lines()
            .map(|line| format!("                  {line}\n"))
            .collect();
        let next = "                  # Trailers arrive after the check.";
        let cluster = format!(
            "  clusters:\n    - name: talos-public\n      type: STATIC\n      load_assignment:\n        cluster_name: talos-public\n        \
             endpoints:\n          - lb_endpoints:\n              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, \
             port_value: {port} }} }} }}\n"
        );
        let filter = format!("{filter}\n{next}");
        let setup = setup.set("TALOS_SERVE_PUBLIC_PORT", &port.to_string());
        let edge = Edge::with(setup, &[(next, &filter), ("  clusters:\n", &cluster)]).await;
        let key = edge.talos.issue(json!({ "actor_id": "user:42", "scopes": ["orders:read"] })).await;
        let token = edge.talos.derive(&key, json!({ "audiences": ["orders"] })).await;
        edge.send(Version::Http1, Call::get("/").bearer(&token)).await.expect(200);
        assert_eq!(edge.seen().header("authorization"), Some(format!("Bearer {token}").as_str()), "{kind}");
        // The token of a key has no audience unless its route demands one; this filter wants one.
        edge.refuses(Version::Http1, Call::get("/").bearer(&key.secret), 403).await;
        let other = edge.talos.derive(&key, json!({ "audiences": ["billing"] })).await;
        edge.refuses(Version::Http1, Call::get("/").bearer(&other), 403).await;
        // This route needs no key, so Talos sends no token.
        edge.refuses(Version::Http1, Call::get("/anonymous"), 401).await;
    }
}

/// The reference pages are those that the program prints.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_pages_are_up_to_date() {
    for page in ["cli", "configuration", "api"] {
        let file = format!("{DOCS}/reference/{page}.md");
        let printed = Setup::bare().run(&["reference", page]).await;
        assert!(printed.status.success(), "{printed:?}");
        if std::env::var_os("TALOS_BLESS").is_some() {
            std::fs::write(&file, &printed.stdout).must(&file);
        }
        let current = std::fs::read(&file).unwrap_or_default();
        assert!(current == printed.stdout, "{file} is stale: TALOS_BLESS=1 writes it anew");
    }
}

/// Manual pages exist for every command, and man can read them.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_manual_page() {
    let setup = Setup::bare();
    let written = setup.run(&["reference", "man", "man1"]).await;
    assert!(written.status.success(), "{written:?}");
    for name in ["talos", "talos-serve", "talos-keys-issue", "talos-migrate-adopt", "talos-health"] {
        let page = std::fs::read_to_string(setup.path(&format!("man1/{name}.1"))).must(name);
        for section in [".TH TALOS", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH EXAMPLES\n"] {
            assert!(page.contains(section), "{name}: no {section} in\n{page}");
        }
    }
}

/// The table of all metrics says what the metrics page says of each.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_is_up_to_date() {
    let setup = Setup::new();
    std::fs::create_dir(setup.path("audit")).must("a directory");
    let file = setup.path("audit/audit.jsonl").display().to_string();
    let setup = setup.set("TALOS_AUDIT_FILE", &file).set("TALOS_METRICS_COMPAT", "ory");
    let talos = setup.start().await;
    let key = talos.issue(json!({})).await;
    talos.check(Check::bearer(&key.secret)).await.allowed();
    talos.check(Check::bearer("unknown")).await.denied(401);
    let page = until("a request is counted", async || {
        let page = talos.metrics.get("/metrics").await.expect(200).text();
        page.contains("\nhttp_requests_total{").then_some(page)
    })
    .await;
    let mut rows: Vec<String> = vec![];
    for line in page.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let kind = page.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        rows.push(format!("| `{name}` | {} | {} |", kind.must(name), help.trim_end_matches('.')));
    }
    let path = format!("{DOCS}/reference/metrics.md");
    let mut text = std::fs::read_to_string(&path).must(&path);
    let missing = |text: &str| -> Vec<String> {
        rows.iter().filter(|row| !text.contains(&format!("{row}\n"))).cloned().collect()
    };
    if std::env::var_os("TALOS_BLESS").is_some() {
        // At the end of our own; somebody puts them where they belong.
        let new: String = missing(&text).iter().map(|row| format!("{row}\n")).collect();
        text = text.replacen("\n## With `metrics.compat", &format!("{new}\n## With `metrics.compat"), 1);
        std::fs::write(&path, &text).must(&path);
    }
    let missing = missing(&text);
    assert!(missing.is_empty(), "{path} lacks these rows:\n{missing:#?}");
    // Of what this process has not got: Redis, TLS, traces, refused connections.
    let is_there = |row: &&str| rows.iter().any(|other| other == row);
    let more: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| `")).filter(|row| !is_there(row)).collect();
    let elsewhere =
        ["talos_redis_", "talos_tls_", "talos_trace_", "talos_connections_refused", "talos_streams_refused"];
    for row in more {
        assert!(elsewhere.iter().any(|name| row.contains(name)), "{path}: there is no such metric: {row}");
    }
}

/// A page whose commands no test runs would rot.
#[test]
fn every_page_with_commands_is_run_by_a_test() {
    // cli.md and migrate-from-ory.md by `readme.rs`, configuration.md by `config.rs`, hashes and
    // the other moves by `moving/exports.rs`, the others here.
    let run = [
        "audit.md",
        "cli.md",
        "configuration.md",
        "consistency.md",
        "deploy.md",
        "erasure.md",
        "finding.md",
        "following.md",
        "import-hashes.md",
        "migrate-from-authorino.md",
        "migrate-from-csv.md",
        "migrate-from-envoy-gateway.md",
        "migrate-from-kong.md",
        "migrate-from-ory.md",
        "migrate-from-unkey.md",
        "policies.md",
        "retries.md",
        "secrets.md",
        "start.md",
        "suspending.md",
        "upgrade.md",
        "usage.md",
    ];
    let pages = pages();
    let names = pages.iter().filter(|(_, page)| !blocks(page, "sh").is_empty()).map(|(name, _)| name);
    assert_eq!(names.collect::<Vec<_>>(), run);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_configuration_of_the_pages_is_good() {
    let mut count = 0;
    for (name, page) in pages() {
        let yamls = blocks(&page, "yaml");
        // A page may show a network's own file beside the configuration that names it.
        let own = yamls.iter().find(|yaml| yaml.starts_with("# corp.yaml"));
        for yaml in yamls.iter().filter(|yaml| !yaml.contains("apiVersion:")) {
            let setup = Setup::bare();
            if let Some(own) = own {
                std::fs::write(setup.path("corp.yaml"), own).must("a network's own file");
            }
            std::fs::write(setup.path("talos.yaml"), yaml).must("a configuration");
            let checked = setup.run(&["config", "check", "talos.yaml", "--no-files"]).await;
            let said = String::from_utf8_lossy(&checked.stderr).into_owned();
            assert!(checked.status.success(), "{name}: {said}\n{yaml}");
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_pages_is_there() {
    let talos = Talos::start().await;
    let page = talos.metrics.get("/metrics").await.expect(200).text();
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut names = vec![];
    for (name, text) in pages() {
        for word in text.split("talos_").skip(1).filter(|word| word.starts_with(is_part)) {
            let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
            // A cluster of Envoy and a library, not metrics.
            if !["authz", "module"].contains(&&word[..end]) {
                names.push((name.clone(), format!("talos_{}", &word[..end])));
            }
        }
    }
    assert!(names.len() >= 10, "{names:?}");
    // This process has no TLS listener, no Redis, and exports no traces.
    let elsewhere = [
        "talos_redis_breaker",
        "talos_redis_connection_failures_total",
        "talos_redis_degraded",
        "talos_tls_certificate_expiry_timestamp_seconds",
        "talos_tls_certificate_reloads_total",
        "talos_trace_export_failures_total",
    ];
    for (name, metric) in names.into_iter().filter(|(_, metric)| !elsewhere.contains(&&**metric)) {
        let there =
            page.lines().any(|line| line.starts_with(&metric) && !line[metric.len()..].starts_with(is_part));
        assert!(there, "{name}: there is no {metric}");
    }
}
