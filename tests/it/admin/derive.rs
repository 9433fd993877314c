//! Deriving a JWT from a key.

use serde_json::json;

use crate::rig::python::verify_jwt;
use crate::rig::support::{Json, assert_no_null, unix_seconds};
use crate::rig::talos::{DERIVE, ISSUER, JWKS, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_carries_what_was_asked_for_and_what_its_parent_has() {
    let talos = Talos::start().await;
    let fields = json!({
        "scopes": ["a", "b:*"],
        "metadata": { "team": "blue" },
        "ip_restriction": { "allowed_cidrs": ["127.0.0.0/8"] },
    });
    let key = talos.issue(fields).await;
    let asked = json!({
        "credential": key.secret,
        "algorithm": "TOKEN_ALGORITHM_JWT",
        "scopes": ["b:read"],
        "ttl": "120s",
        "audiences": ["billing"],
        "custom_claims": { "plan": "gold", "sub": "mallory", "scope": "all", "iss": "mallory", "acl": [] },
    });
    let answer = talos.admin.post(DERIVE, &asked).await.expect(200).json();
    assert_no_null(&answer);
    assert_eq!(answer.texts("/token/scopes"), ["b:read"]);
    assert_eq!(answer.texts("/token/audiences"), ["billing"]);

    let claims = crate::rig::support::claims(answer.text("/token/token"));
    assert_eq!(answer.at("/token/claims/sub"), claims.at("/sub"));
    assert_eq!(claims.text("/sub"), key.id);
    assert_eq!(claims.text("/iss"), ISSUER);
    assert_eq!(claims.text("/plan"), "gold");
    assert_eq!(claims.get("scope"), None, "a reserved name is stripped");
    assert_eq!(claims.texts("/acl"), ["127.0.0.0/8"]);
    assert_eq!(claims.text("/meta/team"), "blue");
    assert_eq!(claims.texts("/scp"), ["b:read"]);
    let life =
        claims.at("/exp").as_f64().unwrap_or_default() - claims.at("/iat").as_f64().unwrap_or_default();
    assert_eq!(life, 120.0);
    assert_eq!(
        unix_seconds(answer.text("/token/expire_time")),
        claims.at("/exp").as_f64().unwrap_or_default()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_all_scopes_for_an_hour() {
    needs!(Python);
    let talos = Talos::start().await;
    for key in [
        talos.issue(json!({ "scopes": ["a", "b"] })).await,
        talos.import("legacy-0123456789", json!({ "scopes": ["a", "b"] })).await,
    ] {
        let token = talos.derive(&key, json!({ "algorithm": "TOKEN_ALGORITHM_UNSPECIFIED" })).await;
        let claims = verify_jwt(&talos.public.url(JWKS), ISSUER, &token).await;
        assert_eq!(claims.texts("/scp"), ["a", "b"]);
        assert_eq!(claims.text("/sub"), key.id);
        let life =
            claims.at("/exp").as_f64().unwrap_or_default() - claims.at("/iat").as_f64().unwrap_or_default();
        assert_eq!(life, 3600.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_parent_has_is_refused() {
    let talos = Talos::start().await;
    let key = talos.issue(json!({ "scopes": ["a", "b:*"], "ttl": "60s" })).await;
    let revoked = talos.issue(json!({})).await;
    talos.revoke(&revoked).await;
    let token = talos.derive(&key, json!({ "ttl": "10s" })).await;
    let cases = [
        (json!({ "credential": key.secret, "scopes": ["c"], "ttl": "10s" }), 403),
        (json!({ "credential": key.secret, "scopes": ["a", "b"], "ttl": "10s" }), 403),
        (json!({ "credential": key.secret, "scopes": ["*"], "ttl": "10s" }), 403),
        (json!({ "credential": key.secret, "ttl": "3600s" }), 400),
        (json!({ "credential": revoked.secret }), 401),
        (json!({ "credential": "never-imported" }), 401),
        (json!({ "credential": key.secret, "ttl": "10s", "custom_claims": { "x": "y".repeat(4096) } }), 400),
    ];
    for (body, status) in cases {
        let reply = talos.admin.post(DERIVE, &body).await.expect(status);
        crate::rig::http::assert_envelope(&reply.json(), status);
    }
    let reply = talos.admin.post(DERIVE, &json!({ "credential": token })).await;
    reply.expect_error(400, "INVALID_TOKEN_TYPE");
}
