//! Tries what a configuration needs from outside: database, Redis, key sets, listeners.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::jwks_refresh;
use super::listeners::{Listener, setting};
use super::{bind, build};
use crate::admin_auth::AdminAuth;
use crate::audit;
use crate::clock::Clock;
use crate::config::{CacheType, Config, KeySetUrl, RateLimitBackend, chooses_metrics_port};
use crate::plane::{Plane, Planes};
use crate::redis::probe as probe_redis;
use crate::settings::sources::{self, Documents, Reading, Renewed};
use crate::store::{Store, StoreError};

/// Result of one probe.
#[derive(Debug)]
pub struct Probe {
    /// Subject, such as `database` or `serve.http`.
    pub subject: String,
    /// Description of what was found, or the reason for which it can't be used.
    pub result: Result<String, String>,
}

/// Tries all that a process with these planes needs, one after the other. Leaves no trace: an
/// SQLite file isn't created, and listeners are closed again.
pub async fn probe(config: &Config, planes: Planes, is_metrics_port_set: bool) -> Vec<Probe> {
    let mut probes = vec![];
    let mut add = |subject: String, result| probes.push(Probe { subject, result });
    add("database".to_owned(), database(config.db.dsn.expose()).await);
    if let Some(dsn) = &config.migrate.dsn {
        add("migrate.dsn".to_owned(), database(dsn.expose()).await);
    }
    if config.cache.kind == CacheType::Redis
        || (config.rate_limit.enabled && config.rate_limit.backend == RateLimitBackend::Redis)
    {
        let result = probe_redis(&build::redis_settings(config)).await;
        let addresses = config.cache.redis.addrs.len();
        let found = |()| format!("answers ({addresses} address{})", if addresses == 1 { "" } else { "es" });
        add("redis".to_owned(), result.map(found));
    }
    let urls = config.key_set_urls();
    let Renewed { documents, failures } = Documents::default().renew(&urls, Reading::All).await;
    for (index, KeySetUrl { key, url }) in urls.iter().enumerate() {
        let result = match (failures.get(&index), documents.get(url)) {
            (Some(error), _) => Err(error.to_string()),
            (None, Some(_)) => Ok("read".to_owned()),
            (None, None) => Err("was not read".to_owned()),
        };
        add(key.clone(), result);
    }
    let auth = AdminAuth::new(&config.serve.http.auth, 0, Clock::system());
    if let Some(url) = auth.token_verifier().filter(|_| planes.contains(Plane::Admin)).and_then(|t| t.url()) {
        let key = "serve.http.auth.jwt.jwks".to_owned();
        let result = match sources::is_https(url) {
            true => sources::read(url).await.map(drop).map_err(|error| error.to_string()),
            false => jwks_refresh::read_at_start(&auth).await.map_err(|error| error.to_string()),
        };
        add(key, result.map(|()| "read".to_owned()));
    }
    if let Some(path) = &config.audit.file {
        // Serving takes another name then.
        let state = match audit::is_in_use(path) {
            true => "another process writes it, so this one writes a file beside it",
            false => "is free",
        };
        add("audit.file".to_owned(), Ok(format!("{}: {state}", path.display())));
    }
    for plane in planes.iter() {
        let is_free_choice = plane == Plane::Metrics && chooses_metrics_port(planes, is_metrics_port_set);
        add(setting(plane), listener(config, planes, plane, is_free_choice).await);
    }
    if let Some(path) = config.serve.http.socket.as_ref().filter(|_| planes.contains(Plane::Admin)) {
        add("serve.http.socket".to_owned(), socket(path));
    }
    probes
}

/// Says whether a socket can be bound.
fn socket(path: &Path) -> Result<String, String> {
    match UnixStream::connect(path) {
        Ok(_) => {
            Err(format!("{}: another process listens there: end it, or set another path", path.display()))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            Ok(format!("{} is free", path.display()))
        }
        Err(error) => Err(format!("{}: can't be used: {error}; set another path", path.display())),
    }
}

async fn database(dsn: &str) -> Result<String, String> {
    Store::probe(dsn).await.map_err(|error| match error {
        // The subject is the key, which isn't always db.dsn.
        StoreError::Dsn(problem) => problem.into_owned(),
        error => error.to_string(),
    })
}

/// Binds a plane's listener, and closes it again.
async fn listener(
    config: &Config,
    planes: Planes,
    plane: Plane,
    is_free_choice: bool,
) -> Result<String, String> {
    let tls = bind::identity(config, planes, plane, &Clock::system()).map_err(|error| error.to_string())?;
    let tls = match tls {
        Some(identity) => format!(", certificate valid until {}", identity.expires().to_rfc3339()),
        None => String::new(),
    };
    if let (Plane::Authz, Some(path)) = (plane, &config.serve.authz.socket) {
        return socket(path).map(|free| format!("{free}{tls}"));
    }
    let (host, port, _) = config.serve.address(planes, plane);
    match Listener::probe(plane, host, port).await {
        Ok(address) => Ok(format!("{address} is free{tls}")),
        Err(error) if is_free_choice => Ok(format!("{error}; another port will be taken{tls}")),
        Err(error) => Err(error.to_string()),
    }
}
