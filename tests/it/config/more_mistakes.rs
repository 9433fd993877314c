//! More planted mistakes, by kind: what people write in YAML, types, sizes, URLs, paths, other
//! words for keys, and placeholders. Then what is accepted with a warning.

use rcgen::{CertificateParams, KeyPair};

use super::mistakes::{Mistake, is_found};
use super::{err, out, with_file};
use crate::rig::authority::Authority;
use crate::rig::support::Must;
use crate::rig::talos::HMAC_SECRET;

const YAML: &[Mistake] = &[
    ("log:\n  level: info\n format: json", "talos.yaml", 3, "indented otherwise"),
    ("log: {level: info\n", "talos.yaml", 2, "a { has no }"),
    ("authz: {sources: [{header: a}\n", "talos.yaml", 2, "a [ has no ]"),
    ("log:\n  level: 'info\n", "talos.yaml", 3, "a quoted text has no end"),
    ("log: level: info", "talos.yaml", 1, "put the text in quotes"),
    ("log:\n  level: info\n  level: debug", "log.level", 3, "remove one"),
    ("log: *base", "talos.yaml", 1, "in quotes"),
    ("log:\n  <<: {level: info}", "log.<<", 1, "write its keys out"),
    ("log: {level: info}\n---\nlog: {level: debug}", "talos.yaml", 2, "remove the line `---`"),
    ("cache: memory", "cache", 1, "must be a mapping"),
];

const TYPES: &[Mistake] = &[
    ("serve:\n  http:\n    port: 010", "serve.http.port", 3, "write 10,"),
    ("serve:\n  http:\n    port: 1_000", "serve.http.port", 3, "write 1000,"),
    ("serve:\n  http:\n    port: '4420'", "serve.http.port", 3, "write 4420,"),
    ("serve:\n  http:\n    port: 4420.0", "serve.http.port", 3, "write 4420,"),
    ("serve:\n  http:\n    port: -1", "serve.http.port", 3, "from 0 to 65535"),
    ("serve:\n  http:\n    port: [4420]", "serve.http.port", 3, "from 0 to 65535"),
    ("serve:\n  http:\n    port: 99999999999999999999", "talos.yaml", 3, "out of range"),
    ("rate_limit:\n  enabled: on", "rate_limit.enabled", 2, "write true,"),
    ("cache:\n  enabled: 'false'", "cache.enabled", 2, "write false,"),
    ("credentials:\n  issuer: 5", "credentials.issuer", 2, "put it in quotes"),
    ("credentials:\n  issuer: ' https://a'", "credentials.issuer", 2, "white space"),
    ("cache:\n  ttl: 5 minutes", "cache.ttl", 2, "s, m, h, d"),
    ("cache:\n  ttl: -5m", "cache.ttl", 2, "has no sign"),
    ("cache:\n  ttl: 99999999999999999h", "cache.ttl", 2, "at most"),
    ("cache:\n  memory:\n    max_size: 100MB", "cache.memory.max_size", 3, "write 100000000,"),
    ("tracing:\n  enabled: true\n  sample_rate: 50%", "tracing.sample_rate", 3, "write 0.5"),
    ("serve:\n  http:\n    allowed_hosts: keys.example", "serve.http.allowed_hosts", 3, "write a list"),
    ("authz:\n  routes: {mode: off}", "authz.routes", 2, "begin each entry with"),
    ("authz:\n  routes:\n    - {path: /a}", "authz.routes[0].path", 3, "as in {prefix: /orders}"),
    ("authz:\n  sources:\n    - authorization", "authz.sources[0]", 3, "as in {header: x-api-key}"),
    ("authz:\n  routes:\n    - {scopes: [a, b]}", "authz.routes[0].scopes", 3, "write one text"),
    ("last_used:\n  queue_size: 18446744073709551615", "last_used.queue_size", 2, "must be 1 to 10000000"),
    ("last_used:\n  flush_size: 9223372036854775807", "last_used.flush_size", 2, "must be 1 to 10000000"),
];

