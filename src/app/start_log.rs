//! The line of the log that says what a process begins to serve, and with what.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::{Config, RateLimitBackend};
use crate::plane::{Plane, Planes};
use crate::service::Service;

/// Time that the database has to tell the version of its schema; the start doesn't wait longer.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(1);

/// Logs version, configuration, database, planes, networks, signing key and mode of rate limits.
pub(super) async fn log(file: Option<&Path>, config: &Config, planes: Planes, service: &Service) {
    let planes: Vec<&str> = planes.iter().map(Plane::name).collect();
    let schema = timeout(SCHEMA_TIMEOUT, service.store.schema_version()).await;
    let schema = schema.ok().and_then(Result::ok);
    let settings = service.settings.load();
    let networks: Vec<&str> = settings.all().filter_map(|(host, _)| host).collect();
    let networks = if networks.is_empty() { "one, of any host".to_owned() } else { networks.join(", ") };
    let signing_key = settings.signing_key().map_or("none: no JWT goes upstream", |key| key.kid());
    let rate_limits = match (config.rate_limit.enabled, config.rate_limit.backend) {
        (false, _) => "off",
        (true, RateLimitBackend::Memory) => "each process counts for itself",
        (true, RateLimitBackend::Redis) => "all processes count together in Redis",
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = file.map_or("environment only".to_owned(), |file| file.display().to_string()),
        database = service.store.server().map_or("not reached yet".to_owned(), |server| server.name.clone()),
        schema,
        planes = planes.join(", "),
        networks,
        signing_key,
        rate_limits,
        "starting"
    );
}
