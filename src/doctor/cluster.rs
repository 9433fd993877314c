//! How a check gets to Talos: the gRPC call, and the cluster that it goes to.

use http::uri::Authority;

use super::dump::{Dump, is_loopback};
use super::node::{Node, yaml};
use super::{Findings, Severity};

/// What Envoy takes when no timeout is set, in seconds.
const DEFAULT_TIMEOUT: f64 = 0.2;
/// Beyond this many seconds a stuck Talos is felt by every user.
const LONG_TIMEOUT: f64 = 1.0;
/// Beyond this many, a stuck Talos holds every request until clients give up.
const ENDLESS_TIMEOUT: f64 = 10.0;
/// Below this many, a busy moment is an outage.
const SHORT_TIMEOUT: f64 = 0.05;
/// Envoy's own: requests under way at once.
const DEFAULT_MAX_REQUESTS: u64 = 1024;
/// Envoy's own, in seconds.
const DEFAULT_CONNECT_TIMEOUT: f64 = 5.0;
/// Envoy's own for retries of gRPC services, in seconds.
const DEFAULT_BASE_INTERVAL: f64 = 1.0;

/// Where a filter sends its checks.
pub struct Service<'a> {
    node: Node<'a>,
    /// The cluster, when Envoy's own gRPC client is used.
    pub cluster: Option<&'a str>,
    timeout: f64,
}

impl<'a> Service<'a> {
    /// Reads `envoy.config.core.v3.GrpcService`.
    pub fn of(node: &Node<'a>) -> Self {
        Self {
            node: node.clone(),
            cluster: node.find("envoy_grpc.cluster_name").text(),
            timeout: node.get("timeout").seconds().unwrap_or(DEFAULT_TIMEOUT),
        }
    }
}

/// Looks at one way to Talos.
pub fn examine(dump: &Dump<'_>, service: &Service<'_>, found: &mut Findings) {
    timeout(service, found);
    if !service.node.get("google_grpc").is_absent() {
        found.add(
            "google-grpc",
            Severity::Warning,
            &service.node.get("google_grpc"),
            "Google's gRPC client has no health check, circuit breaker or retry of Envoy's",
            "envoy_grpc: { cluster_name: talos_authz }",
        );
        return;
    }
    retry(service, found);
    let Some(name) = service.cluster else { return };
    authority(name, &service.node.find("envoy_grpc.authority"), "no check gets an answer", found);
    let Some(cluster) = dump.cluster(name) else {
        found.add(
            "cluster-missing",
            Severity::Error,
            &service.node.find("envoy_grpc.cluster_name"),
            format!("the dump has no cluster {name}: no check gets to Talos"),
            format!("clusters:\n  - name: {}", yaml(name)),
        );
        return;
    };
    protocol(cluster, found);
    health(cluster, found);
    limits(cluster, service, found);
    transport(dump, cluster, name, found);
}

fn timeout(service: &Service<'_>, found: &mut Findings) {
    let node = service.node.get("timeout");
    let fix = "grpc_service:\n  timeout: 0.25s";
    if node.is_absent() {
        found.add("timeout", Severity::Note, &node, "isn't set: Envoy takes 200 ms, the retry included", fix);
    } else if service.timeout == 0.0 || service.timeout >= ENDLESS_TIMEOUT {
        let how_long =
            if service.timeout == 0.0 { "for ever".to_owned() } else { format!("for {} s", service.timeout) };
        found.add(
            "timeout",
            Severity::Error,
            &node,
            format!("a Talos that is stuck holds every request of every user {how_long} (600 s is Istio's default)"),
            fix,
        );
    } else if service.timeout > LONG_TIMEOUT {
        found.add(
            "timeout",
            Severity::Warning,
            &node,
            "a Talos that is stuck holds every request of every user for that long; it answers in less than a millisecond",
            fix,
        );
    } else if service.timeout < SHORT_TIMEOUT {
        found.add(
            "timeout",
            Severity::Warning,
            &node,
            "a lookup in the database or a busy moment takes longer",
            fix,
        );
    }
}

fn retry(service: &Service<'_>, found: &mut Findings) {
    let policy = service.node.get("retry_policy");
    let fix = format!(
        "grpc_service:\n  retry_policy:\n    retry_on: unavailable,reset\n    num_retries: 1\n    \
         retry_back_off: {{ base_interval: 0.01s, max_interval: {}s }}",
        service.timeout.max(SHORT_TIMEOUT)
    );
    let conditions = policy.get("retry_on");
    let is_retried = conditions.text().is_some_and(|on| {
        let mut on = on.split(',').map(str::trim);
        on.any(|on| ["unavailable", "reset", "5xx", "gateway-error", "connect-failure"].contains(&on))
    });
    if policy.is_absent() || !is_retried {
        found.add(
            "no-retry",
            Severity::Warning,
            if policy.is_absent() { &policy } else { &conditions },
            "each restart of a Talos instance refuses the requests that were on their way to it",
            fix,
        );
        return;
    }
    let back_off = policy.get("retry_back_off");
    let base = back_off.get("base_interval");
    if base.seconds().unwrap_or(DEFAULT_BASE_INTERVAL) >= service.timeout && service.timeout > 0.0 {
        found.add(
            "retry-too-late",
            Severity::Warning,
            &base,
            "the retry comes after the timeout, so never (without base_interval Envoy waits up to 1 s)",
            fix.as_str(),
        );
    }
    let most = back_off.get("max_interval");
    if most.seconds().is_some_and(|most| most < service.timeout) {
        found.add(
            "retry-cuts-off",
            Severity::Warning,
            &most,
            "Envoy takes max_interval for the timeout of each try, too: answers that come in time are cut off",
            fix,
        );
    }
}

