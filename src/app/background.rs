//! What goes on beside the requests: polling the log of changes, and asking whether the database is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::authz::SERVICE_NAME;
use crate::cache::shared::Shared;
use crate::readiness::Readiness;
use crate::service::Service;

/// How often the database is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_millis(400);

/// Polls the log every `interval`, and at once when `changed` says so, for ever. The authz plane serves from the first poll that succeeds.
pub async fn poll(
    service: Arc<Service>,
    interval: Duration,
    changed: Arc<Notify>,
    health: HealthReporter,
    readiness: Arc<Readiness>,
) {
    let mut serving = false;
    let mut failing = false;
    loop {
        let result = service.freshness.poll(&service.store).await;
        match (&result, failing) {
            (Err(error), false) => tracing::error!(%error, "changes can't be polled: the lease will run out"),
            (Ok(()), true) => tracing::info!("changes are polled again"),
            _ => {}
        }
        failing = result.is_err();
        if !serving && service.freshness.has_begun() && !readiness.is_draining() {
            set_serving(&health, true).await;
            serving = true;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = changed.notified() => {}
        }
    }
}

/// Keeps in touch with L2, for ever.
pub async fn share(service: Arc<Service>, shared: Arc<Shared>, changed: Arc<Notify>) {
    let settings = service.settings.clone();
    shared.run(&changed, |is_ours| is_ours(&settings.load().secrets)).await;
}

/// Pings the database, for ever.
pub async fn ping(service: Arc<Service>, readiness: Arc<Readiness>) {
    loop {
        let began = service.clock.boot();
        if service.store.ping().await.is_ok() {
            readiness.database_answered(began);
        }
        tokio::time::sleep(PING_INTERVAL).await;
    }
}

/// What gRPC health says of the process and of its one service.
pub async fn set_serving(health: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE_NAME, status).await;
}
