//! Tables of Ory Talos in the same database, whose keys are unknown here until they are adopted.

use futures_util::FutureExt;
use sqlx::Row;

use super::dialect::Dialect;
use super::{Store, StoreError};

/// Keys that are looked up in this program's own table.
const SAMPLE: usize = 20;

impl Store {
    /// Returns the names of tables of Ory Talos that hold keys which aren't known here. It looks at
    /// a sample of each.
    ///
    /// # Errors
    /// When the tables can't be read.
    pub async fn unadopted_tables(&self) -> Result<Vec<String>, StoreError> {
        self.run(|inner| async move { Self(inner).find_unadopted().await }).await
    }

    async fn find_unadopted(&self) -> Result<Vec<String>, StoreError> {
        let mut found = vec![];
        for (schema, name) in self.ory_tables().await? {
            // A table that can't be read, or has other columns, tells nothing.
            if let Ok(true) = self.has_unknown_key(&self.0.dialect.quoted(&schema, &name)).await {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Returns schema and name of each table of keys that Ory Talos made.
    pub(super) async fn ory_tables(&self) -> Result<Vec<(String, String)>, StoreError> {
        let query = self.0.query(self.0.dialect.find_ory_tables());
        let rows = self.0.read(|connection| query.fetch_all(connection).boxed()).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    async fn has_unknown_key(&self, table: &str) -> Result<bool, StoreError> {
        let text = self.0.dialect.text_type();
        let sample = format!("SELECT CAST(key_id AS {text}) FROM {table} LIMIT {SAMPLE}");
        let query = self.0.query(sample);
        let rows = self.0.read(|connection| query.fetch_all(connection).boxed()).await?;
        for row in &rows {
            let id: String = row.try_get(0)?;
            let query = self.0.query("SELECT count(*) FROM api_keys WHERE key_id = $1").bind(id);
            let known = self.0.read(|connection| query.fetch_one(connection).boxed()).await?;
            if known.try_get::<i64, _>(0)? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Dialect {
    /// Returns the query for the tables of Ory Talos: by their names, and `api_keys` by a column
    /// that ours doesn't have.
    const fn find_ory_tables(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT 'main', name FROM sqlite_master WHERE type = 'table' AND \
                 (name IN ('issued_api_keys', 'imported_api_keys') OR (name = 'api_keys' \
                 AND EXISTS (SELECT 1 FROM pragma_table_info('api_keys') AS columns WHERE columns.name = 'nid')))"
            }
            Self::Postgres | Self::Cockroach => {
                "SELECT CAST(table_schema AS VARCHAR(255)), CAST(table_name AS VARCHAR(255)) \
                 FROM information_schema.tables AS found \
                 WHERE table_name IN ('issued_api_keys', 'imported_api_keys') OR (table_name = 'api_keys' \
                 AND EXISTS (SELECT 1 FROM information_schema.columns AS columns WHERE columns.column_name = 'nid' \
                 AND columns.table_schema = found.table_schema AND columns.table_name = found.table_name)) \
                 ORDER BY table_schema, table_name"
            }
            Self::MySql => {
                "SELECT CAST(table_schema AS CHAR(255)), CAST(table_name AS CHAR(255)) \
                 FROM information_schema.tables WHERE table_schema = database() AND \
                 (table_name IN ('issued_api_keys', 'imported_api_keys') OR (table_name = 'api_keys' \
                 AND EXISTS (SELECT 1 FROM information_schema.columns AS columns WHERE columns.column_name = 'nid' \
                 AND columns.table_schema = database() AND columns.table_name = 'api_keys'))) \
                 ORDER BY table_name"
            }
        }
    }

    /// Returns the type to which ids of any form are converted to be read as texts.
    const fn text_type(self) -> &'static str {
        match self {
            Self::Sqlite => "TEXT",
            Self::Postgres | Self::Cockroach => "VARCHAR(64)",
            Self::MySql => "CHAR(64)",
        }
    }

    /// Returns the quoted name of a table.
    pub(super) fn quoted(self, schema: &str, table: &str) -> String {
        let mark = if self == Self::MySql { '`' } else { '"' };
        let quote = |name: &str| format!("{mark}{}{mark}", name.replace(mark, &format!("{mark}{mark}")));
        format!("{}.{}", quote(schema), quote(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(Dialect::Postgres.quoted("public", "api_keys"), r#""public"."api_keys""#);
        assert_eq!(Dialect::Sqlite.quoted(r#"a"b"#, "t"), r#""a""b"."t""#);
        assert_eq!(Dialect::MySql.quoted("a`b", "t"), "`a``b`.`t`");
    }
}
