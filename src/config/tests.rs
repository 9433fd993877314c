//! Loading as a whole: files and environments in, settings or error texts out.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Loads `yaml` from a file called `talos.yaml`.
pub(super) fn load_with(yaml: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talos.yaml");
    std::fs::write(&file, yaml).unwrap();
    load(Some(&file), variables(env))
}

pub(super) fn variables(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn config(yaml: &str, env: &[(&str, &str)]) -> Config {
    match load_with(yaml, env) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{yaml}: {error}"),
    }
}

#[test]
fn an_empty_configuration_is_the_default() {
    let loaded = load(None, Vec::new()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.is_empty());
    for yaml in ["", "# nothing\n", "serve:\n", "serve: {http: null}\ncache: {ttl: ~}\n"] {
        assert_eq!(config(yaml, &[]), Config::default(), "{yaml:?}");
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let c = Config::default();
    assert_eq!(c.serve.http.host, "127.0.0.1");
    let ports = [c.serve.http.port, c.serve.public.port, c.serve.metrics.port, c.serve.authz.port];
    assert_eq!(ports, [4420, 4421, 4422, 4423]);
    assert_eq!(c.db.dsn.expose(), "sqlite://talos.db");
    assert_eq!(c.issuer(), "http://127.0.0.1:4420");
    assert_eq!(c.credentials.api_keys.prefix.current, "ory_ak");
    assert_eq!(c.credentials.derived_tokens.macaroon.prefix.current, "mc");
    assert_eq!(c.cache.kind, CacheType::Memory);
    assert_eq!(c.consistency.lease, Duration::from_secs(5));
    assert_eq!(c.authz.sources.len(), 2);
}

#[test]
fn a_full_file() {
    let c = config(
        r#"
serve:
  http: {host: 0.0.0.0, port: 0, trusted_network: true, client_ip_source: CLIENT_IP_SOURCE_X_REAL_IP}
  authz: {socket: /run/talos.sock}
db: {dsn: "sqlite:///var/lib/talos.db"}
log: {level: debug, format: json}
secrets:
  hmac:
    current: 0123456789abcdef0123456789abcdef
    retired:
      - old-one-0123456789abcdef0123456789
      - {value: old-two-0123456789abcdef0123456789, expires_at: 2026-01-31T00:00:00Z}
      - {value: old-three-0123456789abcdef0123456789, expires_at: 1790000000}
credentials:
  issuer: https://talos.example
  issuer_retired: [https://old.example]
  api_keys: {default_ttl: 30d, max_ttl: 1y, prefix: {public_current: "", retired: [ak]}}
  derived_tokens:
    jwt: {signing_keys: {urls: ["base64://e30="]}, signing_key_id: one}
cache: {ttl: 1m30s, type: noop}
quota: {api_keys_max: 10}
tracing: {sample_rate: 1}
consistency: {relay: 0, grace: 0s}
authz:
  token_header: X-Token
  sources:
    - {header: X-API-Key}
    - {query: key}
    - {cookie: key}
    - {header: A, scheme: Basic}
    - {header: B, scheme: Bearer, scheme_optional: true}
    - {path: '/v2/{key}'}
    - {websocket_protocol: bearer}
  client_address: xff
  trusted_hops: 2
  routes:
    - {host: API.example, methods: [get], path: {template: "/users/{id}"}, mode: optional}
    - {path: {prefix: /admin}, scopes: "a:read a:write", any_scope: x, audience: backend, token: none, visibility: secret}
"#,
        &[],
    );
    assert_eq!(c.serve.authz.socket.as_deref(), Some(Path::new("/run/talos.sock")));
    assert_eq!(c.log.level, LogLevel::Debug);
    let retired = &c.secrets.hmac.retired;
    assert_eq!(retired[0], Retired::new("old-one-0123456789abcdef0123456789".into()));
    assert_eq!(retired[1].expires_at, Some(1_769_817_600));
    assert_eq!(retired[2].expires_at, Some(1_790_000_000));
    assert!(retired[1].is_live(1_769_817_599) && !retired[1].is_live(1_769_817_600));
    assert_eq!(c.issuer(), "https://talos.example");
    assert_eq!(c.credentials.api_keys.prefix.public_current, None);
    assert_eq!(c.credentials.api_keys.default_ttl, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(c.cache.ttl, Duration::from_secs(90));
    assert_eq!(c.authz.token_header, "x-token");
    assert_eq!(
        c.authz.sources[0],
        CredentialSource::Header { name: "x-api-key".to_owned(), form: HeaderForm::Bare }
    );
    let [first, second] = &c.authz.routes[..] else { panic!("two routes") };
    assert_eq!(first.host.as_deref(), Some("api.example"));
    assert_eq!(first.methods, ["GET"]);
    assert_eq!(first.path, Some(PathMatch::Template("/users/{id}".to_owned())));
    assert_eq!(first.mode, Some(RouteMode::Optional));
    assert_eq!(second.scopes.clone().unwrap().into_scopes().to_string(), "a:read a:write");
    assert_eq!(second.visibility, Some(RouteVisibility::Secret));
}

#[test]
fn the_environment_wins() {
    let c = config(
        "serve: {http: {port: 1}}\ncache: {ttl: 1m}\n",
        &[
            ("TALOS_SERVE_HTTP_PORT", "2"),
            ("TALOS_SERVE_HTTP_CLIENT_IP_SOURCE", "CLIENT_IP_SOURCE_TRUE_CLIENT_IP"),
            ("TALOS_SECRETS_HMAC_CURRENT", SECRET),
            ("TALOS_CACHE_ENABLED", "FALSE"),
            ("TALOS_CACHE_TYPE", ""),
            ("TALOS_TRACING_SAMPLE_RATE", "0.5"),
            ("TALOS_CONSISTENCY_RELAY", "0"),
            ("TALOS_CREDENTIALS_API_KEYS_PREFIX_PUBLIC_CURRENT", "pub"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(c.serve.http.port, 2);
    assert_eq!(c.serve.http.client_ip_source, ClientIpSource::TrueClientIp);
    assert_eq!(c.secrets.hmac.current.as_ref().unwrap().expose(), SECRET);
    assert!(!c.cache.enabled);
    assert_eq!(c.cache.kind, CacheType::Memory);
    assert_eq!(c.cache.ttl, Duration::from_secs(60));
    assert_eq!(c.consistency.relay, Duration::ZERO);
    assert_eq!(c.credentials.api_keys.prefix.public_current.as_deref(), Some("pub"));
}

#[test]
fn lists_in_the_environment() {
    let values = |c: &Config| {
        let retired = c.secrets.hmac.retired.iter();
        retired.map(|entry| entry.value.expose().to_owned()).collect::<Vec<_>>()
    };
    let name = "TALOS_SECRETS_HMAC_RETIRED";
    let [a, b] = ["a", "b"].map(|letter| format!("{letter}-{SECRET}"));
    assert_eq!(values(&config("", &[(name, &format!("{a}, {b},"))])), [a.as_str(), &b]);
    // What stood around the secret while it was current, stands around it now.
    assert_eq!(values(&config("", &[(name, &format!("\n{a}\n"))])), [format!("\n{a}\n")]);
    let file = &format!("secrets: {{hmac: {{retired: [{a}, {b}]}}}}");
    let comma = format!("{a},b");
    assert_eq!(values(&config(file, &[(name, "")])), Vec::<String>::new());
    let c = config(
        file,
        &[
            ("TALOS_SECRETS_HMAC_RETIRED_0", &comma),
            ("TALOS_SECRETS_HMAC_RETIRED_1_VALUE", &b),
            ("TALOS_SECRETS_HMAC_RETIRED_1_EXPIRES_AT", "1790000000"),
        ],
    );
    assert_eq!(values(&c), [comma, b]);
    assert_eq!(c.secrets.hmac.retired[1].expires_at, Some(1_790_000_000));

    let c = config(
        "",
        &[
            ("TALOS_AUTHZ_SOURCES_0_HEADER", "X-Key"),
            ("TALOS_AUTHZ_SOURCES_1", "{query: key}"),
            ("TALOS_AUTHZ_SOURCES_2_HEADER", "X-Token"),
            ("TALOS_AUTHZ_SOURCES_2_SCHEME", "Bearer"),
            ("TALOS_AUTHZ_SOURCES_2_SCHEME_OPTIONAL", "true"),
            ("TALOS_AUTHZ_SOURCES_3_HEADER", "Authorization"),
            ("TALOS_AUTHZ_SOURCES_3_SCHEME", "basic"),
            ("TALOS_AUTHZ_SOURCES_3_KEY_IN", "user"),
            ("TALOS_AUTHZ_ROUTES", r#"[{"path":{"exact":"/"},"mode":"off"}]"#),
            (
                "TALOS_MULTITENANCY_NETWORKS",
                "[{hostname: a.example, id: 6ba7b810-9dad-41d1-80b4-00c04fd430c8}]",
            ),
        ],
    );
    let form = |index: usize| match &c.authz.sources[index] {
        CredentialSource::Header { form, .. } => form.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(c.authz.sources.len(), 4);
    assert_eq!(form(2), HeaderForm::OptionalScheme("Bearer".to_owned()));
    assert_eq!(form(3), HeaderForm::Basic(KeyIn::User));
    let written = serde_json::to_value(&c.authz.sources).unwrap();
    assert_eq!(serde_json::from_value::<Vec<CredentialSource>>(written).unwrap(), c.authz.sources);
    assert_eq!(c.authz.routes[0].mode, Some(RouteMode::Off));
    assert_eq!(c.multitenancy.networks[0].hostname, "a.example");
}

#[test]
fn unknown_variables_are_warnings_without_their_values() {
    let loaded = load_with(
        "",
        &[
            ("TALOS_PORT", "tcp://10.0.0.1:4420"),
            ("TALOS_SECRETS_HMAC_CURENT", SECRET),
            ("TALOS_SERVE_HTTP_PORT_4420_TCP", "x"),
            ("TALOS_PORT_4420_TCP_ADDR", "10.0.0.1"),
            ("TALOS_AUTHZ_ROUTES_SERVICE_HOST", "10.0.0.1"),
            ("TALOS_ENDPOINT", "http://localhost:4420"),
        ],
    )
    .unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "TALOS_AUTHZ_ROUTES_SERVICE_HOST: unknown variable, ignored",
            "TALOS_PORT: unknown variable, ignored",
            "TALOS_PORT_4420_TCP_ADDR: unknown variable, ignored",
            "TALOS_SECRETS_HMAC_CURENT: unknown variable, ignored; did you mean TALOS_SECRETS_HMAC_CURRENT?",
            "TALOS_SERVE_HTTP_PORT_4420_TCP: unknown variable, ignored",
        ]
    );
}

#[test]
fn the_serving_secret() {
    let text = Config::default().require_serving_secret().unwrap_err().to_string();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("project has no HMAC key configured"));
    assert!(lines.next().unwrap().starts_with("secrets.hmac.current (TALOS_SECRETS_HMAC_CURRENT): "));
    assert!(config("secrets: {hmac: {current: ''}}", &[]).require_serving_secret().is_err());
    assert!(config("", &[("TALOS_SECRETS_HMAC_CURRENT", SECRET)]).require_serving_secret().is_ok());
}

/// Sets a secret in every form at every secret key, and under misspelt keys, and searches for it in
/// everything that is printed.
#[test]
fn secrets_are_never_printed() {
    const NEEDLE: &str = "hunter2hunter2hunter2hunter2hunter2";
    let number = "98765432109876543";
    let paths = [
        "secrets",
        "secrets.hmac",
        "secrets.hmac.current",
        "secrets.hmac.retired",
        "secrets.hmac.typo",
        "db.dsn",
        "migrate.dsn",
        "cache.redis.password",
        "cache.redis.sentinel.password",
        "cache.redis.addrs",
        "audit.key",
        "credentials.derived_tokens.jwt.signing_keys.urls",
    ];
    let shapes = [
        NEEDLE.to_owned(),
        number.to_owned(),
        format!("-{number}"),
        format!("{number}.5"),
        format!("[{NEEDLE}]"),
        format!("[{number}]"),
        format!("[{{value: {NEEDLE}, expires_at: {NEEDLE}}}]"),
        format!("[{{value: {number}}}]"),
        format!("[{{value: [{NEEDLE}]}}]"),
        format!("[{{{NEEDLE}: 1}}]"),
        format!("[[{NEEDLE}]]"),
        format!("{{{NEEDLE}: {NEEDLE}}}"),
        format!("{{{NEEDLE}}}"),
        format!("!tag {NEEDLE}"),
        format!("!{NEEDLE} x"),
        format!("\"{NEEDLE}"),
        format!("*{NEEDLE}"),
        format!("{{{NEEDLE}: 1, {NEEDLE}: 2}}"),
        format!("{number}{number}{number}"),
    ];
    let hidden = |text: &str| !text.contains("hunter2") && !text.contains("98765");
    let mut seen = 0;
    for path in paths {
        for shape in &shapes {
            let mut yaml = String::new();
            for (depth, name) in path.split('.').enumerate() {
                write!(yaml, "\n{}{name}:", "  ".repeat(depth)).unwrap();
            }
            write!(yaml, " {shape}\nserve: {{http: {{port: x}}}}\n").unwrap();
            let error = load_with(&yaml, &[]).expect_err(&yaml);
            let texts = format!("{error}\n{error:?}");
            assert!(hidden(&texts), "{yaml}\n{texts}");
            seen += 1;
        }
    }
    for key in keys::KEYS.iter().filter(|key| keys::is_secret(&key.path)) {
        for suffix in ["", "_0", "_0_VALUE", "_0_EXPIRES_AT", "_X"] {
            for shape in &shapes {
                let name = format!("{}{suffix}", key.variable);
                let text = match load(None, variables(&[(&name, shape), ("TALOS_CACHE_TTL", "0")])) {
                    Ok(loaded) => format!("{loaded:?}"),
                    Err(error) => format!("{error}\n{error:?}"),
                };
                assert!(hidden(&text), "{name}={shape}\n{text}");
                seen += 1;
            }
        }
    }
    let c = config("", &[("TALOS_SECRETS_HMAC_CURRENT", NEEDLE), ("TALOS_DB_DSN", NEEDLE)]);
    assert!(hidden(&format!("{c:?} {c:#?}")));
    assert!(seen > 500);
}

#[test]
fn files_that_cannot_be_read() {
    let text = load(Some(Path::new("/nowhere/talos.yaml")), Vec::new()).unwrap_err().to_string();
    assert!(text.starts_with("/nowhere/talos.yaml: cannot be read: "), "{text}");
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(load(Some(dir.path()), Vec::new()), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn listen_addresses() {
    let table = [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1"), ("[::1]", "[::1]:1"), ("", "0.0.0.0:1")];
    for (host, expected) in table {
        assert_eq!(listen_address(host, 1), expected);
    }
}
