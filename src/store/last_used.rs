//! When keys were last used: written in batches, beside the log, as it changes nothing that a decision hangs on.

use std::time::Duration;

use futures_util::FutureExt;

use super::transaction::End;
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

/// How precise it is: a row is written again only when this much later.
pub const PRECISION: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Notes when keys were last used, in one transaction. A key whose row says so to the day already, and one that is
    /// gone, are left alone.
    ///
    /// # Errors
    /// When the database fails; nothing is noted then.
    pub async fn note_last_used(&self, uses: Vec<(NetworkId, KeyId, Timestamp)>) -> Result<(), StoreError> {
        let note = "UPDATE api_keys SET last_used_at = $1 WHERE network_id = $2 AND key_id = $3 \
                    AND (last_used_at IS NULL OR last_used_at <= $4)";
        self.run(async move |inner| {
            inner
                .write(uses, move |inner, transaction, uses| {
                    async move {
                        for (network, id, at) in uses {
                            inner
                                .query(note)
                                .bind(at.as_micros())
                                .bind(network.to_string())
                                .bind(id.to_string())
                                .bind(at.minus(PRECISION).as_micros())
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
