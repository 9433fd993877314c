//! Suggestions for misspelt keys and variables.

use super::keys::{self, KEYS};

/// Most suggestions for a key that exists elsewhere.
const MAX_ELSEWHERE: usize = 3;

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
    if let Some(sibling) = nearest(&name, siblings) {
        return Some(format!("did you mean {}?", inside(sibling)));
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
        ] {
            assert_eq!(key(section, name).as_deref(), Some(expected), "{section} {name}");
        }
        for (section, name) in [("", "nope"), ("", "a.b"), ("", "port"), ("serve.http", "x")] {
            assert_eq!(key(section, name), None, "{section} {name}");
        }
        assert_eq!(variable("TALOS_CACHE_TTTL"), Some("TALOS_CACHE_TTL"));
        assert_eq!(variable("TALOS_PORT"), None);
    }
}
