//! Pages of keys, oldest first. A page starts after the last key of the previous one, whatever was
//! added since.

use futures_util::FutureExt;

use super::row::{COLUMNS, read_key};
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::credential::page_token::Cursor;
use crate::key::record::kind_code;
use crate::key::{Key, KeyKind, NetworkId, Status};

/// Filter of keys; `None` matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Actor of the keys.
    pub actor: Option<String>,
    /// Status of the keys.
    pub status: Option<Status>,
}

/// Page of keys.
#[derive(Debug)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Key>,
    /// True if more keys follow.
    pub more: bool,
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
        let dialect = self.0.dialect;
        let mut sql = format!("SELECT {COLUMNS} FROM api_keys WHERE network_id = $1 AND kind = $2");
        let now_text = now.as_micros();
        if let Some(status) = filter.status {
            let unended = format!(
                "revocation_reason IS NULL AND (superseded_at IS NULL OR superseded_at > {now_text})"
            );
            sql += &match status {
                Status::Active => {
                    format!(" AND {unended} AND (expires_at IS NULL OR expires_at > {now_text})")
                }
                Status::Expired => format!(" AND {unended} AND expires_at <= {now_text}"),
                Status::Revoked => {
                    format!(" AND (revocation_reason IS NOT NULL OR superseded_at <= {now_text})")
                }
            };
        }
        let mut placeholder = 2;
        let mut next = || {
            placeholder += 1;
            placeholder
        };
        if filter.actor.is_some() {
            sql += &format!(" AND {}${}", dialect.actor_equals(), next());
        }
        if after.is_some() {
            // Each value has its own placeholder, as not every driver can bind one twice. The first
            // condition follows from the second, and lets the database use the index.
            let (from, later, same, beyond) = (next(), next(), next(), next());
            sql += &format!(
                " AND created_at >= ${from} AND (created_at > ${later} OR (created_at = ${same} AND key_id > ${beyond}))"
            );
        }
        sql += &format!(" ORDER BY created_at, key_id LIMIT ${}", next());

        self.run(async move |inner| {
            let mut query = inner.query(sql).bind(network.to_string()).bind(kind_code(kind));
            if let Some(actor) = filter.actor {
                query = query.bind(actor);
            }
            if let Some(after) = after {
                let created = after.created.as_micros();
                query = query.bind(created).bind(created).bind(created).bind(after.key_id);
            }
            // One more than requested shows if more follow.
            let query = query.bind(i64::from(size) + 1);
            let rows = inner.read(|connection| query.fetch_all(connection).boxed()).await?;
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let keys: Result<_, _> = rows.iter().take(size).map(read_key).collect();
            Ok(Page { keys: keys?, more: rows.len() > size })
        })
        .await
    }
}
