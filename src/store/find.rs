//! Pages of keys by conditions that no index holds together with the order.
//!
//! If one of the conditions matches few keys, those are read by its index, and sorted. Otherwise
//! keys are examined in the order of the page, a bounded number of them: then a page may be short,
//! and the next one goes on where it ended. So no page reads the table, and none costs more for
//! being further down.

mod conditions;
mod source;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};

use super::dialect::Dialect;
use super::filter::{Filter, NameFilter, TimeRange};
use super::page::{Order, OrderBy, Page, PageRequest};
use super::row::{read_key, selected};
use super::statement::Statement;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::page_token::Cursor;
use crate::key::record::kind_code;
use crate::key::terms::{metadata_term, scope_term, value_term_prefix};
use crate::key::{Key, KeyKind, NetworkId, Status};
use conditions::push_conditions;
use source::{Among, Base, Segment, Source};
use window::segments;

/// Number up to which the keys of a list are counted.
pub const MAX_TOTAL: u32 = 10_000;
/// Keys that are examined first, in sizes of the page: enough where every fourth matches.
const FIRST_WINDOW: u32 = 4;
/// Recorded states of keys.
const STATES: [i16; 3] = [1, 3, 2];
/// Number of matches below which no better condition is looked for.
const FEW: u32 = 200;

/// Number of keys that match a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTotal {
    /// The number.
    pub count: u64,
    /// False for an estimate.
    pub is_exact: bool,
}

/// Rows of a page, and up to where keys were examined if more follow.
#[derive(Default)]
struct Found {
    rows: Vec<AnyRow>,
    reached: Option<Cursor>,
}

/// Search for the keys of a page.
struct Search {
    among: Among,
    request: PageRequest,
    now: Timestamp,
}

impl Store {
    /// Counts the keys of one kind that match a filter at `now`, if that is cheap.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_keys(
        &self,
        network: NetworkId,
        kind: KeyKind,
        filter: Filter,
        now: Timestamp,
    ) -> Result<Option<KeyTotal>, StoreError> {
        self.run(async move |inner| {
            let request = PageRequest { filter, ..PageRequest::default() };
            let search = Search { among: Among { dialect: inner.dialect, network, kind }, request, now };
            let shared = Arc::clone(&inner);
            inner
                .read(move |connection| {
                    async move {
                        let mut planned = Planned::begin(&shared, connection).await?;
                        let total = search.total(&shared, planned.connection()).await?;
                        planned.end().await?;
                        Ok(total)
                    }
                    .boxed()
                })
                .await
        })
        .await
    }
}

/// Finds a page of keys.
///
/// # Errors
/// When the database fails.
pub(super) async fn find(
    inner: Arc<Inner>,
    network: NetworkId,
    kind: KeyKind,
    request: PageRequest,
    now: Timestamp,
) -> Result<Page, StoreError> {
    let among = Among { dialect: inner.dialect, network, kind };
    let (filter, by) = (request.filter.clone(), request.order.by);
    let size = usize::try_from(request.size).unwrap_or(usize::MAX);
    let search = Search { among, request, now };
    let shared = Arc::clone(&inner);
    let found = inner.read(move |connection| {
        async move {
            let mut planned = Planned::begin(&shared, connection).await?;
            let found = search.read(&shared, planned.connection()).await?;
            planned.end().await?;
            Ok(found)
        }
        .boxed()
    });
    let Found { rows, reached } = found.await?;
    let has_more = rows.len() > size;
    let mut keys = rows.iter().take(size).map(read_key).collect::<Result<Vec<Key>, StoreError>>()?;
    let next = if has_more { keys.last().map(|last| by.position(last)) } else { reached };
    keys.retain(|key| filter.matches(key, now));
    Ok(Page { keys, next })
}

/// Connection whose planner doesn't read whole tables.
enum Planned<'c> {
    Plain(&'c mut AnyConnection),
    Transaction(sqlx::Transaction<'c, sqlx::Any>),
}

impl<'c> Planned<'c> {
    async fn begin(inner: &Inner, connection: &'c mut AnyConnection) -> Result<Self, sqlx::Error> {
        match inner.dialect.plan_settings() {
            None => Ok(Self::Plain(connection)),
            Some(settings) if inner.prepares => {
                let begin = format!("{}; {settings}", inner.dialect.begin_read());
                Ok(Self::Transaction(connection.begin_with(AssertSqlSafe(begin)).await?))
            }
            // Reads are in a transaction already.
            Some(settings) => {
                sqlx::raw_sql(settings).execute(&mut *connection).await?;
                Ok(Self::Plain(connection))
            }
        }
    }

    fn connection(&mut self) -> &mut AnyConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }

    async fn end(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Transaction(transaction) => transaction.commit().await,
        }
    }
}

