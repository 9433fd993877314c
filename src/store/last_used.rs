//! Last uses of keys: written in batches and not logged, as no decision depends on them.

use std::time::Duration;

use futures_util::FutureExt;

use super::clock_skew::{self, MAX_CLOCK_SKEW};
use super::transaction::End;
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

/// Precision of a last use: a row is written again only after this time.
pub const LAST_USED_PRECISION: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Records the last uses of keys, in one transaction. Keys whose row is precise enough already,
    /// and deleted ones, aren't written. `now` is the time of the clock that the uses were read
    /// from: if it is far from the database's, the database's counts. A time in a row that hasn't
    /// come yet is replaced.
    ///
    /// # Errors
    /// When the database fails; nothing is recorded then.
    pub async fn record_last_used(
        &self,
        uses: Vec<(NetworkId, KeyId, Timestamp)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let update = "UPDATE api_keys SET last_used_at = $1 WHERE network_id = $2 AND key_id = $3 \
                    AND (last_used_at IS NULL OR last_used_at <= $4 OR last_used_at > $5)";
        self.run(async move |inner| {
            inner
                .write(uses, move |inner, transaction, uses| {
                    async move {
                        let time = inner.read_clock(transaction).await?;
                        let ahead = match time.filter(|_| clock_skew::is_off(now, time)) {
                            Some(time) => now.as_micros().saturating_sub(time.as_micros()),
                            None => 0,
                        };
                        let latest = time.unwrap_or(now).plus(MAX_CLOCK_SKEW);
                        for (network, id, at) in uses {
                            let at = Timestamp::from_micros(at.as_micros().saturating_sub(ahead));
                            inner
                                .query(update)
                                .bind(at.as_micros())
                                .bind(network.to_string())
                                .bind(id.to_string())
                                .bind(at.minus(LAST_USED_PRECISION).as_micros())
                                .bind(latest.as_micros())
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
