//! Names of headers that belong to Talos, in every spelling that servers take for them. The module
//! in Envoy compiles this file, too: what one removes, the other one does.

/// Prefix of all header names that Talos owns.
pub(crate) const HEADER_PREFIX: &str = "x-talos-";

/// Returns a byte of a name in the form in which spellings are compared: case is ignored, and all
/// characters but letters and digits are equal, as in variables of CGI.
pub(crate) const fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// Returns true if servers may read `name` as `ours`.
pub(crate) fn matches_folded(name: &[u8], ours: &[u8]) -> bool {
    name.len() == ours.len() && name.iter().zip(ours).all(|(one, other)| fold(*one) == fold(*other))
}

/// Returns true if a name begins with [`HEADER_PREFIX`], in any spelling.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    // Fast path: most names don't begin like it.
    matches!(name, [b'x' | b'X', _, b't' | b'T', ..])
        && name
            .get(..HEADER_PREFIX.len())
            .is_some_and(|start| matches_folded(start, HEADER_PREFIX.as_bytes()))
}
