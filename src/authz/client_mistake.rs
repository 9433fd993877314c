//! Frequent mistakes of clients in what they send as a credential, seen in its text alone.
//!
//! Made only for refused credentials. Says nothing about keys, and never repeats the text.

use crate::escape::is_invisible;

/// Texts that a program writes for a variable without a value.
const UNSET: [&str; 8] =
    ["undefined", "null", "(null)", "none", "nil", "nan", "[object object]", "[object promise]"];
/// Parts of placeholders in examples.
const PLACEHOLDERS: [&str; 6] =
    ["your_api_key", "your-api-key", "your_key", "your-key", "api_key_here", "api-key-here"];
/// Schemes that are sent a second time.
const SCHEMES: [&str; 4] = ["bearer ", "apikey ", "token ", "basic "];

/// Returns what is wrong with a credential, None if nothing is to be seen.
pub(super) fn find(credential: &str) -> Option<&'static str> {
    let text = credential.to_ascii_lowercase();
    let is_within = |open: &str, close: &str| {
        text.len() >= open.len() + close.len() && text.starts_with(open) && text.ends_with(close)
    };
    let has_quotes = ["\"", "'", "`"].iter().any(|quote| is_within(quote, quote));
    let is_placeholder = is_within("${", "}")
        || is_within("$(", ")")
        || is_within("{{", "}}")
        || is_within("<", ">")
        || PLACEHOLDERS.iter().any(|part| text.contains(part));
    match () {
        () if UNSET.contains(&text.as_str()) => {
            Some("it is what a program writes for a variable that isn't set")
        }
        () if is_placeholder => Some("it is a placeholder that nothing has replaced"),
        () if has_quotes => Some("it has quotes around it: leave them out"),
        () if SCHEMES.iter().any(|scheme| text.starts_with(scheme)) => {
            Some("the scheme stands in it, too: send it once")
        }
        () if text.ends_with("\\n") || text.ends_with("%0a") => {
            Some("it ends with a line ending in letters: leave it out")
        }
        () if text.contains(is_invisible) => {
            Some("it has an invisible character, as texts have that are copied from a page")
        }
        () if text.ends_with([',', ';']) => Some("it ends with a comma or semicolon: leave it out"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_without_the_text() {
        for (credential, part) in [
            ("undefined", "isn't set"),
            ("None", "isn't set"),
            ("[object Object]", "isn't set"),
            ("${API_KEY}", "placeholder"),
            ("<api-key>", "placeholder"),
            ("YOUR_API_KEY", "placeholder"),
            ("\"s3cr3t\"", "quotes"),
            ("\"", ""),
            ("'s3cr3t'", "quotes"),
            ("Bearer s3cr3t", "scheme"),
            ("s3cr3t\\n", "line ending"),
            ("s3cr3t\u{a0}", "invisible"),
            ("\u{feff}s3cr3t", "invisible"),
            ("s3cr3t;", "semicolon"),
            ("s3cr3t", ""),
            ("nullable", ""),
            ("", ""),
        ] {
            let told = find(credential).unwrap_or_default();
            assert!(told.contains(part) && told.is_empty() == part.is_empty(), "{credential}: {told}");
            assert!(!told.contains("s3cr3t"), "{told}");
        }
    }
}
