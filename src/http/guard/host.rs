//! For which host a request is. A page that has its own name point at loopback comes with that name, and gets nothing.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::caller::Peer;
use crate::error::{ApiError, Reason};
use crate::http::{Context, is_health};
use crate::telemetry::refusals::Why;

/// Longest name, in characters.
const MAX_NAME: usize = 253;

/// The host that a request is for: in lower case, without a port, brackets or a final dot.
///
/// # Errors
/// When it names none, several, or what can't be one.
pub fn host_of(request: &Request) -> Result<String, ApiError> {
    let malformed = |problem| ApiError::new(Reason::BadRequest, format!("Host: {problem}"));
    let mut headers = request.headers().get_all(HOST).iter();
    let header = headers.next().map(|value| value.to_str().unwrap_or_default());
    if headers.next().is_some() {
        return Err(malformed("must be there once"));
    }
    let of_uri = request.uri().authority().map(|authority| authority.as_str());
    let host = match (of_uri, header) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => {
            return Err(malformed("must be the one that the request's target names"));
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(malformed("is missing")),
    };
    name_of(host).ok_or_else(|| malformed("must be a host's name or address, with or without a port"))
}

/// The name in `name:port`, to be compared with others; None when it is none.
pub fn name_of(host: &str) -> Option<String> {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let port = rest.strip_prefix(':').unwrap_or(rest);
            let address: Ipv6Addr = address.parse().ok()?;
            return (is_port(port) && (rest.is_empty() || rest.starts_with(':')))
                .then(|| address.to_string());
        }
        None => match host.split_once(':') {
            Some((name, port)) => Some(name).filter(|_| is_port(port))?,
            None => host,
        },
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let good = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_of_a_name);
    good.then(|| name.to_ascii_lowercase())
}

/// Whether `host` is one of these names, which may be written with a port.
fn is_listed(host: &str, names: &[String]) -> bool {
    names.iter().any(|name| match name.parse::<IpAddr>() {
        Ok(address) => host.parse() == Ok(address),
        Err(_) => name_of(name).as_deref() == Some(host),
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Lets through what is for us by a loopback name, a listed one, or a tenant's.
pub async fn on_admin(State(context): State<Context>, request: Request, next: Next) -> Response {
    // No browser speaks to a Unix socket, and a probe asks by whatever address it has.
    let over_socket = request.extensions().get::<Peer>().is_some_and(|peer| peer.uid.is_some());
    if over_socket || is_health(request.uri().path()) {
        return next.run(request).await;
    }
    let allowed = |host: &str| is_loopback(host) || is_listed(host, &context.service.snapshot().admin_hosts);
    let key = "serve.http.allowed_hosts";
    match host_of(&request).and_then(|host| judge(&host, allowed, key)) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(&context, "admin", error),
    }
}

/// Lets through what is for us by a listed name; everything, when none is listed.
pub async fn on_public(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    if settings.public_hosts.is_empty() || is_health(request.uri().path()) {
        return next.run(request).await;
    }
    let allowed = |host: &str| is_listed(host, &settings.public_hosts);
    match host_of(&request).and_then(|host| judge(&host, allowed, "serve.public.allowed_hosts")) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(&context, "public", error),
    }
}

fn judge(host: &str, allowed: impl Fn(&str) -> bool, key: &str) -> Result<(), ApiError> {
    match allowed(host) {
        true => Ok(()),
        false => Err(ApiError::new(Reason::Forbidden, format!("Host: is none of {key}"))),
    }
}

fn refuse(context: &Context, plane: &'static str, error: ApiError) -> Response {
    context.metrics.refusals.count(plane, Why::Host);
    error.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_dress() {
        for (host, name) in [
            ("Keys.Example", Some("keys.example")),
            ("keys.example.:443", Some("keys.example")),
            ("localhost:4420", Some("localhost")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("[::1]", Some("::1")),
            ("[0:0:0:0:0:0:0:1]:4420", Some("::1")),
            ("", None),
            (":80", None),
            (".", None),
            ("a:b", None),
            ("a:1:2", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[a]", None),
            ("user@localhost", None),
            ("localhost/", None),
            ("localhost\0", None),
            ("a b", None),
            (&"a".repeat(254), None),
        ] {
            assert_eq!(name_of(host).as_deref(), name, "{host}");
        }
    }

    #[test]
    fn loopback_is_what_cannot_be_another() {
        for (host, loopback) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("0.0.0.0", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
        let names = ["Keys.Example:443", "2001:db8::1", "10.0.0.1"].map(str::to_owned);
        for (host, listed) in
            [("keys.example", true), ("2001:db8::1", true), ("10.0.0.1", true), ("a.keys.example", false)]
        {
            assert_eq!(is_listed(host, &names), listed, "{host}");
        }
    }
}
