//! Counts the work that input causes, so that tests can hold it to the bytes received.
//!
//! Work is counted in tests and with the feature `contract`; otherwise the functions are empty.

#[cfg(any(test, feature = "contract"))]
use std::cell::Cell;

/// Steps done on this thread.
#[cfg(any(test, feature = "contract"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Work {
    /// Bytes copied, scanned or decoded.
    pub bytes: usize,
    /// Header fields made, looked at or evicted.
    pub fields: usize,
    /// Streams, and entries of tables of streams, looked at.
    pub streams: usize,
}

#[cfg(any(test, feature = "contract"))]
impl Work {
    /// Returns all of it as one number.
    pub(crate) const fn total(self) -> usize {
        self.bytes + self.fields + self.streams
    }
}

#[cfg(any(test, feature = "contract"))]
thread_local! {
    static DONE: Cell<Work> = const { Cell::new(Work { bytes: 0, fields: 0, streams: 0 }) };
}

/// Returns the work done on this thread since the last call.
#[cfg(any(test, feature = "contract"))]
pub(crate) fn take() -> Work {
    DONE.take()
}

/// Counts bytes that were copied, scanned or decoded.
#[cfg(any(test, feature = "contract"))]
pub(crate) fn bytes(count: usize) {
    add(|work| work.bytes += count);
}

/// Counts header fields that were made, looked at or evicted.
#[cfg(any(test, feature = "contract"))]
pub(crate) fn fields(count: usize) {
    add(|work| work.fields += count);
}

/// Counts streams, or entries of tables of streams, that were looked at.
#[cfg(any(test, feature = "contract"))]
pub(crate) fn streams(count: usize) {
    add(|work| work.streams += count);
}

#[cfg(any(test, feature = "contract"))]
fn add(more: impl FnOnce(&mut Work)) {
    let mut work = DONE.get();
    more(&mut work);
    DONE.set(work);
}

/// Does nothing: only tests count.
#[cfg(not(any(test, feature = "contract")))]
#[inline]
pub(crate) const fn bytes(_: usize) {}

/// Does nothing: only tests count.
#[cfg(not(any(test, feature = "contract")))]
#[inline]
pub(crate) const fn fields(_: usize) {}

/// Does nothing: only tests count.
#[cfg(not(any(test, feature = "contract")))]
#[inline]
pub(crate) const fn streams(_: usize) {}
