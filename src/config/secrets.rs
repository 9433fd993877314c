//! Strength of all secrets in the configuration, current and retired.
//!
//! A retired secret verifies like the current one: whoever guesses it can forge macaroons and keys.

use super::error::Problems;
use super::model::Config;
use crate::escape::is_invisible;
use crate::secret::SecretString;

/// Minimum length of a secret, in characters.
pub(super) const MIN_CHARACTERS: usize = 32;

/// Number of different characters below which a secret gets a warning. 32 random hexadecimal digits
/// have 10 or more.
const MIN_DIFFERENT: usize = 6;

/// Longest text whose repetition gets a warning.
const MAX_REPEATED: usize = 8;

/// Placeholders for secrets in examples, in lower case.
const PLACEHOLDERS: [&str; 20] = [
    "secret-key",
    "secret_key",
    "mysecret",
    "my-secret",
    "supersecret",
    "super-secret",
    "very-secret",
    "changeme",
    "change-me",
    "change_me",
    "replaceme",
    "replace-me",
    "replace_me",
    "placeholder",
    "password",
    "example",
    "insecure",
    "your-",
    "your_",
    "32-char",
];

/// Beginnings of references that other programs replace by a secret.
const REFERENCES: [&str; 10] = [
    "file://",
    "vault:",
    "op://",
    "arn:aws:",
    "awssm://",
    "gcpsm://",
    "enc[",
    "secretref:",
    "/run/secrets/",
    "/var/run/secrets/",
];

/// Every secret with its dotted key and its index in a list.
fn all(config: &Config) -> Vec<(String, &SecretString)> {
    let (hmac, audit) = (&config.secrets.hmac, &config.audit);
    let mut all = vec![];
    for (key, current, retired_key, retired) in [
        ("secrets.hmac.current", &hmac.current, "secrets.hmac.retired", &hmac.retired),
        ("audit.key", &audit.key, "audit.key_retired", &audit.key_retired),
    ] {
        all.extend(current.iter().map(|secret| (key.to_owned(), secret)));
        let entries = retired.iter().enumerate();
        all.extend(entries.map(|(index, entry)| (format!("{retired_key}[{index}]"), &entry.value)));
    }
    all
}

/// Finds secrets that are too short.
pub(super) fn check(config: &Config) -> Problems {
    let short = |secret: &SecretString| secret.expose().chars().count() < MIN_CHARACTERS;
    let message = format!("must have at least {MIN_CHARACTERS} characters");
    all(config)
        .into_iter()
        .filter(|(_, secret)| short(secret))
        .map(|(key, _)| (key, message.clone()))
        .collect()
}

/// Finds secrets that are accepted, but hardly intended.
pub(super) fn warnings(config: &Config) -> Problems {
    let mut warnings = Problems::new();
    for (key, secret) in all(config) {
        let mut warn = |message: &str| warnings.push((key.clone(), message.to_owned()));
        let text = secret.expose();
        if text.trim() != text {
            warn("begins or ends with white space (a line ending, perhaps), which is a part of the secret");
        } else if has_quotes(text) {
            warn("has quotes around it, or a line ending spelled \\n, which are a part of the secret");
        } else if text.contains(is_invisible) {
            warn("has an invisible character (a byte order mark, perhaps), which is a part of the secret");
        }
        if is_placeholder(text.trim()) {
            warn("is a placeholder or a reference that no program has replaced, and can be guessed");
            continue;
        }
        let mut different: Vec<char> = text.chars().collect();
        different.sort_unstable();
        different.dedup();
        let lower = text.trim().to_ascii_lowercase();
        if different.len() < MIN_DIFFERENT
            || is_repetition(lower.as_bytes())
            || is_sequence(lower.as_bytes())
            || PLACEHOLDERS.iter().any(|words| lower.contains(words))
        {
            warn("can be guessed: make one with `openssl rand -base64 48 | tr -d '\\n+/=' | cut -c1-64`");
        }
    }
    warnings
}

/// Returns true if a text has the quotes of a shell or of JSON.
fn has_quotes(text: &str) -> bool {
    let is_within = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    is_within('"') || is_within('\'') || text.ends_with("\\n")
}

/// Returns true for what stands in the place of a secret in templates and manifests. It is public.
fn is_placeholder(text: &str) -> bool {
    let text = text.trim_matches(['"', '\'']).to_ascii_lowercase();
    has_reference(&text)
        || (text.starts_with('<') && text.ends_with('>'))
        || REFERENCES.iter().any(|reference| text.starts_with(reference))
}

/// Returns true for a text with a variable of a shell, of compose or of a template in it.
pub(super) fn has_reference(text: &str) -> bool {
    [("${", "}"), ("$(", ")"), ("{{", "}}")]
        .iter()
        .any(|(opening, closing)| text.split_once(opening).is_some_and(|(_, rest)| rest.contains(closing)))
}

/// Returns true if a short text is repeated.
fn is_repetition(text: &[u8]) -> bool {
    (1..=MAX_REPEATED).any(|length| text.iter().zip(text.iter().skip(length)).all(|(a, b)| a == b))
}

/// Returns true if nearly every character follows the one before it in an alphabet, as in
/// `1234567890` and `abcdef`.
fn is_sequence(text: &[u8]) -> bool {
    let follows = |pair: &&[u8]| matches!(pair, [one, next] if one.abs_diff(*next) == 1 || pair == b"90");
    text.windows(2).filter(follows).count() * 10 >= text.len() * 8
}

#[cfg(test)]
mod tests {
    use crate::config::keys::{self, KEYS, Kind};
    use crate::config::load;
    use crate::config::tests::{load_with, variables};

    const GOOD: &str = "c41e7a90b35d28f60d9b5fa2174ce836";

