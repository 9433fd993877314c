//! `cache.*`: the tiers between a lookup and the database.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms;
use crate::secret::SecretString;

/// `cache`: answers kept between lookups.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Off means that every lookup goes to the database. Default true.
    pub enabled: bool,
    /// Which tiers there are. Default `memory`.
    #[serde(rename = "type")]
    pub kind: CacheType,
    /// How long an entry is used before it is read again. Above 0. Default 5m.
    #[serde(with = "forms::Duration")]
    pub ttl: Duration,
    /// How long an unknown id is remembered. Above 0. Default 10s.
    #[serde(with = "forms::Duration")]
    pub negative_ttl: Duration,
    /// How many unknown ids are remembered, in entries. Default 10000; 0 remembers none.
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

/// The tiers between a lookup and the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheType {
    /// None.
    Noop,
    /// In process alone.
    #[default]
    Memory,
    /// In process, then Redis.
    Redis,
}

/// `cache.memory`: the tier in process.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheMemory {
    /// Bound in bytes. Above 0. Default 104857600 (100 MiB).
    pub max_size: u64,
    /// Of Ory's cache library; read so that its files parse, without effect here. Default 10000.
    pub num_counters: u64,
}

impl Default for CacheMemory {
    fn default() -> Self {
        Self { max_size: 104_857_600, num_counters: 10_000 }
    }
}

/// `cache.redis`: the shared tier.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheRedis {
    /// `host:port`; one is a single server, several a cluster. Default `localhost:6379`.
    #[serde(with = "forms::Addresses")]
    pub addrs: Vec<String>,
    /// ACL user; unset (or empty) by default.
    #[serde(with = "forms::OptionalText")]
    pub username: Option<String>,
    /// Unset (or empty) by default.
    #[serde(with = "forms::OptionalSecret")]
    pub password: Option<SecretString>,
    /// Number of the logical database. Default 0.
    pub db: u32,
    /// For connecting and for admin use. Above 0. Default 3s.
    #[serde(with = "forms::Duration")]
    pub timeout: Duration,
    /// What a Check waits at most. Above 0. Default 10ms.
    #[serde(with = "forms::Duration")]
    pub check_timeout: Duration,
    /// Of Ory's pool; read so that its files parse. Ours is one connection, multiplexed. Above 0. Default 8.
    pub pool_size: u32,
    /// As `pool_size`. Default 2.
    pub min_idle_conns: u32,
    /// As `pool_size`. Default 5m.
    #[serde(with = "forms::Duration")]
    pub conn_max_idle_time: Duration,
    /// As `pool_size`. Default 30m.
    #[serde(with = "forms::Duration")]
    pub conn_max_lifetime: Duration,
    /// `cache.redis.tls`.
    pub tls: RedisTls,
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
        }
    }
}

/// `cache.redis.tls`: PEM files; empty counts as unset.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisTls {
    /// Unset means plaintext to a loopback address and an error for any other; `false` is plaintext to anywhere.
    pub enabled: Option<bool>,
    /// Issuers to trust; unset means the system's.
    #[serde(with = "forms::OptionalPath")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain.
    #[serde(with = "forms::OptionalPath")]
    pub cert_file: Option<PathBuf>,
    /// Client private key.
    #[serde(with = "forms::OptionalPath")]
    pub key_file: Option<PathBuf>,
    /// Name that the server's certificate must carry; unset means the address's host.
    #[serde(with = "forms::OptionalText")]
    pub server_name: Option<String>,
}