const NAMES: &[Mistake] = &[
    ("log:\n  level: WARNING", "log.level", 2, "did you mean warn?"),
    (
        "serve:\n  http:\n    client_ip_source: X_FORWARDED_FOR",
        "serve.http.client_ip_source",
        3,
        "did you mean CLIENT_IP_SOURCE_X_FORWARDED_FOR?",
    ),
    ("authz:\n  routes:\n    - {methds: [GET]}", "authz.routes[0].methds", 3, "did you mean methods?"),
    (
        "multitenancy:\n  networks:\n    - {hostnme: a, id: x}",
        "multitenancy.networks[0].hostnme",
        3,
        "hostname?",
    ),
    (
        "issuance_policies:\n  - {name: a, allowd_scopes: [a]}",
        "issuance_policies[0].allowd_scopes",
        2,
        "allowed_scopes?",
    ),
    ("db:\n  max_conns: 25", "db.max_conns", 2, "a parameter of db.dsn"),
    ("log_level: debug", "log_level", 1, "did you mean log.level"),
    ("serve:\n  grpc: {port: 1}", "serve.grpc", 2, "did you mean serve.authz?"),
    ("serve:\n  http:\n    tls: {cert: a}", "serve.http.tls.cert", 3, "serve.http.tls.cert_file?"),
    ("serve:\n  public:\n    listen: ':4421'", "serve.public.listen", 3, "host and port of serve.public?"),
    (
        "credentials:\n  api_keys:\n    ttl: 5h",
        "credentials.api_keys.ttl",
        3,
        "credentials.api_keys.default_ttl",
    ),
    ("cache:\n  redis: {url: a}", "cache.redis.url", 2, "did you mean cache.redis.addrs?"),
];

