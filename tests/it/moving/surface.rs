//! Everything that Ory Talos documents: each key of its configuration, each environment variable,
//! each command with its options, and the forms of its DSNs. Each is understood here, or refused by
//! its name with what to write.

use serde_json::{Map, Value, json};

use crate::cli::Ran;
use crate::rig::support::Must;
use crate::rig::talos::Setup;

const SECRET: &str = "zr7kq2mvx9dw4hsb8ynt3cgf6jpl1ae5uo0izr7kq2mv";

/// Every key of its configuration reference, with a value that its pages show, and the same as the
/// text of a variable.
const KEYS: [(&str, &str, &str); 61] = [
    ("cache.memory.max_size", "104857600", "104857600"),
    ("cache.memory.num_counters", "10000", "10000"),
    ("cache.redis.addrs", r#"["localhost:6379"]"#, "localhost:6379"),
    ("cache.redis.conn_max_idle_time", r#""5m""#, "5m"),
    ("cache.redis.conn_max_lifetime", r#""30m""#, "30m"),
    ("cache.redis.db", "0", "0"),
    ("cache.redis.min_idle_conns", "2", "2"),
    ("cache.redis.password", r#""secret""#, "secret"),
    ("cache.redis.pool_size", "100", "100"),
    ("cache.redis.timeout", r#""3s""#, "3s"),
    ("cache.redis.tls.enabled", "true", "true"),
    ("cache.ttl", r#""5m""#, "5m"),
    ("cache.type", r#""redis""#, "redis"),
    ("credentials.api_keys.default_ttl", r#""2160h""#, "2160h"),
    ("credentials.api_keys.max_ttl", r#""8760h""#, "8760h"),
    ("credentials.api_keys.prefix.current", r#""talos""#, "talos"),
    ("credentials.api_keys.prefix.public_current", r#""pk""#, "pk"),
    ("credentials.api_keys.prefix.public_retired", r#"["pk_old"]"#, "pk_old"),
    ("credentials.api_keys.prefix.retired", r#"["old"]"#, "old"),
    ("credentials.clock_skew", r#""5m""#, "5m"),
    ("credentials.derived_tokens.default_ttl", r#""1h""#, "1h"),
    ("credentials.derived_tokens.jwt.signing_key_id", r#""""#, ""),
    (
        "credentials.derived_tokens.jwt.signing_keys.urls",
        r#"["base64://eyJrZXlzIjpbXX0="]"#,
        "base64://eyJrZXlzIjpbXX0=",
    ),
    ("credentials.derived_tokens.macaroon.prefix.current", r#""mc""#, "mc"),
    ("credentials.derived_tokens.macaroon.prefix.retired", r#"["mc_old"]"#, "mc_old"),
    ("credentials.issuer", r#""https://api.example.com""#, "https://api.example.com"),
    ("credentials.issuer_retired", r#"["https://old.example.com"]"#, "https://old.example.com"),
    ("db.dsn", r#""sqlite://./talos.db""#, "sqlite3://./talos.db"),
    ("last_used.flush_interval", r#""30s""#, "30s"),
    ("last_used.flush_size", "100", "100"),
    ("last_used.num_workers", "4", "4"),
    ("last_used.queue_size", "10000", "10000"),
    ("log.format", r#""json""#, "json"),
    ("log.level", r#""info""#, "debug"),
    ("multitenancy.enabled", "true", "true"),
    (
        "multitenancy.networks",
        r#"[{"hostname": "tenant1.talos.example.com", "id": "550e8400-e29b-41d4-a716-446655440001"}]"#,
        r#"[{"hostname": "tenant1.talos.example.com", "id": "550e8400-e29b-41d4-a716-446655440001"}]"#,
    ),
    ("quota.api_keys_max", "1000", "1000"),
    ("rate_limit.backend", r#""redis""#, "redis"),
    ("rate_limit.enabled", "true", "true"),
    ("secrets.hmac.current", r#""zr7kq2mvx9dw4hsb8ynt3cgf6jpl1ae5uo0izr7kq2mv""#, SECRET),
    (
        "secrets.hmac.retired",
        r#"["9876543210zyxwvutsrqponmlkjihgfedcba"]"#,
        "9876543210zyxwvutsrqponmlkjihgfedcba",
    ),
    ("serve.http.client_ip_source", r#""CLIENT_IP_SOURCE_UNSPECIFIED""#, "CLIENT_IP_SOURCE_CF_CONNECTING_IP"),
    ("serve.http.cors.allow_credentials", "false", "false"),
    ("serve.http.cors.allowed_headers", r#"["Authorization", "Content-Type"]"#, "Authorization,Content-Type"),
    ("serve.http.cors.allowed_methods", r#"["GET", "POST"]"#, "GET,POST"),
    ("serve.http.cors.allowed_origins", r#"["https://app.example.com"]"#, "https://app.example.com"),
    ("serve.http.cors.debug", "false", "false"),
    ("serve.http.cors.enabled", "true", "true"),
    ("serve.http.cors.exposed_headers", r#"["Content-Type"]"#, "Content-Type"),
    ("serve.http.cors.max_age", "600", "600"),
    ("serve.http.port", "4420", "4420"),
    ("serve.http.request_log.exclude_health_endpoints", "true", "true"),
    ("serve.http.trust_forwarded_host", "true", "true"),
    ("serve.metrics.host", r#""0.0.0.0""#, "0.0.0.0"),
    ("serve.metrics.port", "4422", "4422"),
    ("tracing.enabled", "true", "true"),
    ("tracing.endpoint", r#""otel-collector:4317""#, "otel-collector:4317"),
    ("tracing.environment", r#""production""#, "production"),
    ("tracing.exporter", r#""otlp""#, "otlp"),
    ("tracing.sample_rate", "0.01", "0.01"),
    ("tracing.service_name", r#""talos""#, "talos"),
];

fn put(whole: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(whole.insert(path.to_owned(), value)),
        Some((section, rest)) => {
            let inner = whole.entry(section).or_insert_with(|| json!({}));
            put(inner.as_object_mut().must(section), rest, value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_and_variable_is_understood() {
    let mut whole = Map::new();
    for (path, value, _) in KEYS {
        put(&mut whole, path, serde_json::from_str(value).must(path));
    }
    let by_file = Setup::bare();
    std::fs::write(by_file.path("talos.yaml"), Value::Object(whole).to_string()).must("a configuration");
    let mut by_variables = Setup::bare();
    for (path, _, text) in KEYS {
        by_variables = by_variables.set(&format!("TALOS_{}", path.replace('.', "_").to_uppercase()), text);
    }
    for (setup, arguments, origin) in [
        (by_file, &["config", "show", "talos.yaml", "--origin", "--format", "json"][..], "talos.yaml"),
        (by_variables, &["config", "show", "--origin", "--format", "json"], "TALOS_"),
    ] {
        let shown = Ran::from(setup.run(arguments).await).expect(0);
        assert!(!shown.stderr.contains("unknown variable"), "{}", shown.stderr);
        let shown = shown.json();
        for (path, ..) in KEYS.iter().filter(|(.., text)| !text.is_empty()) {
            let of = shown[path]["origin"].as_str().must(path);
            assert!(of.starts_with(origin), "{path}: {of}");
        }
    }
}

/// Commands with the options of its CLI reference.
const COMMANDS: [(&str, &str); 25] = [
    ("jwk generate ecdsa", "--curve=P-256 --jwks --kid=a --output=f --public-only --use=sig"),
    ("jwk generate eddsa", "--jwks --kid=a --output=f --public-only --use=sig"),
    ("jwk generate hmac", "--bits=512 --jwks --kid=a --output=f --use=enc"),
    ("jwk generate rsa", "--alg=PS256 --bits=2048 --jwks --kid=a --output=f --public-only --use=sig"),
    ("jwk get", ""),
    ("keys batch-verify", "a b --format=json --no-cache -q"),
    ("keys derive-token", "a --algorithm=macaroon --claims={} --format=yaml -q --ttl=168h"),
    ("keys imported batch-import", "--file=keys.json --format=json-pretty -q"),
    ("keys imported delete", "a --format=json -q"),
    ("keys imported get", "a --format=jsonpath=key_id -q"),
    (
        "keys imported import",
        "a --actor=a --allowed-cidrs=10.0.0.0/8,192.168.0.0/16 --metadata={} --rate-limit-quota=5 \
         --rate-limit-window=60s --raw-key=a --scopes=a,b --ttl=8760h",
    ),
    ("keys imported list", "--actor=a --page-size=5 --page-token=a --status=KEY_STATUS_ACTIVE"),
    ("keys imported revoke", "a --reason=privilege_withdrawn --reason-text=a"),
    (
        "keys imported update",
        "a --allowed-cidrs= --metadata={} --name=a --rate-limit-quota=5 --rate-limit-window=60s --scopes=a \
         --update-mask=name,scopes",
    ),
    (
        "keys issue",
        "a --actor=a --allowed-cidrs=10.0.0.0/8 --metadata={} --rate-limit-quota=5 --rate-limit-window=5m \
         --scopes=a --ttl=24h0m0s",
    ),
    ("keys issued get", "a --format=jsonpointer=/key_id"),
    ("keys issued issue", "a --actor=a --scopes=a --ttl=168h"),
    ("keys issued list", "--actor=a --page-size=5 --page-token=a --status=KEY_STATUS_REVOKED"),
    ("keys issued revoke", "a --reason=key_compromise --reason-text=a"),
    ("keys issued rotate", "a --metadata={} --name=a --scopes=a"),
    ("keys issued update", "a --name=a --update-mask=rate_limit_policy"),
    ("keys self-revoke", "a --reason=superseded --format=json -q"),
    ("keys verify", "a --format=table --no-cache -q"),
    ("migrate down", "--database=sqlite3://./talos.db --steps=3"),
    ("migrate status", "--database=sqlite:///var/lib/talos/data.db"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_and_option_is_understood() {
    let setup = Setup::bare();
    let run = async |words: &str| {
        let line = format!("{words} --config=talos.yaml --endpoint=http://localhost:4420 --help");
        Ran::from(setup.run(&line.split_whitespace().collect::<Vec<_>>()).await)
    };
    for (command, options) in COMMANDS {
        let ran = run(&format!("{command} {options}")).await.expect(0);
        assert!(ran.stdout.contains("Usage: talos"), "{command}: {}", ran.stdout);
    }
    for command in ["serve", "serve admin", "serve public", "migrate up", "migrate force 17"] {
        run(command).await.expect(0);
    }
    run("keys verify a --nonesuch").await.expect(64);
}

/// DSNs of its pages: accepted, or refused with the parameter and what to do.
const DSNS: [(&str, &str); 14] = [
    ("postgres://talos:secret@db:5432/talos?sslmode=require&max_conns=25&max_conn_lifetime=5m", ""),
    ("postgres://talos:secret@db:5432/talos?pool_max_conns=25&pool_max_conn_lifetime=5m", ""),
    (
        "postgres://talos:secret@db:5432/talos?max_conns=25&max_idle_conns=5&max_conn_lifetime=5m&max_conn_idle_time=1m",
        "",
    ),
    ("postgres://talos:secret@db:5432/talos?sslmode=verify-full&pool_mode=advanced", ""),
    (
        "postgres://talos:secret@db:5432/talos?pool_mode=standard&connect_timeout=10&application_name=talos",
        "",
    ),
    (
        "postgres://talos:secret@db:5432/talos?pool_mode=advanced&pool_max_conns=50&pool_min_conns=2",
        "the parameter pool_min_conns has no counterpart: remove it",
    ),
    (
        "postgres://talos:secret@db:5432/talos?pool_health_check_period=1m",
        "the parameter pool_health_check_period has no counterpart: remove it",
    ),
    ("mysql://talos:secret@tcp(db:3306)/talos?tls=true&parseTime=true&multiStatements=true", ""),
    (
        "mysql://talos:secret@tcp(db:3306)/talos?parseTime=true&tls=true&timeout=10s&readTimeout=30s&writeTimeout=30s&max_conns=25",
        "",
    ),
    ("mysql://talos:secret@tcp(db:3306)/talos?charset=utf8mb4&collation=utf8mb4_general_ci&loc=UTC", ""),
    ("mysql://talos:secret@tcp(db:3306)/talos?tls=custom", "the parameter tls must be true"),
    ("cockroach://talos@crdb:26257/talos?sslmode=verify-full&max_conns=50", ""),
    ("cockroachdb://talos:secret@free-tier.cockroachlabs.cloud:26257/talos?sslmode=require", ""),
    ("sqlite:///var/lib/data.db", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_dsn_is_understood_or_its_parameter_named() {
    for (dsn, output) in DSNS {
        let setup = Setup::bare().set("TALOS_DB_DSN", dsn);
        let checked = Ran::from(setup.run(&["config", "check", "--no-files"]).await);
        assert_eq!(checked.code, if output.is_empty() { 0 } else { 64 }, "{dsn}: {}", checked.stderr);
        assert!(
            checked.stderr.contains(output) && !checked.stderr.contains("secret@"),
            "{dsn}: {}",
            checked.stderr
        );
    }
}
