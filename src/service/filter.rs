//! List filters: the part of AIP-160 that joins comparisons by `AND`.

mod error;
mod grammar;

use std::fmt;

use crate::clock::Timestamp;
use crate::key::{KeyPrefix, MAX_LABEL, Scope, SecretId, Status};
use crate::settings::Settings;
use crate::store::{Conditions, Filter, NEVER_EXPIRES, NameFilter, TimeRange};
use error::FilterError;
use grammar::{Comparison, Operator, Stem, Text};

/// Maximum length of a filter, in bytes.
pub const MAX_FILTER: usize = 1_024;
/// Most scopes, and most values of metadata, of a filter.
const MAX_REPEATED: usize = 8;
/// First and last microsecond that a time can name.
const TIMES: (i64, i64) = (-62_167_219_200_000_000, 253_402_300_799_999_999);
/// Text for a time that never comes.
const NEVER: &str = "never";

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
    /// Time of creation.
    pub created: TimeRange,
    /// All other conditions.
    pub more: Conditions,
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
        let Self { actor, status, secret: _, prefix, created, more } = self;
        Filter { actor, status, secrets, prefix, created, more: Box::new(more) }
    }

    /// Returns a text that no other filter has, to which page tokens are bound.
    pub(super) fn describe(&self) -> String {
        let Self { actor, status, secret, prefix, created, more } = self;
        let mut text = format!("Filter {{ actor: {actor:?}, status: {status:?} }}");
        if secret.is_some() || prefix.is_some() {
            text += &format!(" {secret:?} {prefix:?}");
        }
        if created.is_bounded() || *more != Conditions::default() {
            text += &format!(" {created:?} {more:?}");
        }
        text
    }

    fn add(&mut self, comparison: Comparison<'_>) -> Result<(), FilterError> {
        let Comparison { field, path, operator, value } = comparison;
        if path.is_some() != (field == "metadata") {
            return Err(FilterError::unknown_field(&match &path {
                Some(path) => format!("{field}.{path}"),
                None => field.to_owned(),
            }));
        }
        match field {
            "actor_id" => set(&mut self.actor, "actor_id", operator, Some(value.text), "")?,
            "status" => {
                let form = "KEY_STATUS_ACTIVE, _REVOKED or _EXPIRED";
                set(&mut self.status, "status", operator, Status::from_name(&value.text), form)?;
            }
            "secret_id" => {
                let form = "current, retired, unknown or the 16 hexadecimal digits of an id";
                set(&mut self.secret, "secret_id", operator, SecretSelector::parse(&value.text), form)?;
            }
            "key_prefix" => {
                let form = "1 to 16 letters, digits and _";
                set(&mut self.prefix, "key_prefix", operator, KeyPrefix::parse(&value.text), form)?;
            }
            "name" => {
                let form = "1 to 255 characters, with * at the end for all names that begin with them (\\* in quotes is a *)";
                set(&mut self.more.name, "name", operator, name_filter(&value), form)?;
            }
            "scope" | "scopes" => {
                let scope = Scope::parse(&value.text).ok().map(|scope| scope.as_str().to_owned());
                let form = "one scope";
                push(&mut self.more.scopes, "scopes", operator, scope, form)?;
            }
            "metadata" => {
                let found = path.map(|path| (path, value.text));
                push(&mut self.more.metadata, "metadata", operator, found, "a value")?;
            }
            "create_time" => add_time(&mut self.created, "create_time", operator, &value.text)?,
            "expire_time" => match (operator, value.text.as_str()) {
                (Operator::Equal, NEVER) => bound(&mut self.more.expires.from, "expire_time", NEVER_EXPIRES)?,
                (_, text) => add_time(&mut self.more.expires, "expire_time", operator, text)?,
            },
            "last_used_time" => match (operator, value.text.as_str()) {
                (Operator::Equal, NEVER) => bound(&mut self.more.last_used.until, "last_used_time", 0)?,
                (_, text) => {
                    let used = &mut self.more.last_used;
                    add_time(used, "last_used_time", operator, text)?;
                    // Keys that were never used are earlier than any time, those before 1970, too.
                    *used = TimeRange {
                        from: used.from.map(|from| from.max(0)),
                        until: used.until.map(|until| until.max(0)),
                    };
                }
            },
            _ => return Err(FilterError::unknown_field(field)),
        }
        Ok(())
    }
}

