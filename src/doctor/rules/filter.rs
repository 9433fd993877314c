//! Findings about the settings of an ext_authz filter that calls Talos.

use crate::config::{Authz, ClientAddress, CredentialSource};
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::headers::{self, Match};
use crate::doctor::http_filter::ExtAuthz;
use crate::doctor::node::{Node, field};
use crate::doctor::options::Options;

/// The recommended ext_authz filter.
pub const RECOMMENDED: &str = "\
http_filters:
  - name: envoy.filters.http.ext_authz
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
      transport_api_version: V3
      grpc_service:
        envoy_grpc: { cluster_name: talos_authz }
        timeout: 0.25s
      failure_mode_allow: false
      status_on_error: { code: ServiceUnavailable }
      encode_raw_headers: true
      validate_mutations: true";

/// Examines one ext_authz filter.
pub fn examine(check: &ExtAuthz<'_>, options: Options<'_>, findings: &mut Findings) {
    let config = &check.config;
    check_failure_mode(config, findings);
    check_enablement(check, findings);
    check_visibility(config, options, findings);
    check_mutations(config, options, findings);
}

fn check_failure_mode(config: &Node<'_>, findings: &mut Findings) {
    let allow = config.get("failure_mode_allow");
    let header = config.get("failure_mode_allow_header_add");
    if allow.is_true() {
        findings.add(
            "fail-open",
            Severity::Error,
            &allow,
            "while Talos is unreachable or slow, anybody gets in without a key and with forged x-talos-* headers",
            "failure_mode_allow: false",
        );
    }
    if header.is_true() {
        let severity = if allow.is_true() { Severity::Warning } else { Severity::Note };
        findings.add(
            "fail-open-header",
            severity,
            &header,
            "the header tells upstream that a request wasn't checked, but clients can send it, too; it has no effect \
             without failure_mode_allow",
            "failure_mode_allow_header_add: false",
        );
    }
    let status = config.get_path("status_on_error.code");
    // A server error doesn't say that the key is bad.
    let is_server_error = status.number().is_some_and(|code| (500..600).contains(&code))
        || status.text().is_some_and(|code| SERVER_ERRORS.contains(&code));
    if !is_server_error {
        findings.add(
            "status-on-error",
            Severity::Warning,
            &status,
            "while Talos is unreachable, clients get 403 (or the status set here) and take their key for bad: they \
             don't retry, or discard the key",
            "status_on_error: { code: ServiceUnavailable }",
        );
    }
}

const SERVER_ERRORS: [&str; 6] = [
    "InternalServerError",
    "NotImplemented",
    "BadGateway",
    "ServiceUnavailable",
    "GatewayTimeout",
    "InsufficientStorage",
];

fn check_enablement(check: &ExtAuthz<'_>, findings: &mut Findings) {
    let config = &check.config;
    let denies = config.get_path("deny_at_disable.default_value").is_true();
    let enabled = config.get("filter_enabled");
    let percentage = enabled.get("default_value");
    if !enabled.is_absent() && !is_all(&percentage) {
        let (severity, why) = match denies {
            true => (Severity::Warning, "the other requests are refused, whatever key they have"),
            false => {
                (Severity::Error, "the other requests go upstream unchecked, with forged x-talos-* headers")
            }
        };
        findings.add(
            "filter-enabled",
            severity,
            &percentage,
            why,
            "filter_enabled: { default_value: { numerator: 100, denominator: HUNDRED } }\n\
             deny_at_disable: { default_value: true, runtime_key: ext_authz.deny_at_disable }",
        );
    } else if enabled.get("runtime_key").text().is_some() && !denies {
        findings.add(
            "deny-at-disable",
            Severity::Warning,
            &config.get("deny_at_disable"),
            "anybody who lowers the runtime key of filter_enabled lets the other requests pass unchecked",
            DENY_AT_DISABLE,
        );
    }
    let by_metadata = config.get("filter_enabled_metadata");
    if denies && enabled.is_absent() && by_metadata.is_absent() {
        findings.add(
            "deny-at-disable-idle",
            Severity::Note,
            &config.get("deny_at_disable"),
            "deny_at_disable has no effect without filter_enabled: it refuses the requests that filter_enabled \
             excludes, not those of routes that disable the filter",
            "filter_enabled: { default_value: { numerator: 100, denominator: HUNDRED } }",
        );
    }
    if !by_metadata.is_absent() {
        check_metadata_condition(check, denies, &by_metadata, findings);
    }
    if check.is_conditional {
        let (severity, why) = match check.is_identity_stripped {
            true => (
                Severity::Note,
                "requests that don't match the matcher aren't checked; their identity headers are removed before",
            ),
            false => (
                Severity::Error,
                "requests that don't match the matcher go upstream with the client's own x-talos-* headers",
            ),
        };
        findings.add("conditional-check", severity, config, why, strip_before());
    }
}

