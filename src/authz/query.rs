//! Query parameters in form encoding: `name=value&…`, `%XX` for a byte and `+` for a space.

use std::borrow::Cow;

use super::request::Malformed;
use crate::settings::path::hex_byte;

/// Returns the query of a path: what follows the first `?`, up to a `#`.
pub(super) fn of_path(path: &[u8]) -> &[u8] {
    let path = path.split(|byte| *byte == b'#').next().unwrap_or_default();
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => &path[at + 1..],
        None => &[],
    }
}

/// Returns the parameters with this decoded name: name and value as written.
pub(super) fn parameters<'a>(query: &'a [u8], name: &'a str) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let parameters = query.split(|byte| *byte == b'&').map(|parameter| {
        match parameter.iter().position(|byte| *byte == b'=') {
            Some(at) => (&parameter[..at], &parameter[at + 1..]),
            None => (parameter, &[][..]),
        }
    });
    parameters.filter(move |(written, _)| matches_name(written, name.as_bytes()))
}

/// Returns whether `written` decodes to `name`. Malformed encodings match nothing.
fn matches_name(written: &[u8], name: &[u8]) -> bool {
    written == name || (is_encoded(written) && Decode::form(written).eq(name.iter().copied().map(Some)))
}

/// Returns whether percent-decoding `written` gives `text`. A malformed encoding gives nothing.
pub(super) fn decodes_to(written: &[u8], text: &[u8]) -> bool {
    written == text
        || (written.contains(&b'%') && Decode::percent(written).eq(text.iter().copied().map(Some)))
}

/// Returns whether a value decodes to nothing or white space.
pub(super) fn is_blank(value: &[u8]) -> bool {
    Decode::form(value).all(|byte| byte.is_some_and(|byte| byte.is_ascii_whitespace()))
}

/// Returns whether a segment of a path or a cookie, in which `+` is a plus sign, decodes to nothing
/// or white space.
pub(super) fn is_blank_segment(value: &[u8]) -> bool {
    Decode::percent(value).all(|byte| byte.is_some_and(|byte| byte.is_ascii_whitespace()))
}

/// Removes the parameters with these names from a URL. The rest stays byte for byte. Returns `None`
/// if there are none.
pub(super) fn without<'n>(url: &[u8], names: impl Iterator<Item = &'n str> + Clone) -> Option<Vec<u8>> {
    without_those(url, |parameter| has_name(parameter, names.clone()))
}

/// Returns whether the decoded name of a parameter is one of `names`.
pub(super) fn has_name<'n>(parameter: &[u8], mut names: impl Iterator<Item = &'n str>) -> bool {
    let written = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
    names.any(|name| matches_name(written, name.as_bytes()))
}

/// Removes the parameters, name and value as written, that `is_removed` from a URL. The rest stays
/// byte for byte. Returns `None` if there are none.
pub(super) fn without_those(url: &[u8], is_removed: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let query = of_path(url);
    let kept: Vec<&[u8]> =
        query.split(|byte| *byte == b'&').filter(|parameter| !is_removed(parameter)).collect();
    let rest = kept.join(&b'&');
    if rest.len() == query.len() {
        return None;
    }
    // The URL up to the question mark, and from the fragment on.
    let before = url.iter().position(|byte| *byte == b'?').unwrap_or(url.len());
    let after = (before + 1 + query.len()).min(url.len());
    let mark: &[u8] = if kept.is_empty() { b"" } else { b"?" };
    Some([&url[..before], mark, &rest, &url[after..]].concat())
}

/// Returns whether a text contains a parameter of this name.
pub(super) fn mentions(text: &[u8], name: &str) -> bool {
    text.split(|byte| matches!(byte, b'?' | b'&' | b';' | b'#')).skip(1).any(|parameter| {
        let end = parameter.iter().position(|byte| *byte == b'=');
        end.is_some_and(|end| matches_name(&parameter[..end], name.as_bytes()))
    })
}

