//! Conversion between keys and rows.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::StoreError;
use super::dialect::Dialect;
use crate::key::Key;
use crate::key::record::Record;

/// Columns of a key, in the order in which [`bind_key`] binds them.
pub(super) const COLUMNS: &str = "network_id, key_id, kind, name, actor_id, scopes, metadata, visibility, \
    allowed_cidrs, rate_quota, rate_window, rate_unit, rate_policies, created_at, updated_at, expires_at, superseded_at, \
    revocation_reason, revocation_description, last_used_at, mutation, secret_id, key_prefix, suspension, created_by, \
    updated_by, revoked_by, replaces, replaced_by, unused_grace, grace_limit_at, credits_id";

/// Number of [`COLUMNS`].
pub(super) const COLUMN_COUNT: usize = 32;

/// Returns what is read of a key: [`COLUMNS`], the suspension and limits of its actor, and its
/// balance of credits.
///
/// By subqueries, not joins: pages of keys keep the plans that they have without it.
pub(super) fn selected(dialect: Dialect) -> String {
    let exactly = match dialect.actor_equals_exactly() {
        Some(_) => " AND CAST(actors.actor_id AS BINARY) = CAST(api_keys.actor_id AS BINARY)",
        None => "",
    };
    let credits = |column: &str| {
        format!(
            "(SELECT c.{column} FROM credits c WHERE c.network_id = api_keys.network_id \
             AND c.credits_id = api_keys.credits_id)"
        )
    };
    let of_actor = |column: &str| {
        format!(
            "(SELECT actors.{column} FROM actors WHERE actors.network_id = api_keys.network_id \
             AND actors.actor_id = api_keys.actor_id{exactly})"
        )
    };
    format!(
        "{COLUMNS}, {suspension} AS actor_suspension, {limits} AS actor_rate_policies, \
         {remaining} AS credits_remaining, {refill} AS credits_refill, {due_at} AS credits_due_at",
        suspension = of_actor("suspension"),
        limits = of_actor("rate_policies"),
        remaining = credits("remaining"),
        refill = credits("refill"),
        due_at = credits("refill_due_at"),
    )
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

/// Binds [`COLUMNS`].
pub(super) fn bind_key(query: Query, key: &Key) -> Query {
    let record = Record::from(key);
    query
        .bind(record.network_id)
        .bind(record.key_id)
        .bind(record.kind)
        .bind(record.name)
        .bind(record.actor_id)
        .bind(record.scopes)
        .bind(record.metadata)
        .bind(record.visibility)
        .bind(record.allowed_cidrs)
        .bind(record.rate_quota)
        .bind(record.rate_window)
        .bind(record.rate_unit)
        .bind(record.rate_policies)
        .bind(record.created_at)
        .bind(record.updated_at)
        .bind(record.expires_at)
        .bind(record.superseded_at)
        .bind(record.revocation_reason)
        .bind(record.revocation_description)
        .bind(record.last_used_at)
        .bind(record.mutation)
        .bind(record.secret_id)
        .bind(record.key_prefix)
        .bind(record.suspension)
        .bind(record.created_by)
        .bind(record.updated_by)
        .bind(record.revoked_by)
        .bind(record.replaces)
        .bind(record.replaced_by)
        .bind(record.unused_grace)
        .bind(record.grace_limit_at)
        .bind(record.credits_id)
}

/// Binds the columns that can change, in the order of the UPDATE statement.
pub(super) fn bind_changes(query: Query, key: &Key) -> Query {
    let record = Record::from(key);
    query
        .bind(record.name)
        .bind(record.scopes)
        .bind(record.metadata)
        .bind(record.allowed_cidrs)
        .bind(record.rate_quota)
        .bind(record.rate_window)
        .bind(record.rate_unit)
        .bind(record.rate_policies)
        .bind(record.updated_at)
        .bind(record.superseded_at)
        .bind(record.revocation_reason)
        .bind(record.revocation_description)
        .bind(record.mutation)
        .bind(record.suspension)
        .bind(record.updated_by)
        .bind(record.revoked_by)
        .bind(record.unused_grace)
        .bind(record.grace_limit_at)
        .bind(record.credits_id)
}

/// Reads a key from a row that has what is [`selected`].
pub(super) fn read_key(row: &AnyRow) -> Result<Key, StoreError> {
    let record = Record {
        network_id: row.try_get("network_id")?,
        key_id: row.try_get("key_id")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        actor_id: row.try_get("actor_id")?,
        scopes: row.try_get("scopes")?,
        metadata: row.try_get("metadata")?,
        visibility: row.try_get("visibility")?,
        allowed_cidrs: row.try_get("allowed_cidrs")?,
        rate_quota: row.try_get("rate_quota")?,
        rate_window: row.try_get("rate_window")?,
        rate_unit: row.try_get("rate_unit")?,
        rate_policies: row.try_get("rate_policies")?,
        credits_id: row.try_get("credits_id")?,
        credits_remaining: row.try_get("credits_remaining")?,
        credits_refill: row.try_get("credits_refill")?,
        credits_due_at: row.try_get("credits_due_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        expires_at: row.try_get("expires_at")?,
        superseded_at: row.try_get("superseded_at")?,
        revocation_reason: row.try_get("revocation_reason")?,
        revocation_description: row.try_get("revocation_description")?,
        last_used_at: row.try_get("last_used_at")?,
        mutation: row.try_get("mutation")?,
        secret_id: row.try_get("secret_id")?,
        key_prefix: row.try_get("key_prefix")?,
        suspension: row.try_get("suspension")?,
        created_by: row.try_get("created_by")?,
        updated_by: row.try_get("updated_by")?,
        revoked_by: row.try_get("revoked_by")?,
        replaces: row.try_get("replaces")?,
        replaced_by: row.try_get("replaced_by")?,
        unused_grace: row.try_get("unused_grace")?,
        grace_limit_at: row.try_get("grace_limit_at")?,
        actor_suspension: row.try_get("actor_suspension")?,
        actor_rate_policies: row.try_get("actor_rate_policies")?,
    };
    record.try_into().map_err(|crate::key::record::Unreadable(column)| StoreError::Corrupt(column))
}
