//! Reads of the mutation log for those who follow changes.
//!
//! Changes are committed in the order of their numbers (see [`super::mutations`]), so what one
//! statement sees of the log has no gap that is filled later.

use futures_util::FutureExt;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::mutations::read_tag;
use super::server::authoritative;
use super::{Inner, Store, StoreError};
use crate::clock::Timestamp;
use crate::key::{ActorId, ChangeKind, ChangeRecord, KeyId, NetworkId};

/// Most entries, of all networks, that one statement reads.
const SCAN: i64 = 1_000;
/// Most statements of one read. A network whose events are rare gets to the end in several reads.
const MAX_SCANS: usize = 10;
/// Length of the records of a page from which on no further event is added, in bytes.
const MAX_PAGE_LEN: usize = 1024 * 1024;

/// Place in the log: the number of an entry and a part of its random tag, which tells histories
/// apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedPosition {
    /// Number of the entry.
    pub n: u64,
    /// First half of its tag.
    pub mark: u64,
}

/// Start of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStart {
    /// The oldest entry that is kept.
    Oldest,
    /// The end of the log.
    Now,
    /// The entry after this one. With the mark it must be of the same history.
    After(u64, Option<u64>),
    /// The first entry that isn't older; entries since then must be kept.
    Since(Timestamp),
}

/// Read of the log for one network.
#[derive(Debug, Clone, Copy)]
pub struct FeedRequest {
    /// The network.
    pub network: NetworkId,
    /// Start.
    pub start: FeedStart,
    /// Most events.
    pub max_events: usize,
}

/// Change of the log, as those who follow it get it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    /// Place of its entry.
    pub position: FeedPosition,
    /// Time of the change.
    pub at: Timestamp,
    /// Changed key; `None` for a change of an actor.
    pub key_id: Option<KeyId>,
    /// Changed actor; `None` for a change of a key, and once it is erased.
    pub actor: Option<String>,
    /// Record of the change; `None` where a release wrote the entry that keeps none.
    pub record: Option<ChangeRecord>,
}

/// Part of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedPart {
    /// Events of the network, in the order of the log.
    pub events: Vec<LoggedEvent>,
    /// Entry up to which the log was read.
    pub last: FeedPosition,
    /// Newest number of the log.
    pub end: u64,
}

/// Reason for which a read can't begin where it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedGone {
    /// The entry is trimmed, or those since the time are; this is the oldest that is kept.
    Trimmed(u64),
    /// The entry is of another history, or of none: the log ends with this number.
    Rewritten(u64),
}

impl Store {
    /// Reads events of a network.
    ///
    /// # Errors
    /// When the database fails, or the server that answers isn't the primary.
    pub async fn read_feed(&self, request: FeedRequest) -> Result<Result<FeedPart, FeedGone>, StoreError> {
        self.run(async move |inner| read(&inner, request).await).await
    }
}

async fn read(inner: &Inner, request: FeedRequest) -> Result<Result<FeedPart, FeedGone>, StoreError> {
    let mut anchor = match request.start {
        FeedStart::Oldest => None,
        FeedStart::Now => {
            Some((u64::try_from(newest(inner).await?).map_err(|_| StoreError::Corrupt("n"))?, None))
        }
        FeedStart::After(n, mark) => Some((n, mark)),
        FeedStart::Since(time) => match last_before(inner, time).await? {
            Ok(n) => Some((n, None)),
            Err(gone) => return Ok(Err(gone)),
        },
    };
    let (mut part, mut len) = (None::<FeedPart>, 0);
    'scans: for _ in 0..MAX_SCANS {
        let scan = scan(inner, anchor.map_or(0, |(n, _)| n)).await?;
        let entries = match continuation(anchor, &scan) {
            Ok(entries) => entries,
            // The part that was read before the gap is still right.
            Err(gone) => return Ok(part.ok_or(gone)),
        };
        let part = part.get_or_insert(FeedPart { events: vec![], last: first(&scan)?, end: scan.end });
        part.end = scan.end;
        for entry in entries {
            if let Some((event, event_len)) = entry.event(request.network) {
                if part.events.len() >= request.max_events || len > MAX_PAGE_LEN {
                    break 'scans;
                }
                len += event_len;
                part.events.push(event);
            }
            part.last = entry.position;
        }
        if part.last.n >= part.end || part.events.len() >= request.max_events {
            break;
        }
        anchor = Some((part.last.n, Some(part.last.mark)));
    }
    Ok(part.ok_or(FeedGone::Rewritten(0)))
}

