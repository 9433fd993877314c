//! Suggestions for misspelt keys and variables.

use super::keys::{self, KEYS};

/// Most suggestions for a key that exists elsewhere.
const MAX_ELSEWHERE: usize = 3;

/// Other words for keys: a section (`*` is any of `serve`, `*.tls` any with certificates), what
/// people write there, and the keys.
const OTHER_WORDS: &[(&str, &[&str], &str)] = &[
    ("", &["port", "host", "listen", "address"], "serve.http.host and serve.http.port"),
    ("", &["database"], "db.dsn"),
    ("db", &["url", "uri", "connection_string"], "db.dsn"),
    ("serve", &["admin", "api"], "serve.http"),
    ("serve", &["grpc", "ext_authz", "envoy", "check"], "serve.authz"),
    ("*", &["address", "addr", "listen", "bind"], "host and port"),
    ("*.tls", &["certificate", "certificate_file", "crt", "crt_file", "cert_path"], "cert_file"),
    ("*.tls", &["private_key", "private_key_file", "key_path"], "key_file"),
    ("secrets.hmac", &["secret", "key", "value"], "secrets.hmac.current"),
    ("credentials.api_keys", &["expiry", "lifetime"], "credentials.api_keys.default_ttl"),
    ("cache.redis", &["address", "url", "host", "hosts", "dsn", "servers"], "cache.redis.addrs"),
    ("rate_limit", &["type", "store"], "rate_limit.backend"),
    ("multitenancy", &["tenants", "hosts"], "multitenancy.networks"),
    ("audit", &["path", "output"], "audit.file"),
    ("usage", &["retention"], "usage.keep_hours or usage.keep_days"),
    ("authz", &["rules", "policies"], "authz.routes"),
];

/// Settings of the pool and of TLS, which are parameters of the DSN.
const OF_DSN: [&str; 8] = [
    "max_conns",
    "max_idle_conns",
    "max_conn_lifetime",
    "max_conn_idle_time",
    "pool_size",
    "pool_mode",
    "sslmode",
    "search_path",
];

/// Suggests a key for an unknown `name` in a section, which is empty at the top.
pub(super) fn key(section: &str, name: &str) -> Option<String> {
    let inside = |name: &str| if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    if name.contains('.') {
        let path = inside(name);
        let is_known = keys::find(&path).is_some() || keys::is_section(&path);
        return is_known.then(|| "write its parts below each other, not with dots".to_owned());
    }
    let name = plain(name);
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    let siblings = KEYS.iter().filter_map(|key| key.path.strip_prefix(&prefix)?.split('.').next());
    if let Some(sibling) = nearest(&name, siblings.clone()) {
        return Some(format!("did you mean {}?", inside(sibling)));
    }
    let known = other_words(section, &name).or_else(|| joined(&prefix, &name));
    if known.is_some() {
        return known;
    }
    let mut partly: Vec<String> = vec![];
    for sibling in siblings.filter(|sibling| has_word(sibling, &name)).map(inside) {
        if !partly.contains(&sibling) {
            partly.push(sibling);
        }
    }
    if let 1..=MAX_ELSEWHERE = partly.len() {
        return Some(format!("did you mean {}?", partly.join(" or ")));
    }
    let mut elsewhere: Vec<&str> = vec![];
    for key in KEYS.iter() {
        // A section counts by its own name, each once.
        let ends = key.path.match_indices('.').map(|(end, _)| end).chain([key.path.len()]);
        let paths = ends.map(|end| &key.path[..end]);
        let found = paths.filter(|path| path.rsplit('.').next() == Some(name.as_str()));
        elsewhere.extend(found.filter(|path| !elsewhere.contains(path)).collect::<Vec<_>>());
    }
    match elsewhere.len() {
        1..=MAX_ELSEWHERE => Some(format!("did you mean {}?", elsewhere.join(" or "))),
        _ => None,
    }
}

/// Suggests a key for what is called otherwise elsewhere.
fn other_words(section: &str, name: &str) -> Option<String> {
    if section == "db" && OF_DSN.contains(&name) {
        let name = if name == "pool_size" { "max_conns" } else { name };
        return Some(format!("it is a parameter of db.dsn: ?{name}=…"));
    }
    let is_listener = section.strip_prefix("serve.").is_some_and(|plane| !plane.contains('.'));
    let has_certificates = section.ends_with(".tls");
    let (.., key) = OTHER_WORDS.iter().find(|(of, names, _)| {
        let is_of = match *of {
            "*" => is_listener,
            "*.tls" => has_certificates,
            of => of == section,
        };
        is_of && names.contains(&name)
    })?;
    let is_relative = is_listener || has_certificates;
    Some(match is_relative {
        true => format!("did you mean {key} of {section}?"),
        false => format!("did you mean {key}?"),
    })
}

