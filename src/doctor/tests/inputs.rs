//! Tests of inputs other than a whole configuration: parts, Kubernetes objects, several documents,
//! old forms; and of bounds.

use super::super::connection_manager::MAX_TARGETS;
use super::super::{Finding, NotADump, Options, Report, Severity, examine};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const EXT_AUTHZ: &str = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

/// Returns a listener with an ext_authz filter that has more settings.
fn listener(head: &str, filter: &str, more: &str) -> String {
    format!(
        "{{ {head}, filter_chains: [{{ filters: [{{ name: hcm, typed_config: {{ \"@type\": {HCM}, http_filters: [{{ name: authz, \
         typed_config: {{ \"@type\": {EXT_AUTHZ}, {filter} }} }}], {more} }} }}] }}] }}"
    )
}

fn address(port: u16) -> String {
    format!("address: {{ socket_address: {{ address: 192.0.2.1, port_value: {port} }} }}")
}

const CALL: &str =
    "grpc_service: { envoy_grpc: { cluster_name: talos }, timeout: 0.25s }, transport_api_version: V3";
const ROUTES: &str = "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [{ match: { prefix: / }, route: { cluster: up } }] }] }";

fn report(text: &str) -> Report {
    examine(text, Options::default()).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

fn found<'r>(report: &'r Report, id: &str) -> Vec<&'r Finding> {
    report.findings.iter().filter(|finding| finding.id == id).collect()
}

#[track_caller]
fn only<'r>(report: &'r Report, id: &str) -> &'r Finding {
    let found = found(report, id);
    assert_eq!(found.len(), 1, "{id}: {report:#?}");
    found[0]
}

fn refusal(text: &str) -> String {
    examine(text, Options::default()).unwrap_err().to_string()
}

#[test]
fn listeners_that_come_from_elsewhere() {
    for (source, origin) in [
        ("lds_config: { path_config_source: { path: /etc/envoy/lds.yaml } }", "the file /etc/envoy/lds.yaml"),
        ("ads_config: { api_type: GRPC }, lds_config: { ads: {} }", "an xDS server"),
        (
            "ldsConfig: { apiConfigSource: { grpcServices: { envoyGrpc: { clusterName: xds } } } }",
            "the xDS server of the cluster xds",
        ),
    ] {
        let report = report(&format!(
            "admin: {{ address: {{ socket_address: {{ address: 0.0.0.0, port_value: 15000 }} }} }}\ndynamic_resources: {{ {source} }}\n"
        ));
        let unseen = only(&report, "unseen");
        assert_eq!(unseen.severity, Severity::Warning);
        assert!(unseen.why.contains(origin), "{unseen:?}");
        assert!(unseen.fix.ends_with("talos doctor http://127.0.0.1:15000"), "{unseen:?}");
        assert!(found(&report, "no-ext-authz").is_empty(), "{report:#?}");
    }
}

#[test]
fn routes_clusters_and_filters_that_come_from_elsewhere() {
    let rds = "rds: { route_config_name: r, config_source: { path_config_source: { path: /r.yaml } } }";
    let listener = listener("name: in", CALL, rds);
    let report = report(&format!(
        "static_resources: {{ listeners: [{listener}] }}\ndynamic_resources: {{ cds_config: {{ ads: {{}} }} }}\n"
    ));
    let paths: Vec<&str> = found(&report, "unseen").iter().map(|finding| finding.path.as_str()).collect();
    let chain = "listeners[in].filter_chains[0]";
    assert_eq!(
        paths,
        [
            format!("{chain}.http_filters[authz].grpc_service.envoy_grpc.cluster_name"),
            format!("{chain}.rds.route_config_name")
        ]
    );
    assert!(found(&report, "cluster-missing").is_empty());
    assert!(found(&report, "unseen")[1].why.contains("the file /r.yaml"));

    let discovered = format!(
        "static_resources: {{ listeners: [{{ name: in, filter_chains: [{{ filters: [{{ name: hcm, typed_config: {{ \"@type\": {HCM}, \
         http_filters: [{{ name: authz, config_discovery: {{ config_source: {{ ads: {{}} }} }} }}], {ROUTES} }} }}] }}] }}] }}"
    );
    let report = super::inputs::report(&discovered);
    assert!(only(&report, "unseen").why.contains("may be the one that calls Talos"), "{report:#?}");
    assert!(found(&report, "no-ext-authz").is_empty(), "{report:#?}");
}

