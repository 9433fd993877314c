//! Rows of the tables in which Ory Talos keeps keys, for `talos migrate adopt`.
//!
//! All values are read as texts, as the types of the columns differ between databases and releases.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::dialect::Dialect;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::KeyKind;

/// Rows of a page.
const PAGE_ROWS: usize = 1000;
/// Timeout of a page, and of the search for networks, which may read all of an index.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Columns that every release has. Without one of them, it isn't known which keys are valid.
const ESSENTIAL: [&str; 8] =
    ["nid", "key_id", "name", "actor_id", "scopes", "status", "expires_at", "created_at"];
/// Columns that are read as they are.
const VALUES: [&str; 12] = [
    "key_id",
    "name",
    "actor_id",
    "scopes",
    "metadata",
    "status",
    "visibility",
    "allowed_cidrs",
    "rate_limit_quota",
    "rate_limit_window",
    "revocation_reason",
    "revocation_reason_text",
];
/// Columns that are times.
const TIMES: [&str; 4] = ["created_at", "updated_at", "expires_at", "last_used_at"];

/// A table of keys of Ory Talos.
#[derive(Debug, Clone)]
pub struct OryTable {
    schema: String,
    name: String,
    /// Type of each column, by its name.
    columns: HashMap<String, String>,
}

/// A row of such a table. A column that is absent is `None`, as is NULL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OryRow {
    /// Id of the key.
    pub key_id: String,
    /// Name.
    pub name: Option<String>,
    /// Actor.
    pub actor_id: Option<String>,
    /// Scopes, a JSON list.
    pub scopes: Option<String>,
    /// Metadata, a JSON object.
    pub metadata: Option<String>,
    /// State: 1 active, 2 revoked, 3 expired.
    pub status: Option<String>,
    /// Visibility: 1 secret, 2 public.
    pub visibility: Option<String>,
    /// Allowed addresses, a JSON list.
    pub allowed_cidrs: Option<String>,
    /// Quota of the rate limit.
    pub rate_limit_quota: Option<String>,
    /// Window of the rate limit, in seconds.
    pub rate_limit_window: Option<String>,
    /// Reason of the revocation, as the API numbers them.
    pub revocation_reason: Option<String>,
    /// Text of the reason.
    pub revocation_reason_text: Option<String>,
    /// Time of the creation in the form of RFC 3339, like those below; if it isn't a time, what
    /// stands there.
    pub created_at: Option<String>,
    /// Time of the last change.
    pub updated_at: Option<String>,
    /// End of the validity.
    pub expires_at: Option<String>,
    /// Time of the last use.
    pub last_used_at: Option<String>,
}

impl OryTable {
    /// Returns the schema; in MySQL, the database.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the kind of its keys.
    pub fn kind(&self) -> KeyKind {
        match self.name.as_str() {
            "imported_api_keys" => KeyKind::Imported,
            _ => KeyKind::Issued,
        }
    }

    /// Returns an essential column that it lacks.
    pub fn missing_column(&self) -> Option<&'static str> {
        ESSENTIAL.into_iter().find(|column| !self.columns.contains_key(*column))
    }

    /// Returns the placeholder of a value that is compared with a column.
    fn value_for(&self, column: &str, placeholder: &str) -> String {
        match self.columns.get(column).map(String::as_str) {
            Some("uuid") => format!("CAST({placeholder} AS UUID)"),
            _ => placeholder.to_owned(),
        }
    }

    /// Returns the list of a SELECT for rows of the table, which is named `k` there.
    fn selected(&self, dialect: Dialect) -> String {
        let text = dialect.unbounded_text();
        let value = |column: &&'static str| (*column, format!("k.{column}"));
        let time = |column: &&'static str| (*column, dialect.ory_time(column));
        let columns = VALUES.iter().map(value).chain(TIMES.iter().map(time));
        let selected = columns.map(|(column, expression)| match self.columns.contains_key(column) {
            true => format!("CAST({expression} AS {text}) AS {column}"),
            false => format!("CAST(NULL AS {text}) AS {column}"),
        });
        selected.collect::<Vec<_>>().join(", ")
    }
}

impl Store {
    /// Connects to a database that must exist, whatever tables it has.
    ///
    /// # Errors
    /// When the DSN can't be used, or the database can't be reached.
    pub async fn open_any(dsn: &str) -> Result<Self, StoreError> {
        Self::connect_existing(dsn).await
    }

