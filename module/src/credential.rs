//! The credential of a request, where there is no doubt about it.

use crate::abi::Headers;
use crate::header_names::{is_reserved, matches_folded};
use crate::settings::{AddressOrigin, HeaderSource, Settings};

/// Longest credential that is looked up, in bytes; the server takes no longer one.
const MAX_CREDENTIAL: usize = 4096;

/// Only credential of a request. Has no Debug: its text is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credential<'a> {
    /// The text.
    pub text: &'a [u8],
    /// Position of its source.
    pub source: usize,
}

/// Returns the only credential of a request; `None` if there is none, or the slightest doubt: two
/// of them, even if they are equal, a header in two lines, or a comma, by which Envoy joins lines.
pub(crate) fn find<'a>(headers: Headers<'a>, sources: &[HeaderSource]) -> Option<Credential<'a>> {
    let mut found = None;
    for (index, source) in sources.iter().enumerate() {
        let mut lines = headers.values(&source.name);
        let Some(line) = lines.next() else { continue };
        if lines.next().is_some() || line.contains(&b',') {
            return None;
        }
        if let Some(text) = after_scheme(line.trim_ascii(), source) {
            if found.is_some() || text.len() > MAX_CREDENTIAL || std::str::from_utf8(text).is_err() {
                return None;
            }
            found = Some(Credential { text, source: index });
        }
    }
    found
}

/// Returns the credential in a header's value. `None` if it is empty or has another scheme.
fn after_scheme<'a>(value: &'a [u8], source: &HeaderSource) -> Option<&'a [u8]> {
    let credential = match (source.scheme.is_empty(), strip_scheme(value, &source.scheme)) {
        (true, _) => value,
        (false, Some(credential)) => credential,
        (false, None) if source.is_scheme_optional && !value.iter().any(u8::is_ascii_whitespace) => value,
        (false, None) => return None,
    };
    (!credential.is_empty()).then_some(credential)
}

/// Returns what follows a scheme and white space, `None` if the header has another scheme.
fn strip_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let is_spaced = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    (word.eq_ignore_ascii_case(scheme.as_bytes()) && is_spaced).then(|| rest.trim_ascii())
}

/// Returns true for a CORS preflight request.
pub(crate) fn is_preflight(headers: Headers<'_>) -> bool {
    let has = |name| headers.values(name).next().is_some();
    headers.values(":method").next() == Some(b"OPTIONS")
        && has("origin")
        && has("access-control-request-method")
}

/// Returns true if the client must not send a header: what begins with `x-talos-` in any spelling,
/// and other spellings of the token's header.
pub(crate) fn is_forged(name: &[u8], settings: &Settings) -> bool {
    let is_respelled =
        matches_folded(name, &settings.token_header) && name != settings.token_header.as_slice();
    is_reserved(name) || is_respelled || settings.own_headers.iter().any(|own| own == name)
}

