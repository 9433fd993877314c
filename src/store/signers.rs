//! Signers of issued keys: which keys hang on which HMAC secret and prefix.

use futures_util::FutureExt;
use sqlx::Row;

use super::transaction::End;
use super::{Store, StoreError};
use crate::key::{KeyId, KeyPrefix, NetworkId, Signer};

/// Number up to which the keys of a signer are counted.
pub const MAX_SIGNED_COUNT: u64 = 100_000;
/// Most different secrets or prefixes that are looked for.
pub(super) const MAX_SIGNERS: usize = 64;

/// Part of a signer by which keys are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    /// HMAC secret, by its id.
    Secret,
    /// Prefix.
    Prefix,
}

impl SignedBy {
    const fn column(self) -> &'static str {
        match self {
            Self::Secret => "secret_id",
            Self::Prefix => "key_prefix",
        }
    }
}

impl Store {
    /// Returns the different secrets or prefixes of issued keys, at most [`MAX_SIGNERS`], and how
    /// many active keys have each, counted up to [`MAX_SIGNED_COUNT`]. The empty text stands for
    /// keys whose signer isn't known; it comes first, and always.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_signed(&self, by: SignedBy) -> Result<Vec<(String, u64)>, StoreError> {
        let column = by.column();
        self.run(async move |inner| {
            let mut counted = vec![];
            let mut signer = Some(String::new());
            while let Some(current) = signer.take().filter(|_| counted.len() <= MAX_SIGNERS) {
                let count = format!(
                    "SELECT count(*) AS n FROM (SELECT 1 AS one FROM api_keys WHERE kind = 1 AND {column} = $1 \
                     AND {} = 1 LIMIT $2) AS counted",
                    inner.dialect.state()
                );
                let count = inner.query(count).bind(current.clone()).bind(MAX_SIGNED_COUNT as i64);
                let next = format!(
                    "SELECT {column} AS signer FROM api_keys WHERE kind = 1 AND {column} > $1 ORDER BY {column} LIMIT 1"
                );
                let next = inner.query(next).bind(current.clone());
                let (count, next) = inner
                    .read(|connection| {
                        async move {
                            Ok((count.fetch_one(&mut *connection).await?, next.fetch_optional(connection).await?))
                        }
                        .boxed()
                    })
                    .await?;
                let keys = u64::try_from(count.try_get::<i64, _>("n")?);
                counted.push((current, keys.map_err(|_| StoreError::Corrupt("count"))?));
                signer = next.map(|row| row.try_get("signer")).transpose()?;
            }
            Ok(counted)
        })
        .await
    }

    /// Records the signers of keys whose rows don't know them, in one transaction.
    ///
    /// # Errors
    /// When the database fails; nothing is recorded then.
    pub async fn record_signers(&self, signers: Vec<(NetworkId, KeyId, Signer)>) -> Result<(), StoreError> {
        let update = "UPDATE api_keys SET secret_id = $1, key_prefix = $2 WHERE network_id = $3 AND key_id = $4 \
                      AND secret_id = ''";
        self.run(async move |inner| {
            inner
                .write(signers, move |inner, transaction, signers| {
                    async move {
                        for (network, id, signer) in signers {
                            let prefix = signer.prefix.as_ref().map(KeyPrefix::as_str);
                            inner
                                .query(update)
                                .bind(signer.secret.map(|id| id.to_string()).unwrap_or_default())
                                .bind(prefix.unwrap_or_default().to_owned())
                                .bind(network.to_string())
                                .bind(id.to_string())
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
