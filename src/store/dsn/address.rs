//! Addresses in DSNs: URLs, with IPv6 and Unix sockets, and the form of Go's MySQL driver.

use percent_encoding::percent_decode_str;

use super::percent_encoded;
use crate::store::StoreError;
use crate::store::dialect::Dialect;

/// Error of an address whose parts can't be told apart.
pub(super) const ENCODE: &str = "can't tell the password from the rest: percent-encode it, with / as %2F, ? as %3F, # as %23, \
     @ as %40, : as %3A, [ as %5B, ] as %5D and % as %25";

/// Parts of a DSN between its scheme and its parameters.
pub(super) struct Address<'a> {
    /// User name, percent-encoded.
    user: Option<String>,
    /// Password, percent-encoded.
    password: Option<String>,
    /// Host, in brackets if it is an IPv6 address; empty for the driver's default.
    pub host: &'a str,
    port: Option<u16>,
    /// Unix socket in Go's form.
    pub socket: Option<&'a str>,
    /// Database with its slash.
    database: &'a str,
    /// Parameters.
    pub query: &'a str,
}

/// Returns true for `user:password@tcp(host:port)/database` and the like.
pub(super) fn is_go_form(text: &str) -> bool {
    go_parts(text).is_some()
}

/// Splits Go's form into credentials, network, and what follows the opening parenthesis. Passwords
/// may have any character there, so the last parenthesis counts.
fn go_parts(text: &str) -> Option<(&str, &str, &str)> {
    let found = ["tcp(", "unix("].iter().filter_map(|network| {
        let at = text.rfind(network)?;
        let credentials = &text[..at];
        (credentials.is_empty() || credentials.ends_with('@')).then_some((at, *network))
    });
    let (at, network) = found.max()?;
    let credentials = &text[..at];
    Some((credentials.strip_suffix('@').unwrap_or(credentials), network, &text[at + network.len()..]))
}

impl<'a> Address<'a> {
    /// Parses what follows the scheme.
    pub(super) fn parse(dialect: Dialect, rest: &'a str) -> Result<Self, StoreError> {
        match go_parts(rest).filter(|_| dialect == Dialect::MySql) {
            Some((credentials, network, rest)) => Self::parse_go(credentials, network, rest),
            None => Self::parse_url(dialect, rest),
        }
    }

    /// Parses Go's form, whose password isn't percent-encoded.
    fn parse_go(credentials: &str, network: &str, rest: &'a str) -> Result<Self, StoreError> {
        const FORM: &str = "must be mysql://user:password@tcp(host:port)/database or a URL";
        let (address, rest) = rest.split_once(')').ok_or(StoreError::Dsn(FORM.into()))?;
        let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !(database.is_empty() || database.starts_with('/')) {
            return Err(StoreError::Dsn(FORM.into()));
        }
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(percent_encoded(password))),
            None => (credentials, None),
        };
        let user = Some(user).filter(|user| !user.is_empty()).map(percent_encoded);
        let (host, port, socket) = match network {
            "unix(" => ("localhost", None, Some(address)),
            _ => {
                let (host, port) = host_and_port(address)?;
                (host, port, None)
            }
        };
        Ok(Self { user, password, host, port, socket, database, query })
    }

    fn parse_url(dialect: Dialect, rest: &'a str) -> Result<Self, StoreError> {
        let encode = || StoreError::Dsn(ENCODE.into());
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A fragment has no meaning, and an `@` belongs before the first slash.
        if rest.contains('#') || database.contains('@') {
            return Err(encode());
        }
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = host_and_port(address).map_err(|error| {
            // `user:pass/word@host` looks like a host and a port.
            if user.is_none() && rest.contains('@') { encode() } else { error }
        })?;
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, "")) => (Some(user.to_owned()), None),
            Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
            None => (None, None),
        };
        let host = if host.is_empty() && dialect == Dialect::MySql { "localhost" } else { host };
        Ok(Self { user, password, host, port, socket: None, database, query })
    }

    /// Returns the URL for the driver.
    pub(super) fn url(&self, scheme: &str, mut parameters: Vec<String>) -> String {
        let mut url = format!("{scheme}://");
        if self.host.is_empty() {
            // A URL without a host has no place for a user.
            let again = |text: &String| percent_encoded(&percent_decode_str(text).decode_utf8_lossy());
            parameters.extend(self.user.as_ref().map(|user| format!("user={}", again(user))));
            parameters.extend(self.password.as_ref().map(|password| format!("password={}", again(password))));
            parameters.extend(self.port.map(|port| format!("port={port}")));
        } else {
            if let Some(user) = &self.user {
                url.push_str(user);
                url.extend(self.password.iter().flat_map(|password| [":", password]));
                url.push('@');
            }
            url.push_str(self.host);
            url.extend(self.port.map(|port| format!(":{port}")));
        }
        url.push_str(self.database);
        if self.host.is_empty() && self.database.is_empty() {
            url.push('/');
        }
        if !parameters.is_empty() {
            url.push('?');
            url.push_str(&parameters.join("&"));
        }
        url
    }
}

/// Splits `host:port`, where an IPv6 address stands in brackets.
fn host_and_port(address: &str) -> Result<(&str, Option<u16>), StoreError> {
    let error = |text: &'static str| Err(StoreError::Dsn(text.into()));
    if address.contains(',') {
        return error("must name one host, the primary's: polls find a new primary by the address alone");
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let Some((inside, port)) = rest.split_once(']') else {
                return error("has an IPv6 address without its closing bracket: write [::1]:5432");
            };
            if inside.parse::<std::net::Ipv6Addr>().is_err() {
                return error("has brackets around what is no IPv6 address: write [::1]:5432");
            }
            (&address[..inside.len() + 2], port)
        }
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    let is_host = |c: char| c.is_alphanumeric() || ".-_%[]:".contains(c);
    if !host.chars().all(is_host) {
        return error("has a host with a character that no host has (is the password percent-encoded?)");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        Some(port) if port.contains(':') => {
            error("has several colons in its address: an IPv6 address stands in brackets, as [::1]:5432")
        }
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => Ok((host, Some(port))),
            _ => error(
                "has a port that is no number from 1 to 65535; if it is a part of the password, percent-encode that: \
                 / as %2F, ? as %3F, # as %23, @ as %40, : as %3A",
            ),
        },
        None => error("must have a port after the brackets, as [::1]:5432"),
    }
}
