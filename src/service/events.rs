//! Changes of keys and actors in the order of the log, for those who follow them.
//!
//! A reader that waits holds neither a lock nor a connection to the database: it waits for news of
//! the log, which this process polls anyway, and reads once there are some.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

pub use crate::store::{FeedPosition, FeedStart, LoggedEvent};

use super::{Service, unavailable};
use crate::error::{ApiError, Reason};
use crate::key::{ChangeKind, KeyId, NetworkId};
use crate::store::{FeedGone, FeedPart, FeedRequest};

/// Longest wait for a change.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Number of events on a page for which no number was requested.
pub const DEFAULT_EVENTS: u32 = 100;
/// Most events on a page.
pub const MAX_EVENTS: u32 = 1_000;

/// Most readers that wait at once, of all networks.
const MAX_WAITING: usize = 256;
/// Most readers of one network that wait at once.
const MAX_WAITING_OF_NETWORK: usize = 64;
/// Reads of the log at once, so that many readers don't keep others from the database.
const MAX_READS: usize = 2;
/// Pause between news of the log and the read, in which further changes may come.
const NEWS_PAUSE: Duration = Duration::from_millis(50);

/// Events that a reader wants: all of those that nothing here leaves out.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Kinds of events; all if empty.
    pub kinds: Vec<EventKind>,
    /// Key that is changed, or that replaces the changed one.
    pub key_id: Option<KeyId>,
    /// Actor that is changed, or whose key is.
    pub actor: Option<String>,
}

/// Kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A change of this kind.
    Known(ChangeKind),
    /// A change of a key of which the log tells no more.
    OfKey,
    /// A change of an actor of which the log tells no more.
    OfActor,
}

impl EventKind {
    /// Returns the kind of an event.
    pub fn of(event: &LoggedEvent) -> Self {
        match (event.record.as_ref().and_then(|record| record.kind), event.key_id) {
            (Some(kind), _) => Self::Known(kind),
            (None, Some(_)) => Self::OfKey,
            (None, None) => Self::OfActor,
        }
    }
}

impl EventFilter {
    fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.key_id.is_none() && self.actor.is_none()
    }

    fn matches(&self, event: &LoggedEvent) -> bool {
        let record = event.record.as_ref();
        let is_of_kind = self.kinds.is_empty() || self.kinds.contains(&EventKind::of(event));
        let is_of_key = self.key_id.is_none_or(|wanted| {
            let successor = || record.and_then(|record| KeyId::parse_any(record.replaced_by.as_deref()?));
            event.key_id == Some(wanted) || successor() == Some(wanted)
        });
        let is_of_actor = self.actor.as_ref().is_none_or(|wanted| {
            event.actor.as_ref() == Some(wanted)
                || record.is_some_and(|record| record.actor.as_ref() == Some(wanted))
        });
        is_of_kind && is_of_key && is_of_actor
    }
}

/// Request for the events after a place in the log.
#[derive(Debug, Clone)]
pub struct FollowRequest {
    /// Start.
    pub start: FeedStart,
    /// Time to wait for the first event; at most [`MAX_WAIT`] counts.
    pub wait: Duration,
    /// Number of events; 0 means [`DEFAULT_EVENTS`], more than [`MAX_EVENTS`] means that.
    pub page_size: u32,
    /// Events that are wanted.
    pub filter: EventFilter,
}

/// Events, and where to go on.
#[derive(Debug)]
pub struct Followed {
    /// Events in the order of the log; none if there were none in time.
    pub events: Vec<LoggedEvent>,
    /// Place up to which the log was read.
    pub next: FeedPosition,
    /// True if the log goes on after it.
    pub has_more: bool,
}

/// Readers that wait, and those that read.
pub(super) struct Followers {
    waiting: Mutex<HashMap<NetworkId, usize>>,
    reads: Semaphore,
}

impl Default for Followers {
    fn default() -> Self {
        Self { waiting: Mutex::default(), reads: Semaphore::new(MAX_READS) }
    }
}

impl Followers {
    /// Counts a reader that waits; `None` if there are too many.
    fn enter(&self, network: NetworkId) -> Option<Waiting<'_>> {
        let mut waiting = self.waiting.lock();
        if waiting.values().sum::<usize>() >= MAX_WAITING {
            return None;
        }
        let of_network = waiting.entry(network).or_default();
        if *of_network >= MAX_WAITING_OF_NETWORK {
            return None;
        }
        *of_network += 1;
        Some(Waiting { followers: self, network })
    }
}

