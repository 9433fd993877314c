//! Peers of connections, and callers of the admin plane.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;

/// The other end of a connection, as the connection itself shows it.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Address. `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Client certificate, signed by a trusted CA. `None` if there is none.
    pub certificate: Option<Arc<Certificate>>,
    /// User id of the peer's process. Only on a Unix socket.
    pub uid: Option<u32>,
}

/// Returns the /64 of an IPv6 address, which belongs to one client. Returns IPv4 addresses as they
/// are.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Names in it.
    pub names: Result<Names, UnusableNames>,
    /// Expiry. A connection may outlive it.
    pub expires: Timestamp,
}

/// Names in a certificate. The subject is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// URI, such as a SPIFFE id. At most one.
    pub uri: Option<String>,
    /// DNS names, in lower case.
    pub dns: Vec<String>,
}

/// Problem that makes a certificate's names unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableNames {
    /// The names can't be parsed.
    #[error("its names are malformed")]
    Malformed,
    /// A name has a character that no name has, such as a NUL.
    #[error("a name in it has a character that no name has")]
    BadCharacter,
    /// A name is that of a user on the Unix socket.
    #[error("a name in it begins with uid:, as those of users on the Unix socket do")]
    UnixUser,
    /// There is more than one URI. SPIFFE allows one.
    #[error("it has more than one URI")]
    ManyUris,
    /// The certificate names nobody.
    #[error("it has neither a URI nor a DNS name")]
    None,
}

impl Names {
    /// Creates names that are safe to compare.
    ///
    /// # Errors
    /// Fails if the names are unusable.
    pub fn new<'a>(
        uris: impl IntoIterator<Item = &'a str>,
        dns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, UnusableNames> {
        let mut uris = uris.into_iter();
        let (uri, second) = (uris.next(), uris.next());
        if second.is_some() {
            return Err(UnusableNames::ManyUris);
        }
        let dns: Vec<String> = dns.into_iter().map(str::to_ascii_lowercase).collect();
        if uri.is_none() && dns.is_empty() {
            return Err(UnusableNames::None);
        }
        let all = uri.into_iter().chain(dns.iter().map(String::as_str));
        for name in all {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(UnusableNames::BadCharacter);
            }
            if name.starts_with(UNIX_USER) {
                return Err(UnusableNames::UnixUser);
            }
        }
        Ok(Self { uri: uri.map(str::to_owned), dns })
    }

    /// Returns the name that one of `entries` matches.
    ///
    /// An entry with a colon, such as `spiffe://a/b`, matches a URI exactly. Any other matches a
    /// DNS name regardless of case.
    pub fn find<'a>(&self, entries: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        let uri =
            self.uri.as_deref().filter(|uri| entries.clone().any(|entry| is_uri(entry) && entry == *uri));
        let is_listed =
            |name: &&String| entries.clone().any(|entry| !is_uri(entry) && entry.eq_ignore_ascii_case(name));
        uri.or_else(|| self.dns.iter().find(is_listed).map(String::as_str))
    }

    /// Returns all names, the URI first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.uri.iter().chain(&self.dns).map(String::as_str)
    }
}

/// Returns whether a configured name is a URI. DNS names have no colon.
fn is_uri(entry: &str) -> bool {
    entry.contains(':')
}

/// Start of the names of users on the Unix socket. No other proof gives such a name.
pub const UNIX_USER: &str = "uid:";
/// Maximum length of a caller's name beside a key or an actor, in characters. Subjects of tokens
/// are no longer (OpenID Connect Core, 2).
pub const MAX_RECORDED_NAME: usize = 255;

/// An authenticated caller of the admin plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name: a URI or DNS name of the certificate, the subject of the token, `uid:1000`, or
    /// `anonymous`.
    pub name: String,
    /// Means of authentication.
    pub proof: Proof,
    /// Role.
    pub role: Role,
}

impl Caller {
    /// Returns the name that is recorded beside what the caller does: of a longer one, the start
    /// and its SHA-256, so that no two callers have one name. `None` if nothing proves it.
    pub fn verified_name(&self) -> Option<Arc<str>> {
        (self.proof != Proof::None).then(|| recorded(&self.name).into())
    }

    /// Returns the caller where authentication is off.
    pub fn anonymous() -> Self {
        Self { name: "anonymous".to_owned(), proof: Proof::None, role: Role::Admin }
    }
}

