//! Basic credentials (RFC 7617): a user and a password, of which one is a key.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::request::Malformed;
use crate::config::KeyIn;
use crate::credential::{MAX_LEN, has_own_form};

/// Maximum length of what follows the scheme, in bytes.
const MAX_ENCODED: usize = 4 * MAX_LEN;

/// Clients leave the padding out, or use the alphabet of URLs.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
static BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
static BASE64URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Returns the key in the text that follows `Basic`. None if that part is blank.
///
/// # Errors
/// Fails if the text isn't base64 of a user, a colon and a password, if the key isn't UTF-8, or if
/// both parts are different keys.
pub(super) fn key(encoded: &[u8], key_in: KeyIn) -> Result<Option<String>, Malformed> {
    let has_url_bytes = encoded.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if has_url_bytes { &BASE64URL } else { &BASE64 };
    let decoded = Some(encoded).filter(|encoded| encoded.len() <= MAX_ENCODED);
    let decoded = decoded.and_then(|encoded| engine.decode(encoded).ok()).ok_or(Malformed::NotBasic)?;
    // A user has no colon, a password may have some.
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Malformed::NotBasic)?;
    let (user, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let part = match key_in {
        KeyIn::User => text(user)?,
        KeyIn::Password => text(password)?,
        KeyIn::Either => either(text(user)?, text(password)?)?,
    };
    Ok(Some(part).filter(|part| !is_blank(part)).map(str::to_owned))
}

/// Returns the part that is the key: the only one that isn't blank, else the only one that looks
/// like a key, else the password.
fn either<'a>(user: &'a str, password: &'a str) -> Result<&'a str, Malformed> {
    if is_blank(password) {
        return Ok(user);
    }
    match (has_own_form(user), has_own_form(password)) {
        (true, true) if user != password => Err(Malformed::Ambiguous),
        (true, false) => Ok(user),
        _ => Ok(password),
    }
}

fn text(part: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(part).map_err(|_| Malformed::NotBasic)
}

fn is_blank(text: &str) -> bool {
    text.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn the_part_that_is_meant_is_taken() {
        type Row = (&'static str, [Result<Option<&'static str>, Malformed>; 3]);
        let (bad, twice) = (Err(Malformed::NotBasic), Err(Malformed::Ambiguous));
        // User and password, and what is taken of them: the user, the password, either.
        let table: [Row; 13] = [
            ("k:", [Ok(Some("k")), Ok(None), Ok(Some("k"))]),
            (":k", [Ok(None), Ok(Some("k")), Ok(Some("k"))]),
            ("api:k", [Ok(Some("api")), Ok(Some("k")), Ok(Some("k"))]),
            ("a_v1_k:x", [Ok(Some("a_v1_k")), Ok(Some("x")), Ok(Some("a_v1_k"))]),
            ("a_v1_k:b_v1_k", [Ok(Some("a_v1_k")), Ok(Some("b_v1_k")), twice]),
            ("a_v1_k:a_v1_k", [Ok(Some("a_v1_k")), Ok(Some("a_v1_k")), Ok(Some("a_v1_k"))]),
            ("k:p:q", [Ok(Some("k")), Ok(Some("p:q")), Ok(Some("p:q"))]),
            (":", [Ok(None); 3]),
            (" : ", [Ok(None); 3]),
            ("k: ", [Ok(Some("k")), Ok(None), Ok(Some("k"))]),
            ("ü:ö", [Ok(Some("ü")), Ok(Some("ö")), Ok(Some("ö"))]),
            ("k", [bad; 3]),
            ("", [bad; 3]),
        ];
        for (text, expected) in table {
            let encoded = BASE64.encode(text);
            for (key_in, expected) in [KeyIn::User, KeyIn::Password, KeyIn::Either].into_iter().zip(expected)
            {
                let taken = key(encoded.as_bytes(), key_in);
                assert_eq!(taken, expected.map(|part| part.map(str::to_owned)), "{text} {key_in:?}");
            }
        }
    }

    #[test]
    fn base64_has_more_than_one_form() {
        // `api:k?>` has bytes that the two alphabets write differently.
        for good in ["YXBpOms/Pg==", "YXBpOms/Pg", "YXBpOms/Pg=", "YXBpOms_Pg==", "YXBpOms_Pg"] {
            assert_eq!(key(good.as_bytes(), KeyIn::Either), Ok(Some("k?>".to_owned())), "{good}");
        }
        for bad in ["YXBpOms/Pg===", "YXBpOms/Ph", "YXBp Oms/", "YXBpOms/_g", "api:k", "=", "YXBpOm\u{fc}"] {
            let taken = key(bad.as_bytes(), KeyIn::Either);
            assert!(taken == Err(Malformed::NotBasic), "{bad} {taken:?}");
        }
        assert_eq!(key(&vec![b'A'; MAX_ENCODED + 4], KeyIn::User), Err(Malformed::NotBasic));
    }

    #[test]
    fn the_other_part_need_not_be_text() {
        let encoded = BASE64.encode(b"k:\xff");
        assert_eq!(key(encoded.as_bytes(), KeyIn::User), Ok(Some("k".to_owned())));
        assert_eq!(key(encoded.as_bytes(), KeyIn::Password), Err(Malformed::NotBasic));
    }

    proptest! {
        #[test]
        fn any_password_is_read_back(user in "[^:]{0,20}", password in "\\PC{1,40}") {
            let encoded = BASE64.encode(format!("{user}:{password}"));
            let expected = Some(password).filter(|password| !is_blank(password));
            prop_assert_eq!(key(encoded.as_bytes(), KeyIn::Password), Ok(expected));
        }

        #[test]
        fn any_bytes_can_be_read(encoded in any::<Vec<u8>>()) {
            let _ = key(&encoded, KeyIn::Either);
        }
    }
}
