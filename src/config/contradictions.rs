//! Settings that don't go together: those that can't work are problems, those that have no effect,
//! or hardly the one that was meant, get a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::admin::AuthMode;
use super::audit_file;
use super::cache::CacheType;
use super::credential_source::CredentialSource;
use super::error::Problems;
use super::model::Config;
use super::routes::{PathMatch, Route, RouteMode};
use super::serve::Cors;
use crate::duration::to_text;
use crate::secret::SecretString;

/// Longest lease without a warning.
const MAX_USUAL_LEASE: Duration = Duration::from_secs(60);
/// Shortest time between polls without a warning.
const MIN_USUAL_POLL: Duration = Duration::from_millis(10);
/// Smallest cache in memory without a warning, in bytes.
const MIN_USUAL_CACHE: u64 = 64 * 1024;

/// Headers that requests need for something else, so no key can be taken out of them.
const NOT_FOR_KEYS: [&str; 8] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "te",
    "cookie",
    "x-forwarded-for",
];

/// Finds settings that contradict each other.
pub(super) fn check(config: &Config) -> Problems {
    let mut problems = Problems::new();
    let mut add = |key: &str, message: &str| problems.push((key.to_owned(), message.to_owned()));
    if config
        .credentials
        .issuer
        .as_deref()
        .is_some_and(|issuer| !issuer.is_empty() && issuer.trim() != issuer)
    {
        add("credentials.issuer", "must not begin or end with white space: verifiers compare it as it is");
    }
    for (index, source) in config.authz.sources.iter().enumerate() {
        let CredentialSource::Header { name, .. } = source else { continue };
        let key = format!("authz.sources[{index}]");
        if NOT_FOR_KEYS.contains(&name.as_str()) {
            add(&key, "must not be a header that requests need for something else; choose another");
        }
        if name.starts_with("x-talos-") {
            add(&key, "must not begin with x-talos-: upstream gets identity headers by such names");
        }
    }
    repeated_routes(config, &mut problems);
    problems.extend(audit_file::check(config));
    problems
}

/// Finds routes that never apply, as an earlier one has the same conditions: its policy counts, and
/// may be weaker.
fn repeated_routes(config: &Config, problems: &mut Problems) {
    let conditions = |route: &Route| {
        let path = match &route.path {
            None => (0, ""),
            Some(PathMatch::Exact(path)) => (1, path.as_str()),
            Some(PathMatch::Prefix(path)) => (2, path.as_str()),
            Some(PathMatch::Template(path)) => (3, path.as_str()),
        };
        let methods: BTreeSet<String> = route.methods.iter().cloned().collect();
        (route.host.clone(), methods, path.0, path.1.to_owned())
    };
    let mut seen = BTreeMap::new();
    for (index, route) in config.authz.routes.iter().enumerate() {
        let first = *seen.entry(conditions(route)).or_insert(index);
        if first != index {
            let message = format!(
                "has the conditions of authz.routes[{first}], which comes first: this one never applies"
            );
            add(problems, &format!("authz.routes[{index}]"), message);
        }
    }
}

/// Finds settings that have no effect, or hardly the one that was meant.
pub(super) fn warnings(config: &Config, admin: bool) -> Problems {
    let mut found = Problems::new();
    if admin {
        roles(config, &mut found);
    }
    bounds(config, &mut found);
    unused(config, &mut found);
    secrets(config, &mut found);
    white_space(config, &mut found);
    origins("serve.http.cors", &config.serve.http.cors, &mut found);
    origins("serve.public.cors", &config.serve.public.cors, &mut found);
    routes(config, &mut found);
    found
}

fn add(found: &mut Problems, key: &str, message: impl Into<String>) {
    found.push((key.to_owned(), message.into()));
}

