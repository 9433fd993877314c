//! The server side of HTTP/2 (RFC 9113) for small requests, without I/O and without a clock.
//!
//! A [`Session`] is one connection. Its driver passes in what was read ([`Session::receive`]),
//! answers the streams that it reports, writes what [`Session::output`] holds, and calls
//! [`Session::tick`] at a steady pace. `README.md` states what a session may take of its process,
//! whatever its peer sends.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod control;
mod error;
mod field;
mod frame;
mod header_block;
mod hpack;
mod limits;
mod memory;
mod pending;
mod receive;
mod request_head;
mod send;
mod session;
mod stall;
mod stream;
#[cfg(test)]
mod tests;
mod tick;
mod work;

pub use error::{ConnectionClosed, ErrorCode};
pub use header_block::HeaderBlock;
#[cfg(any(test, feature = "contract"))]
pub use hpack::DecodeError;
pub use limits::Limits;
pub use memory::{MemoryAccount, MemoryLimits, MemoryPermit, MemoryPool};
pub use pending::EndStream;
pub use receive::{Event, IncomingStream};
pub use request_head::RequestHead;
pub use session::Session;
pub use stream::StreamId;
pub use tick::Timeout;
