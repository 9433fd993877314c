//! Keys that Ory Talos left in the database and nobody took over: said at the start and in the
//! status, until they are adopted.

use std::sync::Arc;
use std::time::Duration;

use crate::http::Context;
use crate::service::Service;
use crate::telemetry::status::{Process, unadopted_problem};

/// Time for the look at the start, which nothing waits for longer.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two looks while there are such keys.
const INTERVAL: Duration = Duration::from_secs(5);

/// Looks once, and warns. A database that doesn't answer tells nothing.
pub(super) async fn look_at_start(context: &Context) {
    let found = tokio::time::timeout(START_TIMEOUT, context.service.store.unadopted_tables()).await;
    if let Ok(Ok(tables)) = found {
        if let Some(problem) = unadopted_problem(&tables) {
            tracing::warn!("{problem}");
        }
        context.process.record_unadopted(tables);
    }
}

/// Looks again while there are such keys, forever.
pub(super) async fn watch(service: Arc<Service>, process: Arc<Process>) {
    while process.has_unadopted() {
        tokio::time::sleep(INTERVAL).await;
        match service.store.unadopted_tables().await {
            Ok(tables) if tables.is_empty() => {
                tracing::info!("the keys of Ory Talos in the database are adopted");
                process.record_unadopted(tables);
            }
            Ok(tables) => process.record_unadopted(tables),
            Err(_) => {}
        }
    }
    std::future::pending().await
}
