//! Extraction of the credential from the configured sources, and its removal from the request.

use std::borrow::Cow;

use super::request::{Headers, Malformed};
use super::response::Extras;
use super::{cookie, query};
use crate::config::CredentialSource;
use crate::credential::Presented;

/// Credential of a request. Has no Debug: its text is never printed.
pub struct PresentedCredential<'a> {
    text: Cow<'a, str>,
    sources: &'a [CredentialSource],
    /// Bit set of the `sources` that carry it.
    carriers: u32,
}

impl<'a> PresentedCredential<'a> {
    /// Extracts the credential. Returns `None` if no source has one.
    ///
    /// # Errors
    /// Fails if there are two different credentials, or it is not UTF-8.
    pub fn find(headers: &Headers<'a>, sources: &'a [CredentialSource]) -> Result<Option<Self>, Malformed> {
        let mut presented: Option<Self> = None;
        for (index, source) in sources.iter().enumerate() {
            let Some(text) = value_of(headers, source)? else {
                continue;
            };
            // The configuration allows at most 32 sources.
            let carrier = 1_u32 << index;
            match &mut presented {
                None => presented = Some(Self { text, sources, carriers: carrier }),
                Some(presented) if presented.text == text => presented.carriers |= carrier,
                Some(_) => return Err(Malformed::Ambiguous),
            }
        }
        Ok(presented)
    }

    /// Returns the credential.
    ///
    /// # Errors
    /// Fails if it is empty or too long.
    pub fn credential(&self) -> Result<Presented<'_>, Malformed> {
        Presented::new(&self.text).ok_or(Malformed::Unreadable)
    }

    /// Returns the sources that carry it.
    fn carriers(&self) -> impl Iterator<Item = &'a CredentialSource> + Clone {
        let carriers = self.carriers;
        let presented = move |(index, source)| (carriers & 1_u32 << index != 0).then_some(source);
        self.sources.iter().enumerate().filter_map(presented)
    }

    /// Removes the credential from what goes upstream. The header `overwritten` is overwritten
    /// anyway.
    ///
    /// # Errors
    /// Fails if what is left is not UTF-8.
    pub fn strip_credential(
        &self,
        headers: &Headers<'a>,
        overwritten: Option<&str>,
        extras: &mut Extras,
    ) -> Result<(), Malformed> {
        let mut has_cookie = false;
        for carrier in self.carriers() {
            match carrier {
                CredentialSource::Header { name, .. } => {
                    if Some(name.as_str()) != overwritten {
                        extras.remove_header(name.as_bytes());
                    }
                }
                CredentialSource::Query { name } => {
                    // Envoy compares the names as written.
                    for (written, _) in query::parameters(query::of_path(headers.path()), name) {
                        extras.remove_query_parameter(utf8(written)?);
                    }
                }
                CredentialSource::Cookie { .. } => has_cookie = true,
            }
        }
        if has_cookie && !self.carriers().any(|carrier| is_header(carrier, COOKIE)) {
            let names = self.carriers().filter_map(|carrier| match carrier {
                CredentialSource::Cookie { name } => Some(name.as_str()),
                _ => None,
            });
            let rest = cookie::without(cookie_lines(headers), headers.are_joined(), names);
            match utf8(&rest)? {
                "" => extras.remove_header(COOKIE.as_bytes()),
                rest => extras.set_header(COOKIE, rest),
            }
        }
        Ok(())
    }
}

const COOKIE: &str = "cookie";

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

/// Removes parameters of query sources from headers that repeat a URL.
///
/// A header that Envoy doesn't send to Talos (`allowed_headers`) is removed, since its value is
/// unknown.
pub fn strip_repeated_urls(headers: &Headers<'_>, sources: &[CredentialSource], extras: &mut Extras) {
    let names = sources.iter().filter_map(|source| match source {
        CredentialSource::Query { name } => Some(name.as_str()),
        _ => None,
    });
    if names.clone().next().is_none() {
        return;
    }
    let is_source = |name: &&str| sources.iter().any(|source| is_header(source, name));
    for header in URL_HEADERS.into_iter().filter(|name| !is_source(name)) {
        let mut values = headers.values(header);
        let (Some(value), None) = (values.next(), values.next()) else {
            extras.remove_header(header.as_bytes());
            continue;
        };
        let stripped = query::without(value, names.clone());
        let rest = stripped.as_deref().unwrap_or(value);
        let has_more = names.clone().any(|name| query::mentions(rest, name));
        match (stripped.is_some(), std::str::from_utf8(rest)) {
            (false, _) if !has_more => {}
            (true, Ok(rest)) if !has_more => extras.set_header(header, rest),
            _ => extras.remove_header(header.as_bytes()),
        }
    }
}

fn is_header(source: &CredentialSource, wanted: &str) -> bool {
    matches!(source, CredentialSource::Header { name, .. } if name == wanted)
}

fn cookie_lines<'a>(headers: &Headers<'a>) -> impl Iterator<Item = &'a [u8]> {
    headers.values(COOKIE)
}

