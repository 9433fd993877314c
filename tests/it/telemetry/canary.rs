//! Canary secrets: put into every place where a secret belongs, and looked for everywhere else.

use serde_json::{Value, json};

use super::collector::Collector;
use super::traces::traced;
use crate::rig::check::Check;
use crate::rig::http::{Base, Call, Version};
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must};
use crate::rig::talos::{DERIVE, IMPORTED, ISSUED, JWKS, SELF_REVOKE, Setup, VERIFY};

const HMAC: &str = "canary-hmac-secret-0123456789-0123456789";
const HMAC_OLD: &str = "canary-retired-secret-0123456789-012345";
const AUDIT: &str = "canary-audit-key-0123456789-0123456789-01";
const AUDIT_OLD: &str = "canary-old-audit-key-0123456789-0123456";
const DATABASE: &str = "canary-database-password";
const RAW: &str = "canary-raw-key-0123456789";

/// Places that no secret may be in.
struct Places {
    secrets: Vec<String>,
    read: usize,
}

impl Places {
    #[track_caller]
    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.read += 1;
        for secret in &self.secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret is in {place}: {}", String::from_utf8_lossy(bytes));
        }
    }

    fn add(&mut self, secret: &str) {
        assert!(secret.len() >= 16, "too short to be looked for");
        self.secrets.push(secret.to_owned());
    }
}

fn setup(collector: &Collector, redis: &Redis) -> Setup {
    let setup = redis.used_by(traced(collector).sqlite());
    std::fs::create_dir(setup.path("audit")).must("a directory");
    let file = setup.path("audit/audit.jsonl").display().to_string();
    // SQLite has no password, and would not mind one.
    let database = format!("sqlite://{}", setup.path("talos.db").display());
    setup
        .set("TALOS_SECRETS_HMAC_CURRENT", HMAC)
        .set("TALOS_SECRETS_HMAC_RETIRED_0", HMAC_OLD)
        .set("TALOS_AUDIT_FILE", &file)
        .set("TALOS_AUDIT_KEY", AUDIT)
        .set("TALOS_AUDIT_KEY_RETIRED_0", AUDIT_OLD)
        .set("TALOS_DB_DSN", &database)
        .set("TALOS_LOG_LEVEL", "trace")
        .set("TALOS_LOG_FORMAT", "json")
}

