//! Binds the listeners of all planes, and reads their certificates.

use std::sync::Arc;

use super::accept::Acceptor;
use super::error::ServeError;
use super::listeners::{BindError, Listener, raise_file_limit};
use crate::clock::Clock;
use crate::config::{Config, chooses_metrics_port};
use crate::plane::{Plane, Planes};
use crate::telemetry::connections::Connections;
use crate::tls::{Alpn, Files, Identity};

/// Number of ports that are tried after a taken one.
const MAX_NEXT_PORTS: u16 = 100;

/// Binds every listener of `planes`. A process serves all of its planes or none.
///
/// # Errors
/// When an address can't be bound or a certificate can't be used.
pub(super) async fn bind(
    config: &Config,
    planes: Planes,
    is_metrics_port_set: bool,
    clock: &Clock,
    metrics: &Connections,
) -> Result<Vec<Acceptor>, ServeError> {
    raise_file_limit();
    // Certificates come first: a bad one is reported before any port is open.
    let mut identities = vec![];
    for plane in planes.iter() {
        identities.push((plane, identity(config, planes, plane, clock)?));
    }
    let serve = &config.serve;
    let mut acceptors = vec![];
    let mut add = |plane, listener, identity| {
        acceptors.push(Acceptor::new(plane, listener, identity, metrics.clone()));
    };
    for (plane, identity) in identities {
        let listener = match (plane, &serve.authz.socket) {
            (Plane::Authz, Some(path)) => Listener::unix(plane, path).await?,
            (Plane::Metrics, _) if chooses_metrics_port(planes, is_metrics_port_set) => {
                bind_any_metrics(config).await?
            }
            _ => {
                let (host, port, _) = serve.address(planes, plane);
                Listener::tcp(plane, host, port).await?
            }
        };
        add(plane, listener, identity);
    }
    if let Some(path) = serve.http.socket.as_ref().filter(|_| planes.contains(Plane::Admin)) {
        // The user at the other end is known from the socket: no TLS is needed.
        add(Plane::Admin, Listener::unix(Plane::Admin, path).await?, None);
    }
    Ok(acceptors)
}

/// Binds the metrics listener at its default port, or at the next one that is free and isn't
/// another plane's.
async fn bind_any_metrics(config: &Config) -> Result<Listener, BindError> {
    let serve = &config.serve;
    let (host, port) = (&serve.metrics.host, serve.metrics.port);
    let error = match Listener::tcp(Plane::Metrics, host, port).await {
        Err(error) if error.is_in_use() => error,
        other => return other,
    };
    let others = [serve.http.port, serve.public.port, serve.authz.port];
    for next in (port.saturating_add(1)..=port.saturating_add(MAX_NEXT_PORTS)).filter(|p| !others.contains(p))
    {
        if let Ok(listener) = Listener::tcp(Plane::Metrics, host, next).await {
            tracing::warn!(
                taken = port,
                port = next,
                "the default port of the metrics listener is taken: it uses the next free one; set \
                 serve.metrics.port to choose one"
            );
            return Ok(listener);
        }
    }
    Err(error)
}

/// Certificate and client CAs of a plane; None without TLS.
///
/// # Errors
/// When a file can't be used.
pub(super) fn identity(
    config: &Config,
    planes: Planes,
    plane: Plane,
    clock: &Clock,
) -> Result<Option<Arc<Identity>>, ServeError> {
    let (serve, section) = (&config.serve, config.serve.section(planes, plane));
    let (_, _, tls) = serve.address(planes, plane);
    let alpn = match plane {
        Plane::Authz => Alpn::Http2,
        Plane::Admin | Plane::Public | Plane::Metrics => Alpn::Http,
    };
    let identity = Files::new(tls).map(|files| Identity::read(files, alpn, clock.clone())).transpose();
    Ok(identity.map_err(|problem| ServeError::Tls { plane: section, problem })?.map(Arc::new))
}