    /// Returns the tables of keys that Ory Talos made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ory_key_tables(&self) -> Result<Vec<OryTable>, StoreError> {
        self.run(|inner| async move { Self(inner).read_ory_key_tables().await }).await
    }

    async fn read_ory_key_tables(&self) -> Result<Vec<OryTable>, StoreError> {
        let mut tables = vec![];
        for (schema, name) in self.ory_tables().await? {
            let query = self.0.query(self.0.dialect.find_columns()).bind(name.clone()).bind(schema.clone());
            let rows = self.0.read(|connection| query.fetch_all(connection).boxed()).await?;
            let mut columns = HashMap::new();
            for row in &rows {
                let (column, kind): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                columns.insert(column.to_ascii_lowercase(), kind.to_ascii_lowercase());
            }
            tables.push(OryTable { schema, name, columns });
        }
        Ok(tables)
    }

    /// Returns the networks to which rows of a table belong, as the column `nid` has them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ory_networks(&self, table: &OryTable) -> Result<Vec<String>, StoreError> {
        let table = table.clone();
        self.run(move |inner| read_networks(inner, table)).await
    }

    /// Returns a page of the rows of one network, by their ids: those after `after`, or the first
    /// ones. After the last page, it returns none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ory_rows(
        &self,
        table: &OryTable,
        nid: &str,
        after: Option<String>,
    ) -> Result<Vec<OryRow>, StoreError> {
        let (table, nid) = (table.clone(), nid.to_owned());
        self.run(move |inner| read_page(inner, table, nid, after)).await
    }
}

async fn read_networks(inner: Arc<Inner>, table: OryTable) -> Result<Vec<String>, StoreError> {
    let text = inner.dialect.unbounded_text();
    let from = inner.dialect.quoted(&table.schema, &table.name);
    let query = inner.query(format!("SELECT DISTINCT CAST(k.nid AS {text}) FROM {from} AS k"));
    let rows = inner.read_within(PAGE_TIMEOUT, |connection| query.fetch_all(connection).boxed(), Ok).await?;
    rows.iter().map(|row| row.try_get(0).map_err(StoreError::from)).collect()
}

async fn read_page(
    inner: Arc<Inner>,
    table: OryTable,
    nid: String,
    after: Option<String>,
) -> Result<Vec<OryRow>, StoreError> {
    let dialect = inner.dialect;
    let columns = table.selected(dialect);
    let from = dialect.quoted(&table.schema, &table.name);
    let of_network = table.value_for("nid", "$1");
    let rest = match &after {
        Some(_) => format!(" AND k.key_id > {}", table.value_for("key_id", "$2")),
        None => String::new(),
    };
    // By the columns themselves, not what is selected of them: an index has the former.
    let query = inner.query(format!(
        "SELECT {columns} FROM {from} AS k WHERE k.nid = {of_network}{rest} ORDER BY k.key_id LIMIT {PAGE_ROWS}"
    ));
    let query = after.into_iter().fold(query.bind(nid), |query, after| query.bind(after));
    let rows = inner.read_within(PAGE_TIMEOUT, |connection| query.fetch_all(connection).boxed(), Ok).await?;
    rows.iter().map(|row| read_row(dialect, row)).collect()
}

fn read_row(dialect: Dialect, row: &AnyRow) -> Result<OryRow, StoreError> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let time = |column: &str| text(column).map(|text| text.map(|text| dialect.read_ory_time(text)));
    Ok(OryRow {
        key_id: row.try_get("key_id")?,
        name: text("name")?,
        actor_id: text("actor_id")?,
        scopes: text("scopes")?,
        metadata: text("metadata")?,
        status: text("status")?,
        visibility: text("visibility")?,
        allowed_cidrs: text("allowed_cidrs")?,
        rate_limit_quota: text("rate_limit_quota")?,
        rate_limit_window: text("rate_limit_window")?,
        revocation_reason: text("revocation_reason")?,
        revocation_reason_text: text("revocation_reason_text")?,
        created_at: time("created_at")?,
        updated_at: time("updated_at")?,
        expires_at: time("expires_at")?,
        last_used_at: time("last_used_at")?,
    })
}

