//! Listeners that a container hides: on loopback, nothing outside of it reaches them.

use std::net::IpAddr;
use std::path::Path;

use crate::config::Config;
use crate::plane::{Plane, Planes};

/// Files that container engines put into each container.
const MARKERS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Warns of listeners on loopback in a container, in one line: publishing their ports has no
/// effect. Containers of one pod share their loopback, so nothing is said in Kubernetes.
pub(super) fn warn_of_hidden_listeners(config: &Config, planes: Planes) {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || !is_container() {
        return;
    }
    let hidden = hidden_listeners(config, planes);
    if !hidden.is_empty() {
        tracing::warn!(
            "loopback, which nothing outside of this container reaches, even if its port is published: {}. Set 0.0.0.0 \
             where others must reach it (docs/listeners.md says what else to set)",
            hidden.join(", ")
        );
    }
}

/// Returns the settings of listeners on loopback, with their values.
fn hidden_listeners(config: &Config, planes: Planes) -> Vec<String> {
    let serve = &config.serve;
    let listeners = [
        (Plane::Admin, &serve.http.host, "serve.http.host"),
        (Plane::Metrics, &serve.metrics.host, "serve.metrics.host"),
    ];
    let hidden =
        listeners.into_iter().filter(|(plane, host, _)| planes.contains(*plane) && is_loopback(host));
    hidden.map(|(_, host, key)| format!("{key} is {host}")).collect()
}

/// Returns true in a container: engines leave a file or set the variable `container`.
fn is_container() -> bool {
    std::env::var_os("container").is_some() || MARKERS.iter().any(|path| Path::new(path).exists())
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_listeners_are_named_with_their_settings() {
        let mut config = Config::default();
        let (admin, metrics) = ("serve.http.host is 127.0.0.1", "serve.metrics.host is 127.0.0.1");
        assert_eq!(hidden_listeners(&config, Planes::All), [admin, metrics]);
        assert_eq!(hidden_listeners(&config, Planes::Only(Plane::Authz)), [metrics]);
        config.serve.metrics.host = "0.0.0.0".to_owned();
        assert_eq!(hidden_listeners(&config, Planes::All), [admin]);
        config.serve.http.host = "::1".to_owned();
        assert_eq!(hidden_listeners(&config, Planes::All), ["serve.http.host is ::1"]);
        assert!(hidden_listeners(&config, Planes::Only(Plane::Public)).is_empty());
    }
}
