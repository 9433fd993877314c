//! Shapes in which Envoy takes a value, and what the doctor finds then: the same in the file and in
//! what the running Envoy shows.

use serde_json::{Map, Value};

/// A change of a value in the shipped configuration.
#[derive(Clone, Copy)]
pub enum Edit {
    /// Another value, as it is written in YAML.
    Is(&'static str),
    /// The only item of a list instead of the list.
    Single,
    /// A list in a list.
    Nested,
    /// The field's name in lowerCamelCase.
    Camel,
}

use Edit::{Camel, Is, Nested, Single};

/// Places and their changes, and the names of all findings, with their severities.
pub type Shape = (&'static [(&'static str, Edit)], &'static [(&'static str, &'static str)]);

/// Prefixes of the places: `M` is the connection manager, `A` the ext_authz filter, `T` the cluster
/// of Talos, `R` the routes.
const PREFIXES: [(&str, &str); 4] = [
    ("M/", "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/"),
    (
        "A/",
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/1/typed_config/",
    ),
    ("T/", "/static_resources/clusters/1/"),
    (
        "R/",
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/",
    ),
];

const FAIL_OPEN: &[(&str, &str)] = &[("fail-open", "error")];
const NORMALIZE: &[(&str, &str)] = &[("normalize-path", "error")];
const TIMEOUT: &[(&str, &str)] = &[("timeout", "error")];
/// Disables the check on a route.
const DISABLED: Edit = Is(
    "{ envoy.filters.http.ext_authz: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: yes } }",
);

/// All shapes.
pub const SHAPES: &[Shape] = &[
    // Booleans.
    (&[("A/failure_mode_allow", Is("yes"))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("\"true\""))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("'TRUE'"))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("on"))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("Y"))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("tRue"))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("\"1\""))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("!!str true"))], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("true")), ("A/failure_mode_allow", Camel)], FAIL_OPEN),
    (&[("A/failure_mode_allow", Is("null"))], &[]),
    (&[("A/failure_mode_allow", Is("\"f\""))], &[]),
    (&[("A/encode_raw_headers", Is("\"yes\"")), ("A/validate_mutations", Is("on"))], &[]),
    (&[("A/encode_raw_headers", Is("n"))], &[("raw-headers", "warning")]),
    (&[("A/clear_route_cache", Is("\"t\""))], &[("clear-route-cache", "error")]),
    (
        &[("A/decoder_header_mutation_rules", Is("{ disallow_all: { value: yes } }"))],
        &[("mutations-ignored", "error")],
    ),
    // Wrapped values.
    (&[("M/normalize_path", Is("{ value: true }"))], &[]),
    (&[("M/normalize_path", Is("\"t\""))], &[]),
    (&[("M/normalize_path", Is("{}"))], NORMALIZE),
    (&[("M/normalize_path", Is("{ value: 'no' }"))], NORMALIZE),
    (&[("M/normalize_path", Is("~"))], NORMALIZE),
    (&[("M/use_remote_address", Is("off"))], &[("use-remote-address", "warning")]),
    (&[("A/grpc_service/retry_policy/num_retries", Is("{ value: '0' }"))], &[("no-retry", "warning")]),
    // Enums.
    (&[("M/path_with_escaped_slashes_action", Is("2"))], &[]),
    (&[("M/path_with_escaped_slashes_action", Is("\"3\""))], &[]),
    (&[("M/path_with_escaped_slashes_action", Is("reject_request"))], &[]),
    (&[("M/path_with_escaped_slashes_action", Is("1"))], &[("escaped-slashes", "warning")]),
    (&[("M/common_http_protocol_options/headers_with_underscores_action", Is("1"))], &[]),
    (
        &[("M/common_http_protocol_options/headers_with_underscores_action", Is("0"))],
        &[("underscores", "warning")],
    ),
    (&[("A/status_on_error/code", Is("'503'"))], &[]),
    (&[("A/status_on_error/code", Is("serviceunavailable"))], &[]),
    (&[("A/status_on_error/code", Is("403"))], &[("status-on-error", "warning")]),
    (
        &[("A/filter_enabled/default_value", Is("{ numerator: '100', denominator: 1 }"))],
        &[("filter-enabled", "warning")],
    ),
    (&[("A/filter_enabled/default_value", Is("{ numerator: 0xf4240, denominator: million }"))], &[]),
    (&[("T/circuit_breakers/thresholds", Is("{ priority: 0, max_requests: '5000' }"))], &[]),
    (
        &[("T/circuit_breakers/thresholds", Is("[{ priority: 1, max_requests: 5000 }]"))],
        &[("circuit-breaker", "warning")],
    ),
    // Durations and numbers.
    (&[("A/grpc_service/timeout", Is("{ seconds: 60 }"))], TIMEOUT),
    (&[("A/grpc_service/timeout", Is("{ seconds: '60', nanos: 5 }"))], TIMEOUT),
    (&[("A/grpc_service/timeout", Is("{}"))], TIMEOUT),
    (&[("A/grpc_service/timeout", Is("{ nanos: 250000000 }"))], &[]),
    (&[("M/request_headers_timeout", Is("{ seconds: 0x0a }"))], &[]),
    (&[("M/request_headers_timeout", Is("'0s'"))], &[("slow-headers", "note")]),
    (
        &[("A/with_request_body", Is("{ max_request_bytes: '1024', allow_partial_message: 'yes' }"))],
        &[("request-body", "warning")],
    ),
    (&[("T/common_lb_config/healthy_panic_threshold", Is("{ value: '0.0' }"))], &[]),
    (
        &[("T/common_lb_config/healthy_panic_threshold", Is("{ value: '50' }"))],
        &[("panic-threshold", "warning")],
    ),
    (&[("T/circuit_breakers/thresholds/0/max_requests", Is("0x200"))], &[("circuit-breaker", "warning")]),
    (
        &[(
            "M/internal_address_config",
            Is("{ cidr_ranges: { address_prefix: 0.0.0.0, prefix_len: { value: '0' } } }"),
        )],
        &[("internal-addresses", "warning")],
    ),
    // Lists of one.
    (
        &[
            ("M/route_config/virtual_hosts/0/domains", Single),
            ("M/route_config/virtual_hosts", Single),
            ("/static_resources/listeners/0/filter_chains/0/filters", Single),
            ("/static_resources/listeners/0/filter_chains", Nested),
            ("/static_resources/listeners", Single),
            ("T/health_checks", Single),
            ("T/load_assignment/endpoints/0/lb_endpoints", Nested),
            ("/overload_manager/resource_monitors", Single),
        ],
        &[],
    ),
    (
        &[("R/1/typed_per_filter_config", DISABLED), ("M/route_config/virtual_hosts", Single)],
        &[("route-disabled", "error")],
    ),
    (
        &[("R/1/typed_per_filter_config", DISABLED), ("R/1/typed_per_filter_config", Camel)],
        &[("route-disabled", "error")],
    ),
    (&[("R/1/request_headers_to_remove", Is("x-talos-actor-id"))], &[("identity-removed", "warning")]),
    (
        &[("R/1/request_headers_to_add", Is("{ header: { key: X-Talos-Scopes, value: all } }"))],
        &[("identity-overwritten", "error")],
    ),
    (
        &[("A/allowed_headers", Is("{ patterns: { prefix: x- } }"))],
        &[("credential-unseen", "error"), ("identity-unseen", "warning")],
    ),
    (
        &[("A/disallowed_headers", Is("{ patterns: { exact: AUTHORIZATION, ignore_case: 'y' } }"))],
        &[("credential-unseen", "error")],
    ),
    // Wrappings of messages.
    (
        &[(
            "R/1/typed_per_filter_config",
            Is(
                "{ envoy.filters.http.ext_authz: { \"@type\": type.googleapis.com/xds.type.v3.TypedStruct, type_url: \
                x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, value: { disabled: \"true\" } } }",
            ),
        )],
        &[("route-disabled", "error")],
    ),
    (
        &[(
            "R/1/typed_per_filter_config",
            Is(
                "{ envoy.filters.http.ext_authz: { \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, \
                is_optional: yes, disabled: on, config: {} } }",
            ),
        )],
        &[("route-disabled", "error")],
    ),
    // The process.
    (
        &[
            ("/overload_manager", Is("null")),
            (
                "/layered_runtime",
                Is(
                    "{ layers: { name: a, static_layer: { overload: { global_downstream_max_connections: 5000 } } } }",
                ),
            ),
        ],
        &[],
    ),
];

