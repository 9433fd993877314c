//! Listeners that a container hides: on loopback, nothing outside of it reaches them.

use std::net::IpAddr;
use std::path::Path;

use crate::config::Config;
use crate::plane::{Plane, Planes};

/// Files that container engines put into each container.
const MARKERS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Warns of listeners on loopback in a container: publishing their ports has no effect. Containers
/// of one pod share their loopback, so nothing is said in Kubernetes.
pub(super) fn warn_of_hidden_listeners(config: &Config, planes: Planes) {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || !is_container() {
        return;
    }
    let serve = &config.serve;
    for (plane, host, key) in [
        (Plane::Admin, &serve.http.host, "serve.http.host"),
        (Plane::Metrics, &serve.metrics.host, "serve.metrics.host"),
    ] {
        if planes.contains(plane) && is_loopback(host) {
            tracing::warn!(
                plane = plane.name(),
                "{key} is {host}, which nothing outside of this container reaches, even if its port is published: set \
                 0.0.0.0 (docs/listeners.md says what else to set)"
            );
        }
    }
}

/// Returns true in a container: engines leave a file or set the variable `container`.
fn is_container() -> bool {
    std::env::var_os("container").is_some() || MARKERS.iter().any(|path| Path::new(path).exists())
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