fn roles(config: &Config, found: &mut Problems) {
    let auth = &config.serve.http.auth;
    let names_somebody = [&auth.roles.viewer, &auth.roles.issuer, &auth.roles.admin]
        .into_iter()
        .any(|names| !names.is_empty());
    if auth.mode == AuthMode::None && names_somebody {
        let message = "has no effect with serve.http.auth.mode none, which gives every caller the role admin: set \
                       the mode";
        add(found, "serve.http.auth.roles", message);
    }
    // With mode jwt, names are what the tokens say.
    if !matches!(auth.mode, AuthMode::Mtls | AuthMode::Xfcc) {
        return;
    }
    for (role, names) in
        [("viewer", &auth.roles.viewer), ("issuer", &auth.roles.issuer), ("admin", &auth.roles.admin)]
    {
        for (index, _) in names.iter().enumerate().filter(|(_, name)| !is_certificate_name(name)) {
            let message = "matches no certificate: callers are named by the URI and the DNS names in it, not by its \
                           subject or an e-mail address";
            add(found, &format!("serve.http.auth.roles.{role}[{index}]"), message);
        }
    }
}

/// Returns true for what may be the URI or a DNS name of a certificate.
fn is_certificate_name(name: &str) -> bool {
    name.contains(':') || name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn bounds(config: &Config, found: &mut Problems) {
    let consistency = &config.consistency;
    if consistency.lease > MAX_USUAL_LEASE {
        let lease = to_text(consistency.lease);
        add(
            found,
            "consistency.lease",
            format!("lets a revoked key pass for up to {lease}; 5s is the default"),
        );
    }
    if consistency.poll < MIN_USUAL_POLL && !consistency.poll.is_zero() {
        let message =
            "makes each process ask the database more than a hundred times a second; 1s is the default";
        add(found, "consistency.poll", message);
    }
    if config.cache.kind != CacheType::Noop && config.cache.memory.max_size < MIN_USUAL_CACHE {
        let message = "is in bytes, and so small that hardly a key is kept; 104857600 is the default";
        add(found, "cache.memory.max_size", message);
    }
}

fn unused(config: &Config, found: &mut Problems) {
    let tls = &config.cache.redis.tls;
    let has_tls_settings = tls.ca_file.is_some() || tls.cert_file.is_some() || tls.server_name.is_some();
    if tls.enabled != Some(true) && has_tls_settings {
        add(found, "cache.redis.tls", "has no effect without cache.redis.tls.enabled: true");
    }
    let sentinel = &config.cache.redis.sentinel;
    if sentinel.master.as_deref().unwrap_or_default().is_empty()
        && (sentinel.username.is_some() || sentinel.password.is_some())
    {
        add(found, "cache.redis.sentinel", "has no effect without cache.redis.sentinel.master");
    }
    if config.audit.key.is_some() && config.audit.file.is_none() {
        add(found, "audit.key", "has no effect without audit.file");
    }
    if config.authz.edge.enabled && config.serve.authz.socket.is_none() {
        let message = "has no effect without serve.authz.socket: modules are served there, and nowhere else";
        add(found, "authz.edge.enabled", message);
    }
    let tenancy = &config.multitenancy;
    match (tenancy.enabled, tenancy.networks.is_empty()) {
        (true, true) => {
            add(
                found,
                "multitenancy.networks",
                "is empty, so every request is answered with 404: list the hosts",
            );
        }
        (false, false) => {
            add(found, "multitenancy.networks", "has no effect without multitenancy.enabled: true");
        }
        _ => {}
    }
}

fn secrets(config: &Config, found: &mut Problems) {
    let (hmac, audit) = (&config.secrets.hmac, &config.audit);
    for (key, current, retired) in
        [("secrets.hmac", &hmac.current, &hmac.retired), ("audit.key", &audit.key, &audit.key_retired)]
    {
        let Some(current) = current else { continue };
        let (list, name) = match key {
            "audit.key" => ("audit.key_retired", "audit.key"),
            _ => ("secrets.hmac.retired", "secrets.hmac.current"),
        };
        for (index, entry) in retired.iter().enumerate() {
            if entry.value.expose() == current.expose() {
                add(found, &format!("{list}[{index}]"), format!("is {name} as well: remove it here"));
            }
        }
    }
}

/// Finds white space around texts that others compare as they are.
fn white_space(config: &Config, found: &mut Problems) {
    let (jwt, redis) = (&config.serve.http.auth.jwt, &config.cache.redis);
    let secret = |secret: &Option<SecretString>| secret.as_ref().map(|secret| secret.expose().to_owned());
    for (key, text) in [
        ("serve.http.auth.jwt.issuer", jwt.issuer.clone()),
        ("serve.http.auth.jwt.audience", jwt.audience.clone()),
        ("serve.http.auth.jwt.claim", Some(jwt.claim.clone())),
        ("cache.redis.username", redis.username.clone()),
        ("cache.redis.password", secret(&redis.password)),
        ("cache.redis.sentinel.username", redis.sentinel.username.clone()),
        ("cache.redis.sentinel.password", secret(&redis.sentinel.password)),
    ] {
        if text.is_some_and(|text| text.trim() != text) {
            add(
                found,
                key,
                "begins or ends with white space (a line ending, perhaps), which is a part of it",
            );
        }
    }
    for (index, retired) in config.credentials.issuer_retired.iter().enumerate() {
        if retired.value.trim() != retired.value {
            let key = format!("credentials.issuer_retired[{index}]");
            add(found, &key, "begins or ends with white space, which tokens' issuers hardly have");
        }
    }
}

/// Finds origins that no browser sends.
fn origins(key: &str, cors: &Cors, found: &mut Problems) {
    if !cors.enabled {
        return;
    }
    for (index, origin) in cors.allowed_origins.iter().enumerate() {
        let is_origin = match origin.split_once("://") {
            _ if origin == "*" || origin == "null" => true,
            Some((_, rest)) => !rest.is_empty() && !rest.contains('/'),
            None => false,
        };
        if !is_origin {
            let message = "matches no origin: write scheme and host, and the port if it isn't the scheme's, as in \
                           https://app.example.com";
            add(found, &format!("{key}.allowed_origins[{index}]"), message);
        }
    }
}

/// Finds paths with a `*`, which stands for itself, and demands of routes on which nothing is
/// checked. Envoy's own route may set another mode, so those aren't wrong for certain.
fn routes(config: &Config, found: &mut Problems) {
    for (index, route) in config.authz.routes.iter().enumerate() {
        for (name, is_set) in [
            ("scopes", route.scopes.is_some()),
            ("any_scope", route.any_scope.is_some()),
            ("visibility", route.visibility.is_some()),
            ("audience", route.audience.is_some()),
        ] {
            if is_set && route.mode == Some(RouteMode::Off) {
                let message = "has no effect with mode off, which lets everybody pass, unless Envoy's route sets \
                               another mode: remove one of the two";
                add(found, &format!("authz.routes[{index}].{name}"), message);
            }
        }
        let path = match &route.path {
            Some(PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Template(path)) => path,
            None => continue,
        };
        if path.split('/').any(|segment| segment == "*" || segment == "**") {
            let message = "has a *, which stands for itself: write {prefix: /a} for all below /a, or {template: \
                           /a/{any}} for one segment";
            add(found, &format!("authz.routes[{index}].path"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_with;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn settings_without_effect_get_a_warning() {
        for (yaml, key) in [
            ("serve: {http: {auth: {roles: {admin: [a]}}}}", "serve.http.auth.roles: has no effect"),
            ("consistency: {lease: 100h}", "consistency.lease: lets a revoked key pass for up to 100h"),
            ("consistency: {poll: 1us}", "consistency.poll: makes each process"),
            ("cache: {memory: {max_size: 100}}", "cache.memory.max_size: is in bytes"),
            ("cache: {redis: {tls: {server_name: a}}}", "cache.redis.tls: has no effect"),
            ("cache: {redis: {sentinel: {password: a}}}", "cache.redis.sentinel: has no effect"),
            (
                "serve: {http: {tls: {cert_file: c, key_file: k, client_ca_file: a}, auth: {mode: mtls, roles: {admin: \
                 [a.example, 'spiffe://a/b', CN=admin]}}}}",
                "serve.http.auth.roles.admin[2]: matches no certificate",
            ),
            (&format!("audit: {{key: {SECRET}}}"), "audit.key: has no effect"),
            ("multitenancy: {enabled: true}", "multitenancy.networks: is empty"),
            (
                "multitenancy: {networks: [{hostname: a, id: 6ba7b810-9dad-41d1-80b4-00c04fd430c8}]}",
                "multitenancy.networks: has no effect",
            ),
            (
                &format!("secrets: {{hmac: {{current: {SECRET}, retired: [{SECRET}]}}}}"),
                "secrets.hmac.retired[0]: is secrets.hmac.current as well",
            ),
            (
                "serve: {http: {cors: {enabled: true, allowed_origins: ['https://a', b.example]}}}",
                "serve.http.cors.allowed_origins[1]: matches no origin",
            ),
            (
                "serve: {public: {cors: {enabled: true, allowed_origins: ['https://a/']}}}",
                "serve.public.cors.allowed_origins[0]: matches no origin",
            ),
            ("authz: {routes: [{path: {prefix: '/a/*'}}]}", "authz.routes[0].path: has a *"),
            (
                "authz: {routes: [{}, {host: a, mode: off, scopes: a}]}",
                "authz.routes[1].scopes: has no effect",
            ),
            ("authz: {routes: [{mode: off, any_scope: a}]}", "authz.routes[0].any_scope: has no effect"),
            (
                "authz: {routes: [{mode: off, visibility: secret}]}",
                "authz.routes[0].visibility: has no effect",
            ),
            ("authz: {routes: [{mode: off, audience: a}]}", "authz.routes[0].audience: has no effect"),
            ("authz: {edge: {enabled: true}}", "authz.edge.enabled: has no effect without"),
            ("cache: {redis: {password: \"a\\n\"}}", "cache.redis.password: begins or ends with white space"),
            ("serve: {http: {auth: {jwt: {issuer: ' a'}}}}", "serve.http.auth.jwt.issuer: begins or ends"),
            ("credentials: {issuer_retired: ['a ']}", "credentials.issuer_retired[0]: begins or ends"),
        ] {
            let warnings = load_with(yaml, &[]).unwrap().warnings;
            let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            assert!(told.iter().any(|told| told.starts_with(key)), "{yaml}: {told:?}");
            assert!(!told.concat().contains(SECRET), "{told:?}");
        }
        for yaml in [
            "",
            "serve: {http: {cors: {enabled: true, allowed_origins: ['https://*.a.example']}}}",
            "authz: {routes: [{mode: off, name: open}, {host: a, mode: optional, scopes: a}]}",
            "{authz: {edge: {enabled: true}}, serve: {authz: {socket: /run/a.sock}}}",
        ] {
            assert!(load_with(yaml, &[]).unwrap().warnings.is_empty(), "{yaml}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for (yaml, expected) in [
            ("cache: {redis: {tls: {enabled: true, cert_file: a}}}", "cache.redis.tls.key_file: is needed"),
            ("cache: {redis: {tls: {enabled: true, key_file: a}}}", "cache.redis.tls.cert_file: is needed"),
            ("credentials: {issuer: ' '}", "credentials.issuer: must not begin or end with white space"),
            ("authz: {sources: [{header: Host}]}", "authz.sources[0]: must not be a header"),
        ] {
            let text = load_with(yaml, &[]).expect_err(yaml).to_string();
            assert!(text.starts_with(expected), "{yaml}: {text}");
        }
    }

    #[test]
    fn routes_that_never_apply_are_refused() {
        for (routes, expected) in [
            (
                "{path: {prefix: /a}, mode: off}, {path: {prefix: /a}, scopes: a}",
                "authz.routes[1]: has the cond",
            ),
            ("{}, {host: a}, {scopes: a}", "authz.routes[2]: has the conditions of authz.routes[0], which"),
            (
                "{host: a, methods: [get, PUT]}, {host: A, methods: [PUT, GET, PUT]}",
                "authz.routes[1]: has the",
            ),
        ] {
            let yaml = format!("authz: {{routes: [{routes}]}}");
            let text = load_with(&yaml, &[]).expect_err(&yaml).to_string();
            assert!(text.starts_with(expected) && text.contains("line 1 column"), "{yaml}: {text}");
        }
        for routes in [
            "{path: {prefix: /a}}, {path: {exact: /a}}, {path: {template: /a}}, {path: {prefix: /a/}}",
            "{path: {prefix: /a}}, {path: {prefix: /a}, methods: [GET]}, {path: {prefix: /a}, host: a}, {}",
        ] {
            assert!(load_with(&format!("authz: {{routes: [{routes}]}}"), &[]).is_ok(), "{routes}");
        }
    }
}
