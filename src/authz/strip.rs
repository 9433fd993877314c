//! Removal of the credential from the request that goes upstream.

use std::borrow::Cow;
use std::collections::HashSet;

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
    let repeating = if is_in_url { repeating_cookies(presented, headers) } else { HashSet::new() };
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
fn repeating_cookies<'a>(presented: &PresentedCredential<'_>, headers: &Headers<'a>) -> HashSet<&'a [u8]> {
    let (repeated, joined) = (RepeatedCredential::of(Some(presented)), headers.are_joined());
    let mut names = HashSet::new();
    for line in headers.values(cookie::COOKIE).filter(|line| repeated.is_in(line)) {
        names.extend(cookie::names_with(line, joined, |value| repeated.is_in(value)).map(str::as_bytes));
    }
    names
}

/// Removes the cookies that carry the credential, and those that repeat it, of which there may be
/// any number.
fn strip_cookies(
    presented: &PresentedCredential<'_>,
    headers: &Headers<'_>,
    repeating: &HashSet<&[u8]>,
    extras: &mut Extras,
) {
    let is_carrier = |written: &[u8]| {
        presented.carriers().any(|carrier| match carrier {
            CredentialSource::Cookie { name } => name.as_bytes() == written,
            _ => false,
        })
    };
    let is_removed = |name: &[u8]| is_carrier(name) || repeating.contains(name);
    let rest = cookie::without(headers.values(cookie::COOKIE), headers.are_joined(), is_removed);
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

/// Removes a credential from the path and the query, and what repeats it from query and fragment.
/// The rest stays byte for byte. A path that repeats it was refused before.
///
/// A segment that a path source reads is removed in any case, as the policy of the route was found
/// by the path without it.
pub(super) fn strip_target(
    headers: &Headers<'_>,
    sources: &[CredentialSource],
    presented: Option<&PresentedCredential<'_>>,
    extras: &mut Extras,
) {
    if let Some(target) = stripped_target(headers.path(), sources, presented) {
        extras.set_header(PATH, &text(&target));
    }
}

/// Returns the target without the credential. None if it carries none.
fn stripped_target(
    target: &[u8],
    sources: &[CredentialSource],
    presented: Option<&PresentedCredential<'_>>,
) -> Option<Vec<u8>> {
    let names = presented.into_iter().flat_map(|presented| query_names(presented.carriers()));
    let segment = KeySegment::of_sources(target, sources);
    if segment.is_none() && names.clone().next().is_none() {
        return None;
    }
    let repeated = RepeatedCredential::of(presented);
    let target = segment.map_or(Cow::Borrowed(target), |segment| Cow::Owned(segment.removed()));
    let is_removed =
        |parameter: &[u8]| query::has_name(parameter, names.clone()) || repeated.is_in(parameter);
    let mut rest = query::without_those(&target, is_removed).unwrap_or_else(|| target.into_owned());
    let fragment = rest.iter().position(|byte| *byte == b'#').unwrap_or(rest.len());
    if repeated.is_in(&rest[fragment..]) {
        rest.truncate(fragment);
    }
    // A credential with a `&` is in no single parameter.
    let query = rest.iter().position(|byte| *byte == b'?').unwrap_or(rest.len());
    if repeated.is_in(&rest[query..]) {
        rest.truncate(query);
    }
    Some(rest)
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
    use crate::authz::request::tests::both_forms;
    use crate::authz::response::{encode_anonymous, encode_with_extras};
    use crate::config::Authz;
    use prost::Message;
    use talos_proto::CheckResponse;

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
    fn a_target_loses_its_credential_wherever_it_stands() {
        let sources: Vec<CredentialSource> = serde_json::from_value(
            serde_json::json!([{ "query": "key" }, { "path": "/v2/{key}" }, { "header": "x-api-key" }]),
        )
        .unwrap();
        for (target, rest) in [
            ("/p?a=s3cr3t-key", None),
            ("/p?z=%7E&key=s3cr3t-key&a=1+2&&b#c", Some("/p?z=%7E&a=1+2&&b#c")),
            ("/p?key=s3cr3t-key&next=%2Fp%3Fkey%3Ds3cr3t-key", Some("/p")),
            ("/p?a=1&key=s3cr3t-key&copy=s3cr3t-key&b", Some("/p?a=1&b")),
            ("/p?key=s3cr3t-key&next=/p%3Fkey%3Ds3cr3t%252Dkey&b#s3cr3t", Some("/p?b#s3cr3t")),
            ("/p?key=s3cr3t%2Dkey&s3cr3t-key&b=%&c=xs3cr3t-keyx", Some("/p?b=%")),
            ("/p?key=s3cr3t-key&b#key=s3cr3t-key", Some("/p?b")),
            ("/v2/s3cr3t-key/x?next=/v2/s3cr3t-key", Some("/v2/x")),
            ("/v2/s3cr3t-key/x?next=%2Fv2%2Fs3cr3t-key%2Fx&a=s3cr3t-kez", Some("/v2/x?a=s3cr3t-kez")),
            ("/p?key=s3cr3t%26key&a=1&d=s3cr3t%26key", Some("/p?a=1")),
            ("/p?key=s3cr3t%26%79es&a=s3cr3t&yes", Some("/p")),
            // Too short to be told from other text.
            ("/p?key=orders&list=orders", Some("/p?list=orders")),
        ] {
            for attributes in both_forms(target, &[]) {
                let presented = PresentedCredential::find(&Headers::of(&attributes), &sources).unwrap();
                let left = stripped_target(target.as_bytes(), &sources, presented.as_ref());
                let left = left.map(|left| String::from_utf8_lossy(&left).into_owned());
                assert_eq!(left.as_deref(), rest, "{target}");
            }
        }
        // On a route that looks at no credential, the segment goes all the same.
        let left = stripped_target(b"/v2/s3cr3t-key/x?next=/v2/s3cr3t-key", &sources, None);
        assert_eq!(left.as_deref(), Some(&b"/v2/x?next=/v2/s3cr3t-key"[..]));
        // A credential of a header is the client's affair elsewhere.
        for attributes in both_forms("/p?a=s3cr3t-key", &[("x-api-key", "s3cr3t-key")]) {
            let presented = PresentedCredential::find(&Headers::of(&attributes), &sources).unwrap();
            assert_eq!(stripped_target(attributes.path, &sources, presented.as_ref()), None);
        }
    }

    #[test]
    fn ten_thousand_cookies_that_repeat_the_key_go() {
        let sources: Vec<CredentialSource> =
            serde_json::from_value(serde_json::json!([{ "query": "key" }])).unwrap();
        let line: String = (0..10_000).map(|n| format!("c{n}=/p?key=s3cr3t-key; d{n}=1; ")).collect();
        let line: &'static str = line.leak();
        for attributes in both_forms("/p?key=s3cr3t-key", &[("cookie", line)]) {
            let headers = Headers::of(&attributes);
            let presented = PresentedCredential::find(&headers, &sources).unwrap().unwrap();
            let repeating = repeating_cookies(&presented, &headers);
            assert_eq!(repeating.len(), 10_000);
            let mut extras = Extras::default();
            strip_cookies(&presented, &headers, &repeating, &mut extras);
            let answer = encode_with_extras(encode_anonymous(&Authz::default(), "ok"), &extras);
            let answer = CheckResponse::decode(answer).unwrap().ok_response.unwrap();
            let mut set = answer.headers.iter().filter_map(|option| option.header.as_ref());
            let left = &set.find(|header| header.key == "cookie").unwrap().value;
            assert_eq!(cookie::values(left, false, "d9999").count(), 1);
            assert!(!left.windows(6).any(|part| part == b"s3cr3t"));
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
