//! Issuance policies on writes of keys: what is refused, and the error that says so.

use serde_json::{Value, json};

use super::{list, soon, violations};
use crate::rig::http::{Call, Reply, Version};
use crate::rig::support::Json;
use crate::rig::talos::{IMPORTED, ISSUED, Setup, Talos};

const BATCH: &str = "/v2alpha1/admin/importedApiKeys:batchCreate";

/// A policy with all rules.
fn strict() -> Value {
    json!([{
        "name": "strict",
        "match": { "actor_prefix": "service:" },
        "max_ttl": "720h",
        "require_ttl": true,
        "allowed_scopes": ["orders:*"],
        "required_metadata": ["team", "owner"],
        "require_ip_restriction": true,
        "name_pattern": "^svc-[a-z-]+$",
    }])
}

fn good() -> Value {
    json!({ "name": "svc-orders", "actor_id": "service:a", "scopes": ["orders:read"], "ttl": "24h",
        "metadata": { "team": "blue", "owner": 7 }, "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8"] } })
}

fn with(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

async fn patch(talos: &Talos, path: &str, body: &Value) -> Reply {
    talos.admin.send(Version::Http1, Call::new("PATCH", path).json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_violations_are_listed_at_once() {
    let talos = Setup::new().set("TALOS_ISSUANCE_POLICIES", &strict().to_string()).start().await;
    let bad = json!({ "name": "backend", "actor_id": "service:a", "scopes": ["orders:read", "admin"],
        "ttl": "721h", "metadata": { "team": null } });
    let all = ["ttl", "scopes", "metadata", "ip_restriction", "name"];
    let reply = talos.admin.post(ISSUED, &bad).await;
    let message = reply.json().text("/error/message").to_owned();
    for words in ["2592000s", "admin (allowed: orders:*)", "team, owner", "^svc-[a-z-]+$", "strict: max_ttl"]
    {
        assert!(message.contains(words), "{message}: no {words}");
    }
    assert_eq!(violations(reply), all);
    let import = with(bad.clone(), &json!({ "raw_key": "a-legacy-key" }));
    assert_eq!(violations(talos.admin.post(IMPORTED, &import).await), all);
    // Without a lifetime, both rules about it are broken.
    let endless = with(good(), &json!({ "ttl": null }));
    assert_eq!(violations(talos.admin.post(ISSUED, &endless).await), ["ttl", "ttl"]);
    let other = with(import.clone(), &json!({ "actor_id": "user:1", "raw_key": "another-legacy-key" }));
    let batch = talos.admin.post(BATCH, &json!({ "requests": [import, other] })).await.expect(200).json();
    assert_eq!(batch["success_count"], 1, "{batch:#}");
    let output = batch.text("/results/0/error_message");
    assert!(all.iter().all(|field| output.contains(&format!("{field}: "))), "{output}");
    assert_eq!(batch.text("/results/0/error_code"), "BATCH_CREATE_IMPORTED_API_KEYS_ERROR_INVALID_ARGUMENT");

    talos.issue(good()).await;
    talos.import("a-good-legacy-key", good()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_judged_by_what_it_changes_and_a_rotation_as_a_new_key() {
    let setup = Setup::new();
    let before = setup.start().await;
    let old = before.issue(json!({ "name": "backend", "actor_id": "service:a", "scopes": ["admin"] })).await;
    before.stop().await;
    let talos = setup.set("TALOS_ISSUANCE_POLICIES", &strict().to_string()).start().await;
    let path = format!("{ISSUED}/{}", old.id);
    // Rules that the key broke before need no cure; those that the update breaks refuse it.
    patch(&talos, &path, &json!({ "name": "svc-backend" })).await.expect(200);
    let wrong = json!({ "name": "backend", "metadata": {}, "scopes": ["root"] });
    assert_eq!(violations(patch(&talos, &path, &wrong).await), ["scopes", "metadata", "name"]);
    let end = json!({ "expire_time": soon(2_000 * 3_600_000) });
    assert_eq!(
        violations(patch(&talos, &format!("{path}?update_mask=expire_time"), &end).await),
        ["expire_time"]
    );
    let ttl = format!("{path}?update_mask=ttl");
    assert_eq!(violations(patch(&talos, &ttl, &json!({ "ttl": "721h" })).await), ["ttl"]);
    patch(&talos, &ttl, &json!({ "ttl": "700h" })).await.expect(200);
    let opened = format!("{path}?update_mask=ip_restriction");
    patch(&talos, &opened, &json!({ "ip_restriction": { "allowed_cidrs": ["10.0.0.0/8"] } }))
        .await
        .expect(200);
    assert_eq!(violations(patch(&talos, &opened, &json!({})).await), ["ip_restriction"]);

    let rotate = format!("{path}:rotate");
    assert_eq!(violations(talos.admin.post(&rotate, &json!({})).await), ["scopes", "metadata"]);
    let cured = json!({ "scopes": ["orders:read"], "metadata": { "team": "a", "owner": "b" } });
    let rotated = talos.admin.post(&rotate, &cured).await.expect(201).json();
    assert_eq!(list(&rotated, "/issued_api_key/scopes"), [json!("orders:read")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_counts_from_its_time_and_in_its_network() {
    let one = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let two = "6ba7b811-9dad-41d1-80b4-00c04fd430c8";
    let setup = Setup::new();
    let own = setup.path("one.yaml");
    let policies =
        "issuance_policies: [{name: own, name_pattern: 'svc-.*'}]\nroles: {reader: [orders:read]}\n";
    std::fs::write(&own, policies).unwrap();
    let networks = json!([
        { "hostname": "one.test", "id": one, "config_path": own },
        { "hostname": "two.test", "id": two },
    ]);
    let later = json!([{ "name": "later", "name_pattern": "never", "from": "2100-01-01T00:00:00Z" }]);
    let talos = setup
        .set("TALOS_MULTITENANCY_ENABLED", "true")
        .set("TALOS_MULTITENANCY_NETWORKS", &networks.to_string())
        .set("TALOS_SERVE_HTTP_ALLOWED_HOSTS", "one.test,two.test")
        .set("TALOS_ISSUANCE_POLICIES", &later.to_string())
        .start()
        .await;
    let issue = async |host: &str, body: Value| {
        talos.admin.send(Version::Http1, Call::post(ISSUED).json(&body).header("host", host)).await
    };
    let backend = json!({ "name": "backend", "actor_id": "a" });
    assert_eq!(violations(issue("one.test", backend.clone()).await), ["name"]);
    issue("two.test", backend).await.expect(201);
    let reader = json!({ "name": "svc-a", "actor_id": "a", "role": "reader" });
    issue("one.test", reader.clone()).await.expect(201);
    let unknown = issue("two.test", reader).await.expect_bad_request();
    assert!(unknown.starts_with("role: ") && unknown.contains("no roles"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_policies_are_refused_with_field_and_cure() {
    for (policies, words) in [
        (json!([{ "max_ttl": "1h" }]), "issuance_policies[0].name: must be"),
        (json!([{ "name": "a" }]), "issuance_policies[0]: has no rule: set max_ttl"),
        (json!([{ "name": "a", "name_pattern": "(" }]), "issuance_policies[0].name_pattern"),
        (json!([{ "name": "a", "max_tll": "1h" }]), "max_tll"),
        (
            json!([{ "name": "a", "max_ttl": "1h", "match": { "role": "reader" } }]),
            "issuance_policies[0].match.role: must be issuer, admin or the name of one of `roles`",
        ),
    ] {
        let said = Setup::new().set("TALOS_ISSUANCE_POLICIES", &policies.to_string()).refused().await;
        assert!(said.contains(words), "{policies}: {said}");
    }
    let said = Setup::new().set("TALOS_ROLES", r#"{"reader": ["a b"]}"#).refused().await;
    assert!(said.contains("roles.reader") && said.contains("TALOS_ROLES"), "{said}");
}
