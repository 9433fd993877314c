//! Who may use the admin plane: found out once a request, before anything of it is looked at.

mod bearer;
pub(crate) mod xfcc;

use std::net::IpAddr;

use ipnet::IpNet;

pub use bearer::{Bearer, BearerError};

use crate::caller::{Caller, Certificate, Names, Peer, Proof, Role};
use crate::clock::{Clock, Timestamp};
use crate::config::{Auth, AuthMode, AuthRoles};

/// The header in which Envoy tells of its clients' certificates.
pub const XFCC: &str = "x-forwarded-client-cert";

/// What a request shows of its caller, beside the connection.
#[derive(Debug, Clone, Default)]
pub struct Shown<'a> {
    /// All `authorization` headers.
    pub authorization: Vec<&'a [u8]>,
    /// All `x-forwarded-client-cert` headers.
    pub forwarded: Vec<&'a [u8]>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Nobody is known to ask. The text is for the log alone.
    #[error("{0}")]
    Unidentified(String),
    /// Whoever asks has no role.
    #[error("{0} has no role")]
    NoRole(String),
}

/// How callers prove who they are.
pub struct Admission {
    mode: Mode,
    uids: Vec<u32>,
    clock: Clock,
}

enum Mode {
    None,
    Certificate,
    Forwarded(Vec<TrustedPeer>),
    Token(Bearer),
}

enum TrustedPeer {
    Named(String),
    At(IpNet),
}

impl TrustedPeer {
    fn parse(text: &str) -> Self {
        let address = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
        match address {
            Ok(block) => Self::At(block),
            Err(_) => Self::Named(text.to_owned()),
        }
    }
}

impl Admission {
    /// As the settings say. `own_uid` may use the Unix socket when they name nobody.
    pub fn new(auth: &Auth, own_uid: u32, clock: Clock) -> Self {
        let mode = match auth.mode {
            AuthMode::None => Mode::None,
            AuthMode::Mtls => Mode::Certificate,
            AuthMode::Xfcc => {
                Mode::Forwarded(auth.xfcc.peers.iter().map(|peer| TrustedPeer::parse(peer)).collect())
            }
            AuthMode::Jwt => Mode::Token(Bearer::new(&auth.jwt)),
        };
        let uids = if auth.unix_uids.is_empty() { vec![own_uid] } else { auth.unix_uids.clone() };
        Self { mode, uids, clock }
    }

    /// What verifies tokens, where callers show some.
    pub fn bearer(&self) -> Option<&Bearer> {
        match &self.mode {
            Mode::Token(bearer) => Some(bearer),
            _ => None,
        }
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// When it isn't known, or has no role.
    pub fn admit(&self, peer: &Peer, shown: &Shown<'_>, roles: &AuthRoles) -> Result<Caller, NotAdmitted> {
        let now = self.clock.now();
        if let Some(uid) = peer.uid {
            let name = format!("uid:{uid}");
            return match self.uids.contains(&uid) {
                true => Ok(Caller { name, proof: Proof::UnixUser, role: Role::Admin }),
                false => Err(NotAdmitted::NoRole(name)),
            };
        }
        match &self.mode {
            Mode::None => Ok(Caller::anonymous()),
            Mode::Certificate => {
                let names = names_of(peer, now)?;
                by_names(&names, Proof::Certificate, roles)
            }
            Mode::Forwarded(trusted) => {
                if !trusted.iter().any(|trusted| trusted.is(peer, now)) {
                    return Err(unidentified("the peer is none of serve.http.auth.xfcc.peers"));
                }
                let certificate =
                    xfcc::read(&shown.forwarded).map_err(|error| unidentified(error.to_string()))?;
                let names = usable_names(&certificate, now)?;
                by_names(&names, Proof::ForwardedCertificate, roles)
            }
            Mode::Token(bearer) => {
                let token = token(&shown.authorization)?;
                let holder =
                    bearer.verify(token, now).map_err(|error| unidentified(format!("the token: {error}")))?;
                match Role::ALL
                    .into_iter()
                    .find(|role| holder.values.iter().any(|v| listed(roles, *role).contains(v)))
                {
                    Some(role) => Ok(Caller { name: holder.subject, proof: Proof::Token, role }),
                    None => Err(NotAdmitted::NoRole(holder.subject)),
                }
            }
        }
    }
}

fn unidentified(why: impl Into<String>) -> NotAdmitted {
    NotAdmitted::Unidentified(why.into())
}

fn names_of(peer: &Peer, now: Timestamp) -> Result<Names, NotAdmitted> {
    let certificate = peer.certificate.as_ref().ok_or_else(|| unidentified("no certificate was shown"))?;
    usable_names(certificate, now)
}

fn usable_names(certificate: &Certificate, now: Timestamp) -> Result<Names, NotAdmitted> {
    // The handshake has looked at that, but may be long ago.
    if certificate.expires <= now {
        return Err(unidentified("the certificate has expired since the connection was made"));
    }
    certificate
        .names
        .clone()
        .map_err(|problem| unidentified(format!("the certificate names nobody: {problem}")))
}

fn by_names(names: &Names, proof: Proof, roles: &AuthRoles) -> Result<Caller, NotAdmitted> {
    for role in Role::ALL {
        if let Some(name) = names.find(listed(roles, role).iter().map(String::as_str)) {
            return Ok(Caller { name: name.to_owned(), proof, role });
        }
    }
    Err(NotAdmitted::NoRole(names.iter().next().unwrap_or_default().to_owned()))
}

fn listed(roles: &AuthRoles, role: Role) -> &Vec<String> {
    match role {
        Role::Viewer => &roles.viewer,
        Role::Issuer => &roles.issuer,
        Role::Admin => &roles.admin,
    }
}

impl TrustedPeer {
    fn is(&self, peer: &Peer, now: Timestamp) -> bool {
        match self {
            Self::At(block) => peer.address.is_some_and(|address| block.contains(&address)),
            Self::Named(name) => {
                names_of(peer, now).is_ok_and(|names| names.find(std::iter::once(name.as_str())).is_some())
            }
        }
    }
}

fn token<'a>(headers: &[&'a [u8]]) -> Result<&'a str, NotAdmitted> {
    let value = match headers {
        [value] => std::str::from_utf8(value).ok(),
        [] => return Err(unidentified("no token was shown")),
        _ => return Err(unidentified("there is more than one authorization header")),
    };
    let (scheme, token) = value.and_then(|value| value.split_once(' ')).unwrap_or_default();
    match scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        true => Ok(token.trim()),
        false => Err(unidentified("the authorization header holds no bearer token")),
    }
}

#[cfg(test)]
mod tests;
