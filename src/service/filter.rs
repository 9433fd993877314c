//! List filters: the part of AIP-160 that compares `actor_id`, `status`, `secret_id` and
//! `key_prefix` with `=`, joined by `AND`.

use std::fmt;

use crate::clock::Timestamp;
use crate::key::{KeyPrefix, SecretId, Status};
use crate::settings::Settings;
use crate::store::Filter;

/// Maximum length of a filter, in bytes.
pub const MAX_FILTER: usize = 1_024;

/// Filter of a list as it was written; `None` matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListFilter {
    /// Actor of the keys.
    pub actor: Option<String>,
    /// Status of the keys.
    pub status: Option<Status>,
    /// Secret of the keys.
    pub secret: Option<SecretSelector>,
    /// Prefix of the keys.
    pub prefix: Option<KeyPrefix>,
}

/// Selection of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretSelector {
    /// The one that signs.
    Current,
    /// All retired ones that still verify.
    Retired,
    /// Secrets that rows don't know.
    Unknown,
    /// One by its id.
    Id(SecretId),
}

impl fmt::Display for SecretSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => out.write_str("current"),
            Self::Retired => out.write_str("retired"),
            Self::Unknown => out.write_str("unknown"),
            Self::Id(id) => id.fmt(out),
        }
    }
}

impl SecretSelector {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "current" => Some(Self::Current),
            "retired" => Some(Self::Retired),
            "unknown" => Some(Self::Unknown),
            id => SecretId::parse(id).map(Self::Id),
        }
    }
}

impl ListFilter {
    /// Returns the filter for the database, with the secrets of `settings` at `now`.
    pub(super) fn resolve(self, settings: &Settings, now: Timestamp) -> Filter {
        let current = settings.secrets.current().id();
        let secrets = self.secret.map(|selector| match selector {
            SecretSelector::Current => vec![Some(current)],
            SecretSelector::Retired => {
                let mut retired: Vec<_> =
                    settings.secrets.verifying(now).map(|secret| Some(secret.id())).collect();
                retired.retain(|id| *id != Some(current));
                retired.sort_unstable();
                retired.dedup();
                retired
            }
            SecretSelector::Unknown => vec![None],
            SecretSelector::Id(id) => vec![Some(id)],
        });
        Filter { actor: self.actor, status: self.status, secrets, prefix: self.prefix }
    }

    /// Returns a text that no other filter has, to which page tokens are bound.
    pub(super) fn describe(&self) -> String {
        let Self { actor, status, secret, prefix } = self;
        let mut text = format!("Filter {{ actor: {actor:?}, status: {status:?} }}");
        if secret.is_some() || prefix.is_some() {
            text += &format!(" {secret:?} {prefix:?}");
        }
        text
    }
}

/// Parses a filter. An empty filter matches all keys.
///
/// # Errors
/// Fails with a description of the problem.
pub(crate) fn parse(text: &str) -> Result<ListFilter, &'static str> {
    const FORM: &str = "must be `actor_id = \"…\"`, `status = KEY_STATUS_…`, `secret_id = …` or `key_prefix = …`, or \
                        several of them joined by AND";
    const SECRET: &str = "secret_id must be current, retired, unknown or the 16 hexadecimal digits of an id";
    if text.len() > MAX_FILTER {
        return Err("must be 1024 bytes at most");
    }
    // No actor id has a control character, and not every database can compare with a NUL.
    if text.chars().any(|char| char.is_control() && !char.is_whitespace()) {
        return Err("must have no control characters");
    }
    let mut filter = ListFilter::default();
    for (name, value) in comparisons(text).ok_or(FORM)? {
        match name {
            "actor_id" if filter.actor.is_none() => filter.actor = Some(value),
            "status" if filter.status.is_none() => {
                let status = Status::from_name(&value);
                filter.status = Some(status.ok_or("status must be KEY_STATUS_ACTIVE, _REVOKED or _EXPIRED")?);
            }
            "secret_id" if filter.secret.is_none() => {
                filter.secret = Some(SecretSelector::parse(&value).ok_or(SECRET)?);
            }
            "key_prefix" if filter.prefix.is_none() => {
                let prefix = KeyPrefix::parse(&value);
                filter.prefix = Some(prefix.ok_or("key_prefix must be 1 to 16 letters, digits and _")?);
            }
            "actor_id" | "status" | "secret_id" | "key_prefix" => return Err("names a field twice"),
            _ => return Err(FORM),
        }
    }
    Ok(filter)
}

/// Splits a filter into its comparisons: `name = value`, joined by `AND`. `None` if it has another
/// form.
pub(super) fn comparisons(text: &str) -> Option<Vec<(&str, String)>> {
    let mut found = vec![];
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = take_value(after.trim_start())?;
        found.push((name.trim(), value));
        rest = after.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix("AND").filter(|rest| rest.starts_with(char::is_whitespace))?;
            rest = rest.trim_start();
            if rest.is_empty() {
                return None;
            }
        }
    }
    Some(found)
}

/// Splits off a quoted text (with `\` before a quote or `\`) or a bare word.
fn take_value(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\''));
    let Some(quote) = quote else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@' | '/');
        return (!word.is_empty() && word.chars().all(plain)).then(|| (word.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            _ if character == quote => return Some((value, &text[at + 1..])),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn table() {
        let filter = |actor: Option<&str>, status| ListFilter {
            actor: actor.map(str::to_owned),
            status,
            ..ListFilter::default()
        };
        let of_secret = |secret| ListFilter { secret: Some(secret), ..ListFilter::default() };
        for (text, expected) in [
            ("", filter(None, None)),
            ("actor_id = \"user 1\"", filter(Some("user 1"), None)),
            ("actor_id=user_1", filter(Some("user_1"), None)),
            ("actor_id='a\\'b'", filter(Some("a'b"), None)),
            ("status = KEY_STATUS_ACTIVE", filter(None, Some(Status::Active))),
            ("secret_id = current", of_secret(SecretSelector::Current)),
            ("secret_id = retired", of_secret(SecretSelector::Retired)),
            ("secret_id = \"unknown\"", of_secret(SecretSelector::Unknown)),
            (
                "secret_id = 00000000000000ff",
                of_secret(SecretSelector::Id(SecretId::new([0, 0, 0, 0, 0, 0, 0, 0xff]))),
            ),
            (
                "key_prefix = ory_ak",
                ListFilter { prefix: KeyPrefix::parse("ory_ak"), ..ListFilter::default() },
            ),
            ("status=\"KEY_STATUS_REVOKED\" AND actor_id=\"a\"", filter(Some("a"), Some(Status::Revoked))),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in [
            "name = \"x\"",
            "actor_id",
            "actor_id = ",
            "actor_id = \"x",
            "actor_id = \"x\" AND",
            "actor_id = \"x\" OR status = KEY_STATUS_ACTIVE",
            "actor_id = \"x\" status = KEY_STATUS_ACTIVE",
            "actor_id = \"x\" AND actor_id = \"y\"",
            "actor_id != \"x\"",
            "status = ACTIVE",
            "secret_id = old",
            "secret_id = current AND secret_id = retired",
            "key_prefix = \"\"",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn any_actor_can_be_asked_for(actor in "\\PC{1,40}") {
            let quoted = actor.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(parse(&format!("actor_id = \"{quoted}\"")).unwrap().actor, Some(actor));
        }
    }
}
