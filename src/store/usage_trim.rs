//! Trimming of usage: hours become days, and days are deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::dialect::{MAX_ROWS, placeholders};
use super::transaction::End;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;

/// Most rows of one transaction.
pub const USAGE_TRIM_BATCH: usize = 400;
/// Microseconds of a day.
const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

const HOUR_COLUMNS: [&str; 6] = ["network_id", "hour_at", "key_id", "route", "outcome", "process_id"];
const DAY_COLUMNS: [&str; 5] = ["network_id", "day_at", "key_id", "route", "outcome"];

/// Row of a table of usage: its primary key, and its number.
struct TrimmedRow {
    network: String,
    /// Start of the hour or day, in microseconds.
    at: i64,
    key: String,
    route: String,
    outcome: String,
    /// Process that counted; in the table of hours only.
    process: Option<String>,
    n: i64,
}

impl Store {
    /// Adds the oldest hours that are older than `keep` to their days, and deletes them: at most
    /// [`USAGE_TRIM_BATCH`] rows, in one transaction, so that each is in one of the tables. Returns
    /// their number. Several instances may do so at once.
    ///
    /// Rows are old when `now` and the database's clock, if it has one, both say so: one wrong
    /// clock must not delete what all others have counted.
    ///
    /// # Errors
    /// When the database fails; the rows are then moved as a whole or not at all.
    pub async fn roll_up_usage(&self, now: Timestamp, keep: Duration) -> Result<usize, StoreError> {
        self.run(async move |inner| {
            inner
                .write((now, keep), |inner, transaction, kept| {
                    async move {
                        let before = end_of_old(inner, transaction, *kept).await?;
                        let rows = oldest(inner, transaction, "usage_hours", before).await?;
                        if rows.is_empty() {
                            return Ok(End::Rollback(0));
                        }
                        add_to_days(inner, transaction, &rows).await?;
                        delete(inner, transaction, "usage_hours", &HOUR_COLUMNS, &rows).await?;
                        Ok(End::Commit(rows.len()))
                    }
                    .boxed()
                })
                .await
        })
        .await
    }

    /// Deletes the oldest days that are older than `keep`, at most [`USAGE_TRIM_BATCH`] rows, and
    /// returns their number. Both clocks decide, as above.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_usage(&self, now: Timestamp, keep: Duration) -> Result<usize, StoreError> {
        self.run(async move |inner| {
            inner
                .write((now, keep), |inner, transaction, kept| {
                    async move {
                        let before = end_of_old(inner, transaction, *kept).await?;
                        let rows = oldest(inner, transaction, "usage_days", before).await?;
                        if rows.is_empty() {
                            return Ok(End::Rollback(0));
                        }
                        delete(inner, transaction, "usage_days", &DAY_COLUMNS, &rows).await?;
                        Ok(End::Commit(rows.len()))
                    }
                    .boxed()
                })
                .await
        })
        .await
    }
}

/// Returns the time before which rows are old.
async fn end_of_old(
    inner: &Inner,
    transaction: &mut AnyConnection,
    (now, keep): (Timestamp, Duration),
) -> Result<Timestamp, StoreError> {
    let database = inner.read_clock(transaction).await?;
    Ok(database.map_or(now, |database| now.min(database)).minus(keep))
}

/// Reads the oldest rows of a table, which another transaction can't read for a change meanwhile.
async fn oldest(
    inner: &Inner,
    transaction: &mut AnyConnection,
    table: &'static str,
    before: Timestamp,
) -> Result<Vec<TrimmedRow>, StoreError> {
    let (at, process) = match table {
        "usage_hours" => ("hour_at", ", process_id"),
        _ => ("day_at", ""),
    };
    let find = format!(
        "SELECT network_id, {at}, key_id, route, outcome, n{process} FROM {table} WHERE {at} < $1 ORDER BY {at} \
         LIMIT $2{}",
        inner.dialect.lock_exclusive()
    );
    let find = inner.query(find).bind(before.as_micros()).bind(USAGE_TRIM_BATCH as i64);
    let rows = find.fetch_all(&mut *transaction).await?;
    let read = |row: &AnyRow| {
        Ok::<_, sqlx::Error>(TrimmedRow {
            network: row.try_get("network_id")?,
            at: row.try_get(at)?,
            key: row.try_get("key_id")?,
            route: row.try_get("route")?,
            outcome: row.try_get("outcome")?,
            process: if process.is_empty() { None } else { Some(row.try_get("process_id")?) },
            n: row.try_get("n")?,
        })
    };
    rows.iter().map(|row| read(row).map_err(StoreError::from)).collect()
}

/// Adds rows of hours to the rows of their days.
async fn add_to_days(
    inner: &Inner,
    transaction: &mut AnyConnection,
    rows: &[TrimmedRow],
) -> Result<(), StoreError> {
    let mut days: BTreeMap<(&str, i64, &str, &str, &str), i64> = BTreeMap::new();
    for row in rows {
        let day = row.at - row.at.rem_euclid(DAY_MICROS);
        let sum = days.entry((&row.network, day, &row.key, &row.route, &row.outcome)).or_default();
        *sum = sum.saturating_add(row.n);
    }
    let days: Vec<_> = days.into_iter().collect();
    let dialect = inner.dialect;
    for chunk in days.chunks(MAX_ROWS) {
        let insert = format!(
            "INSERT INTO usage_days ({}, n) VALUES {} {}",
            DAY_COLUMNS.join(", "),
            placeholders(chunk.len(), DAY_COLUMNS.len() + 1),
            dialect.on_conflict(
                &DAY_COLUMNS.join(", "),
                &format!("n = usage_days.n + {}", dialect.inserted("n"))
            )
        );
        let mut insert = inner.query(insert);
        for ((network, day, key, route, outcome), n) in chunk {
            insert = insert
                .bind((*network).to_owned())
                .bind(*day)
                .bind((*key).to_owned())
                .bind((*route).to_owned())
                .bind((*outcome).to_owned())
                .bind(*n);
        }
        insert.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Deletes these rows, by their primary keys.
async fn delete(
    inner: &Inner,
    transaction: &mut AnyConnection,
    table: &str,
    columns: &[&str],
    rows: &[TrimmedRow],
) -> Result<(), StoreError> {
    for chunk in rows.chunks(MAX_ROWS) {
        let each = (0..chunk.len()).map(|row| {
            let equals = columns.iter().enumerate();
            let equals = equals.map(|(at, column)| format!("{column} = ${}", row * columns.len() + at + 1));
            format!("({})", equals.collect::<Vec<_>>().join(" AND "))
        });
        let each = each.collect::<Vec<_>>().join(" OR ");
        let mut delete = inner.query(format!("DELETE FROM {table} WHERE {each}"));
        for row in chunk {
            delete = delete
                .bind(row.network.clone())
                .bind(row.at)
                .bind(row.key.clone())
                .bind(row.route.clone())
                .bind(row.outcome.clone());
            if let Some(process) = &row.process {
                delete = delete.bind(process.clone());
            }
        }
        delete.execute(&mut *transaction).await?;
    }
    Ok(())
}
