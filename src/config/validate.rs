//! Validates a configuration beyond its types. Each problem names its key, and no message repeats
//! the value of a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::admin::AuthMode;
use super::authz::{ClientAddress, MAX_ROUTES, MAX_SOURCES};
use super::cache::CacheType;
use super::error::{ConfigError, Problems};
use super::issuance;
use super::listeners::{self, Served, is_host};
use super::model::{Config, RateLimitBackend};
use super::openings::{self, is_loopback};
use super::retired::Retired;
use super::secrets;
use super::serve::Cors;
use super::usage;
use crate::credential::api_key::is_prefix;
use crate::host::name_of;
use crate::key::NetworkId;
use crate::plane::Plane;

/// Maximum number of networks.
const MAX_NETWORKS: usize = 1000;
/// Maximum of the sizes of `last_used`: far more than helps, and less than a channel can have.
const MAX_QUEUE_SIZE: usize = 10_000_000;
/// Maximum of `idempotency.reveal_for`.
const MAX_REVEAL_FOR: Duration = Duration::from_secs(24 * 60 * 60);

impl Config {
    /// Demands a secret, for commands that verify or issue keys.
    ///
    /// # Errors
    /// [`ConfigError::NoHmacKey`] when `secrets.hmac.current` is unset.
    pub fn require_serving_secret(&self) -> Result<(), ConfigError> {
        self.secrets.hmac.current.as_ref().map(drop).ok_or(ConfigError::NoHmacKey)
    }
}

/// Finds all problems. Rules of the listeners and of the admin plane are checked for what a process
/// serves.
pub(super) fn check(config: &Config, served: Option<Served>) -> Problems {
    let mut problems = Problems::new();
    let admin = served.is_some_and(|served| served.planes.contains(Plane::Admin));
    listeners::check(config, served, &mut problems);
    openings::hosts(config, admin, &mut problems);
    if admin {
        admin_callers(config, &mut problems);
    }
    cors("serve.http.cors", &config.serve.http.cors, &mut problems);
    cors("serve.public.cors", &config.serve.public.cors, &mut problems);
    problems.extend(secrets::check(config));
    sources_of_trust(config, &mut problems);
    prefixes(config, &mut problems);
    durations(config, &mut problems);
    sizes(config, &mut problems);
    authz(config, &mut problems);
    networks(config, &mut problems);
    errors(config, &mut problems);
    counting(config, &mut problems);
    issuance::check(&config.issuance_policies, &config.roles, &mut problems);
    // Last, as its message lists what other problems have in common. What a host that can't be read
    // would open isn't known.
    if is_host(&config.serve.http.host) {
        problems.extend(openings::check(config, admin));
    }
    problems
}

fn add(problems: &mut Problems, key: &str, message: impl Into<String>) {
    problems.push((key.to_owned(), message.into()));
}

/// Returns true for an address with a length behind it that no block of addresses has.
fn is_no_block(text: &str) -> bool {
    let address = text.split_once('/').map(|(address, _)| address);
    address.is_some_and(|address| address.parse::<IpAddr>().is_ok()) && text.parse::<ipnet::IpNet>().is_err()
}

