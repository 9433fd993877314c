//! Sums of usage, by groups.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::dialect::{Dialect, MAX_ROWS};
use super::statement::Statement;
use super::{Inner, KeyUse, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{KeyId, NetworkId};

/// Timeout of a sum, which may read many rows.
const SUM_TIMEOUT: Duration = Duration::from_secs(20);
/// Microseconds of a day.
const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the start of the UTC day of a time.
fn day_of(time: Timestamp) -> Timestamp {
    let micros = time.as_micros();
    Timestamp::from_micros(micros - micros.rem_euclid(DAY_MICROS))
}

/// Attribute by which Checks are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageGroup {
    /// UTC day.
    Day,
    /// UTC hour.
    Hour,
    /// Result of the Check.
    Outcome,
    /// Name of the route.
    Route,
    /// Key.
    Key,
    /// Actor of the key.
    Actor,
}

/// Request for sums. Without filters and groups there is one sum, of all Checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// Network of the keys.
    pub network: NetworkId,
    /// Start of the first hour.
    pub start: Timestamp,
    /// Start of the first hour that isn't counted any more.
    pub end: Timestamp,
    /// Key, if only its rows are wanted.
    pub key: Option<String>,
    /// Actor, if only rows of its keys are wanted.
    pub actor: Option<String>,
    /// Name of routes, if only their rows are wanted.
    pub route: Option<String>,
    /// Result, if only its rows are wanted.
    pub outcome: Option<String>,
    /// Attributes by which Checks are grouped.
    pub groups: Vec<UsageGroup>,
    /// Most sums.
    pub size: u32,
    /// Sums to leave out first.
    pub offset: u32,
}

/// Sum of one group. Attributes by which nothing was grouped are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageSum {
    /// Start of the hour or day.
    pub at: Option<Timestamp>,
    /// Result of the Checks.
    pub outcome: Option<String>,
    /// Name of the route; empty if it has none.
    pub route: Option<String>,
    /// Id of the key; empty for Checks without a known key.
    pub key: Option<String>,
    /// Actor of the key; empty if there is none.
    pub actor: Option<String>,
    /// Number of Checks.
    pub count: u64,
}

impl UsageQuery {
    fn has(&self, group: UsageGroup) -> bool {
        self.groups.contains(&group)
    }

    fn has_time(&self) -> bool {
        self.has(UsageGroup::Day) || self.has(UsageGroup::Hour)
    }

    /// Returns the columns of the groups: expression, and name in the result.
    fn columns(&self) -> Vec<(&'static str, &'static str)> {
        let mut columns = vec![];
        if self.has_time() {
            columns.push(("counted.started_at", "started_at"));
        }
        for (group, expression, name) in [
            (UsageGroup::Outcome, "counted.outcome", "outcome"),
            (UsageGroup::Route, "counted.route", "route"),
            (UsageGroup::Key, "counted.key_id", "key_id"),
            (UsageGroup::Actor, "api_keys.actor_id", "actor_id"),
        ] {
            if self.has(group) {
                columns.push((expression, name));
            }
        }
        columns
    }

    /// Returns the statement that reads the sums.
    fn statement(&self, dialect: Dialect) -> Statement {
        let columns = self.columns();
        let selected: String =
            columns.iter().map(|(expression, name)| format!("{expression} AS {name}, ")).collect();
        let mut text =
            format!("SELECT {selected}CAST(SUM(counted.n) AS {}) AS total FROM (", dialect.integer());
        let (hours, days) = if self.has(UsageGroup::Day) {
            (format!("hour_at - hour_at % {DAY_MICROS}"), "day_at")
        } else {
            ("hour_at".to_owned(), "day_at")
        };
        text += &format!(
            "SELECT {hours} AS started_at, key_id, route, outcome, n FROM usage_hours WHERE network_id = "
        );
        let mut select = Statement::new(text, self.network);
        self.conditions(dialect, &mut select, ("hour_at", self.start.as_micros()));
        select.push(&format!(
            " UNION ALL SELECT {days} AS started_at, key_id, route, outcome, n FROM usage_days WHERE network_id = "
        ));
        select.text(self.network.to_string());
        // The whole day of the start: its hours may be added up since `counted_time` has looked.
        self.conditions(dialect, &mut select, ("day_at", day_of(self.start).as_micros()));
        select.push(") AS counted");
        if self.has(UsageGroup::Actor) {
            select.push(" LEFT JOIN api_keys ON api_keys.network_id = ").text(self.network.to_string());
            select.push(" AND api_keys.key_id = counted.key_id");
        }
        let names: Vec<&str> = columns.iter().map(|(expression, _)| *expression).collect();
        if !names.is_empty() {
            select.push(&format!(" GROUP BY {}", names.join(", ")));
        }
        // The largest first, within each hour or day; then anything that is always the same.
        let time = if self.has_time() { "counted.started_at, " } else { "" };
        let rest: String = names.iter().map(|name| format!(", {name}")).collect();
        select.push(&format!(" ORDER BY {time}total DESC{rest} LIMIT ")).number(i64::from(self.size) + 1);
        select.push(" OFFSET ").number(i64::from(self.offset));
        select
    }

