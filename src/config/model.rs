//! Types of the configuration and their defaults. `serve`, `secrets`, `credentials`, `cache` and
//! `authz` have files of their own.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authz::Authz;
use super::cache::Cache;
use super::credentials::{Credentials, Secrets};
use super::issuance::{IssuancePolicy, Roles};
use super::retired::Retired;
use super::serde_forms;
use super::serve::{Serve, listen_address};
use super::usage::Usage;
use crate::error::DOMAIN;
use crate::secret::SecretString;

/// The whole configuration; every key has a default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listeners.
    pub serve: Serve,
    /// Database.
    pub db: Db,
    /// Migrations of the database.
    pub migrate: Migrate,
    /// Logging.
    pub log: Log,
    /// Secrets.
    pub secrets: Secrets,
    /// Forms of keys and tokens.
    pub credentials: Credentials,
    /// Caches.
    pub cache: Cache,
    /// Rate limits.
    pub rate_limit: RateLimit,
    /// Quotas.
    pub quota: Quota,
    /// Repeated requests.
    pub idempotency: Idempotency,
    /// Writing of `last_used_time`.
    pub last_used: LastUsed,
    /// Counting of Checks by key.
    pub usage: Usage,
    /// Tenants.
    pub multitenancy: Multitenancy,
    /// OpenTelemetry traces.
    pub tracing: Tracing,
    /// Metrics.
    pub metrics: Metrics,
    /// The authz plane's behaviour.
    pub authz: Authz,
    /// Bounds on the age of answers.
    pub consistency: Consistency,
    /// The audit log.
    pub audit: Audit,
    /// Bodies of errors.
    pub errors: Errors,
    /// Policies of what keys may be like: name, the keys that each is for, and its rules.
    pub issuance_policies: Vec<IssuancePolicy>,
    /// Named sets of scopes: a request with `role` gets those of that name.
    pub roles: Roles,
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
    #[serde(with = "serde_forms::Dsn")]
    pub dsn: SecretString,
}

impl Default for Db {
    fn default() -> Self {
        Self { dsn: "sqlite://talos.db".into() }
    }
}

/// `migrate`: the commands of `talos migrate`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Migrate {
    /// Database URL for migrations, such as that of a user who may change the schema, or one that
    /// leads around a pooler. Unset (or empty) means `db.dsn`.
    #[serde(with = "serde_forms::OptionalSecret")]
    pub dsn: Option<SecretString>,
}

/// `log`: the log of the process.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Lowest level that is written. Default `info`.
    pub level: LogLevel,
    /// Format of log lines. Default `text` (Ory's is `json`).
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
    /// Name in the file and in `tracing` filters.
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

/// Format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    #[default]
    Text,
}

/// `rate_limit`: enforcement of the rate policies of keys.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// If true, rate policies of keys are enforced. Default false.
    pub enabled: bool,
    /// Place of the counters. Default `memory`.
    pub backend: RateLimitBackend,
}

/// Place of the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitBackend {
    /// In memory, per process.
    #[default]
    Memory,
    /// In Redis, shared by all processes.
    Redis,
}

/// `quota`: limits on the number of keys.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Number of unrevoked keys that a tenant may have. Unset means any number.
    pub api_keys_max: Option<u64>,
}

/// `idempotency`: repeated requests with one `request_id`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Idempotency {
    /// Time for which the caller that issued or rotated a key gets its secret again when it repeats
    /// the request, while the key is unused; 0 means never. At most 24h. Default 10m.
    #[serde(with = "serde_forms::Duration")]
    pub reveal_for: Duration,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { reveal_for: Duration::from_secs(10 * 60) }
    }
}

/// `last_used`: batched writing of `last_used_time`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LastUsed {
    /// Number of updates that may wait; further ones are dropped. 1 to 10000000. Default 10000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub queue_size: usize,
    /// Number of updates in one write. 1 to 10000000. Default 100.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub flush_size: usize,
    /// Longest time between two writes. Above 0. Default 30s.
    #[serde(with = "serde_forms::Duration")]
    pub flush_interval: Duration,
    /// Setting of Ory's writers, accepted for compatibility; without effect. Default 4.
    pub num_workers: usize,
}

