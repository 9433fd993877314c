//! One key at a time: put in and looked up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::dialect::{CHUNK, placeholders};
use super::mutations::{log_issue, log_mutations};
use super::row::{COLUMN_COUNT, COLUMNS, bind_key, read_key};
use super::transaction::End;
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, KeyId, KeyKind, NetworkId};

/// A key to put in, and the request that asks for it.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its row.
    pub key: Key,
    /// The caller's idempotency key, when there is one.
    pub request: Option<Request>,
}

/// A caller's idempotency key (AIP-155) and what came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The caller's own id.
    pub id: String,
    /// Hash of the body: the same id with another is a mistake.
    pub fingerprint: String,
}

/// What came of putting keys in.
#[derive(Debug)]
pub struct InsertedKeys {
    /// For each of them.
    pub each: Vec<Inserted>,
    /// The newest number that the log has of it, if any key was put in.
    pub logged: Option<u64>,
}

/// What came of putting a key in.
#[derive(Debug)]
pub enum Inserted {
    /// It is in. An imported key is a change of its own, with this number of the log.
    Created(Option<Mutation>),
    /// The same request put this one in before.
    Repeated(Box<Key>),
    /// The request's id came with another body before.
    RequestConflict,
    /// There is a key of that id already.
    IdTaken,
    /// The network has as many keys as it may have.
    QuotaExceeded,
}

impl Store {
    /// Puts keys of one network in, in one transaction, and says of each what came of it. An imported one is logged as a
    /// change, as it may be remembered as unknown; issued ones so that a restore which loses them is noticed. A network of `quota` keys that aren't revoked takes no more.
    ///
    /// # Errors
    /// When the database fails; whether the keys are in is then unknown.
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
    // Whoever looks before it writes must not be overtaken in between. A key with a random id needn't look.
    let looks = |new: &NewKey| new.request.is_some() || new.key.id.kind() == KeyKind::Imported;
    let looks = quota.is_some() || new.iter().any(looks);
    inner
        .write(new, move |inner, transaction, new| {
            async move {
                if looks {
                    inner.lock_order(transaction).await?;
                }
                let mut there = There::read(inner, transaction, new, quota).await?;
                let mut inserted = Vec::with_capacity(new.len());
                let mut rows = vec![];
                for new in new {
                    let outcome = there.outcome(inner, transaction, new).await?;
                    if matches!(outcome, Inserted::Created(_)) {
                        rows.push((inserted.len(), new.clone()));
                    }
                    inserted.push(outcome);
                }
                let imported = rows.iter().filter(|(_, new)| new.key.id.kind() == KeyKind::Imported);
                let subjects = imported.map(|(_, new)| (new.key.network, new.key.id, new.key.created));
                let mut mutations =
                    log_mutations(inner, transaction, &subjects.collect::<Vec<_>>()).await?.into_iter();
                for (index, new) in &mut rows {
                    if new.key.id.kind() == KeyKind::Imported {
                        let mutation = mutations.next();
                        new.key.mutation = mutation.map_or(0, |mutation| mutation.n);
                        inserted[*index] = Inserted::Created(mutation);
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

/// What is there already, as far as keys to be put in can meet it; those of the same transaction included.
struct There {
    ids: HashSet<KeyId>,
    requests: HashMap<String, (String, Key)>,
    /// How many more keys the network takes.
    room: u64,
}

impl There {
    async fn read(
        inner: &Inner,
        transaction: &mut AnyConnection,
        new: &[NewKey],
        quota: Option<u64>,
    ) -> Result<Self, StoreError> {
        let mut ids = HashSet::new();
        // A random id needn't be looked for: should it be there, the database refuses it.
        let imported: Vec<_> =
            new.iter().filter(|new| new.key.id.kind() == KeyKind::Imported).cloned().collect();
        for chunk in imported.chunks(CHUNK) {
            ids.extend(existing(inner, transaction, chunk).await?);
        }
        let room = match (quota, new.first()) {
            (Some(quota), Some(NewKey { key, .. })) => {
                room(inner, transaction, key.network, quota, key.created).await?
            }
            _ => u64::MAX,
        };
        Ok(Self { ids, requests: HashMap::new(), room })
    }

    /// What becomes of one key, which counts as there from then on; its row isn't written yet.
    async fn outcome(
        &mut self,
        inner: &Inner,
        transaction: &mut AnyConnection,
        NewKey { key, request }: &NewKey,
    ) -> Result<Inserted, StoreError> {
        if let Some(request) = request {
            if let Some((fingerprint, key)) = self.requests.get(&request.id) {
                return Ok(match *fingerprint == request.fingerprint {
                    true => Inserted::Repeated(Box::new(key.clone())),
                    false => Inserted::RequestConflict,
                });
            }
            if let Some(answer) = find_request(inner, transaction, key.network, request).await? {
                return Ok(answer);
            }
        }
        if self.ids.contains(&key.id) {
            return Ok(Inserted::IdTaken);
        }
        let Some(room) = self.room.checked_sub(1) else {
            return Ok(Inserted::QuotaExceeded);
        };
        self.room = room;
        self.ids.insert(key.id);
        if let Some(Request { id, fingerprint }) = request {
            self.requests.insert(id.clone(), (fingerprint.clone(), key.clone()));
        }
        Ok(Inserted::Created(None))
    }
}

/// Writes the row of a new key.
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
    for chunk in rows.chunks(CHUNK) {
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

/// The answer to a request that was answered before.
async fn find_request(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    request: &Request,
) -> Result<Option<Inserted>, StoreError> {
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
        true => Inserted::Repeated(Box::new(read_key(&row)?)),
        false => Inserted::RequestConflict,
    }))
}

/// Which ids of those are taken. All are of one network.
async fn existing(
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

/// Whether a network has `quota` keys that are neither revoked nor superseded.
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

/// How many more keys a network of `quota` keys takes.
async fn room(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    quota: u64,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let limit = i64::try_from(quota).unwrap_or(i64::MAX);
    // The limit spares counting on once the answer is known.
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
