//! The accelerator in a real Envoy, with the configuration that we ship, beside an Envoy without
//! it: what it lets pass reaches upstream and the access log as if the ext_authz filter had asked.

mod race;
mod restarts;
mod stream_proxy;

use serde_json::{Value, json};

use crate::rig::envoy::{Envoy, Launch};
use crate::rig::http::{BOTH, Call, Version};
use crate::rig::support::{Must, claims, unix_now, until};
use crate::rig::talos::{IMPORTED, Key, Setup, Talos};
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
        Pair::start_with(setup, &Launch::default()).await
    }

    /// Starts a pair of one of the supported Envoys.
    async fn start_with(setup: Setup, launch: &Launch) -> Pair {
        let upstream = Upstream::start().await;
        let socket = setup.path("authz.sock").display().to_string();
        let setup = setup.set("TALOS_SERVE_AUTHZ_SOCKET", &socket).set("TALOS_AUTHZ_EDGE_ENABLED", "true");
        let talos = with_socket(&setup).await;
        let port = talos.authz.0.port();
        let address = format!("socket_address: {{ address: 127.0.0.1, port_value: {port} }}");
        let pipe = format!("pipe: {{ path: \"{socket}\" }}");
        let (to_socket, at_socket) =
            ((address.as_str(), pipe.as_str()), ("/run/talos/authz.sock", socket.as_str()));
        let plain = Envoy::start_with(launch, PLAIN, upstream.port, talos.authz, &[to_socket]).await;
        let fast = Envoy::start_with(launch, ACCELERATED, upstream.port, talos.authz, &[at_socket]).await;
        upstream.take();
        Pair { plain, fast, talos, upstream }
    }

    /// Sends a request through one Envoy; returns the status and what upstream got.
    async fn send(&self, envoy: &Envoy, version: Version, call: Call) -> (u16, Option<Received>) {
        let (status, _, received) = self.exchange(envoy, version, call).await;
        (status, received)
    }

    /// Sends a request through one Envoy; returns status, headers and body of the answer, and what
    /// upstream got.
    async fn exchange(&self, envoy: &Envoy, version: Version, call: Call) -> (u16, String, Option<Received>) {
        let reply = envoy.edge.send(version, call).await;
        let received = self.upstream.take().pop();
        // Upstream's answer tells what it got, which is compared by itself.
        let is_upstreams = received.is_some();
        let differs = |name: &str| {
            matches!(name, "date" | "x-envoy-upstream-service-time" | "x-request-id")
                || is_upstreams && name == "content-length"
        };
        let headers: Vec<_> = reply.headers.iter().filter(|(name, _)| !differs(name.as_str())).collect();
        let body = if is_upstreams { String::new() } else { reply.text_without_id() };
        (reply.status, format!("{headers:?} {body}"), received)
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
        assert_eq!(self.alike(version, call).await, 200);
        assert_eq!(self.hits().await, before + 1, "the module did not let it pass: {call:?}");
    }

    /// Sends a request through both; upstream and the client must get the same. Returns the status.
    async fn alike(&self, version: Version, call: &Call) -> u16 {
        let fast = self.exchange(&self.fast, version, call.clone()).await;
        let plain = self.exchange(&self.plain, version, call.clone()).await;
        assert_eq!((fast.0, fast.1), (plain.0, plain.1), "{version:?} {call:?}");
        let received = |one: &Option<Received>| one.as_ref().map(comparable);
        assert_eq!(received(&fast.2), received(&plain.2), "{version:?} {call:?}");
        fast.0
    }
}

