//! Parameters of a query, as forms write them: `name=value&…`, `%XX` for a byte and `+` for a space.

use std::borrow::Cow;

use super::request::Malformed;
use crate::settings::path::hex_byte;

/// The query of a request's path: what follows the first `?`, up to a `#`.
pub fn of_path(path: &[u8]) -> &[u8] {
    let path = path.split(|byte| *byte == b'#').next().unwrap_or_default();
    match path.iter().position(|byte| *byte == b'?') {
        Some(at) => &path[at + 1..],
        None => &[],
    }
}

/// The parameters with this name, however it is written: name as it stands there, and value likewise.
pub fn parameters<'a>(query: &'a [u8], name: &'a str) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let parameters = query.split(|byte| *byte == b'&').map(|parameter| {
        match parameter.iter().position(|byte| *byte == b'=') {
            Some(at) => (&parameter[..at], &parameter[at + 1..]),
            None => (parameter, &[][..]),
        }
    });
    parameters.filter(move |(written, _)| means(written, name.as_bytes()))
}

/// Whether `written` is `name`, decoded. What can't be decoded is no name of ours.
fn means(written: &[u8], name: &[u8]) -> bool {
    written == name || (is_encoded(written) && Decode(written).eq(name.iter().copied().map(Some)))
}

/// The text that a value stands for.
///
/// # Errors
/// When it has a `%` that isn't one, or is no UTF-8.
pub fn decode(value: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    if !is_encoded(value) {
        return std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| Malformed::Unreadable);
    }
    let bytes: Option<Vec<u8>> = Decode(value).collect();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.map(Cow::Owned).ok_or(Malformed::Unreadable)
}

fn is_encoded(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'%' | b'+'))
}

/// The bytes that are meant; None for a `%` without two hexadecimal digits.
struct Decode<'a>(&'a [u8]);

impl Iterator for Decode<'_> {
    type Item = Option<u8>;

    fn next(&mut self) -> Option<Option<u8>> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match first {
            b'+' => Some(b' '),
            b'%' => rest.split_at_checked(2).and_then(|(digits, rest)| {
                self.0 = rest;
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

    proptest! {
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
