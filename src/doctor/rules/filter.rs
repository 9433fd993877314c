//! Findings about the settings of an ext_authz filter that calls Talos.

use std::borrow::Cow;

use crate::authz::identity_headers::IDENTITY_HEADERS;
use crate::config::{Authz, ClientAddress, CredentialSource};
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::headers::{self, Match};
use crate::doctor::http_filter::ExtAuthz;
use crate::doctor::node::{Node, to_yaml};
use crate::doctor::options::Options;

/// Examines one ext_authz filter.
pub(crate) fn examine(check: &ExtAuthz<'_>, options: Options<'_>, findings: &mut Findings) {
    let config = &check.config;
    check_failure_mode(config, &check.server, findings);
    check_enablement(check, findings);
    check_visibility(config, options, findings);
    check_mutations(config, options, &check.server, findings);
}

fn check_failure_mode(config: &Node<'_>, server: &str, findings: &mut Findings) {
    let allow = config.get("failure_mode_allow");
    let header = config.get("failure_mode_allow_header_add");
    if allow.is_true() {
        findings.add(
            "fail-open",
            Severity::Error,
            &allow,
            format!(
                "while {server} is unreachable or slow, anybody gets in without a key and with forged x-talos-* headers"
            ),
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
        || status
            .text()
            .is_some_and(|code| SERVER_ERRORS.iter().any(|known| known.eq_ignore_ascii_case(code)));
    if !is_server_error {
        findings.add(
            "status-on-error",
            Severity::Warning,
            &status,
            format!(
                "while {server} is unreachable, clients get 403 (or the status set here) and take their key for bad: \
                 they don't retry, or discard the key"
            ),
            "status_on_error: { code: ServiceUnavailable }",
        );
    }
}

const SERVER_ERRORS: [&str; 11] = [
    "InternalServerError",
    "NotImplemented",
    "BadGateway",
    "ServiceUnavailable",
    "GatewayTimeout",
    "HTTPVersionNotSupported",
    "VariantAlsoNegotiates",
    "InsufficientStorage",
    "LoopDetected",
    "NotExtended",
    "NetworkAuthenticationRequired",
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
    // The accelerator's condition has rules of its own.
    if !by_metadata.is_absent() && !check.is_accelerated {
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
        findings.add("conditional-check", severity, config, why, strip_before(check.name));
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
        true => "# remove filter_enabled_metadata\n# or with Istio, in the AuthorizationPolicy: match all requests\n\
                 rules: [{}]"
            .to_owned(),
        false => format!(
            "# remove filter_enabled_metadata\n# or, to refuse the other requests:\n{DENY_AT_DISABLE}\n# or, if such \
             requests should go upstream:\n{}",
            strip_before(check.name)
        ),
    };
    findings.add("conditional-check", severity, at, why, fix);
}

/// Setting that refuses requests that aren't checked.
pub(super) const DENY_AT_DISABLE: &str =
    "deny_at_disable: { default_value: true, runtime_key: ext_authz.deny_at_disable }";

/// Returns a filter that removes forged identity headers from unchecked requests.
fn strip_before(filter: &str) -> String {
    format!(
        "http_filters: # in this order\n  - name: talos.strip\n    typed_config:\n      \
         \"@type\": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n      \
         mutations:\n        request_mutations:\n          \
         - remove_on_match: {{ key_matcher: {{ prefix: x-talos- }} }}\n  - name: {}",
        to_yaml(filter)
    )
}

/// Returns true if an `envoy.type.v3.FractionalPercent` is 100 %.
pub(super) fn is_all(percentage: &Node<'_>) -> bool {
    let numerator = percentage.get("numerator").number().unwrap_or(0);
    let denominator = percentage.get("denominator");
    let denominator = match () {
        () if denominator.is_value("TEN_THOUSAND", 1) => 10_000,
        () if denominator.is_value("MILLION", 2) => 1_000_000,
        () => 100,
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

    let lists =
        HeaderLists { allowed: config.get("allowed_headers"), disallowed: config.get("disallowed_headers") };
    // Any x-talos-* name that Talos doesn't know by name.
    let names = ["x-talos-doctor", "x_talos_doctor"];
    if let Some(place) = names.iter().find_map(|name| lists.hiding(name)) {
        findings.add(
            "identity-unseen",
            Severity::Warning,
            place,
            "Talos doesn't see all x-talos-* and x_talos_* headers that a client sent, so it can't remove those that it \
             doesn't know by name",
            lists.cure(&names),
        );
    }
    let default = Authz::default();
    let authz = options.authz.unwrap_or(&default);
    let mut needed: Vec<&str> = authz.sources.iter().filter_map(CredentialSource::header).collect();
    match authz.client_address {
        ClientAddress::Peer => {}
        ClientAddress::External => needed.push("x-envoy-external-address"),
        ClientAddress::Xff => needed.push("x-forwarded-for"),
    }
    needed.retain(|name| lists.hiding(name).is_some());
    if let Some(place) = needed.iter().find_map(|name| lists.hiding(name)) {
        // Without Talos' settings, the sources are the default ones; most clients use the first.
        let is_error = options.authz.is_some() || needed.contains(&"authorization");
        let severity = if is_error { Severity::Error } else { Severity::Warning };
        findings.add(
            "credential-unseen",
            severity,
            place,
            format!(
                "Envoy doesn't send Talos headers in which it looks for keys or addresses: {}",
                needed.join(", ")
            ),
            lists.cure(&needed),
        );
    }
}

/// The headers that Envoy sends with a check.
struct HeaderLists<'a> {
    allowed: Node<'a>,
    disallowed: Node<'a>,
}

impl<'a> HeaderLists<'a> {
    /// Returns the list that keeps a header from Talos.
    fn hiding(&self, name: &str) -> Option<&Node<'a>> {
        if !self.allowed.is_absent() && headers::list_matches(&self.allowed, name) == Match::No {
            return Some(&self.allowed);
        }
        let is_disallowed = headers::list_matches(&self.disallowed, name) == Match::Yes;
        (!self.disallowed.is_absent() && is_disallowed).then_some(&self.disallowed)
    }

    /// Returns which lists to remove, so that Envoy sends all headers.
    fn cure(&self, names: &[&str]) -> Cow<'static, str> {
        let hides = |list: &Node<'_>| {
            names.iter().any(|name| self.hiding(name).is_some_and(|by| by.path == list.path))
        };
        let is_both = hides(&self.allowed)
            && !self.disallowed.is_absent()
            && names.iter().any(|name| headers::list_matches(&self.disallowed, name) == Match::Yes);
        match (hides(&self.allowed), is_both || hides(&self.disallowed)) {
            (true, true) => "# remove allowed_headers\n# remove disallowed_headers",
            (true, false) => "# remove allowed_headers",
            _ => "# remove disallowed_headers",
        }
        .into()
    }
}

