//! Checks of texts in values and names.

/// Returns true for a token of RFC 9110, the form of header names, methods and authentication
/// schemes.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The name of an unknown key, or `…` if it doesn't look like a name: without a colon and quotes, a
/// secret may stand where a key belongs.
pub(super) fn printable_name(name: &str) -> &str {
    let is_name = (1..=31).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if is_name { name } else { "…" }
}
