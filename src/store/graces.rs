//! Grace periods that are extended while the old key is used.
//!
//! An extension isn't logged as a change: a cached row with the earlier end is only read again too
//! early, and never allows too much.

use futures_util::FutureExt;

use super::transaction::End;
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

impl Store {
    /// Puts off the ends of keys that were used, in one transaction, each if that moves it by an
    /// eighth of its grace period at least. Ended keys stay ended.
    ///
    /// # Errors
    /// When the database fails; no end is put off then.
    pub async fn extend_graces(&self, uses: Vec<(NetworkId, KeyId, Timestamp)>) -> Result<(), StoreError> {
        let extend = "UPDATE api_keys SET superseded_at = CASE WHEN grace_limit_at < $1 + unused_grace \
                      THEN grace_limit_at ELSE $2 + unused_grace END WHERE network_id = $3 AND key_id = $4 \
                      AND unused_grace IS NOT NULL AND revocation_reason IS NULL AND superseded_at > $5 \
                      AND superseded_at < grace_limit_at AND (superseded_at - $6) * 8 < unused_grace * 7";
        self.run(async move |inner| {
            inner
                .write(uses, move |inner, transaction, uses| {
                    async move {
                        for (network, id, at) in uses {
                            let at = at.as_micros();
                            let extend = inner.query(extend).bind(at).bind(at).bind(network.to_string());
                            let extend = extend.bind(id.to_string()).bind(at).bind(at);
                            extend.execute(&mut *transaction).await?;
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
