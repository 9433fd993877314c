//! Findings about the gRPC call of a check and about the cluster that it goes to.

use std::collections::HashSet;

use http::uri::Authority;

use super::coverage::{ask_envoy, origin};
use super::cure::{self, TIMEOUT_SECONDS};
use super::tls;
use crate::doctor::dump::{Dump, is_loopback};
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::http_filter::server;
use crate::doctor::node::{Node, to_yaml};
use crate::doctor::options::Options;

/// Envoy's default timeout of a gRPC service, in seconds.
const DEFAULT_TIMEOUT_SECONDS: f64 = 0.2;
/// With a longer timeout, in seconds, every user notices a stuck Talos.
const LONG_TIMEOUT_SECONDS: f64 = 1.0;
/// With a longer timeout, in seconds, a stuck Talos holds every request until clients give up.
const ENDLESS_TIMEOUT_SECONDS: f64 = 10.0;
/// With a shorter timeout, in seconds, a moment of load is an outage.
const SHORT_TIMEOUT_SECONDS: f64 = 0.05;
/// Envoy's default limit of concurrent requests to a cluster.
const DEFAULT_MAX_REQUESTS: u64 = 1024;
/// Envoy's default connect timeout of a cluster, in seconds.
const DEFAULT_CONNECT_TIMEOUT_SECONDS: f64 = 5.0;
/// Connect timeout that the cures use, in seconds.
const CONNECT_TIMEOUT_SECONDS: f64 = 0.2;
/// Envoy's default back-off of retries of gRPC services, in seconds.
const DEFAULT_BASE_INTERVAL_SECONDS: f64 = 1.0;

/// The gRPC service that a filter or route sends its checks to.
pub(crate) struct GrpcService<'a> {
    node: Node<'a>,
    /// The cluster, if Envoy's own gRPC client is used.
    pub cluster: Option<&'a str>,
    /// The server, as texts name it.
    server: String,
    timeout: f64,
    /// True if Talos takes TLS alone on its port, false if none; None where that isn't known.
    takes_tls: Option<bool>,
}

impl<'a> GrpcService<'a> {
    /// Parses `envoy.config.core.v3.GrpcService`.
    pub(crate) fn parse(node: &Node<'a>, options: Options<'_>) -> Self {
        Self {
            node: node.clone(),
            server: server(node, options),
            cluster: node.get_path("envoy_grpc.cluster_name").text(),
            timeout: node.get("timeout").seconds().unwrap_or(DEFAULT_TIMEOUT_SECONDS),
            takes_tls: options
                .listener
                .filter(|listener| listener.socket.is_none())
                .map(|listener| listener.tls.cert_file.is_some()),
        }
    }

    /// Returns the timeout that the service has when the cures of its timeout are applied, so that
    /// all cures fit each other.
    fn cured_timeout(&self) -> f64 {
        let is_fine = (SHORT_TIMEOUT_SECONDS..=LONG_TIMEOUT_SECONDS).contains(&self.timeout);
        if is_fine && !self.node.get("timeout").is_absent() { self.timeout } else { TIMEOUT_SECONDS }
    }
}

/// Examines the gRPC services of Talos, and the clusters that they use.
pub(crate) fn examine(dump: &Dump<'_>, services: &[GrpcService<'_>], findings: &mut Findings) {
    // Many filters use one cluster in the same way.
    let mut examined = HashSet::new();
    for service in services {
        check_timeout(service, findings);
        if !service.node.get("google_grpc").is_absent() {
            findings.add(
                "google-grpc",
                Severity::Warning,
                &service.node.get("google_grpc"),
                "Google's gRPC client doesn't use Envoy's health checks, circuit breakers and retries",
                format!(
                    "# remove google_grpc\nenvoy_grpc: {{ cluster_name: talos_authz }}\n{}",
                    cure::cluster("talos_authz")
                ),
            );
            continue;
        }
        check_retry(service, findings);
        let Some(name) = service.cluster else { continue };
        check_authority(name, &service.node.get_path("envoy_grpc.authority"), "every check fails", findings);
        let Some(cluster) = dump.cluster(name) else {
            check_missing(dump, service, name, findings);
            continue;
        };
        if examined.insert((name, service.timeout.to_bits())) {
            check_protocol(cluster, findings);
            check_health(cluster, service, findings);
            check_limits(cluster, service, findings);
            check_transport(dump, cluster, service, findings);
        }
    }
}

