//! The settings and their defaults. Blocks with files of their own: `serve`, `secrets` and `credentials`, `cache`, `authz`.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authz::Authz;
use super::cache::Cache;
use super::credentials::{Credentials, Retired, Secrets};
use super::forms;
use super::serve::{Serve, listen_address};
use crate::secret::SecretString;

/// The whole configuration; every key has a default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listeners.
    pub serve: Serve,
    /// Database.
    pub db: Db,
    /// Logging.
    pub log: Log,
    /// What nobody may read.
    pub secrets: Secrets,
    /// Forms of keys and tokens.
    pub credentials: Credentials,
    /// Caches.
    pub cache: Cache,
    /// Rate limits.
    pub rate_limit: RateLimit,
    /// Quotas.
    pub quota: Quota,
    /// Writing of `last_used_time`.
    pub last_used: LastUsed,
    /// Tenants.
    pub multitenancy: Multitenancy,
    /// OpenTelemetry traces.
    pub tracing: Tracing,
    /// The authz plane's behaviour.
    pub authz: Authz,
    /// Bounds on stale answers.
    pub consistency: Consistency,
    /// The audit log.
    pub audit: Audit,
}

impl Config {
    /// `iss` of minted tokens: `credentials.issuer`, else the admin listener's URL.
    pub fn issuer(&self) -> String {
        self.credentials.issuer.clone().unwrap_or_else(|| {
            format!("http://{}", listen_address(&self.serve.http.host, self.serve.http.port))
        })
    }
}

/// `db`: the database.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Db {
    /// Database URL, which may hold a password and so is secret. Default `sqlite://talos.db`.
    #[serde(with = "forms::Dsn")]
    pub dsn: SecretString,
}

impl Default for Db {
    fn default() -> Self {
        Self { dsn: "sqlite://talos.db".into() }
    }
}

/// `log`: the process's own log.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Least severe level that is written. Default `info`.
    pub level: LogLevel,
    /// Default `text` (Ory's is `json`).
    pub format: LogFormat,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For developers.
    Debug,
    /// Normal operation.
    #[default]
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// The name used in the file, which `tracing` filters understand too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// `rate_limit`: enforcement of the policies that keys carry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Default false.
    pub enabled: bool,
    /// Where the counters are. Default `memory`.
    pub backend: RateLimitBackend,
}

/// Where the counters are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitBackend {
    /// In process.
    #[default]
    Memory,
    /// In Redis, shared.
    Redis,
}

/// `quota`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Non-revoked keys that a tenant may have. Unset means any number.
    pub api_keys_max: Option<u64>,
}

/// `last_used`: batched writing of `last_used_time`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LastUsed {
    /// Updates that may wait; further ones are dropped. Above 0. Default 10000.
    pub queue_size: usize,
    /// Updates in one write. Above 0. Default 100.
    pub flush_size: usize,
    /// Longest wait between two writes. Above 0. Default 30s.
    #[serde(with = "forms::Duration")]
    pub flush_interval: Duration,
    /// Of Ory's writers; read so that its files parse, without effect here. Default 4.
    pub num_workers: usize,
}

impl Default for LastUsed {
    fn default() -> Self {
        Self { queue_size: 10_000, flush_size: 100, flush_interval: Duration::from_secs(30), num_workers: 4 }
    }
}

/// `multitenancy`: one network a host name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Multitenancy {
    /// Default false.
    pub enabled: bool,
    /// Default: none.
    pub networks: Vec<Network>,
}

/// One entry of `multitenancy.networks`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Host name of its requests.
    pub hostname: String,
    /// UUID of the network.
    pub id: String,
    /// YAML file laid over `credentials`, `secrets`, `rate_limit.enabled` and `cache.ttl`.
    #[serde(default, with = "forms::OptionalPath")]
    pub config_path: Option<PathBuf>,
    /// What is in force for this network when it has a file of its own; that is read where the whole is.
    #[serde(skip)]
    pub config: Option<Box<Config>>,
}

/// `tracing`: OpenTelemetry traces.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// Default false.
    pub enabled: bool,
    /// Default `otlp`.
    pub exporter: TraceExporter,
    /// URL of the collector; unset (or empty) means the exporter's own default.
    #[serde(with = "forms::OptionalText")]
    pub endpoint: Option<String>,
    /// Share of traces that are kept, 0 to 1. Default 0.001.
    pub sample_rate: f64,
    /// Default `talos`.
    pub service_name: String,
    /// Unset (or empty) means this program's version.
    #[serde(with = "forms::OptionalText")]
    pub service_version: Option<String>,
    /// Name of the deployment; unset (or empty) by default.
    #[serde(with = "forms::OptionalText")]
    pub environment: Option<String>,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enabled: false,
            exporter: TraceExporter::default(),
            endpoint: None,
            sample_rate: 0.001,
            service_name: "talos".to_owned(),
            service_version: None,
            environment: None,
        }
    }
}

/// How traces leave the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceExporter {
    /// OpenTelemetry's protocol.
    #[default]
    Otlp,
}

/// `consistency`: how stale an answer may be.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Consistency {
    /// How long a poll's knowledge lasts: the bound on a revoked key. Above `poll`. Default 5s.
    #[serde(with = "forms::Duration")]
    pub lease: Duration,
    /// Time between two polls of the log of changes. Above 0. Default 1s.
    #[serde(with = "forms::Duration")]
    pub poll: Duration,
    /// What relaying through another instance adds to the bound; 0 turns it off. Default 10s.
    #[serde(with = "forms::Duration")]
    pub relay: Duration,
    /// How long known keys stay valid in a full outage; 0 means not at all. Default 300s.
    #[serde(with = "forms::Duration")]
    pub grace: Duration,
    /// File of key ids to refuse, one a line. Unset (or empty) by default.
    #[serde(with = "forms::OptionalPath")]
    pub deny_file: Option<PathBuf>,
}

impl Default for Consistency {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            poll: Duration::from_secs(1),
            relay: Duration::from_secs(10),
            grace: Duration::from_secs(300),
            deny_file: None,
        }
    }
}

/// `audit`: the log of who changed what.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// File of JSON lines. Unset (or empty) by default.
    #[serde(with = "forms::OptionalPath")]
    pub file: Option<PathBuf>,
    /// Keys the chain that makes a change of the file evident; at least 32 characters. Unset (or empty) by default.
    #[serde(with = "forms::OptionalSecret")]
    pub key: Option<SecretString>,
    /// Keyed the chain before `key`, for `talos audit verify`. Default: none.
    #[serde(with = "forms::RetiredSecrets")]
    pub key_retired: Vec<Retired<SecretString>>,
    /// Size from which on the file is moved aside and another begins, in bytes; 0 means never. Default 104857600.
    pub max_size: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file: None, key: None, key_retired: Vec::new(), max_size: 100 * 1024 * 1024 }
    }
}
