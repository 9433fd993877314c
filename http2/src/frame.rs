//! Frames (RFC 9113, 4 and 6): their headers, padding and writing.

use crate::error::{ErrorCode, FrameError};

/// The octets that a client sends first (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame header, in bytes.
pub(crate) const FRAME_HEADER_LEN: usize = 9;
/// Largest payload that is accepted and sent, in bytes: the initial SETTINGS_MAX_FRAME_SIZE.
pub(crate) const MAX_FRAME_SIZE: usize = 16_384;

/// Frame types.
pub(crate) mod frame_type {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// Frame flags.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Identifiers of the settings that are sent or obeyed.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Length of the payload, in bytes.
    pub length: usize,
    /// One of [`frame_type`], or an unknown type.
    pub frame_type: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// The stream, or 0 for the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Parses the frame header that `input` begins with; None when `input` is too short.
    #[inline]
    pub(crate) fn parse(input: &[u8]) -> Option<Self> {
        let &[a, b, c, frame_type, flags, s, t, u, v] = input.first_chunk::<FRAME_HEADER_LEN>()?;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        Some(Self { length, frame_type, flags, stream: u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff })
    }

    /// Returns whether the frame has this flag.
    #[inline]
    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes a frame header for a payload of `length` bytes, at most [`MAX_FRAME_SIZE`].
#[inline]
pub(crate) fn write_header(frame_type: u8, flags: u8, stream: u32, length: usize, out: &mut Vec<u8>) {
    debug_assert!(length <= MAX_FRAME_SIZE, "the payload is split before");
    let [_, .., a, b, c] = length.to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, frame_type, flags, s, t, u, v]);
}

/// Writes a frame with a payload of up to [`MAX_FRAME_SIZE`] bytes.
#[inline]
pub(crate) fn write(frame_type: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    write_header(frame_type, flags, stream, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Returns a payload without its padding.
#[inline]
pub(crate) fn strip_padding<'i>(header: &FrameHeader, payload: &'i [u8]) -> Result<&'i [u8], FrameError> {
    if !header.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(FrameError::Connection(ErrorCode::FrameSizeError))?;
    let length = rest.len().checked_sub(padding.into());
    let length = length.ok_or(FrameError::Connection(ErrorCode::ProtocolError))?;
    Ok(&rest[..length])
}

/// Parses a payload that is one 32-bit number; None when it has another length.
#[inline]
pub(crate) fn parse_u32(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}