impl Dialect {
    /// Returns the query for the names and types of a table's columns, by its name and schema.
    const fn find_columns(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT CAST(name AS TEXT), CAST(type AS TEXT) FROM pragma_table_info($1, $2)",
            Self::Postgres | Self::Cockroach => {
                "SELECT CAST(column_name AS VARCHAR(255)), CAST(data_type AS VARCHAR(255)) \
                 FROM information_schema.columns WHERE table_name = $1 AND table_schema = $2"
            }
            Self::MySql => {
                "SELECT CAST(column_name AS CHAR(255)), CAST(data_type AS CHAR(255)) \
                 FROM information_schema.columns WHERE table_name = $1 AND table_schema = $2"
            }
        }
    }

    /// Returns the type of a CAST to a text of any length.
    const fn unbounded_text(self) -> &'static str {
        match self {
            Self::Sqlite | Self::Postgres | Self::Cockroach => "TEXT",
            Self::MySql => "CHAR",
        }
    }

    /// Returns the expression for a time of the table `k`: microseconds since the epoch, in SQLite
    /// the text that stands there. A time without a zone is in UTC.
    fn ory_time(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("k.{column}"),
            Self::Postgres | Self::Cockroach => {
                format!("CAST(EXTRACT(EPOCH FROM k.{column}) * 1000000 AS BIGINT)")
            }
            Self::MySql => format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', k.{column})"),
        }
    }

    /// Converts a value of [`Self::ory_time`] to the form of RFC 3339; returns other texts as they
    /// are.
    fn read_ory_time(self, text: String) -> String {
        let time = match self {
            Self::Sqlite => rfc3339(&text),
            Self::Postgres | Self::Cockroach | Self::MySql => {
                text.parse().ok().map(|micros| Timestamp::from_micros(micros).to_rfc3339())
            }
        };
        time.unwrap_or(text)
    }
}

/// Converts a time of SQLite to the form of RFC 3339. SQLite has no type for times, and the drivers
/// of Go write texts of several forms.
fn rfc3339(text: &str) -> Option<String> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix([' ', 'T'])?;
    let is_of_time = |c: char| c.is_ascii_digit() || matches!(c, ':' | '.');
    let (time, rest) = rest.split_at(rest.find(|c| !is_of_time(c)).unwrap_or(rest.len()));
    // The name of the zone may follow its offset.
    let zone = rest.split_whitespace().next().unwrap_or("Z");
    let offset = match zone {
        "Z" | "UTC" => "Z".to_owned(),
        zone => {
            let (hours, minutes) = zone.split_at_checked(3)?;
            let minutes = minutes.strip_prefix(':').unwrap_or(minutes);
            format!("{hours}:{}", if minutes.is_empty() { "00" } else { minutes })
        }
    };
    Some(format!("{date}T{time}{offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_sqlite_in_every_form() {
        for (text, time) in [
            ("2026-01-02 03:04:05", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02 03:04:05.123456789+00:00", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02 05:04:05.5+02:00", "2026-01-02T03:04:05.5Z"),
            ("2026-01-02 05:04:05 +0200 CEST", "2026-01-02T03:04:05Z"),
            ("2026-01-02 03:04:05.25 +0000 UTC m=+0.1", "2026-01-02T03:04:05.25Z"),
            ("2026-01-02 01:04:05-02", "2026-01-02T03:04:05Z"),
        ] {
            let read = Dialect::Sqlite.read_ory_time(text.to_owned());
            let parsed = Timestamp::from_rfc3339(&read).map(Timestamp::to_rfc3339);
            assert_eq!(parsed.as_deref(), Some(time), "{text}: {read}");
        }
        for bad in ["", "1790000000", "2026-01-02", "soon", "2026-01-02 03:04:05 CEST", "ééééé"] {
            let read = Dialect::Sqlite.read_ory_time(bad.to_owned());
            assert_eq!(Timestamp::from_rfc3339(&read), None, "{bad}: {read}");
        }
    }

    #[test]
    fn microseconds_become_times() {
        let read = |text: &str| Dialect::Postgres.read_ory_time(text.to_owned());
        assert_eq!(read("1767323045123456"), "2026-01-02T03:04:05.123456Z");
        assert_eq!(read("-1"), "1969-12-31T23:59:59.999999Z");
        assert_eq!(read("infinity"), "infinity");
    }

    #[test]
    fn absent_columns_are_null_and_essential_ones_are_named() {
        let table = |columns: &[&str]| OryTable {
            schema: "public".to_owned(),
            name: "imported_api_keys".to_owned(),
            columns: columns.iter().map(|column| ((*column).to_owned(), "uuid".to_owned())).collect(),
        };
        let whole = table(&ESSENTIAL);
        assert_eq!((whole.missing_column(), whole.kind()), (None, KeyKind::Imported));
        let selected = whole.selected(Dialect::Postgres);
        assert!(selected.starts_with("CAST(k.key_id AS TEXT) AS key_id, "), "{selected}");
        assert!(selected.contains("CAST(NULL AS TEXT) AS visibility"), "{selected}");
        assert_eq!(whole.value_for("nid", "$1"), "CAST($1 AS UUID)");
        assert_eq!(table(&ESSENTIAL[..7]).missing_column(), Some("created_at"));
    }
}
