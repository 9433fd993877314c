//! Tests of the forms of a dump: parts from RDS, ECDS, scoped routes and EDS, and dumps wrapped by
//! tools. Dumps of real Envoys are tested in `tests/it/doctor.rs`.

mod inputs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NotADump, Options, Report, Severity, examine};
use crate::config::ServeAuthz;

fn ext_authz(more: &Value) -> Value {
    let mut filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": { "envoy_grpc": { "cluster_name": "talos" }, "timeout": "0.250s" },
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        filter[name] = value.clone();
    }
    filter
}

fn manager(routes: Value, filters: Value) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "http_filters": filters,
    });
    for (name, value) in routes.as_object().into_iter().flatten() {
        manager[name] = value.clone();
    }
    manager
}

fn dump(manager: Value, more: Vec<Value>) -> Value {
    let listener =
        json!({ "name": "in", "default_filter_chain": { "filters": [{ "typed_config": manager }] } });
    let mut configs = vec![json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "dynamic_listeners": [{ "name": "in", "active_state": { "listener": listener } }],
    })];
    configs.extend(more);
    json!({ "configs": configs })
}

fn report(document: &Value) -> Report {
    examine(&document.to_string(), Options::default()).unwrap()
}

fn path(report: &Report, id: &str) -> String {
    let found = report.findings.iter().find(|finding| finding.id == id);
    found.map(|finding| finding.path.clone()).unwrap_or_else(|| panic!("no {id} in {report:#?}"))
}

fn disabled_route() -> Value {
    json!({ "name": "r", "virtual_hosts": [{ "name": "all", "routes": [{
        "route": { "weighted_clusters": { "clusters": [{ "name": "blue" }, {
            "name": "green",
            "typed_per_filter_config": { "envoy.filters.http.ext_authz": { "disabled": true } },
        }] } },
    }] }] })
}

#[test]
fn routes_that_come_from_elsewhere() {
    let filters = json!([{ "name": "envoy.filters.http.ext_authz", "typed_config": ext_authz(&json!({})) }]);
    let routes = json!({
        "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
        "dynamic_route_configs": [{ "route_config": disabled_route() }],
    });
    let by_rds =
        dump(manager(json!({ "rds": { "route_config_name": "r" } }), filters.clone()), vec![routes.clone()]);
    let expected = "virtual_hosts[all].routes[0].route.weighted_clusters.clusters[green]\
                    .typed_per_filter_config[ext_authz].disabled";
    assert_eq!(path(&report(&by_rds), "route-disabled"), format!("routes[r].{expected}"));

    let scopes = json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump",
        "dynamic_scoped_route_configs": [{
            "name": "s", "scoped_route_configs": [{ "name": "one", "route_configuration_name": "r" }],
        }],
    });
    let by_scope = dump(manager(json!({ "scoped_routes": { "name": "s" } }), filters), vec![routes, scopes]);
    assert_eq!(report(&by_scope).examined.routes, 2);
    assert_eq!(path(&report(&by_scope), "route-disabled"), format!("routes[r].{expected}"));
}

#[test]
fn filters_that_come_from_elsewhere() {
    let filters = json!([{ "name": "authz", "config_discovery": { "config_source": {} } }]);
    let filter =
        json!({ "name": "authz", "typed_config": ext_authz(&json!({ "failure_mode_allow": true })) });
    let discovered = json!({
        "@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump",
        "ecds_filters": [{ "ecds_filter": filter }],
    });
    let report = report(&dump(manager(json!({}), filters), vec![discovered]));
    assert_eq!(path(&report, "fail-open"), "ecds[authz].failure_mode_allow");
    assert_eq!(report.examined.clusters, ["talos"]);
}

#[test]
fn a_filter_within_a_matcher_is_for_some_requests_only() {
    let composite = json!([{ "name": "some", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "extension_config": { "name": "inner", "typed_config": ext_authz(&json!({ "clear_route_cache": true })) },
    } }]);
    let report = report(&dump(manager(json!({}), composite), vec![]));
    let of = "listeners[in].default_filter_chain.http_filters[some].extension_config";
    assert_eq!(path(&report, "conditional-check"), of);
    assert_eq!(path(&report, "clear-route-cache"), format!("{of}.clear_route_cache"));
    assert_eq!(report.findings.first().map(|worst| worst.severity), Some(Severity::Error));
}

