//! Patterns for the names of keys.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::FieldError;

/// Size of a compiled pattern, in bytes. A pattern that needs more is refused.
const MAX_COMPILED: usize = 256 * 1024;
/// Size of what matching keeps of a pattern to be quicker the next time, in bytes.
const MAX_MATCHER_CACHE: usize = 512 * 1024;
/// Depth of groups within groups.
const MAX_NESTING: u32 = 32;

/// Regular expression that names have to match, in the syntax of the `regex` crate. Matching takes
/// time in proportion to pattern and name.
///
/// `^` at its start and `$` at its end bind it to the ends of a name. With neither, it has to match
/// the whole name.
#[derive(Clone)]
pub struct NamePattern {
    text: String,
    regex: Regex,
}

impl NamePattern {
    /// Maximum length of a pattern, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails if it is too long or too complex, or is no regular expression.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(FieldError::new("must be a pattern of 1 to 256 bytes"));
        }
        let compile = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(MAX_COMPILED)
                .dfa_size_limit(MAX_MATCHER_CACHE)
                .nest_limit(MAX_NESTING)
                .build()
        };
        // By itself first: `a)(b` is a pattern only within the group.
        let mut regex = compile(text).map_err(|error| FieldError::new(problem(&error)))?;
        if !text.starts_with('^') && !ends_with_anchor(text) {
            let whole = compile(&format!(r"\A(?:{text})\z"));
            regex = whole.map_err(|error| FieldError::new(problem(&error)))?;
        }
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Returns the text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

/// Returns true if a pattern ends with the anchor `$`: `\$` is a dollar sign, `\\$` a backslash at
/// the end of a name.
fn ends_with_anchor(text: &str) -> bool {
    text.strip_suffix('$').is_some_and(|before| {
        let escapes = before.len() - before.trim_end_matches('\\').len();
        escapes.is_multiple_of(2)
    })
}

fn problem(error: &regex::Error) -> &'static str {
    match error {
        regex::Error::CompiledTooBig(_) => "must be a smaller pattern: its repetitions multiply",
        _ => "must be a regular expression, without look-around and back references",
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).matches(name)
    }

    #[test]
    fn table() {
        for (pattern, good, bad) in [
            (
                "svc-[a-z]+",
                &["svc-a", "svc-orders"][..],
                &["svc-", "xsvc-a", "svc-a1", "svc-ä", "svc-a\n"][..],
            ),
            ("^svc-", &["svc-", "svc-x y"], &["xsvc-"]),
            ("-(prod|dev)$", &["a-prod", "-dev"], &["prod", "a-prod-"]),
            ("^(?:a|bc)*$", &["", "a", "abca"], &["b", "ab"]),
            ("x|y", &["x", "y"], &["xy", ""]),
            (".+", &["x", "鍵"], &[""]),
            // A dollar sign or `^` that is escaped or in a class binds nothing.
            (r"svc-\$", &["svc-$"], &["xsvc-$", "svc-$x", "svc-"]),
            (r"svc-\\$", &[r"svc-\", r"xsvc-\"], &["svc-$", r"svc-\x"]),
            (r"svc-\\\$", &[r"svc-\$"], &[r"xsvc-\$", r"svc-\"]),
            ("svc-[$]", &["svc-$"], &["xsvc-$"]),
            (r"\^svc", &["^svc"], &["svc", "x^svc", "^svc-x"]),
            ("[^a]svc", &["bsvc"], &["asvc", "svc", "bbsvc"]),
        ] {
            for name in good {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in bad {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn invalid_or_too_large_patterns_are_refused() {
        let long = "a".repeat(257);
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        for bad in [
            "",
            &long,
            &deep,
            "(",
            ")",
            "a)(b",
            "[",
            "[z-a]",
            "*a",
            "a{3,2}",
            "(?=a)",
            r"\1",
            "(((a?){255}){255}){255}",
        ] {
            assert!(NamePattern::parse(bad).is_err(), "{bad}");
        }
    }
}
