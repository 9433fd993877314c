//! Placeholders such as `${NAME}` in values: no program has replaced them, and this one doesn't.

use serde_norway::Value;

use super::error::Problem;
use super::keys;
use super::merged_config::MergedConfig;
use super::secrets;

/// Adds advice to problems of values with a placeholder, and returns a warning for each such value
/// without a problem. Secrets of ours have a warning of their own.
pub(super) fn warnings(merged: &mut MergedConfig) -> Vec<Problem> {
    let mut found = vec![];
    for (key, value) in merged.values() {
        collect(key, value, &mut found);
    }
    let mut warnings = vec![];
    for key in found {
        let of_it = merged.problems.iter_mut().filter(|problem| is_within(&problem.key, &key));
        let mut is_refused = false;
        for problem in of_it {
            is_refused = true;
            problem.cure.get_or_insert_with(|| cure(&key));
        }
        let has_own = ["secrets.", "audit.key"].iter().any(|section| key.starts_with(section));
        if !is_refused && !has_own {
            let message = "has a placeholder that no program has replaced".to_owned();
            warnings.push(merged.origins.problem(key.clone(), message).with_cure(Some(cure(&key))));
        }
    }
    warnings
}

/// Returns true if a key is `section` or stands within it.
fn is_within(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn cure(key: &str) -> String {
    let path = key.split('[').next().unwrap_or(key);
    match keys::find(path) {
        Some(known) => format!(
            "variables in values aren't expanded here: write the value itself, or set {} in its place",
            known.variable
        ),
        None => "variables in values aren't expanded here: write the value itself".to_owned(),
    }
}

/// Collects the keys of texts with a placeholder. Regular expressions may look like one.
fn collect(key: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if secrets::has_reference(text) && !key.ends_with("name_pattern") => {
            found.push(key.to_owned());
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(&format!("{key}[{index}]"), item, found);
            }
        }
        Value::Mapping(mapping) => {
            for (name, value) in mapping {
                if let Value::String(name) = name {
                    collect(&format!("{key}.{name}"), value, found);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_with;

    #[test]
    fn placeholders_are_named_with_the_variable() {
        for (yaml, key, variable) in [
            ("db: {dsn: '${DATABASE_URL}'}", "db.dsn: has a placeholder", "TALOS_DB_DSN"),
            (
                "credentials: {issuer: 'https://${HOST}'}",
                "credentials.issuer: has",
                "TALOS_CREDENTIALS_ISSUER",
            ),
            ("audit: {file: '{{ .Values.audit }}'}", "audit.file: has", "TALOS_AUDIT_FILE"),
            (
                "cache: {redis: {addrs: ['localhost:1', '$(REDIS)']}}",
                "cache.redis.addrs[1]: has",
                "TALOS_CACHE_REDIS_ADDRS",
            ),
        ] {
            let warnings = load_with(yaml, &[]).unwrap().warnings;
            let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            assert!(told.iter().any(|told| told.starts_with(key) && told.contains(variable)), "{told:?}");
        }
        for (yaml, start) in [
            ("serve: {http: {port: '${PORT}'}}", "serve.http.port: invalid type"),
            ("secrets: {hmac: {current: '${SECRET}'}}", "secrets.hmac.current: must have at least 32"),
        ] {
            let text = load_with(yaml, &[]).expect_err(yaml).to_string();
            assert!(text.starts_with(start) && text.contains("aren't expanded here"), "{text}");
        }
        let told = load_with("authz: {routes: [{path: {template: '/a/{id}'}}]}", &[]).unwrap().warnings;
        assert!(told.is_empty(), "{told:?}");
    }
}
