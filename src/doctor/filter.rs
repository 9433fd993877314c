//! The settings of an ext_authz filter that asks Talos.

use super::chain::ExtAuthz;
use super::headers::{self, Match};
use super::node::{Node, field};
use super::{Findings, Question, Severity};
use crate::config::{ClientAddress, CredentialSource};

/// The whole filter, as it should be.
pub const WHOLE: &str = "\
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

/// Looks at one filter.
pub fn examine(check: &ExtAuthz<'_>, question: Question<'_>, found: &mut Findings) {
    let config = &check.config;
    failure(config, found);
    switches(check, found);
    what_talos_sees(config, question, found);
    what_talos_may_do(config, found);
}

fn failure(config: &Node<'_>, found: &mut Findings) {
    let allow = config.get("failure_mode_allow");
    let header = config.get("failure_mode_allow_header_add");
    if allow.is_true() {
        found.add(
            "fail-open",
            Severity::Error,
            &allow,
            "whoever makes Talos unreachable or slow gets in without a key, with forged x-talos-* headers",
            "failure_mode_allow: false",
        );
    }
    if header.is_true() {
        let severity = if allow.is_true() { Severity::Warning } else { Severity::Note };
        found.add(
            "fail-open-header",
            severity,
            &header,
            "tells upstream that a request wasn't checked; a client can write that header as well, and it is of no use \
             without failure_mode_allow",
            "failure_mode_allow_header_add: false",
        );
    }
    let status = config.find("status_on_error.code");
    // 503, and what else is no word about the key.
    let is_server_error = status.number().is_some_and(|code| (500..600).contains(&code))
        || status.text().is_some_and(|code| SERVER_ERRORS.contains(&code));
    if !is_server_error {
        found.add(
            "status-on-error",
            Severity::Warning,
            &status,
            "while Talos can't be asked, clients get 403 (or what is set here) and take it for a bad key: they don't try \
             again, or throw the key away",
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

fn switches(check: &ExtAuthz<'_>, found: &mut Findings) {
    let config = &check.config;
    let denies = config.find("deny_at_disable.default_value").is_true();
    let enabled = config.get("filter_enabled");
    let percentage = enabled.get("default_value");
    if !enabled.is_absent() && !is_all(&percentage) {
        let (severity, why) = match denies {
            true => (Severity::Warning, "the rest of the requests is refused, whatever key they have"),
            false => (
                Severity::Error,
                "the rest of the requests goes upstream unchecked, forged x-talos-* headers included",
            ),
        };
        found.add(
            "filter-enabled",
            severity,
            &percentage,
            why,
            "filter_enabled: { default_value: { numerator: 100, denominator: HUNDRED } }\n\
             deny_at_disable: { default_value: true, runtime_key: ext_authz.deny_at_disable }",
        );
    } else if enabled.get("runtime_key").text().is_some() && !denies {
        found.add(
            "deny-at-disable",
            Severity::Warning,
            &config.get("deny_at_disable"),
            "whoever lowers the runtime key of filter_enabled opens the rest of the requests",
            DENY,
        );
    }
    let by_metadata = config.get("filter_enabled_metadata");
    if denies && enabled.is_absent() && by_metadata.is_absent() {
        found.add(
            "deny-at-disable-idle",
            Severity::Note,
            &config.get("deny_at_disable"),
            "does nothing without filter_enabled: it refuses what a percentage there lets by, not what a route disables",
            "filter_enabled: { default_value: { numerator: 100, denominator: HUNDRED } }",
        );
    }
    if !by_metadata.is_absent() {
        by_policies(check, denies, &by_metadata, found);
    }
    if check.is_conditional {
        let (severity, why) = match check.is_stripped {
            true => (
                Severity::Note,
                "requests that the matcher lets by aren't checked; identity headers are removed before",
            ),
            false => (
                Severity::Error,
                "requests that the matcher lets by go upstream with the x-talos-* headers that the client wrote",
            ),
        };
        found.add("conditional-check", severity, config, why, strip_before());
    }
}

/// What a check is worth that is made of requests with certain metadata only: with Istio, those which an
/// AuthorizationPolicy CUSTOM matches. Nothing is to be said when all have it and the others would be refused.
fn by_policies(check: &ExtAuthz<'_>, denies: bool, at: &Node<'_>, found: &mut Findings) {
    const OTHERS: &str =
        "requests without that metadata (with Istio: those that no AuthorizationPolicy CUSTOM matches)";
    const FORGED: &str = "go upstream with the x-talos-* headers that the client wrote";
    const STRIPPED: &str = "aren't checked; identity headers are removed before";
    let all = "the rules match all requests now: once they don't,";
    let (severity, why) = match (denies, check.is_always_met, check.is_stripped) {
        (true, true, _) => return,
        (true, false, _) => (Severity::Note, format!("{OTHERS} are refused, whatever key they have")),
        (false, true, true) => (Severity::Note, format!("{all} {OTHERS} {STRIPPED}")),
        (false, true, false) => (Severity::Warning, format!("{all} {OTHERS} {FORGED}")),
        (false, false, true) => (Severity::Note, format!("{OTHERS} {STRIPPED}")),
        (false, false, false) => (Severity::Error, format!("{OTHERS} {FORGED}")),
    };
    let fix = match denies {
        true => "# the rules of the AuthorizationPolicy: all requests\nrules: [{}]".to_owned(),
        false => {
            format!("{DENY}\n# or, if such requests are to go upstream:\n{}", strip_before())
        }
    };
    found.add("conditional-check", severity, at, why, fix);
}

/// What refuses a request that isn't checked.
const DENY: &str = "deny_at_disable: { default_value: true, runtime_key: ext_authz.deny_at_disable }";

/// The filter that makes an unchecked request harmless.
fn strip_before() -> &'static str {
    "http_filters: # before ext_authz\n  - name: envoy.filters.http.header_mutation\n    typed_config:\n      \
     \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n      mutations:\n        \
     request_mutations:\n          - remove_on_match: { key_matcher: { prefix: x-talos- } }"
}

/// Whether `envoy.type.v3.FractionalPercent` is all of them.
fn is_all(percentage: &Node<'_>) -> bool {
    let numerator = percentage.get("numerator").number().unwrap_or(0);
    let denominator = match percentage.get("denominator").text() {
        Some("TEN_THOUSAND") => 10_000,
        Some("MILLION") => 1_000_000,
        _ => 100,
    };
    numerator >= denominator
}

fn what_talos_sees(config: &Node<'_>, question: Question<'_>, found: &mut Findings) {
    let raw = config.get("encode_raw_headers");
    if !raw.is_true() {
        found.add(
            "raw-headers",
            Severity::Warning,
            &raw,
            "two headers of a name arrive at Talos joined by a comma: two keys look like one, and bytes that aren't UTF-8 \
             are changed",
            "encode_raw_headers: true",
        );
    }
    request_body(&config.get("with_request_body"), found);

    let allowed = config.get("allowed_headers");
    let disallowed = config.get("disallowed_headers");
    let is_hidden = |name: &str| {
        (!allowed.is_absent() && headers::list_matches(&allowed, name) == Match::No)
            || (!disallowed.is_absent() && headers::list_matches(&disallowed, name) == Match::Yes)
    };
    let place = if allowed.is_absent() { &disallowed } else { &allowed };
    // Any name of ours that isn't known by itself.
    if is_hidden("x-talos-doctor") || is_hidden("x_talos_doctor") {
        found.add(
            "identity-unseen",
            Severity::Warning,
            place,
            "Talos doesn't see which x-talos-* headers (x_talos_* included) a client sent, so it can't remove those that \
             it doesn't know by name",
            "allowed_headers:\n  patterns:\n    - { prefix: x-talos-, ignore_case: true }\n    - { prefix: x_talos_, ignore_case: true }",
        );
    }
    let mut needed = vec![];
    match question.authz {
        None => needed.push("authorization"),
        Some(authz) => {
            for source in &authz.sources {
                match source {
                    CredentialSource::Header { name, .. } => needed.push(name.as_str()),
                    CredentialSource::Cookie { .. } => needed.push("cookie"),
                    CredentialSource::Query { .. } => {}
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
        found.add(
            "credential-unseen",
            Severity::Error,
            place,
            format!("keeps from Talos what it decides by: {}", needed.join(", ")),
            needed.iter().fold("allowed_headers:\n  patterns:".to_owned(), |fix, name| {
                format!("{fix}\n    - exact: {name}")
            }),
        );
    }
}

/// `with_request_body`, of a filter or of a route.
pub fn request_body(body: &Node<'_>, found: &mut Findings) {
    if body.get("max_request_bytes").number().is_some_and(|bytes| bytes > 0) {
        found.add(
            "request-body",
            Severity::Warning,
            body,
            "Talos never reads bodies: each request waits until its body has been buffered (a larger one is a 413, an \
             upload is no stream any more), and strangers fill Envoy's memory",
            "# without with_request_body",
        );
    }
}

fn what_talos_may_do(config: &Node<'_>, found: &mut Findings) {
    let validate = config.get("validate_mutations");
    if !validate.is_true() {
        found.add(
            "validate-mutations",
            Severity::Warning,
            &validate,
            "an invalid header value in Talos' answer goes upstream unchecked",
            "validate_mutations: true",
        );
    }
    let clear = config.get("clear_route_cache");
    if clear.is_true() {
        found.add(
            "clear-route-cache",
            Severity::Error,
            &clear,
            "after the check the route is chosen anew, by headers that the check changed: the request takes a route whose \
             policy nobody asked for",
            "clear_route_cache: false",
        );
    }
    let rules = config.get("decoder_header_mutation_rules");
    if rules.get("disallow_all").is_true() {
        found.add(
            "mutations-ignored",
            Severity::Error,
            &rules.get("disallow_all"),
            "Envoy ignores what Talos does to headers: keys go upstream, forged x-talos-* headers stay",
            "# without decoder_header_mutation_rules",
        );
    } else if field(rules.value, "disallow_expression").is_some() {
        found.add(
            "mutations-ignored",
            Severity::Warning,
            &rules.get("disallow_expression"),
            "Envoy ignores what Talos does to headers that match: it must match neither x-talos-* nor a header that keys \
             come in",
            "# without decoder_header_mutation_rules",
        );
    }
}