/// Returns whether `is_there` holds of a text, or of it decoded some times: a URL within a URL is
/// encoded. `in_broken` is asked about a malformed encoding, which some servers decode all the
/// same.
pub(super) fn in_any_layer(
    text: &[u8],
    is_there: impl Fn(&[u8]) -> bool,
    in_broken: impl Fn(&[u8]) -> bool,
) -> bool {
    let mut text = Cow::Borrowed(text);
    // Each layer of encoding is one more URL within a URL. Nobody nests more than four.
    for _ in 0..4 {
        let found = is_there(&text);
        if found || !is_encoded(&text) {
            return found;
        }
        let decoded: Option<Vec<u8>> = Decode::form(&text).collect();
        match decoded {
            Some(decoded) => text = Cow::Owned(decoded),
            None => return in_broken(&text),
        }
    }
    false
}

/// Decodes a value.
///
/// # Errors
/// Fails if a `%` lacks its digits, or the result is not UTF-8.
pub(super) fn decode(value: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    if !is_encoded(value) {
        return std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| Malformed::Unreadable);
    }
    text_of(Decode::form(value))
}

/// Decodes a text in which `+` is a plus sign: a segment of a path, or a cookie.
///
/// # Errors
/// Fails if a `%` lacks its digits, or the result is not UTF-8.
pub(super) fn percent_decode(value: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    if !value.contains(&b'%') {
        return std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| Malformed::Unreadable);
    }
    text_of(Decode::percent(value))
}

fn text_of(decoded: Decode<'_>) -> Result<Cow<'static, str>, Malformed> {
    let bytes: Option<Vec<u8>> = decoded.collect();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.map(Cow::Owned).ok_or(Malformed::Unreadable)
}

fn is_encoded(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'%' | b'+'))
}

/// Strict decoder. Yields `None` for a `%` without two hexadecimal digits.
struct Decode<'a> {
    rest: &'a [u8],
    /// Byte that `+` stands for.
    plus: u8,
}

impl<'a> Decode<'a> {
    const fn form(text: &'a [u8]) -> Self {
        Self { rest: text, plus: b' ' }
    }

    const fn percent(text: &'a [u8]) -> Self {
        Self { rest: text, plus: b'+' }
    }
}

