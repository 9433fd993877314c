//! Settings of the connection to Redis.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::SecretString;

/// Address of Redis, credentials, TLS and timeouts.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Addresses as `host:port`: of Sentinels if `sentinel` is set; otherwise one is a server, or
    /// stands for the cluster that it belongs to, and several are nodes of a cluster.
    pub addrs: Vec<String>,
    /// Sentinels that know the primary; `None` connects to `addrs` itself.
    pub sentinel: Option<RedisSentinel>,
    /// ACL user.
    pub username: Option<String>,
    /// Password of the user.
    pub password: Option<SecretString>,
    /// Number of the logical database; a cluster has only 0.
    pub db: u32,
    /// Timeout of connecting, and of commands that no request waits for.
    pub timeout: Duration,
    /// Timeout of commands that a Check waits for.
    pub check_timeout: Duration,
    /// TLS; `None` speaks plaintext.
    pub tls: Option<RedisTls>,
    /// Allows plaintext to other machines.
    pub plaintext_allowed: bool,
}

/// The primary to ask Sentinels for, and the user to ask as.
#[derive(Debug, Clone)]
pub struct RedisSentinel {
    /// Name of the primary.
    pub master: String,
    /// ACL user of the Sentinels.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<SecretString>,
}

/// TLS settings of the connection to Redis. The files are read again for each connection, so that
/// they may be renewed.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// PEM of trusted issuers; `None` trusts those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM of the client's certificate chain and of its key.
    pub client_files: Option<(PathBuf, PathBuf)>,
    /// Name that the certificate must carry; `None` expects the host of the address.
    pub server_name: Option<String>,
}

/// Reason why settings can't be used. Messages name the setting, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum RedisSettingsError {
    /// An address is malformed.
    #[error(
        "cache.redis.addrs[{0}]: must be host:port, as redis.example:6379; user, password, database and TLS have their own \
         settings (cache.redis.username, password, db, tls)"
    )]
    Address(usize),
    /// A certificate or key can't be used.
    #[error("cache.redis.tls: {0}")]
    Tls(String),
    /// Plaintext would leave this machine, and nothing allows that.
    #[error(
        "cache.redis.tls.enabled: is needed, as cache.redis.addrs[{0}] is no loopback address; \
         set it to true, or to false to send keys' data in plaintext"
    )]
    Plaintext(usize),
    /// A server name is set for a cluster.
    #[error("cache.redis.tls.server_name: is for a single server; a cluster's nodes have their own names")]
    ClusterName,
    /// A logical database is chosen in a cluster.
    #[error("cache.redis.db: must be 0 with several addresses: a cluster has no other")]
    ClusterDatabase,
}
