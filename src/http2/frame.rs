//! Frames (RFC 9113, 4 and 6): what stands before their payload, and what is around it.

use super::code::{Code, Fault};

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before a payload.
pub const HEAD: usize = 9;
/// Largest payload, in bytes, which every peer takes and we ask for no more.
pub const MAX_PAYLOAD: usize = 16_384;

/// Types of frames.
pub mod kind {
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// Flags of frames.
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Settings that we have something to say about.
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    pub const ENABLE_PUSH: u16 = 0x2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub const MAX_FRAME_SIZE: u16 = 0x5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Of the payload, in bytes.
    pub length: usize,
    /// One of [`kind`], or one that we don't know.
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
}

impl FrameHead {
    /// The head at the beginning of `input`; None when it isn't all there.
    pub fn read(input: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s, t, u, v] = input.first_chunk::<HEAD>()?;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([s, t, u, v]) & 0x7fff_ffff })
    }

    /// Whether it has this flag.
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes what stands before a payload of `length` bytes, of which there are at most [`MAX_PAYLOAD`].
pub fn write_head(kind: u8, flags: u8, stream: u32, length: usize, out: &mut Vec<u8>) {
    debug_assert!(length <= MAX_PAYLOAD, "the payload is cut before");
    let [_, .., a, b, c] = length.to_be_bytes();
    let [s, t, u, v] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, s, t, u, v]);
}

/// Writes a frame with a payload of up to [`MAX_PAYLOAD`] bytes.
pub fn write(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    write_head(kind, flags, stream, payload.len(), out);
    out.extend_from_slice(payload);
}

/// A payload without its padding.
pub(super) fn unpadded<'i>(head: &FrameHead, payload: &'i [u8]) -> Result<&'i [u8], Fault> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Fault::Connection(Code::FrameSize))?;
    let length = rest.len().checked_sub(padding.into()).ok_or(Fault::Connection(Code::Protocol))?;
    Ok(&rest[..length])
}

/// The number that all of a payload is.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}
