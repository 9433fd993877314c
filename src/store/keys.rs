//! Inserts of new keys.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::clock_skew;
use super::dialect::{MAX_ROWS, placeholders};
use super::mutations::{log_issue, log_mutations};
use super::row::{COLUMN_COUNT, COLUMNS, bind_key, read_key};
use super::transaction::End;
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, KeyId, KeyKind, NetworkId};

/// Key to insert.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The key.
    pub key: Key,
    /// Idempotency key of the request, if it has one.
    pub request: Option<IdempotencyKey>,
}

/// Idempotency key of a request (AIP-155).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Request id that the caller chose.
    pub id: String,
    /// Hash of the body: the same id with another body is an error.
    pub fingerprint: String,
}

/// Outcome of an insert.
#[derive(Debug)]
pub struct InsertedKeys {
    /// Outcome for each key.
    pub each: Vec<InsertOutcome>,
    /// Newest number of the log that the insert wrote, if any key was inserted.
    pub logged: Option<u64>,
}

/// Outcome for one key.
#[derive(Debug)]
pub enum InsertOutcome {
    /// The key is inserted. An imported key is a change of its own, with this number of the log.
    Created(Option<Mutation>),
    /// The same request inserted this key before.
    Repeated(Box<Key>),
    /// The request's id was used with another body before.
    RequestConflict,
    /// A key with this id exists already.
    IdTaken,
    /// The network has as many keys as it may have.
    QuotaExceeded,
}

impl Store {
    /// Inserts keys of one network in one transaction. An imported key is logged as a change, as
    /// its id may be cached as unknown. Issued keys are logged so that a restore which loses them
    /// is noticed. A network may have at most `quota` keys that aren't revoked.
    ///
    /// # Errors
    /// When the database fails; the keys may then be inserted or not.
    pub async fn insert_keys(
        &self,
        new: Vec<NewKey>,
        quota: Option<u64>,
    ) -> Result<InsertedKeys, StoreError> {
        self.run(|inner| insert_keys(inner, new, quota)).await
    }
}

async fn insert_keys(
    inner: Arc<Inner>,
    new: Vec<NewKey>,
    quota: Option<u64>,
) -> Result<InsertedKeys, StoreError> {
    // Reads that decide about the insert need the lock. A key with a random id needs none.
    let needs_lock = |new: &NewKey| new.request.is_some() || new.key.id.kind() == KeyKind::Imported;
    let needs_lock = quota.is_some() || new.iter().any(needs_lock);
    inner
        .write(new, move |inner, transaction, new| {
            async move {
                if needs_lock {
                    inner.lock_order(transaction).await?;
                }
                let mut existing = Existing::read(inner, transaction, new, quota).await?;
                let mut inserted = Vec::with_capacity(new.len());
                let mut rows = vec![];
                for new in new {
                    let outcome = existing.outcome(inner, transaction, new).await?;
                    if matches!(outcome, InsertOutcome::Created(_)) {
                        rows.push((inserted.len(), new.clone()));
                    }
                    inserted.push(outcome);
                }
                let imported = rows.iter().filter(|(_, new)| new.key.id.kind() == KeyKind::Imported);
                let subjects = imported.map(|(_, new)| (new.key.network, new.key.id, new.key.created));
                let subjects = subjects.collect::<Vec<_>>();
                let (mutations, time) = log_mutations(inner, transaction, &subjects).await?;
                if let Some((_, _, created)) = subjects.first() {
                    clock_skew::check(*created, time)?;
                }
                let mut mutations = mutations.into_iter();
                for (index, new) in &mut rows {
                    if new.key.id.kind() == KeyKind::Imported {
                        let mutation = mutations.next();
                        new.key.mutation = mutation.map_or(0, |mutation| mutation.n);
                        inserted[*index] = InsertOutcome::Created(mutation);
                    }
                }
                let mut logged = rows.iter().map(|(_, new)| new.key.mutation).max();
                let rows: Vec<NewKey> = rows.into_iter().map(|(_, new)| new).collect();
                insert_rows(inner, transaction, &rows).await?;
                if let (Some(0), Some(first)) = (logged, rows.first()) {
                    logged = Some(log_issue(inner, transaction, first.key.created).await?);
                }
                Ok(End::Commit(InsertedKeys { each: inserted, logged }))
            }
            .boxed()
        })
        .await
}

/// Existing keys and requests that new ones can collide with, including those of the same
/// transaction.
struct Existing {
    ids: HashSet<KeyId>,
    requests: HashMap<String, (String, Key)>,
    /// Number of further keys that the network may have.
    room: u64,
}

impl Existing {
    async fn read(
        inner: &Inner,
        transaction: &mut AnyConnection,
        new: &[NewKey],
        quota: Option<u64>,
    ) -> Result<Self, StoreError> {
        let mut ids = HashSet::new();
        // Random ids aren't looked up: if one existed, the database would refuse it.
        let imported: Vec<_> =
            new.iter().filter(|new| new.key.id.kind() == KeyKind::Imported).cloned().collect();
        for chunk in imported.chunks(MAX_ROWS) {
            ids.extend(taken_ids(inner, transaction, chunk).await?);
        }
        let room = match (quota, new.first()) {
            (Some(quota), Some(NewKey { key, .. })) => {
                room(inner, transaction, key.network, quota, key.created).await?
            }
            _ => u64::MAX,
        };
        Ok(Self { ids, requests: HashMap::new(), room })
    }

