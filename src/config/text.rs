//! Checks for the small texts that settings are made of.

/// RFC 9110 token: the letters of header names, methods and authentication schemes.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
