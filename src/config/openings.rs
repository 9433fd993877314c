//! Settings that are less safe than their defaults: each must be explicit. One error lists all that
//! aren't, with the lines to add.

use std::net::IpAddr;

use super::admin::AuthMode;
use super::cache::CacheType;
use super::credentials::DerivedTokens;
use super::error::Problems;
use super::model::{Config, RateLimitBackend};
use crate::duration::to_text;
use crate::host::name_of;

/// Line for a setting that must be explicit.
struct Line {
    /// Dotted path.
    key: &'static str,
    /// Value as YAML.
    value: String,
    /// Meaning, for the comment of the line.
    meaning: &'static str,
}

/// Finds the settings that must be explicit and aren't. Rules of the admin plane are checked if
/// `admin` is true.
pub(super) fn check(config: &Config, admin: bool) -> Problems {
    let mut problems = Problems::new();
    let mut lines = vec![];
    if admin && is_open(config) {
        let problem = "is no loopback address, and serve.http.auth.mode none lets every caller issue and revoke \
                       keys; if only trusted peers reach it, set serve.http.trusted_network: true";
        problems.push(("serve.http.host".to_owned(), problem.to_owned()));
        let key = "serve.http.trusted_network";
        lines.push(Line { key, value: "true".into(), meaning: "only trusted peers reach the admin plane" });
        lines.extend(hosts_line(config));
    }
    if let Some(index) = plaintext_redis(config) {
        let problem = format!(
            "is needed, as cache.redis.addrs[{index}] is no loopback address; set it to true, or to false to send \
             keys' data in plaintext"
        );
        problems.push(("cache.redis.tls.enabled".to_owned(), problem));
        let key = "cache.redis.tls.enabled";
        lines.push(Line { key, value: "false".into(), meaning: "data of keys goes to Redis in plaintext" });
    }
    let tokens = &config.credentials.derived_tokens;
    if tokens.default_ttl > tokens.max_ttl && tokens.max_ttl == DerivedTokens::default().max_ttl {
        let key = "credentials.derived_tokens.max_ttl";
        let meaning = "tokens outlive the revocation of their key by up to this time";
        lines.push(Line { key, value: to_text(tokens.default_ttl), meaning });
    }
    if let Some(first) = lines.first() {
        problems.push((first.key.to_owned(), describe(&lines)));
    }
    problems
}

/// Finds settings that are allowed, but hardly work.
pub(super) fn warnings(config: &Config) -> Problems {
    let http = &config.serve.http;
    let mut warnings = Problems::new();
    if !is_loopback(&http.host) && http.allowed_hosts.is_empty() && !config.multitenancy.enabled {
        let problem = "is empty: the admin plane answers calls by IP address or a loopback name only; list the names \
                       by which clients call it";
        warnings.push(("serve.http.allowed_hosts".to_owned(), problem.to_owned()));
    }
    warnings
}

/// Checks the entries of `serve.*.allowed_hosts`.
pub(super) fn hosts(config: &Config, admin: bool, problems: &mut Problems) {
    let serve = &config.serve;
    let open = serve.http.auth.mode == AuthMode::None && !serve.http.trusted_network;
    for (key, hosts, is_admin) in [
        ("serve.http.allowed_hosts", &serve.http.allowed_hosts, true),
        ("serve.public.allowed_hosts", &serve.public.allowed_hosts, false),
    ] {
        for (index, host) in hosts.iter().enumerate() {
            let mut add = |problem: &str| problems.push((format!("{key}[{index}]"), problem.to_owned()));
            if host.trim().is_empty() {
                problems.push((key.to_owned(), "has an empty item".to_owned()));
            } else if host == "*" && is_admin && admin && open {
                add(
                    "is *, any name: a web page could call the admin plane through its visitor's browser, by a name of \
                     its own that leads here; list the names, authenticate callers (serve.http.auth), or set \
                     serve.http.trusted_network: true",
                );
            } else if !is_host_pattern(host) {
                add("must be a host's name or address, *.name for all names below it, or * for any");
            }
        }
    }
}