impl Search {
    /// Reads one row more than the page has, if there are as many.
    async fn read(&self, inner: &Inner, connection: &mut AnyConnection) -> Result<Found, sqlx::Error> {
        let are_terms_due = self.count_due_terms(inner, connection).await?;
        if let Some(sources) = self.narrowest(inner, connection, are_terms_due).await? {
            let rows = self.rows(inner, connection, &sources, self.request.after.as_ref(), self.wanted());
            return Ok(Found { rows: rows.await?, reached: None });
        }
        self.scan(inner, connection, are_terms_due == Some(false)).await
    }

    fn wanted(&self) -> u32 {
        self.request.size.saturating_add(1)
    }

    /// Returns true if the terms of some keys aren't written, `None` if of too many to read them.
    /// Without a condition that uses terms, nothing is read.
    async fn count_due_terms(
        &self,
        inner: &Inner,
        connection: &mut AnyConnection,
    ) -> Result<Option<bool>, sqlx::Error> {
        let more = &self.request.filter.more;
        if more.scopes.is_empty() && more.metadata.is_empty() && more.search.is_none() {
            return Ok(Some(false));
        }
        let most = self.request.max_examined;
        let due = self.count(inner, connection, &[Source::TermsDue], most).await?;
        Ok((due <= most).then_some(due > 0))
    }

    /// Returns the sources of the condition that the fewest keys match; `None` if too many match
    /// each.
    async fn narrowest(
        &self,
        inner: &Inner,
        connection: &mut AnyConnection,
        are_terms_due: Option<bool>,
    ) -> Result<Option<Vec<Source>>, sqlx::Error> {
        let mut best = None;
        let most = self.request.max_examined;
        let mut least = most.saturating_add(1);
        for sources in self.conditions(are_terms_due) {
            let count = self.count(inner, connection, &sources, most).await?;
            if count < least {
                (least, best) = (count, Some(sources));
            }
            if count < FEW {
                break;
            }
        }
        Ok(best)
    }

    /// Returns the sources of each condition that has an index. A key that matches the condition is
    /// in one of them.
    fn conditions(&self, are_terms_due: Option<bool>) -> Vec<Vec<Source>> {
        let filter = &self.request.filter;
        let mut conditions: Vec<Vec<Source>> = vec![];
        if let Some(is_due) = are_terms_due {
            let with_due = |source: Source| [source].into_iter().chain(is_due.then_some(Source::TermsDue));
            let terms = self.terms();
            conditions.extend(terms.into_iter().map(|term| with_due(Source::Term(term)).collect()));
            if let Some(text) = &filter.more.search {
                conditions.push(
                    search_sources(text).into_iter().chain(is_due.then_some(Source::TermsDue)).collect(),
                );
            }
        }
        conditions.extend(filter.more.name.as_ref().map(|name| vec![Source::Name(name.clone())]));
        conditions.extend(filter.actor.as_ref().map(|actor| vec![Source::Actor(actor.clone())]));
        if let Some(secrets) = &filter.secrets {
            let states = |secret| STATES.map(|state| Source::Secret(secret, state));
            conditions.push(secrets.iter().flat_map(|secret| states(*secret)).collect());
        }
        if let Some(prefix) = filter.prefix {
            conditions.push(STATES.map(|state| Source::Prefix(prefix, state)).into());
        }
        let times = [
            (OrderBy::Expires, filter.more.expires),
            (OrderBy::LastUsed, filter.more.last_used),
            (OrderBy::Created, filter.created),
        ];
        for (by, range) in times.into_iter().filter(|(_, range)| range.is_bounded()) {
            let parts = segments(Order { by, is_descending: false }, range, None);
            conditions.push(parts.into_iter().map(|part| Source::Ordered(Base::All, part)).collect());
        }
        let now = self.now.as_micros();
        conditions.extend(filter.status.map(|status| match status {
            Status::Active => vec![Source::State(1)],
            Status::Revoked => vec![Source::Due(now), Source::State(2)],
            Status::Expired => vec![Source::Due(now), Source::State(3)],
        }));
        conditions
    }

    /// Returns the terms that a key must have.
    fn terms(&self) -> Vec<String> {
        let more = &self.request.filter.more;
        let scopes = more.scopes.iter().map(|scope| scope_term(scope));
        scopes.chain(more.metadata.iter().map(|(path, value)| metadata_term(path, value))).collect()
    }

