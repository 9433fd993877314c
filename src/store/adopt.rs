//! Rows that come as they are from another database: with their ids, their times and their state.

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::changes::read_row;
use super::keys::insert_row;
use super::mutations::log_mutation;
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::Key;

/// What came of adopting a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It is in.
    New,
    /// It was there before, just like this.
    Unchanged,
    /// It is there otherwise, in these fields; nothing was done.
    Different(Vec<&'static str>),
}

impl Store {
    /// Puts keys in as they are, in one transaction, and says of each what came of it; with `dry_run`, what would come
    /// of it. Each is logged, issued or imported, as it may be remembered as unknown. A row that is there is never
    /// changed.
    ///
    /// # Errors
    /// When the database fails; whether the keys are in is then unknown, and adopting them again does no harm.
    pub async fn adopt_keys(
        &self,
        keys: Vec<Key>,
        now: Timestamp,
        dry_run: bool,
    ) -> Result<Vec<Adopted>, StoreError> {
        self.run(move |inner| adopt_keys(inner, keys, now, dry_run)).await
    }
}

async fn adopt_keys(
    inner: Arc<Inner>,
    keys: Vec<Key>,
    now: Timestamp,
    dry_run: bool,
) -> Result<Vec<Adopted>, StoreError> {
    inner
        .write(keys, move |inner, transaction, keys| {
            async move {
                // It looks before it writes, and must not be overtaken in between.
                inner.lock_order(transaction).await?;
                let mut adopted = Vec::with_capacity(keys.len());
                for key in keys {
                    adopted.push(adopt_key(inner, transaction, key, now).await?);
                }
                Ok(if dry_run { End::Rollback(adopted) } else { End::Commit(adopted) })
            }
            .boxed()
        })
        .await
}

async fn adopt_key(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
    now: Timestamp,
) -> Result<Adopted, StoreError> {
    if let Some(there) = read_row(inner, transaction, key.network, key.id).await? {
        let differences = there.differences(key);
        return Ok(match differences.is_empty() {
            true => Adopted::Unchanged,
            false => Adopted::Different(differences),
        });
    }
    let mutation = log_mutation(inner, transaction, key.network, key.id, now).await?.n;
    insert_row(inner, transaction, &Key { mutation, ..key.clone() }).await?;
    Ok(Adopted::New)
}