/// Reports a cluster that isn't in the configuration.
fn check_missing(dump: &Dump<'_>, service: &GrpcService<'_>, name: &str, findings: &mut Findings) {
    let place = service.node.get_path("envoy_grpc.cluster_name");
    if dump.has_clusters {
        findings.add(
            "cluster-missing",
            Severity::Error,
            &place,
            format!("there is no cluster {name}: no check reaches {}", service.server),
            cure::cluster(&to_yaml(name)),
        );
        return;
    }
    let source = dump.bootstrap.get_path("dynamic_resources.cds_config");
    let from = match source.is_absent() {
        true => "is not in this part of a configuration".to_owned(),
        false => format!("comes from {}", origin(&source)),
    };
    findings.add(
        "unseen",
        Severity::Warning,
        &place,
        format!("the cluster {name} {from}: its health checks, TLS and limits aren't known here"),
        ask_envoy(dump),
    );
}

fn check_timeout(service: &GrpcService<'_>, findings: &mut Findings) {
    let node = service.node.get("timeout");
    let fix = "grpc_service:\n  timeout: 0.25s";
    if node.is_absent() {
        findings.add(
            "timeout",
            Severity::Note,
            &node,
            "no timeout is set: Envoy's default is 200 ms, including the retry",
            fix,
        );
    } else if service.timeout == 0.0 || service.timeout >= ENDLESS_TIMEOUT_SECONDS {
        let how_long =
            if service.timeout == 0.0 { "forever".to_owned() } else { format!("for {} s", service.timeout) };
        findings.add(
            "timeout",
            Severity::Error,
            &node,
            format!(
                "if {} hangs, every request of every user waits {how_long} (Istio's default is 600 s)",
                service.server
            ),
            fix,
        );
    } else if service.timeout > LONG_TIMEOUT_SECONDS {
        findings.add(
            "timeout",
            Severity::Warning,
            &node,
            format!(
                "if {} hangs, every request of every user waits that long; Talos normally answers within a millisecond",
                service.server
            ),
            fix,
        );
    } else if service.timeout < SHORT_TIMEOUT_SECONDS {
        findings.add(
            "timeout",
            Severity::Warning,
            &node,
            "a database lookup or a moment of load takes longer, and the check fails",
            fix,
        );
    }
}

fn check_retry(service: &GrpcService<'_>, findings: &mut Findings) {
    let policy = service.node.get("retry_policy");
    let timeout = service.cured_timeout();
    let fix = format!(
        "grpc_service:\n  retry_policy:\n    retry_on: unavailable,reset\n    num_retries: 1\n    \
         retry_back_off: {{ base_interval: 0.01s, max_interval: {timeout}s }}"
    );
    let conditions = policy.get("retry_on");
    let is_retried = conditions.text().is_some_and(|on| {
        let mut on = on.split(',').map(str::trim);
        on.any(|on| ["unavailable", "reset", "5xx", "gateway-error", "connect-failure"].contains(&on))
    });
    let number = policy.get("num_retries");
    let is_never = !number.is_absent() && number.number() == Some(0);
    if policy.is_absent() || !is_retried || is_never {
        let place = match () {
            () if policy.is_absent() => &policy,
            () if is_retried => &number,
            () => &conditions,
        };
        findings.add(
            "no-retry",
            Severity::Warning,
            place,
            format!(
                "when an instance of {} restarts, the checks sent to it fail and their requests are refused",
                service.server
            ),
            fix,
        );
        return;
    }
    let back_off = policy.get("retry_back_off");
    let base = back_off.get("base_interval");
    if base.seconds().unwrap_or(DEFAULT_BASE_INTERVAL_SECONDS) >= timeout {
        findings.add(
            "retry-too-late",
            Severity::Warning,
            &base,
            "the back-off is longer than the timeout, so there is never a retry (Envoy's default back-off is up to 1 s)",
            fix.clone(),
        );
    }
    let max_interval = back_off.get("max_interval");
    if max_interval.seconds().is_some_and(|seconds| seconds < timeout) {
        findings.add(
            "retry-cuts-off",
            Severity::Warning,
            &max_interval,
            "Envoy also uses max_interval as the timeout of each try, so it cuts off answers that come in time",
            fix,
        );
    }
}