    /// Examines keys in the order of the page.
    async fn scan(
        &self,
        inner: &Inner,
        connection: &mut AnyConnection,
        has_all_terms: bool,
    ) -> Result<Found, sqlx::Error> {
        let PageRequest { filter, order, after, size, max_examined } = &self.request;
        let base = self.base(has_all_terms);
        let range = match order.by {
            OrderBy::Created => filter.created,
            OrderBy::Expires => filter.more.expires,
            OrderBy::LastUsed => filter.more.last_used,
        };
        let mut found = Found { rows: vec![], reached: after.clone() };
        let first = size.saturating_mul(FIRST_WINDOW).clamp(1, (max_examined / 2).max(1));
        for window in [first, max_examined.saturating_sub(first).max(1)] {
            let mut is_at_end = true;
            for mut segment in segments(*order, range, found.reached.as_ref()) {
                segment.until = self.window_end(inner, connection, &base, &segment, window).await?;
                let end = segment.until.clone();
                let left = self.wanted().saturating_sub(u32::try_from(found.rows.len()).unwrap_or(u32::MAX));
                let sources = [Source::Ordered(base.clone(), segment)];
                found.rows.extend(self.rows(inner, connection, &sources, None, left).await?);
                if found.rows.len() >= usize::try_from(self.wanted()).unwrap_or(usize::MAX) {
                    return Ok(found);
                }
                if end.is_some() {
                    (found.reached, is_at_end) = (end, false);
                    break;
                }
            }
            if is_at_end {
                found.reached = None;
                break;
            }
        }
        Ok(found)
    }

    /// Returns the condition whose index is in the order of the page.
    fn base(&self, has_all_terms: bool) -> Base {
        if self.request.order.by != OrderBy::Created {
            return Base::All;
        }
        match (self.terms().pop().filter(|_| has_all_terms), &self.request.filter.actor) {
            (Some(term), _) => Base::Term(term),
            (None, Some(actor)) => Base::Actor(actor.clone()),
            (None, None) => Base::All,
        }
    }

    /// Returns the position of the `window`th key of a segment; `None` if it has fewer.
    async fn window_end(
        &self,
        inner: &Inner,
        connection: &mut AnyConnection,
        base: &Base,
        segment: &Segment,
        window: u32,
    ) -> Result<Option<Cursor>, sqlx::Error> {
        let Order { by, is_descending } = segment.order;
        let (column, direction) = (by.column(), if is_descending { " DESC" } else { "" });
        // MySQL would sort by a column that is the same in all rows.
        let leading = match (self.among.dialect, segment.is_missing) {
            (Dialect::MySql, true) => String::new(),
            _ => format!("{column}{direction}, "),
        };
        let mut select = Statement::begin(format!("SELECT {column} AS reached_at, key_id"));
        Source::Ordered(base.clone(), segment.clone()).push(&mut select, self.among);
        select.push(&format!(" ORDER BY {leading}key_id{direction} LIMIT 1 OFFSET "));
        select.number(i64::from(window) - 1);
        let Some(row) = select.query(inner).fetch_optional(&mut *connection).await? else {
            return Ok(None);
        };
        let time = row.try_get::<Option<i64>, _>("reached_at")?.or(by.missing()).unwrap_or_default();
        Ok(Some(Cursor { created: Timestamp::from_micros(time), key_id: row.try_get("key_id")? }))
    }

    /// Counts the keys of sources, each up to `most` and one more.
    async fn count(
        &self,
        inner: &Inner,
        connection: &mut AnyConnection,
        sources: &[Source],
        most: u32,
    ) -> Result<u32, sqlx::Error> {
        let mut count: u32 = 0;
        for source in sources {
            let mut select = Statement::begin("SELECT count(*) AS found_count FROM (SELECT 1 AS hit");
            source.push(&mut select, self.among);
            select.push(" LIMIT ").number(i64::from(most) + 1).push(") AS hits");
            let row = select.query(inner).fetch_one(&mut *connection).await?;
            let found = u32::try_from(row.try_get::<i64, _>("found_count")?).unwrap_or(u32::MAX);
            count = count.saturating_add(found);
            if count > most {
                break;
            }
        }
        Ok(count)
    }

