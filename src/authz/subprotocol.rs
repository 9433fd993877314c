//! `Sec-WebSocket-Protocol`: a browser's only place for a key when it opens a WebSocket.
//!
//! It offers `bearer, KEY` among its subprotocols. Both go before the request goes upstream.

use super::request::Malformed;

/// Name of the header.
pub(super) const SEC_WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";

/// Returns the entries of all header lines.
fn entries<'a>(lines: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let entries = lines.flat_map(|line| line.split(|byte| *byte == b','));
    entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
}

fn is_marker(entry: &[u8], marker: &str) -> bool {
    entry.eq_ignore_ascii_case(marker.as_bytes())
}

/// Returns the entry after `marker`, None if there is none.
///
/// # Errors
/// Fails if the marker is there twice.
pub(super) fn key_after<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    marker: &str,
) -> Result<Option<&'a [u8]>, Malformed> {
    let mut entries = entries(lines);
    if !entries.by_ref().any(|entry| is_marker(entry, marker)) {
        return Ok(None);
    }
    match entries.next() {
        Some(key) if is_marker(key, marker) || entries.any(|entry| is_marker(entry, marker)) => {
            Err(Malformed::Ambiguous)
        }
        key => Ok(key),
    }
}

/// Header without keys and their markers.
pub(super) struct Rest {
    /// Entries that are left, as a header value. May be empty.
    pub value: Vec<u8>,
    /// The first marker, as the client wrote it.
    pub marker: Vec<u8>,
}

/// Takes each marker and the entry after it out of the header.
pub(super) fn without<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    markers: impl Iterator<Item = &'a str> + Clone,
) -> Rest {
    let mut rest = Rest { value: vec![], marker: vec![] };
    let mut entries = entries(lines);
    while let Some(entry) = entries.next() {
        if markers.clone().any(|marker| is_marker(entry, marker)) {
            if rest.marker.is_empty() {
                rest.marker = entry.to_vec();
            }
            entries.next();
            continue;
        }
        if !rest.value.is_empty() {
            rest.value.extend_from_slice(b", ");
        }
        rest.value.extend_from_slice(entry);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_after_the_marker_is_the_key() {
        type Row = (&'static [&'static str], Result<Option<&'static str>, Malformed>, &'static str);
        let table: [Row; 14] = [
            (&[], Ok(None), ""),
            (&["chat"], Ok(None), "chat"),
            (&["bearer, K"], Ok(Some("K")), ""),
            (&["Bearer,K"], Ok(Some("K")), ""),
            (&["chat, bearer, K"], Ok(Some("K")), "chat"),
            (&["bearer, K, chat, v2"], Ok(Some("K")), "chat, v2"),
            (&["bearer", "K", "chat"], Ok(Some("K")), "chat"),
            (&["bearer, , K"], Ok(Some("K")), ""),
            (&["bearer"], Ok(None), ""),
            (&["bearer, "], Ok(None), ""),
            (&["bearer, bearer, K"], Err(Malformed::Ambiguous), "K"),
            (&["bearer, K, BEARER, K"], Err(Malformed::Ambiguous), ""),
            (&["bearer, K", "bearer, L"], Err(Malformed::Ambiguous), ""),
            (&["xbearer, K"], Ok(None), "xbearer, K"),
        ];
        for (lines, key, rest) in table {
            let bytes = || lines.iter().map(|line| line.as_bytes());
            assert_eq!(key_after(bytes(), "bearer"), key.map(|key| key.map(str::as_bytes)), "{lines:?}");
            let left = without(bytes(), ["bearer"].into_iter());
            assert_eq!(String::from_utf8_lossy(&left.value), rest, "{lines:?}");
        }
        assert_eq!(without([&b"a, BeArer, K"[..]].into_iter(), ["bearer"].into_iter()).marker, b"BeArer");
    }
}
