//! One Envoy with every listener that the cells need, made of the configuration that we ship.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use serde_norway::{Mapping, Value};
use tempfile::TempDir;

use crate::rig::envoy::CONFIG;
use crate::rig::http::{Base, Call, Version};
use crate::rig::process::{Process, free_port};
use crate::rig::support::{Must, until};
use crate::rig::talos::{Key, Setup, Talos};
use crate::rig::upstream::Received;

/// Three processes on one database, as different operators would set them up.
pub struct TalosProcesses {
    /// Sees clients as peers, takes keys from everywhere, enforces rate limits.
    pub plain: Arc<Talos>,
    /// Behind one proxy, has a token header of its own and lets preflights through.
    behind_one: Arc<Talos>,
    /// Behind two.
    behind_two: Arc<Talos>,
}

pub const TOKEN_HEADER: &str = "x-user-token";

impl TalosProcesses {
    pub async fn start() -> TalosProcesses {
        let sources = r#"[{"header": "authorization", "scheme": "Bearer"}, {"header": "x-api-key"},
            {"query": "api_key"}, {"cookie": "key"}, {"path": "/v2/{key}"}, {"websocket_protocol": "bearer"},
            {"header": "authorization", "scheme": "Basic", "key_in": "either"},
            {"header": "proxy-authorization", "scheme": "Basic"},
            {"header": "x-token", "scheme": "Bearer", "scheme_optional": true}]"#;
        let plain = Setup::new().set("TALOS_AUTHZ_SOURCES", sources).set("TALOS_RATE_LIMIT_ENABLED", "true");
        let first = plain.start().await;
        let proxied = plain.set("TALOS_AUTHZ_CLIENT_ADDRESS", "xff");
        let one = proxied
            .clone()
            .set("TALOS_AUTHZ_TRUSTED_HOPS", "2")
            .set("TALOS_AUTHZ_TOKEN_HEADER", TOKEN_HEADER)
            .set("TALOS_AUTHZ_PREFLIGHT", "allow");
        let two = proxied.set("TALOS_AUTHZ_TRUSTED_HOPS", "3");
        TalosProcesses {
            plain: Arc::new(first),
            behind_one: Arc::new(one.start().await),
            behind_two: Arc::new(two.start().await),
        }
    }
}

/// An Envoy and what a cell needs to know of it.
#[derive(Clone)]
pub struct Stack {
    /// The listener of envoy.yaml.
    pub edge: Base,
    /// One that lets underscores in, joins headers for Talos and has no CORS filter.
    pub lax: Base,
    /// The listener of envoy.yaml, before an upstream that speaks HTTP/2.
    pub to_http2: Base,
    /// The one that lets underscores in, before the same.
    pub lax_to_http2: Base,
    /// A proxy before `lax`.
    pub one_proxy: Base,
    /// A proxy before a proxy before one more listener of envoy.yaml.
    pub two_proxies: Base,
    /// The process that issues the keys.
    pub talos: Arc<Talos>,
    log: PathBuf,
    _process: Arc<(Process, TempDir)>,
}

impl Stack {
    pub async fn start(binary: &str, upstream: u16, processes: &TalosProcesses) -> Stack {
        for _ in 0..5 {
            if let Some(stack) = Stack::try_start(binary, upstream, processes).await {
                return stack;
            }
        }
        panic!("Envoy found no free ports");
    }

