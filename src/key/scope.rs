//! Scopes of a key, and the rule by which one covers another.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::FieldError;

/// Scope: an RFC 6749 (section 3.3) scope-token of 1 to 128 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Scope(Box<str>);

impl Scope {
    /// Maximum length of a scope, in characters.
    pub const MAX_LEN: usize = 128;

    /// Parses a scope.
    ///
    /// # Errors
    /// Fails if it is empty, too long, or has a character that a scope-token can't have.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if fits && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(FieldError::new("must be 1 to 128 printable ASCII characters without space, `\"` and `\\`"))
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Up to 100 different scopes, in the given order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Arc<[Scope]>);

impl Scopes {
    /// Maximum number of scopes.
    pub const MAX: usize = 100;

    /// Parses a list of scopes.
    ///
    /// # Errors
    /// Fails if there are too many, one is malformed or one occurs twice.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, FieldError> {
        if texts.len() > Self::MAX {
            return Err(FieldError::new("must be 100 scopes at most"));
        }
        let mut seen = HashSet::with_capacity(texts.len());
        let mut scopes = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().map(AsRef::as_ref).enumerate() {
            let scope =
                Scope::parse(text).map_err(|error| FieldError(format!("[{index}] {error}").into()))?;
            if !seen.insert(text) {
                return Err(FieldError(format!("[{index}] stands there twice").into()));
            }
            scopes.push(scope);
        }
        Ok(Self(scopes.into()))
    }

    /// Parses the space-separated form of RFC 6749.
    ///
    /// # Errors
    /// Fails like [`Scopes::parse`].
    pub fn parse_spaced(text: &str) -> Result<Self, FieldError> {
        let texts: Vec<&str> = text.split(' ').filter(|scope| !scope.is_empty()).collect();
        Self::parse(&texts)
    }

    /// Returns the scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes on the heap, divided by the rows that have the same ones.
    pub fn heap_bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let bytes = 16 + size_of_val(&*self.0) + self.iter().map(|scope| scope.0.len()).sum::<usize>();
        // The interned ones have a reference, too.
        bytes.div_ceil((Arc::strong_count(&self.0) - 1).max(1))
    }

    /// Returns whether these cover `required`.
    pub fn grant(&self, required: &Scope) -> bool {
        self.iter().any(|granted| covers(granted.as_str(), required.as_str()))
    }

    /// Returns whether these cover all of `required`.
    pub fn grant_all(&self, required: &Self) -> bool {
        required.iter().all(|scope| self.grant(scope))
    }

    /// Returns whether these cover at least one of `required`.
    pub fn grant_any(&self, required: &Self) -> bool {
        required.iter().any(|scope| self.grant(scope))
    }

    /// Returns the scopes that both cover: of two scopes, one of which [`covers`] the other, the
    /// narrower.
    ///
    /// Returns `None` if there are more than [`Scopes::MAX`].
    pub fn intersection(&self, narrower: &Self) -> Option<Self> {
        let mut both: Vec<Scope> = narrower.iter().filter(|scope| self.grant(scope)).cloned().collect();
        for scope in self.iter().filter(|scope| narrower.grant(scope)) {
            if !both.contains(scope) {
                both.push(scope.clone());
            }
        }
        (both.len() <= Self::MAX).then(|| Self(both.into()))
    }
}

impl fmt::Display for Scopes {
    /// Writes the scopes separated by spaces.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                out.write_str(" ")?;
            }
            scope.fmt(out)?;
        }
        Ok(())
    }
}

/// Returns whether `granted` covers `required`: they are equal, or `granted` ends in `:*` and
/// `required` is longer than the part before the `*` and begins with it.
///
/// There are no other wildcards.
pub fn covers(granted: &str, required: &str) -> bool {
    if granted == required {
        return true;
    }
    match granted.strip_suffix('*') {
        Some(stem) if stem.ends_with(':') => required.len() > stem.len() && required.starts_with(stem),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn coverage_table() {
        for (granted, required, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a:*", "a:b", true),
            ("a:*", "a:b:c", true),
            ("a:*", "a", false),
            ("a:*", "a:", false),
            ("a:*", "ab", false),
            ("a:*", "a:*", true),
            ("a:*", "a:b:*", true),
            ("a:b:*", "a:*", false),
            ("a:b", "a:*", false),
            ("*", "a", false),
            ("*", "*", true),
            ("a*", "ab", false),
            ("a:*:b", "a:x:b", false),
        ] {
            assert_eq!(covers(granted, required), expected, "{granted} {required}");
        }
    }

    #[test]
    fn refuses_what_no_header_could_carry() {
        let long = "x".repeat(129);
        for wrong in ["", "a b", "a\"", "a\\", "ü", "a\n", &long] {
            assert!(Scope::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Scopes::parse(&["a", "a"]).is_err());
        assert!(Scopes::parse(&vec!["a"; 101]).is_err());
        assert_eq!(Scopes::parse_spaced("b  a").unwrap().to_string(), "b a");
    }

    #[test]
    fn intersection_table() {
        for (one, other, both) in [
            ("a:*", "a:b", "a:b"),
            ("a:b", "a:*", "a:b"),
            ("a:* b", "b a:c:* a:*", "b a:c:* a:*"),
            ("a b c", "c a", "c a"),
            ("a", "x", ""),
            ("a", "", ""),
            ("", "a", ""),
            ("*", "a", ""),
            ("a:b:* a:c", "a:* c", "a:b:* a:c"),
        ] {
            let scopes = |text| Scopes::parse_spaced(text).unwrap();
            assert_eq!(scopes(one).intersection(&scopes(other)), Some(scopes(both)), "{one} / {other}");
        }
    }

    #[test]
    fn an_intersection_may_be_too_large() {
        let list = |wide: &str, narrow: &str| {
            let many = (0..99).map(|number| format!("{narrow}:{number}"));
            Scopes::parse(&many.chain([format!("{wide}:*")]).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(list("a", "b").intersection(&list("b", "a")), None);
        assert!(list("a", "b").intersection(&list("a", "b")).is_some());
    }

    /// Few scopes, many of which cover each other.
    const NEAR: [&str; 7] = ["a", "a:*", "a:b", "a:b:*", "a:b:c", "b", "*"];

    proptest! {
        #[test]
        fn an_intersection_grants_what_both_grant(
            one in prop::sample::subsequence(&NEAR, 0..=4),
            other in prop::sample::subsequence(&NEAR, 0..=4),
            asked in prop::sample::select(&NEAR),
        ) {
            let (one, other) = (Scopes::parse(&one).unwrap(), Scopes::parse(&other).unwrap());
            let asked = Scope::parse(asked).unwrap();
            let both = one.intersection(&other).unwrap();
            prop_assert_eq!(both.grant(&asked), one.grant(&asked) && other.grant(&asked));
        }

        #[test]
        fn a_wider_grant_never_covers_less(a in "[a:*]{0,6}", b in "[a:*]{0,6}", c in "[a:*]{0,6}") {
            if covers(&a, &b) && covers(&b, &c) {
                prop_assert!(covers(&a, &c), "{a} {b} {c}");
            }
        }
    }
}
