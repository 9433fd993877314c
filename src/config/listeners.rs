//! Validates the listeners: their hosts, addresses that clash, and certificates without a key.
//!
//! One file may be for several processes, each with a plane of its own. Addresses and certificates
//! are judged for the planes that this process serves.

use std::net::IpAddr;

use super::error::Problems;
use super::model::Config;
use super::serve::{Serve, Tls, chooses_metrics_port};
use crate::plane::{Plane, Planes};

/// Planes in the order in which their addresses are judged: the later one of two that clash has the
/// problem.
const PLANES: [Plane; 4] = [Plane::Admin, Plane::Public, Plane::Metrics, Plane::Authz];

/// Planes that a process serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub planes: Planes,
    /// True if the configuration sets `serve.metrics.port`.
    pub is_metrics_port_set: bool,
}

/// Finds the problems of listeners. A command opens none: it has no `served`.
pub(super) fn check(config: &Config, served: Option<Served>, problems: &mut Problems) {
    let serve = &config.serve;
    hosts(serve, problems);
    if let Some(served) = served {
        addresses(serve, served, problems);
        for plane in PLANES.into_iter().filter(|plane| served.planes.contains(*plane)) {
            let (_, _, tls) = serve.address(served.planes, plane);
            tls_files(&setting(serve, served.planes, plane), tls, problems);
        }
    }
    let tls = &config.cache.redis.tls;
    certificate_pair("cache.redis.tls", tls.cert_file.is_some(), tls.key_file.is_some(), problems);
}

fn add(problems: &mut Problems, key: &str, message: impl Into<String>) {
    problems.push((key.to_owned(), message.into()));
}

/// Returns the section of the configuration that sets a plane's listener.
fn setting(serve: &Serve, planes: Planes, plane: Plane) -> String {
    format!("serve.{}", serve.section(planes, plane).section())
}

fn hosts(serve: &Serve, problems: &mut Problems) {
    let mut hosts = vec![
        ("serve.http.host", &serve.http.host),
        ("serve.public.host", &serve.public.host),
        ("serve.metrics.host", &serve.metrics.host),
    ];
    if serve.authz.socket.is_none() {
        hosts.push(("serve.authz.host", &serve.authz.host));
    }
    for (key, host) in hosts.into_iter().filter(|(_, host)| !is_host(host)) {
        let mut message = "must be a host name or an address, without scheme and port".to_owned();
        if let Some((host, port)) = host_and_port(host) {
            message.push_str(&format!(": write host: \"{host}\", and port: {port} beside it"));
        }
        add(problems, key, message);
    }
}

fn addresses(serve: &Serve, served: Served, problems: &mut Problems) {
    let Served { planes, is_metrics_port_set } = served;
    if let (Some(admin), Some(authz)) = (&serve.http.socket, &serve.authz.socket)
        && admin == authz
        && planes == Planes::All
    {
        add(problems, "serve.authz.socket", "is serve.http.socket's path already; choose another");
    }
    let has_fixed_port = |plane: &Plane| match plane {
        Plane::Authz => serve.authz.socket.is_none(),
        Plane::Metrics => !chooses_metrics_port(planes, is_metrics_port_set),
        Plane::Admin | Plane::Public => true,
    };
    let mut known: Vec<(String, &str, u16)> = vec![];
    for plane in PLANES.into_iter().filter(|plane| planes.contains(*plane)).filter(has_fixed_port) {
        let name = setting(serve, planes, plane);
        let (host, port, _) = serve.address(planes, plane);
        let clash = known
            .iter()
            .find(|(_, other, other_port)| port != 0 && port == *other_port && hosts_overlap(host, other));
        if let Some((other, ..)) = clash {
            add(problems, &format!("{name}.port"), format!("is {other}'s address already; choose another"));
        }
        known.push((name, host, port));
    }
}

/// Returns true for what may be bound: a name, an address, or nothing, which stands for all
/// addresses.
pub(super) fn is_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.split_once('%').map_or(bare, |(address, _)| address);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b) || !b.is_ascii();
    address.parse::<IpAddr>().is_ok() || bare.bytes().all(is_name)
}

/// Splits `host:port`, also behind a scheme.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let address = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?)).filter(|_| is_host(host))
}

/// Returns true if both hosts can't be bound to one port: they are equal, one stands for all
/// addresses, or one is the name of the other.
fn hosts_overlap(a: &str, b: &str) -> bool {
    let bare = |host: &str| host.trim_matches(['[', ']']).to_ascii_lowercase();
    let (a, b) = (bare(a), bare(b));
    let all = |host: &str| matches!(host, "" | "0.0.0.0" | "::");
    let names = |name: &str, address: &str| name == "localhost" && matches!(address, "127.0.0.1" | "::1");
    a == b || all(&a) || all(&b) || names(&a, &b) || names(&b, &a)
}

