//! A connection to an SQLite file that is never used and never closed, for the memory that all of them share.
//!
//! SQLite maps a file's `-shm` once a process: whether that may be written is settled when the first connection opens it,
//! and forgotten when the last one closes. Connections come and go here without ever being none, so one that had to open
//! it while the disk or the file took no writes would keep all of them from writing after that is over, until the
//! process ends.

use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection, Executor};

use super::StoreError;
use super::database_file::FileId;
use super::pool::WatchedFile;

/// The connection, if there is one, and the file that it holds open.
pub(super) struct Anchor {
    file: Option<Arc<WatchedFile>>,
    held: Mutex<Option<(FileId, AnyConnection)>>,
}

impl Anchor {
    /// For a database that needs none.
    pub const fn none() -> Self {
        Self { file: None, held: Mutex::new(None) }
    }

    /// Connects.
    pub async fn open(file: Arc<WatchedFile>, options: &AnyConnectOptions) -> Self {
        let anchor = Self { file: Some(file), held: Mutex::new(None) };
        anchor.hold(options).await;
        anchor
    }

    /// Lets go of a file that isn't the database any more, and holds the one that is.
    pub async fn follow(&self, current: FileId, options: &AnyConnectOptions) {
        let is_held = self.held.lock().as_ref().is_none_or(|(held, _)| held.is_followed_by(current));
        if !is_held {
            self.close().await;
            self.hold(options).await;
        }
    }

    /// It must be able to write: otherwise it would itself be what keeps the others from it, and there is none.
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
                tracing::warn!(%error, "the database can't be written: once it can, this process may need a restart");
            }
        }
    }

    /// Closes the connection.
    pub async fn close(&self) {
        let held = self.held.lock().take();
        if let Some((_, connection)) = held {
            // It has nothing to lose.
            let _ = connection.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rng::Rng;
    use crate::store::Store;

    #[tokio::test]
    async fn what_the_connections_share_stays_while_none_of_them_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::system()).await.unwrap();
        for pool in [&store.0.readers, &store.0.writers] {
            pool.close().await;
        }
        // Whoever closes the last connection deletes these.
        let is_there = |file: &str| directory.path().join(file).exists();
        assert!(is_there("talos.db-shm") && is_there("talos.db-wal"));
        store.close().await;
        assert!(!is_there("talos.db-shm") && !is_there("talos.db-wal"));
    }
}