/// Returns an Istio gateway whose AuthorizationPolicy CUSTOM matches all requests.
fn checked_by_policy() -> Value {
    let shadow = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "shadow_rules_stat_prefix": "istio_ext_authz_",
        "shadow_rules": { "action": "DENY_AT_DISABLE", "policies": { "istio-ext-authz-talos-ns[a]-policy[b]-rule[0]": {
            "permissions": [{ "and_rules": { "rules": [{ "any": true }] } }],
            "principals": [{ "and_ids": { "ids": [{ "any": true }] } }],
        } } },
    });
    let authz = ext_authz(&json!({
        "deny_at_disable": { "default_value": true },
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [{ "key": "istio_ext_authz_shadow_effective_policy_id" }],
            "value": { "string_match": { "prefix": "istio-ext-authz-talos" } },
        },
    }));
    json!({
        "filters": [{ "name": "rbac", "typed_config": shadow }, { "name": "authz", "typed_config": authz }],
        "routes": [{ "route": { "cluster": "upstream" } }],
    })
}

/// Returns the severity of the finding about the condition.
fn condition_severity(shape: &Value) -> Option<Severity> {
    let routes =
        json!({ "route_config": { "virtual_hosts": [{ "name": "all", "routes": shape["routes"] }] } });
    let report = report(&dump(manager(routes, shape["filters"].clone()), vec![]));
    let found = report.findings.iter().find(|finding| finding.id == "conditional-check");
    found.map(|finding| finding.severity)
}

#[test]
fn a_condition_that_all_requests_meet_is_no_finding() {
    assert_eq!(condition_severity(&checked_by_policy()), None);
    const RBAC: &str = "/filters/0/typed_config";
    const AUTHZ: &str = "/filters/1/typed_config";
    let rules = format!("{RBAC}/shadow_rules/policies");
    let policy = format!("{rules}/istio-ext-authz-talos-ns[a]-policy[b]-rule[0]");
    let path_only = json!([{ "and_rules": { "rules": [{ "any": true }, { "url_path": { "path": { "exact": "/a" } } }] } }]);
    let either = json!([{ "or_rules": { "rules": [{ "url_path": {} }, { "any": true }] } }]);
    let replaced = json!([{
        "route": { "cluster": "upstream" },
        "typed_per_filter_config": { "rbac": { "rbac": { "rules": {} } } },
    }]);
    let mut others = checked_by_policy().pointer(&rules).unwrap().clone();
    others["istio-ext-authz-other"] = others.as_object().unwrap().values().next().unwrap().clone();
    let mut swapped = checked_by_policy()["filters"].clone();
    swapped.as_array_mut().unwrap().reverse();
    let mut twice = checked_by_policy()["filters"].clone();
    let mut second = twice[0].clone();
    second["typed_config"]["shadow_rules"]["policies"] = json!({});
    twice.as_array_mut().unwrap().insert(1, second);
    let note = Some(Severity::Note);
    for (place, value, expected) in [
        (format!("{policy}/permissions"), either, None),
        (format!("{policy}/permissions"), path_only, note),
        (format!("{policy}/permissions"), json!([{ "and_rules": { "rules": [] } }]), note),
        (format!("{policy}/permissions"), json!([{ "not_rule": { "any": true } }]), note),
        (format!("{policy}/principals"), json!([{ "direct_remote_ip": {} }]), note),
        (format!("{policy}/principals"), json!([]), note),
        (format!("{policy}/condition"), json!({ "const_expr": {} }), note),
        (rules.clone(), json!({}), note),
        (rules, others, note),
        (format!("{RBAC}/shadow_matcher"), json!({}), note),
        (format!("{RBAC}/shadow_rules_stat_prefix"), json!("other_"), note),
        (format!("{RBAC}/@type"), json!("x.RBACPerRoute"), note),
        ("/filters/0/disabled".to_owned(), json!(true), note),
        ("/filters".to_owned(), swapped, note),
        ("/filters".to_owned(), twice, note),
        ("/routes".to_owned(), replaced, note),
        ("/routes".to_owned(), json!([]), note),
        (format!("{AUTHZ}/filter_enabled_metadata/filter"), json!("other"), note),
        (format!("{AUTHZ}/filter_enabled_metadata/invert"), json!(true), note),
        (format!("{AUTHZ}/filter_enabled_metadata/value"), json!({ "present_match": true }), note),
        (format!("{AUTHZ}/deny_at_disable"), json!({ "default_value": false }), Some(Severity::Warning)),
        (format!("{AUTHZ}/deny_at_disable"), json!(null), Some(Severity::Warning)),
    ] {
        let mut shape = checked_by_policy();
        let (parent, name) = place.rsplit_once('/').unwrap();
        shape.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"))[name] = value.clone();
        assert_eq!(condition_severity(&shape), expected, "{place}: {value}");
    }
    let mut open = checked_by_policy();
    open["filters"][1]["typed_config"]["deny_at_disable"] = json!(null);
    open["filters"][0] = json!({ "name": "other" });
    assert_eq!(condition_severity(&open), Some(Severity::Error));
}