/// Checks a filter that is only enabled for requests with certain metadata: with Istio, for those
/// that an AuthorizationPolicy with action CUSTOM matches.
///
/// There is no finding when all requests have the metadata and others would be refused.
fn check_metadata_condition(check: &ExtAuthz<'_>, denies: bool, at: &Node<'_>, findings: &mut Findings) {
    const OTHERS: &str =
        "requests without that metadata (with Istio: those that no AuthorizationPolicy CUSTOM matches)";
    const FORGED: &str = "go upstream with the client's own x-talos-* headers";
    const STRIPPED: &str = "aren't checked; their identity headers are removed before";
    let all = "the rules match all requests now; if that changes,";
    let (severity, why) = match (denies, check.is_always_met, check.is_identity_stripped) {
        (true, true, _) => return,
        (true, false, _) => (Severity::Note, format!("{OTHERS} are refused, whatever key they have")),
        (false, true, true) => (Severity::Note, format!("{all} {OTHERS} {STRIPPED}")),
        (false, true, false) => (Severity::Warning, format!("{all} {OTHERS} {FORGED}")),
        (false, false, true) => (Severity::Note, format!("{OTHERS} {STRIPPED}")),
        (false, false, false) => (Severity::Error, format!("{OTHERS} {FORGED}")),
    };
    let fix = match denies {
        true => "# in the AuthorizationPolicy: match all requests\nrules: [{}]".to_owned(),
        false => {
            format!("{DENY_AT_DISABLE}\n# or, if such requests should go upstream:\n{}", strip_before())
        }
    };
    findings.add("conditional-check", severity, at, why, fix);
}

/// Setting that refuses requests that aren't checked.
const DENY_AT_DISABLE: &str =
    "deny_at_disable: { default_value: true, runtime_key: ext_authz.deny_at_disable }";

/// Filter that removes forged identity headers from unchecked requests.
fn strip_before() -> &'static str {
    "http_filters: # before ext_authz\n  - name: envoy.filters.http.header_mutation\n    typed_config:\n      \
     \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n      mutations:\n        \
     request_mutations:\n          - remove_on_match: { key_matcher: { prefix: x-talos- } }"
}

/// Returns true if an `envoy.type.v3.FractionalPercent` is 100 %.
fn is_all(percentage: &Node<'_>) -> bool {
    let numerator = percentage.get("numerator").number().unwrap_or(0);
    let denominator = match percentage.get("denominator").text() {
        Some("TEN_THOUSAND") => 10_000,
        Some("MILLION") => 1_000_000,
        _ => 100,
    };
    numerator >= denominator
}

