//! A YAML or JSON document as a tree of values, with the line of each.
//!
//! Scalars stay as they are written: which value a scalar has depends on the field that it is for.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Tree<'t> {
    /// Line in the file, from 1.
    pub line: u32,
    /// The value.
    pub data: Data<'t>,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Data<'t> {
    /// `null`, `~`, or nothing.
    Null,
    /// A scalar without quotes: text, number or boolean.
    Plain(Cow<'t, str>),
    /// A scalar in quotes.
    Quoted(Cow<'t, str>),
    /// A block scalar (`|` or `>`), whose text begins in the next line.
    Block(Cow<'t, str>),
    /// A list.
    List(Box<[Tree<'t>]>),
    /// A map, sorted by key. Each key is there once.
    Map(Box<[(Cow<'t, str>, Tree<'t>)]>),
}

impl PartialEq for Tree<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Eq for Tree<'_> {}

impl Hash for Tree<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.data.hash(state);
    }
}

/// The absent value.
pub(super) static NULL: Tree<'static> = Tree { line: 0, data: Data::Null };

impl<'t> Tree<'t> {
    /// Creates a map. Of entries with the same key the last one counts, as for Envoy.
    pub(super) fn map(line: u32, mut entries: Vec<(Cow<'t, str>, Self)>) -> Self {
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        // `dedup_by` keeps the first of equal entries, and gives both as (later, earlier).
        entries.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                std::mem::swap(later, kept);
            }
            is_same
        });
        Self { line, data: Data::Map(entries.into_boxed_slice()) }
    }

    /// Returns the entries of a map; none of other values.
    pub(super) fn entries(&self) -> &[(Cow<'t, str>, Self)] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns an entry of a map by its key.
    pub(super) fn entry(&self, key: &str) -> Option<&Self> {
        let entries = self.entries();
        let found = entries.binary_search_by(|(name, _)| name.as_ref().cmp(key)).ok()?;
        entries.get(found).map(|(_, value)| value)
    }

    /// Returns the items of a list; none of other values.
    pub(super) fn list(&self) -> &[Self] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// Returns true for a list without items.
    pub(super) fn list_is_empty(&self) -> bool {
        matches!(&self.data, Data::List(items) if items.is_empty())
    }

    /// Returns the text of a scalar as it is written, without its quotes.
    pub(super) fn scalar(&self) -> Option<&str> {
        match &self.data {
            Data::Plain(text) | Data::Quoted(text) | Data::Block(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the text, if the value is text for Envoy: not a number or a boolean.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Plain(text) => {
                (plain_bool(text).is_none() && plain_integer(text).is_none()).then_some(text)
            }
            Data::Quoted(text) | Data::Block(text) => Some(text),
            _ => None,
        }
    }

    /// Returns true for `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// Returns true for a map.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.data, Data::Map(_))
    }

    /// Returns a boolean as Envoy reads it for a field of that type. `BoolValue` may be wrapped.
    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.data {
            Data::Plain(text) => plain_bool(text).or_else(|| match plain_integer(text) {
                None => text_bool(text),
                Some(_) => None,
            }),
            Data::Quoted(text) | Data::Block(text) => text_bool(text),
            Data::Map(_) => self.wrapped().map_or(Some(false), Self::boolean),
            _ => None,
        }
    }

    /// Returns a number as Envoy reads it for a numeric field. `UInt32Value` and the like may be
    /// wrapped.
    pub(super) fn float(&self) -> Option<f64> {
        let number = match &self.data {
            Data::Plain(text) => match plain_integer(text) {
                #[allow(clippy::cast_precision_loss, reason = "a number that large is as large")]
                Some(integer) => integer as f64,
                None => text.parse().ok()?,
            },
            Data::Quoted(text) => text.parse().ok()?,
            Data::Map(_) => return self.wrapped().map_or(Some(0.0), Self::float),
            _ => return None,
        };
        number.is_finite().then_some(number)
    }

    /// Returns a whole number as Envoy reads it for an unsigned field.
    pub(super) fn number(&self) -> Option<u64> {
        match &self.data {
            Data::Plain(text) => match plain_integer(text) {
                Some(integer) => u64::try_from(integer).ok(),
                None => text.parse().ok().or_else(|| whole(self.float()?)),
            },
            Data::Quoted(text) => text.parse().ok().or_else(|| whole(self.float()?)),
            Data::Map(_) => self.wrapped().map_or(Some(0), Self::number),
            _ => None,
        }
    }

    /// Returns a duration in seconds: `0.250s`, or `{seconds, nanos}`.
    pub(super) fn seconds(&self) -> Option<f64> {
        if self.is_map() {
            let part = |name| self.entry(name).map_or(Some(0.0), Self::float);
            let seconds = part("seconds")? + part("nanos")? / 1e9;
            return (seconds >= 0.0).then_some(seconds);
        }
        let digits = self.scalar()?.strip_suffix('s')?;
        let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.ends_with(|c: char| c.is_ascii_digit());
        is_decimal.then(|| digits.parse().ok()).flatten()
    }

    /// Returns the number of levels of lists and maps. The reader bounds it.
    pub(super) fn height(&self) -> usize {
        match &self.data {
            Data::List(items) => 1 + items.iter().map(Self::height).max().unwrap_or(0),
            Data::Map(entries) => 1 + entries.iter().map(|(_, value)| value.height()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Returns the value in a wrapper message; none of an empty one, whose value is the default.
    fn wrapped(&self) -> Option<&Self> {
        self.entry("value").filter(|value| !value.is_null())
    }

    /// Returns true if the predicate holds for some scalar within the value; keys don't count.
    pub(super) fn any_scalar(&self, predicate: &impl Fn(&str) -> bool) -> bool {
        let mut open = vec![self];
        while let Some(tree) = open.pop() {
            match &tree.data {
                Data::List(items) => open.extend(items.iter()),
                Data::Map(entries) => open.extend(entries.iter().map(|(_, value)| value)),
                _ if tree.scalar().is_some_and(predicate) => return true,
                _ => {}
            }
        }
        false
    }
}

/// Returns the boolean that Envoy's YAML reader takes a scalar without quotes for.
fn plain_bool(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let is_all = |case: fn(&u8) -> bool| text.bytes().all(|byte| case(&byte));
    let rest = text.get(1..).unwrap_or_default();
    let is_capitalized = rest.bytes().all(|byte| byte.is_ascii_lowercase());
    if text.len() > 5 || !(is_all(u8::is_ascii_uppercase) || is_capitalized) {
        return None;
    }
    match lower.as_str() {
        "y" | "yes" | "true" | "on" => Some(true),
        "n" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// Returns the boolean that a text is for a field of that type.
fn text_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// Returns the whole number that Envoy's YAML reader takes a scalar without quotes for: decimal,
/// hexadecimal with `0x`, or octal with `0`.
fn plain_integer(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let magnitude = match (hexadecimal, digits.strip_prefix('0')) {
        (Some(digits), _) => i64::from_str_radix(digits, 16),
        (None, Some(octal)) if !octal.is_empty() => i64::from_str_radix(octal, 8),
        _ => digits.parse(),
    };
    magnitude.ok().map(|number| if is_negative { -number } else { number })
}

/// Returns a number that has no fraction.
fn whole(number: f64) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    let integer = number as u64;
    ((0.0..9e15).contains(&number) && number.fract() == 0.0).then_some(integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Tree<'_> {
        Tree { line: 1, data: Data::Plain(text.into()) }
    }

    fn quoted(text: &str) -> Tree<'_> {
        Tree { line: 1, data: Data::Quoted(text.into()) }
    }

    /// Each row was tried on Envoy 1.40.
    #[test]
    fn booleans_as_envoy_reads_them() {
        for text in ["yes", "y", "Y", "on", "True", "TRUE", "tRue", "true", "t"] {
            assert_eq!(plain(text).boolean(), Some(true), "{text}");
        }
        for text in ["yes", "true", "True", "TRUE", "1", "t"] {
            assert_eq!(quoted(text).boolean(), Some(true), "{text:?}");
        }
        for text in ["no", "off", "N", "false", "f"] {
            assert_eq!(plain(text).boolean(), Some(false), "{text}");
        }
        for text in ["1", "0", "maybe", "oN", ""] {
            assert_eq!(plain(text).boolean(), None, "{text}");
        }
        for text in ["on", "2", ""] {
            assert_eq!(quoted(text).boolean(), None, "{text:?}");
        }
        let wrapped = |value| Tree::map(1, vec![("value".into(), value)]);
        assert_eq!(wrapped(plain("yes")).boolean(), Some(true));
        assert_eq!(Tree::map(1, vec![]).boolean(), Some(false));
        assert_eq!(NULL.boolean(), None);
    }

    #[test]
    fn numbers_as_envoy_reads_them() {
        for (tree, expected) in [
            (plain("2"), Some(2)),
            (quoted("2"), Some(2)),
            (plain("2.0"), Some(2)),
            (quoted("2.0"), Some(2)),
            (plain("0x10"), Some(16)),
            (plain("010"), Some(8)),
            (plain("1e1"), Some(10)),
            (plain("+2"), Some(2)),
            (quoted("18446744073709551615"), Some(u64::MAX)),
            (quoted(" 2"), None),
            (plain("1_0"), None),
            (plain("-1"), None),
            (plain("1.5"), None),
            (Tree::map(1, vec![("value".into(), quoted("3"))]), Some(3)),
        ] {
            assert_eq!(tree.number(), expected, "{tree:?}");
        }
    }

    #[test]
    fn durations_as_envoy_reads_them() {
        for (text, seconds) in [
            ("0.250s", Some(0.25)),
            ("600s", Some(600.0)),
            ("1", None),
            ("-1s", None),
            ("NaNs", None),
            (".5s", None),
            ("1.s", None),
            ("1e1s", None),
            ("+1s", None),
            ("1 s", None),
        ] {
            assert_eq!((plain(text).seconds(), quoted(text).seconds()), (seconds, seconds), "{text}");
        }
        let parts = Tree::map(1, vec![("seconds".into(), quoted("60")), ("nanos".into(), plain("5"))]);
        assert_eq!(parts.seconds(), Some(60.000_000_005));
        assert_eq!(Tree::map(1, vec![]).seconds(), Some(0.0));
    }

    #[test]
    fn numbers_and_booleans_are_no_texts() {
        for text in ["off", "yes", "5", "0x10"] {
            assert_eq!((plain(text).text(), quoted(text).text()), (None, Some(text)));
        }
        assert_eq!((plain("1.5").text(), plain("offline").text()), (Some("1.5"), Some("offline")));
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let entries = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")];
        let map = Tree::map(1, entries.map(|(key, value)| (key.into(), plain(value))).to_vec());
        assert_eq!(map.entries().len(), 2);
        assert_eq!(map.entry("a"), Some(&plain("4")));
    }
}
