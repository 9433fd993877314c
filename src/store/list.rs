//! Pages of keys, by the time of their creation. A page starts after the last key of the previous
//! one, whatever was added since.
//!
//! Each statement reads a range of an index that is in the order of the page, so that a page costs
//! what it holds, however many keys there are. A state that time has changed is in no index until
//! [`Store::sweep_states`] has recorded it; those few keys are read by the time of the change.

use std::cmp::Ordering;

use futures_util::FutureExt;

use super::dialect::Dialect;
use super::find;
use super::page::{OrderBy, Page, PageRequest};
use super::row::{read_key, selected};
use super::statement::Statement;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::record::kind_code;
use crate::key::{Key, KeyKind, NetworkId, SecretId, Status};

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
    /// Lists keys of one kind, with their status at `now`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_keys(
        &self,
        network: NetworkId,
        kind: KeyKind,
        request: PageRequest,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        if request.order.by != OrderBy::Created || !request.filter.is_plain() {
            return self.run(move |inner| find::find(inner, network, kind, request, now)).await;
        }
        let listing = Listing { network, kind, request, now };
        self.run(async move |inner| listing.read(&inner).await).await
    }
}

/// Position of a key in ascending order.
type Position = (Timestamp, String);

fn position(key: &Key) -> Position {
    (key.created, key.id.to_string())
}

struct Listing {
    network: NetworkId,
    kind: KeyKind,
    request: PageRequest,
    now: Timestamp,
}

impl Listing {
    /// Compares two positions in the order of the list.
    fn compare(&self, one: &Position, other: &Position) -> Ordering {
        match self.request.order.is_descending {
            false => one.cmp(other),
            true => other.cmp(one),
        }
    }

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
        let parts = parts.iter().map(|rows| rows.iter().map(read_key).collect());
        Ok(self.merge(parts.collect::<Result<_, StoreError>>()?))
    }

    /// Merges the first keys of each statement into a page.
    fn merge(&self, parts: Vec<Vec<Key>>) -> Page {
        let size = usize::try_from(self.request.size).unwrap_or(usize::MAX);
        // More may follow the last key of a part that has more than the page.
        let ends: Vec<Position> = parts.iter().filter_map(|part| part.get(size).map(position)).collect();
        let mut keys: Vec<(Position, Key)> =
            parts.into_iter().flatten().map(|key| (position(&key), key)).collect();
        // Beyond the first end, keys of that part are missing.
        if let Some(end) = ends.iter().min_by(|one, other| self.compare(one, other)) {
            keys.retain(|(position, _)| self.compare(position, end).is_le());
        }
        keys.retain(|(_, key)| {
            self.request.filter.status.is_none_or(|status| key.status(self.now) == status)
        });
        keys.sort_by(|(one, _), (other, _)| self.compare(one, other));
        // A state that is recorded between two statements makes a key appear in both.
        keys.dedup_by(|(_, one), (_, other)| one.id == other.id);
        let has_more = !ends.is_empty() || keys.len() > size;
        keys.truncate(size);
        let keys: Vec<Key> = keys.into_iter().map(|(_, key)| key).collect();
        let next = keys.last().filter(|_| has_more).map(|last| OrderBy::Created.position(last));
        Page { keys, next }
    }

    /// Returns the statements whose rows, merged, begin with the page.
    ///
    /// The due ones come first: a key that is recorded meanwhile is then found twice, not missed.
    fn statements(&self, dialect: Dialect) -> Vec<Statement> {
        let ranges: &[Range] = match self.request.filter.status {
            Some(Status::Active) => &[Range::State(1)],
            Some(Status::Revoked) => &[Range::Due, Range::State(2)],
            Some(Status::Expired) => &[Range::Due, Range::State(3)],
            // These indexes are in order only within a state.
            None if self.request.filter.secrets.is_some() || self.request.filter.prefix.is_some() => {
                &[Range::State(1), Range::State(3), Range::State(2)]
            }
            None => &[Range::All],
        };
        let any_secret = vec![];
        let secrets = self.request.filter.secrets.as_ref().unwrap_or(&any_secret);
        let mut statements = vec![];
        for range in ranges {
            match self.request.filter.secrets {
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
        let columns = selected(dialect);
        let start = format!("SELECT {columns} FROM api_keys{index} WHERE network_id = ");
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
        match (range, self.request.filter.status) {
            // The recorded state implies the status. Conditions that are always true would mislead
            // PostgreSQL, which takes them for independent ones.
            (Range::State(2 | 3), _) | (_, None) => {}
            (_, Some(status)) => select.status(status, now),
        }
        if let Some(actor) = &self.request.filter.actor {
            select.push(" AND actor_id = ").text(actor.clone());
            if let Some(exactly) = dialect.actor_equals_exactly() {
                select.push(" AND ").push(exactly).text(actor.clone());
            }
        }
        if let Some(secret) = secret {
            select.push(" AND secret_id = ").text(secret.map(|id| id.to_string()).unwrap_or_default());
        }
        if let Some(prefix) = &self.request.filter.prefix {
            select.push(" AND key_prefix = ").text(prefix.as_str().to_owned());
        }
        if let Some(from) = self.request.filter.created.from {
            select.push(" AND created_at >= ").number(from);
        }
        if let Some(until) = self.request.filter.created.until {
            select.push(" AND created_at < ").number(until);
        }
        let (beyond, direction) = match self.request.order.is_descending {
            false => (">", ""),
            true => ("<", " DESC"),
        };
        if let Some(after) = &self.request.after {
            // The first condition follows from the second, and lets the database use the index.
            let created = after.created.as_micros();
            select.push(&format!(" AND created_at {beyond}= ")).number(created);
            select.push(&format!(" AND (created_at {beyond} ")).number(created);
            select.push(" OR (created_at = ").number(created).push(&format!(" AND key_id {beyond} "));
            select.text(after.key_id.clone()).push("))");
        }
        // One more than requested shows if more follow.
        select.push(&format!(" ORDER BY created_at{direction}, key_id{direction} LIMIT "));
        select.number(i64::from(self.request.size) + 1);
        select
    }
}