/// Returns the client's address, where the server would read the same. `peer` is the stream's
/// `source.address`.
pub(crate) fn client_address<'a>(
    headers: Headers<'a>,
    peer: Option<&'a [u8]>,
    origin: AddressOrigin,
) -> Option<std::net::IpAddr> {
    match origin {
        AddressOrigin::Peer => {
            let peer = peer?;
            // Envoy gives port 0 to an address that it took from a header, in place of the
            // connection's peer.
            (!peer.ends_with(b":0")).then(|| crate::host::address_of(peer)).flatten()
        }
        AddressOrigin::External => {
            let mut values = headers.values("x-envoy-external-address");
            let value = values.next().filter(|_| values.next().is_none())?;
            crate::host::address_of(value)
        }
        AddressOrigin::Xff { hops } => {
            let mut values = headers.values("x-forwarded-for");
            let value = values.next().filter(|_| values.next().is_none())?;
            crate::host::address_of(value.rsplit(|byte| *byte == b',').nth(hops - 1)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::tests::with_headers;
    use crate::settings::tests::message;

    fn source(name: &str, scheme: &str, is_scheme_optional: bool) -> HeaderSource {
        HeaderSource { name: name.to_owned(), scheme: scheme.to_owned(), is_scheme_optional }
    }

    #[test]
    fn only_a_single_credential_is_found() {
        let sources = [
            source("authorization", "Bearer", false),
            source("x-api-key", "", false),
            source("x-token", "Key", true),
        ];
        let long = "k".repeat(4097);
        for (lines, expected) in [
            (&[][..], None),
            (&[("authorization", "Bearer k")][..], Some(("k", 0))),
            (&[("authorization", " bEARER \t k ")], Some(("k", 0))),
            (&[("authorization", "Bearer k l")], Some(("k l", 0))),
            (&[("x-api-key", "k")], Some(("k", 1))),
            (&[("x-api-key", "Bearer k")], Some(("Bearer k", 1))),
            (&[("x-token", "k")], Some(("k", 2))),
            (&[("x-token", "Key k")], Some(("k", 2))),
            (&[("x-token", "Other k")], None),
            (&[("authorization", "Basic abc"), ("x-api-key", "k")], Some(("k", 1))),
            (&[("authorization", "Bearer"), ("x-api-key", "k")], Some(("k", 1))),
            (&[("authorization", "Bearerk")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("x-api-key", "")], None),
            (&[("authorization", "Bearer k"), ("x-api-key", "k")], None),
            (&[("x-api-key", "k"), ("x-api-key", "k")], None),
            (&[("x-api-key", ""), ("x-api-key", "k")], None),
            (&[("x-api-key", "k,l")], None),
            (&[("authorization", "Basic a,Bearer k")], None),
            (&[("authorization", "Basic a, b"), ("x-api-key", "k")], None),
            (&[("x-api-key", &long)], None),
        ] {
            with_headers(lines, |headers| {
                let found =
                    find(headers, &sources).map(|one| (std::str::from_utf8(one.text).unwrap(), one.source));
                assert_eq!(found, expected, "{lines:?}");
            });
        }
    }

    #[test]
    fn every_spelling_of_our_names_is_forged() {
        let settings = edge_settings("x-user-token");
        for (name, expected) in [
            ("x-talos-actor-id", true),
            ("x_talos_actor_id", true),
            ("x-talos-", true),
            ("x-talos-foo", true),
            ("x.talos~actor.id", true),
            ("x.user-token", true),
            ("x-talosfoo", false),
            ("x-talos", false),
            ("x-user_token", true),
            ("x-user-token", false),
            ("x-user-token-2", false),
            ("accept", false),
        ] {
            assert_eq!(is_forged(name.as_bytes(), &settings), expected, "{name}");
        }
    }

    fn edge_settings(token_header: &str) -> Settings {
        let message = message();
        Settings::read(talos_proto::edge::Settings { token_header: token_header.to_owned(), ..message })
            .unwrap()
    }

    #[test]
    fn addresses_are_read_where_the_server_reads_them() {
        let peer = |text: &'static str| Some(text.as_bytes());
        let xff = |hops| AddressOrigin::Xff { hops };
        let (external, forwarded) = ("x-envoy-external-address", "x-forwarded-for");
        for (lines, peer, origin, expected) in [
            (&[][..], peer("10.0.0.1:5000"), AddressOrigin::Peer, Some("10.0.0.1")),
            (&[], peer("[2001:db8::1]:5000"), AddressOrigin::Peer, Some("2001:db8::1")),
            (&[], peer("10.0.0.1:0"), AddressOrigin::Peer, None),
            (&[], peer("/run/socket"), AddressOrigin::Peer, None),
            (&[], None, AddressOrigin::Peer, None),
            (&[(external, "10.0.0.2")], None, AddressOrigin::External, Some("10.0.0.2")),
            (&[(external, "10.0.0.2"), (external, "10.0.0.2")], None, AddressOrigin::External, None),
            (&[(forwarded, "1.1.1.1, 10.0.0.3,10.0.0.4")], None, xff(1), Some("10.0.0.4")),
            (&[(forwarded, "1.1.1.1, 10.0.0.3,10.0.0.4")], None, xff(2), Some("10.0.0.3")),
            (&[(forwarded, "10.0.0.4")], None, xff(2), None),
            (&[(forwarded, "10.0.0.4"), (forwarded, "10.0.0.4")], None, xff(1), None),
        ] {
            with_headers(lines, |headers| {
                let found = client_address(headers, peer, origin);
                assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{lines:?} {origin:?}");
            });
        }
    }

    #[test]
    fn preflights_are_told_apart() {
        let cors = [(":method", "OPTIONS"), ("origin", "a"), ("access-control-request-method", "GET")];
        with_headers(&cors, |headers| assert!(is_preflight(headers)));
        for left_out in 0..3 {
            let mut lines = cors.to_vec();
            lines.remove(left_out);
            with_headers(&lines, |headers| assert!(!is_preflight(headers)));
        }
    }
}
