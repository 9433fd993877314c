//! What a client says of the connection and of calls that are there (RFC 9113, 6.3 to 6.9).

use super::code::{Code, Fault};
use super::frame::{self, FrameHead, MAX_PAYLOAD, flag, kind, number, setting};
use super::session::{FAREWELL, Leaving, Session};

/// Largest window (RFC 9113, 6.9.1).
const MAX_WINDOW: i64 = 0x7fff_ffff;
/// Of a table of header fields, before anybody has said something else, in bytes.
const FIRST_TABLE_SIZE: u32 = 4_096;

impl<C> Session<C> {
    pub(super) fn on_priority(&self, head: &FrameHead) -> Result<(), Fault> {
        match head.length {
            5 => Ok(()),
            _ if self.streams.contains_key(&head.stream) => Err(Fault::Stream(head.stream, Code::FrameSize)),
            _ => Err(Fault::Connection(Code::FrameSize)),
        }
    }

    pub(super) fn on_reset(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(Fault::Connection(Code::FrameSize));
        }
        if head.stream > self.last || head.stream.is_multiple_of(2) {
            return Err(Fault::Connection(Code::Protocol));
        }
        self.given_up(head.stream);
        Ok(())
    }

    pub(super) fn on_settings(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Fault::Connection(Code::FrameSize)) };
        }
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(Fault::Connection(Code::FrameSize));
        };
        for &[a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                setting::HEADER_TABLE_SIZE => self.owes_table_size |= value < FIRST_TABLE_SIZE,
                setting::ENABLE_PUSH if value > 1 => return Err(Fault::Connection(Code::Protocol)),
                setting::INITIAL_WINDOW_SIZE => self.set_first_window(value.into())?,
                // More than what we send.
                setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD as u32..1 << 24).contains(&value) => {
                    return Err(Fault::Connection(Code::Protocol));
                }
                // Nothing of ours depends on it.
                _ => {}
            }
        }
        frame::write(kind::SETTINGS, flag::ACK, 0, &[], &mut self.out);
        Ok(())
    }

    /// It counts for calls that have begun, too, whose windows may become negative by it (RFC 9113, 6.9.2).
    fn set_first_window(&mut self, window: i64) -> Result<(), Fault> {
        let change = window - self.first_window;
        self.first_window = window;
        let largest = self.streams.values().map(|stream| stream.send_window).max();
        if window > MAX_WINDOW || largest.is_some_and(|largest| largest + change > MAX_WINDOW) {
            return Err(Fault::Connection(Code::FlowControl));
        }
        for stream in self.streams.values_mut() {
            stream.send_window += change;
        }
        if change > 0 {
            self.pump_all();
        }
        Ok(())
    }

    pub(super) fn on_ping(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if payload.len() != FAREWELL.len() {
            return Err(Fault::Connection(Code::FrameSize));
        }
        if !head.has(flag::ACK) {
            frame::write(kind::PING, flag::ACK, 0, payload, &mut self.out);
        } else if payload == FAREWELL && self.leaving == Leaving::Announced {
            // It has heard: what was on its way is here.
            self.leaving = Leaving::Final;
            self.write_goaway(self.last, Code::None);
        }
        Ok(())
    }

    pub(super) const fn on_goaway(&mut self, payload: &[u8]) -> Result<(), Fault> {
        // The last stream, and why.
        if payload.len() < 8 {
            return Err(Fault::Connection(Code::FrameSize));
        }
        self.peer_leaves = true;
        Ok(())
    }

    pub(super) fn on_window_update(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let id = head.stream;
        let more = number(payload).ok_or(Fault::Connection(Code::FrameSize))? & 0x7fff_ffff;
        let more = i64::from(more);
        if id == 0 {
            if more == 0 {
                return Err(Fault::Connection(Code::Protocol));
            }
            self.send_window += more;
            if self.send_window > MAX_WINDOW {
                return Err(Fault::Connection(Code::FlowControl));
            }
            self.pump_waiting();
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            // It may have been sent before the answer came.
            let was_there = id <= self.last && !id.is_multiple_of(2);
            return if was_there { Ok(()) } else { Err(Fault::Connection(Code::Protocol)) };
        };
        if more == 0 {
            return Err(Fault::Stream(id, Code::Protocol));
        }
        stream.send_window += more;
        if stream.send_window > MAX_WINDOW {
            return Err(Fault::Stream(id, Code::FlowControl));
        }
        self.pump(id);
        Ok(())
    }
}