/// Bodies that are wrong in ways that make a parser quote them.
fn bad_bodies(secret: &str) -> Vec<Vec<u8>> {
    let mut bodies = vec![
        format!("{{\"credential\":\"{secret}\""),
        format!("{{\"credential\":[\"{secret}\"]}}"),
        format!("{{\"{secret}\":1}}").replace(secret, "unknown"),
        format!("{{\"credential\":\"{secret}\",\"unknown\":\"{secret}\"}}"),
        format!("\"{secret}\""),
        format!("{{\"raw_key\":{{\"x\":\"{secret}\"}}}}"),
        format!("{{\"name\":\"n\",\"actor_id\":\"a\",\"raw_key\":\"{secret}\",\"ttl\":\"{secret}\"}}"),
        format!("{{\"requests\":[{{\"credential\":\"{secret}\"}},{{\"raw_key\":\"{secret}\"}}]}}"),
        format!("{{\"requests\":\"{secret}\"}}"),
        format!("{{\"reason\":\"{secret}\",\"credential\":\"{secret}\"}}"),
    ];
    bodies.push(format!("{secret}\u{0}"));
    let mut bodies: Vec<Vec<u8>> = bodies.into_iter().map(String::into_bytes).collect();
    bodies.push([b"{\"credential\":\"\xff", secret.as_bytes()].concat());
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_anywhere_but_in_the_answers_that_must_hold_it() {
    needs!(Redis);
    let collector = Collector::start().await;
    let redis = Redis::start().await;
    let setup = setup(&collector, &redis);
    let talos = setup.start().await;
    let mut places = Places { secrets: vec![], read: 0 };
    for secret in [HMAC, HMAC_OLD, AUDIT, AUDIT_OLD, RAW] {
        places.add(secret);
    }

    // Each of these answers holds a secret that is known from here on.
    let body = json!({ "name": "n", "actor_id": "a", "scopes": ["x"], "ip_restriction": { "allowed_cidrs": ["10.0.0.0/8"] } });
    let elsewhere = talos.admin.post(ISSUED, &body).await.expect(201).json();
    let body = json!({ "name": "n", "actor_id": "a", "scopes": ["x"] });
    let issued = talos.admin.post(ISSUED, &body).await.expect(201).json();
    let rotate = format!("{ISSUED}/{}:rotate", issued.text("/issued_api_key/key_id"));
    let rotated = talos.admin.post(&rotate, &json!({ "grace_period": "600s" })).await.expect(201).json();
    let (old, secret) = (issued.text("/secret").to_owned(), rotated.text("/secret").to_owned());
    let foreign = elsewhere.text("/secret").to_owned();
    let mut tokens = vec![];
    for algorithm in ["TOKEN_ALGORITHM_JWT", "TOKEN_ALGORITHM_MACAROON"] {
        let body = json!({ "credential": secret, "algorithm": algorithm });
        let derived = talos.admin.post(DERIVE, &body).await.expect(200).json();
        tokens.push(derived.text("/token/token").to_owned());
    }
    let import = json!({ "name": "n", "actor_id": "a", "raw_key": RAW });
    for text in [&old, &secret, &foreign].into_iter().chain(&tokens) {
        places.add(text);
    }
    let imported = talos.admin.post(IMPORTED, &import).await.expect(201);
    places.look("the answer to an import", &imported.body);

    // Every route, with good and with bad input.
    let ids = [rotated.text("/issued_api_key/key_id").to_owned(), imported.json().text("/key_id").to_owned()];
    let shown = [secret.as_str(), &old, &foreign, RAW, &tokens[0], &tokens[1]];
    for base in [talos.admin, talos.public, talos.metrics] {
        for credential in shown {
            ask_everything(base, credential, &ids, &mut places).await;
        }
    }
    let answers = talos.admin.post(IMPORTED, &import).await;
    places.look("the answer to a second import", &answers.body);

    // The edge: what goes to Envoy holds a token, and never what the caller sent.
    for credential in shown {
        let damaged = format!("{}x", &credential[..credential.len() - 1]);
        for text in [credential, &damaged] {
            let check = Check::bearer(text)
                .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
            talos.check(check).await;
            talos.check(Check::api_key(text).route("talos.scopes", "y")).await;
            talos.check(Check::bearer(text).route("talos.mode", "nonsense")).await;
        }
    }

    // A reload that fails, and a database that does.
    talos.process.signal(rustix::process::Signal::HUP);
    setup.break_database();
    talos.admin.post(VERIFY, &json!({ "credential": secret })).await;
    let another = json!({ "name": "n", "actor_id": "a", "raw_key": format!("{RAW}-2") });
    let failed = talos.admin.post(IMPORTED, &another).await.expect(503);
    places.look("the answer while the database is broken", &failed.body);
    talos.self_revoke(&secret).await;

    places.look("the status", &talos.metrics.get("/status").await.body);
    places.look("the metrics", &talos.metrics.get("/metrics").await.body);
    places.look("the audit log", &std::fs::read(setup.path("audit/audit.jsonl")).must("the audit log"));
    collector.until("spans", |spans| spans.len() > 50).await;
    talos.stop().await;
    let traces = collector.bytes();
    assert!(traces.len() > 5_000, "{} bytes of traces", traces.len());
    places.look("the traces", &traces);
    let log = std::fs::read(setup.path("talos.log")).must("the log");
    assert!(log.len() > 10_000, "{} bytes of log", log.len());
    places.look("the log", &log);
    for (_, entry) in redis.entries().await {
        places.look("Redis", &entry);
    }
    for entry in std::fs::read_dir(setup.path("")).must("the directory") {
        let path = entry.must("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("talos.db")) {
            places.look("the database", &std::fs::read(&path).must("the database"));
        }
    }
    commands(&setup, &mut places).await;
    assert!(places.read > 500, "only {} places were looked at", places.read);
}

/// Every route of a plane, with a credential in each place where one could be.
async fn ask_everything(base: Base, credential: &str, ids: &[String], places: &mut Places) {
    let mut calls = vec![
        Call::get("/openapi.json"),
        Call::get("/docs"),
        Call::get(JWKS),
        Call::get(ISSUED),
        Call::get(IMPORTED),
        Call::get("/health/ready"),
        Call::get(&format!("{ISSUED}?page_token={credential}")),
        Call::get(&format!("{ISSUED}?filter={credential}")),
        Call::get(&format!("{ISSUED}/{credential}")),
        Call::get(&format!("/{credential}")),
        Call::post(&format!("{ISSUED}/{credential}:rotate")),
        Call::new("DELETE", &format!("{IMPORTED}/{credential}")),
        Call::get(ISSUED).bearer(credential).header("cookie", credential).header("x-request-id", "r"),
    ];
    for id in ids {
        calls.push(Call::get(&format!("{ISSUED}/{id}")));
        calls.push(Call::get(&format!("{IMPORTED}/{id}")));
    }
    for path in [VERIFY, DERIVE, SELF_REVOKE, IMPORTED, ISSUED, "/v2alpha1/admin/apiKeys:batchVerify"] {
        for body in bad_bodies(credential) {
            calls.push(Call::post(path).body("application/json", body));
        }
        calls.push(Call::post(path).body("text/plain", credential.to_owned()));
    }
    let good: Value = json!({ "credential": credential });
    calls.push(Call::post(VERIFY).json(&good));
    calls.push(Call::post(VERIFY).json(&good).header("cache-control", "no-store"));
    calls.push(Call::post("/v2alpha1/admin/apiKeys:batchVerify").json(&json!({ "requests": [good, good] })));
    for call in calls {
        let what = format!("{call:?}");
        // A path that no request can have isn't asked for.
        if let Ok(reply) = base.try_send(Version::Http1, call).await {
            let head = format!("{:?}", reply.headers);
            // None of these answers may have the secret.
            places.look(&format!("the head of the answer to {what}"), head.as_bytes());
            places.look(&format!("the answer to {what}"), &reply.body);
        }
    }
}

/// Collects the output of commands with all secrets in their environment.
async fn commands(setup: &Setup, places: &mut Places) {
    let dsn = format!("postgres://talos:{DATABASE}@127.0.0.1:1/x?password={DATABASE}");
    let redis = "TALOS_CACHE_REDIS_PASSWORD";
    let with = setup.clone().set("TALOS_DB_DSN", &dsn).set(redis, "canary-redis-password");
    places.add(DATABASE);
    places.add("canary-redis-password");
    for line in [
        "--help",
        "serve --help",
        "keys issue --help",
        "audit verify --help",
        "audit verify audit/audit.jsonl",
        "config check",
        "config show",
        "config show --origin --format json",
        "config schema",
        "migrate status",
        "migrate up",
        "serve",
        "keys verify canary-not-a-key -e http://127.0.0.1:1",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = with.run(&arguments).await;
        places.look(&format!("talos {line}"), &[output.stdout, output.stderr].concat());
    }
}
