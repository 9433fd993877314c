//! View of a CheckRequest's HTTP request: headers, client address, and headers that must not reach
//! upstream.

use std::net::IpAddr;

use super::attributes::{Attributes, Pair};
use super::header_names::{is_reserved, matches_folded};
use super::identity_headers::IDENTITY_HEADERS;
use crate::config::{Authz, ClientAddress};
use crate::host::address_of;

/// Headers of a request, in either of the two forms that Envoy sends.
pub struct Headers<'a>(&'a Attributes<'a>);

/// Problem that makes a request unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// A source has two credentials, or two sources differ.
    #[error("more than one credential was sent")]
    Ambiguous,
    /// Servers differ about the meaning of the path.
    #[error("the path can be read in more than one way")]
    AmbiguousPath,
    /// The credential is too long, not UTF-8, or in a broken encoding.
    #[error("the credential is malformed")]
    Unreadable,
    /// After the scheme Basic comes no user and password.
    #[error("what follows Basic isn't USER:PASSWORD in base64 and UTF-8")]
    NotBasic,
}

impl<'a> Headers<'a> {
    /// Returns the headers of a request.
    pub fn of(attributes: &'a Attributes<'a>) -> Self {
        Self(attributes)
    }

    /// Returns the path as received, with query and fragment.
    pub fn path(&self) -> &'a [u8] {
        self.0.path
    }

    /// Returns the method as received.
    pub fn method(&self) -> &'a [u8] {
        self.0.method
    }

    /// Returns the host as received, with port.
    pub fn host(&self) -> &'a [u8] {
        self.0.host
    }

    /// Returns whether this is a CORS preflight request.
    pub fn is_preflight(&self) -> bool {
        let has = |name| self.values(name).next().is_some();
        self.method() == b"OPTIONS" && has("origin") && has("access-control-request-method")
    }

    /// Returns whether repeated headers are joined by commas: in Envoy's `headers` map, not with
    /// `encode_raw_headers`.
    pub fn are_joined(&self) -> bool {
        self.0.raw_headers.is_none()
    }

    /// Returns every header line: name and value.
    pub fn lines(&self) -> impl Iterator<Item = Pair<'a>> + use<'a> {
        self.0.raw_headers.as_ref().unwrap_or(&self.0.joined_headers).iter().copied()
    }

    /// Returns the values of a header. Names compare without case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.lines().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Returns whether the client speaks gRPC, gRPC-Web included.
    pub fn is_grpc(&self) -> bool {
        self.values("content-type").any(|value| value.starts_with(b"application/grpc"))
    }

    /// Returns whether the client speaks gRPC-Web, and no filter of Envoy translates it.
    pub fn is_grpc_web(&self) -> bool {
        self.values("content-type").any(|value| value.starts_with(GRPC_WEB.as_bytes()))
    }

    /// Returns the names of headers that only Talos may set and that the client sent under another
    /// spelling. `token_header` is among them.
    pub fn spoofed(&self, token_header: &str) -> impl Iterator<Item = &'a [u8]> {
        // Our own spelling is overwritten or removed anyway. It must not be named twice: Envoy
        // drops a header that is both set and removed.
        let is_own_spelling =
            |name: &[u8]| IDENTITY_HEADERS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()));
        let is_forged = move |name: &[u8]| {
            (is_reserved(name) && !is_own_spelling(name))
                || (matches_folded(name, token_header.as_bytes())
                    && !name.eq_ignore_ascii_case(token_header.as_bytes()))
        };
        self.lines().map(|(name, _)| name).filter(move |name| is_forged(name))
    }

    /// Returns whether the client accepts this media type and prefers it to JSON.
    pub fn prefers(&self, media_type: &str) -> bool {
        let quality = |wanted: &str| {
            let ranges = self.values("accept").flat_map(|value| value.split(|byte| *byte == b','));
            ranges.filter_map(|range| quality_of(range, wanted)).max()
        };
        let wanted = quality(media_type).unwrap_or(0);
        let json = if media_type == JSON { 0 } else { quality(JSON).unwrap_or(0) };
        wanted > json
    }

    /// Returns Envoy's request id. Empty if it is missing or can't be shown.
    pub fn request_id(&self) -> &'a str {
        let id = self.values("x-request-id").next().and_then(|id| std::str::from_utf8(id).ok());
        id.filter(|id| id.len() <= MAX_REQUEST_ID).unwrap_or_default()
    }

    /// Returns the client's address. `None` if unknown, and then no address list allows the
    /// request.
    pub fn client_address(&self, settings: &Authz) -> Option<IpAddr> {
        match settings.client_address {
            ClientAddress::Peer => address_of(self.0.peer?),
            ClientAddress::External => {
                let mut values = self.values("x-envoy-external-address");
                let value = values.next().filter(|_| values.next().is_none())?;
                address_of(value)
            }
            ClientAddress::Xff => {
                // Each trusted proxy appends the address that it saw, so count from the right.
                // Anything further left may be made up by the client.
                let lines: Vec<&[u8]> = self
                    .values("x-forwarded-for")
                    .flat_map(|value| value.split(|byte| *byte == b','))
                    .collect();
                let hops = usize::try_from(settings.trusted_hops).ok()?;
                address_of(lines.get(lines.len().checked_sub(hops)?)?)
            }
        }
    }
}

const JSON: &str = "application/json";
/// Media type of gRPC-Web, with which that of its text form begins, too.
pub(super) const GRPC_WEB: &str = "application/grpc-web";

/// Maximum length of a request id that is shown, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Returns the quality of a media range in thousandths, `None` if it is another type. A malformed
/// quality is 0.
fn quality_of(range: &[u8], wanted: &str) -> Option<u16> {
    let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    if !parts.next()?.eq_ignore_ascii_case(wanted.as_bytes()) {
        return None;
    }
    let quality = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    let Some(quality) = quality else { return Some(1000) };
    let quality: Option<f32> = std::str::from_utf8(quality).ok().and_then(|quality| quality.parse().ok());
    // The cast saturates.
    Some(quality.map_or(0, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u16))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a request with joined headers, and the same with raw header lines.
    pub(crate) fn both_forms(
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
            "x.talos.actor.id",
            "X-Talos~Scopes",
            "x!talos'foo",
            "x-talosfoo",
            "x-talos1foo",
            "x-talos-scopes",
            "x-user-token",
            "x-user_token",
            "x.user-token",
            "x-user-token-2",
        ];
        let lines: Vec<_> = names.iter().map(|name| (*name, "v")).collect();
        for attributes in both_forms("/", &lines) {
            let headers = Headers::of(&attributes);
            let spoofed: Vec<_> = headers.spoofed("x-user-token").map(|name| name.to_vec()).collect();
            let expected = [
                "x_talos_actor_id",
                "x-talos-",
                "x-talos-foo",
                "x.talos.actor.id",
                "X-Talos~Scopes",
                "x!talos'foo",
                "x-user_token",
                "x.user-token",
            ];
            assert_eq!(spoofed, expected.map(|name| name.as_bytes()));
        }
    }
}
