//! Removal of the credential from the request that goes upstream.

use std::borrow::Cow;

use super::identity_headers::IDENTITY_HEADERS;
use super::path_key::KeySegment;
use super::repeated::RepeatedCredential;
use super::request::{Headers, Malformed};
use super::response::Extras;
use super::sources::PresentedCredential;
use super::subprotocol::{self, SEC_WEBSOCKET_PROTOCOL};
use super::{cookie, path_key, query};
use crate::config::CredentialSource;

/// Pseudo-header of the request target.
const PATH: &str = ":path";

/// Headers in which browsers and proxies repeat the URL of this or the previous request, including
/// the query.
const URL_HEADERS: [&str; 7] = [
    "referer",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-envoy-original-path",
    "hx-current-url",
];

/// Headers that are not removed for what they contain.
const KEPT: [&str; 3] = ["host", cookie::COOKIE, SEC_WEBSOCKET_PROTOCOL];

/// Removes a credential from headers and cookies. The header `overwritten` is overwritten anyway.
///
/// # Errors
/// Fails if a subprotocol that is left is not UTF-8.
pub(super) fn strip_headers(
    presented: &PresentedCredential<'_>,
    headers: &Headers<'_>,
    overwritten: Option<&str>,
    extras: &mut Extras,
) -> Result<(), Malformed> {
    let (mut has_cookie, mut has_subprotocol, mut is_in_url) = (false, false, false);
    for carrier in presented.carriers() {
        match carrier {
            CredentialSource::Header { name, .. } => {
                if Some(name.as_str()) != overwritten {
                    extras.remove_header(name.as_bytes());
                }
            }
            CredentialSource::Cookie { .. } => has_cookie = true,
            CredentialSource::WebsocketProtocol { .. } => has_subprotocol = true,
            CredentialSource::Query { .. } | CredentialSource::Path(_) => is_in_url = true,
        }
    }
    let repeating = if is_in_url { repeating_cookies(presented, headers) } else { vec![] };
    let is_any = has_cookie || !repeating.is_empty();
    if is_any && !presented.carriers().any(|carrier| is_header(carrier, cookie::COOKIE)) {
        strip_cookies(presented, headers, &repeating, extras);
    }
    if has_subprotocol {
        strip_subprotocols(presented, headers, extras)?;
    }
    Ok(())
}

/// Returns the names of cookies in which a page has stored its URL with the credential.
fn repeating_cookies<'a>(presented: &PresentedCredential<'_>, headers: &Headers<'a>) -> Vec<&'a str> {
    let (repeated, joined) = (RepeatedCredential::of(Some(presented)), headers.are_joined());
    let mut names = vec![];
    for line in headers.values(cookie::COOKIE).filter(|line| repeated.is_in(line)) {
        names.extend(cookie::names_with(line, joined, |value| repeated.is_in(value)));
    }
    names
}

/// Removes the cookies that carry the credential, and those that repeat it.
fn strip_cookies(
    presented: &PresentedCredential<'_>,
    headers: &Headers<'_>,
    repeating: &[&str],
    extras: &mut Extras,
) {
    let names = presented.carriers().filter_map(|carrier| match carrier {
        CredentialSource::Cookie { name } => Some(name.as_str()),
        _ => None,
    });
    let names = names.chain(repeating.iter().copied());
    let rest = cookie::without(headers.values(cookie::COOKIE), headers.are_joined(), names);
    match &*text(&rest) {
        "" => extras.remove_header(cookie::COOKIE.as_bytes()),
        rest => extras.set_header(cookie::COOKIE, rest),
    }
}

/// Takes the key out of the subprotocols. A browser accepts only an answer with one that it has
/// offered: if none is left for upstream to choose, the answer names the marker.
fn strip_subprotocols(
    presented: &PresentedCredential<'_>,
    headers: &Headers<'_>,
    extras: &mut Extras,
) -> Result<(), Malformed> {
    let markers = presented.carriers().filter_map(|carrier| match carrier {
        CredentialSource::WebsocketProtocol { marker } => Some(marker.as_str()),
        _ => None,
    });
    let rest = subprotocol::without(headers.values(SEC_WEBSOCKET_PROTOCOL), markers);
    let utf8 = |bytes| String::from_utf8(bytes).map_err(|_| Malformed::Unreadable);
    let (value, marker) = (utf8(rest.value)?, utf8(rest.marker)?);
    if value.is_empty() {
        extras.remove_header(SEC_WEBSOCKET_PROTOCOL.as_bytes());
        extras.add_response_header(SEC_WEBSOCKET_PROTOCOL, &marker);
    } else {
        extras.set_header(SEC_WEBSOCKET_PROTOCOL, &value);
    }
    Ok(())
}

/// Removes a credential from the path and the query. The rest stays byte for byte.
///
/// A segment that a path source reads is removed in any case, as the policy of the route was found
/// by the path without it.
pub(super) fn strip_target(
    headers: &Headers<'_>,
    sources: &[CredentialSource],
    presented: Option<&PresentedCredential<'_>>,
    extras: &mut Extras,
) {
    let mut names = presented.into_iter().flat_map(|presented| query_names(presented.carriers())).peekable();
    let segment = KeySegment::of_sources(headers.path(), sources);
    if segment.is_none() && names.peek().is_none() {
        return;
    }
    let target = segment.map_or(Cow::Borrowed(headers.path()), |segment| Cow::Owned(segment.removed()));
    let stripped = query::without(&target, names);
    let stripped = stripped.as_deref().unwrap_or(&target);
    let fragment = stripped.iter().position(|byte| *byte == b'#').unwrap_or(stripped.len());
    let is_repeated = RepeatedCredential::of(presented).is_in(&stripped[fragment..]);
    extras.set_header(PATH, &text(if is_repeated { &stripped[..fragment] } else { stripped }));
}

