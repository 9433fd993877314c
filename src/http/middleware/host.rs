//! Check of the requested host, against DNS rebinding, and choice of its network.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::caller::Peer;
use crate::error::{ApiError, Reason};
use crate::host::name_of;
use crate::http::context::Context;
use crate::http::openapi::operations::is_health;
use crate::plane::Plane;
use crate::settings::Settings;
use crate::telemetry::refused_requests::RequestRefusal;

/// Requested host, according to a proxy in front.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Returns the requested host as written.
///
/// # Errors
/// Fails if there is none, more than one, or another than in the request's target.
fn host_of(request: &Request) -> Result<&str, ApiError> {
    let malformed = |problem| ApiError::new(Reason::BadRequest, format!("Host: {problem}"));
    let mut headers = request.headers().get_all(HOST).iter();
    let header = headers.next().map(|value| value.to_str().unwrap_or_default());
    if headers.next().is_some() {
        return Err(malformed("must be there once"));
    }
    let of_uri = request.uri().authority().map(|authority| authority.as_str());
    match (of_uri, header) {
        (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other) => {
            Err(malformed("must be the one that the request's target names"))
        }
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(malformed("is missing")),
    }
}

/// Returns whether `host` is one of these names, with or without a port: `*` is any, and
/// `*.example.com` any below that.
fn is_listed(host: &str, names: &[String]) -> bool {
    names.iter().any(|name| match (name.strip_prefix('*'), name.parse::<IpAddr>()) {
        (Some(""), _) => true,
        (Some(parent), _) => host.len() > parent.len() && host.ends_with(&parent.to_ascii_lowercase()),
        (None, Ok(address)) => host.parse() == Ok(address),
        (None, Err(_)) => name_of(name).as_deref() == Some(host),
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Passes requests for an IP address, a loopback name, a listed host or a network's host.
pub(crate) async fn on_admin(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    // Browsers can't connect to Unix sockets.
    let over_socket = request.extensions().get::<Peer>().is_some_and(|peer| peer.uid.is_some());
    let hosts = AllowedHosts {
        key: "serve.http.allowed_hosts",
        listed: &settings.admin_hosts,
        own: true,
        any: over_socket,
        trusts_peer: over_socket || settings.admin_peers_trusted,
    };
    check_host(Plane::Admin, &context, &settings, &hosts, request, next).await
}

/// Passes requests for a listed host or a network's host. All of them if neither is configured.
pub(crate) async fn on_public(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    let listed = &settings.public_hosts;
    let any = listed.is_empty();
    // Operations of this plane need a credential, which no web page has.
    let hosts =
        AllowedHosts { key: "serve.public.allowed_hosts", listed, own: false, any, trusts_peer: true };
    check_host(Plane::Public, &context, &settings, &hosts, request, next).await
}

/// Host names of a plane.
struct AllowedHosts<'a> {
    /// Setting that lists them.
    key: &'static str,
    listed: &'a [String],
    /// Allows loopback names and IP addresses, too: rebinding needs a name.
    own: bool,
    /// Allows any host.
    any: bool,
    /// Lets the peer name the host in `X-Forwarded-Host`, as it can't be a browser with a page that
    /// has rebound its name.
    trusts_peer: bool,
}

impl AllowedHosts<'_> {
    /// Checks that the host in `header` is one of them.
    ///
    /// # Errors
    /// Fails if it is not a host, or is not listed.
    fn check(&self, header: &str, host: &str) -> Result<(), ApiError> {
        if self.any {
            return Ok(());
        }
        let malformed = || format!("{header}: must be a host's name or address, with or without a port");
        let host = name_of(host).ok_or_else(|| ApiError::new(Reason::BadRequest, malformed()))?;
        let is_own = self.own && (is_loopback(&host) || host.parse::<IpAddr>().is_ok());
        match is_own || is_listed(&host, self.listed) {
            true => Ok(()),
            false => {
                Err(ApiError::new(Reason::Forbidden, format!("{header}: is not listed in {}", self.key)))
            }
        }
    }
}

async fn check_host(
    plane: Plane,
    context: &Context,
    settings: &Arc<Settings>,
    hosts: &AllowedHosts<'_>,
    mut request: Request,
    next: Next,
) -> Response {
    // A probe may use any address, and concerns no network.
    if is_health(request.uri().path()) {
        return next.run(request).await;
    }
    match settings_for(settings, hosts, &request) {
        Ok(settings) => {
            let settings = Arc::clone(settings);
            request.extensions_mut().insert(settings);
            next.run(request).await
        }
        Err(error) => {
            context.metrics.refused_requests.count(plane, RequestRefusal::Host);
            error.into_response()
        }
    }
}

/// Returns the settings of the requested network, after the check of the requested host: of the one
/// that a trusted proxy in front has forwarded, else of `Host`.
fn settings_for<'a>(
    settings: &'a Arc<Settings>,
    hosts: &AllowedHosts<'_>,
    request: &Request,
) -> Result<&'a Arc<Settings>, ApiError> {
    let has_tenants = settings.has_tenants();
    if !has_tenants && hosts.any {
        return Ok(settings);
    }
    let host = host_of(request)?;
    let forwarded = match settings.trust_forwarded_host && (has_tenants || hosts.trusts_peer) {
        true => forwarded_host(request)?,
        false => None,
    };
    if !has_tenants {
        match forwarded {
            Some(forwarded) => hosts.check("X-Forwarded-Host", forwarded)?,
            None => hosts.check("Host", host)?,
        }
        return Ok(settings);
    }
    let unknown = |header| ApiError::new(Reason::NotFound, format!("{header}: belongs to no network"));
    let by_host = settings.for_host(|| Some(host));
    let Some(forwarded) = forwarded else {
        return by_host.ok_or_else(|| unknown("Host"));
    };
    // A page that rebinds its name could set this header, but not under an allowed name.
    if by_host.is_none() && !hosts.trusts_peer {
        hosts.check("Host", host)?;
    }
    settings.for_host(|| Some(forwarded)).ok_or_else(|| unknown("X-Forwarded-Host"))
}

/// Returns the value of `X-Forwarded-Host`.
fn forwarded_host(request: &Request) -> Result<Option<&str>, ApiError> {
    let mut values = request.headers().get_all(FORWARDED_HOST).iter();
    match (values.next().map(|value| value.to_str().unwrap_or_default()), values.next()) {
        (None, _) => Ok(None),
        (Some(host), None) if !host.contains(',') => Ok(Some(host)),
        // Unclear which of them the proxy in front has set.
        _ => Err(ApiError::new(Reason::BadRequest, "X-Forwarded-Host: must name one host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let any = ["*".to_owned()];
        assert!(is_listed("evil.example", &any) && is_listed("10.0.0.1", &any));
        let below = ["*.Keys.example".to_owned()];
        for (host, listed) in [
            ("a.keys.example", true),
            ("a.b.keys.example", true),
            ("keys.example", false),
            ("akeys.example", false),
        ] {
            assert_eq!(is_listed(host, &below), listed, "{host}");
        }
    }
}
