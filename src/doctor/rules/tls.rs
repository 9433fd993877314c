//! Findings about TLS on the way to Talos: whose certificate Envoy accepts.

use std::net::IpAddr;

use crate::doctor::dump::Dump;
use crate::doctor::findings::{Findings, Severity};
use crate::doctor::node::{Node, quoted};

/// Name in Talos' certificate, where the configuration has none.
const EXAMPLE_NAME: &str = "talos.example.com";
/// File of the authority that signed Talos' certificate.
const EXAMPLE_CA: &str = "/etc/envoy/talos-ca.pem";

/// Demands of a TLS context on the server's certificate.
struct Validation<'a> {
    /// The setting that a cure is for.
    place: Node<'a>,
    /// The validation contexts that apply together.
    contexts: Vec<Node<'a>>,
    /// True if a secret that applies isn't in the dump.
    is_unseen: bool,
}

/// Examines an `UpstreamTlsContext` of a cluster. `name` is the server's as the cluster has it.
pub(crate) fn examine(dump: &Dump<'_>, context: &Node<'_>, cluster: &Node<'_>, findings: &mut Findings) {
    let validation = validation(dump, &context.get("common_tls_context"));
    let accepts_all = validation
        .contexts
        .iter()
        .map(|one| one.get("trust_chain_verification"))
        .find(|one| one.is_value("ACCEPT_UNTRUSTED", 1));
    let has_authority = validation.has(&[
        "trusted_ca",
        "ca_certificate_provider_instance",
        "system_root_certs",
        "custom_validator_config",
        "verify_certificate_hash",
        "verify_certificate_spki",
    ]);
    let name = context.get("sni").text().map_or_else(|| server_name(cluster), str::to_owned);
    if accepts_all.is_some() || !(has_authority || validation.is_unseen) {
        let why = match accepts_all.is_some() {
            true => {
                "Talos' certificate isn't verified (ACCEPT_UNTRUSTED): anybody on the network path can answer in its place"
            }
            false => "Talos' certificate isn't verified: anybody on the network path can answer in its place",
        };
        let place = accepts_all.unwrap_or_else(|| validation.place.clone());
        findings.add(
            "tls-unverified",
            Severity::Warning,
            &place,
            why,
            validation.cure(&name, !has_authority),
        );
        return;
    }
    if !validation.has_name() && !is_checked_by_sni(context, cluster) {
        findings.add(
            "tls-any-name",
            Severity::Warning,
            &validation.place,
            "every certificate that the authority has signed is accepted, whatever its name: any other server that has \
             one can answer in Talos' place",
            validation.cure(&name, false),
        );
    }
}

/// Finds the validation contexts of a TLS context: inline, from SDS, or both.
fn validation<'a>(dump: &Dump<'a>, common: &Node<'a>) -> Validation<'a> {
    let combined = common.get("combined_validation_context");
    let (inline, by_sds) = match combined.is_absent() {
        true => (common.get("validation_context"), common.get("validation_context_sds_secret_config")),
        false => {
            let by_sds = combined.get("validation_context_sds_secret_config");
            (combined.get("default_validation_context"), by_sds)
        }
    };
    let secret = by_sds.get("name").text().and_then(|name| dump.secret(name));
    let secret = secret.map(|secret| secret.get("validation_context"));
    let is_unseen = !by_sds.is_absent() && secret.is_none();
    let place = match &secret {
        Some(secret) if combined.is_absent() => secret.clone(),
        _ => inline.clone(),
    };
    Validation { place, contexts: [Some(inline), secret].into_iter().flatten().collect(), is_unseen }
}

impl Validation<'_> {
    fn has(&self, fields: &[&str]) -> bool {
        let has = |context: &Node<'_>, field: &str| match context.get(field) {
            one if one.is_absent() => false,
            _ => !context.items(field).is_empty(),
        };
        self.contexts.iter().any(|context| fields.iter().any(|field| has(context, field)))
    }

    /// Returns true if a certificate must have a certain name or key.
    fn has_name(&self) -> bool {
        let names = ["match_typed_subject_alt_names", "match_subject_alt_names"];
        let matchers = self.contexts.iter().flat_map(|context| names.map(|name| context.items(name)));
        let is_name = |one: &Node<'_>| {
            let nested = one.get("matcher");
            let matcher = if nested.is_absent() { one.clone() } else { nested };
            !matches!(matcher.get_path("safe_regex.regex").text(), Some(".*" | ".+"))
        };
        let has_place = self.contexts.iter().any(|context| !context.is_absent());
        matchers.flatten().any(|one| is_name(&one))
            || self.has(&["verify_certificate_hash", "verify_certificate_spki", "custom_validator_config"])
            // A secret alone may have names that aren't seen here.
            || (self.is_unseen && !has_place)
    }

    /// Returns the settings that make Envoy verify the certificate and its name.
    fn cure(&self, name: &str, needs_authority: bool) -> String {
        let field = self.place.path.rsplit('.').next().unwrap_or("validation_context");
        let kind = if name.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        let authority = match needs_authority {
            true => format!("  trusted_ca: {{ filename: {EXAMPLE_CA} }}\n"),
            false => String::new(),
        };
        format!(
            "{field}:\n{authority}  trust_chain_verification: VERIFY_TRUST_CHAIN\n  match_typed_subject_alt_names: # a name in \
             Talos' certificate\n    - {{ san_type: {kind}, matcher: {{ exact: {} }} }}",
            quoted(name)
        )
    }
}

/// Returns true if Envoy compares the certificate's name with the name that it asks for.
fn is_checked_by_sni(context: &Node<'_>, cluster: &Node<'_>) -> bool {
    let options = cluster
        .get("typed_extension_protocol_options")
        .entry("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
        .get("upstream_http_protocol_options");
    let old = cluster.get("upstream_http_protocol_options");
    let is_automatic = |options: &Node<'_>| options.get("auto_san_validation").is_true();
    context.get("auto_sni_san_validation").is_true() || is_automatic(&options) || is_automatic(&old)
}

/// Returns the name by which a cluster reaches its servers, or an example of one.
fn server_name(cluster: &Node<'_>) -> String {
    let endpoints = cluster.get("load_assignment").items("endpoints");
    let mut addresses = endpoints
        .iter()
        .flat_map(|group| group.items("lb_endpoints"))
        .map(|one| one.get_path("endpoint.address.socket_address.address"));
    let is_name = |address: &&str| address.parse::<IpAddr>().is_err();
    addresses.find_map(|address| address.text().filter(is_name)).unwrap_or(EXAMPLE_NAME).to_owned()
}

/// Returns true if the first of `transport_socket_matches` has no conditions, so that every server
/// gets its socket.
pub(crate) fn overrides_socket(cluster: &Node<'_>) -> bool {
    let matches = cluster.items("transport_socket_matches");
    matches.first().is_some_and(|first| first.get("match").entries().next().is_none())
}

/// Returns the transport socket that encrypts, and verifies who answers.
pub(crate) fn socket_cure(cluster: &Node<'_>) -> String {
    let name = quoted(&server_name(cluster));
    let matches = if overrides_socket(cluster) { "# remove transport_socket_matches\n" } else { "" };
    format!(
        "{matches}transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    \
         sni: {name}\n    common_tls_context:\n      validation_context:\n        \
         trusted_ca: {{ filename: {EXAMPLE_CA} }}\n        match_typed_subject_alt_names: # a name in Talos' certificate\n          \
         - {{ san_type: DNS, matcher: {{ exact: {name} }} }}"
    )
}