fn query_names<'a>(
    sources: impl Iterator<Item = &'a CredentialSource> + Clone,
) -> impl Iterator<Item = &'a str> + Clone {
    sources.filter_map(|source| match source {
        CredentialSource::Query { name } => Some(name.as_str()),
        _ => None,
    })
}

/// Removes credentials of query and path sources from headers that repeat a URL, and every other
/// header that contains the credential of this URL. The header `overwritten` is overwritten anyway.
///
/// A header that Envoy doesn't send to Talos (`allowed_headers`) is removed, since its value is
/// unknown.
pub(super) fn strip_repeated_urls(
    headers: &Headers<'_>,
    sources: &[CredentialSource],
    presented: Option<&PresentedCredential<'_>>,
    overwritten: Option<&str>,
    extras: &mut Extras,
) {
    let is_in_urls = |source: &CredentialSource| {
        matches!(source, CredentialSource::Query { .. } | CredentialSource::Path(_))
    };
    if !sources.iter().any(is_in_urls) {
        return;
    }
    let repeated = RepeatedCredential::of(presented);
    let is_source = |name: &&str| sources.iter().any(|source| is_header(source, name));
    for header in URL_HEADERS.into_iter().filter(|name| !is_source(name)) {
        let mut values = headers.values(header);
        let (Some(value), None) = (values.next(), values.next()) else {
            extras.remove_header(header.as_bytes());
            continue;
        };
        match without_credentials(value, sources) {
            Some(rest) if repeated.is_in(&rest) => extras.remove_header(header.as_bytes()),
            // Unchanged.
            Some(Cow::Borrowed(_)) => {}
            Some(Cow::Owned(rest)) if std::str::from_utf8(&rest).is_ok() => {
                extras.set_header(header, &text(&rest));
            }
            _ => extras.remove_header(header.as_bytes()),
        }
    }
    for (name, _) in headers.lines().filter(|(_, value)| repeated.is_in(value)) {
        let is_name = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        // Overwritten, or treated by themselves. A pseudo-header can't be removed.
        let is_kept = name.starts_with(b":")
            || KEPT.into_iter().chain(URL_HEADERS).chain(IDENTITY_HEADERS).chain(overwritten).any(is_name);
        if !is_kept {
            extras.remove_header(name);
        }
    }
}

/// Removes credentials from a URL. None if one is left, in a URL within it.
fn without_credentials<'a>(url: &'a [u8], sources: &[CredentialSource]) -> Option<Cow<'a, [u8]>> {
    let names = query_names(sources.iter());
    let without_segment = path_key::without(url, sources);
    let is_path_clean = without_segment.is_some();
    let rest = without_segment.map_or(Cow::Borrowed(url), Cow::Owned);
    let rest = query::without(&rest, names.clone()).map_or(rest, Cow::Owned);
    let contains =
        |text: &[u8], name: &str| text.windows(name.len().max(1)).any(|part| part == name.as_bytes());
    let has_parameter = query::in_any_layer(
        &rest,
        |text| names.clone().any(|name| query::mentions(text, name)),
        |text| names.clone().any(|name| contains(text, name)),
    );
    let has_path = sources.iter().any(|source| matches!(source, CredentialSource::Path(_)));
    // A path whose segment was removed may look as if it had another.
    let searched =
        if is_path_clean { query::of_path(&rest) } else { &rest[path_key::start_of_path(&rest)..] };
    let has_segment =
        has_path && query::in_any_layer(searched, |text| path_key::mentions(text, sources), |_| true);
    (!has_parameter && !has_segment).then_some(rest)
}

fn is_header(source: &CredentialSource, wanted: &str) -> bool {
    matches!(source, CredentialSource::Header { name, .. } if name == wanted)
}

/// Returns bytes as a text that Envoy takes: those that aren't UTF-8 percent-encoded.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_credentials_or_are_dropped() {
        let source = |field: &str, value: &str| -> CredentialSource {
            serde_json::from_value(serde_json::json!({ field: value })).unwrap()
        };
        let sources = [source("query", "key"), source("path", "/v2/{key}")];
        for (url, rest) in [
            ("https://edge/a?b=1", Some("https://edge/a?b=1")),
            ("https://edge/v2", Some("https://edge/v2")),
            ("https://v2/a", Some("https://v2/a")),
            ("https://edge/v2/K/page?a&b=1#c", Some("https://edge/v2/page?a&b=1#c")),
            ("https://edge/v2/K?key=K&a", Some("https://edge/v2?a")),
            ("/v2/K", Some("/v2")),
            ("https://edge/v2/K/page?next=/v2/K", None),
            ("https://edge/a?next=https%3A%2F%2Fedge%2Fv2%2FK", None),
            ("https://edge/a?next=%2Fa%3Fkey%3DK", None),
            ("https://edge/a/v2/K", None),
            ("https://edge/a?b=%", None),
        ] {
            let left = without_credentials(url.as_bytes(), &sources);
            assert_eq!(left.as_deref(), rest.map(str::as_bytes), "{url}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_encoded() {
        for (bytes, expected) in [
            (&b"a=1; b=%zz"[..], "a=1; b=%zz"),
            (b"a=\xff\xfe; b=\xc3\xbc", "a=%FF%FE; b=\u{fc}"),
            (b"\xc3", "%C3"),
        ] {
            assert_eq!(text(bytes), expected);
        }
    }
}
