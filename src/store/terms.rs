//! Terms of keys: rows by which keys are found by their scopes and metadata.
//!
//! Whoever writes a key writes its terms in the same transaction, and beside the key its mutation.
//! Where that isn't the key's last mutation, a release before this one wrote the key: its terms are
//! due. They are written by [`Store::index_terms`], and lists read such keys besides. The database
//! deletes terms with their key.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use sqlx::{AnyConnection, Row};

use super::dialect::{MAX_ROWS, placeholders};
use super::key_counts::lock_network;
use super::row::{read_key, selected};
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::key::record::kind_code;
use crate::key::terms::terms_of;
use crate::key::{Key, NetworkId};

/// Rows of one statement if they are short.
const MANY_ROWS: usize = 2 * MAX_ROWS;
/// Bytes of a row on the wire beside its term: the longest id, a network's, numbers and lengths.
const ROW_BYTES: usize = 140;
/// Most bytes of the rows of a statement with that many; a TLS record has 16 KiB.
const MAX_STATEMENT_BYTES: usize = 15_000;

/// Most keys whose terms one call writes.
pub const INDEX_BATCH: usize = 400;

impl Store {
    /// Writes terms that are due, of at most [`INDEX_BATCH`] keys, and returns their number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn index_terms(&self) -> Result<usize, StoreError> {
        self.run(async move |inner| {
            // The first condition always holds, and lets SQLite search in the index.
            let due = format!(
                "SELECT network_id, key_id FROM api_keys{} WHERE network_id > $1 AND {} LIMIT $2",
                inner.dialect.index_hint("api_keys_by_terms_due"),
                inner.dialect.are_terms_due()
            );
            let due = inner.query(due).bind("").bind(INDEX_BATCH as i64);
            let rows = inner.read(|connection| due.fetch_all(connection).boxed()).await?;
            let mut keys: Vec<(String, String)> = vec![];
            for row in &rows {
                keys.push((row.try_get("network_id")?, row.try_get("key_id")?));
            }
            keys.sort_unstable();
            for network in keys.chunk_by(|one, other| one.0 == other.0) {
                for chunk in network.chunks(MAX_ROWS) {
                    index_keys(&inner, chunk.to_vec()).await?;
                }
            }
            Ok(keys.len())
        })
        .await
    }
}

/// Writes the terms of keys of one network, in a transaction of its own: changes wait for few keys
/// at a time.
async fn index_keys(inner: &Inner, keys: Vec<(String, String)>) -> Result<(), StoreError> {
    inner
        .write(keys, move |inner, transaction, keys| {
            async move {
                let network = keys.first().and_then(|(network, _)| NetworkId::parse(network));
                let network = network.ok_or(StoreError::Corrupt("network_id"))?;
                lock_network(inner, transaction, network).await?;
                let places = places(keys.len());
                let ids = |query| bind_ids(query, network, keys.iter().map(|(_, key_id)| key_id.clone()));
                let columns = selected(inner.dialect);
                let find =
                    format!("SELECT {columns} FROM api_keys WHERE network_id = $1 AND key_id IN ({places})");
                let rows = ids(inner.query(find)).fetch_all(&mut *transaction).await?;
                let delete = format!("DELETE FROM key_terms WHERE network_id = $1 AND key_id IN ({places})");
                ids(inner.query(delete)).execute(&mut *transaction).await?;
                // A key that can't be read can't be listed, either.
                let found: Vec<Key> = rows.iter().filter_map(|row| read_key(row).ok()).collect();
                insert_terms(inner, transaction, &found.iter().collect::<Vec<_>>()).await?;
                let update = format!(
                    "UPDATE api_keys SET terms_at = mutation WHERE network_id = $1 AND key_id IN ({places})"
                );
                ids(inner.query(update)).execute(&mut *transaction).await?;
                Ok(End::Commit(()))
            }
            .boxed()
        })
        .await
}

/// Inserts the terms of keys that have none.
pub(super) async fn insert_terms(
    inner: &Inner,
    transaction: &mut AnyConnection,
    keys: &[&Key],
) -> Result<(), StoreError> {
    let mut rows: Vec<(&Key, String)> = vec![];
    for key in keys.iter().copied() {
        let terms: BTreeSet<String> = terms_of(key);
        rows.extend(terms.into_iter().map(|term| (key, term)));
    }
    let mut rest = &*rows;
    while !rest.is_empty() {
        let (chunk, others) = rest.split_at(rows_of_statement(rest));
        rest = others;
        let insert = format!(
            "INSERT INTO key_terms (network_id, key_id, kind, term, created_at) VALUES {}",
            placeholders(chunk.len(), 5)
        );
        let insert = chunk.iter().fold(inner.query(insert), |insert, (key, term)| {
            insert
                .bind(key.network.to_string())
                .bind(key.id.to_string())
                .bind(kind_code(key.id.kind()))
                .bind(term.clone())
                .bind(key.created.as_micros())
        });
        insert.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Returns how many of these rows one statement inserts: more than [`MAX_ROWS`] if so many fit into
/// one TLS record, as each statement is a round trip. There are few different numbers, as each is a
/// statement to prepare.
fn rows_of_statement(rows: &[(&Key, String)]) -> usize {
    let bytes: usize = rows.iter().take(MANY_ROWS).map(|(_, term)| ROW_BYTES + term.len()).sum();
    match rows.len() >= MANY_ROWS && bytes <= MAX_STATEMENT_BYTES {
        true => MANY_ROWS,
        false => rows.len().min(MAX_ROWS),
    }
}

/// Writes the terms of a changed key anew.
pub(super) async fn replace_terms(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
) -> Result<(), StoreError> {
    let id = |query| bind_ids(query, key.network, [key.id.to_string()].into_iter());
    let delete = "DELETE FROM key_terms WHERE network_id = $1 AND key_id = $2";
    id(inner.query(delete)).execute(&mut *transaction).await?;
    insert_terms(inner, transaction, &[key]).await?;
    let update = "UPDATE api_keys SET terms_at = mutation WHERE network_id = $1 AND key_id = $2";
    id(inner.query(update)).execute(&mut *transaction).await?;
    Ok(())
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

fn bind_ids(query: Query, network: NetworkId, ids: impl Iterator<Item = String>) -> Query {
    ids.fold(query.bind(network.to_string()), |query, id| query.bind(id))
}

/// Returns the placeholders of ids, after the first one of the statement.
fn places(count: usize) -> String {
    let places: Vec<String> = (2..count + 2).map(|place| format!("${place}")).collect();
    places.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::key::KeyId;

    #[test]
    fn short_rows_share_a_statement_that_fits_into_a_record() {
        let key = Key::sample(KeyId::Imported([7; 32]), Timestamp::from_secs(1));
        for (rows, term, expected) in [
            (1, 10, 1),
            (MAX_ROWS + 1, 10, MAX_ROWS),
            (MANY_ROWS - 1, 10, MAX_ROWS),
            (MANY_ROWS, 10, MANY_ROWS),
            (10 * MANY_ROWS, 40, MANY_ROWS),
            (MANY_ROWS, 130, MAX_ROWS),
        ] {
            let rows = vec![(&key, "t".repeat(term)); rows];
            assert_eq!(rows_of_statement(&rows), expected, "{} rows of {term}", rows.len());
        }
    }
}
