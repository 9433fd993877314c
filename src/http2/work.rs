//! Counts what input makes the protocol do, so that tests can hold it to the bytes received.
//!
//! Only tests count; elsewhere the functions are empty.

#[cfg(test)]
use std::cell::Cell;

/// Steps done so far on this thread.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes copied, scanned or decoded.
    pub bytes: usize,
    /// Header fields made, looked at or evicted.
    pub fields: usize,
    /// Streams, and entries of tables of streams, looked at.
    pub streams: usize,
}

#[cfg(test)]
impl Work {
    /// All of it as one number.
    pub const fn total(self) -> usize {
        self.bytes + self.fields + self.streams
    }
}

#[cfg(test)]
thread_local! {
    static DONE: Cell<Work> = const { Cell::new(Work { bytes: 0, fields: 0, streams: 0 }) };
}

/// Returns the work done on this thread since the last call.
#[cfg(test)]
pub fn take() -> Work {
    DONE.take()
}

/// Counts bytes that were copied, scanned or decoded.
#[cfg_attr(not(test), expect(unused_variables, clippy::missing_const_for_fn, reason = "only tests count"))]
pub(super) fn bytes(count: usize) {
    #[cfg(test)]
    add(|work| work.bytes += count);
}

/// Counts header fields that were made, looked at or evicted.
#[cfg_attr(not(test), expect(unused_variables, clippy::missing_const_for_fn, reason = "only tests count"))]
pub(super) fn fields(count: usize) {
    #[cfg(test)]
    add(|work| work.fields += count);
}

/// Counts streams, or entries of tables of streams, that were looked at.
#[cfg_attr(not(test), expect(unused_variables, clippy::missing_const_for_fn, reason = "only tests count"))]
pub(super) fn streams(count: usize) {
    #[cfg(test)]
    add(|work| work.streams += count);
}

#[cfg(test)]
fn add(more: impl FnOnce(&mut Work)) {
    let mut work = DONE.get();
    more(&mut work);
    DONE.set(work);
}
