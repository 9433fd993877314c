//! Addresses of Redis: parsed, checked to be local where plaintext is used, and resolved.

use std::net::{IpAddr, SocketAddr};

use ::redis::io::AsyncDNSResolver;
use ::redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisFuture, RedisResult,
};

use super::settings::{RedisSentinel, RedisSettings, RedisTls};
use crate::secret::SecretString;

/// Host and port of a server.
pub(super) type HostPort = (String, u16);

/// Parses `host:port`, where an IPv6 address stands in brackets.
pub(super) fn parse(address: &str) -> Option<HostPort> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None => Some(host).filter(|host| !host.contains([':', '/']))?,
    };
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Returns true for `localhost` and loopback addresses.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// User and password of a connection, and its database.
pub(super) struct Login<'a> {
    pub username: Option<&'a str>,
    pub password: Option<&'a SecretString>,
    pub db: u32,
    pub protocol: ProtocolVersion,
}

impl<'a> Login<'a> {
    /// Returns the login to servers: RESP3, as that pushes messages on the connection of the
    /// commands.
    pub(super) fn to_server(settings: &'a RedisSettings) -> Self {
        Self {
            username: settings.username.as_deref(),
            password: settings.password.as_ref(),
            db: settings.db,
            protocol: ProtocolVersion::RESP3,
        }
    }

    /// Returns the login to Sentinels.
    pub(super) fn to_sentinel(sentinel: &'a RedisSentinel) -> Self {
        Self {
            username: sentinel.username.as_deref(),
            password: sentinel.password.as_ref(),
            db: 0,
            protocol: ProtocolVersion::RESP2,
        }
    }
}

/// Makes what the library needs to connect. `server_name` replaces the host as the name in the
/// certificate; with one, [`FixedHost`] resolves the host of the address instead.
pub(super) fn connection_info(
    login: &Login<'_>,
    (host, port): &HostPort,
    tls: Option<&RedisTls>,
) -> RedisResult<ConnectionInfo> {
    let address = match tls {
        Some(tls) => ConnectionAddr::TcpTls {
            host: tls.server_name.clone().unwrap_or_else(|| host.clone()),
            port: *port,
            insecure: false,
            tls_params: None,
        },
        None => ConnectionAddr::Tcp(host.clone(), *port),
    };
    let mut redis = RedisConnectionInfo::default().set_db(i64::from(login.db)).set_protocol(login.protocol);
    if let Some(username) = login.username {
        redis = redis.set_username(username);
    }
    if let Some(password) = login.password {
        redis = redis.set_password(password.expose());
    }
    Ok(address.into_connection_info()?.set_redis_settings(redis))
}

/// Resolver that looks up one host, whatever name the certificate must carry.
#[derive(Clone)]
pub(super) struct FixedHost(pub String);

impl AsyncDNSResolver for FixedHost {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((self.0.as_str(), port)).await.map_err(RedisError::from)?.collect();
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}