/// Starts a process whose authz plane is on a Unix socket.
async fn with_socket(setup: &Setup) -> Talos {
    setup
        .start_until(async |talos| {
            let ready = talos.metrics.try_send(Version::Http1, Call::get("/health/ready")).await;
            ready.is_ok_and(|reply| reply.status == 200)
        })
        .await
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

/// The Envoys in which the module accelerates something, as `TALOS_TEST_ENVOYS` names them; without
/// it that of all tests. True for those that can have any metadata.
fn envoys() -> Vec<(Launch, bool)> {
    let Ok(named) = std::env::var("TALOS_TEST_ENVOYS") else {
        return vec![(Launch::default(), true)];
    };
    let pairs = named.split(',').map(|one| one.split_once('=').must("TALOS_TEST_ENVOYS: version=path, …"));
    let known = pairs.filter(|(version, _)| !version.starts_with("1.36") && !version.starts_with("1.37"));
    let launch = |(version, program): (&str, &str)| {
        let has_all = !version.starts_with("1.38") && !version.starts_with("1.39");
        (Launch { program: program.to_owned(), ..Launch::default() }, has_all)
    };
    known.map(launch).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_lets_pass_is_as_if_ext_authz_had_asked() {
    needs!(Envoy);
    for (launch, has_all) in envoys() {
        everything_is_alike(&Pair::start_with(Setup::new(), &launch).await, has_all).await;
    }
}

async fn everything_is_alike(pair: &Pair, has_all: bool) {
    let metadata = json!({ "plan": "gold", "nested": { "a": [1, null, true] } });
    let scopes = json!(["reports:read", "b"]);
    let rich = match has_all {
        true => pair.talos.issue(json!({ "scopes": scopes, "metadata": metadata })).await,
        false => pair.talos.issue(json!({ "scopes": scopes })).await,
    };
    let poor = pair.talos.issue(json!({})).await;
    let mut known = vec![(&rich, "/a"), (&rich, "/reports")];
    if has_all {
        known.push((&poor, "/a"));
    }
    // Unknown to the module.
    for version in BOTH {
        for call in calls(&poor, "/unknown") {
            assert_eq!(pair.alike(version, &call.header("x-talos-key-id", "forged")).await, 200);
        }
    }
    let mut paths = vec![];
    for (key, path) in known {
        pair.warm(&calls(key, path)[0]).await;
        for version in BOTH {
            for number in 0..2 {
                let path = format!("{path}/{}", paths.len());
                let [by_bearer, by_header] = calls(key, &path);
                let call = if number == 0 { by_bearer } else { by_header };
                let names = ["x-talos-actor-id", "x-talos-actor-id", "x-talos-else", "x.talos.key.id"];
                let forged = names.iter().fold(call, |call, name| call.header(name, "forged"));
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
    let [bearer, header] = calls(&rich, "/a");
    for (call, status) in [
        (calls(&poor, "/reports")[0].clone(), Some(403)),
        (Call::get("/anonymous"), Some(200)),
        (Call::get("/a"), Some(401)),
        // About which it says nothing.
        (bearer.clone().api_key(&rich.secret), Some(200)),
        (bearer.api_key(&poor.secret), None),
        (header.clone().api_key(&rich.secret), None),
        (header.header("x-api-key", "wrong"), None),
        (Call::get("/a").api_key(&format!("{},", rich.secret)), Some(401)),
        (Call::get("/a").header("authorization", "Basic YTpi").api_key("wrong"), Some(401)),
    ] {
        for version in BOTH {
            let found = pair.alike(version, &call).await;
            assert!(status.is_none_or(|status| status == found) && found != 500, "{found}: {call:?}");
        }
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

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_in_two_networks_is_two_keys() {
    needs!(Envoy);
    let networks = [
        ("a.example", "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"),
        ("b.example", "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"),
    ];
    let named = networks.map(|(host, id)| json!({ "hostname": host, "id": id }));
    let setup = Setup::new()
        .set("TALOS_MULTITENANCY_ENABLED", "true")
        .set("TALOS_MULTITENANCY_NETWORKS", &json!(named).to_string());
    let pair = Pair::start(setup).await;
    let key = "a-key-of-both-networks";
    for (host, _) in networks {
        let body = json!({ "name": "a key", "actor_id": host, "raw_key": key });
        let import = Call::post(IMPORTED).json(&body).header("host", host);
        pair.talos.admin.send(Version::Http1, import).await.expect(201);
    }
    let call = |host: &str| Call::get("/a").api_key(key).header("host", host);
    for (host, _) in networks {
        pair.warm(&call(host)).await;
    }
    for (host, id) in networks {
        pair.both(Version::Http1, &call(host)).await;
        let before = pair.hits().await;
        let (status, received) = pair.send(&pair.fast, Version::Http1, call(host)).await;
        let received = received.must("a request");
        let identity = ["x-talos-network-id", "x-talos-actor-id"].map(|name| received.header(name));
        assert_eq!((status, identity), (200, [Some(id), Some(host)]));
        assert_eq!(pair.hits().await, before + 1);
    }
    let before = pair.hits().await;
    assert_eq!(pair.alike(Version::Http1, &call("c.example")).await, 404);
    assert_eq!(pair.hits().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_reach_upstream_with_time_left() {
    needs!(Envoy);
    let pair = Pair::start(Setup::new().set("TALOS_AUTHZ_TOKEN_TTL", "8s")).await;
    let key = pair.talos.issue(json!({})).await;
    let call = calls(&key, "/a")[1].clone();
    pair.warm(&call).await;
    let sent = async || {
        let (status, received) = pair.send(&pair.fast, Version::Http1, call.clone()).await;
        assert_eq!(status, 200);
        let token = claims(received.must("a request").token());
        token["exp"].as_f64().must("an expiry")
    };
    let expires = sent().await;
    // The key isn't used meanwhile, so the module has nothing newer.
    until("the token is almost over", async || (unix_now() > expires - 1.0).then_some(())).await;
    let left = sent().await - unix_now();
    assert!(left > 1.5, "the token is valid for {left} s");
}
