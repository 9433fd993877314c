//! One key at a time: put in, looked up, revoked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::{AssertSqlSafe, Row};

use super::mutations::log_mutation;
use super::row::{COLUMNS, bind_key, read_key};
use super::{Inner, Mutation, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{Key, KeyId, KeyKind, NetworkId, Revocation};

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
}

/// A row as of some number of the log, both read at one moment.
#[derive(Debug)]
pub struct Lookup {
    /// The log's newest number at that moment.
    pub counter: u64,
    /// The key, if there is one.
    pub key: Option<Key>,
}

/// What came of revoking a key.
#[derive(Debug)]
pub enum Revoked {
    /// It is revoked now, as this mutation.
    Now(Mutation),
    /// It was before, by this mutation; nothing has changed.
    Before(Mutation),
    /// There is no such key.
    NoSuchKey,
}

impl Store {
    /// Puts a key in. An imported one is logged, as it may be remembered as unknown.
    ///
    /// # Errors
    /// When the database fails; whether the key is in is then unknown.
    pub async fn insert_key(&self, new: NewKey) -> Result<Inserted, StoreError> {
        self.run(|inner| insert_key(inner, new)).await
    }

    /// Looks a key up together with the log's newest number, in one statement.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_key(&self, network: NetworkId, id: KeyId) -> Result<Lookup, StoreError> {
        self.run(move |inner| find_key(inner, network, id)).await
    }

    /// Revokes a key for good.
    ///
    /// # Errors
    /// When the database fails; whether the key is revoked is then unknown, and revoking again is right.
    pub async fn revoke_key(
        &self,
        network: NetworkId,
        id: KeyId,
        revocation: Revocation,
        now: Timestamp,
    ) -> Result<Revoked, StoreError> {
        self.run(move |inner| revoke_key(inner, network, id, revocation, now)).await
    }
}

async fn insert_key(inner: Arc<Inner>, NewKey { mut key, request }: NewKey) -> Result<Inserted, StoreError> {
    let mut transaction = inner.begin().await?;
    if let Some(request) = &request {
        let earlier = format!(
            "SELECT {COLUMNS}, request_fingerprint FROM api_keys WHERE network_id = $1 AND request_id = $2"
        );
        let row = sqlx::query(AssertSqlSafe(earlier))
            .bind(key.network.to_string())
            .bind(request.id.clone())
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(row) = row {
            let same = row.try_get::<Option<String>, _>("request_fingerprint")?.as_ref()
                == Some(&request.fingerprint);
            return Ok(match same {
                true => Inserted::Repeated(Box::new(read_key(&row)?)),
                false => Inserted::RequestConflict,
            });
        }
    }
    let mutation = match key.id.kind() {
        KeyKind::Issued => None,
        KeyKind::Imported => {
            let tag = inner.rng.bytes();
            Some(log_mutation(&mut transaction, tag, key.network, key.id, key.created).await?)
        }
    };
    key.mutation = mutation.as_ref().map_or(0, |mutation| mutation.n);
    let insert = format!(
        "INSERT INTO api_keys ({COLUMNS}, request_id, request_fingerprint) VALUES ($1, $2, $3, $4, $5, $6, $7, \
         $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)"
    );
    let inserted = bind_key(sqlx::query(AssertSqlSafe(insert)), &key)
        .bind(request.as_ref().map(|request| request.id.clone()))
        .bind(request.as_ref().map(|request| request.fingerprint.clone()))
        .execute(&mut *transaction)
        .await;
    match inserted {
        Ok(_) => {
            transaction.commit().await?;
            Ok(Inserted::Created(mutation))
        }
        Err(error) if error.as_database_error().is_some_and(|error| error.is_unique_violation()) => {
            transaction.rollback().await?;
            Ok(Inserted::IdTaken)
        }
        Err(error) => Err(error.into()),
    }
}

async fn find_key(inner: Arc<Inner>, network: NetworkId, id: KeyId) -> Result<Lookup, StoreError> {
    inner.key_reads.fetch_add(1, Ordering::Relaxed);
    // One statement, so that the number and the row are of one moment: a number read after the row would vouch for
    // more than the row knows.
    let find = format!(
        "SELECT counter.n AS counter_n, {COLUMNS} FROM mutation_counter counter \
         LEFT JOIN api_keys ON network_id = $1 AND key_id = $2 WHERE counter.id = 1"
    );
    let row = sqlx::query(AssertSqlSafe(find))
        .bind(network.to_string())
        .bind(id.to_string())
        .fetch_one(&inner.readers)
        .await?;
    let counter = row.try_get::<i64, _>("counter_n")?;
    let found = row.try_get::<Option<String>, _>("key_id")?.is_some();
    Ok(Lookup {
        counter: u64::try_from(counter).map_err(|_| StoreError::Corrupt("counter_n"))?,
        key: found.then(|| read_key(&row)).transpose()?,
    })
}

async fn revoke_key(
    inner: Arc<Inner>,
    network: NetworkId,
    id: KeyId,
    revocation: Revocation,
    now: Timestamp,
) -> Result<Revoked, StoreError> {
    let mut transaction = inner.begin().await?;
    let state = "SELECT revocation_reason, mutation FROM api_keys WHERE network_id = $1 AND key_id = $2";
    let row = sqlx::query(state)
        .bind(network.to_string())
        .bind(id.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(row) = row else {
        return Ok(Revoked::NoSuchKey);
    };
    if row.try_get::<Option<String>, _>(0)?.is_some() {
        let n = u64::try_from(row.try_get::<i64, _>(1)?).map_err(|_| StoreError::Corrupt("mutation"))?;
        return Ok(Revoked::Before(Mutation { n, network, key_id: id }));
    }
    let mutation = log_mutation(&mut transaction, inner.rng.bytes(), network, id, now).await?;
    let revoke = "UPDATE api_keys SET revocation_reason = $1, revocation_description = $2, updated_at = $3, \
                  mutation = $4 WHERE network_id = $5 AND key_id = $6 AND revocation_reason IS NULL";
    sqlx::query(revoke)
        .bind(revocation.reason.name())
        .bind(revocation.description)
        .bind(now.as_micros())
        .bind(i64::try_from(mutation.n).unwrap_or(i64::MAX))
        .bind(network.to_string())
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(Revoked::Now(mutation))
}
