//! Encoded responses of one key: the same bytes answer every request until they expire.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::Timestamp;

/// Most responses kept for one key; routes rarely name more audiences.
const MAX_RESPONSES: usize = 8;

/// Response in the bytes that go to the client. The cache doesn't look inside: its encoder owns the
/// layout, and keeps two offsets here for itself.
#[derive(Clone, Default)]
pub struct EncodedResponse {
    /// Encoded message.
    pub bytes: Bytes,
    /// Offsets into the message; only the encoder knows their meaning.
    pub offsets: [usize; 2],
}

/// Encoded response, and the conditions under which it may be used.
#[derive(Clone)]
pub struct CachedResponse {
    /// Generation of the settings under which it was encoded.
    pub generation: u64,
    /// Audience of the token that it carries; the outer `None` means no token.
    pub token: Option<Option<Box<str>>>,
    /// Time after which the next caller encodes a new one.
    pub refresh_at: Option<Timestamp>,
    /// Time after which it must not be used.
    pub expires: Option<Timestamp>,
    /// The response.
    pub encoded: EncodedResponse,
}

impl CachedResponse {
    fn is_valid_at(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|at| now < at)
    }

    fn needs_refresh(&self, now: Timestamp) -> bool {
        self.refresh_at.is_some_and(|at| at <= now)
    }
}

/// Encoded responses of one entry. Reading takes no lock; encoding does.
#[derive(Default)]
pub struct ResponseCache {
    responses: ArcSwap<Vec<CachedResponse>>,
    encoding: Mutex<()>,
}

impl ResponseCache {
    /// Returns a valid response that `matches`, or has `encode` make one. A response that is due
    /// for refresh is encoded anew by the first caller, while the others use it until it expires.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn get_or_encode<E>(
        &self,
        now: Timestamp,
        matches: impl Fn(&CachedResponse) -> bool,
        encode: impl FnOnce() -> Result<CachedResponse, E>,
    ) -> Result<EncodedResponse, E> {
        let find = || {
            let responses = self.responses.load();
            let found = responses.iter().find(|response| matches(response) && response.is_valid_at(now));
            found.map(|response| (response.encoded.clone(), response.needs_refresh(now)))
        };
        let encoding = match find() {
            Some((encoded, false)) => return Ok(encoded),
            Some((encoded, true)) => match self.encoding.try_lock() {
                Some(encoding) => encoding,
                None => return Ok(encoded),
            },
            None => self.encoding.lock(),
        };
        // Another caller may have encoded it while this one waited for the lock.
        if let Some((encoded, false)) = find() {
            return Ok(encoded);
        }
        let new = encode()?;
        let encoded = new.encoded.clone();
        let others = self.responses.load();
        let others = others.iter().filter(|response| !matches(response) && response.is_valid_at(now));
        let responses = std::iter::once(new).chain(others.take(MAX_RESPONSES - 1).cloned());
        self.responses.store(Arc::new(responses.collect()));
        drop(encoding);
        Ok(encoded)
    }

    /// Takes over the responses of an older entry for the same state of the same key.
    pub fn copy_from(&self, older: &Self) {
        self.responses.store(older.responses.load_full());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn response(refresh: i64, expires: i64) -> CachedResponse {
        CachedResponse {
            generation: 1,
            token: None,
            refresh_at: Some(Timestamp::from_secs(refresh)),
            expires: Some(Timestamp::from_secs(expires)),
            encoded: EncodedResponse { bytes: format!("{refresh} {expires}").into(), offsets: [0; 2] },
        }
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
            responses.get_or_encode(Timestamp::from_secs(now), |_| true, encode).unwrap()
        };
        for (now, expected) in [(0, 1), (4, 1), (5, 2), (9, 2), (30, 3)] {
            let encoded = get(now);
            let (_, expires) = str::from_utf8(&encoded.bytes).unwrap().split_once(' ').unwrap();
            assert!(expires.parse::<i64>().unwrap() > now);
            assert_eq!(count.get(), expected, "at {now}");
        }
    }

    #[test]
    fn while_one_caller_refreshes_the_others_use_the_old_response() {
        let responses = ResponseCache::default();
        let encode = |refresh, expires| move || Ok::<_, ()>(response(refresh, expires));
        let now = Timestamp::from_secs(0);
        responses.get_or_encode(now, |_| true, encode(1, 10)).unwrap();
        let _encoding = responses.encoding.lock();
        let later = Timestamp::from_secs(5);
        let old = responses.get_or_encode(later, |_| true, encode(100, 200)).unwrap();
        assert_eq!(old.bytes, "1 10");
    }
}