/// Checks that everything is set that the authentication of callers needs.
fn admin_callers(config: &Config, problems: &mut Problems) {
    let http = &config.serve.http;
    let (auth, tls) = (&http.auth, &http.tls);
    let names_nobody =
        [&auth.roles.viewer, &auth.roles.issuer, &auth.roles.admin].into_iter().all(Vec::is_empty);
    if auth.mode != AuthMode::None && names_nobody {
        add(
            problems,
            "serve.http.auth.roles",
            "must give somebody a role, or nobody could call the admin plane",
        );
    }
    match auth.mode {
        AuthMode::None => {}
        AuthMode::Mtls => {
            if tls.client_ca_file.is_none() {
                add(problems, "serve.http.tls.client_ca_file", "is needed with serve.http.auth.mode mtls");
            }
        }
        AuthMode::Xfcc => {
            let by_name =
                |peer: &&String| peer.parse::<IpAddr>().is_err() && peer.parse::<ipnet::IpNet>().is_err();
            let block = auth.xfcc.peers.iter().position(|peer| is_no_block(peer));
            if auth.xfcc.peers.is_empty() {
                add(problems, "serve.http.auth.xfcc.peers", "must name at least one peer with mode xfcc");
            } else if let Some(index) = block {
                let problem =
                    "must be a block of addresses such as 10.0.0.0/8, with 32 bits at most (IPv6: 128)";
                add(problems, &format!("serve.http.auth.xfcc.peers[{index}]"), problem);
            } else if tls.client_ca_file.is_none() && auth.xfcc.peers.iter().any(|peer| by_name(&peer)) {
                let problem = "is needed where serve.http.auth.xfcc.peers has a name that isn't an address";
                add(problems, "serve.http.tls.client_ca_file", problem);
            }
        }
        AuthMode::Jwt => {
            for (key, is_set) in [
                ("serve.http.auth.jwt.issuer", auth.jwt.issuer.is_some()),
                ("serve.http.auth.jwt.audience", auth.jwt.audience.is_some()),
                ("serve.http.auth.jwt.jwks", auth.jwt.jwks.is_some()),
            ] {
                if !is_set {
                    add(problems, key, "is needed with serve.http.auth.mode jwt");
                }
            }
            if tls.cert_file.is_none() && !is_loopback(&http.host) && !http.trusted_network {
                let problem = "is needed with serve.http.auth.mode jwt beyond loopback: tokens would go over the \
                    network in the clear; if something in front ends TLS, set serve.http.trusted_network: true";
                add(problems, "serve.http.tls.cert_file", problem);
            }
        }
    }
    for (key, names) in [
        ("serve.http.auth.roles.viewer", &auth.roles.viewer),
        ("serve.http.auth.roles.issuer", &auth.roles.issuer),
        ("serve.http.auth.roles.admin", &auth.roles.admin),
        ("serve.http.auth.xfcc.peers", &auth.xfcc.peers),
    ] {
        if names.iter().any(|name| name.trim().is_empty()) {
            add(problems, key, "has an empty item");
        }
        if auth.mode != AuthMode::Jwt && names.iter().any(|name| name.contains('*')) {
            add(problems, key, "must hold exact names: * stands for nothing");
        }
    }
    if let Some(url) = &auth.jwt.jwks {
        let key = "serve.http.auth.jwt.jwks";
        if !["https://", "file://", "base64://"].iter().any(|s| url.expose().starts_with(s)) {
            add(problems, key, "must begin with https://, file:// or base64://");
        } else if !names_server(url.expose()) {
            add(problems, key, NOT_A_URL);
        }
    }
}

/// Problem of a URL that leads to no server. Never repeats the URL, which may hold a password.
const NOT_A_URL: &str = "must be a URL such as https://keys.example/jwks.json";

/// Returns false for an `https://` URL that no client can fetch: it has no host, a host that can't
/// be one, or a port that is none. Everything else passes here, and is judged where it is read.
fn names_server(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return true };
    // Clients skip further slashes, and read a backslash as one.
    let rest = rest.trim_start_matches(['/', '\\']).trim_end();
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    let (has_host, port) = match address.strip_prefix('[') {
        Some(address) => {
            let (host, port) = address.split_once(']').unwrap_or((address, "]"));
            (host.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (host, port) = address.split_at(address.find(':').unwrap_or(address.len()));
            (!host.is_empty() && !host.contains([' ', '<', '>', '[', ']', '^', '|']), port)
        }
    };
    let has_valid_port = match port.strip_prefix(':') {
        Some(port) => port.is_empty() || port.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    has_host && has_valid_port
}

fn cors(key: &str, cors: &Cors, problems: &mut Problems) {
    let any = cors.allowed_origins.iter().any(|origin| origin == "*");
    if cors.enabled && cors.allow_credentials && any {
        let problem =
            "must not be true while allowed_origins has *: any site could act for whoever visits it";
        add(problems, &format!("{key}.allow_credentials"), problem);
    }
    if cors.allowed_origins.iter().any(|origin| origin.matches('*').count() > 1) {
        add(problems, &format!("{key}.allowed_origins"), "must have one * in an item at most");
    }
}

fn sources_of_trust(config: &Config, problems: &mut Problems) {
    if config.db.dsn.is_empty() {
        add(problems, "db.dsn", "must not be empty");
    }
    if config.credentials.issuer.as_deref() == Some("") {
        add(problems, "credentials.issuer", "must not be empty");
    }
    for (index, retired) in config.credentials.issuer_retired.iter().enumerate() {
        if retired.value.is_empty() {
            add(problems, &format!("credentials.issuer_retired[{index}]"), "must not be empty");
        }
    }
    let urls = &config.credentials.derived_tokens.jwt.signing_keys.urls;
    for (index, url) in urls.iter().enumerate() {
        let known = ["base64://", "file://", "https://"];
        let key = format!("credentials.derived_tokens.jwt.signing_keys.urls[{index}]");
        if !known.iter().any(|scheme| url.expose().starts_with(scheme)) {
            add(problems, &key, "must begin with base64://, file:// or https://");
        } else if !names_server(url.expose()) {
            add(problems, &key, NOT_A_URL);
        }
    }
}

/// Checks that prefixes are well-formed, and that none stands for two types of credential.
fn prefixes(config: &Config, problems: &mut Problems) {
    const SECRET: &str = "credentials.api_keys.prefix";
    const MACAROON: &str = "credentials.derived_tokens.macaroon.prefix";
    let api = &config.credentials.api_keys.prefix;
    let macaroon = &config.credentials.derived_tokens.macaroon.prefix;
    let secret = named(format!("{SECRET}.current"), Some(&api.current), &api.retired);
    let mut public =
        named(format!("{SECRET}.public_current"), api.public_current.as_ref(), &api.public_retired);
    let macaroon = named(format!("{MACAROON}.current"), Some(&macaroon.current), &macaroon.retired);
    for (key, prefix) in secret.iter().chain(&public).chain(&macaroon) {
        if !is_prefix(prefix) {
            add(problems, key, "must be 1 to 16 letters, digits and underscores");
        }
    }
    let secret_texts: BTreeSet<&str> = secret.iter().map(|(_, prefix)| *prefix).collect();
    for (key, prefix) in &public {
        if secret_texts.contains(prefix) {
            add(problems, key, "is a secret key's prefix too");
        }
    }
    public.extend(secret);
    for (key, prefix) in &macaroon {
        // A macaroon is recognized by `<prefix>_v1_`, so a key's prefix must not begin with that
        // either.
        let start = format!("{prefix}_v1_");
        if public.iter().any(|(_, other)| other == prefix || other.starts_with(&start)) {
            add(problems, key, "is an API key's prefix too");
        }
    }
}

/// Prefixes with their dotted keys.
fn named<'a>(
    current_key: String,
    current: Option<&'a String>,
    retired: &'a [Retired<String>],
) -> Vec<(String, &'a str)> {
    let retired_key = current_key.replace("current", "retired");
    let retired = retired
        .iter()
        .enumerate()
        .map(|(index, entry)| (format!("{retired_key}[{index}]"), entry.value.as_str()));
    current.into_iter().map(|prefix| (current_key.clone(), prefix.as_str())).chain(retired).collect()
}

