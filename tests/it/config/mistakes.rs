//! Planted mistakes: `config check` names each with its key, its line and a cure, and `serve`
//! refuses to start with the same words.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use super::{err, out, with_file};
use crate::rig::support::Must;
use crate::rig::talos::HMAC_SECRET;

/// A configuration, the key of its problem, the line of that key, and a part of the advice.
pub(super) type Mistake = (&'static str, &'static str, usize, &'static str);

const KEYS: &[Mistake] = &[
    ("sevre: {http: {port: 1}}", "sevre", 1, "did you mean serve?"),
    ("serve:\n  http:\n    prot: 1\n", "serve.http.prot", 3, "did you mean serve.http.port?"),
    ("# ours\nauthz:\n  tokenTtl: 5m\n", "authz.tokenTtl", 3, "did you mean authz.token_ttl?"),
    ("dsn: sqlite://a.db", "dsn", 1, "did you mean db.dsn or migrate.dsn?"),
    ("log: {}\nserve.http: {port: 1}", "serve.http", 2, "not with dots"),
    ("authz:\n  sources:\n    - {heder: a}", "authz.sources[0]", 3, "header"),
    ("cache: {}\ncache: {}", "cache", 2, "remove one"),
    ("log: {}\n\tserve: 1", "talos.yaml", 2, "tab"),
];

const VALUES: &[Mistake] = &[
    ("serve:\n  http: {port: 70000}", "serve.http.port", 2, "from 0 to 65535"),
    ("log:\n  level: loud", "log.level", 2, "expected one of"),
    ("cache:\n  ttl: 5", "cache.ttl", 2, "needs a unit"),
    ("cache:\n  type: memcached", "cache.type", 2, "expected one of"),
    ("rate_limit:\n  enabled: yes please", "rate_limit.enabled", 2, "expected true or false"),
    ("secrets:\n  hmac:\n    retired: [short]", "secrets.hmac.retired[0]", 3, "at least 32 characters"),
    ("serve:\n  http:\n    host: 0.0.0.0", "serve.http.host", 3, "trusted_network: true"),
    ("serve:\n  http:\n    host: http://127.0.0.1", "serve.http.host", 3, "without scheme and port"),
    ("serve:\n  public:\n    host: 127.0.0.1:4421", "serve.public.host", 3, "without scheme and port"),
    ("serve:\n  http:\n    tls: {cert_file: a.pem}", "serve.http.tls.key_file", 3, "is needed beside"),
    (
        "serve:\n  http:\n    auth: {mode: jwt, roles: {admin: [a]}}",
        "serve.http.auth.jwt.issuer",
        3,
        "is needed with",
    ),
    (
        "serve:\n  http:\n    auth: {mode: mtls, roles: {admin: [a]}}",
        "serve.http.tls.client_ca_file",
        2,
        "is needed with",
    ),
    ("log: {}\nserve:\n  public: {port: 4423}", "serve.authz.port", 2, "choose another"),
    ("authz:\n  sources:\n    - {header: a}\n    - {header: A}", "authz.sources[1]", 4, "remove one"),
    ("authz:\n  routes:\n    - {mode: maybe}", "authz.routes[0].mode", 3, "one of required, optional, off"),
    ("consistency:\n  poll: 10s", "consistency.poll", 2, "must be below consistency.lease"),
    ("credentials:\n  api_keys:\n    default_ttl: 2y", "credentials.api_keys.default_ttl", 3, "at most"),
    (
        "multitenancy:\n  networks:\n    - {hostname: a.example, id: x}",
        "multitenancy.networks[0].id",
        3,
        "must be a UUID",
    ),
    ("tracing:\n  enabled: true\n  endpoint: 'http://'", "tracing.endpoint", 3, "must be a URL"),
];

const NAMED: &[Mistake] = &[
    ("serve:\n  authz:\n    tls: {cert_file: no.crt, key_file: no.key}", "serve.authz.tls", 3, "PEM files"),
    (
        "serve:\n  metrics:\n    tls: {cert_file: other, key_file: other}",
        "serve.metrics.tls",
        3,
        "name PEM files",
    ),
    ("consistency:\n  deny_file: no.deny", "consistency.deny_file", 2, "create it"),
    ("consistency:\n  deny_file: other", "consistency.deny_file", 2, "write one key's id a line"),
    ("authz:\n  denied_template_file: no.yaml", "authz.denied_template_file", 2, "name a file"),
    ("authz:\n  denied_template_file: other", "authz.denied_template_file", 2, "other: "),
    ("audit:\n  file: no/such/audit.log", "audit.file", 2, "create its directory"),
    ("audit:\n  file: other/audit.log", "audit.file", 2, "let this user write there"),
    ("serve:\n  authz:\n    socket: no/such.sock", "serve.authz.socket", 3, "create it"),
    ("db:\n  dsn: oracle://x", "db.dsn", 2, "must begin with sqlite://"),
    ("db:\n  dsn: sqlite://no/such/talos.db", "db.dsn", 2, "create it"),
    (
        "cache:\n  type: redis\n  redis:\n    addrs: ['redis.example:6379']",
        "cache.redis.tls.enabled",
        3,
        "set it to true",
    ),
    ("cache:\n  type: redis\n  redis:\n    addrs: [x]", "cache.redis.addrs[0]", 4, "must be host:port"),
    (
        "cache:\n  type: redis\n  redis: {tls: {enabled: true, ca_file: no.pem}}",
        "cache.redis.tls",
        3,
        "name PEM files",
    ),
    (
        "credentials:\n  derived_tokens:\n    jwt:\n      signing_keys: {urls: ['file:///none.json']}",
        "credentials.derived_tokens.jwt.signing_keys.urls[0]",
        4,
        "talos jwk generate",
    ),
    (
        "credentials:\n  derived_tokens:\n    jwt:\n      signing_keys: {urls: ['base64://eyJrZXlzIjpbXX0=']}\n      \
         signing_key_id: k1",
        "credentials.derived_tokens.jwt.signing_key_id",
        5,
        "name a key",
    ),
    (
        "serve:\n  http:\n    auth:\n      mode: jwt\n      roles: {admin: [a]}\n      jwt: {issuer: a, audience: b, jwks: \
         'file:///none.json'}",
        "serve.http.auth.jwt.jwks",
        6,
        "name a file",
    ),
    (
        "multitenancy:\n  networks:\n    - hostname: a.example\n      id: 6ba7b810-9dad-41d1-80b4-00c04fd430c8\n      \
         config_path: no.yaml",
        "multitenancy.networks[0].config_path",
        5,
        "no.yaml: cannot be read",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn check_and_serve_name_key_line_and_cure() {
    let mistakes: Vec<&Mistake> = [KEYS, VALUES, NAMED].into_iter().flatten().collect();
    assert!(mistakes.len() >= 40, "{}", mistakes.len());
    for mistake in mistakes {
        is_found(mistake).await;
    }
}

/// Demands that a mistake is found with its key, line and cure, and that `serve` refuses it with
/// the same words.
pub(super) async fn is_found((yaml, key, line, cure): &Mistake) {
    let setup = with_file(yaml).set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
    std::fs::write(setup.path("other"), "neither a list of keys nor PEM nor YAML: {").must("a file");
    std::fs::create_dir(setup.path("directory")).must("a directory");
    let checked = setup.run(&["config", "check", "talos.yaml"]).await;
    let output = err(&checked);
    assert_eq!(checked.status.code(), Some(64), "{yaml}: {output}");
    let problem = output.lines().find(|output| output.starts_with(key));
    let problem = problem.must(&format!("{key} in\n{output}"));
    assert!(problem.contains(&format!("line {line} ")) && problem.contains(cure), "{yaml}: {problem}");

    let served = setup.run(&["serve", "--config", "talos.yaml"]).await;
    assert_eq!(served.status.code(), Some(64), "{yaml}: {}", err(&served));
    assert!(err(&served).contains(problem), "{yaml}: {problem}\nbut serve says\n{}", err(&served));

    let checked = setup.run(&["config", "check", "talos.yaml", "--format", "json"]).await;
    let json: Value = serde_json::from_str(&out(&checked)).must(&out(&checked));
    let found = json["findings"].as_array().must("findings");
    let found = found
        .iter()
        .find(|finding| finding["path"].as_str().is_some_and(|path| path.starts_with(key)))
        .must(&out(&checked));
    assert_eq!((&found["line"], &found["severity"]), (&Value::from(*line), &"error".into()), "{found}");
    assert!(found["column"].is_u64() && found["message"].is_string(), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_of_its_own_is_checked_by_its_own_rules() {
    // The admin plane's files and addresses are none of the others'.
    let yaml = "serve:\n  http:\n    host: 0.0.0.0\n    tls: {cert_file: no.crt, key_file: no.key}\n";
    let setup = with_file(yaml).set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
    for (plane, code) in [("all", 64), ("admin", 64), ("authz", 0)] {
        let checked = setup.run(&["config", "check", "talos.yaml", "--plane", plane]).await;
        assert_eq!(checked.status.code(), Some(code), "{plane}: {}", err(&checked));
    }
    let checked = setup.run(&["config", "check", "talos.yaml", "--plane", "authz", "--no-files"]).await;
    assert!(checked.status.success(), "{}", err(&checked));
}

/// A file for several processes, each with one plane: what only another one opens is no mistake.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_checked_for_the_listeners_that_it_opens() {
    let everywhere = "{host: 0.0.0.0, port: 8080}";
    let pods = format!("http: {{port: 8080}}, public: {everywhere}, authz: {everywhere}");
    for (listeners, key, planes) in [
        ("http: {port: 4421}", "serve.public.port", &["admin", "public", "authz"][..]),
        // The metrics port may move, as nobody chose it.
        ("http: {port: 4422}", "serve.metrics.port", &["admin", "public", "authz"]),
        ("authz: {host: 0.0.0.0, port: 4420}", "serve.authz.port", &["admin", "public", "authz"]),
        (&pods, "serve.public.port", &["admin", "public", "authz"]),
        ("public: {tls: {cert_file: no.crt}}", "serve.public.tls.key_file", &["admin", "authz"]),
    ] {
        let setup = with_file(&format!("serve: {{{listeners}}}\n"));
        let setup = setup.set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
        for plane in ["all", "admin", "public", "authz"] {
            let checked = setup.run(&["config", "check", "talos.yaml", "--plane", plane]).await;
            let said = err(&checked);
            let code = if planes.contains(&plane) { 0 } else { 64 };
            assert_eq!(checked.status.code(), Some(code), "{listeners}, {plane}: {said}");
            assert!(code == 0 || said.starts_with(key), "{listeners}, {plane}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_redis_are_checked_without_its_files() {
    for (address, code) in [
        ("redis.example:6380", 0),
        ("redis.example", 64),
        ("redis.example:99999", 64),
        ("rediss://:hunter2@redis.example:6380/0", 64),
        ("/run/redis.sock", 64),
    ] {
        let tls = "tls: {enabled: true, ca_file: no.pem}";
        let yaml = format!("cache:\n  type: redis\n  redis: {{addrs: ['{address}'], {tls}}}\n");
        let setup = with_file(&yaml).set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
        let checked = setup.run(&["config", "check", "talos.yaml", "--no-files"]).await;
        let said = err(&checked);
        assert_eq!(checked.status.code(), Some(code), "{address}: {said}");
        assert!(code == 0 || said.contains("cache.redis.addrs[0]: must be host:port"), "{address}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_secret_is_told_by_check_and_at_the_start() {
    for (secret, message) in [
        (format!("{HMAC_SECRET}\n"), "white space"),
        ("a".repeat(40), "can be guessed"),
        ("${TALOS_HMAC_SECRET_OF_PRODUCTION}".to_owned(), "is a placeholder"),
    ] {
        let setup = with_file("audit: {file: no/such/audit.log}").set("TALOS_SECRETS_HMAC_CURRENT", &secret);
        for arguments in [&["config", "check", "talos.yaml"][..], &["serve", "--config", "talos.yaml"]] {
            let output = setup.run(arguments).await;
            let said = err(&output);
            let line = said.lines().find(|line| line.contains("secrets.hmac.current: ")).must(&said);
            assert!(line.contains(message) && !line.contains(&secret[..20]), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_from_stdin_is_checked_like_a_file() {
    let setup = with_file("");
    for (text, code, expected) in
        [("cache: {ttl: 1m}\n", 0, "ok"), ("log: {}\ncahce: {}\n", 64, "line 2 column 1")]
    {
        let mut command = setup.program(env!("CARGO_BIN_EXE_talos"));
        command
            .args(["config", "check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().must("running talos");
        child.stdin.take().must("stdin").write_all(text.as_bytes()).must("writing");
        let output = child.wait_with_output().must("waiting");
        let message = format!("{}{}", out(&output), err(&output));
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}