/// Returns true for a host, `*`, or `*.` and a name.
fn is_host_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    text == "*" || text.parse::<IpAddr>().is_ok() || name_of(name).is_some()
}

/// Returns true if anybody who reaches the admin plane may do everything, and the configuration
/// doesn't say that only trusted peers reach it.
fn is_open(config: &Config) -> bool {
    let http = &config.serve.http;
    http.auth.mode == AuthMode::None && !http.trusted_network && !is_loopback(&http.host)
}

/// Returns the line for the host names of the admin plane, unless there is one. The issuer's host
/// is the best guess.
fn hosts_line(config: &Config) -> Option<Line> {
    if !config.serve.http.allowed_hosts.is_empty() || config.multitenancy.enabled {
        return None;
    }
    let issuer = config.credentials.issuer.as_deref().unwrap_or_default();
    let authority = issuer.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    let name = authority.and_then(|authority| name_of(authority).map(|name| name.into_owned()));
    let name = name.filter(|name| !is_loopback(name)).unwrap_or_else(|| "talos.internal".to_owned());
    let meaning = "the names by which clients call it, beside IP addresses and localhost";
    Some(Line { key: "serve.http.allowed_hosts", value: format!("[\"{name}\"]"), meaning })
}

/// Returns the index of the first Redis to which data would go in plaintext.
fn plaintext_redis(config: &Config) -> Option<usize> {
    let redis = &config.cache.redis;
    let is_used =
        config.cache.kind == CacheType::Redis || config.rate_limit.backend == RateLimitBackend::Redis;
    let is_remote = |address: &String| match address.rsplit_once(':') {
        // An address in another form is judged where it is read.
        Some((host, _)) if !host.contains('/') => !host.is_empty() && !is_loopback(host),
        _ => false,
    };
    redis.addrs.iter().position(is_remote).filter(|_| is_used && redis.tls.enabled.is_none())
}

/// Returns true for `localhost` and loopback addresses, with or without brackets.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Returns the message with all lines, as one block of YAML.
fn describe(lines: &[Line]) -> String {
    let mut text = "must be set explicitly. If all of this is meant, add these lines to the file:".to_owned();
    let mut open: Vec<&str> = vec![];
    for Line { key, value, meaning } in lines {
        let path: Vec<&str> = key.split('.').collect();
        let (name, sections) = path.split_last().unwrap_or((&"", &[]));
        let shared = open.iter().zip(sections).take_while(|(a, b)| a == b).count();
        for (depth, section) in sections.iter().enumerate().skip(shared) {
            text.push_str(&format!("\n    {}{section}:", "  ".repeat(depth)));
        }
        open = sections.to_vec();
        text.push_str(&format!("\n    {}{name}: {value} # {meaning}", "  ".repeat(sections.len())));
    }
    let variable = lines.first().map_or(String::new(), |line| line.key.replace('.', "_").to_uppercase());
    text.push_str(&format!("\nor variables such as TALOS_{variable}"));
    text
}

#[cfg(test)]
mod tests {
    use crate::config::load_without_admin;
    use crate::config::tests::{config, load_with};

    /// A file with several such settings.
    const FOREIGN: &str = "\
serve: {http: {host: 0.0.0.0}}
credentials: {issuer: 'https://Keys.Example.com/x', derived_tokens: {default_ttl: 168h}}
cache: {type: redis, redis: {addrs: ['redis:6379']}}
";

    fn refused(yaml: &str) -> String {
        load_with(yaml, &[]).expect_err(yaml).to_string()
    }