fn recorded(name: &str) -> String {
    if name.chars().count() <= MAX_RECORDED_NAME {
        return name.to_owned();
    }
    let hash = hex::encode(Sha256::digest(name));
    let kept = MAX_RECORDED_NAME - hash.len() - 1;
    format!("{}#{hash}", name.chars().take(kept).collect::<String>())
}

/// Means of authentication of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// No proof.
    None,
    /// Client certificate.
    Certificate,
    /// Client certificate, forwarded by a trusted proxy.
    ForwardedCertificate,
    /// Bearer token.
    Token,
    /// User id on a Unix socket.
    UnixUser,
}

impl Proof {
    /// Returns the name for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Certificate => "mtls",
            Self::ForwardedCertificate => "xfcc",
            Self::Token => "jwt",
            Self::UnixUser => "unix",
        }
    }
}

/// Role of a caller. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads keys and verifies credentials.
    Viewer,
    /// Issues, updates, rotates and revokes keys, and derives tokens.
    Issuer,
    /// Everything, including the deletion of keys.
    Admin,
}

impl Role {
    /// All roles, the most powerful first.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Issuer, Self::Viewer];

    /// Returns the name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Issuer => "issuer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_or_nobody() {
        let names = |uris: &[&'static str], dns: &[&'static str]| {
            Names::new(uris.iter().copied(), dns.iter().copied())
        };
        let good = names(&["spiffe://a/b"], &["Host.Example"]).unwrap();
        assert_eq!(good.iter().collect::<Vec<_>>(), ["spiffe://a/b", "host.example"]);
        for (uris, dns, why) in [
            (&[][..], &[][..], UnusableNames::None),
            (&["spiffe://a", "spiffe://b"], &[], UnusableNames::ManyUris),
            (&["spiffe://a", "spiffe://a"], &[], UnusableNames::ManyUris),
            (&["spiffe://a\0.evil"], &[], UnusableNames::BadCharacter),
            (&[], &["good", "host\0.evil"], UnusableNames::BadCharacter),
            (&[], &["höst"], UnusableNames::BadCharacter),
            (&[], &["a b"], UnusableNames::BadCharacter),
            (&[""], &[], UnusableNames::BadCharacter),
        ] {
            assert_eq!(names(uris, dns), Err(why), "{uris:?} {dns:?}");
        }
    }

    #[test]
    fn long_names_are_recorded_with_their_hash() {
        let recorded = |name: &str| {
            let caller = Caller { name: name.to_owned(), proof: Proof::Certificate, role: Role::Admin };
            caller.verified_name().unwrap()
        };
        let uri = |count: usize, end: &str| format!("spiffe://a/{}{end}", "b".repeat(count));
        let longest = uri(244, "");
        assert_eq!((longest.len(), &*recorded(&longest)), (MAX_RECORDED_NAME, longest.as_str()));
        let (one, other) = (recorded(&uri(300, "c")), recorded(&uri(300, "d")));
        assert!(one != other && one.starts_with("spiffe://a/b"), "{one}");
        assert_eq!((one.len(), other.len()), (MAX_RECORDED_NAME, MAX_RECORDED_NAME));
    }

    #[test]
    fn a_name_is_found_by_its_own_kind_alone() {
        let find = |uris: &[&'static str], dns: &[&'static str], entries: &[&str]| {
            let names = Names::new(uris.iter().copied(), dns.iter().copied()).unwrap();
            names.find(entries.iter().copied()).map(str::to_owned)
        };
        for (uris, dns, entries, found) in [
            (&["spiffe://a/b"][..], &["host.a"][..], &["host.a", "spiffe://a/b"][..], Some("spiffe://a/b")),
            (&["spiffe://a/b"], &["Host.A"], &["HOST.a"], Some("host.a")),
            (&["urn:a:b"], &[], &["urn:a:b"], Some("urn:a:b")),
            (&["spiffe://a/B"], &[], &["spiffe://a/b"], None),
            (&["host.a"], &[], &["host.a"], None),
            (&[], &["spiffe://a/b"], &["spiffe://a/b"], None),
            (&[], &["host.a"], &["host.a.", "host", "a"], None),
        ] {
            assert_eq!(find(uris, dns, entries).as_deref(), found, "{uris:?} {dns:?} {entries:?}");
        }
    }

    #[test]
    fn all_of_a_slash_64_are_one() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn roles_are_in_order() {
        assert!(Role::Viewer < Role::Issuer && Role::Issuer < Role::Admin);
        assert!(Role::ALL.is_sorted_by(|a, b| a > b));
    }
}
