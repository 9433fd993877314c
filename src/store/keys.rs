//! One key at a time: put in and looked up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use sqlx::{AnyConnection, Row};

use super::mutations::{log_mutation, read_tag};
use super::row::{COLUMNS, bind_key, read_key};
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

/// What came of putting a key in.
#[derive(Debug)]
pub enum Inserted {
    /// It is in, under this number of the log (an issued key has none).
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

/// A row as of some number of the log, both read at one moment.
#[derive(Debug)]
pub struct Lookup {
    /// The log's newest number at that moment.
    pub counter: u64,
    /// The tag of that entry of the log.
    pub tag: u128,
    /// The key, if there is one.
    pub key: Option<Key>,
}

impl Store {
    /// Puts keys in, in one transaction, and says of each what came of it. An imported one is logged, as it may be
    /// remembered as unknown. A network of `quota` keys that aren't revoked takes no more.
    ///
    /// # Errors
    /// When the database fails; whether the keys are in is then unknown.
    pub async fn insert_keys(
        &self,
        new: Vec<NewKey>,
        quota: Option<u64>,
    ) -> Result<Vec<Inserted>, StoreError> {
        self.run(|inner| insert_keys(inner, new, quota)).await
    }

    /// Looks a key up together with the log's newest number, in one statement.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_key(&self, network: NetworkId, id: KeyId) -> Result<Lookup, StoreError> {
        self.run(move |inner| find_key(inner, network, id)).await
    }
}

async fn insert_keys(
    inner: Arc<Inner>,
    new: Vec<NewKey>,
    quota: Option<u64>,
) -> Result<Vec<Inserted>, StoreError> {
    // Whoever looks before it writes must not be overtaken in between. A key with a random id needn't look.
    let looks = |new: &NewKey| new.request.is_some() || new.key.id.kind() == KeyKind::Imported;
    let looks = quota.is_some() || new.iter().any(looks);
    inner
        .write(new, move |inner, transaction, new| {
            async move {
                if looks {
                    inner.lock_order(transaction).await?;
                }
                let mut inserted = Vec::with_capacity(new.len());
                for new in new {
                    inserted.push(insert_key(inner, transaction, new.clone(), quota).await?);
                }
                Ok(End::Commit(inserted))
            }
            .boxed()
        })
        .await
}

async fn insert_key(
    inner: &Inner,
    transaction: &mut AnyConnection,
    NewKey { mut key, request }: NewKey,
    quota: Option<u64>,
) -> Result<Inserted, StoreError> {
    if let Some(request) = &request
        && let Some(answer) = find_request(inner, transaction, key.network, request).await?
    {
        return Ok(answer);
    }
    if exists(inner, transaction, key.network, key.id).await? {
        return Ok(Inserted::IdTaken);
    }
    if is_full(inner, transaction, key.network, quota, key.created).await? {
        return Ok(Inserted::QuotaExceeded);
    }
    let mutation = match key.id.kind() {
        KeyKind::Issued => None,
        KeyKind::Imported => Some(log_mutation(inner, transaction, key.network, key.id, key.created).await?),
    };
    key.mutation = mutation.as_ref().map_or(0, |mutation| mutation.n);
    insert_row(inner, transaction, &key, request).await?;
    Ok(Inserted::Created(mutation))
}

/// Writes the row of a new key.
pub(super) async fn insert_row(
    inner: &Inner,
    transaction: &mut AnyConnection,
    key: &Key,
    request: Option<Request>,
) -> Result<(), StoreError> {
    let insert = format!(
        "INSERT INTO api_keys ({COLUMNS}, request_id, request_fingerprint) VALUES ($1, $2, $3, $4, $5, $6, $7, \
         $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"
    );
    let (id, fingerprint) = request.map(|request| (request.id, request.fingerprint)).unzip();
    bind_key(inner.query(insert), key).bind(id).bind(fingerprint).execute(&mut *transaction).await?;
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

async fn exists(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    id: KeyId,
) -> Result<bool, StoreError> {
    let row = inner
        .query("SELECT 1 FROM api_keys WHERE network_id = $1 AND key_id = $2")
        .bind(network.to_string())
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
    Ok(row.is_some())
}

/// Whether a network has `quota` keys that are neither revoked nor superseded.
pub(super) async fn is_full(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    quota: Option<u64>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(quota) = quota else {
        return Ok(false);
    };
    let quota = i64::try_from(quota).unwrap_or(i64::MAX);
    // The limit spares counting on once the answer is known.
    let count = "SELECT count(*) FROM (SELECT 1 FROM api_keys WHERE network_id = $1 AND revocation_reason IS NULL \
                 AND (superseded_at IS NULL OR superseded_at > $2) LIMIT $3) AS counted";
    let row = inner
        .query(count)
        .bind(network.to_string())
        .bind(now.as_micros())
        .bind(quota)
        .fetch_one(&mut *transaction)
        .await?;
    Ok(row.try_get::<i64, _>(0)? >= quota)
}

async fn find_key(inner: Arc<Inner>, network: NetworkId, id: KeyId) -> Result<Lookup, StoreError> {
    inner.key_reads.fetch_add(1, Ordering::Relaxed);
    // One statement, so that the number and the row are of one moment: a number read after the row would vouch for
    // more than the row knows.
    let find = format!(
        "SELECT counter.n AS counter_n, (SELECT tag FROM mutation_log WHERE n = counter.n) AS counter_tag, {COLUMNS} FROM mutation_counter counter \
         LEFT JOIN api_keys ON network_id = $1 AND key_id = $2 WHERE counter.id = 1"
    );
    let find = inner.query(find).bind(network.to_string()).bind(id.to_string());
    let row = inner.read(|connection| find.fetch_one(connection).boxed()).await?;
    let counter = row.try_get::<i64, _>("counter_n")?;
    let found = row.try_get::<Option<String>, _>("key_id")?.is_some();
    Ok(Lookup {
        counter: u64::try_from(counter).map_err(|_| StoreError::Corrupt("counter_n"))?,
        tag: read_tag(&row.try_get::<String, _>("counter_tag")?)?,
        key: found.then(|| read_key(&row)).transpose()?,
    })
}