fn tls_files(listener: &str, tls: &Tls, problems: &mut Problems) {
    let (certificate, key) = (tls.cert_file.is_some(), tls.key_file.is_some());
    certificate_pair(&format!("{listener}.tls"), certificate, key, problems);
    if !certificate && !key && tls.client_ca_file.is_some() {
        add(problems, &format!("{listener}.tls.cert_file"), "is needed beside client_ca_file");
    }
}

/// Checks that a certificate has its private key, and the other way round.
fn certificate_pair(section: &str, has_certificate: bool, has_key: bool, problems: &mut Problems) {
    match (has_certificate, has_key) {
        (true, false) => add(problems, &format!("{section}.key_file"), "is needed beside cert_file"),
        (false, true) => add(problems, &format!("{section}.cert_file"), "is needed beside key_file"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, Loaded, Source};

    fn load(yaml: &str, planes: Planes) -> Result<Loaded, ConfigError> {
        Source::new(None, []).for_planes(planes).load_text(yaml.as_bytes())
    }

    /// Files for several processes, with the planes that may be served alone.
    #[test]
    fn a_process_is_judged_by_the_listeners_that_it_opens() {
        const ADMIN: Planes = Planes::Only(Plane::Admin);
        const PUBLIC: Planes = Planes::Only(Plane::Public);
        const AUTHZ: Planes = Planes::Only(Plane::Authz);
        let everywhere = "{host: 0.0.0.0, port: 8080}";
        let pods = format!(
            "serve: {{http: {{port: 8080}}, public: {everywhere}, authz: {everywhere}, metrics: {{port: 9090}}}}"
        );
        let rows: [(&str, &str, &[Planes]); 9] = [
            ("serve: {http: {port: 4421}}", "serve.public.port: is serve.http's", &[ADMIN, PUBLIC, AUTHZ]),
            ("serve: {http: {port: 4423}}", "serve.authz.port: is serve.http's", &[ADMIN, PUBLIC, AUTHZ]),
            // A metrics port that nobody chose may move.
            ("serve: {http: {port: 4422}}", "serve.metrics.port: is serve.http's", &[ADMIN, PUBLIC, AUTHZ]),
            ("serve: {authz: {port: 4421}}", "serve.authz.port: is serve.public's", &[ADMIN, PUBLIC, AUTHZ]),
            (
                "serve: {authz: {host: 0.0.0.0, port: 4420}}",
                "serve.authz.port: is serve.http's",
                &[ADMIN, PUBLIC, AUTHZ],
            ),
            (&pods, "serve.public.port: is serve.http's", &[ADMIN, PUBLIC, AUTHZ]),
            (
                "serve: {http: {socket: a}, authz: {socket: a}}",
                "serve.authz.socket: is serve.http.socket's",
                &[ADMIN, PUBLIC, AUTHZ],
            ),
            ("serve: {public: {tls: {cert_file: a}}}", "serve.public.tls.key_file: is", &[ADMIN, AUTHZ]),
            ("serve: {http: {tls: {key_file: a}}}", "serve.http.tls.cert_file: is", &[PUBLIC, AUTHZ]),
        ];
        for (yaml, problem, alone) in rows {
            let text = load(yaml, Planes::All).expect_err(yaml).to_string();
            assert!(text.starts_with(problem), "{yaml}: {text}");
            for planes in [ADMIN, PUBLIC, AUTHZ] {
                let loaded = load(yaml, planes);
                assert_eq!(loaded.is_ok(), alone.contains(&planes), "{yaml}, {planes:?}: {loaded:?}");
            }
            // A command opens no listener.
            Source::new(None, []).without_admin().load_text(yaml.as_bytes()).expect(yaml);
        }
    }

    #[test]
    fn listeners_of_one_process_still_clash() {
        let port = "port: 4430";
        for (yaml, plane, problem) in [
            (
                format!("serve: {{http: {{{port}}}, metrics: {{{port}}}}}"),
                Plane::Admin,
                "serve.metrics.port: is serve.http's address already",
            ),
            // `serve public` takes serve.http where only that differs from its default.
            (
                format!("serve: {{http: {{{port}}}, metrics: {{{port}}}}}"),
                Plane::Public,
                "serve.metrics.port: is serve.http's address already",
            ),
            (
                format!("serve: {{authz: {{{port}}}, metrics: {{{port}}}}}"),
                Plane::Authz,
                "serve.authz.port: is serve.metrics's address already",
            ),
            (
                "serve: {http: {port: 4430, tls: {cert_file: a}}}".to_owned(),
                Plane::Public,
                "serve.http.tls.key_file: is needed beside cert_file",
            ),
        ] {
            let text = load(&yaml, Planes::Only(plane)).expect_err(&yaml).to_string();
            assert!(text.starts_with(problem), "{yaml}, {plane}: {text}");
        }
    }
}