/// Checks the `:authority` that Envoy sends, by default the cluster's name.
///
/// Cluster names of Istio and Envoy Gateway have characters that aren't allowed there.
fn check_authority(cluster: &str, node: &Node<'_>, consequence: &str, findings: &mut Findings) {
    let sent = node.text().filter(|text| !text.is_empty()).unwrap_or(cluster);
    if sent.parse::<Authority>().is_err() {
        findings.add(
            "bad-authority",
            Severity::Error,
            node,
            format!(
                "Envoy sends the :authority {sent}, which is invalid, so Talos rejects it: {consequence}"
            ),
            "authority: talos",
        );
    }
}

/// Type of the options by which a cluster chooses its protocol, and the key of its entry.
pub(super) const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Returns the HTTP/2 options of a cluster, if it uses HTTP/2.
fn http2_options<'a>(cluster: &Node<'a>) -> Option<Node<'a>> {
    let options = cluster.get("typed_extension_protocol_options").entry(HTTP_PROTOCOL_OPTIONS);
    let old = cluster.get("http2_protocol_options");
    let explicit = options.get("explicit_http_config").get("http2_protocol_options");
    let auto = options.get("auto_config");
    [explicit, auto.get("http2_protocol_options")]
        .into_iter()
        .find(|options| !options.is_absent())
        .or_else(|| (!auto.is_absent()).then(|| auto.get("http2_protocol_options")))
        .or_else(|| (options.is_absent() && !old.is_absent()).then_some(old))
}

/// Returns true if the protocol of a cluster may carry request trailers: HTTP/2, HTTP/3, or
/// HTTP/1.1 with trailers enabled.
pub(crate) fn takes_trailers(cluster: &Node<'_>) -> bool {
    let options = cluster.get("typed_extension_protocol_options").entry(HTTP_PROTOCOL_OPTIONS);
    let explicit = options.get("explicit_http_config");
    let (http1, http3) = (explicit.get("http_protocol_options"), explicit.get("http3_protocol_options"));
    let as_downstream = options.get("use_downstream_protocol_config");
    let old = cluster.get_path("http_protocol_options.enable_trailers").is_true()
        || cluster.get("protocol_selection").is_value("USE_DOWNSTREAM_PROTOCOL", 1);
    http2_options(cluster).is_some()
        || !http3.is_absent()
        || !as_downstream.is_absent()
        || http1.get("enable_trailers").is_true()
        || (options.is_absent() && old)
}

fn check_protocol(cluster: &Node<'_>, findings: &mut Findings) {
    const FIX: &str = "typed_extension_protocol_options:\n  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n    \
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n    explicit_http_config:\n      \
        http2_protocol_options:\n        connection_keepalive: { interval: 5s, timeout: 1s }";
    let Some(options) = http2_options(cluster) else {
        findings.add(
            "no-http2",
            Severity::Error,
            &cluster.get("typed_extension_protocol_options").entry(HTTP_PROTOCOL_OPTIONS),
            "the cluster doesn't use HTTP/2, which gRPC needs: every check fails",
            FIX,
        );
        return;
    };
    let keepalive = options.get("connection_keepalive");
    if !keepalive.get("interval").seconds().is_some_and(|interval| interval > 0.0) {
        findings.add(
            "no-keepalive",
            Severity::Warning,
            &keepalive,
            "a silently broken connection is only noticed when the kernel gives up, after about 15 minutes; until then \
             checks on it time out (TCP keepalive doesn't help: it isn't sent while data is unacknowledged)",
            FIX,
        );
    }
}