/// What Envoy sends as `:authority`, which is the cluster's name where nothing else is said. Istio's and Envoy Gateway's
/// have characters that HTTP/2 has no place for there.
fn authority(cluster: &str, node: &Node<'_>, so: &str, found: &mut Findings) {
    let sent = node.text().filter(|text| !text.is_empty()).unwrap_or(cluster);
    if sent.parse::<Authority>().is_err() {
        found.add(
            "bad-authority",
            Severity::Error,
            node,
            format!("Envoy sends {sent} as :authority, which is none, so that Talos refuses it: {so}"),
            "authority: talos",
        );
    }
}

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The HTTP/2 options of a cluster, if it speaks HTTP/2 at all.
fn http2<'a>(cluster: &Node<'a>) -> Option<Node<'a>> {
    let options = cluster.get("typed_extension_protocol_options").entry(OPTIONS);
    let old = cluster.get("http2_protocol_options");
    let explicit = options.get("explicit_http_config").get("http2_protocol_options");
    let auto = options.get("auto_config");
    [explicit, auto.get("http2_protocol_options")]
        .into_iter()
        .find(|options| !options.is_absent())
        .or_else(|| (!auto.is_absent()).then(|| auto.get("http2_protocol_options")))
        .or_else(|| (options.is_absent() && !old.is_absent()).then_some(old))
}

/// Whether a cluster may be spoken to in a way that carries trailers of requests: HTTP/2, HTTP/3,
/// or HTTP/1.1 that was told to.
pub fn takes_trailers(cluster: &Node<'_>) -> bool {
    let options = cluster.get("typed_extension_protocol_options").entry(OPTIONS);
    let explicit = options.get("explicit_http_config");
    let (http1, http3) = (explicit.get("http_protocol_options"), explicit.get("http3_protocol_options"));
    let as_downstream = options.get("use_downstream_protocol_config");
    let old = cluster.find("http_protocol_options.enable_trailers").is_true()
        || cluster.get("protocol_selection").text() == Some("USE_DOWNSTREAM_PROTOCOL");
    http2(cluster).is_some()
        || !http3.is_absent()
        || !as_downstream.is_absent()
        || http1.get("enable_trailers").is_true()
        || (options.is_absent() && old)
}

fn protocol(cluster: &Node<'_>, found: &mut Findings) {
    const FIX: &str = "typed_extension_protocol_options:\n  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n    \
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n    explicit_http_config:\n      \
        http2_protocol_options:\n        connection_keepalive: { interval: 5s, timeout: 1s }";
    let Some(options) = http2(cluster) else {
        found.add(
            "no-http2",
            Severity::Error,
            &cluster.get("typed_extension_protocol_options").entry(OPTIONS),
            "gRPC needs HTTP/2: every check fails",
            FIX,
        );
        return;
    };
    let keepalive = options.get("connection_keepalive");
    if !keepalive.get("interval").seconds().is_some_and(|interval| interval > 0.0) {
        found.add(
            "no-keepalive",
            Severity::Warning,
            &keepalive,
            "a connection that died without a word is noticed when the kernel gives up, after a quarter of an hour; until \
             then checks on it time out (TCP keepalive doesn't help: it rests while something is unacknowledged)",
            FIX,
        );
    }
}

