//! What a client says of the connection and of calls that are there (RFC 9113, 6.3 to 6.9).

use std::cmp::Reverse;

use super::code::{Code, Fault};
use super::frame::{self, FrameHead, MAX_PAYLOAD, flag, kind, number, setting};
use super::session::{FAREWELL, Leaving, Session, StreamId};
use super::work;

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
        work::bytes(payload.len());
        // Of many initial windows the last is what counts, and the largest what must fit.
        let (mut initial_window, mut largest) = (None, 0);
        for &[a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                setting::HEADER_TABLE_SIZE => self.owes_table_size |= value < FIRST_TABLE_SIZE,
                setting::ENABLE_PUSH if value > 1 => return Err(Fault::Connection(Code::Protocol)),
                setting::INITIAL_WINDOW_SIZE => {
                    initial_window = Some(value.into());
                    largest = value.max(largest);
                }
                // More than what we send.
                setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD as u32..1 << 24).contains(&value) => {
                    return Err(Fault::Connection(Code::Protocol));
                }
                // Nothing of ours depends on it.
                _ => {}
            }
        }
        if let Some(window) = initial_window {
            self.set_initial_window(window, largest.into())?;
        }
        frame::write(kind::SETTINGS, flag::ACK, 0, &[], &mut self.out);
        self.pump();
        Ok(())
    }

    /// It counts for calls that have begun, too, whose windows may become negative by it (RFC 9113,
    /// 6.9.2). No call is touched, however many there are: what they may send goes by it from here
    /// on.
    fn set_initial_window(&mut self, window: i64, largest: i64) -> Result<(), Fault> {
        if largest + self.largest_credit() > MAX_WINDOW {
            return Err(Fault::Connection(Code::FlowControl));
        }
        self.initial_window = window;
        Ok(())
    }

    /// The most that a call may send beyond the initial window; 0 when none may send more.
    fn largest_credit(&self) -> i64 {
        work::streams(2);
        let with_data = self.ranks.last();
        let without = self.ranks.range(..(true, i64::MIN, Reverse(StreamId::MAX))).next_back();
        let credits = [with_data, without].into_iter().flatten().map(|(_, credit, _)| *credit);
        credits.max().unwrap_or(0).max(0)
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
            self.pump();
            return Ok(());
        }
        if !self.streams.contains_key(&id) {
            // It may have been sent before the answer came.
            let was_there = id <= self.last && !id.is_multiple_of(2);
            return if was_there { Ok(()) } else { Err(Fault::Connection(Code::Protocol)) };
        }
        if more == 0 {
            return Err(Fault::Stream(id, Code::Protocol));
        }
        let initial_window = self.initial_window;
        let fits = self.change(id, |stream| {
            let fits = initial_window + stream.credit + more <= MAX_WINDOW;
            stream.credit += if fits { more } else { 0 };
            fits
        });
        if fits == Some(false) {
            return Err(Fault::Stream(id, Code::FlowControl));
        }
        self.pump();
        Ok(())
    }
}
