//! What a CheckRequest says: which credential, from whom, and which headers must not reach upstream.

use std::net::IpAddr;

use bytes::Bytes;
use talos_proto::{AttributeContext, HttpRequest};

use crate::config::{Authz, ClientAddress, CredentialSource};
use crate::credential::Presented;
use crate::service::upstream::{HEADER_PREFIX, IDENTITY_HEADERS};

/// The header lines of a request, in whichever of its two forms Envoy sent them.
pub struct Headers<'a> {
    http: Option<&'a HttpRequest>,
}

/// The credential of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// Itself.
    pub credential: Presented<'a>,
    /// The headers that carry it, as the settings name them.
    pub carriers: Vec<&'a str>,
}

/// Why a request's credential can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The same source stands there twice, or two sources differ.
    #[error("more than one credential was sent")]
    Ambiguous,
    /// It is empty, too long or no text.
    #[error("the credential is malformed")]
    Unreadable,
}

impl<'a> Headers<'a> {
    /// The headers of a request.
    pub fn of(attributes: &'a AttributeContext) -> Self {
        let request = attributes.request.as_ref();
        Self { http: request.and_then(|request| request.http.as_ref()) }
    }

    /// Whether doubles are joined by commas: Envoy's `headers` map, unlike `encode_raw_headers`.
    fn joined(&self) -> bool {
        self.http.is_some_and(|http| http.header_map.is_none())
    }

    /// Every line: name and value.
    pub fn lines(&self) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        let raw = self.http.and_then(|http| http.header_map.as_ref()).map_or(&[][..], |map| &map.headers);
        let raw = raw.iter().map(|line| {
            let value = if line.raw_value.is_empty() { &line.value } else { &line.raw_value };
            (&line.key, value)
        });
        let map = self.http.filter(|http| http.header_map.is_none()).map_or(&[][..], |http| &http.headers);
        raw.chain(map.iter().map(|entry| (&entry.key, &entry.value)))
    }

    /// The values of a header, whose name compares without case.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a Bytes> {
        self.lines().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Whether the client speaks gRPC.
    pub fn is_grpc(&self) -> bool {
        self.values("content-type").any(|value| value.starts_with(b"application/grpc"))
    }

    /// The credential that the sources show; None when none does.
    ///
    /// # Errors
    /// When it can't be told which is meant, or it can't be one.
    pub fn credential(&self, sources: &'a [CredentialSource]) -> Result<Option<Shown<'a>>, Malformed> {
        let mut shown: Option<Shown<'a>> = None;
        for source in sources {
            // Queries and cookies are refused where the configuration is read.
            let CredentialSource::Header { name, scheme } = source else {
                continue;
            };
            let mut found = self.values(name).filter_map(|value| match scheme {
                Some(scheme) => after_scheme(value, scheme),
                None => Some(value.trim_ascii()),
            });
            let Some(value) = found.next() else {
                continue;
            };
            // A comma may be all that is left of a second line: always in the map, and for headers such as
            // authorization, which Envoy itself joins, among the raw lines as well.
            let joined = self.joined() || scheme.is_some();
            if found.next().is_some() || (joined && value.contains(&b',')) {
                return Err(Malformed::Ambiguous);
            }
            let value = std::str::from_utf8(value).map_err(|_| Malformed::Unreadable)?;
            let credential = Presented::new(value).ok_or(Malformed::Unreadable)?;
            match &mut shown {
                None => shown = Some(Shown { credential, carriers: vec![name] }),
                Some(shown) if shown.credential == credential => shown.carriers.push(name),
                Some(_) => return Err(Malformed::Ambiguous),
            }
        }
        Ok(shown)
    }

    /// Headers that only we may set and that the client sent under another spelling: they are taken away by the name
    /// that they came with.
    pub fn spoofed(&self) -> impl Iterator<Item = &'a Bytes> {
        // Those of our names that we set or remove anyway aren't named again: a name that is both set and removed is
        // lost.
        let ours =
            |name: &Bytes| IDENTITY_HEADERS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()));
        self.lines().map(|(name, _)| name).filter(move |name| is_reserved(name) && !ours(name))
    }

    /// The client's address; None when it can't be known, which no address list lets through.
    pub fn client(&self, attributes: &AttributeContext, settings: &Authz) -> Option<IpAddr> {
        match settings.client_address {
            ClientAddress::Peer => {
                let address = attributes.source.as_ref()?.address.as_ref()?.socket_address.as_ref()?;
                parse_address(&address.address)
            }
            ClientAddress::External => {
                let mut values = self.values("x-envoy-external-address");
                let value = values.next().filter(|_| values.next().is_none())?;
                parse_address(value)
            }
            ClientAddress::Xff => {
                // Each of our proxies appended the address that it saw: count from the right. What stands further
                // left was written by the client.
                let lines: Vec<&[u8]> = self
                    .values("x-forwarded-for")
                    .flat_map(|value| value.split(|byte| *byte == b','))
                    .collect();
                let hops = usize::try_from(settings.trusted_hops).ok()?;
                parse_address(lines.get(lines.len().checked_sub(hops)?)?)
            }
        }
    }
}

