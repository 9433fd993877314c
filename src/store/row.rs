//! A key to a row and back.

use std::time::Duration;

use sqlx::Row;
use sqlx::any::AnyRow;

use super::StoreError;
use crate::clock::Timestamp;
use crate::key::{
    ActorId, AddressList, Key, KeyId, KeyKind, KeyName, Metadata, NetworkId, RatePolicy, RateUnit,
    Revocation, RevocationReason, Scopes, Visibility,
};

/// The columns of a key, in the order in which [`bind_key`] binds them.
pub(super) const COLUMNS: &str = "network_id, key_id, kind, name, actor_id, scopes, metadata, visibility, \
    allowed_cidrs, rate_quota, rate_window, rate_unit, created_at, updated_at, expires_at, superseded_at, \
    revocation_reason, revocation_description, last_used_at, mutation";

pub(super) const fn kind_code(kind: KeyKind) -> i16 {
    match kind {
        KeyKind::Issued => 1,
        KeyKind::Imported => 2,
    }
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

/// Binds the twenty columns of [`COLUMNS`].
pub(super) fn bind_key(query: Query, key: &Key) -> Query {
    query
        .bind(key.network.to_string())
        .bind(key.id.to_string())
        .bind(kind_code(key.id.kind()))
        .bind(key.name.as_str().to_owned())
        .bind(key.actor.as_str().to_owned())
        .bind(list(key.scopes.iter()))
        .bind(key.metadata.as_ref().map(|metadata| metadata.json().to_owned()))
        .bind(match key.visibility {
            Visibility::Secret => 1i16,
            Visibility::Public => 2,
        })
        .bind(list(key.addresses.iter()))
        .bind(key.rate_policy.map(|policy| policy.quota))
        .bind(key.rate_policy.map(|policy| micros(policy.window)))
        .bind(key.rate_policy.map(|policy| policy.unit.name().to_owned()))
        .bind(key.created.as_micros())
        .bind(key.updated.as_micros())
        .bind(key.expires.map(Timestamp::as_micros))
        .bind(key.superseded.map(Timestamp::as_micros))
        .bind(key.revocation.as_ref().map(|revocation| revocation.reason.name().to_owned()))
        .bind(key.revocation.as_ref().and_then(|revocation| revocation.description.clone()))
        .bind(key.last_used.map(Timestamp::as_micros))
        .bind(i64::try_from(key.mutation).unwrap_or(i64::MAX))
}

/// Binds what of a key can change, in the order of the statement that changes it.
pub(super) fn bind_changes(query: Query, key: &Key) -> Query {
    query
        .bind(key.name.as_str().to_owned())
        .bind(list(key.scopes.iter()))
        .bind(key.metadata.as_ref().map(|metadata| metadata.json().to_owned()))
        .bind(list(key.addresses.iter()))
        .bind(key.rate_policy.map(|policy| policy.quota))
        .bind(key.rate_policy.map(|policy| micros(policy.window)))
        .bind(key.rate_policy.map(|policy| policy.unit.name().to_owned()))
        .bind(key.updated.as_micros())
        .bind(key.superseded.map(Timestamp::as_micros))
        .bind(key.revocation.as_ref().map(|revocation| revocation.reason.name().to_owned()))
        .bind(key.revocation.as_ref().and_then(|revocation| revocation.description.clone()))
        .bind(i64::try_from(key.mutation).unwrap_or(i64::MAX))
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    serde_json::json!(items.map(|item| item.to_string()).collect::<Vec<_>>()).to_string()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Reads a key from a row that has [`COLUMNS`].
pub(super) fn read_key(row: &AnyRow) -> Result<Key, StoreError> {
    let kind = match row.try_get::<i16, _>("kind")? {
        1 => KeyKind::Issued,
        2 => KeyKind::Imported,
        _ => return Err(StoreError::Corrupt("kind")),
    };
    let text = |column: &'static str| row.try_get::<String, _>(column);
    let time = |column: &'static str| -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_micros))
    };
    let texts = |column: &'static str| -> Result<Vec<String>, StoreError> {
        serde_json::from_str(&text(column)?).map_err(|_| StoreError::Corrupt(column))
    };
    Ok(Key {
        network: NetworkId::parse(&text("network_id")?).ok_or(StoreError::Corrupt("network_id"))?,
        id: KeyId::parse(kind, &text("key_id")?).ok_or(StoreError::Corrupt("key_id"))?,
        name: KeyName::parse(&text("name")?).map_err(|_| StoreError::Corrupt("name"))?,
        actor: ActorId::parse(&text("actor_id")?).map_err(|_| StoreError::Corrupt("actor_id"))?,
        scopes: Scopes::parse(&texts("scopes")?).map_err(|_| StoreError::Corrupt("scopes"))?,
        metadata: match row.try_get::<Option<String>, _>("metadata")? {
            Some(json) => Some(Metadata::from_json(json).ok_or(StoreError::Corrupt("metadata"))?),
            None => None,
        },
        visibility: match row.try_get::<i16, _>("visibility")? {
            1 => Visibility::Secret,
            2 => Visibility::Public,
            _ => return Err(StoreError::Corrupt("visibility")),
        },
        addresses: AddressList::parse(&texts("allowed_cidrs")?)
            .map_err(|_| StoreError::Corrupt("allowed_cidrs"))?,
        rate_policy: read_rate_policy(row)?,
        created: Timestamp::from_micros(row.try_get("created_at")?),
        updated: Timestamp::from_micros(row.try_get("updated_at")?),
        expires: time("expires_at")?,
        superseded: time("superseded_at")?,
        revocation: match row.try_get::<Option<String>, _>("revocation_reason")? {
            Some(reason) => Some(Revocation {
                reason: RevocationReason::from_name(&reason)
                    .ok_or(StoreError::Corrupt("revocation_reason"))?,
                description: row.try_get("revocation_description")?,
            }),
            None => None,
        },
        last_used: time("last_used_at")?,
        mutation: u64::try_from(row.try_get::<i64, _>("mutation")?)
            .map_err(|_| StoreError::Corrupt("mutation"))?,
    })
}

fn read_rate_policy(row: &AnyRow) -> Result<Option<RatePolicy>, StoreError> {
    let Some(quota) = row.try_get::<Option<i64>, _>("rate_quota")? else {
        return Ok(None);
    };
    let window = row.try_get::<Option<i64>, _>("rate_window")?.and_then(|micros| u64::try_from(micros).ok());
    let window = Duration::from_micros(window.ok_or(StoreError::Corrupt("rate_window"))?);
    let unit = row.try_get::<Option<String>, _>("rate_unit")?.as_deref().and_then(RateUnit::from_name);
    let unit = unit.ok_or(StoreError::Corrupt("rate_unit"))?;
    RatePolicy::new(quota, window, unit).map(Some).map_err(|_| StoreError::Corrupt("rate_quota"))
}