    /// None when another process took one of its ports meanwhile.
    async fn try_start(binary: &str, upstream: u16, processes: &TalosProcesses) -> Option<Stack> {
        let dir = tempfile::tempdir().must("a directory for Envoy");
        let [edge, lax, to_http2, lax_to_http2, two, one_proxy, inner, two_proxies, admin] =
            [(); 9].map(|()| Base::local(free_port()));
        let config = config(&Ports {
            edge,
            lax,
            to_http2,
            lax_to_http2,
            two,
            one_proxy,
            inner,
            two_proxies,
            admin,
            upstream,
            authz: [&processes.plain, &processes.behind_one, &processes.behind_two].map(|talos| talos.authz),
        });
        let file = dir.path().join("envoy.yaml");
        std::fs::write(&file, config).must("writing Envoy's configuration");
        let mut command = Command::new(binary);
        command.arg("-c").arg(&file);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        // The access log is read while Envoy runs.
        command.args(["--file-flush-interval-msec", "100"]);
        let log = dir.path().join("envoy.log");
        let mut process = Process::spawn("Envoy", command, &log);
        until("Envoy answers everywhere and calls each Talos healthy", async || {
            if let Some(status) = process.ended() {
                let log = process.log();
                assert!(log.contains("Address already in use"), "{binary} ended with {status}:\n{log}");
                return Some(None);
            }
            let clusters = admin.try_send(Version::Http1, Call::get("/clusters")).await.ok()?.text();
            let healthy = clusters.lines().filter(|line| line.ends_with("::health_flags::healthy"));
            if healthy.filter(|line| line.starts_with("talos_")).count() < 3 {
                return None;
            }
            for listener in [edge, lax, to_http2, lax_to_http2, one_proxy, two_proxies] {
                let answer = listener.try_send(Version::Http1, Call::get("/anonymous")).await.ok()?;
                if answer.status != 200 {
                    return None;
                }
            }
            Some(Some(()))
        })
        .await?;
        let talos = Arc::clone(&processes.plain);
        Some(Stack {
            edge,
            lax,
            to_http2,
            lax_to_http2,
            one_proxy,
            two_proxies,
            talos,
            log,
            _process: Arc::new((process, dir)),
        })
    }

    /// The line of Envoy's access log for the one request with this path.
    pub async fn logged(&self, path: &str) -> serde_json::Value {
        until("the access log has the request", async || {
            let log = std::fs::read_to_string(&self.log).ok()?;
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.into_iter().find(|line| line["path"] == path)
        })
        .await
    }
}

/// Issues a key with the scope `a`.
pub async fn key(stack: &Stack) -> Key {
    stack.talos.issue(json!({ "scopes": ["a"] })).await
}

/// Sends a request that must pass; returns what the upstream got.
pub async fn passes(base: Base, over: Version, call: Call) -> Received {
    Received::from_reply(&base.send(over, call).await.expect(200))
}

struct Ports {
    edge: Base,
    lax: Base,
    to_http2: Base,
    lax_to_http2: Base,
    two: Base,
    one_proxy: Base,
    inner: Base,
    two_proxies: Base,
    admin: Base,
    upstream: u16,
    authz: [Base; 3],
}

fn config(ports: &Ports) -> String {
    let text = std::fs::read_to_string(CONFIG).must(CONFIG);
    // The tests are about decisions, not about the speed of a debug build on a busy machine.
    let text = text.replace("0.25s", "10s");
    let mut root: Value = serde_norway::from_str(&text).must(CONFIG);
    *at(&mut root, "admin/address/socket_address/port_value") = ports.admin.0.port().into();
    let shipped = at(&mut root, "static_resources/listeners/0").clone();
    let edge = listener(&shipped, "edge", ports.edge, "talos_plain");
    let mut lax = listener(&shipped, "lax", ports.lax, "talos_behind_one");
    let manager = "filter_chains/0/filters/0/typed_config";
    let inside = |path: &str| format!("{manager}/{path}");
    *at(&mut lax, &inside("common_http_protocol_options/headers_with_underscores_action")) = "ALLOW".into();
    let filters = at(&mut lax, &inside("http_filters")).as_sequence_mut().must("http_filters");
    filters.retain(|filter| filter["name"] != "envoy.filters.http.cors");
    *at(&mut filters[0], "typed_config/encode_raw_headers") = false.into();
    let route = at(&mut lax, &inside("route_config/virtual_hosts/0")).as_mapping_mut().must("a virtual host");
    route.remove("typed_per_filter_config");
    let two = listener(&shipped, "two", ports.two, "talos_behind_two");
    let to_http2 = leading_to_http2(&edge, "to_http2", ports.to_http2);
    let lax_to_http2 = leading_to_http2(&lax, "lax_to_http2", ports.lax_to_http2);
    let listeners = vec![
        edge,
        lax,
        to_http2,
        lax_to_http2,
        two,
        proxy("one_proxy", ports.one_proxy, "to_lax"),
        proxy("inner", ports.inner, "to_two"),
        proxy("two_proxies", ports.two_proxies, "to_inner"),
    ];
    *at(&mut root, "static_resources/listeners") = Value::Sequence(listeners);

    let clusters = at(&mut root, "static_resources/clusters");
    let [upstream, talos] = &clusters.as_sequence().must("clusters")[..] else {
        panic!("envoy.yaml has other clusters than it had")
    };
    let upstream = cluster(upstream, "upstream", ports.upstream);
    let names = ["talos_plain", "talos_behind_one", "talos_behind_two"];
    let mut all: Vec<Value> =
        names.iter().zip(ports.authz).map(|(name, authz)| cluster(talos, name, authz.0.port())).collect();
    for (name, listener) in [("to_lax", ports.lax), ("to_two", ports.two), ("to_inner", ports.inner)] {
        all.push(cluster(&upstream, name, listener.0.port()));
    }
    let mut http2 = cluster(&upstream, HTTP2_UPSTREAM, ports.upstream);
    let options = yaml(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
  '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
  explicit_http_config: {http2_protocol_options: {}}",
    );
    http2.as_mapping_mut().must("a cluster").insert("typed_extension_protocol_options".into(), options);
    all.push(http2);
    all.push(upstream);
    *clusters = Value::Sequence(all);
    serde_norway::to_string(&root).must("a configuration as YAML")
}

