//! Encoded responses of one key: the same bytes answer every request until they expire.

use std::mem::size_of;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;

use super::template::{Conditions, SplitResponse};
use crate::clock::Timestamp;

/// Most responses kept for one key; routes rarely name more audiences.
const MAX_RESPONSES: usize = 8;
/// Time that doesn't come.
const NEVER: Timestamp = Timestamp::from_micros(i64::MAX);

/// Response in the bytes that go to the client, with two offsets into it. Only its encoder knows
/// their meaning.
#[derive(Clone, Default)]
pub struct EncodedResponse {
    /// Encoded message.
    pub bytes: Bytes,
    /// Offsets into the message.
    pub offsets: [usize; 2],
}

/// Encoded response, and its times.
#[derive(Clone)]
pub struct CachedResponse {
    encoded: SplitResponse,
    /// Time after which the next caller encodes a new one.
    refresh_at: Timestamp,
    /// Time after which it must not be used.
    expires: Timestamp,
    /// Another response of the same key, under other conditions.
    next: Option<Arc<Self>>,
}

impl CachedResponse {
    /// Makes a response that is encoded anew from `refresh_at` on, and not used from `expires` on.
    pub fn new(encoded: SplitResponse, refresh_at: Option<Timestamp>, expires: Option<Timestamp>) -> Self {
        let (refresh_at, expires) = (refresh_at.unwrap_or(NEVER), expires.unwrap_or(NEVER));
        Self { encoded, refresh_at, expires, next: None }
    }

    /// Returns the response, for its encoder.
    pub const fn encoded(&self) -> &SplitResponse {
        &self.encoded
    }

    /// Returns the time from which on it is encoded anew, if there is one.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        Some(self.refresh_at).filter(|at| *at != NEVER)
    }

    /// Returns the time from which on it isn't used, if there is one.
    pub fn expires(&self) -> Option<Timestamp> {
        Some(self.expires).filter(|at| *at != NEVER)
    }

    fn is_valid_at(&self, now: Timestamp) -> bool {
        now < self.expires
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.refresh_at <= now
    }

    /// Returns it and those after it.
    fn all(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |response| response.next.as_ref())
    }
}

/// Encoded responses of one entry. Reading takes no lock; encoding does.
#[derive(Default)]
pub struct ResponseCache {
    responses: ArcSwapOption<CachedResponse>,
    encoding: Mutex<()>,
}

