//! Policies for all keys: a key that breaks one ends everywhere, at the policy's time and not
//! before.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::soon;
use crate::rig::check::Check;
use crate::rig::grpc::Grpc;
use crate::rig::redis::Redis;
use crate::rig::support::{Json, Must, claims, unix_now, unix_seconds, until};
use crate::rig::talos::{DERIVE, HMAC_SECRET, ISSUED, Key, Setup, Talos, generate_as};

/// Two processes on one database, one Redis and one configuration file.
struct Fleet {
    talos: [Talos; 2],
    /// A connection to each process, kept so that one thread answers.
    grpc: [Grpc; 2],
    dir: TempDir,
    base: String,
    _redis: Redis,
}

impl Fleet {
    async fn start() -> Self {
        let (dir, redis) = (tempfile::tempdir().must("a directory"), Redis::start().await);
        generate_as("it-1", "eddsa", &dir.path().join("keys.json"));
        let keys = dir.path().join("keys.json");
        let base = format!(
            "secrets: {{hmac: {{current: {HMAC_SECRET}}}}}\ncache: {{ttl: 1h}}\n\
             credentials: {{derived_tokens: {{jwt: {{signing_keys: {{urls: ['file://{}']}}}}}}}}\n",
            keys.display()
        );
        let file = Self::file(&dir);
        std::fs::write(&file, &base).must("writing a configuration");
        let first = redis.used_by(Setup::from_file(file)).start().await;
        let second = first.setup.start().await;
        let grpc = [first.grpc().await, second.grpc().await];
        Self { talos: [first, second], grpc, dir, base, _redis: redis }
    }

    fn file(dir: &TempDir) -> PathBuf {
        dir.path().join("talos.yaml")
    }

    /// Changes the policies, and waits until both processes have them.
    async fn put(&self, policies: &Value) {
        let mut before = vec![];
        for talos in &self.talos {
            before.push(talos.metric("talos_config_generation").await);
        }
        let new = self.dir.path().join("new.yaml");
        std::fs::write(&new, format!("{}issuance_policies: {policies}\n", self.base)).must("writing");
        std::fs::rename(new, Self::file(&self.dir)).must("putting a file in its place");
        for (talos, before) in self.talos.iter().zip(before) {
            until("the policies are in force", async || {
                (talos.metric("talos_config_generation").await > before).then_some(())
            })
            .await;
        }
    }

    /// Asserts whether a key counts, for both processes.
    async fn counts(&self, key: &Key, expected: bool) {
        for (grpc, talos) in self.grpc.iter().zip(&self.talos) {
            // A loaded machine may not decide about a new key in time.
            let verdict = until("a decision", async || {
                let verdict = grpc.check(&Check::bearer(&key.secret).build()).await;
                (!verdict.is(503)).then_some(verdict)
            })
            .await;
            let verified = talos.verify(&key.secret).await;
            if expected {
                verdict.allowed();
                assert_eq!(verified["is_valid"], true, "{verified:#}");
                continue;
            }
            assert_eq!(verdict.denied(401).fact("reason"), Some(json!("policy")));
            assert_eq!(verified["is_valid"], false, "{verified:#}");
            assert_eq!(verified.text("/error_code"), "VERIFICATION_ERROR_EXPIRED");
            assert!(verified.text("/error_message").contains("policy"), "{verified:#}");
            assert_eq!((verified.text("/status"), verified.text("/key_id")), ("KEY_STATUS_ACTIVE", &*key.id));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_breaks_one_ends_everywhere_and_not_before_its_time() {
    needs!(Redis);
    let fleet = Fleet::start().await;
    let issuer = &fleet.talos[0];
    let wide = issuer.issue(json!({ "actor_id": "wide", "scopes": ["admin"] })).await;
    let long = issuer.issue(json!({ "actor_id": "long", "ttl": "8760h" })).await;
    let endless = issuer.import("an-endless-legacy-key", json!({ "actor_id": "endless" })).await;
    let good = issuer.issue(json!({ "actor_id": "wide", "scopes": ["orders:read"], "ttl": "1h" })).await;
    let all = [&wide, &long, &endless, &good];
    for _ in 0..3 {
        for key in all {
            fleet.counts(key, true).await;
        }
    }
    let from = soon(6_000);
    let from_secs = unix_seconds(&from);
    let policy = |name: &str, rule: &str, value: Value| json!({ "name": name, "match": { "actor_prefix": name }, rule: value, "apply": "all", "from": from });
    fleet
        .put(&json!([
            policy("wide", "allowed_scopes", json!(["orders:*"])),
            policy("long", "max_ttl", json!("1s")),
            policy("endless", "require_ttl", json!(true)),
        ]))
        .await;
    let mut rounds = 0;
    while unix_now() < from_secs - 0.5 {
        for key in all {
            fleet.counts(key, true).await;
        }
        rounds += 1;
    }
    assert!(rounds > 0, "the policies came into force too late");
    if unix_now() < from_secs - 0.3 {
        let token = fleet.grpc[0].check(&Check::bearer(&long.secret).build()).await.allowed().token();
        let end = claims(&token).at("/exp").as_f64().must("exp");
        assert!(end <= from_secs, "a token outlives the key: {end} and {from_secs}");
    }
    until("the policies' time", async || (unix_now() > from_secs + 0.01).then_some(())).await;
    for key in [&wide, &long, &endless] {
        fleet.counts(key, false).await;
    }
    fleet.counts(&good, true).await;
    let derived = issuer.admin.post(DERIVE, &json!({ "credential": wide.secret })).await;
    assert!(derived.expect_error(401, "API_KEY_EXPIRED").contains("policy"));
    let shown = issuer.admin.get(&format!("{ISSUED}/{}", wide.id)).await.expect(200).json();
    assert_eq!(shown.text("/status"), "KEY_STATUS_ACTIVE");
    assert!(shown.text("/warnings/0").starts_with("issuance policy wide: ends this key at"), "{shown:#}");

    // Both ways: a policy that goes takes its effect with it.
    fleet.put(&json!([])).await;
    for key in all {
        fleet.counts(key, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_time_it_ends_with_the_reload_and_an_update_cures_it() {
    needs!(Redis);
    let fleet = Fleet::start().await;
    let issuer = &fleet.talos[1];
    let key = issuer.issue(json!({ "name": "backend", "ttl": "1h" })).await;
    fleet.counts(&key, true).await;
    let policy = json!([{ "name": "named", "name_pattern": "svc-[a-z]+", "apply": "all" }]);
    fleet.put(&policy).await;
    fleet.counts(&key, false).await;
    let path = format!("{ISSUED}/{}", key.id);
    let renamed = crate::rig::http::Call::new("PATCH", &path).json(&json!({ "name": "svc-backend" }));
    issuer.admin.send(crate::rig::http::Version::Http1, renamed).await.expect(200);
    until("the other process knows", async || {
        let verdict = fleet.grpc[0].check(&Check::bearer(&key.secret).build()).await;
        verdict.passes().then_some(())
    })
    .await;
    fleet.counts(&key, true).await;
    // For new keys alone, it ends none.
    let wide = issuer.issue(json!({ "name": "svc-a", "scopes": ["admin"] })).await;
    fleet.put(&json!([{ "name": "new", "allowed_scopes": [], "apply": "new" }])).await;
    fleet.counts(&wide, true).await;
    let refused =
        issuer.admin.post(ISSUED, &json!({ "name": "b", "actor_id": "a", "scopes": ["admin"] })).await;
    assert_eq!(super::violations(refused), ["scopes"]);
}
