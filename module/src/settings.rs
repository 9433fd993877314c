//! The part of the server's configuration that the module follows.

use talos_proto::edge::{self, ClientAddress, source};

/// Largest number of sources (`authz.sources`).
const MAX_SOURCES: usize = 32;

/// Settings in force.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Never 0.
    pub generation: u64,
    /// Time for which knowledge of changes is valid, in microseconds.
    pub lease_micros: u64,
    /// Places where a credential is looked for.
    pub sources: Vec<HeaderSource>,
    /// Origin of the client's address; `None` if the module can't tell.
    pub client_address: Option<AddressOrigin>,
    /// Header that carries the token upstream.
    pub token_header: Vec<u8>,
    /// True if the request's host decides about the network.
    pub by_host: bool,
    /// Headers that only Talos sets, beside those that begin with `x-talos-`.
    pub own_headers: Vec<Vec<u8>>,
    /// True if CORS preflights pass unchecked.
    pub preflight_allowed: bool,
}

/// Header with a credential.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeaderSource {
    /// Name in lower case.
    pub name: String,
    /// Authentication scheme; empty for none.
    pub scheme: String,
    /// True if the scheme may be missing.
    pub is_scheme_optional: bool,
}

/// Origin of the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressOrigin {
    /// Peer of the connection.
    Peer,
    /// `x-envoy-external-address`.
    External,
    /// `x-forwarded-for`, counted from the right.
    Xff {
        /// Position from the right, at least 1.
        hops: usize,
    },
}

impl Settings {
    /// Takes over the server's message; `None` if nothing may be accelerated by it.
    pub(crate) fn read(message: edge::Settings) -> Option<Self> {
        let client_address = match message.client_address() {
            ClientAddress::Peer => Some(AddressOrigin::Peer),
            ClientAddress::External => Some(AddressOrigin::External),
            ClientAddress::Xff => {
                let hops = usize::try_from(message.trusted_hops).ok().filter(|hops| *hops > 0);
                hops.map(|hops| AddressOrigin::Xff { hops })
            }
            ClientAddress::Unspecified => None,
        };
        // Rules aren't matched here, and they decide about the policy.
        let can_follow = message.enabled
            && message.generation != 0
            && message.rules.is_empty()
            && (1..=MAX_SOURCES).contains(&message.sources.len());
        if !can_follow {
            return None;
        }
        let source = |source: edge::Source| match source.kind? {
            source::Kind::Header(header) => Some(HeaderSource {
                name: header.name,
                scheme: header.scheme,
                is_scheme_optional: header.is_scheme_optional,
            }),
            // Their values, and what repeats them elsewhere, aren't read or removed here.
            _ => None,
        };
        Some(Self {
            generation: message.generation,
            lease_micros: message.lease_micros,
            sources: message.sources.into_iter().map(source).collect::<Option<_>>()?,
            client_address,
            token_header: message.token_header.into_bytes(),
            by_host: message.by_host,
            own_headers: message.own_headers.into_iter().map(String::into_bytes).collect(),
            preflight_allowed: message.preflight_allowed,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the settings of a server that has set nothing.
    pub(crate) fn message() -> edge::Settings {
        let header = |name: &str, scheme: &str| edge::Source {
            kind: Some(source::Kind::Header(edge::HeaderSource {
                name: name.to_owned(),
                scheme: scheme.to_owned(),
                is_scheme_optional: false,
            })),
        };
        edge::Settings {
            generation: 1,
            enabled: true,
            lease_micros: 5_000_000,
            sources: vec![header("authorization", "Bearer"), header("x-api-key", "")],
            client_address: ClientAddress::Peer.into(),
            token_header: "authorization".to_owned(),
            own_headers: ["x-talos-key-id", "x-talos-actor-id", "x-talos-scopes", "x-talos-network-id"]
                .map(str::to_owned)
                .to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn what_it_cannot_follow_turns_it_off() {
        assert!(Settings::read(message()).is_some());
        let other = |kind| edge::Source { kind };
        for bad in [
            edge::Settings { enabled: false, ..message() },
            edge::Settings { generation: 0, ..message() },
            edge::Settings { sources: vec![], ..message() },
            edge::Settings { sources: vec![message().sources[0].clone(); 33], ..message() },
            edge::Settings { rules: vec![edge::Rule::default()], ..message() },
            edge::Settings { sources: vec![other(Some(source::Kind::Query("key".to_owned())))], ..message() },
            edge::Settings {
                sources: vec![other(Some(source::Kind::Cookie("key".to_owned())))],
                ..message()
            },
            edge::Settings { sources: vec![other(None)], ..message() },
        ] {
            assert_eq!(Settings::read(bad.clone()), None, "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_origin_of_addresses_is_none() {
        let origin = |client_address, trusted_hops| {
            Settings::read(edge::Settings { client_address, trusted_hops, ..message() })
                .unwrap()
                .client_address
        };
        assert_eq!(origin(ClientAddress::External.into(), 0), Some(AddressOrigin::External));
        assert_eq!(origin(ClientAddress::Xff.into(), 2), Some(AddressOrigin::Xff { hops: 2 }));
        for (unknown, hops) in [(0, 1), (17, 1), (ClientAddress::Xff.into(), 0)] {
            assert_eq!(origin(unknown, hops), None);
        }
    }
}
