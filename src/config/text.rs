//! Checks of texts in values.

/// Returns true for a token of RFC 9110, the form of header names, methods and authentication
/// schemes.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
