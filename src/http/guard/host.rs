//! For which host a request is. A page that has its own name point at loopback comes with that name, and gets nothing.

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
use crate::http::{Context, is_health};
use crate::plane::Plane;
use crate::settings::Settings;
use crate::telemetry::refused_requests::RequestRefusal;

/// Who asked, as a proxy in front says it.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The host that a request is for, as it is written there.
///
/// # Errors
/// When it names none, or several.
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

/// Lets through what is for us by a loopback name, a listed one, or a network's.
pub async fn on_admin(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    // No browser speaks to a Unix socket.
    let over_socket = request.extensions().get::<Peer>().is_some_and(|peer| peer.uid.is_some());
    let names = Names { key: "serve.http.allowed_hosts", listed: &settings.admin_hosts, and_loopback: true };
    let names = Some(names).filter(|_| !over_socket);
    admit(Plane::Admin, &context, &settings, names, request, next).await
}

/// Lets through what is for us by a listed name or a network's; everything, when there is neither.
pub async fn on_public(State(context): State<Context>, request: Request, next: Next) -> Response {
    let settings = context.service.snapshot();
    let listed = &settings.public_hosts;
    let names = Names { key: "serve.public.allowed_hosts", listed, and_loopback: false };
    let names = Some(names).filter(|_| !listed.is_empty());
    admit(Plane::Public, &context, &settings, names, request, next).await
}

/// The names by which a plane may be asked.
struct Names<'a> {
    /// The setting that lists them.
    key: &'static str,
    listed: &'a [String],
    and_loopback: bool,
}

impl Names<'_> {
    /// Whether `host` is one of them.
    fn check(&self, host: &str) -> Result<(), ApiError> {
        let malformed = "Host: must be a host's name or address, with or without a port";
        let host = name_of(host).ok_or_else(|| ApiError::new(Reason::BadRequest, malformed))?;
        match (self.and_loopback && is_loopback(&host)) || is_listed(&host, self.listed) {
            true => Ok(()),
            false => Err(ApiError::new(Reason::Forbidden, format!("Host: is none of {}", self.key))),
        }
    }
}

async fn admit(
    plane: Plane,
    context: &Context,
    settings: &Arc<Settings>,
    names: Option<Names<'_>>,
    mut request: Request,
    next: Next,
) -> Response {
    // A probe asks by whatever address it has, and about no network.
    if is_health(request.uri().path()) {
        return next.run(request).await;
    }
    match settings_for(settings, names, &request) {
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

/// The settings of the network that a request is for. `names` is None when it may come by any name.
fn settings_for<'a>(
    settings: &'a Arc<Settings>,
    names: Option<Names<'_>>,
    request: &Request,
) -> Result<&'a Arc<Settings>, ApiError> {
    if !settings.has_tenants() {
        if let Some(names) = names {
            names.check(host_of(request)?)?;
        }
        return Ok(settings);
    }
    let unknown = |header| ApiError::new(Reason::NotFound, format!("{header}: is no network's"));
    let host = host_of(request)?;
    let by_host = settings.of_host(|| Some(host));
    let forwarded = match settings.trust_forwarded_host {
        true => forwarded_host(request)?,
        false => None,
    };
    let Some(forwarded) = forwarded else {
        return by_host.ok_or_else(|| unknown("Host"));
    };
    // A page that has its own name point at us could say so, too, but not under a name of ours.
    if let (None, Some(names)) = (by_host, names) {
        names.check(host)?;
    }
    settings.of_host(|| Some(forwarded)).ok_or_else(|| unknown("X-Forwarded-Host"))
}

/// What `X-Forwarded-Host` says.
fn forwarded_host(request: &Request) -> Result<Option<&str>, ApiError> {
    let mut values = request.headers().get_all(FORWARDED_HOST).iter();
    match (values.next().map(|value| value.to_str().unwrap_or_default()), values.next()) {
        (None, _) => Ok(None),
        (Some(host), None) if !host.contains(',') => Ok(Some(host)),
        // Nobody could say which of them the proxy in front has written.
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
    }
}