fn health(cluster: &Node<'_>, found: &mut Findings) {
    let checks = cluster.items("health_checks");
    let has_outliers = !cluster.get("outlier_detection").is_absent();
    let fix = "health_checks:\n  - timeout: 0.5s\n    interval: 1s\n    no_traffic_interval: 1s\n    unhealthy_threshold: 2\n    \
               healthy_threshold: 1\n    grpc_health_check: { service_name: envoy.service.auth.v3.Authorization }";
    if checks.is_empty() {
        let severity = if has_outliers { Severity::Note } else { Severity::Warning };
        found.add(
            "no-health-check",
            severity,
            &cluster.get("health_checks"),
            "a Talos that has just started, is about to stop or can't decide says NOT_SERVING, and still gets checks",
            fix,
        );
    }
    let name = cluster.get("name").text().unwrap_or_default();
    for check in &checks {
        let by_grpc = check.get("grpc_health_check");
        if !by_grpc.is_absent() && !names_endpoints(cluster) {
            authority(name, &by_grpc.get("authority"), "every instance counts as dead", found);
        }
        if by_grpc.is_absent() && check.get("http_health_check").is_absent() {
            found.add(
                "weak-health-check",
                Severity::Note,
                check,
                "asks whether a port is open, not whether Talos can decide",
                fix,
            );
        }
        let idle = check.get("no_traffic_interval");
        if idle.seconds().unwrap_or(60.0) > 5.0 {
            found.add(
                "slow-health-check",
                Severity::Note,
                &idle,
                "a Talos that was down when Envoy started stays unused until then (60 s unless set)",
                "no_traffic_interval: 1s",
            );
        }
    }
    let panic = cluster.find("common_lb_config.healthy_panic_threshold");
    // A percentage of 0 is an empty message.
    let percent = if panic.is_absent() { 50.0 } else { panic.get("value").value.as_f64().unwrap_or(0.0) };
    if percent > 0.0 && (!checks.is_empty() || has_outliers) {
        found.add(
            "panic-threshold",
            Severity::Warning,
            &panic,
            "when most instances are unhealthy (50 % unless set), Envoy sends checks to the dead ones again",
            "common_lb_config:\n  healthy_panic_threshold: { value: 0 }",
        );
    }
}

/// Whether endpoints have names of their own for health checks.
fn names_endpoints(cluster: &Node<'_>) -> bool {
    cluster.objects().iter().any(|object| !object.find("health_check_config.hostname").is_absent())
}

fn limits(cluster: &Node<'_>, service: &Service<'_>, found: &mut Findings) {
    let breakers = cluster.get("circuit_breakers");
    let thresholds = breakers.items("thresholds");
    let default = thresholds.iter().find(|one| !matches!(one.get("priority").text(), Some("HIGH")));
    let place = default.map_or_else(|| breakers.get("thresholds"), |one| one.get("max_requests"));
    if place.number().unwrap_or(DEFAULT_MAX_REQUESTS) <= DEFAULT_MAX_REQUESTS {
        found.add(
            "circuit-breaker",
            Severity::Warning,
            &place,
            "beyond 1024 checks under way (Envoy's default) further ones fail at once: a short pause of Talos' refuses \
             requests that would have been answered",
            "circuit_breakers:\n  thresholds:\n    - max_requests: 4096\n      max_pending_requests: 1024\n      \
             retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: 16 }",
        );
    }
    let connect = cluster.get("connect_timeout");
    if connect.seconds().unwrap_or(DEFAULT_CONNECT_TIMEOUT) >= service.timeout && service.timeout > 0.0 {
        found.add(
            "connect-timeout",
            Severity::Warning,
            &connect,
            "isn't below the check's timeout (it is 5 s unless set): a Talos that can't be reached takes all of it, and \
             nothing is left for the retry",
            "connect_timeout: 0.2s",
        );
    }
}

fn transport(dump: &Dump<'_>, cluster: &Node<'_>, name: &str, found: &mut Findings) {
    let fix = "transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \
               \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    \
               common_tls_context:\n      validation_context: { trusted_ca: { filename: /etc/envoy/talos-ca.pem } }";
    let socket = cluster.get("transport_socket");
    let matches = cluster.items("transport_socket_matches");
    let sockets = matches.iter().map(|one| one.get("transport_socket")).chain([socket.clone()]);
    let mut is_encrypted = false;
    for socket in sockets {
        let (kind, config) = socket.get("typed_config").unwrapped();
        match kind {
            Some("UpstreamTlsContext") => {
                is_encrypted = true;
                unverified(&config, fix, found);
            }
            None | Some("RawBuffer") => {}
            // Whatever else there is (mTLS of a mesh, QUIC, a tunnel) isn't plain text as far as can be told.
            Some(_) => is_encrypted = true,
        }
    }
    let service = cluster.find("eds_cluster_config.service_name").text().unwrap_or(name);
    let inline = cluster.get("load_assignment");
    let assignments = [Some(inline), dump.endpoints(service).cloned()];
    let far = assignments
        .iter()
        .flatten()
        .flat_map(|list| list.items("endpoints"))
        .flat_map(|group| group.items("lb_endpoints"));
    let far = far.map(|one| one.find("endpoint.address.socket_address.address"));
    let far = far.into_iter().find(|address| address.text().is_some_and(|address| !is_loopback(address)));
    if let (false, Some(address)) = (is_encrypted, far) {
        found.add(
            "plaintext",
            Severity::Warning,
            &socket,
            format!(
                "keys go to {} in plain text, and whoever is in between answers in Talos' place",
                address.text().unwrap_or_default()
            ),
            fix,
        );
    }
}

fn unverified(context: &Node<'_>, fix: &str, found: &mut Findings) {
    let common = context.get("common_tls_context");
    let kinds = ["validation_context", "validation_context_sds_secret_config", "combined_validation_context"];
    if kinds.iter().all(|kind| common.get(kind).is_absent()) {
        found.add(
            "tls-unverified",
            Severity::Warning,
            &common.get("validation_context"),
            "any certificate will do: whoever is in between answers in Talos' place",
            fix,
        );
    }
}
