//! Last uses of keys: written in batches and not logged, as no decision depends on them.

use std::time::Duration;

use futures_util::FutureExt;

use super::transaction::End;
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

/// Precision of a last use: a row is written again only after this time.
pub const LAST_USED_PRECISION: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Records the last uses of keys, in one transaction. Keys whose row is precise enough already,
    /// and deleted ones, aren't written.
    ///
    /// # Errors
    /// When the database fails; nothing is recorded then.
    pub async fn record_last_used(&self, uses: Vec<(NetworkId, KeyId, Timestamp)>) -> Result<(), StoreError> {
        let update = "UPDATE api_keys SET last_used_at = $1 WHERE network_id = $2 AND key_id = $3 \
                    AND (last_used_at IS NULL OR last_used_at <= $4)";
        self.run(async move |inner| {
            inner
                .write(uses, move |inner, transaction, uses| {
                    async move {
                        for (network, id, at) in uses {
                            inner
                                .query(update)
                                .bind(at.as_micros())
                                .bind(network.to_string())
                                .bind(id.to_string())
                                .bind(at.minus(LAST_USED_PRECISION).as_micros())
                                .execute(&mut *transaction)
                                .await?;
                        }
                        Ok(End::Commit(()))
                    }
                    .boxed()
                })
                .await
        })
        .await
    }
}