#[test]
fn parts_of_a_configuration() {
    let open = listener("name: in", &format!("{CALL}, failure_mode_allow: yes"), ROUTES);
    for text in [
        open.clone(),
        format!("[{open}]"),
        format!(
            "resources: [{{ \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener, {}]",
            &open[1..]
        ),
        format!(
            "{{ configs: [{{ \"@type\": type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener, name: in, \
             active_state: {{ listener: {open} }} }}] }}"
        ),
    ] {
        let report = report(&text);
        assert_eq!(
            only(&report, "fail-open").path,
            "listeners[in].filter_chains[0].http_filters[authz].failure_mode_allow"
        );
        assert!(found(&report, "cluster-missing").is_empty(), "{report:#?}");
        assert_eq!(report.examined.routes, 1, "{text}");
    }
    let report = report(
        "configs: [{ '@type': type.googleapis.com/envoy.admin.v3.ClustersConfigDump, static_clusters: [{ cluster: { name: a } }] }]",
    );
    assert!(only(&report, "unseen").why.contains("not in this part"), "{report:#?}");
    assert!(found(&report, "no-ext-authz").is_empty(), "{report:#?}");
}

#[test]
fn configurations_in_config_maps() {
    let envoy = format!(
        "static_resources:\n  listeners:\n  - {}\n",
        listener("name: in", &format!("{CALL}, failure_mode_allow: true"), ROUTES)
    );
    let indented: String = envoy.lines().map(|line| format!("    {line}\n")).collect();
    let manifest = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: edge }}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: edge\n\
         data:\n  other.yaml: \"a: b\"\n  envoy.yaml: |\n{indented}"
    );
    let report = report(&manifest);
    let open = only(&report, "fail-open");
    assert_eq!(
        open.path,
        "ConfigMap edge.data[envoy.yaml].listeners[in].filter_chains[0].http_filters[authz].failure_mode_allow"
    );
    let line = manifest.lines().position(|line| line.contains("failure_mode_allow")).unwrap();
    assert_eq!(open.line, Some(u32::try_from(line + 1).unwrap()));
    assert!(found(&report, "unseen").is_empty(), "{report:#?}");

    let broken = manifest.replace("- {", "- {{");
    assert!(refusal(&broken).starts_with("line 14, column "), "{}", refusal(&broken));
    let json = serde_json::json!({ "kind": "List", "apiVersion": "v1", "items": [
        { "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "m" }, "data": { "envoy.json": envoy } },
    ] });
    assert_eq!(found(&super::inputs::report(&json.to_string()), "fail-open").len(), 1);
}

#[test]
fn objects_of_kubernetes() {
    let object =
        |api: &str, kind: &str| format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{ name: talos }}\n");
    for (api, kind, advice) in [
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "istioctl proxy-config"),
        ("security.istio.io/v1", "AuthorizationPolicy", "istioctl proxy-config"),
        ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy", "egctl config envoy-proxy"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "kubectl port-forward"),
        ("apps/v1", "Deployment", "talos doctor http://127.0.0.1:9901"),
        ("v1", "ConfigMap", "talos doctor http://127.0.0.1:9901"),
    ] {
        let refusal = refusal(&object(api, kind));
        assert!(refusal.contains(&format!("{kind} talos")) && refusal.contains(advice), "{refusal}");
    }
    let several = ["EnvoyFilter", "Gateway", "VirtualService", "Sidecar"]
        .map(|kind| object("networking.istio.io/v1", kind));
    assert!(
        refusal(&several.join("---\n"))
            .contains("EnvoyFilter talos, Gateway talos, VirtualService talos and 1 more")
    );
}

