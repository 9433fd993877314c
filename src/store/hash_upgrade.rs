//! Upgrade of a key whose hash was imported: once its raw key is shown, its row gets the id that it
//! would have had from the start.

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::changes::read_row;
use super::key_counts::lock_network;
use super::mutations::{LoggedChange, log_changes};
use super::transaction::End;
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::imported_hash::DigestIds;
use crate::key::{ChangeRecord, KeyId, NetworkId};

/// Upgrade of one key.
#[derive(Debug, Clone, Copy)]
pub struct HashUpgrade {
    /// Network of the key.
    pub network: NetworkId,
    /// Id that it has by its digest.
    pub from: KeyId,
    /// Id of an imported key.
    pub to: KeyId,
    /// Ids by both digests of the raw key.
    pub digests: DigestIds,
    /// Time of the upgrade.
    pub now: Timestamp,
}

impl Store {
    /// Gives a key the id of an imported key, and logs that both ids have changed. Returns the
    /// changes; none if the key was upgraded or deleted before, or a key has the new id.
    ///
    /// # Errors
    /// When the database fails; the key may then be upgraded or not.
    pub async fn upgrade_hash(&self, upgrade: HashUpgrade) -> Result<Vec<Mutation>, StoreError> {
        self.run(move |inner| run(inner, upgrade)).await
    }
}

async fn run(inner: Arc<Inner>, upgrade: HashUpgrade) -> Result<Vec<Mutation>, StoreError> {
    inner
        .write(upgrade, |inner, transaction, upgrade| upgrade_row(inner, transaction, *upgrade).boxed())
        .await
}

async fn upgrade_row(
    inner: &Inner,
    transaction: &mut AnyConnection,
    HashUpgrade { network, from, to, digests, now }: HashUpgrade,
) -> Result<End<Vec<Mutation>>, StoreError> {
    lock_network(inner, transaction, network).await?;
    let Some(key) = read_row(inner, transaction, network, from).await? else {
        return Ok(End::Rollback(vec![]));
    };
    if read_row(inner, transaction, network, to).await?.is_some() {
        return Ok(End::Rollback(vec![]));
    }
    // From here on, changes of other networks wait.
    let events = ChangeRecord::of_upgrade(&key, to).map(|event| Some(event.into_stored()));
    let changes = [from, to].into_iter().zip(events).map(|(key_id, event)| LoggedChange {
        network,
        key_id,
        at: now,
        event,
    });
    let (mutations, _) = log_changes(inner, transaction, changes.collect()).await?;
    let last = mutations.iter().map(|mutation| mutation.n).max().unwrap_or_default();
    let update = "UPDATE api_keys SET key_id = $1, replaces = $2, sha256_id = $3, sha512_id = $4, mutation = $5 \
                  WHERE network_id = $6 AND key_id = $7";
    inner
        .query(update)
        .bind(to.to_string())
        .bind(from.to_string())
        .bind(digests.sha256.to_string())
        .bind(digests.sha512.to_string())
        .bind(i64::try_from(last).map_err(|_| StoreError::Corrupt("mutation"))?)
        .bind(network.to_string())
        .bind(from.to_string())
        .execute(&mut *transaction)
        .await?;
    Ok(End::Commit(mutations))
}
