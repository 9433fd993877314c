//! Background tasks of the process, beside the planes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tonic_health::server::HealthReporter;

use super::certificates::Certificates;
use super::log_ages::LogAges;
use super::polling::Poller;
use super::relay::{self, Relay};
use super::reload::Reloader;
use super::tasks::Tasks;
use super::{denied_templates, deny_file, jwks_refresh, unadopted, upkeep};
use crate::authz::Templates;
use crate::cache::redis::RedisCache;
use crate::config::Config;
use crate::http::Context;
use crate::limit::Limiter;
use crate::plane::{Plane, Planes};
use crate::readiness::Readiness;
use crate::service::Service;
use crate::store::TrimLimit;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Process;

/// Time between two pings of the database.
const PING_INTERVAL: Duration = Duration::from_millis(400);
/// Time between two readings of the mutation log's newest number.
const LOG_HEAD_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time for which entries of the mutation log are kept. An instance that was away for
/// longer drops its cache.
const MIN_RETENTION: Duration = Duration::from_secs(60 * 60);
/// Mean time between two rounds of trimming the mutation log; each wait is 50 to 150 % of it.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// Pause between two statements of a round, in which others can write.
const TRIM_PAUSE: Duration = Duration::from_millis(50);

/// Mean time between two checks of the key counts; each wait is 50 to 150 % of it.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Age from which on a key count is checked. It is shared by all instances.
const RECOUNT_AGE: Duration = Duration::from_secs(30 * 60);
/// Age from which on a key count is checked at the start, when an older release may have run.
const RECOUNT_AGE_AT_START: Duration = Duration::from_secs(60);

/// Starts all tasks that run until the planes have drained.
pub(super) fn spawn(
    config: &Config,
    planes: Planes,
    context: &Context,
    reloader: Reloader,
    certificates: Certificates,
    templates: Arc<ArcSwap<Templates>>,
    health: HealthReporter,
) -> Tasks {
    let service = || Arc::clone(&context.service);
    let (changed, relay) = (Arc::new(Notify::new()), Relay::new(&context.service));
    let interval = config.consistency.poll;
    let poller = Poller {
        service: service(),
        interval,
        changed: Arc::clone(&changed),
        relay: relay.clone(),
        health,
        readiness: Arc::clone(&context.readiness),
    };
    let mut tasks = Tasks::default();
    tasks.spawn("poll the mutation log", poller.run());
    tasks.spawn("ping the database", ping(service(), Arc::clone(&context.readiness)));
    tasks.spawn("reload the configuration", reloader.run());
    tasks.spawn("reload certificates", certificates.run());
    tasks
        .spawn("watch the head of the mutation log", watch_log_head(service(), Arc::clone(&context.process)));
    tasks.spawn("trim the mutation log", trim_log(service(), Arc::clone(&context.metrics)));
    tasks.spawn("check the counts of keys", check_counts(service()));
    tasks.spawn("record states of keys", upkeep::sweep_states(service()));
    tasks.spawn("write terms of keys", upkeep::index_terms(service()));
    tasks.spawn("trim usage", upkeep::trim_usage(service(), config.usage.clone()));
    tasks.spawn("count keys by secret", upkeep::count_signers(service()));
    tasks.spawn("look after the audit log", maintain_audit(service()));
    tasks.spawn("look for keys to adopt", unadopted::watch(service(), Arc::clone(&context.process)));
    if planes.contains(Plane::Admin) && context.admin_auth.token_verifier().is_some() {
        let refresh = jwks_refresh::run(Arc::clone(&context.admin_auth), context.service.rng.clone());
        tasks.spawn("refresh the keys of admin tokens", refresh);
    }
    if let Some(path) = &config.authz.denied_template_file {
        tasks.spawn("reload denied templates", denied_templates::watch(path.clone(), templates));
    }
    if let Some(path) = &config.consistency.deny_file {
        let watch = deny_file::watch(path.clone(), service(), Arc::clone(&context.metrics));
        tasks.spawn("reload the deny file", watch);
    }
    if matches!(*context.service.limiter, Limiter::Redis(_)) {
        tasks.spawn(
            "connect the rate limiter to Redis",
            connect_limiter(Arc::clone(&context.service.limiter)),
        );
    }
    if let Some(shared) = context.service.shared.clone() {
        if let Some(relay) = relay {
            tasks.spawn("read questions of other instances", relay.read(interval));
            tasks.spawn("ask other instances", relay::ask(service(), Arc::clone(&shared), interval));
        }
        tasks.spawn("connect the cache to Redis", connect_cache(service(), shared, changed));
    }
    tasks
}