/// Returns the value of one source, `None` if it has none.
///
/// # Errors
/// Fails if there is more than one, or it is not UTF-8.
pub fn value_of<'a>(
    headers: &Headers<'a>,
    source: &'a CredentialSource,
) -> Result<Option<Cow<'a, str>>, Malformed> {
    match source {
        CredentialSource::Header { name, scheme } => {
            let found = headers.values(name).filter_map(|value| match scheme {
                Some(scheme) => strip_scheme(value, scheme),
                None => Some(value.trim_ascii()),
            });
            let Some(value) = at_most_one(found)? else { return Ok(None) };
            // A comma may stem from a second line: always in the map, and in raw lines for headers
            // such as `authorization`, which Envoy itself joins.
            if (headers.are_joined() || scheme.is_some()) && value.contains(&b',') {
                return Err(Malformed::Ambiguous);
            }
            utf8(value).map(|text| Some(Cow::Borrowed(text)))
        }
        CredentialSource::Query { name } => {
            let found = query::parameters(query::of_path(headers.path()), name).map(|(_, value)| value);
            at_most_one(found)?.map(query::decode).transpose()
        }
        CredentialSource::Cookie { name } => {
            let joined = headers.are_joined();
            let found = cookie_lines(headers).flat_map(|line| cookie::values(line, joined, name));
            at_most_one(found)?.map(|value| utf8(value).map(Cow::Borrowed)).transpose()
        }
    }
}

/// Returns the only value, `None` if there is none.
fn at_most_one<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Malformed> {
    let first = values.next();
    match first.and_then(|_| values.next()) {
        Some(_) => Err(Malformed::Ambiguous),
        None => Ok(first),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Unreadable)
}

/// Returns what follows `scheme` and white space, `None` if the header has another scheme.
fn strip_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let value = value.trim_ascii();
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let spaced = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    (word.eq_ignore_ascii_case(scheme.as_bytes()) && spaced).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::request::tests::both_forms;

    fn sources() -> Vec<CredentialSource> {
        let header = |name: &str, scheme: Option<&str>| CredentialSource::Header {
            name: name.into(),
            scheme: scheme.map(Into::into),
        };
        vec![
            header("authorization", Some("Bearer")),
            header("x-api-key", None),
            CredentialSource::Query { name: "api key".into() },
            CredentialSource::Cookie { name: "key".into() },
        ]
    }

    type Lines = &'static [(&'static str, &'static str)];

    #[test]
    fn one_credential_or_none_or_a_refusal() {
        type Expected = Result<Option<(&'static str, u32)>, Malformed>;
        let table: [(&str, Lines, Expected); 25] = [
            ("/", &[], Ok(None)),
            ("/", &[("authorization", "Basic dTpw")], Ok(None)),
            ("/", &[("authorization", "Bearer k")], Ok(Some(("k", 1)))),
            ("/", &[("authorization", "bEaReR   k ")], Ok(Some(("k", 1)))),
            ("/", &[("authorization", "Bearerk")], Ok(None)),
            ("/", &[("x-api-key", "k")], Ok(Some(("k", 2)))),
            ("/", &[("X-API-Key", "k")], Ok(Some(("k", 2)))),
            ("/", &[("x_api_key", "k")], Ok(None)),
            ("/", &[("authorization", "Basic dTpw"), ("x-api-key", "k")], Ok(Some(("k", 2)))),
            ("/", &[("authorization", "Bearer k"), ("x-api-key", "k")], Ok(Some(("k", 3)))),
            ("/", &[("authorization", "Bearer k"), ("x-api-key", "l")], Err(Malformed::Ambiguous)),
            ("/", &[("x-api-key", "k"), ("x-api-key", "k")], Err(Malformed::Ambiguous)),
            ("/", &[("authorization", "Bearer")], Err(Malformed::Unreadable)),
            ("/", &[("authorization", "Bearer ö")], Ok(Some(("ö", 1)))),
            ("/?api+key=k", &[], Ok(Some(("k", 4)))),
            ("/?api%20key=%6B", &[("cookie", "key=k")], Ok(Some(("k", 12)))),
            ("/?api+key=k", &[("x-api-key", "K")], Err(Malformed::Ambiguous)),
            ("/?api+key=k&api%20key=k", &[], Err(Malformed::Ambiguous)),
            ("/?api+key=", &[], Err(Malformed::Unreadable)),
            ("/?api+key=%", &[], Err(Malformed::Unreadable)),
            ("/", &[("cookie", "a=b; key=k")], Ok(Some(("k", 8)))),
            ("/", &[("cookie", "key=k"), ("cookie", "key=k")], Err(Malformed::Ambiguous)),
            ("/", &[("cookie", "key=k; key=l")], Err(Malformed::Ambiguous)),
            ("/", &[("cookie", "key=")], Err(Malformed::Unreadable)),
            ("/", &[("cookie", "key=k"), ("authorization", "Bearer l")], Err(Malformed::Ambiguous)),
        ];
        let sources = sources();
        for (path, lines, expected) in table {
            for attributes in both_forms(path, lines) {
                let presented = PresentedCredential::find(&Headers::of(&attributes), &sources);
                let presented = presented.and_then(|presented| match presented {
                    Some(presented) => {
                        Ok(Some((presented.credential()?.expose().to_owned(), presented.carriers)))
                    }
                    None => Ok(None),
                });
                let expected =
                    expected.map(|presented| presented.map(|(text, carriers)| (text.to_owned(), carriers)));
                assert_eq!(presented, expected, "{path} {lines:?}");
            }
        }
    }

    #[test]
    fn a_comma_is_a_double_only_where_lines_are_joined() {
        let sources = sources();
        let [joined, raw] = both_forms("/", &[("x-api-key", "a,b")]);
        assert!(PresentedCredential::find(&Headers::of(&joined), &sources).is_err());
        assert!(PresentedCredential::find(&Headers::of(&raw), &sources).unwrap().is_some());
    }
}
