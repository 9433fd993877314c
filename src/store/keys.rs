//! Inserts of new keys.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::actor_limits::{ActorCounts, ActorLimit, InsertLimits};
use super::clock_skew;
use super::credits::insert_credits;
use super::dialect::{Dialect, MAX_ROWS, placeholders};
use super::digests::{TakenIds, record_hashes};
use super::key_counts::{add_to_count, lock_network, room};
use super::mutations::{LoggedChange, log_changes, log_issues, read_newest};
use super::new_key::NewKey;
use super::requests::{IdempotencyKey, RepeatedKey};
use super::row::{COLUMN_COUNT, COLUMNS, bind_key, read_key, selected};
use super::terms::insert_terms;
use super::transaction::End;
use super::{Inner, Mutation, Store, StoreError};
use crate::key::{Key, KeyId, KeyKind};

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
    Repeated(Box<RepeatedKey>),
    /// The request's id was used with another body before.
    RequestConflict,
    /// A key with this id, or of this digest, exists already; it has the given id.
    IdTaken(KeyId),
    /// The network has as many keys as it may have.
    QuotaExceeded,
    /// The actor has as many keys as each of these limits allows.
    ActorLimitReached(Vec<ActorLimit>),
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
        self.insert_keys_within(new, InsertLimits { quota, ..InsertLimits::default() }).await
    }

    /// Inserts keys as [`Store::insert_keys`] does, within limits of their actors, too.
    ///
    /// # Errors
    /// Those of [`Store::insert_keys`].
    pub async fn insert_keys_within(
        &self,
        new: Vec<NewKey>,
        limits: InsertLimits,
    ) -> Result<InsertedKeys, StoreError> {
        self.run(|inner| insert_keys(inner, new, limits)).await
    }
}

async fn insert_keys(
    inner: Arc<Inner>,
    new: Vec<NewKey>,
    limits: InsertLimits,
) -> Result<InsertedKeys, StoreError> {
    inner
        .write((new, limits), move |inner, transaction, (new, limits)| {
            insert(inner, transaction, new, limits).boxed()
        })
        .await
}

/// Inserts keys of one network within the limits, in the caller's transaction.
///
/// Changes of all networks wait from the number on. So the rows of imported keys are written before
/// it, with the newest number of then. That is below the number of the import, and no other row
/// with the same id ever had it, as an earlier row's deletion has a number of its own. Who needs
/// the number of the import reads it from the log.
async fn insert(
    inner: &Inner,
    transaction: &mut AnyConnection,
    new: &[NewKey],
    limits: &InsertLimits,
) -> Result<End<InsertedKeys>, StoreError> {
    let Some(network) = new.first().map(|new| new.key.network) else {
        return Ok(End::Rollback(InsertedKeys { each: vec![], logged: None }));
    };
    let mut existing = Existing::read(inner, transaction, new, limits).await?;
    let mut outcomes = Vec::with_capacity(new.len());
    let (mut issued, mut imported, mut imported_at) = (vec![], vec![], vec![]);
    for (index, new) in new.iter().enumerate() {
        let outcome = existing.outcome(inner, transaction, new, limits.of(index)).await?;
        match (&outcome, new.key.id.kind()) {
            (InsertOutcome::Created(_), KeyKind::Issued) => issued.push(new.clone()),
            (InsertOutcome::Created(_), KeyKind::Imported) => {
                imported_at.push(outcomes.len());
                imported.push(new.clone());
            }
            _ => {}
        }
        outcomes.push(outcome);
    }
    insert_rows(inner, transaction, &issued).await?;
    if let Some(newest) = existing.newest {
        for new in &mut imported {
            new.key.mutation = newest;
        }
        insert_rows(inner, transaction, &imported).await?;
    }
    for new in issued.iter().chain(&imported) {
        insert_credits(inner, transaction, &new.key).await?;
    }
    let count = i64::try_from(issued.len() + imported.len()).map_err(|_| StoreError::Corrupt("live"))?;
    add_to_count(inner, transaction, network, count).await?;
    // From here on, changes of other networks wait.
    let changes = |new: &[NewKey]| new.iter().map(|new| LoggedChange::of_new(&new.key)).collect();
    let (mutations, time) = log_changes(inner, transaction, changes(&imported)).await?;
    if let Some(first) = imported.first() {
        clock_skew::check(first.key.created, time)?;
    }
    let last = mutations.last().map(|mutation| mutation.n);
    for (index, mutation) in imported_at.into_iter().zip(&mutations) {
        outcomes[index] = InsertOutcome::Created(Some(*mutation));
    }
    if existing.newest.is_none() {
        for (new, mutation) in imported.iter_mut().zip(&mutations) {
            new.key.mutation = mutation.n;
        }
        insert_rows(inner, transaction, &imported).await?;
    }
    record_hashes(inner, transaction, &imported).await?;
    let logged = match (last, issued.is_empty()) {
        (Some(last), _) => Some(last),
        (None, false) => Some(log_issues(inner, transaction, changes(&issued)).await?),
        (None, true) => None,
    };
    Ok(End::Commit(InsertedKeys { each: outcomes, logged }))
}