/// Returns the configuration with the changes of a shape, as YAML.
pub fn shaped(shipped: &str, edits: &[(&str, Edit)]) -> String {
    let mut config: Value = serde_norway::from_str(shipped).expect("the shipped configuration");
    let mut texts = vec![];
    for (place, edit) in edits {
        let (from, to) =
            PREFIXES.iter().find(|(prefix, _)| place.starts_with(prefix)).copied().unwrap_or(("", ""));
        let pointer = place.replacen(from, to, 1);
        let (parent, name) = pointer.rsplit_once('/').expect("a place");
        let parent = match parent {
            "" => &mut config,
            _ => config
                .pointer_mut(parent)
                .unwrap_or_else(|| panic!("envoy/envoy.yaml has no {parent} any more")),
        };
        if let Camel = edit {
            let fields: &mut Map<String, Value> = parent.as_object_mut().expect("a message");
            let value = fields.remove(name).expect("a field");
            fields.insert(camel(name), value);
            continue;
        }
        let old = match parent {
            Value::Array(items) => &mut items[name.parse::<usize>().expect("an index")],
            other => &mut other[name],
        };
        match edit {
            Is(text) => {
                *old = Value::from(format!("@{}@", texts.len()));
                texts.push(*text);
            }
            Single => *old = old[0].clone(),
            Nested => *old = Value::Array(vec![old.clone()]),
            Camel => {}
        }
    }
    let mut text = serde_json::to_string_pretty(&config).expect("JSON");
    for (number, written) in texts.iter().enumerate() {
        text = text.replacen(&format!("\"@{number}@\""), written, 1);
    }
    text
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| text + &word[..1].to_ascii_uppercase() + &word[1..])
}
