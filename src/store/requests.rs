//! Idempotency keys of requests that make keys (AIP-155), and what earlier requests made.

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Row};

use super::row::{read_key, selected};
use super::{Inner, Store, StoreError};
use crate::key::{Key, KeyId, NetworkId};

/// Idempotency key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Request id that the caller chose.
    pub id: String,
    /// Hash of the body: the same id with another body is an error.
    pub fingerprint: String,
    /// Keyed hash that shows who may get the secret again; `None` if nobody may.
    pub seal: Option<String>,
}

/// Key that an earlier request made.
#[derive(Debug, Clone)]
pub struct RepeatedKey {
    /// The key.
    pub key: Key,
    /// Seal of the request.
    pub seal: Option<String>,
}

/// Earlier request with the same id.
#[derive(Debug)]
pub enum EarlierRequest {
    /// The same body, which made this key.
    Same(Box<RepeatedKey>),
    /// Another body.
    Other,
}

impl Store {
    /// Returns the earlier request with the id of this one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_request(
        &self,
        network: NetworkId,
        request: IdempotencyKey,
    ) -> Result<Option<EarlierRequest>, StoreError> {
        self.run(async move |inner| {
            let find = find(&inner, network, &request);
            let row = inner.read(|connection| find.fetch_optional(connection).boxed()).await?;
            row.map(|row| read(&row, &request)).transpose()
        })
        .await
    }

    /// Returns the id of the key that replaced another; `None` if none did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn successor_of(&self, network: NetworkId, id: KeyId) -> Result<Option<KeyId>, StoreError> {
        self.run(async move |inner| {
            let find = inner.query("SELECT replaced_by FROM api_keys WHERE network_id = $1 AND key_id = $2");
            let find = find.bind(network.to_string()).bind(id.to_string());
            let row = inner.read(|connection| find.fetch_optional(connection).boxed()).await?;
            let Some(row) = row else {
                return Ok(None);
            };
            let successor: Option<String> = row.try_get(0)?;
            successor.map(|id| KeyId::parse_any(&id).ok_or(StoreError::Corrupt("replaced_by"))).transpose()
        })
        .await
    }
}

/// Returns the earlier request with the id of this one, within a transaction.
pub(super) async fn find_request(
    inner: &Inner,
    transaction: &mut AnyConnection,
    network: NetworkId,
    request: &IdempotencyKey,
) -> Result<Option<EarlierRequest>, StoreError> {
    let row = find(inner, network, request).fetch_optional(&mut *transaction).await?;
    row.map(|row| read(&row, request)).transpose()
}

fn find(
    inner: &Inner,
    network: NetworkId,
    request: &IdempotencyKey,
) -> Query<'static, Any, sqlx::any::AnyArguments> {
    let columns = selected(inner.dialect);
    let find = format!(
        "SELECT {columns}, request_fingerprint, request_seal FROM api_keys WHERE network_id = $1 AND request_id = $2"
    );
    inner.query(find).bind(network.to_string()).bind(request.id.clone())
}

fn read(row: &AnyRow, request: &IdempotencyKey) -> Result<EarlierRequest, StoreError> {
    let fingerprint: Option<String> = row.try_get("request_fingerprint")?;
    Ok(match fingerprint.as_ref() == Some(&request.fingerprint) {
        true => {
            let seal = row.try_get("request_seal")?;
            EarlierRequest::Same(Box::new(RepeatedKey { key: read_key(row)?, seal }))
        }
        false => EarlierRequest::Other,
    })
}