fn durations(config: &Config, problems: &mut Problems) {
    let (keys, tokens) = (&config.credentials.api_keys, &config.credentials.derived_tokens);
    let (cache, consistency) = (&config.cache, &config.consistency);
    for (key, duration) in [
        ("cache.ttl", cache.ttl),
        ("cache.negative_ttl", cache.negative_ttl),
        ("cache.redis.timeout", cache.redis.timeout),
        ("cache.redis.check_timeout", cache.redis.check_timeout),
        ("last_used.flush_interval", config.last_used.flush_interval),
        ("consistency.lease", consistency.lease),
        ("consistency.poll", consistency.poll),
    ] {
        if duration.is_zero() {
            add(problems, key, "must be above 0");
        }
    }
    // Tokens have whole seconds, so less than one would be none.
    for (key, duration) in [
        ("authz.token_ttl", Some(config.authz.token_ttl)),
        ("credentials.api_keys.default_ttl", keys.default_ttl),
        ("credentials.api_keys.max_ttl", Some(keys.max_ttl)),
        ("credentials.derived_tokens.default_ttl", Some(tokens.default_ttl)),
        ("credentials.derived_tokens.max_ttl", Some(tokens.max_ttl)),
    ] {
        if duration.is_some_and(|duration| duration < Duration::from_secs(1)) {
            add(problems, key, "must be at least 1s");
        }
    }
    if config.idempotency.reveal_for > MAX_REVEAL_FOR {
        add(problems, "idempotency.reveal_for", "must be at most 24h");
    }
    let longest = "credentials.derived_tokens.max_ttl";
    for (key, duration, limit, limit_key) in [
        ("authz.token_ttl", config.authz.token_ttl, tokens.max_ttl, longest),
        ("credentials.derived_tokens.default_ttl", tokens.default_ttl, tokens.max_ttl, longest),
        (
            "credentials.api_keys.default_ttl",
            keys.default_ttl.unwrap_or_default(),
            keys.max_ttl,
            "credentials.api_keys.max_ttl",
        ),
    ] {
        if duration > limit {
            add(problems, key, format!("must be at most {limit_key}"));
        }
    }
    if consistency.poll >= consistency.lease {
        add(problems, "consistency.poll", "must be below consistency.lease");
    }
}

fn sizes(config: &Config, problems: &mut Problems) {
    for (key, zero) in [
        ("cache.memory.max_size", config.cache.memory.max_size == 0),
        ("cache.redis.pool_size", config.cache.redis.pool_size == 0),
    ] {
        if zero {
            add(problems, key, "must be above 0");
        }
    }
    for (key, size) in [
        ("last_used.queue_size", config.last_used.queue_size),
        ("last_used.flush_size", config.last_used.flush_size),
    ] {
        if !(1..=MAX_QUEUE_SIZE).contains(&size) {
            add(problems, key, format!("must be 1 to {MAX_QUEUE_SIZE}"));
        }
    }
    let counts_there = config.rate_limit.enabled && config.rate_limit.backend == RateLimitBackend::Redis;
    if (config.cache.kind == CacheType::Redis || counts_there) && config.cache.redis.addrs.is_empty() {
        add(problems, "cache.redis.addrs", "must name at least one server");
    }
    if !(0.0..=1.0).contains(&config.tracing.sample_rate) {
        add(problems, "tracing.sample_rate", "must be from 0 to 1");
    }
}