impl Default for LastUsed {
    fn default() -> Self {
        Self { queue_size: 10_000, flush_size: 100, flush_interval: Duration::from_secs(30), num_workers: 4 }
    }
}

/// `multitenancy`: one network per host name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Multitenancy {
    /// If true, the host of a request decides about its network. Default false.
    pub enabled: bool,
    /// Networks and their host names. Default: none.
    pub networks: Vec<Network>,
}

/// One entry of `multitenancy.networks`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Host name of requests to the network.
    pub hostname: String,
    /// UUID of the network.
    pub id: String,
    /// YAML file that overrides `credentials`, `secrets`, `rate_limit.enabled`, `cache.ttl`,
    /// `issuance_policies` and `roles`.
    #[serde(default, with = "serde_forms::OptionalPath")]
    pub config_path: Option<PathBuf>,
    /// Configuration of this network, if it has a file of its own. The file is read when the whole
    /// configuration is.
    #[serde(skip)]
    pub config: Option<Box<Config>>,
}

/// `tracing`: OpenTelemetry traces.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// If true, traces are exported. Default false.
    pub enabled: bool,
    /// Protocol of the export. Default `otlp`.
    pub exporter: TraceExporter,
    /// URL of the collector; unset (or empty) means the exporter's own default.
    #[serde(with = "serde_forms::OptionalText")]
    pub endpoint: Option<String>,
    /// Share of traces that are kept, 0 to 1. Default 0.001.
    pub sample_rate: f64,
    /// Name of the service in traces. Default `talos`.
    pub service_name: String,
    /// Version of the service in traces; unset (or empty) means the version of this program.
    #[serde(with = "serde_forms::OptionalText")]
    pub service_version: Option<String>,
    /// Name of the deployment in traces; unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalText")]
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

/// Protocol by which traces are exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TraceExporter {
    /// OpenTelemetry protocol (OTLP).
    #[default]
    Otlp,
}

/// `metrics`: the metrics page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Metrics of another product that are served beside ours. Default `none`.
    pub compat: MetricsCompat,
}

/// Product whose metrics are served, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetricsCompat {
    /// No other.
    #[default]
    None,
    /// The HTTP metrics of Ory Talos, with its names and labels.
    Ory,
}

/// `consistency`: bounds on the age of answers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Consistency {
    /// Time for which the result of a poll counts: the bound for a revoked key. Above `poll`.
    /// Default 5s.
    #[serde(with = "serde_forms::Duration")]
    pub lease: Duration,
    /// Time between two polls of the mutation log. Above 0. Default 1s.
    #[serde(with = "serde_forms::Duration")]
    pub poll: Duration,
    /// Time that relaying through another instance adds to the bound; 0 turns it off. Default 10s.
    #[serde(with = "serde_forms::Duration")]
    pub relay: Duration,
    /// Time for which known keys stay valid in a full outage; 0 means not at all. Default 300s.
    #[serde(with = "serde_forms::Duration")]
    pub grace: Duration,
    /// File of key ids to refuse, one per line. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalPath")]
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

/// `errors`: bodies of errors, on all planes.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Errors {
    /// `domain` of the errors, by which programs tell whose they are. Default `www.ory.com/talos`,
    /// which existing clients expect.
    pub domain: String,
    /// URL of a page with one anchor for each reason, such as a copy of docs/errors.md; each error
    /// links to its anchor. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalText")]
    pub docs_url: Option<String>,
}

impl Default for Errors {
    fn default() -> Self {
        Self { domain: DOMAIN.to_owned(), docs_url: None }
    }
}

/// `audit`: the audit log.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// File of JSON lines. Unset (or empty) by default.
    #[serde(with = "serde_forms::OptionalPath")]
    pub file: Option<PathBuf>,
    /// Secret of the chain that makes changes of the file evident; at least 32 characters. Unset
    /// (or empty) by default.
    #[serde(with = "serde_forms::OptionalSecret")]
    pub key: Option<SecretString>,
    /// Former values of `key`, for `talos audit verify`. Default: none.
    #[serde(with = "serde_forms::RetiredSecrets")]
    pub key_retired: Vec<Retired<SecretString>>,
    /// Size in bytes from which on the file is rotated; 0 means never. Default 104857600.
    pub max_size: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { file: None, key: None, key_retired: Vec::new(), max_size: 100 * 1024 * 1024 }
    }
}