/// Place of a reader among those that wait; dropped, it frees the place.
struct Waiting<'a> {
    followers: &'a Followers,
    network: NetworkId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.followers.waiting.lock();
        if let Some(count) = waiting.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.network);
            }
        }
    }
}

impl Service {
    /// Returns the events of a network after a place in the log. Without any, waits for one until
    /// the time is over or `stop` completes.
    ///
    /// # Errors
    /// Fails if the log doesn't reach from there any more, too many readers wait, or the database
    /// fails.
    pub async fn follow(
        &self,
        network: NetworkId,
        request: FollowRequest,
        stop: impl Future<Output = ()>,
    ) -> Result<Followed, ApiError> {
        let deadline = Instant::now() + request.wait.min(MAX_WAIT);
        let page_size = match request.page_size {
            0 => DEFAULT_EVENTS,
            size => size.min(MAX_EVENTS),
        };
        let mut stop = pin!(stop);
        let (mut start, mut waiting) = (request.start, None);
        loop {
            // Before the read, so that no news in between are missed.
            let mut progress = self.freshness.progress();
            let part = self.read_feed(network, start, page_size).await?;
            let mut followed = Followed::from(part);
            followed.events.retain(|event| request.filter.matches(event));
            let is_over = Instant::now() >= deadline;
            // A filter that leaves nothing of a page must not make one request read the whole log.
            let is_empty_page = followed.has_more && !request.filter.is_empty();
            if !followed.events.is_empty() || is_over || is_empty_page {
                return Ok(followed);
            }
            start = FeedStart::After(followed.next.n, Some(followed.next.mark));
            if followed.has_more {
                // All events so far are of other networks.
                continue;
            }
            if waiting.is_none() {
                waiting = Some(self.followers.enter(network).ok_or_else(too_many)?);
            }
            tokio::select! {
                news = progress.changed() => {
                    if news.is_err() {
                        return Ok(followed);
                    }
                    sleep(NEWS_PAUSE).await;
                }
                () = sleep_until(deadline) => return Ok(followed),
                () = &mut stop => return Ok(followed),
            }
        }
    }

    async fn read_feed(
        &self,
        network: NetworkId,
        start: FeedStart,
        page_size: u32,
    ) -> Result<FeedPart, ApiError> {
        let max_events = usize::try_from(page_size).unwrap_or(usize::MAX);
        let _turn = self.followers.reads.acquire().await;
        let read = self.store.read_feed(FeedRequest { network, start, max_events }).await;
        read.map_err(unavailable)?.map_err(gone)
    }
}

impl From<FeedPart> for Followed {
    fn from(FeedPart { events, last, end }: FeedPart) -> Self {
        Self { events, next: last, has_more: last.n < end }
    }
}

fn too_many() -> ApiError {
    ApiError::new(
        Reason::TooManyRequests,
        "too many readers wait for events; try again later, or without wait",
    )
}

fn gone(gone: FeedGone) -> ApiError {
    let cure = "take a new place with after=now, read the keys anew, and go on from that place";
    let (cause, problem, at) = match gone {
        FeedGone::Trimmed(oldest) => {
            let problem = "the changes that follow are no longer kept (the oldest is in `oldest_epoch`)";
            ("trimmed", problem, ("oldest_epoch", oldest))
        }
        FeedGone::Rewritten(end) => {
            let problem = "is not in this mutation log, which was rewritten (a restored database, a failover), or \
                           is another one (the last is in `last_epoch`)";
            ("rewritten", problem, ("last_epoch", end))
        }
    };
    ApiError {
        field: Some("after".into()),
        metadata: vec![("cause", cause.to_owned()), (at.0, at.1.to_string())],
        ..ApiError::new(Reason::EventsGone, format!("after: {problem}: {cure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_bounded_in_all_and_by_network() {
        let followers = Followers::default();
        let network =
            |n: u8| NetworkId::parse(&format!("6ba7b810-9dad-41d1-80b4-0000000000{n:02x}")).unwrap();
        let mut waiting = vec![];
        for n in 0..4 {
            for _ in 0..MAX_WAITING_OF_NETWORK {
                waiting.push(followers.enter(network(n)).unwrap());
            }
            assert!(followers.enter(network(n)).is_none(), "of one network");
        }
        assert!(followers.enter(network(9)).is_none(), "of all");
        waiting.pop();
        assert!(followers.enter(network(9)).is_some(), "one has left");
        waiting.clear();
        assert!(followers.waiting.lock().is_empty());
    }
}
