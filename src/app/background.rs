//! What goes on beside the requests: polling the log of changes, and asking whether the database is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::relay::Relay;
use crate::authz::SERVICE_NAME;
use crate::cache::shared::Shared;
use crate::limit::Limiter;
use crate::readiness::Readiness;
use crate::service::Service;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::Process;

/// How often the database is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_millis(400);

/// A poll that takes more than this share of the lease is worth a warning: there is little left for the next.
const SLOW_POLL: f64 = 0.4;
/// Most polls in an interval that are made because something was found out.
const WANTED_POLLS: u32 = 20;

/// How often the end of the log is asked for.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long entries of the log are kept at least. Who was away for longer begins anew.
const MIN_RETENTION: Duration = Duration::from_secs(60 * 60);
/// How often the log is trimmed, give or take a half.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// Between two statements that trim it: others want to write, too.
const TRIM_PAUSE: Duration = Duration::from_millis(50);

/// How long a start may take to prepare; then it listens all the same.
const PREPARATION: Duration = Duration::from_secs(1);

/// Takes in the log and makes lookups ready: whoever finds the listeners open finds a process that can decide, even if
/// the machine is busy with many that start.
pub async fn prepare(service: &Service) {
    let preparing = async {
        service.freshness.poll(&service.store).await?;
        service.store.prepare_lookups().await
    };
    match tokio::time::timeout(PREPARATION, preparing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the database can't be asked yet"),
        Err(_) => tracing::warn!("the database gives no answer yet"),
    }
}

/// Polls the log every `interval`, and at once when `changed` says so, for ever. The authz plane serves from the first
/// poll that succeeds.
pub async fn poll(
    service: Arc<Service>,
    interval: Duration,
    changed: Arc<Notify>,
    relay: Option<Arc<Relay>>,
    health: HealthReporter,
    readiness: Arc<Readiness>,
) {
    let mut serving = false;
    let (mut failing, mut slow) = (false, false);
    let lease = service.freshness.terms().lease;
    loop {
        let began = tokio::time::Instant::now();
        let result = service.freshness.poll(&service.store).await;
        match (&result, failing) {
            (Err(error), false) => tracing::error!(%error, "changes can't be polled: the lease will run out"),
            (Ok(()), true) => tracing::info!("changes are polled again"),
            _ => {}
        }
        failing = result.is_err();
        let took = began.elapsed();
        match (took > lease.mul_f64(SLOW_POLL), slow) {
            (true, false) => tracing::warn!(
                seconds = took.as_secs_f64(),
                lease_seconds = lease.as_secs_f64(),
                "polls of the log are slow: the database is far away or busy, or changes come faster than they are read"
            ),
            (false, true) => tracing::info!("polls of the log are quick again"),
            _ => {}
        }
        slow = took > lease.mul_f64(SLOW_POLL);
        if let Some(relay) = relay.as_ref().filter(|_| !failing) {
            relay.answer();
        }
        if !serving && service.freshness.has_begun() && !readiness.is_draining() {
            set_serving(&health, true).await;
            serving = true;
        }
        tokio::select! {
            // From beginning to beginning: the lease counts from there, too.
            () = tokio::time::sleep_until(began + interval) => {}
            () = changed.notified() => {}
            () = service.store.poll_wanted() => tokio::time::sleep_until(began + interval / WANTED_POLLS).await,
        }
    }
}

/// Keeps in touch with L2, for ever.
pub async fn share(service: Arc<Service>, shared: Arc<Shared>, changed: Arc<Notify>) {
    let settings = service.settings.clone();
    let is_news = |n| n > service.freshness.polled();
    shared.run(&changed, |open| open(&settings.load().secrets), is_news).await;
}

/// Keeps in touch with the Redis that counts the uses of keys, for ever.
pub async fn keep_limiter(limiter: Arc<Limiter>) {
    match &*limiter {
        Limiter::Redis(limiter) => limiter.run().await,
        Limiter::Memory(_) => std::future::pending().await,
    }
}

/// Pings the database, for ever.
pub async fn ping(service: Arc<Service>, readiness: Arc<Readiness>) {
    loop {
        let began = service.clock.boot_now();
        if service.store.ping().await.is_ok() {
            readiness.record_ping(began);
        }
        tokio::time::sleep(PING_INTERVAL).await;
    }
}

/// Notes where the log ends, for ever: how far behind a process is shows only by asking beside the polls.
pub async fn watch_log(service: Arc<Service>, process: Arc<Process>) {
    loop {
        let at = service.clock.boot_now();
        if let Ok(newest) = service.store.newest_number().await {
            process.note_log(newest, at);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Deletes what nobody reads of the log any more, for ever. All processes do so, each at moments of its own.
pub async fn trim_log(service: Arc<Service>, metrics: Arc<Metrics>) {
    loop {
        // As long as anything cached may be used, twice over and again.
        let retention = MIN_RETENTION.max(service.settings.load().longest_cache_ttl() * 4);
        let before = service.clock.now().minus(retention);
        loop {
            match service.store.trim_mutations(before).await {
                Ok(0) => break,
                Ok(trimmed) => {
                    metrics.log_trimmed.inc_by(trimmed);
                }
                Err(error) => {
                    tracing::warn!(%error, "the log of changes can't be trimmed at present");
                    break;
                }
            }
            tokio::time::sleep(TRIM_PAUSE).await;
        }
        tokio::time::sleep(service.rng.jittered(TRIM_INTERVAL, 0.5)).await;
    }
}

/// What gRPC health says of the process and of its one service.
pub async fn set_serving(health: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE_NAME, status).await;
}
