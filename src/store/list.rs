//! Pages of keys, oldest first. A page starts after the last key of the previous one, whatever was
//! added since.
//!
//! Each statement reads a range of an index that is in the order of the page, so that a page costs
//! what it holds, however many keys there are. A state that time has changed is in no index until
//! [`Store::sweep_states`] has recorded it; those few keys are read by the time of the change.

use futures_util::FutureExt;
use sqlx::Any;
use sqlx::any::AnyArguments;
use sqlx::query::Query;

use super::dialect::Dialect;
use super::row::{COLUMNS, read_key};
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::page_token::Cursor;
use crate::key::record::kind_code;
use crate::key::{Key, KeyKind, KeyPrefix, NetworkId, SecretId, Status};

/// Filter of keys; `None` matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Actor of the keys.
    pub actor: Option<String>,
    /// Status of the keys.
    pub status: Option<Status>,
    /// Secrets of the keys, of which one must match; `None` in the list matches keys whose secret
    /// isn't known.
    pub secrets: Option<Vec<Option<SecretId>>>,
    /// Prefix of the keys.
    pub prefix: Option<KeyPrefix>,
}

/// Page of keys.
#[derive(Debug)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Key>,
    /// True if more keys follow.
    pub more: bool,
}

/// Range of an index that a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// Keys in any state.
    All,
    /// Keys whose recorded state is this one.
    State(i16),
    /// Keys whose state time has changed since it was recorded.
    Due,
}

impl Store {
    /// Lists `size` keys of one kind after `after`, with their status at `now`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_keys(
        &self,
        network: NetworkId,
        kind: KeyKind,
        filter: Filter,
        after: Option<Cursor>,
        size: u32,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        let listing = Listing { network, kind, filter, after, size, now };
        self.run(async move |inner| listing.read(&inner).await).await
    }
}

/// Returns the position of a key in lists.
fn position(key: &Key) -> (Timestamp, String) {
    (key.created, key.id.to_string())
}

struct Listing {
    network: NetworkId,
    kind: KeyKind,
    filter: Filter,
    after: Option<Cursor>,
    size: u32,
    now: Timestamp,
}

impl Listing {
    async fn read(&self, inner: &Inner) -> Result<Page, StoreError> {
        let queries = self.statements(inner.dialect).into_iter().map(|statement| statement.query(inner));
        let queries: Vec<_> = queries.collect();
        let parts = inner
            .read(|connection| {
                async move {
                    let mut parts = vec![];
                    for query in queries {
                        parts.push(query.fetch_all(&mut *connection).await?);
                    }
                    Ok(parts)
                }
                .boxed()
            })
            .await?;
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let mut keys: Vec<Key> = vec![];
        let mut ends: Vec<(Timestamp, String)> = vec![];
        for rows in parts {
            let part = rows.iter().map(read_key).collect::<Result<Vec<Key>, _>>()?;
            // More may follow this one.
            ends.extend(part.get(size).map(position));
            keys.extend(part);
        }
        // Beyond the first end, keys of that part are missing.
        if let Some(end) = ends.iter().min() {
            keys.retain(|key| position(key) <= *end);
        }
        keys.retain(|key| self.filter.status.is_none_or(|status| key.status(self.now) == status));
        keys.sort_by_cached_key(position);
        // A state that is recorded between two statements makes a key appear in both.
        keys.dedup_by(|one, other| one.id == other.id);
        let more = !ends.is_empty() || keys.len() > size;
        keys.truncate(size);
        Ok(Page { keys, more })
    }

    /// Returns the statements whose rows, merged, begin with the page.
    ///
    /// The due ones come first: a key that is recorded meanwhile is then found twice, not missed.
    fn statements(&self, dialect: Dialect) -> Vec<Statement> {
        let ranges: &[Range] = match self.filter.status {
            Some(Status::Active) => &[Range::State(1)],
            Some(Status::Revoked) => &[Range::Due, Range::State(2)],
            Some(Status::Expired) => &[Range::Due, Range::State(3)],
            // These indexes are in order only within a state.
            None if self.filter.secrets.is_some() || self.filter.prefix.is_some() => {
                &[Range::State(1), Range::State(3), Range::State(2)]
            }
            None => &[Range::All],
        };
        let any_secret = vec![];
        let secrets = self.filter.secrets.as_ref().unwrap_or(&any_secret);
        let mut statements = vec![];
        for range in ranges {
            match self.filter.secrets {
                Some(_) => statements
                    .extend(secrets.iter().map(|secret| self.statement(dialect, *range, Some(*secret)))),
                None => statements.push(self.statement(dialect, *range, None)),
            }
        }
        statements
    }

