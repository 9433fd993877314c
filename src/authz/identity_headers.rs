//! Headers that tell upstream who calls. Clients can't send them: each is overwritten or removed.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::key::{Key, Scopes};
use crate::settings::Settings;

/// Names of the identity headers.
pub const IDENTITY_HEADERS: [&str; 4] =
    ["x-talos-key-id", "x-talos-actor-id", "x-talos-scopes", "x-talos-network-id"];

/// ASCII characters that are encoded in header values, except spaces.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Returns the length of all header lines that go upstream for a key, in bytes.
///
/// `token` is the length of the minted token, `None` if there is none.
pub fn upstream_headers_len(settings: &Settings, key: &Key, token: Option<usize>) -> usize {
    let line = |name: &str, value: usize| name.len() + value + ": \r\n".len();
    let token = token.map_or(0, |token| line(&settings.authz.token_header, "Bearer ".len() + token));
    let values = [
        key.id.to_string().len(),
        header_text(key.actor.as_str()).len(),
        scopes_len(&key.scopes),
        key.network.to_string().len(),
    ];
    let identity: usize = IDENTITY_HEADERS.iter().zip(values).map(|(name, value)| line(name, value)).sum();
    token + identity
}

fn scopes_len(scopes: &Scopes) -> usize {
    scopes.iter().map(|scope| scope.as_str().len() + 1).sum()
}

/// Encodes an identity for a header value, percent-encoded where needed.
///
/// Different identities have different encodings, and decoding gives the identity back. Encoded are
/// non-ASCII characters, control characters, white space at the ends (which servers trim) and `%`.
pub fn header_text(value: &str) -> Cow<'_, str> {
    let encoded: Cow<'_, str> = utf8_percent_encode(value, ENCODED).into();
    if !encoded.starts_with(' ') && !encoded.ends_with(' ') {
        return encoded;
    }
    let (start, rest) = encoded.strip_prefix(' ').map_or(("", &*encoded), |rest| ("%20", rest));
    let (middle, end) = rest.strip_suffix(' ').map_or((rest, ""), |middle| (middle, "%20"));
    Cow::Owned(format!("{start}{middle}{end}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_texts_are_ascii_and_read_back() {
        for (value, text) in [
            ("user_1 a/b:c@d", "user_1 a/b:c@d"),
            ("user_1 50%", "user_1 50%25"),
            ("jürgen 50%", "j%C3%BCrgen 50%25"),
            ("j%C3%BCrgen", "j%25C3%25BCrgen"),
            (" a  b ", "%20a  b%20"),
            (" ", "%20"),
            ("a\tb\u{7f}", "a%09b%7F"),
        ] {
            assert_eq!(header_text(value), text);
        }
    }

    fn decoded(text: &str) -> String {
        percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
    }

    /// Generates texts that are easily confused: parts of encodings, white space, and characters
    /// that servers may treat as equal.
    fn identity() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "%", "%25", "%C3%BC", "ü", "u\u{308}", " ", "\t", "\u{a0}", "20", "a", "A",
        ]);
        prop_oneof![prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat()), any::<String>()]
    }

    proptest! {
        #[test]
        fn different_identities_are_different_headers(a in identity(), b in identity()) {
            let (header_a, header_b) = (header_text(&a), header_text(&b));
            // Compared by a server that trims.
            prop_assert_eq!(a == b, header_a.trim() == header_b.trim());
            prop_assert!(header_a.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
            prop_assert_eq!(decoded(header_a.trim()), a);
        }
    }
}