/// The listener of envoy.yaml under another name, asking another Talos; with WebSocket and a gRPC
/// service besides.
fn listener(shipped: &Value, name: &str, base: Base, talos: &str) -> Value {
    let mut listener = shipped.clone();
    *at(&mut listener, "name") = name.into();
    *at(&mut listener, "address/socket_address/port_value") = base.0.port().into();
    let manager = at(&mut listener, "filter_chains/0/filters/0/typed_config");
    let filters = at(manager, "http_filters").as_sequence_mut().must("http_filters");
    let ext_authz = filters.iter_mut().find(|filter| filter["name"] == "envoy.filters.http.ext_authz");
    *at(ext_authz.must("ext_authz"), "typed_config/grpc_service/envoy_grpc/cluster_name") = talos.into();
    let routes = at(manager, "route_config/virtual_hosts/0/routes").as_sequence_mut().must("routes");
    // Talos itself is the gRPC service that somebody protects.
    routes.insert(0, yaml("{match: {prefix: /grpc.health.v1.Health/}, route: {cluster: talos_plain}}"));
    let tunnel = "{match: {connect_matcher: {}}, route: {cluster: upstream, upgrade_configs: [{upgrade_type: CONNECT, \
                  connect_config: {}}]}}";
    routes.insert(0, yaml(tunnel));
    routes
        .insert(0, yaml("{match: {path: /moved}, route: {cluster: upstream, internal_redirect_policy: {}}}"));
    let fields = manager.as_mapping_mut().must("a connection manager");
    fields.insert("upgrade_configs".into(), yaml("[{upgrade_type: websocket}, {upgrade_type: CONNECT}]"));
    fields.insert("http2_protocol_options".into(), yaml("{allow_connect: true}"));
    listener
}

/// The cluster of the upstream, over HTTP/2.
const HTTP2_UPSTREAM: &str = "upstream_http2";

/// A listener under another name, whose routes lead to the upstream over HTTP/2.
fn leading_to_http2(like: &Value, name: &str, base: Base) -> Value {
    let mut listener = like.clone();
    *at(&mut listener, "name") = name.into();
    *at(&mut listener, "address/socket_address/port_value") = base.0.port().into();
    let routes = "filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
    for route in at(&mut listener, routes).as_sequence_mut().must("routes") {
        let cluster = at(route, "route/cluster");
        if cluster == "upstream" {
            *cluster = HTTP2_UPSTREAM.into();
        }
    }
    listener
}

/// A proxy as a cloud has it before one's own: it only notes whom it got the request from.
fn proxy(name: &str, base: Base, cluster: &str) -> Value {
    yaml(&format!(
        "name: {name}
address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: {name}
      use_remote_address: true
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      route_config:
        virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]
",
        base.0.port()
    ))
}

fn cluster(like: &Value, name: &str, port: u16) -> Value {
    let mut cluster = like.clone();
    *at(&mut cluster, "name") = name.into();
    *at(&mut cluster, "load_assignment/cluster_name") = name.into();
    let endpoint = "load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
    *at(&mut cluster, endpoint) = port.into();
    cluster
}

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).must(text)
}

/// The value at a path of names and places.
#[track_caller]
fn at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('/').fold(value, |value, step| match step.parse::<usize>() {
        Ok(index) => &mut value.as_sequence_mut().must(path)[index],
        Err(_) => value.as_mapping_mut().and_then(|fields: &mut Mapping| fields.get_mut(step)).must(path),
    })
}