    /// Decides the outcome of one key, and counts it as existing. Its row isn't written yet.
    async fn outcome(
        &mut self,
        inner: &Inner,
        transaction: &mut AnyConnection,
        NewKey { key, request }: &NewKey,
    ) -> Result<InsertOutcome, StoreError> {
        if let Some(request) = request {
            if let Some((fingerprint, key)) = self.requests.get(&request.id) {
                return Ok(match *fingerprint == request.fingerprint {
                    true => InsertOutcome::Repeated(Box::new(key.clone())),
                    false => InsertOutcome::RequestConflict,
                });
            }
            if let Some(answer) = find_request(inner, transaction, key.network, request).await? {
                return Ok(answer);
            }
        }
        if self.ids.contains(&key.id) {
            return Ok(InsertOutcome::IdTaken);
        }
        let Some(room) = self.room.checked_sub(1) else {
            return Ok(InsertOutcome::QuotaExceeded);
        };
        self.room = room;
        self.ids.insert(key.id);
        if let Some(IdempotencyKey { id, fingerprint }) = request {
            self.requests.insert(id.clone(), (fingerprint.clone(), key.clone()));
        }
        Ok(InsertOutcome::Created(None))
    }
}

/// Inserts the row of one key.
pub(super) async fn insert_row(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
) -> Result<(), StoreError> {
    insert_rows(inner, transaction, &[NewKey { key: key.clone(), request: None }]).await
}

async fn insert_rows(
    inner: &Inner,
    transaction: &mut AnyConnection,
    rows: &[NewKey],
) -> Result<(), StoreError> {
    for chunk in rows.chunks(MAX_ROWS) {
        let values = placeholders(chunk.len(), COLUMN_COUNT + 2);
        let insert =
            format!("INSERT INTO api_keys ({COLUMNS}, request_id, request_fingerprint) VALUES {values}");
        let insert = chunk.iter().fold(inner.query(insert), |insert, NewKey { key, request }| {
            let request = request.as_ref();
            bind_key(insert, key)
                .bind(request.map(|request| request.id.clone()))
                .bind(request.map(|request| request.fingerprint.clone()))
        });
        insert.execute(&mut *transaction).await?;
    }
    Ok(())
}

/// Returns the outcome of a repeated request; `None` if the request is new.
async fn find_request(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    request: &IdempotencyKey,
) -> Result<Option<InsertOutcome>, StoreError> {
    let earlier = format!(
        "SELECT {COLUMNS}, request_fingerprint FROM api_keys WHERE network_id = $1 AND request_id = $2"
    );
    let row = inner
        .query(earlier)
        .bind(network.to_string())
        .bind(request.id.clone())
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let fingerprint: Option<String> = row.try_get("request_fingerprint")?;
    Ok(Some(match fingerprint.as_ref() == Some(&request.fingerprint) {
        true => InsertOutcome::Repeated(Box::new(read_key(&row)?)),
        false => InsertOutcome::RequestConflict,
    }))
}

/// Returns which of these ids exist. All keys are of one network.
async fn taken_ids(
    inner: &Inner,
    transaction: &mut AnyConnection,
    new: &[NewKey],
) -> Result<Vec<KeyId>, StoreError> {
    let Some(NewKey { key: first, .. }) = new.first() else {
        return Ok(vec![]);
    };
    let ids: Vec<String> = (2..new.len() + 2).map(|number| format!("${number}")).collect();
    let find =
        format!("SELECT key_id FROM api_keys WHERE network_id = $1 AND key_id IN ({})", ids.join(", "));
    let find = inner.query(find).bind(first.network.to_string());
    let find = new.iter().fold(find, |find, new| find.bind(new.key.id.to_string()));
    let rows = find.fetch_all(&mut *transaction).await?;
    let read =
        |row: &AnyRow| KeyId::parse_any(&row.try_get::<String, _>(0)?).ok_or(StoreError::Corrupt("key_id"));
    rows.iter().map(read).collect()
}

/// Returns true if a network has `quota` keys that are neither revoked nor superseded.
pub(super) async fn is_full(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    quota: Option<u64>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    match quota {
        Some(quota) => Ok(room(inner, transaction, network, quota, now).await? == 0),
        None => Ok(false),
    }
}

/// Returns how many further keys a network may have.
async fn room(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    quota: u64,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let limit = i64::try_from(quota).unwrap_or(i64::MAX);
    // The limit ends the count once the result is known.
    let count = "SELECT count(*) FROM (SELECT 1 FROM api_keys WHERE network_id = $1 AND revocation_reason IS NULL \
                 AND (superseded_at IS NULL OR superseded_at > $2) LIMIT $3) AS counted";
    let row = inner
        .query(count)
        .bind(network.to_string())
        .bind(now.as_micros())
        .bind(limit)
        .fetch_one(&mut *transaction)
        .await?;
    let counted = u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| StoreError::Corrupt("count"))?;
    Ok(quota.saturating_sub(counted))
}
