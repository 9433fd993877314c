//! Flow control, as the client keeps its books of it (RFC 9113, 5.2).

use std::collections::HashMap;

use super::frames::DEFAULT_WINDOW;
use crate::rig::support::Must;

/// How much may still be sent, in one direction.
pub struct Windows {
    /// What each stream begins with.
    pub initial: i64,
    connection: i64,
    /// What each stream was given beyond that, without what was sent.
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
