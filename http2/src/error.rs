//! Errors of a connection and of a stream.

use thiserror::Error;

/// Error codes (RFC 9113, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// NO_ERROR: a graceful end.
    NoError = 0x0,
    /// PROTOCOL_ERROR: the peer broke a rule that has no code of its own.
    ProtocolError = 0x1,
    /// INTERNAL_ERROR: the server failed.
    InternalError = 0x2,
    /// FLOW_CONTROL_ERROR: the peer sent more than a window allows.
    FlowControlError = 0x3,
    /// STREAM_CLOSED: a frame arrived for a stream that had ended.
    StreamClosed = 0x5,
    /// FRAME_SIZE_ERROR: a frame has a length that its type doesn't allow.
    FrameSizeError = 0x6,
    /// REFUSED_STREAM: the request wasn't processed, so the peer may retry it.
    RefusedStream = 0x7,
    /// COMPRESSION_ERROR: the field table can't be maintained any more.
    CompressionError = 0x9,
    /// ENHANCE_YOUR_CALM: the peer causes more load than it may.
    EnhanceYourCalm = 0xb,
}

/// The end of a connection.
///
/// The driver writes the output that is left ([`Session::output`](crate::Session::output)), then
/// closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the HTTP/2 connection was ended with {0:?}")]
pub struct ConnectionClosed(
    /// The code that GOAWAY tells the peer.
    pub ErrorCode,
);

/// The error that a frame causes (RFC 9113, 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// A stream error: the stream is reset.
    Stream(u32, ErrorCode),
    /// A connection error: the connection ends with GOAWAY.
    Connection(ErrorCode),
}