/// Existing keys and requests that new ones can collide with, including those of the same
/// transaction.
struct Existing {
    ids: TakenIds,
    /// Rows of keys that earlier requests made, by the ids of the requests.
    earlier: HashMap<String, AnyRow>,
    /// Fingerprints and keys of requests of the same transaction, by the ids of the requests.
    requests: HashMap<String, (String, Key)>,
    /// Newest number of the log, if rows are written before their numbers are taken.
    newest: Option<u64>,
    /// Number of further keys that the network may have.
    room: u64,
    of_actors: ActorCounts,
}

impl Existing {
    async fn read(
        inner: &Inner,
        transaction: &mut AnyConnection,
        new: &[NewKey],
        limits: &InsertLimits,
    ) -> Result<Self, StoreError> {
        // Reads that decide about the insert need the lock. A key with a random id needs none.
        let decides = |new: &NewKey| new.request.is_some() || new.key.id.kind() == KeyKind::Imported;
        let room = match new.first() {
            Some(NewKey { key, .. })
                if limits.quota.is_some() || limits.has_actor_limits() || new.iter().any(decides) =>
            {
                let mut count = lock_network(inner, transaction, key.network).await?;
                match limits.quota {
                    Some(quota) => {
                        let wanted = u64::try_from(new.len()).unwrap_or(u64::MAX);
                        room(inner, transaction, &mut count, quota, wanted, key.created).await?
                    }
                    None => u64::MAX,
                }
            }
            _ => u64::MAX,
        };
        let mut ids = TakenIds::default();
        // Random ids aren't looked up: if one existed, the database would refuse it.
        let imported: Vec<_> =
            new.iter().filter(|new| new.key.id.kind() == KeyKind::Imported).cloned().collect();
        for chunk in imported.chunks(MAX_ROWS) {
            ids.read(inner, transaction, chunk).await?;
        }
        let earlier = read_requests(inner, transaction, new).await?;
        // Not in CockroachDB, which repeats a transaction that has read the number when another
        // takes one meanwhile: there, rows have their own numbers, and are written last.
        let newest = match inner.dialect != Dialect::Cockroach && !imported.is_empty() {
            true => Some(read_newest(inner, transaction).await?),
            false => None,
        };
        let (requests, of_actors) = (HashMap::new(), ActorCounts::default());
        Ok(Self { ids, earlier, requests, newest, room, of_actors })
    }

