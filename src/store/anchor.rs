//! Connection to an SQLite file that is kept open and never used, for the memory that all
//! connections share.
//!
//! SQLite maps a file's `-shm` once per process. Whether that is writable is decided when the first
//! connection opens it, and stays so until the last one closes. Connections come and go here, and
//! some are always open. So if the first one had opened it while the disk or the file was not
//! writable, none could write afterwards until the process ends.

use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection, Executor};

use super::StoreError;
use super::database_file::FileId;
use super::tracked_file::TrackedFile;

/// Open connection, if there is one, and the file that it holds open.
pub(super) struct Anchor {
    file: Option<Arc<TrackedFile>>,
    held: Mutex<Option<(FileId, AnyConnection)>>,
}

impl Anchor {
    /// Creates an anchor without a connection, for databases that need none.
    pub(super) const fn none() -> Self {
        Self { file: None, held: Mutex::new(None) }
    }

    /// Opens the connection.
    pub(super) async fn open(file: Arc<TrackedFile>, options: &AnyConnectOptions) -> Self {
        let anchor = Self { file: Some(file), held: Mutex::new(None) };
        anchor.hold(options).await;
        anchor
    }

    /// Reopens the connection if the path names another file now.
    pub(super) async fn follow(&self, current: FileId, options: &AnyConnectOptions) {
        let is_held = self.held.lock().as_ref().is_none_or(|(held, _)| held.is_same_database(current));
        if !is_held {
            self.close().await;
            self.hold(options).await;
        }
    }

    /// Opens the connection again that was closed.
    pub(super) async fn reopen(&self, options: &AnyConnectOptions) {
        self.close().await;
        self.hold(options).await;
    }

    /// Opens a connection that can write; one that can't would itself keep the others from writing.
    async fn hold(&self, options: &AnyConnectOptions) {
        let Some(file) = &self.file else {
            return;
        };
        let connected = async {
            let mut connection = AnyConnection::connect_with(options).await?;
            connection.execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE; ROLLBACK;").await?;
            Ok::<_, StoreError>((file.file().current()?, connection))
        };
        match connected.await {
            Ok(held) => *self.held.lock() = Some(held),
            Err(error) => {
                tracing::warn!(%error, "the database isn't writable: this process may need a restart once it is");
            }
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        let held = self.held.lock().take();
        if let Some((_, connection)) = held {
            // An error doesn't matter: nothing was written.
            let _ = connection.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rng::Rng;
    use crate::store::Store;

    #[tokio::test]
    async fn shared_memory_stays_while_the_pools_have_no_connection() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::system()).await.unwrap();
        for pool in [&store.0.readers, &store.0.writers] {
            pool.close().await;
        }
        // SQLite deletes these when the last connection closes.
        let exists = |file: &str| directory.path().join(file).exists();
        assert!(exists("talos.db-shm") && exists("talos.db-wal"));
        store.close().await;
        assert!(!exists("talos.db-shm") && !exists("talos.db-wal"));
    }
}