/// Returns the entries after the anchor, if the log has it, and no number is missing.
fn continuation(anchor: Option<(u64, Option<u64>)>, scan: &Scan) -> Result<&[Entry], FeedGone> {
    let numbers = scan.entries.iter().map(|entry| entry.position.n);
    let is_gapless = numbers.clone().zip(numbers.skip(1)).all(|(one, next)| next == one + 1);
    let Some(first) = scan.entries.first().filter(|_| is_gapless) else {
        return Err(FeedGone::Rewritten(scan.end));
    };
    match anchor {
        None => Ok(&scan.entries),
        Some((n, mark)) => match first.position {
            found if found.n > n => Err(FeedGone::Trimmed(found.n)),
            found if mark.is_some_and(|mark| mark != found.mark) => Err(FeedGone::Rewritten(scan.end)),
            _ => Ok(&scan.entries[1..]),
        },
    }
}

fn first(scan: &Scan) -> Result<FeedPosition, StoreError> {
    scan.entries.first().map(|entry| entry.position).ok_or(StoreError::Corrupt("mutation_log"))
}

/// Entries that one statement has read.
struct Scan {
    /// Newest number of the log.
    end: u64,
    entries: Vec<Entry>,
}

/// Entry of the log, with the columns as they are.
struct Entry {
    position: FeedPosition,
    at: Timestamp,
    network: String,
    key_id: String,
    actor: Option<String>,
    subject: Option<String>,
    event: Option<String>,
}

impl Entry {
    /// Returns the event and the length of its record; `None` if it is none of this network.
    fn event(&self, network: NetworkId) -> Option<(LoggedEvent, usize)> {
        if NetworkId::parse(&self.network) != Some(network) {
            return None;
        }
        let record = self.event.as_deref().and_then(ChangeRecord::from_stored);
        // Entries of issued keys have no key_id, as no cached row is stale.
        let key_id = match (&self.actor, self.key_id.as_str()) {
            (Some(_), _) => None,
            (None, "") => KeyId::parse_any(self.subject.as_deref()?),
            (None, key_id) => KeyId::parse_any(key_id),
        };
        let is_erased = record
            .as_ref()
            .is_some_and(|record| record.is_erased || record.kind == Some(ChangeKind::DeleteActor));
        let actor = self.actor.as_deref().and_then(|actor| ActorId::from_stored(actor).ok());
        if key_id.is_none() && actor.is_none() {
            return None;
        }
        let event = LoggedEvent {
            position: self.position,
            at: self.at,
            key_id,
            actor: actor.filter(|_| !is_erased).map(|actor| actor.as_str().to_owned()),
            record,
        };
        Some((event, self.event.as_ref().map_or(0, String::len)))
    }
}

/// Reads entries from number `from` on, and the end of the log at the same moment.
async fn scan(inner: &Inner, from: u64) -> Result<Scan, StoreError> {
    let scan = format!(
        "SELECT counter.n AS counter_n, {id} AS server_id, {state} AS server_state, entries.* \
         FROM mutation_counter counter LEFT JOIN (SELECT n, at, tag, network_id, key_id, actor_id, subject, event \
         FROM mutation_log WHERE n >= $1 ORDER BY n LIMIT $2) AS entries ON 1 = 1 WHERE counter.id = 1",
        id = inner.dialect.server_id(),
        state = inner.dialect.server_state(),
    );
    let scan = inner.query(scan).bind(i64::try_from(from).unwrap_or(i64::MAX)).bind(SCAN);
    let check = |rows: Vec<AnyRow>| {
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        inner.poller.check_server(&authoritative(first, "server_id", "server_state")?)?;
        Ok(rows)
    };
    let rows = inner.read_checked(|connection| scan.fetch_all(connection).boxed(), check).await?;
    let end = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get::<i64, _>("counter_n")?;
    let mut entries = vec![];
    for row in &rows {
        // Without an entry, the row has only the log's end.
        if let Some(n) = row.try_get::<Option<i64>, _>("n")? {
            entries.push(read_entry(row, n)?);
        }
    }
    // A join needn't keep the order.
    entries.sort_unstable_by_key(|entry| entry.position.n);
    Ok(Scan { end: u64::try_from(end).map_err(|_| StoreError::Corrupt("n"))?, entries })
}