impl ResponseCache {
    /// Returns a valid response whose conditions `matches`, or has `encode` make one; and true if
    /// one was encoded. A response that is due for refresh is encoded anew by the first caller,
    /// while the others use it until it expires.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn get_or_encode<E>(
        &self,
        now: Timestamp,
        matches: impl Fn(&Conditions) -> bool,
        encode: impl FnOnce() -> Result<CachedResponse, E>,
    ) -> Result<(Arc<CachedResponse>, bool), E> {
        let fits =
            |response: &CachedResponse| matches(response.encoded.conditions()) && response.is_valid_at(now);
        let find = || {
            let responses = self.responses.load();
            responses.iter().flat_map(CachedResponse::all).find(|response| fits(response)).map(Arc::clone)
        };
        let encoding = match find() {
            Some(response) if !response.is_due(now) => return Ok((response, false)),
            Some(response) => match self.encoding.try_lock() {
                Some(encoding) => encoding,
                None => return Ok((response, false)),
            },
            None => self.encoding.lock(),
        };
        // Another caller may have encoded it while this one waited for the lock.
        if let Some(response) = find().filter(|response| !response.is_due(now)) {
            return Ok((response, false));
        }
        let mut new = encode()?;
        let responses = self.responses.load_full();
        let others = responses.iter().flat_map(CachedResponse::all);
        let others = others.filter(|other| !matches(other.encoded.conditions()) && other.is_valid_at(now));
        let others: Vec<&Arc<CachedResponse>> = others.take(MAX_RESPONSES - 1).collect();
        new.next = others.into_iter().rev().fold(None, |next, other| {
            let other = CachedResponse { next, ..CachedResponse::clone(other) };
            Some(Arc::new(other))
        });
        let new = Arc::new(new);
        self.responses.store(Some(Arc::clone(&new)));
        drop(encoding);
        Ok((new, true))
    }

    /// Takes over the responses of an older entry for the same state of the same key.
    pub fn copy_from(&self, older: &Self) {
        self.responses.store(older.responses.load_full());
    }

    /// Returns the bytes of the responses on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let responses = self.responses.load();
        let all = responses.iter().flat_map(CachedResponse::all);
        // With the counters of each `Arc`.
        all.map(|response| size_of::<CachedResponse>() + 16 + response.encoded.heap_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::{Half, Templates};
    use super::*;
    use std::cell::Cell;

    const ANY: fn(&Conditions) -> bool = |_| true;

    fn response_under(generation: u64, refresh: i64, expires: i64) -> CachedResponse {
        let text = format!("{refresh} {expires}");
        let half = Half { bytes: text.as_bytes(), own: vec![] };
        let conditions = Conditions { generation, token: None };
        let encoded = Templates::default().split(conditions, [half, Half { bytes: b"", own: vec![] }]);
        let time = |secs| Some(Timestamp::from_secs(secs));
        CachedResponse::new(encoded, time(refresh), time(expires))
    }

    fn response(refresh: i64, expires: i64) -> CachedResponse {
        response_under(1, refresh, expires)
    }

    fn text((response, is_new): (Arc<CachedResponse>, bool)) -> (String, bool) {
        let mut out = vec![];
        response.encoded().write(&mut out, |_| {});
        (String::from_utf8(out).unwrap(), is_new)
    }

    #[test]
    fn a_response_is_encoded_once_refreshed_when_due_and_never_used_after_its_expiry() {
        let responses = ResponseCache::default();
        let count = Cell::new(0);
        let get = |now: i64| {
            let encode = || {
                count.set(count.get() + 1);
                Ok::<_, ()>(response(now + 5, now + 10))
            };
            text(responses.get_or_encode(Timestamp::from_secs(now), ANY, encode).unwrap())
        };
        for (now, expected) in [(0, 1), (4, 1), (5, 2), (9, 2), (30, 3)] {
            let before = count.get();
            let (encoded, is_new) = get(now);
            let (_, expires) = encoded.split_once(' ').unwrap();
            assert!(expires.parse::<i64>().unwrap() > now);
            assert_eq!((count.get(), is_new), (expected, before != expected), "at {now}");
        }
    }

    #[test]
    fn while_one_caller_refreshes_the_others_use_the_old_response() {
        let responses = ResponseCache::default();
        let encode = |refresh, expires| move || Ok::<_, ()>(response(refresh, expires));
        let now = Timestamp::from_secs(0);
        responses.get_or_encode(now, ANY, encode(1, 10)).unwrap();
        let _encoding = responses.encoding.lock();
        let later = Timestamp::from_secs(5);
        let old = responses.get_or_encode(later, ANY, encode(100, 200)).unwrap();
        assert_eq!(text(old), ("1 10".to_owned(), false));
    }

    #[test]
    fn responses_under_other_conditions_are_kept_beside_up_to_a_bound() {
        let responses = ResponseCache::default();
        let now = Timestamp::from_secs(0);
        let get = |generation: u64| {
            let matches = move |conditions: &Conditions| conditions.generation == generation;
            let encode = || Ok::<_, ()>(response_under(generation, 5, 10 + generation as i64));
            text(responses.get_or_encode(now, matches, encode).unwrap())
        };
        for generation in 0..20 {
            assert_eq!(get(generation), (format!("5 {}", 10 + generation), true));
        }
        for generation in 12..20 {
            assert_eq!(get(generation), (format!("5 {}", 10 + generation), false));
        }
        assert!(get(11).1, "the least recently encoded has been removed");
    }
}
