//! The accelerator in a real Envoy, with the configuration that we ship, beside an Envoy without
//! it: what it lets pass reaches upstream and the access log as if the ext_authz filter had asked.

use serde_json::{Value, json};

use crate::rig::envoy::Envoy;
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::support::{Must, until};
use crate::rig::talos::{Key, Setup, Talos};
use crate::rig::upstream::{Received, Upstream};

const ACCELERATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/accelerated.yaml");
const PLAIN: &str = crate::rig::envoy::CONFIG;

/// One Talos and one upstream, and two Envoys between them. The fields are in the order in which
/// they stop.
struct Pair {
    plain: Envoy,
    fast: Envoy,
    talos: Talos,
    upstream: Upstream,
}

impl Pair {
    async fn start(setup: Setup) -> Pair {
        let upstream = Upstream::start().await;
        let socket = setup.path("authz.sock").display().to_string();
        let setup = setup.set("TALOS_SERVE_AUTHZ_SOCKET", &socket).set("TALOS_AUTHZ_EDGE_ENABLED", "true");
        let talos = setup
            .start_until(async |talos| {
                let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
                ready.is_ok_and(|reply| reply.status == 200)
            })
            .await;
        let port = talos.authz.0.port();
        let address = format!("socket_address: {{ address: 127.0.0.1, port_value: {port} }}");
        let pipe = format!("pipe: {{ path: \"{socket}\" }}");
        let changes = [(address.as_str(), pipe.as_str()), ("/run/talos/authz.sock", socket.as_str())];
        let plain = Envoy::start_as(PLAIN, upstream.port, talos.authz, &changes[..1]).await;
        let fast = Envoy::start_as(ACCELERATED, upstream.port, talos.authz, &changes).await;
        upstream.take();
        Pair { plain, fast, talos, upstream }
    }

    /// Sends a request through one Envoy; returns the status and what upstream got.
    async fn send(&self, envoy: &Envoy, version: Version, call: Call) -> (u16, Option<Received>) {
        let reply = envoy.edge.send(version, call).await;
        (reply.status, self.upstream.take().pop())
    }

    async fn hits(&self) -> u64 {
        self.fast.stat("dynamicmodulescustom.talos_hits").await
    }

    /// Sends a request through the module until that lets it pass.
    async fn warm(&self, call: &Call) {
        until("the module lets it pass", async || {
            let before = self.hits().await;
            self.send(&self.fast, Version::Http1, call.clone()).await;
            (self.hits().await > before).then_some(())
        })
        .await;
    }

    /// Sends a request that the module must let pass through both; upstream must get the same.
    async fn both(&self, version: Version, call: &Call) {
        let before = self.hits().await;
        let fast = self.send(&self.fast, version, call.clone()).await;
        assert_eq!(self.hits().await, before + 1, "the module did not let it pass: {call:?}");
        let plain = self.send(&self.plain, version, call.clone()).await;
        assert_eq!((plain.0, fast.0), (200, 200));
        let received = |one: Option<Received>| comparable(&one.must("a request"));
        assert_eq!(received(fast.1), received(plain.1), "{version:?}");
    }
}

/// What must be equal: all but the id of the request, and the port of the Envoy.
fn comparable(received: &Received) -> (String, String, Vec<(String, String)>, String) {
    let differs = |name: &str| matches!(name, "x-request-id" | "host");
    let headers = received.headers.iter().filter(|(name, _)| !differs(name)).cloned();
    (received.method.clone(), received.path.clone(), headers.collect(), received.body.clone())
}

/// The line of the access log for a path, without times.
async fn logged(envoy: &Envoy, path: &str) -> Value {
    // Envoy writes its access log every 10 s.
    until("the access log has the request", async || {
        let log = envoy.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut line = lines.find(|line| line["path"] == path)?;
        let fields = line.as_object_mut()?;
        fields.remove("time");
        fields.remove("ms");
        Some(line)
    })
    .await
}

fn calls(key: &Key, path: &str) -> [Call; 2] {
    [Call::get(path).bearer(&key.secret), Call::get(path).header("x-api-key", &key.secret)]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_lets_pass_is_as_if_ext_authz_had_asked() {
    needs!(Envoy);
    let pair = Pair::start(Setup::new()).await;
    let metadata = json!({ "plan": "gold", "nested": { "a": [1, null, true] } });
    let rich = pair.talos.issue(json!({ "scopes": ["reports:read", "b"], "metadata": metadata })).await;
    let poor = pair.talos.issue(json!({})).await;
    let mut paths = vec![];
    for (key, path) in [(&rich, "/a"), (&poor, "/a"), (&rich, "/reports")] {
        pair.warm(&calls(key, path)[0]).await;
        for version in BOTH {
            for number in 0..2 {
                let path = format!("{path}/{}", paths.len());
                let [by_bearer, by_header] = calls(key, &path);
                let call = if number == 0 { by_bearer } else { by_header };
                let forged = call.header("x-talos-actor-id", "forged").header("x-talos-else", "forged");
                pair.both(version, &forged.header("x-mine", "1")).await;
                paths.push(path);
            }
        }
    }
    for path in &paths {
        assert_eq!(logged(&pair.fast, path).await, logged(&pair.plain, path).await);
    }
    // The route's policy holds, though the key is known.
    let before = pair.hits().await;
    let refused = pair.send(&pair.fast, Version::Http1, calls(&poor, "/reports")[0].clone()).await;
    assert_eq!((refused.0, pair.hits().await), (403, before));
    // Requests about which it says nothing.
    for (path, status) in [("/anonymous", 200), ("/a", 401)] {
        assert_eq!(pair.send(&pair.fast, Version::Http1, Call::get(path)).await.0, status);
        assert_eq!(pair.send(&pair.plain, Version::Http1, Call::get(path)).await.0, status);
    }
    assert_eq!(pair.hits().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_through_it_within_the_bound() {
    needs!(Envoy);
    let pair = Pair::start(Setup::new()).await;
    let key = pair.talos.issue(json!({})).await;
    let call = calls(&key, "/a")[0].clone();
    pair.warm(&call).await;
    pair.talos.revoke(&key).await;
    // The bound is 5 s; the push takes milliseconds.
    until("it is refused", async || {
        let status = pair.send(&pair.fast, Version::Http1, call.clone()).await.0;
        (status == 401).then_some(())
    })
    .await;
    let before = pair.hits().await;
    for _ in 0..20 {
        assert_eq!(pair.send(&pair.fast, Version::Http1, call.clone()).await.0, 401);
    }
    assert_eq!(pair.hits().await, before);
}