impl Iterator for Decode<'_> {
    type Item = Option<u8>;

    fn next(&mut self) -> Option<Option<u8>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match first {
            b'+' => Some(self.plus),
            b'%' => rest.split_at_checked(2).and_then(|(digits, rest)| {
                self.rest = rest;
                hex_byte(digits)
            }),
            byte => Some(*byte),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn values<'a>(path: &'a str, name: &'a str) -> Vec<Option<String>> {
        let found = parameters(of_path(path.as_bytes()), name);
        found.map(|(_, value)| decode(value).ok().map(Cow::into_owned)).collect()
    }

    #[test]
    fn parameters_are_found_by_their_decoded_name() {
        let key = |value: &str| vec![Some(value.to_owned())];
        for (path, expected) in [
            ("/", vec![]),
            ("/key=a", vec![]),
            ("/?key=a", key("a")),
            ("/?x=1&key=a&y=2", key("a")),
            ("/?%6bey=a", key("a")),
            ("/?k%65y=a%2Bb+c", key("a+b c")),
            ("/?key=a=b", key("a=b")),
            ("/?key=a?b", key("a?b")),
            ("/?x=?key=a", vec![]),
            ("/?key=a#key=b", key("a")),
            ("/#?key=a", vec![]),
            ("/?Key=a&keys=a&ke=y", vec![]),
            ("/?key%=a&ke%79%=a", vec![]),
            ("/?key", key("")),
            ("/?key=", key("")),
            ("/?key=a&key=b", vec![Some("a".to_owned()), Some("b".to_owned())]),
            ("/?key=a&%6Bey=a", vec![Some("a".to_owned()), Some("a".to_owned())]),
            ("/?x=1;key=a", vec![]),
            ("/?key=%4", vec![None]),
            ("/?key=%zz", vec![None]),
            ("/?key=%ff", vec![None]),
            ("/?key=%c3%A4", key("ä")),
            ("/?key=%254", key("%4")),
        ] {
            assert_eq!(values(path, "key"), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_taken_out_and_the_rest_stays() {
        for (url, rest) in [
            ("https://a/p", None),
            ("https://a/p?x=1&y", None),
            ("https://a/p?keys=1&x=key#key=2", None),
            ("https://a/p?key=s", Some("https://a/p")),
            ("https://a/p?key", Some("https://a/p")),
            ("https://a/p?x=%7e&key=s&&y+z", Some("https://a/p?x=%7e&&y+z")),
            ("https://a/p?%6bey=s&x=1#f?key=s", Some("https://a/p?x=1#f?key=s")),
            ("/p?key=s&key=t&x", Some("/p?x")),
            ("/p?api+key=s&x", Some("/p?x")),
            ("?key=s#f", Some("#f")),
        ] {
            let left = without(url.as_bytes(), ["key", "api key"].into_iter());
            assert_eq!(left.as_deref(), rest.map(str::as_bytes), "{url}");
        }
    }

    #[test]
    fn a_url_within_a_url_is_seen() {
        for (url, seen) in [
            ("https://a/p?next=/q?key=s", true),
            ("https://a/p?next=%2Fq%3Fkey%3Ds", true),
            ("https://a/p?next=%252Fq%253Fx%253D1%2526key%253Ds", true),
            ("https://a/p#key=s", true),
            ("https://a/p?x=1;key=s", true),
            ("https://a/p?x=%&next=%3Fkey%3Ds", true),
            ("https://a/key=s", false),
            ("https://a/p?x=key", false),
            ("https://a/p?x=keys%3D1", false),
        ] {
            let is_there = |text: &[u8]| mentions(text, "key");
            let in_broken = |text: &[u8]| text.windows(3).any(|part| part == b"key");
            assert_eq!(in_any_layer(url.as_bytes(), is_there, in_broken), seen, "{url}");
        }
    }

    #[test]
    fn plus_signs_and_blanks() {
        assert_eq!(percent_decode(b"a+b%2Bc%20").unwrap(), "a+b+c ");
        assert_eq!(percent_decode(b"a%"), Err(Malformed::Unreadable));
        assert!(decodes_to(b"a+%62", b"a+b") && !decodes_to(b"a+b", b"a b") && !decodes_to(b"a%", b"a%25"));
        for (value, blank) in [("", true), ("+%20 %09", true), ("a", false), ("%", false), ("%00", false)] {
            assert_eq!(is_blank(value.as_bytes()), blank, "{value}");
        }
        for (value, blank) in [("", true), ("%20 %09", true), ("+", false), ("a", false), ("%", false)] {
            assert_eq!(is_blank_segment(value.as_bytes()), blank, "{value}");
        }
    }

    proptest! {
        /// No URL keeps a removed parameter.
        #[test]
        fn what_is_taken_out_is_gone(url in "[a-c/?&=#%k6bey1]{0,40}") {
            let left = without(url.as_bytes(), ["key"].into_iter()).unwrap_or_else(|| url.clone().into_bytes());
            prop_assert_eq!(parameters(of_path(&left), "key").count(), 0);
        }

        #[test]
        fn what_is_encoded_is_decoded(text: String, upper: bool) {
            let encoded: String = text.bytes().map(|byte| match byte {
                b' ' => "+".to_owned(),
                b'a'..=b'z' => char::from(byte).to_string(),
                byte if upper => format!("%{byte:02X}"),
                byte => format!("%{byte:02x}"),
            }).collect();
            prop_assert_eq!(decode(encoded.as_bytes()).unwrap(), &text[..]);
            let query = format!("a=b&{encoded}=1");
            let found: Vec<_> = parameters(query.as_bytes(), &text).map(|(_, value)| value).collect();
            if text != "a" {
                prop_assert_eq!(found, [b"1"]);
            }
        }

        #[test]
        fn any_query_can_be_read(query in any::<Vec<u8>>()) {
            for (_, value) in parameters(&query, "a") {
                let _ = decode(value);
            }
        }
    }
}
