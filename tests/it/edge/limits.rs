//! Envoy's own RBAC and rate limits, fed with what Talos says of a caller (envoy/limits.yaml).

use serde_json::json;

use super::Edge;
use crate::rig::envoy::{Envoy, LIMITS};
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::rate_limit_service::RateLimitService;
use crate::rig::talos::Talos;
use crate::rig::upstream::Upstream;

async fn start(changes: &[(&str, &str)]) -> Edge {
    let (upstream, talos) = (Upstream::start().await, Talos::start().await);
    let envoy = Envoy::start_as(LIMITS, upstream.port, talos.authz, changes).await;
    upstream.take(); // what Envoy's start needed
    Edge { envoy, talos, upstream }
}

#[tokio::test(flavor = "multi_thread")]
async fn rbac_knows_the_metadata_of_a_key() {
    needs!(Envoy);
    let edge = start(&[("max_tokens: 5, tokens_per_fill: 5", "max_tokens: 500, tokens_per_fill: 500")]).await;
    let gold = edge.talos.issue(json!({ "metadata": { "plan": "gold" } })).await;
    let other = edge.talos.issue(json!({ "metadata": { "plan": "silver" } })).await;
    let token = edge.talos.derive(&gold, json!({})).await;
    for version in BOTH {
        for credential in [&gold.secret, &token] {
            edge.passes(version, Call::get("/beta/x").bearer(credential)).await;
        }
        edge.passes(version, Call::get("/x").bearer(&other.secret)).await;
        let claims = Call::get("/beta/x").bearer(&other.secret).header("x-talos-metadata", "gold");
        edge.refuses(version, claims, 403).await;
        edge.refuses(version, Call::get("/beta"), 401).await;
        edge.refuses(version, Call::get("/beta").bearer("garbage"), 401).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_counts_by_actor() {
    needs!(Envoy);
    let edge = start(&[]).await;
    let issue = async |actor: &str| edge.talos.issue(json!({ "actor_id": actor })).await.secret;
    let (alice, also_alice, bob) = (issue("alice").await, issue("alice").await, issue("bob").await);
    for number in 0..5 {
        let key = if number % 2 == 0 { &alice } else { &also_alice };
        edge.passes(Version::Http1, Call::get("/x").bearer(key)).await;
    }
    for key in [&alice, &also_alice] {
        edge.refuses(Version::Http2, Call::get("/x").bearer(key), 429).await;
    }
    edge.passes(Version::Http1, Call::get("/x").bearer(&bob)).await;
    // Refused requests charge no bucket, and anonymous requests have none.
    for _ in 0..8 {
        edge.refuses(Version::Http1, Call::get("/x").bearer("garbage"), 401).await;
        edge.passes(Version::Http1, Call::get("/anonymous")).await;
    }
}

/// Envoy counts what the keys' policies say: one rule, and a limit for each key.
#[tokio::test(flavor = "multi_thread")]
async fn keys_have_limits_of_their_own_under_one_rule() {
    needs!(Envoy);
    let service = RateLimitService::start().await;
    let port = format!("port_value: {} }}", service.port);
    let edge = start(&[
        ("max_tokens: 5, tokens_per_fill: 5", "max_tokens: 500, tokens_per_fill: 500"),
        ("port_value: 8081 }", &port),
        ("0.05s", "10s"),
    ])
    .await;
    let issue = async |quota: u32| {
        let policy = json!({ "name": "edge", "quota": quota, "window": "3600s", "enforce": "ENVOY" });
        edge.talos.issue(json!({ "rate_limit_policies": [policy] })).await.secret
    };
    for (quota, key) in [(2, issue(2).await), (4, issue(4).await)] {
        for number in 0..quota {
            let version = BOTH[number as usize % BOTH.len()];
            edge.passes(version, Call::get("/x").bearer(&key)).await;
        }
        let reply = edge.refuses(Version::Http1, Call::get("/x").bearer(&key), 429).await;
        assert_eq!(reply.header("ratelimit"), None, "Talos doesn't count");
        const HOUR: i32 = 3;
        assert_eq!(service.limits(), vec![(quota, HOUR); quota as usize + 1]);
    }
    let other = edge.talos.issue(json!({})).await.secret;
    for _ in 0..6 {
        edge.passes(Version::Http1, Call::get("/x").bearer(&other)).await;
    }
    assert_eq!(service.limits(), [], "absent where there is none");
}