fn check_health(cluster: &Node<'_>, service: &GrpcService<'_>, findings: &mut Findings) {
    let checks = cluster.items("health_checks");
    let has_outliers = !cluster.get("outlier_detection").is_absent();
    let fix = "health_checks:\n  - timeout: 0.5s\n    interval: 1s\n    no_traffic_interval: 1s\n    unhealthy_threshold: 2\n    \
               healthy_threshold: 1\n    grpc_health_check: { service_name: envoy.service.auth.v3.Authorization }";
    if checks.is_empty() {
        let severity = if has_outliers { Severity::Note } else { Severity::Warning };
        findings.add(
            "no-health-check",
            severity,
            &cluster.get("health_checks"),
            format!(
                "an instance of {} that starts, stops or can't decide reports NOT_SERVING, but still receives checks",
                service.server
            ),
            fix,
        );
    }
    let name = cluster.get("name").text().unwrap_or_default();
    for check in &checks {
        let by_grpc = check.get("grpc_health_check");
        if !by_grpc.is_absent() && !has_endpoint_hostnames(cluster) {
            check_authority(name, &by_grpc.get("authority"), "every instance counts as unhealthy", findings);
        }
        if by_grpc.is_absent() && check.get("http_health_check").is_absent() {
            findings.add(
                "weak-health-check",
                Severity::Note,
                check,
                "the health check only tests that a port is open, not that Talos can decide",
                fix,
            );
        }
        let idle = check.get("no_traffic_interval");
        if idle.seconds().unwrap_or(60.0) > 5.0 {
            findings.add(
                "slow-health-check",
                Severity::Note,
                &idle,
                "an instance that was down when Envoy started is unused until the next health check (60 s by default)",
                "no_traffic_interval: 1s",
            );
        }
    }
    let panic = cluster.get_path("common_lb_config.healthy_panic_threshold");
    // Protobuf writes a percentage of 0 as an empty message.
    let percent = if panic.is_absent() { 50.0 } else { panic.get("value").float().unwrap_or(0.0) };
    // Also without health checks, which the cure of `no-health-check` adds.
    if percent > 0.0 {
        findings.add(
            "panic-threshold",
            Severity::Warning,
            &panic,
            "when many instances are unhealthy (50 % by default), Envoy ignores health and sends checks to dead ones",
            "common_lb_config:\n  healthy_panic_threshold: { value: 0 }",
        );
    }
}

/// Returns true if endpoints have their own hostname for health checks.
fn has_endpoint_hostnames(cluster: &Node<'_>) -> bool {
    cluster.descendants().iter().any(|object| !object.get_path("health_check_config.hostname").is_absent())
}

fn check_limits(cluster: &Node<'_>, service: &GrpcService<'_>, findings: &mut Findings) {
    let breakers = cluster.get("circuit_breakers");
    let thresholds = breakers.items("thresholds");
    let default = thresholds.iter().find(|one| one.get("priority").is_value("DEFAULT", 0));
    let place = default.map_or_else(|| breakers.get("thresholds"), |one| one.get("max_requests"));
    if place.number().unwrap_or(DEFAULT_MAX_REQUESTS) <= DEFAULT_MAX_REQUESTS {
        findings.add(
            "circuit-breaker",
            Severity::Warning,
            &place,
            "more than 1024 concurrent checks (Envoy's default limit) fail at once: after a short pause of Talos, \
             requests are refused that it would have answered",
            "circuit_breakers:\n  thresholds:\n    - max_requests: 4096\n      max_pending_requests: 1024\n      \
             retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: 16 }",
        );
    }
    let connect = cluster.get("connect_timeout");
    let timeout = service.cured_timeout();
    if connect.seconds().unwrap_or(DEFAULT_CONNECT_TIMEOUT_SECONDS) >= timeout {
        let fix = if timeout > CONNECT_TIMEOUT_SECONDS { CONNECT_TIMEOUT_SECONDS } else { timeout / 2.0 };
        findings.add(
            "connect-timeout",
            Severity::Warning,
            &connect,
            "the connect timeout (5 s by default) isn't shorter than the check's timeout: an unreachable instance uses \
             up all of it, and no time is left for the retry",
            format!("connect_timeout: {fix}s"),
        );
    }
}

