//! Neither database nor Redis answers, and Envoy is set to let requests pass that it couldn't
//! check.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Edge;
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::redis::Redis;
use crate::rig::support::until;
use crate::rig::talos::Setup;

const ALLOW_ON_FAILURE: [(&str, &str); 1] = [("failure_mode_allow: false", "failure_mode_allow: true")];

/// Longer than Envoy takes to notice a Talos that calls itself unhealthy.
const WATCHED: Duration = Duration::from_secs(4);

fn short_lived(redis: &Redis) -> Setup {
    let setup = redis.used_by(Setup::new().sqlite());
    setup
        .set("TALOS_CONSISTENCY_LEASE", "1s")
        .set("TALOS_CONSISTENCY_POLL", "200ms")
        .set("TALOS_CONSISTENCY_GRACE", "1s")
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_refused_while_no_store_answers() {
    needs!(Envoy, Redis);
    let mut redis = Redis::start().await;
    let edge = Edge::with(short_lived(&redis), &ALLOW_ON_FAILURE).await;
    let (known, never_seen) = (edge.talos.issue(json!({})).await, edge.talos.issue(json!({})).await);
    edge.passes(Version::Http1, Call::get("/").bearer(&known.secret)).await;
    redis.kill();
    edge.talos.setup.break_database();

    // A key that was known is good for the lease and the grace, and not a moment longer.
    until("the known key is no longer taken", async || {
        let reply = edge.send(Version::Http1, Call::get("/").bearer(&known.secret)).await;
        edge.upstream.take();
        (reply.status == 503).then_some(())
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        for version in BOTH {
            for credential in [&known.secret, &never_seen.secret, "imported-perhaps"] {
                for path in ["/", "/anonymous", "/reports"] {
                    edge.refuses(version, Call::get(path).bearer(credential), 503).await;
                }
            }
            edge.refuses(version, Call::get("/"), 401).await;
            // Requests that need no lookup pass.
            edge.passes(version, Call::get("/anonymous")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_error_it_is_envoy_that_decides() {
    needs!(Envoy, Redis);
    let mut redis = Redis::start().await;
    let setup = short_lived(&redis).set("TALOS_AUTHZ_ON_UNAVAILABLE", "error");
    let edge = Edge::with(setup, &ALLOW_ON_FAILURE).await;
    let key = edge.talos.issue(json!({})).await;
    redis.kill();
    edge.talos.setup.break_database();
    // This is what `deny` is the default against.
    until("the failure opens the door", async || {
        let reply = edge.send(Version::Http1, Call::get("/").bearer(&key.secret)).await;
        (reply.status == 200 && edge.upstream.take().iter().any(|seen| seen.identity().is_empty()))
            .then_some(())
    })
    .await;
}