    /// Secrets without a rule here: passwords of servers, and key sets, which have their own rules.
    const OTHERS: [&str; 7] = [
        "db.dsn",
        "migrate.dsn",
        "cache.redis.addrs",
        "cache.redis.password",
        "cache.redis.sentinel.password",
        "credentials.derived_tokens.jwt.signing_keys.urls",
        "serve.http.auth.jwt.jwks",
    ];

    #[test]
    fn every_secret_is_long_enough_current_or_retired() {
        let mut judged = 0;
        for key in KEYS.iter().filter(|key| keys::is_secret(&key.path)) {
            let (path, is_list) = (key.path.as_str(), key.kind == Kind::List);
            if OTHERS.contains(&path) {
                continue;
            }
            let with = |secret: &str| {
                let text = if is_list { format!("{GOOD},{secret}") } else { secret.to_owned() };
                load(None, variables(&[(&key.variable, &text)]))
            };
            for short in ["a", &GOOD[1..], &"ä".repeat(31)] {
                let text = with(short).expect_err(path).to_string();
                let place = if is_list { "[1]" } else { "" };
                let expected = format!("{path}{place}: must have at least 32 characters");
                assert!(text.starts_with(&expected), "{text}");
                assert!(!text.contains(&GOOD[1..]), "{text}");
            }
            for good in [GOOD, &"äöüßéñ".repeat(6)] {
                assert!(with(good).is_ok(), "{path}");
            }
            judged += 1;
        }
        assert_eq!(judged, 4);
    }

    #[test]
    fn a_piece_of_a_split_variable_is_named() {
        let name = "TALOS_SECRETS_HMAC_RETIRED";
        let split = format!("{GOOD},x");
        let text = load(None, variables(&[(name, &split)])).unwrap_err().to_string();
        assert_eq!(
            text,
            "secrets.hmac.retired[1]: must have at least 32 characters; it is piece 2 of the variable, which is \
             split at commas: if a comma belongs to the secret, set TALOS_SECRETS_HMAC_RETIRED_0 instead \
             (TALOS_SECRETS_HMAC_RETIRED)"
        );
        // A variable with an index isn't split.
        let loaded = load(None, variables(&[("TALOS_SECRETS_HMAC_RETIRED_0", &split)])).unwrap();
        assert_eq!(loaded.config.secrets.hmac.retired[0].value.expose(), split);
        // Nor is a file, and a short secret with an index is named by its own variable.
        let yaml = "secrets: {hmac: {retired: ['a,b']}}";
        let text = load_with(yaml, &[]).unwrap_err().to_string();
        assert!(text.starts_with("secrets.hmac.retired[0]: must have at least 32 characters ("), "{text}");
        let text = load_with("", &[("TALOS_AUDIT_KEY_RETIRED_0_VALUE", "a")]).unwrap_err().to_string();
        assert_eq!(
            text,
            "audit.key_retired[0]: must have at least 32 characters (TALOS_AUDIT_KEY_RETIRED_0)"
        );
    }

    #[test]
    fn a_weak_secret_gets_a_warning() {
        let line = format!("{GOOD}\n");
        for (secret, warning) in [
            (line.as_str(), "secrets.hmac.current: begins or ends with white space"),
            (&"a".repeat(40), "secrets.hmac.current: can be guessed"),
            (&"abcdef12".repeat(4), "secrets.hmac.current: can be guessed"),
            ("12345678901234567890123456789012", "secrets.hmac.current: can be guessed"),
            ("abcdefghijklmnopqrstuvwxyz0123456789", "secrets.hmac.current: can be guessed"),
            ("this-is-a-very-secret-key-for-hmac!!", "secrets.hmac.current: can be guessed"),
            (
                "file:///run/secrets/hmac-key-of-talos",
                "secrets.hmac.current: is a placeholder or a reference",
            ),
            ("Password-for-production-1-2-3-4-5-6-7", "secrets.hmac.current: can be guessed"),
            ("ChangeMe-0123456789-0123456789-0123456789", "secrets.hmac.current: can be guessed"),
            (&format!("\"{GOOD}\""), "secrets.hmac.current: has quotes"),
            (&format!("'{GOOD}'"), "secrets.hmac.current: has quotes"),
            (&format!("{GOOD}\\n"), "secrets.hmac.current: has quotes"),
            (&format!("\u{feff}{GOOD}"), "secrets.hmac.current: has an invisible character"),
            ("${TALOS_HMAC_SECRET_OF_PRODUCTION}", "secrets.hmac.current: is a placeholder"),
            ("pre-$(cat /run/secrets/talos-hmac-current)", "secrets.hmac.current: is a placeholder"),
            ("{{ .Values.secrets.hmac.current.value }}", "secrets.hmac.current: is a placeholder"),
            ("<no value><no value><no value><no value>", "secrets.hmac.current: is a placeholder"),
            ("vault:secret/data/talos#hmac-current-1", "secrets.hmac.current: is a placeholder"),
            ("/run/secrets/talos_hmac_secret_current", "secrets.hmac.current: is a placeholder"),
        ] {
            let loaded = load(None, variables(&[("TALOS_SECRETS_HMAC_CURRENT", secret)])).unwrap();
            let [message] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
            let message = message.to_string();
            assert!(
                message.starts_with(warning) && message.ends_with("(TALOS_SECRETS_HMAC_CURRENT)"),
                "{message}"
            );
            assert!(!message.contains("0123") && !message.contains("aaaa"), "{message}");
            assert!(!message.contains("talos-hmac") && !message.contains("Values"), "{message}");
        }
        let loaded = load(None, variables(&[("TALOS_SECRETS_HMAC_RETIRED_0", GOOD)])).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}
