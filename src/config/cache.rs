//! `cache.*`: caches in front of the database.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::serde_forms;
use crate::secret::SecretString;

/// `cache`: caches in front of the database.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// If false, every lookup goes to the database. Default true.
    pub enabled: bool,
    /// Kind of cache. Default `memory`.
    #[serde(rename = "type")]
    pub kind: CacheType,
    /// Time for which an entry is used before it is read again. Above 0. Default 5m.
    #[serde(with = "serde_forms::Duration")]
    pub ttl: Duration,
    /// Time for which an unknown key id is cached. Above 0. Default 10s.
    #[serde(with = "serde_forms::Duration")]
    pub negative_ttl: Duration,
    /// Number of unknown key ids that are cached; 0 caches none. Default 10000.
    pub negative_size: u64,
    /// `cache.memory`.
    pub memory: CacheMemory,
    /// `cache.redis`.
    pub redis: CacheRedis,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: true,
            kind: CacheType::default(),
            ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(10),
            negative_size: 10_000,
            memory: CacheMemory::default(),
            redis: CacheRedis::default(),
        }
    }
}

/// Kind of cache in front of the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheType {
    /// None.
    Noop,
    /// In memory.
    #[default]
    Memory,
    /// In memory, then in Redis.
    Redis,
}

/// `cache.memory`: the cache in memory.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheMemory {
    /// Size in bytes. Above 0. Default 104857600 (100 MiB).
    pub max_size: u64,
    /// Setting of Ory's cache, accepted for compatibility; without effect. Default 10000.
    pub num_counters: u64,
}

impl Default for CacheMemory {
    fn default() -> Self {
        Self { max_size: 104_857_600, num_counters: 10_000 }
    }
}

/// `cache.redis`: the connection to Redis.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheRedis {
    /// Addresses `host:port`: of Sentinels if `sentinel.master` is set; otherwise one of a server
    /// or of a cluster, or several of a cluster. Default `localhost:6379`.
    #[serde(with = "serde_forms::Addresses")]
    pub addrs: Vec<String>,
    /// Name of the ACL user. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalText")]
    pub username: Option<String>,
    /// Password. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalSecret")]
    pub password: Option<SecretString>,
    /// Number of the logical database. Default 0.
    pub db: u32,
    /// Timeout for connecting and for requests of the admin plane. Above 0. Default 3s.
    #[serde(with = "serde_forms::Duration")]
    pub timeout: Duration,
    /// Timeout for requests of a Check. Above 0. Default 10ms.
    #[serde(with = "serde_forms::Duration")]
    pub check_timeout: Duration,
    /// Setting of Ory's connection pool, accepted for compatibility; without effect, as there is
    /// one multiplexed connection. Above 0. Default 8.
    pub pool_size: u32,
    /// Like `pool_size`, without effect. Default 2.
    pub min_idle_conns: u32,
    /// Like `pool_size`, without effect. Default 5m.
    #[serde(with = "serde_forms::Duration")]
    pub conn_max_idle_time: Duration,
    /// Like `pool_size`, without effect. Default 30m.
    #[serde(with = "serde_forms::Duration")]
    pub conn_max_lifetime: Duration,
    /// `cache.redis.tls`.
    pub tls: RedisTls,
    /// `cache.redis.sentinel`.
    pub sentinel: RedisSentinel,
}

impl Default for CacheRedis {
    fn default() -> Self {
        Self {
            addrs: vec!["localhost:6379".to_owned()],
            username: None,
            password: None,
            db: 0,
            timeout: Duration::from_secs(3),
            check_timeout: Duration::from_millis(10),
            pool_size: 8,
            min_idle_conns: 2,
            conn_max_idle_time: Duration::from_secs(300),
            conn_max_lifetime: Duration::from_secs(1_800),
            tls: RedisTls::default(),
            sentinel: RedisSentinel::default(),
        }
    }
}

/// `cache.redis.tls`: PEM files; empty counts as unset.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisTls {
    /// If true, TLS is used; if false, plaintext to any address. Unset: plaintext to a loopback
    /// address, and an error for any other.
    pub enabled: Option<bool>,
    /// CAs of the server's certificate; unset means those of the operating system.
    #[serde(with = "serde_forms::OptionalPath")]
    pub ca_file: Option<PathBuf>,
    /// Certificate chain of the client.
    #[serde(with = "serde_forms::OptionalPath")]
    pub cert_file: Option<PathBuf>,
    /// Private key of the client.
    #[serde(with = "serde_forms::OptionalPath")]
    pub key_file: Option<PathBuf>,
    /// Name that the server's certificate must carry; unset means the address's host.
    #[serde(with = "serde_forms::OptionalText")]
    pub server_name: Option<String>,
}

/// `cache.redis.sentinel`: Sentinels, at `cache.redis.addrs`, that name the primary.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSentinel {
    /// Name of the primary, as in `sentinel monitor NAME`. Unset (or empty) means that there are no
    /// Sentinels.
    #[serde(with = "serde_forms::OptionalText")]
    pub master: Option<String>,
    /// Name of the Sentinels' ACL user. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalText")]
    pub username: Option<String>,
    /// Password of the Sentinels. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalSecret")]
    pub password: Option<SecretString>,
}
