//! Named sets of scopes.

use serde_json::{Value, json};

use super::{list, violations};
use crate::cli::Cli;
use crate::rig::http::{Call, Version};
use crate::rig::support::Json;
use crate::rig::talos::{IMPORTED, ISSUED, Setup};

fn setup() -> Setup {
    let policies = json!([{ "name": "readers", "match": { "role": "reader" }, "max_ttl": "1h" }]);
    Setup::new()
        .set("TALOS_ROLES", r#"{"reader": ["orders:read", "invoices:read"], "writer": ["orders:*"]}"#)
        .set("TALOS_ISSUANCE_POLICIES", &policies.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_becomes_the_scopes_of_its_set() {
    let talos = setup().start().await;
    let reader = json!(["orders:read", "invoices:read"]);
    let key = talos.issue(json!({ "role": "reader", "ttl": "30m", "request_id": "one" })).await;
    assert_eq!(key.resource["scopes"], reader);
    assert_eq!(key.resource.get("role"), None, "what is stored are scopes");
    assert_eq!(talos.verify(&key.secret).await["scopes"], reader);
    let imported = talos.import("a-legacy-key", json!({ "role": "writer" })).await;
    assert_eq!(imported.resource["scopes"], json!(["orders:*"]));

    let post = async |path: &str, body: Value| talos.admin.post(path, &body).await;
    let unknown = post(ISSUED, json!({ "name": "a", "actor_id": "b", "role": "owner" })).await;
    assert_eq!(unknown.expect_bad_request(), "role: is not one of the roles: reader, writer");
    for (body, words) in [
        (json!({ "role": "reader", "scopes": ["a"] }), "role: may not stand beside scopes"),
        (json!({ "role": "x".repeat(65) }), "role: must be 64 bytes at most"),
    ] {
        let mut body = body;
        (body["name"], body["actor_id"]) = ("a".into(), "b".into());
        assert!(post(ISSUED, body.clone()).await.expect_bad_request().starts_with(words), "{body}");
    }
    // A repeated request is the same one only with the same role.
    let again =
        json!({ "name": "a key", "actor_id": "alice", "role": "writer", "ttl": "30m", "request_id": "one" });
    post(ISSUED, again.clone()).await.expect_error(409, "CONFLICT");
    let mut same = again;
    same["role"] = "reader".into();
    let repeated = post(ISSUED, same).await.expect(201).json();
    assert_eq!(repeated.text("/issued_api_key/key_id"), key.id);

    // Policies may be for a role.
    let long = json!({ "name": "a", "actor_id": "b", "role": "reader", "ttl": "2h" });
    assert_eq!(violations(post(ISSUED, long.clone()).await), ["ttl"]);
    let mut writer = long;
    writer["role"] = "writer".into();
    post(ISSUED, writer).await.expect(201);

    let rotated =
        post(&format!("{ISSUED}/{}:rotate", key.id), json!({ "role": "writer" })).await.expect(201).json();
    assert_eq!(list(&rotated, "/issued_api_key/scopes"), [json!("orders:*")]);
    let path = format!("{IMPORTED}/{}", imported.id);
    let patch = async |query: &str, body: Value| {
        let call = Call::new("PATCH", &format!("{path}{query}")).json(&body);
        talos.admin.send(Version::Http1, call).await
    };
    for query in ["?update_mask=role", ""] {
        let updated = patch(query, json!({ "role": "reader" })).await.expect(200).json();
        assert_eq!(updated["scopes"], reader);
        patch(query, json!({ "role": "writer" })).await.expect(200);
    }
    assert!(
        patch("?update_mask=role", json!({})).await.expect_bad_request().starts_with("role: must be set")
    );
    // Not even a mask that names scopes alone takes them away.
    let masked = patch("?update_mask=scopes", json!({ "role": "reader" })).await.expect_bad_request();
    assert!(masked.starts_with("role: must be named by update_mask"), "{masked}");
    let both = patch("", json!({ "role": "reader", "scopes": ["a"] })).await;
    assert!(both.expect_bad_request().starts_with("role: may not stand beside scopes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_roles_in_force_are_listed() {
    let cli = Cli::on(setup()).await;
    let listed = cli.talos.admin.get("/v2alpha1/admin/policies").await.expect(200).json();
    let roles = json!({ "reader": ["orders:read", "invoices:read"], "writer": ["orders:*"] });
    assert_eq!(listed["roles"], roles);
    assert_eq!(listed.text("/issuance_policies/0/name"), "readers");
    assert_eq!(listed.text("/issuance_policies/0/match/role"), "reader");
    // What is listed can be checked against.
    let candidates = json!({ "issuance_policies": listed["issuance_policies"] });
    cli.talos.admin.post("/v2alpha1/admin/policies:check", &candidates).await.expect(200);
    let table = cli.line("policy list").await.ok();
    assert!(
        table.contains("readers") && table.contains("max_ttl: 1h") && table.contains("orders:*"),
        "{table}"
    );
    assert_eq!(cli.line("policy list --format json").await.json(), listed);
    let none = Setup::new().start().await;
    let none = none.admin.get("/v2alpha1/admin/policies").await.expect(200).json();
    assert_eq!(none, json!({ "issuance_policies": [], "roles": {} }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_has_it() {
    let cli = Cli::on(setup()).await;
    let issued = cli.line("keys issue backend --actor user:42 --role writer --format json").await.json();
    assert_eq!(issued.at("/issued_api_key/scopes"), &json!(["orders:*"]));
    cli.line("keys issue backend --actor user:42 --role writer --scopes a").await.expect(64);
    let ran = cli.line("keys issue backend --actor user:42 --role owner").await.expect(1);
    assert!(ran.stderr.contains("is not one of the roles: reader, writer"), "{}", ran.stderr);
}
