//! Polls the mutation log, which keeps the lease of cached rows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::relay::Relay;
use crate::authz::SERVICE_NAME;
use crate::readiness::Readiness;
use crate::service::Service;
use crate::store::{ClockSkew, MAX_CLOCK_SKEW};

/// Share of the lease above which the duration of a poll is worth a warning: there is little time
/// left for the next one.
const SLOW_POLL: f64 = 0.4;
/// Polls per interval at most when the store asks for extra ones.
const MAX_EXTRA_POLLS: u32 = 20;
/// Time for the preparation of a start. A process whose database is slow listens all the same.
const PREPARATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the mutation log and prepares lookups, so that a process which accepts connections can
/// decide, even on a machine that is busy with many starts.
pub(super) async fn prepare(service: &Service) {
    let preparation = async {
        service.freshness.poll(&service.store).await?;
        service.store.prepare_lookups().await
    };
    match tokio::time::timeout(PREPARATION_TIMEOUT, preparation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the database can't be read yet; starting all the same"),
        Err(_) => tracing::warn!("the database doesn't answer yet; starting all the same"),
    }
}

/// The task that polls the mutation log.
pub(super) struct Poller {
    /// Use cases and their state.
    pub service: Arc<Service>,
    /// Time from the start of one poll to the start of the next.
    pub interval: Duration,
    /// Asks for a poll at once.
    pub changed: Arc<Notify>,
    /// Relays what was read to instances that can't reach the database.
    pub relay: Option<Arc<Relay>>,
    /// gRPC health, which reports serving after the first poll that succeeds.
    pub health: HealthReporter,
    /// Readiness of the process.
    pub readiness: Arc<Readiness>,
}

impl Poller {
    /// Polls forever.
    pub(super) async fn run(self) {
        let (mut is_serving, mut is_failing, mut is_slow, mut is_off) = (false, false, false, false);
        let service = &self.service;
        loop {
            let start = Instant::now();
            let result = service.freshness.poll(&service.store).await;
            match (&result, is_failing) {
                (Err(error), false) => {
                    tracing::error!(%error, "the mutation log can't be polled: the lease will run out");
                }
                (Ok(()), true) => tracing::info!("the mutation log is polled again"),
                _ => {}
            }
            is_failing = result.is_err();
            is_slow = self.report_slowness(start.elapsed(), is_slow);
            is_off = self.report_clock_skew(is_off);
            if let Some(relay) = self.relay.as_ref().filter(|_| !is_failing) {
                relay.answer();
            }
            if !is_serving && service.freshness.has_polled() && !self.readiness.is_draining() {
                set_serving(&self.health, true).await;
                is_serving = true;
            }
            tokio::select! {
                // From start to start, as the lease counts from the start of a poll, too.
                () = tokio::time::sleep_until(start + self.interval) => {}
                () = self.changed.notified() => {}
                () = service.store.poll_requested() => {
                    tokio::time::sleep_until(start + self.interval / MAX_EXTRA_POLLS).await;
                }
            }
        }
    }

    /// Logs when this process's clock and the database's come apart, and when they agree again.
    /// Returns whether they differ.
    fn report_clock_skew(&self, was_off: bool) -> bool {
        let skew = self.service.store.clock_skew();
        let is_off = skew.is_some_and(ClockSkew::is_suspicious);
        let seconds_ahead = skew.map_or(0.0, ClockSkew::seconds_ahead);
        match (is_off, was_off) {
            (true, false) => tracing::warn!(
                seconds_ahead,
                refused_beyond = MAX_CLOCK_SKEW.as_secs(),
                "this server's clock differs from the database's: keys expire by a wrong time, and beyond the bound none \
                 are issued, rotated or imported here; set the clocks (NTP)"
            ),
            (false, true) => {
                tracing::info!(seconds_ahead, "this server's clock agrees with the database's again")
            }
            _ => {}
        }
        is_off
    }

    /// Logs when polls become slow or quick again. Returns whether this one was slow.
    fn report_slowness(&self, duration: Duration, was_slow: bool) -> bool {
        let lease = self.service.freshness.config().lease;
        let is_slow = duration > lease.mul_f64(SLOW_POLL);
        match (is_slow, was_slow) {
            (true, false) => tracing::warn!(
                seconds = duration.as_secs_f64(),
                lease_seconds = lease.as_secs_f64(),
                "polls of the mutation log are slow: the database is far away or busy, or there are more changes than \
                 can be read"
            ),
            (false, true) => tracing::info!("polls of the mutation log are quick again"),
            _ => {}
        }
        is_slow
    }
}

/// Sets the gRPC health of the process and of the ext_authz service.
pub(super) async fn set_serving(health: &HealthReporter, is_serving: bool) {
    let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE_NAME, status).await;
}