/// Keeps the connection of the shared cache, forever.
async fn connect_cache(service: Arc<Service>, shared: Arc<RedisCache>, changed: Arc<Notify>) {
    let settings = service.settings.clone();
    let is_news = |n| n > service.freshness.polled_to();
    shared.run(&changed, |open| open(&settings.load().secrets), is_news).await;
}

/// Keeps the connection of the rate limiter, forever.
async fn connect_limiter(limiter: Arc<Limiter>) {
    match &*limiter {
        Limiter::Redis(limiter) => limiter.run().await,
        Limiter::Memory(_) => std::future::pending().await,
    }
}

async fn maintain_audit(service: Arc<Service>) {
    service.audit.run_maintenance(&service.clock).await;
}

/// Pings the database, forever. Readiness depends on the answers.
async fn ping(service: Arc<Service>, readiness: Arc<Readiness>) {
    loop {
        let start = service.clock.boot_now();
        if service.store.ping().await.is_ok() {
            readiness.record_ping(start);
        }
        tokio::time::sleep(PING_INTERVAL).await;
    }
}

/// Records the newest number of the mutation log, forever. Only a query beside the polls shows how
/// far these are behind.
async fn watch_log_head(service: Arc<Service>, process: Arc<Process>) {
    loop {
        let at = service.clock.boot_now();
        if let Ok(newest) = service.store.newest_number().await {
            process.record_log_head(newest, at);
        }
        tokio::time::sleep(LOG_HEAD_INTERVAL).await;
    }
}

/// Deletes entries of the mutation log that no instance needs any more, forever. Every instance
/// does so, at random moments.
async fn trim_log(service: Arc<Service>, metrics: Arc<Metrics>) {
    let (mut ages, mut seen_at_start) = (LogAges::default(), None);
    loop {
        // A wide margin over the longest time for which a cached row may be used.
        let retention = MIN_RETENTION.max(service.settings.load().longest_cache_ttl() * 4);
        let boot_now = service.clock.boot_now();
        if let Ok(newest) = service.store.newest_number().await {
            ages.record(newest, boot_now);
            seen_at_start = seen_at_start.or(Some(newest)).map(|seen: u64| seen.min(newest));
        }
        let limit = TrimLimit {
            retention,
            old: ages.older_than(retention, boot_now),
            seen_at_start: seen_at_start.unwrap_or(0),
            now: service.clock.now(),
        };
        loop {
            match service.store.trim_mutations(limit).await {
                Ok(0) => break,
                Ok(trimmed) => {
                    metrics.log_trimmed.inc_by(trimmed);
                }
                Err(error) => {
                    tracing::warn!(%error, "old entries of the mutation log can't be deleted; trying again later");
                    break;
                }
            }
            tokio::time::sleep(TRIM_PAUSE).await;
        }
        tokio::time::sleep(service.rng.jittered(TRIM_INTERVAL, 0.5)).await;
    }
}

/// Checks the kept counts of networks with a quota, forever. They are wrong after changes by
/// programs that don't keep them.
async fn check_counts(service: Arc<Service>) {
    let mut age = RECOUNT_AGE_AT_START;
    loop {
        let settings = service.snapshot();
        for settings in settings.all().map(|(_, settings)| settings) {
            if settings.api_keys_max.is_none() {
                continue;
            }
            let (network, now) = (settings.network, service.clock.now());
            match service.store.recount_keys(network, now, now.minus(age)).await {
                Ok(0) => {}
                Ok(correction) => {
                    tracing::warn!(%network, correction, "the kept number of keys was wrong, and is corrected");
                }
                Err(error) => {
                    tracing::warn!(%error, %network, "the number of keys can't be checked; trying again later");
                }
            }
        }
        age = RECOUNT_AGE;
        tokio::time::sleep(service.rng.jittered(RECOUNT_INTERVAL, 0.5)).await;
    }
}