    fn statement(&self, dialect: Dialect, range: Range, secret: Option<Option<SecretId>>) -> Statement {
        let now = self.now.as_micros();
        let index = if range == Range::Due { dialect.due_index() } else { "" };
        let start = format!("SELECT {COLUMNS} FROM api_keys{index} WHERE network_id = ");
        let mut select = Statement::new(start, self.network);
        select.push(" AND kind = ").number(kind_code(self.kind).into());
        match range {
            Range::All => {}
            Range::State(state) => {
                select.push(&format!(" AND {} = {state}", dialect.state()));
            }
            Range::Due => {
                select.push(&format!(" AND {} <= ", dialect.due_at())).number(now);
            }
        }
        match (range, self.filter.status) {
            // What is recorded implies the status. Conditions that are always true would mislead
            // PostgreSQL, which takes them for independent ones.
            (Range::State(2 | 3), _) | (_, None) => {}
            (_, Some(status)) => select.status(status, now),
        }
        if let Some(actor) = &self.filter.actor {
            select.push(" AND actor_id = ").text(actor.clone());
            if let Some(exactly) = dialect.actor_equals_exactly() {
                select.push(" AND ").push(exactly).text(actor.clone());
            }
        }
        if let Some(secret) = secret {
            select.push(" AND secret_id = ").text(secret.map(|id| id.to_string()).unwrap_or_default());
        }
        if let Some(prefix) = &self.filter.prefix {
            select.push(" AND key_prefix = ").text(prefix.as_str().to_owned());
        }
        if let Some(after) = &self.after {
            // The first condition follows from the second, and lets the database use the index.
            let created = after.created.as_micros();
            select.push(" AND created_at >= ").number(created).push(" AND (created_at > ").number(created);
            select.push(" OR (created_at = ").number(created).push(" AND key_id > ");
            select.text(after.key_id.clone()).push("))");
        }
        // One more than requested shows if more follow.
        select.push(" ORDER BY created_at, key_id LIMIT ").number(i64::from(self.size) + 1);
        select
    }
}

/// Statement that is built together with its values, as each placeholder must occur once and in
/// order.
pub(super) struct Statement {
    text: String,
    values: Vec<Value>,
}

enum Value {
    Text(String),
    Number(i64),
}

impl Statement {
    /// Begins a statement, whose first value is `first`.
    pub(super) fn new(text: String, first: impl ToString) -> Self {
        let mut statement = Self { text, values: vec![] };
        statement.text(first.to_string());
        statement
    }

    /// Adds a part of the text.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text += text;
        self
    }

    /// Adds a value that is a text.
    pub(super) fn text(&mut self, value: String) -> &mut Self {
        self.value(Value::Text(value))
    }

    /// Adds a value that is a number.
    pub(super) fn number(&mut self, value: i64) -> &mut Self {
        self.value(Value::Number(value))
    }

    fn value(&mut self, value: Value) -> &mut Self {
        self.values.push(value);
        let placeholder = format!("${}", self.values.len());
        self.push(&placeholder)
    }

    /// Adds the conditions of a status at `now`.
    fn status(&mut self, status: Status, now: i64) {
        match status {
            Status::Active => {
                self.unended(now).push(" AND (expires_at IS NULL OR expires_at > ").number(now).push(")")
            }
            Status::Expired => self.unended(now).push(" AND expires_at <= ").number(now),
            Status::Revoked => {
                self.push(" AND (revocation_reason IS NOT NULL OR superseded_at <= ").number(now).push(")")
            }
        };
    }

    fn unended(&mut self, now: i64) -> &mut Self {
        self.push(" AND revocation_reason IS NULL AND (superseded_at IS NULL OR superseded_at > ")
            .number(now)
            .push(")")
    }

    /// Makes the query.
    pub(super) fn query(self, inner: &Inner) -> Query<'static, Any, AnyArguments> {
        self.values.into_iter().fold(inner.query(self.text), |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
        })
    }
}
