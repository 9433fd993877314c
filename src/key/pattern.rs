//! Patterns for the names of keys: a bounded subset of regular expressions, whose matching takes
//! time in proportion to pattern and name.

mod parse;

use std::fmt;
use std::sync::Arc;

use self::parse::{Class, Program, Step, parse};
use super::FieldError;

/// Pattern of names: literals, `.`, classes such as `[a-z0-9-]`, `\d`, `\w`, `\s`, groups with
/// `|`, and the quantifiers `*`, `+`, `?` and `{2,5}`.
///
/// `^` at its start and `$` at its end bind it to the ends of a name. With neither, it has to match
/// the whole name.
#[derive(Clone)]
pub struct NamePattern {
    text: Arc<str>,
    program: Arc<Program>,
}

impl NamePattern {
    /// Maximum length of a pattern, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails if it is too long or too complex, or has something that isn't supported.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() || text.len() > Self::MAX_LEN {
            return Err(FieldError::new("must be a pattern of 1 to 256 bytes"));
        }
        let program = parse(text).map_err(FieldError::new)?;
        Ok(Self { text: text.into(), program: Arc::new(program) })
    }

    /// Returns the text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        let Program { steps, from_start, to_end } = &*self.program;
        let mut active = States::new(steps.len());
        let mut next = States::new(steps.len());
        active.follow(steps, 0);
        for character in name.chars() {
            if !to_end && active.has_match {
                return true;
            }
            next.clear();
            for state in active.list.iter().copied() {
                if let Step::Class(class) = &steps[state]
                    && class.has(character)
                {
                    next.follow(steps, state + 1);
                }
            }
            if !from_start {
                next.follow(steps, 0);
            }
            std::mem::swap(&mut active, &mut next);
        }
        active.has_match
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

/// Set of states in which the match may be.
struct States {
    list: Vec<usize>,
    contained: Vec<bool>,
    /// True if the end of the program is among them.
    has_match: bool,
    pending: Vec<usize>,
}

impl States {
    fn new(len: usize) -> Self {
        Self { list: vec![], contained: vec![false; len + 1], has_match: false, pending: vec![] }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.contained.fill(false);
        self.has_match = false;
    }

    /// Adds a state, and those that it leads to without a character.
    fn follow(&mut self, steps: &[Step], state: usize) {
        self.pending.push(state);
        while let Some(state) = self.pending.pop() {
            if std::mem::replace(&mut self.contained[state], true) {
                continue;
            }
            match steps.get(state) {
                None => self.has_match = true,
                Some(Step::Class(_)) => self.list.push(state),
                Some(Step::Jump(to)) => self.pending.push(*to),
                Some(Step::Split(one, other)) => self.pending.extend([*other, *one]),
            }
        }
    }
}

impl Class {
    fn has(&self, character: char) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != self.is_negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).matches(name)
    }

    #[test]
    fn table() {
        for (pattern, good, bad) in [
            ("svc-[a-z]+", &["svc-a", "svc-orders"][..], &["svc-", "xsvc-a", "svc-a1", "svc-ä"][..]),
            ("^svc-", &["svc-", "svc-x y"], &["xsvc-"]),
            ("-(prod|dev)$", &["a-prod", "-dev"], &["prod", "a-prod-"]),
            ("^(?:a|bc)*$", &["", "a", "abca"], &["b", "ab"]),
            ("[^a-c]{2,3}", &["xy", "xyz"], &["x", "xyzz", "ax"]),
            ("a{2}b{1,}", &["aab", "aabbb"], &["ab", "aaab"]),
            (r"\d\w\s\.\-", &["1a .-"], &["aa .-", "1a xx"]),
            ("a?b+c*", &["b", "abbcc"], &["a", "c"]),
            (".+", &["x", "鍵"], &[""]),
            ("x|y", &["x", "y"], &["xy", ""]),
            ("(a|)+b", &["b", "aab"], &["a"]),
            (r"[\d_-]+", &["1_-"], &["a"]),
            ("[]a]+", &["]a"], &["b"]),
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
    fn what_is_not_supported_is_refused() {
        let long = "a".repeat(257);
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        for bad in [
            "",
            &long,
            &deep,
            "(",
            ")",
            "[",
            "a[",
            "[z-a]",
            "*a",
            "a**",
            "a*?",
            "a{2",
            "a{3,2}",
            "a{300}",
            "(?=a)",
            "(?<x>a)",
            r"\b",
            r"\1",
            "\\",
            "a^b",
            "a$b",
            "^a|b",
            "a|b$",
            "((a{200}){200}){200}",
            "a{,3}",
            "(((a?){255}){255}){255}",
        ] {
            assert!(NamePattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = NamePattern::parse("(a*)*(a|a)*(a?){100}b").unwrap();
        let started = std::time::Instant::now();
        assert!(!pattern.matches(&"a".repeat(255)));
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }

    /// A pattern, and the naive reading of it: all texts up to three letters that it has.
    fn patterns() -> impl Strategy<Value = (String, Vec<String>)> {
        let leaf = prop_oneof![
            (0..2_u8).prop_map(|letter| {
                let text = char::from(b'a' + letter).to_string();
                (text.clone(), vec![text])
            }),
            any::<bool>().prop_map(|_| ("[ab]".to_owned(), vec!["a".to_owned(), "b".to_owned()])),
        ];
        let short = |texts: Vec<String>| {
            let mut texts: Vec<String> = texts.into_iter().filter(|text| text.len() <= 3).collect();
            texts.sort();
            texts.dedup();
            texts
        };
        leaf.prop_recursive(4, 16, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..3).prop_map(move |parts| {
                    let pattern: String = parts.iter().map(|(pattern, _)| format!("({pattern})")).collect();
                    let mut texts = vec![String::new()];
                    for (_, more) in &parts {
                        let joined =
                            |one: &String| more.iter().map(|other| format!("{one}{other}")).collect();
                        texts = short(texts.iter().flat_map::<Vec<String>, _>(joined).collect());
                    }
                    (pattern, texts)
                }),
                (inner.clone(), inner.clone()).prop_map(move |((one, texts), (other, more))| {
                    (format!("({one}|{other})"), short(texts.into_iter().chain(more).collect()))
                }),
                inner.prop_map(move |(pattern, texts)| {
                    let mut all = vec![String::new()];
                    for _ in 0..3 {
                        let longer =
                            |one: &String| texts.iter().map(|other| format!("{one}{other}")).collect();
                        let longer: Vec<String> = all.iter().flat_map::<Vec<String>, _>(longer).collect();
                        all = short(all.into_iter().chain(longer).collect());
                    }
                    (format!("({pattern})*"), all)
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_matches_what_a_naive_reading_lists((pattern, texts) in patterns()) {
            let letters = ["", "a", "b"];
            for one in letters {
                for two in letters {
                    for three in letters {
                        let name = format!("{one}{two}{three}");
                        prop_assert_eq!(matches(&pattern, &name), texts.contains(&name), "{} {}", pattern, name);
                    }
                }
            }
        }

        #[test]
        fn parsing_never_panics(text in any::<String>(), name in "\\PC{0,20}") {
            if let Ok(pattern) = NamePattern::parse(&text) {
                pattern.matches(&name);
            }
        }
    }
}
