//! Grammar of filters: comparisons joined by `AND`, a part of AIP-160.

use super::error::FilterError;

/// Comparison of a field with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison<'t> {
    /// Name of the field.
    pub field: &'t str,
    /// Text that follows the name and a dot.
    pub path: Option<String>,
    /// Operator.
    pub operator: Operator,
    /// Value.
    pub value: Text,
}

/// Operator of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `=`
    Equal,
    /// `:`
    Has,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// Text of a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Text {
    /// The text, without quotes and escapes.
    pub text: String,
    /// The first `*` that isn't escaped, in bytes of the text.
    pub wildcard: Option<usize>,
}

/// Meaning of a text: itself, or with `*` at its end all texts that begin like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stem<'a> {
    /// This text.
    Whole(&'a str),
    /// All texts that begin with this one.
    Beginning(&'a str),
}

/// Splits a filter into its comparisons.
///
/// # Errors
/// Fails if it has another form.
pub(super) fn parse(text: &str) -> Result<Vec<Comparison<'_>>, FilterError> {
    // The text itself may be a credential in the wrong place, so errors don't show it.
    let form = |rest: &str| FilterError::Form { position: text.trim_end().len() - rest.len() + 1 };
    let mut found = vec![];
    let mut rest = text.trim();
    while !rest.is_empty() {
        let start = rest;
        let (comparison, after) = take_comparison(rest).ok_or_else(|| form(start))?;
        found.push(comparison);
        rest = after.trim_start();
        if !rest.is_empty() {
            let next = rest.strip_prefix("AND").filter(|next| next.starts_with(char::is_whitespace));
            let next = next.map(str::trim_start).filter(|next| !next.is_empty());
            rest = next.ok_or_else(|| form(rest))?;
        }
    }
    Ok(found)
}

fn take_comparison(text: &str) -> Option<(Comparison<'_>, &str)> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let (field, rest) = split_at_end(text, is_name)?;
    let (path, rest) = match rest.strip_prefix('.') {
        None => (None, rest),
        Some(rest) => {
            let (path, rest) = take_path(rest)?;
            (Some(path), rest)
        }
    };
    let (operator, rest) = take_operator(rest.trim_start())?;
    let (value, rest) = take_value(rest.trim_start())?;
    Some((Comparison { field, path, operator, value }, rest))
}

/// Splits off names with dots between them; each may stand in quotes.
fn take_path(text: &str) -> Option<(String, &str)> {
    let is_name = |char: char| !char.is_whitespace() && !".=:<>!\"'".contains(char);
    let (mut path, mut rest) = (String::new(), text);
    loop {
        if rest.starts_with(['"', '\'']) {
            let (name, after) = take_value(rest)?;
            path.push_str(&name.text);
            rest = after;
        } else {
            let (name, after) = split_at_end(rest, is_name)?;
            path.push_str(name);
            rest = after;
        }
        match rest.strip_prefix('.') {
            None => return Some((path, rest)),
            Some(after) => {
                path.push('.');
                rest = after;
            }
        }
    }
}

/// Splits off the characters that `is_part`; `None` if there are none.
fn split_at_end(text: &str, is_part: impl Fn(char) -> bool) -> Option<(&str, &str)> {
    let end = text.find(|char: char| !is_part(char)).unwrap_or(text.len());
    let (part, rest) = text.split_at(end);
    (!part.is_empty()).then_some((part, rest))
}

fn take_operator(text: &str) -> Option<(Operator, &str)> {
    let operators = [
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("=", Operator::Equal),
        (":", Operator::Has),
    ];
    operators.into_iter().find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?)))
}

/// Splits off a quoted text (with `\` before a quote, `\` or `*`) or a bare word.
fn take_value(text: &str) -> Option<(Text, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\''));
    let Some(quote) = quote else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let plain = |char: char| char.is_alphanumeric() || "_-.:@/+".contains(char);
        let wildcard = word.ends_with('*').then(|| word.len() - 1);
        let is_word = !word.is_empty() && word.strip_suffix('*').unwrap_or(word).chars().all(plain);
        return is_word.then(|| (Text { text: word.to_owned(), wildcard }, rest));
    };
    let mut value = Text::default();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.text.push(characters.next()?.1),
            _ if character == quote => {
                return Some((value, text.get(at + 1..)?));
            }
            _ => {
                if character == '*' {
                    value.wildcard.get_or_insert(value.text.len());
                }
                value.text.push(character);
            }
        }
    }
    None
}

impl Text {
    /// Returns the text before a `*` at its end, or the text as a whole if it has none. `None` if a
    /// `*` has more behind it.
    pub(super) fn stem(&self) -> Option<Stem<'_>> {
        match self.wildcard {
            None => Some(Stem::Whole(&self.text)),
            Some(at) if at + 1 == self.text.len() => Some(Stem::Beginning(self.text.split_at(at).0)),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Option<(String, Option<String>, Operator, String, bool)> {
        let mut found = parse(text).ok()?;
        let Comparison { field, path, operator, value } = found.pop()?;
        Some((
            field.to_owned(),
            path,
            operator,
            value.text.clone(),
            matches!(value.stem(), Some(Stem::Beginning(_))),
        ))
    }

    #[test]
    fn comparisons() {
        let (equal, has) = (Operator::Equal, Operator::Has);
        for (text, field, path, operator, value, has_wildcard) in [
            ("name = \"back*\"", "name", None, equal, "back*", true),
            ("name='b\\*'", "name", None, equal, "b*", false),
            ("name=*", "name", None, equal, "*", true),
            ("scopes:orders:read", "scopes", None, has, "orders:read", false),
            ("metadata.a.b = c", "metadata", Some("a.b"), equal, "c", false),
            ("metadata.\"a = b\":'c'", "metadata", Some("a = b"), has, "c", false),
            ("metadata.a.\"b c\".'d'.e=5", "metadata", Some("a.b c.d.e"), equal, "5", false),
            ("metadata.a.\"b\\\"\"=5", "metadata", Some("a.b\""), equal, "5", false),
            ("x<=2026-01-31T00:00:00Z", "x", None, Operator::AtMost, "2026-01-31T00:00:00Z", false),
        ] {
            let path = path.map(str::to_owned);
            let expected = (field.to_owned(), path, operator, value.to_owned(), has_wildcard);
            assert_eq!(one(text), Some(expected), "{text}");
        }
        assert_eq!(parse("a=1 AND b<2 AND c:3").map(|found| found.len()), Ok(3));
        for bad in [
            "=",
            "a",
            "a=",
            "a = b c",
            "a=b AND",
            "a=b OR c=d",
            "a.=b",
            "a..b=c",
            "a.\"b\"c=d",
            "a != b",
            "a='b",
            "(a=b)",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let error = parse("a=b or c=d").unwrap_err().to_string();
        assert!(error.ends_with("from byte 5 on"), "{error}");
    }
}