/// Sets a condition that a filter has at most once.
fn set<T>(
    condition: &mut Option<T>,
    field: &'static str,
    operator: Operator,
    value: Option<T>,
    form: &'static str,
) -> Result<(), FilterError> {
    if !matches!(operator, Operator::Equal) {
        return Err(FilterError::Operator { field, operators: "=" });
    }
    if condition.is_some() {
        return Err(FilterError::Twice { field });
    }
    *condition = Some(value.ok_or(FilterError::Value { field, form })?);
    Ok(())
}

/// Adds a condition of which a filter has several.
fn push<T>(
    conditions: &mut Vec<T>,
    field: &'static str,
    operator: Operator,
    value: Option<T>,
    form: &'static str,
) -> Result<(), FilterError> {
    if !matches!(operator, Operator::Equal | Operator::Has) {
        return Err(FilterError::Operator { field, operators: ": or =" });
    }
    if conditions.len() == MAX_REPEATED {
        return Err(FilterError::TooMany { field, most: MAX_REPEATED });
    }
    conditions.push(value.ok_or(FilterError::Value { field, form })?);
    Ok(())
}

fn name_filter(value: &Text) -> Option<NameFilter> {
    let name = match value.stem()? {
        Stem::Beginning(text) => NameFilter::StartsWith(text.to_owned()),
        Stem::Whole(text) => NameFilter::Is(text.to_owned()),
    };
    (1..=MAX_LABEL).contains(&name.text().chars().count()).then_some(name)
}

fn add_time(
    range: &mut TimeRange,
    field: &'static str,
    operator: Operator,
    text: &str,
) -> Result<(), FilterError> {
    let operators = match field {
        "create_time" => "<, <=, > or >=, and a time",
        _ => "<, <=, > or >= and a time, or = never",
    };
    if matches!(operator, Operator::Equal | Operator::Has) {
        return Err(FilterError::Operator { field, operators });
    }
    let form = "a time such as \"2026-01-31T00:00:00Z\"";
    let time = Timestamp::from_rfc3339(text).ok_or(FilterError::Value { field, form })?.as_micros();
    let within = |time: i64| time.clamp(TIMES.0, TIMES.1);
    match operator {
        Operator::Less => bound(&mut range.until, field, within(time)),
        Operator::AtMost => bound(&mut range.until, field, within(time.saturating_add(1))),
        Operator::Greater => bound(&mut range.from, field, within(time.saturating_add(1))),
        _ => bound(&mut range.from, field, within(time)),
    }
}

fn bound(bound: &mut Option<i64>, field: &'static str, time: i64) -> Result<(), FilterError> {
    match bound.replace(time) {
        None => Ok(()),
        Some(_) => Err(FilterError::Twice { field }),
    }
}

/// Writes the filter as it is parsed, but for `search`.
impl fmt::Display for ListFilter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('*', "\\*");
        let quoted = |text: &str| format!("\"{}\"", escape(text));
        let mut parts = vec![];
        parts.extend(self.actor.as_ref().map(|actor| format!("actor_id = {}", quoted(actor))));
        parts.extend(self.status.map(|status| format!("status = {}", status.name())));
        parts.extend(self.secret.map(|secret| format!("secret_id = {secret}")));
        parts.extend(self.prefix.as_ref().map(|prefix| format!("key_prefix = {}", prefix.as_str())));
        parts.extend(self.more.name.as_ref().map(|name| match name {
            NameFilter::Is(text) => format!("name = {}", quoted(text)),
            NameFilter::StartsWith(text) => format!("name = \"{}*\"", escape(text)),
        }));
        parts.extend(self.more.scopes.iter().map(|scope| format!("scopes:{}", quoted(scope))));
        let metadata = self.more.metadata.iter();
        parts.extend(metadata.map(|(path, value)| format!("metadata.{} = {}", quoted(path), quoted(value))));
        for (field, TimeRange { from, until }) in [
            ("create_time", self.created),
            ("expire_time", self.more.expires),
            ("last_used_time", self.more.last_used),
        ] {
            let time = |time: i64| Timestamp::from_micros(time).to_rfc3339();
            let is_never = (from == Some(NEVER_EXPIRES), field == "last_used_time" && until == Some(0));
            parts.extend(from.map(|from| match is_never.0 {
                true => format!("{field} = {NEVER}"),
                false => format!("{field} >= \"{}\"", time(from)),
            }));
            parts.extend(until.map(|until| match is_never.1 {
                true => format!("{field} = {NEVER}"),
                false => format!("{field} < \"{}\"", time(until)),
            }));
        }
        out.write_str(&parts.join(" AND "))
    }
}