    /// Decides the outcome of one key, and counts it as existing. Its row isn't written yet.
    async fn outcome(
        &mut self,
        inner: &Inner,
        transaction: &mut AnyConnection,
        new @ NewKey { key, request, .. }: &NewKey,
        limits: &[ActorLimit],
    ) -> Result<InsertOutcome, StoreError> {
        if let Some(request) = request {
            if let Some((fingerprint, key)) = self.requests.get(&request.id) {
                return Ok(match *fingerprint == request.fingerprint {
                    true => InsertOutcome::Repeated(Box::new(RepeatedKey { key: key.clone(), seal: None })),
                    false => InsertOutcome::RequestConflict,
                });
            }
            if let Some(row) = self.earlier.get(&request.id) {
                let fingerprint: Option<String> = row.try_get("request_fingerprint")?;
                if fingerprint.as_ref() != Some(&request.fingerprint) {
                    return Ok(InsertOutcome::RequestConflict);
                }
                let (mut key, seal) = (read_key(row)?, row.try_get("request_seal")?);
                if key.id.kind() == KeyKind::Imported {
                    // The number of its import, or a later one.
                    key.mutation = key.mutation.max(self.newest.unwrap_or_default());
                }
                return Ok(InsertOutcome::Repeated(Box::new(RepeatedKey { key, seal })));
            }
        }
        if let Some(existing) = self.ids.of(new) {
            return Ok(InsertOutcome::IdTaken(existing));
        }
        let Some(room) = self.room.checked_sub(1) else {
            return Ok(InsertOutcome::QuotaExceeded);
        };
        let full = self.of_actors.add(inner, transaction, key, limits).await?;
        if !full.is_empty() {
            return Ok(InsertOutcome::ActorLimitReached(full));
        }
        self.room = room;
        self.ids.insert(new);
        if let Some(IdempotencyKey { id, fingerprint, .. }) = request {
            self.requests.insert(id.clone(), (fingerprint.clone(), key.clone()));
        }
        Ok(InsertOutcome::Created(None))
    }
}

/// Reads the rows of keys that earlier requests with the ids of these made, by the ids. All keys
/// are of one network. A statement for each request would be a round trip for each, while the
/// network is locked.
async fn read_requests(
    inner: &Inner,
    transaction: &mut AnyConnection,
    new: &[NewKey],
) -> Result<HashMap<String, AnyRow>, StoreError> {
    let mut earlier = HashMap::new();
    let Some(network) = new.first().map(|new| new.key.network) else {
        return Ok(earlier);
    };
    let columns = selected(inner.dialect);
    // Bytes in MySQL, where spaces at the end of a text don't count.
    let id = match inner.dialect {
        Dialect::MySql => "CAST(request_id AS CHAR)",
        Dialect::Sqlite | Dialect::Postgres | Dialect::Cockroach => "request_id",
    };
    let requests: Vec<&IdempotencyKey> = new.iter().filter_map(|new| new.request.as_ref()).collect();
    for chunk in requests.chunks(MAX_ROWS) {
        let places: Vec<String> = (2..chunk.len() + 2).map(|number| format!("${number}")).collect();
        let find = format!(
            "SELECT {columns}, {id} AS sent_id, request_fingerprint, request_seal FROM api_keys \
             WHERE network_id = $1 AND request_id IN ({})",
            places.join(", ")
        );
        let find = inner.query(find).bind(network.to_string());
        let find = chunk.iter().fold(find, |find, request| find.bind(request.id.clone()));
        for row in find.fetch_all(&mut *transaction).await? {
            earlier.insert(row.try_get::<String, _>("sent_id")?, row);
        }
    }
    Ok(earlier)
}

/// Inserts the rows of keys.
pub(super) async fn insert_rows(
    inner: &Inner,
    transaction: &mut AnyConnection,
    rows: &[NewKey],
) -> Result<(), StoreError> {
    for chunk in rows.chunks(MAX_ROWS) {
        let values = placeholders(chunk.len(), COLUMN_COUNT + 6);
        let insert = format!(
            "INSERT INTO api_keys ({COLUMNS}, request_id, request_fingerprint, request_seal, sha256_id, sha512_id, \
             terms_at) VALUES {values}"
        );
        let insert = chunk.iter().fold(inner.query(insert), |insert, NewKey { key, request, digests }| {
            let request = request.as_ref();
            bind_key(insert, key)
                .bind(request.map(|request| request.id.clone()))
                .bind(request.map(|request| request.fingerprint.clone()))
                .bind(request.and_then(|request| request.seal.clone()))
                .bind(digests.sha256.map(|id| id.to_string()))
                .bind(digests.sha512.map(|id| id.to_string()))
                .bind(i64::try_from(key.mutation).unwrap_or(i64::MAX))
        });
        insert.execute(&mut *transaction).await?;
        let keys: Vec<&Key> = chunk.iter().map(|new| &new.key).collect();
        insert_terms(inner, transaction, &keys).await?;
    }
    Ok(())
}
