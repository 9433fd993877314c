//! Time limits, counted in ticks of the driver's clock.

use crate::session::Session;
use crate::stream::{Stream, StreamId};
use crate::work;

/// The reason why a connection must end at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// A frame or a header block has taken too long to arrive.
    Read,
    /// The peer has taken too long to accept output, or to open a window for a response.
    Write,
}

impl<T> Session<T> {
    /// Returns whether something is unfinished, so that ticks count.
    ///
    /// `has_partial_frame` says whether the driver holds octets that aren't a whole frame.
    pub fn needs_ticks(&self, has_partial_frame: bool) -> bool {
        let waits_for_peer = !self.output().is_empty() || self.has_pending();
        self.is_reading(has_partial_frame) || waits_for_peer || self.incomplete > 0
    }

    /// Counts a tick, and returns the streams whose messages are late.
    ///
    /// The driver answers these, which ends them.
    ///
    /// # Errors
    /// The limit that ends the connection.
    pub fn tick(&mut self, has_partial_frame: bool) -> Result<Vec<StreamId>, Timeout> {
        if !self.needs_ticks(has_partial_frame) {
            self.stall.read_ticks = 0;
            self.stall.write_goal = None;
            return Ok(vec![]);
        }
        self.stall.read_ticks =
            if self.is_reading(has_partial_frame) { self.stall.read_ticks + 1 } else { 0 };
        if self.stall.read_ticks > self.limits.read_ticks {
            return Err(Timeout::Read);
        }
        if self.tick_output().max(self.tick_pending()) > self.limits.write_ticks {
            return Err(Timeout::Write);
        }
        Ok(self.tick_messages())
    }

    /// Returns whether a frame or a header block is incomplete; one that isn't asked for never is.
    fn is_reading(&self, has_partial_frame: bool) -> bool {
        !self.is_output_full() && (has_partial_frame || self.has_partial_header_block())
    }

    /// Counts a tick of the output, and returns those since its oldest byte was due.
    fn tick_output(&mut self) -> u32 {
        let (written, left) = (self.stall.written, self.output().len());
        self.stall.write_goal = match self.stall.write_goal {
            _ if left == 0 => None,
            Some((goal, ticks)) if written < goal => Some((goal, ticks + 1)),
            Some(_) | None => Some((written + left as u64, 0)),
        };
        self.stall.write_goal.map_or(0, |(_, ticks)| ticks)
    }

    /// Counts a tick of each response that waits for windows, and returns those of the oldest.
    fn tick_pending(&mut self) -> u32 {
        if self.pending == 0 {
            return 0;
        }
        work::streams(self.streams.len());
        let pending = self.streams.values_mut().filter_map(|stream| stream.pending.as_mut());
        pending.map(|pending| pending.tick()).max().unwrap_or(0)
    }

    /// Counts a tick of each incomplete message, and returns the streams that are late.
    fn tick_messages(&mut self) -> Vec<StreamId> {
        if self.incomplete == 0 {
            return vec![];
        }
        work::streams(self.streams.len());
        let is_incomplete =
            |stream: &Stream<T>| !(stream.half_closed || stream.headers_sent || stream.streaming);
        let mut late = vec![];
        for (&id, stream) in self.streams.iter_mut().filter(|(_, stream)| is_incomplete(stream)) {
            stream.ticks = stream.ticks.saturating_add(1);
            if stream.ticks > self.limits.read_ticks {
                late.push(id);
            }
        }
        late
    }
}