    fn conditions(&self, dialect: Dialect, select: &mut Statement, (at, start): (&str, i64)) {
        select.push(&format!(" AND {at} >= ")).number(start);
        select.push(&format!(" AND {at} < ")).number(self.end.as_micros());
        for (column, value) in [("key_id", &self.key), ("route", &self.route), ("outcome", &self.outcome)] {
            if let Some(value) = value {
                select.push(&format!(" AND {column} = ")).text(value.clone());
            }
        }
        if let Some(actor) = &self.actor {
            select.push(" AND key_id IN (SELECT key_id FROM api_keys WHERE network_id = ");
            select.text(self.network.to_string());
            select.push(" AND kind IN (1, 2) AND actor_id = ").text(actor.clone());
            if let Some(exactly) = dialect.actor_equals_exactly() {
                select.push(" AND ").push(exactly).text(actor.clone());
            }
            select.push(")");
        }
    }

    fn read(&self, row: &AnyRow) -> Result<UsageSum, StoreError> {
        let text = |group: UsageGroup, column: &str| match self.has(group) {
            true => Ok::<_, sqlx::Error>(Some(row.try_get::<Option<String>, _>(column)?.unwrap_or_default())),
            false => Ok(None),
        };
        let at = match self.has_time() {
            true => Some(Timestamp::from_micros(row.try_get("started_at")?)),
            false => None,
        };
        // A sum over no rows is null.
        let total: Option<i64> = row.try_get("total")?;
        Ok(UsageSum {
            at,
            outcome: text(UsageGroup::Outcome, "outcome")?,
            route: text(UsageGroup::Route, "route")?,
            key: text(UsageGroup::Key, "key_id")?,
            actor: text(UsageGroup::Actor, "actor_id")?,
            count: u64::try_from(total.unwrap_or(0)).map_err(|_| StoreError::Corrupt("n"))?,
        })
    }
}

impl Store {
    /// Returns the time that a report on this one counts: a day whose hours were added up, even if
    /// only some of them, counts as a whole, as nobody knows any more when in it the Checks were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn counted_time(
        &self,
        network: NetworkId,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<(Timestamp, Timestamp), StoreError> {
        let (first, last) = (day_of(start), day_of(end));
        if (first, last) == (start, end) {
            return Ok((start, end));
        }
        self.run(async move |inner| {
            let has_days = |name: &str, network: u32, day: u32| {
                format!(
                    "CAST(CASE WHEN EXISTS (SELECT 1 FROM usage_days WHERE network_id = ${network} \
                     AND day_at = ${day}) THEN 1 ELSE 0 END AS {integer}) AS {name}",
                    integer = inner.dialect.integer()
                )
            };
            let find = format!("SELECT {}, {}", has_days("at_start", 1, 2), has_days("at_end", 3, 4));
            let find = inner.query(find).bind(network.to_string()).bind(first.as_micros());
            let find = find.bind(network.to_string()).bind(last.as_micros());
            let row = inner.read(|connection| find.fetch_one(connection).boxed()).await?;
            let is_first_whole = row.try_get::<i64, _>("at_start")? == 1;
            let is_last_whole = row.try_get::<i64, _>("at_end")? == 1 && last < end;
            Ok((if is_first_whole { first } else { start }, if is_last_whole { last.plus(DAY) } else { end }))
        })
        .await
    }

    /// Returns a page of sums, the largest first within each hour or day, and whether there are
    /// more.
    ///
    /// # Errors
    /// When the database fails, or doesn't answer in time.
    pub async fn sum_usage(&self, query: UsageQuery) -> Result<(Vec<UsageSum>, bool), StoreError> {
        self.run(async move |inner| {
            let select = query.statement(inner.dialect).query(&inner);
            let rows =
                inner.read_within(SUM_TIMEOUT, |connection| select.fetch_all(connection).boxed(), Ok).await?;
            let mut sums = rows.iter().map(|row| query.read(row)).collect::<Result<Vec<_>, _>>()?;
            let size = usize::try_from(query.size).unwrap_or(usize::MAX);
            let has_more = sums.len() > size;
            sums.truncate(size);
            Ok((sums, has_more))
        })
        .await
    }

    /// Returns the first and last use of those of these keys that were used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn uses_of(
        &self,
        network: NetworkId,
        keys: Vec<KeyId>,
    ) -> Result<HashMap<KeyId, KeyUse>, StoreError> {
        self.run(async move |inner| {
            let mut uses = HashMap::new();
            for chunk in keys.chunks(MAX_ROWS) {
                uses.extend(read_uses(&inner, network, chunk).await?);
            }
            Ok(uses)
        })
        .await
    }
}

async fn read_uses(
    inner: &Inner,
    network: NetworkId,
    keys: &[KeyId],
) -> Result<Vec<(KeyId, KeyUse)>, StoreError> {
    let places: Vec<String> = (2..keys.len() + 2).map(|place| format!("${place}")).collect();
    let find = format!(
        "SELECT key_id, first_used_at, last_used_at, last_address FROM usage_keys WHERE network_id = $1 \
         AND key_id IN ({})",
        places.join(", ")
    );
    let find = inner.query(find).bind(network.to_string());
    let find = keys.iter().fold(find, |find, key| find.bind(key.to_string()));
    let rows = inner.read(|connection| find.fetch_all(connection).boxed()).await?;
    let read = |row: &AnyRow| {
        let key = KeyId::parse_any(row.try_get("key_id")?).ok_or(StoreError::Corrupt("key_id"))?;
        let address: Option<String> = row.try_get("last_address")?;
        let address = address.map(|text| text.parse().map_err(|_| StoreError::Corrupt("last_address")));
        let used = KeyUse {
            network,
            key,
            first: Timestamp::from_micros(row.try_get("first_used_at")?),
            last: Timestamp::from_micros(row.try_get("last_used_at")?),
            address: address.transpose()?,
        };
        Ok((key, used))
    };
    rows.iter().map(read).collect()
}
