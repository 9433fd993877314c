//! A connection to an SQLite file that is never used and never closed, for the memory that all of them share.
//!
//! SQLite maps a file's `-shm` once a process: whether that may be written is settled when the first connection opens it,
//! and forgotten when the last one closes. Connections come and go here without ever being none, so one that had to open
//! it while the disk or the file took no writes would keep all of them from writing after that is over, until the
//! process ends.

use std::sync::{Mutex, PoisonError};

use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, Connection, Executor};

/// The connection, if there is one.
pub(super) struct Anchor(Mutex<Option<AnyConnection>>);

impl Anchor {
    /// For a database that needs none.
    pub const fn none() -> Self {
        Self(Mutex::new(None))
    }

    /// Connects. It must be able to write: otherwise it would itself be what keeps the others from it, and there is none.
    pub async fn open(options: &AnyConnectOptions) -> Self {
        let connected = async {
            let mut connection = AnyConnection::connect_with(options).await?;
            connection.execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE; ROLLBACK;").await?;
            Ok::<_, sqlx::Error>(connection)
        };
        match connected.await {
            Ok(connection) => Self(Mutex::new(Some(connection))),
            Err(error) => {
                tracing::warn!(%error, "the database can't be written: once it can, this process may need a restart");
                Self::none()
            }
        }
    }

    /// Closes the connection.
    pub async fn close(&self) {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection {
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
        for pool in [&store.0.readers, &store.0.writers, &store.0.pollers] {
            pool.close().await;
        }
        // Whoever closes the last connection deletes these.
        let is_there = |file: &str| directory.path().join(file).exists();
        assert!(is_there("talos.db-shm") && is_there("talos.db-wal"));
        store.close().await;
        assert!(!is_there("talos.db-shm") && !is_there("talos.db-wal"));
    }
}