const REFERENCES: &[Mistake] = &[
    ("tracing:\n  enabled: true\n  endpoint: ftp://x", "tracing.endpoint", 3, "must be a URL"),
    ("db:\n  dsn: mysql://u:p@h", "db.dsn", 2, "must name a database"),
    ("db:\n  dsn: sqlite://other", "db.dsn", 2, "is no SQLite database"),
    ("db:\n  dsn: sqlite:///dev/null", "db.dsn", 2, "is a device, a pipe or a socket"),
    ("audit:\n  file: /dev/null", "audit.file", 2, "is no file that can be read back"),
    ("audit:\n  file: ./talos.yaml", "audit.file", 2, "is the file of the configuration too"),
    ("audit:\n  file: ./a.db\ndb:\n  dsn: sqlite://a.db", "audit.file", 2, "is the file of db.dsn too"),
    (
        "audit:\n  file: other\nconsistency:\n  deny_file: ./other",
        "audit.file",
        2,
        "is the file of consistency.deny_file too",
    ),
    ("tracing:\n  enabled: true\n  endpoint: http://collector:99999", "tracing.endpoint", 3, "must be a URL"),
    (
        "credentials:\n  derived_tokens:\n    jwt:\n      signing_keys: {urls: ['https://h:99999/x']}",
        "credentials.derived_tokens.jwt.signing_keys.urls[0]",
        4,
        "must be a URL",
    ),
    (
        "serve:\n  http:\n    auth:\n      mode: jwt\n      roles: {admin: [a]}\n      jwt: {issuer: a, audience: b, jwks: \
         'https://'}",
        "serve.http.auth.jwt.jwks",
        6,
        "must be a URL",
    ),
    (
        "authz:\n  routes:\n    - {path: {prefix: /a}, mode: off}\n    - {path: {prefix: /a}, scopes: admin}",
        "authz.routes[1]",
        4,
        "this one never applies",
    ),
    (
        "serve:\n  http: {socket: a.sock}\n  authz: {socket: a.sock}",
        "serve.authz.socket",
        3,
        "is serve.http.socket's path already",
    ),
    (
        "serve:\n  http:\n    host: 127.0.0.1:4420",
        "serve.http.host",
        3,
        "write host: \"127.0.0.1\", and port: 4420 beside it",
    ),
    ("db:\n  dsn: sqlite://directory", "db.dsn", 2, "is a directory"),
    (
        "serve:\n  http: {host: localhost, port: 4430}\n  metrics: {host: 127.0.0.1, port: 4430}",
        "serve.metrics.port",
        3,
        "is serve.http's address already",
    ),
    (
        "db:\n  dsn: 'postgres://u:p@h/d?sslmode=verify-full&sslrootcert=/none.crt'",
        "db.dsn",
        2,
        "name a PEM file",
    ),
    ("serve:\n  authz:\n    socket: other", "serve.authz.socket", 3, "name another path"),
    (
        "serve:\n  authz:\n    socket: /tmp/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "serve.authz.socket",
        3,
        "107 at most",
    ),
    ("authz:\n  sources:\n    - {header: Host}", "authz.sources[0]", 3, "choose another"),
    (
        "cache:\n  redis: {tls: {enabled: true, cert_file: a}}",
        "cache.redis.tls.key_file",
        2,
        "is needed beside",
    ),
    (
        "secrets:\n  hmac:\n    retired: ['${OLD}']",
        "secrets.hmac.retired[0]",
        3,
        "set TALOS_SECRETS_HMAC_RETIRED",
    ),
    ("serve:\n  http:\n    port: ${PORT}", "serve.http.port", 3, "set TALOS_SERVE_HTTP_PORT"),
];

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_of_yaml_are_found() {
    for mistake in YAML {
        is_found(mistake).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_of_types_are_found() {
    for mistake in TYPES {
        is_found(mistake).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_words_for_names_are_found() {
    for mistake in NAMES {
        is_found(mistake).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_found() {
    for mistake in REFERENCES {
        is_found(mistake).await;
    }
}

/// What is accepted and hardly meant is said, at its place, and the exit code stays 0.
#[tokio::test(flavor = "multi_thread")]
async fn doubtful_settings_get_a_warning() {
    for (yaml, key, line) in [
        ("log: {}\nconsistency: {lease: 100h}", "consistency.lease: lets", 2),
        ("serve:\n  http:\n    auth: {roles: {admin: [a]}}", "serve.http.auth.roles: has no effect", 3),
        ("credentials:\n  issuer: 'https://${HOST}'", "credentials.issuer: has a placeholder", 2),
        (
            "credentials:\n  issuer_retired:\n    - {value: a, expires_at: 2020-01-01T00:00:00Z}",
            "credentials.issuer_retired[0]: has expired",
            3,
        ),
        ("multitenancy:\n  enabled: true", "multitenancy.networks: is empty", 1),
        ("authz:\n  routes:\n    - {path: {prefix: '/a/*'}}", "authz.routes[0].path: has a *", 3),
        (
            "serve:\n  http:\n    cors: {enabled: true, allowed_origins: [app.example]}",
            "serve.http.cors.allowed_origins[0]: matches no origin",
            3,
        ),
    ] {
        let setup = with_file(yaml).set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
        let checked = setup.run(&["config", "check", "talos.yaml"]).await;
        let output = err(&checked);
        assert_eq!((checked.status.code(), out(&checked).as_str()), (Some(0), "ok\n"), "{yaml}: {output}");
        let warning = output
            .lines()
            .find(|output| output.starts_with(&format!("warning: {key}")))
            .must(&output)
            .to_owned();
        assert!(warning.contains(&format!("line {line} ")), "{yaml}: {warning}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_fit_are_found() {
    let authority = Authority::new();
    let (one, other, old) = (
        authority.issue("localhost", 2040),
        authority.issue("localhost", 2040),
        authority.issue("localhost", 2021),
    );
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned();
    let yaml = "serve:\n  public:\n    tls: {cert_file: a.crt, key_file: a.key}\n";
    for (certificate, key, code, output) in [
        (&one.0, &one.1, 0, ""),
        (&one.0, &other.1, 64, "that belong together"),
        (&one.1, &one.0, 64, "name PEM files"),
        (&one.0, &no_key, 64, "the key can't be used: it must be RSA of 2048"),
        (&old.0, &old.1, 0, "warning: serve.public.tls: the certificate expired at 2021"),
    ] {
        let setup = with_file(yaml).set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
        std::fs::write(setup.path("a.crt"), certificate).must("a certificate");
        std::fs::write(setup.path("a.key"), key).must("a key");
        let checked = setup.run(&["config", "check", "talos.yaml"]).await;
        let said = err(&checked);
        assert_eq!(checked.status.code(), Some(code), "{output}: {said}");
        assert!(said.contains(output) && (output.is_empty() || said.contains("line 3 ")), "{output}: {said}");
    }
}

/// A self-signed certificate and its key, valid between the beginnings of two years.
fn self_signed(from: i32, until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).must("parameters");
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().must("a key");
    let certificate = params.self_signed(&key).must("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// Certificates that every peer would refuse are told, at their places.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_peers_refuse_get_a_warning() {
    let authority = Authority::new();
    let (good, early) = (authority.issue("localhost", 2099), self_signed(2090, 2099));
    let (old, client) = (self_signed(2020, 2021).0, authority.issue("client", 2099).0);
    let alone = "serve:\n  public:\n    tls: {cert_file: a.crt, key_file: a.key}\n";
    let mutual = "serve:\n  public:\n    tls: {cert_file: a.crt, key_file: a.key, client_ca_file: ca.pem}\n";
    let redis = "cache:\n  type: redis\n  redis:\n    tls: {enabled: true, ca_file: ca.pem}\n";
    let of_client = "serve.public.tls.client_ca_file: ";
    for (yaml, pair, ca, warning, line) in [
        (
            alone,
            &early,
            &old,
            "serve.public.tls: the certificate is valid only from 2090-01-01".to_owned(),
            3,
        ),
        (mutual, &good, &old, format!("{of_client}the CA expired at 2021-01-01"), 3),
        (mutual, &good, &client, format!("{of_client}holds the certificate of a client or a server"), 3),
        (redis, &good, &old, "cache.redis.tls.ca_file: the CA expired at 2021-01-01".to_owned(), 4),
        (mutual, &good, &authority.pem(), String::new(), 0),
        (redis, &good, &authority.pem(), String::new(), 0),
    ] {
        let setup = with_file(yaml).set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
        // A byte order mark changes nothing.
        std::fs::write(setup.path("a.crt"), format!("\u{feff}{}", pair.0)).must("a certificate");
        std::fs::write(setup.path("a.key"), format!("\u{feff}{}", pair.1)).must("a key");
        std::fs::write(setup.path("ca.pem"), ca).must("an authority");
        let checked = setup.run(&["config", "check", "talos.yaml"]).await;
        let said = err(&checked);
        assert_eq!((checked.status.code(), out(&checked).as_str()), (Some(0), "ok\n"), "{yaml}: {said}");
        if warning.is_empty() {
            assert_eq!(said, "", "{yaml}");
        } else {
            let (found, place) = (format!("warning: {warning}"), format!("line {line} "));
            assert!(said.starts_with(&found) && said.contains(&place), "{yaml}: {said}");
            assert_eq!(said.lines().count(), 1, "{yaml}: {said}");
        }
    }
}

/// What is wrong with a network's file is told with that file and the line there, and what it has
/// of the main file is told once.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_a_network_is_named_with_its_line() {
    let networks = "multitenancy:\n  enabled: true\n  networks:\n    - hostname: a.example\n      id: \
                    6ba7b810-9dad-41d1-80b4-00c04fd430c8\n      config_path: own.yaml\n";
    let expired = "credentials:\n  issuer_retired:\n    - {value: a, expires_at: 2020-01-01T00:00:00Z}\n";
    let issuers = "credentials.issuer_retired[0]: ";
    for (main, own, code, begin, place) in [
        (
            "",
            "# ours\ncredentials: {derived_tokens: {jwt: {signing_key_id: nokid}}}\n",
            64,
            "a.example: credentials.derived_tokens.jwt.signing_key_id: no signing key".to_owned(),
            "(own.yaml), line 2 ",
        ),
        ("", expired, 0, format!("warning: a.example: {issuers}has expired"), "(own.yaml), line 3 "),
        (expired, "cache: {ttl: 1m}\n", 0, format!("warning: {issuers}has expired"), "(talos.yaml), line 3 "),
        (
            "",
            "credentials:\n  issuer_retired: ['a ']\n",
            0,
            format!("warning: a.example: {issuers}begins or ends with white space"),
            "(own.yaml), line 2 ",
        ),
    ] {
        let setup = with_file(&format!("{main}{networks}")).set("TALOS_SECRETS_HMAC_CURRENT", HMAC_SECRET);
        std::fs::write(setup.path("own.yaml"), own).must("a network's file");
        let checked = setup.run(&["config", "check", "talos.yaml"]).await;
        let said = err(&checked);
        assert_eq!(checked.status.code(), Some(code), "{own}: {said}");
        assert!(said.starts_with(&begin) && said.contains(place), "{own}: {said}");
        assert_eq!(said.matches(&begin[begin.len() - 12..]).count(), 1, "{own}: {said}");
    }
}
