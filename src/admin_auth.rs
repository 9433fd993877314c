//! Authentication and authorization of the admin plane's callers, once per request, before anything
//! else of it is read.

mod bearer;
pub(crate) mod xfcc;

use std::net::IpAddr;

use ipnet::IpNet;

pub use bearer::{TokenError, TokenVerifier};

use crate::caller::{Caller, Certificate, Names, Peer, Proof, Role, UNIX_USER};
use crate::clock::{Clock, Timestamp};
use crate::config::{Auth, AuthMode, AuthRoles};

/// Header in which Envoy forwards client certificates.
pub const XFCC: &str = "x-forwarded-client-cert";

/// Credentials of a request, apart from the connection. Has no `Debug`, which would show them.
#[derive(Clone, Default)]
pub struct PresentedCredentials<'a> {
    /// All `authorization` headers.
    pub authorization: Vec<&'a [u8]>,
    /// All `x-forwarded-client-cert` headers.
    pub forwarded: Vec<&'a [u8]>,
}

/// Reason for refusing a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The caller is unknown. The text is for the log only.
    #[error("{0}")]
    Unidentified(String),
    /// The caller has no role.
    #[error("{0} has no role")]
    NoRole(String),
}

/// Authentication of callers.
pub struct AdminAuth {
    mode: Mode,
    uids: Vec<u32>,
    clock: Clock,
}

enum Mode {
    None,
    Certificate,
    Forwarded(Vec<TrustedPeer>),
    Token(TokenVerifier),
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

impl AdminAuth {
    /// Creates the authentication from the settings. `own_uid` may use the Unix socket if they name
    /// no user.
    pub fn new(auth: &Auth, own_uid: u32, clock: Clock) -> Self {
        let mode = match auth.mode {
            AuthMode::None => Mode::None,
            AuthMode::Mtls => Mode::Certificate,
            AuthMode::Xfcc => {
                Mode::Forwarded(auth.xfcc.peers.iter().map(|peer| TrustedPeer::parse(peer)).collect())
            }
            AuthMode::Jwt => Mode::Token(TokenVerifier::new(&auth.jwt)),
        };
        let uids = if auth.unix_uids.is_empty() { vec![own_uid] } else { auth.unix_uids.clone() };
        Self { mode, uids, clock }
    }

    /// Returns the name of the way in which callers over the network prove who they are.
    pub const fn mode(&self) -> &'static str {
        match self.mode {
            Mode::None => "none",
            Mode::Certificate => "mtls",
            Mode::Forwarded(_) => "xfcc",
            Mode::Token(_) => "jwt",
        }
    }

    /// Returns the verifier of bearer tokens, if they are used.
    pub fn token_verifier(&self) -> Option<&TokenVerifier> {
        match &self.mode {
            Mode::Token(bearer) => Some(bearer),
            _ => None,
        }
    }

    /// Returns the caller of a request.
    ///
    /// # Errors
    /// Fails if the caller is unknown or has no role.
    pub fn authenticate(
        &self,
        peer: &Peer,
        presented: &PresentedCredentials<'_>,
        roles: &AuthRoles,
    ) -> Result<Caller, AuthError> {
        let now = self.clock.now();
        if let Some(uid) = peer.uid {
            let name = format!("{UNIX_USER}{uid}");
            return match self.uids.contains(&uid) {
                true => Ok(Caller { name, proof: Proof::UnixUser, role: Role::Admin }),
                false => Err(AuthError::NoRole(name)),
            };
        }
        match &self.mode {
            Mode::None => Ok(Caller::anonymous()),
            Mode::Certificate => {
                let names = names_of(peer, now)?;
                caller_by_names(&names, Proof::Certificate, roles)
            }
            Mode::Forwarded(trusted) => {
                if !trusted.iter().any(|trusted| trusted.matches(peer, now)) {
                    return Err(unidentified("the peer is not listed in serve.http.auth.xfcc.peers"));
                }
                let certificate =
                    xfcc::read(&presented.forwarded).map_err(|error| unidentified(error.to_string()))?;
                let names = usable_names(&certificate, now)?;
                caller_by_names(&names, Proof::ForwardedCertificate, roles)
            }
            Mode::Token(bearer) => {
                let token = token(&presented.authorization)?;
                let holder =
                    bearer.verify(token, now).map_err(|error| unidentified(format!("the token: {error}")))?;
                match Role::ALL
                    .into_iter()
                    .find(|role| holder.values.iter().any(|v| listed(roles, *role).contains(v)))
                {
                    Some(role) => Ok(Caller { name: holder.subject, proof: Proof::Token, role }),
                    None => Err(AuthError::NoRole(holder.subject)),
                }
            }
        }
    }
}

fn unidentified(why: impl Into<String>) -> AuthError {
    AuthError::Unidentified(why.into())
}

fn names_of(peer: &Peer, now: Timestamp) -> Result<Names, AuthError> {
    let certificate =
        peer.certificate.as_ref().ok_or_else(|| unidentified("the client sent no certificate"))?;
    usable_names(certificate, now)
}

fn usable_names(certificate: &Certificate, now: Timestamp) -> Result<Names, AuthError> {
    // Checked at the handshake, which may be long ago.
    if certificate.expires <= now {
        return Err(unidentified("the certificate has expired since the connection was made"));
    }
    certificate
        .names
        .clone()
        .map_err(|problem| unidentified(format!("the certificate has no usable name: {problem}")))
}

fn caller_by_names(names: &Names, proof: Proof, roles: &AuthRoles) -> Result<Caller, AuthError> {
    for role in Role::ALL {
        if let Some(name) = names.find(listed(roles, role).iter().map(String::as_str)) {
            return Ok(Caller { name: name.to_owned(), proof, role });
        }
    }
    Err(AuthError::NoRole(names.iter().next().unwrap_or_default().to_owned()))
}

fn listed(roles: &AuthRoles, role: Role) -> &Vec<String> {
    match role {
        Role::Viewer => &roles.viewer,
        Role::Issuer => &roles.issuer,
        Role::Admin => &roles.admin,
    }
}

impl TrustedPeer {
    fn matches(&self, peer: &Peer, now: Timestamp) -> bool {
        match self {
            Self::At(block) => peer.address.is_some_and(|address| block.contains(&address)),
            Self::Named(name) => {
                names_of(peer, now).is_ok_and(|names| names.find(std::iter::once(name.as_str())).is_some())
            }
        }
    }
}

fn token<'a>(headers: &[&'a [u8]]) -> Result<&'a str, AuthError> {
    let value = match headers {
        [value] => std::str::from_utf8(value).ok(),
        [] => return Err(unidentified("the request has no authorization header")),
        _ => return Err(unidentified("there is more than one authorization header")),
    };
    let (scheme, token) = value.and_then(|value| value.split_once(' ')).unwrap_or_default();
    match scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        true => Ok(token.trim()),
        false => Err(unidentified("the authorization header has no bearer token")),
    }
}

#[cfg(test)]
mod tests;