#[test]
fn mutation_rules_may_refuse_what_talos_leaves_alone() {
    let all = "x-talos-.*|authorization|x-api-key";
    for (rules, expected) in [
        (json!({}), None),
        (json!({ "disallow_system": true }), None),
        (json!({ "disallow_all": true }), Some(Severity::Error)),
        (json!({ "disallow_all": true, "allow_expression": { "regex": all } }), None),
        (json!({ "disallow_all": true, "allow_expression": { "regex": "x-.*" } }), Some(Severity::Error)),
        (json!({ "disallow_all": true, "allow_expression": { "regex": "(" } }), Some(Severity::Warning)),
        (json!({ "disallow_expression": { "regex": "x-other-.*" } }), None),
        (json!({ "disallow_expression": { "regex": "x-talos-t.*" } }), None),
        (json!({ "disallow_expression": { "regex": "x-.*" } }), Some(Severity::Error)),
        (
            json!({ "disallow_expression": { "regex": "x-.*" }, "allow_expression": { "regex": ".*" } }),
            Some(Severity::Error),
        ),
        (json!({ "disallow_expression": { "regex": "(" } }), Some(Severity::Warning)),
    ] {
        let filter = ext_authz(&json!({ "decoder_header_mutation_rules": rules }));
        let manager = manager(json!({}), json!([{ "name": "check", "typed_config": filter }]));
        let report = report(&dump(manager, vec![]));
        let found = report.findings.iter().find(|finding| finding.id == "mutations-ignored");
        assert_eq!(found.map(|finding| finding.severity), expected, "{rules}");
    }
}

#[test]
fn limits_count_by_what_is_there() {
    let limit = |kind: &str| {
        let kind = format!("type.googleapis.com/envoy.extensions.filters.http.limit.v3.{kind}");
        json!({ "name": "limit", "typed_config": { "@type": kind } })
    };
    let check = json!({ "name": "check", "typed_config": ext_authz(&json!({})) });
    let (global, local) = (limit("RateLimit"), limit("LocalRateLimit"));
    for (filters, header, expected) in [
        (json!([check, global]), "x-api-key", Some(("limit-without-key", Severity::Error))),
        (json!([check, local]), "X-API-Key", Some(("limit-without-key", Severity::Error))),
        (json!([check, local]), "authorization", Some(("limit-without-key", Severity::Warning))),
        (json!([check, global]), "x-talos-key-id", None),
        (json!([check, global]), ":path", None),
        (json!([global, check]), "x-api-key", Some(("key-copied", Severity::Warning))),
        (json!([local, check]), "x-api-key", None),
        (json!([check]), "x-api-key", None),
    ] {
        let action = json!({ "request_headers": { "header_name": header, "descriptor_key": "caller" } });
        let routes = json!({ "route_config": { "virtual_hosts": [{ "name": "all", "routes": [{ "route": {
            "cluster": "a", "rate_limits": [{ "actions": [action] }],
        } }] }] } });
        let report = report(&dump(manager(routes, filters.clone()), vec![]));
        let found = report.findings.iter().find(|of| ["limit-without-key", "key-copied"].contains(&of.id));
        let found = found.map(|finding| (finding.id, finding.severity));
        assert_eq!(found, expected, "{header}: {filters}");
    }
}

