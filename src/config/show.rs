//! Printed form of the configuration: every key, no secret.

use serde_json::Value;

use super::keys::KEYS;
use super::load::Loaded;
use super::model::Config;
use super::serde_forms::MASK;

/// A key with its value and origin.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveSetting {
    /// Dotted path.
    pub key: &'static str,
    /// Value, with `***` in place of secrets.
    pub value: Value,
    /// The file, the environment variable, or `default`.
    pub origin: String,
}

impl Config {
    /// All keys in the form of the file, with `***` in place of secrets.
    pub fn to_masked(&self) -> Value {
        // The configuration has only values that JSON can hold.
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        mask_urls(&mut shown);
        shown
    }
}

impl Loaded {
    /// All keys, each with its value and origin.
    pub fn origins(&self) -> Vec<EffectiveSetting> {
        let masked = self.config.to_masked();
        let keys = KEYS.iter();
        keys.map(|key| EffectiveSetting {
            key: &key.path,
            value: at(&masked, &key.path).clone(),
            origin: self.origins.of(&key.path),
        })
        .collect()
    }
}

/// Masks the passwords of URLs, in any setting.
fn mask_urls(value: &mut Value) {
    match value {
        Value::String(text) => {
            let Some(start) = text.find("://").map(|at| at + 3) else { return };
            let authority = text[start..].split(['/', '?', '#']).next().unwrap_or_default();
            let Some((user, _)) = authority.rsplit_once('@').and_then(|(before, _)| before.split_once(':'))
            else {
                return;
            };
            let end = start + authority.rfind('@').unwrap_or_default();
            text.replace_range(start + user.len() + 1..end, MASK);
        }
        Value::Array(items) => items.iter_mut().for_each(mask_urls),
        Value::Object(members) => members.values_mut().for_each(mask_urls),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The value at a dotted path of [`Config::to_masked`].
pub(super) fn at<'a>(masked: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(masked, |value, name| &value[name])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::tests::{config, load_with, variables};

    const NEEDLE: &str = "hunter2hunter2hunter2hunter2hunter2";

    #[test]
    fn every_key_is_printed() {
        let shown = Config::default().to_masked();
        for key in KEYS.iter() {
            let (section, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
            let section = if section.is_empty() { &shown } else { at(&shown, section) };
            assert!(section.get(name).is_some(), "{}", key.path);
        }
    }

    #[test]
    fn passwords_of_urls_are_masked() {
        let yaml = "tracing: {endpoint: 'https://a:b:c@d@collector:4317/x@y'}\nerrors: {docs_url: 'https://u@e.example/a:b@c'}";
        let shown = config(yaml, &[]).to_masked();
        assert_eq!(shown["tracing"]["endpoint"], "https://a:***@collector:4317/x@y");
        assert_eq!(shown["errors"]["docs_url"], "https://u@e.example/a:b@c");
    }

    /// The printed form of a configuration without secrets is the same configuration.
    #[test]
    fn a_printed_configuration_reads_back() {
        let yaml = r#"
credentials:
  issuer_retired: [https://a, {value: https://b, expires_at: 2026-01-31T00:00:00Z}]
  api_keys: {default_ttl: 1h30m, max_ttl: 1y}
  derived_tokens: {jwt: {signing_keys: {urls: ["file:///x.json"]}}}
serve: {authz: {socket: /run/talos.sock}}
tracing: {sample_rate: 0.5}
authz:
  sources: [{header: X-Key}, {header: authorization, scheme: Bearer}, {query: key}, {cookie: key}]
  routes:
    - {host: a.example, methods: [GET], path: {template: "/users/{id}"}, mode: optional, scopes: "a b", audience: x}
    - {path: {prefix: /p}, any_scope: "a b", token: none, visibility: secret}
"#;
        let before = config(yaml, &[]);
        let after = config(&serde_norway::to_string(&before.to_masked()).unwrap(), &[]);
        assert_eq!(before, after);
        assert_eq!(
            config(&serde_norway::to_string(&Config::default().to_masked()).unwrap(), &[]),
            Config::default()
        );
    }

    #[test]
    fn no_secret_is_printed() {
        let yaml = format!(
            r#"
db: {{dsn: "postgres://talos:{NEEDLE}@db/x?password={NEEDLE}"}}
secrets: {{hmac: {{current: {NEEDLE}, retired: [{NEEDLE}, {{value: {NEEDLE}, expires_at: 1790000000}}]}}}}
cache: {{redis: {{password: {NEEDLE}, addrs: ["redis://:{NEEDLE}@r:6379", "r:6379"]}}}}
audit: {{key: {NEEDLE}}}
credentials:
  derived_tokens:
    jwt: {{signing_keys: {{urls: ["base64://{NEEDLE}", "https://u:{NEEDLE}@h/k?t={NEEDLE}", "file:///k"]}}}}
"#
        );
        let shown = config(&yaml, &[]).to_masked();
        let text = shown.to_string();
        assert!(!text.contains("hunter2"), "{shown:#}");
        assert_eq!(shown["secrets"]["hmac"]["current"], "***");
        let retired = at(&shown, "secrets.hmac.retired").to_string();
        assert_eq!(retired, r#"["***",{"value":"***","expires_at":"2026-09-21T14:13:20Z"}]"#);
        let urls = at(&shown, "credentials.derived_tokens.jwt.signing_keys.urls").to_string();
        assert_eq!(urls, r#"["base64://***","https://u:***@h/k?t=***","file:///k"]"#);
    }

    #[test]
    fn origins_are_named() {
        let loaded = load_with("cache: {ttl: 1m}", &[("TALOS_SERVE_HTTP_PORT", "1")]).unwrap();
        let origins = loaded.origins();
        let origin = |key: &str| origins.iter().find(|shown| shown.key == key).unwrap().origin.clone();
        assert!(origin("cache.ttl").ends_with("talos.yaml"));
        assert_eq!(origin("serve.http.port"), "TALOS_SERVE_HTTP_PORT");
        assert_eq!(origin("db.dsn"), "default");
        let indexed = load(None, variables(&[("TALOS_SECRETS_HMAC_RETIRED_0", NEEDLE)])).unwrap();
        assert!(format!("{:?}", indexed.origins()).contains("TALOS_SECRETS_HMAC_RETIRED_0"));
    }
}
