//! Response data that waits for flow-control windows.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

use crate::header_block::HeaderBlock;
use crate::work;

/// Memory that a stream's pending data takes beside its chunks, in bytes.
pub(crate) const PENDING_COST: usize = 256;
/// Memory that a chunk takes beside its bytes, in bytes.
pub(crate) const CHUNK_COST: usize = 64;

/// The end of a response.
#[derive(Debug)]
pub enum EndStream {
    /// A trailer section.
    Trailers(HeaderBlock),
    /// An empty DATA frame.
    Data,
}

/// Data of one stream that waits for a window.
#[derive(Debug, Default)]
pub(crate) struct PendingData {
    chunks: VecDeque<Bytes>,
    /// Memory of the chunks, in bytes.
    size: usize,
    /// The end of the response, sent once all chunks are.
    pub end: Option<EndStream>,
    /// The task that waits until nothing is left.
    pub waker: Option<Waker>,
    /// Ticks that it has waited.
    ticks: u32,
}

impl PendingData {
    pub(crate) fn has_data(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Returns the memory that it takes, in bytes.
    pub(crate) const fn cost(&self) -> usize {
        PENDING_COST + self.size
    }

    /// Counts a tick and returns the ticks so far.
    pub(crate) const fn tick(&mut self) -> u32 {
        self.ticks = self.ticks.saturating_add(1);
        self.ticks
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.size += CHUNK_COST + chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Returns the length of the data, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.size - CHUNK_COST * self.chunks.len()
    }

    /// Moves `count` bytes, at most all that there are, to `out`.
    pub(crate) fn write(&mut self, mut count: usize, out: &mut Vec<u8>) {
        while count > 0
            && let Some(chunk) = self.chunks.front_mut()
        {
            let part = chunk.split_to(count.min(chunk.len()));
            work::bytes(part.len());
            out.extend_from_slice(&part);
            count -= part.len();
            self.size -= part.len();
            if chunk.is_empty() {
                self.size -= CHUNK_COST;
                self.chunks.pop_front();
            }
        }
    }
}