#[test]
fn endpoints_tell_where_keys_go() {
    let filters = json!([{ "name": "envoy.filters.http.ext_authz", "typed_config": ext_authz(&json!({})) }]);
    let parts = |address: &str| {
        vec![
            json!({ "@type": "x/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": [{ "cluster": {
                "name": "talos", "type": "EDS", "eds_cluster_config": { "service_name": "authz" },
            } }] }),
            json!({ "@type": "x/envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs": [{ "endpoint_config": {
                "cluster_name": "authz",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                    "address": { "socket_address": { "address": address } },
                } }] }],
            } }] }),
        ]
    };
    let of = |address| report(&dump(manager(json!({}), filters.clone()), parts(address)));
    assert_eq!(path(&of("10.1.2.3"), "plaintext"), "clusters[talos].transport_socket");
    assert!(of("127.0.0.1").findings.iter().all(|finding| finding.id != "plaintext"));
    assert!(of("::1").findings.iter().all(|finding| finding.id != "plaintext"));

    let document = dump(manager(json!({}), filters.clone()), parts("127.0.0.1")).to_string();
    let mut listener = ServeAuthz::default();
    let found = |listener: &ServeAuthz| {
        let options = Options { listener: Some(listener), ..Options::default() };
        let report = examine(&document, options).unwrap();
        report.findings.iter().any(|finding| finding.id == "tls-expected")
    };
    assert!(!found(&listener));
    listener.tls.cert_file = Some("tls.crt".into());
    assert!(found(&listener), "the listener takes TLS alone");
    listener.socket = Some("authz.sock".into());
    assert!(!found(&listener), "the port isn't listened on");
}

#[test]
fn dumps_in_other_wrappings() {
    let filters = json!([{ "name": "envoy.filters.http.ext_authz", "typed_config": ext_authz(&json!({})) }]);
    let plain = dump(manager(json!({}), filters), vec![]);
    let wrapped = json!({ "envoy-gateway-system": { "pod-1": plain, "pod-2": plain } });
    let report = report(&wrapped);
    assert_eq!(report.examined.connection_managers, 2);
    assert!(path(&report, "normalize-path").starts_with("envoy-gateway-system.pod-1.listeners[in]."));
    for nothing in
        [json!(null), json!([]), json!({}), json!({ "configs": [] }), json!({ "configs": [1, "a"] })]
    {
        assert_eq!(examine(&nothing.to_string(), Options::default()), Err(NotADump::Other), "{nothing}");
    }
}

#[test]
fn a_cluster_that_is_not_there() {
    let filters = json!([{ "name": "envoy.filters.http.ext_authz", "typed_config": ext_authz(&json!({})) }]);
    let none = json!({ "@type": "x/envoy.admin.v3.ClustersConfigDump" });
    let report = report(&dump(manager(json!({}), filters), vec![none]));
    assert!(
        path(&report, "cluster-missing")
            .ends_with("http_filters[ext_authz].grpc_service.envoy_grpc.cluster_name")
    );
}

/// Generates arbitrary JSON whose keys include names of Envoy's fields.
fn documents() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "configs",
        "@type",
        "name",
        "bootstrap",
        "static_listeners",
        "listener",
        "filter_chains",
        "filters",
        "typed_config",
        "http_filters",
        "route_config",
        "virtual_hosts",
        "routes",
        "route",
        "cluster",
        "static_clusters",
        "grpc_service",
        "envoy_grpc",
        "cluster_name",
        "timeout",
        "typed_per_filter_config",
        "envoy.filters.http.ext_authz",
        "disabled",
    ]);
    let texts = prop::sample::select(vec![
        "x.ListenersConfigDump",
        "x.ClustersConfigDump",
        "x.BootstrapConfigDump",
        "x.HttpConnectionManager",
        "x.ExtAuthz",
        "x.TypedStruct",
        "a",
        "1s",
        "-1s",
        "",
    ]);
    let target = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        texts.prop_map(Value::from),
    ];
    target.prop_recursive(8, 256, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(names.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_document_is_too_odd(configs in prop::collection::vec(documents(), 0..6), listener in documents()) {
        let mut dump = dump(listener, configs.clone());
        let _ = examine(&dump.to_string(), Options::default());
        dump["configs"] = Value::from(configs.clone());
        let _ = examine(&dump.to_string(), Options::default());
        let resources = json!({ "static_resources": { "listeners": configs } });
        let _ = examine(&resources.to_string(), Options::default());
    }
}