/// Suggests the key whose parts are joined by `_` in `name`, as in `log_level`.
fn joined(prefix: &str, name: &str) -> Option<String> {
    let inner = |key: &'static super::keys::Key| key.path.strip_prefix(prefix);
    let key = KEYS.iter().find(|key| inner(key).is_some_and(|rest| rest.replace('.', "_") == name))?;
    Some(format!("did you mean {}, each part below the one before?", key.path))
}

/// Returns true if `name` is one of the words of a key, as `ttl` of `default_ttl`.
fn has_word(key: &str, name: &str) -> bool {
    name.len() > 1 && key.split('_').any(|word| word == name)
}

/// Suggests one of a few names: the same in another case, one that it begins or ends with or that
/// ends with it, or the nearest.
pub(super) fn name<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let plain = plain(name);
    let is_same = |known: &&str| known.eq_ignore_ascii_case(&plain) || known.eq_ignore_ascii_case(name);
    let is_part = |known: &&str| {
        let known = known.to_ascii_lowercase();
        plain.starts_with(&known) || plain.len() > 2 && known.ends_with(&plain)
    };
    known
        .clone()
        .find(is_same)
        .or_else(|| nearest(&plain, known.clone()))
        .or_else(|| known.clone().find(is_part))
}

/// Suggests a variable for an unknown one.
pub(super) fn variable(name: &str) -> Option<&'static str> {
    nearest(&plain(name), KEYS.iter().map(|key| key.variable.as_str()))
}

/// The name in the spelling of keys: lower case, with underscores.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    let mut was_lower = false;
    for c in name.chars().take(100) {
        if c.is_ascii_uppercase() && was_lower {
            plain.push('_');
        }
        was_lower = c.is_ascii_lowercase();
        plain.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    plain
}

/// The candidate that is nearest to `name`, if it differs by a third of its letters at most.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.filter_map(|candidate| {
        let limit = (candidate.len() / 3).clamp(1, 3);
        let distance = distance(name, &candidate.to_ascii_lowercase());
        (distance <= limit && distance < name.len()).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Number of insertions, deletions, replacements and swaps of neighbours between two names.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_other_spellings_and_other_places() {
        for (section, name, expected) in [
            ("", "sevre", "did you mean serve?"),
            ("serve.http", "prot", "did you mean serve.http.port?"),
            ("serve.http", "prt", "did you mean serve.http.port?"),
            ("authz", "tokenTtl", "did you mean authz.token_ttl?"),
            ("authz", "token-header", "did you mean authz.token_header?"),
            ("", "dsn", "did you mean db.dsn or migrate.dsn?"),
            ("", "deny_file", "did you mean consistency.deny_file?"),
            ("", "hmac", "did you mean secrets.hmac?"),
            ("", "serve.http", "write its parts below each other, not with dots"),
            ("", "port", "did you mean serve.http.host and serve.http.port?"),
            ("", "log_level", "did you mean log.level, each part below the one before?"),
            ("", "database", "did you mean db.dsn?"),
            ("db", "max_conns", "it is a parameter of db.dsn: ?max_conns=…"),
            ("serve", "grpc", "did you mean serve.authz?"),
            ("serve.public", "address", "did you mean host and port of serve.public?"),
            ("serve.http.tls", "cert", "did you mean serve.http.tls.cert_file?"),
            ("serve.http.tls", "certificate_file", "did you mean cert_file of serve.http.tls?"),
            ("cache.redis.tls", "ca", "did you mean cache.redis.tls.ca_file?"),
            ("cache.redis", "url", "did you mean cache.redis.addrs?"),
            (
                "credentials.api_keys",
                "ttl",
                "did you mean credentials.api_keys.default_ttl or credentials.api_keys.max_ttl?",
            ),
            ("multitenancy", "tenants", "did you mean multitenancy.networks?"),
        ] {
            assert_eq!(key(section, name).as_deref(), Some(expected), "{section} {name}");
        }
        for (section, name) in [("", "nope"), ("", "a.b"), ("serve.http", "x")] {
            assert_eq!(key(section, name), None, "{section} {name}");
        }
        assert_eq!(variable("TALOS_CACHE_TTTL"), Some("TALOS_CACHE_TTL"));
        assert_eq!(variable("TALOS_PORT"), None);
    }
}