/// Returns type and configuration of a transport socket, or of the one that it wraps, as those for
/// the PROXY protocol and for statistics do.
fn innermost<'a>(socket: Node<'a>) -> (Option<&'a str>, Node<'a>) {
    let (kind, config) = socket.get("typed_config").unwrap_typed();
    match config.get("transport_socket") {
        inner if inner.is_absent() => (kind, config),
        inner => innermost(inner),
    }
}

fn check_transport(dump: &Dump<'_>, cluster: &Node<'_>, of: &GrpcService<'_>, findings: &mut Findings) {
    let socket = cluster.get("transport_socket");
    let matches = cluster.items("transport_socket_matches");
    let counted = if tls::overrides_socket(cluster) { 1 } else { matches.len() + 1 };
    let sockets = matches.iter().map(|one| one.get("transport_socket")).chain([socket.clone()]).take(counted);
    // API v2 has the TLS context in the cluster.
    let old = cluster.get("tls_context");
    let mut is_encrypted = !old.is_absent();
    if is_encrypted {
        tls::examine(dump, &old, cluster, findings);
    }
    for socket in sockets {
        let (kind, config) = innermost(socket);
        match kind {
            Some("UpstreamTlsContext") => {
                is_encrypted = true;
                tls::examine(dump, &config, cluster, findings);
            }
            Some("QuicUpstreamTransport") => {
                is_encrypted = true;
                tls::examine(dump, &config.get("upstream_tls_context"), cluster, findings);
            }
            None | Some("RawBuffer" | "UpstreamStartTlsConfig") => {}
            // Other transports (a mesh's mTLS, a tunnel) are taken to be encrypted.
            Some(_) => is_encrypted = true,
        }
    }
    let name = cluster.get("name").text().unwrap_or_default();
    let service = cluster.get_path("eds_cluster_config.service_name").text().unwrap_or(name);
    let inline = cluster.get("load_assignment");
    let assignments = [Some(inline), dump.endpoints(service).cloned()];
    let addresses = assignments
        .iter()
        .flatten()
        .flat_map(|list| list.items("endpoints"))
        .flat_map(|group| group.items("lb_endpoints"))
        .filter_map(|one| one.get_path("endpoint.address.socket_address.address").text());
    let addresses: Vec<_> = addresses.collect();
    if !addresses.is_empty() {
        check_encryption(is_encrypted, &socket, cluster, of, findings);
    }
    let remote = addresses.into_iter().find(|address| !is_loopback(address));
    if let (false, Some(address)) = (is_encrypted, remote) {
        findings.add(
            "plaintext",
            Severity::Warning,
            &socket,
            format!(
                "keys are sent to {address} unencrypted, and anybody on the network path can answer in the place of {}",
                of.server
            ),
            tls::socket_cure(cluster),
        );
    }
}

/// Compares a cluster's transport with that of Talos' own listener.
fn check_encryption(
    is_encrypted: bool,
    socket: &Node<'_>,
    cluster: &Node<'_>,
    of: &GrpcService<'_>,
    findings: &mut Findings,
) {
    match (of.takes_tls, is_encrypted) {
        (Some(true), false) => findings.add(
            "tls-expected",
            Severity::Error,
            socket,
            "Talos takes TLS alone (`serve.authz.tls`), and this cluster has none: every check fails with a 503",
            tls::socket_cure(cluster),
        ),
        (Some(false), true) => findings.add(
            "tls-unexpected",
            Severity::Warning,
            socket,
            "this cluster speaks TLS, and Talos has no certificate (`serve.authz.tls`): unless a proxy between them ends \
             the TLS, every check fails with a 503",
            "# talos.yaml\nserve:\n  authz:\n    tls: { cert_file: /etc/talos/tls.crt, key_file: /etc/talos/tls.key }",
        ),
        _ => {}
    }
}
