//! Upkeep of the rows of keys: sweeps of their states, counts of their signers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Usage;
use crate::service::{Service, SignerCount, SignerState};
use crate::store::{INDEX_BATCH, SWEEP_BATCH, USAGE_TRIM_BATCH};

/// Mean time between two rounds of sweeping; each wait is 50 to 150 % of it.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Mean time between two rounds of writing terms; each wait is 50 to 150 % of it.
const INDEX_INTERVAL: Duration = Duration::from_secs(5);
/// Mean time between two rounds of trimming usage; each wait is 50 to 150 % of it.
const TRIM_USAGE_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Pause between two batches of a round, in which others can write.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);
/// Shortest time between two counts of signers.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a count, in durations of the count: counting takes one percent of a connection.
const COUNT_SHARE: u32 = 100;

/// Records the states of keys that time has ended, forever. Every instance does so, at random
/// moments.
pub(super) async fn sweep_states(service: Arc<Service>) {
    loop {
        tokio::time::sleep(service.rng.jittered(SWEEP_INTERVAL, 0.5)).await;
        loop {
            match service.store.sweep_states(service.clock.now()).await {
                Ok(SWEEP_BATCH) => tokio::time::sleep(SWEEP_PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "states of ended keys can't be recorded; trying again later");
                    break;
                }
            }
        }
    }
}

/// Writes the terms of keys that a release before this one wrote, forever. Every instance does so,
/// at random moments.
pub(super) async fn index_terms(service: Arc<Service>) {
    loop {
        tokio::time::sleep(service.rng.jittered(INDEX_INTERVAL, 0.5)).await;
        loop {
            match service.store.index_terms().await {
                Ok(INDEX_BATCH) => tokio::time::sleep(SWEEP_PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "terms of keys can't be written; trying again later");
                    break;
                }
            }
        }
    }
}

/// Adds hours of usage up by day, and deletes old days, forever. Every instance does so, at random
/// moments.
pub(super) async fn trim_usage(service: Arc<Service>, usage: Usage) {
    loop {
        tokio::time::sleep(service.rng.jittered(TRIM_USAGE_INTERVAL, 0.5)).await;
        let now = service.clock.now();
        loop {
            let hours = service.store.roll_up_usage(now, usage.keep_hours).await;
            let days = service.store.trim_usage(now, usage.keep_days).await;
            match hours.and_then(|hours| Ok(hours.max(days?))) {
                Ok(USAGE_TRIM_BATCH) => tokio::time::sleep(SWEEP_PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "old usage can't be trimmed; trying again later");
                    break;
                }
            }
        }
    }
}

/// Counts the keys of every secret and prefix, forever, and warns when keys need one that no
/// configuration has.
pub(super) async fn count_signers(service: Arc<Service>) {
    let mut warned = BTreeSet::new();
    loop {
        let start = Instant::now();
        match service.count_signers().await {
            Ok(counts) => {
                let removed = missing("secrets.hmac", &counts.secrets);
                let removed = removed.chain(missing("credentials.api_keys.prefix", &counts.prefixes));
                let removed: BTreeSet<_> = removed.collect();
                for (setting, signer, keys) in &removed {
                    if !warned.iter().any(|(_, known, _)| known == signer) {
                        tracing::warn!(
                            setting,
                            signer,
                            keys,
                            "active keys need a secret or prefix that no configuration has: they are refused as \
                             unknown; put it back as a retired one, or issue them anew"
                        );
                    }
                }
                warned = removed;
            }
            Err(error) => tracing::debug!(%error, "keys can't be counted by secret"),
        }
        let pause = COUNT_INTERVAL.max(start.elapsed() * COUNT_SHARE);
        tokio::select! {
            () = tokio::time::sleep(service.rng.jittered(pause, 0.2)) => {}
            () = service.signers.requested() => {}
        }
    }
}

/// Returns the setting, signer and number of keys of signers that no configuration has.
fn missing<'a>(
    setting: &'static str,
    counts: &'a [SignerCount],
) -> impl Iterator<Item = (&'static str, String, u64)> + 'a {
    let removed = counts.iter().filter(|count| count.state == SignerState::Removed);
    removed.map(move |count| (setting, count.signer.clone(), count.keys))
}