fn parse_address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// What follows `scheme` and white space; None when the header has another scheme.
fn after_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let value = value.trim_ascii();
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let spaced = rest.first().is_none_or(|byte| matches!(byte, b' ' | b'\t'));
    (word.eq_ignore_ascii_case(scheme.as_bytes()) && spaced).then(|| rest.trim_ascii())
}

/// Whether a name is one of `x-talos-*`, without case and with `_` as `-`, as many servers read it.
fn is_reserved(name: &[u8]) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let prefix = HEADER_PREFIX.as_bytes();
    name.len() >= prefix.len() && name.iter().zip(prefix).all(|(byte, expected)| fold(byte) == *expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use talos_proto::{Entry, HeaderMap, HeaderValue, Request};

    fn sources() -> Vec<CredentialSource> {
        let header = |name: &str, scheme: Option<&str>| CredentialSource::Header {
            name: name.into(),
            scheme: scheme.map(Into::into),
        };
        vec![header("authorization", Some("Bearer")), header("x-api-key", None)]
    }

    fn both_forms(lines: &[(&'static str, &'static str)]) -> [AttributeContext; 2] {
        let with = |http| AttributeContext {
            request: Some(Request { http: Some(http) }),
            ..AttributeContext::default()
        };
        let map = lines.iter().map(|(key, value)| Entry { key: (*key).into(), value: (*value).into() });
        let raw = lines.iter().map(|(key, value)| HeaderValue {
            key: (*key).into(),
            raw_value: (*value).into(),
            ..HeaderValue::default()
        });
        [
            with(HttpRequest { headers: map.collect(), ..HttpRequest::default() }),
            with(HttpRequest {
                header_map: Some(HeaderMap { headers: raw.collect() }),
                ..HttpRequest::default()
            }),
        ]
    }

    #[test]
    fn one_credential_or_none_or_a_refusal() {
        type Expected = Result<Option<(&'static str, usize)>, Malformed>;
        let table: [(&[(&str, &str)], Expected); 13] = [
            (&[], Ok(None)),
            (&[("authorization", "Basic dTpw")], Ok(None)),
            (&[("authorization", "Bearer k")], Ok(Some(("k", 1)))),
            (&[("authorization", "bEaReR   k ")], Ok(Some(("k", 1)))),
            (&[("authorization", "Bearerk")], Ok(None)),
            (&[("x-api-key", "k")], Ok(Some(("k", 1)))),
            (&[("X-API-Key", "k")], Ok(Some(("k", 1)))),
            (&[("x_api_key", "k")], Ok(None)),
            (&[("authorization", "Basic dTpw"), ("x-api-key", "k")], Ok(Some(("k", 1)))),
            (&[("authorization", "Bearer k"), ("x-api-key", "k")], Ok(Some(("k", 2)))),
            (&[("authorization", "Bearer k"), ("x-api-key", "l")], Err(Malformed::Ambiguous)),
            (&[("x-api-key", "k"), ("x-api-key", "k")], Err(Malformed::Ambiguous)),
            (&[("authorization", "Bearer")], Err(Malformed::Unreadable)),
        ];
        let sources = sources();
        for (lines, expected) in table {
            for attributes in both_forms(lines) {
                let headers = Headers::of(&attributes);
                let shown = headers.credential(&sources);
                let shown =
                    shown.map(|shown| shown.map(|shown| (shown.credential.expose(), shown.carriers.len())));
                assert_eq!(shown, expected, "{lines:?}");
            }
        }
    }

    #[test]
    fn a_comma_is_a_double_only_where_lines_are_joined() {
        let sources = sources();
        let [joined, raw] = both_forms(&[("x-api-key", "a,b")]);
        assert_eq!(Headers::of(&joined).credential(&sources), Err(Malformed::Ambiguous));
        assert!(Headers::of(&raw).credential(&sources).unwrap().is_some());
    }

    #[test]
    fn every_other_spelling_of_our_names_is_taken_away() {
        let names = [
            "X-Talos-Actor-Id",
            "x_talos_actor_id",
            "x-talos-",
            "x-talos-foo",
            "x-talosfoo",
            "x-talos-scopes",
        ];
        let lines: Vec<_> = names.iter().map(|name| (*name, "v")).collect();
        for attributes in both_forms(&lines) {
            let headers = Headers::of(&attributes);
            let spoofed: Vec<_> = headers.spoofed().map(|name| name.to_vec()).collect();
            assert_eq!(spoofed, names[1..4].iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        }
    }
}
