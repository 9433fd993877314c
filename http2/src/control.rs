//! Frames about the connection and about open streams (RFC 9113, 6.3 to 6.9).

use std::cmp::Reverse;

use crate::error::{ErrorCode, FrameError};
use crate::frame::{self, FrameHeader, MAX_FRAME_SIZE, flag, frame_type, parse_u32, setting};
use crate::session::{DRAIN_PING, Session, Shutdown};
use crate::stream::StreamId;
use crate::work;

/// Largest window (RFC 9113, 6.9.1).
const MAX_WINDOW_SIZE: i64 = 0x7fff_ffff;
/// Initial SETTINGS_HEADER_TABLE_SIZE, in bytes (RFC 9113, 6.5.2).
const DEFAULT_HEADER_TABLE_SIZE: u32 = 4_096;

impl<T> Session<T> {
    pub(crate) fn on_priority(&self, header: &FrameHeader) -> Result<(), FrameError> {
        let id = header.stream;
        match header.length {
            5 => Ok(()),
            _ if self.streams.contains_key(&id) => Err(FrameError::Stream(id, ErrorCode::FrameSizeError)),
            _ => Err(FrameError::Connection(ErrorCode::FrameSizeError)),
        }
    }

    pub(crate) fn on_rst_stream(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        if payload.len() != 4 {
            return Err(FrameError::Connection(ErrorCode::FrameSizeError));
        }
        if header.stream > self.last_stream_id || header.stream.is_multiple_of(2) {
            return Err(FrameError::Connection(ErrorCode::ProtocolError));
        }
        self.reset_by_peer(header.stream);
        Ok(())
    }

    /// Handles SETTINGS (RFC 9113, 6.5): applies the values that concern a server, and
    /// acknowledges.
    pub(crate) fn on_settings(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        if header.has(flag::ACK) {
            return match payload.is_empty() {
                true => Ok(()),
                false => Err(FrameError::Connection(ErrorCode::FrameSizeError)),
            };
        }
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(FrameError::Connection(ErrorCode::FrameSizeError));
        };
        work::bytes(payload.len());
        // The last of several initial window sizes applies, and the largest must be valid.
        let (mut initial_window_size, mut largest) = (None, 0);
        for &[a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                setting::HEADER_TABLE_SIZE => {
                    self.owes_table_size_update |= value < DEFAULT_HEADER_TABLE_SIZE;
                }
                setting::ENABLE_PUSH if value > 1 => {
                    return Err(FrameError::Connection(ErrorCode::ProtocolError));
                }
                setting::INITIAL_WINDOW_SIZE => {
                    initial_window_size = Some(value.into());
                    largest = value.max(largest);
                }
                // No larger frames are sent, whatever it says.
                setting::MAX_FRAME_SIZE if !(MAX_FRAME_SIZE as u32..1 << 24).contains(&value) => {
                    return Err(FrameError::Connection(ErrorCode::ProtocolError));
                }
                // Other settings don't concern a server.
                _ => {}
            }
        }
        if let Some(size) = initial_window_size {
            self.set_initial_window_size(size, largest.into())?;
        }
        frame::write(frame_type::SETTINGS, flag::ACK, 0, &[], &mut self.out);
        self.send_pending();
        Ok(())
    }

    /// Changes the initial window size, also of open streams (RFC 9113, 6.9.2).
    ///
    /// Windows may become negative by it. No stream is touched, however many there are.
    fn set_initial_window_size(&mut self, size: i64, largest: i64) -> Result<(), FrameError> {
        if largest + self.largest_window_offset() > MAX_WINDOW_SIZE {
            return Err(FrameError::Connection(ErrorCode::FlowControlError));
        }
        self.initial_window_size = size;
        Ok(())
    }

    /// Returns the largest window offset of a stream, at least 0.
    fn largest_window_offset(&self) -> i64 {
        work::streams(2);
        let with_data = self.send_order.last();
        let without_data = self.send_order.range(..(true, i64::MIN, Reverse(StreamId::MAX))).next_back();
        let offsets = [with_data, without_data].into_iter().flatten().map(|(_, offset, _)| *offset);
        offsets.max().unwrap_or(0).max(0)
    }

    pub(crate) fn on_ping(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        if payload.len() != DRAIN_PING.len() {
            return Err(FrameError::Connection(ErrorCode::FrameSizeError));
        }
        if !header.has(flag::ACK) {
            frame::write(frame_type::PING, flag::ACK, 0, payload, &mut self.out);
        } else if payload == DRAIN_PING && self.shutdown == Shutdown::Draining {
            // The peer has received the first GOAWAY: all streams opened before it have arrived.
            self.shutdown = Shutdown::Final;
            self.write_goaway(self.last_stream_id, ErrorCode::NoError);
        }
        Ok(())
    }

    pub(crate) const fn on_goaway(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        // The last stream, and the code.
        if payload.len() < 8 {
            return Err(FrameError::Connection(ErrorCode::FrameSizeError));
        }
        self.goaway_received = true;
        Ok(())
    }

    /// Handles WINDOW_UPDATE (RFC 9113, 6.9), and sends data that waited for the window.
    pub(crate) fn on_window_update(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<(), FrameError> {
        let id = header.stream;
        let increment = parse_u32(payload).ok_or(FrameError::Connection(ErrorCode::FrameSizeError))?;
        let increment = i64::from(increment & 0x7fff_ffff);
        if id == 0 {
            if increment == 0 {
                return Err(FrameError::Connection(ErrorCode::ProtocolError));
            }
            self.send_window += increment;
            if self.send_window > MAX_WINDOW_SIZE {
                return Err(FrameError::Connection(ErrorCode::FlowControlError));
            }
            self.send_pending();
            return Ok(());
        }
        if !self.streams.contains_key(&id) {
            // The peer may have sent the frame before the response arrived.
            let was_open = id <= self.last_stream_id && !id.is_multiple_of(2);
            return if was_open { Ok(()) } else { Err(FrameError::Connection(ErrorCode::ProtocolError)) };
        }
        if increment == 0 {
            return Err(FrameError::Stream(id, ErrorCode::ProtocolError));
        }
        let initial_window_size = self.initial_window_size;
        let fits = self.update(id, |stream| {
            let fits = initial_window_size + stream.window_offset + increment <= MAX_WINDOW_SIZE;
            stream.window_offset += if fits { increment } else { 0 };
            fits
        });
        if fits == Some(false) {
            return Err(FrameError::Stream(id, ErrorCode::FlowControlError));
        }
        self.send_pending();
        Ok(())
    }
}
