//! Flow-control windows, as the client accounts for them (RFC 9113, 5.2).

use std::collections::HashMap;

use super::frames::DEFAULT_WINDOW;
use crate::rig::support::Must;

/// Flow-control windows of one direction.
pub struct Windows {
    /// The initial window of each stream.
    pub initial: i64,
    connection: i64,
    /// The window of each stream, less the initial one.
    streams: HashMap<u32, i64>,
}

impl Windows {
    pub fn new() -> Self {
        Self { initial: DEFAULT_WINDOW, connection: DEFAULT_WINDOW, streams: HashMap::new() }
    }

    pub fn left(&self, stream: u32) -> i64 {
        self.connection.min(self.initial + self.streams.get(&stream).unwrap_or(&0))
    }

    pub fn grant(&mut self, stream: u32, more: i64) {
        match stream {
            0 => self.connection += more,
            _ => *self.streams.entry(stream).or_default() += more,
        }
    }

    pub fn spend(&mut self, stream: u32, bytes: usize) {
        let bytes = i64::try_from(bytes).must("a frame's length");
        self.grant(0, -bytes);
        self.grant(stream, -bytes);
    }
}
