//! Continuation of a log whose newest entry isn't the one that the counter names, as after a
//! restore or TRUNCATE of single tables.
//!
//! Without it, no lookup could be stamped and no change numbered until somebody repairs the tables.

use futures_util::FutureExt;
use sqlx::{AnyConnection, Row};

use super::append::{NewEntry, insert_entries, take_numbers};
use crate::clock::Timestamp;
use crate::store::transaction::End;
use crate::store::{Inner, Store, StoreError};

impl Store {
    /// Appends an entry without a key, with a number above all that are known, if the newest entry
    /// isn't the one that the counter names. Its tag is new, so every process begins a new history.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn mend_log(&self, now: Timestamp) -> Result<(), StoreError> {
        let mended = self.run(async move |inner| {
            inner.write(now, |inner, transaction, now| mend(inner, transaction, *now).boxed()).await
        });
        if let Some(number) = mended.await? {
            tracing::error!(
                number,
                "the mutation log lacked its newest entries and goes on with this number: what changed before may be \
                 lost, as after a restore from a backup (docs/upgrade.md)"
            );
        }
        Ok(())
    }
}

async fn mend(
    inner: &Inner,
    transaction: &mut AnyConnection,
    now: Timestamp,
) -> Result<End<Option<i64>>, StoreError> {
    // Locks the counter, so that the entries don't change any more.
    let (counter, time) = take_numbers(inner, transaction, 1).await?;
    let newest = inner.query("SELECT COALESCE(MAX(n), 0) AS newest FROM mutation_log");
    let newest: i64 = newest.fetch_one(&mut *transaction).await?.try_get("newest")?;
    if newest + 1 == counter {
        return Ok(End::Rollback(None));
    }
    let n = counter.max(newest + 1);
    inner.query("UPDATE mutation_counter SET n = $1 WHERE id = 1").bind(n).execute(&mut *transaction).await?;
    let entry = NewEntry {
        n,
        network: String::new(),
        key_id: String::new(),
        actor: None,
        at: time.unwrap_or(now),
        subject: None,
        event: None,
    };
    insert_entries(inner, transaction, [entry]).await?;
    Ok(End::Commit(Some(n)))
}