fn read_entry(row: &AnyRow, n: i64) -> Result<Entry, StoreError> {
    let tag = read_tag(&row.try_get::<String, _>("tag")?)?;
    Ok(Entry {
        position: FeedPosition {
            n: u64::try_from(n).map_err(|_| StoreError::Corrupt("n"))?,
            mark: (tag >> 64) as u64,
        },
        at: Timestamp::from_micros(row.try_get("at")?),
        network: row.try_get("network_id")?,
        key_id: row.try_get("key_id")?,
        actor: row.try_get::<Option<String>, _>("actor_id")?.filter(|actor| !actor.is_empty()),
        subject: row.try_get("subject")?,
        event: row.try_get("event")?,
    })
}

async fn newest(inner: &Inner) -> Result<i64, StoreError> {
    let newest = inner.query("SELECT n FROM mutation_counter WHERE id = 1");
    let row = inner.read(|connection| newest.fetch_one(connection).boxed()).await?;
    Ok(row.try_get(0)?)
}

/// Returns the last entry that is older than a time. Times are in order but for the differences of
/// clocks, so a few entries are enough to look at.
///
/// A log begins with entry 0, which is no change. If another one is the oldest and isn't older than
/// the time, changes since then may have been trimmed.
async fn last_before(inner: &Inner, time: Timestamp) -> Result<Result<u64, FeedGone>, StoreError> {
    let number = |n: i64| u64::try_from(n).map_err(|_| StoreError::Corrupt("n"));
    let oldest = inner.query("SELECT n FROM mutation_log WHERE n >= 0 ORDER BY n LIMIT 1");
    let oldest = inner.read(|connection| oldest.fetch_one(connection).boxed()).await?;
    let (mut low, mut high) = (oldest.try_get::<i64, _>(0)?, newest(inner).await?);
    if low > 0 && !is_older(inner, low, time).await? {
        return Ok(Err(FeedGone::Trimmed(number(low)?)));
    }
    while low < high {
        let middle = low + (high - low + 1) / 2;
        match is_older(inner, middle, time).await? {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    number(low).map(Ok)
}

/// Returns true if an entry is older than a time. One that is trimmed is.
async fn is_older(inner: &Inner, n: i64, time: Timestamp) -> Result<bool, StoreError> {
    let at = inner.query("SELECT at FROM mutation_log WHERE n = $1").bind(n);
    let row = inner.read(|connection| at.fetch_optional(connection).boxed()).await?;
    let at = row.map(|row| row.try_get::<i64, _>(0)).transpose()?;
    Ok(at.is_none_or(|at| at < time.as_micros()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rng::Rng;
    use crate::store::mutations::{LoggedChange, log_changes};
    use crate::store::transaction::End;

    const OTHER: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

    async fn store() -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let dsn = format!("sqlite://{}/talos.db", directory.path().display());
        (Store::open(&dsn, Rng::seeded(1)).await.unwrap(), directory)
    }

    /// Logs changes of a network, each with this record.
    async fn log(store: &Store, network: NetworkId, count: usize, record: &ChangeRecord) {
        let change = LoggedChange {
            network,
            key_id: KeyId::Imported([7; 32]),
            at: Timestamp::from_secs(1_790_000_000),
            event: Some(record.clone().into_stored()),
        };
        let changes = vec![change; count];
        let log = async move |inner: Arc<Inner>| {
            inner
                .write(changes, |inner, transaction, changes| {
                    async move {
                        Ok(End::Commit(log_changes(inner, transaction, changes.clone()).await.map(drop)?))
                    }
                    .boxed()
                })
                .await
        };
        store.run(log).await.unwrap();
    }

    async fn feed(store: &Store, start: FeedStart, max_events: usize) -> Result<FeedPart, FeedGone> {
        let request = FeedRequest { network: NetworkId::SINGLE, start, max_events };
        store.read_feed(request).await.unwrap()
    }

    #[tokio::test]
    async fn events_are_found_behind_many_of_others() {
        let (store, _directory) = store().await;
        let record = ChangeRecord::of_deletion(Some("ops".into()));
        let others = NetworkId::parse(OTHER).unwrap();
        log(&store, others, 2_500, &record).await;
        log(&store, NetworkId::SINGLE, 1, &record).await;
        let part = feed(&store, FeedStart::Oldest, 10).await.unwrap();
        assert_eq!(part.events.iter().map(|event| event.position.n).collect::<Vec<_>>(), [2_501]);
        assert_eq!((part.last.n, part.end), (2_501, 2_501));
        // More than one read looks at: the place moves on all the same.
        log(&store, others, 12_000, &record).await;
        let start = FeedStart::After(part.last.n, Some(part.last.mark));
        let more = feed(&store, start, 10).await.unwrap();
        assert!(more.events.is_empty() && more.last.n > part.last.n && more.last.n < more.end);
        let rest = feed(&store, FeedStart::After(more.last.n, Some(more.last.mark)), 10).await.unwrap();
        assert_eq!((rest.events.len(), rest.last.n), (0, rest.end));
    }

    #[tokio::test]
    async fn pages_end_at_their_number_and_at_their_size() {
        let (store, _directory) = store().await;
        let long = ChangeRecord { caller: Some("c".repeat(4_000).into()), ..ChangeRecord::of_deletion(None) };
        log(&store, NetworkId::SINGLE, 600, &long).await;
        let page = feed(&store, FeedStart::Oldest, 7).await.unwrap();
        assert_eq!((page.events.len(), page.last.n), (7, 7));
        let page = feed(&store, FeedStart::After(7, None), 1_000).await.unwrap();
        assert!((250..300).contains(&page.events.len()), "{}", page.events.len());
        assert_eq!(page.last.n, 7 + page.events.len() as u64, "the next page begins with what is left out");
    }

    #[tokio::test]
    async fn a_place_is_of_one_history_and_of_what_is_kept() {
        let (store, _directory) = store().await;
        log(&store, NetworkId::SINGLE, 5, &ChangeRecord::of_deletion(None)).await;
        let place = feed(&store, FeedStart::Now, 1).await.unwrap().last;
        assert_eq!(place.n, 5);
        let other = FeedStart::After(5, Some(place.mark ^ 1));
        assert_eq!(feed(&store, other, 1).await, Err(FeedGone::Rewritten(5)));
        assert_eq!(feed(&store, FeedStart::After(6, None), 1).await, Err(FeedGone::Rewritten(5)));
        let trim = async |inner: Arc<Inner>| {
            let trim = inner.query("DELETE FROM mutation_log WHERE n < 3");
            inner.read(|connection| trim.execute(connection).boxed()).await.map(drop)
        };
        store.run(trim).await.unwrap();
        assert_eq!(feed(&store, FeedStart::After(2, None), 1).await, Err(FeedGone::Trimmed(3)));
        assert_eq!(feed(&store, FeedStart::After(3, None), 9).await.unwrap().events.len(), 2);
        assert_eq!(feed(&store, FeedStart::Oldest, 9).await.unwrap().events.len(), 3);
    }

    #[tokio::test]
    async fn a_time_is_a_place_while_the_changes_since_then_are_kept() {
        let (store, _directory) = store().await;
        log(&store, NetworkId::SINGLE, 5, &ChangeRecord::of_deletion(None)).await;
        let since = |seconds| FeedStart::Since(Timestamp::from_secs(seconds));
        let [epoch, before, same, after] = [0, 1_789_999_999, 1_790_000_000, 1_790_000_001].map(since);
        for (start, events) in [(epoch, 5), (before, 5), (same, 5), (after, 0)] {
            assert_eq!(feed(&store, start, 9).await.unwrap().events.len(), events, "{start:?}");
        }
        for (kept, gone) in [(1_i64, FeedGone::Trimmed(1)), (3, FeedGone::Trimmed(3))] {
            let trim = async move |inner: Arc<Inner>| {
                let trim = inner.query("DELETE FROM mutation_log WHERE n < $1").bind(kept);
                inner.read(|connection| trim.execute(connection).boxed()).await.map(drop)
            };
            store.run(trim).await.unwrap();
            for start in [epoch, before, same] {
                assert_eq!(feed(&store, start, 9).await, Err(gone), "{start:?}");
            }
            assert_eq!(feed(&store, after, 9).await.unwrap().last.n, 5);
        }
        log(&store, NetworkId::SINGLE, 1, &ChangeRecord::of_deletion(None)).await;
        assert_eq!(feed(&store, FeedStart::Oldest, 9).await.unwrap().events.len(), 4);
    }
}
