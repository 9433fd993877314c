//! List filters: the part of AIP-160 that compares `actor_id` and `status` with `=`, joined by
//! `AND`.

use crate::key::Status;
use crate::store::Filter;

/// Maximum length of a filter, in bytes.
pub const MAX_FILTER: usize = 1_024;

/// Parses a filter. An empty filter matches all keys.
///
/// # Errors
/// Fails with a description of the problem.
pub fn parse(text: &str) -> Result<Filter, &'static str> {
    const FORM: &str = "must be `actor_id = \"…\"` or `status = KEY_STATUS_…`, or both joined by AND";
    if text.len() > MAX_FILTER {
        return Err("must be 1024 bytes at most");
    }
    // No actor id has a control character, and not every database can compare with a NUL.
    if text.chars().any(|char| char.is_control() && !char.is_whitespace()) {
        return Err("must have no control characters");
    }
    let mut filter = Filter::default();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(FORM)?;
        let (value, after) = take_value(after.trim_start()).ok_or(FORM)?;
        match name.trim() {
            "actor_id" if filter.actor.is_none() => filter.actor = Some(value),
            "status" if filter.status.is_none() => {
                let status = Status::from_name(&value);
                filter.status = Some(status.ok_or("status must be KEY_STATUS_ACTIVE, _REVOKED or _EXPIRED")?);
            }
            "actor_id" | "status" => return Err("names a field twice"),
            _ => return Err(FORM),
        }
        rest = after.trim_start();
        if !rest.is_empty() {
            rest =
                rest.strip_prefix("AND").filter(|rest| rest.starts_with(char::is_whitespace)).ok_or(FORM)?;
            rest = rest.trim_start();
            if rest.is_empty() {
                return Err(FORM);
            }
        }
    }
    Ok(filter)
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
        let filter = |actor: Option<&str>, status| Filter { actor: actor.map(str::to_owned), status };
        for (text, expected) in [
            ("", filter(None, None)),
            ("actor_id = \"user 1\"", filter(Some("user 1"), None)),
            ("actor_id=user_1", filter(Some("user_1"), None)),
            ("actor_id='a\\'b'", filter(Some("a'b"), None)),
            ("status = KEY_STATUS_ACTIVE", filter(None, Some(Status::Active))),
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
