//! Heads of audit logs: a log whose file is truncated ends before its head. And rows of keys, to
//! compare a log with the database.

use futures_util::FutureExt;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::dialect::MAX_ROWS;
use super::row::{read_key, selected};
use super::transaction::End;
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, KeyId, NetworkId};

/// Head of an audit log's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// Name of the chain.
    pub chain: String,
    /// Instance that writes it: a machine and a path.
    pub instance: String,
    /// Number of lines.
    pub lines: u64,
    /// MAC of the last line.
    pub mac: [u8; 32],
    /// MAC over all of these fields.
    pub seal: [u8; 32],
}

/// Most heads that are read at once.
const MAX_HEADS: u32 = 100_000;

const COLUMNS: &str = "chain, instance, line_count, mac, seal";

impl Store {
    /// Saves the head of a chain, unless a later one is saved. Returns the number of lines that was
    /// saved before; 0 if the chain was unknown.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn save_audit_head(&self, head: AuditHead, at: Timestamp) -> Result<u64, StoreError> {
        self.run(async move |inner| {
            inner
                .write(head, move |inner, transaction, head| {
                    async move {
                        let lines = i64::try_from(head.lines).unwrap_or(i64::MAX);
                        let known = inner
                            .query("SELECT line_count FROM audit_heads WHERE chain = $1")
                            .bind(head.chain.clone())
                            .fetch_optional(&mut *transaction)
                            .await?;
                        let before = match &known {
                            Some(row) => u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0),
                            None => 0,
                        };
                        let (mac, seal) = (hex::encode(head.mac), hex::encode(head.seal));
                        let statement = match known {
                            None => {
                                "INSERT INTO audit_heads (instance, line_count, mac, seal, updated_at, chain) \
                                 VALUES ($1, $2, $3, $4, $5, $6)"
                            }
                            Some(row) if row.try_get::<i64, _>(0)? < lines => {
                                "UPDATE audit_heads SET instance = $1, line_count = $2, mac = $3, seal = $4, \
                                 updated_at = $5 WHERE chain = $6"
                            }
                            Some(_) => return Ok(End::Rollback(before)),
                        };
                        inner
                            .query(statement)
                            .bind(head.instance.clone())
                            .bind(lines)
                            .bind(mac)
                            .bind(seal)
                            .bind(at.as_micros())
                            .bind(head.chain.clone())
                            .execute(&mut *transaction)
                            .await?;
                        Ok(End::Commit(before))
                    }
                    .boxed()
                })
                .await
        })
        .await
    }

    /// Returns the head of an instance's last chain.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_head_of(&self, instance: &str) -> Result<Option<AuditHead>, StoreError> {
        self.audit_head("instance", instance.to_owned()).await
    }

    /// Returns the head of a chain.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_head_of_chain(&self, chain: &str) -> Result<Option<AuditHead>, StoreError> {
        self.audit_head("chain", chain.to_owned()).await
    }

    /// Returns the heads of all chains, the last written first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_heads(&self) -> Result<Vec<AuditHead>, StoreError> {
        self.run(async move |inner| {
            let find = format!(
                "SELECT {COLUMNS} FROM audit_heads ORDER BY updated_at DESC, chain LIMIT {MAX_HEADS}"
            );
            let find = inner.query(find);
            let rows = inner.read(|connection| find.fetch_all(connection).boxed()).await?;
            rows.iter().map(read).collect()
        })
        .await
    }

    /// Returns the rows of these keys, those that exist, in no order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_rows(&self, ids: Vec<(NetworkId, KeyId)>) -> Result<Vec<Key>, StoreError> {
        self.run(async move |inner| {
            let columns = selected(inner.dialect);
            let mut found = vec![];
            for chunk in ids.chunks(MAX_ROWS) {
                let each = (0..chunk.len()).map(|index| {
                    format!("(network_id = ${} AND key_id = ${})", index * 2 + 1, index * 2 + 2)
                });
                let wanted = each.collect::<Vec<_>>().join(" OR ");
                let find = inner.query(format!("SELECT {columns} FROM api_keys WHERE {wanted}"));
                let find = chunk
                    .iter()
                    .fold(find, |find, (network, id)| find.bind(network.to_string()).bind(id.to_string()));
                let rows = inner.read(|connection| find.fetch_all(connection).boxed()).await?;
                for row in &rows {
                    found.push(read_key(row)?);
                }
            }
            Ok(found)
        })
        .await
    }

    async fn audit_head(&self, by: &'static str, value: String) -> Result<Option<AuditHead>, StoreError> {
        self.run(async move |inner| {
            let find = format!(
                "SELECT {COLUMNS} FROM audit_heads WHERE {by} = $1 ORDER BY updated_at DESC, line_count DESC LIMIT 1"
            );
            let find = inner.query(find).bind(value);
            let row = inner.read(|connection| find.fetch_optional(connection).boxed()).await?;
            row.map(|row| read(&row)).transpose()
        })
        .await
    }
}

fn read(row: &AnyRow) -> Result<AuditHead, StoreError> {
    let lines = row.try_get::<i64, _>("line_count")?;
    Ok(AuditHead {
        chain: row.try_get("chain")?,
        instance: row.try_get("instance")?,
        lines: u64::try_from(lines).map_err(|_| StoreError::Corrupt("line_count"))?,
        mac: read_digest(row, "mac")?,
        seal: read_digest(row, "seal")?,
    })
}

/// Reads a column of 64 hex digits.
fn read_digest(row: &AnyRow, column: &'static str) -> Result<[u8; 32], StoreError> {
    let mut bytes = [0; 32];
    let digits = row.try_get::<String, _>(column)?;
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| StoreError::Corrupt(column))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[tokio::test]
    async fn a_head_only_moves_forward() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        let store = Store::open(&dsn, Rng::seeded(1)).await.unwrap();
        let head = |chain: &str, lines| AuditHead {
            chain: chain.to_owned(),
            instance: "host:/audit".to_owned(),
            lines,
            mac: [7; 32],
            seal: [0xab; 32],
        };
        assert_eq!(store.audit_head_of("host:/audit").await.unwrap(), None);
        for (at, lines, known) in [(1, 3, 3), (2, 5, 5), (3, 4, 5), (4, 5, 5)] {
            store.save_audit_head(head("a", lines), Timestamp::from_secs(at)).await.unwrap();
            assert_eq!(store.audit_head_of_chain("a").await.unwrap(), Some(head("a", known)));
        }
        store.save_audit_head(head("b", 1), Timestamp::from_secs(5)).await.unwrap();
        assert_eq!(store.audit_head_of("host:/audit").await.unwrap(), Some(head("b", 1)), "the last chain");
        assert_eq!(store.audit_head_of_chain("c").await.unwrap(), None);
        assert_eq!(store.audit_heads().await.unwrap(), [head("b", 1), head("a", 5)]);
        assert_eq!(store.save_audit_head(head("a", 7), Timestamp::from_secs(6)).await.unwrap(), 5);
    }
}