    #[test]
    fn one_message_lists_all_lines_and_they_are_enough() {
        let text = refused(FOREIGN);
        let start = text.find("serve.http.trusted_network: must be set explicitly").expect(&text);
        let block: Vec<&str> =
            text[start..].lines().skip(1).take_while(|line| line.starts_with("    ")).collect();
        let block = block.join("\n");
        let lines: serde_json::Value = serde_norway::from_str(&block).unwrap();
        assert_eq!(
            lines,
            serde_json::json!({
                "serve": { "http": { "trusted_network": true, "allowed_hosts": ["keys.example.com"] } },
                "cache": { "redis": { "tls": { "enabled": false } } },
                "credentials": { "derived_tokens": { "max_ttl": "168h" } },
            })
        );
        let mut whole: serde_json::Value = serde_norway::from_str(FOREIGN).unwrap();
        merge(&mut whole, lines);
        config(&whole.to_string(), &[]);
    }

    fn merge(into: &mut serde_json::Value, other: serde_json::Value) {
        match (into, other) {
            (serde_json::Value::Object(into), serde_json::Value::Object(other)) => {
                for (key, value) in other {
                    merge(into.entry(key).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, other) => *into = other,
        }
    }

    #[test]
    fn safe_or_explicit_settings_need_no_line() {
        for yaml in [
            "",
            "serve: {http: {host: '[::1]'}}",
            "serve: {http: {host: 0.0.0.0, trusted_network: true}}",
            "cache: {redis: {addrs: ['redis:6379']}}",
            "cache: {type: redis, redis: {addrs: ['127.0.0.1:1', '[::1]:2', 'localhost:3']}}",
            "cache: {type: redis, redis: {addrs: ['redis:6379'], tls: {enabled: true}}}",
            "credentials: {derived_tokens: {default_ttl: 24h}}",
        ] {
            config(yaml, &[]);
        }
        for yaml in [
            "rate_limit: {backend: redis}\ncache: {redis: {addrs: ['10.0.0.1:6379']}}",
            "cache: {type: redis, redis: {addrs: ['localhost:1', 'redis.internal:2']}}",
        ] {
            assert!(refused(yaml).contains("cache.redis.tls.enabled: must be set explicitly"), "{yaml}");
        }
    }

    #[test]
    fn other_planes_need_no_line_of_the_admin_plane() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "serve: {http: {host: 0.0.0.0, allowed_hosts: ['*']}}").unwrap();
        load_without_admin(Some(file.path()), []).unwrap();
    }

    #[test]
    fn an_entry_of_hosts_means_what_it_says_or_is_refused() {
        let with = |host: &str, more: &str| format!("serve: {{http: {{allowed_hosts: ['{host}']{more}}}}}");
        for host in
            ["keys.example", "Keys.Example.:443", "10.0.0.1", "2001:db8::1", "[::1]:4420", "*.example"]
        {
            config(&with(host, ""), &[]);
        }
        for host in ["https://keys.example", "keys.*", "*example", "a b", "keys.example/x", "**"] {
            let text = refused(&with(host, ""));
            assert!(text.starts_with("serve.http.allowed_hosts[0]: must be a host's name"), "{text}");
        }
        assert!(refused(&with("*", "")).starts_with("serve.http.allowed_hosts[0]: is *, any name"));
        config(&with("*", ", trusted_network: true"), &[]);
        config("serve: {public: {allowed_hosts: ['*']}}", &[]);
    }

    #[test]
    fn a_plane_that_nobody_can_call_by_name_gets_a_warning() {
        let warned = |yaml: &str| {
            let warnings = load_with(yaml, &[]).unwrap().warnings;
            warnings
                .iter()
                .any(|warning| warning.to_string().starts_with("serve.http.allowed_hosts: is empty"))
        };
        let open = "host: 0.0.0.0, trusted_network: true";
        assert!(warned(&format!("serve: {{http: {{{open}}}}}")));
        assert!(!warned(&format!("serve: {{http: {{{open}, allowed_hosts: [keys.example]}}}}")));
        assert!(!warned(""));
    }
}