#[test]
fn texts_that_are_something_else() {
    for (text, expected) in [
        ("{\"configs\": [\n  {}\n  {}]}", "line 3, column 3: expected a comma or `]`"),
        ("a: {{ .Values.x }}\nb: {{- end }}\n", "render it first"),
        ("{\"cluster_statuses\": []}", "the answer to /clusters"),
        ("secrets: {}\n", "not an Envoy configuration: it has neither"),
        ("", "not an Envoy configuration: it has neither"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    assert_eq!(examine("[1, 2]", Options::default()), Err(NotADump::Other));
    // Envoy takes it, too.
    let commas =
        format!("{{\"static_resources\": {{\"listeners\": [{},],}},}}", listener("name: in", CALL, ROUTES));
    assert_eq!(report(&commas).examined.routes, 1);
    let second = report(&format!(
        "static_resources: {{}}\n---\nstatic_resources: {{ listeners: [{}] }}\n",
        listener("name: in", CALL, ROUTES)
    ));
    assert_eq!(only(&second, "second-document").line, Some(3));
}

#[test]
fn forms_that_envoy_does_not_read_any_more() {
    let old = "static_resources: { listeners: [{ name: in, filter_chains: [{ filters: [{ name: envoy.http_connection_manager, config: { \
               http_filters: [{ name: envoy.ext_authz, config: { grpc_service: { envoy_grpc: { cluster_name: talos } }, \
               failure_mode_allow: true } }] } }] }] }] }";
    let report = report(old);
    assert_eq!(found(&report, "old-api").len(), 2, "{report:#?}");
    assert_eq!(found(&report, "fail-open").len(), 1, "{report:#?}");
    assert!(found(&report, "no-ext-authz").is_empty(), "{report:#?}");
    let typed = listener("name: in", CALL, ROUTES).replace(
        HCM,
        "type.googleapis.com/envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager",
    );
    assert_eq!(found(&super::inputs::report(&typed), "old-api").len(), 1);
    for version in ["transport_api_version: V2", "transport_api_version: AUTO", "failure_mode_allow: false"] {
        let filter = CALL.replace("transport_api_version: V3", version);
        assert_eq!(
            only(&super::inputs::report(&listener("name: in", &filter, ROUTES)), "api-version").severity,
            Severity::Error
        );
    }
}

#[test]
fn policies_that_talos_refuses() {
    let with = |extensions: &str| {
        let routes = format!(
            "route_config: {{ virtual_hosts: [{{ name: all, routes: [{{ match: {{ prefix: / }}, route: {{ cluster: up }}, \
             typed_per_filter_config: {{ authz: {{ \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, \
             check_settings: {{ context_extensions: {{ {extensions} }} }} }} }} }}] }}] }}"
        );
        report(&listener("name: in", CALL, &routes))
    };
    for (bad, fix) in [
        ("talos.mode: \"of\"", "talos.mode: \"required\""),
        ("talos.mode: off", "talos.mode: \"off\""),
        ("talos.mode: ''", "talos.mode: \"required\""),
        ("talos.mode:", "talos.mode: \"required\""),
        ("talos.mode: Required", "talos.mode: \"required\""),
        ("talos.scopes: ''", "talos.scopes: \"reports:read\""),
    ] {
        let report = with(bad);
        let finding = only(&report, "bad-extension");
        assert!(finding.fix.starts_with(fix) && finding.severity == Severity::Error, "{bad}: {finding:?}");
    }
    for good in [
        "talos.mode: 'off'",
        "talos.scopes: a b, talos.mode: optional",
        "talos.mode: '[redacted]'",
        "other: ''",
    ] {
        let report = with(good);
        assert!(found(&report, "bad-extension").is_empty(), "{good}: {report:#?}");
    }
    assert_eq!(found(&with("talos.scope: a"), "unknown-extension").len(), 1);
}

#[test]
fn logs_over_grpc_show_keys() {
    let log = |names: &str| {
        format!(
            "{ROUTES}, access_log: [{{ name: als, typed_config: {{ \"@type\": \
             x/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig, additional_request_headers_to_log: {names} }} }}]"
        )
    };
    let shown = report(&listener("name: in", CALL, &log("[User-Agent, X-API-Key, authorization]")));
    let finding = only(&shown, "key-logged");
    assert_eq!(finding.fix, "additional_request_headers_to_log: [User-Agent]");
    assert!(
        finding.path.ends_with("access_log[als].typed_config.additional_request_headers_to_log"),
        "{finding:?}"
    );
    let hidden = report(&listener("name: in", CALL, &log("[user-agent]")));
    assert!(found(&hidden, "key-logged").is_empty(), "{hidden:#?}");
}

#[test]
fn runtime_layers_turn_checks_off() {
    let with = |filter: &str, layers: &str| {
        let filter = format!("{CALL}, {filter}");
        let report = report(&format!(
            "layered_runtime: {{ layers: [{layers}] }}\nstatic_resources: {{ listeners: [{}] }}",
            listener("name: in", &filter, ROUTES)
        ));
        let ids = ["filter-enabled", "deny-at-disable"];
        let found = report.findings.into_iter().filter(|finding| ids.contains(&finding.id));
        found.map(|finding| (finding.id, finding.severity, finding.path)).collect::<Vec<_>>()
    };
    let both = "filter_enabled: { default_value: { numerator: 100 }, runtime_key: a.on }, deny_at_disable: { default_value: true, \
                runtime_key: a.deny }";
    let layer = |values: &str| format!("{{ name: l, static_layer: {{ {values} }} }}");
    let at = |key: &str| format!("bootstrap.layered_runtime.layers[l].static_layer{key}");
    let (error, warning) = (Severity::Error, Severity::Warning);
    for (layers, expected) in [
        (layer("b.on: 0"), vec![]),
        (layer("a.on: 100"), vec![]),
        (layer("a.on: 99"), vec![("filter-enabled", warning, at("[a.on]"))]),
        (
            layer("a: { on: { numerator: 1, denominator: HUNDRED } }"),
            vec![("filter-enabled", warning, at("[a][on]"))],
        ),
        (
            layer("a: { on: 0, deny: false }"),
            vec![("filter-enabled", error, at("[a][on]")), ("deny-at-disable", warning, at("[a][deny]"))],
        ),
        (layer("a.deny: false"), vec![("deny-at-disable", warning, at("[a.deny]"))]),
        (format!("{}, {}", layer("a.on: 0"), layer("a.on: 100")), vec![]),
    ] {
        assert_eq!(with(both, &layers), expected, "{layers}");
    }
}

#[test]
fn a_route_that_asks_an_http_service_is_found() {
    let routes = "route_config: { virtual_hosts: [{ name: all, routes: [{ match: { prefix: / }, route: { cluster: up }, \
                  typed_per_filter_config: { authz: { \"@type\": x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, \
                  check_settings: { http_service: { server_uri: { uri: http://opa } } } } } }] }] }";
    let report = report(&listener("name: in", CALL, routes));
    assert!(only(&report, "http-service").why.contains("http://opa"), "{report:#?}");
}

#[test]
fn each_listener_and_server_by_its_name() {
    let open = |port| {
        listener(
            &address(port),
            &format!("{}, failure_mode_allow: true", CALL.replace("talos", "opa")),
            ROUTES,
        )
    };
    let report = report(&format!(
        "static_resources:\n  listeners:\n  - {}\n  - {}\n  - {}\n",
        open(80),
        open(81),
        open(80).replace("'*'", "a")
    ));
    let places: Vec<(&str, Option<u32>)> =
        found(&report, "fail-open").iter().map(|finding| (&finding.path[..28], finding.line)).collect();
    assert_eq!(
        places,
        [
            ("listeners[192.0.2.1:80, 2].f", Some(5)),
            ("listeners[192.0.2.1:80].filt", Some(3)),
            ("listeners[192.0.2.1:81].filt", Some(4))
        ]
    );
    assert!(
        found(&report, "fail-open")[0].why.starts_with("while the server of opa is unreachable"),
        "{report:#?}"
    );
    // The listeners of the dump have no TLS.
    assert_eq!(found(&report, "plain-http").len(), 3);
    assert!(found(&report, "plain-http")[0].why.contains("192.0.2.1"));
}

#[test]
fn cures_fit_each_other() {
    let cured = |service: &str, cluster: &str| {
        let filter = format!(
            "grpc_service: {{ envoy_grpc: {{ cluster_name: talos }}, {service} }}, transport_api_version: V3"
        );
        report(&format!(
            "static_resources: {{ listeners: [{}], clusters: [{{ name: talos, {cluster} }}] }}",
            listener("name: in", &filter, ROUTES)
        ))
    };
    // A timeout that is cured itself counts as cured.
    let report = cured(
        "timeout: 600s, retry_policy: { retry_on: reset, retry_back_off: { base_interval: 1s, max_interval: 0.3s } }",
        "connect_timeout: 5s",
    );
    assert!(only(&report, "retry-too-late").fix.contains("max_interval: 0.25s"), "{report:#?}");
    assert!(found(&report, "retry-cuts-off").is_empty(), "{report:#?}");
    assert_eq!(only(&report, "connect-timeout").fix, "connect_timeout: 0.2s");
    let report = cured("timeout: 0.1s", "connect_timeout: 0.2s");
    assert_eq!(only(&report, "connect-timeout").fix, "connect_timeout: 0.05s");
    assert!(only(&report, "no-retry").fix.contains("max_interval: 0.1s"), "{report:#?}");
    // Health checks, which a cure adds, need it.
    assert_eq!(found(&report, "panic-threshold").len(), 1, "{report:#?}");
}

#[test]
fn many_listeners_are_counted_and_bounded() {
    let count = 4_000;
    let mut text = "static_resources:\n  listeners:\n".to_owned();
    for port in 0..count {
        text.push_str("  - ");
        text.push_str(&listener(
            &address(u16::try_from(port % 3_000).unwrap()),
            "failure_mode_allow: true, grpc_service: {}",
            ROUTES,
        ));
        text.push_str(&format!(" # {port}\n"));
    }
    let report = report(&text);
    // 1,000 of them are there twice.
    assert_eq!(report.examined.listeners, 3_000);
    assert_eq!(found(&report, "fail-open").len(), 1_000);
    assert!(report.summary.errors > 6_000 && report.summary.not_listed > 10_000, "{:?}", report.summary);
}

#[test]
fn shared_routes_are_bounded() {
    let routes = "{ match: { prefix: / }, route: { cluster: up } },".repeat(30_000);
    let listeners: Vec<String> = (0..20)
        .map(|port| {
            format!("{{ listener: {} }}", listener(&address(port), CALL, "rds: { route_config_name: r }"))
        })
        .collect();
    let report = report(&format!(
        "configs: [{{ '@type': x/envoy.admin.v3.ListenersConfigDump, static_listeners: [{}] }}, {{ '@type': \
         x/envoy.admin.v3.RoutesConfigDump, static_route_configs: [{{ route_config: {{ name: r, virtual_hosts: [{{ name: all, \
         routes: [{routes}] }}] }} }}] }}]",
        listeners.join(",")
    ));
    assert_eq!((report.examined.listeners, report.examined.routes), (20, MAX_TARGETS));
    let unseen = found(&report, "unseen");
    assert!(
        unseen.iter().any(|finding| finding.path == "routes" && finding.why.contains("first 300000 routes"))
    );
}
