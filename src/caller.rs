//! Who is at the other end of a connection, and on whose behalf a request of the admin plane acts.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Timestamp;

/// The other end of a connection, as far as the connection itself tells.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// Its address; None on a Unix socket.
    pub address: Option<IpAddr>,
    /// What its certificate says, which an issuer that we trust has signed; None when it showed none.
    pub certificate: Option<Arc<Certificate>>,
    /// The user that runs it; on a Unix socket alone.
    pub uid: Option<u32>,
}

/// Who has one address of IPv6 has all of its /64.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// What a client's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it names.
    pub names: Result<Names, UnusableNames>,
    /// When it ends. A connection may outlive it.
    pub expires: Timestamp,
}

/// The names in a certificate. Only these count: never its subject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The URI (of SPIFFE, say); a certificate may have one at most.
    pub uri: Option<String>,
    /// Names of hosts, in lower case.
    pub dns: Vec<String>,
}

/// Why the names in a certificate name nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableNames {
    /// The names can't be read.
    #[error("its names are malformed")]
    Malformed,
    /// A name has a character that no name has, such as a NUL.
    #[error("a name in it has a character that no name has")]
    BadCharacter,
    /// SPIFFE allows one.
    #[error("it has more than one URI")]
    ManyUris,
    /// Nobody is named.
    #[error("it has neither a URI nor a DNS name")]
    None,
}

impl Names {
    /// Names that can be compared with others.
    ///
    /// # Errors
    /// When they name nobody for certain.
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
        }
        Ok(Self { uri: uri.map(str::to_owned), dns })
    }

    /// The name that one of `entries` means. With a colon an entry is a URI, as `spiffe://a/b`,
    /// else the name of a host: neither ever stands for the other, and all that can be written
    /// differently is the case of a host's name.
    pub fn find<'a>(&self, entries: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        let uri =
            self.uri.as_deref().filter(|uri| entries.clone().any(|entry| is_uri(entry) && entry == *uri));
        let is_listed =
            |name: &&String| entries.clone().any(|entry| !is_uri(entry) && entry.eq_ignore_ascii_case(name));
        uri.or_else(|| self.dns.iter().find(is_listed).map(String::as_str))
    }

    /// All of them, the URI first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.uri.iter().chain(&self.dns).map(String::as_str)
    }
}

/// Whether a name in the configuration is a URI. No host's name has a colon.
fn is_uri(entry: &str) -> bool {
    entry.contains(':')
}

/// Who asks something of the admin plane, once that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name: a URI or a DNS name of its certificate, the subject of its token, `uid:1000`, or `anonymous`.
    pub name: String,
    /// How that is known.
    pub proof: Proof,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// Whoever asks where nobody has to say who they are.
    pub fn anonymous() -> Self {
        Self { name: "anonymous".to_owned(), proof: Proof::None, role: Role::Admin }
    }
}

/// How it is known who a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It isn't.
    None,
    /// Its certificate.
    Certificate,
    /// A certificate that it showed to a proxy which we trust.
    ForwardedCertificate,
    /// A token.
    Token,
    /// The system says which user it is.
    UnixUser,
}

impl Proof {
    /// Its name in logs.
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

/// What a caller may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at keys, and have credentials verified.
    Viewer,
    /// Make, change, rotate and revoke keys, and derive tokens.
    Issuer,
    /// Everything: delete what is known of a key, too.
    Admin,
}

impl Role {
    /// All of them, the one that may do most first.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Issuer, Self::Viewer];

    /// Its name in the configuration.
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
