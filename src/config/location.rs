//! Location of a key in a YAML file.
//!
//! The parser's values have no locations, but its errors do. So the file is parsed once more, by a
//! visitor that follows a path and fails at its end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::text::printable_name;

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

impl From<serde_norway::Location> for Location {
    fn from(location: serde_norway::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// Text of the error that reports the end of the path.
const FOUND: &str = "\u{1}the location";

/// Finds the key at a dotted path, or the innermost section around it that is there.
pub(super) fn find(yaml: &[u8], path: &str) -> Option<Location> {
    let mut path = path;
    while !path.is_empty() {
        let found = Follow { rest: path }.deserialize(serde_norway::Deserializer::from_slice(yaml));
        if let Err(error) = found {
            return location_of(&error);
        }
        path = &path[..path.rfind(['.', '['])?];
    }
    None
}

/// A key that its mapping has already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    /// Dotted path, with `…` for a name that doesn't look like one.
    pub path: String,
    /// Location of the second one.
    pub location: Location,
}

/// Finds the first key that its mapping has already.
pub(super) fn find_duplicate(yaml: &[u8]) -> Option<Duplicate> {
    let found = RefCell::new(String::new());
    let unique = Unique { path: String::new(), found: &found };
    let error = unique.deserialize(serde_norway::Deserializer::from_slice(yaml)).err()?;
    let location = location_of(&error)?;
    Some(Duplicate { path: found.take(), location })
}

/// The location of an error that ended a search; None for any other error.
fn location_of(error: &serde_norway::Error) -> Option<Location> {
    let is_found = error.to_string().contains(FOUND);
    error.location().filter(|_| is_found).map(Location::from)
}

/// Follows the rest of a path, from the value at which it stands.
struct Follow<'a> {
    rest: &'a str,
}

impl Follow<'_> {
    fn scalar<E: de::Error>(&self) -> Result<(), E> {
        if self.rest.is_empty() { Err(E::custom(FOUND)) } else { Ok(()) }
    }
}

/// Implements the methods for scalars by one method without the value.
macro_rules! scalars {
    ($result:ty, $value:expr; $($method:ident: $kind:ty,)*) => {$(
        fn $method<E: de::Error>(self, _: $kind) -> Result<$result, E> {
            #[allow(clippy::redundant_closure_call, reason = "the closure is an argument of the macro")]
            ($value)(self)
        }
    )*};
}

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    scalars! { (), |this: Self| this.scalar();
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
        visit_f64: f64, visit_str: &str,
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.scalar()?;
        let wanted = self.rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let wanted = wanted.and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest)));
        for index in 0.. {
            let next = match wanted {
                Some((wanted, rest)) if wanted == index => {
                    items.next_element_seed(Follow { rest: rest.trim_start_matches('.') })?
                }
                _ => items.next_element::<IgnoredAny>()?.map(drop),
            };
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.scalar()?;
        while let Some(inside) = entries.next_key_seed(Key { rest: self.rest })? {
            match inside {
                Some(rest) => entries.next_value_seed(Follow { rest })?,
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Compares a key with the first name of the rest of a path. Its value is the rest after the name.
struct Key<'a> {
    rest: &'a str,
}

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'a> Visitor<'de> for Key<'a> {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any key")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let Some(rest) = self.rest.strip_prefix(printable_name(name)) else {
            return Ok(None);
        };
        match rest.chars().next() {
            None => Err(E::custom(FOUND)),
            Some('.') => Ok(Some(&rest[1..])),
            Some('[') => Ok(Some(rest)),
            Some(_) => Ok(None),
        }
    }

    scalars! { Option<&'a str>, |_| Ok(None);
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
        visit_f64: f64,
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// Value whose mappings have each key once.
struct Unique<'a> {
    /// Dotted path of the value.
    path: String,
    /// Path of the key that is there twice.
    found: &'a RefCell<String>,
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    scalars! { (), |_| Ok(());
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
        visit_f64: f64, visit_str: &str,
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let item = Unique { path: format!("{}[{index}]", self.path), found: self.found };
            if items.next_element_seed(item)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(path) =
            entries.next_key_seed(NewKey { seen: &mut seen, section: &self.path, found: self.found })?
        {
            entries.next_value_seed(Unique { path, found: self.found })?;
        }
        Ok(())
    }
}

/// Key that must not have been seen before, if it is a text. Its value is its path.
struct NewKey<'a> {
    seen: &'a mut BTreeSet<String>,
    section: &'a str,
    found: &'a RefCell<String>,
}

impl NewKey<'_> {
    fn path(&self, name: &str) -> String {
        match self.section {
            "" => name.to_owned(),
            section => format!("{section}.{name}"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any key")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<String, E> {
        let path = self.path(printable_name(name));
        if self.seen.insert(name.to_owned()) {
            return Ok(path);
        }
        *self.found.borrow_mut() = path;
        Err(E::custom(FOUND))
    }

    scalars! { String, |this: Self| Ok(this.path(printable_name("")));
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
        visit_f64: f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_items_and_the_sections_around_what_is_absent() {
        let yaml = "\
# a comment
serve:
  http: {port: 1,
    prt: 2}
cache.ttl: 1m
authz:
  sources:
    - header: a
    - {heder: b}
  routes: [{mode: off}]
1: x
'a key that is a secret': 1
";
        for (path, line, column) in [
            ("serve", 2, 1),
            ("serve.http.port", 3, 10),
            ("serve.http.prt", 4, 5),
            ("serve.http.tls.key_file", 3, 3),
            ("cache.ttl", 5, 1),
            ("authz.sources[1]", 9, 7),
            ("authz.sources[1].heder", 9, 8),
            ("authz.sources[7]", 7, 3),
            ("authz.routes[0].mode", 10, 13),
            ("…", 12, 1),
        ] {
            assert_eq!(find(yaml.as_bytes(), path), Some(Location { line, column }), "{path}");
        }
        for path in ["db.dsn", "top level", ""] {
            assert_eq!(find(yaml.as_bytes(), path), None, "{path}");
        }
        let twice = b"a: {b: 1}\nc:\n  - {b: 1}\n  - {b: 2, d: 3,\n     b: 4}\n";
        let location = Location { line: 5, column: 6 };
        assert_eq!(find_duplicate(twice), Some(Duplicate { path: "c[1].b".to_owned(), location }));
        assert_eq!(find(twice, "c[1].b"), Some(Location { line: 4, column: 6 }));
        let hidden = b"a:\n  'a secret': 1\n  'a secret': 2\n";
        let location = Location { line: 3, column: 3 };
        assert_eq!(find_duplicate(hidden), Some(Duplicate { path: "a.\u{2026}".to_owned(), location }));
        assert_eq!(find_duplicate(yaml.as_bytes()), None);
    }
}
