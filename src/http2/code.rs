//! What went wrong, in HTTP/2's own words.

/// Error codes (RFC 9113, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Nothing went wrong.
    None = 0x0,
    /// The client broke a rule that has no code of its own.
    Protocol = 0x1,
    /// We did.
    Internal = 0x2,
    /// More was sent than a window has room for.
    FlowControl = 0x3,
    /// A frame came for a stream that had ended.
    StreamClosed = 0x5,
    /// A frame has a length that it must not have.
    FrameSize = 0x6,
    /// Nothing was done about the call: it may be tried again.
    RefusedStream = 0x7,
    /// The table of header fields can't be kept.
    Compression = 0x9,
    /// The client makes work for nothing.
    EnhanceYourCalm = 0xb,
}

/// What a frame is met with that can't be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The end of its stream.
    Stream(u32, Code),
    /// The end of the connection.
    Connection(Code),
}
