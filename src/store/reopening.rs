//! Closing and reopening of an SQLite file whose log was removed or replaced while it was open.
//!
//! The last connection to close writes what the log has into the file, even if the log has no name
//! any more. So all processes close their connections first, and open the file only afterwards.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Inner;
use super::server::NotAuthoritative;
use super::tracked_file::TrackedFile;

/// Pause before the file is opened again: in this time other processes notice it, too.
const PAUSE: Duration = Duration::from_secs(2);
/// Interval at which it is looked whether all connections are closed.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Rounds after which a process that still has the file open is logged, and between two lines.
const ROUNDS_TO_LOG: u32 = 200;

impl Inner {
    /// Starts to close and reopen the file, if that is needed and hasn't begun.
    pub(super) fn reopen_if_needed(self: &Arc<Self>) {
        let Some(file) = self.file.as_ref().filter(|file| file.begin_closing()) else {
            return;
        };
        tokio::spawn(reopen(Arc::clone(self), Arc::clone(file)));
    }
}

async fn reopen(inner: Arc<Inner>, file: Arc<TrackedFile>) {
    tracing::error!(reason = %NotAuthoritative::LogReplaced, "the database is closed and opened anew");
    inner.poller.reset();
    inner.anchor.close().await;
    loop {
        let (readers, writers) = (inner.readers.close_idle().await, inner.writers.close_idle().await);
        if readers && writers {
            break;
        }
        sleep(CHECK_INTERVAL).await;
    }
    sleep(PAUSE).await;
    let mut rounds = 0_u32;
    // Without a file there is nothing to wait for: whoever opens it finds that out.
    while file.is_used().unwrap_or(false) {
        if rounds.is_multiple_of(ROUNDS_TO_LOG) {
            tracing::error!("another process still has the database open without its log: end it");
        }
        rounds = rounds.wrapping_add(1);
        sleep(CHECK_INTERVAL).await;
    }
    file.end_closing();
    inner.anchor.reopen(inner.poller.options()).await;
    tracing::warn!("the database is open again");
    inner.poll_requested.notify_one();
}
