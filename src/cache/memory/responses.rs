//! Encoded responses of one key: the same bytes answer every request until they expire.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{BootTime, Timestamp};

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
    /// Lease that it names; with another one, its encoder renews it.
    pub lease: Option<BootTime>,
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

    fn due(&self, now: Timestamp, lease: Option<BootTime>) -> Due {
        if self.refresh_at.is_some_and(|at| at <= now) {
            Due::Refresh
        } else if self.lease == lease {
            Due::Nothing
        } else {
            Due::Renewal
        }
    }
}

/// Work that a response needs before it is used again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The lease is another one.
    Renewal,
    /// Half of the token's life is over.
    Refresh,
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
    /// In the same way, `renew` makes it name another `lease`.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn get_or_encode<E>(
        &self,
        now: Timestamp,
        lease: Option<BootTime>,
        matches: impl Fn(&CachedResponse) -> bool,
        encode: impl FnOnce() -> Result<CachedResponse, E>,
        renew: impl FnOnce(&CachedResponse) -> EncodedResponse,
    ) -> Result<EncodedResponse, E> {
        let find = || {
            let responses = self.responses.load();
            let found = responses.iter().find(|response| matches(response) && response.is_valid_at(now));
            found.map(|response| (response.encoded.clone(), response.due(now, lease)))
        };
        let encoding = match find() {
            Some((encoded, Due::Nothing)) => return Ok(encoded),
            Some((encoded, Due::Refresh | Due::Renewal)) => match self.encoding.try_lock() {
                Some(encoding) => encoding,
                None => return Ok(encoded),
            },
            None => self.encoding.lock(),
        };
        let responses = self.responses.load();
        let found = responses.iter().find(|response| matches(response) && response.is_valid_at(now));
        // Another caller may have encoded it while this one waited for the lock.
        let new = match found.map(|response| (response, response.due(now, lease))) {
            Some((response, Due::Nothing)) => return Ok(response.encoded.clone()),
            Some((response, Due::Renewal)) => {
                CachedResponse { lease, encoded: renew(response), ..response.clone() }
            }
            Some((_, Due::Refresh)) | None => encode()?,
        };
        let encoded = new.encoded.clone();
        let others = responses.iter().filter(|response| !matches(response) && response.is_valid_at(now));
        let responses = std::iter::once(new).chain(others.take(MAX_RESPONSES - 1).cloned());
        self.responses.store(Arc::new(responses.collect()));
        drop(encoding);
        Ok(encoded)
    }

    /// Returns the response that `matches` and is valid, with its conditions.
    pub fn find(&self, now: Timestamp, matches: impl Fn(&CachedResponse) -> bool) -> Option<CachedResponse> {
        let responses = self.responses.load();
        responses.iter().find(|response| matches(response) && response.is_valid_at(now)).cloned()
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
            lease: None,
            refresh_at: Some(Timestamp::from_secs(refresh)),
            expires: Some(Timestamp::from_secs(expires)),
            encoded: EncodedResponse { bytes: format!("{refresh} {expires}").into(), offsets: [0; 2] },
        }
    }

    fn renew(response: &CachedResponse) -> EncodedResponse {
        let bytes = format!("{} renewed", str::from_utf8(&response.encoded.bytes).unwrap());
        EncodedResponse { bytes: bytes.into(), offsets: [0; 2] }
    }

    #[test]
    fn a_response_is_renewed_once_for_each_lease_and_not_encoded_anew() {
        let responses = ResponseCache::default();
        let get = |lease: Option<u64>| {
            let encode = || Ok::<_, ()>(response(5, 10));
            let lease = lease.map(BootTime::from_micros);
            responses.get_or_encode(Timestamp::from_secs(0), lease, |_| true, encode, renew).unwrap().bytes
        };
        for (lease, expected) in [(None, "5 10"), (Some(1), "5 10 renewed"), (Some(1), "5 10 renewed")] {
            assert_eq!(get(lease), expected);
        }
        assert_eq!(get(Some(2)), "5 10 renewed renewed");
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
            responses.get_or_encode(Timestamp::from_secs(now), None, |_| true, encode, renew).unwrap()
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
        responses.get_or_encode(now, None, |_| true, encode(1, 10), renew).unwrap();
        let _encoding = responses.encoding.lock();
        let later = Timestamp::from_secs(5);
        let old = responses.get_or_encode(later, None, |_| true, encode(100, 200), renew).unwrap();
        assert_eq!(old.bytes, "1 10");
    }
}
