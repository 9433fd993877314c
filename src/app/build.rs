//! Builds everything that is served from a configuration.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::error::ServeError;
use super::{deny_file, jwks_refresh};
use crate::admin_auth::AdminAuth;
use crate::audit::{Audit, AuditError, AuditLog, ChainKeys, HeadReporter, LogSettings};
use crate::authz::RouteExplainer;
use crate::authz::identity_headers::upstream_headers_len;
use crate::cache::freshness::{Freshness, LeaseConfig};
use crate::cache::memory::MemoryCache;
use crate::cache::redis::RedisCache;
use crate::clock::Clock;
use crate::config::{CacheType, Config, Consistency, MetricsCompat, RateLimitBackend};
use crate::http::Context;
use crate::key::deny::DenyList;
use crate::limit::{Limiter, RedisLimiter};
use crate::plane::{Plane, Planes};
use crate::redis::{RedisSentinel, RedisSettings, RedisSettingsError, RedisTls};
use crate::rng::Rng;
use crate::service::usage::{UsageSettings, UsageWriter, usage_counter};
use crate::service::{ServiceBuilder, UseWriter, use_queue};
use crate::settings::sources::{Documents, Reading};
use crate::settings::{Settings, SettingsError, check_signing_key};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::ory_metrics::OryMetrics;
use crate::telemetry::status::Process;

/// State of the process before its first task runs.
pub(crate) struct Built {
    /// State that all planes share.
    pub(crate) context: Context,
    /// Key sets that the settings were made of.
    pub(super) documents: Documents,
    /// Uses of keys, to be written to the database.
    pub(super) uses: UseWriter,
    /// Numbers of Checks, to be written to the database.
    pub(super) usage: UsageWriter,
    /// Ends of the audit log, to be written to the database; None without an audit log.
    pub(super) audit_heads: Option<HeadReporter>,
}

/// Reads everything that the configuration names, and opens the database.
///
/// # Errors
/// When something that the configuration names can't be used.
pub(crate) async fn build(config: &Config, planes: Planes) -> Result<Built, ServeError> {
    let (clock, rng) = (Clock::system(), Rng::system());
    let urls = &config.key_set_urls();
    let documents = Documents::default().renew(urls, Reading::All).await.complete(urls)?.documents;
    let settings = Settings::build(config, &documents, 1)?;
    check_signing_key(config, &documents)?;
    for (network, config) in config.tenants() {
        check_signing_key(config, &documents).map_err(|problem| SettingsError::OfNetwork {
            hostname: network.hostname.clone(),
            problem: Box::new(problem),
        })?;
    }
    if settings.all().any(|(_, settings)| settings.signing_key().is_none()) {
        tracing::warn!(
            "credentials.derived_tokens.jwt has no signing key: upstream gets identity headers, but no JWT"
        );
    }
    let deny_list = match &config.consistency.deny_file {
        Some(path) => deny_file::read_at_start(path, &clock).await?,
        None => DenyList::default(),
    };
    let store = Store::open(config.db.dsn.expose(), rng.clone()).await?;
    let memory = MemoryCache::new(config.cache.memory.max_size, config.cache.negative_size, &rng);
    let shared = match config.cache.kind {
        CacheType::Redis => Some(Arc::new(RedisCache::new(redis_settings(config), clock.clone())?)),
        CacheType::Memory | CacheType::Noop => None,
    };
    let Consistency { lease, poll, relay, grace, .. } = config.consistency;
    let terms = LeaseConfig { lease, poll, relay, grace };
    let freshness = Freshness::new(clock.clone(), terms, config.cache.ttl);
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let (uses, use_writer) = use_queue(config.last_used.queue_size);
    let (usage, usage_writer) = usage_counter(UsageSettings {
        is_enabled: config.usage.enabled,
        flush_interval: config.usage.flush_interval,
        max_rows: config.usage.max_rows,
    });
    let process = Arc::new(Process::new(planes, &clock));
    let own_uid = rustix::process::geteuid().as_raw();
    let admin_auth = Arc::new(AdminAuth::new(&config.serve.http.auth, own_uid, clock.clone()));
    if planes.contains(Plane::Admin) {
        jwks_refresh::read_at_start(&admin_auth).await?;
    }
    let (log, audit_heads) = open_audit(config, &store, &clock, &rng).await?.unzip();
    let ory = (config.metrics.compat == MetricsCompat::Ory).then(OryMetrics::default);
    let metrics = Metrics { ory, ..Metrics::default() };
    let service = ServiceBuilder {
        limiter: Arc::new(limiter(config, &clock)?),
        clock,
        rng,
        settings,
        store,
        memory,
        shared,
        freshness: Arc::new(freshness),
        deny_list,
        uses,
        usage: Arc::new(usage),
        audit: Arc::new(Audit::new(log)),
        upstream_headers_len,
    };
    let service = Arc::new(service.build());
    let explainer = Arc::new(RouteExplainer::new(Arc::clone(&service)));
    let context = Context {
        service,
        metrics: Arc::new(metrics),
        readiness: Arc::default(),
        process,
        admin_auth,
        explainer,
        throttle: Arc::default(),
    };
    Ok(Built { context, documents, uses: use_writer, usage: usage_writer, audit_heads })
}

/// Opens the audit log; None when the configuration has none.
async fn open_audit(
    config: &Config,
    store: &Store,
    clock: &Clock,
    rng: &Rng,
) -> Result<Option<(AuditLog, HeadReporter)>, AuditError> {
    let audit = &config.audit;
    let Some(path) = audit.file.clone() else {
        return Ok(None);
    };
    if audit.key.is_none() {
        tracing::warn!(
            "audit.key is unset: whoever can write to audit.file can rewrite it without a trace; set a key"
        );
    }
    let settings =
        LogSettings { path, max_size: audit.max_size, keys: ChainKeys::from_config(audit, clock.now()) };
    AuditLog::open(settings, store.clone(), clock.clone(), rng).await.map(Some)
}

/// The rate limiter. Without a Redis address there is nothing to limit, as the configuration
/// demands one where `rate_limit.enabled` is set.
fn limiter(config: &Config, clock: &Clock) -> Result<Limiter, RedisSettingsError> {
    match config.rate_limit.backend {
        RateLimitBackend::Redis if !config.cache.redis.addrs.is_empty() => {
            Ok(Limiter::Redis(Box::new(RedisLimiter::new(redis_settings(config), clock.clone())?)))
        }
        RateLimitBackend::Redis | RateLimitBackend::Memory => Ok(Limiter::memory(clock.clone())),
    }
}

/// Settings of the Redis connection.
pub(super) fn redis_settings(config: &Config) -> RedisSettings {
    let redis = &config.cache.redis;
    let tls = match redis.tls.enabled {
        Some(true) => Some(RedisTls {
            ca_file: redis.tls.ca_file.clone(),
            client_files: redis.tls.cert_file.clone().zip(redis.tls.key_file.clone()),
            server_name: redis.tls.server_name.clone(),
        }),
        Some(false) | None => None,
    };
    let sentinel = redis.sentinel.master.clone().map(|master| RedisSentinel {
        master,
        username: redis.sentinel.username.clone(),
        password: redis.sentinel.password.clone(),
    });
    RedisSettings {
        addrs: redis.addrs.clone(),
        sentinel,
        username: redis.username.clone(),
        password: redis.password.clone(),
        db: redis.db,
        timeout: redis.timeout,
        check_timeout: redis.check_timeout,
        tls,
        plaintext_allowed: redis.tls.enabled == Some(false),
    }
}
