//! HTTP/2 (RFC 9113) as far as a server of small calls needs it: bytes in, events and bytes out, no I/O.
//!
//! Envoy asks about every request over a few connections that never end, so what HTTP/2 costs is most of what a Check
//! costs. A frame is read where it lies, a field that the client has sent before is a reference into its table, and
//! an answer that fits into the client's windows is three frames written at once.

mod code;
#[cfg(test)]
mod contract;
mod control;
mod field;
mod frame;
mod head;
mod hpack;
mod receiving;
mod sending;
mod session;
#[cfg(test)]
mod tests;
mod work;

pub use code::Code;
pub use head::Head;
pub use hpack::{Decoder, block, write_field};
pub use receiving::{Closed, Event, Opened};
pub use sending::End;
pub use session::{Limits, Session, StreamId};