/// Headers that can't carry a token without breaking the request.
const NOT_FOR_TOKENS: [&str; 6] =
    ["host", "cookie", "connection", "content-length", "transfer-encoding", "te"];

fn authz(config: &Config, problems: &mut Problems) {
    let authz = &config.authz;
    if authz.sources.is_empty() {
        add(problems, "authz.sources", "must name at least one source");
    }
    if authz.sources.len() > MAX_SOURCES {
        add(problems, "authz.sources", format!("must be {MAX_SOURCES} sources at most"));
    }
    for (index, source) in authz.sources.iter().enumerate() {
        if authz.sources[..index].iter().any(|other| source.overlaps(other)) {
            let key = format!("authz.sources[{index}]");
            add(problems, &key, "reads what an earlier source reads; remove one");
        }
    }
    if authz.routes.len() > MAX_ROUTES {
        add(problems, "authz.routes", format!("must be {MAX_ROUTES} routes at most"));
    }
    // Envoy may treat `_` and `-` as equal.
    if authz.token_header.replace('_', "-").starts_with("x-talos-") {
        add(problems, "authz.token_header", "must not begin with x-talos-, which is ours");
    }
    if NOT_FOR_TOKENS.contains(&authz.token_header.as_str()) {
        add(problems, "authz.token_header", "must not be a header that requests need for something else");
    }
    if authz.client_address == ClientAddress::Xff && authz.trusted_hops == 0 {
        add(problems, "authz.trusted_hops", "must be at least 1 with client_address xff");
    }
    let allowed = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    if authz.realm.is_empty() || !authz.realm.bytes().all(allowed) {
        add(problems, "authz.realm", "must be printable ASCII without \" and \\");
    }
}

fn errors(config: &Config, problems: &mut Problems) {
    let errors = &config.errors;
    if errors.domain.is_empty() || !errors.domain.bytes().all(|byte| byte.is_ascii_graphic()) {
        add(problems, "errors.domain", "must be a name such as keys.example, without spaces");
    }
    let is_web = |url: &String| {
        let is_http = url.starts_with("https://") || url.starts_with("http://");
        is_http && !url.contains('#') && url.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if errors.docs_url.as_ref().is_some_and(|url| !is_web(url)) {
        add(problems, "errors.docs_url", "must be an http:// or https:// URL without #");
    }
}

/// Checks the bounds of the counting of Checks.
fn counting(config: &Config, problems: &mut Problems) {
    let usage = &config.usage;
    if usage.flush_interval.is_zero() || usage.flush_interval > usage::MAX_FLUSH_INTERVAL {
        add(problems, "usage.flush_interval", "must be above 0 and at most 1h");
    }
    if !(usage::MIN_ROWS..=usage::MAX_ROWS).contains(&usage.max_rows) {
        add(problems, "usage.max_rows", "must be 10 to 10000000");
    }
    if usage.keep_hours < usage::MIN_KEEP_HOURS {
        add(problems, "usage.keep_hours", "must be at least 48h");
    }
    if usage.keep_days < usage.keep_hours {
        add(problems, "usage.keep_days", "must be at least usage.keep_hours");
    }
}

fn networks(config: &Config, problems: &mut Problems) {
    let networks = &config.multitenancy.networks;
    if networks.len() > MAX_NETWORKS {
        add(problems, "multitenancy.networks", format!("must be {MAX_NETWORKS} networks at most"));
    }
    let (mut hosts, mut files) = (BTreeMap::new(), BTreeMap::new());
    for (index, network) in networks.iter().enumerate() {
        let mut add = |field: &str, message: &str| {
            add(problems, &format!("multitenancy.networks[{index}].{field}"), message);
        };
        match name_of(&network.hostname) {
            None => add("hostname", "must be a host's name or address"),
            Some(name) => {
                if hosts.insert(name, index).is_some() {
                    add("hostname", "is that of an earlier network");
                }
            }
        }
        match NetworkId::parse(&network.id) {
            None => add("id", "must be a UUID such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
            // Cached proofs of a network depend on its settings, so it can have only one set of
            // them.
            Some(id) => {
                let file = files.entry(id.to_string()).or_insert(&network.config_path);
                if *file != &network.config_path {
                    add("config_path", "must be that of the earlier host of this network");
                }
            }
        }
    }
}