    /// Returns the rows of keys that sources select and that match, in the order of the page.
    async fn rows(
        &self,
        inner: &Inner,
        connection: &mut AnyConnection,
        sources: &[Source],
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Vec<AnyRow>, sqlx::Error> {
        if sources.is_empty() {
            return Ok(vec![]);
        }
        let mut select = self.matching(&selected(self.among.dialect), sources);
        let Order { by, is_descending } = self.request.order;
        let time = match by.missing() {
            None => format!("api_keys.{}", by.column()),
            Some(missing) => format!("COALESCE(api_keys.{}, {missing})", by.column()),
        };
        let (beyond, direction) = if is_descending { ("<", " DESC") } else { (">", "") };
        if let Some(after) = after {
            let position = after.created.as_micros();
            select.push(&format!(" AND ({time} {beyond} ")).number(position);
            select.push(&format!(" OR ({time} = ")).number(position);
            select.push(&format!(" AND api_keys.key_id {beyond} ")).text(after.key_id.clone()).push("))");
        }
        select.push(&format!(" ORDER BY {time}{direction}, api_keys.key_id{direction} LIMIT "));
        select.number(limit.into());
        select.query(inner).fetch_all(&mut *connection).await
    }

    /// Begins the statement for the rows of keys that sources select and that match.
    fn matching(&self, columns: &str, sources: &[Source]) -> Statement {
        let dialect = self.among.dialect;
        let mut select = Statement::begin(format!("SELECT {columns}"));
        match (sources, dialect) {
            ([source], Dialect::Sqlite | Dialect::MySql) if source.is_of_keys() => {
                source.push(&mut select, self.among);
            }
            // Without the word OFFSET, the planner might take an index for another condition.
            ([source], Dialect::Postgres | Dialect::Cockroach) if source.is_of_keys() => {
                select.push(" FROM (SELECT *");
                source.push(&mut select, self.among);
                select.push(" OFFSET 0) AS api_keys WHERE kind = ").number(kind_code(self.among.kind).into());
            }
            _ => self.push_union(&mut select, sources),
        }
        push_conditions(&mut select, dialect, &self.request.filter, self.now);
        select
    }

    /// Adds ` FROM` the keys that several sources select, and ` WHERE`.
    fn push_union(&self, select: &mut Statement, sources: &[Source]) {
        select.push(" FROM (");
        for (index, source) in sources.iter().enumerate() {
            select.push(if index == 0 { "SELECT " } else { " UNION SELECT " });
            select.push(if source.has_duplicates() { "DISTINCT " } else { "" });
            select.push("key_id AS found_id");
            source.push(select, self.among);
        }
        let join = self.among.dialect.ordered_join();
        select.push(&format!(") AS found {join} api_keys ON api_keys.network_id = "));
        select.text(self.among.network.to_string()).push(" AND api_keys.key_id = found.found_id");
        select.push(" WHERE kind = ").number(kind_code(self.among.kind).into());
    }

    /// Counts the matching keys; `None` if that isn't cheap.
    async fn total(
        &self,
        inner: &Inner,
        connection: &mut AnyConnection,
    ) -> Result<Option<KeyTotal>, sqlx::Error> {
        let are_terms_due = self.count_due_terms(inner, connection).await?;
        let is_known = self.is_known_by_sql();
        if let Some(sources) = self.narrowest(inner, connection, are_terms_due).await? {
            if sources.is_empty() {
                return Ok(Some(KeyTotal { count: 0, is_exact: true }));
            }
            let select = self.matching("count(*) AS found_count", &sources);
            let row = select.query(inner).fetch_one(&mut *connection).await?;
            let count = u64::try_from(row.try_get::<i64, _>("found_count")?).unwrap_or_default();
            return Ok(Some(KeyTotal { count, is_exact: is_known }));
        }
        if are_terms_due.is_none() {
            return Ok(None);
        }
        let mut conditions = self.conditions(are_terms_due);
        let sources = match conditions.len() {
            0 if self.request.filter == Filter::default() => {
                segments(Order::default(), TimeRange::default(), None)
                    .into_iter()
                    .map(|segment| Source::Ordered(Base::All, segment))
                    .collect()
            }
            1 => conditions.swap_remove(0),
            _ => return Ok(None),
        };
        let count = self.count(inner, connection, &sources, MAX_TOTAL).await?;
        let is_exact = count <= MAX_TOTAL && is_known && self.request.filter.status.is_none();
        Ok(Some(KeyTotal { count: count.min(MAX_TOTAL).into(), is_exact }))
    }

    /// Returns true if the database's conditions are exact, so that no row has to be checked again.
    fn is_known_by_sql(&self) -> bool {
        let more = &self.request.filter.more;
        let is_folded = more.name.is_some() && self.among.dialect == Dialect::MySql;
        !is_folded && more.metadata.is_empty() && more.search.is_none()
    }
}

/// Returns the sources of keys that a text finds.
fn search_sources(text: &str) -> Vec<Source> {
    let lower = text.to_ascii_lowercase();
    let mut sources = vec![
        Source::Name(NameFilter::StartsWith(text.to_owned())),
        Source::ActorPrefix(text.to_owned()),
        Source::IdPrefix(lower.clone()),
        Source::TermPrefix(value_term_prefix(text)),
    ];
    if lower != text {
        sources.push(Source::ActorPrefix(lower));
    }
    sources
}
