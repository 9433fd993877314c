//! TLS as the databases' own clients understand its parameters. The driver ignores a CA unless it
//! is told to verify, knows no `sslrootcert=system`, and asks for TLS on Unix sockets.

use percent_encoding::percent_decode_str;

use super::refused;
use crate::store::StoreError;

/// Names of PostgreSQL's parameters of TLS.
const POSTGRES: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Parameters of the driver, as `name=value`.
pub(super) struct Parameters(pub Vec<String>);

impl Parameters {
    fn value_of(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|parameter| value(parameter, name))
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|parameter| value(parameter, name).is_none());
    }

    fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push(format!("{name}={value}"));
    }
}

fn value<'a>(parameter: &'a str, name: &str) -> Option<&'a str> {
    parameter.strip_prefix(name)?.strip_prefix('=')
}

/// Completes PostgreSQL's parameters for a URL with this host, as libpq reads them. Returns true if
/// the system's CAs count.
///
/// # Errors
/// When a parameter would not be obeyed.
pub(super) fn postgres(parameters: &mut Parameters, host: &str) -> Result<bool, StoreError> {
    let host = parameters.value_of("host").unwrap_or(host);
    if percent_decode_str(host).next() == Some(b'/') {
        // libpq makes no TLS on a Unix socket, whatever the mode.
        if parameters.value_of("sslmode").is_some() {
            POSTGRES.iter().for_each(|name| parameters.remove(name));
            parameters.set("sslmode", "disable");
        }
        return Ok(false);
    }
    let mode = parameters.value_of("sslmode").map(str::to_owned);
    let is_system = mode.is_none() && parameters.value_of("sslrootcert") == Some("system");
    let is_full = mode.as_deref() == Some("verify-full") || is_system;
    if is_full && parameters.value_of("hostaddr").is_some() {
        return Err(refused(
            "hostaddr",
            "can't be used with sslmode=verify-full, as the certificate would be compared with the address: remove it",
        ));
    }
    match (parameters.value_of("sslrootcert"), mode.as_deref()) {
        (Some("system"), None | Some("verify-full")) => {
            parameters.remove("sslrootcert");
            parameters.set("sslmode", "verify-full");
            Ok(true)
        }
        (Some("system"), Some(_)) => Err(refused(
            "sslrootcert",
            "can be system with sslmode=verify-full only: write that, or name the CA's file",
        )),
        (Some(_), None | Some("require")) => {
            parameters.set("sslmode", "verify-ca");
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Completes MySQL's parameters: a CA that is named is used.
pub(super) fn mysql(parameters: &mut Parameters) {
    let verifies_nothing = matches!(parameters.value_of("ssl-mode"), None | Some("REQUIRED"));
    if parameters.value_of("ssl-ca").is_some() && verifies_nothing {
        parameters.set("ssl-mode", "VERIFY_CA");
    }
}