/// Parses a filter. An empty filter matches all keys.
///
/// # Errors
/// Fails with the problem, the field and the cure.
pub(crate) fn parse(text: &str) -> Result<ListFilter, FilterError> {
    if text.len() > MAX_FILTER {
        return Err(FilterError::TooLong);
    }
    // No text of a key has a control character, and not every database can compare with a NUL.
    if text.chars().any(|char| char.is_control() && !char.is_whitespace()) {
        return Err(FilterError::ControlCharacter);
    }
    let mut filter = ListFilter::default();
    for comparison in grammar::parse(text)? {
        filter.add(comparison)?;
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
            ("actor_id = \"a*\"", filter(Some("a*"), None)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in [
            "nom = \"x\"",
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

    #[test]
    fn further_fields() {
        let more = |more: Conditions| ListFilter { more, ..ListFilter::default() };
        let time = Timestamp::from_rfc3339("2026-01-31T00:00:00Z").unwrap().as_micros();
        let range = |from, until| TimeRange { from, until };
        for (text, expected) in [
            (
                "name = backend",
                Conditions { name: Some(NameFilter::Is("backend".into())), ..Conditions::default() },
            ),
            (
                "name = 'Back*'",
                Conditions { name: Some(NameFilter::StartsWith("Back".into())), ..Conditions::default() },
            ),
            (
                "name = 'b\\*'",
                Conditions { name: Some(NameFilter::Is("b*".into())), ..Conditions::default() },
            ),
            (
                "scopes:orders:read AND scope = a",
                Conditions { scopes: vec!["orders:read".into(), "a".into()], ..Conditions::default() },
            ),
            (
                "metadata.a.b:5",
                Conditions { metadata: vec![("a.b".into(), "5".into())], ..Conditions::default() },
            ),
            (
                "expire_time <= 2026-01-31T00:00:00Z",
                Conditions { expires: range(None, Some(time + 1)), ..Conditions::default() },
            ),
            (
                "expire_time = never",
                Conditions { expires: range(Some(NEVER_EXPIRES), None), ..Conditions::default() },
            ),
            (
                "last_used_time = never",
                Conditions { last_used: range(None, Some(0)), ..Conditions::default() },
            ),
            (
                "last_used_time > '1960-01-01T00:00:00Z' AND last_used_time < '2026-01-31T00:00:00Z'",
                Conditions { last_used: range(Some(0), Some(time)), ..Conditions::default() },
            ),
        ] {
            assert_eq!(parse(text), Ok(more(expected)), "{text}");
            let again = parse(text).unwrap().to_string();
            assert_eq!(parse(&again), parse(text), "{again}");
        }
        let created = parse("create_time > 2026-01-31T00:00:00Z").unwrap().created;
        assert_eq!(created, range(Some(time + 1), None));
    }

    #[test]
    fn errors_name_the_field_and_the_cure() {
        for (text, wanted) in [
            ("colour = red", "colour"),
            ("actor_id.x = red", "actor_id.x"),
            ("metadata = red", "metadata"),
            ("actor_id : red", "actor_id takes ="),
            ("scopes < red", "scopes takes : or ="),
            ("scopes:'a b'", "scopes must be one scope"),
            ("create_time = 2026-01-31T00:00:00Z", "create_time takes <"),
            ("create_time < yesterday", "create_time must be a time such as"),
            ("expire_time = soon", "never"),
            ("last_used_time = never AND last_used_time < 2026-01-31T00:00:00Z", "twice: last_used_time"),
            ("name = '*'", "name must be 1 to 255"),
            ("name = '*end'", "with * at the end for all names"),
            ("name = 'a*b*'", "with * at the end for all names"),
            ("scopes:a AND", "can't be read from byte 10 on"),
            ("ory_ak_v1_0123 = a", "has no field `…`"),
            (&["scopes:a"; 9].join(" AND "), "more than 8 comparisons of scopes"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
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
