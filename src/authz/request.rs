//! What a CheckRequest says of the request: its lines, from whom it is, and which headers must not reach upstream.

use std::net::IpAddr;

use super::attributes::{Attributes, Pair};
use crate::config::{Authz, ClientAddress};
use crate::service::upstream::{HEADER_PREFIX, IDENTITY_HEADERS};

/// The header lines of a request, in whichever of its two forms Envoy sent them.
pub struct Headers<'a>(&'a Attributes<'a>);

/// Why a request can't be taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The same source stands there twice, or two sources differ.
    #[error("more than one credential was sent")]
    Ambiguous,
    /// Servers differ about what the path means.
    #[error("the path can be read in more than one way")]
    AmbiguousPath,
    /// It is empty, too long or no text.
    #[error("the credential is malformed")]
    Unreadable,
}

impl<'a> Headers<'a> {
    /// The headers of a request.
    pub fn of(attributes: &'a Attributes<'a>) -> Self {
        Self(attributes)
    }

    /// The path as it came, with the query and whatever else stands there.
    pub fn path(&self) -> &'a [u8] {
        self.0.path
    }

    /// The method as it came.
    pub fn method(&self) -> &'a [u8] {
        self.0.method
    }

    /// The host as it came, port and all.
    pub fn host(&self) -> &'a [u8] {
        self.0.host
    }

    /// Whether a browser asks here what it may ask (CORS).
    pub fn is_preflight(&self) -> bool {
        let has = |name| self.values(name).next().is_some();
        self.method() == b"OPTIONS" && has("origin") && has("access-control-request-method")
    }

    /// Whether doubles are joined by commas: Envoy's `headers` map, unlike `encode_raw_headers`.
    pub fn joined(&self) -> bool {
        self.0.raw_headers.is_none()
    }

    /// Every line: name and value.
    pub fn lines(&self) -> impl Iterator<Item = Pair<'a>> + use<'a> {
        self.0.raw_headers.as_ref().unwrap_or(&self.0.joined_headers).iter().copied()
    }

    /// The values of a header, whose name compares without case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.lines().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Whether the client speaks gRPC.
    pub fn is_grpc(&self) -> bool {
        self.values("content-type").any(|value| value.starts_with(b"application/grpc"))
    }

    /// Headers that only we may set and that the client sent under another spelling: they are taken away by the name
    /// that they came with. `token_header` is ours, too.
    pub fn spoofed(&self, token_header: &str) -> impl Iterator<Item = &'a [u8]> {
        // Those of our names that we set or remove anyway aren't named again: a name that is both set and removed is
        // lost.
        let is_handled =
            |name: &[u8]| IDENTITY_HEADERS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()));
        let is_forged = move |name: &[u8]| {
            (is_reserved(name) && !is_handled(name))
                || (reads_as(name, token_header) && !name.eq_ignore_ascii_case(token_header.as_bytes()))
        };
        self.lines().map(|(name, _)| name).filter(move |name| is_forged(name))
    }

    /// Whether the client names this media type in its Accept header, and doesn't like JSON as much.
    pub fn prefers(&self, media_type: &str) -> bool {
        let quality = |wanted: &str| {
            let ranges = self.values("accept").flat_map(|value| value.split(|byte| *byte == b','));
            ranges.filter_map(|range| quality_of(range, wanted)).max()
        };
        let wanted = quality(media_type).unwrap_or(0);
        let json = if media_type == JSON { 0 } else { quality(JSON).unwrap_or(0) };
        wanted > json
    }

    /// What Envoy calls the request; empty when that can't be shown.
    pub fn request_id(&self) -> &'a str {
        let id = self.values("x-request-id").next().and_then(|id| std::str::from_utf8(id).ok());
        id.filter(|id| id.len() <= MAX_REQUEST_ID).unwrap_or_default()
    }

    /// The client's address; None when it can't be known, which no address list lets through.
    pub fn client(&self, settings: &Authz) -> Option<IpAddr> {
        match settings.client_address {
            ClientAddress::Peer => parse_address(self.0.peer?),
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

const JSON: &str = "application/json";

/// Longest id of a request that is shown, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The quality of a media range, in thousandths, if it is this type; one that can't be read is 0.
fn quality_of(range: &[u8], wanted: &str) -> Option<u16> {
    let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    if !parts.next()?.eq_ignore_ascii_case(wanted.as_bytes()) {
        return None;
    }
    let quality = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    let Some(quality) = quality else { return Some(1000) };
    let quality: Option<f32> = std::str::from_utf8(quality).ok().and_then(|quality| quality.parse().ok());
    // Floats end at the bounds of the integer.
    Some(quality.map_or(0, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u16))
}

fn parse_address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Whether a name is one of `x-talos-*`.
fn is_reserved(name: &[u8]) -> bool {
    // Most names don't even begin like it.
    matches!(name, [b'x' | b'X', _, b't' | b'T', ..])
        && name.get(..HEADER_PREFIX.len()).is_some_and(|start| reads_as(start, HEADER_PREFIX))
}

/// Whether many servers read `name` as `ours`: without case and with `_` as `-`.
fn reads_as(name: &[u8], ours: &str) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == ours.len() && name.iter().map(fold).eq(ours.as_bytes().iter().map(fold))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A request whose headers are joined, and the same with each line of its own.
    pub fn both_forms(
        path: &'static str,
        lines: &[(&'static str, &'static str)],
    ) -> [Attributes<'static>; 2] {
        let mut joined: Vec<Pair<'static>> = vec![];
        for (name, value) in lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())) {
            match joined.iter_mut().find(|(other, _)| *other == name) {
                Some((_, all)) => *all = [all, &b","[..], value].concat().leak(),
                None => joined.push((name, value)),
            }
        }
        let raw = lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let path = path.as_bytes();
        [
            Attributes { path, joined_headers: joined, ..Attributes::default() },
            Attributes { path, raw_headers: Some(raw), ..Attributes::default() },
        ]
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
            "x-user-token",
            "x-user_token",
            "x-user-token-2",
        ];
        let lines: Vec<_> = names.iter().map(|name| (*name, "v")).collect();
        for attributes in both_forms("/", &lines) {
            let headers = Headers::of(&attributes);
            let spoofed: Vec<_> = headers.spoofed("x-user-token").map(|name| name.to_vec()).collect();
            let expected = ["x_talos_actor_id", "x-talos-", "x-talos-foo", "x-user_token"];
            assert_eq!(spoofed, expected.map(|name| name.as_bytes()));
        }
    }
}