fn check_visibility(config: &Node<'_>, options: Options<'_>, findings: &mut Findings) {
    let raw = config.get("encode_raw_headers");
    if !raw.is_true() {
        findings.add(
            "raw-headers",
            Severity::Warning,
            &raw,
            "Envoy joins repeated headers with a comma, so two keys look like one to Talos, and changes bytes that \
             aren't UTF-8",
            "encode_raw_headers: true",
        );
    }
    check_request_body(&config.get("with_request_body"), findings);

    let allowed = config.get("allowed_headers");
    let disallowed = config.get("disallowed_headers");
    let is_hidden = |name: &str| {
        (!allowed.is_absent() && headers::list_matches(&allowed, name) == Match::No)
            || (!disallowed.is_absent() && headers::list_matches(&disallowed, name) == Match::Yes)
    };
    let place = if allowed.is_absent() { &disallowed } else { &allowed };
    // Any x-talos-* name that Talos doesn't know by name.
    if is_hidden("x-talos-doctor") || is_hidden("x_talos_doctor") {
        findings.add(
            "identity-unseen",
            Severity::Warning,
            place,
            "Talos doesn't see all x-talos-* and x_talos_* headers that a client sent, so it can't remove those that it \
             doesn't know by name",
            "allowed_headers:\n  patterns:\n    - { prefix: x-talos-, ignore_case: true }\n    - { prefix: x_talos_, ignore_case: true }",
        );
    }
    let mut needed = vec![];
    match options.authz {
        None => needed.push("authorization"),
        Some(authz) => {
            for source in &authz.sources {
                match source {
                    CredentialSource::Header { name, .. } => needed.push(name.as_str()),
                    CredentialSource::Cookie { .. } => needed.push("cookie"),
                    CredentialSource::WebsocketProtocol { .. } => needed.push("sec-websocket-protocol"),
                    CredentialSource::Query { .. } | CredentialSource::Path(_) => {}
                }
            }
            match authz.client_address {
                ClientAddress::Peer => {}
                ClientAddress::External => needed.push("x-envoy-external-address"),
                ClientAddress::Xff => needed.push("x-forwarded-for"),
            }
        }
    }
    needed.retain(|name| is_hidden(name));
    if !needed.is_empty() {
        findings.add(
            "credential-unseen",
            Severity::Error,
            place,
            format!("Envoy doesn't send Talos the headers that it needs to decide: {}", needed.join(", ")),
            needed.iter().fold("allowed_headers:\n  patterns:".to_owned(), |fix, name| {
                format!("{fix}\n    - exact: {name}")
            }),
        );
    }
}

/// Checks the `with_request_body` of a filter or a route.
pub fn check_request_body(body: &Node<'_>, findings: &mut Findings) {
    if body.get("max_request_bytes").number().is_some_and(|bytes| bytes > 0) {
        findings.add(
            "request-body",
            Severity::Warning,
            body,
            "Talos never reads bodies, but each request waits until Envoy has buffered its body: larger bodies get 413, \
             uploads don't stream, and unauthenticated clients can fill Envoy's memory",
            "# remove with_request_body",
        );
    }
}

fn check_mutations(config: &Node<'_>, options: Options<'_>, findings: &mut Findings) {
    let validate = config.get("validate_mutations");
    if !validate.is_true() {
        findings.add(
            "validate-mutations",
            Severity::Warning,
            &validate,
            "Envoy doesn't validate the headers in Talos' response before it sends them upstream",
            "validate_mutations: true",
        );
    }
    let clear = config.get("clear_route_cache");
    if clear.is_true() {
        findings.add(
            "clear-route-cache",
            Severity::Error,
            &clear,
            "after the check Envoy selects the route again, by headers that the check changed: the request may take a \
             route whose policy wasn't checked",
            "clear_route_cache: false",
        );
    }
    let rules = config.get("decoder_header_mutation_rules");
    if rules.get("disallow_all").is_true() {
        findings.add(
            "mutations-ignored",
            Severity::Error,
            &rules.get("disallow_all"),
            "Envoy ignores Talos' changes of headers: keys go upstream, and forged x-talos-* headers stay",
            "# remove decoder_header_mutation_rules",
        );
    } else if rules.get("disallow_system").is_true() && options.authz.is_some_and(has_keys_in_urls) {
        findings.add(
            "mutations-ignored",
            Severity::Error,
            &rules.get("disallow_system"),
            "Envoy ignores Talos' changes of :path: keys in the query or in the path go upstream (authz.sources)",
            "decoder_header_mutation_rules: { disallow_system: false }",
        );
    } else if field(rules.value, "disallow_expression").is_some() {
        findings.add(
            "mutations-ignored",
            Severity::Warning,
            &rules.get("disallow_expression"),
            "Envoy ignores Talos' changes of headers that match this expression; it must match neither x-talos-* nor a \
             header that carries keys",
            "# remove decoder_header_mutation_rules",
        );
    }
}

/// Returns true if Talos looks for keys in the query or in the path.
fn has_keys_in_urls(authz: &Authz) -> bool {
    let is_in_url = |source: &CredentialSource| {
        matches!(source, CredentialSource::Query { .. } | CredentialSource::Path(_))
    };
    authz.sources.iter().any(is_in_url)
}
