//! Limits on a connection of the authz plane.

use std::time::Duration;

use http2_server::Limits;

/// Interval at which a connection looks for frames, messages and responses that take too long.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// Most streams to modules of the process: one for each Envoy beside it, and room for those that
/// are replaced.
pub(super) const MAX_EDGE_STREAMS: usize = 4;
/// Bytes that may wait to be written before no more is read.
const MAX_OUTPUT: usize = 64 * 1024;

/// Limits on what a client may take of the process by one connection.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(test, derive(Default))]
pub struct ConnectionLimits {
    /// Longest time for the first bytes, a frame, a header block, and the message of a stream.
    pub read_timeout: Duration,
    /// Time without a byte from the client after which it is sent a PING.
    pub keepalive_interval: Duration,
    /// Longest time for the client to send anything after that PING.
    pub keepalive_timeout: Duration,
    /// Most streams at once.
    pub max_concurrent_streams: u32,
    /// Most frames in a keepalive interval that bring no request forward, resets among them.
    pub abuse_budget: u32,
    /// Largest header list of a request, in bytes.
    pub max_header_list_size: u32,
    /// Longest time for open streams once the connection is to end.
    pub drain_timeout: Duration,
    /// Longest time for the client to receive the last GOAWAY.
    pub close_timeout: Duration,
    /// Longest time for the client to accept a response, or a part of it.
    pub write_timeout: Duration,
    /// Longest time for a stream of the fallback service.
    pub fallback_timeout: Duration,
    /// Longest time for a stream that watches health.
    pub watch_timeout: Duration,
    /// Most streams of the fallback service at once.
    pub max_fallback_streams: u32,
    /// Most bytes of responses that wait for the client's windows.
    pub max_pending: usize,
}

impl ConnectionLimits {
    /// Returns the part that HTTP/2 itself keeps to.
    pub fn of_session(&self) -> Limits {
        let ticks =
            |duration: Duration| u32::try_from(duration.as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX);
        Limits {
            max_concurrent_streams: self.max_concurrent_streams,
            max_header_list_size: self.max_header_list_size,
            abuse_budget: self.abuse_budget,
            max_output: MAX_OUTPUT,
            max_pending: self.max_pending,
            read_ticks: ticks(self.read_timeout),
            write_ticks: ticks(self.write_timeout),
        }
    }
}