/// Checks the `with_request_body` of a filter or a route.
pub(crate) fn check_request_body(body: &Node<'_>, findings: &mut Findings) {
    if body.get("max_request_bytes").number().is_none_or(|bytes| bytes == 0) {
        return;
    }
    let why = match body.get("allow_partial_message").is_true() {
        false => {
            "Talos never reads bodies, but each request waits until Envoy has buffered its body: larger bodies get 413, \
             uploads don't stream, and unauthenticated clients can fill Envoy's memory"
        }
        true => {
            "Talos never reads bodies, but each request waits until Envoy has buffered the beginning of its body (a \
             larger one isn't refused with allow_partial_message), and unauthenticated clients can fill Envoy's memory"
        }
    };
    findings.add("request-body", Severity::Warning, body, why, "# remove with_request_body");
}

fn check_mutations(config: &Node<'_>, options: Options<'_>, server: &str, findings: &mut Findings) {
    let validate = config.get("validate_mutations");
    if !validate.is_true() {
        findings.add(
            "validate-mutations",
            Severity::Warning,
            &validate,
            format!(
                "Envoy doesn't validate the headers in the response of {server} before it sends them upstream"
            ),
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
    check_mutation_rules(&config.get("decoder_header_mutation_rules"), options, findings);
}

/// Checks an `envoy.config.common.mutation_rules.v3.HeaderMutationRules`: every header that Talos
/// sets or removes may be changed.
fn check_mutation_rules(rules: &Node<'_>, options: Options<'_>, findings: &mut Findings) {
    let default = Authz::default();
    let authz = options.authz.unwrap_or(&default);
    // The last one stands for names that Talos doesn't know.
    let mut names: Vec<&str> = IDENTITY_HEADERS.into_iter().chain(["x-talos-doctor"]).collect();
    names.push(&authz.token_header);
    names.extend(authz.sources.iter().filter_map(CredentialSource::header));
    if authz.sources.iter().any(|source| source.header().is_none()) {
        names.push(":path");
    }
    let refused: Vec<(&str, Refusal<'_>)> =
        names.into_iter().filter_map(|name| Some((name, refusal(rules, name)?))).collect();
    let Some((name, refusal)) = refused.iter().max_by_key(|(_, refusal)| refusal.is_certain) else { return };
    let (severity, why) = match refusal.is_certain {
        true if *name == ":path" => (
            Severity::Error,
            "Envoy ignores Talos' changes of :path: keys in the query or in the path go upstream (authz.sources)"
                .to_owned(),
        ),
        true => (
            Severity::Error,
            format!(
                "Envoy ignores Talos' changes of {name}: keys go upstream, forged x-talos-* headers stay, or what \
                 Talos tells upstream is missing"
            ),
        ),
        false => (
            Severity::Warning,
            "Envoy ignores Talos' changes of headers that match this expression; it must match neither x-talos-* \
             nor a header that carries keys"
                .to_owned(),
        ),
    };
    findings.add("mutations-ignored", severity, &refusal.by, why, "# remove decoder_header_mutation_rules");
}

/// A rule that keeps a header as it is.
struct Refusal<'a> {
    by: Node<'a>,
    /// False if it is a regular expression that isn't evaluated.
    is_certain: bool,
}

/// Returns the rule that keeps a header as it is, in the order in which Envoy asks them.
fn refusal<'a>(rules: &Node<'a>, name: &str) -> Option<Refusal<'a>> {
    let by = |field: &str, is_certain| Some(Refusal { by: rules.get(field), is_certain });
    let matches = |field: &str| match rules.get(field) {
        expression if expression.is_absent() => Match::No,
        expression => headers::regex_matches(&expression, name),
    };
    match matches("disallow_expression") {
        Match::Yes => return by("disallow_expression", true),
        Match::Unknown => return by("disallow_expression", false),
        Match::No => {}
    }
    let is_allowed = matches("allow_expression");
    let field = match () {
        () if is_allowed == Match::Yes => return None,
        () if rules.get("disallow_all").is_true() => "disallow_all",
        () if rules.get("disallow_system").is_true() && name.starts_with(':') => "disallow_system",
        () => return None,
    };
    by(field, is_allowed == Match::No)
}
